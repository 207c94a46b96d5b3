//! `afterglow statistics`: how the shares of functions, and their amounts, spread over instances or time.

use std::fmt::Write as _;
use std::time::Duration;

use afterglow_profile::measure::Scale;
use afterglow_proto::v1::{
    FunctionStatistics, FunctionValue, Outlier, Spread, StatisticsGroup, StatisticsRequest, StatisticsResponse,
};

use super::forms::{FilterArgs, SumArgs};
use super::table::{self, counted, printable, time_text};
use super::top::labels_text;
use super::{Connection, Output, SelectionArgs, duration, refused, write_json, write_text};

/// How many outliers of a function are named; JSON has them all.
const OUTLIERS_SHOWN: usize = 3;

/// Says how the share of each function, and its amount, spreads over groups of profiles, and which of them are odd.
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

/// Renders the spreads in columns, below lines that say of what, and how much that is.
fn listed(answer: &StatisticsResponse, total: bool) -> String {
    let value = if total { "total" } else { "self" };
    let (kind, unit) = answer.sample_type.as_ref().map(|t| (t.r#type.as_str(), t.unit.as_str())).unwrap_or_default();
    let mut text = format!(
        "shares of {kind}/{unit}, {value}, in {} of {}\n",
        counted(answer.groups.len() as u64, "group"),
        counted(answer.profiles, "profile")
    );
    let amount = answer.amount.clone().unwrap_or_default();
    let spreads: Vec<(&FunctionStatistics, Spread, f64)> = (answer.functions.iter())
        .map(|of| {
            let (share, amount) = if total { (&of.total, &of.total_amount) } else { (&of.self_, &of.self_amount) };
            (of, share.clone().unwrap_or_default(), amount.as_ref().map_or(0.0, |amount| amount.p50))
        })
        .collect();
    let scale = Scale::new(unit, spreads.iter().map(|(.., median)| *median as u128), amount.p50 as i64);
    let [p5, p50, p95] = [amount.p5, amount.p50, amount.p95].map(|amount| scale.text(amount as i64));
    let odd_groups = odd(&amount, &answer.groups, |of| scale.text(of.amount as i64));
    let odd_groups = if odd_groups.is_empty() { String::new() } else { format!("; odd: {odd_groups}") };
    let _ = writeln!(text, "a profile has {p50} in the median, p5 {p5}, p95 {p95}{odd_groups}");
    let head = ["MEAN", "DEVIATION", "MIN", "P5", "P50", "P95", "MAX", "AMOUNT", "FUNCTION", "ODD"].map(str::to_owned);
    let rows = spreads.iter().map(|(of, spread, median)| {
        let Spread { mean, deviation, min, p5, p50, p95, max, .. } = *spread;
        let [mean, deviation, min, p5, p50, p95, max] = [mean, deviation, min, p5, p50, p95, max].map(percent);
        let odd = odd(spread, &answer.groups, |of| percent(of.share));
        [mean, deviation, min, p5, p50, p95, max, scale.text(*median as i64), printable(&of.name), odd]
    });
    let _ = write!(text, "{}", table::render(&[head].into_iter().chain(rows).collect::<Vec<_>>()));
    text
}

fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

/// Names the groups that are odd, the oddest first.
fn odd(spread: &Spread, groups: &[StatisticsGroup], value: impl Fn(&Outlier) -> String) -> String {
    let mut names: Vec<String> = (spread.outliers.iter().take(OUTLIERS_SHOWN))
        .filter_map(|of| {
            let StatisticsGroup { labels, time, .. } = groups.get(of.group as usize)?;
            let labels = if labels.is_empty() { String::new() } else { labels_text(labels) };
            let time = time.as_ref().map(time_text).unwrap_or_default();
            let name = [labels, time].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
            Some(format!("{name} {}", value(of)))
        })
        .collect();
    let more = spread.outliers.len().saturating_sub(names.len());
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use afterglow_proto::v1::SampleType;

    use super::*;

    /// Goal: an instance that is large and otherwise like the others is named, with how much it has beside what is usual.
    #[test]
    fn an_odd_amount_is_named_in_a_unit_that_fits() {
        let group = |instance: &str| StatisticsGroup {
            labels: [("instance".to_owned(), instance.to_owned())].into(),
            ..StatisticsGroup::default()
        };
        let of = |p50: f64, amount: f64| Spread {
            p50,
            outliers: vec![Outlier { group: 1, score: 99.0, amount, ..Outlier::default() }],
            ..Spread::default()
        };
        let spread = |p50: f64| Some(Spread { p50, ..Spread::default() });
        let text = listed(
            &StatisticsResponse {
                sample_type: Some(SampleType { r#type: "inuse_space".to_owned(), unit: "bytes".to_owned() }),
                groups: vec![group("a"), group("b")],
                functions: vec![FunctionStatistics {
                    name: "cache.put".to_owned(),
                    self_: spread(0.5),
                    self_amount: spread(524_288.0),
                    ..FunctionStatistics::default()
                }],
                amount: Some(of(1_048_576.0, 52_428_800.0)),
                profiles: 2,
                ..StatisticsResponse::default()
            },
            false,
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "shares of inuse_space/bytes, self, in 2 groups of 2 profiles");
        assert_eq!(lines[1], "a profile has 1024kB in the median, p5 0, p95 0; odd: {instance=\"b\"} 51200kB");
        let row: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(
            row,
            ["0.00%", "0.00%", "0.00%", "0.00%", "50.00%", "0.00%", "0.00%", "512kB", "cache.put"],
            "{text}"
        );
    }
}
