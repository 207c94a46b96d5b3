// A profile is anybody's text. Whatever names and labels hold: nothing runs, nothing is fetched, no policy is violated. `withBrowser` looks
// at that after each test; here every page and tool meets the hostile profile, and shows its names as they are.

import { expect, inject, test } from "vitest";

import { link, open, picture, withBrowser } from "./browser";
import { PAYLOADS } from "./payloads";

withBrowser();

const HOSTILE = { query: `{service=${JSON.stringify(PAYLOADS[0])}}`, type: "wall", start: "-24h" };

test.each(["both", "tree"])("in the graph, its table and its tree (%s)", async (view) => {
  // High enough for all rows: others are not on the page.
  const page = await open(link("/explore", { ...HOSTILE, view }), { height: 2_000 });
  const names = page.locator(".row .cell.name");
  await names.first().waitFor();
  const titles = await names.evaluateAll((cells) => cells.map((cell) => cell.getAttribute("title") ?? ""));
  if (view === "both") for (const payload of PAYLOADS) expect(titles).toContain(payload);
  else expect(titles.length).toBeGreaterThan(3);
  await picture(page, `hostile-${view}`);
});

test("in tooltips, menus, sandwich, chips and search", async () => {
  for (const payload of PAYLOADS) {
    const page = await open(link("/explore", { ...HOSTILE, sandwich: payload, search: payload, focus: `"${payload}"`, hide: `"${payload} leaf"` }));
    const callers = page.getByRole("application", { name: "Callers of" });
    await callers.waitFor();
    await callers.focus();
    await page.keyboard.press("Home");
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("m");
    await page.locator(".menu-title").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Export", exact: true }).click();
    await page.getByRole("button", { name: "curl", exact: true }).waitFor();
  }
});

test("in lists, labels, completion and single profiles", async () => {
  const page = await open(link("/explore", { ...HOSTILE, tab: "profiles" }));
  await page.locator(".label").first().waitFor();
  const labels = await page.locator(".label").allTextContents();
  for (const [i, payload] of PAYLOADS.entries()) expect(labels).toContain(`l${i}=${payload}`);
  const field = page.getByRole("combobox", { name: "Selector" });
  await field.fill('{service="');
  await page.getByRole("listbox", { name: "Suggestions" }).getByRole("option").first().waitFor();
  await page.goto(inject("url") + link("/profile", { ids: inject("hostile"), type: "wall" }));
  await page.getByRole("application").waitFor();
});

test("on every other page", async () => {
  const name = PAYLOADS[1];
  for (const path of [
    "/",
    "/?type=wall",
    link("/compare", { ...HOSTILE, base_query: '{service="checkout"}' }),
    link("/function", { ...HOSTILE, name }),
    link("/statistics", { ...HOSTILE, by: "version" }),
  ]) {
    const page = await open(path, { expected: /40\d/ });
    await page.locator(".card, .panel, .state").first().waitFor();
    await page.waitForFunction(() => document.querySelector("[aria-busy=true], .progress") === null);
  }
});

test("in the link itself", async () => {
  for (const payload of PAYLOADS) {
    const everywhere = Object.fromEntries(
      ["query", "type", "start", "end", "sample_type", "by", "tab", "view", "search", "zoom", "sandwich", "dir", "colour"].map((name) => [
        name,
        payload,
      ]),
    );
    const page = await open(link("/explore", everywhere), { expected: /40\d/ });
    await page.locator("main").waitFor();
    await page.getByRole("alert").first().or(page.getByRole("heading", { name: "Nothing here yet" })).first().waitFor();
  }
});
