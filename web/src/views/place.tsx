// Where the reader is: the path says which page, the parameters all of its state. Whatever a link holds is read from here and written here,
// so that copying the address copies the view, and the browser's back button undoes.

import { useSyncExternalStore, type ReactNode } from "react";

import type { Selection } from "../api/selection";

/** A page with its state. */
export interface Place {
  path: string;
  params: URLSearchParams;
}

const CHANGED = "afterglow:place";
let read: { href: string; place: Place } | undefined;

function subscribe(changed: () => void): () => void {
  addEventListener("popstate", changed);
  addEventListener(CHANGED, changed);
  return () => {
    removeEventListener("popstate", changed);
    removeEventListener(CHANGED, changed);
  };
}

function current(): Place {
  if (read?.href !== location.href) {
    read = { href: location.href, place: { path: location.pathname, params: new URLSearchParams(location.search) } };
  }
  return read.place;
}

/** Returns where the reader is, and again when that changes. */
export function usePlace(): Place {
  return useSyncExternalStore(subscribe, current);
}

/** Changes of parameters: an empty text, or no value, removes one; a list sets it several times. */
export type Changes = Record<string, string | readonly string[] | undefined>;

/** Returns parameters with changes. */
export function changed(params: URLSearchParams, changes: Changes): URLSearchParams {
  const next = new URLSearchParams(params);
  for (const [name, value] of Object.entries(changes)) {
    next.delete(name);
    for (const one of typeof value === "string" ? [value] : (value ?? [])) if (one !== "") next.append(name, one);
  }
  return next;
}

/** Writes a place as a link. */
export function hrefOf(path: string, params: URLSearchParams): string {
  const query = params.toString();
  return query === "" ? path : `${path}?${query}`;
}

/** Goes to a place. `replace` leaves no entry in the history, for state that changes with every key. */
export function go(path: string, params: URLSearchParams, replace = false): void {
  const href = hrefOf(path, params);
  if (replace) history.replaceState(null, "", href);
  else history.pushState(null, "", href);
  dispatchEvent(new Event(CHANGED));
}

/** Changes parameters of the page the reader is on. */
export function change(changes: Changes, replace = false): void {
  const { path, params } = current();
  go(path, changed(params, changes), replace);
}

/** Writes a selection as parameters of links. */
export function paramsOf(selection: Selection): URLSearchParams {
  return changed(new URLSearchParams(), {
    query: selection.query,
    type: selection.type,
    start: selection.start,
    end: selection.end,
    sample_type: selection.sampleType,
    ids: selection.ids.join(","),
  });
}

export interface LinkProps {
  to: string;
  params?: URLSearchParams;
  className?: string;
  title?: string;
  isCurrent?: boolean;
  children: ReactNode;
}

/** A link within the UI: no reload, but a real link to copy or open elsewhere. */
export function Link({ to, params = new URLSearchParams(), className, title, isCurrent, children }: LinkProps) {
  return (
    <a
      href={hrefOf(to, params)}
      className={className}
      title={title}
      aria-current={isCurrent === true ? "page" : undefined}
      onClick={(event) => {
        if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        go(to, params);
        scrollTo(0, 0);
      }}
    >
      {children}
    </a>
  );
}
