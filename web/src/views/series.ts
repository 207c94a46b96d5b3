// Series of the API as lines of a chart. Values are rates, so that steps with more profiles do not look like more work: CPU time by the
// time recorded (cores), anything else by profile.

import { number, type SeriesAnswer, type TimeSeries } from "../api/answers";
import { seconds } from "../format/times";
import { value } from "../format/values";
import type { ChartLine, ChartMark } from "./chart";

/** What a chart shows of an answer. */
export interface Charted {
  times: number[];
  lines: ChartLine[];
  /** The mean rate of each line, in the order of `lines`. */
  means: number[];
  format: (value: number) => string;
  /** What the values are, for the axis. */
  meaning: string;
  /** The steps that the axis may have, where round ones are not those of ten. */
  steps?: number[];
}

/** The steps of bytes: 256 MiB is round, 250 MB is not. */
const BYTE_STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power);

/** Names a series by its labels. */
export function nameOf(series: TimeSeries): string {
  const labels = Object.entries(series.labels);
  if (labels.length === 0) return "all";
  return labels.map(([, value]) => (value === "" ? "(none)" : value)).join(" · ");
}

function isTime(unit: string): boolean {
  return unit === "nanoseconds";
}

/** Returns the rate of a series over all its points. */
export function meanOf(series: TimeSeries, unit: string): number {
  const recorded = series.points.reduce((sum, point) => sum + seconds(point.duration), 0);
  const sum = series.points.reduce((sum, point) => sum + number(point.value), 0);
  const profiles = series.points.reduce((sum, point) => sum + number(point.profiles), 0);
  return rate(sum, recorded, profiles, unit);
}

function rate(sum: number, recorded: number, profiles: number, unit: string): number {
  if (isTime(unit) && recorded > 0) return sum / (recorded * 1e9);
  return profiles > 0 ? sum / profiles : 0;
}

/** Aligns the series of an answer. */
export function chartedOf(answer: SeriesAnswer): Charted {
  const unit = answer.sampleType?.unit ?? "count";
  const times = [...new Set(answer.series.flatMap(({ points }) => points.map(({ time }) => Date.parse(time) / 1e3)))].sort((a, b) => a - b);
  const place = new Map(times.map((time, i) => [time, i]));
  const lines = answer.series.map((series): ChartLine => {
    const values = new Array<number | null>(times.length).fill(null);
    for (const { time, value, profiles, duration } of series.points) {
      const at = place.get(Date.parse(time) / 1e3) ?? 0;
      values[at] = rate(number(value), seconds(duration), number(profiles), unit);
    }
    return { name: nameOf(series), values };
  });
  const hasDuration = answer.series.some(({ points }) => points.some(({ duration }) => seconds(duration) > 0));
  const isCores = isTime(unit) && hasDuration;
  return {
    times,
    lines,
    ...(unit === "bytes" && { steps: BYTE_STEPS }),
    means: answer.series.map((series) => meanOf(series, unit)),
    format: isCores ? (cores) => cores.toPrecision(3).replace(/\.?0+$/, "") : (amount) => value(amount, unit),
    meaning: isCores
      ? answer.sampleType?.type === "cpu"
        ? "CPU cores in use, mean of the profiles"
        : `${answer.sampleType?.type ?? "time"}: seconds a second, mean of the profiles`
      : `${answer.sampleType?.type ?? "value"} a profile`,
  };
}

/** Returns when each version was first seen, in order; the one that was there from the start is not marked. */
export function marksOf(byVersion: SeriesAnswer): ChartMark[] {
  return versionsOf(byVersion)
    .slice(1)
    .map(({ name, first }) => ({ name, time: first / 1e3 }));
}

/** Returns the versions in the order of their first profiles; times in unix milliseconds. */
export function versionsOf(byVersion: SeriesAnswer): { name: string; first: number }[] {
  return byVersion.series
    .flatMap(({ labels, points }) => {
      const name = labels["version"] ?? "";
      return name === "" || points.length === 0 ? [] : [{ name, first: Date.parse(points[0].time) }];
    })
    .sort((a, b) => a.first - b.first);
}
