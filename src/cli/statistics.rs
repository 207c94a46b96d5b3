//! `afterglow statistics`: how the shares of functions spread over instances or time.

use std::fmt::Write as _;
use std::time::Duration;

use afterglow_proto::v1::{
    FunctionStatistics, FunctionValue, Spread, StatisticsGroup, StatisticsRequest, StatisticsResponse,
};

use super::forms::{FilterArgs, SumArgs};
use super::table::{self, counted, printable, time_text};
use super::top::labels_text;
use super::{Connection, Output, SelectionArgs, duration, refused, write_json, write_text};

/// How many outliers of a function are named; JSON has them all.
const OUTLIERS_SHOWN: usize = 3;

/// Says how the share of each function spreads over groups of profiles, and which of them are odd.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow statistics '{service=\"api\"}' --type cpu --by instance\n  \
    afterglow statistics '{service=\"api\"}' --type cpu --from -24h --step 1h --function '^encoding/json'\n  \
    afterglow statistics '{service=\"api\"}' --type heap --sample-type inuse_space --by pod --output json | jq '.functions[].self.outliers'")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// The labels that tell groups apart, comma separated; without any, steps of time are the groups.
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    by: Vec<String>,
    /// Parts groups by steps of this length as well, such as 5m.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    step: Option<Duration>,
    /// A regular expression: only functions whose name or file it matches are listed.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REGEX")]
    function: String,
    /// Ranks and shows what functions used with all they called, not what they used themselves.
    #[arg(long)]
    total: bool,
    /// Functions below this share in all groups are not looked at, nor is a group that differs by less odd.
    #[arg(long, default_value_t = 0.005, value_name = "SHARE")]
    min_share: f64,
    /// The most functions to list.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    sums: SumArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let value = if args.total { FunctionValue::SeriesValueTotal } else { FunctionValue::SeriesValueSelf };
    let request = StatisticsRequest {
        selection: Some(args.selection.selection()),
        sample_type: args.sums.sample_type,
        by: args.by,
        step: args.step.map(duration).transpose()?,
        limit: args.limit,
        filter: Some(args.filter.into()),
        function: args.function,
        value: value.into(),
        min_share: args.min_share,
        explain: args.sums.explain.explain,
    };
    let mut client = args.connection.query_client().await?;
    let answer = client.statistics(request).await.map_err(refused)?.into_inner();
    args.sums.explain.tell_all(answer.completeness.as_ref(), &answer.warnings, answer.explain.as_ref());
    match args.sums.output {
        Output::Json => write_json(&answer),
        Output::Table => write_text(None, &listed(&answer, args.total)),
    }
}

/// Renders the spreads in columns, below a line that says of what.
fn listed(answer: &StatisticsResponse, total: bool) -> String {
    let value = if total { "total" } else { "self" };
    let unit = answer.sample_type.as_ref().map(|t| format!("{}/{}", t.r#type, t.unit)).unwrap_or_default();
    let mut text = format!(
        "shares of {unit}, {value}, in {} of {}\n",
        counted(answer.groups.len() as u64, "group"),
        counted(answer.profiles, "profile")
    );
    let head = ["MEAN", "DEVIATION", "MIN", "P5", "P50", "P95", "MAX", "FUNCTION", "ODD"].map(str::to_owned);
    let rows = answer.functions.iter().map(|FunctionStatistics { name, self_, total: whole, .. }| {
        let spread = if total { whole } else { self_ }.clone().unwrap_or_default();
        let Spread { mean, deviation, min, p5, p50, p95, max, .. } = spread;
        let [mean, deviation, min, p5, p50, p95, max] =
            [mean, deviation, min, p5, p50, p95, max].map(|share| format!("{:.2}%", 100.0 * share));
        [mean, deviation, min, p5, p50, p95, max, printable(name), odd(&spread, &answer.groups)]
    });
    let _ = write!(text, "{}", table::render(&[head].into_iter().chain(rows).collect::<Vec<_>>()));
    text
}

/// Names the groups that are odd, the oddest first.
fn odd(spread: &Spread, groups: &[StatisticsGroup]) -> String {
    let mut names: Vec<String> = (spread.outliers.iter().take(OUTLIERS_SHOWN))
        .filter_map(|of| {
            let StatisticsGroup { labels, time, .. } = groups.get(of.group as usize)?;
            let labels = if labels.is_empty() { String::new() } else { labels_text(labels) };
            let time = time.as_ref().map(time_text).unwrap_or_default();
            let name = [labels, time].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
            Some(format!("{name} {:.2}%", 100.0 * of.share))
        })
        .collect();
    let more = spread.outliers.len().saturating_sub(names.len());
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}
