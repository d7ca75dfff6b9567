// Prints what a worker of Node posts, until its end: threads.mjs URL CODE NAME
import { Worker } from "node:worker_threads";

const [url, code, name] = process.argv.slice(2);
const worker = new Worker(new URL("./worker.mjs", import.meta.url), { workerData: { url, code, name } });
worker.on("message", (message) => {
	console.log(JSON.stringify(message));
	if (message.t === "end") worker.terminate();
});
