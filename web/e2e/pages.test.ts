// The pages beside Explore: overview, one function, statistics.

import { expect, test } from "vitest";

import { link, open, picture, withBrowser } from "./browser";

withBrowser();

test("the overview shows every service with versions and instances, and what costs most", async () => {
  const page = await open("/");
  const row = page.locator(".fleet").getByRole("row").filter({ hasText: "checkout" });
  await row.getByText("1.5").waitFor();
  await expect.poll(() => row.locator("td").allTextContents()).toEqual(expect.arrayContaining(["2"]));
  expect(await row.getByRole("img").locator("polyline").getAttribute("points")).toMatch(/^[\d., ]{40,}$/);
  await page.getByRole("region", { name: "Functions of all services" }).waitFor();
  await page.getByRole("navigation", { name: "Profile type" }).getByRole("link", { name: "heap" }).click();
  await expect.poll(() => row.locator("td").nth(1).textContent()).toMatch(/[KM]iB/);
});

test("a function has a history by version, callers and callees", async () => {
  const page = await open(link("/function", { name: "regexp.MustCompile", query: '{service="checkout"}', type: "cpu", start: "-24h" }));
  await page.getByRole("img", { name: "History of regexp.MustCompile" }).waitFor();
  await page.getByRole("region", { name: "Called by" }).getByText("example.com/checkout/coupon.pattern").waitFor();
  await page.getByRole("region", { name: "By version" }).getByRole("rowheader", { name: "1.5" }).waitFor();
  await picture(page, "function");
});

test("statistics show a heat map whose cells lead to their profiles, and what is stored", async () => {
  const page = await open(link("/statistics", { query: '{service="checkout"}', type: "cpu", start: "-24h" }));
  const heat = page.getByRole("application", { name: "Heat map" });
  await heat.waitFor();
  await page.getByRole("rowheader", { name: "checkout-a" }).waitFor();
  await page.getByRole("region", { name: "By service and type" }).getByRole("rowheader", { name: "checkout" }).first().waitFor();
  await picture(page, "statistics");
  await heat.focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Enter");
  await expect.poll(() => new URL(page.url()).pathname).toBe("/explore");
  await page.locator("table.list tbody tr").first().waitFor();
});
