//! Explain: what an answer cost, noted while it is made, and only where that was asked for.
//!
//! [`Explaining`] goes along with the [`Engine`](super::Engine) of the question. What the store is asked is on a [`Bill`], which the store
//! keeps; how long the steps took is noted here. Without a question that wants to know, nothing is noted and no clock is read.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use afterglow_proto::v1;
use afterglow_store::bill::{Bill, Sums};
use tokio::time::Instant;

use super::Error;
use super::budget::Admitted;
use crate::window;

/// A step of an answer, in the order in which they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A view is made that is fresh enough.
    Refresh,
    /// Profiles are selected in it, for which blocks may have to be opened.
    Select,
    /// Others hold the memory.
    Wait,
    /// The store is waited for.
    Read,
    /// Blocks are unpacked and each is summed up.
    Decode,
    /// The sums of blocks are put together.
    Sum,
    /// The answer is written.
    Encode,
}

const STEPS: [(Step, &str); 7] = [
    (Step::Refresh, "refresh"),
    (Step::Select, "select"),
    (Step::Wait, "wait"),
    (Step::Read, "read"),
    (Step::Decode, "decode"),
    (Step::Sum, "sum"),
    (Step::Encode, "encode"),
];

/// What is noted of a question, if anything is; clones note in the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Explaining(Option<Arc<Noted>>);

#[derive(Debug)]
struct Noted {
    began: Instant,
    bill: Bill,
    profiles: AtomicU64,
    estimate: AtomicU64,
    shares: AtomicU64,
    nanos: [AtomicU64; STEPS.len()],
}

/// A step under way, which ends when this is dropped.
#[must_use]
pub(super) struct Timed(Option<(Arc<Noted>, Step, Instant)>);

// === impl Explaining ===

impl Explaining {
    /// Begins to note, where that is asked for.
    pub(super) fn new(is_asked: bool) -> Self {
        let noted = || {
            Arc::new(Noted {
                began: Instant::now(),
                bill: Bill::default(),
                profiles: AtomicU64::new(0),
                estimate: AtomicU64::new(0),
                shares: AtomicU64::new(0),
                nanos: Default::default(),
            })
        };
        Self(is_asked.then(noted))
    }

    /// Does `work` on the bill of the question.
    pub(super) async fn charge<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(noted) => noted.bill.charge(work).await,
            None => work.await,
        }
    }

    /// Begins a step. Steps may go on at once.
    pub(super) fn step(&self, step: Step) -> Timed {
        Timed(self.0.as_ref().map(|noted| (Arc::clone(noted), step, Instant::now())))
    }

    /// Notes that so many profiles are selected.
    pub(super) fn add_profiles(&self, profiles: usize) {
        if let Some(noted) = &self.0 {
            noted.profiles.fetch_add(profiles as u64, Ordering::Relaxed);
        }
    }

    /// Notes how many bytes of memory the answer is thought to take.
    pub(super) fn add_estimate(&self, bytes: u64) {
        if let Some(noted) = &self.0 {
            noted.estimate.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Takes memory until `bytes` of it are held, and notes that the answer is thought to take so many, where it was less.
    ///
    /// # Errors
    /// There is no room.
    pub(super) fn cover(&self, admitted: &mut Admitted, bytes: u64) -> Result<(), Error> {
        admitted.cover(bytes)?;
        if let Some(noted) = &self.0 {
            noted.estimate.fetch_max(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Notes that a sibling did a share of the work.
    pub(super) fn add_share(&self) {
        if let Some(noted) = &self.0 {
            noted.shares.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns what was noted.
    pub(super) fn finish(&self) -> Option<v1::Explain> {
        let noted = self.0.as_ref()?;
        let sums = noted.bill.sums();
        let Sums { requests, bytes, objects, ranges, ranges_cached, blocks, blocks_cached, .. } = sums;
        let steps = STEPS.iter().filter_map(|&(step, name)| {
            let took = noted.took(step, sums.waited);
            (!took.is_zero()).then(|| v1::ExplainStep { name: name.to_owned(), duration: Some(message(took)) })
        });
        Some(v1::Explain {
            profiles: noted.profiles.load(Ordering::Relaxed),
            blocks,
            blocks_cached,
            ranges,
            ranges_cached,
            objects,
            requests,
            bytes,
            estimate_bytes: noted.estimate.load(Ordering::Relaxed),
            duration: Some(message(noted.began.elapsed())),
            steps: steps.collect(),
            shares: noted.shares.load(Ordering::Relaxed),
        })
    }
}

impl Noted {
    /// Returns how long a step took. The store is waited for in the midst of what decodes.
    fn took(&self, step: Step, waited: Duration) -> Duration {
        let took = Duration::from_nanos(self.nanos[step as usize].load(Ordering::Relaxed));
        match step {
            Step::Read => waited,
            Step::Decode => took.saturating_sub(waited),
            _ => took,
        }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        if let Some((noted, step, began)) = self.0.take() {
            let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            noted.nanos[step as usize].fetch_add(nanos, Ordering::Relaxed);
        }
    }
}

fn message(length: Duration) -> afterglow_proto::Duration {
    window::duration(i64::try_from(length.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn steps_are_added_and_told_in_their_order() {
        let explaining = Explaining::new(true);
        for step in [Step::Sum, Step::Refresh, Step::Sum] {
            let timed = explaining.step(step);
            tokio::time::advance(Duration::from_secs(1)).await;
            drop(timed);
        }
        explaining.clone().add_profiles(3);
        let explain = explaining.finish().expect("it was asked for");
        let steps: Vec<_> =
            explain.steps.iter().map(|step| (&*step.name, step.duration.expect("is set").seconds)).collect();
        assert_eq!((steps, explain.profiles), (vec![("refresh", 1), ("sum", 2)], 3));
        assert_eq!(explain.duration.expect("is set").seconds, 3);
    }

    #[test]
    fn nothing_is_noted_unasked() {
        let explaining = Explaining::new(false);
        assert!(explaining.step(Step::Sum).0.is_none());
        assert_eq!(explaining.finish(), None);
    }
}
