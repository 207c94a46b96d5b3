// The time range: the usual ones by a click, any by its two ends, and the window before or after the one shown.

import { useState } from "react";

import { START_DEFAULT } from "../api/selection";
import { isRelative, moved, parsed, range, RANGES, rfc3339 } from "../format/times";
import { Popover } from "./popover";

export interface RangeInputProps {
  start: string;
  end: string;
  onChange: (start: string, end: string) => void;
  onRefresh?: () => void;
}

export function RangeInput({ start: startGiven, end, onChange, onRefresh }: RangeInputProps) {
  const start = startGiven === "" ? START_DEFAULT : startGiven;
  const step = (direction: -1 | 1): void => {
    const now = Date.now();
    const width = (parsed(end, now) ?? now) - (parsed(start, now) ?? now);
    const next = moved(start, end, -direction * width, now);
    onChange(next.start, next.end);
  };
  return (
    <div className="range">
      <button type="button" title="The window before" aria-label="The window before" onClick={() => step(-1)}>
        ‹
      </button>
      <Popover label={range(start, end)} title="Time range" className="range-now">
        {(close) => (
          <div className="range-choices">
            <ul>
              {RANGES.map((choice) => (
                <li key={choice.start}>
                  <button
                    type="button"
                    aria-pressed={start === choice.start && end === ""}
                    onClick={() => {
                      onChange(choice.start, "");
                      close();
                    }}
                  >
                    Last {choice.name}
                  </button>
                </li>
              ))}
            </ul>
            <Ends
              start={start}
              end={end}
              onApply={(start, end) => {
                onChange(start, end);
                close();
              }}
            />
          </div>
        )}
      </Popover>
      <button type="button" title="The window after" aria-label="The window after" onClick={() => step(1)}>
        ›
      </button>
      {onRefresh === undefined ? null : (
        <button type="button" title="Ask again (r)" aria-label="Ask again" data-shortcut="refresh" onClick={onRefresh}>
          ⟳
        </button>
      )}
    </div>
  );
}

function Ends({ start, end, onApply }: { start: string; end: string; onApply: (start: string, end: string) => void }) {
  const [from, setFrom] = useState(start);
  const [to, setTo] = useState(end === "" ? "now" : end);
  const now = Date.now();
  const [fromMillis, toMillis] = [parsed(from, now), parsed(to, now)];
  const problem =
    fromMillis === undefined
      ? "“From” is no time"
      : toMillis === undefined
        ? "“To” is no time"
        : fromMillis >= toMillis
          ? "The range ends before it begins"
          : "";
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (problem !== "") return;
        const written = (text: string): string => (isRelative(text) ? text.trim() : rfc3339(parsed(text, now) ?? now));
        onApply(written(from), to.trim() === "now" ? "" : written(to));
      }}
    >
      <label>
        From
        <input type="text" value={from} onChange={(event) => setFrom(event.target.value)} spellCheck={false} />
      </label>
      <label>
        To
        <input type="text" value={to} onChange={(event) => setTo(event.target.value)} spellCheck={false} />
      </label>
      <p className="hint">2026-11-24T22:40:00Z, 2026-11-24 22:40 (local), -90m, now</p>
      {problem === "" ? null : (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
      <button type="submit" className="primary" disabled={problem !== ""}>
        Apply
      </button>
    </form>
  );
}
