//! What segments would become: merged on trial, one block after the other, of which nothing is written.
//!
//! Segments and, after them, blocks of level 1 become blocks of one day each. Here segments are merged into blocks of level 2 at once, which come out
//! with about as many bytes, and blocks that are there already are left out. So a trial costs what a round of compaction costs, but for its
//! PUTs, and holds one block at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use ulid::Ulid;

use super::plan::{self, Due, Inventory};
use super::run::{ALONE_FACTOR, Failure, blame, entry};
use super::{Compactor, Error, Job};
use crate::block::{Block, Input, Merge, MergeOptions, Merged};
use crate::catalog::listing::{self, Scope};
use crate::commit::{BlockEntry, State};
use crate::paths::{BlockName, BlockRef};

/// The level that segments come to within an hour or two.
const LEVEL: u8 = 2;

/// A trial under way.
pub(crate) struct Trial<'a> {
    compactor: &'a Compactor,
    state: Arc<State>,
    jobs: Vec<Job>,
    merge: Option<Merge>,
    /// What is damaged, and so left out.
    damaged: BTreeSet<BlockRef>,
    /// The ids of segments that were merged.
    seen: BTreeSet<u128>,
    /// How many blocks came out.
    made: u64,
}

/// A block that would be there.
pub(crate) struct Tried {
    /// What a commit would say of it, under a name of no meaning.
    pub(crate) entry: Arc<BlockEntry>,
    /// The block itself.
    pub(crate) block: Block,
}

impl Compactor {
    /// Begins to merge on trial what lies in segments, and says what is live besides. Costs a LIST of all and one of notes, and the refresh of
    /// the commits.
    ///
    /// # Errors
    /// Where the bucket could not be read.
    pub(crate) async fn trial(&self) -> Result<(Arc<State>, Trial<'_>), Error> {
        let tenant = self.commits.tenant();
        let listed = listing::list(&*self.store.objects(), tenant, Scope::All).await;
        let listed = listed.map_err(|source| Error::List { key: tenant.segments(), source })?;
        let quarantined = self.quarantined().await?;
        let state = self.commits.refresh().await?;
        let segments: Vec<plan::Segment> = listed
            .segments
            .into_iter()
            .filter(|(name, _)| !state.is_removed(name))
            .map(|(name, location)| plan::Segment { name, bytes: location.bytes })
            .collect();
        let (nothing, now_millis) = (State::default(), self.store.clock().unix_millis());
        let inventory = Inventory { segments: &segments, state: &nothing, quarantined: &quarantined, now_millis };
        let mut jobs = plan::plan(&inventory, &self.worker, Due::Now, &self.options.plan);
        jobs.reverse();
        let trial = Trial {
            compactor: self,
            state: Arc::clone(&state),
            jobs,
            merge: None,
            damaged: quarantined,
            seen: BTreeSet::new(),
            made: 0,
        };
        Ok((state, trial))
    }
}

impl Trial<'_> {
    /// Returns the next block; none where there are no more. What is damaged or gone is left out.
    ///
    /// # Errors
    /// Where a segment could not be read.
    pub(crate) async fn next(&mut self) -> Result<Option<Tried>, Error> {
        loop {
            if let Some(merge) = &mut self.merge {
                if let Some(merged) = merge.next().await? {
                    return self.tried(merged).await.map(Some);
                }
                self.merge = None;
            }
            let Some(job) = self.jobs.pop() else { return Ok(None) };
            self.begin(job).await?;
        }
    }

    /// Begins the merge of a job; where an input cannot be used, the job comes again without it.
    async fn begin(&mut self, mut job: Job) -> Result<(), Error> {
        let compactor = self.compactor;
        let opened = match compactor.open(job.inputs.clone(), compactor.options.memory_max).await {
            Ok(opened) => opened,
            Err(failure) => return self.leave_out(job, failure),
        };
        let inputs = match compactor.inputs(&self.state, &self.damaged, job.level, &opened).await {
            Ok(inputs) => inputs,
            Err(failure) => return self.leave_out(job, failure),
        };
        let mut unseen = Vec::with_capacity(inputs.len());
        let mut ids = Vec::new();
        for Input { block, skip } in inputs {
            let rows = block.rows().await?;
            let is_seen = |number: u32| self.seen.contains(&rows[number as usize].id.into());
            let numbers = || 0..u32::try_from(rows.len()).expect("a block has fewer than 2^32 rows");
            let skip = numbers().filter(|number| skip.binary_search(number).is_ok() || is_seen(*number)).collect();
            ids.extend(rows.iter().map(|row| u128::from(row.id)));
            unseen.push(Input { block, skip });
        }
        self.seen.extend(ids);
        let rest = job.inputs.split_off(opened.len());
        if !rest.is_empty() {
            self.jobs.push(Job { level: job.level, inputs: rest });
        }
        let factor = if unseen.len() == 1 { ALONE_FACTOR } else { 1 };
        let memory_max = factor * compactor.options.memory_max;
        match Merge::begin(unseen, MergeOptions { memory_max, ..MergeOptions::of_level(LEVEL) }).await {
            Ok(merge) => self.merge = Some(merge),
            Err(error @ crate::block::Error::Memory { .. }) => {
                tracing::warn!(block = %opened[0].input, %error, "a block is too large to be merged on trial");
            }
            Err(error) => return self.leave_out(job, blame(&opened, error)),
        }
        Ok(())
    }

    fn leave_out(&mut self, mut job: Job, failure: Failure) -> Result<(), Error> {
        let left_out: BlockRef = match failure {
            Failure::Gone(input, _) | Failure::Damaged(input, _) => input,
            Failure::Other(error) => return Err(error.into()),
        };
        job.inputs.retain(|(input, _)| *input != left_out);
        if !job.inputs.is_empty() {
            self.jobs.push(job);
        }
        // It may be a live block beside them.
        self.damaged.insert(left_out);
        Ok(())
    }

    async fn tried(&mut self, Merged { bytes, summary }: Merged) -> Result<Tried, Error> {
        self.made += 1;
        let name = BlockName::new(LEVEL, summary.day, Ulid::from(u128::from(self.made)));
        let entry = entry(name, bytes.len() as u64, &summary);
        let (objects, path) = (Arc::new(InMemory::new()), Path::from("trial"));
        let put = objects.put(&path, PutPayload::from_bytes(bytes)).await;
        put.map_err(|source| Error::Write { key: path.clone(), source: source.into() })?;
        let block = Block::open_sized(objects as Arc<dyn ObjectStore>, path, entry.bytes).await?;
        Ok(Tried { entry: Arc::new(entry), block })
    }
}
