import { calm, h, say } from "../lib/dom.js";
import { number, t } from "../lib/texts.js";

/** The first of the standing. A player keeps their row, which moves when the rank changes. */
class Leaderboard extends HTMLElement {
	#rows = new Map();
	#list = h("ol");

	connectedCallback() {
		this.append(this.#list);
	}

	/** `lines`: `{rank, id, name, score}` in order; `me` is the number of the player who looks on. */
	show(lines, me = null) {
		const before = new Map([...this.#rows].map(([id, row]) => [id, row.element.offsetTop]));
		for (const [id, row] of this.#rows)
			if (!lines.some((line) => line.id === id)) {
				row.element.remove();
				this.#rows.delete(id);
			}
		lines.forEach((line, place) => {
			const row = this.#rows.get(line.id) ?? this.#row(line);
			say(row.rank, number(line.rank));
			say(row.score, number(line.score));
			row.element.classList.toggle("me", line.id === me);
			if (this.#list.children[place] !== row.element) this.#list.insertBefore(row.element, this.#list.children[place] ?? null);
		});
		if (calm()) return;
		for (const [id, { element }] of this.#rows) {
			const from = before.get(id);
			const by = (from ?? element.offsetTop + 24) - element.offsetTop;
			if (by) element.animate([{ transform: `translateY(${by}px)`, opacity: Number(from !== undefined) }, {}], { duration: 350, easing: "ease-out" });
		}
	}

	#row({ id, name }) {
		const row = { rank: h("span.rank"), score: h("span.score") };
		row.element = h("li", {}, h("span.unseen", {}, t("rank")), row.rank, h("bdi.name", {}, name), row.score, h("span.unseen", {}, t("points.short")));
		this.#rows.set(id, row);
		return row;
	}
}
customElements.define("ff-leaderboard", Leaderboard);

/** The first three, on their steps. */
class Podium extends HTMLElement {
	show(lines, me = null) {
		this.replaceChildren(
			h("ol", {}, lines.map((line, place) => h(`li.step${line.id === me ? ".me" : ""}`, { "data-place": place + 1 },
				h("bdi.name", {}, line.name), h("span.score", {}, t("points", { count: line.score })), h("span.block", {}, number(line.rank))))),
		);
	}
}
customElements.define("ff-podium", Podium);
