//! Carries jobs out: open the inputs, merge, write, read back, commit.
//!
//! Whoever dies in between leaves blocks that nobody names, which collection deletes a day later; the inputs are as they were. A commit
//! whose outcome is unknown is left alone: the next round sees in the commits what came of it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{PutMode, PutPayload};

use super::plan::{self, Due, Inventory, Job, Segment};
use super::{Compactor, Error, Round, list};
use crate::block::{self, Block, Footprint, Input, Merge, MergeOptions, Merged, Stats, Summary};
use crate::catalog::listing::{self, Scope};
use crate::clock::mint_ulid;
use crate::commit::{BlockEntry, Draft, Outcome, Reason, State};
use crate::paths::{BlockKey, BlockName, BlockRef, Day, SegmentName};
use crate::put::Tries;

/// How many inputs are opened at once.
const OPENS_MAX: usize = 16;
/// How many times as much memory as it should the merge of one block alone may take, where its tables are so large.
pub(super) const ALONE_FACTOR: u64 = 4;
/// How an object is written: an attempt has time for the largest block at 2 MiB a second.
const TRIES: Tries =
    Tries { attempts_max: 4, attempt_timeout: Duration::from_secs(60), backoff: Duration::from_millis(200) };

/// How a job ended.
#[derive(Debug)]
enum Ended {
    Committed {
        profiles: u64,
        bytes_in: u64,
        bytes_out: u64,
    },
    /// Others had been faster.
    Lost,
    Unknown,
    /// An input, or a live block that had to be read beside the inputs, is damaged.
    Damaged(BlockRef),
    /// An input is left as it is.
    Aside,
}

/// An input that was opened.
pub(super) struct Opened {
    pub(super) input: BlockRef,
    bytes: u64,
    block: Arc<Block>,
}

impl Compactor {
    /// Makes one round: looks at what lies in the bucket, and carries out what is due, job by job. Costs two LISTs and the refresh of
    /// the commits besides the jobs.
    ///
    /// # Errors
    /// Where the bucket could not be read or written. What was committed before that stays.
    pub async fn round(&self, due: Due) -> Result<Round, Error> {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        let tenant = self.commits.tenant();
        let listed = listing::list(&*self.store.objects(), tenant, Scope::All).await;
        let listed = listed.map_err(|source| Error::List { key: tenant.segments(), source })?;
        let mut damaged = self.quarantined().await?;
        // Only now: what was listed and is not removed by these commits was live when they were read.
        let state = self.commits.refresh().await?;
        let segments: Vec<Segment> = listed
            .segments
            .into_iter()
            .filter(|(name, _)| !state.is_removed(name))
            .map(|(name, location)| Segment { name, bytes: location.bytes })
            .collect();
        let now_millis = self.store.clock().unix_millis();
        let left_alone: BTreeSet<BlockRef> = damaged.iter().cloned().chain(self.aside().iter().cloned()).collect();
        let inventory = Inventory { segments: &segments, state: &state, quarantined: &left_alone, now_millis };
        let jobs = plan::plan(&inventory, &self.worker, due, &self.options.plan);
        let mut round = Round::default();
        let mut done = BTreeSet::new();
        for job in jobs {
            match self.run(&state, &damaged, job, &mut done).await {
                Ok(Ended::Committed { profiles, bytes_in, bytes_out }) => {
                    round.committed += 1;
                    round.profiles += profiles;
                    round.bytes_in += bytes_in;
                    round.bytes_out += bytes_out;
                }
                Ok(Ended::Lost) => round.lost += 1,
                Ok(Ended::Unknown) => round.unknown += 1,
                Ok(Ended::Damaged(block)) => {
                    damaged.insert(block.clone());
                    round.quarantined.push(block);
                }
                Ok(Ended::Aside) => {}
                // Without commits there is nothing more to do; else what stops one job need not stop the next.
                Err(error @ Error::Commit(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%tenant, error = &error as &dyn std::error::Error, "blocks could not be merged");
                    round.failures.push(told(&error));
                }
            }
        }
        // What is damaged waits for nothing.
        let is_left = |name: &SegmentName| {
            let name = BlockRef::Segment(name.clone());
            !done.contains(&name) && !damaged.contains(&name)
        };
        let left = || segments.iter().filter(|segment| is_left(&segment.name));
        round.segments_left = left().count();
        let oldest = left().map(|segment| segment.name.millis()).min();
        round.oldest_left = Duration::from_millis(oldest.map_or(0, |oldest| now_millis.saturating_sub(oldest)));
        Ok(round)
    }

    /// Returns what was found damaged before. Costs one LIST.
    pub(crate) async fn quarantined(&self) -> Result<BTreeSet<BlockRef>, Error> {
        let listed = list(&self.store, self.commits.tenant().quarantined()).await?;
        Ok(listed.iter().filter_map(|meta| self.commits.tenant().parse_quarantine(&meta.location)).collect())
    }

    /// Carries out a job that was planned by `state`, in which these are `damaged`; what it has removed is added to `done`.
    async fn run(
        &self,
        state: &State,
        damaged: &BTreeSet<BlockRef>,
        job: Job,
        done: &mut BTreeSet<BlockRef>,
    ) -> Result<Ended, Error> {
        let opened = match self.open(job.inputs, self.options.memory_max).await {
            Ok(opened) => opened,
            Err(failure) => return self.failed(failure).await,
        };
        let stays_at_level = opened.iter().all(|opened| opened.input.level() == job.level);
        if stays_at_level && opened.len() < 2 {
            return Ok(self.leave(&opened));
        }
        let inputs = match self.inputs(state, damaged, job.level, &opened).await {
            Ok(inputs) => inputs,
            Err(failure) => return self.failed(failure).await,
        };
        let made = match &inputs[..] {
            [alone] if Footprint::of([&*alone.block].into_iter()).tables() > self.options.memory_max => {
                self.carry(job.level, alone).await
            }
            _ => self.make(job.level, inputs, self.options.memory_max).await,
        };
        let Made { adds, ids, stats } = match made {
            Ok(made) => made,
            Err(Error::Block(error @ block::Error::Memory { .. })) => {
                let block = &opened[0].input;
                tracing::warn!(%block, %error, "a block is too large to be merged with this memory, and stays as it is");
                return Ok(self.leave(&opened));
            }
            Err(Error::Block(error)) => return self.failed(blame(&opened, error)).await,
            Err(error) => return Err(error),
        };
        let came_to_nothing = stays_at_level && adds.len() >= opened.len();
        let outputs: Vec<BlockRef> = adds.iter().map(|entry| entry.name.into()).collect();
        let removes: Vec<BlockRef> = opened.iter().map(|opened| opened.input.clone()).collect();
        let draft =
            Draft { base: state.number(), reason: Reason::Compaction, adds, removes: removes.clone(), boundary: None };
        let is_of_segments = job.level == 1;
        let outcome = self.commits.commit(draft, |_, others| {
            let (ids, known) = (Arc::clone(&ids), Arc::clone(&self.known));
            // The ids of live blocks are nobody else's already; only those of segments may be.
            async move {
                let noted = BTreeSet::new();
                !is_of_segments || known.of(&ids, others.iter(), &noted).await.is_ok_and(|doubled| doubled.is_empty())
            }
        });
        match outcome.await? {
            Outcome::Committed { number } => {
                let bytes_in = opened.iter().map(|opened| opened.bytes).sum();
                let (profiles, bytes_out) = (stats.rows, stats.bytes_written);
                tracing::debug!(
                    commit = number,
                    level = job.level,
                    inputs = opened.len(),
                    profiles,
                    bytes_in,
                    bytes_out,
                    duplicates = stats.duplicates,
                    "compacted"
                );
                done.extend(removes);
                if came_to_nothing {
                    // The same again would come of the same.
                    self.aside().extend(outputs);
                }
                Ok(Ended::Committed { profiles, bytes_in, bytes_out })
            }
            Outcome::Rejected(rejection) => {
                tracing::debug!(level = job.level, %rejection, "another compactor was faster");
                Ok(Ended::Lost)
            }
            Outcome::Unknown { number, source } => {
                tracing::warn!(
                    commit = number,
                    error = &source as &dyn std::error::Error,
                    "whether a commit was made is unknown"
                );
                Ok(Ended::Unknown)
            }
        }
    }

    /// Writes a block anew as blocks of `level`, without what is to be left out, and returns what a commit says of them. Until they are
    /// committed nobody reads them. As it is alone, it may take [`ALONE_FACTOR`] times as much memory as others.
    ///
    /// # Errors
    /// Where it cannot be read, is damaged or too large for that, or an output cannot be written.
    pub(crate) async fn rewrite(&self, level: u8, input: Input) -> Result<Vec<BlockEntry>, Error> {
        Ok(self.make_alone(level, input).await?.adds)
    }

    /// Carries a block over to a level whose tables are too large to be merged: as it is, where nothing has to be left out. Else it is
    /// merged all the same, with as much memory as that takes, if it is not [`ALONE_FACTOR`] times as much as it should.
    async fn carry(&self, level: u8, input: &Input) -> Result<Made, Error> {
        let block = &input.block;
        let rows = block.rows().await?;
        let day = |row: &block::Row| Day::of_nanos(row.time_nanos);
        let first = rows.first().filter(|first| input.skip.is_empty() && rows.iter().all(|row| day(row) == day(first)));
        let Some(first) = first else {
            return self.make_alone(level, input.clone()).await;
        };
        let times = || rows.iter().map(|row| row.time_nanos);
        let ids = || rows.iter().map(|row| row.id);
        let summary = Summary {
            rows: rows.len() as u64,
            columns: rows.iter().filter(|row| row.columns).count() as u64,
            raw_bytes: rows.iter().map(|row| row.raw_bytes).sum(),
            first_nanos: times().min().unwrap_or(first.time_nanos),
            last_nanos: times().max().unwrap_or(first.time_nanos),
            first_id: ids().min().unwrap_or(first.id),
            last_id: ids().max().unwrap_or(first.id),
            day: day(first),
        };
        let bytes = block.read(0..block.size()).await?;
        let stats = Stats { rows: summary.rows, bytes_written: block.size(), ..Stats::default() };
        let (entry, mut ids) = self.write(level, Merged { bytes, summary }).await?;
        ids.sort_unstable();
        Ok(Made { adds: vec![entry], ids: ids.into(), stats })
    }

    async fn make_alone(&self, level: u8, input: Input) -> Result<Made, Error> {
        self.make(level, vec![input], ALONE_FACTOR * self.options.memory_max).await
    }

    async fn make(&self, level: u8, inputs: Vec<Input>, memory_max: u64) -> Result<Made, Error> {
        let options = MergeOptions { memory_max, ..MergeOptions::of_level(level) };
        let mut merge = Merge::begin(inputs, options).await?;
        let (mut adds, mut ids) = (Vec::new(), Vec::new());
        while let Some(merged) = merge.next().await? {
            let (entry, block_ids) = self.write(level, merged).await?;
            adds.push(entry);
            ids.extend(block_ids);
        }
        ids.sort_unstable();
        Ok(Made { adds, ids: ids.into(), stats: merge.stats() })
    }

    /// Opens the first inputs of a job with their rows, as many as a merge has memory for; one at least.
    pub(super) async fn open(&self, inputs: Vec<(BlockRef, u64)>, memory_max: u64) -> Result<Vec<Opened>, Failure> {
        let open = async |(input, bytes): (BlockRef, u64)| {
            let path = input.path(self.commits.tenant());
            let opened = async {
                let block = Block::open_sized(self.store.objects(), path, bytes).await?;
                // From now on it holds them instead of what they are decoded from, which is many times as much.
                block.rows().await?;
                Ok(block)
            };
            match opened.await {
                Ok(block) => Ok(Opened { input, bytes, block: Arc::new(block) }),
                Err(error) => Err(Failure::of(input, error)),
            }
        };
        let mut opening = futures::stream::iter(inputs.into_iter().map(open)).buffered(OPENS_MAX);
        let (mut opened, mut footprint): (Vec<Opened>, _) = (Vec::new(), Footprint::default());
        while let Some(next) = opening.next().await {
            let next = next?;
            footprint.add(&next.block);
            if !opened.is_empty() && footprint.tables().max(footprint.opened()) > memory_max {
                break;
            }
            opened.push(next);
        }
        Ok(opened)
    }

    /// Says of each input what stays behind: of segments, the profiles that a live block has.
    pub(super) async fn inputs(
        &self,
        state: &State,
        damaged: &BTreeSet<BlockRef>,
        level: u8,
        opened: &[Opened],
    ) -> Result<Vec<Input>, Failure> {
        let rows = futures::stream::iter(opened.iter().map(|opened| opened.block.rows())).buffered(OPENS_MAX);
        let rows: Vec<_> = rows.try_collect().await.map_err(|error| blame(opened, error))?;
        let mut known = BTreeSet::new();
        if level == 1 {
            let mut ids: Vec<u128> = rows.iter().flat_map(|rows| rows.iter().map(|row| row.id.into())).collect();
            ids.sort_unstable();
            let live = state.blocks().map(|live| &live.entry);
            let found = self.known.of(&ids, live, damaged).await;
            known = found.map_err(|(name, error)| Failure::of(BlockRef::Block(name), error))?;
        }
        let skipped = |rows: &Vec<block::Row>| {
            (0..).zip(rows).filter(|(_, row)| known.contains(&row.id)).map(|(number, _)| number).collect()
        };
        let input = |(opened, rows): (&Opened, &Arc<Vec<block::Row>>)| Input {
            block: Arc::clone(&opened.block),
            skip: skipped(rows),
        };
        Ok(opened.iter().zip(&rows).map(input).collect())
    }

    /// Writes a block, reads back that it is there, and returns what a commit says of it, with its ids.
    async fn write(&self, level: u8, merged: Merged) -> Result<(BlockEntry, Vec<u128>), Error> {
        let Merged { bytes, summary } = merged;
        let ulid = mint_ulid(&**self.store.clock(), &**self.store.random());
        let name = BlockName::new(level, summary.day, ulid);
        let path = BlockKey { tenant: self.commits.tenant().clone(), name }.path();
        let size = bytes.len() as u64;
        self.put(&path, PutPayload::from_bytes(bytes)).await?;
        let block = Block::open_sized(self.store.objects(), path, size).await?;
        let ids = block.rows().await?.iter().map(|row| row.id.into()).collect();
        Ok((entry(name, size, &summary), ids))
    }

    /// Writes an object under a key that is nobody else's, or whose bytes may be another's as well: so it may be tried again.
    async fn put(&self, path: &Path, payload: PutPayload) -> Result<(), Error> {
        let put = self.store.put_again(path, payload, PutMode::Overwrite, TRIES).await;
        put.map_err(|source| Error::Write { key: path.clone(), source })
    }

    /// Returns whether a block was not found damaged in a round before this one.
    fn suspect(&self, input: &BlockRef) -> bool {
        let round = self.rounds.load(Ordering::Relaxed);
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        *suspects.entry(input.clone()).or_insert(round) == round
    }

    fn aside(&self) -> MutexGuard<'_, BTreeSet<BlockRef>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the inputs of a job as they are from now on.
    fn leave(&self, opened: &[Opened]) -> Ended {
        self.aside().extend(opened.iter().map(|opened| opened.input.clone()));
        Ended::Aside
    }

    /// Ends a job that cannot go on. What was damaged in two rounds is noted, so that the next one leaves it out.
    async fn failed(&self, failure: Failure) -> Result<Ended, Error> {
        let failure = match failure {
            Failure::Gone(input, error) => match input {
                // By now others compacted and collected it, or it is missing.
                BlockRef::Block(name) if self.commits.refresh().await?.block(&name).is_some() => {
                    Failure::Damaged(input, error)
                }
                _ => return Ok(Ended::Lost),
            },
            failure => failure,
        };
        match failure {
            Failure::Gone(..) => Ok(Ended::Lost),
            Failure::Other(error) => Err(error.into()),
            Failure::Damaged(input, error) if self.suspect(&input) => {
                tracing::warn!(block = %input, %error, "a block looks damaged; it is read again in the next round");
                Ok(Ended::Unknown)
            }
            Failure::Damaged(input, error) => {
                self.quarantine(&input, &error).await?;
                Ok(Ended::Damaged(input))
            }
        }
    }

    /// Notes that an input is damaged, so that nobody merges it any more.
    ///
    /// # Errors
    /// Where the note could not be written.
    pub(crate) async fn quarantine(
        &self,
        input: &BlockRef,
        error: &(dyn std::error::Error + 'static),
    ) -> Result<(), Error> {
        tracing::error!(block = %input, error, "a block is damaged; it is left out of compaction and stays where it is");
        let note = format!("{input} was found damaged at unix ms {}: {error}\n", self.store.clock().unix_millis());
        let path = self.commits.tenant().quarantine(input);
        self.put(&path, PutPayload::from(note.into_bytes())).await
    }
}

/// What came out of a merge.
struct Made {
    adds: Vec<BlockEntry>,
    /// The ids in them, sorted.
    ids: Arc<[u128]>,
    stats: Stats,
}

/// Returns what a commit says of a block of so many bytes.
pub(super) fn entry(name: BlockName, bytes: u64, summary: &Summary) -> BlockEntry {
    BlockEntry {
        name,
        bytes,
        rows: summary.rows,
        raw_bytes: summary.raw_bytes,
        first_nanos: summary.first_nanos,
        last_nanos: summary.last_nanos,
        first_id: summary.first_id,
        last_id: summary.last_id,
    }
}

/// Tells an error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Finds the input that an error is about.
pub(super) fn blame(opened: &[Opened], error: block::Error) -> Failure {
    let (block::Error::Corrupt { block, .. } | block::Error::Read { block, .. }) = &error else {
        return Failure::Other(error);
    };
    match opened.iter().find(|opened| opened.block.path() == block) {
        Some(opened) => Failure::of(opened.input.clone(), error),
        None => Failure::Other(error),
    }
}

/// Why a job cannot go on.
pub(super) enum Failure {
    /// An input, or a live block beside them, is not there.
    Gone(BlockRef, block::Error),
    /// Likewise, it is damaged.
    Damaged(BlockRef, block::Error),
    Other(block::Error),
}

impl Failure {
    fn of(input: BlockRef, error: block::Error) -> Self {
        match error {
            block::Error::Read { source: object_store::Error::NotFound { .. }, .. } => Self::Gone(input, error),
            error if error.is_corrupt() => Self::Damaged(input, error),
            error => Self::Other(error),
        }
    }
}
