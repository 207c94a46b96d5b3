// What is stored, and who differs from whom: a heat map of instances over time (or of any label), the ones furthest from the middle first.

import { useMemo, useState } from "react";

import { number, type NamesAnswer, type SeriesAnswer, type StatsAnswer } from "../api/answers";
import { narrowed, parametersOf, selectionOf, START_DEFAULT, type Selection } from "../api/selection";
import { ago, rfc3339, seconds } from "../format/times";
import { count, percent, ratio, value } from "../format/values";
import { States, useAnswer } from "./answer";
import { HeatMap } from "./heat_map";
import { rankedOf } from "./outliers";
import { change, changed, go, Link, paramsOf, usePlace } from "./place";
import { NoType, SelectionBar, typeOf, useTypes } from "./selection_bar";
import { chartedOf } from "./series";
import { useTheme } from "./theme";

/** How many rows a heat map has at most. */
const ROWS_MAX = 200;
export function Statistics() {
  const { params } = usePlace();
  const [refresh, setRefresh] = useState(0);
  const asked = { ...selectionOf(params), ids: [] };
  const typesAsked = useTypes(asked, refresh);
  const types = typesAsked.data;
  const selection = { ...asked, type: typeOf(asked, types) };
  const by = params.get("by") ?? "instance";
  return (
    <main>
      <h1>Statistics</h1>
      <SelectionBar selection={asked} types={types} onRefresh={() => setRefresh(refresh + 1)} />
      {selection.type === "" ? <NoType types={typesAsked} /> : <Rows selection={selection} by={by} refresh={refresh} />}
      <Stored refresh={refresh} />
    </main>
  );
}

function Rows({ selection, by, refresh }: { selection: Selection; by: string; refresh: number }) {
  const theme = useTheme();
  const window = { query: selection.query, start: selection.start || START_DEFAULT, end: selection.end };
  const names = useAnswer<NamesAnswer>("/api/v1/labels", window, refresh).data?.names ?? [];
  const parameters = { ...parametersOf(selection), sample_type: selection.sampleType, by, limit: ROWS_MAX };
  const series = useAnswer<SeriesAnswer>("/api/v1/series", parameters, refresh);
  const charted = useMemo(() => (series.data === undefined ? undefined : chartedOf(series.data)), [series.data]);
  const ranked = useMemo(() => rankedOf(charted?.means ?? []), [charted]);
  return (
    <section className="card" aria-label="Heat map">
      <div className="card-head">
        <h2>{charted?.meaning}</h2>
        <label className="field inline">
          <span>By</span>
          <select value={by} onChange={(event) => change({ by: event.target.value })}>
            {[...new Set([...names, by])].map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
      </div>
      <States asked={series} what="the series">
        {(answer) =>
          charted === undefined || charted.times.length === 0 ? (
            <p className="state">No profiles in this time range.</p>
          ) : (
            <>
              <HeatMap
                lines={ranked.map(({ index }) => charted.lines[index])}
                times={charted.times}
                format={charted.format}
                theme={theme}
                onCell={(row, column) => {
                  const label = answer.series[ranked[row].index].labels[by] ?? "";
                  const start = charted.times[column];
                  go(
                    "/explore",
                    changed(paramsOf({ ...selection, query: narrowed(selection.query, by, label) }), {
                      start: rfc3339(start * 1e3),
                      end: rfc3339((start + seconds(answer.step)) * 1e3),
                      tab: "profiles",
                    }),
                  );
                }}
              />
              <div className="scroll-x" tabIndex={0} role="region" aria-label={`By ${by}`}>
                <table className="list">
                  <thead>
                    <tr>
                      <th scope="col">{by}</th>
                      <th scope="col" className="number">
                        Mean
                      </th>
                      <th scope="col" className="number">
                        Against the median
                      </th>
                      <th scope="col" className="number">
                        Profiles
                      </th>
                    </tr>
                  </thead>
                  <tbody>
                    {ranked.map(({ index, median, isOutlier }) => (
                      <tr key={index}>
                        <th scope="row">
                          <Link
                            to="/explore"
                            params={changed(
                              paramsOf({ ...selection, query: narrowed(selection.query, by, answer.series[index].labels[by] ?? "") }),
                              // What is odd is looked at one by one.
                              { tab: isOutlier ? "profiles" : "" },
                            )}
                          >
                            {charted.lines[index].name}
                          </Link>
                          {isOutlier ? <span className="label worse">outlier</span> : null}
                        </th>
                        <td className="number">{charted.format(charted.means[index])}</td>
                        <td className="number">{ratio(charted.means[index], median)}</td>
                        <td className="number">{number(answer.series[index].profiles).toLocaleString("en-US")}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
            </>
          )
        }
      </States>
    </section>
  );
}

function Stored({ refresh }: { refresh: number }) {
  const stats = useAnswer<StatsAnswer>("/api/v1/stats", {}, refresh);
  return (
    <section className="card" aria-label="What is stored">
      <h2>What is stored</h2>
      <States asked={stats} what="the statistics">
        {(answer) => (
          <>
            <p>
              {count(number(answer.profiles), "profile")}, {value(number(answer.rawBytes), "bytes")} as they were sent,{" "}
              {value(number(answer.storedBytes), "bytes")} stored ({percent(number(answer.storedBytes) / number(answer.rawBytes))})
              {answer.first === undefined ? "" : `, since ${ago(Date.parse(answer.first))}`}.
            </p>
            <div className="scroll-x" tabIndex={0} role="region" aria-label="By service and type">
              <table className="list">
                <thead>
                  <tr>
                    <th scope="col">Service</th>
                    <th scope="col">Type</th>
                    <th scope="col" className="number">
                      Profiles
                    </th>
                    <th scope="col" className="number">
                      Series
                    </th>
                    <th scope="col" className="number">
                      Sent
                    </th>
                    <th scope="col" className="number">
                      Stored
                    </th>
                    <th scope="col">Last</th>
                  </tr>
                </thead>
                <tbody>
                  {answer.services.map((row) => (
                    <tr key={`${row.service} ${row.type}`}>
                      <th scope="row">{row.service}</th>
                      <td>{row.type}</td>
                      <td className="number">{number(row.profiles).toLocaleString("en-US")}</td>
                      <td className="number">{number(row.series).toLocaleString("en-US")}</td>
                      <td className="number">{value(number(row.rawBytes), "bytes")}</td>
                      <td className="number">{value(number(row.storedBytes), "bytes")}</td>
                      <td>{row.last === undefined ? "–" : ago(Date.parse(row.last))}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          </>
        )}
      </States>
    </section>
  );
}
