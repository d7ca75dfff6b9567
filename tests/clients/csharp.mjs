// What a C# program says to a hub, by a grammar of C#: node csharp.mjs Program.cs, beside the packages of test_csharp.py.
import { readFileSync } from "node:fs";
import { Language, Parser } from "web-tree-sitter";

await Parser.init();
const parser = new Parser();
parser.setLanguage(await Language.load("node_modules/tree-sitter-c-sharp/tree-sitter-c_sharp.wasm"));
const { rootNode } = parser.parse(readFileSync(process.argv[2], "utf8"));

const calls = [];
for (const call of rootNode.descendantsOfType("invocation_expression")) {
	const name = /(\w+)(<[^(]*>)?$/.exec(call.childForFieldName("function").text)?.[1];
	const [first, second] = call.childForFieldName("arguments").namedChildren;
	const [made] = second?.descendantsOfType("anonymous_object_creation_expression") ?? [];
	const text = first?.descendantsOfType("string_literal")[0]?.text;
	calls.push({ name, first: text && JSON.parse(text), members: (made?.namedChildren ?? []).map((each) => each.text) });
}
const words = rootNode.descendantsOfType("string_literal").map((each) => each.text);
console.log(JSON.stringify({ hasError: rootNode.hasError, calls, words }));
