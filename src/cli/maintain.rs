//! `afterglow maintain`: compaction, retention and collection from the command line.

use std::io::Write as _;
use std::time::Duration;

use afterglow_ingester::maintenance::Retention;
use afterglow_service::{Program, shutdown, telemetry};
use afterglow_store::maintenance::{Maintainer, Report};
use afterglow_store::paths::BlockName;
use afterglow_store::{Environment, StorageUrl, StoreOptions};

/// Merges small blocks into large ones, deletes what is too old, and collects garbage
///
/// Ingesters do the same as they go (role maintain). Any number may run at once, here and there. Retention is a setting of each of
/// them, not of the bucket, and the shortest one deletes: give this command the --retention.* that the servers have, or it goes by 30 days.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow maintain --storage s3://profiles --once\n  \
    afterglow maintain --storage file:///var/lib/afterglow --once --grace 0s\n  \
    afterglow maintain --storage s3://profiles --dry-run --retention.rule '{service=\"batch\"}=7d'")]
pub(crate) struct Args {
    /// Where profiles are kept: file:///var/lib/afterglow, s3://bucket/prefix, gs://bucket, az://container
    #[arg(long, value_name = "URL")]
    storage: StorageUrl,
    /// Ends when nothing is left to do, instead of going on until it is stopped
    #[arg(long)]
    once: bool,
    /// Only says what retention would delete once everything is merged; merges segments in memory for that
    #[arg(long)]
    dry_run: bool,
    /// How long what was removed stays in the bucket, for questions that began before
    #[arg(long, value_name = "DURATION", default_value = "15min", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// How long profiles are kept.
    #[command(flatten)]
    retention: Retention,
    /// Logs.
    #[command(flatten)]
    telemetry: telemetry::Options,
}

/// What its traces are of.
const PROGRAM: Program = Program::new("afterglow-maintainer").built_from(crate::REVISION);

// === impl Args ===

impl Args {
    /// Returns what cannot work, one sentence each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let of_storage = Environment::of_process().problems(&self.storage);
        [self.retention.problems(), self.telemetry.problems(), of_storage].concat()
    }
}

/// Runs the command.
///
/// # Errors
/// Says that the bucket cannot be used, or which tenants could not be maintained.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let telemetry = telemetry::init(PROGRAM, &args.telemetry)?;
    let ended = maintain(args).await;
    telemetry.shutdown().await;
    ended
}

async fn maintain(args: Args) -> anyhow::Result<()> {
    let store = afterglow_store::open(&args.storage, StoreOptions::default()).await?;
    store.probe().await?;
    let mut options = args.retention.options();
    options.collection.grace = args.grace;
    let mut maintainer = Maintainer::new(store, options);
    let mut out = std::io::stdout();
    if args.dry_run {
        for (tenant, report) in maintainer.dry_run().await? {
            let (dropped, rewritten) = (report.dropped.len(), report.rewritten.len());
            let (profiles, bytes) = (report.profiles, report.bytes);
            let (about, in_segments) = match report.in_segments {
                0 => ("", String::new()),
                profiles => (
                    "about ",
                    format!("; {profiles} of them are not merged yet, so of blocks and bytes this is an estimate"),
                ),
            };
            writeln!(
                out,
                "{tenant}: would delete {about}{profiles} profiles, dropping {dropped} blocks and rewriting {rewritten} ({bytes} bytes){in_segments}"
            )?;
            for block in &report.damaged {
                writeln!(out, "{}", left_alone(block))?;
            }
        }
        return Ok(());
    }
    if args.once {
        let report = maintainer.run_to_rest().await?;
        writeln!(out, "{}", describe(&report))?;
        anyhow::ensure!(report.failed.is_empty(), "{}", failures(&report));
        return Ok(());
    }
    let stop = shutdown::on_signals()?;
    while let Some(report) = stop.run_until_cancelled(maintainer.round()).await {
        let report = report?;
        if report.compaction.committed > 0 {
            writeln!(out, "{}", describe(&report))?;
        }
        if stop.run_until_cancelled(tokio::time::sleep(maintainer.interval())).await.is_none() {
            break;
        }
    }
    Ok(())
}

fn describe(report: &Report) -> String {
    let (compaction, collection) = (&report.compaction, &report.collection);
    let dropped: u64 = report.retention.values().map(|report| report.profiles).sum();
    let mut text = format!(
        "{} merges of {} profiles ({} bytes into {}), {dropped} profiles deleted, {} objects collected ({} bytes), {} wait for their grace",
        compaction.committed,
        compaction.profiles,
        compaction.bytes_in,
        compaction.bytes_out,
        collection.segments + collection.blocks,
        collection.bytes,
        collection.waiting,
    );
    for block in &compaction.quarantined {
        text.push_str(&format!("\n{block} is damaged and was left alone"));
    }
    for block in report.retention.values().flat_map(|report| &report.damaged) {
        text.push_str(&format!("\n{}", left_alone(block)));
    }
    text
}

fn left_alone(block: &BlockName) -> String {
    format!("{block} is damaged: what rules would delete of it stays until all of it is too old")
}

fn failures(report: &Report) -> String {
    report.failed.iter().map(|(tenant, error)| format!("{tenant}: {error}")).collect::<Vec<_>>().join("; ")
}
