//! Which profiles of which segments count: each id once, and of several the one in the earliest segment.
//!
//! Nearly every id is unique, so that case is cheap: a table of places (segment and position, 8 bytes) hashed by the id that lies
//! there. The ids that occur twice or more are kept beside it with all their places. From those follows what is *hidden*: all places
//! but the first, by the name of the segment and the number of the row. Segments come in any order and may go; what is hidden
//! then is always what it would be had they come in the order of their names.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::segment::{Id, Segment};

/// The number under which a segment is held.
pub(super) type Slot = u32;

/// A profile: the position of its id in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    slot: Slot,
    at: u32,
}

/// The segments that are held, by their slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    segments: Vec<Option<Arc<Segment>>>,
    free: Vec<Slot>,
}

impl Slots {
    pub(super) fn get(&self, slot: Slot) -> &Arc<Segment> {
        self.segments[slot as usize].as_ref().expect("places name slots that are taken")
    }

    fn take(&mut self, segment: Arc<Segment>) -> Slot {
        if let Some(slot) = self.free.pop() {
            self.segments[slot as usize] = Some(segment);
            return slot;
        }
        self.segments.push(Some(segment));
        u32::try_from(self.segments.len() - 1).expect("segments are bounded far below 2^32")
    }

    fn leave(&mut self, slot: Slot) {
        self.free.push(slot);
        self.segments[slot as usize] = None;
    }

    fn id(&self, place: Place) -> &Id {
        &self.get(place.slot).ids[place.at as usize]
    }
}

/// Which profiles count.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) slots: Slots,
    /// One place of each id: of those in `several`, any.
    places: HashTable<Place>,
    /// All places of each id that has more than one, the first one first.
    several: HashMap<u128, Vec<Place>>,
    /// The rows of each segment that do not count, sorted.
    hidden: HashMap<Slot, Arc<[u32]>>,
    /// Ids come from outside; without a secret seed they could be chosen to collide.
    seed: u64,
}

/// What was found when a segment came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Doubles {
    /// Profiles whose id was known.
    pub(super) duplicates: u64,
    /// Those among them that are other profiles.
    pub(super) conflicts: u64,
}

impl Index {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slots: Slots::default(),
            places: HashTable::new(),
            several: HashMap::new(),
            hidden: HashMap::new(),
            seed,
        }
    }

    /// Returns the rows of a segment that do not count, sorted.
    pub(super) fn hidden(&self, slot: Slot) -> Option<&Arc<[u32]>> {
        self.hidden.get(&slot)
    }

    /// Takes a segment in.
    pub(super) fn insert(&mut self, segment: Arc<Segment>) -> (Slot, Doubles) {
        let slot = self.slots.take(Arc::clone(&segment));
        let mut doubles = Doubles::default();
        let mut touched = BTreeSet::new();
        for (at, id) in segment.ids.iter().enumerate() {
            let place = Place { slot, at: at as u32 };
            let hash = hash_of(self.seed, id.id);
            let Some(known) = self.places.find(hash, |known| self.slots.id(*known).id == id.id).copied() else {
                let (slots, seed) = (&self.slots, self.seed);
                self.places.insert_unique(hash, place, |known| hash_of(seed, slots.id(*known).id));
                continue;
            };
            doubles.duplicates += 1;
            doubles.conflicts += u64::from(self.slots.id(known).digest != id.digest);
            let places = self.several.entry(id.id).or_insert_with(|| vec![known]);
            places.push(place);
            touched.extend(places.iter().map(|place| place.slot));
            let slots = &self.slots;
            places.sort_by(|a, b| {
                (&slots.get(a.slot).name, slots.id(*a).row).cmp(&(&slots.get(b.slot).name, slots.id(*b).row))
            });
        }
        self.hide(&touched);
        (slot, doubles)
    }

    /// Takes a segment out.
    pub(super) fn remove(&mut self, slot: Slot) {
        let segment = Arc::clone(self.slots.get(slot));
        let mut touched = BTreeSet::new();
        for id in &segment.ids {
            let hash = hash_of(self.seed, id.id);
            let others: Vec<Place> = match self.several.remove(&id.id) {
                Some(places) => {
                    touched.extend(places.iter().map(|place| place.slot));
                    places.into_iter().filter(|place| place.slot != slot).collect()
                }
                None => Vec::new(),
            };
            let entry = self.places.find_entry(hash, |known| self.slots.id(*known).id == id.id);
            match (entry, others.first()) {
                (Ok(mut entry), Some(other)) => *entry.get_mut() = *other,
                // Where an id occurs twice in this segment, the first round has left nothing for the second.
                (Ok(entry), None) if entry.get().slot == slot => drop(entry.remove()),
                _ => {}
            }
            if others.len() > 1 {
                self.several.insert(id.id, others);
            }
        }
        touched.remove(&slot);
        self.hidden.remove(&slot);
        self.hide(&touched);
        self.slots.leave(slot);
    }

    /// Finds out anew what is hidden in these segments.
    fn hide(&mut self, touched: &BTreeSet<Slot>) {
        for slot in touched {
            let segment = self.slots.get(*slot);
            let is_hidden = |(at, id): (usize, &Id)| {
                let first = self.several.get(&id.id)?.first()?;
                (*first != Place { slot: *slot, at: at as u32 }).then_some(id.row)
            };
            let mut rows: Vec<u32> = segment.ids.iter().enumerate().filter_map(is_hidden).collect();
            rows.sort_unstable();
            match rows.is_empty() {
                true => self.hidden.remove(slot),
                false => self.hidden.insert(*slot, rows.into()),
            };
        }
    }
}

fn hash_of(seed: u64, id: u128) -> u64 {
    xxh3_64_with_seed(&id.to_le_bytes(), seed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use object_store::path::Path;
    use proptest::prelude::*;

    use super::super::segment::Location;
    use super::*;
    use crate::paths::SegmentName;

    /// The segment number `name` with these ids, the digest of each beside it, row by row.
    fn segment(name: u64, ids: &[(u128, u64)]) -> Arc<Segment> {
        let row =
            |(row, (id, digest)): (usize, &(u128, u64))| Id { id: *id, digest: *digest, row: row as u32, entry: 0 };
        let mut ids: Vec<Id> = ids.iter().enumerate().map(row).collect();
        ids.sort_by_key(|id| (id.id, id.row));
        Arc::new(Segment {
            name: SegmentName::new(name, &"w".parse().expect("valid"), 0),
            location: Location { path: Path::ROOT, bytes: 0, by_id: false },
            entries: Box::default(),
            ids: ids.into(),
            first_nanos: 0,
            last_nanos: 0,
        })
    }

    fn hidden(index: &Index, slot: Slot) -> Vec<u32> {
        index.hidden(slot).map(|rows| rows.to_vec()).unwrap_or_default()
    }

    #[test]
    fn of_two_segments_with_an_id_the_earlier_counts_whichever_came_first() {
        for earlier_first in [true, false] {
            let mut index = Index::new(1);
            let mut names = [10, 20];
            if !earlier_first {
                names.reverse();
            }
            let slots = names.map(|name| index.insert(segment(name, &[(1, 0), (7, 0)])).0);
            let (earlier, later) = if earlier_first { (slots[0], slots[1]) } else { (slots[1], slots[0]) };
            assert_eq!((hidden(&index, earlier), hidden(&index, later)), (vec![], vec![0, 1]));
            index.remove(earlier);
            assert_eq!(hidden(&index, later), [0; 0], "what was hidden counts once the other is gone");
        }
    }

    #[test]
    fn an_id_twice_in_a_segment_counts_once() {
        let mut index = Index::new(1);
        let (slot, doubles) = index.insert(segment(10, &[(1, 5), (2, 0), (1, 5)]));
        assert_eq!((hidden(&index, slot), doubles), (vec![2], Doubles { duplicates: 1, conflicts: 0 }));
        index.remove(slot);
        assert!(index.places.is_empty() && index.several.is_empty() && index.hidden.is_empty());
    }

    #[test]
    fn another_profile_under_a_known_id_is_a_conflict() {
        let mut index = Index::new(1);
        index.insert(segment(10, &[(1, 5), (2, 6)]));
        let (slot, doubles) = index.insert(segment(20, &[(1, 5), (2, 7), (3, 8)]));
        assert_eq!(doubles, Doubles { duplicates: 2, conflicts: 1 });
        assert_eq!(hidden(&index, slot), [0, 1]);
    }

    /// What is hidden by the words of the rule: sort all places, keep the first of each id.
    fn hidden_by_rule(segments: &BTreeMap<u64, Vec<u128>>) -> BTreeMap<u64, Vec<u32>> {
        let mut seen = BTreeSet::new();
        let mut hidden = BTreeMap::new();
        for (name, ids) in segments {
            let rows = ids.iter().enumerate().filter(|(_, id)| !seen.insert(**id)).map(|(row, _)| row as u32);
            hidden.insert(*name, rows.collect());
        }
        hidden
    }

    proptest! {
        /// Whatever comes and goes in whatever order, what is hidden is what the rule says.
        #[test]
        fn what_is_hidden_follows_from_what_is_there(
            steps in proptest::collection::vec((0..12u64, proptest::collection::vec(0..20u128, 0..8)), 1..40),
        ) {
            let mut index = Index::new(9);
            let mut slots = BTreeMap::new();
            let mut model = BTreeMap::new();
            for (name, ids) in steps {
                if let Some(slot) = slots.remove(&name) {
                    index.remove(slot);
                    model.remove(&name);
                } else {
                    let pairs: Vec<(u128, u64)> = ids.iter().map(|id| (*id, 0)).collect();
                    slots.insert(name, index.insert(segment(name, &pairs)).0);
                    model.insert(name, ids);
                }
                let found: BTreeMap<u64, Vec<u32>> = slots.iter().map(|(name, slot)| (*name, hidden(&index, *slot))).collect();
                prop_assert_eq!(found, hidden_by_rule(&model));
                let distinct: BTreeSet<&u128> = model.values().flatten().collect();
                prop_assert_eq!(index.places.len(), distinct.len());
            }
        }
    }
}
