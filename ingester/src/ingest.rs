//! The one way in: every protocol translates to a [`Request`] and calls [`Ingest::push`], which returns when the
//! profile is durable or says why it is not.
//!
//! ```text
//! request ─▶ check names ─▶ claim the id ─▶ [pool: inflate, decode, type, time, add to a segment] ─▶ flush
//! ```
//!
//! What is cheap is checked first; nothing is inflated for a profile whose labels are wrong. The profile's bytes hold a
//! permit of the byte budget on the whole way, and a core is waited for only so long, so that under overload the
//! ingester refuses early instead of working on what nobody waits for any more: calls before their bodies are read
//! ([`Ingest::admit`]).
//!
//! A caller may stop waiting at any await. What was added to a segment by then is committed, and its outcome is
//! remembered for the retry.

use std::sync::Arc;
use std::time::Duration;

use afterglow_profile::{Error, ErrorKind, Limits};
use afterglow_service::telemetry::Place;
use afterglow_service::{Failure, Kind};
use afterglow_store::clock::{self, Clock, Random};
use afterglow_store::paths::TenantId;
use afterglow_store::retention::Policy;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use ulid::Ulid;

use crate::budget::{Budget, Permit};
use crate::commit::{self, FLUSH_TIMEOUT, RETRY_DELAY};
use crate::pool::{Busy, Pool, Slot, Ticket};
use crate::recent::{Claim, Durable, GivenUp, Outcome, Pending, Recent, Seen};

mod accept;
mod metrics;
pub(crate) mod names;
mod quota;

pub(crate) use accept::TimeWindow;
pub(crate) use metrics::{Metrics, Protocol};
pub(crate) use names::{Checked, Names};
pub(crate) use quota::Rates;

use quota::Quota;

/// How long a sender waits that found no core.
const SLOT_DELAY: Duration = Duration::from_secs(2);

/// What an answer needs to reach its caller before the caller's deadline.
const ANSWER_MARGIN: Duration = Duration::from_millis(200);

/// A profile as a protocol hands it over.
#[derive(Debug)]
pub(crate) struct Request {
    /// How it came.
    pub(crate) protocol: Protocol,
    /// Whose it is.
    pub(crate) tenant: TenantId,
    /// What its sender calls it.
    pub(crate) names: Names,
    /// When the profile began, in nanoseconds since 1970, if the sender says so. The pprof's own time wins.
    pub(crate) time_nanos: Option<i64>,
    /// How long it was recorded, in nanoseconds, if the sender says so. The pprof's own duration wins.
    pub(crate) duration_nanos: Option<i64>,
    /// The pprof, gzip'd or not.
    pub(crate) body: Bytes,
    /// What pays for the body: at least its length.
    pub(crate) permit: Permit,
    /// When the caller stops waiting.
    pub(crate) deadline: Option<Instant>,
    /// Dropped when a core begins with the profile: what a stream waits for before it reads the next one.
    pub(crate) turn: Option<OwnedSemaphorePermit>,
    /// What it was let in with before its body came, where it was asked then.
    pub(crate) ticket: Option<Ticket>,
    /// The trace it belongs to, where that is not the one of the call it came by.
    pub(crate) trace: Option<Place>,
}

/// A profile that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Its identity.
    pub(crate) id: Ulid,
    /// The same id with the same bytes had been acknowledged already.
    pub(crate) duplicate: bool,
    /// What was accepted but looks wrong.
    pub(crate) warnings: Vec<String>,
    /// What makes a reader see at least this profile.
    pub(crate) read_token: String,
}

/// A profile that is not durable, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Its identity, once it had one.
    pub(crate) id: Option<Ulid>,
    /// Why.
    pub(crate) failure: Failure,
}

/// The parts that ingest is made of.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// The byte budget.
    pub(crate) budget: Budget,
    /// The threads.
    pub(crate) pool: Pool,
    /// Where profiles become durable.
    pub(crate) commit: commit::Handle,
    /// The ids seen lately.
    pub(crate) recent: Recent,
    /// What tells the time of arrival.
    pub(crate) clock: Arc<dyn Clock>,
    /// What mints ids.
    pub(crate) random: Arc<dyn Random>,
    /// What counts.
    pub(crate) metrics: Metrics,
}

/// How much is accepted.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What a profile may hold.
    pub(crate) limits: Limits,
    /// Which times of profiles are believed.
    pub(crate) time_window: TimeWindow,
    /// How long a sender may stop in the middle of a profile.
    pub(crate) stall_timeout: Duration,
    /// How long profiles are kept: what is older already is not taken.
    pub(crate) retention: Policy,
    /// How much a tenant may send.
    pub(crate) rates: Rates,
    /// The time between two ticks of group commit.
    pub(crate) flush_interval: Duration,
}

/// Takes profiles; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Ingest(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    options: Options,
    quota: Quota,
    in_flight: TaskTracker,
    draining: CancellationToken,
}

// === impl Ingest ===

impl Ingest {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts, options: Options) -> Self {
        let quota = Quota::new(options.rates);
        let (in_flight, draining) = (TaskTracker::new(), CancellationToken::new());
        Self(Arc::new(Inner { parts, options, quota, in_flight, draining }))
    }

    /// Stores a profile, and returns when it is durable.
    ///
    /// # Errors
    /// [`Refused`] with the reason. Where its kind is retriable, the same request with the same id counts once, however
    /// it ends.
    pub(crate) async fn push(&self, request: Request) -> Result<Accepted, Refused> {
        // Counted before the look at the flag: a drain that begins in between waits for this one.
        let _in_flight = self.0.in_flight.token();
        let began = Instant::now();
        let (protocol, body_bytes) = (request.protocol, request.body.len() as u64);
        let span = tracing::info_span!(
            "ingest",
            protocol = protocol.as_str(),
            tenant = %request.tenant,
            bytes = body_bytes,
            id = tracing::field::Empty,
            service = tracing::field::Empty,
        );
        if let Some(trace) = &request.trace {
            trace.adopt(&span);
        }
        let result = self.push_counted(request).instrument(span).await;
        self.0.parts.metrics.pushed(protocol, body_bytes, &result, began.elapsed());
        result
    }

    async fn push_counted(&self, request: Request) -> Result<Accepted, Refused> {
        let refused = |failure| Refused { id: None, failure };
        if self.0.draining.is_cancelled() {
            return Err(refused(Failure::shutting_down()));
        }
        self.0.parts.commit.admit().map_err(refused)?;
        self.0.quota.charge(&request.tenant, request.body.len() as u64, Instant::now()).map_err(refused)?;
        let id = names::parse_id(&request.names.id).map_err(refused)?;
        let id = id.unwrap_or_else(|| clock::mint_ulid(&*self.0.parts.clock, &*self.0.parts.random));
        tracing::Span::current().record("id", tracing::field::display(id));
        self.push_as(id, request).await.map_err(|failure| Refused { id: Some(id), failure })
    }

    async fn push_as(&self, id: Ulid, request: Request) -> Result<Accepted, Failure> {
        let checked = request.names.check()?;
        tracing::Span::current().record("service", checked.labels.service());
        let labels = names::digest(&checked.labels);
        let deadline = self.answer_by(request.deadline);
        loop {
            match self.0.parts.recent.claim(&request.tenant, id) {
                Seen::Never(claim, pending) => {
                    let warnings = self.accept(request, claim, checked).await?;
                    // Without an outcome a flush was dropped half-way.
                    let outcome = self.wait(id, pending, deadline).await;
                    let durable = outcome.unwrap_or_else(|GivenUp| Err(self.outcome_unknown(id)))?;
                    return Ok(accepted(id, false, warnings, durable));
                }
                Seen::InFlight(pending) => match self.wait(id, pending, deadline).await {
                    Ok(Ok(durable)) => return self.compare(id, request, labels, durable).await,
                    Ok(Err(failure)) if failure.retry_after().is_some() => return Err(failure),
                    // The other one was refused or went away. That says nothing of what this one brings.
                    Ok(Err(_)) | Err(GivenUp) => {}
                },
                Seen::Durable(durable) => return self.compare(id, request, labels, durable).await,
            }
        }
    }

    /// Checks the profile and adds it to a segment, on a thread of the pool; returns what looks wrong with it. The
    /// claim goes with the profile.
    async fn accept(&self, request: Request, claim: Claim, checked: Checked) -> Result<Vec<String>, Failure> {
        let Request { tenant, time_nanos, duration_nanos, body, mut permit, turn, ticket, .. } = request;
        let slot = self.slot(turn, ticket).await?;
        permit.begin_work(accept::work_bytes(&body, &self.0.options.limits)).await?;
        let work = accept::Work { tenant, claim, checked, time_nanos, duration_nanos, body, permit };
        let ingest = self.clone();
        slot.run(move || {
            let Inner { parts, options, .. } = &*ingest.0;
            work.run(options, parts.clock.unix_nanos(), &parts.commit)
        })
        .await
        .map_err(Failure::internal)?
    }

    /// Answers a push of an id that is durable: a duplicate if it brings the same bytes, with a warning where it brings other labels.
    async fn compare(&self, id: Ulid, request: Request, labels: u64, durable: Durable) -> Result<Accepted, Failure> {
        let Request { body, mut permit, turn, ticket, .. } = request;
        let slot = self.slot(turn, ticket).await?;
        permit.begin_work(accept::work_bytes(&body, &self.0.options.limits)).await?;
        let ingest = self.clone();
        let sha256 = slot
            .run(move || {
                let _permit = permit;
                accept::digest(&body, &ingest.0.options.limits)
            })
            .await
            .map_err(Failure::internal)??;
        if sha256 == durable.sha256 {
            let warnings = if labels == durable.labels {
                Vec::new()
            } else {
                vec![format!("id {id} is stored with the labels of its first push; those of this one were not used")]
            };
            Ok(accepted(id, true, warnings, durable))
        } else {
            Err(Failure::already_exists(format!("id {id} already names another profile")))
        }
    }

    async fn slot(&self, turn: Option<OwnedSemaphorePermit>, ticket: Option<Ticket>) -> Result<Slot, Failure> {
        let slot = self.0.parts.pool.slot(ticket).await;
        drop(turn);
        slot.map_err(|busy| self.busy(busy))
    }

    /// Decides, before anything of a profile is read, whether there is a core for it in time.
    ///
    /// # Errors
    /// [`Busy`], which [`Ingest::busy`] puts into words.
    pub(crate) fn admit(&self) -> Result<Ticket, Busy> {
        self.0.parts.pool.admit()
    }

    /// Says that there is no core in time, and when to come back.
    pub(crate) fn busy(&self, busy: Busy) -> Failure {
        Failure::exhausted(format!("ingester is busy: {busy}"), self.spread(SLOT_DELAY))
    }

    /// Waits for how a push ends; at the deadline nobody knows.
    async fn wait(&self, id: Ulid, pending: Pending, deadline: Instant) -> Result<Outcome, GivenUp> {
        match timeout_at(deadline, pending.outcome()).await {
            Ok(outcome) => outcome,
            Err(_) => Ok(Err(self.outcome_unknown(id))),
        }
    }

    /// Returns when the answer has to be on its way: with flushes that keep up none takes longer than a tick and a
    /// flush.
    fn answer_by(&self, deadline: Option<Instant>) -> Instant {
        let patience = Instant::now() + self.0.options.flush_interval + FLUSH_TIMEOUT;
        match deadline {
            Some(deadline) => patience.min(deadline.checked_sub(ANSWER_MARGIN).unwrap_or(deadline)),
            None => patience,
        }
    }

    fn outcome_unknown(&self, id: Ulid) -> Failure {
        commit::outcome_unknown(id, self.spread(RETRY_DELAY))
    }

    /// Returns a delay between `least` and twice that, so that senders refused together do not come back together.
    fn spread(&self, least: Duration) -> Duration {
        least.mul_f64(1.0 + self.0.parts.random.next_unit())
    }

    /// Returns the byte budget, for what reads bodies.
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.parts.budget
    }

    /// Returns how much is accepted.
    pub(crate) fn limits(&self) -> &Limits {
        &self.0.options.limits
    }

    /// Returns how long a sender may stop in the middle of a profile.
    pub(crate) fn stall_timeout(&self) -> Duration {
        self.0.options.stall_timeout
    }

    /// Returns the clock that says what is now.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.0.parts.clock
    }

    /// Counts a profile that was refused before it became a request.
    pub(crate) fn count_refused(&self, protocol: Protocol, kind: Kind) {
        self.0.parts.metrics.refused(protocol, kind);
    }

    /// Returns what is cancelled when the ingester begins to drain.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }

    /// Refuses all that comes from now on, makes all that is open due, and waits until everything under way is
    /// answered.
    pub(crate) async fn drain(&self) {
        self.0.draining.cancel();
        self.0.parts.commit.drain();
        self.0.in_flight.close();
        self.0.in_flight.wait().await;
    }

    /// Returns how many profiles are under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.in_flight.len()
    }
}

fn accepted(id: Ulid, duplicate: bool, warnings: Vec<String>, durable: Durable) -> Accepted {
    Accepted { id, duplicate, warnings, read_token: durable.segment.as_str().to_owned() }
}

/// Says that a sender stopped in the middle of a profile for that long.
pub(crate) fn stalled(timeout: Duration) -> Failure {
    let timeout = humantime::format_duration(timeout);
    Failure::deadline_exceeded(format!("no bytes for {timeout} in the middle of a profile (--limits.stall-timeout)"))
}

/// Refuses a body for its length.
pub(crate) fn body_too_large(bytes: u64, limits: &Limits) -> Failure {
    profile_failure(&Error::Body { bytes, limit: limits.body_bytes_max })
}

/// Folds the refusal of a profile's bytes.
fn profile_failure(error: &Error) -> Failure {
    match error.kind() {
        ErrorKind::TooLarge => Failure::too_large(error.to_string()),
        ErrorKind::Invalid => Failure::invalid(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
