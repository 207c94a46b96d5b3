import { expect, test } from "vitest";

import { PAYLOADS } from "../../e2e/payloads";
import { placeOf, problemOf, shortPlaceOf, sourceUrl } from "./source";

const GITHUB = "https://github.com/org/repo/blob/{version}/{path}#L{line}";

function urlOf(file: string, { line = 7, prefix = "", template = GITHUB, version = "v1.5", service = "checkout" } = {}): string | undefined {
  return sourceUrl({ template, prefix }, { file, line, mapping: "" }, service, version);
}

test("a template is filled with what the profile says", () => {
  expect(urlOf("coupon/coupon.go")).toBe("https://github.com/org/repo/blob/v1.5/coupon/coupon.go#L7");
  expect(urlOf("/build/src/coupon/coupon.go", { prefix: "/build/src/" })).toBe("https://github.com/org/repo/blob/v1.5/coupon/coupon.go#L7");
  expect(urlOf("a.go", { version: "", line: 0 })).toBe("https://github.com/org/repo/blob/HEAD/a.go#L1");
  expect(urlOf("a.go", { template: "http://git.local:3000/{service}/{path}?at={version}" })).toBe("http://git.local:3000/checkout/a.go?at=v1.5");
});

test("what is not of the repository has no link", () => {
  expect(urlOf("/usr/lib/go/src/regexp/exec.go", { prefix: "/build/" })).toBeUndefined();
  expect(urlOf("")).toBeUndefined();
  expect(urlOf("/..")).toBeUndefined();
});

test("nothing of a profile leaves its place", () => {
  expect(urlOf("../../../../evil/a b?x#y.go")).toBe("https://github.com/org/repo/blob/v1.5/evil/a%20b%3Fx%23y.go#L7");
  expect(urlOf("a.go", { version: "../../../../evil" })).toBe("https://github.com/org/repo/blob/..%2F..%2F..%2F..%2Fevil/a.go#L7");
  expect(urlOf("a.go", { version: ".." })).toBe("https://github.com/org/repo/blob//a.go#L7");
  expect(urlOf("%2e%2e/a.go")).toBe("https://github.com/org/repo/blob/v1.5/%252e%252e/a.go#L7");
  expect(urlOf("\ud800.go")).toBe("https://github.com/org/repo/blob/v1.5/%EF%BF%BD.go#L7");
  for (const payload of PAYLOADS) {
    const url = new URL(urlOf(payload, { version: payload, service: payload }) ?? "");
    expect([url.protocol, url.host, url.hash]).toEqual(["https:", "github.com", "#L7"]);
    expect(url.pathname.startsWith("/org/repo/blob/")).toBe(true);
    expect(url.href).not.toMatch(/[<>"'()]/);
  }
});

test.each([
  [GITHUB, undefined],
  ["http://localhost:3000/{path}", undefined],
  ["javascript:alert('{path}')", "javascript: is not opened; https and http are"],
  ["JaVaScRiPt://x/%0aalert(1)//{path}", "javascript: is not opened; https and http are"],
  [" \tjavascript:alert(1)//{path}", "javascript: is not opened; https and http are"],
  ["data:text/html,{path}", "data: is not opened; https and http are"],
  ["//github.com/{path}", "this is no address: it begins with https:// or http://"],
  ["{path}", "this is no address: it begins with https:// or http://"],
  ["https://{path}/x", "placeholders stand behind the host"],
  ["https://{service}.example.com/{path}", "placeholders stand behind the host"],
  ["https://example.com:{line}/{path}", "this is no address: it begins with https:// or http://"],
  ["https://me:secret@example.com/{path}", "an address with a password is not kept"],
  ["https://example.com/{file}", "{file} is none of {path}, {line}, {version}, {service}"],
  ["https://example.com/", "{path} is missing"],
  [`https://example.com/{path}${"x".repeat(1_000)}`, "the address has 1026 characters; 1000 are the most"],
])("template %s: %s", (template, problem) => {
  expect(problemOf(template)).toBe(problem);
  if (problem !== undefined) expect(urlOf("a.go", { template })).toBeUndefined();
});

test("every payload as a template is refused", () => {
  for (const payload of PAYLOADS) {
    expect(problemOf(payload)).toBeDefined();
    expect(urlOf("a.go", { template: payload })).toBeUndefined();
  }
});

test("places are written short and long", () => {
  const origin = { file: "/src/coupon/coupon.go", line: 12, mapping: "" };
  expect([placeOf(origin), shortPlaceOf(origin), placeOf({ ...origin, line: 0 })]).toEqual([
    "/src/coupon/coupon.go:12",
    "coupon.go:12",
    "/src/coupon/coupon.go",
  ]);
});
