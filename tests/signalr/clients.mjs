// Clients of Microsoft's library that a test leads: a command a line, {line, do, name, ...}, and for each a line back,
// {line, result} or {line, error}. They come back after a loss the way docs/signalr.md tells.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(process.env.SIGNALR_DIR + "/");
const signalR = require("@microsoft/signalr");
const { MessagePackHubProtocol } = require("@microsoft/signalr-protocol-msgpack");

const EVENTS = ["ack", "error", "finished", "joined", "leaderboard", "moved", "progress", "question", "result", "reveal", "roster", "state"];
const UNNUMBERED = new Set(["progress", "leaderboard"]);

/** Negotiates at another address than the one that it goes to with what it got. */
class Elsewhere extends signalR.DefaultHttpClient {
  constructor(address) {
    super(new signalR.NullLogger());
    this.address = address;
  }

  send(request) {
    const asked = new URL(request.url);
    if (!asked.pathname.endsWith("/negotiate")) return super.send(request);
    const there = new URL(this.address);
    there.pathname += "/negotiate";
    for (const [name, value] of asked.searchParams) there.searchParams.set(name, value);
    return super.send({ ...request, url: there.href });
  }
}

class Client {
  heard = [];
  /** Numbered messages that did not follow on the one before. */
  gaps = [];
  /** Rejoins that went on where the client stood, and those that began with the whole state. */
  resumed = 0;
  anew = 0;
  closed = null;
  #taken = 0;
  #waiting = [];

  constructor({ url, transport, protocol, token, negotiateAt, stateful, skip }) {
    const builder = new signalR.HubConnectionBuilder()
      .withUrl(url, {
        transport: signalR.HttpTransportType[transport ?? "WebSockets"],
        skipNegotiation: skip ?? false,
        accessTokenFactory: token && (() => token),
        httpClient: negotiateAt && new Elsewhere(negotiateAt),
      })
      .withAutomaticReconnect({ nextRetryDelayInMilliseconds: () => 100 })
      .configureLogging(signalR.LogLevel.None);
    if (protocol === "messagepack") builder.withHubProtocol(new MessagePackHubProtocol());
    if (stateful) builder.withStatefulReconnect();
    const hub = (this.hub = builder.build());
    for (const event of EVENTS) hub.on(event, (message) => this.#hear(message));
    hub.onreconnected(() => this.rejoin());
    hub.onreconnecting(() => (this.me = null));
    hub.onclose((error) => {
      this.closed = error ? error.message : "";
      this.#wake();
    });
  }

  #hear(message) {
    this.heard.push(message);
    if (message.t === "joined") {
      if (this.seat) message.state === null ? this.resumed++ : this.anew++;
      this.me = message;
      this.seat = { code: message.code, token: message.token, epoch: message.epoch };
      if (message.state !== null) this.offset = message.offset;
    } else if (message.offset !== undefined && !UNNUMBERED.has(message.t)) {
      if (message.offset !== this.offset + 1) this.gaps.push([this.offset, message]);
      this.offset = message.offset;
    } else if (message.t === "error" && message.code === "busy" && this.seat && !this.me) {
      setTimeout(() => this.rejoin(), 100);
    }
    this.#wake();
  }

  #wake() {
    for (const each of this.#waiting.splice(0)) each();
  }

  /** Until something is true that a message or the end brings about. */
  async until(true_) {
    for (;;) {
      const found = true_();
      if (found) return found;
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
  }

  rejoin() {
    return this.hub.send("Join", { ...this.seat, offset: this.offset }).catch(() => {});
  }

  async join(call) {
    await this.hub.start();
    if (call) await this.hub.send(call.role === "spectator" ? "Watch" : "Join", call);
    return call ? this.expect("joined") : null;
  }

  /** The next message of this type, with these members. */
  expect(type, where = {}) {
    return this.until(() => {
      while (this.#taken < this.heard.length) {
        const message = this.heard[this.#taken++];
        if (message.t === type && Object.entries(where).every(([key, value]) => message[key] === value)) return message;
      }
      if (this.closed !== null) throw new Error(`closed: ${this.closed}`);
    });
  }

  /** An ack, whatever becomes of the connection meanwhile. */
  async answer(call) {
    for (;;) {
      await this.until(() => this.me);
      try {
        return await this.hub.invoke("Answer", call);
      } catch (error) {
        // The node's refusals have a code; others come from the library, about the connection.
        if (/^(?!busy)[a-z_]+: /.test(error.message)) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }
}

const clients = new Map();

const commands = {
  async connect({ name, join, ...how }) {
    const client = new Client(how);
    clients.set(name, client);
    return client.join(join);
  },
  /** Many at once: each joins under a name of its own. */
  async crowd({ name, count, join, ...how }) {
    const all = Array.from({ length: count }, (_, index) => `${name}-${index}`);
    return Promise.all(all.map((each) => commands.connect({ ...how, name: each, join: { ...join, name: each } })));
  },
  /** The same command for all whose names begin so. */
  async all({ name, of, ...command }) {
    const found = [...clients.keys()].filter((each) => each.startsWith(name));
    return Promise.all(found.map((each) => commands[of]({ ...command, name: each })));
  },
  invoke: ({ name, target, args }) => clients.get(name).hub.invoke(target, ...args),
  answer: ({ name, ...call }) => clients.get(name).answer(call),
  expect: ({ name, type, where }) => clients.get(name).expect(type, where),
  back: ({ name, times }) => {
    const client = clients.get(name);
    return client.until(() => client.resumed + client.anew >= times && client.me);
  },
  ended: async ({ name }) => {
    const client = clients.get(name);
    await client.until(() => client.closed !== null);
    return client.closed;
  },
  story: ({ name }) => {
    const { me, offset, gaps, resumed, anew, closed, hub } = clients.get(name);
    return { me, offset, gaps, resumed, anew, closed, state: hub.state };
  },
  stop: ({ name }) => clients.get(name).hub.stop(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { line: number, do: command, ...words } = JSON.parse(line);
  Promise.resolve()
    .then(() => commands[command](words))
    .then(
      (result) => console.log(JSON.stringify({ line: number, result: result ?? null })),
      (error) => console.log(JSON.stringify({ line: number, error: String(error.message) })),
    );
}
process.exit(0);
