import { $, h, say } from "../lib/dom.js";
import { t } from "../lib/texts.js";

const HEIGHT_PX = 48;
const WIDTH_PX = 230;

/** All players of a session, of whom only those in sight are in the document. */
class Roster extends HTMLElement {
  players = 0;
  connected = 0;
  /** Whether a player is connected, as heard since the reading began; null if removed. */
  #told = new Map();
  #who = new Map();
  #list = [];
  #cells = new Map();
  #stale = true;
  #due = 0;

  connectedCallback() {
    this.scroll = $(".scroll", this);
    this.scroll.onscroll = () => this.#later(false);
    this.oninput = () => this.#later();
    new ResizeObserver(() => this.#later()).observe(this.scroll);
  }

  /** Reads everyone anew by `page(after)`. What `hear` is told meanwhile is newer than the pages. */
  async load(page) {
    const told = (this.#told = new Map());
    for (let after = 0; after !== null; ) {
      const { players, next, total, connected } = await page(after);
      if (told !== this.#told) return;
      for (const { id, name, connected: on } of players) {
        if (!told.has(id)) told.set(id, on);
        this.#who.set(id, { id, name, on: told.get(id) });
      }
      after = next;
      Object.assign(this, { players: total, connected });
    }
    for (const who of this.#who.values()) who.on = told.get(who.id) ?? null;
    this.#later();
  }

  /** A `roster` message. */
  hear({ joined, on, off, kicked, players, connected }) {
    for (const who of joined) this.#who.set(who.id, who);
    const note = (state) => (id) => {
      this.#told.set(id, state);
      if (this.#who.has(id)) this.#who.get(id).on = state;
    };
    on.forEach(note(true));
    off.forEach(note(false));
    kicked.forEach(note(null));
    Object.assign(this, { players, connected });
    this.#later();
  }

  #later(stale = true) {
    this.#stale ||= stale;
    this.#due ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const { scroll } = this;
    const list = $("ol", this);
    const height = scroll.clientHeight;
    const columns = Math.max(Math.floor(scroll.clientWidth / WIDTH_PX), 1);
    const top = scroll.scrollTop;
    // Who looks at the end goes on to see who comes.
    const follows = scroll.scrollHeight - top - height < HEIGHT_PX && !scroll.contains(document.activeElement);
    this.#due = 0;
    if (this.#stale) {
      const part = $("[type=search]", this).value.trim().toLowerCase();
      const away = $("[type=checkbox]", this).checked;
      const wanted = ({ name, on }) => on !== null && !(away && on) && name.toLowerCase().includes(part);
      this.#list = [...this.#who.values()].filter(wanted).sort((one, other) => one.id - other.id);
      this.#stale = false;
    }
    const all = HEIGHT_PX * Math.ceil(this.#list.length / columns);
    list.style.height = `${all}px`;
    list.style.setProperty("--columns", columns);
    const from = follows ? Math.max(all - height, 0) : top;
    if (from !== top) scroll.scrollTop = from;
    const first = Math.max(Math.floor(from / HEIGHT_PX) - 2, 0) * columns;
    const seen = this.#list.slice(first, first + (Math.ceil(height / HEIGHT_PX) + 4) * columns);
    const before = this.#cells;
    this.#cells = new Map(seen.map((who) => [who.id, before.get(who.id) ?? this.#cell(who)]));
    for (const [id, cell] of before) if (!this.#cells.has(id)) cell.remove();
    [...this.#cells.values()].forEach((cell, at) => {
      const place = first + at;
      const { on } = seen[at];
      cell.style.transform = `translate(${100 * (place % columns)}%, ${HEIGHT_PX * Math.floor(place / columns)}px)`;
      cell.ariaSetSize = this.#list.length;
      cell.ariaPosInSet = place + 1;
      cell.classList.toggle("off", !on);
      say(cell.children[1], t(on ? "roster.on" : "roster.off"));
      if (list.children[at] !== cell) list.insertBefore(cell, list.children[at]);
    });
  }

  #cell({ id, name }) {
    return h("li", {}, h("span.dot"), h("span.unseen"), h("bdi.name", { title: name }, name), h("details", { name: "kick" },
      h("summary", { "aria-label": t("roster.remove", { name }) }, "×"),
      h("button.danger", { type: "button", "data-do": "kick", "data-player": id }, t("roster.sure"))));
  }
}
customElements.define("ff-roster", Roster);
