//! When a read is made a second time beside itself: after what nearly all reads of its size took, within a budget.
//!
//! Of the reads of a store some answer a hundred times later than the others, for a disk, a connection or a machine over there, and the same read
//! made anew hits another. A question waits for its slowest read, so it is these that it waits for. The delay comes from what the last reads
//! of like size took, and reads that were dropped before they answered count with how long they had been waited for: they are known to be slow.

use std::time::Duration;

use object_store::GetResult;
use tokio::time::Instant;

use crate::fault::Fault;
use crate::hedge::{Budget, Latencies};

/// The largest reads of each class. What is longer is mostly transfer, which a second one beside it would slow down.
const CLASS_BYTES_MAX: [u64; 3] = [128 << 10, 1 << 20, 8 << 20];

/// How many of the last reads of a class decide what is slow: enough that the slowest in thirty of them are some, and few enough that a store
/// that gets slower is followed within seconds.
const LATENCIES_KEPT: usize = 256;

/// Fewer than these say nothing about what is slow.
const LATENCIES_NEEDED: usize = 32;

/// The share of reads that answer sooner: three in a hundred are made twice, below the budget, so that what is saved is there for those
/// that stall. At 95 in a hundred all of it would go to those that are just slow.
const QUANTILE: f64 = 0.97;

/// How slow reads are made a second time.
#[derive(Clone, Debug)]
pub struct Hedging {
    /// The bounds of the time after which it is; between them, what 97 % of the last reads of like size took. A store that answers within the
    /// first is fast enough; until there are 32 reads to go by, it is the second.
    pub delay: (Duration, Duration),
    /// How many extra reads each read earns: 0.05 adds a twentieth to the requests, whatever the store does.
    pub budget_ratio: f64,
    /// How many extra reads can be saved up. A store that was just opened has none.
    pub budget_max: f64,
}

impl Default for Hedging {
    fn default() -> Self {
        Self { delay: (Duration::from_millis(20), Duration::from_secs(1)), budget_ratio: 0.05, budget_max: 20.0 }
    }
}

/// What the reads of one store learn from each other.
#[derive(Debug)]
pub(super) struct Hedges {
    policy: Hedging,
    budget: Budget,
    classes: [Latencies; CLASS_BYTES_MAX.len()],
}

/// The same for a read of some size.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfSize<'a> {
    hedges: &'a Hedges,
    latencies: &'a Latencies,
}

// === impl Hedges ===

impl Hedges {
    pub(super) fn new(policy: Hedging) -> Self {
        let budget = Budget::new(0.0, policy.budget_ratio, policy.budget_max);
        let classes = CLASS_BYTES_MAX.map(|_| Latencies::new(LATENCIES_KEPT));
        Self { policy, budget, classes }
    }

    /// Notes a read of so many bytes and returns what concerns it; nothing where it is too long to be made twice.
    pub(super) fn of_size(&self, bytes: u64) -> Option<OfSize<'_>> {
        let class = CLASS_BYTES_MAX.iter().position(|&most| bytes <= most)?;
        self.budget.earn();
        Some(OfSize { hedges: self, latencies: &self.classes[class] })
    }
}

// === impl OfSize ===

impl OfSize<'_> {
    /// Returns after what time the read is slow.
    pub(super) fn delay(self) -> Duration {
        let (shortest, longest) = self.hedges.policy.delay;
        let slow = self.latencies.quantile(QUANTILE, LATENCIES_NEEDED);
        slow.map_or(longest, |slow| slow.clamp(shortest, longest))
    }

    /// Takes an extra read, if there is one.
    pub(super) fn spend(self) -> bool {
        self.hedges.budget.spend()
    }

    /// Makes a read, and notes how long it took.
    pub(super) async fn timed(
        self,
        read: impl Future<Output = object_store::Result<GetResult>>,
    ) -> object_store::Result<GetResult> {
        let waiting = Waiting { of: self, began: Instant::now(), outcome: Outcome::Dropped };
        let answer = read.await;
        let is_answer = match &answer {
            Ok(_) => true,
            Err(error) => Fault::of(error) == Fault::NotFound,
        };
        waiting.end(if is_answer { Outcome::Answered } else { Outcome::Failed });
        answer
    }
}

/// A read that is waited for.
struct Waiting<'a> {
    of: OfSize<'a>,
    began: Instant,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// How soon a store refuses says nothing.
    Failed,
    /// Nobody waits any more: the other read was first, the time is over, or the question was given up.
    Dropped,
}

// === impl Waiting ===

impl Waiting<'_> {
    fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waited = self.began.elapsed();
        let is_known = match self.outcome {
            Outcome::Answered => true,
            Outcome::Failed => false,
            // One that was given up early may have been as fast as any.
            Outcome::Dropped => waited >= self.of.delay(),
        };
        if is_known {
            self.of.latencies.record(waited);
        }
    }
}

#[cfg(test)]
mod tests;
