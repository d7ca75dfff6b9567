// One of Microsoft's clients plays a quiz while its connections are cut, for bench/hub_cuts.py:
// `node hub_cuts.mjs JSON`, with {url, code, token, questions, way, oneWayMs}. Prints what was heard, as JSON.
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";

const require = createRequire(process.env.SIGNALR_DIR + "/");
const signalR = require("@microsoft/signalr");
const WebSocket = createRequire(require.resolve("@microsoft/signalr"))("ws");

const { url, code, token, questions, way, oneWayMs } = JSON.parse(process.argv[2]);
const NUMBERED = ["question", "reveal", "state", "finished"];
const PARTS = ["cut", "seen", "negotiated", "opened", "shaken", "joined", "missed"];
const now = () => performance.now();

/** A network with a way as long as that, which can be cut. A new connection's own round trip is in it. */
const sockets = new Set();
const server = createServer((client) => {
  const node = connect(Number(new URL(url).port), "127.0.0.1");
  node.setNoDelay(true);
  client.setNoDelay(true);
  const pass = (from, to, atFirstMs) => {
    let due = now() + atFirstMs;
    const after = (what) => {
      due = Math.max(due, now() + oneWayMs);
      oneWayMs ? setTimeout(what, due - now()) : what();
    };
    from.on("data", (data) => after(() => to.writable && to.write(data)));
    from.on("close", () => {
      sockets.delete(from);
      after(() => to.destroy());
    });
    from.on("error", () => {});
    sockets.add(from);
  };
  pass(client, node, 3 * oneWayMs);
  pass(node, client, 0);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

function cut() {
  for (const socket of sockets) socket.destroy();
}

/** Tells when a negotiation is answered. */
class Negotiating extends signalR.DefaultHttpClient {
  constructor(answered) {
    super(new signalR.NullLogger());
    this.answered = answered;
  }

  async send(request) {
    const response = await super.send(request);
    this.answered();
    return response;
  }
}

class Client {
  /** Numbered messages, and results, in the order in which they came. */
  heard = [];
  times = {};
  failed = 0;
  resumed = 0;
  #waiting = [];

  constructor(address, { accessToken, skip, stateful }) {
    const times = () => this.times;
    class Socket extends WebSocket {
      constructor(...how) {
        super(...how);
        // Not by addEventListener: the library's own `onopen` would take its place.
        this.on("open", () => (times().opened ??= now()));
      }
    }
    const builder = new signalR.HubConnectionBuilder()
      .withUrl(address, {
        transport: signalR.HttpTransportType.WebSockets,
        skipNegotiation: skip,
        accessTokenFactory: accessToken && (() => accessToken),
        httpClient: new Negotiating(() => (times().negotiated ??= now())),
        WebSocket: Socket,
      })
      .withAutomaticReconnect({ nextRetryDelayInMilliseconds: ({ previousRetryCount }) => (previousRetryCount ? 20 : 0) })
      .configureLogging(signalR.LogLevel.None);
    if (stateful) builder.withStatefulReconnect();
    this.hub = builder.build();
    for (const event of [...NUMBERED, "result"]) this.hub.on(event, (message) => this.#hear(message));
    for (const event of ["ack", "error", "leaderboard", "progress", "roster"]) this.hub.on(event, () => {});
    this.hub.on("joined", (message) => this.#join(message));
    this.hub.onreconnecting(() => {
      this.me = null;
      this.times.seen ??= now();
      // What came before belongs to the connection that was lost.
      this.times.negotiated = this.times.opened = undefined;
    });
    this.hub.onreconnected(() => {
      this.times.shaken ??= now();
      this.hub.send("Join", { ...this.seat, offset: this.offset }).catch(() => {});
    });
    this.hub.onclose((error) => {
      throw error ?? new Error("closed");
    });
  }

  #hear(message) {
    if (message.offset !== undefined) this.offset = message.offset;
    this.heard.push(message);
    if (this.times.joined) this.times.missed ??= now();
    this.#wake();
  }

  #join(message) {
    this.times.joined ??= now();
    if (this.seat) message.state === null ? this.resumed++ : (this.anew = true);
    this.me = message;
    this.seat = { code, token: message.token, epoch: message.epoch };
    if (message.state !== null) this.offset = message.offset;
    this.#wake();
  }

  #wake() {
    for (const each of this.#waiting.splice(0)) each();
  }

  async until(true_) {
    while (!true_()) await new Promise((resolve) => this.#waiting.push(resolve));
  }

  has(type, number) {
    return this.until(() => this.heard.some((each) => each.t === type && (!number || each.number === number)));
  }

  async join(target, call) {
    await this.hub.start();
    await this.hub.send(target, call);
    await this.until(() => this.me);
  }

  /** An ack, whatever becomes of the connection meanwhile: the answer is called again after a rejoin. */
  async answer(call) {
    for (;;) {
      await this.until(() => this.me);
      const { me } = this;
      try {
        return await this.hub.invoke("Answer", call);
      } catch (error) {
        if (/^[a-z_]+: /.test(error.message)) throw error;
        this.failed++;
        await this.until(() => this.me !== me);
      }
    }
  }
}

const direct = { skip: false, stateful: false };
const host = new Client(url, { ...direct, accessToken: token });
const screen = new Client(url, direct);
const through = new URL(url);
through.port = server.address().port;
const ada = new Client(through.href, { skip: way === "skip", stateful: way === "stateful" });
await host.join("Join", { code });
await screen.join("Watch", { code });
await ada.join("Join", { code, name: "Ada" });

const cuts = [];
const acks = [];
const order = (what) => host.hub.invoke("Host", { do: what });

for (let number = 1; number <= questions; number++) {
  await order(number === 1 ? "start" : "next");
  await ada.has("question", number);
  const answering = ada.answer({ id: `a${number}`, question: number, choice: 0 });
  const { resumed } = ada;
  if (number % 2) {
    // With an answer under way, sooner or later in the life of its call.
    await new Promise((resolve) => setTimeout(resolve, (number % 5) * (1 + oneWayMs)));
  } else {
    acks.push(await answering);
  }
  ada.times = { cut: now() };
  cut();
  // Where the player's answer is in, the host goes on meanwhile, and the reveal and the result are missed.
  if (!(number % 2)) await order("close");
  await ada.until(() => ada.resumed > resumed && ada.me);
  if (number % 2) {
    acks.push(await answering);
    await order("close");
  }
  await ada.has("reveal", number);
  await ada.has("result", number);
  await screen.has("reveal", number);
  if (!(number % 2)) cuts.push(PARTS.map((part) => ada.times[part] ?? null));
}
await order("finish");
await Promise.all([ada.has("finished"), screen.has("finished")]);

const offsets = (client) => client.heard.filter((each) => each.offset !== undefined).map((each) => each.offset);
const mine = offsets(ada);
const results = ada.heard.filter((each) => each.t === "result");
console.log(
  JSON.stringify({
    cuts,
    numbered: offsets(screen).length,
    missed: offsets(screen).filter((each) => !mine.includes(each)).length,
    twice: mine.length - new Set(mine).size + results.length - new Set(results.map((each) => each.number)).size,
    results: results.filter((each) => each.correct).length,
    acks: acks.filter((ack) => ack.status === "accepted").length,
    failed: ada.failed,
    resumed: ada.resumed,
    anew: ada.anew ?? false,
  }),
);
process.exit(0);
