// A player in the terminal: node player.mjs http://localhost:5001 123456 Ada
import { createInterface } from "node:readline";
import { connect } from "fanfare-client";

const [url, code, name] = process.argv.slice(2);
const game = connect({ url, code, name });
/** @type {number} */
let open;

/** @param {Omit<import("fanfare-client").Question, "t" | "offset" | "now">} question */
function show({ number, of, text, choices }) {
	open = number;
	console.log(`${number}/${of} ${text}`, choices?.map((choice, at) => `\n  ${at}: ${choice}`).join("") ?? "");
}
game.on("joined", ({ name, state }) => console.log(`You are ${name}.`) ?? (state?.phase === "question" && state.question && show(state.question)));
game.on("question", show);
game.on("ack", () => console.log("Saved."));
game.on("rejected", ({ message }) => console.log(message));
game.on("result", ({ correct, points, rank }) => console.log(`${correct ? "Right" : "Not right"}: ${points} points, place ${rank}`));
game.on("finished", () => game.leave());
game.on("status", ({ status, error }) => status === "ended" && (console.log(`The end (${error?.code}).`), input.close()));

const input = createInterface({ input: process.stdin });
input.on("line", (/** @type {string} */ line) => game.answer(open, JSON.parse(line))); // 2, [0, 2], true, "Lisbon", 42
