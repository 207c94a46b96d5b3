//! What one commit says, and its bytes (docs/format.md, "Commits").
//!
//! A commit is small, is read whole, and says all that changes in one step. Readers refuse what they do not know rather than skip
//! it: a removal that is overlooked would show profiles twice.

use std::collections::HashMap;

use ulid::Ulid;

use crate::block::varint::{Cursor, Damage, put, put_bytes, put_signed};
use crate::paths::{BlockName, BlockRef, Day, LEVELS, MILLIS_MAX, SegmentName, SegmentParts, WriterId};

/// What a compacted block holds, as far as it can be known without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// Its name, which says level and day.
    pub name: BlockName,
    /// The length of the object.
    pub bytes: u64,
    /// How many profiles it holds.
    pub rows: u64,
    /// The protobuf bytes of these together.
    pub raw_bytes: u64,
    /// The time of the first profile, in nanoseconds since 1970; it lies in the day.
    pub first_nanos: i64,
    /// The time of the last profile, itself included; it lies in the day.
    pub last_nanos: i64,
    /// The smallest id.
    pub first_id: Ulid,
    /// The largest id.
    pub last_id: Ulid,
}

impl BlockEntry {
    /// Whether some profile in it may have this id.
    pub fn may_hold(&self, id: Ulid) -> bool {
        (self.first_id..=self.last_id).contains(&id)
    }

    /// Whether it says what can be true: at least one profile, all of one day, bounds in their order.
    pub fn is_sound(&self) -> bool {
        self.rows > 0
            && self.first_nanos <= self.last_nanos
            && self.first_id <= self.last_id
            && [self.first_nanos, self.last_nanos].map(Day::of_nanos) == [self.name.day(); 2]
    }
}

/// Why a commit is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Blocks are replaced by larger ones with the same profiles.
    Compaction,
    /// Blocks are too old, or too many, and go; what stays of one that was rewritten is added.
    Retention,
    /// The boundary moves, or blocks that no commit ever added are fenced off before they are deleted.
    Garbage,
    /// What cannot be read is taken out of all views. Its object stays, for whoever may mend it.
    Quarantine,
}

impl Reason {
    fn number(self) -> u8 {
        match self {
            Self::Compaction => 1,
            Self::Retention => 2,
            Self::Garbage => 3,
            Self::Quarantine => 4,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        let all = [Self::Compaction, Self::Retention, Self::Garbage, Self::Quarantine];
        all.into_iter().find(|reason| reason.number() == number)
    }
}

/// One step of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Why it is made.
    pub reason: Reason,
    /// The blocks that are live from now on.
    pub adds: Vec<BlockEntry>,
    /// The segments that are not read any more, and the blocks that are not live any more.
    pub removes: Vec<BlockRef>,
    /// The time, in milliseconds, up to which no segment is read any more; a lower one than before changes nothing.
    pub boundary: Option<u64>,
}

impl Commit {
    /// Returns its bytes. The order of what it removes is not kept: equal sets give equal bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.reason.number()];
        put(&mut out, self.boundary.map_or(0, |boundary| boundary.saturating_add(1)));
        put(&mut out, self.adds.len() as u64);
        for entry in &self.adds {
            put_entry(&mut out, entry);
        }
        let (mut blocks, mut segments) = (Vec::new(), Vec::new());
        for removed in &self.removes {
            match removed {
                BlockRef::Block(name) => blocks.push(*name),
                BlockRef::Segment(name) => segments.push(name),
            }
        }
        blocks.sort_unstable();
        segments.sort_unstable();
        put(&mut out, blocks.len() as u64);
        for name in &blocks {
            put_block_name(&mut out, name);
        }
        put_segment_names(&mut out, segments.into_iter().map(SegmentName::parts));
        out
    }

    /// Reads what [`Commit::encode`] wrote. What it removes comes in order, segments first.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut cursor = Cursor::new(bytes);
        let reason = Reason::from_number(cursor.take(1)?[0]).ok_or(Damage("has a reason nobody knows"))?;
        let boundary = cursor.varint()?.checked_sub(1);
        let count = cursor.count(ENTRY_BYTES_MIN)?;
        let adds = (0..count).map(|_| take_entry(&mut cursor)).collect::<Result<_, _>>()?;
        let count = cursor.count(BLOCK_NAME_BYTES_MIN)?;
        let blocks = (0..count).map(|_| take_block_name(&mut cursor)).collect::<Result<Vec<_>, _>>()?;
        let segments = take_segment_names(&mut cursor)?;
        cursor.finish()?;
        let removes = segments.iter().map(|name| name.name().into()).chain(blocks.into_iter().map(BlockRef::Block));
        Ok(Self { reason, adds, removes: removes.collect(), boundary })
    }
}

/// The fewest bytes of a block's name: a level, a day, 16 bytes of ULID.
pub(super) const BLOCK_NAME_BYTES_MIN: usize = 18;
/// The fewest bytes of an entry: a name, five numbers, two ULIDs.
pub(super) const ENTRY_BYTES_MIN: usize = BLOCK_NAME_BYTES_MIN + 5 + 2 * 16;
/// The fewest bytes of a segment's name: a writer, a time, 8 bytes of nonce.
const SEGMENT_NAME_BYTES_MIN: usize = 10;

pub(super) fn put_block_name(out: &mut Vec<u8>, name: &BlockName) {
    out.push(name.level());
    put_signed(out, name.day().number());
    out.extend_from_slice(&name.ulid().to_bytes());
}

pub(super) fn take_block_name(cursor: &mut Cursor<'_>) -> Result<BlockName, Damage> {
    let level = cursor.take(1)?[0];
    if !LEVELS.contains(&level) {
        return Err(Damage("has a block of a level nobody knows"));
    }
    let day = Day::from_number(cursor.signed()?).ok_or(Damage("has a day that no time lies in"))?;
    Ok(BlockName::new(level, day, take_ulid(cursor)?))
}

fn take_ulid(cursor: &mut Cursor<'_>) -> Result<Ulid, Damage> {
    Ok(Ulid::from_bytes(cursor.take(16)?.try_into().expect("16 bytes were taken")))
}

pub(super) fn put_entry(out: &mut Vec<u8>, entry: &BlockEntry) {
    put_block_name(out, &entry.name);
    put(out, entry.bytes);
    put(out, entry.rows);
    put(out, entry.raw_bytes);
    // Within the day, which the name says: both are shorter than a time since 1970.
    put_signed(out, entry.first_nanos.wrapping_sub(entry.name.day().first_nanos()));
    put_signed(out, entry.last_nanos.wrapping_sub(entry.first_nanos));
    out.extend_from_slice(&entry.first_id.to_bytes());
    out.extend_from_slice(&entry.last_id.to_bytes());
}

pub(super) fn take_entry(cursor: &mut Cursor<'_>) -> Result<BlockEntry, Damage> {
    let name = take_block_name(cursor)?;
    let (bytes, rows, raw_bytes) = (cursor.varint()?, cursor.varint()?, cursor.varint()?);
    let first_nanos = name.day().first_nanos().wrapping_add(cursor.signed()?);
    let last_nanos = first_nanos.wrapping_add(cursor.signed()?);
    let (first_id, last_id) = (take_ulid(cursor)?, take_ulid(cursor)?);
    Ok(BlockEntry { name, bytes, rows, raw_bytes, first_nanos, last_nanos, first_id, last_id })
}

/// Appends the names of segments: the writers' once each, then for each name its writer, how its time differs from the one before, and
/// its nonce. That is 11 bytes or so where the names are sorted.
pub(super) fn put_segment_names<'a>(out: &mut Vec<u8>, names: impl ExactSizeIterator<Item = SegmentParts<'a>> + Clone) {
    let mut writers: HashMap<&str, u64> = HashMap::new();
    let mut in_order = Vec::new();
    for SegmentParts { writer, .. } in names.clone() {
        let next = writers.len() as u64;
        writers.entry(writer).or_insert_with(|| {
            in_order.push(writer);
            next
        });
    }
    put(out, in_order.len() as u64);
    for writer in &in_order {
        put_bytes(out, writer.as_bytes());
    }
    put(out, names.len() as u64);
    let mut last = 0;
    for SegmentParts { millis, writer, nonce } in names {
        let millis = millis as i64;
        put(out, writers[writer]);
        put_signed(out, millis - last);
        out.extend_from_slice(&nonce.to_le_bytes());
        last = millis;
    }
}

/// Names of segments as they were read: the writers once each, and each name's writer, time and nonce.
pub(super) struct SegmentNames {
    writers: Vec<WriterId>,
    names: Vec<(usize, u64, u64)>,
}

impl SegmentNames {
    pub(super) fn iter(&self) -> impl Iterator<Item = SegmentParts<'_>> {
        let parts = |&(writer, millis, nonce): &(usize, u64, u64)| SegmentParts {
            millis,
            writer: self.writers[writer].as_str(),
            nonce,
        };
        self.names.iter().map(parts)
    }
}

pub(super) fn take_segment_names(cursor: &mut Cursor<'_>) -> Result<SegmentNames, Damage> {
    let count = cursor.count(2)?;
    let mut writers: Vec<WriterId> = Vec::with_capacity(count);
    for _ in 0..count {
        let text = std::str::from_utf8(cursor.bytes()?).ok().and_then(|text| text.parse().ok());
        writers.push(text.ok_or(Damage("has a writer whose name cannot be"))?);
    }
    let count = cursor.count(SEGMENT_NAME_BYTES_MIN)?;
    let mut names = Vec::with_capacity(count);
    let mut millis = 0i64;
    for _ in 0..count {
        let writer = cursor.index(writers.len())? as usize;
        millis = millis.wrapping_add(cursor.signed()?);
        let time = u64::try_from(millis).map_err(|_| Damage("has a segment of before 1970"))?;
        if time > MILLIS_MAX {
            return Err(Damage("has a segment of a time that no name can say"));
        }
        names.push((writer, time, u64::from_le_bytes(cursor.take(8)?.try_into().expect("8 bytes were taken"))));
    }
    Ok(SegmentNames { writers, names })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_name() -> impl Strategy<Value = BlockName> {
        (LEVELS, any::<i64>(), any::<u128>())
            .prop_map(|(level, nanos, ulid)| BlockName::new(level, Day::of_nanos(nanos), Ulid::from(ulid)))
    }

    pub(crate) fn any_segment() -> impl Strategy<Value = SegmentName> {
        (0..10_000_000_000_000u64, "[a-z0-9]{1,32}", any::<u64>())
            .prop_map(|(millis, writer, nonce)| SegmentName::new(millis, &writer.parse().expect("valid"), nonce))
    }

    fn any_entry() -> impl Strategy<Value = BlockEntry> {
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
        (any_name(), numbers, any::<[i64; 2]>(), any::<[u128; 2]>()).prop_map(
            |(name, (bytes, rows, raw_bytes), [first_nanos, last_nanos], ids)| {
                let [first_id, last_id] = ids.map(Ulid::from);
                BlockEntry { name, bytes, rows, raw_bytes, first_nanos, last_nanos, first_id, last_id }
            },
        )
    }

    fn any_commit() -> impl Strategy<Value = Commit> {
        let reasons = [Reason::Compaction, Reason::Retention, Reason::Garbage, Reason::Quarantine];
        let reason = prop::sample::select(reasons.to_vec());
        let removed = prop_oneof![any_segment().prop_map(BlockRef::from), any_name().prop_map(BlockRef::from)];
        let (adds, removes) = (prop::collection::vec(any_entry(), 0..4), prop::collection::btree_set(removed, 0..8));
        (reason, adds, removes, prop::option::of(0..u64::MAX)).prop_map(|(reason, adds, removes, boundary)| Commit {
            reason,
            adds,
            removes: removes.into_iter().collect(),
            boundary,
        })
    }

    proptest! {
        #[test]
        fn a_commit_is_what_its_bytes_say(commit in any_commit()) {
            prop_assert_eq!(Commit::decode(&commit.encode()), Ok(commit.clone()));
            let mut backwards = commit.clone();
            backwards.removes.reverse();
            prop_assert_eq!(backwards.encode(), commit.encode());
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Commit::decode(&bytes);
        }

        #[test]
        fn a_commit_that_is_cut_short_is_refused(commit in any_commit(), share in 0.0..1.0) {
            let bytes = commit.encode();
            let cut = (bytes.len() as f64 * share) as usize;
            prop_assert!(Commit::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn a_removed_segment_takes_a_dozen_bytes() {
        let writers: Vec<WriterId> = ["aaaaaaaa", "bbbbbbbb"].map(|w| w.parse().expect("valid")).into();
        let name = |n: u64| SegmentName::new(1_700_000_000_000 + 125 * n, &writers[n as usize % 2], n << 40);
        let removes = (0..1_000).map(name).map(BlockRef::from).collect();
        let commit = Commit { reason: Reason::Compaction, adds: Vec::new(), removes, boundary: None };
        assert!(commit.encode().len() < 11_100, "{}", commit.encode().len());
    }

    #[test]
    fn an_entry_is_sound_only_where_it_can_be_true() {
        let day = Day::of_nanos(0);
        let name = BlockName::new(1, day, Ulid::from(1));
        let (first_id, last_id) = (Ulid::from(3), Ulid::from(5));
        let good =
            BlockEntry { name, bytes: 1, rows: 1, raw_bytes: 1, first_nanos: 0, last_nanos: 9, first_id, last_id };
        assert!(good.is_sound());
        for bad in [
            BlockEntry { rows: 0, ..good.clone() },
            BlockEntry { first_nanos: 10, ..good.clone() },
            BlockEntry { first_nanos: -1, ..good.clone() },
            BlockEntry { last_nanos: day.last_nanos() + 1, ..good.clone() },
            BlockEntry { first_id: Ulid::from(6), ..good.clone() },
        ] {
            assert!(!bad.is_sound(), "{bad:?}");
        }
        assert!([3, 4, 5].iter().all(|id| good.may_hold(Ulid::from(*id))) && !good.may_hold(Ulid::from(2)));
    }
}
