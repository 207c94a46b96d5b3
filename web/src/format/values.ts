// Values as people read them: three significant figures and a unit that fits. What a value counts comes from the profile's sample type.

const NANOS_PER: [number, string][] = [
  [86_400e9, "d"],
  [3_600e9, "h"],
  [60e9, "min"],
  [1e9, "s"],
  [1e6, "ms"],
  [1e3, "µs"],
  [1, "ns"],
];
const BYTES_PER: [number, string][] = [
  [2 ** 50, "PiB"],
  [2 ** 40, "TiB"],
  [2 ** 30, "GiB"],
  [2 ** 20, "MiB"],
  [2 ** 10, "KiB"],
  [1, "B"],
];
const COUNT_PER: [number, string][] = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
  [1, ""],
];
/** How many nanoseconds the time units of pprof have. */
const NANOS_OF: Partial<Record<string, number>> = { nanoseconds: 1, microseconds: 1e3, milliseconds: 1e6, seconds: 1e9 };

/** Writes a value of a pprof unit, such as `1.25 s` for nanoseconds. */
export function value(amount: number, unit: string): string {
  const nanos = NANOS_OF[unit];
  if (nanos !== undefined) return scaled(amount * nanos, NANOS_PER, " ");
  if (unit === "bytes") return scaled(amount, BYTES_PER, " ");
  const counted = scaled(amount, COUNT_PER, "");
  return unit === "count" || unit === "" ? counted : `${counted} ${unit}`;
}

/** Writes a value with its sign, for differences. */
export function change(amount: number, unit: string): string {
  return amount > 0 ? `+${value(amount, unit)}` : value(amount, unit);
}

/** Writes a share as a percentage. */
export function percent(share: number): string {
  if (!Number.isFinite(share)) return "–";
  const hundredfold = share * 100;
  if (hundredfold !== 0 && Math.abs(hundredfold) < 0.01) return hundredfold < 0 ? "> -0.01 %" : "< 0.01 %";
  return `${hundredfold.toFixed(Math.abs(hundredfold) >= 99.95 ? 0 : Math.abs(hundredfold) >= 9.995 ? 1 : 2)} %`;
}

/** Writes how a value changed against a base: `+25 %`, `new`, `gone`. */
export function ratio(after: number, before: number): string {
  if (before === 0) return after === 0 ? "±0 %" : "new";
  if (after === 0) return "gone";
  const share = after / before - 1;
  if (Math.abs(share) >= 10) return `×${(after / before).toFixed(0)}`;
  const text = percent(share);
  return share > 0 && !text.startsWith("<") ? `+${text}` : text;
}

/** Writes a number of things. */
export function count(amount: number, one: string, many = `${one}s`): string {
  return `${amount.toLocaleString("en-US")} ${amount === 1 ? one : many}`;
}

function scaled(amount: number, units: [number, string][], space: string): string {
  const size = Math.abs(amount);
  if (size === 0) return `0${space}${units[units.length - 1][1]}`.trim();
  // 999.6 ms would read as 1000 ms: the next unit begins where three figures round up to it.
  const [factor, unit] = units.find(([factor]) => size >= factor * 0.9995) ?? units[units.length - 1];
  const scaledAmount = amount / factor;
  const figures = Math.abs(scaledAmount) >= 99.95 ? 0 : Math.abs(scaledAmount) >= 9.995 ? 1 : 2;
  // A count of three things is 3, not 3.00.
  const text = factor === 1 && Number.isInteger(amount) ? String(amount) : scaledAmount.toFixed(figures);
  return `${text}${space}${unit}`.trim();
}
