// Measures what a reader waits for: from an answer's text to the first picture, and the time of a picture while zooming. Run by
// `npm run bench`, which prints it; or open it with `npx vite bench`.

import type { FlameGraph } from "../src/api/answers";
import { coloursOf, paletteOf } from "../src/flamegraph/colour";
import { randomTree } from "../src/flamegraph/fixtures";
import { layoutOf } from "../src/flamegraph/layout";
import { paint, type Scene, type Size } from "../src/flamegraph/paint";
import { functionsOf, matching } from "../src/flamegraph/transform";
import { treeOf, type Tree } from "../src/flamegraph/tree";

/** A large screen with fine pixels. */
const SIZE: Size = { width: 1600, height: 800, ratio: 2 };
/** How many pictures of a zoom are taken. */
const FRAMES = 240;
const TREES = [10_000, 100_000, 1_000_000];

/** One line of the result; times in milliseconds. */
interface Measured {
  nodes: number;
  /** The answer's text parsed, laid out, coloured, drawn for the first time. */
  first: number;
  /** The table of functions. */
  table: number;
  search: number;
  /** Of a picture while zooming: the middle one, the one that 1 in 100 is slower than, the slowest. */
  median: number;
  p99: number;
  max: number;
  rectangles: number;
}

declare global {
  interface Window {
    measured?: Measured[];
  }
}

/** Writes a tree as the server answers. */
function answerOf(tree: Tree): string {
  const nodes = Array.from({ length: tree.count }, (_, i) => ({
    name: tree.name[i],
    depth: tree.depth[i],
    total: String(tree.total[i]),
    self: String(tree.self[i]),
  }));
  return JSON.stringify({ sampleType: tree.sampleType, names: tree.names, nodes, nodesTruncated: "0" });
}

function measure(nodes: number, context: CanvasRenderingContext2D): Measured {
  const text = answerOf(randomTree(nodes, 1));
  let began = performance.now();
  const tree = treeOf(JSON.parse(text) as FlameGraph);
  const layout = layoutOf(tree);
  const scene: Scene = {
    layout,
    palette: paletteOf("light", "package"),
    colours: coloursOf(tree, "package"),
    matches: undefined,
    start: 0,
    end: layout.width[0],
    scroll: 0,
    isFlame: false,
    current: undefined,
  };
  let rectangles = paint(context, scene, SIZE);
  flush(context);
  const first = performance.now() - began;

  began = performance.now();
  functionsOf(tree);
  const table = performance.now() - began;
  began = performance.now();
  scene.matches = matching(tree, "method77");
  const search = performance.now() - began;
  scene.matches = undefined;

  const times: number[] = [];
  for (let i = 0; i < FRAMES; i++) {
    // In to a thousandth and out again, while the middle wanders.
    const width = layout.width[0] * 10 ** (-3 * Math.sin((Math.PI * i) / FRAMES));
    const middle = layout.width[0] * (0.5 + 0.4 * Math.sin(i / 17));
    scene.start = Math.min(Math.max(0, middle - width / 2), layout.width[0] - width);
    scene.end = scene.start + width;
    scene.scroll = (i * 5) % 600;
    began = performance.now();
    rectangles = Math.max(rectangles, paint(context, scene, SIZE));
    flush(context);
    times.push(performance.now() - began);
  }
  times.sort((a, b) => a - b);
  return {
    nodes,
    first,
    table,
    search,
    median: times[times.length >> 1],
    p99: times[Math.floor(times.length * 0.99)],
    max: times[times.length - 1],
    rectangles,
  };
}

/** Waits until the picture is drawn: reading a pixel back needs all of it. */
function flush(context: CanvasRenderingContext2D): void {
  context.getImageData(0, 0, 1, 1);
}

const canvas = document.getElementById("canvas") as HTMLCanvasElement;
const result = document.getElementById("result");
canvas.width = SIZE.width * SIZE.ratio;
canvas.height = SIZE.height * SIZE.ratio;
canvas.style.width = "800px";
const context = canvas.getContext("2d", { alpha: false });
if (context !== null && result !== null) {
  window.measured = TREES.map((nodes) => measure(nodes, context));
  result.textContent = JSON.stringify(window.measured, undefined, 2);
}
