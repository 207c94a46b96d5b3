//! Group commit: many profiles, one PUT, then the acknowledgements.
//!
//! ```text
//! pool threads ─▶ add ─▶ open segment ─▶ cut ─▶ finish (a thread) ─▶ put_segment ─▶ each claim gets its outcome
//! ```
//!
//! - A tenant has [`Lane`]s, each with at most one open segment. A second one is opened only when the first is busy and
//!   holds enough to be worth a PUT: at low load all goes into one segment, at high load as many threads as there are
//!   cores add at the same time.
//! - An open segment is *due* at the next tick or when it holds [`Options::flush_bytes`]; without one there is no
//!   flush. It is cut when it is due and its lane has fewer than [`Options::flushes_in_flight_max`] flushes under way;
//!   until then it grows, so a slow store gets larger segments, not more. What it may grow to is bounded by the byte
//!   budget, which its profiles hold.
//! - Every profile has its own [`Claim`] and gets its own outcome. What goes wrong with one while it is added
//!   fails that one; what goes wrong with a flush fails the profiles in it, and a panic is no exception.
//!
//! Invariant: a claim is resolved as durable only with a key that [`Store::put_segment`] returned.
//!
//! All state changes happen in [`Handle::add`] and in the one loop of [`Committer::run`], which owns every flush:
//! dropping that future stops them where they are.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use afterglow_profile::model::Profile;
use afterglow_service::Failure;
use afterglow_service::causes::Causes;
use afterglow_service::health::Part;
use afterglow_service::telemetry::Place;
use afterglow_store::Store;
use afterglow_store::block::{self, ProfileMeta, SegmentWriter};
use afterglow_store::clock::{Random, Skew};
use afterglow_store::paths::{SegmentName, TenantId};
use afterglow_store::put::PutError;
use afterglow_store::watch::Need;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{Instrument, Span};
use ulid::Ulid;

use crate::budget::Permit;
use crate::ingest::names;
use crate::pool::{Panicked, Pool};
use crate::recent::{Claim, Durable};

mod metrics;
mod outage;
mod watch;

pub(crate) use metrics::Metrics;
use outage::Outage;

/// How long a flush may take from its cut on, all attempts of its PUT together. Whoever waits longer is better served
/// by a retry.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes, as sent, that every open segment of a tenant has to hold before another is opened beside it. Below, a
/// thread rather waits for the one that adds: a millisecond or so, instead of a PUT. At 25 KB a profile this is 20 of
/// them.
const LANE_BYTES: u64 = 512 << 10;

/// How many tenants may have profiles on the way at once. Each has objects of its own, so each costs PUTs of its own.
const TENANTS_MAX: usize = 1024;

/// How long a sender waits that was refused because of [`TENANTS_MAX`]: a few flushes.
const TENANTS_DELAY: Duration = Duration::from_secs(5);

/// The least that a sender waits after a flush failed; chance makes it up to twice that.
pub(crate) const RETRY_DELAY: Duration = Duration::from_secs(1);

/// How many traces a flush is linked to: as many as OpenTelemetry keeps of a span by default.
const LINKS_MAX: usize = 128;

/// When a segment is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The time between two ticks: what an open segment waits for at most while flushes keep up.
    pub(crate) flush_interval: Duration,
    /// The bytes of profiles, as they were sent, that make a segment due before the tick.
    pub(crate) flush_bytes: u64,
    /// How many flushes of one lane may be under way.
    pub(crate) flushes_in_flight_max: usize,
}

/// A profile that is checked and ready to be added.
#[derive(Debug)]
pub(crate) struct Ready {
    /// What it is.
    pub(crate) meta: ProfileMeta,
    /// The duty to say how it ended.
    pub(crate) claim: Claim,
    /// What it takes of the byte budget; given back when its flush ends.
    pub(crate) permit: Permit,
    /// Its length as it was sent.
    pub(crate) body_bytes: u64,
}

/// The loop that cuts and flushes; there is one.
#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
}

/// Adds profiles; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    store: Store,
    pool: Pool,
    random: Arc<dyn Random>,
    metrics: Metrics,
    tenants: Mutex<HashMap<TenantId, Arc<Tenant>>>,
    /// Wakes the loop: a segment became due, or a lane that had one is free again.
    wake: Notify,
    draining: AtomicBool,
    outage: Outage,
}

#[derive(Debug)]
struct Tenant {
    id: TenantId,
    lanes: Box<[Lane]>,
}

/// A place for one open segment.
#[derive(Debug, Default)]
struct Lane {
    open: Mutex<Option<Open>>,
    /// What its open segment holds. This and what follows is outside of the lock, so that nobody need wait for a thread
    /// that adds.
    body_bytes: AtomicU64,
    /// Its open segment waits to be cut.
    due: AtomicBool,
    flushing: AtomicUsize,
}

#[derive(Debug)]
struct Open {
    writer: SegmentWriter,
    profiles: Vec<Added>,
    body_bytes: u64,
}

#[derive(Debug)]
struct Added {
    claim: Claim,
    sha256: [u8; 32],
    /// A digest of its labels.
    labels: u64,
    body_bytes: u64,
    /// Gives back its bytes when the flush has ended.
    permit: Permit,
    /// Where it is traced, if it is.
    trace: Option<Place>,
}

/// A segment that is durable.
#[derive(Debug)]
struct Written {
    segment: SegmentName,
    bytes: u64,
}

/// Why a flush failed.
#[derive(Debug, thiserror::Error)]
enum FlushError {
    #[error("the segment cannot be built")]
    Build(#[from] block::Error),
    #[error("the segment cannot be built")]
    Panic(#[from] Panicked),
    #[error(transparent)]
    Put(#[from] PutError),
}

// === impl Committer ===

impl Committer {
    /// Creates the loop and the handle that feeds it. Nothing is flushed before [`Committer::run`] is polled.
    pub(crate) fn new(
        options: Options,
        store: Store,
        pool: Pool,
        random: Arc<dyn Random>,
        metrics: Metrics,
    ) -> (Self, Handle) {
        let shared = Arc::new(Shared {
            options,
            store,
            pool,
            random,
            metrics,
            tenants: Mutex::default(),
            wake: Notify::new(),
            draining: AtomicBool::new(false),
            outage: Outage::default(),
        });
        (Self { shared: Arc::clone(&shared) }, Handle { shared })
    }

    /// Keeps `part` told whether the store takes profiles, until it is dropped.
    pub(crate) fn watch(
        &self,
        need: Need,
        part: Part,
    ) -> impl Future<Output = std::convert::Infallible> + Send + use<> {
        watch::watch(Arc::clone(&self.shared), need, part)
    }

    /// Cuts and flushes until it is dropped.
    pub(crate) async fn run(self) -> std::convert::Infallible {
        let interval = self.shared.options.flush_interval;
        let mut ticks = interval_at(Instant::now() + interval, interval);
        // A tick that comes late is not made up for: the next segment fills for a whole interval again.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut flushes = FuturesUnordered::new();
        loop {
            tokio::select! {
                // What is rarest comes first, so that none starves the next; by chance would be no fairer, and would not replay.
                biased;
                _ = ticks.tick() => self.shared.tick(),
                Some(()) = flushes.next(), if !flushes.is_empty() => {}
                () = self.shared.wake.notified() => {}
            }
            flushes.extend(self.shared.cut_due());
        }
    }
}

// === impl Handle ===

impl Handle {
    /// Says whether a profile has a chance to be stored; ask before any work is done for it.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](afterglow_service::Kind::Unavailable) with a delay while the store is taken for down.
    pub(crate) fn admit(&self) -> Result<(), Failure> {
        let Some((since, skew)) = self.shared.outage.refuses() else { return Ok(()) };
        let text = match skew {
            Some(skew) => format!("not stored: {skew}"),
            None => format!("not stored: the object store has been failing for {} s", since.elapsed().as_secs()),
        };
        Err(Failure::unavailable(text, self.shared.spread(RETRY_DELAY)))
    }

    /// Adds a profile to an open segment; its claim is resolved when that is flushed, or at once when it cannot be
    /// added. Takes the CPU for as long as interning and verifying the profile does: call it on a thread of the pool.
    ///
    /// `raw` are the protobuf bytes, `profile` what they decode to.
    pub(crate) fn add(&self, tenant: &TenantId, ready: Ready, raw: &[u8], profile: &Profile<'_>) {
        let shared = &*self.shared;
        let Ready { meta, claim, permit, body_bytes } = ready;
        let Some(tenant) = shared.tenant(tenant) else {
            let text = format!("more than {TENANTS_MAX} tenants have profiles under way");
            return claim.resolve(Err(Failure::exhausted(text, shared.spread(TENANTS_DELAY))));
        };
        let labels = names::digest(&meta.labels);
        let (lane, mut open) = tenant.lane();
        let mut segment = open.take().unwrap_or_else(Open::new);
        match catch_unwind(AssertUnwindSafe(|| segment.writer.add(meta, raw, profile))) {
            Ok(Ok(added)) => {
                shared.metrics.added(&added, raw.len() as u64);
                let trace = Place::current();
                segment.profiles.push(Added { claim, sha256: added.sha256, labels, body_bytes, permit, trace });
                segment.body_bytes += body_bytes;
                let is_full = segment.body_bytes >= shared.options.flush_bytes;
                lane.body_bytes.store(segment.body_bytes, Ordering::SeqCst);
                *open = Some(segment);
                drop(open);
                if is_full || shared.draining.load(Ordering::SeqCst) {
                    lane.due.store(true, Ordering::SeqCst);
                }
            }
            Ok(Err(error)) if segment.profiles.is_empty() => {
                drop(open);
                claim.resolve(Err(Failure::internal(error)));
            }
            // An empty segment may have the room that this one lacks.
            Ok(Err(error)) => {
                tracing::debug!(error = %error, profiles = segment.profiles.len(), "segment is full");
                *open = Some(segment);
                drop(open);
                lane.due.store(true, Ordering::SeqCst);
                let not_stored = not_stored(claim.id(), shared.spread(RETRY_DELAY));
                claim.resolve(Err(not_stored));
            }
            Err(payload) => {
                drop(open);
                let failure = Failure::internal(Panicked::from_payload(payload.as_ref()));
                claim.resolve(Err(failure));
                // Whatever the writer was in the middle of, its tables are not to be trusted any more.
                for profile in segment.profiles {
                    let not_stored = not_stored(profile.claim.id(), shared.spread(RETRY_DELAY));
                    profile.claim.resolve(Err(not_stored));
                }
            }
        }
        // After the lane is free: the loop passes over a lane that is busy, and counts on being woken here.
        if lane.due.load(Ordering::SeqCst) {
            shared.wake.notify_one();
        }
    }

    /// Makes everything due that is open or comes to be: from now on nothing waits for a tick.
    pub(crate) fn drain(&self) {
        self.shared.draining.store(true, Ordering::SeqCst);
        self.shared.tick();
        self.shared.wake.notify_one();
    }
}

// === impl Shared ===

impl Shared {
    /// Returns the tenant's lanes; `None` when there are too many tenants.
    fn tenant(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        let mut tenants = self.lock_tenants();
        if let Some(tenant) = tenants.get(id) {
            return Some(Arc::clone(tenant));
        }
        if tenants.len() >= TENANTS_MAX {
            return None;
        }
        let lanes = (0..self.pool.threads()).map(|_| Lane::default()).collect();
        let tenant = Arc::new(Tenant { id: id.clone(), lanes });
        tenants.insert(id.clone(), Arc::clone(&tenant));
        Some(tenant)
    }

    /// Makes every segment due that is open now.
    fn tick(&self) {
        for tenant in self.lock_tenants().values() {
            for lane in &tenant.lanes {
                lane.due.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Takes the segments that can be flushed now out of their lanes, and forgets tenants that have nothing under way.
    fn cut_due(self: &Arc<Self>) -> Vec<BoxFuture<'static, ()>> {
        let (mut flushes, mut waiting) = (Vec::new(), 0);
        let mut tenants = self.lock_tenants();
        tenants.retain(|_, tenant| {
            let mut is_idle = true;
            for (index, lane) in tenant.lanes.iter().enumerate() {
                if let Some(segment) = lane.cut(self.options.flushes_in_flight_max) {
                    flushes.push(Arc::clone(self).flush(Arc::clone(tenant), index, segment).boxed());
                } else if lane.waits(self.options.flushes_in_flight_max) {
                    waiting += 1;
                }
                is_idle &= lane.is_idle();
            }
            // Whoever adds holds an `Arc` of its own, taken under the lock that is held here.
            !(is_idle && Arc::strong_count(tenant) == 1)
        });
        self.metrics.looked(tenants.len(), waiting);
        flushes
    }

    /// Flushes one segment and tells everybody in it.
    async fn flush(self: Arc<Self>, tenant: Arc<Tenant>, lane: usize, segment: Open) {
        let Open { writer, mut profiles, body_bytes } = segment;
        let count = profiles.len();
        let span = tracing::info_span!(
            "commit",
            tenant = %tenant.id,
            profiles = count,
            bytes = body_bytes,
            segment = tracing::field::Empty
        );
        trace(&span, &profiles);
        let began = Instant::now();
        self.metrics.began();
        let write = AssertUnwindSafe(self.write(&tenant.id, writer, &mut profiles)).catch_unwind();
        let written = write.instrument(span.clone()).await;
        let written = written.unwrap_or_else(|payload| Err(Panicked::from_payload(payload.as_ref()).into()));
        self.metrics.ended(&written, count, began.elapsed());
        match &written {
            Ok(_) => self.outage.learn(true),
            // Neither the commits of one tenant nor our own failure say anything about the store.
            Err(FlushError::Put(error)) if error.damage().is_some() => {}
            Err(FlushError::Build(_) | FlushError::Panic(_)) => {}
            Err(FlushError::Put(error)) => match error.skew() {
                Some(skew) => self.outage.learn_skew(skew),
                None => self.outage.learn(false),
            },
        }
        span.in_scope(|| self.resolve(written, profiles));
        tenant.lanes[lane].flushing.fetch_sub(1, Ordering::SeqCst);
    }

    async fn write(
        &self,
        tenant: &TenantId,
        writer: SegmentWriter,
        profiles: &mut [Added],
    ) -> Result<Written, FlushError> {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let finished = self.pool.run_ahead(move || writer.finish()).await??;
        for profile in profiles {
            // All that is left is the object, which is smaller than the bodies were.
            profile.permit.shrink_to(profile.body_bytes);
        }
        let bytes = finished.bytes.len() as u64;
        let key = self.store.put_segment(tenant, finished.bytes, deadline).await?;
        Ok(Written { segment: key.name, bytes })
    }

    /// Gives every profile of a flush its outcome.
    fn resolve(&self, written: Result<Written, FlushError>, profiles: Vec<Added>) {
        let failure_of: Box<dyn Fn(Ulid) -> Failure> = match written {
            Ok(Written { segment, bytes }) => {
                Span::current().record("segment", segment.as_str());
                tracing::debug!(stored_bytes = bytes, "segment is durable");
                for Added { claim, sha256, labels, .. } in profiles {
                    claim.resolve(Ok(Durable { sha256, labels, segment: segment.clone() }));
                }
                return;
            }
            Err(FlushError::Put(error)) => {
                let may_be_stored = matches!(error, PutError::Unknown { .. });
                tracing::warn!(error = %Causes(&error), "segment was not acknowledged");
                if let Some(skew) = error.skew() {
                    Box::new(move |id| wrong_clock(skew, id, self.spread(RETRY_DELAY)))
                } else if let Some(damage) = error.damage() {
                    let damage = damage.to_string();
                    Box::new(move |id| damaged(&damage, id, self.spread(RETRY_DELAY)))
                } else {
                    let failure = if may_be_stored { outcome_unknown } else { not_stored };
                    Box::new(move |id| failure(id, self.spread(RETRY_DELAY)))
                }
            }
            Err(error) => {
                let failure = Failure::internal(error);
                Box::new(move |_| failure.clone())
            }
        };
        for Added { claim, .. } in profiles {
            let failure = failure_of(claim.id());
            claim.resolve(Err(failure));
        }
    }

    /// Returns a delay between `least` and twice that, so that senders that failed together do not come back together.
    fn spread(&self, least: Duration) -> Duration {
        least.mul_f64(1.0 + self.random.next_unit())
    }

    fn lock_tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Tenant>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a flush into the trace of one of its profiles, and links it to those of the others: a span has one parent.
fn trace(flush: &Span, profiles: &[Added]) {
    let mut traces = profiles.iter().filter_map(|profile| profile.trace.as_ref()).filter(|trace| trace.is_sampled());
    if let Some(first) = traces.next() {
        first.adopt(flush);
    }
    for other in traces.take(LINKS_MAX) {
        other.link(flush);
    }
}

/// Says that a profile may or may not be stored, and what to do about it.
pub(crate) fn outcome_unknown(id: Ulid, delay: Duration) -> Failure {
    Failure::unavailable(format!("outcome unknown: retry with the same id {id}"), delay)
}

/// Says that nothing is acknowledged while the clock is wrong.
fn wrong_clock(skew: Skew, id: Ulid, delay: Duration) -> Failure {
    Failure::unavailable(format!("not acknowledged: {skew}; retry with the same id {id}"), delay)
}

/// Says that nothing of this tenant is stored until its commits are mended.
fn damaged(damage: &str, id: Ulid, delay: Duration) -> Failure {
    Failure::unavailable(format!("not stored: {damage}; retry with the same id {id}"), delay)
}

/// Says that a profile is not stored, through no fault of its own.
fn not_stored(id: Ulid, delay: Duration) -> Failure {
    Failure::unavailable(format!("not stored: retry with the same id {id}"), delay)
}

// === impl Tenant ===

impl Tenant {
    /// Returns the lane to add to, locked: the first open one that is not busy, else a busy one that is not worth a PUT
    /// yet, else a new one.
    fn lane(&self) -> (&Lane, MutexGuard<'_, Option<Open>>) {
        let mut unopened = None;
        let mut unworthy = None;
        for lane in &self.lanes {
            match lane.try_lock() {
                Some(open) if open.is_some() => return (lane, open),
                Some(open) => unopened = unopened.or(Some((lane, open))),
                None if lane.body_bytes.load(Ordering::SeqCst) < LANE_BYTES => unworthy = unworthy.or(Some(lane)),
                None => {}
            }
        }
        let wait = match (unworthy, unopened) {
            (None, Some(unopened)) => return unopened,
            // Another lane's lock must not be held meanwhile: somebody might wait for that one the other way round.
            (Some(lane), unopened) => {
                drop(unopened);
                lane
            }
            // There are as many lanes as threads of the pool: this is for callers from elsewhere.
            (None, None) => &self.lanes[0],
        };
        (wait, wait.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Lane ===

impl Lane {
    /// Takes the open segment out if it is due and may be flushed now. A lane that somebody adds to stays due: that
    /// somebody wakes the loop again.
    fn cut(&self, flushes_in_flight_max: usize) -> Option<Open> {
        if !self.due.load(Ordering::SeqCst) || self.flushing.load(Ordering::SeqCst) >= flushes_in_flight_max {
            return None;
        }
        let mut open = self.try_lock()?;
        self.due.store(false, Ordering::SeqCst);
        self.body_bytes.store(0, Ordering::SeqCst);
        let segment = open.take()?;
        self.flushing.fetch_add(1, Ordering::SeqCst);
        Some(segment)
    }

    /// Returns whether its open segment would be cut, were fewer flushes under way.
    fn waits(&self, flushes_in_flight_max: usize) -> bool {
        self.due.load(Ordering::SeqCst)
            && self.flushing.load(Ordering::SeqCst) >= flushes_in_flight_max
            && self.body_bytes.load(Ordering::SeqCst) > 0
    }

    fn is_idle(&self) -> bool {
        self.flushing.load(Ordering::SeqCst) == 0 && self.try_lock().is_some_and(|open| open.is_none())
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Option<Open>>> {
        match self.open.try_lock() {
            Ok(open) => Some(open),
            // Panics are caught while the lock is held; were one not, the segment would be gone, not broken.
            Err(TryLockError::Poisoned(open)) => Some(open.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

// === impl Open ===

impl Open {
    fn new() -> Self {
        Self { writer: SegmentWriter::new(block::Options::default()), profiles: Vec::new(), body_bytes: 0 }
    }
}

#[cfg(test)]
mod tests;
