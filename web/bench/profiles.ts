// The profile that flame graphs are measured with side by side: a tree of `serviceTree` as a pprof file.

import { profile } from "../e2e/pprof";
import { serviceTree } from "./trees";

/** Writes a profile of which a flame graph has about so many nodes. */
export function servicePprof(nodes: number): { bytes: Uint8Array; nodes: number } {
  const tree = serviceTree(nodes, 1);
  const stacks: { stack: string[]; value: number }[] = [];
  const stack: string[] = [];
  for (let i = 1; i < tree.count; i++) {
    stack.length = tree.depth[i] - 1;
    stack.push(tree.names[tree.name[i]]);
    if (tree.self[i] > 0) stacks.push({ stack: [...stack], value: tree.self[i] });
  }
  return { bytes: profile({ type: "cpu", unit: "nanoseconds", time: 1_750_000_000_000, stacks }), nodes: tree.count };
}
