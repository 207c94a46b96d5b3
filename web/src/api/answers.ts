// The shapes of the querier's JSON answers, by protobuf's mapping of afterglow.v1: 64-bit integers are texts, times RFC 3339, durations
// "10s". `number` turns such a text into a JavaScript number: exact up to 2^53 (104 days of nanoseconds, 9 PB), rounded above, which
// drawing and sorting can bear.

export interface SampleType {
  type: string;
  unit: string;
}

export interface Total extends SampleType {
  value: string;
}

export interface Completeness {
  partial: boolean;
  problems: string[];
}

export interface ProfileInfo {
  id: string;
  type: string;
  service: string;
  labels: Record<string, string>;
  time: string;
  duration?: string;
  totals: Total[];
  bytes: string;
  samples: string;
}

/** What every answer says of itself. */
export interface Answer {
  completeness?: Completeness;
  warnings?: string[];
}

export interface SearchAnswer extends Answer {
  profiles: ProfileInfo[];
  nextCursor: string;
}

export interface FlameGraphNode {
  name: number;
  depth: number;
  total: string;
  self: string;
  baseTotal?: string;
  baseSelf?: string;
}

/** Where a name comes from; a server of an older version does not say. */
export interface OriginAnswer {
  file: string;
  line: string;
  mapping: string;
}

export interface FlameGraph {
  sampleType?: SampleType;
  names: string[];
  nodes: FlameGraphNode[];
  nodesTruncated: string;
  origins?: OriginAnswer[];
}

export interface TopFunction {
  name: string;
  file: string;
  self: string;
  total: string;
  baseSelf?: string;
  baseTotal?: string;
}

export interface Top {
  sampleType?: SampleType;
  total: string;
  baseTotal?: string;
  functions: TopFunction[];
  functionsTruncated: string;
}

export interface MergeAnswer extends Answer {
  profiles: string;
  flamegraph?: FlameGraph;
  top?: Top;
}

export interface DiffAnswer extends MergeAnswer {
  baseProfiles: string;
}

export interface ProfileType {
  type: string;
  sampleTypes: SampleType[];
  profiles: string;
}

export interface TypesAnswer extends Answer {
  types: ProfileType[];
}

export interface Service {
  name: string;
  types: string[];
  profiles: string;
}

export interface ServicesAnswer extends Answer {
  services: Service[];
}

export interface NamesAnswer extends Answer {
  names: string[];
}

export interface ValuesAnswer extends Answer {
  values: string[];
}

export interface SeriesPoint {
  time: string;
  value: string;
  profiles: string;
  duration?: string;
}

export interface TimeSeries {
  labels: Record<string, string>;
  points: SeriesPoint[];
  total: string;
  profiles: string;
}

export interface SeriesAnswer extends Answer {
  sampleType?: SampleType;
  step?: string;
  series: TimeSeries[];
  seriesTruncated: string;
}

export interface TopGroup {
  labels: Record<string, string>;
  top?: Top;
  profiles: string;
}

export interface TopAnswer extends Answer {
  top?: Top;
  groups: TopGroup[];
  profiles: string;
}

export interface FunctionAnswer extends Answer {
  sampleType?: SampleType;
  history: TimeSeries[];
  groups: TopGroup[];
  callers: TopFunction[];
  callees: TopFunction[];
  profiles: string;
}

export interface Regression {
  name: string;
  file: string;
  baseShare: number;
  share: number;
  /** Of a function that is new there is no number. */
  change: number | "Infinity";
  chance: number;
  significant: boolean;
}

export interface RegressionsAnswer extends Answer {
  sampleType?: SampleType;
  changes: Regression[];
  changesTruncated: string;
  tested: string;
  profiles: string;
  baseProfiles: string;
  cells: string;
  baseCells: string;
}

export interface ServiceStats {
  service: string;
  type: string;
  profiles: string;
  rawBytes: string;
  storedBytes: string;
  series: string;
  first?: string;
  last?: string;
}

export interface StatsAnswer extends Answer {
  profiles: string;
  rawBytes: string;
  storedBytes: string;
  first?: string;
  last?: string;
  levels: { level: number; blocks: string; bytes: string; profiles: string }[];
  commit: string;
  services: ServiceStats[];
  retention: { selector: string; maxAge?: string; maxBytes: string }[];
}

/** Turns a 64-bit integer of an answer into a number. */
export function number(text: string | undefined): number {
  return text === undefined ? 0 : Number(text);
}
