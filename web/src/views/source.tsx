// Links from functions to their source: the reader says once how a service's sources are addressed (format/source.ts has the rules), and
// functions link there. The setting is kept in this browser and sent to nobody; it is read as if anybody had written it.

import { useMemo, useState, useSyncExternalStore } from "react";

import { demanded, type Selection } from "../api/selection";
import type { Origin } from "../flamegraph/tree";
import { placeOf, PLACEHOLDERS, problemOf, sourceUrl, type SourceSetting } from "../format/source";
import { say } from "./copy";
import { Popover } from "./popover";

const KEY = "afterglow.source";
const CHANGED = "afterglow:source";
/** Under which the setting for services without their own is kept: no service has an empty name. */
const ALL = "";
/** How many services are remembered; the oldest are forgotten first. */
const SERVICES_MAX = 200;

/** Of what the functions are, as far as addresses need it. */
export interface SourceOf {
  service: string;
  version: string;
}

/** Returns what a selection says of its source. */
export function sourceOf(selection: Selection): SourceOf {
  return { service: demanded(selection.query, "service") ?? "", version: demanded(selection.query, "version") ?? "" };
}

type Settings = Record<string, SourceSetting>;

function read(text: string | null): Settings {
  try {
    const found: unknown = JSON.parse(text ?? "{}");
    if (typeof found !== "object" || found === null) return {};
    const isSetting = (one: unknown): one is SourceSetting =>
      typeof one === "object" && one !== null && "template" in one && "prefix" in one && typeof one.template === "string" && typeof one.prefix === "string";
    return Object.fromEntries(Object.entries(found).filter((entry): entry is [string, SourceSetting] => isSetting(entry[1])));
  } catch {
    return {};
  }
}

function stored(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    // Storage may be forbidden; then nothing is kept.
    return null;
  }
}

function subscribe(changed: () => void): () => void {
  addEventListener("storage", changed);
  addEventListener(CHANGED, changed);
  return () => {
    removeEventListener("storage", changed);
    removeEventListener(CHANGED, changed);
  };
}

/** Keeps the setting of a service, or removes it; returns whether the browser lets it. */
function keep(service: string, setting: SourceSetting | undefined): boolean {
  const others = Object.entries(read(stored())).filter(([name]) => name !== service);
  const next = setting === undefined ? others : [...others, [service, setting] as const];
  try {
    localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(next.slice(-SERVICES_MAX))));
  } catch {
    return false;
  }
  dispatchEvent(new Event(CHANGED));
  return true;
}

/** Makes the address of a function's source, where there is one. */
export type Sourced = (origin: Origin | undefined) => string | undefined;

/** Returns how functions of `of` link to their source, and the setting that says so. */
export function useSource(of: SourceOf): { urlOf: Sourced; own: SourceSetting | undefined; shared: SourceSetting | undefined } {
  const text = useSyncExternalStore(subscribe, stored);
  const { service, version } = of;
  return useMemo(() => {
    const settings = read(text);
    const own = Object.hasOwn(settings, service) ? settings[service] : undefined;
    const shared = Object.hasOwn(settings, ALL) ? settings[ALL] : undefined;
    const setting = own ?? shared;
    const urlOf: Sourced = (origin) =>
      origin === undefined || setting === undefined ? undefined : sourceUrl(setting, origin, service, version);
    return { urlOf, own, shared };
  }, [text, service, version]);
}

export interface SourceLinkProps {
  origin: Origin | undefined;
  urlOf: Sourced;
  /** What is shown of the place. */
  text: string;
  tabIndex?: number;
}

/** A place in the source: a link where it has an address, else its text. */
export function SourceLink({ origin, urlOf, text, tabIndex }: SourceLinkProps) {
  const url = urlOf(origin);
  const title = origin === undefined ? undefined : placeOf(origin);
  if (url === undefined) return <span title={title}>{text}</span>;
  return (
    <a href={url} target="_blank" rel="noopener noreferrer" title={`${title ?? ""} at ${new URL(url).host}`} tabIndex={tabIndex} onClick={(event) => event.stopPropagation()}>
      {text}
    </a>
  );
}

/** Where the reader says how sources are addressed. `example` is a place of the profile at hand. */
export function SourceSettings({ of, example }: { of: SourceOf; example: Origin | undefined }) {
  return (
    <Popover label="Source links" title="Where sources are found" align="end">
      {(close) => <SettingsForm of={of} example={example} onDone={close} />}
    </Popover>
  );
}

function SettingsForm({ of, example, onDone }: { of: SourceOf; example: Origin | undefined; onDone: () => void }) {
  const { own, shared } = useSource(of);
  const setting = own ?? shared;
  const [template, setTemplate] = useState(setting?.template ?? "");
  const [prefix, setPrefix] = useState(setting?.prefix ?? "");
  const [isForAll, setForAll] = useState(of.service === "" || (own === undefined && shared !== undefined));
  const problem = template === "" ? undefined : problemOf(template);
  const shown = example === undefined || problem !== undefined || template === "" ? undefined : sourceUrl({ template, prefix }, example, of.service, of.version);
  const save = (next: SourceSetting | undefined): void => {
    if (keep(isForAll ? ALL : of.service, next)) onDone();
    else say("The browser does not let this page keep settings.");
  };
  return (
    <form
      className="source"
      onSubmit={(event) => {
        event.preventDefault();
        if (problem === undefined) save(template === "" ? undefined : { template, prefix });
      }}
    >
      <label className="field">
        <span>Address of a file{of.service === "" || isForAll ? "" : ` of ${of.service}`}</span>
        <input
          type="text"
          value={template}
          spellCheck={false}
          placeholder="https://github.com/org/repo/blob/{version}/{path}#L{line}"
          aria-invalid={problem !== undefined}
          onChange={(event) => setTemplate(event.target.value.trim())}
        />
      </label>
      <p className="hint">
        With {PLACEHOLDERS.map((name) => `{${name}}`).join(", ")}. A version that is not selected is HEAD. Kept in this browser alone.
      </p>
      <label className="field">
        <span>What paths of the repository begin with, cut off</span>
        <input type="text" value={prefix} spellCheck={false} placeholder={example?.file ?? "/build/src/"} onChange={(event) => setPrefix(event.target.value)} />
      </label>
      {of.service === "" ? null : (
        <label className="check">
          <input type="checkbox" checked={isForAll} onChange={(event) => setForAll(event.target.checked)} /> for all services without their own
        </label>
      )}
      {problem === undefined ? null : (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
      {example === undefined || template === "" || problem !== undefined ? null : (
        <p className="hint mono">{shown ?? `${placeOf(example)} does not begin so: no link`}</p>
      )}
      <div className="buttons">
        <button type="submit" className="primary" disabled={problem !== undefined}>
          Keep
        </button>
        {setting === undefined ? null : (
          <button type="button" onClick={() => save(undefined)}>
            Forget
          </button>
        )}
      </div>
    </form>
  );
}
