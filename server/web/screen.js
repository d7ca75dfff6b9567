import { Connection } from "./lib/connection.js";
import { $, say } from "./lib/dom.js";
import { Model } from "./lib/model.js";
import { Stage } from "./lib/stage.js";
import { showStatus } from "./lib/status.js";
import { explain, translate } from "./lib/texts.js";

const whole = document.documentElement;
const code = new URLSearchParams(location.search).get("code");

function askForCode(why) {
  document.body.dataset.phase = "setup";
  $("#typed").value = code;
  if (why) say($("#refused"), explain(why));
  $("#which").onsubmit = (event) => {
    event.preventDefault();
    location.search = `code=${$("#typed").value.replace(/\D/g, "")}`;
  };
}

function watch() {
  const stage = new Stage(code);
  const connection = new Connection(code, { role: "spectator" }, {
    message(message) {
      model.apply(message);
      if (model.phase && stage.show(model)) fit();
    },
    status(status, detail) {
      showStatus(status, detail, connection);
      if (status === "ended" && model.phase !== "finished") askForCode(detail);
    },
  });
  const model = new Model(connection.clock);
}

/** Takes the largest text with which everything is in sight. */
function fit() {
  for (let size = 1; size > 0.3; size -= 0.05) {
    whole.style.setProperty("--fit", size);
    if ($("#stage").scrollHeight <= $("#stage").clientHeight) return;
  }
}
addEventListener("resize", fit);

const stayAwake = () => document.hidden || navigator.wakeLock?.request("screen").catch(() => {});
document.addEventListener("visibilitychange", stayAwake);
stayAwake();

translate(document.body);
$("#full").onclick = () => whole.requestFullscreen();
if (code) watch();
else askForCode();
