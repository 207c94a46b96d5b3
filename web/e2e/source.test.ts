// Links to the source: the reader says where sources are, functions link there, and nothing that a profile or the storage holds makes
// another link of it.

import { expect, inject, test } from "vitest";

import { link, open, picture, withBrowser } from "./browser";
import { PAYLOADS } from "./payloads";

withBrowser();

const CHECKOUT = { query: '{service="checkout", version="1.5"}', type: "cpu", start: "-24h" };
const PATTERN = "example.com/checkout/coupon.pattern";
const HOSTILE = { query: `{service=${JSON.stringify(PAYLOADS[0])}}`, type: "wall", start: "-24h" };
const KEY = "afterglow.source";

test("a template is said once, and functions link to their lines", async () => {
  const page = await open(link("/explore", { ...CHECKOUT, view: "table", search: `"${PATTERN}"` }));
  const cell = page.locator(".top .row:not(.head) .cell.source");
  await cell.first().waitFor();
  expect(await cell.first().textContent()).toMatch(/^pattern_v15\.go:\d+$/);
  await page.getByRole("button", { name: "Source links" }).click();
  const dialog = page.getByRole("dialog", { name: "Where sources are found" });
  const address = dialog.getByRole("textbox", { name: "Address of a file" });
  await address.fill("javascript:alert('{path}')");
  await dialog.getByRole("alert").getByText("javascript: is not opened").waitFor();
  expect(await dialog.getByRole("button", { name: "Keep" }).isDisabled()).toBe(true);
  await address.fill(`${inject("url")}/source/{version}/{path}#L{line}`);
  const whole = (await cell.first().locator("span").getAttribute("title")) ?? "";
  const prefix = whole.slice(0, whole.indexOf("coupon/"));
  await dialog.getByRole("textbox", { name: "What paths" }).fill(prefix);
  await picture(page, "source-setting");
  await dialog.getByRole("button", { name: "Keep" }).click();
  const anchor = cell.first().getByRole("link");
  const href = (await anchor.getAttribute("href")) ?? "";
  expect(href).toMatch(new RegExp(`^${inject("url")}/source/1\\.5/coupon/pattern_v15\\.go#L\\d+$`));
  expect(await anchor.getAttribute("rel")).toBe("noopener noreferrer");

  // The keyboard opens it from a row; the setting is that of the service on all pages.
  await page.getByRole("table", { name: "Functions" }).focus();
  const [opened] = await Promise.all([page.context().waitForEvent("page"), page.keyboard.press("o")]);
  expect(opened.url()).toBe(href);
  await opened.close();
  await page.goto(inject("url") + link("/function", { ...CHECKOUT, name: PATTERN }));
  expect(await page.locator(".place").getByRole("link").getAttribute("href")).toBe(href);
  await page.goto(inject("url") + link("/function", { ...CHECKOUT, name: "regexp.MustCompile" }));
  // Not of the repository, by its path.
  await page.locator(".place").getByText("library").waitFor();
  expect(await page.locator(".place").getByRole("link").count()).toBe(0);
});

test("the menu of a frame leads there too, and without a setting says where to make one", async () => {
  const page = await open(link("/explore", { ...CHECKOUT, view: "graph", sandwich: PATTERN }));
  const callers = page.getByRole("application", { name: "Callers of" });
  await callers.waitFor();
  await callers.focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("o");
  await page.getByText(/has no link: see “Source links”/).waitFor();
  await page.evaluate(([key, template]) => localStorage.setItem(key, JSON.stringify({ "": { template, prefix: "" } })), [
    KEY,
    `${inject("url")}/all/{path}`,
  ]);
  await page.reload();
  await callers.focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("m");
  const [opened] = await Promise.all([page.context().waitForEvent("page"), page.getByRole("menuitem", { name: /^Source at/ }).click()]);
  expect(opened.url()).toMatch(/\/all\/.*coupon\/pattern_v15\.go$/);
  await opened.close();
});

test("names of files are anybody's text: links stay on the template's host, whatever they hold", async () => {
  const page = await open(link("/explore", { ...HOSTILE, view: "table" }), { height: 2_000 });
  await page.evaluate(([key, template]) => localStorage.setItem(key, JSON.stringify({ "": { template, prefix: "" } })), [
    KEY,
    "https://source.invalid/{service}/{version}/{path}#L{line}",
  ]);
  await page.reload();
  const links = page.locator(".top .cell.source a");
  await links.first().waitFor();
  const hrefs = await links.evaluateAll((anchors) => anchors.map((anchor) => (anchor as HTMLAnchorElement).href));
  expect(hrefs.length).toBeGreaterThan(PAYLOADS.length);
  for (const href of hrefs) {
    const url = new URL(href);
    expect([url.protocol, url.host]).toEqual(["https:", "source.invalid"]);
    expect(url.hash).toMatch(/^#L\d+$/);
    expect(href).not.toMatch(/[<>"']/);
  }
});

test("a setting that somebody else wrote into the storage links nowhere and runs nothing", async () => {
  const page = await open(link("/explore", { ...HOSTILE, view: "table" }), { height: 2_000 });
  const rows = page.locator(".top .row:not(.head)");
  for (const template of [...PAYLOADS, "javascript:window.__executed=1//{path}", "data:text/html,{path}", "https://{path}/"]) {
    await page.evaluate(([key, text]) => localStorage.setItem(key, text), [KEY, JSON.stringify({ "": { template, prefix: "" } })]);
    await page.reload();
    await rows.first().waitFor();
    expect(await page.locator(".top .cell.source a").count()).toBe(0);
  }
  for (const text of ["[", "null", "7", '{"":7}', '{"":{"template":7}}', '{"__proto__":{"template":"https://x/{path}","prefix":""}}']) {
    await page.evaluate(([key, text]) => localStorage.setItem(key, text), [KEY, text]);
    await page.reload();
    await rows.first().waitFor();
    expect(await page.locator(".top .cell.source a").count()).toBe(0);
  }
});
