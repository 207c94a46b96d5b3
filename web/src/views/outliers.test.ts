import { expect, test } from "vitest";

import { rankedOf } from "./outliers";

const outliers = (means: number[]): number[] =>
  rankedOf(means)
    .filter(({ isOutlier }) => isOutlier)
    .map(({ index }) => index);

test("the furthest from the median come first, and what is far beyond the others' spread is an outlier", () => {
  expect(rankedOf([1, 9, 1.1, 0.9]).map(({ index }) => index).slice(0, 2)).toEqual([1, 3]);
  expect(outliers([1, 9, 1.1, 0.9])).toEqual([1]);
  expect(outliers([1, 1.2, 1.1, 0.9])).toEqual([]);
});

test("one that differs among equals is an outlier, where the median deviation is nothing", () => {
  expect(outliers([2, 2, 2, 9, 2, 2])).toEqual([3]);
  expect(outliers([2, 2, 2])).toEqual([]);
  expect(outliers([])).toEqual([]);
});
