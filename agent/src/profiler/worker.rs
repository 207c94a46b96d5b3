//! The one thread on which profiles are taken and symbolized.
//!
//! The work takes milliseconds and would hold async threads up. On whichever thread of a pool is free, each would keep, in an arena of
//! its own, the memory that parsing debug information takes; on one thread it is used again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::LazyLock;

use tokio::sync::{mpsc, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// How many jobs may wait; whoever asks for one more waits with it.
const JOBS_MAX: usize = 16;

static JOBS: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
    let (sender, mut jobs) = mpsc::channel::<Job>(JOBS_MAX);
    let work = move || {
        while let Some(job) = jobs.blocking_recv() {
            job();
        }
    };
    let thread = std::thread::Builder::new().name("afterglow-prof".to_owned());
    thread.spawn(work).expect("the system gives a thread");
    sender
});

/// Runs `work` there and returns its result. A panic of it goes on in the caller.
pub(super) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (reply, result) = oneshot::channel();
    let job = move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        // Nobody may wait any more: a request can be given up.
        let _ = reply.send(result);
    };
    JOBS.send(Box::new(job)).await.expect("the thread never ends");
    match result.await.expect("the thread runs each job") {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn work_runs_in_order_on_one_thread_and_outlives_a_panic() {
        let name = || std::thread::current().name().map(str::to_owned);
        let first = super::run(name).await;
        let panicked = tokio::spawn(super::run(|| panic!("on purpose"))).await;
        assert!(panicked.unwrap_err().is_panic());
        assert_eq!(super::run(name).await, first);
        assert_eq!(first.as_deref(), Some("afterglow-prof"));
    }
}
