import { expect, test } from "vitest";

import type { SeriesAnswer, TimeSeries } from "../api/answers";
import { chartedOf, marksOf, meanOf, versionsOf } from "./series";
import { rankedOf } from "./outliers";

function series(labels: Record<string, string>, points: [string, number, number, string?][]): TimeSeries {
  return {
    labels,
    points: points.map(([time, value, profiles, duration]) => ({
      time: `2026-11-24T${time}:00Z`,
      value: String(value),
      profiles: String(profiles),
      ...(duration === undefined ? {} : { duration }),
    })),
    total: "0",
    profiles: "0",
  };
}

function answer(unit: string, all: TimeSeries[]): SeriesAnswer {
  return { sampleType: { type: "cpu", unit }, series: all, seriesTruncated: "0" };
}

test("CPU time becomes cores, so that more profiles do not look like more work", () => {
  const charted = chartedOf(
    answer("nanoseconds", [
      series({ version: "1" }, [
        ["10:00", 5e9, 1, "10s"],
        ["10:05", 10e9, 2, "20s"],
      ]),
      series({ version: "2" }, [["10:05", 20e9, 1, "10s"]]),
    ]),
  );
  expect(charted.lines).toEqual([
    { name: "1", values: [0.5, 0.5] },
    { name: "2", values: [null, 2] },
  ]);
  expect(charted.means).toEqual([0.5, 2]);
  expect(charted.steps).toBeUndefined();
  // 256 MiB is round, 250 MB is not.
  expect(chartedOf(answer("bytes", [series({}, [["10:00", 5, 1]])])).steps).toContain(2 ** 28);
  expect(charted.format(0.5)).toBe("0.5");
  expect(charted.meaning).toContain("CPU cores");
});

test("what has no duration is shown by profile", () => {
  const heap = series({}, [["10:00", 3 * 2 ** 20, 3, "0s"]]);
  expect(meanOf(heap, "bytes")).toBe(2 ** 20);
  const charted = chartedOf({ ...answer("bytes", [heap]), sampleType: { type: "inuse_space", unit: "bytes" } });
  expect(charted.format(charted.means[0])).toBe("1.00 MiB");
  expect(charted.meaning).toBe("inuse_space a profile");
});

test("versions are marked where they begin, but for the one that was there", () => {
  const byVersion = answer("nanoseconds", [
    series({ version: "1.5" }, [["12:00", 1, 1]]),
    series({ version: "" }, [["09:00", 1, 1]]),
    series({ version: "1.4" }, [["10:00", 1, 1]]),
  ]);
  expect(versionsOf(byVersion).map(({ name }) => name)).toEqual(["1.4", "1.5"]);
  expect(marksOf(byVersion)).toEqual([{ name: "1.5", time: Date.parse("2026-11-24T12:00:00Z") / 1e3 }]);
});

test("an outlier is far from the median, which it does not move", () => {
  const ranked = rankedOf([1, 1.1, 0.9, 1.05, 9]);
  expect(ranked[0]).toMatchObject({ index: 4, median: 1.05, isOutlier: true });
  expect(ranked.slice(1).some(({ isOutlier }) => isOutlier)).toBe(false);
  expect(rankedOf([2, 2, 2]).some(({ isOutlier }) => isOutlier)).toBe(false);
  expect(rankedOf([])).toEqual([]);
});
