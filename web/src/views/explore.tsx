// Explore: when, and in which part of a selection, something changed; below it the flame graph of what is selected, or its profiles.

import { useMemo, useState } from "react";

import type { NamesAnswer, SeriesAnswer, ServicesAnswer } from "../api/answers";
import { matchersOf, narrowed, selectionOf, parametersOf, START_DEFAULT, demanded, type Selection } from "../api/selection";
import { moved, parsed, rfc3339 } from "../format/times";
import { States, useAnswer } from "./answer";
import { Chart, LINES } from "./chart";
import { EmptyStore } from "./empty";
import { MergedGraph } from "./merged_graph";
import { change, changed, Link, paramsOf, usePlace } from "./place";
import { ProfileList } from "./profile_list";
import { NoType, SelectionBar, typeOf, useTypes } from "./selection_bar";
import { chartedOf, marksOf, versionsOf } from "./series";
import { useTheme } from "./theme";

/** How many lines a chart has at most: more cannot be told apart. */
const LINES_MAX = LINES.length;

/** How many services are offered by a press. */
const SERVICES_MAX = 30;

export function Explore() {
  const { params } = usePlace();
  const [refresh, setRefresh] = useState(0);
  const asked = selectionOf(params);
  const typesAsked = useTypes(asked, refresh);
  const types = typesAsked.data;
  const selection = { ...asked, ids: [], type: typeOf(asked, types) };
  const tab = params.get("tab") ?? "graph";
  const isEmpty = types !== undefined && types.types.length === 0;
  return (
    <main>
      <h1 className="unseen">Explore</h1>
      <SelectionBar selection={asked} types={types} onRefresh={() => setRefresh(refresh + 1)} />
      {isEmpty ? (
        <EmptyStore selection={asked} />
      ) : selection.type === "" ? (
        <NoType types={typesAsked} />
      ) : (
        <>
          {demanded(selection.query, "service") === undefined ? <Services selection={selection} refresh={refresh} /> : null}
          <SeriesCard selection={selection} by={params.get("by") ?? ""} refresh={refresh} />
          <div className="tabs" role="tablist" aria-label="What of the selection">
            <Tab id="graph" name="Flame graph" tab={tab} />
            <Tab id="profiles" name="Profiles" tab={tab} />
          </div>
          {tab === "profiles" ? (
            <ProfileList selection={selection} refresh={refresh} />
          ) : (
            <MergedGraph selection={selection} refresh={refresh} types={types} />
          )}
        </>
      )}
    </main>
  );
}

/** Where no service is selected: the ones there are. Profiles of one are what most readers are after, and those of all need not merge. */
function Services({ selection, refresh }: { selection: Selection; refresh: number }) {
  const window = { query: selection.query, start: selection.start || START_DEFAULT, end: selection.end };
  const services = useAnswer<ServicesAnswer>("/api/v1/services", window, refresh).data?.services ?? [];
  const { params } = usePlace();
  const names = services.filter(({ types }) => types.includes(selection.type)).map(({ name }) => name);
  if (names.length < 2 || matchersOf(selection.query) === undefined) return null;
  return (
    <nav className="choices" aria-label="Services">
      <span className="hint">Only</span>
      {names.slice(0, SERVICES_MAX).map((name) => (
        <Link
          key={name}
          to="/explore"
          className="label"
          params={changed(params, { query: narrowed(selection.query, "service", name), zoom: undefined })}
        >
          {name}
        </Link>
      ))}
      {names.length > SERVICES_MAX ? <span className="hint">and {names.length - SERVICES_MAX} more: write one in the selector</span> : null}
    </nav>
  );
}

function Tab({ id, name, tab }: { id: string; name: string; tab: string }) {
  return (
    <button type="button" role="tab" aria-selected={tab === id} onClick={() => change({ tab: id === "graph" ? "" : id })}>
      {name}
    </button>
  );
}

function SeriesCard({ selection, by, refresh }: { selection: Selection; by: string; refresh: number }) {
  const theme = useTheme();
  const window = { query: selection.query, start: selection.start || START_DEFAULT, end: selection.end };
  const names = useAnswer<NamesAnswer>("/api/v1/labels", window, refresh).data?.names ?? [];
  const parameters = { ...parametersOf(selection), sample_type: selection.sampleType };
  const series = useAnswer<SeriesAnswer>("/api/v1/series", { ...parameters, by, limit: LINES_MAX }, refresh);
  const versions = useAnswer<SeriesAnswer>(names.includes("version") ? "/api/v1/series" : undefined, { ...parameters, by: "version" }, refresh).data;
  const charted = useMemo(() => (series.data === undefined ? undefined : chartedOf(series.data)), [series.data]);
  const marks = useMemo(() => (versions === undefined ? [] : marksOf(versions)), [versions]);
  const [shownWindow] = useWindow(selection, refresh);
  return (
    <section className="card" aria-label="Over time">
      <div className="card-head">
        <h2>{charted?.meaning ?? "Over time"}</h2>
        <label className="field inline">
          <span>By</span>
          <select value={by} onChange={(event) => change({ by: event.target.value })}>
            <option value="">all together</option>
            {names.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        <CompareLinks selection={selection} versions={versions === undefined ? [] : versionsOf(versions).map(({ name }) => name)} />
      </div>
      <States asked={series} what="the series">
        {(answer) =>
          charted === undefined ? null : charted.times.length === 0 ? (
            <p className="state">No profiles in this time range. A longer one may have some.</p>
          ) : (
            <>
              <Chart
                times={charted.times}
                lines={charted.lines}
                marks={marks}
                window={shownWindow}
                theme={theme}
                label={`${charted.meaning}, ${answer.series.length} series over time`}
                format={charted.format}
                steps={charted.steps}
                onBrush={(start, end) => change({ start: rfc3339(start * 1e3), end: rfc3339(Math.ceil(end) * 1e3) })}
              />
              <ul className="lines">
                {charted.lines.map((line, i) => (
                  <li key={line.name}>
                    <button
                      type="button"
                      className={`line line-${i % LINES.length}`}
                      disabled={by === "" || by === "type"}
                      title={by === "" ? undefined : `Only ${by}="${line.name}"`}
                      onClick={() => change({ query: narrowed(selection.query, by, answer.series[i].labels[by] ?? ""), by: "" })}
                    >
                      {line.name} <strong>{charted.format(charted.means[i])}</strong>
                    </button>
                  </li>
                ))}
                {answer.seriesTruncated === "0" ? null : <li className="hint">and {answer.seriesTruncated} smaller ones</li>}
              </ul>
            </>
          )
        }
      </States>
    </section>
  );
}

/** The window in unix seconds; a relative one stands still until it is asked again. */
function useWindow(selection: Selection, refresh: number): [{ start: number; end: number }] {
  const window = useMemo(() => {
    const now = Date.now();
    const start = parsed(selection.start || START_DEFAULT, now) ?? now;
    const end = parsed(selection.end, now) ?? now;
    return { start: start / 1e3, end: end / 1e3 };
    // A refresh moves a relative window.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [selection.start, selection.end, refresh]);
  return [window];
}

const DAY_MILLIS = 86_400e3;

/** One press to a comparison with before. */
function CompareLinks({ selection, versions }: { selection: Selection; versions: string[] }) {
  const now = useMemo(() => Date.now(), []);
  const start = selection.start || START_DEFAULT;
  const ago = (millis: number): URLSearchParams => {
    const base = moved(start, selection.end, millis, now);
    return changed(paramsOf(selection), { base_query: selection.query, base_start: base.start, base_end: base.end });
  };
  const wanted = demanded(selection.query, "version");
  const newest = wanted ?? versions.at(-1);
  const before = newest === undefined ? undefined : versions[versions.indexOf(newest) - 1];
  const [newer, older] = [newest ?? "", before ?? ""];
  return (
    <nav className="compare-links" aria-label="Compare with">
      <span>Compare with</span>
      <Link to="/compare" params={ago(DAY_MILLIS)}>
        yesterday
      </Link>
      <Link to="/compare" params={ago(7 * DAY_MILLIS)}>
        last week
      </Link>
      {older === "" ? null : (
        <Link
          to="/compare"
          title={`version ${newer} with ${older}`}
          params={changed(paramsOf({ ...selection, query: narrowed(selection.query, "version", newer) }), {
            base_query: narrowed(selection.query, "version", older),
          })}
        >
          previous version
        </Link>
      )}
    </nav>
  );
}
