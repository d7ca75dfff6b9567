import { $, h, say } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 60;
const DRAWN_MS = 900_000;

function shape(tag, attributes) {
	const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
	for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
	return made;
}

/** A round figure that is no less. */
export function ceiling(value) {
	const size = 10 ** Math.floor(Math.log10(value || 1));
	return [1, 2, 5, 10].map((each) => each * size).find((each) => each >= value);
}

/** The line through `[x, y]`; where there is no `y` it is interrupted. */
function line(points) {
	let pen = "M";
	return points.map(([x, y]) => {
		if (y === null) pen = "M";
		else return [`${pen}${x.toFixed(1)} ${y.toFixed(1)}`, (pen = "L")][0];
		return "";
	}).join("");
}

/** A small plot of the last quarter of an hour: `show(samples, now, words)`, anew in the same elements. `read` takes one
 * or two values of a sample; `words` has what stands above it, its greatest value, and what it says without being seen. */
export class Plot {
	constructor(...read) {
		this.read = read;
		this.area = shape("path", { class: "area" });
		this.paths = read.map((_, place) => shape("path", { class: place ? "second" : "first" }));
		this.svg = shape("svg", { class: "plot", role: "img", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" });
		this.svg.append(this.area, ...this.paths.toReversed());
		this.element = h("figure", {}, h("figcaption", {}, h("span"), h("span.soft")), this.svg, h("div.axis", { ariaHidden: "true" }, h("span"), h("span")));
	}

	/** The greatest value there is. */
	static most(samples, read) {
		return samples.reduce((most, each) => Math.max(most, read(each) ?? 0), 0);
	}

	show(samples, now, { title, value, label, since, until, least }) {
		const top = ceiling(Math.max(least, ...this.read.map((read) => Plot.most(samples, read))));
		const place = (read) => (each) => [WIDTH * (1 - (now - each.at) / DRAWN_MS), read(each) === null ? null : HEIGHT - 2 - (HEIGHT - 4) * (read(each) / top)];
		this.paths.forEach((path, number) => path.setAttribute("d", line(samples.map(place(this.read[number])))));
		const points = samples.map(place((each) => this.read[0](each) ?? 0));
		this.area.setAttribute("d", points.length ? `M${points[0][0].toFixed(1)} ${HEIGHT}${line(points).replace("M", "L")}L${points.at(-1)[0].toFixed(1)} ${HEIGHT}Z` : "");
		this.svg.setAttribute("aria-label", label);
		const [named, shown] = $("figcaption", this.element).children;
		const [from, to] = $(".axis", this.element).children;
		say(named, title);
		say(shown, value);
		say(from, since);
		say(to, until);
	}
}
