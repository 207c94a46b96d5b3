// Which profiles a page is about: the part of every link that names them, in the API's own words, so that a link can be read, and turned
// into a request by changing its path.

import type { Parameters } from "./client";

/** A selection as texts: what is empty is the default. */
export interface Selection {
  /** A selector such as `{service="api"}`. */
  query: string;
  /** The profile type, such as `cpu`. */
  type: string;
  /** The start of the window: RFC 3339, or relative such as `-1h`. */
  start: string;
  /** The end of the window; `now` when empty. */
  end: string;
  /** Which of the profile's sample types is shown. */
  sampleType: string;
  /** Hand-picked profiles: when there are any, they alone. */
  ids: string[];
}

/** The window of a link that does not say one. */
export const START_DEFAULT = "-1h";

/** Reads the selection of a link. `prefix` is `base_` for the base of a comparison. */
export function selectionOf(params: URLSearchParams, prefix = ""): Selection {
  const text = (name: string): string => params.get(prefix + name) ?? "";
  return {
    query: text("query"),
    type: params.get("type") ?? "",
    start: text("start"),
    end: text("end"),
    sampleType: params.get("sample_type") ?? "",
    ids: text("ids")
      .split(",")
      .filter((id) => id !== ""),
  };
}

/** Turns a selection into a question's parameters. */
export function parametersOf(selection: Selection): Parameters {
  // Hand-picked profiles are named whole; a window would leave some out.
  if (selection.ids.length > 0) {
    return { ids: selection.ids.join(","), type: selection.type };
  }
  return {
    query: selection.query,
    type: selection.type,
    start: selection.start === "" ? START_DEFAULT : selection.start,
    end: selection.end,
  };
}

/** One condition of a selector. */
export interface Matcher {
  name: string;
  operator: "=" | "!=" | "=~" | "!~";
  value: string;
}

const MATCHER = /\s*([a-zA-Z_][a-zA-Z0-9_.-]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(,|$)/y;

/** Reads a selector's conditions; `undefined` when it is not one, which the server will explain better. */
export function matchersOf(query: string): Matcher[] | undefined {
  const trimmed = query.trim();
  if (trimmed === "") return [];
  if (!trimmed.startsWith("{") || !trimmed.endsWith("}")) return undefined;
  const inner = trimmed.slice(1, -1).trim();
  const matchers: Matcher[] = [];
  MATCHER.lastIndex = 0;
  while (MATCHER.lastIndex < inner.length) {
    const found = MATCHER.exec(inner);
    if (found === null) return undefined;
    matchers.push({ name: found[1], operator: found[2] as Matcher["operator"], value: unescaped(found[3]) });
  }
  return matchers;
}

/** Writes a selector. */
export function queryOf(matchers: Matcher[]): string {
  return `{${matchers.map(({ name, operator, value }) => `${name}${operator}${quoted(value)}`).join(", ")}}`;
}

/** Returns the selector with one more condition, in place of one about the same label with `=`. */
export function narrowed(query: string, name: string, value: string): string {
  const others = (matchersOf(query) ?? []).filter((matcher) => matcher.name !== name || matcher.operator !== "=");
  return queryOf([...others, { name, operator: "=", value }]);
}

/** Returns the value that the selector demands of a label by `=`. */
export function demanded(query: string, name: string): string | undefined {
  return matchersOf(query)?.find((matcher) => matcher.name === name && matcher.operator === "=")?.value;
}

/** Writes a value as selectors and JSON have it. */
export function quoted(value: string): string {
  return `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`;
}

function unescaped(value: string): string {
  return value.replaceAll(/\\(.)/g, (_, c: string) => (c === "n" ? "\n" : c));
}
