// What got slower in a service, in its row of the overview: its newest version against the one before, or, where there is but one, the last
// day against the week before. The server tells change from noise (`/api/v1/regressions`). A row asks when it comes into view, few at once.

import { useEffect, useRef, useState } from "react";

import type { Regression, RegressionsAnswer } from "../api/answers";
import { ask, Refusal } from "../api/client";
import { Queue } from "../api/queue";
import { queryOf, type Matcher } from "../api/selection";
import { kindOf } from "../format/kinds";
import { shortName } from "../format/names";
import { count, percent } from "../format/values";
import { useFetched } from "./answer";
import { changed, Link } from "./place";

/** How many questions the overview asks at once: each reads the samples of both sides. */
const AT_ONCE = 2;
/** How many functions the server names: those that grew most are among the surest. */
const CHANGES_MAX = 200;
/** How many a row shows. */
const SHOWN_MAX = 2;
/** Fewer profiles than this on a side cannot tell a change from noise. */
const PROFILES_MIN = 4;

const queue = new Queue(AT_ONCE);

/** A version of a service, in the order of its first profile. */
export interface Version {
  name: string;
  profiles: number;
}

/** Two sides to compare, as parameters of questions and links alike. */
export interface Sides {
  query: string;
  base_query: string;
  start: string;
  base_start: string;
  base_end: string;
  /** What is compared, for people. */
  says: string;
}

/** Chooses what a service is compared with; `undefined` where there is too little on one side. */
export function sidesOf(service: string, versions: Version[], day: number, week: number): Sides | undefined {
  const own: Matcher = { name: "service", operator: "=", value: service };
  const [before, newest] = versions.slice(-2);
  if (versions.length >= 2 && Math.min(before.profiles, newest.profiles) >= PROFILES_MIN) {
    const of = (version: string): string => queryOf([own, { name: "version", operator: "=", value: version }]);
    return {
      query: of(newest.name),
      base_query: of(before.name),
      start: "-24h",
      base_start: "-24h",
      base_end: "now",
      says: `version ${newest.name} against ${before.name}`,
    };
  }
  if (day < PROFILES_MIN || week < PROFILES_MIN) return undefined;
  return {
    query: queryOf([own]),
    base_query: queryOf([own]),
    start: "-24h",
    base_start: "-8d",
    base_end: "-24h",
    says: "the last day against the week before",
  };
}

/** Returns what grew beyond noise: what gained the largest share first, the reader's own code before that of others. */
export function grownOf(changes: Regression[]): Regression[] {
  const gained = ({ share, baseShare }: Regression): number => share - baseShare;
  const isOwn = ({ name, file }: Regression): number => (kindOf(name, { file, line: 0, mapping: "" }) === "own" ? 1 : 0);
  return changes
    .filter((change) => change.significant && gained(change) > 0)
    .sort((a, b) => isOwn(b) - isOwn(a) || gained(b) - gained(a) || (a.name < b.name ? -1 : 1));
}

/** Whether an element has been in view. */
function useSeen(): [React.RefObject<HTMLDivElement | null>, boolean] {
  const element = useRef<HTMLDivElement>(null);
  const [isSeen, setSeen] = useState(false);
  useEffect(() => {
    if (element.current === null || isSeen) return;
    const observer = new IntersectionObserver((entries) => {
      if (entries.some(({ isIntersecting }) => isIntersecting)) setSeen(true);
    });
    observer.observe(element.current);
    return () => observer.disconnect();
  }, [isSeen]);
  return [element, isSeen];
}

export function Regressions({ sides, type }: { sides: Sides; type: string }) {
  const [element, isSeen] = useSeen();
  const { says, ...window } = sides;
  const parameters = { ...window, type, value: "total", limit: CHANGES_MAX };
  const asked = useFetched<RegressionsAnswer>(isSeen ? JSON.stringify(parameters) : undefined, ({ signal }) =>
    queue.run(() => ask("/api/v1/regressions", parameters, { signal }), signal),
  );
  const link = (more: Record<string, string>): URLSearchParams => changed(new URLSearchParams(), { ...window, type, ...more });
  return (
    <div ref={element} className="regressions" title={says} aria-busy={asked.isLoading}>
      {asked.error !== undefined ? (
        <span className="hint" title={asked.error.message}>
          {asked.error instanceof Refusal && asked.error.status >= 400 && asked.error.status < 500 ? "too few profiles" : "no answer"}
        </span>
      ) : asked.data === undefined ? (
        <span className="hint">…</span>
      ) : (
        <Found grown={grownOf(asked.data.changes)} says={says} link={link} />
      )}
    </div>
  );
}

function Found({ grown, says, link }: { grown: Regression[]; says: string; link: (more: Record<string, string>) => URLSearchParams }) {
  if (grown.length === 0) return <span className="hint">none</span>;
  return (
    <>
      {grown.slice(0, SHOWN_MAX).map(({ name, baseShare, share }) => (
        <Link
          key={name}
          to="/compare"
          params={link({ sandwich: name })}
          title={`${name}: from ${percent(baseShare)} to ${percent(share)} of all, ${says}`}
        >
          <span className="worse">▲ +{percent(share - baseShare)}</span> <span className="mono">{shortName(name)}</span>
        </Link>
      ))}
      {grown.length <= SHOWN_MAX ? null : (
        <Link to="/compare" params={link({})} title={says}>
          {count(grown.length, "function")} grew
        </Link>
      )}
    </>
  );
}
