//! What the agent says of itself on `/metrics`: scrapes by outcome, and what became of the profiles.

use std::fmt;
use std::sync::atomic::AtomicU64;

use afterglow_service::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::upload::Client;

/// How a scrape ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A profile was handed to the stream.
    Ok,
    /// The target did not answer, or not in time.
    Unreachable,
    /// The target answered with an error.
    Refused,
    /// The answer is over the limit.
    TooLarge,
    /// There is no token to present: nothing was asked.
    NoToken,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScrapeLabels {
    outcome: &'static str,
}

/// Counts scrapes.
#[derive(Clone, Debug)]
pub(super) struct Scrapes(Family<ScrapeLabels, Counter<u64, AtomicU64>>);

impl Scrapes {
    /// Registers the counter.
    pub(super) fn new(metrics: &Metrics) -> Self {
        let scrapes = Family::<ScrapeLabels, Counter<u64, AtomicU64>>::default();
        // What begins at 1 is no rise to whoever watches.
        for outcome in [Outcome::Ok, Outcome::Unreachable, Outcome::Refused, Outcome::TooLarge, Outcome::NoToken] {
            drop(scrapes.get_or_create(&ScrapeLabels { outcome: outcome.name() }));
        }
        let help = "Scrapes of a profile type of a target, by outcome";
        metrics.register(|registry| registry.register("afterglow_agent_scrapes", help, scrapes.clone()));
        Self(scrapes)
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.0.get_or_create(&ScrapeLabels { outcome: outcome.name() }).inc();
    }
}

impl Outcome {
    /// Returns the value of the label.
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::NoToken => "no_token",
        }
    }
}

/// Reads a client's statistics when asked.
#[derive(Debug)]
pub(super) struct Uploads(pub(super) Client);

impl Collector for Uploads {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.0.stats();
        for (name, help, value) in [
            ("accepted", "Profiles taken into the queue", stats.accepted),
            ("acked", "Profiles acknowledged as durable", stats.acked),
            ("duplicates", "Acknowledged profiles that the server had acknowledged before", stats.duplicates),
            ("refused", "Profiles that the server refused for good", stats.refused),
            ("expired", "Profiles given up at their deadline", stats.expired),
            ("dropped", "Profiles dropped because the queue was full", stats.dropped),
        ] {
            add(&mut encoder, &format!("afterglow_agent_profiles_{name}"), help, &ConstCounter::new(value))?;
        }
        let retries = ConstCounter::new(stats.retries);
        add(&mut encoder, "afterglow_agent_push_retries", "Answers that asked for another try", &retries)?;
        let streams = ConstCounter::new(stats.streams);
        add(&mut encoder, "afterglow_agent_push_streams", "Push streams opened", &streams)?;
        let queued = ConstGauge::new(i64::try_from(stats.queued).unwrap_or(i64::MAX));
        add(&mut encoder, "afterglow_agent_queue_profiles", "Profiles whose outcome is not known", &queued)?;
        let bytes = ConstGauge::new(i64::try_from(stats.queued_bytes).unwrap_or(i64::MAX));
        add(&mut encoder, "afterglow_agent_queue_bytes", "Bytes that they take", &bytes)?;
        let limit = ConstGauge::new(i64::try_from(self.0.queue_bytes_max()).unwrap_or(i64::MAX));
        let help = "Bytes that they may take; beyond, the oldest are dropped (queue of the file)";
        add(&mut encoder, "afterglow_agent_queue_limit_bytes", help, &limit)
    }
}

fn add(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
