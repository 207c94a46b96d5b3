// A tree as files of other tools: folded stacks (flamegraph.pl), speedscope's JSON, and a picture in SVG that opens anywhere.

import { colouringOf, coloursOf, paletteOf } from "../flamegraph/colour";
import { layoutOf } from "../flamegraph/layout";
import { fitted } from "../flamegraph/paint";
import { isDiff, type Tree } from "../flamegraph/tree";
import { percent, value } from "./values";

/** Writes `root;child;leaf value`, a line a stack; of a comparison `… before after`, as difffolded.pl does. */
export function folded(tree: Tree): string {
  const lines: string[] = [];
  const stack: string[] = [];
  for (let i = 1; i < tree.count; i++) {
    stack.length = tree.depth[i] - 1;
    // Semicolons and line ends would make two frames, or two stacks, of one.
    stack.push(tree.names[tree.name[i]].replaceAll(/[;\n\r]/g, "_"));
    const before = isDiff(tree) ? tree.baseSelf[i] : 0;
    if (tree.self[i] === 0 && before === 0) continue;
    lines.push(`${stack.join(";")} ${isDiff(tree) ? `${before} ` : ""}${tree.self[i]}`);
  }
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

const SPEEDSCOPE_UNITS: Record<string, string> = {
  nanoseconds: "nanoseconds",
  microseconds: "microseconds",
  milliseconds: "milliseconds",
  seconds: "seconds",
  bytes: "bytes",
};

/** Writes speedscope's file format (a `sampled` profile). */
export function speedscope(tree: Tree, name: string): string {
  const samples: number[][] = [];
  const weights: number[] = [];
  const stack: number[] = [];
  for (let i = 1; i < tree.count; i++) {
    stack.length = tree.depth[i] - 1;
    stack.push(tree.name[i]);
    if (tree.self[i] === 0) continue;
    samples.push([...stack]);
    weights.push(tree.self[i]);
  }
  const { unit } = tree.sampleType;
  return JSON.stringify({
    $schema: "https://www.speedscope.app/file-format-schema.json",
    exporter: "afterglow",
    name,
    activeProfileIndex: 0,
    shared: { frames: tree.names.map((name) => ({ name })) },
    profiles: [
      { type: "sampled", name, unit: SPEEDSCOPE_UNITS[unit] ?? "none", startValue: 0, endValue: tree.total[0], samples, weights },
    ],
  });
}

const SVG_WIDTH = 1200;
const SVG_ROW = 17;
/** Frames narrower than this many pixels of the picture are left out. */
const SVG_FRAME_MIN = 0.3;
/** The width of a character of the picture's font. */
const SVG_CHARACTER = 6.6;
const SVG_HEAD = 26;

/** Draws a tree as SVG, root on top; every frame says its value in its title. */
export function svg(tree: Tree, title: string): string {
  const layout = layoutOf(tree);
  const colouring = colouringOf(null, tree);
  const colours = coloursOf(tree, colouring);
  const palette = paletteOf("light", colouring);
  const scale = SVG_WIDTH / layout.width[0];
  const height = SVG_HEAD + layout.levels.length * SVG_ROW;
  const frames: string[] = [];
  for (let i = 0; i < tree.count; i++) {
    const width = layout.width[i] * scale;
    if (!(width >= SVG_FRAME_MIN)) continue;
    const x = layout.left[i] * scale;
    const y = SVG_HEAD + tree.depth[i] * SVG_ROW;
    const name = tree.names[tree.name[i]];
    const says = `${name}: ${value(tree.total[i], tree.sampleType.unit)}, ${percent(tree.total[i] / tree.total[0])}`;
    const room = Math.floor((width - 6) / SVG_CHARACTER);
    const label = room < 3 ? "" : `<text x="${(x + 3).toFixed(1)}" y="${y + 12}">${escaped(fitted(name, room))}</text>`;
    const box = `<rect x="${x.toFixed(1)}" y="${y}" width="${Math.max(0.3, width - 0.5).toFixed(1)}" height="${SVG_ROW - 1}"`;
    frames.push(`<g><title>${escaped(says)}</title>${box} fill="${palette.frames[colours[i]]}"/>${label}</g>`);
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${SVG_WIDTH} ${height}" width="${SVG_WIDTH}" height="${height}"`,
    ` font-family="monospace" font-size="11">`,
    `<rect width="100%" height="100%" fill="#ffffff"/><text x="4" y="17" font-size="13">${escaped(title)}</text>`,
    ...frames,
    `</svg>\n`,
  ].join("\n");
}

/** Makes a text harmless in XML; characters that XML does not have are replaced. */
export function escaped(text: string): string {
  return (
    text
      // eslint-disable-next-line no-control-regex
      .replaceAll(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd")
      .replaceAll("&", "&amp;")
      .replaceAll("<", "&lt;")
      .replaceAll(">", "&gt;")
      .replaceAll('"', "&quot;")
      .replaceAll("'", "&#39;")
  );
}
