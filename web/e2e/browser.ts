// A browser with pages that are watched: what a page logs as an error, asks of other hosts, is refused by its policy, or executes from
// data, fails the test that opened it.

import { existsSync, mkdirSync } from "node:fs";
import { join, resolve } from "node:path";

import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, inject } from "vitest";

/** Where pictures of the tests go. */
const PICTURES = resolve(import.meta.dirname, "../../target/web");
/** Debian's, or whatever the variable names. */
const CHROMIUM = [process.env["AFTERGLOW_CHROMIUM"] ?? "", "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** What a page did that it may not do. */
interface Watched {
  faults: string[];
  /** Errors that a test provokes on purpose. */
  expected: RegExp | undefined;
}

let browser: Browser;
let context: BrowserContext | undefined;
let watched: Watched;

/** Starts the browser of a test file, and checks every page of it. */
export function withBrowser(): void {
  beforeAll(async () => {
    const program = CHROMIUM.find((path) => path !== "" && existsSync(path));
    if (program === undefined) throw new Error("there is no Chromium: tests/tools.sh installs it");
    // Its profile is a fresh folder of playwright's.
    browser = await chromium.launch({ executablePath: program, headless: true, args: FLAGS });
  });
  afterAll(() => browser.close());
  afterEach(async () => {
    for (const page of context?.pages() ?? []) {
      const inside = await page.evaluate(() => ({
        violations: (window as unknown as { __violations?: string[] }).__violations ?? [],
        executed: "__executed" in window,
      }));
      if (inside.executed) watched.faults.push("data was executed");
      watched.faults.push(...inside.violations.map((violation) => `policy violation: ${violation}`));
    }
    await context?.close();
    context = undefined;
    expect(watched.faults.filter((fault) => watched.expected?.test(fault) !== true)).toEqual([]);
  });
}

export interface Opening {
  theme?: "light" | "dark";
  width?: number;
  height?: number;
  /** Errors that the test provokes. */
  expected?: RegExp;
}

/** Opens a path of the server in a watched page. */
export async function open(path: string, { theme = "light", width = 1400, height = 900, expected }: Opening = {}): Promise<Page> {
  await context?.close();
  const url = inject("url");
  watched = { faults: [], expected };
  const { faults } = watched;
  context = await browser.newContext({
    colorScheme: theme,
    viewport: { width, height },
    reducedMotion: "reduce",
    acceptDownloads: true,
    permissions: ["clipboard-read", "clipboard-write"],
  });
  await context.addInitScript(() => {
    const violations: string[] = [];
    (window as unknown as { __violations: string[] }).__violations = violations;
    document.addEventListener("securitypolicyviolation", (event) => violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  const page = await context.newPage();
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") faults.push(`logged: ${message.text()}`);
  });
  page.on("dialog", (dialog) => {
    faults.push("a dialog was opened");
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("blob:")) faults.push(`asked ${request.url()}`);
  });
  await page.goto(url + path);
  return page;
}

/** Keeps a picture of the page. */
export async function picture(page: Page, name: string): Promise<void> {
  mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: join(PICTURES, `${name}.png`) });
}

/** Writes a link of the UI. */
export function link(path: string, params: Record<string, string>): string {
  return `${path}?${new URLSearchParams(params).toString()}`;
}
