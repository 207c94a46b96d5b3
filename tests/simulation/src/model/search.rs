//! Breadth first over all states.

use std::fmt;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rustc_hash::FxBuildHasher;

use super::check::Wrong;
use super::rules::{PARTS_MAX, SEGMENTS_MAX, Scenario};
use super::state::State;
use super::step::Step;

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// How many states were visited: all that can be reached, unless something is wrong.
    pub states: usize,
    /// The steps of the longest of all shortest ways.
    pub depth: usize,
    /// What is wrong, and one of the shortest ways to it.
    pub wrong: Option<(Wrong, Vec<Step>)>,
}

/// Visits every state of a scenario; ends at the first in which something is wrong.
///
/// Memory: about 100 bytes a state.
///
/// # Panics
/// Where the scenario has more segments or parts than a state has room for.
pub fn search(scenario: &Scenario) -> Found {
    each(scenario, &mut |_| {})
}

/// Searches, and shows every state that is visited.
pub(super) fn each(scenario: &Scenario, visit: &mut impl FnMut(&State)) -> Found {
    assert_fits(scenario);
    let mut states = vec![State::new()];
    let mut ways: Vec<(u32, Option<Step>)> = vec![(0, None)];
    let mut known: HashTable<u32> = HashTable::new();
    known.insert_unique(hash_of(&states[0]), 0, |_| 0);
    let (mut at, mut depth, mut level_end) = (0, 0, 1);
    while at < states.len() {
        if at == level_end {
            (depth, level_end) = (depth + 1, states.len());
        }
        let state = states[at];
        visit(&state);
        if let Some(wrong) = state.wrong(scenario) {
            return Found { states: states.len(), depth, wrong: Some((wrong, way(&ways, at))) };
        }
        state.next(scenario, &mut |step, next| {
            let is_next = |known: &u32| states[*known as usize] == next;
            let hash_of_known = |known: &u32| hash_of(&states[*known as usize]);
            if let Entry::Vacant(entry) = known.entry(hash_of(&next), is_next, hash_of_known) {
                entry.insert(u32::try_from(states.len()).expect("memory ends before 2^32 states"));
                states.push(next);
                ways.push((at as u32, Some(step)));
            }
        });
        at += 1;
    }
    Found { states: states.len(), depth, wrong: None }
}

/// Takes these steps one after the other and returns how many states they may lead to: none where they cannot be taken so.
///
/// # Panics
/// As [`search`].
pub fn walk(scenario: &Scenario, steps: &[Step]) -> usize {
    assert_fits(scenario);
    let mut states = vec![State::new()];
    for wanted in steps {
        let mut after = Vec::new();
        for state in states {
            state.next(scenario, &mut |step, next| {
                if step == *wanted {
                    after.push(next);
                }
            });
        }
        states = after;
    }
    states.len()
}

fn assert_fits(scenario: &Scenario) {
    assert!(scenario.segments.len() <= SEGMENTS_MAX && scenario.parts.len() <= PARTS_MAX, "no room for {scenario:?}");
}

fn hash_of(state: &State) -> u64 {
    FxBuildHasher.hash_one(state)
}

fn way(ways: &[(u32, Option<Step>)], mut at: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while let (before, Some(step)) = ways[at] {
        steps.push(step);
        at = before as usize;
    }
    steps.reverse();
    steps
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states, {} steps deep", self.states, self.depth)?;
        let Some((wrong, way)) = &self.wrong else { return f.write_str(", nothing wrong") };
        write!(f, ": {wrong}")?;
        for (number, step) in way.iter().enumerate() {
            write!(f, "\n  {:2}. {step}", number + 1)?;
        }
        Ok(())
    }
}
