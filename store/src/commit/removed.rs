//! The segments that commits removed of late, and when: kept for a day, so told in 24 bytes each instead of by name.
//!
//! A name is a time, a writer and a nonce. Names of one stretch of ten minutes lie together, so that a commit copies one such part or
//! two; within it, those of a writer: 8 bytes of time removed, 8 of nonce, 4 of the time in the name, and padding.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::paths::{SegmentName, SegmentParts};

/// How long a part is, in milliseconds of the time in the names.
const PART_MILLIS: u64 = 600_000;

/// Removed segments and when each was, in milliseconds by the store's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RemovedSegments(BTreeMap<u64, Arc<Part>>);

/// Those whose names lie in one stretch of time. No writer is without segments.
type Part = BTreeMap<Box<str>, Vec<Removed>>;

/// One removed segment, of a writer and a part. They lie in order, and each name once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Removed {
    /// The time in the name, in milliseconds since the part's begin.
    offset: u32,
    nonce: u64,
    /// When it was removed; not part of what it is found by.
    at: u64,
}

impl Removed {
    fn found_by(&self) -> (u32, u64) {
        (self.offset, self.nonce)
    }
}

impl RemovedSegments {
    /// Returns when a segment was removed; none where it was not, or that is forgotten.
    pub(super) fn get(&self, name: &SegmentName) -> Option<u64> {
        let SegmentParts { millis, writer, nonce } = name.parts();
        let (part, offset) = place(millis);
        let removed = self.0.get(&part)?.get(writer)?;
        let found = removed.binary_search_by_key(&(offset, nonce), Removed::found_by).ok()?;
        Some(removed[found].at)
    }

    /// Says that a segment was removed at `at`. Of two times the later one said counts.
    pub(super) fn insert(&mut self, name: SegmentParts<'_>, at: u64) {
        let (part, offset) = place(name.millis);
        let part = Arc::make_mut(self.0.entry(part).or_default());
        let removed = match part.get_mut(name.writer) {
            Some(removed) => removed,
            None => part.entry(name.writer.into()).or_default(),
        };
        let new = Removed { offset, nonce: name.nonce, at };
        match removed.binary_search_by_key(&new.found_by(), Removed::found_by) {
            Ok(found) => removed[found] = new,
            Err(place) => removed.insert(place, new),
        }
    }

    /// Returns all, in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SegmentParts<'_>, u64)> {
        self.0.iter().flat_map(|(part, by_writer)| {
            let begin = part * PART_MILLIS;
            let mut names: Vec<_> = by_writer
                .iter()
                .flat_map(|(writer, removed)| {
                    removed.iter().map(move |removed| {
                        let millis = begin + u64::from(removed.offset);
                        (SegmentParts { millis, writer, nonce: removed.nonce }, removed.at)
                    })
                })
                .collect();
            names.sort_unstable();
            names
        })
    }

    /// Drops those that the boundary has passed and that were removed before `until`.
    pub(super) fn forget(&mut self, boundary: u64, until: u64) {
        for (part, by_writer) in self.0.range_mut(..=boundary / PART_MILLIS) {
            let begin = part * PART_MILLIS;
            let is_kept = |removed: &Removed| begin + u64::from(removed.offset) >= boundary || removed.at >= until;
            if !by_writer.values().flatten().all(is_kept) {
                Arc::make_mut(by_writer).retain(|_, removed| {
                    removed.retain(is_kept);
                    !removed.is_empty()
                });
            }
        }
        self.0.retain(|_, by_writer| !by_writer.is_empty());
    }
}

/// Returns the part that a time in a name lies in, and where in it.
fn place(millis: u64) -> (u64, u32) {
    (millis / PART_MILLIS, (millis % PART_MILLIS) as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commit::record::tests::any_segment;

    #[test]
    fn one_takes_twenty_four_bytes() {
        assert_eq!(size_of::<Removed>(), 24);
    }

    proptest! {
        /// Goal: it is a map from names to times, in the order of the names, however they came.
        #[test]
        fn it_is_a_map_of_names(names in prop::collection::vec((any_segment(), 0..1_000u64), 0..40), cut in 0..10_000_000_000_000u64, until in 0..1_000u64) {
            let mut map = BTreeMap::new();
            let mut removed = RemovedSegments::default();
            for (name, at) in &names {
                map.insert(name.clone(), *at);
                removed.insert(name.parts(), *at);
            }
            let all = |removed: &RemovedSegments| removed.iter().map(|(name, at)| (name.name(), at)).collect::<Vec<_>>();
            prop_assert_eq!(all(&removed), map.clone().into_iter().collect::<Vec<_>>());
            for (name, at) in &map {
                prop_assert_eq!(removed.get(name), Some(*at));
            }
            removed.forget(cut, until);
            map.retain(|name, at| name.millis() >= cut || *at >= until);
            prop_assert_eq!(all(&removed), map.clone().into_iter().collect::<Vec<_>>());
            for (name, _) in &names {
                prop_assert_eq!(removed.get(name), map.get(name).copied());
            }
        }
    }
}
