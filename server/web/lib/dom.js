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

/** `press(key)`, in lower case, for keys that are not typed into a field or meant for the browser. */
export function onKey(press) {
	document.onkeydown = ({ key, target, repeat, ctrlKey, metaKey, altKey }) => {
		if (!repeat && !ctrlKey && !metaKey && !altKey && !target.matches("input:not([type=checkbox]), select")) press(key.toLowerCase());
	};
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A store that does without when the browser forbids it. */
export const kept = {
	get(key) {
		try {
			return JSON.parse(localStorage.getItem(key));
		} catch {
			return null;
		}
	},
	set(key, value) {
		try {
			if (value === null) localStorage.removeItem(key);
			else localStorage.setItem(key, JSON.stringify(value));
		} catch {
			// Private windows: the page then forgets with its tab.
		}
	},
};
