import { choicesOf } from "./elements/choices.js";
import { askAsAuthor } from "./lib/author.js";
import { $, fill, h, kept, say } from "./lib/dom.js";
import { copy, explain, lang, t, translate } from "./lib/texts.js";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
/** The elements of the page by their ids. */
const ui = new Proxy({}, { get: (_, id) => document.getElementById(id) });
const { id: place, title } = ui.about.elements;
const cards = () => all("form", ui.questions);
const itemOf = (element) => element.closest("#questions > li");
const api = (method, path, more) => askAsAuthor(method, `/api/quizzes${path}`, more);
const get = (id, more = "") => api("GET", `/${encodeURIComponent(id)}${more}`);
const check = (body, type) => api("POST", "/check", { body, type });
const when = (ms) => new Date(ms).toLocaleString(lang, { dateStyle: "medium", timeStyle: "short" });
const draftKey = () => `draft.${stored.id ?? ""}`;

let stored = {}; // id and newest version
let saved; // what is in it, as JSON
let dirty, timer, draft, removed, previewed;
let marks = 0;

// The quiz is in the fields and nowhere else: `data-as` says how they are read.
const current = () => ({ ...read(ui.head), scoring: read(ui.scoring), questions: cards().map(read) });
const optionOf = ({ parentNode, value }) => $("[name=choices]", parentNode.parentNode)?.value ?? value === "true";

/** What is no number stays a text, for the server to complain about. */
function figure(text) {
  const value = Number(text.replace(",", "."));
  return text ? (Number.isNaN(value) ? text : value) : undefined;
}

function read(part) {
  const data = {};
  const right = [];
  for (const field of all("[name]:enabled", part)) {
    const { name, value, checked, dataset: { as } } = field;
    if (as === "right") checked && right.push(optionOf(field));
    else if (as === "list") data[name] = [...(data[name] ?? []), value].filter(Boolean);
    else data[name] = as === "flag" ? checked : as ? figure(value) : value;
  }
  if (data.type) data.correct ??= data.type === "multiple" ? right : right[0];
  return data;
}

function write(part, data) {
  const type = $("[name=type]", part);
  if (type) {
    type.value = data.type;
    for (const each of all("[data-for]", part)) each.hidden = each.disabled = !each.dataset.for.includes(type.value);
    say($(".kind", part), type.selectedOptions[0]?.text ?? "");
    say($(".said", part), data.text ?? "");
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
  const item = $("li", copy("question"));
  write($("form", item), data);
  ui.questions.insertBefore(item, before);
  return item;
}

function open(item, field = $("textarea", item)) {
  if (item) $("details", item).open = true;
  field.focus();
}

/** Puts each problem beside its field, the others on top; quietly only where the author has been before. */
function tell(problems, quietly, file) {
  for (const each of all(".told")) each.remove();
  for (const each of all("[aria-invalid]")) each.ariaInvalid = null;
  const others = problems.filter((problem) => {
    const [, at, name, index = 0] = /^(?:questions\[(\d+)\]\.|scoring\.)?(\w*)(?:\[(\d+)\])?$/.exec(problem.path) ?? [];
    const key = [`${problem.code}.${name}`, problem.code].map((each) => `author.error.${each}`).find((each) => t(each) !== each);
    problem.text = key ? t(key, problem) : problem.message;
    const field = all(`[name="${name}"]:enabled`, at ? cards()[at] : ui.about)[index];
    if (!field) return true;
    if (field.ariaInvalid || (quietly && !field.touched)) return false;
    const message = h("p.wrongness.told", { id: `told${++marks}` }, problem.text);
    field.closest(".field, fieldset").append(message);
    field.touched = field.ariaInvalid = "true";
    field.setAttribute("aria-describedby", message.id);
  });
  if (!quietly || !ui.rest.hidden) {
    ui.rest.hidden = !others.length;
    fill($("ol", ui.rest), others.map(({ line, text }) => h("li", { value: file && line }, text)));
  }
  for (const form of cards()) {
    const count = all("[aria-invalid]", form).length;
    say($(".wrong", form), count ? t("author.problems", { count }) : "");
  }
  const first = $("[aria-invalid]");
  if (!quietly && problems.length) first ? open(itemOf(first), first) : ui.rest.focus();
}

function show(isDirty, text = "") {
  dirty = isDirty;
  say(ui.state, dirty ? t("author.dirty") : text);
  document.title = `${dirty ? "• " : ""}${title.value} · Fanfare`;
}

/** Keeps on this device what is not saved, and checks it after a while; when that fails, saving will tell. */
function changed() {
  const quiz = current();
  show(JSON.stringify(quiz) !== saved);
  kept.set(draftKey(), dirty ? { at: Date.now(), quiz } : null);
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
  settle();
  if (isSaved) saved = JSON.stringify(current());
  show(!isSaved);
}

/** Shows under which id the quiz is, or would be: that follows the title until somebody chooses one. */
function settle() {
  const { id } = stored;
  place.readOnly = id;
  if (id || !place.touched) place.value = id ?? title.value.toLowerCase().match(/[\p{L}\p{N}]+/gu)?.join("-").slice(0, 60) ?? "";
  ui.stored.hidden = !id;
  for (const link of all("#stored a")) link.href = link.dataset.to + encodeURIComponent(id);
}

/** A question as players see it. */
function look(at, solved = false) {
  const forms = cards();
  previewed = (at + forms.length) % forms.length;
  const question = read(forms[previewed]);
  const { text, points = 1000, time_limit_s: seconds = 20, correct, accept, tolerance = 0 } = question;
  const choices = choicesOf(question);
  const right = [correct].flat().map((each) => choices?.indexOf(each));
  say($(".of", ui.preview), t("question.of", { number: previewed + 1, of: forms.length }));
  say($(".worth", ui.preview), t("author.worth", { count: points, seconds }));
  say($(".question", ui.preview), text);
  const grid = $("ff-choices");
  grid.hidden = !choices;
  if (choices) grid.show(question, solved ? { reveal: { correct: choices === question.choices ? right : correct, counts: choices.map(() => 0) } } : {});
  say($(".solution"), solved && !choices ? (accept?.join(" · ") ?? `${correct} ± ${tolerance}`) : "");
  ui.solve.ariaPressed = solved;
  if (!ui.preview.open) ui.preview.showModal();
}

function entry(template, quiz, more = "") {
  const made = copy(template);
  for (const link of all("a", made)) link.href = link.dataset.to + encodeURIComponent(quiz.id) + more;
  for (const button of all("button", made)) button.value = quiz.id;
  say($(".title", made), quiz.title);
  say($(".about", made), t("author.about", { ...quiz, count: quiz.questions, at: when(quiz.created_at) }));
  return made;
}

const actions = {
  async save() {
    clearTimeout(timer);
    const quiz = current();
    const id = place.value.trim();
    const { problems } = await check(quiz);
    // What is there must be what this began with, so that nobody's work is covered unseen.
    const there = (await api("GET", "")).quizzes.find((each) => each.id === id);
    if (there?.version !== stored.version) problems.push({ code: stored.id ? "overtaken" : "taken", path: "id" });
    if (stored.id) stored = there;
    tell(problems);
    if (problems.length) return;
    const now = await api("POST", `?id=${encodeURIComponent(id)}`, { body: quiz });
    kept.set(draftKey(), null);
    history.replaceState(null, "", `?quiz=${encodeURIComponent(id)}`);
    const said = now.version === stored.version ? "author.unchanged" : "author.saved";
    stored = now;
    saved = JSON.stringify(quiz);
    ui.offer.hidden = true;
    say(ui.older, "");
    settle();
    show(false, t(said, now));
  },
  add: ({ value: type }) => open(add({ type })),
  double: (button) => open(add(read(button.form), itemOf(button).nextSibling)),
  clear({ parentNode, form }) {
    const field = $("[data-as=list]", parentNode);
    field.value = "";
    write(form, read(form));
    field.focus();
  },
  move(button) {
    const item = itemOf(button);
    if (button.value < 0) item.previousElementSibling?.before(item);
    else item.nextElementSibling?.after(item);
    button.focus();
    say(ui.spoken, t("question.of", { number: cards().indexOf(button.form) + 1, of: cards().length }));
  },
  remove(button) {
    $(".gone")?.remove();
    removed = itemOf(button);
    removed.replaceWith(copy("gone"));
    $(".gone button").focus();
  },
  undo() {
    $(".gone").replaceWith(removed);
    $("summary", removed).focus();
  },
  take: () => edit(draft.quiz),
  forget() {
    ui.offer.hidden = true;
    kept.set(draftKey(), null);
  },
  async versions() {
    const { versions } = await get(stored.id, "/versions");
    fill($("ol", ui.versions), versions.map((each) => entry("version", each, `&version=${each.version}`)));
    ui.versions.showModal();
  },
  async download({ value }) {
    const quiz = value ? (await get(value)).quiz : current();
    const href = URL.createObjectURL(new Blob([JSON.stringify(quiz, null, 2)], { type: "application/json" }));
    h("a", { href, download: `${value || place.value}.json` }).click();
  },
  preview: ({ form }) => look(form ? cards().indexOf(form) : 0),
  step: ({ value }) => look(previewed + Number(value)),
  solve: ({ ariaPressed }) => look(previewed, ariaPressed !== "true"),
};

async function load([file]) {
  const { quiz, draft, problems } = await check(file, "application/yaml");
  if (quiz ?? draft) {
    history.replaceState(null, "", "?new");
    edit(quiz ?? draft);
  }
  tell(problems, false, true);
}

async function attempt(doing, given) {
  try {
    say(ui.alert, "");
    await doing(given);
  } catch (error) {
    say(ui.alert, explain(error));
  }
}

addEventListener("click", async ({ target }) => {
  const button = target.closest("[data-do]");
  if (!button || button.ariaBusy) return;
  button.ariaBusy = "true";
  await attempt(actions[button.dataset.do], button);
  button.ariaBusy = null;
  if ("changes" in button.dataset) changed();
});
ui.editor.oninput = ({ target }) => {
  if (target === place) place.touched = true;
  settle();
  changed();
};
ui.editor.onchange = ({ target }) => {
  target.touched = true;
  write(target.form, read(target.form));
  changed();
};
onbeforeunload = (event) => dirty && event.preventDefault();
ui.shelf.ondragover = (event) => event.preventDefault();
ui.shelf.ondrop = (event) => {
  event.preventDefault();
  attempt(load, event.dataTransfer.files);
};
ui.file.onchange = () => attempt(load, ui.file.files);

translate(document);
attempt(async () => {
  const query = new URLSearchParams(location.search);
  const id = query.get("quiz");
  const from = id ?? query.get("copy");
  if (from) {
    const newest = await get(from);
    const version = query.get("version") ?? newest.version;
    const shown = await get(from, `?version=${version}`);
    const old = shown.version < newest.version;
    if (id) stored = newest;
    edit(id ? shown.quiz : { ...shown.quiz, title: t("author.copied", shown) }, id && !old);
    if (old) say(ui.older, t("author.older", { version, newest: newest.version }));
  } else if (query.has("new")) {
    edit({ questions: [{ type: "single" }] }, true);
    open($("#questions > li"), title);
  } else {
    ui.shelf.hidden = false;
    const { quizzes } = await api("GET", "");
    return fill(ui.quizzes, quizzes.map((quiz) => entry("entry", quiz)));
  }
  draft = kept.get(draftKey());
  if (!draft || JSON.stringify(draft.quiz) === saved) return;
  ui.offer.hidden = false;
  say($("p", ui.offer), t("author.offer", { title: draft.quiz.title, at: when(draft.at) }));
});
