// Who differs from the others: rows by their distance from the median, by the modified z-score (Iglewicz and Hoaglin, 1993), which a few
// extreme rows do not hide.

/** A row this far from the median is an outlier: the usual 3.5 of the modified z-score (Iglewicz and Hoaglin). */
const OUTLIER = 3.5;
/** What makes a median deviation comparable with a standard deviation. */
const NORMAL = 0.6745;

/** The same of a mean deviation, for where more than half of the rows are equal and the median one is nothing. */
const NORMAL_OF_MEAN = 1 / 1.253314;

/** Orders rows by their distance from the median, which a few outliers do not move. */
export function rankedOf(means: number[]): { index: number; median: number; isOutlier: boolean }[] {
  const median = medianOf(means);
  const distances = means.map((mean) => Math.abs(mean - median));
  const deviation = medianOf(distances);
  const meanDeviation = distances.reduce((sum, distance) => sum + distance, 0) / Math.max(1, distances.length);
  const scoreOf = (distance: number): number =>
    deviation > 0 ? (NORMAL * distance) / deviation : meanDeviation > 0 ? (NORMAL_OF_MEAN * distance) / meanDeviation : 0;
  return distances
    .map((distance, index) => ({ index, median, isOutlier: scoreOf(distance) > OUTLIER, distance }))
    .sort((a, b) => b.distance - a.distance);
}

function medianOf(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return 0;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
