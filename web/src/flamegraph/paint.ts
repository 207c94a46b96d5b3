// Draws a layout on a canvas: one pass over the levels in view, with the names that have room. Nothing is measured while drawing: the font is
// monospaced, so a name's width is its length, and what is left of a name without its folders is worked out once. A picture costs by its
// rectangles, of which there are at most a few thousand whatever the tree: the colour is set where it changes, as a browser reads it anew
// each time, and frames are placed on whole pixels, which need no blending.

import { shortName } from "../format/names";
import type { Palette } from "./colour";
import { visible, type Layout, type Window } from "./layout";

/** The height of a frame in CSS pixels. */
export const ROW = 18;
/** The font of names in CSS pixels, and the width of its characters. */
export const FONT = 11;
const FONT_FAMILY = '"DejaVu Sans Mono", ui-monospace, SFMono-Regular, Menlo, Consolas, monospace';
/** Below this many characters a name says nothing. */
const CHARACTERS_MIN = 3;
/** The space left and right of a name. */
const PADDING = 4;

/** What is to be drawn. */
export interface Scene {
  layout: Layout;
  palette: Palette;
  /** The palette's colour of each node. */
  colours: Uint8Array;
  /** Which names a search matches; all when missing. */
  matches: Uint8Array | undefined;
  /** The stretch of values in view. */
  start: number;
  end: number;
  /** How far the canvas is scrolled down, in CSS pixels. */
  scroll: number;
  /** Whether the root is at the bottom. */
  isFlame: boolean;
  /** The node under the pointer or the keyboard. */
  current: number | undefined;
}

/** The size of a canvas. */
export interface Size {
  /** In CSS pixels. */
  width: number;
  height: number;
  /** Device pixels a CSS pixel. */
  ratio: number;
}

/** Returns the height of all levels together in CSS pixels. */
export function contentHeight(layout: Layout): number {
  return layout.levels.length * ROW;
}

/** Returns the y of a level in CSS pixels, on a canvas of a height. */
export function rowY(scene: Scene, height: number, depth: number): number {
  const bottom = Math.max(height, contentHeight(scene.layout));
  return (scene.isFlame ? bottom - (depth + 1) * ROW : depth * ROW) - scene.scroll;
}

/** Returns the level at a y of a canvas of a height. */
export function depthAt(scene: Scene, height: number, y: number): number {
  const bottom = Math.max(height, contentHeight(scene.layout));
  const fromTop = y + scene.scroll;
  return Math.floor((scene.isFlame ? bottom - fromTop : fromTop) / ROW);
}

/** Draws a frame of the scene. Returns how many rectangles it took. */
export function paint(context: CanvasRenderingContext2D, scene: Scene, size: Size): number {
  const { layout, palette, colours, matches } = scene;
  const { ratio } = size;
  const tree = layout.tree;
  const pixels = Math.max(1, Math.round(size.width * ratio));
  const window: Window = { start: scene.start, end: scene.end, pixels, least: Math.max(1, ratio) };
  const row = ROW * ratio;
  const font = FONT * ratio;
  const short = shortNames(tree.names);
  let rectangles = 0;
  let style = "";
  const fill = (colour: string, x: number, y: number, width: number, height: number): void => {
    if (colour !== style) {
      style = colour;
      context.fillStyle = colour;
    }
    context.fillRect(x, y, width, height);
  };

  context.setTransform(1, 0, 0, 1, 0, 0);
  fill(palette.background, 0, 0, window.pixels, size.height * ratio);
  context.font = `${font}px ${FONT_FAMILY}`;
  context.textBaseline = "middle";
  const character = characterWidth(context, font);
  const gap = Math.max(1, Math.round(ratio));

  const from = Math.max(0, depthAt(scene, size.height, scene.isFlame ? size.height : 0));
  const to = Math.min(layout.levels.length - 1, depthAt(scene, size.height, scene.isFlame ? 0 : size.height));
  for (let depth = from; depth <= to; depth++) {
    const y = Math.round(rowY(scene, size.height, depth) * ratio);
    // Neighbouring marks of crowds become one rectangle.
    let crowd = { from: 0, to: 0, colour: palette.faint };
    const endCrowd = (): void => {
      if (crowd.to === crowd.from) return;
      rectangles++;
      fill(crowd.colour, crowd.from, y, crowd.to - crowd.from, row - gap);
    };
    visible(
      layout,
      depth,
      window,
      (node, x, width) => {
        rectangles++;
        const left = Math.max(0, Math.round(x));
        const shown = Math.min(window.pixels, Math.round(x + width)) - left;
        const name = tree.name[node];
        const isMatch = matches === undefined || matches[name] === 1;
        const colour = !isMatch ? palette.faint : matches === undefined ? palette.frames[colours[node]] : palette.match;
        // A frame of two pixels has no room for a gap.
        fill(colour, left, y, shown > 3 * gap ? shown - gap : shown, row - gap);
        const room = Math.floor((shown - 2 * PADDING * ratio) / character);
        if (room >= CHARACTERS_MIN) {
          style = !isMatch ? palette.faintText : matches === undefined ? palette.text : palette.matchText;
          context.fillStyle = style;
          context.fillText(cut(tree.names[name], short, name, room), left + PADDING * ratio, y + row / 2);
        }
        if (node === scene.current) {
          context.strokeStyle = palette.outline;
          context.lineWidth = 2 * ratio;
          context.strokeRect(left + ratio, y + ratio, Math.max(1, shown - 2 * ratio - gap), row - 2 * ratio - gap);
        }
      },
      (node, x, width) => {
        const colour = matches !== undefined && matches[tree.name[node]] === 1 ? palette.match : palette.faint;
        if (x > crowd.to || colour !== crowd.colour) {
          endCrowd();
          crowd = { from: x, to: x, colour };
        }
        crowd.to = x + width;
      },
    );
    endCrowd();
  }
  return rectangles;
}

/** Cuts a name to so many characters: first the folders of its package go, then its end. */
export function fitted(name: string, room: number): string {
  return name.length <= room ? name : ended(shortName(name), room);
}

function ended(short: string, room: number): string {
  return short.length <= room ? short : `${short.slice(0, room - 1)}…`;
}

/** As `fitted`, with names that were shortened before. */
function cut(name: string, short: (string | undefined)[], index: number, room: number): string {
  if (name.length <= room) return name;
  const known = (short[index] ??= shortName(name));
  return ended(known, room);
}

/** What is left of each name of a list without its folders, as far as it was needed. */
const shortened = new WeakMap<readonly string[], (string | undefined)[]>();

function shortNames(names: readonly string[]): (string | undefined)[] {
  let short = shortened.get(names);
  if (short === undefined) shortened.set(names, (short = []));
  return short;
}

let measured = { font: 0, width: 0 };

function characterWidth(context: CanvasRenderingContext2D, font: number): number {
  if (measured.font !== font) measured = { font, width: context.measureText("M".repeat(32)).width / 32 };
  return measured.width;
}
