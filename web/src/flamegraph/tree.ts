// The model of a flame graph: a tree in typed arrays, depth-first, parents before children. Answers of the server, pprof files dropped on
// the page, and every transformation (focus, collapse, sandwich) make the same thing, which is never changed once made.

import { number, type FlameGraph, type SampleType } from "../api/answers";

/** Where a name comes from, as far as the profile says. */
export interface Origin {
  /** The source file, as the compiler had it; empty where unknown. */
  readonly file: string;
  /** The line on which the function starts, or the first of it that was met; 0 where unknown. */
  readonly line: number;
  /** The path of the program or library that its code was loaded from. */
  readonly mapping: string;
}

/** What is known of the names of a tree; it stays the same whatever is done to the tree. */
export type Origins = ReadonlyMap<string, Origin>;

const NO_ORIGINS: Origins = new Map();

/** A tree of stacks with values. Index 0 is the root. */
export interface Tree {
  /** How many nodes there are. */
  readonly count: number;
  /** The names that nodes refer to. */
  readonly names: readonly string[];
  /** The index into `names`. */
  readonly name: Uint32Array;
  /** How deep a node lies; the root is 0. */
  readonly depth: Uint32Array;
  /** The index of the node above; the root's is 0. */
  readonly parent: Uint32Array;
  /** The index after the last node below: `node + 1 .. end[node]` are all its descendants. */
  readonly end: Uint32Array;
  /** The value of all samples through a node. */
  readonly total: Float64Array;
  /** The value of the samples that end in a node. */
  readonly self: Float64Array;
  /** The same of the base that a comparison is against; empty when there is none. */
  readonly baseTotal: Float64Array;
  readonly baseSelf: Float64Array;
  /** What is counted. */
  readonly sampleType: SampleType;
  /** How many nodes the answer left out. */
  readonly truncated: number;
  readonly origins: Origins;
}

/** Collects nodes in depth-first order. */
export class TreeBuilder {
  readonly #names: string[] = [];
  readonly #nameIndex = new Map<string, number>();
  readonly #name: number[] = [];
  readonly #depth: number[] = [];
  readonly #values: [number[], number[], number[], number[]] = [[], [], [], []];

  /** Adds the next node. Its depth is at most one more than that of the node before. */
  add(name: string, depth: number, total: number, self: number, baseTotal = 0, baseSelf = 0): void {
    let index = this.#nameIndex.get(name);
    if (index === undefined) {
      index = this.#names.length;
      this.#nameIndex.set(name, index);
      this.#names.push(name);
    }
    this.#name.push(index);
    this.#depth.push(depth);
    this.#values[0].push(total);
    this.#values[1].push(self);
    this.#values[2].push(baseTotal);
    this.#values[3].push(baseSelf);
  }

  /** Makes the tree. `isDiff` says that the base's values mean something. */
  build(sampleType: SampleType, isDiff: boolean, truncated = 0, origins = NO_ORIGINS): Tree {
    const [total, self, baseTotal, baseSelf] = this.#values.map((values) => Float64Array.from(values));
    const none = new Float64Array(0);
    const depth = Uint32Array.from(this.#depth);
    return {
      count: depth.length,
      names: this.#names,
      name: Uint32Array.from(this.#name),
      depth,
      ...linked(depth),
      total,
      self,
      baseTotal: isDiff ? baseTotal : none,
      baseSelf: isDiff ? baseSelf : none,
      sampleType,
      truncated,
      origins,
    };
  }
}

/** Reads the tree of an answer. */
export function treeOf(graph: FlameGraph, isDiff = false): Tree {
  const count = graph.nodes.length;
  const name = new Uint32Array(count);
  const depth = new Uint32Array(count);
  const total = new Float64Array(count);
  const self = new Float64Array(count);
  const baseTotal = new Float64Array(isDiff ? count : 0);
  const baseSelf = new Float64Array(isDiff ? count : 0);
  for (let i = 0; i < count; i++) {
    const node = graph.nodes[i];
    name[i] = node.name;
    depth[i] = node.depth;
    total[i] = number(node.total);
    self[i] = number(node.self);
    if (isDiff) {
      baseTotal[i] = number(node.baseTotal);
      baseSelf[i] = number(node.baseSelf);
    }
  }
  const sampleType = graph.sampleType ?? { type: "samples", unit: "count" };
  const truncated = number(graph.nodesTruncated);
  const origins = originsOf(graph);
  return { count, names: graph.names, name, depth, ...linked(depth), total, self, baseTotal, baseSelf, sampleType, truncated, origins };
}

function originsOf({ names, origins = [] }: FlameGraph): Origins {
  return new Map(origins.map(({ file, line, mapping }, i) => [names[i], { file, line: number(line), mapping }]));
}

/** Whether a tree compares with a base. */
export function isDiff(tree: Tree): boolean {
  return tree.baseTotal.length > 0;
}

/** Returns the width of a node: what there is of it on both sides, so that what vanished is still to be seen. */
export function weight(tree: Tree, node: number): number {
  return isDiff(tree) ? tree.total[node] + tree.baseTotal[node] : tree.total[node];
}

/** Returns the nodes from below the root down to `node`. */
export function pathTo(tree: Tree, node: number): number[] {
  const path: number[] = [];
  for (let at = node; at !== 0; at = tree.parent[at]) path.push(at);
  return path.reverse();
}

/** Finds the node at the end of a path of names below the root; as far as it exists. */
export function follow(tree: Tree, path: readonly string[]): number {
  let node = 0;
  for (const name of path) {
    let child = node + 1;
    while (child < tree.end[node] && tree.names[tree.name[child]] !== name) child = tree.end[child];
    if (child >= tree.end[node]) break;
    node = child;
  }
  return node;
}

/** Finds the node that a node of another tree is: the one below the same names. The roots are each other's, whatever they are called. */
export function counterpart(tree: Tree, of: Tree, node: number): number | undefined {
  const path = pathTo(of, node).map((at) => of.names[of.name[at]]);
  const found = follow(tree, path);
  return tree.depth[found] === path.length ? found : undefined;
}

/** Derives parents and ends of subtrees from the depths of nodes in depth-first order. */
function linked(depth: Uint32Array): { parent: Uint32Array; end: Uint32Array } {
  const count = depth.length;
  const parent = new Uint32Array(count);
  const end = new Uint32Array(count);
  const open: number[] = [];
  for (let i = 0; i < count; i++) {
    while (open.length > depth[i]) end[open.pop() ?? 0] = i;
    parent[i] = open.length === 0 ? 0 : open[open.length - 1];
    open.push(i);
  }
  for (const node of open) end[node] = count;
  return { parent, end };
}
