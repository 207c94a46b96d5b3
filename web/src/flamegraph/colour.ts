// Colours of frames. By package: twelve hues of like lightness, told apart by light and dark text on them and never the only sign of
// anything. By difference: blue for less, orange for more, grey between; the pair that all common kinds of colour blindness keep apart
// (Okabe and Ito). Strength follows the change of the share, so that a frame that merely grew with everything stays grey.

import { packageOf } from "../format/names";
import { isDiff, type Tree } from "./tree";

export type Colouring = "package" | "function" | "diff" | "plain";

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

/** Makes the palette of a theme. */
export function paletteOf(theme: "light" | "dark", isComparison: boolean): Palette {
  const dark = theme === "dark";
  const frames = isComparison
    ? Array.from({ length: 2 * DIFF_STEPS + 1 }, (_, step) => diffColour((step - DIFF_STEPS) / DIFF_STEPS, dark))
    : HUES.map((hue) => (dark ? `hsl(${hue} 38% 34%)` : `hsl(${hue} 68% 78%)`));
  return dark
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
  if (isDiff(tree)) return diffColours(tree);
  const ofName = Uint8Array.from(tree.names, (name) => {
    if (colouring === "plain") return 0;
    return hash(colouring === "package" ? packageOf(name) : name) % HUES.length;
  });
  return Uint8Array.from(tree.name, (name) => ofName[name]);
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
