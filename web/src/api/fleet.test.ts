import { afterEach, expect, test, vi } from "vitest";

import { askFleet, askParts, partOf } from "./fleet";

afterEach(() => vi.unstubAllGlobals());

const MIXED = { error: { code: "INVALID_ARGUMENT", message: "profiles that count different things do not merge: 1 count a/count, 1 count b/count" } };

/** A server that knows what each service counts, and merges only what counts alike. Returns the selectors it was asked about. */
function serving(counted: Record<string, string[]>, problems: string[] = []): string[] {
  const asked: string[] = [];
  vi.stubGlobal("location", { host: "here" });
  vi.stubGlobal("fetch", (address: string) => {
    const url = new URL(address, "http://here");
    const query = url.searchParams.get("query") ?? "";
    const named = /^\{service=~?"(.*)"\}$/.exec(query)?.[1].replaceAll("\\\\", "");
    const services = named === undefined ? Object.keys(counted) : named.split("|");
    const types = new Set(services.flatMap((service) => counted[service]));
    const sampleTypes = [...types].map((type) => ({ type, unit: "count" }));
    if (url.pathname === "/api/v1/types") return Promise.resolve(Response.json({ types: [{ type: "cpu", sampleTypes, profiles: "1" }] }));
    asked.push(query);
    if (types.size > 1) return Promise.resolve(Response.json(MIXED, { status: 400 }));
    const series = services.map((service) => ({ labels: { service }, points: [], total: "1", profiles: "1" }));
    return Promise.resolve(
      Response.json({ series, sampleType: sampleTypes[0], seriesTruncated: "0", completeness: { partial: problems.length > 0, problems } }),
    );
  });
  return asked;
}

const PARAMETERS = { type: "cpu", start: "-24h", by: "service" };

test("services that count alike are one question", async () => {
  const asked = serving({ a: ["cpu"], b: ["cpu"] });
  const fleet = await askFleet(["a", "b"], PARAMETERS, {});
  expect(asked).toEqual([""]);
  expect(fleet.parts).toEqual([{ services: ["a", "b"], query: "" }]);
  expect(fleet.sampleTypes.get("b")).toEqual({ type: "cpu", unit: "count" });
});

test("others are asked in parts, and one that does not merge with itself says so", async () => {
  serving({ a: ["cpu"], "b.c": ["cpu"], node: ["samples"], both: ["cpu", "samples"] }, ["block x is damaged"]);
  const fleet = await askFleet(["a", "b.c", "node", "both"], PARAMETERS, {});
  expect(fleet.parts.map(({ query }) => query)).toEqual(['{service=~"a|b\\\\.c"}', '{service="node"}']);
  expect(fleet.series.map(({ labels }) => labels["service"])).toEqual(["a", "b.c", "node"]);
  expect(fleet.sampleTypes.get("node")?.type).toBe("samples");
  expect([...fleet.refused.keys()]).toEqual(["both"]);
  expect(fleet.completeness).toEqual({ partial: true, problems: ["block x is damaged"] });
});

test("a part is left out of a question that it is refused, and no selector names very many services", async () => {
  const many = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`s${i}`, [i % 2 === 0 ? "cpu" : "samples"]]));
  serving(many);
  const fleet = await askFleet(Object.keys(many), PARAMETERS, {});
  expect(fleet.parts.map(({ services }) => services.length)).toEqual([40, 40, 10, 10]);
  expect(fleet.series.length).toBe(100);
  serving({ ...many, s0: ["other"] });
  const before = await askParts(fleet.parts, { ...PARAMETERS, start: "-8d" }, {});
  expect(before.series.length).toBe(60);
  expect(before.refused.size).toBe(40);
});

test("what a server refuses for another reason is refused", async () => {
  vi.stubGlobal("fetch", () => Promise.resolve(Response.json({ error: { code: "UNAVAILABLE", message: "busy" } }, { status: 503 })));
  await expect(askFleet(["a"], PARAMETERS, {})).rejects.toThrow("busy");
});

test("a selector of services matches their names and nothing else", () => {
  expect(partOf(["a+b", 'c"d', "e\\f"]).query).toBe('{service=~"a\\\\+b|c\\"d|e\\\\\\\\f"}');
});
