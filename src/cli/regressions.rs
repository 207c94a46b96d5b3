//! `afterglow regressions`: which functions changed beyond noise.

use std::io::Write as _;

use afterglow_proto::v1::{FunctionValue, Regression, RegressionsRequest, RegressionsResponse};

use super::forms::{FilterArgs, SumArgs};
use super::table::{self, counted, printable};
use super::{BaseArgs, Connection, Output, SelectionArgs, refused, write_json, write_text};

/// Tells which functions cost another share than before, beyond what instances and moments differ by anyway.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow regressions '{service=\"api\", version=\"2\"}' --base '{service=\"api\", version=\"1\"}' --type cpu\n  \
    afterglow regressions '{service=\"api\"}' --type cpu --from -1h --base-from -25h\n  \
    afterglow regressions '{service=\"api\"}' --type cpu --from -1h --output json | jq '.changes[].name'")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    base: BaseArgs,
    /// Compares what functions used with all they called, not what they used themselves.
    #[arg(long)]
    total: bool,
    /// The least change that is listed, as a part of what the function was: 0.05 is a twentieth.
    #[arg(long, default_value_t = 0.05, value_name = "PART")]
    min_change: f64,
    /// Functions below this share of the total are not looked at.
    #[arg(long, default_value_t = 0.005, value_name = "SHARE")]
    min_share: f64,
    /// The chance that a program that did not change raises an alarm.
    #[arg(long, default_value_t = 0.05, value_name = "CHANCE")]
    alarm_chance: f64,
    /// The most functions to list.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Lists functions that did not change as well.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    sums: SumArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let selection = args.selection.selection();
    let value = if args.total { FunctionValue::SeriesValueTotal } else { FunctionValue::SeriesValueSelf };
    let request = RegressionsRequest {
        base: args.base.selection(&args.selection),
        selection: Some(selection),
        sample_type: args.sums.sample_type,
        explain: args.sums.explain.explain,
        value: value.into(),
        min_change: args.min_change,
        min_share: args.min_share,
        alarm_chance: args.alarm_chance,
        limit: args.limit,
        all: args.all,
        filter: Some(args.filter.into()),
    };
    let mut client = args.connection.query_client().await?;
    let answer = client.regressions(request).await.map_err(refused)?.into_inner();
    args.sums.explain.tell_all(answer.completeness.as_ref(), &answer.warnings, answer.explain.as_ref());
    match args.sums.output {
        Output::Json => write_json(&answer),
        Output::Table => {
            write_text(None, &listed(&answer.changes))?;
            writeln!(std::io::stderr(), "{}", summary(&answer))?;
            Ok(())
        }
    }
}

/// Renders the functions in columns, the surest change first.
fn listed(changes: &[Regression]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let percent = |share: f64| format!("{:.2}%", 100.0 * share);
    // With --all most are no change: those that are have a mark.
    let mut rows = vec![["", "CHANGE", "ERROR", "BEFORE", "NOW", "CHANCE", "FUNCTION"].map(str::to_owned)];
    rows.extend(changes.iter().map(|of| {
        let change = if of.change.is_finite() { format!("{:+.1}%", 100.0 * of.change) } else { "new".to_owned() };
        let error = if of.change_error.is_finite() { percent(of.change_error) } else { String::new() };
        let mark = if of.significant { "*" } else { "" }.to_owned();
        [
            mark,
            change,
            error,
            percent(of.base_share),
            percent(of.share),
            format!("{:.2e}", of.chance),
            printable(&of.name),
        ]
    }));
    table::render(&rows)
}

/// Says what was compared.
fn summary(answer: &RegressionsResponse) -> String {
    let significant = answer.changes.iter().filter(|change| change.significant).count();
    let found = if significant == 0 { "nothing".to_owned() } else { format!("{significant} listed with *") };
    let more = match answer.changes_truncated {
        0 => String::new(),
        more => format!(" ({more} rows more with a higher --limit)"),
    };
    format!(
        "{found} changed beyond noise{more}: {} of {} in {} against {} in {}",
        counted(answer.tested, "function"),
        counted(answer.profiles, "profile"),
        counted(answer.cells, "cell"),
        counted(answer.base_profiles, "profile"),
        counted(answer.base_cells, "cell")
    )
}
