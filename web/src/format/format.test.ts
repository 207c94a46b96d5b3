import { describe, expect, test } from "vitest";

import { treeOfFolded } from "../flamegraph/fixtures";
import { commandsOf, diffCommandsOf, shell } from "./commands";
import { escaped, folded, speedscope, svg } from "./exports";
import { packageOf, shortName } from "./names";
import { moved, parsed, range } from "./times";
import { change, count, percent, ratio, value } from "./values";

test("values have three figures and a unit that fits", () => {
  expect([0, 999, 1_500, 999_600_000, 61e9, 5e13].map((nanos) => value(nanos, "nanoseconds"))).toEqual([
    "0 ns",
    "999 ns",
    "1.50 µs",
    "1.00 s",
    "1.02 min",
    "13.9 h",
  ]);
  expect([0, 1, 1023, 1536, 5 * 2 ** 30].map((bytes) => value(bytes, "bytes"))).toEqual(["0 B", "1 B", "1023 B", "1.50 KiB", "5.00 GiB"]);
  expect([3, 1_234, 2.5].map((amount) => value(amount, "count"))).toEqual(["3", "1.23k", "2.50"]);
  expect([change(5, "count"), change(-5, "count")]).toEqual(["+5", "-5"]);
  expect([count(1, "frame"), count(12_345, "frame")]).toEqual(["1 frame", "12,345 frames"]);
});

test("shares and changes", () => {
  expect([0, 0.00001, 0.1234, 0.9999, 1].map(percent)).toEqual(["0.00 %", "< 0.01 %", "12.3 %", "100 %", "100 %"]);
  expect([ratio(0, 0), ratio(5, 0), ratio(0, 5), ratio(15, 10), ratio(500, 10), ratio(5, 10)]).toEqual([
    "±0 %",
    "new",
    "gone",
    "+50.0 %",
    "×50",
    "-50.0 %",
  ]);
});

test("times of links", () => {
  const now = Date.parse("2026-11-24T12:00:00Z");
  expect(parsed("-1h30m", now)).toBe(now - 5_400e3);
  expect(parsed("now", now)).toBe(now);
  expect(parsed("2026-11-24T11:00:00Z", now)).toBe(now - 3_600e3);
  expect(parsed("yesterday-ish", now)).toBeUndefined();
  expect(moved("-1h", "", 86_400e3, now)).toEqual({ start: "2026-11-23T11:00:00Z", end: "2026-11-23T12:00:00Z" });
  expect([range("-6h", ""), range("-20h", "")]).toEqual(["last 6 hours", "last 20h"]);
});

test("packages of names of several languages", () => {
  const names = {
    "net/http.(*conn).serve": "net/http",
    "main.main.func1": "main",
    "github.com/a/b.v2/c.Fn[go.shape.string]": "github.com/a/b.v2/c",
    "tokio::runtime::task::poll": "tokio",
    "<alloc::vec::Vec<T> as core::ops::Drop>::drop": "alloc",
    memcpy: "",
  };
  expect(Object.fromEntries(Object.keys(names).map((name) => [name, packageOf(name)]))).toEqual(names);
  expect(shortName("github.com/a/b.(*T).m")).toBe("b.(*T).m");
});

describe("exports", () => {
  const tree = treeOfFolded(["main;a 3", "main;b;c 4"]);

  test("folded stacks", () => {
    expect(folded(tree)).toBe("main;a 3\nmain;b;c 4\n");
    expect(folded(treeOfFolded(["main;a 3 5"], true))).toBe("main;a 3 5\n");
  });

  test("speedscope has every sample with its stack", () => {
    const file = JSON.parse(speedscope(tree, "x")) as {
      shared: { frames: { name: string }[] };
      profiles: { samples: number[][]; weights: number[]; endValue: number }[];
    };
    const names = file.profiles[0].samples.map((stack) => stack.map((frame) => file.shared.frames[frame].name).join(";"));
    expect(names).toEqual(["main;a", "main;b;c"]);
    expect(file.profiles[0].weights).toEqual([3, 4]);
    expect(file.profiles[0].endValue).toBe(7);
  });

  test("an SVG holds names as text, never as markup", () => {
    const picture = svg(treeOfFolded([`<script>alert(1)</script>;"&' 5`]), "<title>");
    expect(picture).not.toContain("<script");
    expect(picture).toContain("&lt;script&gt;alert(1)&lt;/script&gt;");
    expect(escaped("a\u0000b<\uffff")).toBe("a\ufffdb&lt;\ufffd");
  });
});

describe("commands", () => {
  const selection = { query: `{service="it's"}`, type: "cpu", start: "-1h", end: "", sampleType: "cpu", ids: [] };

  test("quote for the shell", () => {
    expect(shell("plain-1.2/x")).toBe("plain-1.2/x");
    expect(shell("a'b $(rm)")).toBe(`'a'\\''b $(rm)'`);
  });

  test("ask the same as the page", () => {
    const [curl, , pprof, grpcurl, afterglow] = commandsOf(selection, "http://127.0.0.1:4100", Date.parse("2026-11-24T12:00:00Z"));
    expect(curl.line).toBe(
      "curl -s 'http://127.0.0.1:4100/api/v1/merge?query=%7Bservice%3D%22it%27s%22%7D&type=cpu&start=-1h' -o merged.pb.gz",
    );
    expect(pprof.line).toContain("go tool pprof -http=:8081 -sample_index=cpu 'http://");
    expect(grpcurl.line).toContain(`"start":"2026-11-24T11:00:00Z"`);
    expect(afterglow.line).toBe(
      `afterglow merge '{service="it'\\''s"}' --type cpu --from=-1h --server http://127.0.0.1:4100 -o merged.pb.gz`,
    );
  });

  test("a comparison is asked for with its base marked for pprof", () => {
    const now = Date.parse("2026-11-24T12:00:00Z");
    const asked = { query: "{}", type: "heap", base_query: `{a="it's"}`, base_start: "-25h", base_end: "-24h", limit: 5, normalize: true };
    const [curl, , pprof, grpcurl, afterglow] = diffCommandsOf({ ...asked, sample_type: "alloc_space" }, "http://h:4100", now);
    const base = "base_query=%7Ba%3D%22it%27s%22%7D&base_start=-25h&base_end=-24h";
    expect(curl.line).toBe(
      `curl -s 'http://h:4100/api/v1/diff?query=%7B%7D&type=heap&${base}&normalize=true&sample_type=alloc_space&format=pprof' -o diff.pb.gz`,
    );
    expect(pprof.line).toContain("-sample_index=alloc_space 'http://");
    expect(pprof.line).toContain("mark_base=true");
    expect(JSON.parse(/-d '(.*)' h:4100 afterglow.v1.QueryService\/Diff$/.exec(grpcurl.line)?.[1].replaceAll(`'\\''`, "'") ?? "")).toEqual({
      selection: { query: "{}", type: "heap", start: "2026-11-24T11:00:00Z", end: "2026-11-24T12:00:00Z" },
      base: { query: `{a="it's"}`, type: "heap", start: "2026-11-23T11:00:00Z", end: "2026-11-23T12:00:00Z" },
      sample_type: "alloc_space",
      normalize: true,
      format: "MERGE_FORMAT_TOP",
    });
    expect(afterglow.line).toBe(
      `afterglow diff '{}' --type heap '--base={a="it'\\''s"}' --base-from=-25h --base-to=-24h --normalize --server http://h:4100 -o diff.pb.gz`,
    );
  });
});
