// The pages beside Explore: overview, one function, statistics.

import { expect, inject, test } from "vitest";

import { link, open, picture, withBrowser } from "./browser";

withBrowser();

test("the overview shows every service with versions and instances, and what costs most", async () => {
  const page = await open("/");
  const row = page.locator(".fleet").getByRole("row").filter({ hasText: "checkout" });
  await row.getByText("1.5", { exact: true }).waitFor();
  await expect.poll(() => row.locator("td").allTextContents()).toEqual(expect.arrayContaining(["2"]));
  expect(await row.getByRole("img").locator("polyline").getAttribute("points")).toMatch(/^[\d., ]{40,}$/);
  await page.getByRole("region", { name: "Functions of all services" }).waitFor();
  await page.getByRole("navigation", { name: "Profile type" }).getByRole("link", { name: "heap" }).click();
  await expect.poll(() => row.locator("td").nth(1).textContent()).toMatch(/[KM]iB/);
});

test("the overview says what got slower since the version before, and leads to the comparison", async () => {
  const page = await open("/");
  const row = page.locator(".fleet").getByRole("row").filter({ hasText: "checkout" });
  // Which of the slow function and its callers grew most is for chance to say.
  const culprit = row.locator(".regressions a");
  await culprit.first().waitFor();
  expect(await culprit.first().getAttribute("title")).toContain("version 1.5 against 1.4");
  // A service with one profile has nothing to be compared with, and is not asked about.
  const storage = page.locator(".fleet").getByRole("row").filter({ hasText: "storage" });
  expect(await storage.locator(".regressions").count()).toBe(0);
  await culprit.first().click();
  await page.getByRole("application", { name: /^Callees of / }).waitFor();
  const { pathname, searchParams } = new URL(page.url());
  expect([pathname, searchParams.get("query"), searchParams.get("base_query")]).toEqual([
    "/compare",
    '{service="checkout", version="1.5"}',
    '{service="checkout", version="1.4"}',
  ]);
});

test("services whose profiles do not merge stand beside each other on the overview, and are offered one by one", async () => {
  const page = await open("/?type=wall", { expected: /400/ });
  const worker = page.locator(".fleet").getByRole("row").filter({ has: page.getByRole("link", { name: "worker", exact: true }) });
  await worker.getByText("190", { exact: true }).waitFor();
  await worker.getByRole("img", { name: "wall of worker" }).waitFor();
  await worker.getByText("2", { exact: true }).waitFor();
  // What costs most is said of each part by itself, and led to within it.
  const functions = page.getByRole("region", { name: "Functions of worker" });
  await functions.getByRole("link", { name: "work", exact: true }).click();
  await page.getByRole("region", { name: "Called by" }).getByRole("link", { name: "loop", exact: true }).waitFor();
  await page.goto(inject("url") + link("/explore", { type: "wall", start: "-24h" }));
  await page.getByRole("alert").getByText("Choose one service").first().waitFor();
  await page.getByRole("navigation", { name: "Services" }).getByRole("link", { name: "worker", exact: true }).click();
  await page.getByRole("application").waitFor();
  expect(new URL(page.url()).searchParams.get("query")).toBe('{service="worker"}');
});

test("of many services those in view are asked about, few at once", async () => {
  const page = await open("/file");
  const names = Array.from({ length: 60 }, (_, i) => `service-${String(i).padStart(2, "0")}`);
  const point = { time: new Date(Date.now() - 3_600e3).toISOString(), value: "1000000000", profiles: "10", duration: "100s" };
  const series = names.map((service) => ({ labels: { service }, points: [point], total: "1000000000", profiles: "10" }));
  await page.route("**/api/v1/services?**", (route) => route.fulfill({ json: { services: names.map((name) => ({ name, types: ["cpu"], profiles: "10" })) } }));
  await page.route("**/api/v1/series?**", (route) =>
    route.fulfill({ json: { sampleType: { type: "cpu", unit: "nanoseconds" }, series, seriesTruncated: "0" } }),
  );
  let [asked, running, most] = [0, 0, 0];
  await page.route("**/api/v1/regressions?**", async (route) => {
    asked++;
    most = Math.max(most, ++running);
    await new Promise((wake) => setTimeout(wake, 20));
    running--;
    await route.fulfill({ json: { changes: [], changesTruncated: "0", tested: "9" } });
  });
  await page.goto(inject("url"));
  await page.locator(".regressions").getByText("none").first().waitFor();
  await page.waitForFunction(() => document.querySelector(".regressions[aria-busy=true]") === null);
  expect(most).toBe(2);
  expect(asked).toBeGreaterThan(5);
  expect(asked).toBeLessThan(names.length);
  await page.getByText("service-59").first().scrollIntoViewIfNeeded();
  await page.getByRole("row").filter({ hasText: "service-59" }).getByText("none").waitFor();
});

test("a function has a history by version, callers and callees", async () => {
  const page = await open(link("/function", { name: "regexp.MustCompile", query: '{service="checkout"}', type: "cpu", start: "-24h" }));
  await page.getByRole("img", { name: "History of regexp.MustCompile" }).waitFor();
  await page.getByRole("region", { name: "Called by" }).getByText("example.com/checkout/coupon.pattern").waitFor();
  await page.getByRole("region", { name: "Called by" }).getByText(/^pattern_v15\.go:\d+$/).waitFor();
  await page.getByRole("region", { name: "Calls", exact: true }).getByText(/^regexp\.go:\d+$/).first().waitFor();
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
