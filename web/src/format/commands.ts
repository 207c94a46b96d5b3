// The question of a page as lines for a terminal. Every word is quoted for the shell, as label values may hold anything.

import { parametersOf, START_DEFAULT, type Selection } from "../api/selection";
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
  return [
    { name: "curl", line: `curl -s ${shell(url)} -o merged.pb.gz` },
    { name: "curl, folded stacks", line: `curl -s ${shell(folded)}` },
    { name: "go tool pprof", line: `go tool pprof -http=:${sparePort(origin)}${sampleIndex(selection.sampleType)} ${shell(url)}` },
    { name: "grpcurl", line: grpcurl(selection, origin, now) },
    { name: "afterglow", line: afterglow(selection, origin) },
  ];
}

/** Returns the ways to ask for the comparison with such parameters. */
export function diffCommandsOf(parameters: Parameters, origin: string, now: number): Command[] {
  const url = (more: Parameters): string => shell(origin + urlOf("/api/v1/diff", { ...parameters, limit: undefined, ...more }));
  return [
    { name: "curl", line: `curl -s ${url({ format: "pprof" })} -o diff.pb.gz` },
    { name: "curl, folded stacks", line: `curl -s ${url({ format: "folded" })}` },
    // With the base marked, pprof shows shares of it, as for -diff_base.
    {
      name: "go tool pprof",
      line: `go tool pprof -http=:${sparePort(origin)}${sampleIndex(text(parameters, "sample_type"))} ${url({ format: "pprof", mark_base: true })}`,
    },
    { name: "grpcurl", line: grpcurlDiff(parameters, origin, now) },
    { name: "afterglow", line: afterglowDiff(parameters, origin) },
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

/** Which of the sample types pprof shows first, where it is not the usual one. */
function sampleIndex(sampleType: string): string {
  return sampleType === "" ? "" : ` -sample_index=${shell(sampleType)}`;
}

function text(parameters: Parameters, name: string): string {
  return String(parameters[name] ?? "");
}

function grpcurl(selection: Selection, origin: string, now: number): string {
  const { query, type, start, end, ids, sampleType } = selection;
  const which = ids.length > 0 ? { ids, selection: { type } } : { selection: { query, type, ...windowOf(start, end, now) } };
  return grpcurlOf("Merge", { ...which, ...only(sampleType), format: "MERGE_FORMAT_TOP" }, origin);
}

function grpcurlDiff(parameters: Parameters, origin: string, now: number): string {
  const side = (prefix: string) => ({
    query: text(parameters, `${prefix}query`),
    type: text(parameters, "type"),
    ...windowOf(text(parameters, `${prefix}start`), text(parameters, `${prefix}end`), now),
  });
  const request = {
    selection: side(""),
    base: side("base_"),
    ...only(text(parameters, "sample_type")),
    ...(parameters["normalize"] === true && { normalize: true }),
    format: "MERGE_FORMAT_TOP",
  };
  return grpcurlOf("Diff", request, origin);
}

/** A window for gRPC, which knows no relative times. */
function windowOf(start: string, end: string, now: number): { start: string; end: string } {
  const at = (text: string): string => rfc3339(parsed(text, now) ?? now);
  return { start: at(start || START_DEFAULT), end: at(end) };
}

function only(sampleType: string): { sample_type?: string } {
  return sampleType === "" ? {} : { sample_type: sampleType };
}

function grpcurlOf(method: string, request: object, origin: string): string {
  const { protocol, host } = new URL(origin);
  const plain = protocol === "https:" ? "" : "-plaintext ";
  const address = host.includes(":") ? host : `${host}:${protocol === "https:" ? 443 : 80}`;
  return `grpcurl ${plain}-d ${shell(JSON.stringify(request))} ${shell(address)} afterglow.v1.QueryService/${method}`;
}

function afterglow(selection: Selection, origin: string): string {
  const words = ["afterglow", "merge"];
  if (selection.ids.length > 0) for (const id of selection.ids) words.push("--id", id);
  else words.push(selection.query || "{}");
  if (selection.type !== "") words.push("--type", selection.type);
  if (selection.ids.length === 0) {
    // A value that begins with a dash needs the sign of equality.
    words.push(`--from=${selection.start || START_DEFAULT}`);
    if (selection.end !== "") words.push(`--to=${selection.end}`);
  }
  words.push("--server", origin, "-o", "merged.pb.gz");
  return words.map(shell).join(" ");
}

function afterglowDiff(parameters: Parameters, origin: string): string {
  const words = ["afterglow", "diff", text(parameters, "query") || "{}", "--type", text(parameters, "type")];
  // Values that begin with a dash need the sign of equality.
  for (const [flag, name] of [
    ["from", "start"],
    ["to", "end"],
    ["base", "base_query"],
    ["base-from", "base_start"],
    ["base-to", "base_end"],
  ]) {
    const value = text(parameters, name);
    if (value !== "") words.push(`--${flag}=${value}`);
  }
  if (parameters["normalize"] === true) words.push("--normalize");
  words.push("--server", origin, "-o", "diff.pb.gz");
  return words.map(shell).join(" ");
}
