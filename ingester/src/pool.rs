//! Where profiles are inflated, decoded and interned: threads for work that does not yield, never more at once than cores.
//!
//! The async threads only move bytes; a profile that takes 50 ms to decode must not hold up the acknowledgements of others. The
//! threads are tokio's blocking ones, the bound is a semaphore before them: with it the memory that decoding takes at once is
//! bounded, too, and more threads than cores would only make everybody slower.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

/// The bound on work at once; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    slots: Arc<Semaphore>,
    threads: usize,
}

/// The right to run one piece of work now.
#[derive(Debug)]
pub(crate) struct Slot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// The work panicked.
#[derive(Debug, thiserror::Error)]
#[error("panic: {0}")]
pub(crate) struct Panicked(String);

// === impl Pool ===

impl Pool {
    /// Creates a pool that runs `threads` pieces of work at once, at least one.
    pub(crate) fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        Self { slots: Arc::new(Semaphore::new(threads)), threads }
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
        spawn(work).await
    }

    /// Waits for a slot. Who came first is served first.
    pub(crate) async fn slot(&self) -> Slot {
        let permit = Arc::clone(&self.slots).acquire_owned().await;
        Slot(permit.expect("the semaphore is never closed"))
    }
}

// === impl Slot ===

impl Slot {
    /// Runs `work` on a thread of its own. It goes on to its end even when the caller stops waiting.
    ///
    /// # Errors
    /// [`Panicked`] when it panics.
    pub(crate) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
        spawn(move || {
            let _slot = self;
            work()
        })
        .await
    }
}

async fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await.map_err(Panicked::from)
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
                pool.slot().await.run(work).await.expect("no panic")
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
            let panicked = pool.slot().await.run(|| panic!("stack {} is gone", 7)).await.map(|(): ()| ());
            assert_eq!(panicked.expect_err("it panicked").to_string(), "panic: stack 7 is gone");
        }
    }
}
