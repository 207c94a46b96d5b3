//! The table of functions: what each used itself, and what it used with all it called.
//!
//! The same numbers as `go tool pprof -top`: a function counts once a stack, however often it recurses, and an inlined function
//! counts as itself. The table of a diff has the sums of both sides in every row.

use crate::{frames::Frames, model::Profile, tree::clamp};

/// A table of functions by one sample type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// The sum of all samples, in the unit of the sample type.
    pub total: i64,
    /// The same of the base of a diff; otherwise 0.
    pub base_total: i64,
    /// The functions by descending self value, then by descending total, then by name; of a diff those that differ, by how far.
    pub rows: Vec<Row>,
    /// How many rows the limit cut away.
    pub truncated: usize,
}

/// A function of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The name.
    pub name: String,
    /// The source file; empty where unknown. Where functions of several files share the name, the first in the alphabet of those in
    /// samples that have a value.
    pub file: String,
    /// The sum of the samples whose leaf is this function.
    pub self_value: i64,
    /// The sum of the samples in whose stack this function occurs.
    pub total: i64,
    /// The same as `self_value` of the base of a diff; otherwise 0.
    pub base_self: i64,
    /// The same as `total` of the base of a diff; otherwise 0.
    pub base_total: i64,
}

/// The sums of a name, one for each column.
#[derive(Clone, Copy)]
struct Sums<const N: usize> {
    selves: [i128; N],
    totals: [i128; N],
    /// The sample that was added last, so that none is added twice.
    last_sample: usize,
}

// === impl Top ===

impl Top {
    /// Sums the samples of `profile` by function and their value of sample type `sample_type`, an index into
    /// [`Profile::sample_types`].
    ///
    /// At most `limit` rows are kept, the first ones. Sums beyond 64 bits stand at the largest.
    pub fn new(profile: &Profile<'_>, sample_type: usize, limit: Option<usize>) -> Self {
        Self::build(profile, [sample_type], |[self_value], [total]| (self_value, total), limit)
    }

    /// Sums the two columns of a [`crate::diff::pair`]. The rows that differ most come first: by self value, then by total. Functions that
    /// have the same on both sides are no rows.
    pub fn diff(pair: &Profile<'_>, limit: Option<usize>) -> Self {
        let distance = |[ours, base]: [i128; 2]| (ours - base).abs();
        let mut top = Self::build(pair, [0, 1], |selves, totals| (distance(selves), distance(totals)), None);
        top.rows.retain(|row| (row.self_value, row.total) != (row.base_self, row.base_total));
        top.truncated = limit.map_or(0, |limit| top.rows.len().saturating_sub(limit));
        top.rows.truncate(top.rows.len() - top.truncated);
        top
    }

    /// Sums `columns`; `rank` says of the sums of a row, self values and totals, by what it is ordered.
    fn build<const N: usize>(
        profile: &Profile<'_>,
        columns: [usize; N],
        rank: impl Fn([i128; N], [i128; N]) -> (i128, i128),
        limit: Option<usize>,
    ) -> Self {
        let frames = Frames::new(profile);
        let none = Sums { selves: [0; N], totals: [0; N], last_sample: usize::MAX };
        let mut sums = vec![none; frames.names().len()];
        let mut stack = Vec::new();
        let mut all = [0; N];
        let mut used = vec![false; profile.locations.len()];
        for sample in 0..profile.samples.len() {
            let row = profile.values(sample);
            let values = columns.map(|column| i128::from(row[column]));
            if values.iter().all(|&value| value == 0) {
                continue;
            }
            add(&mut all, values);
            profile.samples.stack(sample).iter().for_each(|&location| used[location as usize] = true);
            frames.stack(profile.samples.stack(sample), &mut stack);
            if let Some(&leaf) = stack.first() {
                add(&mut sums[leaf as usize].selves, values);
            }
            for &name in &stack {
                let sums = &mut sums[name as usize];
                if sums.last_sample != sample {
                    sums.last_sample = sample;
                    add(&mut sums.totals, values);
                }
            }
        }
        let is_zero = |sums: &[i128; N]| sums.iter().all(|&sum| sum == 0);
        let mut order: Vec<usize> =
            (0..sums.len()).filter(|&i| !is_zero(&sums[i].selves) || !is_zero(&sums[i].totals)).collect();
        order.sort_unstable_by(|&a, &b| {
            let values = |i: usize| rank(sums[i].selves, sums[i].totals);
            values(b).cmp(&values(a)).then_with(|| frames.names()[a].cmp(&frames.names()[b]))
        });
        let kept = limit.unwrap_or(usize::MAX).min(order.len());
        let origins = frames.origins(profile, &used);
        let column = |sums: [i128; N], column: usize| sums.get(column).copied().map_or(0, clamp);
        let row = |&i: &usize| Row {
            name: frames.names()[i].clone(),
            file: origins.get(i as u32).file,
            self_value: column(sums[i].selves, 0),
            total: column(sums[i].totals, 0),
            base_self: column(sums[i].selves, 1),
            base_total: column(sums[i].totals, 1),
        };
        Self {
            total: column(all, 0),
            base_total: column(all, 1),
            rows: order[..kept].iter().map(row).collect(),
            truncated: order.len() - kept,
        }
    }
}

fn add<const N: usize>(sums: &mut [i128; N], values: [i128; N]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}
