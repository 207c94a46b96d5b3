// What `npm run bench` asks of a page: trees of a size opened, and frames while zooming in them. run.mjs asks in turn, so that whatever else
// the machine does falls on all alike, and puts the figures together; the page only draws. Open it with `npx vite bench` and call
// `bench.frames(100_000, 600)` to look at it.

import type { FlameGraph } from "../src/api/answers";
import { coloursOf, paletteOf } from "../src/flamegraph/colour";
import { layoutOf } from "../src/flamegraph/layout";
import { paint, type Scene, type Size } from "../src/flamegraph/paint";
import { functionsOf, matching } from "../src/flamegraph/transform";
import { treeOf, type Tree } from "../src/flamegraph/tree";
import { serviceTree } from "./trees";

/** A large screen with fine pixels. */
const SIZE: Size = { width: 1600, height: 800, ratio: 2 };
/** How many frames a zoom in and out again has. */
const ZOOM_FRAMES = 120;

/** What a tree took until it was there; times in milliseconds. */
interface Opened {
  nodes: number;
  /** The answer's text parsed, laid out, coloured, drawn for the first time. */
  first: number;
  /** The table of functions. */
  table: number;
  search: number;
}

/** What frames were like. */
interface Frames {
  /** From one callback of the browser to the next, in milliseconds. */
  intervals: number[];
  /** Rectangles of the fullest picture. */
  rectangles: number;
}

interface Bench {
  open: (nodes: number) => Opened;
  /** Frames of a tree that is open; 0 nodes: nothing is drawn; -1: one colour is. */
  frames: (nodes: number, count: number) => Promise<Frames>;
}

declare global {
  interface Window {
    bench: Bench;
  }
}

const canvas = document.getElementById("canvas") as HTMLCanvasElement;
canvas.width = SIZE.width * SIZE.ratio;
canvas.height = SIZE.height * SIZE.ratio;
canvas.style.width = "800px";
const context = canvas.getContext("2d", { alpha: false });
if (context === null) throw new Error("there is no canvas to draw on");
const scenes = new Map<number, { scene: Scene; frame: number }>();

/** Writes a tree as the server answers. */
function answerOf(tree: Tree): string {
  const nodes = Array.from({ length: tree.count }, (_, i) => ({
    name: tree.name[i],
    depth: tree.depth[i],
    total: String(tree.total[i]),
    self: String(tree.self[i]),
    baseTotal: "0",
    baseSelf: "0",
  }));
  const origins = tree.names.map((name) => ({ file: `/build/src/${name.slice(0, 24)}.go`, line: "17", mapping: "/usr/bin/app" }));
  return JSON.stringify({ sampleType: tree.sampleType, names: tree.names, nodes, nodesTruncated: "0", origins });
}

function open(nodes: number): Opened {
  const text = answerOf(serviceTree(nodes, 1));
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
  paint(context as CanvasRenderingContext2D, scene, SIZE);
  const first = performance.now() - began;
  began = performance.now();
  functionsOf(tree);
  const table = performance.now() - began;
  began = performance.now();
  matching(tree, "method77");
  const search = performance.now() - began;
  scenes.set(nodes, { scene, frame: 0 });
  return { nodes: tree.count, first, table, search };
}

/** Moves the window of a picture: in to a hundredth and out again, while the middle wanders and the levels scroll. */
function move(scene: Scene, frame: number): void {
  const whole = scene.layout.width[0];
  const width = whole * 10 ** (-2 * Math.abs(Math.sin((Math.PI * frame) / ZOOM_FRAMES)));
  const middle = whole * (0.5 + 0.4 * Math.sin(frame / 17));
  scene.start = Math.min(Math.max(0, middle - width / 2), whole - width);
  scene.end = scene.start + width;
  scene.scroll = (frame * 5) % 600;
}

async function frames(nodes: number, count: number): Promise<Frames> {
  const drawing = context as CanvasRenderingContext2D;
  const shown = scenes.get(nodes);
  let rectangles = 0;
  const intervals: number[] = [];
  let last = 0;
  for (let i = 0; i <= count; i++) {
    const now = await new Promise<number>((resolve) => requestAnimationFrame(resolve));
    if (i > 0) intervals.push(now - last);
    last = now;
    if (nodes < 0) {
      // What the browser needs to show a picture of this size, whatever is in it.
      drawing.fillStyle = i % 2 === 0 ? "#ffffff" : "#fffffe";
      drawing.fillRect(0, 0, canvas.width, canvas.height);
    } else if (shown !== undefined) {
      move(shown.scene, shown.frame++);
      rectangles = Math.max(rectangles, paint(drawing, shown.scene, SIZE));
    }
  }
  return { intervals, rectangles };
}

window.bench = { open, frames };
