// Where a function's source can be read: a template such as `https://github.com/org/repo/blob/{version}/{path}#L{line}`, filled with what a
// profile says. File names and versions are anybody's text, and a template is typed or pasted: a link is made only of http or https, leads to
// the very host that the template names, and its parts are encoded, so that nothing of a profile can change more than the place it stands at.

import type { Origin } from "../flamegraph/tree";

/** How a service's sources are found. */
export interface SourceSetting {
  /** The address, with the placeholders of `PLACEHOLDERS`. */
  template: string;
  /** What paths begin with that are the repository's, which is cut off; all paths are when it is empty. */
  prefix: string;
}

/** What a template may hold in braces. */
export const PLACEHOLDERS = ["path", "line", "version", "service"] as const;

type Placeholder = (typeof PLACEHOLDERS)[number];

/** The longest template that is kept: longer ones are no address of a repository. */
export const TEMPLATE_MAX = 1_000;
/** What stands for a version that is not known: the newest, for GitHub, GitLab and Gitea alike. */
const VERSION_DEFAULT = "HEAD";
/** The line where none is known. */
const LINE_DEFAULT = "1";
const IN_BRACES = /\{([^{}]*)\}/g;

/** Returns what is wrong with a template; `undefined` where nothing is. */
export function problemOf(template: string): string | undefined {
  if (template.length > TEMPLATE_MAX) return `the address has ${template.length} characters; ${TEMPLATE_MAX} are the most`;
  const unknown = [...template.matchAll(IN_BRACES)].find(([, name]) => !isPlaceholder(name));
  if (unknown !== undefined) return `${unknown[0]} is none of {${PLACEHOLDERS.join("}, {")}}`;
  const probe = parsed(template.replaceAll(IN_BRACES, "x"));
  if (probe === undefined) return "this is no address: it begins with https:// or http://";
  if (!isWeb(probe)) return `${probe.protocol} is not opened; https and http are`;
  if (probe.username !== "" || probe.password !== "") return "an address with a password is not kept";
  // Another filling leads to another host: a placeholder stands before the first slash.
  if (parsed(template.replaceAll(IN_BRACES, "y"))?.host !== probe.host) return "placeholders stand behind the host";
  return template.includes("{path}") ? undefined : "{path} is missing";
}

/** Returns the address of a function's source; `undefined` where it has no file, or none of this repository. */
export function sourceUrl(setting: SourceSetting, origin: Origin, service: string, version: string): string | undefined {
  const { template, prefix } = setting;
  if (origin.file === "" || !origin.file.startsWith(prefix) || problemOf(template) !== undefined) return undefined;
  const path = origin.file.slice(prefix.length);
  const filled: Record<Placeholder, string> = {
    path: encodedPath(path),
    line: origin.line > 0 ? String(Math.trunc(origin.line)) : LINE_DEFAULT,
    version: encoded(version === "" ? VERSION_DEFAULT : version),
    service: encoded(service),
  };
  if (filled.path === "") return undefined;
  const text = template.replaceAll(IN_BRACES, (all, name: string) => (isPlaceholder(name) ? filled[name] : all));
  const [url, home] = [parsed(text), parsed(template.replaceAll(IN_BRACES, "x"))];
  return url === undefined || !isWeb(url) || url.host !== home?.host ? undefined : url.href;
}

/** Writes a place as people do: the file's name, and the line where it is known. */
export function placeOf({ file, line }: Origin): string {
  return line > 0 ? `${file}:${line}` : file;
}

/** The same without folders. */
export function shortPlaceOf(origin: Origin): string {
  return placeOf({ ...origin, file: origin.file.slice(Math.max(origin.file.lastIndexOf("/"), origin.file.lastIndexOf("\\")) + 1) });
}

function isPlaceholder(name: string): name is Placeholder {
  return (PLACEHOLDERS as readonly string[]).includes(name);
}

function isWeb(url: URL): boolean {
  return url.protocol === "https:" || url.protocol === "http:";
}

function parsed(text: string): URL | undefined {
  return URL.canParse(text) ? new URL(text) : undefined;
}

/** Encodes a path folder by folder; what would climb out of the repository goes. */
function encodedPath(path: string): string {
  return path
    .split(/[/\\]+/)
    .filter((folder) => folder !== "" && folder !== "." && folder !== "..")
    .map(encoded)
    .join("/");
}

function encoded(text: string): string {
  // A lone half of a surrogate pair has no encoding. Quotes and brackets would end a link where it is pasted. Dots alone would climb.
  const escaped = encodeURIComponent(text.toWellFormed()).replaceAll(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  return /^\.+$/.test(escaped) ? "" : escaped;
}
