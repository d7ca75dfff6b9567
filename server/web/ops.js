import { asAuthor, greet } from "./lib/author.js";
import { $, arrange, h, put, say, ui } from "./lib/dom.js";
import { listen } from "./lib/feed.js";
import { Plot } from "./lib/plot.js";
import { explain, locale, number, t } from "./lib/texts.js";

const KEPT_MS = 900_000;
const SLOW_SHOWN = 10;
const EVENTS_SHOWN = 100;
const BACK_MS = 2_000;
/** The parts of an answer's time, each from one moment of its timeline to another. */
const PARTS = [["mailbox", null, "taken_ms"], ["judge", "taken_ms", "decided_ms"], ["queue", "queued_ms", "commit_started_ms"], ["commit", "commit_started_ms", "commit_ended_ms"], ["ack", "commit_ended_ms", "acked_ms"]];

const clock = new Intl.DateTimeFormat(locale, { timeStyle: "medium" });
const share = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat(locale, { maximumSignificantDigits: 3 });
const ms = (value) => (value === null || value === undefined ? "–" : t("ops.ms", { value: fine.format(value) }));
const sum = (values) => values.reduce((all, each) => all + each, 0);

/** What each node has said, by its name, with its samples and events of the last minutes. */
let nodes = new Map();
/** The elements of nodes, sessions, answers and events, which stay while what they show stays. */
const rows = new Map();

/** The element under this key, made once. */
function row(key, make) {
	if (!rows.has(key)) rows.set(key, make());
	const made = rows.get(key);
	made.seen = true;
	return made;
}

function forgetUnseen() {
	for (const [key, made] of rows) {
		if (!made.seen) rows.delete(key);
		made.seen = false;
	}
}

function hear({ at, cluster, nodes: said, silent }, isFirst) {
	if (isFirst) nodes = new Map();
	for (const node of said) {
		const before = nodes.get(node.name);
		const samples = [...(before?.samples ?? []), ...node.samples].filter((each) => each.at > node.at - KEPT_MS);
		const events = [...(before?.events ?? []), ...node.events].slice(-EVENTS_SHOWN);
		nodes.set(node.name, { ...node, samples, events });
	}
	const there = new Set(cluster.nodes.map(({ name }) => name));
	for (const name of nodes.keys()) if (!there.has(name)) nodes.delete(name);
	const shown = cluster.nodes.map((beat) => ({ name: beat.name, version: beat.version, ...nodes.get(beat.name), state: silent.includes(beat.name) ? "silent" : beat.state, beat }));
	draw(at, shown);
	forgetUnseen();
}

function draw(at, shown) {
	put("at", t("ops.at", { time: clock.format(at) }));
	showVerdict(shown);
	showTotals(shown);
	arrange(ui.nodes, shown.map((node) => nodeCard(node).show(node)));
	const all = (what) => shown.flatMap((node) => (node[what] ?? []).map((each) => ({ ...each, node: node.name })));
	arrange(ui.sessions, all("sessions").sort((one, other) => other.players - one.players).map(sessionRow));
	arrange(ui.slow, all("slowest").sort((one, other) => other.acked_ms - one.acked_ms).slice(0, SLOW_SHOWN).map(answerRow));
	arrange(ui.failed, all("failed").sort((one, other) => other.at - one.at).slice(0, SLOW_SHOWN).map(answerRow));
	arrange(ui.events, all("events").sort((one, other) => other.at - one.at).slice(0, EVENTS_SHOWN).map(eventRow));
	ui.shown.hidden = false;
}

const named = (component) => t(`ops.component.${component}`);

function showVerdict(shown) {
	const lines = shown.flatMap(({ name, state, reasons = [], components = [] }) => [
		...(state === "silent" ? [["down", t("ops.silent", { name })]] : []),
		...(state === "draining" ? [["degraded", t("ops.draining", { name })]] : []),
		...reasons.map((reason) => ["down", t("ops.cannot", { name, reason })]),
		...components.filter((each) => /degraded|down/.test(each.state)).map((each) => [each.state, t("ops.component", { name, component: named(each.name), detail: each.detail })]),
	]);
	const worst = lines.some(([state]) => state === "down") ? "down" : lines.length ? "degraded" : "ok";
	ui.verdict.dataset.state = worst;
	put("well", t({ ok: "ops.well", degraded: "ops.degraded", down: "ops.down" }[worst]));
	arrange(ui.troubles, lines.map(([, text]) => row(`trouble ${text}`, () => h("li", {}, text))));
}

const newest = (node) => node.samples?.at(-1);

function showTotals(shown) {
	const last = shown.map(newest).filter(Boolean);
	const slow = last.map(({ p99_ms: value }) => value).filter((value) => value !== null);
	const of = (name) => number(sum(shown.map((node) => newest(node)?.[name] ?? node.beat[name] ?? 0)));
	const figures = {
		"ops.answers": fine.format(sum(last.map((each) => each.answers_per_s))),
		"ops.p99": slow.length ? ms(Math.max(...slow)) : "–",
		"ops.players": of("players"),
		"ops.sessions": of("sessions"),
		"ops.connections": of("connections"),
		"ops.queued": of("queued"),
	};
	arrange(ui.totals, Object.entries(figures).map(([key, figure]) => {
		const made = row(key, () => h("div", {}, h("dt", {}, t(key)), h("dd")));
		say($("dd", made), figure);
		return made;
	}));
}

/** A node as a card, that shows it anew. */
function nodeCard({ name }) {
	return row(`node ${name}`, () => {
		const answers = new Plot((each) => each.answers_per_s);
		const took = new Plot((each) => each.p99_ms, (each) => each.p50_ms);
		const busy = new Plot((each) => each.busy);
		const card = h("li.card", {}, h("div.row.between", {}, h("h3", {}, name), h("span.chip")), h("p.figures"),
			h("ul.chips", { ariaLabel: t("ops.dependencies") }), h("div.plots", {}, answers.element, took.element, busy.element));
		card.show = (node) => {
			const { samples = [], state } = node;
			const last = newest(node) ?? node.beat;
			card.classList.toggle("silent", state === "silent");
			const chip = $(".chip", card);
			chip.dataset.state = state;
			say(chip, t(`ops.state.${state}`));
			say($(".figures", card), t("ops.figures", { sessions: t("ops.count.sessions", { count: last.sessions }), players: t("players", { count: last.players }), queued: last.queued, version: node.version }));
			$(".figures", card).hidden = $(".plots", card).hidden = state === "silent" && !samples.length;
			const chips = $(".chips", card);
			chips.hidden = !node.components?.length;
			arrange(chips, (node.components ?? []).map((each) => {
				const made = row(`component ${name} ${each.name}`, () => h("li.chip"));
				made.dataset.state = each.state;
				made.title = each.detail;
				say(made, `${named(each.name)}: ${t(`ops.state.${each.state}`)}`);
				return made;
			}));
			const now = node.at ?? 0;
			const words = { since: t("ops.ago"), until: t("ops.now"), least: 1 };
			const peak = (read) => Plot.most(samples, read);
			const figure = fine.format(last.answers_per_s ?? 0);
			const most = fine.format(peak((each) => each.answers_per_s));
			answers.show(samples, now, { ...words, title: t("ops.answers"), value: t("ops.most", { now: figure, most }), label: t("ops.answers.said", { name, now: figure, most }) });
			const [p50, p99, worst] = [ms(last.p50_ms), ms(last.p99_ms), ms(peak((each) => each.p99_ms))];
			took.show(samples, now, { ...words, title: t("ops.took"), value: t("ops.took.now", { p99, p50, worst }), label: t("ops.took.said", { name, p50, p99, worst }) });
			const [used, peaked] = [share.format(last.busy ?? 0), share.format(peak((each) => each.busy))];
			busy.show(samples, now, { ...words, title: t("ops.busy"), value: t("ops.most", { now: used, most: peaked }), label: t("ops.busy.said", { name, now: used, most: peaked }) });
			return card;
		};
		return card;
	});
}

function sessionRow({ session_id: id, code, node, phase, players, connected, backlog, saved }) {
	const made = row(`session ${node} ${id}`, () => h("tr", { title: id }, ...Array.from({ length: 5 }, () => h("td")), h("td", {}, h("span.chip"))));
	const texts = [code, node, t(`ops.phase.${phase}`), t("ops.connected.of", { connected, players }), number(backlog)];
	texts.forEach((text, place) => say(made.children[place], text));
	const chip = $(".chip", made);
	chip.dataset.state = saved ? "ok" : "saving";
	say(chip, t(saved ? "ops.saved" : "ops.saving"));
	return made;
}

/** An answer and where its time went: nothing of it changes any more. */
function answerRow(answer) {
	const { at, node, session_id: id, player, question, outcome, acked_ms: acked, spooled, trace_id: trace } = answer;
	return row(`answer ${node} ${id} ${player} ${question} ${at} ${outcome}`, () => {
		const parts = PARTS.map(([name, since, until]) => [name, (answer[until] ?? 0) - (since ? answer[since] ?? 0 : 0), answer[until] !== null && (!since || answer[since] !== null)]).filter(([, , there]) => there);
		const bar = h("div.bar", { ariaHidden: "true" }, ...parts.filter(([, took]) => took).map(([name, took]) => {
			const part = h("span", { "data-part": name });
			part.style.flexGrow = took;
			return part;
		}));
		const about = [t("ops.answer", { player, question }), outcome, ...(spooled ? [t("ops.spooled")] : []), node, clock.format(at)];
		return h("li.card", {}, h("p.about", {}, h("b", {}, ms(acked)), ...about.map((text) => h("span", {}, text))), bar,
			h("p.legend", {}, ...parts.map(([name, took]) => h("span", {}, h("span.swatch", { "data-part": name }), `${t(`ops.part.${name}`)} ${ms(took)}`))),
			h("p.hint", {}, t("ops.session", { id }), trace ? ` · ${t("ops.trace", { trace })}` : ""));
	});
}

function eventRow({ at, node, kind, count, about, state }) {
	const said = { count, about: kind === "component" ? named(about) : about, state: state ? t(`ops.state.${state}`) : "" };
	return row(`event ${node} ${at} ${kind} ${about} ${count}`, () => h("li", {}, h("span.soft", {}, clock.format(at)), h("b", {}, node), h("span", {}, t(`ops.event.${kind}`, said))));
}

async function watch() {
	greet();
	for (;;) {
		try {
			const messages = await asAuthor((token) => listen("/api/ops/events", token));
			put("wrong", "");
			let isFirst = true;
			for await (const message of messages) {
				if (message.t !== "live") continue;
				put("banner", "");
				hear(message, isFirst);
				isFirst = false;
			}
		} catch (error) {
			if (!error.code) throw error;
			if (["not_admin", "token_missing"].includes(error.code)) return put("wrong", t(`error.${error.code}`));
			put("wrong", ui.shown.hidden && error.code !== "unreachable" ? explain(error) : "");
		}
		put("banner", t("status.lost"));
		await new Promise((done) => setTimeout(done, BACK_MS));
	}
}

document.title = `${t("ops.title")} · Fanfare`;
watch();
