// "Something was wrong last night": from the page to the guilty function.

import { expect, test } from "vitest";

import { link, open, picture, withBrowser } from "./browser";

withBrowser();

const CHECKOUT = { query: '{service="checkout"}', type: "cpu", start: "-24h" };

test("from a service to the function that costs more since the rollout", async () => {
  const page = await open(link("/explore", CHECKOUT));
  const graph = page.getByRole("application", { name: /Flame graph of cpu/ });
  await graph.waitFor();
  await picture(page, "explore");

  // The table says who burns the time; one press shows who calls it.
  await page.getByRole("searchbox", { name: "Search functions" }).fill("regexp.MustCompile");
  await expect.poll(() => page.getByTestId("match").textContent()).toMatch(/^[1-9][\d.]* % matched$/);
  await page.getByRole("button", { name: "Callers and callees of regexp.MustCompile", exact: true }).click();
  const callers = page.getByRole("application", { name: "Callers of regexp.MustCompile" });
  await callers.waitFor();
  expect(new URL(page.url()).searchParams.get("sandwich")).toBe("regexp.MustCompile");

  // The keyboard walks up from it: its one caller is the guilty one.
  await callers.focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowUp");
  await expect.poll(() => page.getByRole("status").filter({ hasText: "coupon.pattern" }).count()).toBe(1);
  await picture(page, "sandwich");
});

test("a window is chosen on the chart", async () => {
  const page = await open(link("/explore", CHECKOUT));
  const chart = page.locator(".chart .u-over");
  await chart.waitFor();
  const box = (await chart.boundingBox()) ?? { x: 0, y: 0, width: 0, height: 0 };
  await page.mouse.move(box.x + box.width * 0.8, box.y + 40);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.9, box.y + 60, { steps: 5 });
  await page.mouse.up();
  await expect.poll(() => new URL(page.url()).searchParams.get("end")).toMatch(/^\d{4}-/);
  const { searchParams } = new URL(page.url());
  const width = Date.parse(searchParams.get("end") ?? "") - Date.parse(searchParams.get("start") ?? "");
  // A tenth of a day, to a pixel or two.
  expect(width / 3_600e3).toBeGreaterThan(2);
  expect(width / 3_600e3).toBeLessThan(3);
  await page.goBack();
  expect(new URL(page.url()).searchParams.get("start")).toBe("-24h");
});

test("series are split by a label, and a line narrows the selection", async () => {
  const page = await open(link("/explore", { ...CHECKOUT, by: "version" }));
  const lines = page.locator(".lines button");
  await expect.poll(() => lines.allTextContents()).toEqual([expect.stringMatching(/^1\.[45] 0\./), expect.stringMatching(/^1\.[45] 0\./)]);
  await lines.filter({ hasText: "1.5" }).click();
  await expect.poll(() => new URL(page.url()).searchParams.get("query")).toBe('{service="checkout", version="1.5"}');
});
