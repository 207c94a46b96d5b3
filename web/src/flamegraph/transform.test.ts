import { describe, expect, test } from "vitest";

import { folded } from "../format/exports";
import { randomTree, treeOfFolded } from "./fixtures";
import { calleesOf, callersOf, collapsed, exactly, focused, functionsOf, hidden, matchedTotal, matching, testerOf } from "./transform";
import type { Tree } from "./tree";

const TREE = treeOfFolded(["main;serve;parse 3", "main;serve;render;parse 4", "main;serve 1", "main;idle 2"]);

function lines(tree: Tree): string[] {
  return folded(tree).trimEnd().split("\n").sort();
}

function mask(tree: Tree, text: string): Uint8Array {
  return matching(tree, text) ?? new Uint8Array(tree.names.length);
}

describe("search", () => {
  test("means text, an exact name, or a regular expression", () => {
    expect(testerOf("ARSE")("parse")).toBe(true);
    expect(testerOf(exactly("parse"))("parser")).toBe(false);
    expect(testerOf("/^par/")("parse")).toBe(true);
    expect(testerOf("/^ar/")("parse")).toBe(false);
    expect(testerOf("/(/")("a/(/b")).toBe(true);
  });

  test("counts a stack once", () => {
    expect(matchedTotal(TREE, mask(TREE, "parse"))).toBe(7);
    expect(matchedTotal(TREE, mask(TREE, "e"))).toBe(10);
  });
});

describe("focus, hide, collapse", () => {
  test("focus keeps the stacks with the function, whole", () => {
    expect(lines(focused(TREE, mask(TREE, "parse")))).toEqual(["main;serve;parse 3", "main;serve;render;parse 4"]);
    expect(lines(focused(TREE, mask(TREE, "serve")))).toEqual(["main;serve 1", "main;serve;parse 3", "main;serve;render;parse 4"]);
    expect(focused(TREE, mask(TREE, "nothing")).total[0]).toBe(0);
  });

  test("hide gives a frame's value to its caller and keeps the total", () => {
    const shown = hidden(TREE, mask(TREE, "serve"));
    expect(lines(shown)).toEqual(["main 1", "main;idle 2", "main;parse 3", "main;render;parse 4"]);
    expect(shown.total[0]).toBe(TREE.total[0]);
  });

  test("collapse takes recursion together and keeps the total", () => {
    const tree = treeOfFolded(["f;f;g 1", "f;h;f;g 2", "f;h 4", "g;f 8"]);
    expect(lines(collapsed(tree))).toEqual(["f;g 3", "f;h 4", "g;f 8"]);
  });

  test("both keep the total of any tree, and collapse the self value of every function", () => {
    const tree = randomTree(5_000, 11);
    const shown = collapsed(tree);
    expect(shown.total[0]).toBe(tree.total[0]);
    const self = (of: Tree): Map<string, number> => new Map(functionsOf(of).map(({ name, self }) => [name, self]));
    for (const [name, value] of self(tree)) expect(self(shown).get(name) ?? 0).toBe(value);
    expect(hidden(tree, mask(tree, "method1")).total[0]).toBe(tree.total[0]);
  });
});

describe("sandwich", () => {
  test("callees are what is below all occurrences", () => {
    expect(lines(calleesOf(TREE, "serve"))).toEqual(["parse 3", "render;parse 4"]);
    expect(calleesOf(TREE, "serve").self[0]).toBe(1);
  });

  test("callers are what leads there, upside down", () => {
    expect(lines(callersOf(TREE, "parse"))).toEqual(["render;serve;main 4", "serve;main 3"]);
  });

  test("recursion counts once", () => {
    const tree = treeOfFolded(["a;f;b;f 5", "f 2"]);
    expect(calleesOf(tree, "f").total[0]).toBe(7);
    expect(callersOf(tree, "f").total[0]).toBe(7);
    expect(functionsOf(tree).find(({ name }) => name === "f")).toMatchObject({ self: 7, total: 7 });
  });

  test("a stack of 200,000 frames is no deeper than the program's own", () => {
    const deep = treeOfFolded(["a 1"]);
    const depth = Uint32Array.from({ length: 200_000 }, (_, i) => i);
    const tree: Tree = {
      ...deep,
      count: depth.length,
      depth,
      name: Uint32Array.from(depth, (d) => (d === 0 ? 0 : 1)),
      parent: Uint32Array.from(depth, (d) => Math.max(0, d - 1)),
      end: new Uint32Array(depth.length).fill(depth.length),
      total: new Float64Array(depth.length).fill(1),
      self: Float64Array.from(depth, (d) => (d === depth.length - 1 ? 1 : 0)),
    };
    expect(lines(collapsed(tree))).toEqual(["a 1"]);
  });
});

test("a comparison is transformed on both sides", () => {
  const tree = treeOfFolded(["main;a 5 0", "main;b 1 7"], true);
  const rows = functionsOf(hidden(tree, mask(tree, "main")));
  expect(rows).toEqual([
    { name: "a", self: 0, total: 0, baseSelf: 5, baseTotal: 5 },
    { name: "b", self: 7, total: 7, baseSelf: 1, baseTotal: 1 },
  ]);
});
