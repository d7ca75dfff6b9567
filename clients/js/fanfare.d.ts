/** What is played by, as `POST /api/quizzes` calls it. */
export type QuestionType = "single" | "multiple" | "true_false" | "text" | "numeric";

/** By the type of the question: an index from 0, a list of them, a boolean, a text, a number. */
export type Choice = number | number[] | boolean | string;

/** `open` is a session in which players go at their own pace. */
export type Phase = "lobby" | "question" | "reveal" | "paused" | "finished" | "open";

export type Role = "player" | "host" | "spectator";

/** One line of a standing. Ranks begin at 1 and may be shared. */
export interface Line {
	rank: number;
	id: number;
	name: string;
	score: number;
}

/** The question that is open, paused, or was closed last. */
export interface AskedQuestion {
	/** From 1. */
	number: number;
	of: number;
	type: QuestionType;
	text: string;
	/** Null for `text` and `numeric`, and while they are withheld. */
	choices: string[] | null;
	match?: "loose" | "spelling" | "exact";
	limit_ms: number;
	/** Null without a limit. */
	remaining_ms: number | null;
	over_ms?: number;
	opens_in_ms: number | null;
	points: number;
	/** The server's clock. */
	now?: number;
	/** To the host alone. */
	correct?: unknown;
	/** Where players have several attempts: which one it is shown in. */
	attempt?: number;
}

export interface Question extends AskedQuestion {
	t: "question";
	/** Absent where players go at their own pace. */
	offset?: number;
	/** At the own pace: that of the request. */
	id?: string | null;
	now: number;
	/** At the own pace: the result of the question before, if its time was over. */
	missed?: PaceResult;
}

export interface Leaderboard {
	t: "leaderboard";
	offset: number;
	top: Line[];
	players: number;
	answered: number;
	tick_ms: number;
}

export interface Progress {
	t: "progress";
	offset: number;
	number: number;
	answered: number;
	players: number;
	/** At the own pace: for each question, how many were shown it. */
	shown?: number[];
	/** At the own pace: for each question, how many have answered it. */
	answers?: number[];
}

export interface Reveal {
	t: "reveal";
	offset: number;
	number: number;
	correct: unknown;
	counts: number[];
	skipped?: true;
}

/** To each player after a reveal. */
export interface Result {
	t: "result";
	number: number;
	/** Null if the player has not answered. */
	correct: boolean | null;
	points: number;
	score: number;
	rank: number;
	streak: number;
	around: Line[];
	skipped?: true;
}

/** Of one question, to a player who goes at the own pace. */
export interface PaceResult {
	number: number;
	correct: boolean | null;
	points: number;
	/** What is right. */
	answer: unknown;
	/** Null for a player who may not know it yet, and so are `rank` and `streak`. */
	score: number | null;
	rank: number | null;
	streak: number | null;
	/** Where players have several attempts: the points of this one. `score` is that of the best. */
	attempt_score?: number | null;
}

/** A question of a player who is through at the own pace. */
export interface Reviewed {
	number: number;
	type: QuestionType;
	text: string;
	choices: string[] | null;
	match?: "loose" | "spelling" | "exact";
	limit_ms: number;
	points: number;
	/** What the player answered; null if nothing. */
	choice: unknown;
	correct: boolean | null;
	/** What is right. */
	answer: unknown;
}

export interface StateChange {
	t: "state";
	offset: number;
	phase: Phase;
	locked: boolean;
	approval: boolean;
	number: number;
	remaining_ms: number | null;
	opens_in_ms: number | null;
	over_ms?: number;
	now: number;
	extended_ms?: number;
	closes_at?: number | null;
}

export interface Finished {
	t: "finished";
	offset: number;
	podium: Line[];
	you: { rank: number; score: number } | null;
}

/** The whole picture, for a seat that comes in. */
export interface State {
	phase: Phase;
	locked: boolean;
	approval: boolean;
	title: string;
	language: string;
	number: number;
	of: number;
	players: number;
	answered: number;
	now: number;
	question: AskedQuestion | null;
	reveal: Omit<Reveal, "t" | "offset"> | null;
	leaderboard: Pick<Leaderboard, "top" | "players" | "answered">;
	podium: Line[] | null;
	you: You | null;
	opens_at?: number;
	closes_at?: number | null;
	reveals?: "each" | "end" | "deadline" | "never";
	/** How many attempts each player has; absent if it is one. */
	attempts?: number;
	shown?: number[];
	answers?: number[];
	/** At the own pace, to the host: the questions as the quiz has them. */
	asked?: { text: string; correct: unknown }[];
}

export interface You {
	player: number;
	name: string;
	/** At the own pace null for a player who may not know it yet, and so are `rank` and `streak`. */
	score: number | null;
	rank: number | null;
	streak: number | null;
	answered: { question: number; choice: Choice; elapsed_ms: number } | null;
	result: Omit<Result, "t"> | PaceResult | null;
	/** The question that this player joined too late to answer. */
	watches?: number;
	done?: boolean;
	review?: Reviewed[] | null;
	/** Where players have several attempts: the one that this player is in, and its points. */
	attempt?: number;
	attempt_score?: number | null;
}

export interface Joined {
	t: "joined";
	/** Null for host and spectator, and so is `name`. */
	player: number | null;
	name: string | null;
	/** What to come back with. */
	token: string;
	session: string;
	code: string;
	role: Role;
	/** Null if the seat resumed: then what was missed follows. */
	state: State | null;
	epoch: number;
	offset: number;
	/** The seed of the order in which this player sees choices. */
	shuffle?: number;
	extra_time?: number | "untimed";
}

/** An answer is stored. `duplicate`: another choice was taken before, and stands. */
export interface Ack {
	t: "ack";
	id: string;
	question: number;
	status: "accepted" | "duplicate";
	elapsed_ms: number;
	/** At the own pace, where a player is told at once. */
	result?: PaceResult;
}

/** A command of the host is stored. */
export interface Done {
	t: "done";
	id: string;
	do: HostCommand;
	phase: Phase;
}

/** At the own pace: the player is through, or the session is over. */
export interface DoneAll {
	t: "done_all";
	id: string | null;
	of: number;
	done: boolean;
	phase: Phase;
	/** Of the best attempt. */
	score: number | null;
	rank: number | null;
	streak: number | null;
	/** Where players have several attempts: which one is over, of how many, and its points. */
	attempt?: number;
	attempts?: number;
	attempt_score?: number | null;
	players: number;
	review: Reviewed[] | null;
	missed?: PaceResult;
}

export interface Roster {
	t: "roster";
	joined: { id: number; name: string; extra_time?: number | "untimed" }[];
	on: number[];
	off: number[];
	kicked: number[];
	players: number;
	connected: number;
	/** With the pace `self`: where each player is of whom this message tells. */
	ways?: { id: number; question: number | null; at: number; waits: boolean; since: number | null; done: boolean; attempt?: number }[];
}

export interface WaitingList {
	t: "waiting_list";
	players: { id: number; name: string }[];
	count: number;
}

export interface Health {
	t: "health";
	players: number;
	connected: number;
	lagging: number;
	waiting: number;
	p99_ms: number | null;
	saved: boolean;
	saved_in: "postgresql" | "spool";
}

export interface ExtraTime {
	t: "extra_time";
	factor: number | "untimed";
}

/** The host has yet to let this player in. `who` is what to give to `connect` to go on waiting after a reload. */
export interface Waiting {
	t: "waiting";
	who: Seat;
}

/** An answer was refused for good. */
export interface Rejected extends PendingAnswer {
	t: "rejected";
	code: string;
	message: string;
	path?: string;
}

/** The session was over before this seat came in, and this is how it ended. */
export interface Over {
	t: "over";
	state: State;
}

/** What a session tells, as `fanfare.v1` words it. */
export type Message =
	| Joined
	| Question
	| Leaderboard
	| Progress
	| Reveal
	| Result
	| StateChange
	| Finished
	| Roster
	| WaitingList
	| Health
	| ExtraTime
	| Waiting
	| (Ack & PendingAnswer)
	| Rejected
	| Done
	| DoneAll
	| Over;

/** How the connection is. */
export interface Status {
	status: "connecting" | "open" | "waiting" | "ended";
	/** While `waiting`: the moment of the next try, by `Date.now()`. */
	until: number | null;
	/** Once `ended`: why. Its `code` is that of an error, or the reason of a close (`finished`, `kicked`, `replaced`, `left`). */
	error: FanfareError | null;
}

export type Events = { [M in Message as M["t"]]: M } & {
	/** Every message, after its own event. */
	message: Message;
	status: Status;
	/** An answer was given, acknowledged or refused. */
	pending: Map<string, PendingAnswer>;
};

export interface PendingAnswer {
	id: string;
	question: number;
	choice: Choice;
	attempt?: number;
}

export type HostCommand =
	| "start"
	| "next"
	| "close"
	| "skip"
	| "pause"
	| "resume"
	| "lock"
	| "approval"
	| "admit"
	| "refuse"
	| "kick"
	| "readmit"
	| "extra_time"
	| "extend"
	| "finish";

export interface HostMembers {
	/** What the host saw; by default what this connection has heard of last. */
	expect?: { number: number; phase: Phase };
	player?: number;
	on?: boolean;
	factor?: number | "untimed";
	closes_at?: number;
}

/** Who joins. With nothing of it, a new player in a session that names its players. */
export interface Seat {
	/** Of a new player. */
	name?: string;
	/** Of a player who was in before, of the host, or of a spectator. */
	token?: string;
	/** A JSON Web Token with which an app tells who its user is. */
	identity?: string;
	role?: "spectator";
	/** The token of the player that this device was before. */
	former?: string;
	/** Of a player who waits to be let in. */
	ticket?: string;
}

export interface ConnectOptions extends Seat {
	/** The address of a node's HTTP API, or of what stands before it. In a page by default that of the page. */
	url?: string;
	/** The six digits of the session. */
	code: string;
	/** Answers of an earlier life of this client that have no `ack` yet. */
	pending?: PendingAnswer[];
	/** By default the platform's. Null: event stream and requests alone. */
	WebSocket?: unknown;
}

/** One seat in one session. Made by `connect`. */
export declare class Connection {
	constructor(options: ConnectOptions);
	readonly clock: ServerClock;
	/** Answers without an acknowledgement, by their id. */
	readonly pending: Map<string, PendingAnswer>;
	readonly status: Status["status"];
	/** Whether it has ever been open. */
	readonly met: boolean;
	/** Why the node does not let this seat in just now; null without a reason. */
	readonly why: FanfareError | null;
	/** The session as `GET /api/sessions/{code}` shows it; null before that was asked. */
	readonly place: { ws_url: string; play_url: string; join_url?: string; state: State; settings: Record<string, unknown> } | null;
	/** The first `joined`. Rejects when there will be none. */
	readonly joined: Promise<Joined>;
	readonly code: string;
	/** What this seat comes back with; undefined before it is in. */
	readonly token: string | undefined;
	/** Calls `listener` with each event of a type. Returns what takes it away again. */
	on<K extends keyof Events>(type: K, listener: (event: Events[K]) => void): () => void;
	/**
	 * Answers a question, and keeps the answer until the node has stored or refused it, whatever becomes of the network.
	 * Rejects with a FanfareError, of which the event `rejected` tells too: the promise may be left alone.
	 */
	answer(question: number, choice: Choice): Promise<Ack>;
	/**
	 * Asks for the next question, where players go at their own pace: of the attempt that this player is in, or of another one.
	 * An attempt that follows one that is over begins with that, once, however often it is asked for.
	 */
	next(attempt?: number): Promise<Question | DoneAll>;
	/**
	 * One of the host's commands, sent once. `start`, `next`, `close` and `skip` are about what this host has seen, so that a second
	 * press does no harm. Rejects with `unreachable` when there was no reply: it may have been carried out.
	 */
	host(what: HostCommand, members?: HostMembers): Promise<Done>;
	/** Ends the connection. The seat stays: `connect` with `token` comes back to it. */
	leave(): void;
}

/** Joins a session. Returns at once, and stays until the session is over, `leave()`, or a refusal. */
export declare function connect(options: ConnectOptions): Connection;

/** A refusal of the node, or `unreachable` when there was no answer. */
export declare class FanfareError extends Error {
	constructor(told: { code: string; message?: string; path?: string });
	/** Stable; the table is in docs/protocol.md. */
	code: string;
	/** The member of the request that the error is about. */
	path: string | undefined;
	/** Whether the same request may go through a little later. */
	readonly isTemporary: boolean;
}

/** The server's clock as seen from here, in ms since 1970. */
export declare class ServerClock {
	now(): number;
	measured(asked: number, received: number, now: number): void;
	heard(now: number): void;
	forget(): void;
}

/** One request to the HTTP API. `body` is sent as JSON, or as it is when `type` names its media type. Throws a FanfareError. */
export declare function request(
	method: string,
	path: string,
	options?: { body?: unknown; token?: string; base?: string; type?: string },
): Promise<any>;
