/** `h("button.big", {type: "button", onclick, disabled: true}, "text", other)`: an element.
 * Properties beginning with "on" are listeners; null, undefined and false are left out. */
export function h(kind, properties = {}, ...children) {
	const [tag, ...classes] = kind.split(".");
	const element = document.createElement(tag);
	element.classList.add(...classes);
	for (const [name, value] of Object.entries(properties)) {
		if ((value ?? false) === false) continue;
		if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
		else if (name in element) element[name] = value;
		else element.setAttribute(name, value === true ? "" : value);
	}
	element.append(...children.flat());
	return element;
}

/** Sets a text only if it is another one, so that screen readers do not hear it again. */
export function say(element, text) {
	if (element.textContent !== text) element.textContent = text;
}

/** The page's elements by their ids. */
export const ui = new Proxy({}, { get: (_, id) => document.getElementById(id) });

/** `say` to the element with this id. */
export const put = (id, text) => say(ui[id], text);

/** Says in which language the texts of a quiz are. Their direction is that of what is in them. */
export function speak(language, within = document) {
	for (const each of all("[dir=auto]:not(#name, #answer)", within)) each.lang = language;
}

/** What the page was asked for. */
export const query = new URLSearchParams(location.search);

const drawn = {};

/** Whether a part of the page shows anything else than this; from now on it does. */
export const isNew = (part, value) => drawn[part] !== (drawn[part] = value);

export const $ = (selector, within = document) => within.querySelector(selector);
export const all = (selector, within = document) => [...within.querySelectorAll(selector)];

/** Gives a list these rows and no others. Those that keep their place are not touched: they may have the focus. */
export function arrange(list, rows) {
	for (const row of [...list.children]) if (!rows.includes(row)) row.remove();
	rows.forEach((row, place) => row === list.children[place] || list.insertBefore(row, list.children[place]));
}

/** The key as `a` to `z`, `0` to `9`, or by its name in lower case. One that writes anything else counts by its place:
 * it is where these are on other keyboards. */
const named = ({ key, code }) => (/^[a-z0-9]$/i.test(key) ? key : (/^(?:Key|Digit|Numpad)(\w)$/.exec(code)?.[1] ?? key)).toLowerCase();

/** `press(key)` for keys that are neither typed into a field or meant for what has the focus, nor for the browser. It
 * returns whether the key means anything to the page; then it means nothing else. */
export function onKey(press) {
	document.addEventListener("keydown", (event) => {
		const { target, repeat, ctrlKey, metaKey, altKey } = event;
		const elsewhere = target.closest("input:not([type=checkbox]), select, textarea, [tabindex='0'], [popover]");
		if (!repeat && !ctrlKey && !metaKey && !altKey && !elsewhere && press(named(event))) event.preventDefault();
	});
}

/** A key that is held presses a button once. */
addEventListener("keydown", (event) => {
	if (event.repeat && /^(Enter| )$/.test(event.key) && !event.target.matches("input, textarea")) event.preventDefault();
}, true);

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Where the browser forbids its stores, a page keeps what it must with its place in the tab's history: over a reload. */
const store = (area) => ({
	get(key) {
		try {
			return JSON.parse(window[area].getItem(key));
		} catch {
			return history.state?.[key] ?? null;
		}
	},
	set(key, value) {
		try {
			if (value === null) window[area].removeItem(key);
			else window[area].setItem(key, JSON.stringify(value));
		} catch {
			history.replaceState({ ...history.state, [key]: value }, "");
		}
	},
});

/** What this device keeps, and what this tab does. */
export const kept = store("localStorage");
export const tab = store("sessionStorage");

/** Another address for the page as it is. */
export const moveTo = (address) => history.replaceState(history.state, "", address);
