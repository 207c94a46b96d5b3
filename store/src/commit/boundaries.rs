//! What a writer of segments knows of each tenant's boundary.
//!
//! Who reads commits anyway notes what they say ([`Boundaries::note`]): maintenance and catalogs of the same process. Who does not, as an
//! ingester that does nothing else, reads what the boundary needs and no more: the newest head of a snapshot, not its parts, and the
//! commits after it, from where it stopped before. It does so before it first writes for a tenant, and again when what it knows is
//! [`AGE_ASKED`] old; from [`AGE_MAX`] on, by either clock, it does not rely on it any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;

use super::log::Log;
use super::replay::Moment;
use super::snapshot;
use super::{Commit, Error};
use crate::Store;
use crate::clock::Clock;
use crate::fault::Fault;
use crate::paths::TenantId;

/// How old what is known becomes before it is read anew; while that fails, it will still do for a while.
const AGE_ASKED: Duration = Duration::from_secs(5 * 60);
/// How old what is known may be. With the minute that a put may take it is less than the boundary rests between two moves.
const AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// From how many tenants on those are forgotten of whom nothing was heard for so long.
const TENANTS_KEPT: usize = 4_096;
/// The most commits that are asked for at once.
const WINDOW_MAX: u64 = 16;

/// What is known; cheap to clone, each clone the same knowledge. Stores that are opened by one process over one bucket share it
/// ([`StoreOptions::boundaries`](crate::StoreOptions::boundaries)).
#[derive(Clone, Debug, Default)]
pub struct Boundaries(Arc<Mutex<HashMap<TenantId, Arc<Tenant>>>>);

#[derive(Debug, Default)]
struct Tenant {
    known: Mutex<Known>,
    /// Held by the one who reads: the others wait for what it finds.
    reading: tokio::sync::Mutex<()>,
}

/// What is known of one tenant; at first nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The number of the last commit that was read.
    number: u64,
    /// In milliseconds; 0 where there is none.
    millis: u64,
    /// It was so at this time, or later.
    as_of: Option<Moment>,
}

impl Boundaries {
    /// Notes that after commit `number` the boundary was at `millis`, and that this was the newest commit at `as_of`.
    pub(super) fn note(&self, tenant: &TenantId, number: u64, millis: u64, as_of: Moment) {
        self.of(tenant).note(Known { number, millis, as_of: Some(as_of) });
    }

    fn of(&self, tenant: &TenantId) -> Arc<Tenant> {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tenants.get(tenant) {
            return Arc::clone(known);
        }
        if tenants.len() >= TENANTS_KEPT {
            tenants.retain(|_, tenant| {
                Arc::strong_count(tenant) > 1 || tenant.lock().as_of.is_some_and(|at| !at.is_past(AGE_MAX))
            });
        }
        Arc::clone(tenants.entry(tenant.clone()).or_default())
    }
}

impl Tenant {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits only ever follow upon each other, so whoever has read further knows more.
    fn note(&self, new: Known) {
        let mut known = self.lock();
        if new.number >= known.number {
            *known = Known { millis: new.millis.max(known.millis), ..new };
        }
    }

    /// Returns the boundary, if it was read so short a time ago.
    fn within(&self, age: Duration, clock: &dyn Clock) -> Option<u64> {
        let known = *self.lock();
        known.as_of.filter(|at| !at.is_older_than(age, clock)).map(|_| known.millis)
    }
}

impl Store {
    /// Returns a tenant's boundary, in milliseconds, as it was [`AGE_MAX`] ago or later; 0 where there is none. Costs nothing while that is
    /// known; else a LIST, a GET for the head of a new snapshot and one for each new commit, and one that finds none.
    ///
    /// # Errors
    /// Where it could not be read for so long. Not where this process may not read: then it relies upon clocks.
    pub(crate) async fn boundary(&self, tenant: &TenantId) -> Result<u64, Error> {
        let clock = &**self.clock();
        let of_tenant = self.inner.boundaries.of(tenant);
        if let Some(millis) = of_tenant.within(AGE_ASKED, clock) {
            return Ok(millis);
        }
        let _reading = of_tenant.reading.lock().await;
        if let Some(millis) = of_tenant.within(AGE_ASKED, clock) {
            return Ok(millis);
        }
        match self.read_boundary(tenant, &of_tenant).await {
            Ok(()) => Ok(of_tenant.lock().millis),
            Err(Error::Read { source, .. }) if Fault::of(&source) == Fault::Denied => {
                tracing::warn!(%tenant, error = &*source as &dyn std::error::Error, "commits cannot be read: names of segments follow the clock alone");
                let millis = of_tenant.lock().millis;
                of_tenant.lock().as_of = Some(Moment::now(clock));
                Ok(millis)
            }
            Err(error) => match of_tenant.within(AGE_MAX, clock) {
                Some(millis) => {
                    tracing::warn!(%tenant, error = &error as &dyn std::error::Error, "the boundary could not be read; what is known of it will do for a while");
                    Ok(millis)
                }
                None => Err(error),
            },
        }
    }

    async fn read_boundary(&self, tenant: &TenantId, of_tenant: &Tenant) -> Result<(), Error> {
        let began = Moment::now(&**self.clock());
        let Known { mut number, mut millis, .. } = *of_tenant.lock();
        // The newest head that cannot be read, and why: up to it, all commits must be there.
        let mut needed = None;
        for above in snapshot::list_after(self, tenant, number).await? {
            match snapshot::read_head(self, tenant, above).await {
                Ok(Some((_, state))) => {
                    (number, millis) = (above, state.boundary().max(millis));
                    break;
                }
                // Deleted since it was listed, for a newer one is there; which has those commits.
                Ok(None) => needed = needed.or(Some((above, None))),
                Err(error) if error.is_damage() => needed = needed.or(Some((above, Some(error)))),
                Err(error) => return Err(error),
            }
        }
        let log = Log::new(self.clone(), tenant.clone());
        let mut window = 1;
        'read: loop {
            let asked = (number + 1..=number + window).map(|number| log.read(number));
            let answers: Vec<_> = futures::stream::iter(asked).buffered(WINDOW_MAX as usize).collect().await;
            for answer in answers {
                let Some(entry) = answer? else { break 'read };
                let key = tenant.commit(number + 1);
                let commit = Commit::decode(&entry.payload).map_err(|damage| Error::damaged(&key, damage))?;
                (number, millis) = (number + 1, millis.max(commit.boundary.unwrap_or(0)));
            }
            window = (2 * window).min(WINDOW_MAX);
        }
        if let Some((above, error)) = needed
            && number < above
        {
            let gone =
                || Error::damaged(&tenant.snapshot(above), crate::block::varint::Damage("was listed and is not there"));
            return Err(error.unwrap_or_else(gone));
        }
        of_tenant.note(Known { number, millis, as_of: Some(began) });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
