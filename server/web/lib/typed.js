/** What people type: digits of any script, codes, and numbers as a language writes them. */

const isDigit = /\p{Nd}/u;
const MINUS = /[\u2010-\u2013\u2212\ufe63\uff0d]/g;

/** Each script has its ten digits in a row, from zero on. */
function digit(char) {
	let value = 0;
	while (isDigit.test(String.fromCodePoint(char.codePointAt() - value - 1))) value++;
	return value % 10;
}
const plain = (text) => text.replace(/\p{Cf}/gu, "").replace(/\p{Nd}/gu, digit);

/** The code in what was typed or pasted, also as a link, up to where it ends. */
export function codeOf(text) {
	const typed = plain(text);
	const linked = /(?:code=|\/)(\d{6})(?!\d)/.exec(typed);
	return linked ? linked[1] : typed.includes("/") ? "" : typed.replace(/\D/g, "").slice(0, 6);
}

/** The ways to part groups and decimals. Groups have three digits, or as in India two before the last three. */
const ways = [];
for (const group of [",", "[.]", "['\u2019\uff07]", "\\s", "\u066c"])
	for (const point of ["[.]", ",", "\u066b"])
		if (group !== point) ways.push(new RegExp(`^((?:[1-9]\\d{0,2}(?:${group}\\d{3})+|[1-9]\\d?(?:${group}\\d\\d)+${group}\\d{3}|\\d+)?)(?:${point}(\\d*))?$`));

/** Whether a language has the point for decimals, and perhaps for groups what is asked for. */
function pointed(language, group) {
	try {
		const parts = new Intl.NumberFormat(language).formatToParts(12345.6);
		const has = (type, value) => parts.some((part) => part.type === type && part.value === value);
		return has("decimal", ".") && (!group || has("group", group));
	} catch {
		return false; // no language
	}
}

/** What a typed number may mean: one number most often, none, or two where its only point or comma may part a
 * group or the decimals and these languages do not say which. */
export function numbersOf(text, languages) {
	const typed = plain(text).replace(MINUS, "-").replace("\uff0b", "+").replace(/[\uff0c\u060c]/g, ",").replace(/\uff0e/g, ".").trim();
	const [, sign, figures, exponent = ""] = /^([+-]?)\s*(.*?\d.*?)(e[+-]?\d+)?$/i.exec(typed) ?? [];
	const found = new Set();
	for (const way of figures ? ways : []) {
		const [, whole, decimals] = way.exec(figures) ?? [];
		const value = whole === undefined ? Infinity : Number(`${sign}${whole.replace(/\D/g, "")}.${decimals ?? ""}0${exponent}`);
		if (Number.isFinite(value)) found.add(value);
	}
	const [grouped, decimal] = [...found].sort((one, other) => Math.abs(other) - Math.abs(one));
	if (found.size < 2) return [...found];
	const comma = figures.includes(",");
	if (!languages.every((language) => pointed(language, comma && ","))) return [grouped, decimal];
	return [comma ? grouped : decimal];
}
