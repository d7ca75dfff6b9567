/** What a client knows of its session, from the messages of docs/protocol.md. */
export class Model {
	phase = null;
	locked = false;
	title = "";
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
	/** When the countdown ends by the server's clock; `left` while it stands still; both null without one. */
	endsAt = null;
	left = null;

	#clock;

	constructor(clock) {
		this.#clock = clock;
	}

	/** The phase, or while paused the one that it was paused in. */
	get scene() {
		if (this.phase !== "paused") return this.phase;
		return this.reveal ? "reveal" : this.number ? "question" : "lobby";
	}

	/** Ms until the countdown ends; null without one. */
	get remaining() {
		return this.left ?? (this.endsAt === null ? null : Math.max(this.endsAt - this.#clock.now(), 0));
	}

	/** Answers that are still to be acknowledged, by their question: after a reload they count as given. */
	waiting(pending) {
		for (const { question, choice } of pending)
			if (question === this.number && !this.given) this.given = { choice, saved: false };
	}

	apply(message) {
		switch (message.t) {
			case "joined":
				if (message.player) this.you = { score: 0, rank: null, streak: 0, ...this.you, player: message.player, name: message.name };
			// falls through
			case "over":
				if (message.state) this.#whole(message.state);
				break;
			case "question":
				this.#ask(message, message.number !== this.number);
				this.phase = "question";
				this.#count(message);
				break;
			case "leaderboard":
				Object.assign(this, { top: message.top, players: message.players, answered: message.answered });
				break;
			case "ack":
			case "rejected":
				if (message.question !== this.number) break;
				this.given = { choice: message.choice, saved: message.t === "ack", twice: message.status === "duplicate", refused: message.t === "rejected" && message };
				break;
			case "reveal":
				this.reveal = message;
				this.phase = "reveal";
				this.#count({});
				break;
			case "result":
				this.#score(message);
				break;
			case "state":
				this.phase = message.phase;
				this.locked = message.locked;
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

	#whole(state) {
		const { phase, locked, title, number, of, players, answered, question, reveal, podium, leaderboard, now, you } = state;
		if (question) this.#ask(question, number !== this.number);
		Object.assign(this, { phase, locked, title, number, of, players, answered, reveal, podium, top: leaderboard.top });
		this.#count({ ...question, phase, now });
		if (!you) return;
		this.you = you;
		if (you.answered) this.given = { choice: you.answered.choice, saved: true };
		if (you.result) this.#score(you.result);
	}

	#ask(question, isNew) {
		this.question = question;
		this.number = question.number;
		this.of = question.of;
		if (!isNew) return;
		this.given = this.result = this.reveal = null;
		this.answered = 0;
	}

	#count({ phase = this.phase, remaining_ms: ms, now }) {
		const runs = ms !== null && ms !== undefined;
		this.endsAt = runs && phase === "question" ? (now ?? this.#clock.now()) + ms : null;
		this.left = runs && phase === "paused" ? ms : null;
	}

	#score(result) {
		this.result = result;
		this.you = { ...this.you, score: result.score, rank: result.rank, streak: result.streak };
	}
}
