import { expect, test } from "vitest";

import { randomTree, treeOfFolded } from "./fixtures";
import { layoutOf, nodeAt, visible, type Window } from "./layout";

test("children lie side by side below their parent", () => {
  const layout = layoutOf(treeOfFolded(["a;b 2", "a;c 3", "a 1", "d 4"]));
  const names = layout.tree.names;
  const places = Object.fromEntries(
    Array.from({ length: layout.tree.count }, (_, i) => [names[layout.tree.name[i]], [layout.left[i], layout.width[i]]]),
  );
  expect(places).toEqual({ total: [0, 10], a: [0, 6], b: [0, 2], c: [2, 3], d: [6, 4] });
});

/** What a window shows, found by looking at every node. */
function shownByLooking(layout: ReturnType<typeof layoutOf>, depth: number, { start, end, pixels, least }: Window): number[] {
  const scale = pixels / (end - start);
  return [...layout.levels[depth]].filter((node) => {
    const [left, width] = [layout.left[node], layout.width[node]];
    return width * scale >= least && left < end && left + width > start;
  });
}

test("every node that is wide enough is drawn, whatever the window, and no other", () => {
  const layout = layoutOf(randomTree(30_000, 3));
  const whole = layout.width[0];
  for (const [from, to, least] of [
    [0, 1, 1],
    [0.2, 0.7, 2],
    [0.5, 0.501, 1],
    [0.9999, 1, 1.5],
  ]) {
    const window = { start: whole * from, end: whole * to, pixels: 1_000, least };
    for (let depth = 0; depth < layout.levels.length; depth++) {
      const drawn: number[] = [];
      visible(layout, depth, window, (node) => drawn.push(node), () => undefined);
      expect(drawn).toEqual(shownByLooking(layout, depth, window));
    }
  }
});

test("a frame costs by pixels, not by nodes", () => {
  const layout = layoutOf(randomTree(100_000, 5));
  const window = { start: 0, end: layout.width[0], pixels: 1_200, least: 1 };
  for (let depth = 0; depth < layout.levels.length; depth++) {
    let marks = 0;
    const count = (): void => {
      marks++;
    };
    visible(layout, depth, window, count, count);
    // A pixel has at most one mark for a crowd and the beginning of one frame.
    expect(marks).toBeLessThanOrEqual(2 * window.pixels);
  }
});

test("the node under a point is found, and none where there is none", () => {
  const layout = layoutOf(treeOfFolded(["a;b 2", "a;c 3", "d 5"]));
  const at = (depth: number, position: number): string | undefined => {
    const node = nodeAt(layout, depth, position);
    return node === undefined ? undefined : layout.tree.names[layout.tree.name[node]];
  };
  expect([at(1, 0), at(1, 4.9), at(1, 5), at(2, 1.9), at(2, 2), at(2, 5), at(3, 0), at(-1, 0)]).toEqual([
    "a",
    "a",
    "d",
    "b",
    "c",
    undefined,
    undefined,
    undefined,
  ]);
});
