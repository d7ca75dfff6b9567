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
const pending = new Map(); // answers without an ack

/** What is lost with its connection is said again on the next one. */
const say = (target, call) => hub.send(target, call).catch(() => {});

hub.on("joined", (joined) => {
	seat = { code, token: joined.token, epoch: joined.epoch };
	if (joined.state !== null) {
		offset = joined.offset;
		ahead = joined.state.now - performance.now(); // less the way here, until the pong tells better
	}
	say("Ping", { at: performance.now() });
	for (const answer of pending.values()) say("Answer", answer);
});
hub.on("pong", ({ at, now }) => (ahead = now - (at + performance.now()) / 2));
for (const numbered of ["question", "reveal", "state", "finished"]) hub.on(numbered, (message) => (offset = message.offset));
hub.on("question", ({ number, now, opens_in_ms, remaining_ms }) => {
	console.log("remaining", now + opens_in_ms + remaining_ms - (performance.now() + ahead));
	const answer = { id: `answer-${number}`, question: number, choice: 0 };
	pending.set(answer.id, answer);
	setTimeout(() => say("Answer", answer), opens_in_ms);
});
hub.on("ack", ({ id }) => pending.delete(id));
hub.on("error", (error) => {
	if (error.code === "not_open_yet") return setTimeout(() => say("Answer", pending.get(error.id)), 100);
	refused = error.code;
	hub.stop();
});
hub.onreconnected(() => say("Join", { ...seat, offset }));
hub.onclose((error) => console.log(refused ?? /(\w+): [^:]*$/.exec(error.message)[1])); // what the node says is `name: sentence`

await hub.start();
await say("Join", { code, name: "Ada" });
