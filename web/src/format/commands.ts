// The question of a page as lines for a terminal. Every word is quoted for the shell, as label values may hold anything.

import { parametersOf, type Selection } from "../api/selection";
import { urlOf, type Parameters } from "../api/client";
import { parsed, rfc3339 } from "./times";

/** A line to copy. */
export interface Command {
  name: string;
  line: string;
}

/** Returns the ways to ask for a merge of a selection at `origin`. */
export function commandsOf(selection: Selection, origin: string, now: number): Command[] {
  const url = origin + urlOf("/api/v1/merge", parametersOf(selection));
  const folded = origin + urlOf("/api/v1/merge", { ...parametersOf(selection), sample_type: selection.sampleType, format: "folded" });
  const only = selection.sampleType === "" ? "" : ` -sample_index=${shell(selection.sampleType)}`;
  return [
    { name: "curl", line: `curl -s ${shell(url)} -o merged.pb.gz` },
    { name: "curl, folded stacks", line: `curl -s ${shell(folded)}` },
    { name: "go tool pprof", line: `go tool pprof -http=:${sparePort(origin)}${only} ${shell(url)}` },
    { name: "grpcurl", line: grpcurl(selection, origin, now) },
    { name: "afterglow", line: afterglow(selection, origin) },
  ];
}

/** Returns the ways to ask for the comparison with such parameters. */
export function diffCommandsOf(parameters: Parameters, origin: string): Command[] {
  const url = (more: Parameters): string => shell(origin + urlOf("/api/v1/diff", { ...parameters, limit: undefined, ...more }));
  return [
    { name: "curl", line: `curl -s ${url({ format: "pprof" })} -o diff.pb.gz` },
    { name: "curl, folded stacks", line: `curl -s ${url({ format: "folded" })}` },
    // With the base marked, pprof shows shares of it, as for -diff_base.
    { name: "go tool pprof", line: `go tool pprof -http=:${sparePort(origin)} ${url({ format: "pprof", mark_base: true })}` },
  ];
}

/** Quotes a word for a POSIX shell. */
export function shell(word: string): string {
  return /^[A-Za-z0-9_./:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** pprof's page needs a port of its own on the reader's machine. */
function sparePort(origin: string): number {
  return new URL(origin).port === "8081" ? 8082 : 8081;
}

function grpcurl(selection: Selection, origin: string, now: number): string {
  const at = (text: string): string => rfc3339(parsed(text, now) ?? now);
  const window = { start: at(selection.start || "-1h"), end: at(selection.end) };
  const request =
    selection.ids.length > 0
      ? { ids: selection.ids, selection: { type: selection.type }, format: "MERGE_FORMAT_TOP" }
      : { selection: { query: selection.query, type: selection.type, ...window }, format: "MERGE_FORMAT_TOP" };
  const { protocol, host } = new URL(origin);
  const plain = protocol === "https:" ? "" : "-plaintext ";
  const address = host.includes(":") ? host : `${host}:${protocol === "https:" ? 443 : 80}`;
  return `grpcurl ${plain}-d ${shell(JSON.stringify(request))} ${shell(address)} afterglow.v1.QueryService/Merge`;
}

function afterglow(selection: Selection, origin: string): string {
  const words = ["afterglow", "merge"];
  if (selection.ids.length > 0) for (const id of selection.ids) words.push("--id", id);
  else words.push(selection.query || "{}");
  if (selection.type !== "") words.push("--type", selection.type);
  if (selection.ids.length === 0) {
    // A value that begins with a dash needs the sign of equality.
    words.push(`--from=${selection.start || "-1h"}`);
    if (selection.end !== "") words.push(`--to=${selection.end}`);
  }
  words.push("--server", origin, "-o", "merged.pb.gz");
  return words.map(shell).join(" ");
}
