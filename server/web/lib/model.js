import { orderOfChoices } from "./shuffling.js";

/** Whether the choices of a question are still to come. */
export const withheld = ({ type, choices }) => !choices && /single|multiple/.test(type);

/** What a client knows of its session, from the messages of docs/protocol.md. */
export class Model {
	phase = null;
	locked = false;
	approval = false;
	title = "";
	/** The tag of the quiz's; empty for one that is not known. */
	language = "";
	number = 0;
	of = 0;
	players = 0;
	answered = 0;
	question = null;
	reveal = null;
	top = [];
	podium = null;
	/** Of a player: `{player, name, score, rank, streak}`; null for others. */
	you = null;
	/** Of the current question: what was answered, `{choice, saved, refused}`, and the result after its end. */
	given = null;
	result = null;
	/** Whether every player goes at the own pace. Then the phase here is where this player is: `lobby` between two questions,
	 * and `through` after the last. */
	own = false;
	/** The question before this one, if its time was over: its text and what was right. */
	missed = null;
	/** Which attempt of how many this player is in, and its points; those of the best are in `you`. */
	attempt = 1;
	attempts = 1;
	attemptScore = null;
	/** When the countdown ends by the server's clock; `left` while it stands still; both null without one. */
	endsAt = null;
	left = null;
	/** When the question takes answers by the server's clock, null without one; and how long until then while that
	 * stands still. */
	opensAt = null;
	readyLeft = 0;

	#clock;
	/** The seed of the order in which this player sees choices; null where all see that of the quiz. */
	#shuffle = null;
	/** By how much longer this player's time to answer is, and what the countdown was told last. */
	#extra = 1;
	#told = {};

	constructor(clock) {
		this.#clock = clock;
	}

	/** The time by the server's clock, in ms since the epoch. */
	get now() {
		return this.#clock.now();
	}

	/** The phase, or while paused the one that it was paused in. */
	get scene() {
		if (this.phase !== "paused") return this.phase;
		return this.reveal ? "reveal" : this.number ? "question" : "lobby";
	}

	/** Ms until the countdown ends; null without one. */
	get remaining() {
		return this.left ?? (this.endsAt === null ? null : Math.max(this.endsAt - Math.max(this.#clock.now(), this.opensAt), 0));
	}

	/** Ms until the question takes answers; 0 once it does, and without one. */
	get ready() {
		return this.left === null ? Math.max((this.opensAt ?? 0) - this.#clock.now(), 0) : this.readyLeft;
	}

	/** Whether everybody gets ready: its choices are not to be seen yet, or not even here. */
	get getting() {
		return this.ready > 0 || Boolean(this.question && withheld(this.question));
	}

	/** What tells this question from those before it, in this attempt and in others. */
	get turn() {
		return `${this.attempt}.${this.number}`;
	}

	/** Whether this player may begin another attempt. */
	get mayPlayAgain() {
		return this.phase === "through" && this.attempt < this.attempts;
	}

	/** Answers that are still to be acknowledged, by their question: after a reload they count as given. */
	waiting(pending) {
		for (const { question, choice, attempt = 1 } of pending)
			if (question === this.number && attempt === this.attempt && !this.given) this.given = { choice, saved: false };
	}

	apply(message) {
		switch (message.t) {
			case "joined":
				this.#shuffle = message.shuffle ?? null;
				this.#extra = message.extra_time ?? 1;
				if (message.player) this.you = { score: 0, rank: null, streak: 0, ...this.you, player: message.player, name: message.name };
			// falls through
			case "over":
				if (message.state) this.#whole(message.state);
				break;
			case "question":
				this.missed = message.missed ? { question: this.question, ...message.missed } : null;
				this.#ask(message);
				this.phase = "question";
				this.#count(message);
				break;
			case "leaderboard":
				Object.assign(this, { top: message.top, players: message.players, answered: message.answered });
				break;
			case "progress":
				if (this.own) Object.assign(this, { players: message.players, answered: message.answered, shown: message.shown, answers: message.answers });
				else if (message.number === this.number) Object.assign(this, { players: message.players, answered: message.answered });
				break;
			case "ack":
			case "rejected":
				if (message.question !== this.number || (message.attempt ?? 1) !== this.attempt) break;
				this.given = { choice: message.choice, saved: message.t === "ack", twice: message.status === "duplicate", refused: message.t === "rejected" && message };
				if (message.result) this.#tell(message.result);
				break;
			case "done_all":
				this.phase = "through";
				Object.assign(this.you, { score: message.score, rank: message.rank });
				Object.assign(this, { players: message.players, review: message.review, attemptScore: message.attempt_score });
				this.#count({});
				break;
			case "reveal":
				this.reveal = message;
				this.phase = "reveal";
				this.#count({});
				break;
			case "result":
				this.#score(message);
				break;
			case "extra_time":
				this.#extra = message.factor;
				this.#count(this.#told);
				break;
			case "state":
				if (this.own) {
					this.closesAt = message.closes_at;
					break;
				}
				this.phase = message.phase;
				Object.assign(this, { locked: message.locked, approval: message.approval });
				if (message.extended_ms) this.extended = message.number;
				this.#count(message);
				break;
			case "finished":
				this.phase = "finished";
				this.podium = message.podium;
				if (this.you) Object.assign(this.you, message.you);
				this.#count({});
				break;
		}
	}

	#whole({ question, leaderboard, now, you, ...rest }) {
		if (question) this.#ask(question);
		Object.assign(this, rest, { top: leaderboard.top });
		if (rest.phase === "open") {
			this.own = true;
			[this.opensFrom, this.closesAt] = [rest.opens_at, rest.closes_at];
			this.phase = question ? "question" : you?.done ? "through" : "lobby";
			this.review = you?.review;
			this.attemptScore = you?.attempt_score;
			if (you?.attempt && !question) this.attempt = you.attempt;
		}
		this.#count({ ...question, now });
		if (!you) return;
		this.you = you;
		if (you.answered) this.given = { choice: you.answered.choice, saved: true };
		if (you.result) this.#score(you.result);
	}

	/** The result of the question that was answered just now, to this player alone. */
	#tell(result) {
		this.reveal = { number: result.number, correct: result.answer };
		this.phase = "reveal";
		this.#score(result);
		this.#count({});
	}

	/** Whether this player may go on to the next question. */
	get mayGoOn() {
		if (!this.own || !this.you || this.phase === "through" || this.phase === "finished") return false;
		if (this.phase !== "question") return this.#clock.now() >= this.opensFrom;
		return Boolean(this.given?.saved || this.given?.refused) || this.remaining === 0;
	}

	#ask(question) {
		const { number, of, attempt = 1 } = question;
		const isAnother = number !== this.number || attempt !== this.attempt;
		// At the own pace a question is only shown again as long as it may be answered: there is more time than there was.
		if (isAnother || (this.own && this.given?.refused)) Object.assign(this, { given: null, result: null, reveal: null, answered: 0 });
		const order = this.#shuffle === null || !question.choices ? null : orderOfChoices(this.#shuffle, number, question.choices.length);
		Object.assign(this, { question: { ...question, order }, number, of, attempt });
	}

	/** The time to answer, in ms. */
	get limit() {
		return this.question.limit_ms * this.#extra;
	}

	/** Whether this player joined too late for the question, and only watches it. */
	get watching() {
		return this.number > 0 && this.you?.watches === this.number;
	}

	#count(told) {
		const { phase = this.phase, remaining_ms: left, over_ms: over = 0, opens_in_ms: ready = 0, now = this.#clock.now() } = (this.#told = told);
		const has = left !== null && left !== undefined;
		const ms = has && Math.max(left - over + this.limit - this.question.limit_ms, 0);
		this.opensAt = has && phase === "question" ? now + ready : null;
		this.endsAt = this.opensAt === null ? null : this.opensAt + ms;
		[this.left, this.readyLeft] = has && phase === "paused" ? [ms, ready] : [null, 0];
	}

	#score(result) {
		const { score, rank, streak } = (this.result = result);
		Object.assign(this.you, { score, rank, streak });
	}
}
