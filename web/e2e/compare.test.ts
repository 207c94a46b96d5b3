// Two selections against each other, and merges of profiles picked by hand.

import { expect, test } from "vitest";

import { link, open, picture, withBrowser } from "./browser";

withBrowser();

const VERSIONS = {
  query: '{service="checkout", version="1.5"}',
  base_query: '{service="checkout", version="1.4"}',
  type: "cpu",
  start: "-24h",
};

test("a comparison is a graph, a table, and two graphs side by side", async () => {
  const page = await open(link("/compare", VERSIONS));
  await page.getByRole("application").waitFor();
  await page.getByText("same share").waitFor();
  await page.getByRole("button", { name: "Compare shares" }).click();
  await page.getByText("Change:").waitFor();
  await page.getByRole("button", { name: "Side by side", exact: true }).click();
  await expect.poll(() => page.getByRole("application").count()).toBe(2);
  // There is room for the graphs alone; the tables are one press away.
  expect(await page.getByRole("table", { name: "Functions" }).count()).toBe(0);
  await picture(page, "side-by-side");
  await page.getByRole("button", { name: "Table and graph" }).first().click();
  await expect.poll(() => page.getByRole("table", { name: "Functions" }).count()).toBe(2);
  await page.getByRole("button", { name: "Graph", exact: true }).first().click();
  await page.reload();
  await expect.poll(() => page.getByRole("application").count()).toBe(2);
  await page.getByRole("button", { name: "Swap", exact: true }).click();
  await expect.poll(() => new URL(page.url()).searchParams.get("query")).toBe(VERSIONS.base_query);
});

test("yesterday is one press away", async () => {
  const page = await open(link("/explore", { query: '{service="checkout"}', type: "cpu", start: "-2h" }));
  await page.getByRole("link", { name: "yesterday" }).click();
  await page.getByRole("application").waitFor();
  const { searchParams } = new URL(page.url());
  const base = Date.parse(searchParams.get("base_start") ?? "");
  expect((Date.now() - base) / 3_600e3).toBeGreaterThan(25.9);
  expect((Date.now() - base) / 3_600e3).toBeLessThan(26.1);
});

test("one side alone says so", async () => {
  const page = await open(link("/compare", { ...VERSIONS, base_query: '{service="checkout", version="9"}' }), { expected: /404/ });
  await page.getByText(/one side has no profiles|No profiles on the side/).waitFor();
});

test("picked profiles are merged alone", async () => {
  const page = await open(link("/explore", { query: '{service="checkout"}', type: "cpu", start: "-24h", tab: "profiles" }));
  const boxes = page.locator("table.list input[type=checkbox]");
  await boxes.first().check();
  await boxes.nth(1).check();
  await page.getByRole("link", { name: "Merge them" }).click();
  await page.getByRole("application").waitFor();
  await page.getByText("2 profiles merged").first().waitFor();
});
