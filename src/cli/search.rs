//! `afterglow search`: which profiles there are.

use std::io::Write as _;

use afterglow_profile::measure;
use afterglow_proto::v1::{ProfileInfo, SearchRequest, SearchResponse};

use super::explain::ExplainArgs;
use super::table::{self, bytes_text, printable, time_text};
use super::{Connection, Output, SelectionArgs, refused, warn_incomplete, write_json, write_text};

/// The largest page a server gives; a larger `--limit` is fetched in several.
const PAGE_MAX: u32 = 10_000;

/// Lists profiles, newest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow search '{service=\"api\"}' --type cpu\n  \
    afterglow search '{dc=~\"eu-.*\", version!=\"1.4\"}' --from 2026-11-23T22:00:00Z --to 2026-11-23T23:00:00Z\n  \
    afterglow search --output json --limit 1 | jq -r '.profiles[0].id'")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// The most profiles to list.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// How to print them.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    explain: ExplainArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut client = args.connection.query_client().await?;
    let selection = args.selection.selection();
    let mut found = SearchResponse::default();
    loop {
        let request = SearchRequest {
            selection: Some(selection.clone()),
            limit: (args.limit - found.profiles.len() as u32).min(PAGE_MAX),
            cursor: std::mem::take(&mut found.next_cursor),
            explain: args.explain.explain,
        };
        let page = client.search(request).await.map_err(refused)?.into_inner();
        args.explain.tell(page.explain.as_ref());
        found.explain = page.explain;
        found.profiles.extend(page.profiles);
        found.completeness = page.completeness.or(found.completeness);
        found.next_cursor = page.next_cursor;
        if found.next_cursor.is_empty() || found.profiles.len() >= args.limit as usize {
            break;
        }
    }
    warn_incomplete(found.completeness.as_ref());
    match args.output {
        Output::Json => write_json(&found),
        Output::Table => {
            write_text(None, &listed(&found.profiles))?;
            if found.profiles.is_empty() {
                let (from, to) = (args.selection.window.from, args.selection.window.to);
                let (from, to) = (time_text(&from.timestamp()), time_text(&to.timestamp()));
                let _ = writeln!(
                    std::io::stderr(),
                    "nothing from {from} to {to}: a profile counts at the time it was taken; --from -7d looks further back"
                );
            }
            if !found.next_cursor.is_empty() {
                let _ =
                    writeln!(std::io::stderr(), "there are more: raise --limit {} or narrow the window", args.limit);
            }
            Ok(())
        }
    }
}

/// Renders the profiles in columns: id, time, type, service, size, first total, other labels.
fn listed(profiles: &[ProfileInfo]) -> String {
    let mut rows = vec![["ID", "TIME", "TYPE", "SERVICE", "SIZE", "SAMPLES", "TOTAL", "LABELS"].map(str::to_owned)];
    for p in profiles {
        let total = p.totals.last().map(|t| measure::text(t.value, &t.unit)).unwrap_or_default();
        let labels: Vec<String> = p
            .labels
            .iter()
            .filter(|(name, _)| name.as_str() != "service")
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        rows.push([
            p.id.clone(),
            p.time.as_ref().map(time_text).unwrap_or_default(),
            p.r#type.clone(),
            printable(&p.service),
            bytes_text(p.bytes),
            p.samples.to_string(),
            total,
            labels.join(","),
        ]);
    }
    table::render(&rows)
}
