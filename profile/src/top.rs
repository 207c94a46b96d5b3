//! The table of functions: what each used itself, and what it used with all it called.
//!
//! The same numbers as `go tool pprof -top`: a function counts once a stack, however often it recurses, and an inlined function
//! counts as itself.

use crate::{frames::Frames, model::Profile, tree::clamp};

/// A table of functions by one sample type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// The sum of all samples, in the unit of the sample type.
    pub total: i64,
    /// The functions by descending self value, then by descending total, then by name.
    pub rows: Vec<Row>,
    /// How many rows the limit cut away.
    pub truncated: usize,
}

/// A function of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The name.
    pub name: String,
    /// The source file; empty where unknown.
    pub file: String,
    /// The sum of the samples whose leaf is this function.
    pub self_value: i64,
    /// The sum of the samples in whose stack this function occurs.
    pub total: i64,
}

/// The sums of a name.
#[derive(Clone, Copy)]
struct Sums {
    self_value: i128,
    total: i128,
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
        let frames = Frames::new(profile);
        let mut sums = vec![Sums { self_value: 0, total: 0, last_sample: usize::MAX }; frames.names().len()];
        let mut stack = Vec::new();
        let mut total = 0i128;
        for sample in 0..profile.samples.len() {
            let value = i128::from(profile.values(sample)[sample_type]);
            if value == 0 {
                continue;
            }
            total += value;
            frames.stack(profile.samples.stack(sample), &mut stack);
            if let Some(&leaf) = stack.first() {
                sums[leaf as usize].self_value += value;
            }
            for &name in &stack {
                let sums = &mut sums[name as usize];
                if sums.last_sample != sample {
                    sums.last_sample = sample;
                    sums.total += value;
                }
            }
        }
        let mut order: Vec<usize> =
            (0..sums.len()).filter(|&i| sums[i].self_value != 0 || sums[i].total != 0).collect();
        order.sort_unstable_by(|&a, &b| {
            let values = |i: usize| (sums[i].self_value, sums[i].total);
            values(b).cmp(&values(a)).then_with(|| frames.names()[a].cmp(&frames.names()[b]))
        });
        let kept = limit.unwrap_or(usize::MAX).min(order.len());
        let row = |&i: &usize| Row {
            name: frames.names()[i].clone(),
            file: frames.file(i as u32).to_owned(),
            self_value: clamp(sums[i].self_value),
            total: clamp(sums[i].total),
        };
        Self { total: clamp(total), rows: order[..kept].iter().map(row).collect(), truncated: order.len() - kept }
    }
}
