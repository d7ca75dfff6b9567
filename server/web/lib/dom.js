const present = (children) => children.flat().filter((child) => child !== null && child !== undefined && child !== false);

/** `h("button.big", {type: "button", onclick, disabled: true}, "text", other)`: an element.
 * Properties beginning with "on" are listeners; null, undefined and false are left out. */
export function h(kind, properties, ...children) {
	const [tag, ...classes] = kind.split(".");
	const element = document.createElement(tag);
	if (classes.length) element.className = classes.join(" ");
	for (const [name, value] of Object.entries(properties ?? {})) {
		if (value === null || value === undefined || value === false) continue;
		if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
		else if (name in element) element[name] = value;
		else element.setAttribute(name, value === true ? "" : value);
	}
	element.append(...present(children));
	return element;
}

/** Gives an element other children. */
export function fill(element, ...children) {
	element.replaceChildren(...present(children));
	return element;
}

/** Sets a text only if it is another one, so that screen readers do not hear it again. */
export function say(element, text) {
	if (element.textContent !== text) element.textContent = text;
}

/** The same for the element with this id. */
export const put = (id, text) => say(document.getElementById(id), text);

const drawn = {};

/** Whether a part of the page shows anything else than this; from now on it does. */
export const isNew = (part, value) => drawn[part] !== (drawn[part] = value);

export const $ = (selector, within = document) => within.querySelector(selector);

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
