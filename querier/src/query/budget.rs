//! Admission: a question that needs much memory takes its estimate from a budget before it reads, and gives it back when it ends.
//!
//! One budget for the process, in KiB, first come first served, so that a large question is not starved by small ones. What can
//! never fit is refused at once; what does not fit now waits a little in a queue of bounded length, then is refused with a delay.
//! Small questions (a page of a search, one profile) do not come here: they must answer while merges wait.

use std::sync::Arc;
use std::time::Duration;

use afterglow_service::config::ByteSize;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a question waits for others to end. Longer, and its client has lost patience while it still stands in the way.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many questions wait at most. More would only time out in the queue.
const WAITING_MAX: usize = 100;

const KIB: u64 = 1024;

/// The memory that all questions share.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    kib: Arc<Semaphore>,
    total: u64,
    queue: Arc<Semaphore>,
    taken: Gauge,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    budget: Budget,
    kib: OwnedSemaphorePermit,
}

/// Why a question is not admitted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It would never fit.
    #[error(
        "the answer needs an estimated {} of memory, more than the {} that all queries share (--query.memory); \
         narrow the window or the selector",
        ByteSize(*estimate),
        ByteSize(*total)
    )]
    TooLarge {
        /// What it is estimated to take, in bytes.
        estimate: u64,
        /// What there is, in bytes.
        total: u64,
    },
    /// It does not fit beside the others.
    #[error(
        "the answer needs an estimated {} of memory, and other queries hold too much of the {} that all share (--query.memory)",
        ByteSize(*estimate),
        ByteSize(*total)
    )]
    Busy {
        /// What it is estimated to take, in bytes.
        estimate: u64,
        /// What there is, in bytes.
        total: u64,
    },
}

// === impl Budget ===

impl Budget {
    /// Makes a budget of so many bytes; `taken` shows how many of them are taken.
    pub(crate) fn new(total: u64, taken: Gauge) -> Self {
        let kib = (total / KIB).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize) as u64);
        Self {
            kib: Arc::new(Semaphore::new(kib as usize)),
            total: kib * KIB,
            queue: Arc::new(Semaphore::new(WAITING_MAX)),
            taken,
        }
    }

    /// Takes so many bytes if they are there just now. Never waits: whoever asks here holds what others wait for.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn try_admit(&self, bytes: u64) -> Result<Admitted, Refused> {
        let total = self.total;
        if bytes > total {
            return Err(Refused::TooLarge { estimate: bytes, total });
        }
        match Arc::clone(&self.kib).try_acquire_many_owned(permits(bytes)) {
            Ok(permit) => Ok(Admitted::new(self.clone(), permit)),
            Err(_) => Err(Refused::Busy { estimate: bytes, total }),
        }
    }

    /// Takes `estimate` bytes, waiting a little for others to give theirs back.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) async fn admit(&self, estimate: u64) -> Result<Admitted, Refused> {
        let total = self.total;
        if estimate > total {
            return Err(Refused::TooLarge { estimate, total });
        }
        let busy = Refused::Busy { estimate, total };
        let Ok(_place) = self.queue.try_acquire() else { return Err(busy) };
        let permits = permits(estimate);
        match tokio::time::timeout(PATIENCE, Arc::clone(&self.kib).acquire_many_owned(permits)).await {
            Ok(permit) => Ok(Admitted::new(self.clone(), permit.expect("the semaphore is never closed"))),
            Err(_elapsed) => Err(busy),
        }
    }
}

// === impl Admitted ===

impl Admitted {
    fn new(budget: Budget, kib: OwnedSemaphorePermit) -> Self {
        budget.taken.inc_by(bytes(&kib));
        Self { budget, kib }
    }

    /// Makes sure that at least `needed` bytes are held: an estimate may prove too low. Never waits, for what waits here holds what
    /// others wait for.
    ///
    /// # Errors
    /// [`Refused`]; what was held is still held.
    pub(crate) fn cover(&mut self, needed: u64) -> Result<(), Refused> {
        let total = self.budget.total;
        let missing = permits(needed).saturating_sub(self.kib.num_permits() as u32);
        if missing == 0 {
            return Ok(());
        }
        if needed > total {
            return Err(Refused::TooLarge { estimate: needed, total });
        }
        let Ok(more) = Arc::clone(&self.budget.kib).try_acquire_many_owned(missing) else {
            return Err(Refused::Busy { estimate: needed, total });
        };
        self.budget.taken.inc_by(bytes(&more));
        self.kib.merge(more);
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.budget.taken.dec_by(bytes(&self.kib));
    }
}

/// Returns how many permits stand for so many bytes; more than there can be where they do not fit 32 bits.
fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX)
}

/// Returns how many bytes a permit stands for.
fn bytes(permit: &OwnedSemaphorePermit) -> i64 {
    permit.num_permits() as i64 * KIB as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * KIB;

    #[tokio::test]
    async fn what_never_fits_is_refused_at_once() {
        let refused = Budget::new(MIB, Gauge::default()).admit(MIB + 1).await.unwrap_err();
        assert_eq!(refused, Refused::TooLarge { estimate: MIB + 1, total: MIB });
        assert_eq!(
            Refused::TooLarge { estimate: 3 * MIB, total: MIB }.to_string(),
            "the answer needs an estimated 3 MiB of memory, more than the 1 MiB that all queries share (--query.memory); \
             narrow the window or the selector"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_now_waits_its_turn() {
        let budget = Budget::new(MIB, Gauge::default());
        let first = budget.admit(MIB).await.unwrap();
        assert_eq!(budget.taken.get(), MIB as i64);
        assert_eq!(budget.admit(KIB).await.unwrap_err(), Refused::Busy { estimate: KIB, total: MIB });

        let waiter = tokio::spawn({
            let budget = budget.clone();
            async move { budget.admit(MIB).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        let second = waiter.await.unwrap().unwrap();
        assert_eq!(budget.taken.get(), MIB as i64);
        assert!(budget.try_admit(KIB).is_err(), "it does not wait");
        drop(second);
        assert_eq!(budget.taken.get(), 0);
    }

    #[tokio::test]
    async fn an_estimate_that_proves_too_low_is_raised_while_there_is_room() {
        let budget = Budget::new(4 * KIB, Gauge::default());
        let mut first = budget.admit(KIB).await.unwrap();
        assert_eq!(first.cover(KIB / 2), Ok(()));
        assert_eq!(budget.taken.get(), KIB as i64);
        assert_eq!(first.cover(3 * KIB), Ok(()));
        assert_eq!(budget.taken.get(), 3 * KIB as i64);

        let _second = budget.admit(KIB).await.unwrap();
        assert_eq!(first.cover(4 * KIB), Err(Refused::Busy { estimate: 4 * KIB, total: 4 * KIB }));
        assert_eq!(first.cover(5 * KIB), Err(Refused::TooLarge { estimate: 5 * KIB, total: 4 * KIB }));
        drop(first);
        assert_eq!(budget.taken.get(), KIB as i64);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded() {
        let budget = Budget::new(MIB, Gauge::default());
        let _all = budget.admit(MIB).await.unwrap();
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let budget = budget.clone();
                tokio::spawn(async move { budget.admit(KIB).await.is_err() })
            })
            .collect();
        while budget.queue.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let before = tokio::time::Instant::now();
        assert!(budget.admit(KIB).await.is_err());
        assert_eq!(before.elapsed(), Duration::ZERO, "one more does not wait");
        for waiter in waiting {
            assert!(waiter.await.unwrap());
        }
    }
}
