// Builds the bench page, opens it in Chromium and prints what it measures, with the size of what the querier embeds. Frames are taken in
// turn, of a page that draws nothing, of one that shows one colour, and of trees: what is late in the first is the machine's doing. CPU is
// that of the page's main thread, as the kernel counts it, in which a canvas without a graphics card is drawn.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import { chromium } from "playwright-core";
import { build, preview } from "vite";

const TREES = [10_000, 100_000, 1_000_000];
/** How often each has its turn, and the frames of one. */
const TURNS = 8;
const FRAMES = 120;
/** The first frames of all are left out: code is compiled and fonts are read then. */
const WARM = 60;
/** A frame is late when it takes half as long again as usual, in milliseconds. */
const LATE_MILLIS = 25;

const root = join(import.meta.dirname, "..");
await build({ root: join(root, "bench"), configFile: false, logLevel: "error", build: { outDir: "../dist-bench/own", emptyOutDir: true } });
const server = await preview({ root: join(root, "bench"), configFile: false, build: { outDir: "../dist-bench/own" }, preview: { port: 0, host: "127.0.0.1" } });
const browser = await chromium.launch({ executablePath: process.env.AFTERGLOW_CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
try {
  const page = await browser.newPage({ viewport: { width: 1000, height: 700 } });
  await page.goto(server.resolvedUrls.local[0]);
  await page.waitForFunction("window.bench !== undefined");
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Performance.enable", { timeDomain: "threadTicks" });
  const cpuMillis = async () => {
    const { metrics } = await devtools.send("Performance.getMetrics");
    return 1_000 * metrics.find(({ name }) => name === "TaskDuration").value;
  };

  const opened = [];
  for (const nodes of TREES) {
    const before = await cpuMillis();
    const one = await page.evaluate((nodes) => window.bench.open(nodes), nodes);
    opened.push({ ...one, "of it CPU, with the making": (await cpuMillis()) - before });
  }
  console.table(rounded(opened));

  const subjects = [
    { of: "nothing drawn", nodes: 0 },
    { of: "one colour", nodes: -1 },
    ...TREES.map((nodes) => ({ of: `${nodes.toLocaleString("en-US")} nodes, zooming`, nodes })),
  ].map((subject) => ({ ...subject, intervals: [], cpu: 0, rectangles: 0 }));
  for (const { nodes } of subjects) await page.evaluate(([nodes, count]) => window.bench.frames(nodes, count), [nodes, WARM]);
  for (let turn = 0; turn < TURNS; turn++) {
    for (const subject of subjects) {
      const before = await cpuMillis();
      const { intervals, rectangles } = await page.evaluate(([nodes, count]) => window.bench.frames(nodes, count), [subject.nodes, FRAMES]);
      subject.cpu += (await cpuMillis()) - before;
      subject.intervals.push(...intervals);
      subject.rectangles = Math.max(subject.rectangles, rectangles);
    }
  }
  const rows = subjects.map(({ of, intervals, cpu, rectangles }) => {
    const sorted = intervals.sort((a, b) => a - b);
    const late = (100 * sorted.filter((interval) => interval > LATE_MILLIS).length) / sorted.length;
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
    return { of, median: at(0.5), p99: at(0.99), max: at(1), "late, %": late, "CPU a frame": cpu / sorted.length, rectangles };
  });
  console.table(rounded(rows));
} finally {
  await browser.close();
  await server.close();
}
const assets = join(root, "dist/assets");
const sizes = readdirSync(assets).map((name) => [name, gzipSync(readFileSync(join(assets, name)), { level: 9 }).length]);
for (const [name, bytes] of sizes) console.log(`${name}: ${bytes} bytes gzip`);

/** Returns rows with one digit behind the point. */
function rounded(rows) {
  const one = (value) => (typeof value === "number" ? Math.round(value * 10) / 10 : value);
  return rows.map((row) => Object.fromEntries(Object.entries(row).map(([name, value]) => [name, one(value)])));
}
