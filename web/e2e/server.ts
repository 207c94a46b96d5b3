// Starts `afterglow serve` over an empty folder and fills it with the incident, as `afterglow push` does: once for all tests.

import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync, existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";

import { record } from "./incident";
import { ENVIRONMENT, PROGRAM } from "./program";

declare module "vitest" {
  interface ProvidedContext {
    /** Where the server listens. */
    url: string;
    /** The id of a profile whose every text is an attack. */
    hostile: string;
  }
}

/** How long it may take until it listens: a loaded machine with cold caches. */
const START_MILLIS = 60_000;

export default async function setup(project: TestProject): Promise<() => void> {
  if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing: run \`cargo build --bin afterglow\` first`);
  const folder = mkdtempSync(join(tmpdir(), "afterglow-web-"));
  const server = start(folder);
  const stop = (): void => {
    server.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const url = await listening(server, join(folder, "log"));
    const push = (files: string[], ...words: string[]): string =>
      execFileSync(PROGRAM, ["push", "--server", url, ...words, ...files], { encoding: "utf8", env: ENVIRONMENT });
    project.provide("url", url);
    project.provide("hostile", record(folder, push));
  } catch (error) {
    stop();
    throw error;
  }
  return stop;
}

function start(folder: string): ChildProcess {
  const log = openSync(join(folder, "log"), "w");
  const words = ["serve", "--listen", "127.0.0.1:0", "--storage", `file://${folder}/data`, "--no-self-profile"];
  return spawn(PROGRAM, words, { stdio: ["ignore", log, log], env: { ...ENVIRONMENT, AFTERGLOW_LOG_FORMAT: "json" } });
}

async function listening(server: ChildProcess, log: string): Promise<string> {
  const end = Date.now() + START_MILLIS;
  for (;;) {
    const text = readFileSync(log, "utf8");
    for (const line of text.split("\n")) {
      const address = /"message":"[^"]* listens".*"address":"([^"]+)"|"address":"([^"]+)".*"message":"[^"]* listens"/.exec(line);
      if (address !== null) return `http://${address.slice(1).find(Boolean) ?? ""}`;
    }
    if (server.exitCode !== null || Date.now() > end) throw new Error(`the server does not listen:\n${text}`);
    await new Promise((wake) => setTimeout(wake, 20));
  }
}
