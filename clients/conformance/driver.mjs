// The JavaScript library in a scenario: see run.py.
import { connect } from "../js/fanfare.js";

const [url, code] = process.argv.slice(-2);
const game = connect({ url, code, name: "Ada" });
game.on("question", ({ number, now, opens_in_ms, remaining_ms }) => {
	console.log("remaining", now + opens_in_ms + remaining_ms - game.clock.now());
	game.answer(number, 0);
});
game.on("status", ({ status, error }) => status === "ended" && console.log(error.code));
