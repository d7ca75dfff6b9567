import "./elements/choices.js";
import "./elements/countdown.js";
import "./elements/leaderboard.js";
import { letter } from "./elements/choices.js";
import { ask } from "./lib/api.js";
import { Connection } from "./lib/connection.js";
import { $, fill, h, kept, say } from "./lib/dom.js";
import { Model, shown } from "./lib/model.js";
import { showStatus } from "./lib/status.js";
import { copy, explain, number, t } from "./lib/texts.js";

const main = $("#main");
const spoken = $("#spoken");
const hear = (text) => say(spoken, text);
let connection = null;
let model = null;
let view = null;

const element = (kind, ...shows) => {
  const made = document.createElement(kind);
  made.show(...shows);
  return made;
};

// -- coming in ----------------------------------------------------------------------------------------------

const codeOf = (text) => text.replace(/\D/g, "").slice(0, 6);
const seatKey = (code) => `seat.${code}`;
const waitKey = (code) => `wait.${code}`;

/** Asks for a code and then, unless the session names its players, for a name. */
function showJoin(code = "", error = null, name = "") {
  document.title = "Fanfare";
  view = null;
  fill(main, copy("join"));
  const [codeField, nameField, told, named, wrong, back] = ["code", "name", "told", "named", "wrong", "back"].map((id) => $(`#${id}`));
  let session = null;

  async function look() {
    const typed = codeOf(codeField.value);
    session = null;
    say(told, "");
    named.hidden = false;
    back.hidden = true;
    if (typed.length < 6) return;
    try {
      const found = await ask("GET", `/api/sessions/${typed}`);
      if (codeOf(codeField.value) !== typed) return;
      session = found;
      say(told, session.state.title);
      say(wrong, error ? explain(error) : "");
      named.hidden = session.settings.names === "given";
      const seat = kept.get(seatKey(typed));
      back.hidden = !seat;
      if (seat) say(back, t("join.back", { name: seat.name }));
      back.onclick = () => begin(typed, { token: seat.token });
    } catch (failed) {
      say(wrong, explain(failed));
    }
    error = null;
  }

  function refuse(field, sentence) {
    say(wrong, sentence);
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", "wrong");
    field.focus();
  }

  codeField.oninput = look;
  $("form", main).onsubmit = async (event) => {
    event.preventDefault();
    const typed = codeOf(codeField.value);
    if (typed.length < 6) return refuse(codeField, t("join.six"));
    if (!session) await look();
    const chosen = nameField.value.trim();
    if (!session) codeField.focus();
    else if (named.hidden) begin(typed, {});
    else if (!chosen) refuse(nameField, t("join.who"));
    else begin(typed, { name: chosen });
  };
  codeField.value = code;
  nameField.value = name;
  (code ? nameField : codeField).focus();
  if (code) look();
}

function begin(code, who) {
  history.replaceState(null, "", `?code=${code}`);
  const asked = who.name;
  view = null;
  fill(main, h("div.middle", {}, h("div.pulse"), h("p", {}, t("status.connecting"))));
  connection?.close();
  connection = new Connection(code, who, {
    message(message) {
      if (message.t === "joined" && message.token) kept.set(seatKey(code), { token: message.token, name: message.name, player: message.player });
      heard(message);
    },
    status(status, detail) {
      showStatus(status, detail, connection);
      if (status === "ended") ended(code, detail, asked);
    },
    pending: () => kept.set(waitKey(code), connection.pending.size ? [...connection.pending.values()] : null),
  }, kept.get(waitKey(code)) ?? []);
  model = new Model(connection.clock);
}

const REFUSALS = ["name_invalid", "name_too_long", "name_taken", "missing_field", "bad_field"];
const FORGETS = ["kicked", "player_not_found", "token_invalid", "token_expired", "session_not_found"];

function ended(code, why, name) {
  if (FORGETS.includes(why.code)) kept.set(seatKey(code), null);
  kept.set(waitKey(code), null);
  if (model.phase === "finished") return; // which is shown
  if (REFUSALS.includes(why.code)) return showJoin(code, why, name);
  view = null;
  const again = why.code === "replaced" ? [t("end.here"), () => begin(code, { token: connection.token })] : [t("end.other"), () => showJoin()];
  fill(main, h("div.middle.card.stack", { role: "alert" }, h("h1", {}, explain(why)), h("button.primary", { type: "button", onclick: again[1] }, again[0])));
}

// -- playing ------------------------------------------------------------------------------------------------

async function heard(message) {
  const before = model.number;
  model.apply(message);
  if (message.t === "over") await lastPlace();
  if (message.t === "joined") model.waiting(connection.pending.values());
  document.title = model.title ? `${model.title} · Fanfare` : "Fanfare";
  if (message.t === "question" && message.number !== before) hear(`${t("question.of", { number: model.number, of: model.of })}. ${model.question.text}`);
  if (message.t === "result") hear([...verdict(), t("rank.of", { rank: model.you.rank, players: model.players })].join(". "));
  draw();
}

/** Of a session that is over and out of memory: one's own place in it. */
async function lastPlace() {
  const mine = codeOf(location.search);
  const { player, token } = kept.get(seatKey(mine)) ?? {};
  const board = player && (await ask("GET", `/api/sessions/${mine}/leaderboard?around=me&top=1`, { token }).catch(() => null));
  model.you = board?.around?.find((line) => line.id === player) ?? null;
}

const VIEWS = { lobby, question, reveal, finished };

/** Shows the phase; a view that is up already is only brought up to date, so that nothing jumps and focus stays. */
function draw() {
  if (!model.phase) return;
  const phase = model.phase !== "paused" ? model.phase : model.reveal ? "reveal" : "question";
  const name = `${phase}${model.number}`;
  if (view?.name !== name) {
    const focused = main.contains(document.activeElement);
    view = { name, ...VIEWS[phase]() };
    fill(main, view.parts);
    scrollTo(0, 0);
    if (focused) main.focus();
  }
  view.update();
}

function strip() {
  const score = h("span.score");
  const rank = h("span.rank");
  const part = h("div.me-strip", {}, h("bdi.name", {}, model.you?.name ?? ""), rank, score);
  return {
    part,
    update() {
      const mine = model.top.find((line) => line.id === model.you?.player);
      say(score, number(mine?.score ?? model.you?.score ?? 0));
      const place = mine?.rank ?? model.you?.rank;
      say(rank, place ? t("rank.of", { rank: place, players: Math.max(model.players, place) }) : "");
    },
  };
}

function lobby() {
  const count = h("p.soft", { "aria-live": "off" });
  return {
    parts: [h("div.middle.stack", {}, h("div.pulse"), h("h1", {}, t("lobby.in", { name: model.you?.name ?? "" })), h("p", {}, model.title), h("p.soft", {}, t("lobby.wait")), count)],
    update: () => say(count, t("players", { count: model.players })),
  };
}

function question() {
  const { question: asked } = model;
  const time = document.createElement("ff-countdown");
  const state = h("p.state", { role: "status" });
  const box = h("div");
  const mine = strip();
  let picked = [];
  let shows = null;

  const send = (choice) => {
    if (model.given || model.phase !== "question") return;
    model.given = { choice, saved: false };
    connection.answer(model.number, choice);
    navigator.vibrate?.(20);
    update();
  };

  function controls() {
    const locked = Boolean(model.given) || model.phase !== "question";
    if (["single", "true_false", "multiple"].includes(asked.type)) {
      const many = asked.type === "multiple";
      const grid = document.createElement("ff-choices");
      const toggle = (place) => {
        picked = picked.includes(place) ? picked.filter((each) => each !== place) : [...picked, place].sort();
        grid.children[place].classList.toggle("mine", picked.includes(place));
        grid.children[place].setAttribute("aria-pressed", String(picked.includes(place)));
        ready.disabled = !picked.length;
      };
      const pick = many ? toggle : (place) => send(asked.type === "true_false" ? place === 0 : place);
      grid.show(asked, { pick, given: model.given?.choice ?? (many ? picked : null) });
      for (const button of grid.children) button.disabled = locked;
      const ready = h("button.primary", { type: "button", disabled: !picked.length, onclick: () => send(picked) }, t("answer.send"));
      return many && !locked ? [grid, ready] : [grid];
    }
    const numeric = asked.type === "numeric";
    const field = h("input", { id: "answer", inputMode: numeric ? "decimal" : "text", maxLength: numeric ? 40 : 200, autocomplete: "off", disabled: locked, value: model.given ? String(model.given.choice) : "", spellcheck: false });
    const wrong = h("p.wrongness", { role: "alert" });
    const form = h("form.stack", {
      onsubmit(event) {
        event.preventDefault();
        const typed = field.value.trim();
        const value = numeric ? Number(typed.replace(/\s/g, "").replace(",", ".")) : typed;
        if (!typed || (numeric && !Number.isFinite(value))) return say(wrong, t(numeric ? "answer.number" : "answer.empty"));
        send(value);
      },
    }, h("label", { htmlFor: "answer" }, t(numeric ? "answer.numeric" : "answer.text")), h("div.typed", {}, field, h("button.primary", { type: "submit", disabled: locked }, t("answer.send"))), wrong);
    if (!locked) queueMicrotask(() => field.focus());
    return [form];
  }

  const told = () => {
    const { given } = model;
    if (model.phase === "paused") return ["", t("paused")];
    if (!given) return ["", ""];
    if (given.refused) return [".refused", explain(given.refused)];
    if (given.twice) return [".saved", t("answer.twice", { choice: shown(asked, given.choice, t) })];
    return given.saved ? [".saved", t("answer.saved")] : ["", t(connection.status === "open" ? "answer.received" : "answer.kept")];
  };

  function update() {
    const key = `${model.phase}${JSON.stringify(model.given?.choice)}`;
    if (key !== shows) {
      const focused = box.contains(document.activeElement);
      shows = key;
      fill(box, h("div.stack", {}, controls()));
      time.show(model);
      if (focused && model.given) state.focus();
    }
    const [kind, text] = told();
    state.className = `state${kind.replace(".", " ")}`;
    if (state.dataset.text !== text) fill(state, text && h("span.dot", { "aria-hidden": "true" }), text);
    state.dataset.text = text;
    mine.update();
  }

  return {
    parts: [h("div.top", {}, h("span", {}, t("question.of", { number: model.number, of: model.of })), h("span", {}, t("worth", { count: asked.points }))), time, h("h1.question", {}, asked.text), box, state, mine.part],
    update,
    key(event) {
      const place = /^[1-8]$/.test(event.key) ? event.key - 1 : letter(0) <= event.key.toUpperCase() && event.key.length === 1 ? event.key.toUpperCase().charCodeAt(0) - 65 : -1;
      $(`button.choice[data-place="${place}"]:enabled`, box)?.click();
    },
  };
}

/** What the last question has brought, in a headline and a sentence. */
function verdict() {
  const { result } = model;
  if (!result || result.correct === null) return [t("result.none"), t("result.missed")];
  return result.correct ? [t("result.right"), t("result.won", { count: result.points })] : [t("result.wrong"), t("result.nothing")];
}

function reveal() {
  const { question: asked, reveal: shownReveal } = model;
  const head = h("div");
  const facts = h("dl.facts");
  const near = h("p.soft");
  const answer = asked.choices || asked.type === "true_false"
    ? element("ff-choices", asked, { reveal: shownReveal, given: model.given?.choice })
    : h("div.card", {}, h("p.soft", {}, t("reveal.answer")), h("p.question", {}, shown(asked, shownReveal.correct, t)));
  const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  return {
    parts: [h("div.top", {}, h("span", {}, t("question.of", { number: model.number, of: model.of }))), head, facts, near, h("h2", {}, asked.text), answer],
    update() {
      const { result, you } = model;
      if (!result) return fill(head, h("p.state", {}, t("reveal.wait")));
      const [title, sentence] = verdict();
      const kind = result.correct === null ? "none" : result.correct ? "right" : "wrong";
      fill(head, h(`div.verdict.${kind}`, {}, h("h1", {}, title), h("p.won", {}, sentence)));
      fill(facts, fact(t("points.total"), number(you.score)), fact(t("rank"), number(you.rank)), fact(t("streak"), number(you.streak)));
      const ahead = [...result.around].reverse().find((line) => line.score > you.score);
      say(near, ahead ? t("near.ahead", { count: ahead.score - you.score, name: ahead.name }) : t("near.first"));
    },
  };
}

function finished() {
  const place = h("div");
  const podium = document.createElement("ff-podium");
  return {
    parts: [h("div.middle.stack", {}, h("h1", {}, t("finished")), place), podium, h("div.middle", {}, h("button", { type: "button", onclick: () => { connection.close(); history.replaceState(null, "", "/"); showJoin(); } }, t("end.other")))],
    update() {
      if (model.podium) podium.show(model.podium, model.you?.player);
      const { rank, score } = model.you ?? {};
      if (!rank) return;
      fill(place, h("p.soft", {}, t("finished.place")), h("p.place", {}, number(rank)), h("p", {}, t("points", { count: score })));
      hear(`${t("finished.place")} ${number(rank)}. ${t("points", { count: score })}`);
    },
  };
}

// -- the page ------------------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (model?.phase === "question") view?.key?.(event);
});
const code = codeOf(new URLSearchParams(location.search).get("code") ?? "");
const seat = kept.get(seatKey(code));
if (seat) begin(code, { token: seat.token });
else showJoin(code);
