//! Making a commit: check, create the next number, or replay what won and check again.
//!
//! Nothing is locked. Of several who want the next number the store lets one have it; the others replay its commit and look whether
//! theirs still follows. So each lost race is another's progress. Before each attempt the blocks to be added are looked for: what
//! collection may have taken for garbage, because its maker slept for hours, is not added any more.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use tokio::time::sleep;

use super::log::{Appended, Nonce};
use super::replay::{Held, LISTED_AGE_MAX, Moment};
use super::snapshot::{self, Head, SNAPSHOT_EVERY, Written};
use super::{BlockEntry, Cause, Commit, Commits, Conflict, Error, Inner, Reason, State};
use crate::paths::{BlockKey, BlockName, BlockRef};

/// How often others may be faster.
const RACES_MAX: u32 = 64;
/// The longest pause after a lost race; drawn by chance, to spread those who lost the same one.
const RACE_PAUSE: Duration = Duration::from_millis(100);
/// How much older than the newest commit a block may be that is to be added. Collection takes for garbage what is twice as old.
const ADDED_AGE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// How many blocks are looked for at once.
const HEADS_MAX: usize = 8;

/// What shall be committed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The number of the state by which it was planned.
    pub base: u64,
    /// Why.
    pub reason: Reason,
    /// The blocks that shall be live, which lie in the bucket already.
    pub adds: Vec<BlockEntry>,
    /// The segments that shall not be read any more, and the blocks that shall not be live any more.
    pub removes: Vec<BlockRef>,
    /// Where the boundary shall move to, in milliseconds.
    pub boundary: Option<u64>,
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// It is commit `number`, for good.
    Committed {
        /// Its number.
        number: u64,
    },
    /// It was not committed and will not be. Its blocks are garbage.
    Rejected(Rejection),
    /// It may be commit `number`, now or later. Neither what it adds nor what it removes may be deleted by its maker.
    Unknown {
        /// The number it may have.
        number: u64,
        /// What went wrong last.
        source: Cause,
    },
}

/// Why it was not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It does not follow upon what others committed.
    #[error("it does not follow upon what others committed")]
    Conflict(#[from] Conflict),
    /// Its maker refused it in view of the blocks that others added.
    #[error("its maker refused it in view of the blocks that others added")]
    Refused,
    /// A block that it adds is not there.
    #[error("block {0} is not there")]
    Missing(BlockName),
    /// A block that it adds was written so long ago that it may have been taken for garbage.
    #[error("block {0} was written too long ago")]
    TooOld(BlockName),
}

impl Commits {
    /// Commits a draft, if it still follows upon what others have committed.
    ///
    /// Where others committed after `draft.base`, `validate` is asked with the state and the live blocks that they added: it must say
    /// whether the draft is still right, so for one, whether the ids of its blocks are none of theirs. Costs a refresh, a HEAD for
    /// each block to be added and a PUT, again for each race that was lost, and at first a LIST; every 64th commit writes the snapshot too.
    /// Dropping the future leaves the outcome unknown.
    ///
    /// # Errors
    /// Where it was not committed and will not be: for trouble with the store, or as the commits are damaged or not all there.
    pub async fn commit<F>(
        &self,
        draft: Draft,
        validate: impl Fn(Arc<State>, Vec<Arc<BlockEntry>>) -> F,
    ) -> Result<Outcome, Error>
    where
        F: Future<Output = bool> + Send,
    {
        let Inner { store, log, .. } = &*self.inner;
        let Draft { base, reason, adds, removes, boundary } = draft;
        let commit = Commit { reason, adds, removes, boundary };
        let payload = commit.encode();
        let nonce = Nonce::draw(&**store.random());
        let mut seen = base;
        for _ in 0..RACES_MAX {
            let began = Moment::now(&**store.clock());
            let state = self.refresh().await?;
            if !self.is_whole().await? {
                continue;
            }
            if let Err(conflict) = state.check(&commit) {
                return Ok(Outcome::Rejected(conflict.into()));
            }
            let others: Vec<_> = state.added_after(seen).map(|live| Arc::clone(&live.entry)).collect();
            if !others.is_empty() && !validate(Arc::clone(&state), others).await {
                return Ok(Outcome::Rejected(Rejection::Refused));
            }
            seen = state.number();
            if let Err(rejection) = self.look_for_blocks(&commit, &state).await? {
                return Ok(Outcome::Rejected(rejection));
            }
            let number = state.number() + 1;
            let appended = log.append(number, nonce, &payload).await;
            store.metrics().count_commit(&appended);
            match appended {
                Appended::Committed => return Ok(self.committed(&state, &commit, number, began).await),
                Appended::Unknown(source) => return Ok(Outcome::Unknown { number, source }),
                Appended::Failed(source) => {
                    return Err(Error::Write { key: self.inner.tenant.commit(number), source: Arc::new(source) });
                }
                Appended::Rejected => sleep(RACE_PAUSE.mul_f64(store.random().next_unit())).await,
            }
        }
        Err(Error::Outrun { races: RACES_MAX })
    }

    pub(super) async fn look_for_blocks(&self, commit: &Commit, state: &State) -> Result<Result<(), Rejection>, Error> {
        let look = async |(name, bytes): (BlockName, u64)| {
            let key = BlockKey { tenant: self.inner.tenant.clone(), name }.path();
            match self.inner.store.objects().head(&key).await {
                Ok(found) if found.size == bytes => {
                    let written = u64::try_from(found.last_modified.timestamp_millis()).unwrap_or(0);
                    let is_old = state.at_millis() >= written + ADDED_AGE_MAX.as_millis() as u64;
                    Ok(if is_old { Err(Rejection::TooOld(name)) } else { Ok(()) })
                }
                Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(Err(Rejection::Missing(name))),
                Err(source) => Err(Error::read(&key, source)),
            }
        };
        let blocks: Vec<_> = commit.adds.iter().map(|entry| (entry.name, entry.bytes)).collect();
        let looks = blocks.into_iter().map(look);
        let found: Vec<_> = futures::stream::iter(looks).buffered(HEADS_MAX).try_collect().await?;
        Ok(found.into_iter().collect())
    }

    /// Takes a commit of our own into the state, and writes the snapshot if it is its turn.
    async fn committed(&self, base: &State, commit: &Commit, number: u64, began: Moment) -> Outcome {
        let Inner { store, tenant, log, held } = &*self.inner;
        let committed = Outcome::Committed { number };
        // Its own time is only known from reading it back. Without it, the next refresh will do the same.
        let entry = match log.read(number).await {
            Ok(Some(entry)) => entry,
            Ok(None) | Err(_) => return committed,
        };
        let mut state = base.clone();
        state.apply(commit, entry.at_millis).expect("it was checked against this state");
        let state = Arc::new(state);
        let mut held = held.lock().await;
        if held.state.number() + 1 == number {
            held.state = Arc::clone(&state);
        }
        // Whoever slept since the refresh may have made anew what was there once, below a snapshot that has superseded it.
        if began.is_older_than(LISTED_AGE_MAX, &**store.clock())
            && !snapshot::list_after(store, tenant, base.number()).await.is_ok_and(|above| above.is_empty())
        {
            *held = Held::default();
            return Outcome::Unknown { number, source: Cause::TooLate };
        }
        let before = held.head.clone();
        drop(held);
        if number.is_multiple_of(SNAPSHOT_EVERY) {
            match self.write_snapshot(&state, before).await {
                Ok(Written { objects, bytes }) => {
                    store.metrics().snapshots_written.inc();
                    tracing::debug!(%tenant, number, objects, bytes, "wrote a snapshot");
                }
                Err(error) => {
                    tracing::warn!(%tenant, number, error = &error as &dyn std::error::Error, "a snapshot could not be written");
                }
            }
        }
        committed
    }

    /// Writes the snapshot of a state; what did not change since the newest snapshot stays where it is.
    async fn write_snapshot(&self, state: &State, before: Option<Head>) -> Result<Written, Error> {
        let Inner { store, tenant, held, .. } = &*self.inner;
        let mut before = before;
        let known = before.as_ref().map_or(0, |head| head.number);
        let above = snapshot::list_after(store, tenant, known).await?;
        if let Some(newest) = above.into_iter().find(|number| *number < state.number())
            && let Some((head, _)) = snapshot::read_head(store, tenant, newest).await?
        {
            before = Some(head);
        }
        let (head, written) = snapshot::write(store, tenant, state, before.as_ref()).await?;
        held.lock().await.head = Some(head);
        Ok(written)
    }
}
