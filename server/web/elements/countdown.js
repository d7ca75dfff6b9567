import { calm, h, say } from "../lib/dom.js";
import { t } from "../lib/texts.js";

const WARNINGS_S = [10, 5];

/** The time to get ready, and then the time that is left, as a bar and in seconds. `show(model)` starts, stops or
 * hides it. */
class Countdown extends HTMLElement {
	#bar = h("div.fill");
	#seconds = h("span.seconds", { "aria-hidden": "true" });
	#spoken = h("span.unseen", { "aria-live": "polite" });
	#timer = 0;
	#running = null;
	#model = null;

	connectedCallback() {
		this.append(h("div.track", { "aria-hidden": "true" }, this.#bar), this.#seconds, this.#spoken);
	}

	show(model) {
		this.#model = model;
		clearTimeout(this.#timer);
		this.#running?.cancel();
		const left = model.remaining;
		this.classList.toggle("off", left === null);
		if (left === null) return;
		this.#bar.style.transform = `scaleX(${Math.min(left / model.limit, 1)})`;
		this.classList.toggle("ready", model.ready > 0);
		if (model.ready > 0) return this.#getReady();
		if (model.left === null && left > 0) {
			const easing = calm() ? `steps(${Math.ceil(left / 1000)})` : "linear";
			this.#running = this.#bar.animate({ transform: "scaleX(0)" }, { duration: left, easing, fill: "forwards" });
		}
		this.#tick();
	}

	#getReady() {
		const { ready, left } = this.#model;
		const seconds = Math.ceil(ready / 1000);
		this.classList.remove("soon");
		say(this.#seconds, String(seconds));
		if (left !== null) return;
		const next = () => (this.#model.ready > 0 ? this.#getReady() : this.show(this.#model));
		this.#timer = setTimeout(next, ready - (seconds - 1) * 1000 + 5);
	}

	#tick() {
		const left = this.#model.remaining;
		const seconds = Math.ceil(left / 1000);
		say(this.#seconds, String(seconds));
		this.classList.toggle("soon", seconds <= 5);
		if (this.#model.left !== null || left <= 0) return;
		if (WARNINGS_S.includes(seconds) && seconds * 1000 < this.#model.limit) say(this.#spoken, t("time.left", { count: seconds }));
		this.#timer = setTimeout(() => this.#tick(), left - (seconds - 1) * 1000 + 5);
	}
}
customElements.define("ff-countdown", Countdown);
