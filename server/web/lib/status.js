import { say, ui } from "./dom.js";
import { explain, t } from "./texts.js";

let counting = 0;

/** Says in the page's banner what is going on with the connection; nothing while all is well. */
export function showStatus(status, until, connection) {
	const banner = ui.banner;
	clearTimeout(counting);
	if (status === "open" || status === "ended") return say(banner, "");
	const kept = connection.pending.size ? ` ${t("status.kept")}` : "";
	if (!navigator.onLine) return say(banner, t("status.offline") + kept);
	if (status === "connecting") {
		// A connection that is there at once is not worth a word.
		counting = setTimeout(() => say(banner, t("status.connecting") + kept), banner.textContent ? 0 : 700);
		return;
	}
	const tick = () => {
		const seconds = Math.max(Math.ceil((until - Date.now()) / 1000), 0);
		if (connection.why) say(banner, explain(connection.why) + kept);
		else if (seconds > 3) say(banner, t("status.again", { seconds }) + kept);
		else if (banner.textContent || connection.met) say(banner, t("status.lost") + kept);
		if (seconds > 0) counting = setTimeout(tick, 1000);
	};
	tick();
}

addEventListener("securitypolicyviolation", ({ effectiveDirective }) => {
	// The session has gone to a node that was not there when the page was loaded: the page of today allows it.
	if (effectiveDirective !== "connect-src" || Date.now() - sessionStorage.getItem("reloaded") < 30_000) return;
	sessionStorage.setItem("reloaded", Date.now());
	location.reload();
});
