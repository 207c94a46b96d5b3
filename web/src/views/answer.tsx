// An answer and its states: loading with how much has come, refused with what to do, partial with what is missing. While a new answer
// loads the old one stays, dimmed, so that nothing jumps.

import { useEffect, useReducer, type ReactNode } from "react";

import type { Answer } from "../api/answers";
import { ask, Refusal, urlOf, type Parameters } from "../api/client";

/** A question under way or answered. */
export interface Asked<T> {
  data: T | undefined;
  error: Error | undefined;
  isLoading: boolean;
  /** How many bytes of the answer have arrived. */
  bytes: number;
  /** How long the last answer took until it was read, in milliseconds. */
  millis: number;
  again: () => void;
}

type State<T> = Omit<Asked<T>, "again"> & { url: string | undefined; turn: number };

type Event<T> =
  | { is: "asked"; url: string }
  | { is: "progress"; bytes: number }
  | { is: "answered"; data: T; millis: number }
  | { is: "refused"; error: Error }
  | { is: "none" }
  | { is: "again" };

function next<T>(state: State<T>, event: Event<T>): State<T> {
  switch (event.is) {
    case "asked":
      return { ...state, url: event.url, isLoading: true, bytes: 0 };
    case "progress":
      return { ...state, bytes: event.bytes };
    case "answered":
      return { ...state, data: event.data, error: undefined, isLoading: false, millis: event.millis };
    case "refused":
      return { ...state, data: undefined, error: event.error, isLoading: false };
    case "none":
      return { ...state, data: undefined, error: undefined, isLoading: false };
    case "again":
      return { ...state, turn: state.turn + 1 };
  }
}

/** How to get an answer. */
export type Fetching<T> = (listening: { signal: AbortSignal; onProgress: (bytes: number) => void }) => Promise<T>;

/** Asks when `key` is new; `undefined` asks nothing. */
export function useFetched<T>(key: string | undefined, fetching: Fetching<T>, refresh = 0): Asked<T> {
  const [state, dispatch] = useReducer(next<T>, {
    data: undefined,
    error: undefined,
    isLoading: key !== undefined,
    bytes: 0,
    millis: 0,
    url: undefined,
    turn: 0,
  });
  useEffect(() => {
    if (key === undefined) {
      dispatch({ is: "none" });
      return;
    }
    const gone = new AbortController();
    const began = performance.now();
    dispatch({ is: "asked", url: key });
    fetching({ signal: gone.signal, onProgress: (bytes) => dispatch({ is: "progress", bytes }) }).then(
      (data) => {
        if (!gone.signal.aborted) dispatch({ is: "answered", data, millis: performance.now() - began });
      },
      (error: unknown) => {
        if (!gone.signal.aborted) dispatch({ is: "refused", error: error instanceof Error ? error : new Error(String(error)) });
      },
    );
    return () => gone.abort();
    // The key stands for all that `fetching` closes over.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [key, state.turn, refresh]);
  return { ...state, again: () => dispatch({ is: "again" }) };
}

/** Asks the API when path or parameters are new; without a path nothing. */
export function useAnswer<T>(path: string | undefined, parameters: Parameters = {}, refresh = 0): Asked<T> {
  const key = path === undefined ? undefined : urlOf(path, parameters);
  return useFetched<T>(key, (listening) => ask<T>(path ?? "", parameters, listening), refresh);
}

export interface StatesProps<T> {
  asked: Asked<T>;
  /** What is being loaded, such as `the profiles`. */
  what: string;
  /** What to say where there is nothing, which some questions answer by NOT_FOUND. */
  whenNone?: string;
  children: (data: T) => ReactNode;
}

/** Shows an answer, or why there is none yet. */
export function States<T extends Answer>({ asked, what, whenNone, children }: StatesProps<T>) {
  if (asked.error instanceof Refusal && asked.error.code === "NOT_FOUND" && whenNone !== undefined) {
    // The server says when there are profiles, if not now.
    return (
      <div className="state" role="status">
        <p>{whenNone}</p>
        <p className="hint">{asked.error.message}</p>
      </div>
    );
  }
  if (asked.error !== undefined) return <Refused error={asked.error} again={asked.again} />;
  if (asked.data === undefined) return asked.isLoading ? <Loading what={what} bytes={asked.bytes} /> : null;
  return (
    <div className={asked.isLoading ? "stale" : undefined} aria-busy={asked.isLoading}>
      {asked.isLoading ? <div className="progress" role="progressbar" aria-label={`loading ${what}`} /> : null}
      <Notes answer={asked.data} />
      {children(asked.data)}
    </div>
  );
}

/** Shows that something is on its way. */
export function Loading({ what, bytes }: { what: string; bytes: number }) {
  return (
    <div className="state" role="status">
      <div className="progress" />
      Loading {what} …{bytes > 0 ? ` ${(bytes / 2 ** 20).toFixed(1)} MiB so far` : ""}
    </div>
  );
}

/** Shows why there is no answer and what can be done. */
export function Refused({ error, again }: { error: Error; again?: () => void }) {
  return (
    <div className="state refused" role="alert">
      <p>
        <strong>{error.message}</strong>
      </p>
      <p>{error instanceof Refusal ? error.advice : "The file or answer could not be read."}</p>
      {again === undefined ? null : (
        <button type="button" onClick={again}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Says what an answer lacks. */
export function Notes({ answer }: { answer: Answer }) {
  const problems = answer.completeness?.partial === true ? answer.completeness.problems : [];
  const warnings = answer.warnings ?? [];
  if (problems.length === 0 && answer.completeness?.partial !== true && warnings.length === 0) return null;
  return (
    <div className="notes" role="status">
      {answer.completeness?.partial === true ? (
        <details>
          <summary>This answer is partial: some stored data could not be read. What is shown is right for the rest.</summary>
          <ul>
            {problems.map((problem) => (
              <li key={problem}>{problem}</li>
            ))}
          </ul>
        </details>
      ) : null}
      {warnings.map((warning) => (
        <p key={warning}>{warning}</p>
      ))}
    </div>
  );
}
