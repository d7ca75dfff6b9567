/**
 * The client of Fanfare for browsers, workers and Node: a session's events, and requests that survive the network.
 *
 * How to think about it: a `Connection` is one seat in one session. WebSockets and event streams come and go under it;
 * what it knows (its token, where it stands in the stream, answers without an `ack`) stays, and what a new one needs is
 * told to the node again. `docs/protocol.md` of Fanfare has the rules that this file keeps.
 *
 * @module
 */

/** @typedef {import("./fanfare.d.ts").Message} Message */
/** @typedef {import("./fanfare.d.ts").PendingAnswer} PendingAnswer */
/** @typedef {import("./fanfare.d.ts").ConnectOptions} ConnectOptions */
/** @typedef {import("./fanfare.d.ts").Connection} Shape */
/** @typedef {{ t: string, body: Record<string, any>, resolve: (reply: any) => void, reject: (error: FanfareError) => void, isSent?: boolean }} Asked */

const REQUEST_MS = 20_000;
const ANSWER_MS = 10_000;
const QUIET_MS = 2_500;
const STREAM_MS = 12_000;
const PINGS_MS = [0, 1_000, 3_000];
const OPEN = 1;
const WAKES = ["online", "offline", "pageshow", "visibilitychange"];
const PASSING = /^(unreachable|busy|internal|rate_limited|too_many_(attempts|connections)|identity_unavailable|(request|join)_timeout)$/;
/** What takes no offset. */
const UNNUMBERED = /^(leaderboard|progress)$/;
/** The host's commands that are about what the host saw. */
const EXPECTING = /^(start|next|close|skip)$/;

/**
 * How to come back after a WebSocket has ended, by its close code. All others are "later".
 * @type {Record<number, "resume" | "move" | "no">}
 */
const RECONNECT = { 4006: "resume", 4007: "resume", 4009: "move", 4013: "resume" };
for (const code of [1002, 1003, 1007, 1009, 4000, 4001, 4002, 4003, 4012]) RECONNECT[code] = "no";

/** A page that came by TLS may not connect without it. @param {string | undefined} url */
const isAllowed = (url) => Boolean(url) && (globalThis.location?.protocol !== "https:" || /^(https|wss):/.test(/** @type {string} */ (url)));

const soon = () => 1_000 + 1_000 * Math.random();

const newId = () => `${Date.now()}.${Math.random()}`;

/** A refusal of the node, or `unreachable` when there was no answer. `code` is stable; `message` is for a person. */
export class FanfareError extends Error {
	/** @param {{ code: string, message?: string, path?: string }} told */
	constructor({ code, message, path }) {
		super(message ?? "");
		this.name = "FanfareError";
		this.code = code;
		/** The member of the request that the error is about. */
		this.path = path;
	}

	/** Whether the same request may go through a little later. */
	get isTemporary() {
		return PASSING.test(this.code);
	}
}

/** Whether an answer that is refused for this may be taken later. @param {FanfareError} error */
const mayPass = (error) => error.isTemporary || error.code === "not_open_yet";

/** How a request names an attempt: the first goes without saying. @param {number} attempt @returns {{ attempt?: number }} */
const naming = (attempt) => (attempt > 1 ? { attempt } : {});

/** @param {any} error @returns {FanfareError} */
const asError = (error) => (error instanceof FanfareError ? error : new FanfareError({ code: "unreachable", message: error?.message }));

/** @param {Response} response */
const refusal = async (response) => new FanfareError((await response.json().catch(() => ({}))).error ?? { code: "internal" });

/**
 * One request to the HTTP API. `body` is sent as JSON, or as it is when `type` names its media type.
 * Throws a FanfareError.
 * @param {string} method
 * @param {string} path
 * @param {{ body?: any, token?: string, base?: string, type?: string }} [options]
 * @returns {Promise<any>}
 */
export async function request(method, path, { body, token, base = "", type } = {}) {
	/** @type {Record<string, string>} */
	const headers = {};
	if (token) headers.Authorization = `Bearer ${token}`;
	if (body) headers["Content-Type"] = type ?? "application/json";
	let response, data;
	try {
		response = await fetch(base + path, {
			method,
			headers,
			body: type ? body : JSON.stringify(body),
			signal: AbortSignal.timeout(REQUEST_MS),
		});
		data = await response.json();
	} catch {
		throw new FanfareError({ code: "unreachable" });
	}
	if (!response.ok) throw new FanfareError(data.error ?? { code: "internal" });
	return data;
}

/** The server's clock as seen from here, in ms. The device's own time of day is never asked. */
export class ServerClock {
	#ahead = -Infinity;
	#roundTrip = Infinity;

	now() {
		return performance.now() + this.#ahead;
	}

	/**
	 * A `pong`: asked for and received at these times of `performance.now()`. The quickest one tells best.
	 * @param {number} asked
	 * @param {number} received
	 * @param {number} now
	 */
	measured(asked, received, now) {
		if (received - asked > this.#roundTrip) return;
		this.#roundTrip = received - asked;
		this.#ahead = now - (asked + received) / 2;
	}

	/** Something that was said at `now`: the server is at least that far ahead. @param {number} now */
	heard(now) {
		this.#ahead = Math.max(this.#ahead, now - performance.now());
	}

	/** A network that has changed may be slower: measure anew. */
	forget() {
		this.#roundTrip = Infinity;
	}
}

/**
 * Joins a session. Returns at once; `joined` of what it returns is the promise.
 * @param {ConnectOptions} options
 */
export function connect(options) {
	return new Connection(options);
}

/**
 * One seat in one session: over a WebSocket or, where those are blocked or missing, over server-sent events and requests.
 * It comes back by itself, and sends again what was not acknowledged. Made by `connect`.
 * @implements {Shape}
 */
export class Connection {
	clock = new ServerClock();
	/** Answers without an acknowledgement, by their id. @type {Map<string, PendingAnswer>} */
	pending = new Map();
	/** @type {"connecting" | "open" | "waiting" | "ended"} */
	status = "connecting";
	/** Whether it has ever been open. */
	met = false;
	/** Why the node does not let this seat in just now. @type {FanfareError | null} */
	why = null;
	/** The session as `GET /api/sessions/{code}` shows it. @type {any} */
	place = null;
	/** The first `joined`. @type {Promise<any>} */
	joined;
	#code;
	#url;
	#path;
	/** @type {Record<string, any>} */
	#who;
	#WebSocket;
	/** @type {Map<string, Set<(event: any) => void>>} */
	#listeners = new Map();
	/** Requests without a reply, by their id. @type {Map<string, Asked>} */
	#asked = new Map();
	/** The question and phase that were heard of last. @type {{ number: number, phase: string } | null} */
	#seen = null;
	/** When the question of this number takes answers, by `performance.now()`. @type {{ number: number, at: number } | null} */
	#opens = null;
	/** Which attempt this player is in, if it is not the first. @type {{ attempt?: number }} */
	#nth = {};
	/** @type {FanfareError | null} */
	#over = null;
	#lookAgain = true;
	/** @type {string[]} */
	#known = [];
	#at = 0;
	/** @type {any} */
	#moved = null;
	/** @type {{ epoch?: number, offset?: number }} */
	#stand = {};
	/** @type {WebSocket | null} */
	#socket = null;
	/** @type {AbortController | null} */
	#stream = null;
	#round = 0;
	#tries = 0;
	#blocked = 0;
	/** @type {any} */
	#timer = 0;
	/** @type {any} */
	#watch = 0;
	/** @type {any[]} */
	#pings = [];
	#heardAt = 0;
	#posting = false;
	#welcome = () => {};
	/** @param {FanfareError} _error */
	#unwelcome = (_error) => {};

	/** @param {ConnectOptions} options */
	constructor({ url = globalThis.location?.origin, code, pending = [], WebSocket = globalThis.WebSocket, ...who }) {
		if (!url) throw new TypeError("connect needs the `url` of a node");
		this.#code = code;
		this.#url = url.replace(/\/+$/, "");
		this.#path = `/api/sessions/${code}`;
		this.#who = who;
		this.#WebSocket = WebSocket;
		for (const each of pending) this.pending.set(each.id, each);
		this.joined = new Promise((resolve, reject) => {
			this.#welcome = /** @type {any} */ (resolve);
			this.#unwelcome = reject;
		});
		this.joined.catch(() => {}); // `status` tells of it too
		for (const name of WAKES) globalThis.addEventListener?.(name, this.#onWake); // visibilitychange bubbles
		queueMicrotask(() => this.#attempt());
	}

	get code() {
		return this.#code;
	}

	/** What this seat comes back with. @returns {string | undefined} */
	get token() {
		return this.#who.token;
	}

	get #overSocket() {
		return this.#socket !== null && this.status === "open";
	}

	/**
	 * Calls `listener` with each event of a type; `message` is every message. Returns what takes it away again.
	 * @param {string} type
	 * @param {(event: any) => void} listener
	 * @returns {() => void}
	 */
	on(type, listener) {
		const listeners = this.#listeners.get(type) ?? new Set();
		this.#listeners.set(type, listeners.add(listener));
		return () => void listeners.delete(listener);
	}

	/** @param {string} type @param {any} event */
	#emit(type, event) {
		for (const listener of this.#listeners.get(type) ?? []) listener(event);
	}

	/** @param {any} message */
	#pass(message) {
		this.#emit(message.t, message);
		this.#emit("message", message);
	}

	/**
	 * Answers a question, and keeps the answer until the node has acknowledged or refused it. A question that is shown but
	 * takes no answers yet gets it when it opens. A refusal is an event too (`rejected`), so that the promise may be left alone.
	 * @param {number} question
	 * @param {import("./fanfare.d.ts").Choice} choice
	 * @returns {Promise<any>}
	 */
	answer(question, choice) {
		const answer = { id: newId(), question, choice, ...this.#nth };
		if (this.#over) return this.#expect("answer", answer);
		const promise = this.#expect("answer", answer);
		this.pending.set(answer.id, answer);
		this.#emit("pending", this.pending);
		this.#send(answer);
		return promise;
	}

	/**
	 * Asks for the next question, where players go at their own pace: of the attempt that this player is in, or of another one,
	 * which begins with that if the one before is over.
	 * @param {number} [attempt]
	 * @returns {Promise<any>}
	 */
	next(attempt) {
		return this.#request("next", { id: newId(), ...(attempt ? naming(attempt) : this.#nth) });
	}

	/**
	 * One of the host's commands, sent once. `start`, `next`, `close` and `skip` say what this host saw, unless `members` does.
	 * Without a reply it rejects with `unreachable`: then it may have been carried out or not.
	 * @param {string} what
	 * @param {Record<string, any>} [members]
	 * @returns {Promise<any>}
	 */
	host(what, members = {}) {
		const expect = EXPECTING.test(what) && this.#seen ? { expect: this.#seen } : {};
		return this.#request("host", { id: newId(), do: what, ...expect, ...members });
	}

	/** Ends it. A player has the seat until the session ends, and comes back to it with the token. */
	leave() {
		this.#say({ t: "leave" });
		this.#end(new FanfareError({ code: "left" }));
	}

	// -- coming in

	async #attempt() {
		this.#drop();
		this.#tell("connecting"); // whatever `navigator.onLine` says: the node may be on this device
		const round = this.#round;
		const isReachable = !this.#lookAgain || (await this.#look());
		if (round !== this.#round) return;
		this.#patience(ANSWER_MS, () => this.#later());
		const url = this.#known[this.#at % this.#known.length];
		const mayOpen = this.#WebSocket && isAllowed(url);
		if (isReachable && (this.#blocked >= (this.met ? 2 : 1) || !mayOpen)) this.#overHttp(round);
		else if (mayOpen) this.#openSocket(url, isReachable);
		else this.#later();
	}

	/** Asks where the session is, unless it is over and only kept. False if nobody can say. @param {boolean} [isOver] */
	async #look(isOver) {
		try {
			this.place = await request("GET", this.#path, { token: this.token, base: this.#url });
		} catch (thrown) {
			const error = asError(thrown);
			if (!error.isTemporary) this.#end(error);
			else if (error.message) this.why = error;
			return false;
		}
		const { ws_url: url, state, epoch } = this.place;
		if (isOver || (state.phase === "finished" && epoch === null)) {
			if (state.podium) this.#pass({ t: "over", state }); // which is for those who were there
			this.#end(new FanfareError({ code: "session_finished" }));
		}
		this.#go(url);
		return true;
	}

	/** @param {string} url */
	#go(url) {
		if (!this.#known.includes(url)) this.#known.push(url);
		this.#at = this.#known.indexOf(url);
	}

	/** @param {string} url @param {boolean} isReachable */
	#openSocket(url, isReachable) {
		const socket = (this.#socket = new /** @type {any} */ (this.#WebSocket)(url, "fanfare.v1"));
		let opened = false;
		socket.onopen = () => {
			opened = true;
			this.#blocked = 0;
			if (socket === this.#socket) this.#join();
		};
		socket.onmessage = (/** @type {any} */ { data }) => socket === this.#socket && this.#read(data);
		socket.onerror = () => {}; // `onclose` follows
		socket.onclose = (/** @type {any} */ { code, reason }) => {
			if (socket !== this.#socket) return;
			if (!opened && isReachable) {
				this.#blocked += 1; // the server is there, but not by WebSocket
				if (!this.met) return this.#again(0);
			}
			this.#lost(RECONNECT[code] ?? "later", reason);
		};
	}

	#join() {
		this.#say({ t: "join", code: this.#code, ...this.#who, ...this.#stand });
	}

	/** The host has yet to let the player in: it asks again until then. @param {any} told */
	#wait({ ticket }) {
		this.#who = { ...this.#who, ticket };
		this.#pass({ t: "waiting", who: this.#who });
		this.#emit("status", { status: "open", until: null, error: null });
	}

	/** @param {number} round */
	async #overHttp(round) {
		if (!this.token && !this.#who.role) {
			const made = await request("POST", `${this.#path}/players`, { body: this.#who, base: this.#url }).catch(asError);
			if (made.token) this.#who = { token: made.token };
			if (round !== this.#round) return;
			if (made.ticket) {
				this.#wait(made);
				return this.#again(made.again_ms);
			}
			if (!made.token) return made.isTemporary ? this.#later() : this.#end(made);
		}
		// The realtime port answers events at less cost, but may be as blocked as its WebSockets.
		const base = this.#tries % 2 || !isAllowed(this.place.play_url) ? this.#url : this.place.play_url;
		const stream = (this.#stream = new AbortController());
		try {
			await this.#listen(base, stream.signal);
			if (stream === this.#stream) this.#later();
		} catch (thrown) {
			if (stream !== this.#stream) return;
			const error = asError(thrown);
			if (!error.isTemporary) return this.#refusedJoin(error);
			if (base === this.#url) this.#blocked = 0; // all ways in vain: the first one again
			this.#later();
		}
	}

	/** Takes in an event stream until it ends. @param {string} base @param {AbortSignal} signal */
	async #listen(base, signal) {
		/** @type {Record<string, string>} */
		const headers = { Accept: "text/event-stream" };
		if (this.token) headers.Authorization = `Bearer ${this.token}`;
		const { epoch, offset } = this.#stand;
		if (epoch !== undefined) headers["Last-Event-ID"] = `${epoch}:${offset}`;
		const response = await fetch(`${base}${this.#path}/events`, { headers, signal, cache: "no-store" });
		if (!response.ok || !response.body) throw await refusal(response);
		const reader = response.body.getReader();
		const decoder = new TextDecoder();
		for (let text = ""; ; ) {
			const { done, value } = await reader.read();
			if (done || signal.aborted) return;
			const events = (text + decoder.decode(value, { stream: true })).split("\n\n");
			text = /** @type {string} */ (events.pop());
			for (const event of events) {
				const data = /^data: (.*)$/m.exec(event);
				if (data && !signal.aborted) this.#read(data[1]);
			}
		}
	}

	// -- messages

	/** @param {string} data */
	#read(data) {
		let message;
		try {
			message = JSON.parse(data);
		} catch {}
		if (typeof message?.t === "string") this.#hear(message);
		else this.#later(); // this is not the protocol: whatever is in front of the node says it
	}

	/** @param {any} message @returns {void} */
	#hear(message) {
		this.#heardAt = performance.now();
		const state = message.state ?? message;
		if (state.now && message.t !== "pong") this.clock.heard(state.now);
		if (message.offset !== undefined && !UNNUMBERED.test(message.t)) this.#stand.offset = message.offset;
		switch (message.t) {
			case "joined":
				return this.#enter(message);
			case "pong":
				return this.clock.measured(message.at, this.#heardAt, message.now);
			case "waiting":
				this.#wait(message);
				this.#patience(message.again_ms + ANSWER_MS, () => this.#later());
				this.#timer = setTimeout(() => this.#join(), message.again_ms);
				return;
			case "moved":
				this.#moved = message;
				return;
			case "close":
				return this.#lost(message.reconnect, message.reason);
			case "ack":
				return this.#settle(message.id, message);
			case "error":
				return this.#refused(message);
			case "alive":
				return;
		}
		this.#notice(message);
		if (message.id !== undefined) this.#reply(message.id, message);
		this.#pass(message);
	}

	/** What a host's command will be about. @param {any} message */
	#notice({ t, number, phase, opens_in_ms, attempt, you }) {
		this.#nth = naming(Math.max(attempt ?? you?.attempt ?? 1, this.#nth.attempt ?? 1));
		if (t === "question" || t === "reveal") this.#seen = { number, phase: t };
		else if (t === "state") this.#seen = { number, phase };
		if (typeof opens_in_ms === "number") this.#opens = { number, at: performance.now() + opens_in_ms };
	}

	/** How long a question takes no answers yet, in ms. @param {number} number */
	#opensIn(number) {
		return this.#opens?.number === number ? this.#opens.at - performance.now() : 0;
	}

	/** @param {any} message */
	#enter(message) {
		if (message.token) this.#who = { token: message.token };
		this.#stand = { epoch: message.epoch, offset: message.state ? message.offset : this.#stand.offset };
		if (message.state) this.#notice({ ...message.state, t: "state" });
		this.#tries = 0;
		this.#lookAgain = false;
		this.met = true;
		this.why = null;
		this.#watchOver();
		this.#pass(message);
		this.#tell("open");
		/** @type {(message: any) => void} */ (this.#welcome)(message);
		this.#pings = PINGS_MS.map((after) => setTimeout(() => this.#ping(), after));
		for (const answer of [...this.pending.values()]) this.#send(answer);
		for (const [id, { t, isSent }] of this.#asked) if (t === "next" || (t === "host" && !isSent)) this.#transmit(id);
	}

	/** @param {any} told */
	#refused(told) {
		const error = new FanfareError(told);
		if (this.pending.has(told.id)) {
			if (!mayPass(error)) return this.#settle(told.id, told);
			setTimeout(() => this.#send(this.pending.get(told.id)), soon());
		} else if (this.#asked.has(told.id)) this.#reply(told.id, error);
		else if (this.status !== "open") this.#refusedJoin(error);
	}

	/** @param {FanfareError} error */
	#refusedJoin(error) {
		if (error.isTemporary) {
			this.why = error;
			this.#later();
		} else if (error.code === "session_finished" && this.token) this.#look(true);
		else this.#end(error);
	}

	/** @param {string} id @param {any} outcome */
	#settle(id, outcome) {
		const answer = this.pending.get(id);
		if (!answer) return;
		this.pending.delete(id);
		const isTaken = outcome.t === "ack";
		const { code, message, path } = outcome;
		this.#pass(isTaken ? { ...outcome, ...answer, t: "ack" } : { code, message, path, ...answer, t: "rejected" });
		this.#emit("pending", this.pending);
		this.#reply(id, isTaken ? outcome : new FanfareError(outcome));
	}

	// -- requests

	/** @param {string} t @param {Record<string, any>} body */
	#expect(t, body) {
		const promise = new Promise((resolve, reject) => {
			if (this.#over) reject(this.#over);
			else this.#asked.set(body.id, { t, body, resolve, reject });
		});
		promise.catch(() => {}); // who leaves a promise alone is told by events
		return promise;
	}

	/** @param {string} t @param {Record<string, any>} body */
	#request(t, body) {
		const promise = this.#expect(t, body);
		this.#transmit(body.id);
		return promise;
	}

	/** @param {string} id */
	async #transmit(id) {
		const asked = this.#asked.get(id);
		if (!asked) return;
		const { t, body } = asked;
		if (!this.#overSocket && !this.token) return; // goes out with `joined`
		asked.isSent = true;
		if (this.#overSocket) return this.#say({ t, ...body });
		try {
			const what = t === "next" && body.attempt ? `next?attempt=${body.attempt}` : t;
			const told = await request("POST", `${this.#path}/${what}`, { body: t === "next" ? undefined : body, token: this.token, base: this.#url });
			this.#hear({ ...told, id });
		} catch (thrown) {
			const error = asError(thrown);
			if (t === "next" && error.isTemporary) setTimeout(() => this.#transmit(id), soon());
			else this.#reply(id, error);
		}
	}

	/** @param {string} id @param {any} reply */
	#reply(id, reply) {
		const asked = this.#asked.get(id);
		if (!asked) return;
		this.#asked.delete(id);
		if (reply instanceof FanfareError) asked.reject(reply);
		else asked.resolve(reply);
	}

	/** @param {PendingAnswer | undefined} answer */
	#send(answer) {
		if (!answer || !this.pending.has(answer.id)) return;
		const early = this.#opensIn(answer.question);
		if (early > 0) return void setTimeout(() => this.#send(this.pending.get(answer.id)), early + 1);
		if (this.#overSocket) this.#say({ t: "answer", ...answer });
		else this.#post();
	}

	/** The answers that wait, over HTTP: where there are no WebSockets, or while one is coming back. */
	async #post() {
		if (this.#posting || !this.token) return;
		const nearest = isAllowed(this.place?.play_url) ? this.place.play_url : this.#url;
		this.#posting = true;
		for (let base = nearest; this.pending.size && !this.#overSocket; ) {
			const [answer] = this.pending.values();
			try {
				this.#settle(answer.id, await request("POST", `${this.#path}/answers`, { body: answer, token: this.token, base }));
			} catch (thrown) {
				const error = asError(thrown);
				if (!mayPass(error)) this.#settle(answer.id, error);
				else if (this.#over) break;
				else await new Promise((go) => setTimeout(go, soon()));
				base = base === this.#url ? nearest : this.#url;
			}
		}
		this.#posting = false;
	}

	// -- going and coming back

	/** @param {Record<string, any>} message */
	#say(message) {
		if (this.#socket?.readyState === OPEN) this.#socket.send(JSON.stringify(message));
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

	/** If others know the session, only the socket is dead. @param {number} tries */
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

	/** @param {number} ms @param {() => void} then */
	#patience(ms, then) {
		clearTimeout(this.#watch);
		this.#watch = setTimeout(then, ms);
	}

	/** The network or the screen is back, or the network is gone. @param {Event} event */
	#onWake = ({ type }) => {
		if (this.status === "waiting") {
			if (type === "offline") return;
			clearTimeout(this.#timer);
			this.#attempt();
		} else if (this.status === "open" && (type === "offline" || globalThis.document?.visibilityState !== "hidden")) {
			this.clock.forget();
			if (this.#socket) this.#prove(1);
			else if (performance.now() - this.#heardAt > STREAM_MS) this.#attempt();
		}
	};

	/** @param {string} how @param {string} [reason] */
	#lost(how, reason) {
		this.#drop();
		if (how === "no") return this.#end(new FanfareError({ code: reason || "closed" }));
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

	/** @param {number} ms */
	#again(ms) {
		clearTimeout(this.#timer);
		this.#timer = setTimeout(() => this.#attempt(), ms);
		this.#tell("waiting", Date.now() + ms);
		if (this.pending.size) this.#post();
	}

	/** @param {FanfareError} error */
	#end(error) {
		if (this.#over) return;
		this.#over = error;
		this.#drop();
		for (const name of WAKES) globalThis.removeEventListener?.(name, this.#onWake);
		this.#tell("ended", null, error);
		this.#unwelcome(error);
		for (const id of [...this.#asked.keys()]) this.#reply(id, error);
	}

	#drop() {
		this.#round += 1;
		for (const timer of [this.#watch, this.#timer, ...this.#pings]) clearTimeout(timer);
		const socket = this.#socket;
		this.#socket = null;
		socket?.close();
		this.#stream?.abort();
		this.#stream = null;
		if (!socket) return; // what went by request has an answer of its own
		for (const [id, { t, isSent }] of [...this.#asked]) if (t === "host" && isSent) this.#reply(id, new FanfareError({ code: "unreachable" }));
	}

	/**
	 * @param {"connecting" | "open" | "waiting" | "ended"} status
	 * @param {number | null} [until]
	 * @param {FanfareError | null} [error]
	 */
	#tell(status, until = null, error = null) {
		this.status = status;
		this.#emit("status", { status, until, error });
	}
}
