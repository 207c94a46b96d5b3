//! Cells: groups cut by time, and what a function adds up to in each.

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
}

/// What profiles of a dataset say of a function.
#[derive(Debug)]
pub(in super::super) struct CallsSubtotal {
    calls: Calls,
    /// Each with the number of its group.
    sums: Vec<(u32, Sums)>,
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
        FunctionTally { calls: Calls::new(name), sums: vec![Sums::default(); self.keys.len()] }
    }

    /// Returns the sums over time of each of `groups` groups: of those profiles that were read, and the value of the function.
    pub(in super::super) fn series(
        &self,
        groups: usize,
        (matches, is_read): (&[Match], &[bool]),
        tally: &FunctionTally,
        value: impl Fn(&Sums) -> i128,
    ) -> Vec<series::Sums> {
        let mut all = vec![series::Sums::new(); groups];
        for ((found, &cell), _) in matches.iter().zip(&self.of).zip(is_read).filter(|(_, is_read)| **is_read) {
            let (group, step) = self.keys[cell as usize];
            let sum = all[group as usize].entry(step).or_default();
            sum.profiles += 1;
            sum.duration_nanos += i128::from(found.row().duration_nanos);
            sum.value = value(&tally.sums[cell as usize]);
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
}

// === impl FunctionTally ===

impl FunctionTally {
    /// Says that there is no such function, where that is so.
    pub(in super::super) fn warning(&self, name: &str) -> Option<String> {
        (!self.calls.is_found()).then(|| format!("no stack of the selected profiles has a function called {name:?}"))
    }
}

impl Tally for FunctionTally {
    type Subtotal = CallsSubtotal;

    fn add(&mut self, subtotal: &CallsSubtotal, groups: &[u32]) {
        self.calls.add_all(&subtotal.calls);
        for (group, sums) in &subtotal.sums {
            let all = &mut self.sums[groups[*group as usize] as usize];
            all.self_value = all.self_value.saturating_add(sums.self_value);
            all.total = all.total.saturating_add(sums.total);
        }
    }

    fn function(&self) -> Option<&str> {
        Some(self.calls.name())
    }

    fn memory(&self) -> usize {
        self.calls.memory() + self.sums.len() * size_of::<Sums>()
    }
}

impl Subtotal for CallsSubtotal {
    fn parts_at_once(_stacks: &Stacks<'_>) -> usize {
        usize::MAX
    }

    fn of(function: Option<&str>, stacks: &Stacks<'_>, parts: &[block::Part]) -> Self {
        let mut calls = Calls::new(function.unwrap_or_default());
        let sums = calls.add(stacks, parts.iter().map(|part| (&part.samples[..], &part.values[..])));
        Self { calls, sums: parts.iter().map(|part| part.group).zip(sums).collect() }
    }

    fn memory(&self) -> usize {
        self.calls.memory() + self.sums.capacity() * size_of::<(u32, Sums)>()
    }
}
