// The story of the tests and of docs/tour.md: `checkout` ran in version 1.4 since yesterday, on two instances; nine hours ago version 1.5 was
// rolled out, and customers wait since. The profiles are real ones, recorded from two builds of e2e/incident; they are sent again and again
// with other times, as a day cannot be waited for. Beside it a second service with fixtures, and a profile that attacks its readers.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";

import { PAYLOADS } from "./payloads";
import { profile, varint } from "./pprof";

const HERE = import.meta.dirname;
const FIXTURES = resolve(HERE, "../../tests/fixtures/profiles");
const HOUR = 3_600e3;
/** How long the service has run, and since when its new version does, in hours before now. */
export const BEGAN_HOURS = 30;
export const ROLLOUT_HOURS = 9;
/** How often it was profiled, in minutes. */
const EVERY_MINUTES = 20;
const INSTANCES = ["a", "b"];

/** Pushes files with further words of the command line; returns what it says. */
export type Push = (files: string[], ...words: string[]) => string;

/** Records and pushes everything. Returns the id of the hostile profile. */
export function record(folder: string, push: Push): string {
  const now = Date.now();
  const files = join(folder, "files");
  mkdirSync(files);
  const go = (...words: string[]): void =>
    void execFileSync("go", words, { cwd: join(HERE, "incident"), env: { ...process.env, GOFLAGS: "-buildvcs=false" } });
  for (const [version, tags, from, to] of [
    ["1.4", "v14", BEGAN_HOURS, ROLLOUT_HOURS],
    ["1.5", "v15", ROLLOUT_HOURS, 0],
  ] as const) {
    const program = join(folder, `checkout-${version}`);
    go("build", "-tags", tags, "-o", program, ".");
    const [cpu, heap] = [join(folder, `cpu-${version}`), join(folder, `heap-${version}`)];
    execFileSync(program, ["-for", "4s", "-cpu", cpu, "-heap", heap]);
    for (const instance of INSTANCES) {
      const labels = ["--service", "checkout", "--label", `version=${version}`, "--label", `instance=checkout-${instance}`];
      for (const [type, recorded] of [
        ["cpu", cpu],
        ["heap", heap],
      ] as const) {
        const stamped: string[] = [];
        // The last one is a minute old: no clock of a test decides whether it is in the window.
        for (let at = now - from * HOUR; at < now - to * HOUR - 60e3; at += EVERY_MINUTES * 60e3) {
          const file = join(files, `${type}-${version}-${instance}-${at}.pb.gz`);
          writeFileSync(file, stampedAt(readFileSync(recorded), at));
          stamped.push(file);
        }
        push(stamped, ...labels, "--type", type);
      }
    }
  }
  for (const type of ["cpu", "heap", "mutex"]) {
    const file = join(files, `parca-${type}.pb.gz`);
    writeFileSync(file, stampedAt(readFileSync(join(FIXTURES, `parca-${type}-1795481626.pb.gz`)), now - 10 * 60e3));
    push([file], "--service", "storage", "--label", "version=0.9", "--type", type);
  }
  mixed(files, push, now);
  return hostile(files, push, now);
}

/** A service whose profiles of the hostile one's type count something else: samples and no time, as those of Node do. */
function mixed(folder: string, push: Push, now: number): void {
  const file = join(folder, "worker.pb.gz");
  const stacks = [{ stack: ["loop", "work"], value: 190 }];
  writeFileSync(file, gzipSync(profile({ type: "samples", unit: "count", time: now - 5 * 60e3, stacks })));
  push([file], "--service", "worker", "--label", "version=2", "--type", "wall");
}

/** A profile whose every text is markup or script, with labels alike. */
function hostile(folder: string, push: Push, now: number): string {
  const file = join(folder, "hostile.pb.gz");
  const stacks = PAYLOADS.map((payload, i) => ({ stack: [`${payload} leaf`, payload, `main.${payload}`], value: (i + 1) * 1e7 }));
  writeFileSync(file, gzipSync(profile({ type: "wall", unit: "nanoseconds", time: now - 5 * 60e3, stacks })));
  const labels = PAYLOADS.flatMap((payload, i) => ["--label", `l${i}=${payload}`]);
  const said = push([file], "--service", PAYLOADS[0], ...labels, "--label", `version=${PAYLOADS[1]}`, "--type", "wall");
  return said.split(" ")[0];
}

/** Returns a profile as of another time: of a field that stands twice, the last counts. */
export function stampedAt(pprof: Buffer, millis: number): Buffer {
  const nanos = [(9 << 3) | 0, ...varint(BigInt(Math.round(millis)) * 1_000_000n)];
  return gzipSync(Buffer.concat([gunzipSync(pprof), Uint8Array.from(nanos)]), { level: 1 });
}
