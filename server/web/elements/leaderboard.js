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

/** The first three, on their steps. */
class Podium extends HTMLElement {
	show(lines, me) {
		this.replaceChildren(
			h("ol", {}, lines.map((line, place) => h(`li.step${line.id === me ? ".me" : ""}`, { "data-place": place + 1 },
				h("bdi.name", {}, line.name), h("span.score", {}, t("points", { count: line.score })), h("span.block", {}, number(line.rank))))),
		);
	}
}
customElements.define("ff-podium", Podium);
