//! Which profiles come along in a merge, and in which order.

use std::collections::BTreeMap;
use std::sync::Arc;

use afterglow_profile::{Labels, ProfileType};
use rustc_hash::FxHashSet;
use ulid::Ulid;

use super::Input;
use crate::block::rows::Row;
use crate::paths::Day;

/// All profiles of a merge, in the order in which they are written.
#[derive(Debug)]
pub(super) struct Plan {
    /// The datasets of all inputs, sorted.
    pub(super) datasets: Vec<Named>,
    pub(super) picks: Vec<Pick>,
    /// How many profiles stay behind because an earlier one has their id.
    pub(super) duplicates: u64,
}

/// A dataset, whichever blocks have it.
#[derive(Debug)]
pub(super) struct Named {
    /// The number of its service.
    pub(super) service: u32,
    pub(super) name: Box<str>,
    pub(super) profile_type: ProfileType,
}

/// Which of the services that a merge begins, one after the other: one for each day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ordinal(u32);

/// A profile that comes along. The first three order them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    pub(super) day: Day,
    /// An index into [`Plan::datasets`].
    pub(super) dataset: u32,
    /// The place of its labels among those of its dataset in all inputs.
    series: u32,
    pub(super) input: u32,
    pub(super) row: u32,
}

impl Plan {
    /// Plans the merge of `inputs`, which have these `rows`.
    pub(super) fn new(inputs: &[Input], rows: &[Arc<Vec<Row>>]) -> Self {
        let mut of_datasets: BTreeMap<(&str, &ProfileType), BTreeMap<&Labels, u32>> = BTreeMap::new();
        for dataset in inputs.iter().flat_map(|input| input.block.toc().datasets()) {
            let series = of_datasets.entry((dataset.service(), dataset.profile_type())).or_default();
            series.extend(dataset.series().iter().map(|labels| (labels, 0)));
        }
        for series in of_datasets.values_mut() {
            series.values_mut().zip(0..).for_each(|(place, i)| *place = i);
        }
        let mut datasets: Vec<Named> = Vec::new();
        for (name, profile_type) in of_datasets.keys() {
            let service = datasets.last().map_or(0, |last| last.service + u32::from(*last.name != **name));
            datasets.push(Named { service, name: (*name).into(), profile_type: (*profile_type).clone() });
        }

        let places: BTreeMap<_, _> = of_datasets.keys().copied().zip(0..).collect();
        let mut seen: FxHashSet<Ulid> = FxHashSet::default();
        let (mut picks, mut duplicates) = (Vec::new(), 0);
        for ((input, rows), number) in inputs.iter().zip(rows).zip(0..) {
            let mut skip = input.skip.iter().copied().peekable();
            for (dataset, of) in input.block.toc().datasets().iter().map(|dataset| {
                let key = (dataset.service(), dataset.profile_type());
                (dataset, (places[&key], &of_datasets[&key]))
            }) {
                let series: Vec<u32> = dataset.series().iter().map(|labels| of.1[labels]).collect();
                for i in dataset.rows() {
                    let (row, i) = (&rows[i], i as u32);
                    while skip.next_if(|&skipped| skipped < i).is_some() {}
                    if skip.peek() == Some(&i) {
                        continue;
                    }
                    if !seen.insert(row.id) {
                        duplicates += 1;
                        continue;
                    }
                    let series = series[row.series as usize];
                    picks.push(Pick {
                        day: Day::of_nanos(row.time_nanos),
                        dataset: of.0,
                        series,
                        input: number,
                        row: i,
                    });
                }
            }
        }
        let order = |pick: &Pick| {
            let row = &rows[pick.input as usize][pick.row as usize];
            (pick.day, pick.dataset, pick.series, row.time_nanos, row.id)
        };
        // Ids are unique by now, so the order is total.
        picks.sort_unstable_by_key(order);
        Self { datasets, picks, duplicates }
    }

    /// Returns the picks by days and services: the tables of one such are in memory at a time.
    pub(super) fn services(&self) -> impl Iterator<Item = (Ordinal, &[Pick])> {
        let of = |pick: &Pick| (pick.day, self.datasets[pick.dataset as usize].service);
        (0..).map(Ordinal).zip(self.picks.chunk_by(move |a, b| of(a) == of(b)))
    }
}
