//! The ack path: one segment becomes durable, or the caller learns exactly what is known of it.
//!
//! A segment is written under a key nobody else uses, by plain overwrite, so the same bytes may be put any number of times: a
//! retry, a hedge and an attempt that lands a minute late all leave the same object. That is what makes it safe to be impatient.
//! Up to three attempts share five seconds; a second one starts beside the first when that is slower than nearly all before it.
//! A retry budget keeps a store in trouble from being asked thrice as often. Three outcomes: durable, [`PutError::Unknown`]
//! (an attempt may have happened or may yet), [`PutError::Failed`] (no attempt can have happened). The retries of `object_store`
//! itself are off, for they would hide time.
//!
//! What is acknowledged must not lie below the boundary, or nobody would see it. Three rules see to that, each where another may fail:
//! a name lies well above the boundary as it was minutes ago (`commit::boundaries`); a writer that slept for a minute in between, by either
//! clock, acknowledges nothing; nor does one whose clock is an hour from the store's, as the answer to the put says.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::Store;
use crate::clock::{SKEW_MAX, Skew, TakenAt};
use crate::commit;
use crate::commit::boundary::NAMES_ABOVE;
use crate::fault::Fault;
use crate::hedge::{Budget, Latencies};
use crate::paths::{SegmentKey, SegmentName, TenantId};

/// The most attempts that are under way at once: the first and its hedge.
const IN_FLIGHT_MAX: usize = 2;
/// How many of the last puts decide what is slow.
const LATENCIES_KEPT: usize = 128;
/// Fewer than these say nothing about what is slow.
const LATENCIES_NEEDED: usize = 16;
/// The share of puts that may be slower before one is hedged: one in twenty.
const HEDGE_QUANTILE: f64 = 0.95;
/// The pause after a failed attempt; doubled for each one before it, and shortened by chance to spread the callers.
const BACKOFF: Duration = Duration::from_millis(50);
/// The longest time between the naming of a segment and the answer to its put that is acknowledged. Within it, no boundary can pass
/// a name (see `commit::boundary`). No put is given as long, but a machine may sleep.
const ACKNOWLEDGED_AGE_MAX: Duration = Duration::from_secs(60);
/// The pause after the store asked to slow down.
const BACKOFF_THROTTLED: Duration = Duration::from_millis(250);

/// How a segment is put.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How many attempts there are at most, hedges included.
    pub attempts_max: u32,
    /// How long an attempt may take while another may follow it; the last one has all the time that is left.
    pub attempt_timeout: Duration,
    /// How long all attempts may take together.
    pub timeout: Duration,
    /// The bounds of the time after which a second attempt starts beside the first; between them, what 95 % of the last puts took.
    pub hedge_delay: (Duration, Duration),
    /// How many extra attempts each put earns: 0.1 lets a lasting trouble add a tenth to the requests.
    pub budget_ratio: f64,
    /// How many extra attempts can be saved up; a store that was just opened has as many.
    pub budget_max: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            attempt_timeout: Duration::from_millis(1_500),
            timeout: Duration::from_secs(5),
            hedge_delay: (Duration::from_millis(50), Duration::from_millis(500)),
            budget_ratio: 0.1,
            budget_max: 10.0,
        }
    }
}

impl Policy {
    /// Returns the policy of a local folder: a disk that is slow does not become faster by writing twice.
    pub fn local() -> Self {
        Self { attempts_max: 1, ..Self::default() }
    }
}

/// Why a segment is not known to be durable.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It may be stored, now or later. The profiles in it may be sent again under the same ids, and count once.
    #[error("it is unknown whether {key} was written, after {attempts} attempts")]
    Unknown {
        /// Its key.
        key: SegmentKey,
        /// How many attempts were made.
        attempts: u32,
        /// What went wrong last.
        source: Cause,
    },
    /// It is not stored and will not be.
    #[error("{key} was not written, after {attempts} attempts")]
    Failed {
        /// The key it would have had.
        key: SegmentKey,
        /// How many attempts were made.
        attempts: u32,
        /// What went wrong last.
        source: Cause,
    },
}

impl PutError {
    /// Returns how wrong the clock of this machine is, where that is why.
    pub fn skew(&self) -> Option<Skew> {
        match self.cause() {
            Cause::Clock(skew) => Some(*skew),
            _ => None,
        }
    }

    /// Returns what is wrong with the tenant's commits, where that is why: it says nothing about the store, nor about other tenants.
    pub fn damage(&self) -> Option<&commit::Error> {
        match self.cause() {
            Cause::Boundary(error) if error.is_damage() => Some(error),
            _ => None,
        }
    }

    fn cause(&self) -> &Cause {
        let (Self::Unknown { source, .. } | Self::Failed { source, .. }) = self;
        source
    }
}

/// What went wrong with an attempt.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The store answered with an error, or the connection broke.
    #[error("the store failed")]
    Store(#[from] object_store::Error),
    /// The store did not answer in time.
    #[error("no answer within {after:?}")]
    NoAnswer {
        /// How long was waited.
        after: Duration,
    },
    /// The answer came so late that what was written may count as removed already.
    #[error("the answer came after {after:?}, too late to rely on")]
    TooSlow {
        /// How long it took, by the clock that says more.
        after: Duration,
    },
    /// There was no time left for any attempt.
    #[error("the deadline had passed")]
    TooLate,
    /// The clock of this machine is so far from the store's that what was named by it may count as removed.
    #[error("{0}")]
    Clock(Skew),
    /// The boundary, above which a segment is to be named, could not be read.
    #[error("the commits, which say where names of segments begin, could not be read")]
    Boundary(#[source] Box<commit::Error>),
}

/// What the puts of one store learn from each other.
#[derive(Debug)]
pub(crate) struct Pace {
    policy: Policy,
    latencies: Latencies,
    budget: Budget,
}

impl Pace {
    pub(crate) fn new(policy: Policy) -> Self {
        let budget = Budget::new(policy.budget_max, policy.budget_ratio, policy.budget_max);
        Self { budget, latencies: Latencies::new(LATENCIES_KEPT), policy }
    }

    /// Returns how long an attempt may take before it is hedged.
    fn hedge_delay(&self) -> Duration {
        let (shortest, longest) = self.policy.hedge_delay;
        self.latencies.quantile(HEDGE_QUANTILE, LATENCIES_NEEDED).map_or(longest, |slow| slow.clamp(shortest, longest))
    }
}

/// How often, and how patiently, an object is written that no profile waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tries {
    /// How many attempts there are at most.
    pub(crate) attempts_max: u32,
    /// How long each may take.
    pub(crate) attempt_timeout: Duration,
    /// The pause after a failed attempt; doubled for each one before it.
    pub(crate) backoff: Duration,
}

impl Store {
    /// Writes an object whose bytes are the same, or will do as well, whoever writes it: so it may be written again.
    ///
    /// # Errors
    /// What went wrong last; the object may be there all the same.
    pub(crate) async fn put_again(
        &self,
        key: &Path,
        payload: PutPayload,
        mode: PutMode,
        tries: Tries,
    ) -> Result<(), Cause> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let put = self.inner.objects.put_opts(key, payload.clone(), PutOptions::from(mode.clone()));
            let (fault, cause) = match timeout(tries.attempt_timeout, put).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => (Fault::of(&error), Cause::Store(error)),
                Err(_) => (Fault::Ambiguous, Cause::NoAnswer { after: tries.attempt_timeout }),
            };
            if !fault.is_passing() || attempt == tries.attempts_max {
                return Err(cause);
            }
            sleep(tries.backoff * 2u32.pow(attempt - 1)).await;
        }
    }

    /// Writes a segment of `tenant` and returns its key once it is durable: on the provider's word, or with file and folder synced.
    ///
    /// It gives up at `deadline`, or earlier by the [`Policy`]. Costs one PUT; up to three where the store is slow or fails. Every few
    /// minutes, and at first, it costs what it takes to read the tenant's boundary besides, unless others of this process do that.
    /// Dropping the future leaves the outcome unknown.
    ///
    /// # Errors
    /// [`PutError::Unknown`] where the segment may be stored all the same, [`PutError::Failed`] where it cannot be.
    pub async fn put_segment(
        &self,
        tenant: &TenantId,
        bytes: Bytes,
        deadline: Instant,
    ) -> Result<SegmentKey, PutError> {
        let pace = &self.inner.pace;
        let named = |boundary| {
            let named_millis = self.inner.clock.unix_millis();
            (named_millis, SegmentKey { tenant: tenant.clone(), name: self.next_segment_name(boundary, named_millis) })
        };
        let not_named = |source| PutError::Failed { key: named(0).1, attempts: 0, source };
        let began = Instant::now();
        let deadline = deadline.min(began + pace.policy.timeout);
        if began >= deadline {
            return Err(not_named(Cause::TooLate));
        }
        let boundary = match timeout_at(deadline, self.boundary(tenant)).await {
            Ok(Ok(boundary)) => boundary,
            Ok(Err(error)) => return Err(not_named(Cause::Boundary(Box::new(error)))),
            Err(_) => return Err(not_named(Cause::TooLate)),
        };
        let began = Instant::now();
        let (named_millis, key) = named(boundary);
        let path = key.path();
        pace.budget.earn();
        let mut in_flight = FuturesUnordered::new();
        let mut attempts = 0;
        let mut may_have_written = false;
        let mut last = Cause::TooLate;
        // When the next attempt starts: at once, then as a hedge, then after a failure.
        let mut next = Some(began);
        while !in_flight.is_empty() || next.is_some() {
            tokio::select! {
                biased;
                Some(result) = in_flight.next(), if !in_flight.is_empty() => {
                    let (fault, cause) = match result {
                        Ok((latency, taken)) => {
                            pace.latencies.record(latency);
                            if let Some(skew) = self.skew(taken) {
                                return Err(PutError::Unknown { key, attempts, source: Cause::Clock(skew) });
                            }
                            let passed = self.inner.clock.unix_millis().saturating_sub(named_millis);
                            let after = began.elapsed().max(Duration::from_millis(passed));
                            if after < ACKNOWLEDGED_AGE_MAX {
                                return Ok(key);
                            }
                            return Err(PutError::Unknown { key, attempts, source: Cause::TooSlow { after } });
                        }
                        Err(Cause::Store(error)) => (Fault::of(&error), Cause::Store(error)),
                        Err(cause) => (Fault::Ambiguous, cause),
                    };
                    tracing::debug!(%key, attempt = attempts, ?fault, error = ?cause, "attempt to put a segment failed");
                    may_have_written |= fault.may_have_written();
                    last = cause;
                    next = if fault.is_passing() && attempts < pace.policy.attempts_max {
                        let retry = Instant::now() + self.backoff(fault, attempts);
                        Some(next.map_or(retry, |hedge| hedge.min(retry))).filter(|at| *at < deadline)
                    } else {
                        None
                    };
                }
                () = sleep_until(next.unwrap_or(deadline)), if next.is_some() => {
                    next = None;
                    if attempts > 0 {
                        if !pace.budget.spend() {
                            self.inner.metrics.put_budget_refusals.inc();
                            continue;
                        }
                        let counter = if in_flight.is_empty() { &self.inner.metrics.put_retries } else { &self.inner.metrics.put_hedges };
                        counter.inc();
                    }
                    attempts += 1;
                    let now = Instant::now();
                    let is_last = attempts == pace.policy.attempts_max;
                    let until = if is_last { deadline } else { deadline.min(now + pace.policy.attempt_timeout) };
                    in_flight.push(self.attempt(&path, bytes.clone(), until));
                    if !is_last && in_flight.len() < IN_FLIGHT_MAX {
                        next = Some(now + pace.hedge_delay()).filter(|at| *at < deadline);
                    }
                }
            }
        }
        Err(if may_have_written {
            PutError::Unknown { key, attempts, source: last }
        } else {
            PutError::Failed { key, attempts, source: last }
        })
    }

    /// Compares the clock with what the answer to a put says of the store's, if it says anything.
    fn skew(&self, taken: Option<TakenAt>) -> Option<Skew> {
        let TakenAt(taken_millis) = taken?;
        let skew = Skew::of(self.inner.clock.unix_millis(), taken_millis)?;
        // Names never go back, but what had this one is not acknowledged: once the clock is right, they are to be right soon.
        let furthest = taken_millis.saturating_add(SKEW_MAX.as_millis() as u64);
        self.inner.last_millis.fetch_min(furthest, Ordering::Relaxed);
        Some(skew)
    }

    async fn attempt(&self, path: &Path, bytes: Bytes, until: Instant) -> Result<(Duration, Option<TakenAt>), Cause> {
        let began = Instant::now();
        match timeout_at(until, self.inner.objects.put(path, PutPayload::from_bytes(bytes))).await {
            Ok(result) => Ok(result.map(|result| (began.elapsed(), result.extensions.get().copied()))?),
            Err(_) => Err(Cause::NoAnswer { after: began.elapsed() }),
        }
    }

    fn backoff(&self, fault: Fault, attempts: u32) -> Duration {
        let longest =
            if fault == Fault::Throttled { BACKOFF_THROTTLED } else { BACKOFF } * 2u32.pow(attempts.saturating_sub(1));
        longest.mul_f64(0.5 + self.inner.random.next_unit() / 2.0)
    }

    /// The time in the names of one writer never goes back, whatever its clock does: listings rely on it. And it lies well above the
    /// boundary.
    fn next_segment_name(&self, boundary: u64, now_millis: u64) -> SegmentName {
        let inner = &self.inner;
        let least = match boundary {
            0 => 0,
            boundary => boundary.saturating_add(NAMES_ABOVE.as_millis() as u64),
        };
        let millis = now_millis.max(least);
        let millis = inner.last_millis.fetch_max(millis, Ordering::Relaxed).max(millis);
        SegmentName::new(millis, &inner.writer, inner.random.next_u64())
    }
}

#[cfg(test)]
mod tests;
