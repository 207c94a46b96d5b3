// Times in links, answers and on the page. A link has them as the API takes them: RFC 3339, or relative to now such as `-6h`. The page
// shows the reader's own time zone, and UTC in the title.

const MILLIS_OF: Record<string, number> = { s: 1e3, m: 60e3, h: 3_600e3, d: 86_400e3, w: 7 * 86_400e3 };
const RELATIVE = /^-(?:\d+(?:\.\d+)?[smhdw])+$/;
const PART = /(\d+(?:\.\d+)?)([smhdw])/g;

/** The choices of the time range, each as links have it. */
export const RANGES: { start: string; name: string }[] = [
  { start: "-15m", name: "15 minutes" },
  { start: "-1h", name: "1 hour" },
  { start: "-6h", name: "6 hours" },
  { start: "-24h", name: "24 hours" },
  { start: "-2d", name: "2 days" },
  { start: "-7d", name: "7 days" },
  { start: "-30d", name: "30 days" },
];

/** Reads a time of a link as unix milliseconds; `undefined` when it is none. */
export function parsed(text: string, now: number): number | undefined {
  const trimmed = text.trim();
  if (trimmed === "" || trimmed === "now") return now;
  if (RELATIVE.test(trimmed)) {
    let millis = 0;
    for (const [, amount, unit] of trimmed.matchAll(PART)) millis += Number(amount) * MILLIS_OF[unit];
    return now - millis;
  }
  const absolute = Date.parse(trimmed);
  return Number.isNaN(absolute) ? undefined : absolute;
}

/** Whether a time moves with the clock. */
export function isRelative(text: string): boolean {
  return text === "" || text === "now" || RELATIVE.test(text.trim());
}

/** Writes unix milliseconds as links have them, to the second. */
export function rfc3339(millis: number): string {
  return new Date(millis).toISOString().replace(/\.\d+Z$/, "Z");
}

/** Moves a window back by `by` milliseconds; relative ends become absolute, so that a link keeps its meaning. */
export function moved(start: string, end: string, by: number, now: number): { start: string; end: string } {
  const from = parsed(start, now) ?? now;
  const to = parsed(end, now) ?? now;
  return { start: rfc3339(from - by), end: rfc3339(to - by) };
}

/** Reads a duration of an answer, such as `10s` or `0.5s`, in seconds. */
export function seconds(duration: string | undefined): number {
  return duration === undefined ? 0 : Number(duration.replace(/s$/, ""));
}

/** Writes a moment in the reader's time zone, with the date where it is not today. */
export function moment(millis: number, now = Date.now()): string {
  const date = new Date(millis);
  const time = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  if (date.toDateString() === new Date(now).toDateString()) return time;
  return `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${time}`;
}

/** Writes how long ago a moment was. */
export function ago(millis: number, now = Date.now()): string {
  const age = Math.max(0, now - millis) / 1e3;
  if (age < 90) return `${Math.round(age)} s ago`;
  if (age < 90 * 60) return `${Math.round(age / 60)} min ago`;
  if (age < 36 * 3_600) return `${Math.round(age / 3_600)} h ago`;
  return `${Math.round(age / 86_400)} days ago`;
}

/** Writes a window for people. */
export function range(start: string, end: string): string {
  if (end === "" || end === "now") {
    const choice = RANGES.find((choice) => choice.start === start);
    if (choice !== undefined) return `last ${choice.name}`;
    if (RELATIVE.test(start)) return `last ${start.slice(1)}`;
  }
  const words = (text: string): string => {
    const millis = isRelative(text) ? undefined : parsed(text, 0);
    return millis === undefined ? text || "now" : moment(millis);
  };
  return `${words(start)} – ${words(end)}`;
}
