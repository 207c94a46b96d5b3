//! What all commits up to a number come to: the live blocks, what was removed of late, the boundary.
//!
//! [`State::apply`] is pure: the same commits, with the times at which the store took them, give the same state wherever they are
//! replayed. So nobody drops what others still rely on: a name that was removed is forgotten within `apply` and nowhere else, a
//! day later. A removed segment stays invisible that long by its name, and for ever by the boundary, which has passed it by then.
//!
//! Parts are shared by copies: a commit copies the blocks of the days and the removed names of the minutes that it touches.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::record::{BlockEntry, Commit, Reason};
use super::removed::RemovedSegments;
use crate::paths::{BlockName, BlockRef, Day, SegmentName};

/// How long a removed name is remembered at least: far longer than a write that was sent may take to land.
pub const REMOVED_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// A live block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// What is known of it.
    pub entry: Arc<BlockEntry>,
    /// The number of the commit that added it.
    pub added_in: u64,
}

/// The live blocks of a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DayBlocks {
    /// The number of the last commit that added or removed one.
    pub(super) changed_in: u64,
    pub(super) blocks: Arc<BTreeMap<BlockName, Live>>,
}

/// The state after a commit; the default is that before the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(super) number: u64,
    pub(super) at_millis: u64,
    pub(super) boundary: u64,
    pub(super) days: BTreeMap<Day, DayBlocks>,
    /// When each was removed, in milliseconds by the store's clock.
    pub(super) removed_blocks: Arc<BTreeMap<BlockName, u64>>,
    /// Likewise.
    pub(super) removed_segments: RemovedSegments,
}

/// Why a commit does not follow upon a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// It adds a block whose name is live, was removed, or is added twice.
    #[error("block {0} was added before")]
    Added(BlockName),
    /// What it says of a block cannot be.
    #[error("what is said of block {0} contradicts itself")]
    Unsound(BlockName),
    /// It removes what was removed before, or twice.
    #[error("{0} was removed before")]
    Removed(BlockRef),
    /// It removes a block that no commit added.
    #[error("block {0} is not live")]
    NotLive(BlockName),
    /// It removes a segment below the boundary, which counts as removed.
    #[error("segment {0} lies below the boundary")]
    BelowBoundary(SegmentName),
}

impl State {
    /// Returns the number of the last commit; 0 where there is none.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns when the store took the last commit, in milliseconds by its clock; 0 where there is none.
    pub fn at_millis(&self) -> u64 {
        self.at_millis
    }

    /// Returns the time, in milliseconds, below which no segment is read; 0 at first.
    pub fn boundary(&self) -> u64 {
        self.boundary
    }

    /// Returns the days that have blocks.
    pub fn days(&self) -> impl Iterator<Item = Day> {
        self.days.keys().copied()
    }

    /// Returns how many blocks are live.
    pub fn len(&self) -> usize {
        self.days.values().map(|day| day.blocks.len()).sum()
    }

    /// Whether no block is live.
    pub fn is_empty(&self) -> bool {
        self.days.is_empty()
    }

    /// Returns the live blocks, by day, within it by name.
    pub fn blocks(&self) -> impl Iterator<Item = &Live> {
        self.days.values().flat_map(|day| day.blocks.values())
    }

    /// Returns the live blocks of these days, in the same order.
    pub fn blocks_of(&self, days: RangeInclusive<Day>) -> impl Iterator<Item = &Live> {
        // A range of a map must not end before it begins.
        let days = if days.is_empty() { None } else { Some(self.days.range(days)) };
        days.into_iter().flatten().flat_map(|(_, day)| day.blocks.values())
    }

    /// Returns a live block.
    pub fn block(&self, name: &BlockName) -> Option<&Live> {
        self.days.get(&name.day())?.blocks.get(name)
    }

    /// Returns the live blocks that commits after this number added.
    pub fn added_after(&self, number: u64) -> impl Iterator<Item = &Live> {
        let days = self.days.values().filter(move |day| day.changed_in > number);
        days.flat_map(|day| day.blocks.values()).filter(move |live| live.added_in > number)
    }

    /// Whether a segment is not read any more: a commit removed it, or it lies below the boundary.
    pub fn is_removed(&self, segment: &SegmentName) -> bool {
        segment.millis() < self.boundary || self.removed_segments.get(segment).is_some()
    }

    /// Returns when a block or segment was removed, in milliseconds by the store's clock; none where that is forgotten.
    pub fn removed_at(&self, removed: &BlockRef) -> Option<u64> {
        match removed {
            BlockRef::Block(name) => self.removed_blocks.get(name).copied(),
            BlockRef::Segment(name) => self.removed_segments.get(name),
        }
    }

    /// Returns all that was removed of late and when, as [`State::removed_at`] says it.
    pub fn removed(&self) -> impl Iterator<Item = (BlockRef, u64)> {
        let segments = self.removed_segments.iter().map(|(name, at)| (BlockRef::Segment(name.name()), at));
        segments.chain(self.removed_blocks.iter().map(|(name, at)| (BlockRef::Block(*name), *at)))
    }

    /// Makes the state after `commit`, which the store took at `at_millis` by its clock.
    ///
    /// # Errors
    /// The [`Conflict`] where it does not follow upon this state, which then stays as it is.
    pub fn apply(&mut self, commit: &Commit, at_millis: u64) -> Result<(), Conflict> {
        self.check(commit)?;
        self.number += 1;
        self.at_millis = self.at_millis.max(at_millis);
        for entry in &commit.adds {
            let day = self
                .days
                .entry(entry.name.day())
                .or_insert_with(|| DayBlocks { changed_in: 0, blocks: Arc::default() });
            day.changed_in = self.number;
            let live = Live { entry: Arc::new(entry.clone()), added_in: self.number };
            Arc::make_mut(&mut day.blocks).insert(entry.name, live);
        }
        for removed in &commit.removes {
            self.remove(removed, at_millis);
        }
        self.days.retain(|_, day| !day.blocks.is_empty());
        self.boundary = self.boundary.max(commit.boundary.unwrap_or(0));
        self.forget(at_millis);
        Ok(())
    }

    /// Says whether a commit follows upon this state.
    ///
    /// # Errors
    /// The first [`Conflict`].
    pub fn check(&self, commit: &Commit) -> Result<(), Conflict> {
        let mut added = BTreeSet::new();
        for entry in &commit.adds {
            let is_known = self.block(&entry.name).is_some() || self.removed_blocks.contains_key(&entry.name);
            if is_known || !added.insert(entry.name) {
                return Err(Conflict::Added(entry.name));
            }
            if !entry.is_sound() {
                return Err(Conflict::Unsound(entry.name));
            }
        }
        let mut removed = BTreeSet::new();
        for name in &commit.removes {
            if self.removed_at(name).is_some() || !removed.insert(name) {
                return Err(Conflict::Removed(name.clone()));
            }
            match name {
                BlockRef::Segment(segment) if segment.millis() < self.boundary => {
                    return Err(Conflict::BelowBoundary(segment.clone()));
                }
                // What no commit added may be fenced off: from then on none can add it.
                BlockRef::Block(block) if self.block(block).is_none() && commit.reason != Reason::Garbage => {
                    return Err(Conflict::NotLive(*block));
                }
                BlockRef::Block(block) if added.contains(block) => return Err(Conflict::NotLive(*block)),
                BlockRef::Segment(_) | BlockRef::Block(_) => {}
            }
        }
        Ok(())
    }

    fn remove(&mut self, removed: &BlockRef, at_millis: u64) {
        match removed {
            BlockRef::Segment(name) => {
                self.removed_segments.insert(name.parts(), at_millis);
            }
            BlockRef::Block(name) => {
                if let Some(day) = self.days.get_mut(&name.day())
                    && day.blocks.contains_key(name)
                {
                    day.changed_in = self.number;
                    Arc::make_mut(&mut day.blocks).remove(name);
                }
                Arc::make_mut(&mut self.removed_blocks).insert(*name, at_millis);
            }
        }
    }

    /// Drops the names that were removed a day ago: of segments those that the boundary has passed, of blocks all.
    fn forget(&mut self, at_millis: u64) {
        let until = at_millis.saturating_sub(REMOVED_KEPT.as_millis() as u64);
        if self.removed_blocks.values().any(|at| *at < until) {
            Arc::make_mut(&mut self.removed_blocks).retain(|_, at| *at >= until);
        }
        self.removed_segments.forget(self.boundary, until);
    }
}

#[cfg(test)]
#[allow(clippy::cloned_ref_to_slice_refs, reason = "a list of one reads like the lists of several beside it")]
pub(crate) mod tests {
    use ulid::Ulid;

    use super::*;

    pub(crate) const HOUR: u64 = 3_600_000;
    pub(crate) const NOW: u64 = 1_700_000_000_000;

    pub(crate) fn entry(number: u128, nanos: i64) -> BlockEntry {
        let name = BlockName::new(1, Day::of_nanos(nanos), Ulid::from(number));
        BlockEntry {
            name,
            bytes: 1_000,
            rows: 10,
            raw_bytes: 10_000,
            first_nanos: nanos,
            last_nanos: nanos,
            first_id: Ulid::from(number),
            last_id: Ulid::from(number),
        }
    }

    pub(crate) fn segment(millis: u64) -> SegmentName {
        SegmentName::new(millis, &"w".parse().expect("valid"), 0)
    }

    pub(crate) fn commit(adds: &[BlockEntry], removes: &[BlockRef]) -> Commit {
        Commit { reason: Reason::Compaction, adds: adds.to_vec(), removes: removes.to_vec(), boundary: None }
    }

    fn boundary(millis: u64) -> Commit {
        Commit { reason: Reason::Garbage, adds: Vec::new(), removes: Vec::new(), boundary: Some(millis) }
    }

    #[test]
    fn blocks_replace_segments_and_blocks() {
        let mut state = State::default();
        let (a, b, c) = (entry(1, 10), entry(2, 20), entry(3, 30));
        let s = |n| BlockRef::from(segment(NOW + n));
        state.apply(&commit(&[a.clone()], &[s(1), s(2)]), NOW).expect("valid");
        state.apply(&commit(&[b.clone()], &[s(3)]), NOW).expect("valid");
        assert_eq!(
            state.blocks().map(|live| (live.entry.name, live.added_in)).collect::<Vec<_>>(),
            [(a.name, 1), (b.name, 2)]
        );
        assert_eq!(state.added_after(1).map(|live| live.entry.name).collect::<Vec<_>>(), [b.name]);
        state.apply(&commit(&[c.clone()], &[a.name.into(), b.name.into()]), NOW + 5).expect("valid");
        assert_eq!((state.number(), state.len(), state.removed().count()), (3, 1, 5));
        assert_eq!(state.block(&c.name).map(|live| &*live.entry), Some(&c));
        assert_eq!((state.removed_at(&a.name.into()), state.removed_at(&s(1))), (Some(NOW + 5), Some(NOW)));
        assert!(state.is_removed(&segment(NOW + 3)) && !state.is_removed(&segment(NOW + 4)));
    }

    #[test]
    fn what_does_not_follow_is_refused_and_changes_nothing() {
        let mut state = State::default();
        let (a, b) = (entry(1, 10), entry(2, 20));
        let s = BlockRef::from(segment(NOW));
        state.apply(&commit(&[a.clone()], &[s.clone()]), NOW).expect("valid");
        state.apply(&commit(&[b.clone()], &[a.name.into()]), NOW).expect("valid");
        state.apply(&boundary(NOW - 5), NOW).expect("valid");
        let unsound = BlockEntry { rows: 0, ..entry(9, 10) };
        let before = state.clone();
        for (refused, conflict) in [
            (commit(&[b.clone()], &[]), Conflict::Added(b.name)),
            (commit(&[a.clone()], &[]), Conflict::Added(a.name)),
            (commit(&[entry(9, 10), entry(9, 10)], &[]), Conflict::Added(entry(9, 10).name)),
            (commit(&[unsound.clone()], &[]), Conflict::Unsound(unsound.name)),
            (commit(&[], &[s.clone()]), Conflict::Removed(s.clone())),
            (commit(&[], &[a.name.into()]), Conflict::Removed(a.name.into())),
            (commit(&[], &[b.name.into(), b.name.into()]), Conflict::Removed(b.name.into())),
            (commit(&[], &[entry(9, 10).name.into()]), Conflict::NotLive(entry(9, 10).name)),
            (commit(&[entry(9, 10)], &[entry(9, 10).name.into()]), Conflict::NotLive(entry(9, 10).name)),
            (commit(&[], &[segment(NOW - 6).into()]), Conflict::BelowBoundary(segment(NOW - 6))),
        ] {
            assert_eq!(state.apply(&refused, NOW), Err(conflict));
            assert_eq!(state, before);
        }
    }

    /// A compactor that slept between its PUT and its commit must not find that its block was collected meanwhile.
    #[test]
    fn what_was_fenced_off_cannot_be_added() {
        let mut state = State::default();
        let garbage = entry(1, 10);
        let fence = Commit { reason: Reason::Garbage, ..commit(&[], &[garbage.name.into()]) };
        state.apply(&fence, NOW).expect("a block that is not live may be fenced off");
        assert_eq!(state.apply(&commit(&[garbage.clone()], &[]), NOW), Err(Conflict::Added(garbage.name)));
    }

    #[test]
    fn what_was_removed_is_forgotten_a_day_later_once_the_boundary_has_passed_it() {
        let mut state = State::default();
        let (a, early, late) = (entry(1, 10), segment(NOW - 40 * HOUR), segment(NOW - HOUR));
        state.apply(&commit(&[a.clone()], &[early.clone().into(), late.clone().into()]), NOW).expect("valid");
        state.apply(&commit(&[], &[a.name.into()]), NOW).expect("valid");
        state.apply(&boundary(NOW - 24 * HOUR), NOW + 23 * HOUR).expect("valid");
        assert_eq!(state.removed().count(), 3, "nothing is forgotten within a day");
        state.apply(&boundary(0), NOW + 25 * HOUR).expect("valid");
        assert_eq!(state.boundary(), NOW - 24 * HOUR, "the boundary does not go back");
        assert_eq!(state.removed().collect::<Vec<_>>(), [(late.clone().into(), NOW)], "not passed by the boundary yet");
        assert!(state.is_removed(&early) && state.is_removed(&late));
        state.apply(&boundary(NOW), NOW + 26 * HOUR).expect("valid");
        assert_eq!(state.removed().count(), 0);
        assert!(state.is_removed(&early) && state.is_removed(&late) && !state.is_removed(&segment(NOW)));
    }

    #[test]
    fn days_bound_what_is_looked_at() {
        let mut state = State::default();
        let day = 86_400_000_000_000;
        let entries: Vec<BlockEntry> = (0..10).map(|n| entry(n, n as i64 % 5 * day)).collect();
        state.apply(&commit(&entries, &[]), NOW).expect("valid");
        assert_eq!(state.days().count(), 5);
        let of = |from: i64, to: i64| state.blocks_of(Day::of_nanos(from * day)..=Day::of_nanos(to * day)).count();
        assert_eq!((of(0, 4), of(1, 2), of(3, 3), of(5, 9), of(3, 2)), (10, 4, 2, 0, 0));
    }
}
