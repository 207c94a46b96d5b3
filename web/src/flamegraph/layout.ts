// Where each node lies, computed once for a tree: its left edge and width in units of value, and the nodes of each level from left to
// right. Drawing at any zoom then asks `visible`, which finds the first node in view by binary search and steps over what is narrower than
// a pixel, so that a frame costs by the pixels of the canvas and not by the nodes of the tree.

import { weight, type Tree } from "./tree";

/** Positions of all nodes. */
export interface Layout {
  readonly tree: Tree;
  /** The left edge of a node, in units of value. */
  readonly left: Float64Array;
  /** The width of a node, in units of value. */
  readonly width: Float64Array;
  /** The nodes of each level, from left to right. */
  readonly levels: readonly Uint32Array[];
}

/** Lays a tree out: children side by side from their parent's left edge, in the tree's order. */
export function layoutOf(tree: Tree): Layout {
  const left = new Float64Array(tree.count);
  const width = new Float64Array(tree.count);
  const nextChildLeft = new Float64Array(tree.count);
  const sizes: number[] = [];
  for (let i = 0; i < tree.count; i++) {
    width[i] = weight(tree, i);
    if (i > 0) {
      const parent = tree.parent[i];
      left[i] = nextChildLeft[parent];
      nextChildLeft[parent] = left[i] + width[i];
    }
    nextChildLeft[i] = left[i];
    sizes[tree.depth[i]] = (sizes[tree.depth[i]] ?? 0) + 1;
  }
  const levels = sizes.map((size) => new Uint32Array(size));
  const filled = new Uint32Array(levels.length);
  for (let i = 0; i < tree.count; i++) {
    const depth = tree.depth[i];
    levels[depth][filled[depth]++] = i;
  }
  return { tree, left, width, levels };
}

/** What a canvas shows: a stretch of values, on so many pixels. */
export interface Window {
  /** The value at the left edge. */
  start: number;
  /** The value at the right edge. */
  end: number;
  /** The width of the canvas in device pixels. */
  pixels: number;
  /** How many pixels a node needs to be drawn by itself. */
  least: number;
}

/** Returns the index in a level of the first node that ends right of `position`. */
export function firstEndingAfter(layout: Layout, level: Uint32Array, position: number, from = 0): number {
  let low = from;
  let high = level.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const node = level[middle];
    if (layout.left[node] + layout.width[node] > position) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * Calls `draw` for each node of a level that is wide enough in the window, with its left edge and width in pixels, and `crowd` once for
 * each stretch of pixels in which nodes are too narrow.
 */
export function visible(
  layout: Layout,
  depth: number,
  window: Window,
  draw: (node: number, x: number, width: number) => void,
  crowd: (node: number, x: number, width: number) => void,
): void {
  const level = layout.levels[depth];
  const scale = window.pixels / (window.end - window.start);
  let i = firstEndingAfter(layout, level, window.start);
  while (i < level.length) {
    const node = level[i];
    const x = (layout.left[node] - window.start) * scale;
    if (x >= window.pixels) return;
    const width = layout.width[node] * scale;
    if (width >= window.least) {
      draw(node, x, width);
      i++;
      continue;
    }
    // One mark stands for all that end within this stretch of pixels; the next is looked for behind it.
    const pixel = Math.floor(x / window.least) * window.least;
    crowd(node, pixel, window.least);
    i = firstEndingAfter(layout, level, window.start + (pixel + window.least) / scale, i + 1);
  }
}

/** Returns the node at a depth and a value; `undefined` where there is none. */
export function nodeAt(layout: Layout, depth: number, position: number): number | undefined {
  if (depth < 0 || depth >= layout.levels.length) return undefined;
  const level = layout.levels[depth];
  const i = firstEndingAfter(layout, level, position);
  return i < level.length && layout.left[level[i]] <= position ? level[i] : undefined;
}
