// Microsoft's library and the recorded messages: what it writes for those of a client, and how it reads those of the server.
// The files on stdin, as {name: [entry, ...]}; on stdout the same with the library's part filled in.
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const require = createRequire(process.env.SIGNALR_DIR + "/");
const { JsonHubProtocol, NullLogger } = require("@microsoft/signalr");
const { HandshakeProtocol } = require("@microsoft/signalr/dist/cjs/HandshakeProtocol");
const { MessagePackHubProtocol } = require("@microsoft/signalr-protocol-msgpack");

const handshake = new HandshakeProtocol();
const protocols = { json: new JsonHubProtocol(), messagepack: new MessagePackHubProtocol() };

const hex = (data) => Buffer.from(data).toString("hex");
const bytes = (hex_) => new Uint8Array(Buffer.from(hex_, "hex")).buffer;

function written(name, message) {
  const protocol = protocols[name];
  if (message.type === undefined) return handshake.writeHandshakeRequest({ protocol: name, version: protocol.version === 2 ? 1 : protocol.version });
  const data = protocol.writeMessage(message);
  return typeof data === "string" ? data : hex(data);
}

function read(name, said, type) {
  if (type === undefined) return handshake.parseHandshakeResponse(said)[1];
  const data = name === "json" ? said : bytes(said);
  const [message] = protocols[name].parseMessages(data, NullLogger.instance);
  // What is undefined or false is not there, and of headers and streams the hub has none.
  const { headers, streamIds, ...found } = JSON.parse(JSON.stringify(message));
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== null && value !== false));
}

const files = JSON.parse(await text(process.stdin));
for (const entries of Object.values(files)) {
  for (const entry of entries) {
    for (const name of Object.keys(protocols)) {
      if (entry.from === "client") entry[name] = written(name, entry.message);
      else entry[`${name}_read`] = read(name, entry[name], entry.message.type);
    }
  }
}
console.log(JSON.stringify(files));
