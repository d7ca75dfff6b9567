import { ask } from "./api.js";
import { $, kept, moveTo, say, tab, ui } from "./dom.js";
import { t } from "./texts.js";

const KEY = "author.key";
let asking = null;

const linked = () => location.hash.startsWith("#key=");

/** A link that a node has printed brings its key along: this browser keeps it, and the address no longer shows it. */
addEventListener("hashchange", () => linked() && location.reload());
if (linked()) {
	tab.set(KEY, null);
	kept.set(KEY, location.hash.slice(5));
	moveTo(location.pathname + location.search);
}

/** Without a store the key goes along to the other pages that ask for it. */
document.addEventListener("click", ({ target }) => {
	const link = target.closest("a[href]");
	if (link && history.state?.[KEY] && /^\/(host|author)$/.test(link.pathname)) link.hash ||= `key=${history.state[KEY]}`;
});

/** `ask` with the author key: if that is missing, the page's `<dialog id="key">` asks for it, and the tab keeps it. */
export async function askAsAuthor(method, path, options) {
	for (;;) {
		try {
			return await ask(method, path, { ...options, token: tab.get(KEY) ?? kept.get(KEY) });
		} catch (error) {
			if (!["token_missing", "token_invalid"].includes(error.code)) throw error;
			if (!(await (asking ??= given(error)))) throw Object.assign(error, { code: "token_missing" });
		}
	}
}

/** Whether somebody gave a key, right or wrong. */
function given({ code }) {
	const dialog = ui.key;
	say($(".wrongness", dialog), code === "token_invalid" ? t("key.wrong") : "");
	dialog.returnValue = "";
	dialog.showModal();
	return new Promise((done) => {
		dialog.onclose = () => {
			const key = dialog.returnValue && $("input", dialog).value.trim();
			if (key) tab.set(KEY, key);
			asking = null;
			done(key);
		};
	});
}
