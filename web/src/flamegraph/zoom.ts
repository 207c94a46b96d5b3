// How a link names the frame that the graph is zoomed to: a digest of the names from the root down to it. It is short whatever the depth,
// and finds the same stack in a newer merge, where indices differ.

import type { Tree } from "./tree";

const OFFSET = 0x811c9dc5;
const PRIME = 0x01000193;
/** A second start, so that two digests of 32 bits make one of 64. */
const OFFSET_OTHER = 0x9e3779b9;

/** Returns what a link says for a node; empty for the root. */
export function markOf(tree: Tree, node: number): string {
  if (node === 0) return "";
  const path: number[] = [];
  for (let at = node; at !== 0; at = tree.parent[at]) path.push(at);
  let a = OFFSET;
  let b = OFFSET_OTHER;
  for (const at of path.reverse()) {
    const name = tree.names[tree.name[at]];
    a = extended(a, name);
    b = extended(b, name);
  }
  const mark = written(a, b);
  // It is asked for next, at the very zoom that wrote it.
  lastFound.set(tree, { mark, node });
  return mark;
}

/** Of each tree the mark that was met last with its node: a zoom must not read all names of a large tree. */
const lastFound = new WeakMap<Tree, { mark: string; node: number }>();

/** Finds the node of a mark; the root when there is none. */
export function nodeOf(tree: Tree, mark: string): number {
  if (mark === "") return 0;
  const last = lastFound.get(tree);
  if (last?.mark === mark) return last.node;
  const node = sought(tree, mark);
  lastFound.set(tree, { mark, node });
  return node;
}

function sought(tree: Tree, mark: string): number {
  const [wantedA, wantedB] = [Number.parseInt(mark.slice(0, 8), 16), Number.parseInt(mark.slice(8), 16)];
  const a = new Uint32Array(tree.count);
  const b = new Uint32Array(tree.count);
  a[0] = OFFSET;
  b[0] = OFFSET_OTHER;
  for (let i = 1; i < tree.count; i++) {
    const name = tree.names[tree.name[i]];
    a[i] = extended(a[tree.parent[i]], name);
    b[i] = extended(b[tree.parent[i]], name);
    if (a[i] === wantedA && b[i] === wantedB) return i;
  }
  return 0;
}

function extended(digest: number, name: string): number {
  // The length keeps `ab`, `c` apart from `a`, `bc`.
  let h = Math.imul(digest ^ name.length, PRIME);
  for (let i = 0; i < name.length; i++) h = Math.imul(h ^ name.charCodeAt(i), PRIME);
  return h >>> 0;
}

function written(a: number, b: number): string {
  return a.toString(16).padStart(8, "0") + b.toString(16).padStart(8, "0");
}
