// What a reader does to a tree: focus, hide, collapse recursion, look at one function from above and below (sandwich), search. Each makes a
// new tree or a mask of names, and conserves values: a stack that stays keeps its value, one that goes takes it from the total.

import { isDiff, TreeBuilder, type Tree } from "./tree";

/** Which names a text means: see `testerOf`. Without a text there is no mask. */
export function matching(tree: Tree, text: string): Uint8Array | undefined {
  if (text === "") return undefined;
  const test = testerOf(text);
  return Uint8Array.from(tree.names, (name) => (test(name) ? 1 : 0));
}

/** Writes the search text that means one name and no other. */
export function exactly(name: string): string {
  return `"${name}"`;
}

/**
 * Makes the test of a search text: names that contain it, whatever the case; in quotes the one name; between slashes a regular expression,
 * which is taken literally when it is wrong.
 */
export function testerOf(text: string): (name: string) => boolean {
  if (text.length > 2 && text.startsWith('"') && text.endsWith('"')) {
    const exact = text.slice(1, -1);
    return (name) => name === exact;
  }
  if (text.length > 2 && text.startsWith("/") && text.endsWith("/")) {
    try {
      const regex = new RegExp(text.slice(1, -1), "i");
      return (name) => regex.test(name);
    } catch {
      // Half-typed, most likely.
    }
  }
  const lower = text.toLowerCase();
  return (name) => name.toLowerCase().includes(lower);
}

/** How much of a tree a mask of names covers: a stack counts once. */
export function matchedTotal(tree: Tree, mask: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < tree.count; ) {
    if (mask[tree.name[i]] === 1) {
      sum += tree.total[i];
      i = tree.end[i];
    } else i++;
  }
  return sum;
}

/** A tree under construction: children by name, in the order of their coming. */
interface Draft {
  name: string;
  children: Map<string, Draft>;
  self: number;
  baseSelf: number;
}

function draft(name: string): Draft {
  return { name, children: new Map(), self: 0, baseSelf: 0 };
}

function childOf(parent: Draft, name: string): Draft {
  let child = parent.children.get(name);
  if (child === undefined) {
    child = draft(name);
    parent.children.set(name, child);
  }
  return child;
}

/** Writes a draft out depth-first; totals are the sums of what is below. Deep stacks must not end this one, so it keeps its own. */
function built(root: Draft, tree: Tree): Tree {
  const order: { node: Draft; depth: number; parent: number; total: number; baseTotal: number }[] = [];
  const open = [{ node: root, depth: 0, parent: -1 }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const index = order.length;
    order.push({ ...next, total: next.node.self, baseTotal: next.node.baseSelf });
    const children = [...next.node.children.values()];
    for (let i = children.length - 1; i >= 0; i--) open.push({ node: children[i], depth: next.depth + 1, parent: index });
  }
  for (let i = order.length - 1; i > 0; i--) {
    const parent = order[order[i].parent];
    parent.total += order[i].total;
    parent.baseTotal += order[i].baseTotal;
  }
  const builder = new TreeBuilder();
  for (const { node, depth, total, baseTotal } of order) {
    builder.add(node.name, depth, total, node.self, baseTotal, node.baseSelf);
  }
  return builder.build(tree.sampleType, isDiff(tree), tree.truncated, tree.origins);
}

function baseSelfOf(tree: Tree, node: number): number {
  return isDiff(tree) ? tree.baseSelf[node] : 0;
}

/** Keeps the stacks that contain a matching name. */
export function focused(tree: Tree, mask: Uint8Array): Tree {
  const root = draft(tree.names[tree.name[0]]);
  const at: Draft[] = [root];
  // For each node: whether it, or one above it, matches.
  const inside = new Uint8Array(tree.count);
  for (let i = 0; i < tree.count; i++) {
    const own = mask[tree.name[i]] === 1;
    inside[i] = own || (i > 0 && inside[tree.parent[i]] === 1) ? 1 : 0;
  }
  // Above the matches only what leads to one is kept, without its own self.
  const leads = new Uint8Array(tree.count);
  for (let i = tree.count - 1; i > 0; i--) if (inside[i] === 1 || leads[i] === 1) leads[tree.parent[i]] = 1;
  for (let i = 1; i < tree.count; i++) {
    if (inside[i] === 0 && leads[i] === 0) {
      i = tree.end[i] - 1;
      continue;
    }
    const node = childOf(at[tree.depth[i] - 1], tree.names[tree.name[i]]);
    at[tree.depth[i]] = node;
    if (inside[i] === 1) {
      node.self += tree.self[i];
      node.baseSelf += baseSelfOf(tree, i);
    }
  }
  if (inside[0] === 1) {
    root.self = tree.self[0];
    root.baseSelf = baseSelfOf(tree, 0);
  }
  return built(root, tree);
}

/** Takes matching frames out of all stacks: their callees move up to their callers, their self value goes to the caller. */
export function hidden(tree: Tree, mask: Uint8Array): Tree {
  const root = draft(tree.names[tree.name[0]]);
  const at: Draft[] = [root];
  for (let i = 0; i < tree.count; i++) {
    const above = i === 0 ? root : at[tree.depth[i] - 1];
    const node = i === 0 || mask[tree.name[i]] === 1 ? above : childOf(above, tree.names[tree.name[i]]);
    at[tree.depth[i]] = node;
    node.self += tree.self[i];
    node.baseSelf += baseSelfOf(tree, i);
  }
  return built(root, tree);
}

/**
 * Takes repetitions of a function within a stack out: what is below the repetition moves below the first. Self values stay; a function
 * between two calls of another loses what went through it, which is why tables are made of the tree before.
 */
export function collapsed(tree: Tree): Tree {
  const root = draft(tree.names[tree.name[0]]);
  const at: Draft[] = [root];
  root.self = tree.self[0];
  root.baseSelf = baseSelfOf(tree, 0);
  // For each name on the current stack its first node, which takes all; and the names of the stack, -1 for a repetition.
  const first = new Map<number, Draft>();
  const owners: number[] = [];
  for (let i = 1; i < tree.count; i++) {
    const depth = tree.depth[i];
    while (owners.length >= depth) {
      const gone = owners.pop();
      if (gone !== undefined && gone >= 0) first.delete(gone);
    }
    const name = tree.name[i];
    const known = first.get(name);
    const node = known ?? childOf(at[depth - 1], tree.names[name]);
    if (known === undefined) first.set(name, node);
    owners.push(known === undefined ? name : -1);
    at[depth] = node;
    node.self += tree.self[i];
    node.baseSelf += baseSelfOf(tree, i);
  }
  return built(root, tree);
}

/** Returns what is below all occurrences of a function, as one tree whose root it is. Within a stack the outermost one counts. */
export function calleesOf(tree: Tree, name: string): Tree {
  const root = draft(name);
  const at: Draft[] = [];
  for (let i = 0; i < tree.count; ) {
    if (tree.names[tree.name[i]] !== name) {
      i++;
      continue;
    }
    const top = tree.depth[i];
    for (const end = tree.end[i]; i < end; i++) {
      const depth = tree.depth[i] - top;
      const node = depth === 0 ? root : childOf(at[depth - 1], tree.names[tree.name[i]]);
      at[depth] = node;
      node.self += tree.self[i];
      node.baseSelf += baseSelfOf(tree, i);
    }
  }
  return built(root, tree);
}

/** Returns what leads to a function, upside down: it is the root, below are its callers, then theirs. The outermost occurrence counts. */
export function callersOf(tree: Tree, name: string): Tree {
  const root = draft(name);
  for (let i = 0; i < tree.count; ) {
    if (tree.names[tree.name[i]] !== name) {
      i++;
      continue;
    }
    let node = root;
    for (let above = i; above !== 0; ) {
      above = tree.parent[above];
      // The root of all stacks calls nobody.
      if (above !== 0) node = childOf(node, tree.names[tree.name[above]]);
    }
    node.self += tree.total[i];
    node.baseSelf += isDiff(tree) ? tree.baseTotal[i] : 0;
    i = tree.end[i];
  }
  return built(root, tree);
}

/** A function's values over a whole tree; it counts once a stack. */
export interface FunctionRow {
  name: string;
  self: number;
  total: number;
  baseSelf: number;
  baseTotal: number;
}

/** Sums a tree by function. */
export function functionsOf(tree: Tree): FunctionRow[] {
  const rows = tree.names.map((name): FunctionRow => ({ name, self: 0, total: 0, baseSelf: 0, baseTotal: 0 }));
  const diff = isDiff(tree);
  // How often each name stands on the current stack.
  const standing = new Uint32Array(rows.length);
  const stack: number[] = [];
  const seen = new Uint8Array(rows.length);
  for (let i = 1; i < tree.count; i++) {
    while (stack.length >= tree.depth[i]) standing[stack.pop() ?? 0]--;
    const name = tree.name[i];
    const row = rows[name];
    seen[name] = 1;
    row.self += tree.self[i];
    if (diff) row.baseSelf += tree.baseSelf[i];
    if (standing[name] === 0) {
      row.total += tree.total[i];
      if (diff) row.baseTotal += tree.baseTotal[i];
    }
    standing[name]++;
    stack.push(name);
  }
  return rows.filter((_, name) => seen[name] === 1);
}
