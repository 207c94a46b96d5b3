// The lines that a page offers to copy run in a shell as they are, and ask what the page shows.

import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { gunzipSync } from "node:zlib";

import { expect, test } from "vitest";

import { link, open, withBrowser } from "./browser";
import { PAYLOADS } from "./payloads";
import { ENVIRONMENT, PROGRAM } from "./program";

withBrowser();

/** Where `tests/tools.sh` puts grpcurl; without it its line is not run. */
const TOOLS = resolve(import.meta.dirname, "../../.cache/bin");

// As a reader pastes them, with names that a shell or a selector could misread; pprof's page becomes its table, as there is nobody to look.
test.each([
  ["a merge", link("/explore", { query: `{l2=${JSON.stringify(PAYLOADS[2])}, version!="it's $(id) \\"x\\""}`, type: "wall", start: "-24h" })],
  ["a comparison", link("/compare", { type: "heap", sample_type: "alloc_space", start: "-24h", query: '{version="1.5"}', base_query: `{service="checkout", version!="it's 1.5"}` })],
])("the lines of %s run", async (_, path) => {
  const page = await open(path);
  await page.getByRole("application").first().waitFor();
  const lines: string[] = [];
  for (const name of ["curl", "curl, folded stacks", "go tool pprof", "grpcurl", "afterglow"]) {
    await page.getByRole("button", { name: "Export", exact: true }).click();
    await page.getByRole("button", { name, exact: true }).click();
    await page.getByText(`Copied the ${name} command`).waitFor();
    lines.push(await page.evaluate(() => navigator.clipboard.readText()));
  }
  const [curl, folded, pprof, grpcurl, afterglow] = lines;
  const folder = mkdtempSync(join(tmpdir(), "afterglow-lines-"));
  const PATH = [folder, TOOLS, process.env["PATH"]].join(":");
  const run = (line: string): string => execFileSync("sh", ["-ec", line], { cwd: folder, encoding: "utf8", env: { ...ENVIRONMENT, PATH, PPROF_TMPDIR: folder } });
  try {
    symlinkSync(PROGRAM, join(folder, "afterglow"));
    run(curl);
    const file = readdirSync(folder).find((name) => name.endsWith(".pb.gz")) ?? "";
    const asked = gunzipSync(readFileSync(join(folder, file)));
    expect(asked.length).toBeGreaterThan(100);
    expect(run(folded)).toMatch(/;.* \d+$/m);
    expect(run(pprof.replace(/-http=:\d+/, "-top"))).toContain("flat%");
    run(afterglow);
    expect(gunzipSync(readFileSync(join(folder, file))).length).toBe(asked.length);
    if (existsSync(join(TOOLS, "grpcurl"))) expect((JSON.parse(run(grpcurl)) as { top: { functions: unknown[] } }).top.functions.length).toBeGreaterThan(3);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
