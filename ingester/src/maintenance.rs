//! The role `maintain`: compaction, retention and collection, beside the ingester or alone.
//!
//! `store::maintenance` does the work; here are its settings, its loop and what it counts. The loop has a thread and a connection
//! pool of its own: merging keeps a core busy for tenths of a second at a time, and no acknowledgement must wait for that.

use std::thread;
use std::time::Duration;

use afterglow_service::Metrics as Registry;
use afterglow_service::config::ByteSize;
use afterglow_store::maintenance::{Maintainer, Options, Report};
use afterglow_store::paths::WriterId;
use afterglow_store::retention::{Policy, Rule};
use afterglow_store::{StorageUrl, StoreOptions};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;
use tokio_util::sync::CancellationToken;

/// How long to wait before the store is opened again where that failed.
const REOPEN_PAUSE: Duration = Duration::from_secs(10);

/// The least memory that merging can do with: the tables of one large service.
const MEMORY_MIN: ByteSize = ByteSize::mib(16);

/// How the bucket is maintained.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct Config {
    /// How long what was removed stays in the bucket, for questions that began before
    #[arg(id = "maintenance.grace", long = "maintenance.grace", value_name = "DURATION", default_value = "15min", value_parser = humantime::parse_duration)]
    pub grace: Duration,
    /// Memory that merging blocks may take for tables and what is read ahead
    #[arg(id = "maintenance.memory", long = "maintenance.memory", value_name = "SIZE", default_value = "128MiB")]
    pub memory: ByteSize,
    /// How long profiles are kept.
    #[command(flatten)]
    pub retention: Retention,
}

/// How long profiles are kept.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct Retention {
    /// Age beyond which profiles are deleted, with their day, and beyond which none is taken; 0s for never. To be told to ingesters that do
    /// not maintain, too
    #[arg(id = "retention.max-age", long = "retention.max-age", value_name = "DURATION", default_value = "30d", value_parser = humantime::parse_duration)]
    pub age_max: Duration,
    /// Bytes in the bucket beyond which the oldest days are deleted, for each tenant
    #[arg(id = "retention.max-bytes", long = "retention.max-bytes", value_name = "SIZE")]
    pub bytes_max: Option<ByteSize>,
    /// Another age for the profiles that a selector matches, such as {service="batch"}=7d; 0s for never; the first that matches counts
    #[arg(id = "retention.rule", long = "retention.rule", value_name = "SELECTOR=AGE")]
    pub rules: Vec<Rule>,
}

// === impl Config ===

impl Config {
    /// Returns what cannot work, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.retention.problems();
        if self.memory < MEMORY_MIN {
            problems.push(format!(
                "maintenance.memory {} is below {MEMORY_MIN}: no large block could be merged",
                self.memory
            ));
        }
        problems
    }

    /// Returns the options of the store's part.
    pub fn options(&self) -> Options {
        let mut options = self.retention.options();
        options.collection.grace = self.grace;
        options.compaction.memory_max = self.memory.bytes();
        options
    }
}

impl Retention {
    /// Returns what cannot be meant, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        self.policy().problems()
    }

    /// Returns the options of the store's part, with this retention and the defaults of the rest.
    pub fn options(&self) -> Options {
        Options { retention: self.policy(), ..Options::default() }
    }

    /// Returns how long which profiles are kept.
    pub fn policy(&self) -> Policy {
        Policy {
            age_max: (!self.age_max.is_zero()).then_some(self.age_max),
            rules: self.rules.clone(),
            bytes_max: self.bytes_max.map(ByteSize::bytes),
        }
    }
}

/// What maintenance counts.
#[derive(Clone, Debug, Default)]
struct Metrics {
    rounds: Counter,
    failures: Counter,
    compactions: Counter,
    races_lost: Counter,
    profiles: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    quarantined: Counter,
    segments_left: Gauge,
    oldest_left: Gauge,
    dropped: Counter,
    collected: Counter,
    collected_bytes: Counter,
}

impl Metrics {
    fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        let m = &metrics;
        registry.register(|registry| {
            let part = registry.sub_registry_with_prefix("afterglow_maintenance");
            part.register("rounds", "Rounds over all tenants", m.rounds.clone());
            part.register("failures", "Tenants whose round failed", m.failures.clone());
            part.register("compactions", "Merges of blocks that were committed", m.compactions.clone());
            let help = "Merges of blocks that were given up because another process was faster";
            part.register("races_lost", help, m.races_lost.clone());
            part.register("compacted_profiles", "Profiles in merges that were committed", m.profiles.clone());
            let help = "Bytes of blocks that were merged";
            part.register_with_unit("compacted_in", help, Unit::Bytes, m.bytes_in.clone());
            let help = "Bytes of blocks that came out of merges";
            part.register_with_unit("compacted_out", help, Unit::Bytes, m.bytes_out.clone());
            part.register("quarantined", "Blocks found damaged and left alone since", m.quarantined.clone());
            part.register(
                "segments_waiting",
                "Segments that wait to be merged, as of the last round",
                m.segments_left.clone(),
            );
            let help = "Age of the oldest segment that waits to be merged, as of the last round";
            part.register_with_unit("oldest_segment", help, Unit::Seconds, m.oldest_left.clone());
            part.register("dropped_profiles", "Profiles that retention deleted", m.dropped.clone());
            part.register("collected_objects", "Objects deleted from the bucket", m.collected.clone());
            part.register_with_unit(
                "collected",
                "Bytes deleted from the bucket",
                Unit::Bytes,
                m.collected_bytes.clone(),
            );
        });
        metrics
    }

    fn count(&self, report: &Report) {
        self.rounds.inc();
        self.failures.inc_by(report.failed.len() as u64);
        let compaction = &report.compaction;
        self.compactions.inc_by(compaction.committed as u64);
        self.races_lost.inc_by(compaction.lost as u64);
        self.profiles.inc_by(compaction.profiles);
        self.bytes_in.inc_by(compaction.bytes_in);
        self.bytes_out.inc_by(compaction.bytes_out);
        let by_rules: usize = report.retention.values().map(|report| report.quarantined).sum();
        self.quarantined.inc_by((compaction.quarantined.len() + by_rules) as u64);
        self.segments_left.set(i64::try_from(compaction.segments_left).unwrap_or(i64::MAX));
        self.oldest_left.set(i64::try_from(compaction.oldest_left.as_secs()).unwrap_or(i64::MAX));
        self.dropped.inc_by(report.retention.values().map(|report| report.profiles).sum());
        self.collected.inc_by((report.collection.segments + report.collection.blocks) as u64);
        self.collected_bytes.inc_by(report.collection.bytes);
    }
}

/// Maintains the bucket at `storage` until `stop`, on a thread of its own; `store_options` are those of the process, and the segments of
/// `writer`, if any, are merged here first.
///
/// Stopping drops what is under way, as a crash would: nothing is lost, and nothing needs to be waited for.
pub fn spawn(
    storage: StorageUrl,
    store_options: StoreOptions,
    writer: Option<WriterId>,
    config: &Config,
    registry: &Registry,
    stop: CancellationToken,
) {
    let metrics = Metrics::register(registry);
    let mut options = config.options();
    options.compaction.writer = writer;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system gives what a runtime needs to a process that just began");
    let work = move || {
        runtime.block_on(stop.run_until_cancelled(maintain(storage, store_options, options, metrics)));
    };
    let thread = thread::Builder::new().name("maintenance".to_owned()).spawn(work);
    thread.expect("the system gives a thread to a process that just began");
}

async fn maintain(
    storage: StorageUrl,
    store_options: StoreOptions,
    options: Options,
    metrics: Metrics,
) -> std::convert::Infallible {
    let store = loop {
        match afterglow_store::open(&storage, store_options.clone()).await {
            Ok(store) => break store,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "maintenance cannot open the storage");
                tokio::time::sleep(REOPEN_PAUSE).await;
            }
        }
    };
    let mut maintainer = Maintainer::new(store, options);
    loop {
        match maintainer.round().await {
            Ok(report) => metrics.count(&report),
            Err(error) => {
                metrics.failures.inc();
                tracing::warn!(error = &error as &dyn std::error::Error, "maintenance could not look around");
            }
        }
        tokio::time::sleep(maintainer.interval()).await;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        config: Config,
    }

    fn config(args: &[&str]) -> Config {
        Program::try_parse_from([&["program"], args].concat()).expect("arguments").config
    }

    /// Goal: profiles are deleted at last unless somebody says otherwise, and never by an empty setting.
    #[test]
    fn retention_is_finite_by_default() {
        let days = |days: u64| Duration::from_secs(days * 24 * 3_600);
        let policy = config(&[]).options().retention;
        assert_eq!((policy.age_max, policy.bytes_max, policy.rules.len()), (Some(days(30)), None, 0));
        let policy = config(&[
            "--retention.max-age=0s",
            "--retention.max-bytes=10GiB",
            "--retention.rule={service=\"batch\"}=7d",
            "--retention.rule={dc=\"eu\"}=90d",
            "--retention.rule={dc=\"us\"}=0s",
        ])
        .options()
        .retention;
        assert_eq!((policy.age_max, policy.bytes_max), (None, Some(10 << 30)));
        assert_eq!(
            policy.rules.iter().map(|rule| rule.age_max).collect::<Vec<_>>(),
            [Some(days(7)), Some(days(90)), None]
        );
    }

    #[test]
    fn a_merge_needs_memory() {
        assert_eq!(config(&[]).problems(), [""; 0]);
        assert_eq!(config(&["--maintenance.memory=1MiB"]).problems().len(), 1);
    }

    #[test]
    fn two_ages_for_one_selector_are_refused() {
        let rules = ["--retention.rule={dc=\"eu\"}=90d", "--retention.rule={dc=\"eu\"}=0s"];
        assert_eq!(config(&rules).problems().len(), 1);
    }
}
