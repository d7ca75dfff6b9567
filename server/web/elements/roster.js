import { request as ask } from "../lib/fanfare.js";
import { $, all, arrange, say, ui } from "../lib/dom.js";
import { copy, figure, since, t } from "../lib/texts.js";

const HEIGHT_PX = 48;
const WIDTH_PX = 230;
/** So often it is shown anew for how long players have been at a question. */
const MINUTE_MS = 60_000;

const wayOf = ({ question, at, waits, since, done, attempt }) => ({ question, at, waits, since, done, attempt });

/** All players of a session, the latest first. Only those in sight are in the document. */
class Roster extends HTMLElement {
	#who = new Map();
	#waiting = [];
	#list = null;
	#due = 0;

	/** The host gives a player extra time. */
	onextra = () => {};
	/** Of a session in which all go at their own pace: how many questions there are, and the time by the server's clock. */
	of = 0;
	now = Date.now;

	connectedCallback() {
		this.oninput = () => this.#later(true);
		$(".scroll", this).onscroll = () => this.#later();
		setInterval(() => this.of && this.#later(), MINUTE_MS);
		new ResizeObserver(() => this.#later()).observe(this);
	}

	/** Reads everyone anew. Messages that are heard meanwhile are newer and wait. Throws what `ask` throws. */
	async load(path, token) {
		const who = new Map();
		const waiting = (this.#waiting = []);
		for (let after = 0; after !== null; ) {
			const { players, next, total, connected } = await ask("GET", `${path}/players?after=${after}&limit=1000`, { token });
			if (waiting !== this.#waiting) return;
			for (const player of players) who.set(player.id, { name: player.name, on: player.connected, extra: player.extra_time, way: wayOf(player) });
			this.#count(total, connected);
			after = next;
		}
		this.#who = who;
		this.#waiting = null;
		for (const message of waiting) this.hear(message);
	}

	/** A `roster` message. */
	hear(message) {
		if (this.#waiting) return this.#waiting.push(message);
		for (const { id, name, extra_time: extra } of message.joined) this.#who.set(id, { way: {}, ...this.#who.get(id), name, extra });
		for (const way of message.ways ?? []) Object.assign(this.#who.get(way.id) ?? {}, { way: wayOf(way) });
		for (const on of [true, false]) for (const id of message[on ? "on" : "off"]) Object.assign(this.#who.get(id) ?? {}, { on });
		for (const id of message.kicked) this.#who.delete(id);
		this.#count(message.players, message.connected);
	}

	#count(players, connected) {
		say($("output", this), t("roster.connected", { connected, players }));
		Object.assign($("progress", this), { max: players || 1, value: connected });
		this.#later(true);
	}

	/** `anew`: others may be in the list than before. */
	#later(anew) {
		if (anew) this.#list = null;
		this.#due ||= requestAnimationFrame(() => this.#draw());
	}

	/** A factor that is not on the list, from a token, is added to it. */
	#showExtra(select, id, extra) {
		const value = String(extra);
		if (![...select.options].some((option) => option.value === value)) select.add(new Option(`× ${figure(extra, false)}`, value));
		select.value = value;
		select.onchange = () => this.onextra(id, select.value === "untimed" ? select.value : Number(select.value));
	}

	/** Offers to show those alone who are at one question. */
	#offer() {
		for (let number = ui.stop.options.length - 2; number <= this.of; number++) ui.stop.add(new Option(t("own.at", { number }), number));
	}

	/** Whether a player is where the host looks. */
	#isAt(stop, { question, done }) {
		return stop === "all" || stop === (done ? "done" : question ? String(question) : "start");
	}

	/** Where a player is, in a line. */
	#where({ question, waits, since: at, done, attempt }) {
		if (!done && !question) return t("own.none");
		const where = done ? t("own.finished") : `${t("own.at", { number: question })} · ${waits ? since(this.now() - at) : t("own.answered")}`;
		return attempt ? `${where} · ${t("own.attempt", { attempt })}` : where;
	}

	#draw() {
		const scroll = $(".scroll", this);
		const list = $("ol", this);
		const columns = Math.floor(scroll.clientWidth / WIDTH_PX) || 1;
		const rows = Math.ceil(scroll.clientHeight / HEIGHT_PX) + 4;
		const above = Math.max(Math.floor(scroll.scrollTop / HEIGHT_PX) - 2, 0);
		const part = ui.find.value.trim().toLowerCase();
		const away = ui.away.checked;
		const stop = this.of ? ui.stop.value : "all";
		if (this.of) this.#offer();
		const wanted = ([, { name, on, way }]) => !(away && on) && this.#isAt(stop, way) && name.toLowerCase().includes(part);
		this.#list ??= [...this.#who].filter(wanted).reverse();
		this.#due = 0;
		list.style.height = `${HEIGHT_PX * Math.ceil(this.#list.length / columns)}px`;
		list.style.paddingTop = `${HEIGHT_PX * above}px`;
		const before = new Map([...list.children].map((cell) => [cell.player, cell]));
		arrange(list, this.#list.slice(above * columns, (above + rows) * columns).map(([id, { name, on, extra = 1, way }]) => {
			const cell = before.get(id) ?? copy("cell").firstElementChild;
			cell.player = id;
			for (const button of all("button", cell)) button.dataset.player = id;
			cell.className = on ? "" : "off";
			say($(".name", cell), name);
			if (this.of) say($(".way", cell), this.#where(way));
			this.#showExtra($("select", cell), id, extra);
			return cell;
		}));
	}
}
customElements.define("ff-roster", Roster);
