//! Lanes: a small question is answered at once, whatever else goes on; a large one goes through the [`gate`](super::gate), and what it
//! computes is done on threads of its own.
//!
//! Which it is, is known before it costs: by how many profiles it may select at most, which the catalog tells without listing them. The threads of
//! large questions have a lower priority, and as many of them compute at once as there are cores: each takes a turn for what it does between
//! two waits. So all cores are used while nobody else wants them, and a small question that comes has three quarters of one at once.
//!
//! The runtime's threads carry what all need: connections, listings, requests to the store. They never compute for a large question.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Poll;
use std::thread::available_parallelism;
use std::time::Duration;

use afterglow_store::bill;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::gate::Place;

/// The most profiles that a question may be about, and is small, if it reads their samples: these take up to a tenth of a millisecond each.
pub(super) const SMALL_READ: u64 = 250;

/// The same where only what is known of profiles beside their samples is looked at, which takes less than a tenth of a microsecond each.
pub(super) const SMALL_LISTED: u64 = 50_000;

/// How large questions are answered at once where there is but one core: while one waits for the store, another computes.
const PLACES_MIN: usize = 2;

/// The most threads of large questions. Most of them wait: for the store, for what another decodes, for a turn.
const THREADS_MAX: usize = 512;

/// How far the priority of these threads is lowered (setpriority(2)): beside one that is not, such a thread gets a quarter of a core. With
/// the lowest priority there is it would get a seventieth, and where other programs keep the cores busy large questions would never end.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// How often who waits for a turn looks whether anybody still waits for him: his reads are to end within a tenth of a second.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Which way a question goes; cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Lane {
    /// It is answered at once.
    Small,
    /// It is answered on these threads. It has a place as long as it goes this way, unless it is part of a question that has one elsewhere.
    Large { threads: Threads, _place: Option<Arc<Place>> },
}

/// The threads that compute for large questions; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Threads(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    /// Nothing runs on it but what may block. There is one until this is dropped.
    runtime: Option<Runtime>,
    turns: Turns,
}

/// How many compute at once.
#[derive(Debug)]
struct Turns {
    free: Mutex<usize>,
    came_free: Condvar,
}

/// The right to compute, until it is dropped.
struct Turn<'a>(&'a Turns);

/// Returns how many large questions are answered at once.
pub(super) fn places() -> usize {
    cores().max(PLACES_MIN)
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

// === impl Lane ===

impl Lane {
    /// Returns whether the question is small.
    pub(super) fn is_small(&self) -> bool {
        matches!(self, Self::Small)
    }

    /// Drives a future on a thread that may block, and leaves it there at its next await when what is returned is dropped.
    ///
    /// It is for what blocks do: between two requests to the store they unpack, check and sum up, for up to hundreds of milliseconds, in
    /// which the runtime's own threads would serve nobody.
    pub(super) async fn drive<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        let token = CancellationToken::new();
        let abandoned = token.clone();
        let _guard = token.drop_guard();
        let runtime = Handle::current();
        let work = bill::carried(work).in_current_span();
        let driven: JoinHandle<Option<T>> = match self {
            Self::Small => tokio::task::spawn_blocking(move || runtime.block_on(abandoned.run_until_cancelled(work))),
            Self::Large { threads, .. } => {
                let pool = Arc::clone(&threads.0);
                threads.spawn(move || {
                    // Outside of the turns: what nobody waits for any more ends its reads without waiting for one.
                    let driven = abandoned.run_until_cancelled(pool.turns.by_turns(work, &abandoned));
                    runtime.block_on(driven).flatten()
                })
            }
        };
        Ok(driven.await?.expect("nobody cancels it while it is awaited"))
    }

    /// Does work that waits for nothing on a thread that may block.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        self.drive(async move { work() }).await
    }

    /// Does work that waits for nothing, and that is worth a thread only where a question is large.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match self {
            Self::Small => Ok(work()),
            Self::Large { .. } => self.compute(work).await,
        }
    }

    /// Starts work that waits for others by itself, on a thread that may block. It computes by [`Lane::turn`]s.
    pub(super) fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match self {
            Self::Small => tokio::task::spawn_blocking(work),
            Self::Large { threads, .. } => threads.spawn(work),
        }
    }

    /// Does what a thread that was spawned computes between two waits.
    pub(super) fn turn<T>(&self, work: impl FnOnce() -> T) -> T {
        match self {
            Self::Small => work(),
            Self::Large { threads, .. } => {
                let _turn = threads.0.turns.take();
                work()
            }
        }
    }
}

// === impl Threads, Pool ===

impl Threads {
    /// Makes them. None is started before there is something to do.
    pub(super) fn new() -> Self {
        let mut builder = Builder::new_current_thread();
        builder.thread_name("large").max_blocking_threads(THREADS_MAX).on_thread_start(step_back);
        let runtime = builder.build().expect("without I/O and time it takes nothing of the system");
        Self(Arc::new(Pool { runtime: Some(runtime), turns: Turns::new(cores()) }))
    }

    fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.0.runtime.as_ref().expect("it is there until the pool is dropped").spawn_blocking(work)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // It may be dropped where nobody may wait for threads to end.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of this thread, where that can be done for one alone.
fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread of large questions keeps its priority");
    }
}

// === impl Turns, Turn ===

impl Turns {
    fn new(at_once: usize) -> Self {
        Self { free: Mutex::new(at_once), came_free: Condvar::new() }
    }

    /// Waits for a turn. Whoever has one neither awaits nor waits for another.
    fn take(&self) -> Turn<'_> {
        self.take_unless(&CancellationToken::new()).expect("nobody abandons it")
    }

    /// Waits for a turn as long as it is not abandoned.
    fn take_unless(&self, abandoned: &CancellationToken) -> Option<Turn<'_>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            if abandoned.is_cancelled() {
                return None;
            }
            free = self.came_free.wait_timeout(free, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        Some(Turn(self))
    }

    /// Polls a future by turns: it holds none while it waits. None where it is abandoned before it has one.
    async fn by_turns<T>(&self, work: impl Future<Output = T>, abandoned: &CancellationToken) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|context| match self.take_unless(abandoned) {
            Some(_turn) => work.as_mut().poll(context).map(Some),
            None => Poll::Ready(None),
        })
        .await
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.came_free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn large() -> Lane {
        Lane::Large { threads: Threads::new(), _place: None }
    }

    /// Goal: however many large questions there are, no more compute at once than there are cores, and who waits does not count.
    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_compute_at_once_than_there_are_cores() {
        let lane = large();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = |_| {
            let (lane, now, most) = (lane.clone(), Arc::clone(&now), Arc::clone(&most));
            tokio::spawn(async move {
                let computing = async move {
                    for _ in 0..50 {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                    }
                };
                lane.drive(computing).await
            })
        };
        let all: Vec<_> = (0..4 * cores() + 4).map(work).collect();
        for one in all {
            one.await.expect("no panic").expect("no panic");
        }
        assert!((1..=cores()).contains(&most.load(Ordering::SeqCst)), "{most:?} of {}", cores());
        let never = tokio::spawn({
            let lane = lane.clone();
            async move { lane.drive(std::future::pending::<()>()).await }
        });
        for _ in 0..2 * cores() {
            lane.compute(|| ()).await.expect("a turn");
        }
        never.abort();
    }

    /// Goal: what is abandoned ends, and its turn comes back; what panics gives it back, too.
    #[tokio::test(flavor = "multi_thread")]
    async fn turns_come_back() {
        let lane = large();
        for _ in 0..2 * cores() {
            let panics = lane.compute(|| panic!("as it should")).await;
            assert!(panics.expect_err("it panicked").is_panic());
        }
        let ended = Arc::new(());
        let within = Arc::clone(&ended);
        let work = lane.drive(async move {
            std::future::pending::<()>().await;
            drop(within);
        });
        assert!(tokio::time::timeout(Duration::from_millis(10), work).await.is_err());
        while Arc::strong_count(&ended) > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(lane.compute(|| 7).await.expect("a turn"), 7);
    }

    /// Goal: what is abandoned ends at once, its reads with it, even while others have all turns: as it waits for the store, and for a turn.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_abandoned_ends_while_others_have_all_turns() {
        let lane = large();
        let (waits, for_store) = (Arc::new(()), Arc::new(()));
        let (asks, mut asked) = tokio::sync::mpsc::channel(cores());
        let reading = tokio::spawn({
            let (lane, held) = (lane.clone(), Arc::clone(&for_store));
            async move {
                let read = async move {
                    asks.send(()).await.expect("the test waits");
                    std::future::pending::<()>().await;
                    drop(held);
                };
                lane.drive(read).await
            }
        });
        asked.recv().await.expect("it reads");
        let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
        let released = Arc::new(Mutex::new(released));
        let (has, mut have) = tokio::sync::mpsc::channel(cores());
        let busy: Vec<_> = (0..cores())
            .map(|_| {
                let (lane, released, has) = (lane.clone(), Arc::clone(&released), has.clone());
                tokio::spawn(async move {
                    let hold = move || {
                        has.try_send(()).expect("there is room for all");
                        // Until the test lets go of the other end.
                        let _ = released.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    };
                    lane.compute(hold).await
                })
            })
            .collect();
        for _ in 0..cores() {
            have.recv().await.expect("a turn each");
        }
        let waiting = tokio::spawn({
            let (lane, held) = (lane.clone(), Arc::clone(&waits));
            async move { lane.drive(async move { drop(held) }).await }
        });
        while Arc::strong_count(&waits) == 1 {
            tokio::task::yield_now().await;
        }
        reading.abort();
        waiting.abort();
        let ended = async {
            while Arc::strong_count(&for_store) + Arc::strong_count(&waits) > 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("they end while all turns are taken");
        drop(release);
        for one in busy {
            one.await.expect("no panic").expect("no panic");
        }
        assert_eq!(lane.compute(|| 7).await.expect("a turn"), 7);
    }

    /// Goal: threads of large questions stand back, and others do not.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn large_questions_stand_back() {
        let priority = || rustix::process::getpriority_process(None).expect("it is known");
        assert_eq!(large().compute(priority).await.expect("no panic"), NICE.max(priority()));
        assert_eq!(Lane::Small.compute(priority).await.expect("no panic"), priority());
    }
}
