// A host who leads by the clock: node host.mjs http://localhost:5001 123456 HOST_TOKEN [players to wait for] [seconds between two questions]
import { connect } from "fanfare-client";

const [url, code, token, players = "1", seconds = "5"] = process.argv.slice(2);
const game = connect({ url, code, token });
let started = false;

/** @param {import("fanfare-client").HostCommand} what */
const lead = (what) => game.host(what).catch(({ code, message }) => console.log(`${what}: ${message || code}`));

/** @param {number} here */
function startWith(here) {
	console.log(`${here} players`);
	if (started || here < Number(players)) return;
	started = true;
	lead("start");
}
game.on("joined", ({ state }) => {
	if (state) started = state.phase !== "lobby";
	if (state) startWith(state.players);
});
game.on("roster", (roster) => startWith(roster.players));
game.on("question", ({ number, of, text }) => console.log(`${number}/${of} ${text}`));
game.on("reveal", ({ correct }) => {
	console.log(`The answer: ${JSON.stringify(correct)}`);
	setTimeout(lead, Number(seconds) * 1_000, "next"); // after the last question this ends the session
});
game.on("finished", ({ podium }) => {
	for (const { rank, name, score } of podium) console.log(`${rank}. ${name} ${score}`);
	game.leave();
});
game.on("status", ({ status, error }) => status === "ended" && console.log(`The end (${error?.code}).`));
