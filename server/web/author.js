import { choicesOf, mark, shown } from "./elements/choices.js";
import { askAsAuthor, browse, greet } from "./lib/author.js";
import { $, all, h, kept, moveTo, query, say, speak, ui } from "./lib/dom.js";
import { copy, explain, figure, lang, locale, t } from "./lib/texts.js";
import { numbersOf } from "./lib/typed.js";

const cards = () => all("#questions form:not(:has(.remove:checked))");
const counted = (at) => t("question.of", { number: at + 1, of: cards().length });
const api = (method, path = "", more) => askAsAuthor(method, `/api/quizzes${path}`, more);
const get = (id, more = "") => api("GET", `/${encodeURIComponent(id)}${more}`);
const newest = async (id) => (await api("GET", `?id=${encodeURIComponent(id)}`)).quizzes[0];
const check = (body, type) => api("POST", "/check", { body, type });
const keep = (value) => kept.set(`draft${location.search}`, value);
const { id: place, title } = ui.about.elements;

let stored = {}, saved, dirty, timer, seen;

// The quiz is in the fields and nowhere else.
const current = () => ({ ...read(ui.head), scoring: read(ui.scoring), questions: cards().map(read) });
const option = ({ parentNode, value }) => $("[name=choices]", parentNode.parentNode)?.value ?? value === "true";

/** The number in a field; what cannot be one, or may be two, as it was typed. */
function meant({ value, known }) {
	if (value === known?.text) return known.value;
	const found = numbersOf(value, [$("[name=language]").value || lang, locale, navigator.language]);
	return found.length === 1 ? found[0] : value;
}

function read(part) {
	const data = {}, right = [];
	for (const field of all("[name]:enabled", part)) {
		const { name, type, value, checked, dataset } = field;
		if (dataset.at) data[name] = [...(data[name] ?? []), value].filter(Boolean);
		else if ("number" in dataset) value.trim() && (data[name] = meant(field));
		else if (name !== "correct") data[name] = type === "checkbox" ? checked : value;
		else if (checked) right.push(option(field));
	}
	if (data.type) data.correct ??= data.type === "multiple" ? right : right[0];
	return data;
}

function write(part, data) {
	const type = $("[name=type]", part);
	if (type) type.value = data.type;
	for (const each of all(".tick-box input", part)) each.type = type.value === "multiple" ? "checkbox" : "radio";
	for (const each of all("[data-for]", part)) each.hidden = each.disabled = !each.dataset.for.includes(type.value);
	for (const field of all("[name]:enabled", part)) {
		const values = [data[field.name] ?? []].flat();
		if (/radio|checkbox/.test(field.type)) field.checked = values.includes(option(field));
		else if (field.name in data) {
			const value = values[field.dataset.at ?? 0] ?? "";
			const text = typeof value === "number" ? figure(value, false) : value;
			field.value = text;
			field.known = { text, value };
		}
	}
	$(".said", part)?.replaceChildren(data.text ?? "");
}

function add(data, before) {
	const card = copy("question");
	const field = $("textarea", card);
	for (const list of all("[data-rows]", card)) {
		const [row] = list.children;
		for (let at = 0; at < list.dataset.rows; at++) {
			const next = row.cloneNode(true);
			$("[data-at]", next).dataset.at = at;
			$(".mark", next)?.replaceWith(mark(at));
			list.append(next);
		}
		row.remove();
	}
	write(card, data);
	speak(ui.about.elements.language.value, card);
	ui.questions.insertBefore(card, before);
	return field;
}

function open(field) {
	field.closest("details")?.setAttribute("open", "");
	field.focus();
}

/** `quiet`: only where the author was. */
function tell(problems, quiet) {
	for (const each of all(".told")) each.remove();
	for (const each of all("[aria-invalid]")) each.ariaInvalid = null;
	for (const problem of problems) {
		const { code, path, line } = problem;
		const [, at, name, index = 0] = /(?:questions\[(\d+)\]\.)?(\w*)(?:\[(\d+)\])?$/.exec(path);
		const field = all(`[name="${name}"]:enabled`, at ? cards()[at] : ui.about)[index];
		const [one, other] = field && "number" in field.dataset ? numbersOf(field.value, [""]) : [];
		const text = other === undefined ? explain({ ...problem, code: `${code}.${name}`, message: explain(problem) })
			: t("answer.which", { one: figure(one, false), other: figure(other, false) });
		if (!field) ui.rest.append(h("li.told", { value: line > 1 && line }, text));
		else if (!field.ariaInvalid && (field.touched || !quiet)) {
			field.touched = field.ariaInvalid = true;
			field.setAttribute("aria-describedby", path);
			field.closest(".field, fieldset").append(h("p.wrongness.told", { id: path }, text));
		}
	}
	for (const card of cards()) $(".wrong", card).dataset.count = all("[aria-invalid]", card).length;
	if (!quiet && problems.length) open($("[aria-invalid]") ?? ui.rest);
}

function show(text) {
	const quiz = current();
	dirty = JSON.stringify(quiz) !== saved;
	say(ui.state, dirty ? t("author.dirty") : text);
	document.title = `${title.value} · Fanfare`;
	place.placeholder = title.value.toLowerCase().match(/[\p{L}\p{N}]+/gu)?.join("-") ?? "";
	return quiz;
}

function changed() {
	const quiz = show();
	keep(dirty ? quiz : null);
	clearTimeout(timer);
	timer = setTimeout(() => check(quiz).then(({ problems }) => tell(problems, true), () => {}), 800);
}

function edit(quiz, clean) {
	ui.shelf.hidden = true;
	ui.editor.hidden = false;
	ui.questions.replaceChildren();
	write(ui.head, { language: lang, ...quiz });
	speak(ui.about.elements.language.value);
	write(ui.scoring, { rule: "speed", ...quiz.scoring });
	for (const each of [quiz.questions ?? []].flat()) add({ ...each });
	if (clean) saved = JSON.stringify(current());
	show();
}

function settle(quiz) {
	stored = quiz;
	place.value = quiz.id;
	place.readOnly = true;
	ui.stored.replaceChildren(entry("tools", quiz));
}

function entry(template, quiz, more = "") {
	const made = copy(template);
	for (const link of all("a", made)) link.href = link.dataset.to + encodeURIComponent(quiz.id) + more;
	for (const button of all("button", made)) button.value = quiz.id;
	say($(".title", made), quiz.title);
	const at = new Date(quiz.created_at).toLocaleString(lang, { dateStyle: "medium", timeStyle: "short" });
	say($(".about", made), t("author.about", { ...quiz, count: quiz.questions, at }));
	return made;
}

function look(at) {
	const card = cards().at(at) ?? cards()[0];
	const question = read(card);
	const { text, points = 1000, time_limit_s: seconds = 20, correct, accept, tolerance } = question;
	const choices = choicesOf(question) ?? [];
	const right = [accept ?? (/true|num/.test(question.type) ? shown(question, correct) : correct)].flat();
	seen = cards().indexOf(card);
	say($(".of"), counted(seen));
	say($(".worth"), t("author.worth", { count: points, seconds }));
	say($(".asked"), text);
	say(ui.solution, right.join(" · ") + (tolerance ? ` ± ${figure(tolerance)}` : ""));
	ui.grid.show({ ...question, choices }, { given: right.map((each) => choices.indexOf(each)) });
	ui.solve.checked = false;
	ui.preview.open || ui.preview.showModal();
}

const actions = {
	async save() {
		clearTimeout(timer);
		const quiz = current();
		const id = place.value.trim() || place.placeholder;
		const { problems } = await check(quiz);
		if (id !== stored.id && (await newest(id))) problems.push({ code: "taken", path: "id" });
		tell(problems);
		if (problems.length) return;
		const at = encodeURIComponent(id);
		stored.id = id;
		const now = await api("POST", `?id=${at}`, { body: quiz });
		keep(null);
		moveTo(`?quiz=${at}`);
		saved = JSON.stringify(quiz);
		say(ui.older, "");
		show(t(now.version === stored.version ? "author.unchanged" : "author.saved", now));
		settle(now);
	},
	add: ({ value: type }) => open(add({ type })),
	double: ({ form }) => open(add(read(form), form.parentNode.nextSibling)),
	clear({ parentNode, form }) {
		const field = $("[data-at]", parentNode);
		field.value = "";
		write(form, read(form));
		field.focus();
	},
	move(button) {
		const item = button.form.parentNode;
		const lower = button.value ? item.nextElementSibling : item;
		lower?.previousElementSibling?.before(lower);
		button.focus();
		say(ui.spoken, counted(cards().indexOf(button.form)));
	},
	async versions() {
		const { versions } = await get(stored.id, "/versions");
		ui.past.replaceChildren(...versions.map((each) => entry("version", each, `&version=${each.version}`)));
		ui.versions.showModal();
	},
	async download({ value }) {
		const { quiz } = await get(value);
		h("a", { href: `data:application/json,${encodeURIComponent(JSON.stringify(quiz, null, 2))}`, download: `${value}.json` }).click();
	},
	async remove({ value }) {
		await api("DELETE", `/${encodeURIComponent(value)}`);
		keep((dirty = null));
		location.href = "/author";
	},
	preview: ({ form }) => look(cards().indexOf(form)),
	step: ({ value }) => look(seen + Number(value)),
};

onunhandledrejection = (event) => {
	event.preventDefault();
	say(ui.alert, explain(event.reason));
};
onclick = async ({ target }) => {
	const button = target.closest("[data-do]");
	if (!button) return;
	say(ui.alert, "");
	await actions[button.dataset.do](button);
	if ("changes" in button.dataset) changed();
};
ui.editor.oninput = changed;
ui.editor.onchange = ({ target }) => {
	target.touched = true;
	if (target.name === "language") speak(target.value);
	write(target.form, read(target.form));
	changed();
};
onbeforeunload = (event) => {
	if (dirty) event.preventDefault();
};
ui.file.onchange = async () => {
	const [file] = ui.file.files;
	ui.file.value = ""; // the same file may come again
	const { quiz, draft, problems } = await check(file, "text/yaml");
	if (quiz ?? draft) {
		moveTo("?new=1");
		edit(quiz ?? draft);
	}
	tell(problems);
};

async function begin() {
	const { quiz: id, copy: from = id, version: old, new: blank } = Object.fromEntries(query);
	greet();
	if (from) {
		const { quiz, version } = await get(from, old && `?version=${old}`);
		if (id) settle(await newest(id));
		edit(id ? quiz : { ...quiz, title: t("author.copied", quiz) }, version === stored.version);
		if (version < stored.version) say(ui.older, t("author.older", { version }));
	} else if (blank) {
		await api("GET", "?limit=1"); // asks for the key before there is anything to lose
		edit({ questions: [{ type: "single" }] }, true);
		$("details").open = true;
	} else {
		await browse((quizzes, isFirst) => {
			if (isFirst) ui.quizzes.replaceChildren();
			ui.quizzes.append(...quizzes.map((quiz) => entry("entry", quiz)));
			ui.shelf.hidden = false;
		}, (error) => say(ui.alert, explain(error)));
	}
	const draft = kept.get(`draft${location.search}`);
	if (draft) ui.offer.showModal();
	ui.take.onclick = () => edit(draft);
	ui.forget.onclick = () => keep(null);
}
begin();
