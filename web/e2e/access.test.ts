// For everybody: axe finds nothing serious on any page, dark or light, and the keyboard alone does the work.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import type { AxeResults } from "axe-core";
import { expect, inject, test } from "vitest";

import { link, open, withBrowser } from "./browser";

withBrowser();

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const CHECKOUT = { query: '{service="checkout"}', type: "cpu", start: "-24h" };

const PAGES: [string, string][] = [
  ["explore", link("/explore", CHECKOUT)],
  ["profiles", link("/explore", { ...CHECKOUT, tab: "profiles" })],
  ["sandwich", link("/explore", { ...CHECKOUT, sandwich: "main.main" })],
  ["call tree", link("/explore", { ...CHECKOUT, view: "tree" })],
  ["nothing", link("/explore", { query: '{service="nobody"}', type: "cpu" })],
  ["overview", "/"],
  ["compare", link("/compare", { ...CHECKOUT, query: '{version="1.5"}', base_query: '{version="1.4"}' })],
  ["function", link("/function", { ...CHECKOUT, name: "regexp.MustCompile" })],
  ["statistics", link("/statistics", CHECKOUT)],
  ["file", "/file"],
];

test.each(PAGES.flatMap(([name, path]) => [
  [name, path, "light"] as const,
  [name, path, "dark"] as const,
]))("axe: %s (%s, %s)", async (_, path, theme) => {
  // Where nothing matches, the merge says so by its status.
  const page = await open(path, { theme, expected: /404/ });
  await page.locator(".panel, table.list, .state").first().waitFor();
  await page.waitForFunction(() => document.querySelector("[aria-busy=true], .progress") === null);
  // By the browser's own door, which no policy of the page concerns.
  await page.evaluate(AXE);
  const results = await page.evaluate(() => (window as unknown as { axe: { run: () => Promise<AxeResults> } }).axe.run());
  const grave = results.violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`);
  expect(grave).toEqual([]);
});

test("from page to page, to the graph and into a frame, without a mouse", async () => {
  const page = await open(link("/explore", CHECKOUT));
  const graph = page.getByRole("application");
  await graph.waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type("json");
  await page.keyboard.press("Escape");
  expect(new URL(page.url()).searchParams.get("search")).toBe("json");
  await graph.focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.locator(".chip").filter({ hasText: "Zoomed:" }).waitFor();
  await page.keyboard.press("Backspace");
  await page.keyboard.press("Escape");
  await expect.poll(() => page.locator(".chip").count()).toBe(0);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("f");
  await page.locator(".chip").filter({ hasText: "Focus:" }).waitFor();
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await page.keyboard.press("Escape");
  const before = await page.evaluate(() => document.documentElement.dataset["theme"]);
  await page.keyboard.press("t");
  await expect.poll(() => page.evaluate(() => document.documentElement.dataset["theme"])).not.toBe(before);
});

test("the pages are served with what binds a browser, and kept as long as they may", async () => {
  const index = await fetch(`${inject("url")}/explore`, { headers: { accept: "text/html" } });
  expect(index.headers.get("content-security-policy")).toBe(
    "default-src 'self'; object-src 'none'; frame-ancestors 'self'; base-uri 'none'",
  );
  expect(index.headers.get("x-content-type-options")).toBe("nosniff");
  expect(index.headers.get("referrer-policy")).toBe("no-referrer");
  expect(index.headers.get("cache-control")).toBe("no-cache");
  const script = /src="(\/assets\/[^"]+\.js)"/.exec(await index.text())?.[1] ?? "";
  const asset = await fetch(inject("url") + script);
  expect(asset.headers.get("content-type")).toBe("text/javascript; charset=utf-8");
  expect(asset.headers.get("cache-control")).toContain("immutable");
  const again = await fetch(inject("url") + script, { headers: { "if-none-match": asset.headers.get("etag") ?? "" } });
  expect(again.status).toBe(304);
  const curl = await fetch(`${inject("url")}/`, { headers: { accept: "*/*" } });
  expect(curl.headers.get("content-type")).toContain("text/plain");
});
