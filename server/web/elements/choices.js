import { h } from "../lib/dom.js";
import { apart, figure, lang, number, t } from "../lib/texts.js";

/** The texts to choose from: also of a true/false question. */
export const choicesOf = (question) => (question.type === "true_false" ? [t("true"), t("false")] : question.choices);

/** The places of what was chosen or is right. */
const placesOf = (choice) => ({ true: [0], false: [1] })[choice] ?? [choice].flat();

/** What a choice is shown as: the texts of the choices, or what was typed. */
export function shown(question, choice) {
	const texts = choicesOf(question);
	if (texts) return placesOf(choice).map((place) => apart(texts[place])).join(", ");
	return [choice].flat().map((each) => (question.type === "numeric" && typeof each === "number" ? figure(each) : apart(each))).join(" · ");
}

/** A choice's mark: colour and shape by its place, and its letter. */
export const mark = (place) => h("bdi.mark", { "data-place": place, "aria-hidden": "true" }, h("span.shape"), h("span.letter", {}, String.fromCharCode(65 + place)));

/** The places that the choices have in the quiz, in the order in which they are shown. */
const orderOf = (question) => question.order ?? [...(choicesOf(question) ?? []).keys()];

/** The choices of a question, told apart by colour, shape and letter.
 * `show(question, {pick})`: buttons to choose with, or only to read without `pick`;
 * `show(question, {reveal})`: a bar for each with how many chose it, and which were right. `given` is one's own.
 * They lie in the direction of the first one. With `own` they are the page's words and not the quiz's. What is picked, given and
 * revealed names choices by their places in the quiz; colour, shape and letter go by the place on the page. */
class Choices extends HTMLElement {
	#order = [];

	show(question, { pick, locked, reveal, given }) {
		const words = question.type === "true_false" || question.own ? lang : null;
		const many = pick && question.type === "multiple";
		this.className = reveal ? "bars" : "grid";
		const texts = choicesOf(question);
		this.#order = orderOf(question);
		this.replaceChildren(...this.#order.map((nth, place) => {
			const text = texts[nth];
			const properties = { "data-place": place, type: pick && "button", disabled: locked, onclick: pick && (() => pick(nth)), "aria-pressed": many && "false" };
			const choice = h(pick ? "button.choice" : "div.choice", properties, mark(place), h("span.text", { lang: words }, text));
			if (!reveal) return choice;
			const right = placesOf(reveal.correct).includes(nth);
			choice.classList.add(right ? "right" : "wrong");
			if (right) choice.append(h("span.tick", { role: "img", "aria-label": t("reveal.right") }));
			if (!reveal.counts) return choice; // what others chose is not told where each goes at the own pace
			const count = reveal.counts[nth];
			choice.style.setProperty("--share", count / Math.max(1, ...reveal.counts));
			choice.append(h("span.bar", { "aria-hidden": "true" }));
			choice.append(h("bdi.count", {}, number(count), h("span.unseen", {}, ` ${t("reveal.votes", { count })}`)));
			return choice;
		}));
		this.press(given);
	}

	/** Marks what was chosen. */
	press(given) {
		const places = placesOf(given);
		[...this.children].forEach((choice, place) => {
			const on = choice.classList.toggle("mine", places.includes(this.#order[place]));
			if (choice.ariaPressed) choice.ariaPressed = on;
		});
	}
}
customElements.define("ff-choices", Choices);
