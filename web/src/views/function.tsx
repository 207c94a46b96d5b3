// One function: how much it cost over time and by version, who calls it and what it calls.

import { useMemo } from "react";

import { number, type FunctionAnswer, type MergeAnswer, type TopFunction } from "../api/answers";
import { parametersOf, selectionOf, START_DEFAULT } from "../api/selection";
import { parsed, rfc3339 } from "../format/times";
import { count, percent, value } from "../format/values";
import { States, useAnswer } from "./answer";
import { Chart, LINES } from "./chart";
import { exactly } from "../flamegraph/transform";
import { treeOf, type Origin } from "../flamegraph/tree";
import { kindOf, KIND_NAMES } from "../format/kinds";
import { placeOf, shortPlaceOf } from "../format/source";
import { change, changed, Link, usePlace } from "./place";
import { NoType, SelectionBar, typeOf, useTypes } from "./selection_bar";
import { chartedOf } from "./series";
import { SourceLink, sourceOf, SourceSettings, useSource, type Sourced } from "./source";
import { useTheme } from "./theme";

/** By what the history may be split. */
const BY = ["service", "version", "instance"];
/** How large a tree is asked for to know where neighbours are: the heaviest, which are those that are listed. */
const ORIGINS_MAX = 200;

export function FunctionPage() {
  const { params } = usePlace();
  const theme = useTheme();
  const asked = { ...selectionOf(params), ids: [] };
  const name = params.get("name") ?? "";
  const by = params.get("by") ?? "version";
  const typesAsked = useTypes(asked);
  const types = typesAsked.data;
  const selection = { ...asked, type: typeOf(asked, types) };
  const answer = useAnswer<FunctionAnswer>(name === "" || selection.type === "" ? undefined : "/api/v1/function", {
    ...parametersOf(selection),
    sample_type: selection.sampleType,
    name,
    by,
  });
  // The table of one function has no lines; the trees of it have, of itself and of its neighbours.
  const isFound = answer.data?.history.some(({ total }) => total !== "0") === true;
  const trees = { ...parametersOf(selection), sample_type: selection.sampleType, format: "flamegraph", function: name, limit: ORIGINS_MAX };
  const callees = useAnswer<MergeAnswer>(isFound ? "/api/v1/merge" : undefined, { ...trees, view: "callees" }).data?.flamegraph;
  const callers = useAnswer<MergeAnswer>(isFound ? "/api/v1/merge" : undefined, { ...trees, view: "callers" }).data?.flamegraph;
  const origins = useMemo(
    () => new Map([callers, callees].flatMap((tree) => (tree === undefined ? [] : [...treeOf(tree).origins]))),
    [callers, callees],
  );
  const place = origins.get(name);
  const source = sourceOf(selection);
  const { urlOf } = useSource(source);
  const charted = useMemo(
    () =>
      answer.data === undefined
        ? undefined
        : chartedOf({ series: answer.data.history, seriesTruncated: "0", ...(answer.data.sampleType && { sampleType: answer.data.sampleType }) }),
    [answer.data],
  );
  const window = useMemo(() => {
    const now = Date.now();
    const [start, end] = [parsed(selection.start || START_DEFAULT, now) ?? now, parsed(selection.end, now) ?? now];
    return { start: start / 1e3, end: end / 1e3 };
  }, [selection.start, selection.end]);
  return (
    <main>
      <h1 className="mono">{name}</h1>
      <div className="place">
        {place === undefined || place.file === "" ? null : (
          <span>
            <SourceLink origin={place} urlOf={urlOf} text={placeOf(place)} /> · {KIND_NAMES[kindOf(name, place)]}
          </span>
        )}
        <SourceSettings of={source} example={place} />
      </div>
      <SelectionBar selection={asked} types={types} />
      <p>
        <Link to="/explore" params={changed(params, { name: undefined, by: undefined, sandwich: name })}>
          Callers and callees in the graph
        </Link>{" "}
        ·{" "}
        <Link to="/explore" params={changed(params, { name: undefined, by: undefined, focus: exactly(name) })}>
          Only its stacks
        </Link>
      </p>
      {selection.type === "" ? <NoType types={typesAsked} /> : null}
      <States asked={answer} what="the function" whenNone="No profiles of this type in this time range.">
        {(data) => {
          const unit = data.sampleType?.unit ?? "count";
          return (
            <>
              <section className="card" aria-label="Over time">
                <div className="card-head">
                  <h2>{charted?.meaning}</h2>
                  <label className="field inline">
                    <span>By</span>
                    <select value={by} onChange={(event) => change({ by: event.target.value })}>
                      {[...new Set([...BY, by])].map((one) => (
                        <option key={one}>{one}</option>
                      ))}
                    </select>
                  </label>
                </div>
                {charted === undefined || charted.times.length === 0 ? (
                  <p className="state">It does not occur in these {count(number(data.profiles), "profile")}.</p>
                ) : (
                  <>
                    <Chart
                      times={charted.times}
                      lines={charted.lines}
                      marks={[]}
                      window={window}
                      theme={theme}
                      label={`History of ${name}`}
                      format={charted.format}
                      steps={charted.steps}
                      onBrush={(start, end) => change({ start: rfc3339(start * 1e3), end: rfc3339(Math.ceil(end) * 1e3) })}
                    />
                    <ul className="lines">
                      {charted.lines.map((line, i) => (
                        <li key={line.name} className={`line line-${i % LINES.length}`}>
                          {line.name} <strong>{charted.format(charted.means[i])}</strong>
                        </li>
                      ))}
                    </ul>
                  </>
                )}
              </section>
              <div className="pair">
                <section className="card" aria-label={`By ${by}`}>
                  <h2>By {by}</h2>
                  <table className="list">
                    <thead>
                      <tr>
                        <th scope="col">{by}</th>
                        <th scope="col" className="number">
                          Self
                        </th>
                        <th scope="col" className="number">
                          Total
                        </th>
                        <th scope="col" className="number">
                          Of its profiles
                        </th>
                      </tr>
                    </thead>
                    <tbody>
                      {data.groups.map((group) => {
                        const row = group.top?.functions.at(0);
                        const label = Object.values(group.labels).join(" · ");
                        return (
                          <tr key={label}>
                            <th scope="row">{label === "" ? "(none)" : label}</th>
                            <td className="number">{value(number(row?.self), unit)}</td>
                            <td className="number">{value(number(row?.total), unit)}</td>
                            <td className="number">{percent(number(row?.total) / number(group.top?.total))}</td>
                          </tr>
                        );
                      })}
                    </tbody>
                  </table>
                </section>
                <Neighbours title="Called by" rows={data.callers} unit={unit} params={params} origins={origins} urlOf={urlOf} />
                <Neighbours title="Calls" rows={data.callees} unit={unit} params={params} origins={origins} urlOf={urlOf} />
              </div>
            </>
          );
        }}
      </States>
    </main>
  );
}

interface NeighboursProps {
  title: string;
  rows: TopFunction[];
  unit: string;
  params: URLSearchParams;
  /** Where functions are, by their names. */
  origins: ReadonlyMap<string, Origin>;
  urlOf: Sourced;
}

function Neighbours({ title, rows, unit, params, origins, urlOf }: NeighboursProps) {
  const originOf = ({ name, file }: TopFunction): Origin => {
    const origin = origins.get(name);
    // Functions of one name in several files are rows of their own; a row knows its file and not its line.
    return origin?.file === file ? origin : { file, line: 0, mapping: "" };
  };
  return (
    <section className="card" aria-label={title}>
      <h2>{title}</h2>
      {rows.length === 0 ? <p className="hint">nothing</p> : null}
      <table className="list">
        <tbody>
          {rows.map((row) => (
            <tr key={`${row.name} ${row.file}`}>
              <td>
                <Link to="/function" className="mono" params={changed(params, { name: row.name })}>
                  {row.name}
                </Link>
              </td>
              <td className="mono">
                {row.file === "" ? null : <SourceLink origin={originOf(row)} urlOf={urlOf} text={shortPlaceOf(originOf(row))} />}
              </td>
              <td className="number">{value(number(row.total), unit)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
