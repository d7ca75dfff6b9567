// The JavaScript library in a scenario: see run.py.
import { connect } from "../js/fanfare.js";

const [url, code] = process.argv.slice(-2);
const game = connect({ url, code, name: "Ada" });
game.on("question", ({ number }) => game.answer(number, 0));
game.on("status", ({ status, error }) => status === "ended" && console.log(error.code));
