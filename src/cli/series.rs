//! `afterglow series`: how a sum moves over time.

use std::io::Write as _;
use std::time::Duration;

use afterglow_profile::measure::Scale;
use afterglow_proto::v1::{FunctionValue, SampleType, SeriesRequest, TimeSeries};

use super::forms::{FilterArgs, SumArgs};
use super::table::{self, printable, time_text};
use super::{Connection, Output, SelectionArgs, duration, refused, write_json, write_text};

/// Sums profiles over time, one series for each value of some labels.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow series --type cpu --by service --from -24h --step 1h\n  \
    afterglow series '{service=\"api\"}' --type heap --sample-type inuse_space --by version\n  \
    afterglow series --type cpu --by service --function runtime.mallocgc --value self\n  \
    afterglow series '{service=\"api\"}' --type cpu --output json | jq '.series[0].points'")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// The length of a step, such as 5m; by default a round one of which at most 120 lie in the window.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    step: Option<Duration>,
    /// The labels that tell series apart, comma separated; type is the profile type.
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    by: Vec<String>,
    /// A function, by its full name: the values then are its own.
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Which value of the function.
    #[arg(long, value_enum, default_value_t = Value::Total, requires = "function")]
    value: Value,
    /// The most series, those with the largest totals.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    sums: SumArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    connection: Connection,
}

/// The values of a function.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Value {
    /// Of the samples in which it occurs.
    Total,
    /// Of the samples whose leaf it is.
    #[value(name = "self")]
    Itself,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let request = SeriesRequest {
        selection: Some(args.selection.selection()),
        step: args.step.map(duration).transpose()?,
        by: args.by.clone(),
        sample_type: args.sums.sample_type,
        explain: args.sums.explain.explain,
        function: args.function.unwrap_or_default(),
        value: match args.value {
            Value::Total => FunctionValue::SeriesValueTotal,
            Value::Itself => FunctionValue::SeriesValueSelf,
        }
        .into(),
        limit: args.limit,
        filter: Some(args.filter.into()),
    };
    let mut client = args.connection.query_client().await?;
    let answer = client.series(request).await.map_err(refused)?.into_inner();
    args.sums.explain.tell_all(answer.completeness.as_ref(), &answer.warnings, answer.explain.as_ref());
    match args.sums.output {
        Output::Json => write_json(&answer),
        Output::Table => {
            write_text(None, &listed(answer.sample_type.as_ref(), &answer.series))?;
            if answer.series_truncated > 0 {
                let more = answer.series_truncated;
                let _ = writeln!(std::io::stderr(), "there are {more} series more: raise --limit {}", args.limit);
            }
            Ok(())
        }
    }
}

/// Renders the points in columns: labels, time, value, profiles.
pub(super) fn listed(sample_type: Option<&SampleType>, series: &[TimeSeries]) -> String {
    let labels = series.first().map(|series| series.labels.keys().map(|name| printable(name).to_uppercase()));
    let (kind, unit) = sample_type.map(|t| (t.r#type.as_str(), t.unit.as_str())).unwrap_or_default();
    let values = || series.iter().flat_map(|series| &series.points).map(|point| point.value);
    let largest = values().max_by_key(|value| value.unsigned_abs()).unwrap_or_default();
    let scale = Scale::new(unit, values().map(|value| value.unsigned_abs().into()), largest);
    let mut head: Vec<String> = labels.into_iter().flatten().collect();
    head.extend(["TIME".to_owned(), printable(kind).to_uppercase(), "PROFILES".to_owned()]);
    let mut rows = vec![head];
    for TimeSeries { labels, points, .. } in series {
        for point in points {
            let mut row: Vec<String> = labels.values().map(|value| printable(value)).collect();
            let time = point.time.as_ref().map(time_text).unwrap_or_default();
            row.extend([time, scale.text(point.value), point.profiles.to_string()]);
            rows.push(row);
        }
    }
    table::render(&rows)
}
