// A series as a line of the height of a word.

import { useMemo } from "react";

import { number, type TimeSeries } from "../api/answers";
import { seconds } from "../format/times";

const WIDTH = 180;
const HEIGHT = 28;

export function Sparkline({ series, unit, label }: { series: TimeSeries; unit: string; label: string }) {
  const points = useMemo(() => {
    const rates = series.points.map(({ time, value, profiles, duration }) => {
      const recorded = seconds(duration);
      const rate = unit === "nanoseconds" && recorded > 0 ? number(value) / recorded : number(value) / Math.max(1, number(profiles));
      return { time: Date.parse(time), rate };
    });
    const end = Math.max(...rates.map(({ time }) => time));
    const start = Math.min(...rates.map(({ time }) => time), end - 1);
    const top = Math.max(...rates.map(({ rate }) => rate), Number.MIN_VALUE);
    return rates
      .map(({ time, rate }) => {
        const x = ((time - start) / (end - start)) * (WIDTH - 4) + 2;
        return `${x.toFixed(1)},${(HEIGHT - 2 - (rate / top) * (HEIGHT - 4)).toFixed(1)}`;
      })
      .join(" ");
  }, [series, unit]);
  return (
    <svg className="sparkline" width={WIDTH} height={HEIGHT} role="img" aria-label={label}>
      <polyline points={points} fill="none" stroke="currentColor" strokeWidth="1.5" />
      {series.points.length === 1 ? <circle cx={WIDTH - 4} cy={HEIGHT / 2} r="2.5" fill="currentColor" /> : null}
    </svg>
  );
}
