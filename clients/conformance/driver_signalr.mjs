// A client of SignalR in a scenario: see run.py. It has Microsoft's library, and docs/signalr.md has the rules that it keeps.
import * as signalR from "@microsoft/signalr";

const [url, code] = process.argv.slice(-2);
const hub = new signalR.HubConnectionBuilder()
	.withUrl(`${url}/hub`, { transport: signalR.HttpTransportType.WebSockets, skipNegotiation: true })
	.withAutomaticReconnect({ nextRetryDelayInMilliseconds: () => 100 })
	.configureLogging(signalR.LogLevel.None)
	.build();

let seat; // what to come back with
let offset;
let ahead; // how far the node's clock is ahead of performance.now()
let refused;
let alone = false; // whether players go at their own pace
let attempt; // which one it is then, from the second on
const pending = new Map(); // answers without an ack

/** What is lost with its connection is said again on the next one. */
const say = (target, call) => hub.send(target, call).catch(() => {});

/** It is the same question until that is answered. */
const next = () => (attempt ? say("Next", { attempt }) : hub.send("Next").catch(() => {}));

hub.on("joined", (joined) => {
	seat = { code, token: joined.token, epoch: joined.epoch };
	if (joined.state !== null) {
		offset = joined.offset;
		ahead = joined.state.now - performance.now(); // less the way here, until the pong tells better
	}
	say("Ping", { at: performance.now() });
	for (const answer of pending.values()) say("Answer", answer);
	alone ||= joined.state?.phase === "open";
	if (alone && !pending.size) next();
});
hub.on("pong", ({ at, now }) => (ahead = now - (at + performance.now()) / 2));
for (const numbered of ["question", "reveal", "state", "finished"]) hub.on(numbered, (message) => (offset = message.offset ?? offset));
hub.on("question", ({ number, now, opens_in_ms, remaining_ms }) => {
	console.log("remaining", now + opens_in_ms + remaining_ms - (performance.now() + ahead));
	const answer = { id: `answer-${number}`, question: number, choice: 0, ...(attempt && { attempt }) };
	pending.set(answer.id, answer);
	setTimeout(() => say("Answer", answer), opens_in_ms);
});
hub.on("ack", ({ id }) => {
	pending.delete(id);
	if (alone) next();
});
hub.on("done_all", (done) => {
	if (done.attempt === done.attempts) {
		refused = "left";
		hub.stop();
	} else {
		attempt = done.attempt + 1;
		next();
	}
});
hub.on("error", (error) => {
	if (pending.has(error.id) && /^(not_open_yet|busy)$/.test(error.code)) return void setTimeout(() => say("Answer", pending.get(error.id)), 100);
	refused = error.code;
	hub.stop();
});
hub.onreconnected(() => say("Join", { ...seat, offset }));
hub.onclose((error) => console.log(refused ?? /(\w+): [^:]*$/.exec(error.message)[1])); // what the node says is `name: sentence`

await hub.start();
await say("Join", { code, name: "Ada" });
