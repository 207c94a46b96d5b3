// "Something was wrong last night": from the first page to the guilty function, with what the pages show and nothing else. docs/tour.md is
// the same walk with its pictures.

import { expect, test } from "vitest";

import { link, open, picture, withBrowser } from "./browser";

withBrowser();

const CHECKOUT = { query: '{service="checkout"}', type: "cpu", start: "-24h" };

test("from the fleet to the function that costs more since the rollout", async () => {
  const page = await open("/");
  const row = page.locator(".fleet").getByRole("row").filter({ hasText: "checkout" });
  await row.getByText("1.5", { exact: true }).waitFor();
  await picture(page, "overview");
  // Not the function of that name, which grew as well and has a link in the same row.
  await row.getByRole("link", { name: "checkout", exact: true }).click();

  // Since the mark of the new version it needs more.
  const graph = page.getByRole("application", { name: /Flame graph of cpu/ });
  await graph.waitFor();
  await page.getByRole("img", { name: /CPU cores in use/ }).waitFor();
  await picture(page, "explore");

  // One press to the comparison; the table of changes begins with the culprit's share.
  await page.getByRole("link", { name: "previous version" }).click();
  await page.getByRole("application", { name: /Flame graph of cpu/ }).waitFor();
  expect(new URL(page.url()).searchParams.get("query")).toBe('{service="checkout", version="1.5"}');
  expect(new URL(page.url()).searchParams.get("base_query")).toBe('{service="checkout", version="1.4"}');
  const first = page.locator(".top .row:not(.head) .name");
  await expect.poll(() => first.evaluateAll((cells) => cells.slice(0, 10).map((cell) => cell.getAttribute("title")))).toContain(
    "example.com/checkout/coupon.pattern",
  );
  await picture(page, "compare");

  // What it does: it compiles an expression for every coupon.
  await page.getByRole("button", { name: "Callers and callees of example.com/checkout/coupon.pattern", exact: true }).click();
  const callees = page.getByRole("application", { name: "Callees of example.com/checkout/coupon.pattern" });
  await callees.waitFor();
  await callees.focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowDown");
  await expect.poll(() => page.getByRole("status").filter({ hasText: "regexp.MustCompile" }).count()).toBe(1);
  await picture(page, "sandwich");
});

test("a window is chosen on the chart", async () => {
  const page = await open(link("/explore", CHECKOUT));
  // The marks have come: the chart is drawn anew with them.
  await page.getByRole("link", { name: "previous version" }).waitFor();
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
  // How many cores a version needs is the machine's business: on a slow one 1.5 takes more than a whole one.
  const line = expect.stringMatching(/^1\.[45] (0\.\d*[1-9]|[1-9]\d*(\.\d+)?)$/) as string;
  await expect.poll(() => lines.allTextContents()).toEqual([line, line]);
  await lines.filter({ hasText: "1.5" }).click();
  await expect.poll(() => new URL(page.url()).searchParams.get("query")).toBe('{service="checkout", version="1.5"}');
});
