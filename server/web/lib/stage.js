import "../elements/countdown.js";
import "../elements/leaderboard.js";
import { choicesOf, shown } from "../elements/choices.js";
import { h, isNew, put, speak, ui } from "./dom.js";
import { connect } from "./fanfare.js";
import { Model, withheld } from "./model.js";
import { showStatus, stayAwake } from "./status.js";
import { moment, t } from "./texts.js";

/** Joins a session and shows it in the markup that host and spectators share; their styles say what is seen when.
 * `heard(message, isNew)`: after each message; whether another phase began. `ended(why)`: before the quiz did. */
export function attend(code, who, heard, ended) {
	put("code", code.replace(/^.../, "$& "));
	ui.qr.src = `/qr.svg?code=${code}`;

	const connection = connect({ ...who, code });
	connection.on("message", (message) => {
		model.apply(message);
		heard(message, model.phase && show());
	});
	connection.on("status", ({ status, until, error }) => {
		showStatus(status, until, connection);
		if (status === "ended") stayAwake(false);
		if (status === "ended" && model.phase !== "finished") ended(error);
	});
	const model = new Model(connection.clock);
	let opening;
	return model;

	function show() {
		const { scene: phase, number, of, question, reveal, players, answered, podium, locked, approval } = model;
		const paused = model.phase === "paused";
		stayAwake(phase !== "finished");
		let told = podium?.length ? t("stage.won", { name: podium.filter(({ rank }) => rank === 1).map(({ name }) => name).join(", "), count: podium[0].score }) : "";
		Object.assign(document.body.dataset, { phase, paused, locked, approval, pace: connection.place.settings.pace, last: number === of });
		const { host, hostname, pathname } = new URL(connection.place.join_url ?? location.origin);
		document.body.classList.toggle("alone", /^(localhost$|127\.|\[::1)/.test(hostname));
		put("address", host + pathname.slice(0, -1));
		put("title", model.title);
		speak(model.language);
		put("players", t("players", { count: players }));
		if (model.own && phase !== "finished") {
			put("players", `${t("players", { count: players })} · ${t("own.done", { count: answered })}`);
			if (ui.until) put("until", [model.opensFrom > model.now && t("own.from", { at: moment(model.opensFrom) }), model.closesAt === null ? t("own.forever") : t("own.until", { at: moment(model.closesAt) })].filter(Boolean).join(" "));
			document.body.dataset.ends = model.closesAt !== null;
			ui.where?.replaceChildren(...model.shown.map((shown, at) => h("li", {}, t("own.where", { number: at + 1, shown, answers: model.answers[at] }))));
		}
		if (question && !podium) {
			const right = `${t("reveal.answer")}: ${shown(question, (reveal ?? question).correct)}`;
			const which = t("question.of", { number, of });
			told = reveal ? right : `${which}. ${question.text}`;
			put("of", which);
			put("worth", t("worth", { count: question.points }));
			put("question", question.text);
			put("right", reveal?.skipped ? `${right}. ${t("result.nobody")}` : right);
			const back = model.extended === number && !reveal ? ` ${t("extended")}` : "";
			put("answered", t("stage.answered", { answered, players }) + back);
			Object.assign(ui.share, { max: players || 1, value: answered });
			ui.board.show(model.top);
			if (isNew("clock", `${model.endsAt} ${model.left}`)) ui.time.show(model);
			document.body.classList.toggle("getting", model.getting);
			clearTimeout(opening);
			if (model.ready > 0 && !paused) opening = setTimeout(show, model.ready + 5);
			if (isNew("choices", `${number} ${reveal} ${withheld(question)}`)) {
				const typed = !choicesOf(question) && !withheld(question);
				const asked = typed ? { own: true, choices: [t("stage.right"), t("stage.wrong")] } : question;
				ui.choices.show(asked, { reveal: typed && reveal ? { ...reveal, correct: 0 } : reveal });
				ui.choices.classList.toggle("typed", typed);
			}
		}
		if (!isNew("phase", `${phase} ${number} ${paused}`)) return false;
		if (podium) ui.podium.show(podium);
		put("spoken", paused ? t("paused") : told);
		return true;
	}
}
