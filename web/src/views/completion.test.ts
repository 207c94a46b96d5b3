import { expect, test } from "vitest";

import { besides, completed, contextAt } from "./completion";

/** The text with a caret `|`. */
function at(marked: string): { text: string; caret: number } {
  return { text: marked.replace("|", ""), caret: marked.indexOf("|") };
}

function complete(marked: string, word: string): string | undefined {
  const { text, caret } = at(marked);
  const context = contextAt(text, caret);
  if (context === undefined) return undefined;
  const next = completed(text, context, word);
  return `${next.text.slice(0, next.caret)}|${next.text.slice(next.caret)}`;
}

test("names are completed where a name stands", () => {
  expect(complete("|", "service")).toBe(`{service="|`);
  expect(complete("{ser|", "service")).toBe(`{service="|`);
  expect(complete(`{service="a", ver|`, "version")).toBe(`{service="a", version="|`);
});

test("values are completed where a value stands, with their quotes", () => {
  expect(complete(`{service="|`, "api")).toBe(`{service="api"|}`);
  expect(complete(`{service=|`, "api")).toBe(`{service="api"|}`);
  expect(complete(`{service="a|"}`, "api")).toBe(`{service="api"|}`);
  expect(complete(`{service=~"a|", x="y"}`, "api")).toBe(`{service=~"api"|, x="y"}`);
  expect(complete(`{a="|`, `x"y`)).toBe(`{a="x\\"y"|}`);
});

test("nothing is said where nothing can follow", () => {
  expect(contextAt(`{service="api"}`, 15)).toBeUndefined();
});

test("a value is compared as it is meant, and what is suggested goes with the other conditions", () => {
  const text = '{service="a\\"b", version="1", dc!="eu"}';
  const context = contextAt(text, text.indexOf("1") + 1);
  expect(context).toMatchObject({ is: "value", label: "version", typed: "1" });
  expect(context && besides(text, context)).toBe('{service="a\\"b", dc!="eu"}');
  const odd = contextAt('{service="it\\"', 14);
  expect(odd).toMatchObject({ is: "value", typed: 'it"' });
  expect(odd && completed('{service="it\\"', odd, 'it"s').text).toBe('{service="it\\"s"}');
  const name = contextAt('{service="a", ver', 17);
  expect(name && besides('{service="a", ver', name)).toBe('{service="a"}');
  expect(besides("{", { is: "name", typed: "", start: 1, end: 1 })).toBe("");
});
