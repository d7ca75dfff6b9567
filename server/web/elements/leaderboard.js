import { $, arrange, calm, h, say } from "../lib/dom.js";
import { number, t } from "../lib/texts.js";

/** The first of the standing. A player keeps their row, which moves when the rank changes. */
class Leaderboard extends HTMLElement {
	#list = h("ol");

	connectedCallback() {
		this.append(this.#list);
	}

	/** `lines`: `{rank, id, name, score}` in order. */
	show(lines) {
		const before = new Map([...this.#list.children].map((row) => [row.player, row]));
		const rows = lines.map((line) => before.get(line.id) ?? newRow(line));
		const from = rows.map((row) => row.isConnected && row.offsetTop);
		arrange(this.#list, rows);
		rows.forEach((row, place) => {
			say($(".rank", row), number(lines[place].rank));
			say($(".score", row), number(lines[place].score));
		});
		if (calm()) return;
		rows.forEach((row, place) => {
			const isNew = from[place] === false;
			const by = isNew ? 24 : from[place] - row.offsetTop;
			if (by) row.animate([{ transform: `translateY(${by}px)`, opacity: Number(!isNew) }, {}], { duration: 350, easing: "ease-out" });
		});
	}
}

function newRow({ id, name }) {
	const row = h("li", {}, h("span.unseen", {}, t("rank")), h("span.rank"), h("bdi.name", {}, name), h("span.score"), h("span.unseen", {}, t("points.short")));
	row.player = id;
	return row;
}
customElements.define("ff-leaderboard", Leaderboard);

/** So many names on a step, and so many lines that a node tells of. */
const NAMES_MAX = 5;
const LINES_MAX = 10;

/** The first three places, each on its step. Who shares a place shares the step. */
class Podium extends HTMLElement {
	show(lines, me) {
		const steps = new Map(lines.map(({ rank }) => [rank, []]));
		for (const line of lines) steps.get(line.rank)[line.id === me ? "unshift" : "push"](line);
		const last = lines.length < LINES_MAX ? null : lines.at(-1).rank;
		this.replaceChildren(h("ol", {}, [...steps].map(([rank, those]) => {
			const more = those.length - NAMES_MAX;
			return h("li.step", { "data-place": rank },
				those.slice(0, NAMES_MAX).map(({ id, name }) => h(`bdi.name${id === me ? ".me" : ""}`, {}, name)),
				more > 0 ? h("span.more", {}, rank === last ? t("podium.others") : t("podium.more", { count: more })) : [],
				h("span.score", {}, t("points", { count: those[0].score })),
				h("span.block", {}, number(rank)));
		})));
	}
}
customElements.define("ff-podium", Podium);
