//! A state written down, so that nobody replays from the first commit.
//!
//! A head (`snap/<n>`) has the boundary, what was removed of late, and for each day with live blocks where these are written down: in a
//! *shard* (`day/<day>-<m>`), as of commit m. A day that did not change since the snapshot before is not written again; the head names
//! the older shard. So a snapshot costs a request for each day that changed, whatever else is live. Shards are written before the head
//! that names them. A state follows from its commits, so whoever writes the shard of a day and number writes the same bytes, and of two
//! heads of one number either will do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{PutMode, PutPayload};
use tokio::time::timeout;

use super::record::{
    BLOCK_NAME_BYTES_MIN, ENTRY_BYTES_MIN, put_block_name, put_entry, put_segment_names, take_block_name, take_entry,
    take_segment_names,
};
use super::removed::RemovedSegments;
use super::sealed::{Kind, fetch, seal};
use super::state::DayBlocks;
use super::{Cause, Error, Live, State};
use crate::Store;
use crate::block::varint::{Cursor, Damage, Delta, put, put_signed};
use crate::fault::Fault;
use crate::paths::{Day, TenantId};
use crate::put::Tries;

/// Whoever makes a commit whose number is a multiple of this writes the snapshot after it.
pub const SNAPSHOT_EVERY: u64 = 64;
/// How many shards are read or written at once.
const IN_FLIGHT_MAX: usize = 16;
/// How long an attempt may take, whatever the size.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How an object is written. A snapshot that fails is no loss: readers replay more commits.
const TRIES: Tries = Tries { attempts_max: 3, attempt_timeout: ATTEMPT_TIMEOUT, backoff: Duration::from_millis(200) };
/// The fewest bytes of a day in a head.
const DAY_BYTES_MIN: usize = 4;

/// Where the parts of a snapshot lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(super) number: u64,
    pub(super) days: BTreeMap<Day, Shard>,
}

/// Where the live blocks of a day are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    /// The number of the commit as of which they are, which names the object.
    pub(super) number: u64,
    /// The number of the last commit that changed them.
    pub(super) changed_in: u64,
    pub(super) blocks: u64,
}

/// What a snapshot took to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The objects written.
    pub objects: u64,
    /// The bytes of these together.
    pub bytes: u64,
}

impl Head {
    /// Plans the snapshot of a state: shards of `before` stay where the day did not change since.
    fn plan(state: &State, before: Option<&Self>) -> Self {
        let shard = |(day, blocks): (&Day, &DayBlocks)| {
            let new = Shard { number: state.number, changed_in: blocks.changed_in, blocks: blocks.blocks.len() as u64 };
            let old = before.and_then(|before| before.days.get(day));
            (*day, old.copied().filter(|old| old.changed_in == new.changed_in).unwrap_or(new))
        };
        Self { number: state.number, days: state.days.iter().map(shard).collect() }
    }

    fn encode(&self, state: &State) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, self.number);
        put(&mut out, state.at_millis);
        put(&mut out, state.boundary);
        put(&mut out, self.days.len() as u64);
        for (day, shard) in &self.days {
            put_signed(&mut out, day.number());
            put(&mut out, shard.number);
            put(&mut out, shard.changed_in);
            put(&mut out, shard.blocks);
        }
        put(&mut out, state.removed_blocks.len() as u64);
        let mut last = Delta::default();
        for (name, at) in &*state.removed_blocks {
            put_block_name(&mut out, name);
            last.put(&mut out, *at);
        }
        let segments: Vec<_> = state.removed_segments.iter().collect();
        put_segment_names(&mut out, segments.iter().map(|(name, _)| *name));
        let mut last = Delta::default();
        for (_, at) in segments {
            last.put(&mut out, at);
        }
        out
    }

    /// Reads a head, and the state without its days.
    pub(crate) fn decode(body: &[u8]) -> Result<(Self, State), Damage> {
        let mut cursor = Cursor::new(body);
        let (number, at_millis, boundary) = (cursor.varint()?, cursor.varint()?, cursor.varint()?);
        let mut days = BTreeMap::new();
        for _ in 0..cursor.count(DAY_BYTES_MIN)? {
            let day = take_day(&mut cursor)?;
            let shard = Shard { number: cursor.varint()?, changed_in: cursor.varint()?, blocks: cursor.varint()? };
            days.insert(day, shard);
        }
        let mut removed_blocks = BTreeMap::new();
        let mut last = Delta::default();
        for _ in 0..cursor.count(BLOCK_NAME_BYTES_MIN + 1)? {
            removed_blocks.insert(take_block_name(&mut cursor)?, last.read(&mut cursor)?);
        }
        let mut removed_segments = RemovedSegments::default();
        let mut last = Delta::default();
        for name in take_segment_names(&mut cursor)?.iter() {
            removed_segments.insert(name, last.read(&mut cursor)?);
        }
        cursor.finish()?;
        let state = State {
            number,
            at_millis,
            boundary,
            days: BTreeMap::new(),
            removed_blocks: Arc::new(removed_blocks),
            removed_segments,
        };
        Ok((Self { number, days }, state))
    }
}

fn take_day(cursor: &mut Cursor<'_>) -> Result<Day, Damage> {
    Day::from_number(cursor.signed()?).ok_or(Damage("has a day that no time lies in"))
}

fn encode_day(day: Day, number: u64, blocks: &DayBlocks) -> Vec<u8> {
    let mut out = Vec::new();
    put_signed(&mut out, day.number());
    put(&mut out, number);
    put(&mut out, blocks.changed_in);
    put(&mut out, blocks.blocks.len() as u64);
    for live in blocks.blocks.values() {
        put_entry(&mut out, &live.entry);
        put(&mut out, live.added_in);
    }
    out
}

fn decode_day(body: &[u8], day: Day, shard: Shard) -> Result<DayBlocks, Damage> {
    let part = decode_part(body, day, shard.number)?;
    if (part.changed_in, part.blocks.len() as u64) != (shard.changed_in, shard.blocks) {
        return Err(Damage("is not the part that the snapshot names"));
    }
    Ok(part)
}

/// Reads the part of a day as of commit `number`, whatever a head says of it.
fn decode_part(body: &[u8], day: Day, number: u64) -> Result<DayBlocks, Damage> {
    let mut cursor = Cursor::new(body);
    let (found_day, found, changed_in) = (take_day(&mut cursor)?, cursor.varint()?, cursor.varint()?);
    let count = cursor.count(ENTRY_BYTES_MIN + 1)?;
    if (found_day, found) != (day, number) {
        return Err(Damage("is not the part that its name says"));
    }
    let mut blocks = BTreeMap::new();
    for _ in 0..count {
        let (entry, added_in) = (Arc::new(take_entry(&mut cursor)?), cursor.varint()?);
        if entry.name.day() != day || !entry.is_sound() {
            return Err(Damage("has a block that cannot be"));
        }
        if blocks.insert(entry.name, Live { entry, added_in }).is_some() {
            return Err(Damage("has a block twice"));
        }
    }
    cursor.finish()?;
    Ok(DayBlocks { changed_in, blocks: Arc::new(blocks) })
}

/// Reads the head of snapshot `number`; none where there is none. Costs one GET.
pub(super) async fn read_head(store: &Store, tenant: &TenantId, number: u64) -> Result<Option<(Head, State)>, Error> {
    let key = tenant.snapshot(number);
    let Some(found) = fetch(&*store.objects(), Kind::Snapshot, &key).await? else { return Ok(None) };
    let (head, state) = Head::decode(&found.body).map_err(|damage| Error::damaged(&key, damage))?;
    if head.number != number {
        return Err(Error::damaged(&key, Damage("has the number of another")));
    }
    Ok(Some((head, state)))
}

/// Reads the part of `day` as of commit `number`; none where there is none. Costs one GET.
pub(super) async fn read_part(
    store: &Store,
    tenant: &TenantId,
    day: Day,
    number: u64,
) -> Result<Option<DayBlocks>, Error> {
    let key = tenant.day(day, number);
    let Some(found) = fetch(&*store.objects(), Kind::Day, &key).await? else { return Ok(None) };
    decode_part(&found.body, day, number).map(Some).map_err(|damage| Error::damaged(&key, damage))
}

/// Reads the state after commit `number` from its snapshot; none where there is none. Costs a GET, and one for each day.
pub(super) async fn read(store: &Store, tenant: &TenantId, number: u64) -> Result<Option<(Head, State)>, Error> {
    let Some((head, mut state)) = read_head(store, tenant, number).await? else { return Ok(None) };
    let read = async |(day, shard): (Day, Shard)| {
        let key = tenant.day(day, shard.number);
        let found = fetch(&*store.objects(), Kind::Day, &key).await?;
        let found = found.ok_or_else(|| Error::damaged(&key, Damage("is named by a snapshot and not there")))?;
        let blocks = decode_day(&found.body, day, shard).map_err(|damage| Error::damaged(&key, damage))?;
        Ok::<_, Error>((day, blocks))
    };
    let shards: Vec<_> = head.days.iter().map(|(day, shard)| (*day, *shard)).collect();
    state.days =
        futures::stream::iter(shards.into_iter().map(read)).buffer_unordered(IN_FLIGHT_MAX).try_collect().await?;
    Ok(Some((head, state)))
}

/// Writes the snapshot of a state whose shards may partly be those of `before`. Costs a PUT, and one for each day that changed since.
pub(super) async fn write(
    store: &Store,
    tenant: &TenantId,
    state: &State,
    before: Option<&Head>,
) -> Result<(Head, Written), Error> {
    let head = Head::plan(state, before);
    let mut written = Written::default();
    let mut objects = Vec::new();
    for (day, shard) in head.days.iter().filter(|(_, shard)| shard.number == state.number) {
        let sealed = seal(Kind::Day, &encode_day(*day, shard.number, &state.days[day]));
        written.bytes += sealed.len() as u64;
        objects.push((tenant.day(*day, shard.number), sealed));
    }
    written.objects = 1 + objects.len() as u64;
    let puts = objects.into_iter().map(|(key, sealed)| put_object(store, key, sealed, PutMode::Overwrite));
    futures::stream::iter(puts).buffer_unordered(IN_FLIGHT_MAX).try_collect::<()>().await?;
    let sealed = seal(Kind::Snapshot, &head.encode(state));
    written.bytes += sealed.len() as u64;
    put_object(store, tenant.snapshot(head.number), sealed, PutMode::Create).await?;
    Ok((head, written))
}

/// Writes an object that has the same bytes, or others that will do as well, whoever writes it: so it may be written again.
pub(super) async fn put_object(store: &Store, key: Path, sealed: Bytes, mode: PutMode) -> Result<(), Error> {
    match store.put_again(&key, PutPayload::from_bytes(sealed), mode.clone(), TRIES).await {
        // A conflict may be with nothing, so it is no proof that the object is there; but then only a snapshot is missing.
        Err(Cause::Store(error)) if Fault::of(&error) == Fault::Conflict && mode == PutMode::Create => Ok(()),
        Err(cause) => Err(Error::Write { key, source: Arc::new(cause) }),
        Ok(()) => Ok(()),
    }
}

/// Returns the numbers of the snapshots after this one, the newest first. Costs one LIST.
pub(super) async fn list_after(store: &Store, tenant: &TenantId, number: u64) -> Result<Vec<u64>, Error> {
    let mut numbers =
        list(store, tenant.snapshots(), &tenant.snapshot(number), |path| tenant.parse_snapshot(path)).await?;
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}

/// Whether there is any commit after this one. Costs one LIST.
pub(super) async fn is_any_commit_after(store: &Store, tenant: &TenantId, number: u64) -> Result<bool, Error> {
    let numbers = list(store, tenant.commits(), &tenant.commit(number), |path| tenant.parse_commit(path)).await?;
    Ok(!numbers.is_empty())
}

/// Returns the numbers of the objects of a folder after one of them.
async fn list(
    store: &Store,
    folder: Path,
    after: &Path,
    parse: impl Fn(&Path) -> Option<u64>,
) -> Result<Vec<u64>, Error> {
    let list = store.objects().list_with_offset(Some(&folder), after);
    let numbers = list.try_filter_map(|meta| std::future::ready(Ok(parse(&meta.location))));
    let numbers = timeout(ATTEMPT_TIMEOUT, numbers.try_collect::<Vec<u64>>()).await.unwrap_or_else(|_| {
        let source = crate::patient::NoAnswer { after: ATTEMPT_TIMEOUT };
        Err(object_store::Error::Generic { store: "list", source: source.into() })
    });
    numbers.map_err(|source| Error::read(&folder, source))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns the part of `day` that a snapshot of `state` would have, under another number.
    pub(crate) fn sealed_part(state: &State, day: Day, number: u64) -> Vec<u8> {
        seal(Kind::Day, &encode_day(day, number, &state.days[&day])).to_vec()
    }
}
