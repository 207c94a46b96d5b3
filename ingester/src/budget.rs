//! The one byte budget: what all profiles between arrival and the end of their flush may hold together.
//!
//! Every byte is paid for before it is kept: a gRPC message when its frame header announces it, an HTTP body as it is
//! read, the inflated profile before it is inflated. A [`Permit`] moves with the profile through every stage, grows and
//! shrinks with what the profile holds there, and gives back what is left when the flush has ended and the permit is
//! dropped.
//!
//! Invariants: the permits given out never exceed the budget, and bodies that only wait never take more than half of
//! it. Without that half, a queue of bodies could fill the budget until none of them finds the bytes to be inflated in,
//! and nothing moves. Who finds no bytes within [`PATIENCE`] is refused with a delay that grows with the bytes waiting,
//! so that senders spread out instead of coming back together. A single claim larger than what it is taken from is cut
//! to it: it waits until it is alone, instead of being refused for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use afterglow_service::Failure;
use afterglow_service::config::ByteSize;
use afterglow_service::metrics::register_reading;
use afterglow_store::clock::Random;
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a profile waits for bytes before it is refused: long enough to bridge the end of a flush, short enough that
/// waiting senders do not become a queue of their own.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// What one permit of the semaphores stands for: fine enough for the smallest profile, and 2^32 of them are beyond any
/// memory.
const UNIT_BYTES: u64 = 1024;

/// The least and the most that a refused sender is told to wait.
const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// The upper end of the delay while hardly anybody waits: its lower half is [`DELAY_MIN`].
const DELAY_BASE: Duration = Duration::from_secs(2);

/// The byte budget; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all: Units,
    /// What bodies take besides, while they wait: half of all.
    bodies: Units,
    /// Units wanted by those who wait now: the length of the queue.
    wanted: AtomicU64,
    random: Arc<dyn Random>,
}

#[derive(Debug)]
struct Units {
    free: Arc<Semaphore>,
    max: u32,
}

/// Bytes taken from the budget, given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Budget,
    held: OwnedSemaphorePermit,
    /// Held while the body waits to be worked on.
    body: Option<OwnedSemaphorePermit>,
}

// === impl Budget ===

impl Budget {
    /// Creates a budget of `bytes`, at least two KiB. `random` spreads the delays of refused senders.
    pub(crate) fn new(bytes: u64, random: Arc<dyn Random>) -> Self {
        let most = u64::try_from(Semaphore::MAX_PERMITS).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
        let max = u32::try_from((bytes / UNIT_BYTES).clamp(2, most)).expect("clamped to a u32");
        Self(Arc::new(Shared { all: Units::new(max), bodies: Units::new(max / 2), wanted: AtomicU64::new(0), random }))
    }

    /// Takes `bytes` for a body that arrives, waiting at most [`PATIENCE`] for them. Who came first is served first.
    ///
    /// # Errors
    /// [`Kind::Exhausted`](afterglow_service::Kind::Exhausted) with a delay when there are none.
    pub(crate) async fn acquire(&self, bytes: u64) -> Result<Permit, Failure> {
        let units = self.0.bodies.of(bytes);
        let take = async {
            let body = self.0.bodies.take(units).await;
            (body, self.0.all.take(units).await)
        };
        let (body, held) = self.patiently(units, take).await?;
        Ok(Permit { budget: self.clone(), held, body: Some(body) })
    }

    /// Returns the size of the budget in bytes.
    pub(crate) fn bytes_max(&self) -> u64 {
        u64::from(self.0.all.max) * UNIT_BYTES
    }

    /// Returns how many bytes are given out now.
    pub(crate) fn bytes_held(&self) -> u64 {
        let free = u32::try_from(self.0.all.free.available_permits()).unwrap_or(u32::MAX);
        u64::from(self.0.all.max.saturating_sub(free)) * UNIT_BYTES
    }

    /// Adds the gauges of the budget to a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let [max, held, wanted] = [(); 3].map(|()| self.clone());
        register_reading(registry, "afterglow_ingest_budget_limit_bytes", "The memory budget", move || max.bytes_max());
        let help = "What profiles on their way in take of it";
        register_reading(registry, "afterglow_ingest_budget_used_bytes", help, move || held.bytes_held());
        let help = "What profiles wait for beyond that";
        register_reading(registry, "afterglow_ingest_budget_wanted_bytes", help, move || {
            wanted.0.wanted.load(Ordering::Relaxed) * UNIT_BYTES
        });
    }

    async fn patiently<T>(&self, units: u32, take: impl Future<Output = T>) -> Result<T, Failure> {
        let _wanted = Wanted::new(&self.0.wanted, units);
        timeout(PATIENCE, take).await.map_err(|_| {
            let text = format!("ingester is at its memory budget of {} (--memory-budget)", ByteSize(self.bytes_max()));
            Failure::exhausted(text, self.delay())
        })
    }

    /// Returns how long a refused sender is to wait: between half of an upper end and that upper end, which goes from 2
    /// s when hardly anybody waits to 30 s when those who wait want the whole budget once more.
    fn delay(&self) -> Duration {
        let wanted = self.0.wanted.load(Ordering::Relaxed) as f64;
        let pressure = (wanted / f64::from(self.0.all.max)).min(1.0);
        let most = DELAY_BASE + (DELAY_MAX - DELAY_BASE).mul_f64(pressure);
        most.mul_f64(0.5 + 0.5 * self.0.random.next_unit()).max(DELAY_MIN)
    }
}

// === impl Units ===

impl Units {
    fn new(max: u32) -> Self {
        Self { free: Arc::new(Semaphore::new(max as usize)), max }
    }

    /// Returns the units that `bytes` take. Even the smallest body has its bookkeeping, and pays for it.
    fn of(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.max)
    }

    async fn take(&self, units: u32) -> OwnedSemaphorePermit {
        Arc::clone(&self.free).acquire_many_owned(units).await.expect("the semaphore is never closed")
    }
}

// === impl Permit ===

impl Permit {
    /// Ends the waiting of the body: makes the permit hold at least `bytes`, for the body and what is made of it,
    /// waiting at most [`PATIENCE`] for what is missing, and leaves the bodies' half to others.
    ///
    /// # Errors
    /// As [`Budget::acquire`]; the permit then holds what it held.
    pub(crate) async fn begin_work(&mut self, bytes: u64) -> Result<(), Failure> {
        let budget = self.budget.clone();
        let missing = budget.0.all.of(bytes).saturating_sub(self.units());
        if missing > 0 {
            let more = budget.patiently(missing, budget.0.all.take(missing)).await?;
            self.held.merge(more);
        }
        self.body = None;
        Ok(())
    }

    /// Gives back all beyond `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        let spare = self.units().saturating_sub(self.budget.0.all.of(bytes));
        drop(self.held.split(spare as usize));
    }

    /// Joins another permit of the same budget to this one: two parts of one body.
    pub(crate) fn merge(&mut self, other: Self) {
        self.held.merge(other.held);
        match (&mut self.body, other.body) {
            (Some(body), Some(other)) => body.merge(other),
            (body, other) => *body = body.take().or(other),
        }
    }

    /// Returns how many bytes it holds, in whole KiB.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.units()) * UNIT_BYTES
    }

    fn units(&self) -> u32 {
        u32::try_from(self.held.num_permits()).expect("no more than the budget, which is a u32")
    }
}

/// Counts the units that somebody waits for; a waiter may go away at any await.
struct Wanted<'a> {
    total: &'a AtomicU64,
    units: u64,
}

impl<'a> Wanted<'a> {
    fn new(total: &'a AtomicU64, units: u32) -> Self {
        let units = u64::from(units);
        total.fetch_add(units, Ordering::Relaxed);
        Self { total, units }
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.total.fetch_sub(self.units, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use afterglow_service::Kind;
    use afterglow_store::clock::SeededRandom;
    use tokio::time::Instant;

    use super::*;

    fn budget(kib: u64) -> Budget {
        Budget::new(kib * 1024, Arc::new(SeededRandom::new(1)))
    }

    /// Goal: what is given out never exceeds the budget, and comes back.
    #[tokio::test(start_paused = true)]
    async fn permits_follow_what_a_profile_holds() {
        let budget = budget(100);
        let mut permit = budget.acquire(10 * 1024).await.expect("an empty budget");
        assert_eq!((permit.bytes(), budget.bytes_held()), (10 * 1024, 10 * 1024));
        permit.merge(budget.acquire(5 * 1024).await.expect("half of it is for bodies"));
        permit.begin_work(60 * 1024).await.expect("enough is free");
        assert_eq!(budget.bytes_held(), 60 * 1024);
        permit.begin_work(20 * 1024).await.expect("it holds more already");
        assert_eq!(budget.bytes_held(), 60 * 1024);
        permit.shrink_to(20 * 1024);
        permit.shrink_to(30 * 1024);
        assert_eq!((permit.bytes(), budget.bytes_held()), (20 * 1024, 20 * 1024));
        permit.begin_work(u64::MAX).await.expect("a claim beyond the budget is cut to it, and this one is alone");
        assert_eq!(budget.bytes_held(), budget.bytes_max());
        drop(permit);
        assert_eq!(budget.bytes_held(), 0);
    }

    /// Goal: no bytes within 100 ms is a refusal with a delay of 1 to 30 s; bytes that come back in time are none.
    #[tokio::test(start_paused = true)]
    async fn who_finds_no_bytes_is_refused_with_a_delay() {
        let budget = budget(16);
        let half = budget.acquire(8 * 1024).await.expect("an empty budget");
        let start = Instant::now();
        let failure = budget.acquire(1).await.expect_err("the bodies' half is taken");
        assert_eq!(start.elapsed(), PATIENCE);
        assert_eq!(failure.kind(), Kind::Exhausted);
        assert_eq!(failure.message(), "ingester is at its memory budget of 16 KiB (--memory-budget)");
        let delay = failure.retry_after().expect("it can be retried");
        assert!((DELAY_MIN..DELAY_BASE * 2).contains(&delay), "{delay:?}");

        let (second, ()) = tokio::join!(budget.acquire(1), async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(half);
        });
        assert_eq!(second.expect("bytes came back in time").bytes(), 1024);
    }

    /// Goal: however many bodies wait, one of them can be worked on, and makes room for the next.
    #[tokio::test(start_paused = true)]
    async fn a_queue_of_bodies_leaves_room_to_work() {
        let budget = budget(64);
        let mut queue = Vec::new();
        while let Ok(permit) = budget.acquire(1024).await {
            queue.push(permit);
        }
        assert_eq!(queue.len(), 32);
        let mut first = queue.pop().expect("one of them");
        first.begin_work(30 * 1024).await.expect("the other half is free");
        budget.acquire(1024).await.expect("a body less waits");
        queue[0].begin_work(30 * 1024).await.expect_err("all is taken now");
        first.shrink_to(1024);
        queue[0].begin_work(30 * 1024).await.expect("what was taken to work came back");
    }

    /// Goal: the more bytes wait, the later they are asked to come back; never beyond 30 s.
    #[tokio::test(start_paused = true)]
    async fn the_delay_grows_with_the_queue() {
        let budget = budget(64);
        let _half = budget.acquire(32 * 1024).await.expect("an empty budget");
        let mut last = Duration::ZERO;
        for waiting in [1, 16, 64] {
            let refused = futures::future::join_all((0..waiting).map(|_| budget.acquire(1024))).await;
            let delays: Vec<_> = refused
                .into_iter()
                .map(|refused| refused.expect_err("nothing is free").retry_after().expect("it can be retried"))
                .collect();
            assert!(delays.iter().all(|delay| (DELAY_MIN..=DELAY_MAX).contains(delay)), "{delays:?}");
            let longest = delays.into_iter().max().expect("at least one");
            assert!(longest > last, "{waiting} waiting: {longest:?} after {last:?}");
            last = longest;
        }
        assert_eq!(budget.0.wanted.load(Ordering::Relaxed), 0);
    }

    /// Goal: a sender that goes away while it waits leaves no trace.
    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_goes_away_takes_nothing() {
        let budget = budget(4);
        let half = budget.acquire(2 * 1024).await.expect("an empty budget");
        assert!(timeout(PATIENCE / 2, budget.acquire(1)).await.is_err());
        assert_eq!(budget.0.wanted.load(Ordering::Relaxed), 0);
        drop(half);
        assert_eq!(budget.bytes_held(), 0);
    }
}
