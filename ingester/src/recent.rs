//! The ids this ingester has seen lately: what makes a retry wait for the first attempt, or be answered at once.
//!
//! An id is *claimed* by the first push that brings it and stays in flight until its [`Claim`] is resolved:
//! acknowledged, failed, or given up (dropped). Acknowledged ids are remembered with the SHA-256 of their bytes, so
//! that the same profile again is a duplicate and another one under its id is refused.
//!
//! This is a help, not the guarantee: a retry that reaches another ingester, or comes after the memory has moved on, is
//! stored a second time and counted once by readers, who know all ids. So it may forget, and does: [`Recent`] is
//! bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use afterglow_service::Failure;
use afterglow_store::paths::{SegmentName, TenantId};
use tokio::sync::Notify;
use ulid::Ulid;

/// The memory of ids; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Recent(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Both generations may hold as many.
    generation_ids_max: usize,
}

/// An id is in at most one of the three.
#[derive(Debug, Default)]
struct State {
    /// Bounded by the byte budget: each has a profile that pays for it.
    in_flight: HashMap<Key, Pending>,
    /// Ids acknowledged since the last change of generations.
    young: HashMap<Key, Durable>,
    /// Those of the generation before. Forgetting a generation at once needs no order among ids and costs nothing.
    old: HashMap<Key, Durable>,
}

type Key = (TenantId, Ulid);

/// An acknowledged profile: what a retry is compared with and answered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Durable {
    /// The SHA-256 of its protobuf bytes.
    pub(crate) sha256: [u8; 32],
    /// A digest of its labels.
    pub(crate) labels: u64,
    /// The segment it lies in, which is the token that readers ask by.
    pub(crate) segment: SegmentName,
}

/// How a push ended: what the sender of the profile and everybody who retries it is told.
pub(crate) type Outcome = Result<Durable, Failure>;

/// What is known of an id.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Nothing: it is the caller's now.
    Never(Claim, Pending),
    /// Another push of it is under way.
    InFlight(Pending),
    /// It was acknowledged.
    Durable(Durable),
}

/// The right and the duty to say how the push of an id ended. Dropped without a word, the id is as if never seen, and
/// those who wait for it learn so.
#[derive(Debug)]
pub(crate) struct Claim {
    recent: Recent,
    key: Key,
    pending: Pending,
}

/// Waits for how a push ends. All who wait are woken in the order in which they came, so that a simulation can replay it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending(Arc<Ending>);

#[derive(Debug, Default)]
struct Ending {
    outcome: OnceLock<Result<Outcome, GivenUp>>,
    ended: Notify,
}

/// Whoever pushed the id gave up before there was an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GivenUp;

// === impl Recent ===

impl Recent {
    /// Creates a memory of at least the last `ids` acknowledged ids, and at most twice as many.
    pub(crate) fn new(ids: usize) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), generation_ids_max: ids.max(1) }))
    }

    /// Says what is known of `id`, and claims it when that is nothing.
    pub(crate) fn claim(&self, tenant: &TenantId, id: Ulid) -> Seen {
        let key = (tenant.clone(), id);
        let mut state = self.lock();
        if let Some(pending) = state.in_flight.get(&key) {
            return Seen::InFlight(pending.clone());
        }
        if let Some(durable) = state.young.get(&key).or_else(|| state.old.get(&key)) {
            return Seen::Durable(durable.clone());
        }
        let pending = Pending::default();
        state.in_flight.insert(key.clone(), pending.clone());
        Seen::Never(Claim { recent: self.clone(), key, pending: pending.clone() }, pending)
    }

    /// Returns how many ids are in flight.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        self.lock().in_flight.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock leaves the maps half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Claim ===

impl Claim {
    /// Says how the push ended.
    pub(crate) fn resolve(self, outcome: Outcome) {
        if let Ok(durable) = &outcome {
            let mut state = self.recent.lock();
            if state.young.len() >= self.recent.0.generation_ids_max {
                state.old = std::mem::take(&mut state.young);
            }
            state.young.insert(self.key.clone(), durable.clone());
            state.in_flight.remove(&self.key);
        }
        // The rest is done by drop.
        self.pending.end(Ok(outcome));
    }

    /// Returns the id.
    pub(crate) fn id(&self) -> Ulid {
        self.key.1
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.recent.lock().in_flight.remove(&self.key);
        self.pending.end(Err(GivenUp));
    }
}

// === impl Pending ===

impl Pending {
    /// Waits for the outcome.
    ///
    /// # Errors
    /// [`GivenUp`] when there will be none.
    pub(crate) async fn outcome(self) -> Result<Outcome, GivenUp> {
        let ended = self.0.ended.notified();
        if self.0.outcome.get().is_none() {
            ended.await;
        }
        self.0.outcome.get().cloned().expect("it is set before anybody is woken")
    }

    /// Says how it ended, the first time that it is called.
    fn end(&self, outcome: Result<Outcome, GivenUp>) {
        if self.0.outcome.set(outcome).is_ok() {
            self.0.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use afterglow_store::clock::SeededRandom;
    use afterglow_store::paths::WriterId;

    use super::*;

    fn durable(n: u8) -> Durable {
        let writer = WriterId::draw(&SeededRandom::new(1));
        Durable { sha256: [n; 32], labels: 0, segment: SegmentName::new(1_700_000_000_000, &writer, n.into()) }
    }

    fn claimed(recent: &Recent, id: u128) -> (Claim, Pending) {
        match recent.claim(&TenantId::anonymous(), Ulid::from(id)) {
            Seen::Never(claim, pending) => (claim, pending),
            seen => panic!("id {id} is {seen:?}"),
        }
    }

    /// Goal: a retry of what is under way waits for the same outcome; later it is told that it is durable.
    #[tokio::test]
    async fn a_retry_waits_for_the_first_attempt() {
        let recent = Recent::new(100);
        let (claim, first) = claimed(&recent, 1);
        let Seen::InFlight(retry) = recent.claim(&TenantId::anonymous(), Ulid::from(1)) else {
            panic!("it is under way");
        };
        let other: TenantId = "other".parse().expect("a tenant");
        let Seen::Never(others_claim, _) = recent.claim(&other, Ulid::from(1)) else {
            panic!("ids of other tenants are other ids");
        };
        claim.resolve(Ok(durable(1)));
        assert_eq!(first.outcome().await, Ok(Ok(durable(1))));
        assert_eq!(retry.outcome().await, Ok(Ok(durable(1))));
        let seen = recent.claim(&TenantId::anonymous(), Ulid::from(1));
        assert!(matches!(seen, Seen::Durable(d) if d == durable(1)));
        drop(others_claim);
        assert_eq!(recent.in_flight(), 0);
    }

    /// Goal: what failed or was given up can be pushed again, and nobody waits for ever.
    #[tokio::test]
    async fn what_failed_can_be_pushed_again() {
        let recent = Recent::new(100);
        let (claim, pending) = claimed(&recent, 1);
        claim.resolve(Err(Failure::invalid("no")));
        assert_eq!(pending.outcome().await, Ok(Err(Failure::invalid("no"))));
        let (claim, pending) = claimed(&recent, 1);
        drop(claim);
        assert_eq!(pending.outcome().await, Err(GivenUp));
        drop(claimed(&recent, 1));
        assert_eq!(recent.in_flight(), 0);
    }

    /// Goal: the last ids are always remembered, and no more than twice as many are.
    #[test]
    fn the_memory_is_bounded() {
        let recent = Recent::new(10);
        for id in 0..100u8 {
            claimed(&recent, id.into()).0.resolve(Ok(durable(id)));
            for known in id.saturating_sub(9)..=id {
                let seen = recent.claim(&TenantId::anonymous(), Ulid::from(u128::from(known)));
                assert!(matches!(seen, Seen::Durable(d) if d == durable(known)), "{known} after {id}");
            }
            let state = recent.lock();
            assert!(state.young.len() + state.old.len() <= 20);
        }
    }
}
