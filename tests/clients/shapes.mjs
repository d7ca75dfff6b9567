// What the types of a declaration file are made of: node shapes.mjs fanfare.d.ts, beside an installed TypeScript. The form is that of
// `shape` in test_types.py.
import ts from "typescript";

const program = ts.createProgram([process.argv[2]], { strict: true, target: ts.ScriptTarget.ES2022 });
const checker = program.getTypeChecker();
const source = program.getSourceFile(process.argv[2]);

function merged(into, more) {
	for (const [key, value] of Object.entries(more)) {
		if (key === "words") into.words = [...new Set([...(into.words ?? []), ...value])].sort();
		else if (key === "list") into.list = merged(into.list ?? {}, value);
		else if (key === "members" && into.members) {
			for (const name of new Set([...Object.keys(into.members), ...Object.keys(value)])) {
				const [one, other] = [into.members[name], value[name]];
				into.members[name] = one && other ? [one[0] || other[0], merged(one[1], other[1])] : [true, (one ?? other)[1]];
			}
		} else into[key] = value;
	}
	return into;
}

function shape(type) {
	if (type.isUnion()) return type.types.map(shape).reduce(merged, {});
	if (type.isStringLiteral()) return { words: [type.value] };
	const { flags } = type;
	if (flags & ts.TypeFlags.Undefined) return {};
	if (flags & ts.TypeFlags.Null) return { null: true };
	if (flags & ts.TypeFlags.StringLike) return { string: true };
	if (flags & ts.TypeFlags.NumberLike) return { number: true };
	if (flags & ts.TypeFlags.BooleanLike) return { boolean: true };
	if (flags & (ts.TypeFlags.Any | ts.TypeFlags.Unknown)) return { any: true };
	if (checker.isArrayType(type)) return { list: shape(checker.getTypeArguments(type)[0]) };
	const members = {};
	for (const member of type.getProperties()) {
		const isOptional = Boolean(member.flags & ts.SymbolFlags.Optional);
		members[member.name] = [isOptional, shape(checker.getTypeOfSymbolAtLocation(member, source))];
	}
	return { members };
}

const found = {};
for (const symbol of checker.getExportsOfModule(checker.getSymbolAtLocation(source))) {
	const isType = symbol.flags & (ts.SymbolFlags.Interface | ts.SymbolFlags.TypeAlias);
	if (isType && !["Events", "Message", "ConnectOptions"].includes(symbol.name)) found[symbol.name] = shape(checker.getDeclaredTypeOfSymbol(symbol));
}
console.log(JSON.stringify(found));
