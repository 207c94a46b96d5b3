//! Which profiles of segments a compacted block has too: those do not count, for blocks win.
//!
//! Compacted blocks share no ids with each other, but a retry may have put an id into a segment after a block took it from another. Which
//! block that can be, the ranges of their ids tell: few, where ids carry the time as ULIDs do. Only those are opened. What was compared
//! stays so: neither segments nor blocks change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::Problem;
use super::refresh::retry_pause;
use super::segment::{OpenBlock, Segment};
use crate::commit::{BlockEntry, State};
use crate::paths::{BlockName, SegmentName};

/// What is known of each segment.
#[derive(Debug, Default)]
pub(super) struct Cover {
    /// The rows of a segment that a block has too, sorted, by the block.
    rows: BTreeMap<SegmentName, BTreeMap<BlockName, Vec<u32>>>,
    /// The segments that are compared with no block yet.
    new: BTreeSet<SegmentName>,
    /// All other segments are compared with all blocks that commits up to this number added.
    compared: u64,
    /// But for these, which could not be read.
    unread: BTreeMap<BlockName, Unread>,
}

/// A block that could not be read.
#[derive(Debug)]
struct Unread {
    problem: Problem,
    failures: u32,
    retry_at: Instant,
}

/// A block to be opened, and the segments it may share ids with.
pub(super) struct Comparison {
    pub(super) entry: Arc<BlockEntry>,
    pub(super) segments: Vec<Arc<Segment>>,
}

impl Cover {
    pub(super) fn insert(&mut self, segment: SegmentName) {
        self.new.insert(segment);
    }

    pub(super) fn remove(&mut self, segment: &SegmentName) {
        self.new.remove(segment);
        self.rows.remove(segment);
    }

    /// Forgets blocks that are not live any more. Returns whether that uncovers anything.
    pub(super) fn retain(&mut self, state: &State) -> bool {
        let mut is_changed = false;
        self.rows.retain(|_, blocks| {
            let before = blocks.len();
            blocks.retain(|block, _| state.block(block).is_some());
            is_changed |= blocks.len() != before;
            !blocks.is_empty()
        });
        self.unread.retain(|block, _| state.block(block).is_some());
        is_changed
    }

    /// Says which blocks are to be compared with which segments.
    pub(super) fn plan<'a>(
        &mut self,
        state: &State,
        segments: impl Iterator<Item = &'a Arc<Segment>> + Clone,
        now: Instant,
    ) -> Vec<Comparison> {
        if self.new.is_empty() && self.compared >= state.number() && self.unread.is_empty() {
            return Vec::new();
        }
        // Nearly always no id of any segment lies within a block's: one look at both ends spares the looks into each.
        let all: Vec<&Arc<Segment>> = segments.filter(|segment| !segment.ids.is_empty()).collect();
        let new: Vec<&Arc<Segment>> = all.iter().copied().filter(|segment| self.new.contains(&segment.name)).collect();
        let ends = |segments: &[&Arc<Segment>]| {
            let first = segments.iter().map(|segment| segment.ids[0].id).min();
            first.zip(segments.iter().filter_map(|segment| segment.ids.last()).map(|id| id.id).max())
        };
        let (ends_all, ends_new) = (ends(&all), ends(&new));
        let mut plan = Vec::new();
        for live in state.blocks() {
            let unread = self.unread.get(&live.entry.name);
            if unread.is_some_and(|unread| now < unread.retry_at) {
                continue;
            }
            let is_due = live.added_in > self.compared || unread.is_some();
            let (segments, ends) = if is_due { (&all, ends_all) } else { (&new, ends_new) };
            let (first, last) = (u128::from(live.entry.first_id), u128::from(live.entry.last_id));
            if ends.is_none_or(|(smallest, largest)| largest < first || last < smallest) {
                self.unread.remove(&live.entry.name);
                continue;
            }
            let may_share = |segment: &&&Arc<Segment>| {
                let at = segment.ids.partition_point(|id| id.id < first);
                segment.ids.get(at).is_some_and(|id| id.id <= last)
            };
            let segments: Vec<_> = segments.iter().filter(may_share).map(|segment| Arc::clone(segment)).collect();
            if segments.is_empty() {
                self.unread.remove(&live.entry.name);
            } else {
                plan.push(Comparison { entry: Arc::clone(&live.entry), segments });
            }
        }
        plan
    }

    /// Notes what an opened block has of a segment. Returns how many profiles, and how many of these are not the same.
    pub(super) fn compare(&mut self, block: BlockName, open: &OpenBlock, segment: &Segment) -> (u64, u64) {
        self.unread.remove(&block);
        let mut rows = Vec::new();
        let mut conflicts = 0;
        for id in &segment.ids {
            if let Some(row) = open.find(id.id) {
                conflicts += u64::from(open.digest(row) != id.digest);
                rows.push(id.row);
            }
        }
        let found = (rows.len() as u64, conflicts);
        if !rows.is_empty() {
            rows.sort_unstable();
            self.rows.entry(segment.name.clone()).or_default().insert(block, rows);
        }
        found
    }

    /// Notes that a block cannot be read. Until it is compared, what it may share counts, and no view answers with the block, even
    /// where it could be read again by then.
    pub(super) fn unread(&mut self, block: BlockName, problem: Problem, now: Instant) {
        let failures = self.unread.get(&block).map_or(0, |unread| unread.failures);
        let retry_at = now + retry_pause(failures);
        self.unread.insert(block, Unread { problem, failures: failures + 1, retry_at });
    }

    /// Returns the blocks that are not compared, and why.
    pub(super) fn uncompared(&self) -> BTreeMap<BlockName, Problem> {
        self.unread.iter().map(|(name, unread)| (*name, unread.problem.clone())).collect()
    }

    /// Notes that all that was planned for a state is done.
    pub(super) fn done(&mut self, state: &State) {
        self.compared = state.number();
        self.new.clear();
    }

    /// Adds the rows of a segment that are covered to those that are hidden for another reason; all are sorted.
    pub(super) fn hidden(&self, segment: &SegmentName, hidden: Option<&Arc<[u32]>>) -> Option<Arc<[u32]>> {
        let Some(blocks) = self.rows.get(segment) else { return hidden.cloned() };
        let mut rows: Vec<u32> = blocks.values().flatten().copied().collect();
        rows.extend(hidden.into_iter().flat_map(|hidden| hidden.iter()));
        rows.sort_unstable();
        rows.dedup();
        Some(rows.into())
    }
}
