// The frame around all pages: where one can go, the keys that work everywhere, and the page of the address.

import { useEffect, useRef, useState, type ComponentType } from "react";

import { selectionOf } from "../api/selection";
import { Compare } from "./compare";
import { Sayings } from "./copy";
import { Explore } from "./explore";
import { DropZone, FilePage, OpenFile } from "./file";
import { FunctionPage } from "./function";
import { HelpSheet } from "./help";
import { Overview } from "./overview";
import { go, Link, paramsOf, usePlace } from "./place";
import { ProfilePage } from "./profile";
import { Statistics } from "./statistics";
import { toggleTheme, useTheme } from "./theme";

/** A page: its path, its name in the navigation where it is there, the letter after `g`. */
interface Page {
  path: string;
  name?: string;
  key?: string;
  show: ComponentType;
}

const PAGES: Page[] = [
  { path: "/", name: "Overview", key: "o", show: Overview },
  { path: "/explore", name: "Explore", key: "e", show: Explore },
  { path: "/compare", name: "Compare", key: "c", show: Compare },
  { path: "/statistics", name: "Statistics", key: "s", show: Statistics },
  { path: "/function", show: FunctionPage },
  { path: "/profile", show: ProfilePage },
  { path: "/file", show: FilePage },
];

export function App() {
  const { path, params } = usePlace();
  const theme = useTheme();
  const [isHelp, setHelp] = useState(false);
  useKeys(() => setHelp(true));
  useEffect(() => {
    document.documentElement.dataset["theme"] = theme;
  }, [theme]);
  const page = PAGES.find((page) => page.path === path);
  useEffect(() => {
    document.title = page?.name === undefined ? "Afterglow" : `${page.name} · Afterglow`;
  }, [page]);
  const carried = paramsOf({ ...selectionOf(params), ids: [] });
  return (
    <>
      <a className="skip" href="#content">
        Skip to the content
      </a>
      <header>
        <Link to="/" className="brand">
          <img src="/favicon.svg" alt="" width="20" height="20" /> Afterglow
        </Link>
        <nav aria-label="Pages">
          {PAGES.map(({ path: to, name }) =>
            name === undefined ? null : (
              <Link key={to} to={to} params={to === "/" ? new URLSearchParams() : carried} isCurrent={to === path}>
                {name}
              </Link>
            ),
          )}
        </nav>
        <div className="header-end">
          <OpenFile />
          <button type="button" onClick={toggleTheme} title="Dark or light (t)" aria-label="Dark or light">
            {theme === "dark" ? "☾" : "☀"}
          </button>
          <button type="button" onClick={() => setHelp(true)} title="Keys (?)" aria-label="Keys">
            ?
          </button>
        </div>
      </header>
      <div id="content">{page === undefined ? <NoPage path={path} /> : <page.show />}</div>
      <HelpSheet isOpen={isHelp} onClose={() => setHelp(false)} />
      <DropZone />
      <Sayings />
    </>
  );
}

function NoPage({ path }: { path: string }) {
  return (
    <main>
      <h1>There is no page {path}</h1>
      <p className="state">
        <Link to="/">To the overview</Link>
      </p>
    </main>
  );
}

/** How long `g` waits for its letter, in milliseconds. */
const CHORD_MILLIS = 1_500;

/** The keys that work wherever nothing is being written. */
function useKeys(onHelp: () => void): void {
  const chord = useRef(Number.NEGATIVE_INFINITY);
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent): void => {
      const at = event.target;
      const isWriting = (at instanceof HTMLInputElement && at.type !== "checkbox") || at instanceof HTMLTextAreaElement || at instanceof HTMLSelectElement;
      if (isWriting && event.key === "Escape") at.blur();
      if (isWriting || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (event.timeStamp - chord.current < CHORD_MILLIS) {
        chord.current = Number.NEGATIVE_INFINITY;
        const page = PAGES.find(({ key }) => key === event.key);
        if (page !== undefined) go(page.path, paramsOf({ ...selectionOf(new URLSearchParams(location.search)), ids: [] }));
        return;
      }
      const shortcut = { q: "selector", "/": "search", r: "refresh" }[event.key];
      if (shortcut !== undefined) {
        const element = document.querySelector<HTMLElement>(`[data-shortcut=${shortcut}]`);
        event.preventDefault();
        if (shortcut === "refresh") element?.click();
        else element?.focus();
      } else if (event.key === "g") chord.current = event.timeStamp;
      else if (event.key === "t") toggleTheme();
      else if (event.key === "?") onHelp();
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, [onHelp]);
}
