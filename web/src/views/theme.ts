// Dark or light: as the system says, until the reader chooses; the choice is kept in this browser and never sent.

import { useSyncExternalStore } from "react";

export type Theme = "light" | "dark";

const KEY = "afterglow.theme";
const CHANGED = "afterglow:theme";

function media(): MediaQueryList {
  return matchMedia("(prefers-color-scheme: dark)");
}

function current(): Theme {
  const chosen = stored();
  return chosen ?? (media().matches ? "dark" : "light");
}

function stored(): Theme | undefined {
  try {
    const text = localStorage.getItem(KEY);
    return text === "light" || text === "dark" ? text : undefined;
  } catch {
    // Storage may be forbidden; then the system's choice stays.
    return undefined;
  }
}

/** Returns the theme, and again when it changes. */
export function useTheme(): Theme {
  return useSyncExternalStore((changed) => {
    const list = media();
    list.addEventListener("change", changed);
    addEventListener(CHANGED, changed);
    return () => {
      list.removeEventListener("change", changed);
      removeEventListener(CHANGED, changed);
    };
  }, current);
}

/** Chooses the other theme. */
export function toggleTheme(): void {
  const next = current() === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(KEY, next);
  } catch {
    return;
  }
  dispatchEvent(new Event(CHANGED));
}
