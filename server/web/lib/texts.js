import { all, moveTo, query, ui } from "./dom.js";

/** The texts of the page's language: `assets/texts/<lang>.json`, one flat object.
 * A text with plural forms is an object of them, chosen by `count`. */
export const lang = document.documentElement.lang;
const texts = await (await fetch(new URL(`../texts/${lang}.json`, import.meta.url))).json();
const plurals = new Intl.PluralRules(lang);
/** That language as it is written where the reader lives. */
export const locale = navigator.languages.find((each) => each.split("-")[0] === lang) ?? lang;
const figures = new Intl.NumberFormat(locale);

export const number = (value) => figures.format(value);

/** A number that is or may be an answer, to all its digits; without signs between groups if it may be a year, or
 * if it is not to be `grouped`. */
export function figure(value, grouped = true) {
	const size = Math.abs(value);
	const notation = size && (size < 1e-6 || size >= 1e15) ? "scientific" : "standard";
	const useGrouping = grouped && !(value >= 1000 && value <= 2100);
	return new Intl.NumberFormat(locale, { maximumFractionDigits: 20, notation, useGrouping }).format(String(value));
}

const SPANS = [["day", 86_400_000], ["hour", 3_600_000], ["minute", 60_000]];

/** For how long something is so, in the largest unit. */
export function since(ms) {
	const [unit, size] = SPANS.find(([, each]) => ms >= each) ?? [];
	if (!unit) return t("just_now");
	return new Intl.NumberFormat(locale, { style: "unit", unit, unitDisplay: unit === "day" ? "long" : "short" }).format(Math.floor(ms / size));
}

/** A moment, in ms since the epoch, to the minute. */
export const moment = (at) => new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" }).format(at);

/** A text in a sentence: one that is written from right to left stays what it is in one that is not. */
export const apart = (text) => (/[\p{sc=Hebrew}\p{sc=Arabic}\p{sc=Syriac}\p{sc=Thaana}\p{sc=Nko}]/u.test(text) ? `\u2068${text}\u2069` : text);

/** The text under this key, with `{name}` filled in. */
export function t(key, values = {}) {
	let text = texts[key];
	if (text === undefined) return key;
	if (typeof text === "object") text = text[plurals.select(values.count)] ?? text.other;
	return text.replace(/\{(\w+)\}/g, (_, name) => {
		const value = values[name];
		return typeof value === "number" ? number(value) : apart(value ?? "");
	});
}

/** What went wrong, by the code of the error; the server's own sentence where there is no text for it. */
export const explain = (error) => (texts[`error.${error.code}`] ? t(`error.${error.code}`, error) : error.message);

/** Fills in the texts of a page's own markup: `data-t` is the key. */
function translate(root) {
	for (const element of all("[data-t]", root)) element.textContent = t(element.dataset.t);
	return root;
}
translate(document);

/** A copy of the page's `<template>` with this id. */
export const copy = (id) => translate(ui[id].content.cloneNode(true));

if (ui.speak) {
	ui.speak.ariaLabel = t("languages");
	ui.speak.onchange = () => {
		const chosen = `lang=${ui.speak.value}`;
		document.cookie = `${chosen}; path=/; max-age=31536000; SameSite=Lax`;
		if (document.cookie.includes(chosen)) return location.reload();
		query.set("lang", ui.speak.value); // cookies are forbidden
		moveTo(`?${query}`);
		location.reload();
	};
}
