//! Bringing a state up to date: from the newest snapshot, then commit by commit until there is none.
//!
//! That a commit is *not* there means that it was not made yet, or that it was deleted because a later snapshot has it. And one that *is*
//! there may be one that a sleeper made anew after that. Both can only be where a snapshot lies above the state. So this is the rule:
//! what the log answers counts if the snapshots were listed not long before ([`LISTED_AGE_MAX`], far less than what is deleted
//! must be superseded for), or if a listing made after the answer finds none above the state. Else the reader starts anew from the newest
//! one. A snapshot that cannot be read is no end, as long as the commits up to it are there.
//!
//! Commits that are lost, by no doing of ours, are no end either: what was committed after them would be taken for garbage. A reader notices
//! where it sees a later one, and who commits looks for any, once.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use super::log::Entry;
use super::snapshot::{self, Head, SNAPSHOT_EVERY};
use super::{Commit, Commits, Error, Inner, State};
use crate::clock::Clock;

/// How long the log is believed without another look at the snapshots.
pub(super) const LISTED_AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// After so many commits a reader looks whether a snapshot spares it the rest.
const REPLAYED_MAX: u64 = 2 * SNAPSHOT_EVERY;
/// The most commits that are asked for at once.
const WINDOW_MAX: u64 = 16;

/// What a handle knows.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) state: Arc<State>,
    /// The newest snapshot that was read or written.
    pub(super) head: Option<Head>,
    /// When the snapshots were listed last.
    pub(super) listed: Option<Moment>,
    /// The newest snapshot that could not be read, and why: up to it, all commits must be there.
    needed: Option<(u64, Error)>,
    /// Whether it was seen once that no commit lies beyond the state.
    is_whole: bool,
}

/// A point in time by both clocks: one stands still while a machine sleeps, the other may leap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    at: Instant,
    millis: u64,
}

impl Moment {
    pub(super) fn now(clock: &dyn Clock) -> Self {
        Self { at: Instant::now(), millis: clock.unix_millis() }
    }

    /// Whether by either clock more time has passed than this; a wall clock that went back has leapt.
    pub(super) fn is_older_than(self, age: Duration, clock: &dyn Clock) -> bool {
        let passed = clock.unix_millis().checked_sub(self.millis).map(Duration::from_millis);
        self.is_past(age) || passed.is_none_or(|passed| passed > age)
    }

    /// Whether more time has passed than this by the clock that does not leap.
    pub(super) fn is_past(self, age: Duration) -> bool {
        self.at.elapsed() > age
    }
}

impl Commits {
    /// Returns the state after the newest commit: the last that was there when this was called, or a later one.
    ///
    /// Costs a GET for each new commit and one that finds none. At first, after falling far behind, and every ten minutes it costs a
    /// LIST of the snapshots too; and a GET for each day of the one it starts from. Dropping the future keeps what was read.
    ///
    /// # Errors
    /// Where the store does not answer, or a commit that no readable snapshot has is damaged.
    pub async fn refresh(&self) -> Result<Arc<State>, Error> {
        let mut held = self.inner.held.lock().await;
        let Inner { store, tenant, .. } = &*self.inner;
        let began = Moment::now(&**store.clock());
        self.replay(&mut held).await?;
        store.boundaries().note(tenant, held.state.number(), held.state.boundary(), began);
        Ok(Arc::clone(&held.state))
    }

    async fn replay(&self, held: &mut Held) -> Result<(), Error> {
        let clock = &**self.inner.store.clock();
        let mut replayed = 0;
        let mut window = 1;
        // It may be readable by now, or a newer one be there.
        if held.needed.take().is_some() {
            held.listed = None;
        }
        loop {
            if held.listed.is_none() || replayed >= REPLAYED_MAX {
                replayed = 0;
                self.look(held).await?;
            }
            let next = held.state.number() + 1;
            let asked = (next..next + window).map(|number| self.inner.log.read(number));
            let answers: Vec<_> = futures::stream::iter(asked).buffered(WINDOW_MAX as usize).collect().await;
            // Asked after the answers came: only then does it tell whether they count.
            let is_old = held.listed.is_none_or(|listed| listed.is_older_than(LISTED_AGE_MAX, clock));
            if is_old && self.look(held).await? {
                continue;
            }
            let mut is_end = false;
            let mut answers = answers.into_iter();
            for answer in answers.by_ref() {
                let applied = match answer {
                    Ok(None) => {
                        is_end = true;
                        break;
                    }
                    Ok(Some(entry)) => self.apply(held, &entry),
                    Err(error) => Err(error),
                };
                match applied {
                    Ok(()) => replayed += 1,
                    // A snapshot above it makes up for a commit that cannot be read.
                    Err(error) if error.is_damage() => {
                        if !self.look(held).await? {
                            return Err(error);
                        }
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            if is_end && answers.any(|answer| matches!(answer, Ok(Some(_)))) {
                self.look_beyond(held).await?;
                continue;
            }
            if is_end {
                return match &held.needed {
                    Some((number, error)) if held.state.number() < *number => Err(error.clone()),
                    _ => {
                        held.needed = None;
                        Ok(())
                    }
                };
            }
            window = (2 * window).min(WINDOW_MAX);
        }
    }

    /// Looks, once for each handle, whether there are commits beyond the state, which is where the next one is to be made: one in between may be
    /// lost. Returns whether there are none; if not, the state has to be brought up to date. Costs a LIST.
    ///
    /// # Errors
    /// As [`Commits::refresh`].
    pub(super) async fn is_whole(&self) -> Result<bool, Error> {
        let mut held = self.inner.held.lock().await;
        if !held.is_whole {
            let Inner { store, tenant, .. } = &*self.inner;
            held.is_whole = !snapshot::is_any_commit_after(store, tenant, held.state.number()).await?;
            if !held.is_whole {
                self.look_beyond(&mut held).await?;
            }
        }
        Ok(held.is_whole)
    }

    /// Looks again for the commit after the state, since a later one is there: it was made meanwhile, or a snapshot has it.
    ///
    /// # Errors
    /// [`Error::Missing`] where neither is so.
    async fn look_beyond(&self, held: &mut Held) -> Result<(), Error> {
        let next = held.state.number() + 1;
        if self.inner.log.read(next).await?.is_some() || self.look(held).await? {
            return Ok(());
        }
        Err(Error::Missing { key: self.inner.tenant.commit(next) })
    }

    fn apply(&self, held: &mut Held, entry: &Entry) -> Result<(), Error> {
        let key = || self.inner.tenant.commit(held.state.number() + 1);
        let commit = Commit::decode(&entry.payload).map_err(|damage| Error::damaged(&key(), damage))?;
        let mut state = State::clone(&held.state);
        state.apply(&commit, entry.at_millis).map_err(|source| Error::Broken { key: key(), source })?;
        held.state = Arc::new(state);
        Ok(())
    }

    /// Looks for a snapshot above the state, and takes the newest that can be read. Returns whether the state is another now.
    async fn look(&self, held: &mut Held) -> Result<bool, Error> {
        let Inner { store, tenant, .. } = &*self.inner;
        let began = Moment::now(&**store.clock());
        let numbers = snapshot::list_after(store, tenant, held.state.number()).await?;
        // All that lies above the state was read a moment ago if it is `needed`: once is enough.
        let tried = held.needed.as_ref().map_or(0, |(number, _)| *number);
        for number in numbers.into_iter().filter(|number| *number > tried) {
            match snapshot::read(store, tenant, number).await {
                Ok(Some((head, state))) => {
                    held.state = Arc::new(state);
                    held.head = Some(head);
                    held.listed = Some(began);
                    return Ok(true);
                }
                // Deleted since it was listed, for a newer one is there: which the next look finds.
                Ok(None) => {}
                Err(error) if error.is_damage() => {
                    tracing::error!(%tenant, number, error = &error as &dyn std::error::Error, "a snapshot cannot be read");
                    if held.needed.as_ref().is_none_or(|(known, _)| *known < number) {
                        held.needed = Some((number, error));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        held.listed = Some(began);
        Ok(false)
    }
}
