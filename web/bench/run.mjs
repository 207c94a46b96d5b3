// Builds the bench page, opens it in Chromium and prints what it measures, with the size of what the querier embeds.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import { chromium } from "playwright-core";
import { build, preview } from "vite";

const root = join(import.meta.dirname, "..");
await build({ root: join(root, "bench"), configFile: false, logLevel: "error", build: { outDir: "../dist-bench", emptyOutDir: true } });
const server = await preview({ root: join(root, "bench"), configFile: false, build: { outDir: "../dist-bench" }, preview: { port: 0, host: "127.0.0.1" } });
const browser = await chromium.launch({ executablePath: process.env.AFTERGLOW_CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
try {
  const page = await browser.newPage();
  await page.goto(server.resolvedUrls.local[0]);
  await page.waitForFunction("window.measured !== undefined", undefined, { timeout: 300_000 });
  const measured = await page.evaluate("window.measured");
  console.table(measured.map((row) => Object.fromEntries(Object.entries(row).map(([name, value]) => [name, Math.round(value * 10) / 10]))));
} finally {
  await browser.close();
  await server.close();
}
const assets = join(root, "dist/assets");
const sizes = readdirSync(assets).map((name) => [name, gzipSync(readFileSync(join(assets, name)), { level: 9 }).length]);
for (const [name, bytes] of sizes) console.log(`${name}: ${bytes} bytes gzip`);
