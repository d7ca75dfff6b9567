import { ask, passing } from "./api.js";
import { ServerClock } from "./clock.js";

/** How to come back after a WebSocket has ended, by its close code: docs/protocol.md. All others are "later". */
const RECONNECT = { 4006: "resume", 4007: "resume", 4009: "move", 4013: "resume" };
for (const code of [1002, 1003, 1007, 1009, 4000, 4001, 4002, 4003, 4012]) RECONNECT[code] = "no";
const ANSWER_MS = 10_000;
const QUIET_MS = 2_500;
const STREAM_MS = 12_000;
const WAKES = ["online", "offline", "pageshow", "visibilitychange"];
/** What takes no offset. */
const PASSING = /^leaderboard$|^progress$/;
const EVENTS = ["joined", "question", "leaderboard", "progress", "reveal", "result", "state", "finished", "roster", "waiting_list", "extra_time", "alive"];

/** Whether this page may connect there: one that came by TLS may not go without. */
const allowed = (url) => location.protocol !== "https:" || /^(https|wss):/.test(url);

const soon = () => 1_000 + 1_000 * Math.random();

/** A client's connection to one session: a WebSocket or, where those are blocked, server-sent events and requests.
 * It comes back by itself, and sends again what was not acknowledged.
 *
 * `on.message(message)` for each message; `on.status(status, detail)` with status `connecting`, `open`, `waiting`
 * (for the network or the server; `detail` is the moment of the next try) or `ended` (`detail` is why);
 * `on.pending()` when answers were taken, acknowledged or refused. */
export class Connection {
	clock = new ServerClock();
	pending = new Map();
	status = "connecting";
	/** Whether it has ever been open. */
	met = false;
	/** What the server has said why not now; null without. */
	why = null;
	#code;
	#path;
	#who;
	#on;
	place = null;
	#lookAgain = true;
	#known = [];
	#at = 0;
	#moved = null;
	#stand = {};
	#socket = null;
	#events = null;
	#round = 0;
	#tries = 0;
	#blocked = 0;
	#timer = 0;
	#watch = 0;
	#heardAt = 0;
	#posting = false;

	/** `who`: `{token}`, or `{name, former}` of a new player (no `name` where players are given one), or `{role: "spectator"}`;
	 * `pending`: answers of an earlier load. */
	constructor(code, who, on, pending = []) {
		this.#code = code;
		this.#path = `/api/sessions/${code}`;
		this.#who = who;
		this.#on = on;
		for (const each of pending) this.pending.set(each.id, each);
		for (const name of WAKES) addEventListener(name, this.#onWake); // visibilitychange bubbles
		queueMicrotask(() => this.#attempt());
	}

	get token() {
		return this.#who.token;
	}

	get #overSocket() {
		return this.#socket && this.status === "open";
	}

	/** Keeps an answer until the server has acknowledged or refused it. */
	answer(question, choice) {
		const answer = { id: `${Date.now()}.${Math.random()}`, question, choice };
		this.pending.set(answer.id, answer);
		this.#on.pending?.();
		this.#send(answer);
	}

	/** Asks for the next question, where players go at their own pace. */
	async next() {
		if (this.#overSocket) return this.#say({ t: "next" });
		const step = await ask("POST", `${this.#path}/next`, { token: this.token }).catch((error) => passing(error) || this.#end(error));
		if (step?.t) this.#hear(step);
	}

	// -- coming in

	async #attempt() {
		this.#drop();
		this.#tell("connecting"); // whatever `navigator.onLine` says: the node may be on this device
		const round = this.#round;
		const reachable = !this.#lookAgain || (await this.#look());
		if (round !== this.#round) return;
		this.#patience(ANSWER_MS, () => this.#later());
		const url = this.#known[this.#at % this.#known.length];
		if (reachable && (this.#blocked >= (this.met ? 2 : 1) || !allowed(url))) this.#overHttp(round);
		else if (url && allowed(url)) this.#overWebSocket(url, reachable);
		else this.#later();
	}

	/** Asks where the session is, unless it is over and only kept. False if nobody can say. */
	async #look(isOver) {
		try {
			this.place = await ask("GET", this.#path, { token: this.token });
		} catch (error) {
			if (!passing(error)) this.#end(error);
			else if (error.message) this.why = error;
			return false;
		}
		const { ws_url: url, state, epoch } = this.place;
		if (isOver || (state.phase === "finished" && epoch === null)) {
			if (state.podium) this.#on.message({ t: "over", state }); // which is for those who were there
			this.#end({ code: "session_finished" });
		}
		this.#go(url);
		return true;
	}

	#go(url) {
		if (!this.#known.includes(url)) this.#known.push(url);
		this.#at = this.#known.indexOf(url);
	}

	#overWebSocket(url, reachable) {
		const socket = (this.#socket = new WebSocket(url, "fanfare.v1"));
		let opened = false;
		socket.onopen = () => {
			opened = true;
			this.#blocked = 0;
			this.#join();
		};
		socket.onmessage = ({ data }) => socket === this.#socket && this.#hear(JSON.parse(data));
		socket.onclose = ({ code, reason }) => {
			if (socket !== this.#socket) return;
			if (!opened && reachable) {
				this.#blocked += 1; // the server is there, but not by WebSocket
				if (!this.met) return this.#again(0);
			}
			this.#lost(RECONNECT[code] ?? "later", reason);
		};
	}

	#join() {
		this.#say({ t: "join", code: this.#code, ...this.#who, ...this.#stand });
	}

	/** The host has yet to let the player in: it asks again until then. */
	#wait({ ticket }) {
		this.#who = { ...this.#who, ticket };
		this.#on.message({ t: "waiting", who: this.#who });
		this.#on.status("open");
	}

	async #overHttp(round) {
		if (!this.token && !this.#who.role) {
			const made = await ask("POST", `${this.#path}/players`, { body: this.#who }).catch((error) => error);
			if (made.token) this.#who = { token: made.token };
			if (round !== this.#round) return;
			if (made.ticket) {
				this.#wait(made);
				return this.#again(made.again_ms);
			}
			if (!made.token) return passing(made) ? this.#later() : this.#end(made);
		}
		// The realtime port answers events at less cost, but may be as blocked as its WebSockets.
		const base = this.#tries % 2 || !allowed(this.place.play_url) ? location.origin : this.place.play_url;
		const query = this.token ? `?token=${encodeURIComponent(this.token)}` : "";
		const events = (this.#events = new EventSource(`${base}${this.#path}/events${query}`));
		for (const name of EVENTS) events.addEventListener(name, ({ data }) => this.#hear(JSON.parse(data)));
		events.addEventListener("close", ({ data }) => {
			const { reason, reconnect } = JSON.parse(data);
			this.#lost(reconnect, reason);
		});
		events.onerror = () => {
			if (events !== this.#events) return;
			if (base === location.origin) this.#blocked = 0; // all ways in vain: the first one again
			this.#later();
			if (!this.token) return;
			// An event stream does not tell why it was refused.
			ask("GET", `${this.#path}/leaderboard?around=me`, { token: this.token }).catch((error) => /kicked|token|found|finished/.test(error.code) && this.#end(error));
		};
	}

	// -- messages

	#hear(message) {
		this.#heardAt = performance.now();
		const now = (message.state ?? message).now;
		if (now && message.t !== "pong") this.clock.heard(now);
		if (message.offset !== undefined && !PASSING.test(message.t)) this.#stand.offset = message.offset;
		switch (message.t) {
			case "joined":
				return this.#joined(message);
			case "pong":
				return this.clock.measured(message.at, this.#heardAt, message.now);
			case "waiting":
				this.#wait(message);
				this.#patience(message.again_ms + ANSWER_MS, () => this.#later());
				return (this.#timer = setTimeout(() => this.#join(), message.again_ms));
			case "moved":
				return (this.#moved = message);
			case "ack":
				return this.#settle(message.id, message);
			case "error":
				return this.#refused(message);
			case "alive":
				return;
		}
		this.#on.message(message);
	}

	#joined(message) {
		if (message.token) this.#who = { token: message.token };
		this.#stand = { epoch: message.epoch, offset: message.state ? message.offset : this.#stand.offset };
		this.#tries = 0;
		this.#lookAgain = false;
		this.met = true;
		this.why = null;
		this.#watchOver();
		this.#on.message(message);
		this.#tell("open");
		for (const after of [0, 1_000, 3_000]) setTimeout(() => this.#ping(), after);
		for (const answer of this.pending.values()) this.#send(answer);
	}

	#refused(error) {
		if (this.pending.has(error.id)) {
			if (!passing(error)) return this.#settle(error.id, error);
			return setTimeout(() => this.#send(this.pending.get(error.id)), soon());
		}
		if (this.status === "open") return;
		if (passing(error)) {
			this.why = error;
			this.#later();
		} else if (error.code === "session_finished" && this.token) this.#look(true);
		else this.#end(error);
	}

	#settle(id, outcome) {
		const answer = this.pending.get(id);
		if (!answer) return;
		this.pending.delete(id);
		this.#on.message({ ...outcome, ...answer, t: outcome.t === "ack" ? "ack" : "rejected" });
		this.#on.pending?.();
	}

	#send(answer) {
		if (!answer || !this.pending.has(answer.id)) return;
		if (this.#overSocket) this.#say({ t: "answer", ...answer });
		else this.#post();
	}

	/** The answers that wait, over HTTP: where there are no WebSockets, or while one is coming back. */
	async #post() {
		if (this.#posting || !this.token) return;
		const nearest = allowed(this.place?.play_url) ? this.place.play_url : "";
		this.#posting = true;
		for (let base = nearest; this.pending.size && !this.#overSocket; ) {
			const [answer] = this.pending.values();
			try {
				this.#settle(answer.id, await ask("POST", `${this.#path}/answers`, { body: answer, token: this.token, base }));
			} catch (error) {
				if (!passing(error)) this.#settle(answer.id, error);
				else if (this.status === "ended") break;
				else await new Promise((go) => setTimeout(go, soon()));
				base = base ? "" : nearest;
			}
		}
		this.#posting = false;
	}

	// -- going and coming back

	#say(message) {
		if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
	}

	#ping() {
		this.#say({ t: "ping", at: performance.now() });
	}

	/** Asks a quiet socket for a sign of life. Event streams have their own. */
	#watchOver() {
		const left = this.#heardAt - performance.now() + (this.#socket ? QUIET_MS : STREAM_MS);
		if (left > 0) this.#patience(left + 50, () => this.#watchOver());
		else if (this.#socket) this.#prove(5);
		else this.#lost("resume");
	}

	/** If others know the session, only the socket is dead. */
	#prove(tries) {
		const before = this.#heardAt;
		this.#ping();
		const look = () => {
			if (this.#heardAt !== before) return this.#watchOver();
			if (--tries < 0) return this.#lost("resume");
			this.#look().then((there) => there && this.#overSocket && this.#heardAt === before && this.#lost("resume"));
			this.#patience(1_000, look);
		};
		this.#patience(1_000, look);
	}

	#patience(ms, then) {
		clearTimeout(this.#watch);
		this.#watch = setTimeout(then, ms);
	}

	/** The network or the screen is back, or the network is gone. */
	#onWake = ({ type }) => {
		if (this.status === "waiting") {
			if (type === "offline") return;
			clearTimeout(this.#timer);
			this.#attempt();
		} else if (this.status === "open" && (type === "offline" || document.visibilityState === "visible")) {
			this.clock.forget();
			if (this.#socket) this.#prove(1);
			else if (performance.now() - this.#heardAt > STREAM_MS) this.#attempt();
		}
	};

	#lost(how, reason) {
		this.#drop();
		if (how === "no") return this.#end({ code: reason || "closed" });
		if (how === "move" && this.#moved) {
			this.#go(this.#moved.url);
			this.#again(this.#moved.after_ms);
			this.#moved = null;
		} else if (how === "resume" && this.#tries === 0) {
			this.#tries = 1;
			this.#again(250 * Math.random());
		} else this.#later();
	}

	/** After 0.5 to 3 s, doubling from the third failure in a row, at most 30 s; elsewhere if another address is known. */
	#later() {
		this.#drop();
		this.#tries += 1;
		this.#at += 1;
		this.#lookAgain = true;
		this.#again(Math.min((500 + 2_500 * Math.random()) * 2 ** Math.max(this.#tries - 3, 0), 30_000));
	}

	#again(ms) {
		clearTimeout(this.#timer);
		this.#timer = setTimeout(() => this.#attempt(), ms);
		this.#tell("waiting", Date.now() + ms);
		if (this.pending.size) this.#post();
	}

	#end(error) {
		if (this.status === "ended") return;
		this.#drop();
		clearTimeout(this.#timer);
		for (const name of WAKES) removeEventListener(name, this.#onWake);
		this.#tell("ended", error);
	}

	#drop() {
		this.#round += 1;
		clearTimeout(this.#watch);
		clearTimeout(this.#timer);
		const socket = this.#socket;
		this.#socket = null;
		socket?.close();
		this.#events?.close();
		this.#events = null;
	}

	#tell(status, detail) {
		this.status = status;
		this.#on.status(status, detail);
	}
}
