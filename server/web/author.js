import { choicesOf } from "./elements/choices.js";
import { askAsAuthor } from "./lib/author.js";
import { $, fill, h, kept, say } from "./lib/dom.js";
import { copy, explain, lang, t, translate } from "./lib/texts.js";

/** The elements of the page, by their ids. */
const ui = new Proxy({}, { get: (_, id) => document.getElementById(id) });
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const cards = () => all("#questions form:not(:has(.remove:checked))");
const numbered = (at) => t("question.of", { number: at + 1, of: cards().length });
const when = (ms) => new Date(ms).toLocaleString(lang, { dateStyle: "medium", timeStyle: "short" });
const api = (method, path, more) => askAsAuthor(method, `/api/quizzes${path}`, more);
const get = (id, more = "") => api("GET", `/${encodeURIComponent(id)}${more}`);
const check = (body, type) => api("POST", "/check", { body, type });
const keep = (value) => kept.set(`draft${location.search}`, value);
const { id: idField, title } = ui.about.elements;

let stored = {}; // the newest version
let saved, dirty, timer, previewed;

// The quiz is in the fields and nowhere else; `data-as` says how they are read.
const current = () => ({ ...read(ui.head), scoring: read(ui.scoring), questions: cards().map(read) });
const optionOf = ({ parentNode, value }) => $("[name=choices]", parentNode.parentNode)?.value ?? value === "true";

function read(part) {
  const data = {};
  const right = [];
  for (const field of all("[name]:enabled", part)) {
    const { name, type, value, checked, dataset: { as } } = field;
    if (as === "right") checked && right.push(optionOf(field));
    else if (as === "list") data[name] = [...(data[name] ?? []), value].filter(Boolean);
    else if (type !== "number") data[name] = as === "flag" ? checked : value;
    else if (value) data[name] = Number(value);
  }
  if (data.type) data.correct ??= data.type === "multiple" ? right : right[0];
  return data;
}

function write(part, data) {
  const type = $("[name=type]", part);
  if (type) {
    type.value = data.type;
    for (const each of all("[data-for]", part)) each.hidden = each.disabled = !each.dataset.for.includes(type.value);
    say($(".said", part), data.text);
  }
  for (const field of all("[name]:enabled", part)) {
    const { name, dataset: { as, at = 0 } } = field;
    const values = [data[name] ?? []].flat();
    if (as === "right") field.checked = values.includes(optionOf(field));
    else if (as === "flag") field.checked = values[0];
    else if (name in data) field.value = values[at] ?? "";
  }
}

function add(data, before = null) {
  const card = copy("question");
  const field = $("textarea", card);
  write(card, data);
  ui.questions.insertBefore(card, before);
  return field;
}

function open(field) {
  const details = field.closest("details");
  if (details) details.open = true;
  field.focus();
}

/** Puts each problem beside its field, the others on top; quietly only where the author has been before. */
function tell(problems, quietly, file) {
  for (const each of all(".told")) each.remove();
  for (const each of all("[aria-invalid]")) each.ariaInvalid = null;
  const others = problems.filter((problem) => {
    const { code, path } = problem;
    const [, at, name, index = 0] = /^(?:questions\[(\d+)\]\.|scoring\.)?(\w*)(?:\[(\d+)\])?$/.exec(path) ?? [];
    const field = all(`[name="${name}"]:enabled`, at ? cards()[at] : ui.about)[index];
    problem.text = explain({ ...problem, code: `${code}.${name}`, message: explain(problem) });
    if (!field) return true;
    if (field.ariaInvalid || (quietly && !field.touched)) return;
    field.touched = field.ariaInvalid = true;
    field.setAttribute("aria-describedby", path);
    field.closest(".field, fieldset").append(h("p.wrongness.told", { id: path }, problem.text));
  });
  if (!quietly || !ui.rest.hidden) {
    ui.rest.hidden = !others.length;
    fill($("ol", ui.rest), others.map(({ line, text }) => h("li", { value: file && line }, text)));
  }
  for (const card of cards()) {
    const count = all("[aria-invalid]", card).length;
    say($(".wrong", card), count ? t("author.problems", { count }) : "");
  }
  if (!quietly && problems.length) open($("[aria-invalid]") ?? ui.rest);
}

function show(isDirty, text = "") {
  dirty = isDirty;
  say(ui.state, dirty ? t("author.dirty") : text);
  document.title = `${dirty ? "• " : ""}${title.value} · Fanfare`;
  idField.placeholder = title.value.toLowerCase().match(/[\p{L}\p{N}]+/gu)?.join("-").slice(0, 60) ?? "";
}

/** Keeps on this device what is not saved, and checks it after a while; when that fails, saving will tell. */
function changed() {
  const quiz = current();
  show(JSON.stringify(quiz) !== saved);
  keep(dirty ? { at: Date.now(), quiz } : null);
  clearTimeout(timer);
  timer = setTimeout(() => check(quiz).then(({ problems }) => tell(problems, true), () => {}), 800);
}

function edit(quiz, isSaved) {
  ui.shelf.hidden = ui.offer.hidden = true;
  ui.editor.hidden = false;
  fill(ui.questions);
  write(ui.head, { language: lang, ...quiz });
  write(ui.scoring, { rule: "speed", ...quiz.scoring });
  for (const each of [quiz.questions ?? []].flat()) add({ ...each });
  if (isSaved) saved = JSON.stringify(current());
  show(!isSaved);
}

function settle(quiz) {
  stored = quiz;
  idField.value = quiz.id;
  idField.readOnly = true;
  fill(ui.stored, entry("tools", quiz));
}

function entry(template, quiz, more = "") {
  const made = copy(template);
  for (const link of all("a", made)) link.href = link.dataset.to + encodeURIComponent(quiz.id) + more;
  for (const button of all("button", made)) button.value = quiz.id;
  for (const each of all(".title", made)) say(each, quiz.title);
  say($(".about", made), t("author.about", { ...quiz, count: quiz.questions, at: when(quiz.created_at) }));
  return made;
}

/** A question as players see it, and what is right in it. */
function look(at) {
  const card = cards().at(at) ?? cards()[0];
  previewed = cards().indexOf(card);
  const question = read(card);
  const { text, points = 1000, time_limit_s: seconds = 20, accept, correct, tolerance = 0 } = question;
  const choices = choicesOf(question);
  const right = all("[data-as=right]:enabled", card).flatMap(({ checked }, place) => (checked ? place : []));
  say($(".of"), numbered(previewed));
  say($(".worth"), t("author.worth", { count: points, seconds }));
  say($(".asked"), text);
  say(ui.solution, choices ? "" : (accept?.join(" · ") ?? `${correct} ± ${tolerance}`));
  for (const grid of [ui.plain, ui.solved]) {
    grid.hidden = !choices;
    if (choices) grid.show({ choices }, grid === ui.solved ? { reveal: { correct: right, counts: choices.map(() => 0) } } : {});
  }
  ui.solve.checked = false;
  if (!ui.preview.open) ui.preview.showModal();
}

const actions = {
  async save() {
    clearTimeout(timer);
    const quiz = current();
    const id = idField.value.trim() || idField.placeholder;
    const { problems } = await check(quiz);
    // What is there must be what this began with, so that nobody's work is covered unseen.
    const there = (await api("GET", "")).quizzes.find((each) => each.id === id);
    if (there?.version !== stored.version) problems.push({ code: stored.id ? "overtaken" : "taken", path: "id" });
    if (stored.id) stored = there;
    tell(problems);
    if (problems.length) return;
    const now = await api("POST", `?id=${encodeURIComponent(id)}`, { body: quiz });
    const said = now.version === stored.version ? "author.unchanged" : "author.saved";
    keep(null);
    history.replaceState(null, "", `?quiz=${encodeURIComponent(id)}`);
    saved = JSON.stringify(quiz);
    ui.offer.hidden = ui.older.hidden = true;
    settle(now);
    show(false, t(said, now));
  },
  add: ({ value: type }) => open(add({ type })),
  double: ({ form }) => open(add(read(form), form.parentNode.nextSibling)),
  clear({ parentNode, form }) {
    const field = $("input", parentNode);
    field.value = "";
    write(form, read(form));
    field.focus();
  },
  move(button) {
    const item = button.form.parentNode;
    const lower = button.value < 0 ? item : item.nextElementSibling;
    lower?.previousElementSibling?.before(lower);
    button.focus();
    say(ui.spoken, numbered(cards().indexOf(button.form)));
  },
  forget() {
    ui.offer.hidden = true;
    keep(null);
  },
  async versions() {
    const { versions } = await get(stored.id, "/versions");
    fill($("ol", ui.versions), versions.map((each) => entry("version", each, `&version=${each.version}`)));
    ui.versions.showModal();
  },
  async download({ value }) {
    const text = JSON.stringify((await get(value)).quiz, null, 2);
    h("a", { href: `data:application/json,${encodeURIComponent(text)}`, download: `${value}.json` }).click();
  },
  preview: ({ form }) => look(cards().indexOf(form)),
  step: ({ value }) => look(previewed + Number(value)),
};

async function load([file]) {
  const { quiz, draft, problems } = await check(file, "application/yaml");
  if (quiz ?? draft) {
    history.replaceState(null, "", "?new");
    edit(quiz ?? draft);
  }
  tell(problems, false, true);
}

onunhandledrejection = (event) => {
  event.preventDefault();
  say(ui.alert, explain(event.reason));
};
onclick = async ({ target }) => {
  const button = target.closest("[data-do]:not([aria-busy])");
  if (!button) return;
  button.ariaBusy = true;
  say(ui.alert, "");
  try {
    await actions[button.dataset.do](button);
  } finally {
    button.ariaBusy = null;
  }
  if ("changes" in button.dataset) changed();
};
ui.editor.oninput = changed;
ui.editor.onchange = ({ target }) => {
  target.touched = true;
  write(target.form, read(target.form));
  changed();
};
onbeforeunload = (event) => {
  if (dirty) event.preventDefault();
};
ui.shelf.ondragover = (event) => event.preventDefault();
ui.shelf.ondrop = (event) => {
  event.preventDefault();
  load(event.dataTransfer.files);
};
ui.file.onchange = () => load(ui.file.files);

async function begin() {
  const { quiz: id, copy: from = id, version: wanted, new: blank } = Object.fromEntries(new URLSearchParams(location.search));
  const { quizzes } = await api("GET", "");
  if (from) {
    const { quiz, version } = await get(from, wanted && `?version=${wanted}`);
    if (id) settle(quizzes.find((each) => each.id === id));
    edit(id ? quiz : { ...quiz, title: t("author.copied", quiz) }, version === stored.version);
    if (version < stored.version) say(ui.older, t("author.older", { version, newest: stored.version }));
  } else if (blank !== undefined) {
    edit({ questions: [{ type: "single" }] }, true);
    $("details").open = true;
    title.focus();
  } else {
    fill(ui.quizzes, quizzes.map((quiz) => entry("entry", quiz)));
    ui.shelf.hidden = false;
  }
  const draft = kept.get(`draft${location.search}`);
  if (!draft || JSON.stringify(draft.quiz) === saved) return;
  say($("p", ui.offer), t("author.offer", { title: draft.quiz.title, at: when(draft.at) }));
  ui.take.onclick = () => edit(draft.quiz);
  ui.offer.hidden = false;
}
translate(document);
begin();
