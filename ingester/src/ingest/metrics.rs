//! What ingest counts. No label carries a value of a sender's.

use std::time::Duration;

use afterglow_service::Kind;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Accepted, Refused};

/// How a profile came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// On a gRPC stream.
    GrpcStream,
    /// By a unary gRPC call.
    Grpc,
    /// By an HTTP request.
    Http,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    protocol: &'static str,
    /// `accepted`, `duplicate`, `limited`, `too_large`, or the gRPC code of the refusal.
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Way {
    protocol: &'static str,
}

/// From a local folder without a tick to the longest that anybody waits.
const ACK_BUCKETS_SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0];

/// The metrics of ingest; clones count into the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    profiles: Family<Outcome, Counter>,
    bytes: Family<Way, Counter>,
    ack_seconds: Family<Way, Histogram>,
}

// === impl Protocol ===

impl Protocol {
    /// Returns the word for it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::GrpcStream => "grpc_stream",
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Makes the metrics and registers them: call it once for a registry.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(ACK_BUCKETS_SECONDS);
        let metrics = Self {
            profiles: Family::default(),
            bytes: Family::default(),
            ack_seconds: Family::new_with_constructor(histogram),
        };
        let profiles = "Profiles by the way they came and how it ended: accepted, duplicate, limited (by a limit of its tenant), \
                        too_large, or the code of the refusal";
        registry.register("afterglow_ingest_profiles", profiles, metrics.profiles.clone());
        registry.register(
            "afterglow_ingest_bytes",
            "Bytes of profiles as sent, whatever came of them",
            metrics.bytes.clone(),
        );
        registry.register(
            "afterglow_ingest_ack_seconds",
            "Time from a profile's last byte to its acknowledgement, in seconds",
            metrics.ack_seconds.clone(),
        );
        // What begins at 1 is no rise to whoever watches.
        for protocol in [Protocol::GrpcStream, Protocol::Grpc, Protocol::Http].map(Protocol::as_str) {
            drop(metrics.profiles.get_or_create(&Outcome { protocol, outcome: "accepted" }));
            drop(metrics.bytes.get_or_create(&Way { protocol }));
            drop(metrics.ack_seconds.get_or_create(&Way { protocol }));
        }
        metrics
    }

    pub(super) fn pushed(&self, protocol: Protocol, bytes: u64, result: &Result<Accepted, Refused>, took: Duration) {
        let way = Way { protocol: protocol.as_str() };
        self.bytes.get_or_create(&way).inc_by(bytes);
        match result {
            Ok(accepted) => {
                self.count(protocol, if accepted.duplicate { "duplicate" } else { "accepted" });
                self.ack_seconds.get_or_create(&way).observe(took.as_secs_f64());
            }
            Err(refused) => self.refused(protocol, refused.failure.kind()),
        }
    }

    pub(super) fn refused(&self, protocol: Protocol, kind: Kind) {
        self.count(protocol, outcome_of(kind));
    }

    fn count(&self, protocol: Protocol, outcome: &'static str) {
        self.profiles.get_or_create(&Outcome { protocol: protocol.as_str(), outcome }).inc();
    }
}

/// Returns the word for a refusal. All three that gRPC calls RESOURCE_EXHAUSTED want something else of the operator: room, another limit
/// of a tenant, or a sender that sends less at once.
fn outcome_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Limited => "limited",
        Kind::TooLarge => "too_large",
        kind => kind.code_name(),
    }
}
