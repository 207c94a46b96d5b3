//! `afterglow function`: all about one function.

use std::fmt::Write as _;
use std::time::Duration;

use afterglow_proto::v1::{FunctionRequest, FunctionResponse, TopFunction};

use super::forms::{FilterArgs, SumArgs, scale};
use super::table::{self, printable};
use super::top::labels_text;
use super::{Connection, Output, WindowArgs, duration, refused, series, write_json, write_text};

/// Says all about one function: its share by label, who calls it, whom it calls, its history.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow function runtime.mallocgc --type cpu\n  \
    afterglow function 'main.(*Server).handle' --query '{service=\"api\"}' --type cpu --by version --from -7d --step 1d")]
pub(crate) struct Args {
    /// The function, by its full name.
    #[arg(value_name = "NAME")]
    name: String,
    /// A selector, such as '{service="api", dc=~"eu-.*"}'.
    #[arg(long, value_name = "SELECTOR", default_value = "{}")]
    query: String,
    #[command(flatten)]
    window: WindowArgs,
    /// The labels that tell groups apart, comma separated; type is the profile type.
    #[arg(long, value_name = "LABELS", value_delimiter = ',', default_value = "service")]
    by: Vec<String>,
    /// The length of a step of the history, such as 5m; by default a round one of which at most 120 lie in the window.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    step: Option<Duration>,
    /// The most callers and the most callees.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
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
    let request = FunctionRequest {
        selection: Some(args.window.selection(&args.query)),
        name: args.name,
        sample_type: args.sums.sample_type,
        explain: args.sums.explain.explain,
        by: args.by,
        step: args.step.map(duration).transpose()?,
        limit: args.limit,
        filter: Some(args.filter.into()),
    };
    let mut client = args.connection.query_client().await?;
    let answer = client.function(request).await.map_err(refused)?.into_inner();
    args.sums.explain.tell_all(answer.completeness.as_ref(), &answer.warnings, answer.explain.as_ref());
    match args.sums.output {
        Output::Json => write_json(&answer),
        Output::Table => write_text(None, &listed(&answer)),
    }
}

/// Renders the shares, the callers, the callees and the history.
fn listed(answer: &FunctionResponse) -> String {
    let tops = || answer.groups.iter().filter_map(|group| group.top.as_ref());
    let sums = tops().flat_map(|top| &top.functions).chain(&answer.callers).chain(&answer.callees);
    let largest = tops().flat_map(|top| &top.functions).map(|of| of.total).max().unwrap_or_default();
    let scale = scale(answer.sample_type.as_ref(), sums, largest);
    let mut text = String::new();
    let head = |first: &str| [first, "SELF", "TOTAL"].map(str::to_owned).to_vec();
    let mut shares = vec![[&head("GROUP")[..], &["OF ALL".to_owned()]].concat()];
    for group in &answer.groups {
        let Some(top) = &group.top else { continue };
        for function in &top.functions {
            let share = if top.total == 0 { 0.0 } else { 100.0 * function.total as f64 / top.total as f64 };
            let values = [function.self_, function.total].map(|value| scale.text(value));
            shares.push([&[labels_text(&group.labels)][..], &values, &[format!("{share:.2}%")]].concat());
        }
    }
    text += &table::render(&shares);
    for (title, calls) in [("CALLERS", &answer.callers), ("CALLEES", &answer.callees)] {
        let mut rows = vec![head(title)];
        rows.extend(calls.iter().map(|TopFunction { name, self_, total, .. }| {
            vec![printable(name), scale.text(*self_), scale.text(*total)]
        }));
        let _ = write!(text, "\n{}", table::render(&rows));
    }
    let _ = write!(text, "\n{}", series::listed(answer.sample_type.as_ref(), &answer.history));
    text
}
