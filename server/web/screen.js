import { put, query, ui } from "./lib/dom.js";
import { attend } from "./lib/stage.js";
import { explain } from "./lib/texts.js";
import { codeOf } from "./lib/typed.js";

const code = query.get("code");

function askForCode(why) {
	document.body.dataset.phase = "setup";
	if (why) put("refused", explain(why));
	ui.which.onsubmit = (event) => {
		event.preventDefault();
		location.search = `code=${codeOf(ui.typed.value)}`;
	};
}

/** Takes the largest text with which everything is in sight. */
function settle() {
	const { style } = document.body;
	const stage = ui.stage;
	style.setProperty("--fit", 1);
	for (let size = 1; size > 0.3 && stage.scrollHeight > stage.clientHeight; size -= 0.05) style.setProperty("--fit", size);
}

window.onresize = window.onfocus = settle;
ui.full.onclick = () => document.documentElement.requestFullscreen();
if (code) attend(code, { role: "spectator" }, (message, isNew) => isNew && settle(), askForCode);
else askForCode();
