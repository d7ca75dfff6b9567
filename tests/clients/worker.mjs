// A player in a worker of a browser (worker.mjs?url=…&code=…&name=…) or of Node, which posts every message, and its end.
import { connect } from "../node_modules/fanfare-client/fanfare.js";

const threads = globalThis.postMessage ? null : await import("node:worker_threads");
const port = threads?.parentPort ?? globalThis;
const { url, code, name } = threads?.workerData ?? Object.fromEntries(new URL(location.href).searchParams);
const game = connect({ url, code, name });
game.on("message", (message) => {
	port.postMessage(message);
	if (message.t === "finished") game.leave();
});
game.on("question", ({ number }) => game.answer(number, 1));
game.on("status", ({ status, error }) => status === "ended" && port.postMessage({ t: "end", code: error.code }));
