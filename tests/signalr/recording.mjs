// Conversations of Microsoft's library with a node, frame by frame. Arguments: the hub's address, code, host token, protocol.
// Prints [{from, data}], text as it is and binary data in hexadecimal digits. One thing is said after the other, so the order is always the same.
import { createRequire } from "node:module";

const require = createRequire(process.env.SIGNALR_DIR + "/");
const signalR = require("@microsoft/signalr");
const WebSocket = require("ws");
const { MessagePackHubProtocol } = require("@microsoft/signalr-protocol-msgpack");

const [url, code, hostToken, protocol] = process.argv.slice(2);
const frames = [];
let wake = () => {};
const words = (data) => (typeof data === "string" ? data : Buffer.from(data).toString("hex"));

class Recorded extends WebSocket {
  constructor(...options) {
    super(...options);
    this.on("message", (data) => {
      frames.push({ from: "server", data: words(data) });
      wake();
    });
  }

  send(data, ...more) {
    frames.push({ from: "client", data: words(data) });
    super.send(data, ...more);
  }
}

async function connect(options = { WebSocket: Recorded }) {
  const builder = new signalR.HubConnectionBuilder()
    .withUrl(url, { ...options, transport: signalR.HttpTransportType.WebSockets })
    .configureLogging(signalR.LogLevel.None);
  if (protocol === "messagepack") builder.withHubProtocol(new MessagePackHubProtocol());
  const hub = builder.build();
  hub.keepAliveIntervalInMilliseconds = 100; // the node is in a hurry, too
  hub.next = (event) => new Promise((resolve) => hub.on(event, resolve));
  hub.ended = new Promise((resolve) => hub.onclose(resolve));
  await hub.start();
  return hub;
}

const refused = (promise) => promise.then(() => Promise.reject(new Error("it went through")), () => null);

const host = await connect({});
await host.invoke("Join", { code, token: hostToken });

// A close by the client, one that it asks for, and one by the node that says why.
const bob = await connect();
await bob.invoke("Join", code, "Bob");
await bob.stop();
const dora = await connect();
await dora.invoke("Join", code, "Dora");
await dora.invoke("Leave");
await dora.ended;
const cleo = await connect();
const { token } = await cleo.invoke("Join", { code, name: "Cleo" });
const again = await connect({});
await again.invoke("Join", { code, token });
await cleo.ended;
await again.stop();

const ada = await connect();
const heard = Object.fromEntries(["question", "reveal", "result", "finished", "error", "pong"].map((event) => [event, ada.next(event)]));
await ada.invoke("Join", { code, name: "Zoë" });
await refused(ada.invoke("Jump"));
await ada.invoke("Ping", { at: 1 });
await ada.send("Ping", { at: 2 });
await heard.pong;
await refused(new Promise((_, reject) => ada.stream("Counter", 1).subscribe({ next() {}, complete() {}, error: reject })));
ada.stream("Counter", 2).subscribe({ next() {}, complete() {}, error() {} }).dispose();
await ada.invoke("Ping", { at: 3 });
const upload = new signalR.Subject();
await ada.send("Upload", upload);
upload.next({ a: 1 });
upload.complete();
await heard.error;
await host.invoke("Host", "start");
await heard.question;
await ada.invoke("Answer", { id: "a", question: 1, choice: 1 });
await ada.invoke("Answer", 1, 0);
await host.invoke("Host", "close");
await heard.reveal;
await heard.result;

// Signs of life, both ways: the node's come by themselves.
const count = frames.length;
const pinged = (from) => frames.slice(count).some((frame) => frame.from === from && ['{"type":6}\x1e', "029106"].includes(frame.data));
while (!pinged("client") || !pinged("server")) {
  await new Promise((resolve) => {
    wake = resolve;
    setTimeout(resolve, 50);
  });
}
await host.invoke("Host", "finish");
await heard.finished;
await ada.stop();
console.log(JSON.stringify(frames));
process.exit(0);
