//! `afterglow stats`: what is stored.

use std::fmt::Write as _;

use afterglow_proto::v1::{StatsRequest, StatsResponse};

use super::table::{self, bytes_text, printable, time_text};
use super::{Connection, Output, refused, warn_incomplete, write_json, write_text};

/// Says what is stored, by level and by service, and how long it is kept.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow stats\n  \
    afterglow stats --output json | jq .storedBytes")]
pub(crate) struct Args {
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut client = args.connection.query_client().await?;
    let answer = client.stats(StatsRequest {}).await.map_err(refused)?.into_inner();
    warn_incomplete(answer.completeness.as_ref());
    match args.output {
        Output::Json => write_json(&answer),
        Output::Table => write_text(None, &listed(&answer)),
    }
}

/// Renders the sums, then levels, services and rules in columns.
fn listed(answer: &StatsResponse) -> String {
    let time = |time: &Option<afterglow_proto::Timestamp>| time.as_ref().map(time_text).unwrap_or_default();
    let mut text = format!(
        "{} profiles, {} as they were sent, {} stored, commit {}\n",
        answer.profiles,
        bytes_text(answer.raw_bytes),
        bytes_text(answer.stored_bytes),
        answer.commit
    );
    let mut levels = vec![["LEVEL", "BLOCKS", "SIZE", "PROFILES"].map(str::to_owned)];
    for level in &answer.levels {
        levels.push([
            level.level.to_string(),
            level.blocks.to_string(),
            bytes_text(level.bytes),
            level.profiles.to_string(),
        ]);
    }
    let head = ["SERVICE", "TYPE", "PROFILES", "SERIES", "SENT", "STORED", "FIRST", "LAST"];
    let mut services = vec![head.map(str::to_owned)];
    for of in &answer.services {
        services.push([
            printable(&of.service),
            of.r#type.clone(),
            of.profiles.to_string(),
            of.series.to_string(),
            bytes_text(of.raw_bytes),
            bytes_text(of.stored_bytes),
            time(&of.first),
            time(&of.last),
        ]);
    }
    let _ = write!(text, "\n{}\n{}", table::render(&levels), table::render(&services));
    if !answer.retention.is_empty() {
        let mut rules = vec![["KEPT", "FOR", "SIZE AT MOST"].map(str::to_owned)];
        for rule in &answer.retention {
            let age = rule.max_age.as_ref().map(|age| std::time::Duration::from_secs(age.seconds.unsigned_abs()));
            let age = age.map_or("ever".to_owned(), |age| humantime::format_duration(age).to_string());
            let bytes = if rule.max_bytes == 0 { String::new() } else { bytes_text(rule.max_bytes) };
            rules.push([printable(&rule.selector), age, bytes]);
        }
        let _ = write!(text, "\n{}", table::render(&rules));
    }
    text
}
