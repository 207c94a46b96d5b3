//! Whether a function costs another share than before, beyond what instances and moments differ by anyway.
//!
//! In come cells: what one instance used in one step of time, function by function, for a base and for what is compared with it. Out
//! come the functions whose share changed, each with the chance that it only seems so. Nothing here knows what a function is.
//!
//! The noise model: cells are independent draws, so a share's standard error follows from how
//! cells spread around it (the linearised variance of a ratio of sums: Cochran, Sampling Techniques, 6.3), but is never less than what
//! counting whole samples gives. When one function grows, the share of every other one shrinks; what is typical of the program
//! is therefore taken out first, by the weighted median of all functions' ratios (as DESeq normalises counts: Anders and Huber 2010), whose own
//! uncertainty counts as well.
//! Shares are compared by Welch's t-test, and chances corrected for testing many functions by Holm's method, so that a program
//! that did not change raises any alarm at all in at most [`Options::alarm_chance`] of all comparisons.

use std::f64::consts::FRAC_PI_2;

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// What one cell used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// The sum over all functions, and of samples without any.
    pub total: f64,
    /// The numbers of the functions with a value, each once, and their values.
    pub values: Vec<(u32, f64)>,
}

/// What counts as a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Functions below this share of the total, before and after, are not looked at.
    pub share_min: f64,
    /// A function that grew or shrank by less than this part of itself did not change.
    pub change_min: f64,
    /// The chance that a comparison of a program with its unchanged self raises an alarm.
    pub alarm_chance: f64,
    /// What one sample stands for, in the unit of the values; 0 where that is not known.
    pub sample_value: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { share_min: 0.005, change_min: 0.05, alarm_chance: 0.05, sample_value: 0.0 }
    }
}

/// How the share of a function changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The number of the function.
    pub function: u32,
    /// Its share of the total before.
    pub base_share: f64,
    /// Its share now.
    pub share: f64,
    /// By which part of itself it grew, beyond what is typical: 0.2 is a fifth more. Infinite where it is new.
    pub change: f64,
    /// The standard error of `change`; infinite where it is new.
    pub change_error: f64,
    /// The chance that a program without any change shows one as clear as this in any of its functions.
    pub chance: f64,
    /// Whether it is beyond noise, and large enough to matter.
    pub is_significant: bool,
}

/// Why a comparison says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// One cell has no spread.
    #[error(
        "the base has {base} cells with samples and the selection {selection}: it takes at least two of each to know what is noise"
    )]
    TooFewCells {
        /// How many cells of the base have samples.
        base: usize,
        /// How many cells of what is compared with it.
        selection: usize,
    },
}

/// The share of each function, and how well it is known.
struct Shares {
    cells: usize,
    share: Vec<f64>,
    variance: Vec<f64>,
}

/// By how much shares change of functions that do not change by themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Typical {
    /// What a share is multiplied with: below 1 where something else grew.
    pub ratio: f64,
    /// The variance of `ratio`, relative to its square.
    pub variance: f64,
}

/// Returns by how much shares changed of functions that did not change by themselves. The cells must have what functions used
/// themselves: their callers' sums would hide it.
pub fn typical(base: &[Cell], selection: &[Cell], functions: usize, options: &Options) -> Typical {
    let (before, now) = (Shares::of(base, functions, options), Shares::of(selection, functions, options));
    let ratio = weighted_median(&before.share, &now.share, options.share_min);
    let in_both = (0..functions).filter(|&f| before.share[f] >= options.share_min && now.share[f] > 0.0);
    let (mut weights, mut variance) = (0.0, 0.0);
    for f in in_both {
        let relative = before.variance[f] / before.share[f].powi(2) + now.variance[f] / now.share[f].powi(2);
        weights += before.share[f];
        variance += before.share[f].powi(2) * relative;
    }
    // That of the weighted mean; a median's is larger by this factor where errors are normal.
    let variance = if weights > 0.0 { FRAC_PI_2 * variance / weights.powi(2) } else { 0.0 };
    Typical { ratio, variance }
}

/// Compares cells with those of a base, whose shares would have changed as is `typical` without a change of their own; functions are
/// numbered below `functions`. Returns the functions that were looked at, those that changed most surely first.
///
/// # Errors
/// [`Error`].
pub fn compare(
    (base, selection): (&[Cell], &[Cell]),
    functions: usize,
    typical: Typical,
    options: &Options,
) -> Result<Vec<Change>, Error> {
    let before = Shares::of(base, functions, options);
    let now = Shares::of(selection, functions, options);
    if before.cells < 2 || now.cells < 2 {
        return Err(Error::TooFewCells { base: before.cells, selection: now.cells });
    }
    let is_looked_at = |f: &usize| before.share[*f].max(now.share[*f]) >= options.share_min;
    let mut changes: Vec<Change> = (0..functions)
        .filter(is_looked_at)
        .map(|f| {
            let expected = typical.ratio * before.share[f];
            let (spread_before, spread_now) = (typical.ratio.powi(2) * before.variance[f], now.variance[f]);
            let spread_typical = expected.powi(2) * typical.variance;
            let error = (spread_before + spread_now + spread_typical).sqrt();
            // What is typical is known from all functions in the cells of both sides.
            let from =
                [(spread_before, before.cells), (spread_now, now.cells), (spread_typical, before.cells + now.cells)];
            let chance = chance((now.share[f] - expected) / error, from);
            Change {
                function: f as u32,
                base_share: before.share[f],
                share: now.share[f],
                change: now.share[f] / expected - 1.0,
                change_error: error / expected,
                chance,
                is_significant: false,
            }
        })
        .collect();
    changes.sort_by(|a, b| {
        a.chance.total_cmp(&b.chance).then(b.share.total_cmp(&a.share)).then(a.function.cmp(&b.function))
    });
    correct(&mut changes);
    for change in &mut changes {
        change.is_significant = change.chance <= options.alarm_chance && change.change.abs() >= options.change_min;
    }
    Ok(changes)
}

// === impl Shares ===

impl Shares {
    fn of(cells: &[Cell], functions: usize, options: &Options) -> Self {
        let cells: Vec<&Cell> = cells.iter().filter(|cell| cell.total > 0.0).collect();
        let n = cells.len();
        let total: f64 = cells.iter().map(|cell| cell.total).sum();
        let squares: f64 = cells.iter().map(|cell| cell.total.powi(2)).sum();
        let mut share = vec![0.0; functions];
        for &(function, value) in cells.iter().flat_map(|cell| &cell.values) {
            share[function as usize] += value / total;
        }
        // The sum of squared differences between what a cell has of a function and what its total makes one expect; first as if all had none.
        let mut spread: Vec<f64> = share.iter().map(|share| share.powi(2) * squares).collect();
        for cell in &cells {
            for &(function, value) in &cell.values {
                let expected = share[function as usize] * cell.total;
                spread[function as usize] += (value - expected).powi(2) - expected.powi(2);
            }
        }
        let scale = n as f64 / (n as f64 - 1.0) / total.powi(2);
        let counting = |share: f64| share * (1.0 - share).max(0.0) * options.sample_value / total;
        let variance = share.iter().zip(spread).map(|(&share, spread)| (spread * scale).max(counting(share)));
        Self { cells: n, variance: variance.collect(), share }
    }
}

/// Returns the weighted median of the functions' ratios, each with its share before as its weight; 1 where none is in both.
fn weighted_median(before: &[f64], now: &[f64], share_min: f64) -> f64 {
    let in_both = before.iter().zip(now).filter(|&(&before, &now)| before >= share_min && now > 0.0);
    let mut ratios: Vec<(f64, f64)> = in_both.map(|(before, now)| (now / before, *before)).collect();
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = ratios.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    let middle = ratios.iter().find(|(_, weight)| {
        sum += weight;
        sum >= half
    });
    middle.map_or(1.0, |(ratio, _)| *ratio)
}

/// Returns the chance of a difference of `t` standard errors or more, by Welch's test: the variances with the cells they come from.
fn chance(t: f64, variances: [(f64, usize); 3]) -> f64 {
    if t.is_nan() || t == 0.0 {
        // Nothing differs, and nothing ever did.
        return 1.0;
    }
    if t.is_infinite() {
        return 0.0;
    }
    let sum: f64 = variances.iter().map(|(variance, _)| variance).sum();
    let freedom =
        sum.powi(2) / variances.iter().map(|(variance, cells)| variance.powi(2) / (*cells as f64 - 1.0)).sum::<f64>();
    let distribution = StudentsT::new(0.0, 1.0, freedom).expect("two cells or more leave some freedom");
    2.0 * distribution.cdf(-t.abs())
}

/// Corrects chances, which ascend, for being many (Holm 1979).
fn correct(changes: &mut [Change]) {
    let tests = changes.len();
    let mut largest: f64 = 0.0;
    for (i, change) in changes.iter_mut().enumerate() {
        largest = largest.max(change.chance * (tests - i) as f64).min(1.0);
        change.chance = largest;
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    /// How many functions the program of these tests has: the first with a share of 18 %, others with less and less.
    const FUNCTIONS: usize = 40;

    /// One instance in one step: a thousand samples or so of 10 ms, of functions whose shares wobble by a tenth from cell to cell.
    fn cell(chance: &mut SmallRng, factor_of_first: f64) -> Cell {
        let weight = |chance: &mut SmallRng, f: usize| {
            let usual = 0.9f64.powi(f as i32) * if f == 0 { 2.0 * factor_of_first } else { 1.0 };
            usual * chance.random_range(0.9..1.1)
        };
        let weights: Vec<f64> = (0..FUNCTIONS).map(|f| weight(chance, f)).collect();
        let all: f64 = weights.iter().sum();
        let mut counts = [0.0; FUNCTIONS];
        for _ in 0..chance.random_range(500..1_500) {
            let mut at = chance.random_range(0.0..all);
            let f = weights
                .iter()
                .position(|weight| {
                    at -= weight;
                    at < 0.0
                })
                .unwrap_or(FUNCTIONS - 1);
            counts[f] += SAMPLE;
        }
        let values = (0u32..).zip(counts).filter(|(_, value)| *value > 0.0);
        Cell { total: counts.iter().sum(), values: values.collect() }
    }

    const SAMPLE: f64 = 10e6;

    fn cells(chance: &mut SmallRng, factor_of_first: f64) -> Vec<Cell> {
        (0..18).map(|_| cell(chance, factor_of_first)).collect()
    }

    fn compared(base: &[Cell], selection: &[Cell], functions: usize) -> (f64, Vec<Change>) {
        let options = Options { sample_value: SAMPLE, ..Options::default() };
        let typical = typical(base, selection, functions, &options);
        (typical.ratio, compare((base, selection), functions, typical, &options).expect("there are cells enough"))
    }

    fn significant(base: &[Cell], selection: &[Cell]) -> Vec<(u32, f64)> {
        let (_, changes) = compared(base, selection, FUNCTIONS);
        changes.iter().filter(|change| change.is_significant).map(|c| (c.function, c.change)).collect()
    }

    #[test]
    fn a_program_that_did_not_change_raises_no_alarm_in_95_of_100_comparisons() {
        let mut chance = SmallRng::seed_from_u64(1);
        let alarms =
            (0..400).filter(|_| !significant(&cells(&mut chance, 1.0), &cells(&mut chance, 1.0)).is_empty()).count();
        assert!(alarms <= 20, "{alarms} alarms in 400 comparisons");
    }

    /// Of few functions each one is much of what is typical.
    #[test]
    fn a_small_program_raises_no_more_alarms_than_a_large_one() {
        let mut chance = SmallRng::seed_from_u64(4);
        let cells = |chance: &mut SmallRng| -> Vec<Cell> {
            let cell = |chance: &mut SmallRng| {
                let mut counts = [0.0; 3];
                (0..150).for_each(|_| counts[chance.random_range(0..3)] += SAMPLE);
                Cell { total: counts.iter().sum(), values: (0..).zip(counts).collect() }
            };
            (0..12).map(|_| cell(chance)).collect()
        };
        let is_alarm = |changes: Vec<Change>| changes.iter().any(|change| change.is_significant);
        let alarms = (0..400).filter(|_| is_alarm(compared(&cells(&mut chance), &cells(&mut chance), 3).1)).count();
        assert!(alarms <= 20, "{alarms} alarms in 400 comparisons");
    }

    #[test]
    fn a_function_that_became_a_fifth_slower_is_found_and_it_alone() {
        let mut chance = SmallRng::seed_from_u64(2);
        let (mut found, mut others) = (0, 0);
        for _ in 0..200 {
            let changed = significant(&cells(&mut chance, 1.0), &cells(&mut chance, 1.2));
            found += changed.iter().filter(|(f, change)| *f == 0 && (0.1..0.3).contains(change)).count();
            others += usize::from(changed.iter().any(|(f, _)| *f != 0));
        }
        assert!(found >= 190, "found in {found} of 200");
        assert!(others <= 10, "others were blamed in {others} of 200");
    }

    #[test]
    fn a_program_compared_with_itself_shows_nothing() {
        let same = cells(&mut SmallRng::seed_from_u64(3), 1.0);
        let (typical_ratio, changes) = compared(&same, &same, FUNCTIONS);
        assert_eq!(typical_ratio, 1.0);
        assert!(changes.iter().all(|change| change.change.abs() < 1e-9 && change.chance == 1.0));
    }

    #[test]
    fn a_new_function_is_infinitely_more_than_before() {
        let cell = |values: &[(u32, f64)]| Cell {
            total: values.iter().map(|v| v.1 * SAMPLE).sum(),
            values: values.iter().map(|v| (v.0, v.1 * SAMPLE)).collect(),
        };
        let base = [51.0, 49.0, 50.0, 52.0].map(|n| cell(&[(0, n), (1, 101.0 - n)]));
        let selection = [50.0, 51.0, 49.0, 50.0].map(|n| cell(&[(0, n), (1, 101.0 - n), (2, n - 10.0)]));
        let (typical_ratio, changes) = compared(&base, &selection, 3);
        let new = changes.iter().find(|change| change.function == 2).unwrap();
        assert_eq!((new.base_share, new.change), (0.0, f64::INFINITY));
        assert!(new.is_significant, "{new:?}");
        // The others' shares shrank, as is typical then.
        assert!(typical_ratio < 0.75);
        assert!(changes.iter().all(|change| change.function == 2 || !change.is_significant));
    }

    #[test]
    fn a_single_cell_says_nothing() {
        let one = [Cell { total: 1.0, values: vec![(0, 1.0)] }];
        let (empty, unchanged) = (Cell::default(), Typical { ratio: 1.0, variance: 0.0 });
        let refused = compare((&one, &[one[0].clone(), empty]), 1, unchanged, &Options::default()).unwrap_err();
        assert_eq!(refused, Error::TooFewCells { base: 1, selection: 1 });
    }
}
