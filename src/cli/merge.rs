//! `afterglow merge`: many profiles as one.

use std::fmt::Write as _;
use std::path::PathBuf;

use afterglow_proto::v1::merge_response::Result as Merged;
use afterglow_proto::v1::{FlameGraph, MergeFormat, MergeRequest, Top};

use super::{Connection, SelectionArgs, refused, warn, warn_incomplete, write_binary, write_text};

/// Merges all selected profiles into one answer.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow merge '{service=\"api\"}' --type cpu -o api.pb.gz && go tool pprof -top api.pb.gz\n  \
    afterglow merge '{service=\"api\"}' --type heap --from -24h --format top --sample-type inuse_space --limit 20\n  \
    afterglow merge '{service=\"api\"}' --type cpu --format folded > api.folded")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// The form of the answer.
    #[arg(long, value_enum, default_value_t = Format::Pprof)]
    format: Format,
    /// The sample type that flamegraph, top and folded show, such as inuse_space; by default the pprof's own.
    #[arg(long, value_name = "NAME")]
    sample_type: Option<String>,
    /// The most nodes of a flame graph, or rows of a table; 0 means all.
    #[arg(long, default_value_t = 0, value_name = "N")]
    limit: u32,
    /// Where to write; standard output by default.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// The forms that an answer can take.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// A gzip'd pprof, for go tool pprof and every other reader of it.
    Pprof,
    /// The tree of a flame graph, as JSON.
    Flamegraph,
    /// A table of functions by self and total.
    Top,
    /// Folded stacks: a line a stack, for flamegraph.pl, inferno and speedscope.
    Folded,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let request = MergeRequest {
        selection: Some(args.selection.selection()),
        format: match args.format {
            Format::Pprof => MergeFormat::Pprof,
            Format::Flamegraph => MergeFormat::Flamegraph,
            Format::Top => MergeFormat::Top,
            Format::Folded => MergeFormat::Folded,
        }
        .into(),
        sample_type: args.sample_type.unwrap_or_default(),
        limit: args.limit,
        ..MergeRequest::default()
    };
    let mut client = args.connection.query_client().await?;
    let answer = client.merge(request).await.map_err(refused)?.into_inner();

    warn_incomplete(answer.completeness.as_ref());
    warn(&answer.warnings);
    let output = args.output.as_ref();
    match answer.result {
        Some(Merged::Pprof(pprof)) => write_binary(output, &pprof),
        Some(Merged::Folded(folded)) => write_text(output, &folded),
        Some(Merged::Top(top)) => write_text(output, &top_table(&top, answer.profiles)),
        Some(Merged::Flamegraph(graph)) => write_text(output, &flamegraph_json(&graph)?),
        None => anyhow::bail!("the server answered in a form this version does not know"),
    }
}

/// Renders a tree as one line of JSON.
fn flamegraph_json(graph: &FlameGraph) -> anyhow::Result<String> {
    Ok(serde_json::to_string(graph)? + "\n")
}

/// Renders a table with the columns that `pprof -top` has.
pub(super) fn top_table(top: &Top, profiles: u64) -> String {
    let unit = top.sample_type.as_ref().map(|t| format!("{}/{}", t.r#type, t.unit)).unwrap_or_default();
    let share = |value: i64| if top.total == 0 { 0.0 } else { 100.0 * value as f64 / top.total as f64 };
    let mut text = format!("{unit}, {profiles} profiles, total {}\n", top.total);
    let _ = writeln!(text, "{:>18} {:>7} {:>18} {:>7}  function", "self", "self%", "total", "total%");
    for f in &top.functions {
        let _ = writeln!(
            text,
            "{:>18} {:>6.2}% {:>18} {:>6.2}%  {}",
            f.self_,
            share(f.self_),
            f.total,
            share(f.total),
            f.name
        );
    }
    if top.functions_truncated > 0 {
        let _ = writeln!(text, "... and {} functions more (--limit 0 shows all)", top.functions_truncated);
    }
    text
}
