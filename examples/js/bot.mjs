// Players that guess: node bot.mjs http://localhost:5001 123456 [how many]. At the host's pace or at their own.
import { connect } from "fanfare-client";

const [url, code, count = "1"] = process.argv.slice(2);
for (let number = 1; number <= Number(count); number++) play(`Bot ${number}`);

/** @param {Pick<import("fanfare-client").Question, "type" | "choices">} question @returns {import("fanfare-client").Choice} */
function guess({ type, choices }) {
	const any = Math.floor(Math.random() * (choices?.length ?? 100));
	return { single: any, multiple: [any], true_false: Math.random() < 0.5, text: "42", numeric: any }[type];
}

/** @param {string} name */
function play(name) {
	const game = connect({ url, code, name });
	game.on("status", ({ status, error }) => status === "ended" && console.log(`${name}: ${error?.code}`));
	game.on("finished", ({ you }) => {
		console.log(`${name}: place ${you?.rank} with ${you?.score} points`);
		game.leave();
	});
	let seen = 0;
	/** @param {Pick<import("fanfare-client").Question, "number" | "type" | "choices" | "opens_in_ms">} question */
	const answer = async (question) => {
		if (question.number === seen || (!question.choices && /single|multiple/.test(question.type))) return; // the same follows, with its choices
		seen = question.number;
		await new Promise((go) => setTimeout(go, (question.opens_in_ms ?? 0) + 20));
		await game.answer(question.number, guess(question)).catch(({ code }) => console.log(`${name}: ${code}`));
	};
	game.on("question", (question) => question.offset && answer(question)); // at their own pace `next` gives it
	game.on("joined", async ({ state }) => {
		if (state?.phase === "question" && state.question) answer(state.question);
		if (state?.phase !== "open" || seen) return;
		seen = 1; // it may join again, and has begun
		for (let step = await game.next(); step.t === "question"; step = await game.next()) await game.answer(step.number, guess(step));
		console.log(`${name} is through`);
		game.leave();
	});
}
