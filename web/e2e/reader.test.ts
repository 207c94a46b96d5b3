// The page reads files by code of its own (web/src/format/pprof.ts), the server by that of the profile crate: real profiles of every
// producer must come to the same flame graph by both.

import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

import { expect, inject, test } from "vitest";

import type { MergeAnswer } from "../src/api/answers";
import { flameGraphOf, profileOf } from "../src/format/pprof";
import { pathTo, treeOf, type Tree } from "../src/flamegraph/tree";
import { stampedAt } from "./incident";

const FIXTURES = resolve(import.meta.dirname, "../../tests/fixtures");
const FILES = readdirSync(FIXTURES, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".pb.gz"));

/** A tenant of its own: its one service has profiles of all producers, which no page of the other tests should show. */
const headers = { "X-Scope-OrgID": "reader" };

/** What a tree says: the total and the self value of each stack, whatever the order. */
function says(tree: Tree): Map<string, string> {
  const names = (node: number): string =>
    pathTo(tree, node)
      .slice(1)
      .map((at) => tree.names[tree.name[at]])
      .join(" < ");
  return new Map(Array.from({ length: tree.count }, (_, node) => [names(node), `${tree.total[node]} ${tree.self[node]}`]));
}

/** What one tree says and the other does not; a few of it. */
function only(tree: Map<string, string>, other: Map<string, string>): string[] {
  return [...tree].filter(([stack, values]) => other.get(stack) !== values).slice(0, 5).map(([stack, values]) => `${stack}: ${values}`);
}

test.each(FILES)("%s", async (path) => {
  const body = stampedAt(readFileSync(join(FIXTURES, path)), Date.now());
  const profile = await profileOf(new Blob([new Uint8Array(body)]));
  const url = inject("url");
  const pushed = await fetch(`${url}/api/v1/profiles?service=reader`, { method: "POST", headers, body: new Uint8Array(body) });
  expect(pushed.status).toBe(200);
  const { id } = (await pushed.json()) as { id: string };
  let stacks = 0;
  for (const [i, { type }] of profile.sampleTypes.entries()) {
    const merged = await fetch(`${url}/api/v1/merge?ids=${id}&format=flamegraph&sample_type=${encodeURIComponent(type)}`, { headers });
    expect(merged.status).toBe(200);
    const { flamegraph } = (await merged.json()) as MergeAnswer;
    if (flamegraph === undefined) throw new Error("the answer has no flame graph");
    const [ours, theirs] = [says(flameGraphOf(profile, i)), says(treeOf(flamegraph))];
    stacks += ours.size - 1;
    expect(only(ours, theirs)).toEqual([]);
    expect(only(theirs, ours)).toEqual([]);
  }
  // Some types of a profile may have no values.
  expect(stacks).toBeGreaterThan(0);
});
