// Trees for measuring, of the shape that services have: a stack's value flows down through one child or a few, nearly none of it stays above,
// so that the picture is full at every zoom, with names to be written on most of the wide frames.

import { randomOf } from "../src/flamegraph/fixtures";
import { TreeBuilder, type Tree } from "../src/flamegraph/tree";

/** How deep stacks are at most. */
const DEPTH_MAX = 90;
/** A node in twenty has a name of its own. */
const NODES_A_NAME = 20;

interface Growing {
  value: number;
  depth: number;
  /** How many nodes may still be made of it, itself among them. */
  nodes: number;
}

/** Makes a tree of about so many nodes; the same from the same seed. */
export function serviceTree(nodes: number, seed: number): Tree {
  const random = randomOf(seed);
  const names = Array.from(
    { length: Math.max(4, Math.ceil(nodes / NODES_A_NAME)) },
    (_, i) => `example.com/shop/package${i % 97}/part.(*Type${i % 13}).method${i}${"Of".repeat(i % 9)}`,
  );
  const builder = new TreeBuilder();
  const open: Growing[] = [{ value: 1e15, depth: 0, nodes }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { value, depth, nodes: left } = next;
    const children = depth >= DEPTH_MAX || left < 2 ? 0 : Math.min(left - 1, 1 + Math.floor(random() ** 2 * 5));
    const self = children === 0 ? value : Math.floor(value * 0.03 * random());
    builder.add(depth === 0 ? "total" : names[Math.floor(random() ** 2 * names.length)], depth, value, self);
    const shares = Array.from({ length: children }, () => random() ** 2 + 0.02);
    const all = shares.reduce((sum, share) => sum + share, 0);
    const grown = shares.map((share) => ({
      value: Math.floor(((value - self) * share) / all),
      depth: depth + 1,
      nodes: Math.max(1, Math.round(((left - 1) * share) / all)),
    }));
    // The heaviest leaves the stack first, as it stands first.
    open.push(...grown.sort((a, b) => a.value - b.value));
  }
  return builder.build({ type: "cpu", unit: "nanoseconds" }, false);
}
