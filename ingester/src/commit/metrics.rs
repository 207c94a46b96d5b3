//! What group commit counts: a flush is a PUT, and PUTs are the bill.

use std::time::Duration;

use afterglow_store::block;
use afterglow_store::put::PutError;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::{FlushError, TENANTS_MAX, Written};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    /// `durable`, `unknown`, `failed` or `error`.
    outcome: &'static str,
}

/// A flush takes from a local fsync to its time-out.
const FLUSH_BUCKETS_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// The metrics of group commit; clones count into the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    flushes: Family<Outcome, Counter>,
    flush_seconds: Histogram,
    flush_profiles: Histogram,
    in_flight: Gauge,
    waiting: Gauge,
    tenants: Gauge,
    profiles: Counter,
    raw_bytes: Counter,
    stored_bytes: Counter,
    blobs: Counter,
}

impl Metrics {
    /// Makes the metrics and registers them: call it once for a registry.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            flushes: Family::default(),
            flush_seconds: Histogram::new(FLUSH_BUCKETS_SECONDS),
            // 1 to 4096 by fours.
            flush_profiles: Histogram::new(exponential_buckets(1.0, 4.0, 7)),
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            tenants: Gauge::default(),
            profiles: Counter::default(),
            raw_bytes: Counter::default(),
            stored_bytes: Counter::default(),
            blobs: Counter::default(),
        };
        let flushes =
            "Flushes by outcome: durable, unknown (may be stored), failed (is not), error (could not be built)";
        registry.register("afterglow_commit_flushes", flushes, metrics.flushes.clone());
        let seconds = "Time from the cut of a segment to its outcome, in seconds";
        registry.register("afterglow_commit_flush_seconds", seconds, metrics.flush_seconds.clone());
        registry.register("afterglow_commit_flush_profiles", "Profiles of a flush", metrics.flush_profiles.clone());
        registry.register("afterglow_commit_flushes_in_flight", "Flushes under way", metrics.in_flight.clone());
        registry.register("afterglow_commit_profiles", "Profiles made durable", metrics.profiles.clone());
        let waiting = "Segments that are due and wait for a flush before them to end (--flushes-in-flight)";
        registry.register("afterglow_commit_segments_waiting", waiting, metrics.waiting.clone());
        let tenants = "Tenants that have profiles under way";
        registry.register("afterglow_commit_tenants", tenants, metrics.tenants.clone());
        let tenants_max = Gauge::<i64>::default();
        tenants_max.set(TENANTS_MAX as i64);
        let tenants = "Tenants that may have profiles under way; those of others are refused for some seconds";
        registry.register("afterglow_commit_tenants_limit", tenants, tenants_max);
        registry.register(
            "afterglow_commit_raw_bytes",
            "Bytes of profiles added to segments, after gunzip",
            metrics.raw_bytes.clone(),
        );
        registry.register(
            "afterglow_commit_stored_bytes",
            "Bytes of segments made durable",
            metrics.stored_bytes.clone(),
        );
        let blobs = "Profiles added as they came, because columns do not give them back bit for bit";
        registry.register("afterglow_commit_blobs", blobs, metrics.blobs.clone());
        // What begins at 1 is no rise to whoever watches.
        for outcome in ["durable", "unknown", "failed", "error"] {
            drop(metrics.flushes.get_or_create(&Outcome { outcome }));
        }
        metrics
    }

    pub(super) fn added(&self, added: &block::Added, raw_bytes: u64) {
        self.raw_bytes.inc_by(raw_bytes);
        if !added.columns {
            self.blobs.inc();
        }
    }

    /// Shows what is under way: so many tenants, and segments that wait.
    pub(super) fn looked(&self, tenants: usize, waiting: usize) {
        self.tenants.set(tenants as i64);
        self.waiting.set(waiting as i64);
    }

    pub(super) fn began(&self) {
        self.in_flight.inc();
    }

    pub(super) fn ended(&self, written: &Result<Written, FlushError>, profiles: usize, took: Duration) {
        self.in_flight.dec();
        self.flush_seconds.observe(took.as_secs_f64());
        self.flush_profiles.observe(profiles as f64);
        let outcome = match written {
            Ok(written) => {
                self.profiles.inc_by(profiles as u64);
                self.stored_bytes.inc_by(written.bytes);
                "durable"
            }
            Err(FlushError::Put(PutError::Unknown { .. })) => "unknown",
            Err(FlushError::Put(PutError::Failed { .. })) => "failed",
            Err(_) => "error",
        };
        self.flushes.get_or_create(&Outcome { outcome }).inc();
    }
}
