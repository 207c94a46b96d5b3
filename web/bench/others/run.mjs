// Opens one pprof file in Afterglow's page, in speedscope and in react-pprof, in one run, and prints what each costs: until the first
// picture stands, and while zooming to a frame and back. CPU is that of the whole browser, all of its processes, as the kernel counts it:
// who draws by WebGL draws in another process. `npm run bench:others [-- NODES]`; the others are installed here and nowhere else.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";

import { chromium } from "playwright-core";
import { build, preview } from "vite";

const NODES = Number(process.argv[2] ?? 100_000);
/** How often each is measured, in turn; the median is printed. */
const ROUNDS = Number(process.argv[3] ?? 3);
/** Zooms in and out again, of each. */
const ZOOMS = 8;
/** A zoom is looked at for so long, in milliseconds: its animation, and what follows. */
const ZOOM_MILLIS = 600;
/** A page rests when it has used less CPU than this, in milliseconds, in the time below. */
const REST_CPU = 20;
const REST_MILLIS = 500;
/** The kernel counts CPU in hundredths of a second. */
const TICK_MILLIS = 10;

const here = import.meta.dirname;
const web = join(here, "../..");
const silent = { configFile: false, logLevel: "error" };
const out = join(web, "dist-bench/others");
await build({ ...silent, root: here, build: { outDir: out, emptyOutDir: true, rollupOptions: { input: join(here, "react_pprof.html") } } });
const tools = join(web, "dist-bench/tools");
await build({ ...silent, root: web, build: { lib: { entry: "bench/profiles.ts", formats: ["es"], fileName: "profiles" }, outDir: tools, emptyOutDir: true } });
const { servicePprof } = await import(pathToFileURL(join(tools, "profiles.js")).href);
const { bytes, nodes } = servicePprof(NODES);
const file = join(tmpdir(), `afterglow-bench-${process.pid}.pb.gz`);
writeFileSync(file, gzipSync(bytes));
console.log(`${nodes} nodes, ${(bytes.length / 1e6).toFixed(1)} MB of pprof`);

const serve = (folder) => preview({ ...silent, root: web, build: { outDir: folder }, preview: { port: 0, host: "127.0.0.1" } });
const root = { x: 300, y: 0 };
const subjects = [
  {
    name: "afterglow",
    server: await serve(join(web, "dist")),
    path: "file",
    graph: (page) => page.getByRole("application"),
    zoom: (page, box) => page.mouse.click(box.x + box.width / 2, box.y + 6.5 * 18),
    back: (page, box) => page.mouse.click(box.x + root.x, box.y + 9),
  },
  {
    name: "speedscope",
    server: await serve(join(here, "node_modules/speedscope/dist/release")),
    path: "index.html",
    graph: (page) => page.locator("canvas").last(),
    zoom: (page, box) => page.mouse.dblclick(box.x + box.width / 2, box.y + 250),
    back: (page) => page.keyboard.press("0"),
  },
  {
    name: "react-pprof",
    server: await serve(out),
    path: "react_pprof.html",
    graph: (page) => page.locator("canvas").last(),
    zoom: (page, box) => page.mouse.click(box.x + box.width / 2, box.y + 130),
    back: (page, box) => page.mouse.click(box.x + root.x, box.y + 10),
  },
];

const measured = new Map(subjects.map(({ name }) => [name, []]));
for (let round = 0; round < ROUNDS; round++) {
  for (const subject of subjects) measured.get(subject.name).push(await measure(subject, round === 0));
}
const rows = subjects.map(({ name }) => {
  const all = measured.get(name);
  return { of: name, ...Object.fromEntries(Object.keys(all[0]).map((key) => [key, median(all.map((one) => one[key]))])) };
});
console.table(rows);
for (const { server } of subjects) await server.close();
process.exit(0);

async function measure({ name, server, path, graph, zoom, back }, isPictured) {
  // WebGL without a graphics card, which the others need; the same for all.
  const flags = ["--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"];
  const launched = await chromium.launchServer({ executablePath: process.env.AFTERGLOW_CHROMIUM ?? "/usr/bin/chromium", args: flags });
  const browser = await chromium.connect(launched.wsEndpoint());
  const cpu = () => cpuOf(launched.process().pid);
  try {
    const page = await browser.newPage({ viewport: { width: 1400, height: 900 } });
    page.on("pageerror", (error) => console.log(`${name}: ${error.message}`));
    await page.goto(server.resolvedUrls.local[0] + path);
    await rest(page, cpu);
    const before = cpu();
    const began = performance.now();
    await page.locator("input[type=file]").first().setInputFiles(file);
    await graph(page).waitFor({ timeout: 120_000 });
    const ended = await rest(page, cpu);
    const opening = { "CPU until it stands, ms": cpu() - before, "wall, ms": Math.round(ended - began) };
    const box = await graph(page).boundingBox();
    await page.evaluate(recordFrames);
    await page.waitForTimeout(2 * ZOOM_MILLIS);
    const idle = await page.evaluate("takeFrames()");
    const zooming = cpu();
    for (let i = 0; i < ZOOMS; i++) {
      await zoom(page, box);
      await page.waitForTimeout(ZOOM_MILLIS);
      if (i === 0 && isPictured) await page.screenshot({ path: join(web, `../target/web/bench-${name}.png`) });
      await back(page, box);
      await page.waitForTimeout(ZOOM_MILLIS);
    }
    const frames = await page.evaluate("takeFrames()");
    return {
      ...opening,
      "CPU a zoom, ms": Math.round((cpu() - zooming) / (2 * ZOOMS)),
      "frame p99, ms": at(frames, 0.99),
      "late, %": late(frames),
      "idle p99, ms": at(idle, 0.99),
      "idle late, %": late(idle),
    };
  } finally {
    await browser.close();
    await launched.close();
  }
}

/** Waits until the browser has nothing to do; returns when it last had. */
async function rest(page, cpu) {
  let busy = performance.now();
  for (;;) {
    const before = cpu();
    await page.waitForTimeout(REST_MILLIS);
    if (cpu() - before < REST_CPU) return busy;
    busy = performance.now();
  }
}

/** Runs in the page: notes when frames begin. */
function recordFrames() {
  let times = [];
  const next = (now) => {
    times.push(now);
    requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
  window.takeFrames = () => {
    const taken = times;
    times = [];
    return taken.slice(1).map((time, i) => time - taken[i]);
  };
}

/** CPU of a process and all below it in milliseconds, as /proc has it. */
function cpuOf(pid) {
  const processes = new Map();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const text = readFileSync(`/proc/${name}/stat`, "utf8");
      const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
      processes.set(Number(name), { parent: Number(fields[1]), ticks: Number(fields[11]) + Number(fields[12]) });
    } catch {
      // It has ended meanwhile.
    }
  }
  const isBelow = (one) => one === pid || (processes.has(one) && one > 1 && isBelow(processes.get(one).parent));
  let ticks = 0;
  for (const [one, { ticks: own }] of processes) if (isBelow(one)) ticks += own;
  return ticks * TICK_MILLIS;
}

function at(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return Math.round(10 * (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0)) / 10;
}

function late(values) {
  return Math.round((1_000 * values.filter((value) => value > 25).length) / Math.max(1, values.length)) / 10;
}

function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}
