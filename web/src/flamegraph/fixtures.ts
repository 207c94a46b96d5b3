// Trees for tests: from lines of folded stacks, and random ones from a seed.

import { TreeBuilder, type Tree } from "./tree";

interface Node {
  children: Map<string, Node>;
  self: [number, number];
  total: [number, number];
}

function node(): Node {
  return { children: new Map(), self: [0, 0], total: [0, 0] };
}

/** Makes a tree of `root;leaf value` lines, or of `root;leaf before after` as a comparison. */
export function treeOfFolded(lines: string[], isDiff = false): Tree {
  const root = node();
  for (const line of lines) {
    const words = line.split(" ");
    const amounts = words.slice(1).map(Number);
    const values: [number, number] = isDiff ? [amounts[1], amounts[0]] : [amounts[0], 0];
    let at = root;
    const add = (to: [number, number]): void => {
      to[0] += values[0];
      to[1] += values[1];
    };
    add(at.total);
    for (const name of words[0].split(";")) {
      const next = at.children.get(name) ?? node();
      at.children.set(name, next);
      at = next;
      add(at.total);
    }
    add(at.self);
  }
  const builder = new TreeBuilder();
  const write = (name: string, at: Node, depth: number): void => {
    builder.add(name, depth, at.total[0], at.self[0], at.total[1], at.self[1]);
    for (const [name, child] of at.children) write(name, child, depth + 1);
  };
  write("total", root, 0);
  return builder.build({ type: "cpu", unit: "nanoseconds" }, isDiff);
}

/** Makes the same random numbers from the same seed: a linear congruential generator, good enough for shapes of trees. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Makes a tree of about so many nodes, as deep and as bushy as those of large services. */
export function randomTree(nodes: number, seed: number): Tree {
  const random = randomOf(seed);
  const names = Array.from({ length: Math.max(4, Math.ceil(nodes / 20)) }, (_, i) => `example.com/pkg${i % 97}/part.(*Type${i % 13}).method${i}`);
  const depths: number[] = [0];
  const chosen: string[] = ["total"];
  for (let depth = 1; depths.length < nodes; ) {
    depths.push(depth);
    chosen.push(names[Math.floor(random() ** 2 * names.length)]);
    // Deeper more often than not, and back up by some levels now and then.
    depth = random() < 0.62 && depth < 90 ? depth + 1 : Math.max(1, depth - Math.floor(random() * 12));
  }
  const self = depths.map(() => Math.floor(random() ** 6 * 1e6));
  const total = [...self];
  const stack: number[] = [];
  const parents = depths.map((depth, i) => {
    stack.length = depth;
    stack.push(i);
    return depth === 0 ? -1 : stack[depth - 1];
  });
  for (let i = depths.length - 1; i > 0; i--) total[parents[i]] += total[i];
  const builder = new TreeBuilder();
  depths.forEach((depth, i) => builder.add(chosen[i], depth, total[i], self[i]));
  return builder.build({ type: "cpu", unit: "nanoseconds" }, false);
}
