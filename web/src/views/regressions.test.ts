import { expect, test } from "vitest";

import type { Regression } from "../api/answers";
import { grownOf, sidesOf } from "./regressions";

test("the newest version is held against the one before", () => {
  const versions = [
    { name: "1.3", profiles: 9 },
    { name: "1.4", profiles: 80 },
    { name: "1.5", profiles: 40 },
  ];
  expect(sidesOf("api", versions, 100, 0)).toMatchObject({
    query: '{service="api", version="1.5"}',
    base_query: '{service="api", version="1.4"}',
    base_end: "now",
    says: "version 1.5 against 1.4",
  });
});

test("without two versions the last day is held against the week before", () => {
  const expected = { query: '{service="api"}', base_query: '{service="api"}', start: "-24h", base_start: "-8d", base_end: "-24h" };
  expect(sidesOf("api", [], 10, 70)).toMatchObject(expected);
  // A version of which there is one profile says nothing yet.
  const versions = [
    { name: "1.4", profiles: 80 },
    { name: "1.5", profiles: 1 },
  ];
  expect(sidesOf("api", versions, 81, 500)).toMatchObject(expected);
});

test("where there is too little, nothing is asked", () => {
  expect(sidesOf("api", [{ name: "1", profiles: 9 }], 9, 3)).toBeUndefined();
  expect(sidesOf("api", [], 3, 900)).toBeUndefined();
});

test("what gained most comes first, own code before that of others; what shrank or may be noise is left out", () => {
  const change = (name: string, file: string, baseShare: number, share: number, significant = true): Regression => ({
    name,
    file,
    baseShare,
    share,
    change: share / baseShare - 1,
    chance: 0,
    significant,
  });
  const found = grownOf([
    change("runtime.mallocgc", "/usr/local/go/src/runtime/malloc.go", 0.1, 0.6),
    change("app.noise", "/src/app.go", 0.1, 0.3, false),
    change("app.better", "/src/app.go", 0.5, 0.1),
    change("app.main", "/src/app.go", 0.6, 0.7),
    change("app.slow", "/src/app.go", 0, 0.4),
  ]);
  expect(found.map(({ name }) => name)).toEqual(["app.slow", "app.main", "runtime.mallocgc"]);
});
