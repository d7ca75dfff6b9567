import "./elements/roster.js";
import { request as ask } from "./lib/fanfare.js";
import { askAsAuthor, browse, greet, me } from "./lib/author.js";
import { $, all, arrange, h, kept, onKey, put, query, ui } from "./lib/dom.js";
import { attend } from "./lib/stage.js";
import { copy, explain, number, t } from "./lib/texts.js";

const DAY_MS = 86_400_000;
const HOSTED_MAX = 5;
const SHOWN_MAX = 100;
const SESSIONS_MAX = 200;
/** So soon after another press, or after a change of what is there to be pressed, a press is not meant. */
const DEAF_MS = 400;
/** Within this time a key that would close the question is pressed once more. */
const SURE_MS = 5_000;

const hosted = kept.get("hosted") ?? [];
const linkOf = ({ code, token }) => `/host?code=${code}#${token}`;
const inSight = (selector) => all(selector).find((each) => each.checkVisibility());
/** Says beside the buttons why something did not go. */
const refused = (error) => put("wrong", explain(error));
let deaf = 0;

function deafen() {
	clearTimeout(deaf);
	document.body.dataset.deaf = "";
	deaf = setTimeout(() => delete document.body.dataset.deaf, DEAF_MS);
}

/** `lead(button.dataset)` for what is pressed: by hand, with its key, or from afar. */
function listen(lead) {
	document.onclick = ({ target }) => {
		const button = target.closest("[data-do]");
		if (!button) return;
		const heard = !("deaf" in document.body.dataset);
		deafen();
		if (heard && button.ariaDisabled !== "true") lead(button.dataset);
	};
}

async function setUp(wanted) {
	document.body.dataset.phase = "setup";
	ui.new.onsubmit = open;
	ui.new.onchange = offerSettings;
	offerSettings();
	hosted.forEach(offer);
	greet();
	const of = (await me()).user_id && !(await me()).admin ? "&owner=me" : "";
	const [{ sessions }] = await Promise.all([askAsAuthor("GET", `/api/sessions?limit=${SESSIONS_MAX}${of}`), browse((quizzes, isFirst) => showQuizzes(quizzes, isFirst && !ui.search.value, wanted), refused)]);
	showOthers(sessions.filter(({ code, finished_at: over }) => over === null && !hosted.some((each) => each.code === code)));
	if (wanted && !$("#quizzes :checked")) {
		const { quizzes } = await askAsAuthor("GET", `/api/quizzes?id=${encodeURIComponent(wanted)}`);
		ui.quizzes.prepend(...quizzes.map((quiz) => choice(quiz, true)));
	}
	ui.open.disabled = false; // before, there is nothing to open
}

const choice = ({ id, title, questions }, checked) => h("label.quiz", {},
	h("input", { type: "radio", name: "quiz_id", value: id, required: true, checked }),
	h("span", { dir: "auto" }, title), h("span.hint", {}, t("host.questions", { count: questions })));

/** What was chosen stays in sight, whatever is searched. */
function showQuizzes(quizzes, isBeginning, wanted) {
	const chosen = $("#quizzes :checked");
	if (!chosen || ui.search.value || isBeginning) for (const row of [...ui.quizzes.children]) if (!row.contains(chosen)) row.remove();
	const there = new Set(all("#quizzes input").map((each) => each.value));
	ui.quizzes.append(...quizzes.filter(({ id }) => !there.has(id)).map((quiz, place) => choice(quiz, isBeginning && !chosen && (wanted ? quiz.id === wanted : !place))));
}

/** A session that was led here, unless it is over. */
async function offer(session) {
	const { state } = await ask("GET", `/api/sessions/${session.code}`).catch(() => ({}));
	if (state && state.phase !== "finished") ui.running.append(h("a.button", { href: linkOf(session) }, h("span", { dir: "auto", lang: state.language }, state.title), h("b", {}, session.code)));
}

/** Sessions that run and that this browser does not lead. */
function showOthers(sessions) {
	deafen(); // what is below has moved
	put("others-count", t("host.others", { count: sessions.length }));
	ui.others.append(...sessions.map(({ id, code, title, players }) => h("li.row", {},
		h("div", {}, h("span", { dir: "auto" }, title), h("span.hint", {}, h("b", {}, code), ` · ${t("players", { count: players })}`)),
		h("button", { type: "button", "data-do": "take", "data-session": id, ariaLabel: `${t("host.take")}: ${title}, ${code}` }, t("host.take")))));
	let taken = false;
	listen(async ({ session }) => {
		if (taken) return;
		taken = true;
		put("wrong", "");
		try {
			const { code, host_token: token } = await askAsAuthor("POST", `/api/sessions/${session}/host-token`);
			location.href = linkOf({ code, token });
		} catch (error) {
			refused(error);
		}
		taken = false;
	});
}

/** Of the settings, those that mean something with what was chosen; the others are not sent. */
function offerSettings() {
	const own = ui.pace.value === '{"pace":"self"}';
	for (const row of all(".fields .own, .fields .led")) row.hidden = row.classList.contains("own") !== own;
	ui.ends.hidden ||= ui.long.value !== "null";
	ui.end.required = !ui.ends.hidden;
}

/** From when until when a session is open in which all go at their own pace. */
function times() {
	if (ui.pace.value !== '{"pace":"self"}') return {};
	const from = ui.from.value ? Date.parse(ui.from.value) : null;
	return { ...(from && { open_from: from }), ...(!ui.ends.hidden && { open_ms: Date.parse(ui.end.value) - (from ?? Date.now()) }) };
}

async function open(event) {
	event.preventDefault();
	const { target: form, submitter } = event;
	const body = { quiz_id: form.quiz_id.value, player_limit: Number(form.limit.value) };
	for (const { value } of all("p:not([hidden]) > select", form)) Object.assign(body, JSON.parse(value));
	Object.assign(body, times());
	submitter.disabled = true;
	window.onpagehide = () => (submitter.disabled = false); // for who comes back
	try {
		const { code, host_token: token } = await askAsAuthor("POST", "/api/sessions", { body });
		location.href = linkOf({ code, token });
	} catch (error) {
		submitter.disabled = false;
		refused({ ...error, code: `${error.code}.${error.path}`, message: explain(error) });
	}
}

function host(session) {
	const { code, token } = session;
	const path = `/api/sessions/${code}`;
	const roster = $("ff-roster");
	roster.onextra = (player, factor) => lead({ do: "extra_time", player, factor });
	const sent = new Set();
	let removed = new Map();
	let sureUntil = 0;

	const model = attend(code, session, (message, isNew) => {
		if (message.t === "joined") {
			roster.of = model.own ? model.of : 0;
			roster.now = () => model.now;
			read();
		}
		if (message.t === "roster") hearRoster(message);
		if (message.t === "waiting_list") showWaiting(message);
		if (message.t === "health") showHealth(message);
		if (!isNew) return;
		deafen();
		sureUntil = 0;
		put("wrong", "");
		ui.next.ariaDisabled = model.scene === "question";
		ui.peek.checked = false;
		if (model.phase === "finished") ask("GET", `${path}/results`, { token }).then(showResults).catch(refused);
		scrollTo(0, 0);
		if (!inSight(":focus")) inSight("#start, #resume, #next")?.focus({ preventScroll: true });
	}, (why) => {
		if (/^token_/.test(why.code)) kept.set("hosted", others); // this one leads nothing any more
		Object.assign(document.body.dataset, { phase: "ended", why: why.code });
		put("why", explain(why));
	});

	/** The key that goes on has to be pressed twice to close a question: nobody gets it back. */
	function goOn() {
		const close = inSight("#close");
		if (!close || performance.now() < sureUntil) return (close ?? inSight("#start, #resume, #next"))?.click();
		if ("deaf" in document.body.dataset) return deafen();
		deafen();
		sureUntil = performance.now() + SURE_MS;
		put("wrong", t("host.close_sure"));
	}

	const read = () => Promise.all([roster.load(path, token), showRemoved()]).catch(() => setTimeout(read, 5_000));

	function hearRoster(message) {
		roster.hear(message);
		const { joined, kicked } = message;
		if (kicked.length || joined.some(({ id }) => removed.has(id))) showRemoved().catch(read);
	}

	/** Who was removed and can be let in again. Rows that stay are not touched, for one may have the focus. */
	async function showRemoved() {
		const { players } = await ask("GET", `${path}/players?removed=true&limit=1000`, { token });
		const before = removed;
		removed = new Map(players.map(({ id, name }) => [id, before.get(id) ?? h("li.row", {}, h("bdi.name", {}, name),
			h("button", { type: "button", "data-do": "readmit", "data-player": id, ariaLabel: `${t("host.readmit")}: ${name}` }, t("host.readmit")))]));
		if (ui.removed.open && ui.outside.children.length > players.length) deafen(); // rows have moved up
		ui.removed.hidden = !players.length;
		put("removed-count", t("host.removed", { count: players.length }));
		arrange(ui.outside, [...removed.values()]);
	}

	/** Does what a button names; not again before it is done. */
	async function lead({ do: what, player, factor }) {
		const mark = `${what} ${player}`;
		if (!what || sent.has(mark)) return;
		const who = player && { player: Number(player), factor };
		const { number, phase } = model; // as the host sees them, and not as they are by then
		const seen = { expect: { number, phase } };
		const more = { start: seen, next: seen, close: seen, skip: seen, lock: { on: !model.locked }, approval: { on: !model.approval }, kick: who, extend: { closes_at: Math.max(model.closesAt, model.now) + DAY_MS }, readmit: who, admit: who, refuse: who, extra_time: who };
		sent.add(mark);
		put("wrong", "");
		try {
			if (what === "erase") await erase(player);
			else await ask("POST", `${path}/host`, { body: { do: what, ...more[what] }, token });
		} catch (error) {
			refused(error);
		}
		sent.delete(mark);
	}

	/** How the session is, in a sentence or two. */
	function showHealth({ lagging, p99_ms: p99, saved, saved_in: place }) {
		ui.saved.dataset.state = saved ? place : "waits";
		put("saved", t({ postgresql: "health.saved", spool: "health.spool", waits: "health.waits" }[ui.saved.dataset.state]));
		const lines = [p99 !== null && t("health.pace", { ms: p99 }), lagging > 0 && t("health.lagging", { count: lagging })];
		put("pace-of", lines.filter(Boolean).join(" "));
	}

	/** Who is at the door. Rows that stay are not touched, for one may have the focus. */
	function showWaiting({ players, count }) {
		const before = new Map([...ui.applicants.children].map((row) => [row.who, row]));
		const button = (what, player, text) => h("button", { type: "button", "data-do": what, "data-player": player }, text);
		if (ui.applicants.children.length > players.length) deafen(); // rows have moved up
		ui.waiting.hidden = !count;
		put("waiting-count", t("host.waiting", { count }));
		arrange(ui.applicants, players.map(({ id, name }) => before.get(`${id} ${name}`) ?? Object.assign(
			h("li.row", {}, h("bdi.name", {}, name), button("admit", id, t("host.admit")), button("refuse", id, t("host.refuse"))),
			{ who: `${id} ${name}` },
		)));
	}

	function showResults({ players }) {
		ui.results.replaceChildren(...players.slice(0, SHOWN_MAX).map(({ rank, name, score, correct, answered, player }) => {
			const forget = copy("forget");
			$("button", forget).dataset.player = player;
			return h("tr", {}, [number(rank), h("bdi", {}, name), ...[score, correct, answered].map(number)].map((text) => h("td", {}, text)), forget);
		}));
	}

	/** The name of this player, or without one the session. */
	async function erase(player) {
		const { name } = await ask("DELETE", player ? `${path}/players/${player}` : path, { token });
		if (player) return model.phase === "finished" && rename(player, name);
		kept.set("hosted", others);
		location.href = "/host";
	}

	/** In the results, which stay where they are. */
	function rename(player, name) {
		const row = $(`[data-player="${player}"]`, ui.results).closest("tr");
		$("bdi", row).textContent = name;
		$("details", row).open = false;
		$("summary", row).focus({ preventScroll: true });
		for (const line of model.podium) if (line.id === Number(player)) line.name = name;
		ui.podium.show(model.podium);
	}

	const others = hosted.filter((each) => each.code !== code);
	kept.set("hosted", [session, ...others].slice(0, HOSTED_MAX));
	ui.screen.href = `/screen?code=${code}`;
	ui.csv.href = `${path}/results.csv?token=${token}`;
	ui.link.value = location.origin + linkOf(session);
	ui.copy.onclick = () => {
		ui.link.select();
		if (document.execCommand("copy")) put("copied", t("host.copied"));
	};
	listen(lead);
	const pause = () => inSight("#pause, #resume")?.click();
	// A presenter's remote has two keys, which are one pair of these.
	const keys = { n: goOn, pagedown: goOn, arrowright: goOn, p: pause, pageup: pause, arrowleft: pause };
	onKey((key) => {
		keys[key]?.();
		return key in keys;
	});
}

const code = query.get("code");
const token = location.hash.slice(1) || hosted.find((each) => each.code === code)?.token;
if (code && token) host({ code, token });
else setUp(query.get("quiz")).catch(refused);
