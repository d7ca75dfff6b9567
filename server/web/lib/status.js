import { say, tab, ui } from "./dom.js";
import { explain, t } from "./texts.js";

let counting = 0;
let lock = null;
let wanted = false;

/** Keeps the screen from going dark, or lets it. The browser lets go by itself when the page is out of sight. */
export function stayAwake(on) {
	if (wanted === on) return;
	wanted = on;
	watch();
}

async function watch() {
	if (wanted && !document.hidden && lock?.released !== false) lock = await navigator.wakeLock?.request("screen").catch(() => null);
	if (!wanted) lock?.release();
}
document.addEventListener("visibilitychange", watch);

/** Says in the page's banner what is going on with the connection; nothing while all is well. */
export function showStatus(status, until, connection) {
	const banner = ui.banner;
	clearTimeout(counting);
	if (status === "open" || status === "ended") return say(banner, "");
	const kept = connection.pending.size ? ` ${t("status.kept")}` : "";
	if (status === "connecting") {
		// A connection that is there at once is not worth a word.
		counting = setTimeout(() => say(banner, t("status.connecting") + kept), banner.textContent ? 0 : 700);
		return;
	}
	const tick = () => {
		const seconds = Math.max(Math.ceil((until - Date.now()) / 1000), 0);
		if (!navigator.onLine) say(banner, t("status.offline") + kept);
		else if (connection.why) say(banner, explain(connection.why) + kept);
		else if (seconds > 3) say(banner, t("status.again", { seconds }) + kept);
		else if (banner.textContent || connection.met) say(banner, t("status.lost") + kept);
		if (seconds > 0) counting = setTimeout(tick, 1000);
	};
	tick();
}

addEventListener("securitypolicyviolation", ({ effectiveDirective }) => {
	// The session has gone to a node that was not there when the page was loaded: the page of today allows it.
	if (effectiveDirective !== "connect-src" || Date.now() - tab.get("reloaded") < 30_000) return;
	tab.set("reloaded", Date.now());
	location.reload();
});
