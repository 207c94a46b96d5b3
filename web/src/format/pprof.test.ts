import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";

import { expect, test } from "vitest";

import { functionsOf } from "../flamegraph/transform";
import { decoded, flameGraphOf, profileOf } from "./pprof";
import { folded } from "./exports";
import { profile as written } from "../../e2e/pprof";

const FIXTURES = resolve(import.meta.dirname, "../../../tests/fixtures/profiles");

function fixture(name: string): Blob {
  return new Blob([readFileSync(resolve(FIXTURES, name))]);
}

test("what was written is read", async () => {
  const stacks = [
    { stack: ["main", "work"], value: 3 },
    { stack: ["main", "idle"], value: 2 ** 40 },
  ];
  const bytes = written({ type: "cpu", unit: "nanoseconds", time: 1_795_481_626_000, stacks });
  for (const file of [new Blob([bytes as BlobPart]), new Blob([gzipSync(bytes)])]) {
    const profile = await profileOf(file);
    expect(profile.sampleTypes).toEqual([{ type: "cpu", unit: "nanoseconds" }]);
    expect(profile.time).toBe(1_795_481_626_000);
    expect(profile.duration).toBe(10);
    expect(folded(flameGraphOf(profile, 0))).toBe(`main;idle ${2 ** 40}\nmain;work 3\n`);
  }
});

// The sums are those of `go tool pprof -raw` over the same files.
test.each([
  ["svc-cpu-i1-0036.pb.gz", ["samples", "cpu"], 1],
  ["svc-heap-i1-0038.pb.gz", ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"], 3],
  ["parca-goroutine-1795481626.pb.gz", ["goroutine"], 0],
])("%s is read whole", async (name, types, shown) => {
  const profile = await profileOf(fixture(name));
  expect(profile.sampleTypes.map(({ type }) => type)).toEqual(types);
  expect(profile.sampleTypeDefault).toBe(shown);
  const tree = flameGraphOf(profile, shown);
  const sum = profile.samples.reduce((sum, { values }) => sum + values[shown], 0);
  expect(tree.total[0]).toBe(sum);
  expect(functionsOf(tree).reduce((sum, row) => sum + row.self, 0)).toBe(sum);
});

test("negative values of differences keep their sign", () => {
  const type = [0x0a, 4, 0x08, 1, 0x10, 1];
  const sample = [0x12, 11, 0x10, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
  const profile = decoded(Uint8Array.from([...type, ...sample, 0x32, 0, 0x32, 1, 0x78]));
  expect(profile.samples[0].values).toEqual([-2]);
});

test.each([
  ["empty", new Uint8Array(0), "it has no sample types"],
  ["text", new TextEncoder().encode("hello, this is no profile"), "this is not a pprof file"],
  ["cut gzip", new Uint8Array(readFileSync(resolve(FIXTURES, "parca-cpu-1795481626.pb.gz"))).slice(0, 500), "not whole"],
])("a file that is %s is refused with a reason", async (_, bytes, reason) => {
  await expect(profileOf(new Blob([bytes as BlobPart]))).rejects.toThrow(reason);
});

test("no cut of a file is taken for a profile of other values, and none hangs", () => {
  const whole = gunzipSync(readFileSync(resolve(FIXTURES, "parca-mutex-1795481626.pb.gz")));
  const sum = (bytes: Uint8Array): number => {
    const profile = decoded(bytes);
    return flameGraphOf(profile, 0).total[0];
  };
  const total = sum(whole);
  let refused = 0;
  for (let length = 0; length < whole.length; length += 97) {
    try {
      expect(sum(whole.subarray(0, length))).toBeLessThanOrEqual(total);
    } catch (error) {
      expect(error).toBeInstanceOf(Error);
      refused++;
    }
  }
  expect(refused).toBeGreaterThan(10);
});

test("a bomb is refused before it is whole in memory", async () => {
  const bomb = gzipSync(new Uint8Array(80 * 2 ** 20));
  await expect(profileOf(new Blob([bomb as BlobPart]))).rejects.toThrow("more than 64 MiB");
});
