import { expect, test } from "vitest";

import { demanded, matchersOf, narrowed, parametersOf, queryOf, selectionOf } from "./selection";

test("a selector is read and written", () => {
  const query = `{service="api", dc=~"eu-.*", version!="1.4", note="a \\"b\\", \\\\ c"}`;
  const matchers = matchersOf(query) ?? [];
  expect(matchers.map(({ name, operator }) => name + operator)).toEqual(["service=", "dc=~", "version!=", "note="]);
  expect(matchers[3].value).toBe(`a "b", \\ c`);
  expect(queryOf(matchers)).toBe(query);
  expect(matchersOf(`{service="api"`)).toBeUndefined();
  expect(matchersOf(`{service=api}`)).toBeUndefined();
  expect(matchersOf("")).toEqual([]);
});

test("narrowing replaces what was demanded of the label", () => {
  expect(narrowed(`{service="a"}`, "version", "2")).toBe(`{service="a", version="2"}`);
  expect(narrowed(`{service="a", version="1"}`, "version", "2")).toBe(`{service="a", version="2"}`);
  expect(narrowed("", "service", `x"y`)).toBe(`{service="x\\"y"}`);
  expect(demanded(`{version="1"}`, "version")).toBe("1");
});

test("picked profiles are asked for alone", () => {
  const selection = selectionOf(new URLSearchParams("query={}&type=cpu&ids=A,B&start=-1h"));
  expect(parametersOf(selection)).toEqual({ ids: "A,B", type: "cpu" });
  expect(parametersOf({ ...selection, ids: [], start: "" })).toMatchObject({ start: "-1h", query: "{}" });
});
