//! Whether a function costs another share than before, beyond what instances and moments differ by anyway.
//!
//! In come cells: what one instance used in one step of time, function by function, for a base and for what is compared with it. Out
//! come the functions whose share changed, each with the chance that it only seems so. Nothing here knows what a function is.
//!
//! The noise model. A share's standard error follows from how cells spread around it (the linearised variance of a ratio of sums: Cochran,
//! Sampling Techniques, 6.3), but is never less than what counting whole samples gives. Cells are no independent draws: an instance may
//! differ from the others for good, and a moment from others wherever it is measured. So the same variance is taken once more with
//! all cells of an instance as one, and with all of a step (cluster-robust variances, instances and steps each: Cameron, Gelbach and
//! Miller 2011); an instance or a step that stands on both sides counts with its difference, so that what is the same on both cancels.
//! Instances are often few, so how much larger these variances are is not believed of each function alone, but shrunk
//! towards what holds for others as large (the moderated variances of limma: Smyth 2004, section 6).
//! When one function grows, the share of every other one shrinks; what is typical of the program
//! is therefore taken out first, by the weighted median of all functions' ratios (as DESeq normalises counts: Anders and Huber 2010), whose own
//! uncertainty counts as well.
//! Shares are compared by Welch's t-test, and chances corrected for testing many functions by Holm's method, so that a program
//! that did not change raises any alarm at all in at most [`Options::alarm_chance`] of all comparisons.
//!
//! What it cannot know: how one instance would differ from others where either side has only that one, and a drift from one window to
//! the next that no step within them shows.

use std::collections::BTreeMap;
use std::f64::consts::FRAC_PI_2;

use statrs::distribution::{ContinuousCDF as _, FisherSnedecor, StudentsT};
use statrs::function::gamma::digamma;

/// Of fewer functions no trend by their size is to be seen.
const TREND_MIN: usize = 6;

/// How many independent functions a program is taken to have at most, where functions are said to vary alike.
const INDEPENDENT_MAX: f64 = 4.0;

/// The most degrees of freedom that are told apart.
const FREEDOM_MAX: f64 = 1e6;

/// The chance with which a function that is like the others is taken to be unlike them.
const UNLIKE: f64 = 0.05;

/// What one cell used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// The sum over all functions, and of samples without any.
    pub total: f64,
    /// The numbers of the functions with a value, each once, and their values.
    pub values: Vec<(u32, f64)>,
    /// The number of its instance, or of its group of them; the same on both sides is the same one.
    pub instance: u32,
    /// The number of its step of time; the same on both sides is the same time.
    pub step: u32,
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
        "it takes at least two cells with samples on either side to know what is noise; of the base there are {base}, of the selection {selection}"
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
    /// The variance of the share, if cells are independent.
    variance: Vec<f64>,
    /// What it is at least, for samples are whole.
    counting: Vec<f64>,
}

/// By how much shares change of functions that do not change by themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Typical {
    /// What a share is multiplied with: below 1 where something else grew.
    pub ratio: f64,
    /// The variance of `ratio`, relative to its square.
    pub variance: f64,
}

/// A base and what is compared with it, with the shares of all functions in both.
pub struct Sides<'a> {
    base: &'a [Cell],
    selection: &'a [Cell],
    before: Shares,
    now: Shares,
    functions: usize,
    options: &'a Options,
}

// === impl Sides ===

impl<'a> Sides<'a> {
    /// Sums up the shares of functions, which are numbered below `functions`.
    pub fn new(base: &'a [Cell], selection: &'a [Cell], functions: usize, options: &'a Options) -> Self {
        let (before, now) = (Shares::of(base, functions, options), Shares::of(selection, functions, options));
        Self { base, selection, before, now, functions, options }
    }

    /// Returns by how much shares changed of functions that did not change by themselves. The cells must have what functions used
    /// themselves: their callers' sums would hide it.
    pub fn typical(&self) -> Typical {
        let Self { base, selection, before, now, functions, options } = self;
        let ratio = weighted_median(&before.share, &now.share, options.share_min);
        let in_both: Vec<usize> =
            (0..*functions).filter(|&f| before.share[f] >= options.share_min && now.share[f] > 0.0).collect();
        let noise = Noise::of([(base, before), (selection, now)], ratio, &in_both);
        let (mut weights, mut variance) = (0.0, 0.0);
        for (&f, noise) in in_both.iter().zip(noise) {
            let relative = before.variance[f] / before.share[f].powi(2) + now.variance[f] / now.share[f].powi(2);
            weights += before.share[f];
            variance += before.share[f].powi(2) * relative * noise.factor;
        }
        // That of the weighted mean; a median's is larger by this factor where errors are normal.
        let variance = if weights > 0.0 { FRAC_PI_2 * variance / weights.powi(2) } else { 0.0 };
        Typical { ratio, variance }
    }

    /// Compares the cells with those of the base, whose shares would have changed as is `typical` without a change of their own. Returns the
    /// functions that were looked at, those that changed most surely first.
    ///
    /// # Errors
    /// [`Error`].
    pub fn compare(&self, typical: Typical) -> Result<Vec<Change>, Error> {
        let Self { base, selection, before, now, functions, options } = self;
        if before.cells < 2 || now.cells < 2 {
            return Err(Error::TooFewCells { base: before.cells, selection: now.cells });
        }
        let is_looked_at = |f: &usize| before.share[*f].max(now.share[*f]) >= options.share_min;
        let looked_at: Vec<usize> = (0..*functions).filter(is_looked_at).collect();
        let noise = Noise::of([(base, before), (selection, now)], typical.ratio, &looked_at);
        let change = |(&f, noise): (&usize, Noise)| {
            let expected = typical.ratio * before.share[f];
            let (spread_before, spread_now) = (typical.ratio.powi(2) * before.variance[f], now.variance[f]);
            let spread = noise.factor * (spread_before + spread_now);
            let spread_typical = expected.powi(2) * typical.variance;
            let error = (spread + spread_typical).sqrt();
            let of_cells = |cells: usize| cells as f64 - 1.0;
            // What is typical is known from all functions in the cells of both sides.
            let of_typical = (spread_typical, of_cells(before.cells + now.cells));
            let freedom = if noise.parts.is_empty() {
                let sides = [(spread_before, of_cells(before.cells)), (spread_now, of_cells(now.cells)), of_typical];
                freedom(spread + spread_typical, sides)
            } else {
                let parts =
                    noise.parts.iter().map(|(factor, freedom)| (factor * (spread_before + spread_now), *freedom));
                freedom(spread + spread_typical, parts.chain([of_typical]))
            };
            Change {
                function: f as u32,
                base_share: before.share[f],
                share: now.share[f],
                change: now.share[f] / expected - 1.0,
                change_error: error / expected,
                chance: chance((now.share[f] - expected) / error, freedom),
                is_significant: false,
            }
        };
        let mut changes: Vec<Change> = looked_at.iter().zip(noise).map(change).collect();
        changes.sort_by(|a, b| {
            a.chance.total_cmp(&b.chance).then(b.share.total_cmp(&a.share)).then(a.function.cmp(&b.function))
        });
        correct(&mut changes);
        for change in &mut changes {
            change.is_significant = change.chance <= options.alarm_chance && change.change.abs() >= options.change_min;
        }
        Ok(changes)
    }
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
        let counting: Vec<f64> = share.iter().map(|&share| counting(share)).collect();
        let variance = counting.iter().zip(spread).map(|(&counting, spread)| (spread * scale).max(counting)).collect();
        Self { cells: n, variance, counting, share }
    }
}

// === impl Noise ===

/// How much a function's share varies, beside how much it would if all cells were independent.
struct Noise {
    /// Its variance over that of independent cells.
    factor: f64,
    /// What it is made of, and with how many degrees of freedom each is known; nothing where cells are all that is known.
    parts: Vec<(f64, f64)>,
}

impl Noise {
    /// Returns the noise of each of the functions `of`.
    fn of(sides: [(&[Cell], &Shares); 2], ratio: f64, of: &[usize]) -> Vec<Self> {
        let sum = |of: fn(&Shares) -> &[f64], f: usize| ratio.powi(2) * of(sides[0].1)[f] + of(sides[1].1)[f];
        let independent: Vec<f64> = of.iter().map(|&f| sum(|shares| &shares.variance, f)).collect();
        let sizes: Vec<f64> = of.iter().map(|&f| (ratio * sides[0].1.share[f] + sides[1].1.share[f]).ln()).collect();
        let by = |cluster: fn(&Cell) -> u32| moderated(clustered(sides, ratio, of, cluster), &independent, &sizes);
        let (by_instance, by_step) = (by(|cell| cell.instance), by(|cell| cell.step));
        (of.iter().zip(independent).zip(by_instance.into_iter().zip(by_step)))
            .map(|((&f, independent), known)| {
                let least = if independent > 0.0 { sum(|shares| &shares.counting, f) / independent } else { 0.0 };
                let (factor, parts) = match known {
                    (None, None) => (1.0, Vec::new()),
                    (Some(part), None) | (None, Some(part)) if part.0 > 1.0 => (part.0, vec![part]),
                    (Some(_), None) | (None, Some(_)) => (1.0, Vec::new()),
                    // What is in both was counted twice; less than the larger of them it cannot be.
                    (Some(instance), Some(step)) => {
                        let both = instance.0 + step.0 - 1.0;
                        let larger = if instance.0 > step.0 { instance } else { step };
                        if both > larger.0 { (both, vec![instance, step]) } else { (larger.0, vec![larger]) }
                    }
                };
                Self { factor: factor.max(least), parts }
            })
            .collect()
    }
}

/// The variance of the difference of each function's shares, with all cells of a cluster as one.
struct Clustered {
    variance: Vec<f64>,
    /// Its degrees of freedom.
    freedom: f64,
}

/// Returns what cells of one cluster together say of the variance of `share now - ratio * share before`; none where clusters are too few.
fn clustered(
    sides: [(&[Cell], &Shares); 2],
    ratio: f64,
    of: &[usize],
    cluster: impl Fn(&Cell) -> u32,
) -> Option<Clustered> {
    let functions = sides[0].1.share.len();
    let mut slots = vec![usize::MAX; functions];
    of.iter().enumerate().for_each(|(slot, &f)| slots[f] = slot);
    // By cluster, what each side has beyond its shares; none where the cluster is not on that side.
    let mut beyond: BTreeMap<u32, [Option<Vec<f64>>; 2]> = BTreeMap::new();
    for (side, (cells, shares)) in sides.into_iter().enumerate() {
        let total: f64 = cells.iter().map(|cell| cell.total).sum();
        let scale = if side == 0 { -ratio } else { 1.0 } / total;
        for cell in cells.iter().filter(|cell| cell.total > 0.0) {
            let known = &mut beyond.entry(cluster(cell)).or_default()[side];
            let sums = known.get_or_insert_with(|| vec![0.0; of.len()]);
            for (sum, &f) in sums.iter_mut().zip(of) {
                *sum -= scale * shares.share[f] * cell.total;
            }
            for &(function, value) in &cell.values {
                if let Some(sum) = sums.get_mut(slots[function as usize]) {
                    *sum += scale * value;
                }
            }
        }
    }
    let n = |side: usize| beyond.values().filter(|of| of[side].is_some()).count();
    let (all, counts) = (beyond.len(), [n(0), n(1)]);
    let squares = |side: usize| {
        let mut sums = vec![0.0; of.len()];
        for beyond in beyond.values().filter_map(|of| of[side].as_ref()) {
            sums.iter_mut().zip(beyond).for_each(|(sum, beyond)| *sum += beyond.powi(2));
        }
        sums
    };
    if counts[0] + counts[1] == all {
        // None is on both sides: each has a variance of its own. One that is alone on its side is taken to differ as those of the other do.
        let correction = |n: usize| n as f64 / (n as f64 - 1.0);
        let parts = match counts {
            [0..=1, 0..=1] => return None,
            [0..=1, n] => [n as f64 * correction(n) * ratio.powi(2), correction(n)].map(|factor| (1, factor)),
            [n, 0..=1] => [correction(n), n as f64 * correction(n) / ratio.powi(2)].map(|factor| (0, factor)),
            [before, now] => [(0, correction(before)), (1, correction(now))],
        };
        let mut variance = vec![0.0; of.len()];
        for (side, factor) in parts {
            variance.iter_mut().zip(squares(side)).for_each(|(sum, squares)| *sum += factor * squares);
        }
        return Some(Clustered { variance, freedom: counts.map(|n| n.saturating_sub(1)).iter().sum::<usize>() as f64 });
    }
    let mut variance = vec![0.0; of.len()];
    for both in beyond.values() {
        for (slot, sum) in variance.iter_mut().enumerate() {
            let value: f64 = both.iter().flatten().map(|beyond| beyond[slot]).sum();
            *sum += value.powi(2);
        }
    }
    // What is beyond sums to nothing over each side, and where all are on both, the sides count as one.
    let bound = if counts == [all, all] { 1 } else { 2 };
    if all <= bound {
        return None;
    }
    let freedom = (all - bound) as f64;
    variance.iter_mut().for_each(|sum| *sum *= all as f64 / freedom);
    Some(Clustered { variance, freedom })
}

/// Returns how many times the variance of independent cells that of clusters is, for each function, shrunk towards what holds for others as
/// large, and with how many degrees of freedom that is known; none where clusters are too few. `sizes` are the logarithms of the shares.
///
/// It is the posterior of Smyth (2004, section 6), whose prior is a scaled F distribution with a trend, by the moments of the logarithms
/// (limma's `fitFDist`). A function that evidently is not like the others keeps what is its own, as in limma's robust form.
fn moderated(clustered: Option<Clustered>, independent: &[f64], sizes: &[f64]) -> Vec<Option<(f64, f64)>> {
    let Some(Clustered { variance, freedom: own }) = clustered else { return vec![None; independent.len()] };
    let ratios: Vec<f64> = (variance.iter().zip(independent))
        .map(|(clustered, independent)| if *independent > 0.0 { clustered / independent } else { 0.0 })
        .collect();
    let (sizes_known, logs): (Vec<f64>, Vec<f64>) =
        sizes.iter().zip(&ratios).filter(|(_, ratio)| **ratio > 0.0).map(|(size, ratio)| (*size, ratio.ln())).unzip();
    let n = logs.len() as f64;
    let fitted = if logs.len() < TREND_MIN { 1.0 } else { 2.0 };
    if n <= fitted {
        return ratios.into_iter().map(|ratio| Some((ratio, own))).collect();
    }
    let mean = |of: &[f64]| of.iter().sum::<f64>() / n;
    let (size, log) = (mean(&sizes_known), mean(&logs));
    let products =
        |a: &[f64], at: f64, b: &[f64], bt: f64| a.iter().zip(b).map(|(a, b)| (a - at) * (b - bt)).sum::<f64>();
    let slope = if fitted > 1.0 {
        let spread = products(&sizes_known, size, &sizes_known, size);
        if spread > 0.0 { products(&sizes_known, size, &logs, log) / spread } else { 0.0 }
    } else {
        0.0
    };
    let left: f64 = sizes_known.iter().zip(&logs).map(|(at, of)| (of - log - slope * (at - size)).powi(2)).sum();
    let spread = left / (n - fitted) - trigamma(own / 2.0);
    // Functions call each other and serve the same requests: all together they say no more than a few that are independent.
    let most = (n - fitted).min(INDEPENDENT_MAX) * own;
    let of_all = if spread > 0.0 { (2.0 * trigamma_inverse(spread)).min(most) } else { most };
    let expected = |half: f64| digamma(half) - half.ln();
    let centre = log - expected(own / 2.0) + expected(of_all / 2.0);
    let unlike = FisherSnedecor::new(own, of_all).expect("both are above 0").inverse_cdf(1.0 - UNLIKE);
    let posterior = |(ratio, at): (f64, &f64)| {
        let typical = (centre + slope * (at - size)).exp();
        if ratio > unlike * typical {
            (ratio, own)
        } else {
            ((of_all * typical + own * ratio) / (of_all + own), of_all + own)
        }
    };
    ratios.into_iter().zip(sizes).map(posterior).map(Some).collect()
}

/// Returns the second derivative of the logarithm of the gamma function, for `x` above 0 (Abramowitz and Stegun, 6.4.6 and 6.4.12).
fn trigamma(mut x: f64) -> f64 {
    let mut sum = 0.0;
    while x < 6.0 {
        sum += x.powi(-2);
        x += 1.0;
    }
    let square = x.powi(-2);
    sum + 1.0 / x
        + square / 2.0
        + square / x * (1.0 / 6.0 - square * (1.0 / 30.0 - square * (1.0 / 42.0 - square / 30.0)))
}

/// Returns where [`trigamma`] has a value above 0, by Newton's method on its reciprocal, which is nearly straight (Smyth 2004, appendix).
fn trigamma_inverse(value: f64) -> f64 {
    let mut x = 0.5 + 1.0 / value;
    for _ in 0..50 {
        let (at, step) = (trigamma(x), x * 1e-6);
        // The derivative of 1 / trigamma, which has the sign of none of its rounding at this step.
        let slope = (1.0 / trigamma(x + step) - 1.0 / at) / step;
        let next = x - (1.0 / at - 1.0 / value) / slope;
        if next <= 0.0 || (next - x).abs() <= 1e-9 * x {
            break;
        }
        x = next;
    }
    x
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

/// Returns the degrees of freedom of a variance that is a sum of others, each with its own (Satterthwaite 1946).
fn freedom(sum: f64, of: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    let squares = of.into_iter().map(|(variance, freedom)| variance.powi(2) / freedom).sum::<f64>();
    // With so many, as where what is known has no spread at all, it is a normal distribution.
    (sum.powi(2) / squares).min(FREEDOM_MAX)
}

/// Returns the chance of a difference of `t` standard errors or more that are known with this freedom.
fn chance(t: f64, freedom: f64) -> f64 {
    if t.is_nan() || t == 0.0 {
        // Nothing differs, and nothing ever did.
        return 1.0;
    }
    if t.is_infinite() {
        return 0.0;
    }
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
    use rand::distr::Distribution as _;
    use rand::distr::weighted::WeightedIndex;
    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    /// How many functions the program of these tests has: the first with a share of 18 %, others with less and less.
    const FUNCTIONS: usize = 40;

    /// What cells of a side are made of.
    #[derive(Clone, Copy, Default)]
    struct Plan {
        instances: u32,
        steps: u32,
        /// The number of the first instance; the same on both sides is the same instance, with the same differences.
        first: u32,
        /// The same of the first step.
        first_step: u32,
        /// How much, in standard deviations of the logarithm, an instance has more or less of a function, for good.
        instances_differ: f64,
        /// The same of a step, for all instances.
        steps_differ: f64,
        /// Only the first function differs so.
        only_first: bool,
        /// Which function became slower.
        slower: usize,
        /// By how much that function became slower.
        factor: f64,
        /// How many samples a cell has, half as many to half as many again.
        samples: u32,
    }

    /// Six instances in three steps, which differ by what lies between samples alone.
    const PLAN: Plan = Plan {
        instances: 6,
        steps: 3,
        first: 0,
        first_step: 0,
        instances_differ: 0.0,
        steps_differ: 0.0,
        only_first: false,
        slower: 0,
        factor: 1.0,
        samples: 1_000,
    };

    /// The same somewhere else and later.
    const OTHER: Plan = Plan { first: 1_000, first_step: 1_000, ..PLAN };

    /// Returns a factor of about 1 for each function, which is the same whenever that instance or step of this world is asked for.
    fn differs(world: u64, who: u32, deviation: f64, plan: Plan) -> [f64; FUNCTIONS] {
        let mut chance = SmallRng::seed_from_u64(world ^ (u64::from(who) << 32));
        let mut normal = || (0..12).map(|_| chance.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        std::array::from_fn(|f| match (normal(), plan.only_first && f > 0) {
            (_, true) => 1.0,
            (normal, false) => (deviation * normal).exp(),
        })
    }

    /// A side: samples of 10 ms in each cell, of functions whose shares wobble by a tenth from cell to cell.
    fn side(chance: &mut SmallRng, world: u64, plan: Plan) -> Vec<Cell> {
        let mut cells = Vec::new();
        for instance in plan.first..plan.first + plan.instances {
            let of_instance = differs(world, instance, plan.instances_differ, plan);
            for step in plan.first_step..plan.first_step + plan.steps {
                let of_step = differs(!world, step, plan.steps_differ, plan);
                let mut weights: Vec<f64> = (0..FUNCTIONS)
                    .map(|f| 0.9f64.powi(f as i32) * of_instance[f] * of_step[f] * chance.random_range(0.9..1.1))
                    .collect();
                weights[0] *= 2.0;
                weights[plan.slower] *= plan.factor;
                let drawn = WeightedIndex::new(&weights).unwrap();
                let mut counts = [0.0; FUNCTIONS];
                let samples = chance.random_range(plan.samples / 2..plan.samples * 3 / 2);
                (0..samples).for_each(|_| counts[drawn.sample(chance)] += SAMPLE);
                let values = (0u32..).zip(counts).filter(|(_, value)| *value > 0.0).collect();
                cells.push(Cell { total: counts.iter().sum(), values, instance, step });
            }
        }
        cells
    }

    const SAMPLE: f64 = 10e6;

    fn cells(chance: &mut SmallRng, factor: f64) -> Vec<Cell> {
        let plan = Plan { first: chance.random(), first_step: chance.random(), factor, ..PLAN };
        let plan = Plan { first: plan.first >> 1, first_step: plan.first_step >> 1, ..plan };
        side(chance, 0, plan)
    }

    fn compared(base: &[Cell], selection: &[Cell], functions: usize) -> (f64, Vec<Change>) {
        let options = Options { sample_value: SAMPLE, ..Options::default() };
        let sides = Sides::new(base, selection, functions, &options);
        let typical = sides.typical();
        (typical.ratio, sides.compare(typical).expect("there are cells enough"))
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

    /// In how many of 200 comparisons something seems to have changed.
    fn alarms(seed: u64, base: Plan, selection: Plan) -> usize {
        let mut chance = SmallRng::seed_from_u64(seed);
        (0..200)
            .filter(|world| {
                let sides = [base, selection].map(|plan| side(&mut chance, *world, plan));
                !significant(&sides[0], &sides[1]).is_empty()
            })
            .count()
    }

    /// Five of a hundred are meant. What an instance has differs here by a factor drawn from a lognormal distribution, which by 0.3 is rarely
    /// seen and badly told from two or three instances: then it is up to twelve. With cells taken for independent it had been all.
    #[test]
    fn other_instances_that_differ_for_good_raise_hardly_more_alarms() {
        for (instances, steps) in [(2, 8), (3, 8), (8, 6), (20, 2)] {
            for (instances_differ, only_first, most) in
                [(0.05, false, 16), (0.1, false, 16), (0.2, true, 24), (0.3, false, 26)]
            {
                let base = Plan { instances, steps, instances_differ, only_first, ..PLAN };
                let alarms = alarms(5, base, Plan { first: OTHER.first, first_step: OTHER.first_step, ..base });
                assert!(
                    alarms <= most,
                    "{alarms} of 200: {instances} instances differ by {instances_differ}, {only_first}"
                );
            }
        }
    }

    #[test]
    fn moments_that_differ_for_all_instances_raise_hardly_more_alarms() {
        for (steps_differ, only_first) in [(0.05, false), (0.1, false), (0.2, true)] {
            let base = Plan { instances: 6, steps: 8, steps_differ, only_first, ..PLAN };
            let alarms = alarms(6, base, Plan { first_step: OTHER.first_step, ..base });
            assert!(alarms <= 16, "{alarms} of 200: steps differ by {steps_differ}, {only_first}");
        }
    }

    #[test]
    fn one_instance_alone_is_taken_to_differ_as_those_of_the_other_side_do() {
        let base = Plan { instances: 1, steps: 8, instances_differ: 0.1, ..PLAN };
        let others = Plan { instances: 6, first: OTHER.first, ..base };
        for (base, selection) in [(base, others), (others, base)] {
            let alarms = alarms(7, base, selection);
            assert!(alarms <= 16, "{alarms} of 200");
        }
    }

    #[test]
    fn what_the_same_instances_have_on_both_sides_hides_no_change() {
        let base = Plan { instances: 4, steps: 8, instances_differ: 0.3, ..PLAN };
        let later = Plan { first_step: OTHER.first_step, factor: 1.2, ..base };
        let mut chance = SmallRng::seed_from_u64(8);
        let found = (0..100).filter(|world| {
            let sides = [base, later].map(|plan| side(&mut chance, *world, plan));
            significant(&sides[0], &sides[1]).iter().any(|(f, change)| *f == 0 && *change > 0.0)
        });
        let found = found.count();
        assert!(found >= 85, "found in {found} of 100");
    }

    /// A row of the table in docs/querying.md.
    struct Found {
        /// The share of the function in percent, and its number.
        function: (u32, usize),
        instances: u32,
        samples: u32,
        /// In how many of 100 comparisons it is found to take longer where instances differ by [`DIFFER`].
        found: [usize; 4],
    }

    /// By how many percent instances differ.
    const DIFFER: [u32; 4] = [0, 2, 5, 10];

    const FOUND: [Found; 8] = [
        Found { function: (18, 0), instances: 3, samples: 24_000, found: [95, 89, 61, 17] },
        Found { function: (18, 0), instances: 12, samples: 24_000, found: [99, 99, 96, 73] },
        Found { function: (7, 3), instances: 3, samples: 24_000, found: [82, 77, 43, 16] },
        Found { function: (7, 3), instances: 3, samples: 100_000, found: [100, 96, 66, 18] },
        Found { function: (7, 3), instances: 12, samples: 100_000, found: [100, 100, 100, 68] },
        Found { function: (2, 15), instances: 3, samples: 24_000, found: [22, 20, 11, 5] },
        Found { function: (2, 15), instances: 3, samples: 100_000, found: [93, 81, 42, 13] },
        Found { function: (2, 15), instances: 12, samples: 100_000, found: [97, 98, 94, 53] },
    ];

    /// Goal: how often a slower function is found depends on how large it is, of how many samples it is known, and on how instances differ; the
    /// table of the documentation is what this simulation gives.
    #[test]
    fn what_is_found_is_what_the_documentation_says() {
        let documentation = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/querying.md");
        let documentation = std::fs::read_to_string(documentation).expect("the documentation of questions");
        let (mut measured, mut said) = (Vec::new(), Vec::new());
        for Found { function: (share, slower), instances, samples, found } in FOUND {
            let row = |counts: [usize; 4]| {
                let samples = format!("{},{:03}", samples / 1_000, samples % 1_000);
                let counts = counts.map(|count| format!(" {count} |")).concat();
                format!("| {share} % | {instances} | {samples} |{counts}")
            };
            measured.push(row(DIFFER.map(|differ| {
                // As many steps as a comparison has of so many instances.
                let (steps, instances_differ) = ((48 / instances).clamp(4, 8), f64::from(differ) / 100.0);
                let cell = samples / (instances * steps);
                let base = Plan { instances, steps, instances_differ, slower, samples: cell, ..PLAN };
                let other = Plan { first: OTHER.first, first_step: OTHER.first_step, factor: 1.2, ..base };
                let mut chance = SmallRng::seed_from_u64(9);
                let is_found = |world: &u64| {
                    let sides = [base, other].map(|plan| side(&mut chance, *world, plan));
                    significant(&sides[0], &sides[1]).iter().any(|(f, change)| *f == slower as u32 && *change > 0.0)
                };
                (0..100).filter(is_found).count()
            })));
            said.push(row(found));
        }
        assert!(measured == said, "measured is\n{}\nand not\n{}", measured.join("\n"), said.join("\n"));
        let lacking: Vec<&String> =
            said.iter().filter(|row| !documentation.lines().any(|line| line == **row)).collect();
        assert!(lacking.is_empty(), "docs/querying.md lacks {lacking:?}");
    }

    #[test]
    fn trigamma_is_the_textbooks() {
        let (pi, at) = (std::f64::consts::PI, [0.5, 1.0, 2.0, 40.0]);
        for (x, expected) in at.into_iter().zip([pi.powi(2) / 2.0, pi.powi(2) / 6.0, pi.powi(2) / 6.0 - 1.0]) {
            assert!((trigamma(x) - expected).abs() < 1e-7, "{} at {x}", trigamma(x));
        }
        for x in at {
            assert!((trigamma_inverse(trigamma(x)) / x - 1.0).abs() < 1e-4, "{x}: {}", trigamma_inverse(trigamma(x)));
        }
    }

    /// Of few functions each one is much of what is typical.
    #[test]
    fn a_small_program_raises_no_more_alarms_than_a_large_one() {
        let mut chance = SmallRng::seed_from_u64(4);
        let cells = |chance: &mut SmallRng| -> Vec<Cell> {
            let cell = |chance: &mut SmallRng| {
                let mut counts = [0.0; 3];
                (0..150).for_each(|_| counts[chance.random_range(0..3)] += SAMPLE);
                Cell { total: counts.iter().sum(), values: (0..).zip(counts).collect(), ..Cell::default() }
            };
            let first = chance.random::<u32>() >> 1;
            (0..12).map(|n| Cell { instance: first + n % 4, step: first + n / 4, ..cell(chance) }).collect()
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
            ..Cell::default()
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
    fn functions_without_any_spread_are_compared_too() {
        let cell = |share: f64, instance: u32, step: u32| Cell {
            total: 100.0 * SAMPLE,
            values: vec![(0, share * SAMPLE), (1, (100.0 - share) * SAMPLE)],
            instance,
            step,
        };
        for sample_value in [0.0, SAMPLE] {
            for instances in [1, 2, 4] {
                let side = |share, first| (0..4).map(|n| cell(share, first + n % instances, n)).collect::<Vec<_>>();
                let options = Options { sample_value, ..Options::default() };
                for (base, selection, first) in [(50.0, 50.0, 0), (50.0, 80.0, 0), (50.0, 80.0, 9)] {
                    let sides = [side(base, 0), side(selection, first)];
                    let sides = Sides::new(&sides[0], &sides[1], 2, &options);
                    let changes = sides.compare(sides.typical()).unwrap();
                    assert!(changes.iter().all(|change| (0.0..=1.0).contains(&change.chance)), "{changes:?}");
                    assert_eq!(changes.iter().any(|change| change.is_significant), base != selection, "{changes:?}");
                }
            }
        }
    }

    #[test]
    fn a_single_cell_says_nothing() {
        let one = [Cell { total: 1.0, values: vec![(0, 1.0)], ..Cell::default() }];
        let (empty, unchanged) = (Cell::default(), Typical { ratio: 1.0, variance: 0.0 });
        let (options, selection) = (Options::default(), [one[0].clone(), empty]);
        let refused = Sides::new(&one, &selection, 1, &options).compare(unchanged).unwrap_err();
        assert_eq!(refused, Error::TooFewCells { base: 1, selection: 1 });
    }
}
