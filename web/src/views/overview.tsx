// The whole fleet on one page: each service with its types, what they cost over the last day, and against the same day a week before; the
// functions that cost most. A press leads to Explore.

import { useMemo } from "react";

import { number, type SeriesAnswer, type ServicesAnswer, type TimeSeries, type TopAnswer, type TypesAnswer } from "../api/answers";
import { queryOf } from "../api/selection";
import { rfc3339 } from "../format/times";
import { count, percent, ratio, value } from "../format/values";
import { States, useAnswer } from "./answer";
import { EmptyStore } from "./empty";
import { changed, Link, usePlace } from "./place";
import { Regressions, sidesOf, type Sides } from "./regressions";
import { meanOf, versionsOf } from "./series";
import { Sparkline } from "./sparkline";

/** What the overview is about. */
const START = "-24h";
const DAY_MILLIS = 86_400e3;
const WEEK_MILLIS = 7 * DAY_MILLIS;
/** The week before that day, in one step. */
const WEEK_START = "-8d";
const WEEK_STEP = "7d";
/** How many services and functions are shown. */
const SERIES_MAX = 1_000;
const FUNCTIONS_MAX = 15;
/** A change by less than this share is noise. */
const CHANGE_MIN = 0.1;

export function Overview() {
  const services = useAnswer<ServicesAnswer>("/api/v1/services", { start: START });
  const types = useAnswer<TypesAnswer>("/api/v1/types", { start: START }).data?.types ?? [];
  return (
    <main>
      <h1>
        All services <span className="hint">the last 24 hours</span>
      </h1>
      <States asked={services} what="the services">
        {(answer) =>
          answer.services.length === 0 ? (
            <EmptyStore selection={{ query: "", type: "", start: START, end: "", sampleType: "", ids: [] }} />
          ) : (
            <>
              <Fleet answer={answer} types={types.map(({ type }) => type)} />
              <FleetTop types={types.map(({ type }) => type)} />
            </>
          )
        }
      </States>
    </main>
  );
}

function exploreParams(service: string, type: string): URLSearchParams {
  return changed(new URLSearchParams(), { query: queryOf([{ name: "service", operator: "=", value: service }]), type, start: START });
}

function Fleet({ answer, types }: { answer: ServicesAnswer; types: string[] }) {
  const { params } = usePlace();
  const type = params.get("type") ?? (types.includes("cpu") ? "cpu" : (types.at(0) ?? ""));
  const known = type === "" ? undefined : "/api/v1/series";
  const weekAgo = useMemo(() => {
    const end = Date.now() - WEEK_MILLIS;
    return { start: rfc3339(end - DAY_MILLIS), end: rfc3339(end) };
  }, []);
  const now = useAnswer<SeriesAnswer>(known, { start: START, type, by: "service", limit: SERIES_MAX });
  const week = useAnswer<SeriesAnswer>(known, { start: WEEK_START, end: START, step: WEEK_STEP, type, by: "service", limit: SERIES_MAX }).data;
  const before = useAnswer<SeriesAnswer>(known, { ...weekAgo, type, by: "service", limit: SERIES_MAX }).data;
  const versions = useAnswer<SeriesAnswer>(known, { start: START, type, by: "service,version", limit: SERIES_MAX }).data;
  const instances = useAnswer<SeriesAnswer>(known, { start: START, type, by: "service,instance", limit: SERIES_MAX }).data;
  return (
    <section className="card" aria-label="Services">
      <div className="card-head">
        <h2>{count(answer.services.length, "service")}</h2>
        <nav className="compare-links" aria-label="Profile type">
          {types.map((one) => (
            <Link key={one} to="/" params={changed(params, { type: one })} isCurrent={one === type}>
              {one}
            </Link>
          ))}
        </nav>
      </div>
      <States asked={now} what="the series">
        {(series) => (
          <div className="scroll-x" tabIndex={0} role="region" aria-label="Services">
            <table className="list fleet">
              <thead>
                <tr>
                  <th scope="col">Service</th>
                  <th scope="col">{type}, 24 hours</th>
                  <th scope="col" className="number">
                    Now
                  </th>
                  <th scope="col" className="number">
                    Week before
                  </th>
                  <th scope="col">Newest version</th>
                  <th scope="col" title="What grew beyond noise, in the newest version against the one before, or in the last day against the week">
                    Regressions
                  </th>
                  <th scope="col" className="number">
                    Instances
                  </th>
                  <th scope="col">Other types</th>
                </tr>
              </thead>
              <tbody>
                {answer.services.map((service) => (
                  <ServiceRow
                    key={service.name}
                    name={service.name}
                    type={type}
                    others={service.types.filter((one) => one !== type)}
                    unit={series.sampleType?.unit ?? "count"}
                    now={of(series, service.name).at(0)}
                    before={before === undefined ? undefined : of(before, service.name).at(0)}
                    version={versions === undefined ? undefined : versionsOf({ ...versions, series: of(versions, service.name) }).at(-1)?.name}
                    sides={versions === undefined || week === undefined ? undefined : sidesOfService(service.name, series, versions, week)}
                    instances={instances === undefined ? 0 : of(instances, service.name).filter(({ labels }) => labels["instance"] !== "").length}
                  />
                ))}
              </tbody>
            </table>
          </div>
        )}
      </States>
    </section>
  );
}

function of(answer: SeriesAnswer, service: string): TimeSeries[] {
  return answer.series.filter(({ labels }) => labels["service"] === service);
}

interface ServiceRowProps {
  name: string;
  type: string;
  others: string[];
  unit: string;
  now: TimeSeries | undefined;
  before: TimeSeries | undefined;
  version: string | undefined;
  sides: Sides | undefined;
  instances: number;
}

function sidesOfService(service: string, day: SeriesAnswer, versions: SeriesAnswer, week: SeriesAnswer): Sides | undefined {
  const profiles = (series: TimeSeries[]): number => series.reduce((sum, one) => sum + number(one.profiles), 0);
  const own = of(versions, service);
  const inOrder = versionsOf({ ...versions, series: own }).map(({ name }) => ({
    name,
    profiles: profiles(own.filter(({ labels }) => labels["version"] === name)),
  }));
  return sidesOf(service, inOrder, profiles(of(day, service)), profiles(of(week, service)));
}

function ServiceRow({ name, type, others, unit, now, before, version, sides, instances }: ServiceRowProps) {
  const isCores = unit === "nanoseconds";
  const format = (rate: number): string => (isCores && type === "cpu" ? `${rate.toPrecision(2)} cores` : value(rate, isCores ? "seconds" : unit));
  const [rateNow, rateBefore] = [now === undefined ? 0 : meanOf(now, unit), before === undefined ? 0 : meanOf(before, unit)];
  const share = rateBefore === 0 ? 0 : rateNow / rateBefore - 1;
  return (
    <tr>
      <th scope="row">
        <Link to="/explore" params={exploreParams(name, now === undefined ? (others.at(0) ?? type) : type)}>
          {name}
        </Link>
      </th>
      <td>{now === undefined ? <span className="hint">no {type}</span> : <Sparkline series={now} unit={unit} label={`${type} of ${name}`} />}</td>
      <td className="number">{now === undefined ? "–" : format(rateNow)}</td>
      <td className="number">
        {now === undefined || before === undefined ? (
          <span className="hint">–</span>
        ) : (
          <span className={share > CHANGE_MIN ? "worse" : share < -CHANGE_MIN ? "better" : undefined}>
            {share > CHANGE_MIN ? "▲ " : share < -CHANGE_MIN ? "▼ " : ""}
            {ratio(rateNow, rateBefore)}
          </span>
        )}
      </td>
      <td>{version === undefined ? <span className="hint">–</span> : <span className="label">{version}</span>}</td>
      <td>{sides === undefined ? <span className="hint">–</span> : <Regressions sides={sides} type={type} />}</td>
      <td className="number">{instances === 0 ? "–" : instances}</td>
      <td>
        {others.map((other) => (
          <span key={other}>
            <Link to="/explore" params={exploreParams(name, other)}>
              {other}
            </Link>{" "}
          </span>
        ))}
      </td>
    </tr>
  );
}

function FleetTop({ types }: { types: string[] }) {
  const { params } = usePlace();
  const type = params.get("type") ?? (types.includes("cpu") ? "cpu" : (types.at(0) ?? ""));
  const top = useAnswer<TopAnswer>(type === "" ? undefined : "/api/v1/top", { start: START, type, limit: FUNCTIONS_MAX });
  return (
    <section className="card" aria-label="Functions">
      <h2>What costs most, over all services ({type})</h2>
      <States asked={top} what="the functions">
        {(answer) => {
          const whole = number(answer.top?.total);
          const unit = answer.top?.sampleType?.unit ?? "count";
          return (
            <div className="scroll-x" tabIndex={0} role="region" aria-label="Functions of all services">
              <table className="list">
                <thead>
                  <tr>
                    <th scope="col">Function</th>
                    <th scope="col" className="number">
                      Self
                    </th>
                    <th scope="col" className="number">
                      Of all
                    </th>
                    <th scope="col" className="number">
                      Total
                    </th>
                  </tr>
                </thead>
                <tbody>
                  {(answer.top?.functions ?? []).map((row) => (
                    <tr key={`${row.name} ${row.file}`}>
                      <td>
                        <Link
                          to="/function"
                          className="mono"
                          params={changed(new URLSearchParams(), { name: row.name, type, start: START })}
                        >
                          {row.name}
                        </Link>
                      </td>
                      <td className="number">{value(number(row.self), unit)}</td>
                      <td className="number">{percent(number(row.self) / whole)}</td>
                      <td className="number">{value(number(row.total), unit)}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          );
        }}
      </States>
    </section>
  );
}
