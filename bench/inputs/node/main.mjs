// The TypeScript compiler as a long-running service that writes its own wall and heap profiles, as @datadog/pprof encodes them.
//
// Usage: node main.mjs PREFIX SECONDS [once]
// It checks and prints its own declarations over and over with pauses between, and each SECONDS writes PREFIX-wall-<n>.pb.gz and
// PREFIX-heap-<n>.pb.gz. With `once`, it checks without pause, sampled ten times as finely, writes the two and ends.
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { encode, heap, time } from "@datadog/pprof";
import ts from "typescript";

const [prefix, seconds, once] = process.argv.slice(2);
const library = createRequire(import.meta.url).resolve("typescript/lib/typescript.d.ts");
const targets = [ts.ScriptTarget.ES2020, ts.ScriptTarget.ESNext, ts.ScriptTarget.ES5];
const wall = { intervalMicros: once ? 1000 : 10_000, durationMillis: 3_600_000, lineNumbers: true };
const kept = [];

function check(target) {
  const program = ts.createProgram([library], { target, strict: true, noEmit: true, skipLibCheck: false });
  kept.push(ts.getPreEmitDiagnostics(program).length, program);
  if (kept.length > 4) kept.splice(0, 2);
  const printer = ts.createPrinter();
  return program.getSourceFiles().reduce((sum, file) => sum + printer.printFile(file).length, 0);
}

async function write(number) {
  const name = (type) => `${prefix}-${type}-${String(number).padStart(3, "0")}.pb.gz`;
  writeFileSync(name("wall"), await encode(time.stop(!once)));
  writeFileSync(name("heap"), await encode(heap.profile()));
}

heap.start(once ? 16 * 1024 : 256 * 1024, 64);
time.start(wall);
const end = Date.now() + seconds * 1000;
for (let number = 1; ; number++) {
  const until = once ? end : Date.now() + seconds * 1000;
  for (let at = number; Date.now() < until; at++) {
    check(targets[at % targets.length]);
    if (!once) await sleep(Math.min(12_000 + 4000 * (at % 3), Math.max(0, until - Date.now())));
  }
  await write(number);
  if (once) break;
}
process.exit(0);
