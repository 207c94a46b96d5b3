//! The flags that questions share, the forms that merges and diffs can take, and how they are printed.

use std::fmt::Write as _;
use std::path::PathBuf;

use afterglow_profile::measure::Scale;
use afterglow_proto::v1::{FlameGraph, MergeFormat, SampleType, StackFilter, Top, TopFunction};

use super::Output;
use super::explain::ExplainArgs;
use super::table::{counted, printable};

/// The form of a merged answer, what it shows of the profiles, and where it goes: what merges and diffs have in common.
#[derive(Debug, clap::Args)]
pub(super) struct FormArgs {
    /// The form of the answer. A diff's pprof and dot have the values of the base as negative ones.
    #[arg(long, value_enum, default_value_t = Format::Pprof)]
    pub(super) format: Format,
    /// The sample type that all forms but pprof show, such as inuse_space; by default the pprof's own.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(super) sample_type: String,
    /// The most nodes of a flame graph, or rows of a table; 0 means all, and 80 of a call graph.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) limit: u32,
    /// Where to write; standard output by default.
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) explain: ExplainArgs,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

/// Which sums are shown, and how: what all questions whose answers are tables have in common.
#[derive(Debug, clap::Args)]
pub(super) struct SumArgs {
    /// The sample type that is summed, such as inuse_space; by default alloc_space of allocs, else the last one.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(super) sample_type: String,
    /// How to print them.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
    #[command(flatten)]
    pub(super) explain: ExplainArgs,
}

/// The forms that an answer can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A gzip'd pprof, for go tool pprof and every other reader of it.
    Pprof,
    /// The tree of a flame graph, as JSON.
    Flamegraph,
    /// A table of functions by self and total.
    Top,
    /// Folded stacks: a line a stack, for flamegraph.pl, inferno and speedscope.
    Folded,
    /// A call graph, for Graphviz.
    Dot,
}

impl From<Format> for i32 {
    fn from(format: Format) -> Self {
        let format = match format {
            Format::Pprof => MergeFormat::Pprof,
            Format::Flamegraph => MergeFormat::Flamegraph,
            Format::Top => MergeFormat::Top,
            Format::Folded => MergeFormat::Folded,
            Format::Dot => MergeFormat::Dot,
        };
        format.into()
    }
}

/// Which samples are of interest, and which of their frames: the options of pprof.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct FilterArgs {
    /// Keeps the samples in whose stack a function or file matches.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REGEX")]
    focus: String,
    /// Leaves out the samples in whose stack a function or file matches.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REGEX")]
    ignore: String,
    /// Shows only the frames that match.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REGEX")]
    show: String,
    /// Shows only the frames that do not match.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REGEX")]
    hide: String,
    /// Shows stacks from their outermost frame that matches.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REGEX")]
    show_from: String,
    /// Keeps the samples with a label that matches: REGEX for key:value, KEY=REGEX, or a range such as bytes=1kb:64kb.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "LABEL")]
    tag_focus: String,
    /// Leaves out the samples with a label that matches.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "LABEL")]
    tag_ignore: String,
    /// Keeps the stacks that begin with these functions, root first; once for each.
    #[arg(long, value_name = "FUNCTION")]
    call_site: Vec<String>,
}

impl From<FilterArgs> for StackFilter {
    fn from(args: FilterArgs) -> Self {
        let FilterArgs { focus, ignore, show, hide, show_from, tag_focus, tag_ignore, call_site } = args;
        Self { focus, ignore, show, hide, show_from, tag_focus, tag_ignore, call_site }
    }
}

/// Renders a tree as one line of JSON.
pub(super) fn flamegraph_json(graph: &FlameGraph) -> anyhow::Result<String> {
    Ok(serde_json::to_string(graph)? + "\n")
}

/// Chooses the unit for sums of functions as pprof does for its tables.
pub(super) fn scale<'a>(
    sample_type: Option<&SampleType>,
    sums: impl Iterator<Item = &'a TopFunction>,
    total: i64,
) -> Scale {
    let weight = |of: &TopFunction| if of.self_ == 0 { of.total } else { of.self_ };
    let unit = sample_type.map(|t| t.unit.as_str()).unwrap_or_default();
    Scale::new(unit, sums.map(|of| weight(of).unsigned_abs().into()), total)
}

/// Renders a table with the columns that `pprof -top` has.
pub(super) fn top_table(top: &Top, profiles: u64) -> String {
    top_table_in(top, profiles, &top_scale(top))
}

/// Chooses the unit of a table.
pub(super) fn top_scale(top: &Top) -> Scale {
    scale(top.sample_type.as_ref(), top.functions.iter(), top.total)
}

/// Renders a table in the unit of another, so that they can be compared.
pub(super) fn top_table_in(top: &Top, profiles: u64, scale: &Scale) -> String {
    let mut text = format!("{}, {}, total {}\n", unit(top), counted(profiles, "profile"), scale.text(top.total));
    let _ = writeln!(text, "{:>18} {:>7} {:>18} {:>7}  function", "self", "self%", "total", "total%");
    for f in &top.functions {
        let shares = [share(f.self_, top.total), share(f.total, top.total)];
        let [own, all] = [f.self_, f.total].map(|value| scale.text(value));
        let name = printable(&f.name);
        let _ = writeln!(text, "{own:>18} {:>6.2}% {all:>18} {:>6.2}%  {name}", shares[0], shares[1]);
    }
    note_truncated(&mut text, top);
    text
}

/// Renders the table of a diff: what changed, and what each side had.
pub(super) fn diff_table(top: &Top, profiles: u64, base_profiles: u64) -> String {
    let change = |ours: i64, base: i64| ours.saturating_sub(base);
    let changes: Vec<TopFunction> = (top.functions.iter())
        .map(|f| TopFunction {
            self_: change(f.self_, f.base_self),
            total: change(f.total, f.base_total),
            ..TopFunction::default()
        })
        .collect();
    let scale = scale(top.sample_type.as_ref(), changes.iter(), top.total.max(top.base_total));
    let mut text = format!(
        "{}, {}, total {}; base {}, total {}\n",
        unit(top),
        counted(profiles, "profile"),
        scale.text(top.total),
        counted(base_profiles, "profile"),
        scale.text(top.base_total)
    );
    let names = ["self +/-", "self", "base self", "total +/-", "total", "base total"];
    let columns: Vec<String> = names.iter().map(|name| format!("{name:>16}")).collect();
    let _ = writeln!(text, "{}  function", columns.join(" "));
    for (f, change) in top.functions.iter().zip(&changes) {
        let signed = |value: i64| format!("{}{}", if value > 0 { "+" } else { "" }, scale.text(value));
        let [own, base, all, base_all] = [f.self_, f.base_self, f.total, f.base_total].map(|value| scale.text(value));
        let columns = [signed(change.self_), own, base, signed(change.total), all, base_all];
        let columns: Vec<String> = columns.iter().map(|column| format!("{column:>16}")).collect();
        let _ = writeln!(text, "{}  {}", columns.join(" "), printable(&f.name));
    }
    note_truncated(&mut text, top);
    text
}

fn unit(top: &Top) -> String {
    top.sample_type.as_ref().map(|t| printable(&format!("{}/{}", t.r#type, t.unit))).unwrap_or_default()
}

fn share(value: i64, total: i64) -> f64 {
    if total == 0 { 0.0 } else { 100.0 * value as f64 / total as f64 }
}

fn note_truncated(text: &mut String, top: &Top) {
    if top.functions_truncated > 0 {
        let _ = writeln!(text, "... and {} functions more (--limit 0 shows all)", top.functions_truncated);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whoever may push writes nothing to an operator's terminal but text, and a function is one row.
    #[test]
    fn what_would_steer_a_terminal_is_replaced() {
        let sample_type = Some(SampleType { r#type: "c\u{1b}[2Jpu".to_owned(), unit: "n\ns".to_owned() });
        let function =
            TopFunction { name: "\u{1b}[31mred\u{7}\nline".to_owned(), self_: 3, total: 3, ..Default::default() };
        let top = Top { sample_type, functions: vec![function], total: 3, ..Top::default() };
        for (table, lines) in [(top_table(&top, 1), 3), (diff_table(&top, 1, 1), 3)] {
            assert!(!table.chars().any(|c| c.is_control() && c != '\n'), "{table:?}");
            assert_eq!(table.lines().count(), lines, "{table:?}");
            assert!(table.contains("\u{fffd}[31mred\u{fffd}\u{fffd}line"), "{table:?}");
        }
    }
}
