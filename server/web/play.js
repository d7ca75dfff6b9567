import "./elements/countdown.js";
import "./elements/leaderboard.js";
import { choicesOf, shown } from "./elements/choices.js";
import { connect, request as ask } from "./lib/fanfare.js";
import { $, all, h, isNew, kept, moveTo, onKey, put, query, say, speak, tab, ui } from "./lib/dom.js";
import { Model, withheld } from "./lib/model.js";
import { showStatus, stayAwake } from "./lib/status.js";
import { explain, figure, lang, locale, number, t } from "./lib/texts.js";
import { codeOf, numbersOf } from "./lib/typed.js";

/** Codes after which another name may do, and those after which a seat is of no use any more. */
const REFUSALS = /^name_|_field$/;
const FORGETS = /_not_found$|^token_/;

/** Within this time another tab of this browser has answered. */
const TABS_MS = 100;
/** Of one session, on one device. */
const SEATS_MAX = 9;

/** Of the session that one is in or wants to be in; empty without one. */
let code = codeOf(query.get("code") ?? "");
/** By which the app says who one is: from behind the `#` of its link, where no server sees it. */
const identity = /^#identity=([\w.-]+)$/.exec(location.hash)?.[1];
let connection = null;
let model = null;
let opening;
let picked = [];

/** What one has in a session: its `seat`, or what one has `ask`ed at its door. A tab has one of its own; the device has all,
 * the newest first. So two tabs are two players, and who comes back is who they were. */
const own = {
	all: (what, at = code) => [tab.get(`${what}.${at}`) ?? [], kept.get(`${what}.${at}`) ?? []].flat(),
	get: (what) => own.all(what)[0],
	set(what, value) {
		const key = `${what}.${code}`;
		const gone = [value, tab.get(key)].map(markOf);
		const left = [value ?? [], kept.get(key) ?? []].flat().filter((each) => each === value || !gone.includes(markOf(each)));
		kept.set(key, left.length ? left.slice(0, SEATS_MAX) : null);
		tab.set(key, value);
	},
};
/** Who was removed from a session is not somebody else in it on the same device. */
function formerly(at) {
	const seats = own.all("seat", at);
	const { token } = seats.find((each) => each.out) ?? seats[0] ?? {};
	return token && { former: token };
}
const markOf = (had) => had?.player ?? had?.ticket;
/** Where the answers are kept that are still to be acknowledged. */
const waits = () => `wait.${code}.${own.get("seat")?.player}`;

function show(phase) {
	if (!isNew("phase", phase)) return;
	const focused = ui.main.contains(document.activeElement);
	document.body.dataset.phase = phase;
	stayAwake(!["setup", "ended", "finished"].includes(phase));
	scrollTo(0, 0);
	if (focused) ui.main.focus();
}

// -- coming in

/** Asks for a code and then, unless the session names its players, for a name. `error` is why the last one did not do. */
function showJoin(error) {
	const { code: codeField, name: nameField, named, back } = ui;
	let session = null;

	async function look(error) {
		const typed = codeOf(codeField.value);
		session = null;
		put("told", "");
		put("wrong", "");
		named.hidden = false;
		back.hidden = true;
		if (typed.length < 6) return;
		const found = await ask("GET", `/api/sessions/${typed}`).catch((failed) => failed);
		if (codeOf(codeField.value) !== typed) return;
		if (!found.state) return put("wrong", explain(found));
		session = found;
		put("told", session.state.title);
		speak(session.state.language);
		if (error) put("wrong", explain(error));
		named.hidden = session.settings.names === "given";
		const [seat] = own.all("seat", typed);
		back.hidden = !seat;
		if (seat) say(back, t("join.back", seat));
		back.onclick = () => {
			code = typed;
			own.set("seat", seat);
			begin(typed, { token: seat.token });
		};
	}

	function refuse(field, sentence) {
		put("wrong", sentence);
		field.ariaInvalid = true;
		field.focus();
	}

	ui.join.onsubmit = async (event) => {
		event.preventDefault();
		const typed = codeOf(codeField.value);
		if (typed.length < 6) return refuse(codeField, t("join.six"));
		if (!session) await look();
		const name = nameField.value.trim();
		if (!session) codeField.focus();
		else if (!named.hidden && !name) refuse(nameField, t("join.who"));
		else begin(typed, { ...(!named.hidden && { name }), ...(identity ? { identity } : formerly(typed)) });
	};
	show("setup");
	ui.join.oninput = ({ target }) => {
		target.ariaInvalid = null;
		if (target !== codeField) return;
		if (target.value.includes("/")) target.value = codeOf(target.value) || target.value; // a link was pasted
		look();
	};
	codeField.value = code;
	(code ? nameField : codeField).focus();
	look(error);
}

/** Nothing goes on any more of what began before. */
function begin(joined, who) {
	code = joined;
	query.set("code", code);
	moveTo(`?${query}`);
	put("pending", t("status.connecting"));
	show("wait");
	connection = connect({ code, ...who, pending: (who.token && kept.get(waits())) || [] });
	connection.on("message", heard);
	connection.on("status", ({ status, until, error }) => {
		showStatus(status, until, connection);
		if (status === "ended") ended(error);
	});
	connection.on("pending", ({ size }) => kept.set(waits(), size ? [...connection.pending.values()] : null));
	model = new Model(connection.clock);
}

function ended(why) {
	if (why.code !== "replaced") kept.set(waits(), null);
	if (FORGETS.test(why.code)) own.set("seat", null);
	if (why.code === "kicked" && own.get("seat")) own.set("seat", { ...own.get("seat"), out: true }); // good again once the host says so
	own.set("ask", null);
	if (model.phase === "finished") return; // which is shown
	if (REFUSALS.test(why.code)) return showJoin(why);
	put("why", explain(why));
	ui.here.hidden = why.code !== "replaced";
	show("ended");
}

// -- playing

async function heard(message) {
	if (message.t === "waiting") {
		own.set("ask", message.who);
		return put("pending", t("join.waiting"));
	}
	model.apply(message);
	const { you } = model;
	if (message.t === "joined") {
		own.set("seat", { token: message.token, name: you.name, player: you.player });
		own.set("ask", null);
		model.waiting(connection.pending.values());
	}
	if (message.t === "over") await lastPlace();
	draw();
	if (message.t === "result") put("spoken", [...verdict(), place(you)].filter(Boolean).join(". "));
}

/** Of a session that is over and out of memory: one's own place in it. */
async function lastPlace() {
	const { player, token } = own.get("seat") ?? {};
	const board = await ask("GET", `/api/sessions/${code}/leaderboard?around=me&top=1`, { token }).catch(() => null);
	model.you = board?.around?.find((line) => line.id === player) ?? null;
}

function draw() {
	const { scene, number: asked, of } = model;
	if (!scene) return;
	speak(model.language);
	clearTimeout(opening);
	if (model.ready > 0 && model.phase === "question") opening = setTimeout(draw, model.ready + 5);
	else if (model.own && model.remaining > 0 && !model.given) opening = setTimeout(draw, model.remaining + 60);
	document.body.classList.toggle("getting", model.getting);
	document.title = `${model.title || "Quiz"} · Fanfare`;
	for (const each of all(".of")) say(each, t("question.of", { number: asked, of }));
	for (const each of all(".asked")) say(each, model.question?.text ?? "");
	for (const each of all(".next")) {
		each.hidden = !model.mayGoOn;
		say(each, t(model.number ? "own.next" : "own.start"));
		each.onclick = () => connection.next();
	}
	ui.again.hidden = !model.mayPlayAgain;
	({ lobby, question, reveal: result, through, finished })[scene]();
	show(scene);
}

function lobby() {
	put("welcome", t("lobby.in", { name: model.you.name }));
	put("title", model.title);
	put("players", t("players", { count: model.players }));
	put("await", t(model.own ? "own.lead" : "lobby.wait"));
}

/** The player has left every question behind; the session goes on. */
function through() {
	const { you, review } = model;
	const { attempt, attempts, attemptScore } = model;
	const several = attempts > 1 && you.score !== null;
	put("own-score", you.score === null ? t("own.later") : t("points", { count: several ? attemptScore : you.score }));
	put("own-best", several ? t("own.best", { points: t("points", { count: you.score }), attempt, attempts }) : "");
	put("own-place", place(you));
	put("own-right", attempts > 1 && !review && model.reveals === "end" ? t("own.right_later") : "");
	say(ui.again, t("own.again", { attempt: attempt + 1, attempts }));
	ui.again.onclick = () => connection.next(attempt + 1);
	ui.review.replaceChildren(...(review ?? []).map((asked) => h("li", { className: asked.correct ? "right" : "wrong" },
		h("p", { dir: "auto", lang: model.language }, asked.text),
		h("p.soft", { dir: "auto", lang: model.language }, `${t("reveal.answer")}: ${shown(asked, asked.answer)}`))));
}

function question() {
	const { question: asked, given, you, turn: nth, answered, players } = model;
	const locked = Boolean(given) || model.phase === "paused" || model.getting || model.watching;
	if (isNew("question", nth)) {
		picked = [];
		put("worth", t("worth", { count: asked.points }));
		put("spoken", `${t("question.of", { number: model.number, of: model.of })}. ${asked.text}`);
	}
	if (isNew("clock", `${nth} ${model.endsAt} ${model.left} ${model.limit}`)) ui.time.show(model);
	if (isNew("answer", `${nth} ${locked} ${given?.choice} ${withheld(asked)}`)) offer(asked, given, locked);
	const [kind, text] = told(asked, given);
	ui.state.className = `state ${kind}`;
	put("state", text);
	put("me", you.name);
	put("my-score", you.score === null ? "" : number(you.score));
	put("my-rank", place(you));
	put("answered", model.own ? "" : t("stage.answered", { answered, players }));
}

/** Whether there is a place to speak of: as long as nobody has points, everybody is first. */
const hasPlace = ({ rank, score }) => rank > 1 || (rank === 1 && score > 0);

/** One's place after the last result. */
const place = (you) => (hasPlace(you) ? t("rank.of", { rank: you.rank, players: Math.max(model.players, you.rank) }) : "");

/** Who has the same place and who is next ahead, as far as the result shows: two players to either side. */
function near({ around }, you) {
	if (!hasPlace(you)) return t("near.none");
	const mine = around.findIndex((line) => line.id === you.player);
	const tied = (line) => line?.rank === you.rank;
	const mates = around.filter((line, at) => at !== mine && tied(line)).map((line) => line.name);
	const ahead = around.findLast((line) => line.score > you.score);
	const told = ahead ? [t("near.ahead", { count: ahead.score - you.score, name: ahead.name })] : [];
	if (tied(around[mine - 2]) || tied(around[mine + 2])) told.unshift(t("near.shared_others"));
	else if (mates.length) told.unshift(t("near.shared", { names: new Intl.ListFormat(lang).format(mates) }));
	else if (you.rank === 1) told.push(t("near.first"));
	return told.join(" · ");
}

/** The controls to answer with. */
function offer(asked, given, locked) {
	const typed = !choicesOf(asked) && !withheld(asked);
	const numeric = asked.type === "numeric";
	const choices = ui.choices;
	ui.type.hidden = !typed;
	choices.hidden = typed;
	ui.these.hidden = asked.type !== "multiple" || locked;
	ui.these.disabled = !picked.length;
	if (typed) {
		const field = ui.answer;
		put("kind", t(numeric ? "answer.numeric" : "answer.text"));
		put("match", { spelling: t("answer.spelling"), exact: t("answer.exact") }[asked.match] ?? "");
		put("mistyped", "");
		field.inputMode = numeric ? "decimal" : "text";
		ui.sign.hidden = !numeric;
		ui.readings.replaceChildren();
		field.value = given ? shown(asked, given.choice) : "";
		field.disabled = ui.send.disabled = ui.sign.disabled = locked;
		if (!locked) queueMicrotask(() => field.focus());
		return;
	}
	const pick = (place) => {
		if (asked.type === "single") return send(place);
		if (asked.type === "true_false") return send(place === 0);
		picked = picked.includes(place) ? picked.filter((each) => each !== place) : [...picked, place].sort();
		choices.press(picked);
		ui.these.disabled = !picked.length;
	};
	choices.show(asked, { pick, locked, given: given?.choice ?? picked });
}

function send(choice) {
	if (model.given || model.phase !== "question" || model.getting || model.watching) return;
	model.given = { choice };
	connection.answer(model.number, choice);
	navigator.vibrate?.(20);
	draw();
}

/** Where one's answer is on its way. */
function told(asked, given) {
	if (model.phase === "paused") return ["", t("paused")];
	if (model.getting) return ["", t("ready")];
	if (model.watching) return ["", t("watching")];
	if (!given && model.own && model.remaining === 0) return ["refused", t("reveal.wait")];
	if (!given && model.missed) return ["", t("own.missed", { answer: shown(model.missed.question, model.missed.answer) })];
	if (!given) return ["", model.extended === model.number ? t("extended") : ""];
	if (given.refused) return ["refused", explain(given.refused)];
	if (given.twice) return ["saved", t("answer.twice", { choice: shown(asked, given.choice) })];
	if (given.saved) return ["saved", t("answer.saved")];
	return ["sent", t(connection.status === "open" ? "answer.received" : "answer.kept")];
}

/** What the last question has brought, in a headline and a sentence. */
function verdict() {
	const { correct, points, skipped } = model.result;
	if (skipped) return [t("result.skipped"), t("result.nobody")];
	if (correct === null) return [t("result.none"), t("result.missed")];
	return correct ? [t("result.right"), t("result.won", { count: points })] : [t("result.wrong"), t("result.nothing")];
}

function result() {
	const { question: asked, reveal, result: own, you } = model;
	const typed = !choicesOf(asked);
	if (isNew("reveal", model.turn)) {
		ui.solution.hidden = !typed;
		ui.bars.hidden = typed;
		if (typed) put("right", shown(asked, reveal.correct));
		else ui.bars.show(asked, { reveal, given: model.given?.choice });
	}
	const [title, text] = own ? verdict() : [t("reveal.wait"), ""];
	ui.verdict.className = own ? `verdict ${{ true: "right", false: "wrong" }[own.correct] ?? "none"}` : "verdict";
	put("verdict-title", title);
	put("verdict-text", text);
	for (const [id, value] of [["points", you.score], ["rank", hasPlace(you) ? you.rank : null], ["streak", you.streak]]) put(id, value === null ? "–" : number(value));
	put("near", own?.around ? near(own, you) : "");
}

function finished() {
	const { rank, score, player } = model.you ?? {};
	if (isNew("podium", JSON.stringify(model.podium))) ui.podium.show(model.podium, player);
	ui.own.hidden = !hasPlace({ rank, score });
	if (ui.own.hidden) return;
	put("place", number(rank));
	const points = t("points", { count: score });
	put("score", points);
	put("spoken", `${t("finished.place")} ${number(rank)}. ${points}`);
}

// -- the page

ui.type.onsubmit = (event) => {
	event.preventDefault();
	const typed = ui.answer.value.trim();
	if (model.question.type !== "numeric") return typed ? send(typed) : put("mistyped", t("answer.empty"));
	const readings = numbersOf(typed, [model.language, locale, navigator.language]);
	const [one, other] = readings;
	if (readings.length === 1) return send(one);
	// What it means is asked, and never guessed.
	put("mistyped", readings.length ? t("answer.which", { one: figure(one, false), other: figure(other, false) }) : t("answer.number"));
	ui.readings.replaceChildren(...readings.map((value) => h("button", { type: "button", onclick: () => send(value) }, figure(value, false))));
};
ui.answer.oninput = () => {
	put("mistyped", "");
	ui.readings.replaceChildren();
};
// Some phones have no minus beside their digits. The field keeps the focus, and with it the keyboard.
ui.sign.onpointerdown = (event) => event.preventDefault();
ui.sign.onclick = () => {
	const { value } = ui.answer;
	ui.answer.value = value.replace(/^\s*\p{Pd}|^\s*\u2212/u, "");
	if (ui.answer.value === value) ui.answer.value = `-${value}`;
	ui.answer.oninput();
	ui.answer.focus();
};
ui.these.onclick = () => send(picked);
ui.here.onclick = () => begin(code, { token: connection.token });
onKey((key) => {
	if (model?.phase !== "question") return;
	const place = "12345678".includes(key) ? key - 1 : "abcdefgh".indexOf(key);
	$(`#choices button[data-place="${place}"]:enabled`)?.click();
});

/** The other tabs of this browser, where they can be asked. */
const tabs = globalThis.BroadcastChannel && new BroadcastChannel("fanfare");
tabs?.addEventListener("message", ({ data }) => {
	const mine = tab.get(`seat.${code}`) ?? tab.get(`ask.${code}`);
	if (connection && connection.status !== "ended" && data.asks === `${code} ${markOf(mine)}`) tabs.postMessage({ has: data.asks });
});

/** Whether another tab plays as this one. */
const isTaken = (mark) => tabs && new Promise((done) => {
	tabs.addEventListener("message", ({ data }) => data.has === mark && done(true));
	tabs.postMessage({ asks: mark });
	setTimeout(done, TABS_MS, false);
});

async function comeBack() {
	if (identity) {
		moveTo(`?${query}`); // a reload has the seat
		return code ? begin(code, { identity }) : showJoin();
	}
	for (const what of code ? ["seat", "ask"] : []) {
		for (const had of own.all(what)) {
			if (await isTaken(`${code} ${markOf(had)}`)) continue;
			own.set(what, had);
			return begin(code, what === "seat" ? { token: had.token } : had);
		}
	}
	showJoin();
}
comeBack();
