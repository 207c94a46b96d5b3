import { expect, test } from "vitest";

import { treeOfFolded, randomTree } from "./fixtures";
import { counterpart, pathTo, treeOf, weight, type Tree } from "./tree";
import { markOf, nodeOf } from "./zoom";

test("an answer of the server becomes a tree with parents and ends", () => {
  const tree = treeOf({
    sampleType: { type: "cpu", unit: "nanoseconds" },
    names: ["total", "main", "work", "rest"],
    nodes: [
      { name: 0, depth: 0, total: "10", self: "0" },
      { name: 1, depth: 1, total: "9", self: "1" },
      { name: 2, depth: 2, total: "8", self: "8" },
      { name: 3, depth: 1, total: "1", self: "1" },
    ],
    nodesTruncated: "7",
  });
  expect([...tree.parent]).toEqual([0, 0, 1, 0]);
  expect([...tree.end]).toEqual([4, 3, 3, 4]);
  expect(tree.truncated).toBe(7);
  expect(pathTo(tree, 2).map((node) => tree.names[tree.name[node]])).toEqual(["main", "work"]);
});

test("a comparison is as wide as both sides together, so that what vanished is seen", () => {
  const tree = treeOfFolded(["a;gone 5 0", "a;new 0 7", "a;same 3 3"], true);
  expect([0, 1, 2, 3, 4].map((node) => weight(tree, node))).toEqual([18, 18, 5, 7, 6]);
});

test("a mark in a link finds the same stack in another merge", () => {
  const before = treeOfFolded(["main;a;c 1", "main;b;c 2"]);
  const after = treeOfFolded(["init 1", "main;b;d 1", "main;b;c 5", "main;a;c 1"]);
  for (const path of ["main", "main;a", "main;a;c", "main;b;c"]) {
    const names = path.split(";");
    const find = (tree: typeof before): number =>
      Array.from({ length: tree.count }, (_, node) => node).find(
        (node) => pathTo(tree, node).map((at) => tree.names[tree.name[at]]).join(";") === names.join(";"),
      ) ?? -1;
    expect(nodeOf(after, markOf(before, find(before)))).toBe(find(after));
  }
  expect(markOf(before, 0)).toBe("");
  expect(nodeOf(before, "0123456789abcdef")).toBe(0);
});

test("no two stacks of a large tree have the same mark", () => {
  const tree = randomTree(20_000, 7);
  const paths = new Set<string>();
  const marks = new Set<string>();
  for (let node = 1; node < tree.count; node++) {
    paths.add(pathTo(tree, node).map((at) => tree.name[at]).join());
    marks.add(markOf(tree, node));
  }
  expect(marks.size).toBe(paths.size);
});

test("a zoom to a frame reads none of the other names", () => {
  const tree = randomTree(10_000, 7);
  let reads = 0;
  const names = new Proxy(tree.names, {
    get: (all, key) => {
      if (typeof key === "string" && /^\d+$/.test(key)) reads++;
      return Reflect.get(all, key) as unknown;
    },
  });
  const watched = { ...tree, names };
  const node = tree.count - 1;
  const mark = markOf(watched, node);
  expect(reads).toBe(tree.depth[node]);
  expect(nodeOf(watched, mark)).toBe(node);
  expect(reads).toBe(tree.depth[node]);
  // Another's link is looked for; of equal stacks it finds the first.
  expect(markOf(tree, nodeOf({ ...tree }, mark))).toBe(mark);
});

test("a frame is found in the tree of another sample type by the names above it", () => {
  const bytes = treeOfFolded(["a;b;c 5", "a;d 1"]);
  const objects = treeOfFolded(["a;d 7", "a;b 2"]);
  const named = (tree: Tree, node: number | undefined): string | undefined => (node === undefined ? undefined : tree.names[tree.name[node]]);
  const found = Array.from({ length: bytes.count }, (_, node) => [named(bytes, node), named(objects, counterpart(objects, bytes, node))]);
  expect(found).toEqual([["total", "total"], ["a", "a"], ["b", "b"], ["c", undefined], ["d", "d"]]);
});
