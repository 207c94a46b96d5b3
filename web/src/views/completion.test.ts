import { expect, test } from "vitest";

import { completed, contextAt } from "./completion";

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
