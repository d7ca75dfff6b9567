import "./elements/countdown.js";
import "./elements/leaderboard.js";
import { choicesOf } from "./elements/choices.js";
import { ask } from "./lib/api.js";
import { Connection } from "./lib/connection.js";
import { $, isNew, kept, put, say } from "./lib/dom.js";
import { Model, shown } from "./lib/model.js";
import { showStatus } from "./lib/status.js";
import { explain, number, t, translate } from "./lib/texts.js";

/** Codes after which another name may do, and those after which a seat is of no use any more. */
const REFUSALS = /^name_|_field$/;
const FORGETS = /^kicked$|_not_found$|^token_/;

const codeOf = (text) => text.replace(/\D/g, "").slice(0, 6);
const here = () => codeOf(new URLSearchParams(location.search).get("code") ?? "");

const sayAll = (selector, text) => document.querySelectorAll(selector).forEach((each) => say(each, text));

let connection = null;
let model = null;
let picked = [];

function show(phase) {
	if (!isNew("phase", phase)) return;
	const focused = $("#main").contains(document.activeElement);
	document.body.dataset.phase = phase;
	scrollTo(0, 0);
	if (focused) $("#main").focus();
}

// -- coming in

/** Asks for a code and then, unless the session names its players, for a name. */
function showJoin(code = "", error = null) {
	const [codeField, nameField, named, back] = ["#code", "#name", "#named", "#back"].map((each) => $(each));
	let session = null;

	async function look() {
		const typed = codeOf(codeField.value);
		session = null;
		put("told", "");
		named.hidden = false;
		back.hidden = true;
		if (typed.length < 6) return;
		try {
			const found = await ask("GET", `/api/sessions/${typed}`);
			if (codeOf(codeField.value) !== typed) return;
			session = found;
			put("told", session.state.title);
			put("wrong", error ? explain(error) : "");
			named.hidden = session.settings.names === "given";
			const seat = kept.get(`seat.${typed}`);
			back.hidden = !seat;
			if (seat) say(back, t("join.back", seat));
			back.onclick = () => begin(typed, { token: seat.token });
		} catch (failed) {
			put("wrong", explain(failed));
		}
		error = null;
	}

	function refuse(field, sentence) {
		put("wrong", sentence);
		field.setAttribute("aria-invalid", "true");
		field.setAttribute("aria-describedby", "wrong");
		field.focus();
	}

	$("#join").onsubmit = async (event) => {
		event.preventDefault();
		const typed = codeOf(codeField.value);
		if (typed.length < 6) return refuse(codeField, t("join.six"));
		if (!session) await look();
		const name = nameField.value.trim();
		if (!session) codeField.focus();
		else if (named.hidden) begin(typed, {});
		else if (!name) refuse(nameField, t("join.who"));
		else begin(typed, { name });
	};
	show("setup");
	put("wrong", "");
	codeField.oninput = look;
	codeField.value = code;
	(code ? nameField : codeField).focus();
	if (code) look();
}

function begin(code, who) {
	history.replaceState(null, "", `?code=${code}`);
	show("wait");
	connection?.close();
	connection = new Connection(code, who, {
		message: (message) => heard(message, code),
		status(status, detail) {
			showStatus(status, detail, connection);
			if (status === "ended") ended(code, detail);
		},
		pending: () => kept.set(`wait.${code}`, connection.pending.size ? [...connection.pending.values()] : null),
	}, kept.get(`wait.${code}`) ?? []);
	model = new Model(connection.clock);
}

function ended(code, why) {
	if (FORGETS.test(why.code)) kept.set(`seat.${code}`, null);
	kept.set(`wait.${code}`, null);
	if (model.phase === "finished") return; // which is shown
	if (REFUSALS.test(why.code)) return showJoin(code, why);
	put("why", explain(why));
	$("#here").hidden = why.code !== "replaced";
	show("ended");
}

// -- playing

async function heard(message, code) {
	model.apply(message);
	const { you } = model;
	if (message.t === "joined") {
		kept.set(`seat.${code}`, { token: message.token, name: you.name, player: you.player });
		model.waiting(connection.pending.values());
	}
	if (message.t === "over") await lastPlace(code);
	draw();
	if (message.t === "result") put("spoken", [...verdict(), t("rank.of", { rank: you.rank, players: model.players })].join(". "));
}

/** Of a session that is over and out of memory: one's own place in it. */
async function lastPlace(code) {
	const { player, token } = kept.get(`seat.${code}`) ?? {};
	const board = await ask("GET", `/api/sessions/${code}/leaderboard?around=me&top=1`, { token }).catch(() => null);
	model.you = board?.around?.find((line) => line.id === player) ?? null;
}

function draw() {
	const { phase, reveal, number: asked, of } = model;
	if (!phase) return;
	document.title = `${model.title || "Quiz"} · Fanfare`;
	sayAll(".of", t("question.of", { number: asked, of }));
	sayAll(".asked", model.question?.text ?? "");
	const now = phase !== "paused" ? phase : reveal ? "reveal" : "question";
	({ lobby, question, reveal: result, finished })[now]();
	show(now);
}

function lobby() {
	put("welcome", t("lobby.in", { name: model.you.name }));
	put("title", model.title);
	put("players", t("players", { count: model.players }));
}

function question() {
	const { question: asked, given, you, number: place } = model;
	const mine = model.top.find((line) => line.id === you.player) ?? you;
	const locked = Boolean(given) || model.phase === "paused";
	if (isNew("question", place)) {
		picked = [];
		put("worth", t("worth", { count: asked.points }));
		put("spoken", `${t("question.of", { number: place, of: model.of })}. ${asked.text}`);
	}
	if (isNew("clock", `${place} ${model.endsAt} ${model.left}`)) $("#time").show(model);
	if (isNew("answer", `${place} ${locked} ${given?.choice}`)) offer(asked, given, locked);
	const [kind, text] = told(asked, given);
	$("#state").className = `state ${kind}`;
	put("state", text);
	put("me", you.name);
	put("my-score", number(mine.score));
	put("my-rank", mine.rank ? t("rank.of", { rank: mine.rank, players: Math.max(model.players, mine.rank) }) : "");
}

/** The controls to answer with. */
function offer(asked, given, locked) {
	const typed = !choicesOf(asked);
	const numeric = asked.type === "numeric";
	const choices = $("#choices");
	$("#type").hidden = !typed;
	choices.hidden = typed;
	$("#these").hidden = asked.type !== "multiple" || locked;
	$("#these").disabled = !picked.length;
	if (typed) {
		const field = $("#answer");
		put("kind", t(numeric ? "answer.numeric" : "answer.text"));
		put("mistyped", "");
		field.inputMode = numeric ? "decimal" : "text";
		field.maxLength = numeric ? 40 : 200;
		field.value = given ? given.choice : "";
		field.disabled = $("#send").disabled = locked;
		if (!locked) queueMicrotask(() => field.focus());
		return;
	}
	const pick = (place) => {
		if (asked.type === "single") return send(place);
		if (asked.type === "true_false") return send(place === 0);
		picked = picked.includes(place) ? picked.filter((each) => each !== place) : [...picked, place].sort();
		choices.press(picked);
		$("#these").disabled = !picked.length;
	};
	choices.show(asked, { pick, locked, given: given?.choice ?? (picked.length ? picked : null) });
}

function send(choice) {
	if (model.given || model.phase !== "question") return;
	model.given = { choice };
	connection.answer(model.number, choice);
	navigator.vibrate?.(20);
	draw();
}

/** Where one's answer is on its way. */
function told(asked, given) {
	if (model.phase === "paused") return ["", t("paused")];
	if (!given) return ["", ""];
	if (given.refused) return ["refused", explain(given.refused)];
	if (given.twice) return ["saved", t("answer.twice", { choice: shown(asked, given.choice, t) })];
	if (given.saved) return ["saved", t("answer.saved")];
	return ["sent", t(connection.status === "open" ? "answer.received" : "answer.kept")];
}

/** What the last question has brought, in a headline and a sentence. */
function verdict() {
	const { correct, points } = model.result;
	if (correct === null) return [t("result.none"), t("result.missed")];
	return correct ? [t("result.right"), t("result.won", { count: points })] : [t("result.wrong"), t("result.nothing")];
}

function result() {
	const { question: asked, reveal, result: own, you } = model;
	const typed = !choicesOf(asked);
	if (isNew("reveal", model.number)) {
		$("#solution").hidden = !typed;
		$("#bars").hidden = typed;
		if (typed) put("right", shown(asked, reveal.correct, t));
		else $("#bars").show(asked, { reveal, given: model.given?.choice });
	}
	const [title, text] = own ? verdict() : [t("reveal.wait"), ""];
	$("#verdict").className = own ? `verdict ${{ true: "right", false: "wrong" }[own.correct] ?? "none"}` : "verdict";
	put("verdict-title", title);
	put("verdict-text", text);
	for (const [id, value] of [["points", you.score], ["rank", you.rank], ["streak", you.streak]]) put(id, value === null ? "–" : number(value));
	const ahead = own?.around.findLast((line) => line.score > you.score);
	put("near", ahead ? t("near.ahead", { count: ahead.score - you.score, name: ahead.name }) : own ? t("near.first") : "");
}

function finished() {
	const { rank, score, player } = model.you ?? {};
	if (isNew("podium", JSON.stringify(model.podium))) $("#podium").show(model.podium, player);
	$("#own").hidden = !rank;
	if (!rank) return;
	put("place", number(rank));
	put("score", t("points", { count: score }));
	put("spoken", `${t("finished.place")} ${number(rank)}. ${t("points", { count: score })}`);
}

// -- the page

$("#type").onsubmit = (event) => {
	event.preventDefault();
	const typed = $("#answer").value.trim();
	const numeric = model.question.type === "numeric";
	const value = numeric ? Number(typed.replace(/\s/g, "").replace(",", ".")) : typed;
	if (!typed || (numeric && !Number.isFinite(value))) put("mistyped", t(numeric ? "answer.number" : "answer.empty"));
	else send(value);
};
$("#these").onclick = () => send(picked);
$("#here").onclick = () => begin(here(), { token: connection.token });
document.onkeydown = ({ key, target, ctrlKey, metaKey, altKey }) => {
	if (target.matches("input, select") || ctrlKey || metaKey || altKey || model?.phase !== "question") return;
	const place = "12345678".includes(key) ? key - 1 : "abcdefgh".indexOf(key.toLowerCase());
	$(`#choices button[data-place="${place}"]:enabled`)?.click();
};

translate(document.body);
const seat = kept.get(`seat.${here()}`);
if (seat) begin(here(), { token: seat.token });
else showJoin(here());
