// The JavaScript library in a scenario: see run.py.
import { connect } from "../js/fanfare.js";

const [url, code] = process.argv.slice(-2);
const game = connect({ url, code, name: "Ada" });
let alone = false; // whether players go at their own pace
game.on("joined", ({ state }) => {
	if (state?.phase !== "open") return;
	alone = true;
	game.next();
});
game.on("question", async ({ number, now, opens_in_ms, remaining_ms }) => {
	console.log("remaining", now + opens_in_ms + remaining_ms - game.clock.now());
	await game.answer(number, 0);
	if (alone) game.next();
});
game.on("done_all", ({ attempt, attempts }) => (attempt === attempts ? game.leave() : game.next(attempt + 1)));
game.on("status", ({ status, error }) => status === "ended" && console.log(error.code));
