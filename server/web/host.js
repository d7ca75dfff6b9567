import "./elements/roster.js";
import { ask, passing } from "./lib/api.js";
import { Connection } from "./lib/connection.js";
import { $, fill, h, kept, say } from "./lib/dom.js";
import { Model } from "./lib/model.js";
import { gauge, Stage } from "./lib/stage.js";
import { showStatus } from "./lib/status.js";
import { explain, number, t, translate } from "./lib/texts.js";

const HOSTED_MAX = 5;
const SHOWN_MAX = 100;

const hosted = kept.get("hosted") ?? [];
const pathOf = (code) => `/api/sessions/${code}`;
const linkOf = ({ code, token }) => `/host?code=${code}#${token}`;
const inSight = (selector) => [...document.querySelectorAll(selector)].find((each) => each.checkVisibility());

// -- opening a session --------------------------------------------------------------------------------------

async function setUp(wanted) {
  const form = $("#new");
  document.body.dataset.phase = "setup";
  form.onsubmit = open;
  form.onchange = () => {
    $("#pace-host").disabled = form.pace.value !== '"host"';
    $("#pace-auto").disabled = !$("#pace-host").disabled;
  };
  hosted.forEach(offer);
  try {
    const { quizzes } = await ask("GET", "/api/quizzes");
    $("#none").hidden = quizzes.length > 0;
    fill($("#quizzes"), quizzes.map(({ id, title, questions }, place) => h("label.quiz", {},
      h("input", { type: "radio", name: "quiz_id", value: id, required: true, checked: wanted ? id === wanted : !place }),
      h("span", {}, title), h("span.hint", {}, t("host.questions", { count: questions })))));
  } catch (error) {
    say($("#refused"), explain(error));
  }
}

/** A session that was opened here, unless it is over. */
async function offer(session) {
  const { state } = await ask("GET", pathOf(session.code)).catch(() => ({}));
  if (!state || state.phase === "finished") return;
  $("#running ul").append(h("li", {}, h("a.button", { href: linkOf(session) }, state.title, h("b", {}, session.code))));
  $("#running").hidden = false;
}

async function open(event) {
  event.preventDefault();
  const form = event.target;
  const body = { quiz_id: form.quiz_id.value };
  for (const { name, type, value, checked } of form.querySelectorAll(".fields [name]:enabled"))
    if (value) body[name] = type === "checkbox" ? checked : JSON.parse(value);
  const author = form.key.value || sessionStorage.getItem("author");
  $("#open").disabled = true;
  say($("#refused"), "");
  try {
    const { code, host_token: token } = await ask("POST", "/api/sessions", { body, token: author });
    if (author) sessionStorage.setItem("author", author);
    kept.set("hosted", [{ code, token }, ...hosted].slice(0, HOSTED_MAX));
    history.replaceState(null, "", linkOf({ code, token }));
    host({ code, token });
  } catch (error) {
    $("#open").disabled = false;
    say($("#refused"), explain(error));
    $("#key").hidden = error.status !== 401;
    if (error.status === 401) form.key.focus();
  }
}

// -- leading it ---------------------------------------------------------------------------------------------

function host({ code, token }) {
  const roster = $("ff-roster");
  const stage = new Stage(code);
  let peek = false;
  let leading = false;

  const connection = new Connection(code, { token }, {
    message(message) {
      model.apply(message);
      if (message.t === "joined") read();
      if (message.t === "roster") roster.hear(message);
      draw();
    },
    status(status, detail) {
      showStatus(status, detail, connection);
      if (status !== "ended" || model.phase === "finished") return;
      document.body.dataset.phase = "ended";
      $("#here").hidden = detail.code !== "replaced";
      say($("#why"), $("#here").hidden ? explain(detail) : t("host.replaced"));
    },
  });
  const model = new Model(connection.clock);

  function read() {
    const page = (after) => ask("GET", `${pathOf(code)}/players?after=${after}&limit=1000`, { token });
    roster.load(page).then(draw, (error) => passing(error) && setTimeout(read, 2_000));
  }

  function draw() {
    const { players, connected } = roster;
    if (!model.phase) return;
    gauge("#health", connected, players);
    say($("#connected"), t("host.connected", { connected, players }));
    say($("#away"), t("host.away", { count: players - connected }));
    say($("#lock"), t(model.locked ? "host.unlock" : "host.lock"));
    say($("#next span"), t(model.number < model.of ? "host.next" : "host.end"));
    $("#peek").ariaPressed = peek;
    if (!stage.show(model, peek)) return;
    if (peek) turn();
    if (model.phase === "finished") showResults();
    const at = document.activeElement;
    if (at === document.body || !at.checkVisibility()) inSight("#controls .primary")?.focus();
  }

  function turn() {
    peek = !peek;
    draw();
  }

  /** Does the commands that a button names, one after the other. Says beside the buttons why one was refused. */
  async function lead({ do: commands, player }) {
    if (leading) return;
    const more = { lock: { on: !model.locked }, kick: { player: Number(player) } };
    leading = true;
    say($("#wrong"), "");
    try {
      for (const what of commands.split(" ")) await connection.command(what, more[what]);
    } catch (error) {
      say($("#wrong"), explain(error));
    }
    leading = false;
  }

  async function showResults() {
    try {
      const { players } = await ask("GET", `${pathOf(code)}/results`, { token });
      const row = (line) => [number(line.rank), h("bdi", {}, line.name), ...[line.score, line.correct, line.answered].map(number)];
      fill($("#results"), players.slice(0, SHOWN_MAX).map((line) => h("tr", {}, row(line).map((cell) => h("td", {}, cell)))));
    } catch (error) {
      say($("#wrong"), explain(error));
    }
  }

  $("#screen").href = `/screen?code=${code}`;
  $("#csv").href = `${pathOf(code)}/results.csv`;
  $("#link").value = location.origin + linkOf({ code, token });
  $("#copy").onclick = () => {
    $("#link").select();
    say($("#copied"), document.execCommand("copy") ? t("host.copied") : "");
  };
  $("#peek").onclick = turn;
  $("#here").onclick = () => location.reload();
  document.onclick = ({ target }) => {
    const button = target.closest("[data-do]");
    if (button) lead(button.dataset);
  };
  document.onkeydown = ({ key, target, repeat, ctrlKey, metaKey, altKey }) => {
    if (repeat || ctrlKey || metaKey || altKey || target.matches("input")) return;
    if (/^[a-z]$/i.test(key)) inSight(`[aria-keyshortcuts="${key.toUpperCase()}"]`)?.click();
  };
  ask("GET", pathOf(code)).then(({ settings }) => (document.body.dataset.pace = settings.pace), () => {});
}

translate(document.body);
const asked = new URLSearchParams(location.search);
const code = asked.get("code");
const token = location.hash.slice(1) || hosted.find((each) => each.code === code)?.token;
if (code && token) host({ code, token });
else setUp(asked.get("quiz"));
