// Questions about the whole fleet. Its services need not count alike: CPU profiles of Go have samples and nanoseconds, those of Node samples
// alone. The server refuses to add up such profiles, and rightly; so the fleet is asked as one while that works, and else in parts: services
// whose profiles have the same sample types together, and a service alone where that is refused as well.

import type { Answer, SampleType, SeriesAnswer, TypesAnswer } from "./answers";
import { ask, Refusal, type Listening, type Parameters } from "./client";
import { Queue } from "./queue";
import { queryOf } from "./selection";

/** How many questions are asked at once. */
const AT_ONCE = 4;
/** How many services one selector names: what keeps the address of the question short. */
const PART_MAX = 40;

const queue = new Queue(AT_ONCE);

/** Services that are asked about together. */
export interface Part {
  services: string[];
  /** Their selector; empty for everybody. */
  query: string;
}

/** The series of all parts. */
export interface FleetAnswer extends SeriesAnswer {
  parts: Part[];
  /** What the values of a service are. */
  sampleTypes: Map<string, SampleType>;
  /** Services whose own profiles do not merge, each with what the server says of that. */
  refused: Map<string, string>;
}

/** Asks for the series of services, by `service` and whatever else `parameters` say, and finds out which parts the fleet has. */
export async function askFleet(services: readonly string[], parameters: Parameters, listening: Listening): Promise<FleetAnswer> {
  const everybody: Part = { services: [...services], query: "" };
  try {
    return joined([[everybody, await ask<SeriesAnswer>("/api/v1/series", parameters, listening)]], new Map());
  } catch (error) {
    if (!(error instanceof Refusal && error.isMixed)) throw error;
  }
  const answers: [Part, SeriesAnswer][] = [];
  const refused = new Map<string, string>();
  const part = async (services: readonly string[]): Promise<void> => {
    const asked = partOf(services);
    try {
      answers.push([asked, await queued<SeriesAnswer>("/api/v1/series", { ...parameters, query: asked.query }, listening)]);
    } catch (error) {
      if (!(error instanceof Refusal && error.isMixed)) throw error;
      if (services.length === 1) refused.set(services[0], error.message);
      else await Promise.all(services.map((service) => part([service])));
    }
  };
  await Promise.all((await alike(services, parameters, listening)).map(part));
  return joined(answers, refused);
}

/** Asks another question of the same parts; a part that is refused, as it was otherwise at another time, is left out. */
export async function askParts(parts: readonly Part[], parameters: Parameters, listening: Listening): Promise<FleetAnswer> {
  const refused = new Map<string, string>();
  const answers = await Promise.all(
    parts.map(async (part): Promise<[Part, SeriesAnswer][]> => {
      try {
        return [[part, await queued<SeriesAnswer>("/api/v1/series", { ...parameters, query: part.query }, listening)]];
      } catch (error) {
        if (!(error instanceof Refusal && error.isMixed)) throw error;
        for (const service of part.services) refused.set(service, error.message);
        return [];
      }
    }),
  );
  return joined(answers.flat(), refused);
}

/** Returns services in groups of the same sample types, none too large for a selector, in a settled order. */
async function alike(services: readonly string[], { start, end, type }: Parameters, listening: Listening): Promise<string[][]> {
  const groups = new Map<string, string[]>();
  const keys = await Promise.all(
    services.map(async (service) => {
      const { types } = await queued<TypesAnswer>("/api/v1/types", { query: partOf([service]).query, start, end }, listening);
      return JSON.stringify(types.find((one) => one.type === type)?.sampleTypes ?? []);
    }),
  );
  for (const [i, service] of services.entries()) groups.set(keys[i], [...(groups.get(keys[i]) ?? []), service]);
  return [...groups.values()].flatMap((group) =>
    Array.from({ length: Math.ceil(group.length / PART_MAX) }, (_, i) => group.slice(i * PART_MAX, (i + 1) * PART_MAX)),
  );
}

/** Names services by a selector. */
export function partOf(services: readonly string[]): Part {
  const query =
    services.length === 1
      ? queryOf([{ name: "service", operator: "=", value: services[0] }])
      : queryOf([{ name: "service", operator: "=~", value: services.map(literal).join("|") }]);
  return { services: [...services], query };
}

/** Writes a text as a regular expression that matches just it. */
function literal(text: string): string {
  return text.replaceAll(/[\\^$.|?*+()[\]{}]/g, "\\$&");
}

function queued<T extends Answer>(path: string, parameters: Parameters, listening: Listening): Promise<T> {
  return queue.run(() => ask<T>(path, parameters, listening), listening.signal ?? new AbortController().signal);
}

function joined(answers: [Part, SeriesAnswer][], refused: Map<string, string>): FleetAnswer {
  // Parts come as they are answered; the largest is what most of the page is about.
  const ordered = answers.sort(([a], [b]) => b.services.length - a.services.length || (a.query < b.query ? -1 : 1));
  const problems = ordered.flatMap(([, { completeness }]) => completeness?.problems ?? []);
  const sampleTypes = new Map<string, SampleType>();
  for (const [{ services }, { sampleType }] of ordered) {
    if (sampleType !== undefined) for (const service of services) sampleTypes.set(service, sampleType);
  }
  return {
    series: ordered.flatMap(([, { series }]) => series),
    seriesTruncated: String(ordered.reduce((sum, [, { seriesTruncated }]) => sum + Number(seriesTruncated), 0)),
    completeness: { partial: ordered.some(([, { completeness }]) => completeness?.partial === true), problems: [...new Set(problems)] },
    warnings: [...new Set(ordered.flatMap(([, { warnings }]) => warnings ?? []))],
    parts: ordered.map(([part]) => part),
    sampleTypes,
    refused,
  };
}
