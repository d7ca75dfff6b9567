import { request as ask } from "./fanfare.js";
import { $, kept, moveTo, say, tab, ui } from "./dom.js";
import { t } from "./texts.js";

const KEY = "author.key";
let asking = null, known = null;

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
	if (link && history.state?.[KEY] && /^\/(host|author|ops)$/.test(link.pathname)) link.hash ||= `key=${history.state[KEY]}`;
});

/** The author who is signed in: `user_id` is null for nobody. `sign_in` tells whether authors can sign in here. */
export const me = () => (known ??= ask("GET", "/api/me").catch(() => ({})));

export const askAsAuthor = (method, path, options) => asAuthor((token) => ask(method, path, { ...options, token }));

/** `ask(token)` as the author who is signed in, else with the author key: if that is missing, the page's `<dialog
 * id="key">` asks for it, and the tab keeps it. */
export async function asAuthor(ask) {
	for (;;) {
		try {
			return await ask((await me()).user_id ? null : (tab.get(KEY) ?? kept.get(KEY)));
		} catch (error) {
			if (!["token_missing", "token_invalid"].includes(error.code)) throw error;
			known = null; // the sign-in may have ended
			if (!(await (asking ??= given(error)))) throw Object.assign(error, { code: "token_missing" });
		}
	}
}

/** Says who is signed in, with a button to sign out. */
export async function greet() {
	const { user_id: id, name } = await me();
	ui.me.hidden = !id;
	say($("bdi", ui.me), name || id || "");
	ui.out.onclick = async () => {
		await ask("POST", "/logout");
		location.reload();
	};
}

/** Shows quizzes page by page: `show(quizzes, isFirst)`. The text in `#search` has to be in their titles, `#more` goes
 * on, and `wrong` hears why it did not. */
export function browse(show, wrong) {
	let next = null, timer, last = 0;
	async function load(cursor) {
		const mine = ++last;
		const title = ui.search.value.trim();
		const page = await askAsAuthor("GET", `/api/quizzes?${new URLSearchParams({ limit: 50, ...(title && { title }), ...(cursor && { cursor }) })}`);
		if (mine !== last) return; // asked again meanwhile
		next = page.next;
		ui.more.hidden = !next;
		if (next) ui.searching.hidden = false;
		show(page.quizzes, !cursor);
	}
	ui.search.oninput = () => {
		clearTimeout(timer);
		timer = setTimeout(() => load().catch(wrong), 250);
	};
	ui.more.onclick = () => load(next).catch(wrong);
	return load();
}

/** Whether somebody gave a key, right or wrong. */
async function given({ code }) {
	const dialog = ui.key;
	const { sign_in: can } = await me();
	ui["sign-in"].hidden = !can;
	if (can) {
		say(ui["key-title"], t("key.who"));
		say($(".soft", dialog), t("key.or"));
	}
	$("a", ui["sign-in"]).href = `/login?to=${encodeURIComponent(location.pathname + location.search)}`;
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
