// Reads a pprof file in the browser: gunzip by the browser's own stream, then the protobuf messages of perftools.profiles (profile.proto of
// google/pprof) field by field, only those that a flame graph needs. For files dropped on the page and for single profiles; merges are
// the server's. The build needs no WebAssembly target for it.
//
// The file is anybody's: every length, index and the unpacked size are checked, and a fault says what and where.

import { TreeBuilder, type Origin, type Tree } from "../flamegraph/tree";
import type { SampleType } from "../api/answers";

/** The most bytes a file may have once unpacked, as the server's default limit. */
export const UNPACKED_MAX = 64 * 2 ** 20;
/** What a function is called of which nothing is known. */
const UNKNOWN = "<unknown>";

/** A pprof file as far as the page shows it. */
export interface Profile {
  sampleTypes: SampleType[];
  /** The index of the sample type that the file would have shown first. */
  sampleTypeDefault: number;
  /** When it began in unix milliseconds; 0 when it does not say. */
  time: number;
  /** How long it was recorded, in seconds. */
  duration: number;
  samples: { locations: number[]; values: number[] }[];
  /** The names of a location's frames by its id, the innermost first. */
  frames: Map<number, string[]>;
  /** Where each name comes from; of several files, the first in the alphabet. */
  origins: Map<string, Origin>;
}

/** A location as the file has it: functions with their lines, the innermost first. */
interface Location {
  lines: { function: number; line: number }[];
  mapping: number;
}

/** A function as the file has it; texts are indices into its strings. */
interface PprofFunction {
  name: number;
  file: number;
  startLine: number;
}

/** Unpacks and reads a file. Throws an `Error` that says what is wrong with it. */
export async function profileOf(file: Blob): Promise<Profile> {
  const head = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const isGzip = head[0] === 0x1f && head[1] === 0x8b;
  const bytes = isGzip ? await unpacked(file) : new Uint8Array(await file.arrayBuffer());
  if (bytes.length > UNPACKED_MAX) throw tooLarge();
  return decoded(bytes);
}

function tooLarge(): Error {
  return new Error(`the file has more than ${UNPACKED_MAX / 2 ** 20} MiB unpacked; send it to the server instead`);
}

async function unpacked(file: Blob): Promise<Uint8Array> {
  const reader = file.stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  const parts: Uint8Array[] = [];
  let length = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      length += value.length;
      if (length > UNPACKED_MAX) break;
    }
  } catch {
    throw new Error("the file is not whole: its gzip stream is damaged or ends early");
  }
  if (length > UNPACKED_MAX) {
    await reader.cancel();
    throw tooLarge();
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Reads the fields of a protobuf message. */
class Fields {
  #at: number;
  field = 0;
  wire = 0;

  constructor(
    readonly bytes: Uint8Array,
    start: number,
    readonly end: number,
  ) {
    this.#at = start;
  }

  next(): boolean {
    if (this.#at >= this.end) return false;
    const tag = this.varint();
    this.field = Math.floor(tag / 8);
    this.wire = tag % 8;
    if (this.field === 0) throw new Error("this is not a pprof file: it is no protobuf");
    return true;
  }

  /** Reads an unsigned varint; above 2^53 it is rounded. Negative numbers have ten bytes. */
  varint(): number {
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.#at >= this.end) throw new Error("this is not a pprof file: a number ends early");
      const byte = this.bytes[this.#at++];
      if (shift < 28) low |= (byte & 0x7f) << shift;
      else if (shift === 28) {
        low |= (byte & 0x0f) << 28;
        high |= (byte & 0x7f) >> 4;
      } else high |= (byte & 0x7f) << (shift - 32);
      // Two's complement: the sign is bit 63.
      if (byte < 0x80) return (high | 0) * 2 ** 32 + (low >>> 0);
    }
    throw new Error("this is not a pprof file: a number is too long");
  }

  message(): Fields {
    const length = this.#length();
    const inner = new Fields(this.bytes, this.#at, this.#at + length);
    this.#at += length;
    return inner;
  }

  text(): string {
    const length = this.#length();
    const text = new TextDecoder().decode(this.bytes.subarray(this.#at, this.#at + length));
    this.#at += length;
    return text;
  }

  /** Reads a repeated number, packed or not. */
  numbers(into: number[]): void {
    if (this.wire !== 2) {
      into.push(this.varint());
      return;
    }
    for (const inner = this.message(); inner.#at < inner.end; ) into.push(inner.varint());
  }

  skip(): void {
    if (this.wire === 0) this.varint();
    else if (this.wire === 2) this.message();
    else if (this.wire === 1) this.#at += 8;
    else if (this.wire === 5) this.#at += 4;
    else throw new Error("this is not a pprof file: it is no protobuf");
  }

  #length(): number {
    const length = this.varint();
    if (length < 0 || length > this.end - this.#at) throw new Error("this is not a pprof file: a part is longer than the whole");
    return length;
  }
}

/** Reads the protobuf of a profile. */
export function decoded(bytes: Uint8Array): Profile {
  const strings: string[] = [];
  const types: { type: number; unit: number }[] = [];
  const samples: Profile["samples"] = [];
  const locations = new Map<number, Location>();
  const functions = new Map<number, PprofFunction>();
  const mappings = new Map<number, number>();
  let [time, duration, shown] = [0, 0, 0];
  for (const fields = new Fields(bytes, 0, bytes.length); fields.next(); ) {
    if (fields.field === 1) types.push(valueType(fields.message()));
    else if (fields.field === 2) samples.push(sample(fields.message()));
    else if (fields.field === 3) mapping(fields.message(), mappings);
    else if (fields.field === 4) location(fields.message(), locations);
    else if (fields.field === 5) functionOf(fields.message(), functions);
    else if (fields.field === 6) strings.push(fields.text());
    else if (fields.field === 9) time = fields.varint();
    else if (fields.field === 10) duration = fields.varint();
    else if (fields.field === 14) shown = fields.varint();
    else fields.skip();
  }
  const text = (index: number): string => {
    if (index < 0 || index >= strings.length) throw new Error(`the file is damaged: it has no string ${index}`);
    return strings[index];
  };
  const sampleTypes = types.map(({ type, unit }) => ({ type: text(type), unit: text(unit) }));
  if (sampleTypes.length === 0) throw new Error("this is not a pprof file: it has no sample types");
  const frames = new Map<number, string[]>();
  const origins = new Map<string, Origin>();
  for (const [id, { lines, mapping }] of locations) {
    const from = text(mappings.get(mapping) ?? 0);
    const note = (name: string, origin: Origin): string => {
      const known = origins.get(name);
      origins.set(name, known === undefined ? origin : firstOf(known, origin));
      return name;
    };
    const nameless = (): string => note(mappingName(from), { file: "", line: 0, mapping: from });
    const names = lines.map(({ function: id, line }) => {
      if (id === 0) return nameless();
      const called = functions.get(id);
      if (called === undefined) throw new Error(`the file is damaged: it has no function ${id}`);
      const name = text(called.name);
      if (name === "") return nameless();
      return note(name, { file: text(called.file), line: called.startLine > 0 ? called.startLine : line, mapping: from });
    });
    if (names.length === 0) names.push(nameless());
    frames.set(id, names);
  }
  for (const { values } of samples) {
    if (values.length !== sampleTypes.length) throw new Error("the file is damaged: a sample has more or fewer values than types");
  }
  const chosen = shown === 0 ? -1 : sampleTypes.findIndex(({ type }) => type === text(shown));
  return {
    sampleTypes,
    sampleTypeDefault: chosen < 0 ? sampleTypes.length - 1 : chosen,
    time: time / 1e6,
    duration: duration / 1e9,
    samples,
    frames,
    origins,
  };
}

/** What stands for a function without a name: the file name of the program or library, in brackets, as the server has it. */
function mappingName(path: string): string {
  if (path === "") return UNKNOWN;
  return `[${path.replace(/\/+$/, "").split("/").at(-1) || "/"}]`;
}

/** Takes two places of a name together as the server does: the first file, its first line, the first mapping. */
function firstOf(a: Origin, b: Origin): Origin {
  const first = (x: string, y: string): string => (x === "" || (y !== "" && y < x) ? y : x);
  const file = first(a.file, b.file);
  const lines = [a, b].filter((one) => one.file === file && one.line > 0).map(({ line }) => line);
  return { file, line: lines.length === 0 ? 0 : Math.min(...lines), mapping: first(a.mapping, b.mapping) };
}

function valueType(fields: Fields): { type: number; unit: number } {
  const read = { type: 0, unit: 0 };
  while (fields.next()) {
    if (fields.field === 1) read.type = fields.varint();
    else if (fields.field === 2) read.unit = fields.varint();
    else fields.skip();
  }
  return read;
}

function sample(fields: Fields): { locations: number[]; values: number[] } {
  const read = { locations: [], values: [] };
  while (fields.next()) {
    if (fields.field === 1) fields.numbers(read.locations);
    else if (fields.field === 2) fields.numbers(read.values);
    else fields.skip();
  }
  return read;
}

function mapping(fields: Fields, into: Map<number, number>): void {
  let [id, file] = [0, 0];
  while (fields.next()) {
    if (fields.field === 1) id = fields.varint();
    else if (fields.field === 5) file = fields.varint();
    else fields.skip();
  }
  into.set(id, file);
}

function location(fields: Fields, into: Map<number, Location>): void {
  let id = 0;
  const read: Location = { lines: [], mapping: 0 };
  while (fields.next()) {
    if (fields.field === 1) id = fields.varint();
    else if (fields.field === 2) read.mapping = fields.varint();
    else if (fields.field === 4) {
      const found = { function: 0, line: 0 };
      for (const line = fields.message(); line.next(); ) {
        if (line.field === 1) found.function = line.varint();
        else if (line.field === 2) found.line = line.varint();
        else line.skip();
      }
      read.lines.push(found);
    } else fields.skip();
  }
  into.set(id, read);
}

function functionOf(fields: Fields, into: Map<number, PprofFunction>): void {
  let id = 0;
  const read: PprofFunction = { name: 0, file: 0, startLine: 0 };
  while (fields.next()) {
    if (fields.field === 1) id = fields.varint();
    else if (fields.field === 2) read.name = fields.varint();
    else if (fields.field === 4) read.file = fields.varint();
    else if (fields.field === 5) read.startLine = fields.varint();
    else fields.skip();
  }
  into.set(id, read);
}

/** A stack under construction. */
interface Branch {
  children: Map<string, Branch>;
  self: number;
  total: number;
}

/** Returns which sample type a name means: the profile's default where it has none of that name. */
export function indexOf(profile: Profile, name: string): number {
  const found = profile.sampleTypes.findIndex(({ type }) => type === name);
  return found < 0 ? profile.sampleTypeDefault : found;
}

/** Makes the flame graph of one of a profile's sample types. */
export function flameGraphOf(profile: Profile, sampleType: number): Tree {
  const root: Branch = { children: new Map(), self: 0, total: 0 };
  for (const { locations, values } of profile.samples) {
    const amount = values[sampleType];
    if (amount === 0) continue;
    let at = root;
    root.total += amount;
    for (let i = locations.length - 1; i >= 0; i--) {
      const names = profile.frames.get(locations[i]);
      if (names === undefined) throw new Error(`the file is damaged: it has no location ${locations[i]}`);
      for (let inlined = names.length - 1; inlined >= 0; inlined--) {
        let next = at.children.get(names[inlined]);
        if (next === undefined) {
          next = { children: new Map(), self: 0, total: 0 };
          at.children.set(names[inlined], next);
        }
        next.total += amount;
        at = next;
      }
    }
    at.self += amount;
  }
  const builder = new TreeBuilder();
  const open: { name: string; branch: Branch; depth: number }[] = [{ name: "total", branch: root, depth: 0 }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { name, branch, depth } = next;
    builder.add(name, depth, branch.total, branch.self);
    // The heaviest first; it leaves the stack last pushed.
    const children = [...branch.children].sort(([, a], [, b]) => a.total - b.total);
    for (const [name, branch] of children) open.push({ name, branch, depth: depth + 1 });
  }
  return builder.build(profile.sampleTypes[sampleType], false, 0, profile.origins);
}
