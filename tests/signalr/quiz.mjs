// A whole quiz by Microsoft's client: a host, three players and a spectator, over one transport and one protocol.
// Arguments: the hub's address, code, host token, transport, protocol. Prints what was heard, as JSON.
import { createRequire } from "node:module";

const require = createRequire(process.env.SIGNALR_DIR + "/");
const signalR = require("@microsoft/signalr");
const { MessagePackHubProtocol } = require("@microsoft/signalr-protocol-msgpack");

const [url, code, hostToken, transport, protocol] = process.argv.slice(2);
const EVENTS = ["joined", "question", "progress", "leaderboard", "reveal", "result", "state", "roster", "finished", "error"];

async function connect(name, token) {
  const skip = transport === "skipNegotiation";
  const builder = new signalR.HubConnectionBuilder()
    .withUrl(url, {
      transport: signalR.HttpTransportType[skip ? "WebSockets" : transport],
      skipNegotiation: skip,
      accessTokenFactory: token && (() => token),
    })
    .configureLogging(signalR.LogLevel.Error);
  if (protocol === "messagepack") builder.withHubProtocol(new MessagePackHubProtocol());
  const connection = builder.build();
  const heard = [];
  const waiting = [];
  for (const event of EVENTS) {
    connection.on(event, (message) => {
      heard.push(message);
      for (const each of waiting.splice(0)) each();
    });
  }
  let taken = 0;
  /** The next message of this type. */
  const next = async (type) => {
    for (;;) {
      while (taken < heard.length) {
        const message = heard[taken++];
        if (message.t === type) return message;
      }
      await new Promise((resolve) => waiting.push(resolve));
    }
  };
  const closed = new Promise((resolve) => connection.onclose((error) => resolve(error ? error.message : null)));
  await connection.start();
  return { name, connection, heard, next, closed };
}

const refusal = (promise) => promise.then(() => null, (error) => error.message);

const host = await connect("host", hostToken);
const screen = await connect("screen");
const players = await Promise.all(["Ada", "Ben", "Cem"].map((name) => connect(name)));
const everybody = [host, screen, ...players];
const out = {};
out.host = (await host.connection.invoke("Join", { code })).role;
out.screen = (await screen.connection.invoke("Watch", { code })).role;
out.players = [];
for (const each of players) {
  out.players.push((await each.connection.invoke("Join", { code, name: each.name })).player);
}
out.refused = await refusal(players[0].connection.invoke("Answer", 1, 0));
out.unknown = await refusal(players[0].connection.invoke("Jump"));
out.stream = await refusal(
  new Promise((_, reject) => players[0].connection.stream("Counter", 1).subscribe({ next() {}, complete() {}, error: reject })),
);
out.acks = [];
out.results = [];
for (const number of [1, 2, 3]) {
  await host.connection.invoke("Host", { do: number === 1 ? "start" : "next" });
  for (const each of [screen, ...players]) {
    const question = await each.next("question");
    if (question.number !== number || "correct" in question) throw new Error(JSON.stringify(question));
  }
  const [ada, ben, cem] = players;
  out.acks.push((await ada.connection.invoke("Answer", { id: "a", question: number, choice: 0 })).status);
  out.acks.push((await ada.connection.invoke("Answer", number, 1)).status);
  await ben.connection.send("Answer", number, 1);
  await cem.connection.invoke("Answer", number, 0);
  for (const each of players) out.results.push((await each.next("result")).correct);
}
await host.connection.invoke("Host", "finish");
out.podium = (await screen.next("finished")).podium.map((line) => line.name);
out.ranks = [];
for (const each of players) out.ranks.push((await each.next("finished")).you.rank);
await players[0].connection.invoke("Leave").catch(() => {});
out.left = await players[0].closed;
await Promise.all(everybody.map((each) => each.connection.stop()));
out.errors = everybody.flatMap((each) => each.heard.filter((message) => message.t === "error"));
console.log(JSON.stringify(out));
