// Colours are told apart by everybody, and text on them is read: checked with simulated kinds of colour blindness (Machado, Oliveira and
// Fernandes 2009, severity 1) and the contrast of WCAG 2.

import { expect, test } from "vitest";

import { KINDS } from "../format/kinds";
import { colouringOf, coloursOf, kindTotals, KIND_COLOURS, paletteOf } from "./colour";
import { treeOfFolded } from "./fixtures";

type Rgb = [number, number, number];

/** How eyes see linear light. */
const EYES: Record<string, number[][]> = {
  usual: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protanopia: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  deuteranopia: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  tritanopia: [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
};
/** A difference in CIE Lab that is seen at a glance, between areas that do not touch; 2.3 is just noticeable. */
const APART = 20;

function linear(colour: string): Rgb {
  const byte = (at: number): number => Number.parseInt(colour.slice(at, at + 2), 16) / 255;
  return [1, 3, 5].map(byte).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)) as Rgb;
}

function seen(colour: string, eyes: string): Rgb {
  const light = linear(colour);
  return EYES[eyes].map((row) => Math.min(1, Math.max(0, row.reduce((sum, k, i) => sum + k * light[i], 0)))) as Rgb;
}

function lab([r, g, b]: Rgb): Rgb {
  const f = (t: number): number => (t > 216 / 24389 ? Math.cbrt(t) : (t * 24389) / 27 / 116 + 16 / 116);
  const x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505);
  const y = f(0.2126 * r + 0.7152 * g + 0.0722 * b);
  const z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089);
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

function distance(a: string, b: string, eyes: string): number {
  const [x, y] = [lab(seen(a, eyes)), lab(seen(b, eyes))];
  return Math.hypot(x[0] - y[0], x[1] - y[1], x[2] - y[2]);
}

function contrast(a: string, b: string): number {
  const light = ([r, g, bl]: Rgb): number => 0.2126 * r + 0.7152 * g + 0.0722 * bl + 0.05;
  const [x, y] = [light(linear(a)), light(linear(b))];
  return Math.max(x, y) / Math.min(x, y);
}

test.each(["light", "dark"] as const)("kinds of code are told apart by all eyes, and names on them are read (%s)", (theme) => {
  const colours = KINDS.map((kind) => KIND_COLOURS[theme][kind]);
  const { text } = paletteOf(theme, "type");
  for (const eyes of Object.keys(EYES)) {
    for (const [i, a] of colours.entries()) {
      for (const b of colours.slice(i + 1)) expect(distance(a, b, eyes), `${eyes}: ${a} and ${b}`).toBeGreaterThan(APART);
    }
  }
  for (const colour of colours) expect(contrast(colour, text), colour).toBeGreaterThan(4.5);
});

test("a frame has the colour of its kind, and the legend its share", () => {
  const tree = treeOfFolded(["main.main;runtime.mallocgc 3", "main.main 5", "0x1 2"]);
  const colours = coloursOf(tree, "type");
  const kinds = Object.fromEntries(Array.from(colours, (colour, i) => [tree.names[tree.name[i]], KINDS[colour]]));
  expect(kinds).toEqual({ total: "unknown", "main.main": "own", "runtime.mallocgc": "runtime", "0x1": "unknown" });
  expect(kindTotals(tree)).toEqual([5, 0, 3, 0, 2]);
});

test("what a link says is a colouring, or the usual one", () => {
  const [plain, diff] = [treeOfFolded(["a 1"]), treeOfFolded(["a 1 2"], true)];
  expect([null, "", "type", "x", "diff"].map((text) => colouringOf(text, plain))).toEqual(["package", "package", "type", "package", "package"]);
  expect([null, "type", "package"].map((text) => colouringOf(text, diff))).toEqual(["diff", "type", "package"]);
});
