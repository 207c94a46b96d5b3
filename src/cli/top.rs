//! `afterglow top`: functions, ranked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use afterglow_proto::v1::{FunctionValue, TopRequest, TopResponse};

use super::forms::{FilterArgs, SumArgs, top_scale, top_table_in};
use super::table::{counted, printable};
use super::{Connection, Output, SelectionArgs, refused, write_json, write_text};

/// Ranks functions over all selected profiles, and for each value of some labels.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow top --type cpu --limit 20\n  \
    afterglow top --type cpu --by service --limit 5\n  \
    afterglow top '{service=\"api\"}' --type heap --sample-type inuse_space --by version --function '^encoding/'\n  \
    afterglow top --type cpu --by service --focus '^encoding/json' --limit 5")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// The labels that tell groups apart, comma separated; type is the profile type.
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    by: Vec<String>,
    /// A regular expression: only functions whose name or file it matches are listed.
    #[arg(long, value_name = "REGEX")]
    function: Option<String>,
    /// Ranks by what functions used with all they called, not by what they used themselves.
    #[arg(long)]
    total: bool,
    /// The most rows of each table; 0 means all.
    #[arg(long, default_value_t = 50, value_name = "N")]
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
    let request = TopRequest {
        selection: Some(args.selection.selection()),
        sample_type: args.sums.sample_type,
        explain: args.sums.explain.explain,
        limit: args.limit,
        by: args.by,
        function: args.function.unwrap_or_default(),
        filter: Some(args.filter.into()),
        value: value.into(),
    };
    let mut client = args.connection.query_client().await?;
    let answer = client.top(request).await.map_err(refused)?.into_inner();
    args.sums.explain.tell_all(answer.completeness.as_ref(), &answer.warnings, answer.explain.as_ref());
    match args.sums.output {
        Output::Json => write_json(&answer),
        Output::Table => {
            write_text(None, &listed(&answer))?;
            if answer.groups_truncated > 0 {
                let _ = writeln!(
                    std::io::stderr(),
                    "there are {} groups more: narrow the selector",
                    answer.groups_truncated
                );
            }
            if answer.groups_unmatched > 0 {
                let _ = writeln!(std::io::stderr(), "{}", left_out(answer.groups_unmatched));
            }
            Ok(())
        }
    }
}

/// Says how many groups have no function that matches.
fn left_out(groups: u64) -> String {
    format!("{} left out, for no function there matches", counted(groups, "group"))
}

/// Renders the table of everything, then those of the groups below their labels: in its unit, so that they can be compared, but for those
/// that would be less than one of it.
fn listed(answer: &TopResponse) -> String {
    let Some(all) = &answer.top else { return String::new() };
    let scale = top_scale(all);
    let mut text = top_table_in(all, answer.profiles, &scale);
    for group in &answer.groups {
        let _ = write!(text, "\n{}\n", labels_text(&group.labels));
        if let Some(top) = &group.top {
            let own = (!scale.reaches(top.total)).then(|| top_scale(top));
            text += &top_table_in(top, group.profiles, own.as_ref().unwrap_or(&scale));
        }
    }
    text
}

/// Renders labels as a selector has them.
pub(super) fn labels_text(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> =
        labels.iter().map(|(name, value)| format!("{}={:?}", printable(name), printable(value))).collect();
    format!("{{{}}}", labels.join(", "))
}

#[cfg(test)]
mod tests {
    use afterglow_proto::v1::{SampleType, Top, TopFunction, TopGroup};

    use super::*;

    /// Goal: groups are in one unit, so that they can be compared; a group that would be nothing in it is in its own.
    #[test]
    fn a_small_group_is_in_a_unit_that_shows_it() {
        let top = |value: i64| Top {
            sample_type: Some(SampleType { r#type: "cpu".to_owned(), unit: "nanoseconds".to_owned() }),
            total: value,
            functions: vec![TopFunction {
                name: "work".to_owned(),
                self_: value,
                total: value,
                ..TopFunction::default()
            }],
            ..Top::default()
        };
        let group = |service: &str, value| TopGroup {
            labels: [("service".to_owned(), service.to_owned())].into(),
            top: Some(top(value)),
            profiles: 1,
        };
        let text = listed(&TopResponse {
            top: Some(top(36_000_000_000_000)),
            groups: vec![
                group("large", 35_000_000_000_000),
                group("middle", 4_000_000_000_000),
                group("small", 20_000_000),
            ],
            profiles: 3,
            ..TopResponse::default()
        });
        let totals: Vec<&str> =
            text.lines().filter_map(|line| line.split_once(", total ")).map(|(_, total)| total).collect();
        assert_eq!(totals, ["10hrs", "9.72hrs", "1.11hrs", "20ms"], "{text}");
        assert!(text.contains("20ms 100.00%"), "{text}");
    }

    #[test]
    fn groups_that_are_left_out_are_counted() {
        assert_eq!(left_out(1), "1 group left out, for no function there matches");
    }
}
