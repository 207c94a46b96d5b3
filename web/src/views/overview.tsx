// The whole fleet on one page: each service with its types, what they cost over the last day, and against the same day a week before; the
// functions that cost most. A press leads to Explore.

import { useMemo } from "react";

import { number, type SeriesAnswer, type ServicesAnswer, type TimeSeries, type TopAnswer, type TypesAnswer } from "../api/answers";
import type { Parameters } from "../api/client";
import { askFleet, askParts, type FleetAnswer, type Part } from "../api/fleet";
import { queryOf } from "../api/selection";
import { rfc3339 } from "../format/times";
import { count, percent, ratio, value } from "../format/values";
import { States, useAnswer, useFetched } from "./answer";
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
/** Of how many parts of the fleet, each of which counts alike, the functions are shown; and how many services of one are named. */
const PARTS_MAX = 6;
const NAMED_MAX = 8;
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
            <Fleet answer={answer} types={types.map(({ type }) => type)} />
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
  const weekAgo = useMemo(() => {
    const end = Date.now() - WEEK_MILLIS;
    return { start: rfc3339(end - DAY_MILLIS), end: rfc3339(end) };
  }, []);
  const having = answer.services.filter(({ types }) => types.includes(type)).map(({ name }) => name);
  const asked = { start: START, type, by: "service", limit: SERIES_MAX };
  const now = useFetched<FleetAnswer>(type === "" ? undefined : JSON.stringify([type, having]), (listening) => askFleet(having, asked, listening));
  const parts = now.data?.parts;
  const week = useParts(parts, { ...asked, start: WEEK_START, end: START, step: WEEK_STEP });
  const before = useParts(parts, { ...asked, ...weekAgo });
  const versions = useParts(parts, { ...asked, by: "service,version" });
  const instances = useParts(parts, { ...asked, by: "service,instance" });
  return (
    <>
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
                      unit={series.sampleTypes.get(service.name)?.unit ?? "count"}
                      refused={series.refused.get(service.name)}
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
      {(parts ?? []).slice(0, PARTS_MAX).map((part) => (
        <PartTop key={part.query} part={part} type={type} sampleType={now.data?.sampleTypes.get(part.services.at(0) ?? "")?.type ?? ""} />
      ))}
    </>
  );
}

/** Asks one more question of the parts of the fleet. */
function useParts(parts: Part[] | undefined, parameters: Parameters): FleetAnswer | undefined {
  const key = parts === undefined ? undefined : JSON.stringify([parameters, parts]);
  return useFetched<FleetAnswer>(key, (listening) => askParts(parts ?? [], parameters, listening)).data;
}

function of(answer: SeriesAnswer, service: string): TimeSeries[] {
  return answer.series.filter(({ labels }) => labels["service"] === service);
}

interface ServiceRowProps {
  name: string;
  type: string;
  others: string[];
  unit: string;
  /** Why its profiles are not taken together. */
  refused: string | undefined;
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

function ServiceRow({ name, type, others, unit, refused, now, before, version, sides, instances }: ServiceRowProps) {
  const isCores = unit === "nanoseconds";
  const format = (rate: number): string => (isCores && type === "cpu" ? `${rate.toPrecision(2)} cores` : value(rate, isCores ? "seconds" : unit));
  const [rateNow, rateBefore] = [now === undefined ? 0 : meanOf(now, unit), before === undefined ? 0 : meanOf(before, unit)];
  const share = rateBefore === 0 ? 0 : rateNow / rateBefore - 1;
  return (
    <tr>
      <th scope="row">
        <Link to="/explore" params={exploreParams(name, now === undefined && refused === undefined ? (others.at(0) ?? type) : type)}>
          {name}
        </Link>
      </th>
      <td>{now === undefined ? <Missing type={type} refused={refused} /> : <Sparkline series={now} unit={unit} label={`${type} of ${name}`} />}</td>
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

/** Says why a service has no line. */
function Missing({ type, refused }: { type: string; refused: string | undefined }) {
  if (refused === undefined) return <span className="hint">no {type}</span>;
  return (
    <span className="hint" title={refused}>
      its profiles count different things
    </span>
  );
}

/** What costs most in services that count alike: in all of them, where that is one part. */
function PartTop({ part, type, sampleType }: { part: Part; type: string; sampleType: string }) {
  const top = useAnswer<TopAnswer>("/api/v1/top", { query: part.query, start: START, type, limit: FUNCTIONS_MAX });
  const named = part.services.slice(0, NAMED_MAX).join(", ");
  return (
    <section className="card" aria-label="Functions">
      <h2>
        What costs most, over {part.query === "" ? "all services" : count(part.services.length, "service")} ({type}
        {part.query === "" ? "" : `, by ${sampleType}`})
      </h2>
      {part.query === "" ? null : (
        <p className="hint">
          Services that count alike: {named}
          {part.services.length > NAMED_MAX ? ` and ${part.services.length - NAMED_MAX} more` : ""}
        </p>
      )}
      <States asked={top} what="the functions">
        {(answer) => {
          const whole = number(answer.top?.total);
          const unit = answer.top?.sampleType?.unit ?? "count";
          return (
            <div className="scroll-x" tabIndex={0} role="region" aria-label={part.query === "" ? "Functions of all services" : `Functions of ${named}`}>
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
                          params={changed(new URLSearchParams(), { name: row.name, query: part.query, type, start: START })}
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
