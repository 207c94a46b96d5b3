// Colours of frames. By package: twelve hues of like lightness, told apart by light and dark text on them and never the only sign of
// anything. By type: own code, library, runtime and kernel in hues of Okabe and Ito, made so that they also differ in lightness. By
// difference: blue for less, orange for more, grey between; the pair that all common kinds of colour blindness keep apart (Okabe and Ito).
// Strength follows the change of the share, so that a frame that merely grew with everything stays grey.

import { KINDS, kindOf, type Kind } from "../format/kinds";
import { packageOf } from "../format/names";
import { isDiff, type Tree } from "./tree";

/** By what frames are coloured; `diff` only in a comparison. */
export type Colouring = "package" | "type" | "function" | "diff" | "plain";

const COLOURINGS: readonly string[] = ["package", "type", "function", "plain"] satisfies Colouring[];

/** What a canvas needs to draw in: resolved colours, as canvases know no variables. */
export interface Palette {
  /** Backgrounds of frames; `Colours.index` points into it. */
  readonly frames: readonly string[];
  readonly text: string;
  readonly background: string;
  /** Frames that a search does not match. */
  readonly faint: string;
  readonly faintText: string;
  /** Frames that a search matches. */
  readonly match: string;
  readonly matchText: string;
  /** The outline of the frame in hand. */
  readonly outline: string;
}

/** The hues of packages, in degrees; neighbours in the list are far apart on the wheel. */
const HUES = [28, 205, 95, 330, 55, 255, 160, 5, 185, 300, 75, 230];
/** Steps of a difference to either side of grey. */
const DIFF_STEPS = 8;
/** The change of a share that has the full colour: a quarter more, or a quarter less, of the whole profile. */
const DIFF_FULL = 0.25;

/** The colours of kinds, searched for the largest distance between any two for all kinds of eyes; colour.test.ts says how far apart. */
export const KIND_COLOURS: Record<"light" | "dark", Record<Kind, string>> = {
  light: { own: "#ed892d", library: "#a3c6ee", runtime: "#40c885", kernel: "#ba6f9c", unknown: "#eaeaeb" },
  dark: { own: "#94450d", library: "#2445a6", runtime: "#2a7755", kernel: "#7b2d76", unknown: "#323539" },
};

/** Reads the colouring of a link: what is no colouring, or is missing, is the one that the tree begins with. */
export function colouringOf(text: string | null, tree: Tree): Colouring {
  if (text !== null && COLOURINGS.includes(text)) return text as Colouring;
  return isDiff(tree) ? "diff" : "package";
}

function framesOf(theme: "light" | "dark", colouring: Colouring): string[] {
  const dark = theme === "dark";
  if (colouring === "type") return KINDS.map((kind) => KIND_COLOURS[theme][kind]);
  if (colouring === "diff") return Array.from({ length: 2 * DIFF_STEPS + 1 }, (_, step) => diffColour((step - DIFF_STEPS) / DIFF_STEPS, dark));
  return HUES.map((hue) => (dark ? `hsl(${hue} 38% 34%)` : `hsl(${hue} 68% 78%)`));
}

/** Makes the palette of a theme. */
export function paletteOf(theme: "light" | "dark", colouring: Colouring): Palette {
  const frames = framesOf(theme, colouring);
  return theme === "dark"
    ? {
        frames,
        text: "#f2efe9",
        background: "#16181d",
        faint: "#2a2d34",
        faintText: "#9aa0aa",
        match: "#e6b422",
        matchText: "#16181d",
        outline: "#ffffff",
      }
    : {
        frames,
        text: "#1b1d22",
        background: "#ffffff",
        faint: "#eceef1",
        faintText: "#5c626d",
        match: "#ffd54a",
        matchText: "#1b1d22",
        outline: "#1b1d22",
      };
}

/** Mixes from grey to blue (less, -1) or orange (more, 1). */
export function diffColour(strength: number, dark: boolean): string {
  const grey = dark ? [58, 62, 70] : [226, 228, 232];
  const less = dark ? [28, 110, 190] : [110, 175, 230];
  const more = dark ? [190, 85, 10] : [245, 145, 60];
  const full = strength < 0 ? less : more;
  const share = Math.abs(strength);
  const [r, g, b] = grey.map((from, i) => Math.round(from + (full[i] - from) * share));
  return `rgb(${r} ${g} ${b})`;
}

/** Chooses a colour of the palette for each node. */
export function coloursOf(tree: Tree, colouring: Colouring): Uint8Array {
  if (colouring === "diff") return diffColours(tree);
  const ofName = Uint8Array.from(tree.names, (name) => {
    if (colouring === "plain") return 0;
    if (colouring === "type") return KINDS.indexOf(kindOf(name, tree.origins.get(name)));
    return hash(colouring === "package" ? packageOf(name) : name) % HUES.length;
  });
  const colours = Uint8Array.from(tree.name, (name) => ofName[name]);
  // The root of all stacks is no code; that of a sandwich is a function.
  if (colouring === "type" && isRootOfAll(tree)) colours[0] = KINDS.indexOf("unknown");
  return colours;
}

function isRootOfAll(tree: Tree): boolean {
  const origin = tree.origins.get(tree.names[tree.name[0]]);
  return origin === undefined || (origin.file === "" && origin.mapping === "");
}

/** Sums the self values of a tree by the kind of code, in the order of `KINDS`. */
export function kindTotals(tree: Tree): number[] {
  const kinds = coloursOf(tree, "type");
  const totals = KINDS.map(() => 0);
  // The root is no code.
  for (let i = 1; i < tree.count; i++) totals[kinds[i]] += tree.self[i];
  return totals;
}

/** Returns by how much a node's share of its side changed: 0.1 means from 5 % to 15 %. */
export function shareChange(tree: Tree, node: number): number {
  const share = (value: number, whole: number): number => (whole === 0 ? 0 : value / whole);
  return share(tree.total[node], tree.total[0]) - share(tree.baseTotal[node], tree.baseTotal[0]);
}

function diffColours(tree: Tree): Uint8Array {
  const colours = new Uint8Array(tree.count);
  for (let i = 0; i < tree.count; i++) {
    const change = shareChange(tree, i);
    // The square root shows small changes too.
    const strength = Math.sign(change) * Math.sqrt(Math.min(1, Math.abs(change) / DIFF_FULL));
    colours[i] = DIFF_STEPS + Math.round(strength * DIFF_STEPS);
  }
  return colours;
}

/** FNV-1a: the same name has the same colour on every page and every day. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}
