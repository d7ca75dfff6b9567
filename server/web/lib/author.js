import { ask } from "./api.js";
import { $, say, ui } from "./dom.js";
import { t } from "./texts.js";

const KEY = "author.key";
let asking = null;

/** `ask` with the author key: if the node wants one, the page's `<dialog id="key">` asks for it, and the tab keeps it. */
export async function askAsAuthor(method, path, options) {
	for (;;) {
		try {
			return await ask(method, path, { ...options, token: sessionStorage.getItem(KEY) });
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
