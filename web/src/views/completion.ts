// What a half-written selector asks to be completed with.

import { matchersOf, queryOf, quoted, type Matcher } from "../api/selection";

/** What stands at the caret. */
export type Context =
  | { is: "name"; typed: string; start: number; end: number }
  | { is: "value"; label: string; typed: string; start: number; end: number };

const NAME_AT_END = /(?:^\s*|\{\s*|,\s*)([a-zA-Z_][a-zA-Z0-9_.-]*)?$/;
const VALUE_AT_END = /([a-zA-Z_][a-zA-Z0-9_.-]*)\s*(?:=~|!~|!=|=)\s*("?)((?:[^"\\]|\\.)*)$/;

/** Returns what the text before the caret asks for; `undefined` where nothing can be said. */
export function contextAt(text: string, caret: number): Context | undefined {
  const before = text.slice(0, caret);
  const value = VALUE_AT_END.exec(before);
  if (value !== null) {
    const [, label, quote, typed] = value;
    const start = caret - typed.length - quote.length;
    // What is typed runs on behind the caret, up to its quote.
    const rest = /^(?:[^"\\,}]|\\.)*"?/.exec(text.slice(caret));
    // Suggestions are compared with what is meant, not with how it is written.
    return { is: "value", label, typed: typed.replaceAll(/\\(.)/g, "$1"), start, end: caret + (quote === "" ? 0 : (rest?.[0].length ?? 0)) };
  }
  const name = NAME_AT_END.exec(before);
  if (name === null) return undefined;
  const typed = name.at(1) ?? "";
  return { is: "name", typed, start: caret - typed.length, end: caret };
}

const CONDITION = /[a-zA-Z_][a-zA-Z0-9_.-]*\s*(?:=~|!~|!=|=)\s*"(?:[^"\\]|\\.)*"/g;

/** Returns the selector of the whole conditions beside what is being completed: what is suggested goes with them. */
export function besides(text: string, context: Context): string {
  const others: Matcher[] = [];
  for (const found of text.matchAll(CONDITION)) {
    const isTouched = found.index < context.end && found.index + found[0].length > context.start;
    if (!isTouched) others.push(...(matchersOf(`{${found[0]}}`) ?? []));
  }
  return others.length === 0 ? "" : queryOf(others);
}

/** Puts a word in the place of what was typed. */
export function completed(text: string, context: Context, word: string): { text: string; caret: number } {
  const before = text.slice(0, context.start);
  const after = text.slice(context.end);
  if (context.is === "name") {
    const opened = before.trim() === "" ? `{${before.trim()}` : before;
    const put = `${opened}${word}="`;
    return { text: put + after, caret: put.length };
  }
  const put = `${before}${quoted(word)}`;
  const closed = after.trim() === "" ? "}" : after;
  return { text: put + closed, caret: put.length };
}
