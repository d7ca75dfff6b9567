import { fill, h } from "../lib/dom.js";
import { isRight } from "../lib/model.js";
import { number, t } from "../lib/texts.js";

/** The texts to choose from: also of a true/false question. */
export const choicesOf = (question) => (question.type === "true_false" ? [t("true"), t("false")] : question.choices);

/** A choice's mark: colour and shape by its place, and its letter. */
export const mark = (place) => h("span.mark", { "data-place": place, "aria-hidden": "true" }, h("span.shape"), h("span.letter", {}, String.fromCharCode(65 + place)));

/** The choices of a question, told apart by colour, shape and letter.
 * `show(question, {pick})`: buttons to choose with, or only to read without `pick`;
 * `show(question, {reveal})`: a bar for each with how many chose it, and which were right. `given` is one's own. */
class Choices extends HTMLElement {
	show(question, { pick, locked, reveal, given } = {}) {
		const texts = choicesOf(question);
		const many = question.type === "multiple";
		const mine = (place) => (given ?? null) !== null && isRight(question, given, place);
		const total = reveal ? Math.max(1, ...reveal.counts) : 1;
		this.className = reveal ? "bars" : "grid";
		fill(
			this,
			texts.map((text, place) => {
				const right = reveal && isRight(question, reveal.correct, place);
				const parts = [mark(place), h("span.text", {}, text)];
				if (reveal) {
					const count = reveal.counts[place];
					const bar = h("span.bar", { "aria-hidden": "true" });
					bar.style.setProperty("--share", count / total);
					parts.push(bar, right && h("span.tick", { role: "img", "aria-label": t("reveal.right") }), h("span.count", {}, number(count), h("span.unseen", {}, ` ${t("reveal.votes", { count })}`)));
				}
				const kind = `${pick ? "button" : "div"}.choice${right ? ".right" : reveal ? ".wrong" : ""}${mine(place) ? ".mine" : ""}`;
				return h(kind, { "data-place": place, type: pick && "button", disabled: locked, onclick: pick && (() => pick(place)), "aria-pressed": pick && many ? String(mine(place)) : null }, parts);
			}),
		);
	}

	/** Marks the buttons of these places as chosen. */
	press(places) {
		for (const button of this.children) {
			const on = places.includes(Number(button.dataset.place));
			button.classList.toggle("mine", on);
			button.ariaPressed = on;
		}
	}
}
customElements.define("ff-choices", Choices);
