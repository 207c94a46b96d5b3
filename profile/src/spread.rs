//! How shares, or amounts, spread over groups: of instances, pods, versions, or steps of time.
//!
//! What is typical is told by the median and what is usual by quantiles, which a few odd groups do not move. A group is an outlier by
//! the modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993): 0.6745 times its distance from the median in
//! median absolute deviations, beyond 3.5. Where more than half of the groups are alike that deviation is 0, and the mean absolute one takes
//! its place. Fewer than [`GROUPS_MIN`] groups do not say what is usual, so none of them is odd.

use std::cmp::Ordering;

/// The fewest groups of which one can be an outlier: of four, two pairs would call each other odd.
pub const GROUPS_MIN: usize = 5;

/// The score beyond which a group is an outlier, as its authors recommend.
pub const SCORE_MAX: f64 = 3.5;

/// What makes the median absolute deviation of a normal distribution its standard deviation: its third quartile.
const MEDIAN_SCALE: f64 = 0.6745;

/// The same for the mean absolute deviation: the square root of half of pi.
const MEAN_SCALE: f64 = 1.253_314;

/// An amount that is less than this part of the median away from it is not odd: no two instances have the very same load.
pub const AMOUNT_DISTANCE_MIN: f64 = 0.1;

/// How shares or amounts spread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    /// Their mean, each group as much as any other.
    pub mean: f64,
    /// Their sample standard deviation; 0 of one group.
    pub deviation: f64,
    /// The smallest.
    pub min: f64,
    /// The quantiles, interpolated between the two nearest.
    pub p5: f64,
    /// See `p5`.
    pub p50: f64,
    /// See `p5`.
    pub p95: f64,
    /// The largest.
    pub max: f64,
    /// The groups that are odd, the oddest first.
    pub outliers: Vec<Outlier>,
}

/// A group that is odd.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlier {
    /// The place of its value among those that were given.
    pub group: usize,
    /// Its share, or its amount.
    pub value: f64,
    /// Its modified z-score: negative below the median.
    pub score: f64,
}

impl Spread {
    /// Describes shares, one a group. A group whose share is less than `distance_min` away from the median is no outlier, however alike
    /// the others are.
    pub fn of(shares: &[f64], distance_min: f64) -> Self {
        Self::beyond(shares, |_| distance_min)
    }

    /// Describes amounts, one a group. A group whose amount is less than `distance_min`, or than [`AMOUNT_DISTANCE_MIN`] of the median, away
    /// from the median is no outlier.
    pub fn of_amounts(amounts: &[f64], distance_min: f64) -> Self {
        Self::beyond(amounts, |median| distance_min.max(AMOUNT_DISTANCE_MIN * median.abs()))
    }

    /// Describes values, of which none is odd that is less than `distance_min` of the median away from it.
    fn beyond(values: &[f64], distance_min: impl Fn(f64) -> f64) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else { return Self::default() };
        let mean = mean(values.iter().copied());
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / (values.len() - 1).max(1) as f64).sqrt();
        let median = quantile(&sorted, 0.5);
        let outliers = outliers(values, median, distance_min(median));
        Self {
            mean,
            deviation,
            min,
            p5: quantile(&sorted, 0.05),
            p50: median,
            p95: quantile(&sorted, 0.95),
            max,
            outliers,
        }
    }
}

fn outliers(values: &[f64], median: f64, distance_min: f64) -> Vec<Outlier> {
    if values.len() < GROUPS_MIN {
        return Vec::new();
    }
    let distance = |value: f64| (value - median).abs();
    let mut distances: Vec<f64> = values.iter().map(|&value| distance(value)).collect();
    distances.sort_unstable_by(f64::total_cmp);
    let unit = match quantile(&distances, 0.5) / MEDIAN_SCALE {
        0.0 => MEAN_SCALE * mean(distances.iter().copied()),
        unit => unit,
    };
    let score = |(group, &value): (usize, &f64)| Outlier { group, value, score: (value - median) / unit };
    let is_odd = |of: &Outlier| of.score.abs() > SCORE_MAX && distance(of.value) >= distance_min;
    let mut odd: Vec<Outlier> = values.iter().enumerate().map(score).filter(is_odd).collect();
    odd.sort_by(|a, b| match b.score.abs().total_cmp(&a.score.abs()) {
        Ordering::Equal => a.group.cmp(&b.group),
        order => order,
    });
    odd
}

fn mean(of: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = of.len().max(1) as f64;
    of.sum::<f64>() / count
}

/// Returns a quantile of values that ascend, of which there are some.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = part * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_spread_is_what_textbooks_say() {
        let of = Spread::of(&[0.2, 0.4, 0.4, 0.4, 0.5, 0.5, 0.7, 0.9], 0.0);
        assert!((of.mean - 0.5).abs() < 1e-12 && (of.deviation - 0.213_809).abs() < 1e-6, "{of:?}");
        assert_eq!((of.min, of.p50, of.max), (0.2, 0.45, 0.9));
        // Between the first two and the last two, by 0.35 and 0.65 of their distance.
        assert!((of.p5 - 0.27).abs() < 1e-12 && (of.p95 - 0.83).abs() < 1e-12, "{of:?}");
        assert_eq!(of.outliers.iter().map(|of| of.group).collect::<Vec<_>>(), [7], "{of:?}");
        assert_eq!(Spread::of(&[], 0.0), Spread::default());
        let one = Spread::of(&[0.3], 0.0);
        assert_eq!((one.mean, one.deviation, one.p5, one.p95), (0.3, 0.0, 0.3, 0.3));
    }

    #[test]
    fn an_odd_group_is_found_and_does_not_hide_behind_another() {
        let mut shares: Vec<f64> = (0..20).map(|group| 0.1 + 0.001 * f64::from(group % 5)).collect();
        (shares[3], shares[11], shares[17]) = (0.3, 0.0, 0.32);
        let odd: Vec<usize> = Spread::of(&shares, 0.005).outliers.iter().map(|of| of.group).collect();
        assert_eq!(odd, [17, 3, 11]);
        // As far from each other, but all of it within what is not worth a word.
        let small: Vec<f64> = shares.iter().map(|share| share / 100.0).collect();
        assert_eq!(Spread::of(&small, 0.005).outliers, []);
    }

    /// Goal: what is fifty times as much as its like is odd, what is a little more is not, however alike the others are.
    #[test]
    fn an_odd_amount_is_found() {
        let mut amounts = vec![1_000.0; 8];
        (amounts[2], amounts[7]) = (1_050.0, 50_000.0);
        let odd: Vec<_> = Spread::of_amounts(&amounts, 0.0).outliers.iter().map(|of| (of.group, of.value)).collect();
        assert_eq!(odd, [(7, 50_000.0)]);
        assert_eq!(Spread::of_amounts(&amounts, 50_000.0).outliers, []);
        amounts[7] = 0.0;
        assert_eq!(Spread::of_amounts(&amounts, 0.0).outliers.iter().map(|of| of.group).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn where_most_are_alike_the_mean_deviation_counts() {
        let mut shares = vec![0.0; 20];
        shares[7] = 0.2;
        let odd = Spread::of(&shares, 0.005).outliers;
        assert!(odd.len() == 1 && odd[0].group == 7 && (odd[0].score - 20.0 / MEAN_SCALE).abs() < 1e-9, "{odd:?}");
        assert_eq!(Spread::of(&shares[6..10], 0.005).outliers, [], "four do not say what is usual");
        assert_eq!(Spread::of(&[0.1; 9], 0.0).outliers, []);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The order of the groups says nothing, and everything lies where it must.
        #[test]
        fn a_spread_is_ordered(shares in prop::collection::vec(0.0..1.0f64, 1..50), turn in 0..50usize) {
            let of = Spread::of(&shares, 0.0);
            let steps = [of.min, of.p5, of.p50, of.p95, of.max];
            prop_assert!(steps.is_sorted(), "{:?}", of);
            prop_assert!(of.min <= of.mean + 1e-9 && of.mean <= of.max + 1e-9);
            let mut turned = shares.clone();
            turned.rotate_left(turn % shares.len());
            let other = Spread::of(&turned, 0.0);
            prop_assert_eq!(other.outliers.len(), of.outliers.len());
            prop_assert_eq!([other.p5, other.p50, other.p95], [of.p5, of.p50, of.p95]);
        }
    }
}
