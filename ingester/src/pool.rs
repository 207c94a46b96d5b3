//! Where profiles are inflated, decoded and interned: threads for work that does not yield, never more at once than
//! cores.
//!
//! The async threads only move bytes; a profile that takes 50 ms to decode must not hold up the acknowledgements of
//! others. The threads are tokio's blocking ones, the bound is a semaphore before them: with it the memory that
//! decoding takes at once is bounded, too, and more threads than cores would only make everybody slower.
//!
//! The queue before the pool is bounded by time. A burst is let in: while a core was free within the last [`BURST`],
//! work waits as long for one. A queue that stands is not: then work waits [`PATIENCE`], so that what is accepted under
//! lasting overload is answered soon, and the rest is refused before anything was spent on it (the idea of CoDel:
//! Nichols and Jacobson, 2012).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;
use tokio::time::{Instant, timeout};

/// How long work waits while there was no free core for a while: little beside a flush.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// How long a queue may stand before it is taken for overload, and how long work waits until then: less than the time
/// after which senders give up.
pub(crate) const BURST: Duration = Duration::from_secs(3);

/// The bound on work at once; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    slots: Arc<Semaphore>,
    threads: usize,
    last_free: Arc<Mutex<Instant>>,
    place: Place,
}

/// The right to run one piece of work now.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    place: Place,
}

/// Where work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On threads of the runtime that may block.
    Threads,
    /// Where it is asked for: when a thread would be done is nothing that a seed decides.
    #[cfg(feature = "testing")]
    Here,
}

/// No core became free in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no core was free within {waited:?}")]
pub(crate) struct Busy {
    waited: Duration,
}

/// The work panicked.
#[derive(Debug, thiserror::Error)]
#[error("panic: {0}")]
pub(crate) struct Panicked(String);

// === impl Pool ===

impl Pool {
    /// Creates a pool that runs `threads` pieces of work at once, at least one.
    pub(crate) fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        let last_free = Arc::new(Mutex::new(Instant::now()));
        Self { slots: Arc::new(Semaphore::new(threads)), threads, last_free, place: Place::Threads }
    }

    /// Creates a pool without threads, which does one piece of work after the other where it is asked for.
    #[cfg(feature = "testing")]
    pub(crate) fn here() -> Self {
        Self { place: Place::Here, ..Self::new(1) }
    }

    /// Creates a pool as wide as the machine, or as the CPU quota of the container allows.
    pub(crate) fn of_cores() -> Self {
        Self::new(available_parallelism().map_or(1, usize::from))
    }

    /// Returns how many pieces of work run at once.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work` at once, whatever waits for a slot: for what has waited its time already and keeps others waiting.
    ///
    /// # Errors
    /// [`Panicked`] when it panics.
    pub(crate) async fn run_ahead<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        self.place.run(work).await
    }

    /// Waits for a slot. Who came first is served first.
    ///
    /// # Errors
    /// [`Busy`] when none became free in time.
    pub(crate) async fn slot(&self) -> Result<Slot, Busy> {
        // While somebody waits none is free: the semaphore hands a slot that comes back to the first in the queue.
        if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
            *self.last_free() = Instant::now();
            return Ok(self.slot_of(permit));
        }
        let waited = if self.last_free().elapsed() < BURST { BURST } else { PATIENCE };
        match timeout(waited, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(permit) => Ok(self.slot_of(permit.expect("the semaphore is never closed"))),
            Err(_) => Err(Busy { waited }),
        }
    }

    fn slot_of(&self, permit: OwnedSemaphorePermit) -> Slot {
        Slot { _permit: permit, place: self.place }
    }

    fn last_free(&self) -> MutexGuard<'_, Instant> {
        self.last_free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Slot ===

impl Slot {
    /// Runs `work` on a thread of its own. It goes on to its end even when the caller stops waiting.
    ///
    /// # Errors
    /// [`Panicked`] when it panics.
    pub(crate) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
        let place = self.place;
        let work = move || {
            let _slot = self;
            work()
        };
        place.run(work).await
    }
}

// === impl Place ===

impl Place {
    async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
        match self {
            Self::Threads => {
                let span = tracing::Span::current();
                tokio::task::spawn_blocking(move || span.in_scope(work)).await.map_err(Panicked::from)
            }
            #[cfg(feature = "testing")]
            Self::Here => std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
                .map_err(|payload| Panicked::from_payload(payload.as_ref())),
        }
    }
}

// === impl Panicked ===

impl Panicked {
    /// Takes the message out of what a panic carries.
    pub(crate) fn from_payload(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("without a message");
        Self(text.to_owned())
    }
}

impl From<JoinError> for Panicked {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(payload) => Self::from_payload(payload.as_ref()),
            // Only when the runtime itself goes away.
            Err(error) => Self(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Goal: no more runs at once than there are slots, and all of it runs.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_more_at_once_than_slots() {
        let pool = Pool::new(2);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = (0..50).map(|i| {
            let (pool, now, most) = (pool.clone(), Arc::clone(&now), Arc::clone(&most));
            async move {
                let work = move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    i
                };
                pool.slot().await.expect("in time").run(work).await.expect("no panic")
            }
        });
        let done = futures::future::join_all(work).await;
        assert_eq!(done, (0..50).collect::<Vec<_>>());
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    /// Goal: a panic is an error with its text, and its slot comes back.
    #[tokio::test]
    async fn a_panic_is_an_error() {
        let pool = Pool::new(1);
        for _ in 0..2 {
            let panicked =
                pool.slot().await.expect("in time").run(|| panic!("stack {} is gone", 7)).await.map(|(): ()| ());
            assert_eq!(panicked.expect_err("it panicked").to_string(), "panic: stack 7 is gone");
        }
    }

    /// Goal: a burst waits for its cores, a queue that stands is kept short.
    #[tokio::test(start_paused = true)]
    async fn a_burst_waits_longer_than_a_standing_queue() {
        let pool = Pool::new(1);
        let first = pool.slot().await.expect("it is free");
        let start = Instant::now();
        assert_eq!(pool.slot().await.expect_err("the only one is taken"), Busy { waited: BURST });
        assert_eq!(start.elapsed(), BURST);
        assert_eq!(pool.slot().await.expect_err("the only one is taken"), Busy { waited: PATIENCE });
        assert_eq!(start.elapsed(), BURST + PATIENCE);
        drop(first);
        drop(pool.slot().await.expect("it is free again"));
        let _taken = pool.slot().await.expect("it is free again");
        assert_eq!(pool.slot().await.expect_err("the only one is taken"), Busy { waited: BURST });
    }
}
