//! Collection: deletes the objects that no view can name any more. Nothing else in this crate deletes what was written for good.
//!
//! ```text
//! list ─▶ commits ─▶ fence: what nobody ever named, and the boundary, in one commit ─▶ delete what was removed a grace ago
//! ```
//!
//! Invariants. Only what a commit removed is deleted, and only once that commit is older than [`Options::grace`] by the store's own
//! clock: questions that began before it are done by then. That holds for garbage as well: a block that nobody names is removed by a
//! commit first, so a compactor that slept since it wrote the block loses the race for that number, and finds its block removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::Store;
use crate::commit::{Commits, Draft, Outcome, Reason, State, boundary};
use crate::compaction::{Error, list};
use crate::now::now;
use crate::paths::{BlockKey, BlockName, BlockRef, SegmentKey, SegmentName};

/// How many deletes are under way at once.
const DELETES_MAX: usize = 16;
/// The most blocks that one commit fences.
const FENCED_MAX: usize = 1_000;
/// How far below the boundary a segment lies that no commit removed before it is deleted: more than the boundary moves in one step, so
/// that the move that made it invisible is a grace ago.
const BELOW_BOUNDARY_MIN: Duration = Duration::from_secs(5 * 3_600);

/// How long a damaged segment holds the boundary, by its name, and with it all names that commits removed since: long enough to put
/// back what it was, over a weekend. Then views have it no more; it stays where it is, with its note.
const DAMAGED_KEPT: Duration = Duration::from_secs(3 * 24 * 3_600);

/// When objects are deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long after the commit that removed it an object is deleted: as long as a question may take that began before, and more.
    pub grace: Duration,
    /// How old a block becomes that no commit names before it is taken for garbage: twice what a compactor may need to commit it.
    pub garbage_age: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { grace: Duration::from_secs(15 * 60), garbage_age: Duration::from_secs(24 * 3_600) }
    }
}

/// What a round has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many segments were deleted.
    pub segments: usize,
    /// How many blocks were deleted.
    pub blocks: usize,
    /// Their bytes together.
    pub bytes: u64,
    /// How many blocks that nobody names were fenced off, to be deleted a grace later.
    pub fenced: usize,
    /// Objects that were removed and wait for the grace to pass.
    pub waiting: usize,
}

impl Report {
    /// Adds what another round did.
    pub(crate) fn add(&mut self, other: Self) {
        self.segments += other.segments;
        self.blocks += other.blocks;
        self.bytes += other.bytes;
        self.fenced += other.fenced;
        self.waiting += other.waiting;
    }
}

/// Collects the garbage of one tenant.
#[derive(Debug)]
pub struct Collector {
    store: Store,
    commits: Commits,
    options: Options,
    /// The boundary as it was last seen, and when it was first seen so, in milliseconds by the store's clock.
    moved: Mutex<Option<(u64, u64)>>,
}

/// What lies in the bucket.
struct Listed {
    /// Notes of what is damaged.
    quarantined: BTreeSet<BlockRef>,
    segments: BTreeMap<SegmentName, ObjectMeta>,
    blocks: BTreeMap<BlockName, ObjectMeta>,
}

impl Collector {
    /// Makes it. Makes no request.
    pub fn new(store: Store, commits: Commits, options: Options) -> Self {
        Self { store, commits, options, moved: Mutex::default() }
    }

    /// Makes one round. Costs three LISTs, the refresh of the commits, three requests to learn the store's time, at most one commit, and
    /// a DELETE for each object.
    ///
    /// # Errors
    /// Where the bucket could not be read or written. What was deleted before that stays deleted.
    pub async fn round(&self) -> Result<Report, Error> {
        // Asked first: so the boundary stays a day behind the listing, however long a collector sleeps in between, and above it lies
        // whatever the listing may have missed.
        let now_millis = now(&self.store).await?.millis;
        let listed = self.list().await?;
        let state = self.commits.refresh().await?;
        let mut report = Report::default();
        let garbage = self.garbage(&listed, &state, now_millis);
        let boundary = self.next_boundary(&listed, &state, now_millis);
        let mut state = state;
        if !garbage.is_empty() || boundary.is_some() {
            report.fenced = garbage.len();
            let removes = garbage.into_iter().map(BlockRef::Block).collect();
            let draft = Draft { base: state.number(), reason: Reason::Garbage, adds: Vec::new(), removes, boundary };
            match self.commits.commit(draft, async |_, _| true).await? {
                Outcome::Committed { .. } => state = self.commits.refresh().await?,
                Outcome::Rejected(rejection) => {
                    tracing::debug!(%rejection, "a collector was overtaken; the next round looks again");
                    report.fenced = 0;
                }
                Outcome::Unknown { number, source } => {
                    tracing::warn!(
                        commit = number,
                        error = &source as &dyn std::error::Error,
                        "whether a commit was made is unknown"
                    );
                    return Ok(report);
                }
            }
        }
        self.delete(listed, &state, now_millis, &mut report).await?;
        Ok(report)
    }

    async fn list(&self) -> Result<Listed, Error> {
        let tenant = self.commits.tenant();
        let segments = list(&self.store, tenant.segments()).await?;
        let blocks = list(&self.store, tenant.blocks()).await?;
        let quarantined = list(&self.store, tenant.quarantined()).await?;
        let segment = |meta: ObjectMeta| Some((SegmentKey::parse(tenant, &meta.location).ok()?.name, meta));
        let block = |meta: ObjectMeta| Some((BlockKey::parse(tenant, &meta.location).ok()?.name, meta));
        Ok(Listed {
            quarantined: quarantined.iter().filter_map(|meta| tenant.parse_quarantine(&meta.location)).collect(),
            segments: segments.into_iter().filter_map(segment).collect(),
            blocks: blocks.into_iter().filter_map(block).collect(),
        })
    }

    /// Returns the blocks that no commit ever named, though they have been there for long.
    fn garbage(&self, listed: &Listed, state: &State, now_millis: u64) -> Vec<BlockName> {
        let is_garbage = |(name, meta): &(&BlockName, &ObjectMeta)| {
            state.block(name).is_none()
                && state.removed_at(&BlockRef::Block(**name)).is_none()
                && now_millis >= millis(meta) + self.options.garbage_age.as_millis() as u64
        };
        listed.blocks.iter().filter(is_garbage).map(|(name, _)| *name).take(FENCED_MAX).collect()
    }

    fn next_boundary(&self, listed: &Listed, state: &State, now_millis: u64) -> Option<u64> {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if moved.is_none_or(|(boundary, _)| boundary != state.boundary()) {
            *moved = Some((state.boundary(), now_millis));
        }
        let moved_at = moved.filter(|(boundary, _)| *boundary > 0).map(|(_, at)| at);
        let given_up = |name: &SegmentName| {
            let is_old = now_millis >= name.millis().saturating_add(DAMAGED_KEPT.as_millis() as u64);
            is_old && listed.quarantined.contains(&BlockRef::Segment(name.clone()))
        };
        let mut live = listed.segments.keys().filter(|name| !state.is_removed(name));
        let oldest = live.find(|name| !given_up(name)).map(SegmentName::millis);
        boundary::next(now_millis, oldest, state.boundary(), moved_at)
    }

    /// Deletes what was removed long enough ago.
    async fn delete(&self, listed: Listed, state: &State, now_millis: u64, report: &mut Report) -> Result<(), Error> {
        let grace = self.options.grace.as_millis() as u64;
        let mut deletes = Vec::new();
        let mut waiting = 0;
        let mut sort = |removed_at: Option<u64>, meta: ObjectMeta, is_block: bool| match removed_at {
            Some(at) if now_millis >= at + grace => deletes.push((meta, is_block)),
            Some(_) => waiting += 1,
            None => {}
        };
        for (name, meta) in listed.segments {
            let below = state.boundary().saturating_sub(BELOW_BOUNDARY_MIN.as_millis() as u64);
            // What landed below the boundary was never acknowledged, and no view has it.
            let landed = (name.millis() < below).then(|| millis(&meta));
            let name = BlockRef::Segment(name);
            // But what is damaged was; no commit removes it, so it stays.
            let landed = landed.filter(|_| !listed.quarantined.contains(&name));
            let removed_at = state.removed_at(&name).or(landed);
            sort(removed_at, meta, false);
        }
        for (name, meta) in listed.blocks {
            sort(state.removed_at(&BlockRef::Block(name)), meta, true);
        }
        report.waiting = waiting;
        let delete = async |(meta, is_block): (ObjectMeta, bool)| {
            match self.store.objects().delete(&meta.location).await {
                // Another collector was faster.
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok((meta.size, is_block)),
                Err(source) => Err(Error::Write { key: meta.location, source: source.into() }),
            }
        };
        let mut deleting = futures::stream::iter(deletes.into_iter().map(delete)).buffer_unordered(DELETES_MAX);
        while let Some(deleted) = deleting.next().await {
            let (bytes, is_block) = deleted?;
            report.bytes += bytes;
            *(if is_block { &mut report.blocks } else { &mut report.segments }) += 1;
        }
        Ok(())
    }
}

fn millis(meta: &ObjectMeta) -> u64 {
    u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0)
}
