// Who differs from the others: rows by their distance from the median, by the modified z-score (Iglewicz and Hoaglin, 1993), which a few
// extreme rows do not hide.

/** A row this far from the median is an outlier: the usual 3.5 of the modified z-score (Iglewicz and Hoaglin). */
const OUTLIER = 3.5;
/** What makes a median deviation comparable with a standard deviation. */
const NORMAL = 0.6745;

/** Orders rows by their distance from the median, which a few outliers do not move. */
export function rankedOf(means: number[]): { index: number; median: number; isOutlier: boolean }[] {
  const median = medianOf(means);
  const deviation = medianOf(means.map((mean) => Math.abs(mean - median)));
  return means
    .map((mean, index) => {
      const score = deviation === 0 ? 0 : (NORMAL * Math.abs(mean - median)) / deviation;
      return { index, median, isOutlier: score > OUTLIER, distance: Math.abs(mean - median) };
    })
    .sort((a, b) => b.distance - a.distance);
}

function medianOf(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return 0;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
