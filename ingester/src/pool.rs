//! Where profiles are inflated, decoded and interned: threads for work that does not yield, never more at once than
//! cores.
//!
//! The async threads only move bytes; a profile that takes 50 ms to decode must not hold up the acknowledgements of
//! others. The threads are tokio's blocking ones, the bound is a semaphore before them: with it the memory that
//! decoding takes at once is bounded, too, and more threads than cores would only make everybody slower.
//!
//! The queue before the pool is bounded by the time that the next in it would wait ([`queue`]), so that what is accepted
//! under overload is answered soon. Who would wait longer is refused before anything is spent on it: a call by its head
//! alone ([`Pool::admit`]), whatever else comes when it asks for a core. Who was let in is served in turn.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use afterglow_service::metrics::register_reading;
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;
use tokio::time::{Instant, timeout};

mod queue;

pub(crate) use queue::Ticket;

use queue::Queue;

/// How long the queue may be that stands: as long as a flush is waited for. A longer one would keep the cores no busier, and whoever is in it waiting.
pub(crate) const QUEUE_MAX: Duration = Duration::from_millis(250);

/// How long it may be for who was let in by its head: since then it can only have become longer by what was foreseen badly, and to
/// refuse now would waste what was read.
const QUEUE_LET_IN_MAX: Duration = Duration::from_secs(1);

/// How long anybody waits, whatever was foreseen: less than the time after which senders give up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);

/// The bound on work at once; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    slots: Arc<Semaphore>,
    threads: usize,
    queue: Queue,
    place: Place,
}

/// The right to run one piece of work now.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    queue: Queue,
    since: Instant,
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

/// There is no core in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Busy {
    /// None would be free in time.
    #[error("no core would be free in time")]
    Queue,
    /// None became free in time.
    #[error("no core was free within {0:?}")]
    Waited(Duration),
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
        let queue = Queue::new(threads);
        Self { slots: Arc::new(Semaphore::new(threads)), threads, queue, place: Place::Threads }
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

    /// Decides whether what is about to come has a chance to get a slot in time; ask before its body is read. The ticket is to come
    /// along to [`Pool::slot`].
    ///
    /// # Errors
    /// [`Busy`] when the queue is too long.
    pub(crate) fn admit(&self) -> Result<Ticket, Busy> {
        self.queue.admit(QUEUE_MAX).ok_or(Busy::Queue)
    }

    /// Adds the gauges of the pool to a registry: what is worked on, and how long the queue is, in time.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let (threads, slots) = (self.threads, Arc::clone(&self.slots));
        let help = "Cores at work on profiles";
        register_reading(registry, "afterglow_ingest_cores_used", help, move || {
            threads.saturating_sub(slots.available_permits())
        });
        register_reading(registry, "afterglow_ingest_cores_limit", "Cores that work on profiles at once", move || {
            threads
        });
        let queue = self.queue.clone();
        let help = "Time that a profile which came now would wait for a core, in seconds";
        register_reading(registry, "afterglow_ingest_queue_seconds", help, move || queue.wait().as_secs_f64());
        let queue = self.queue.clone();
        let help = "Time beyond which profiles are refused instead, in seconds: longer for a while after a calm";
        register_reading(registry, "afterglow_ingest_queue_limit_seconds", help, move || {
            queue.wait_max(QUEUE_MAX).as_secs_f64()
        });
    }

    /// Waits for a slot, `ticket` being that of who was let in before. Who came first is served first.
    ///
    /// # Errors
    /// [`Busy`], at once, when the queue is too long, and when no slot became free in time all the same.
    pub(crate) async fn slot(&self, ticket: Option<Ticket>) -> Result<Slot, Busy> {
        // While somebody waits none is free: the semaphore hands a slot that comes back to the first in the queue.
        if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(self.slot_of(permit));
        }
        let most = if ticket.is_some() { QUEUE_LET_IN_MAX } else { QUEUE_MAX };
        let _waiting = self.queue.enter(most).ok_or(Busy::Queue)?;
        drop(ticket);
        match timeout(PATIENCE, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(permit) => Ok(self.slot_of(permit.expect("the semaphore is never closed"))),
            Err(_) => Err(Busy::Waited(PATIENCE)),
        }
    }

    fn slot_of(&self, permit: OwnedSemaphorePermit) -> Slot {
        self.queue.begin();
        Slot { _permit: permit, queue: self.queue.clone(), since: Instant::now(), place: self.place }
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

impl Drop for Slot {
    fn drop(&mut self) {
        self.queue.end(self.since.elapsed());
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
                pool.slot(None).await.expect("in time").run(work).await.expect("no panic")
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
                pool.slot(None).await.expect("in time").run(|| panic!("stack {} is gone", 7)).await.map(|(): ()| ());
            assert_eq!(panicked.expect_err("it panicked").to_string(), "panic: stack 7 is gone");
        }
    }

    /// Goal: a queue that is too long is not joined, by nobody, and sooner by who was not let in before.
    #[tokio::test(start_paused = true)]
    async fn a_queue_that_is_too_long_is_not_joined() {
        let pool = Pool::new(1);
        let first = pool.slot(None).await.expect("it is free");
        tokio::time::advance(QUEUE_MAX / 2).await;
        drop(first);
        let _taken = pool.slot(None).await.expect("it is free again");
        // No burst any more.
        tokio::time::advance(2 * queue::BURST).await;
        let tickets: Vec<_> = std::iter::from_fn(|| pool.admit().ok()).collect();
        assert_eq!(tickets.len(), 2, "each keeps the core for half of the time");
        let start = Instant::now();
        let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(pool.slot(None))).collect();
        for slot in &mut waiting {
            assert!(futures::poll!(slot).is_pending());
        }
        assert_eq!(pool.admit().expect_err("two wait"), Busy::Queue);
        assert_eq!(pool.slot(None).await.expect_err("two wait"), Busy::Queue);
        assert_eq!(start.elapsed(), Duration::ZERO, "at once");
        for ticket in tickets {
            assert!(
                futures::poll!(Box::pin(pool.slot(Some(ticket)))).is_pending(),
                "who was let in is not turned away"
            );
        }
    }

    /// Goal: nobody waits for ever for what was foreseen to come soon.
    #[tokio::test(start_paused = true)]
    async fn who_waits_in_vain_is_told() {
        let pool = Pool::new(1);
        let _taken = pool.slot(None).await.expect("it is free");
        let start = Instant::now();
        assert_eq!(pool.slot(None).await.expect_err("the only one is taken"), Busy::Waited(PATIENCE));
        assert_eq!(start.elapsed(), PATIENCE);
    }
}
