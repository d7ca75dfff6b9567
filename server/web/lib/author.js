import { ask } from "./api.js";
import { $, kept, say, ui } from "./dom.js";
import { t } from "./texts.js";

const KEY = "author.key";
let asking = null;

const linked = () => location.hash.startsWith("#key=");

/** A link that a node has printed brings its key along: this browser keeps it, and the address no longer shows it. */
addEventListener("hashchange", () => linked() && location.reload());
if (linked()) {
	kept.set(KEY, location.hash.slice(5));
	sessionStorage.removeItem(KEY);
	history.replaceState(null, "", location.pathname + location.search);
}

/** `ask` with the author key: if that is missing, the page's `<dialog id="key">` asks for it, and the tab keeps it. */
export async function askAsAuthor(method, path, options) {
	for (;;) {
		try {
			return await ask(method, path, { ...options, token: sessionStorage.getItem(KEY) ?? kept.get(KEY) });
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
			if (key) sessionStorage.setItem(KEY, key);
			asking = null;
			done(key);
		};
	});
}
