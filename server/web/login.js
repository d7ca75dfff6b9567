import { put, query, ui } from "./lib/dom.js";
import { t } from "./lib/texts.js";

/** The reasons that the node gives; an address with another one was made by somebody else. */
const known = ["login_off", "login_unavailable", "login_denied", "login_failed", "login_no_role"];
const why = query.get("why");
const code = known.includes(why) ? why : "login_failed";
put("why", t(`error.${code}`));
put("code", t("login.code", { code }));
document.title = `${t("login.title")} · Fanfare`;
ui.again.hidden = code === "login_off";
