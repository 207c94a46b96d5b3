//! Cells: groups cut by time, and what a function, or all of what a filter leaves, adds up to in each.

use std::collections::HashMap;

use afterglow_profile::functions::{Calls, Stacks, Sums};
use afterglow_store::block;
use afterglow_store::catalog::Match;

use super::super::by::Groups;
use super::super::series;
use super::super::step::Step;
use super::{Subtotal, Tally};

/// Which step of which group each profile belongs to.
#[derive(Debug)]
pub(in super::super) struct Cells {
    /// The cell of each profile.
    pub(in super::super) of: Vec<u32>,
    /// The group and the number of the step of each cell.
    pub(in super::super) keys: Vec<(u32, i64)>,
}

/// A function's sums in each cell, and its calls.
#[derive(Debug)]
pub(in super::super) struct FunctionTally {
    pub(in super::super) calls: Calls,
    /// By cell.
    sums: Vec<Sums>,
    /// The sum of all samples of each cell, as far as they were looked at: without a filter those alone that may have the function are.
    totals: Vec<i128>,
}

/// What all samples of each cell come to.
#[derive(Debug)]
pub(in super::super) struct TotalsTally(Vec<i128>);

/// What all samples of profiles of a dataset come to, each with the number of its group.
#[derive(Debug)]
pub(in super::super) struct TotalsSubtotal(Vec<(u32, i128)>);

/// What profiles of a dataset say of a function.
#[derive(Debug)]
pub(in super::super) struct CallsSubtotal {
    calls: Calls,
    /// Each with the number of its group, and the sum of all samples.
    sums: Vec<(u32, Sums, i128)>,
}

// === impl Cells ===

impl Cells {
    /// Cuts the groups of `matches` into steps.
    pub(in super::super) fn new(matches: &[Match], groups: &Groups<'_>, step: Step) -> Self {
        let mut known: HashMap<(u32, i64), u32> = HashMap::new();
        let mut keys = Vec::new();
        let cell = |(found, &group): (&Match, &u32)| {
            *known.entry((group, step.index(found.row().time_nanos))).or_insert_with_key(|key| {
                keys.push(*key);
                u32::try_from(keys.len() - 1).expect("a cell a profile, and a view holds fewer than 2^32")
            })
        };
        let of = matches.iter().zip(&groups.of).map(cell).collect();
        Self { of, keys }
    }

    /// Starts a tally of the function called `name` in these cells.
    pub(in super::super) fn tally(&self, name: &str) -> FunctionTally {
        let cells = self.keys.len();
        FunctionTally { calls: Calls::new(name), sums: vec![Sums::default(); cells], totals: vec![0; cells] }
    }

    /// Starts a tally of everything in these cells.
    pub(in super::super) fn totals(&self) -> TotalsTally {
        TotalsTally(vec![0; self.keys.len()])
    }

    /// Returns the sums over time of each of `groups` groups: of those profiles that were read, and the value of each cell.
    pub(in super::super) fn series(
        &self,
        groups: usize,
        (matches, is_read): (&[Match], &[bool]),
        value: impl Fn(usize) -> i128,
    ) -> Vec<series::Sums> {
        let mut all = vec![series::Sums::new(); groups];
        for ((found, &cell), _) in matches.iter().zip(&self.of).zip(is_read).filter(|(_, is_read)| **is_read) {
            let (group, step) = self.keys[cell as usize];
            let sum = all[group as usize].entry(step).or_default();
            sum.profiles += 1;
            sum.duration_nanos += i128::from(found.row().duration_nanos);
            sum.value = value(cell as usize);
        }
        all
    }

    /// Returns the function's sums in each of `groups` groups.
    pub(in super::super) fn by_group(&self, groups: usize, tally: &FunctionTally) -> Vec<Sums> {
        let mut all = vec![Sums::default(); groups];
        for ((group, _), sums) in self.keys.iter().zip(&tally.sums) {
            let all = &mut all[*group as usize];
            all.self_value = all.self_value.saturating_add(sums.self_value);
            all.total = all.total.saturating_add(sums.total);
        }
        all
    }

    /// Returns what all samples of each of `groups` groups come to, which a filter left.
    pub(in super::super) fn totals_by_group(&self, groups: usize, tally: &FunctionTally) -> Vec<i128> {
        let mut all = vec![0i128; groups];
        for ((group, _), total) in self.keys.iter().zip(&tally.totals) {
            let all = &mut all[*group as usize];
            *all = all.saturating_add(*total);
        }
        all
    }
}

// === impl FunctionTally ===

impl FunctionTally {
    /// Returns the function's sums in a cell.
    pub(in super::super) fn sums(&self, cell: usize) -> &Sums {
        &self.sums[cell]
    }

    /// Returns whether it comes to anything in any cell. What cancels out within a cell is nothing, for it depends on how profiles lie
    /// together whether it was ever seen.
    pub(in super::super) fn is_found(&self) -> bool {
        self.sums.iter().any(|sums| *sums != Sums::default())
    }

    /// Says that there is no such function, where that is so.
    pub(in super::super) fn warning(&self, name: &str) -> Option<String> {
        (!self.is_found()).then(|| format!("no stack of the selected profiles has a function called {name:?}"))
    }
}

impl Tally for FunctionTally {
    type Subtotal = CallsSubtotal;

    fn add(&mut self, subtotal: &CallsSubtotal, groups: &[u32]) {
        self.calls.add_all(&subtotal.calls);
        for (group, sums, total) in &subtotal.sums {
            let cell = groups[*group as usize] as usize;
            let all = &mut self.sums[cell];
            all.self_value = all.self_value.saturating_add(sums.self_value);
            all.total = all.total.saturating_add(sums.total);
            self.totals[cell] = self.totals[cell].saturating_add(*total);
        }
    }

    fn function(&self) -> Option<&str> {
        Some(self.calls.name())
    }

    fn memory(&self) -> usize {
        self.calls.memory() + self.sums.len() * (size_of::<Sums>() + size_of::<i128>())
    }
}

impl Subtotal for CallsSubtotal {
    fn parts_at_once(_stacks: &Stacks<'_>) -> usize {
        usize::MAX
    }

    fn of(function: Option<&str>, stacks: &Stacks<'_>, parts: &[block::Part]) -> Self {
        let mut calls = Calls::new(function.unwrap_or_default());
        let sums = calls.add(stacks, parts.iter().map(|part| (&part.samples[..], &part.values[..])));
        let sums = parts.iter().zip(sums).map(|(part, sums)| (part.group, sums, total(stacks, part))).collect();
        Self { calls, sums }
    }

    fn memory(&self) -> usize {
        self.calls.memory() + self.sums.capacity() * size_of::<(u32, Sums, i128)>()
    }
}

// === impl TotalsTally ===

impl TotalsTally {
    /// Returns what all samples of a cell come to.
    pub(in super::super) fn total(&self, cell: usize) -> i128 {
        self.0[cell]
    }
}

impl Tally for TotalsTally {
    type Subtotal = TotalsSubtotal;

    fn add(&mut self, subtotal: &TotalsSubtotal, groups: &[u32]) {
        for (group, total) in &subtotal.0 {
            let all = &mut self.0[groups[*group as usize] as usize];
            *all = all.saturating_add(*total);
        }
    }

    fn memory(&self) -> usize {
        self.0.len() * size_of::<i128>()
    }
}

impl Subtotal for TotalsSubtotal {
    fn parts_at_once(_stacks: &Stacks<'_>) -> usize {
        usize::MAX
    }

    fn of(_function: Option<&str>, stacks: &Stacks<'_>, parts: &[block::Part]) -> Self {
        Self(parts.iter().map(|part| (part.group, total(stacks, part))).collect())
    }

    fn memory(&self) -> usize {
        self.0.capacity() * size_of::<(u32, i128)>()
    }
}

/// Returns what the samples of a part come to that are not left out.
fn total(stacks: &Stacks<'_>, part: &block::Part) -> i128 {
    stacks.total(part.samples.iter().zip(&part.values).map(|(&sample, &value)| (sample as usize, value)))
}
