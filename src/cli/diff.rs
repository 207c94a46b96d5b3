//! `afterglow diff`: what some profiles have that others have not.

use std::path::PathBuf;

use afterglow_proto::v1::diff_response::Result as Diff;
use afterglow_proto::v1::{DiffRequest, Selection};

use super::forms::{FilterArgs, Format, diff_table, flamegraph_json};
use super::{Connection, Moment, SelectionArgs, refused, usage, warn, warn_incomplete, write_binary, write_text};

/// Holds two merges against each other: the selected profiles, and a base.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow diff '{service=\"api\"}' --type cpu --base-from -25h --format top --limit 20\n  \
    afterglow diff '{service=\"api\", version=\"2\"}' --base '{service=\"api\", version=\"1\"}' --type cpu --normalize --format top\n  \
    afterglow diff '{service=\"api\"}' --base-from -25h --type heap --mark-base -o diff.pb.gz && go tool pprof -top diff.pb.gz")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// The selector of the base; by default SELECTOR.
    #[arg(long, value_name = "SELECTOR")]
    base: Option<String>,
    /// The start of the base's window; without it the window ends at --base-to and is as long as the other.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    base_from: Option<Moment>,
    /// The end of the base's window, exclusive; without it the window begins at --base-from and is as long as the other.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    base_to: Option<Moment>,
    /// The form of the answer. In pprof, and in dot, the base's values count as negative.
    #[arg(long, value_enum, default_value_t = Format::Pprof)]
    format: Format,
    /// The sample type that all forms but pprof show, such as inuse_space; by default the pprof's own.
    #[arg(long, value_name = "NAME")]
    sample_type: Option<String>,
    /// The most nodes of a flame graph, or rows of a table; 0 means all, and 80 of a call graph.
    #[arg(long, default_value_t = 0, value_name = "N")]
    limit: u32,
    /// Scales the selection to the sum of the base, so that shares are compared.
    #[arg(long)]
    normalize: bool,
    /// Keeps the samples of the base apart in a pprof, as pprof -diff_base does, so that readers show shares of the base.
    #[arg(long)]
    mark_base: bool,
    /// Where to write; standard output by default.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let selection = args.selection.selection();
    let window = &args.selection.window;
    let (from, to) = match (args.base_from, args.base_to) {
        (None, None) if args.base.is_none() => {
            return Err(usage("the base is the selection itself: give --base, --base-from or --base-to"));
        }
        (None, None) => (window.from, window.to),
        (from, to) => Moment::as_long(from, to, window.from, window.to),
    };
    let query = args.base.unwrap_or_else(|| selection.query.clone());
    let base = Selection { query, start: Some(from.timestamp()), end: Some(to.timestamp()), ..selection.clone() };
    let request = DiffRequest {
        selection: Some(selection),
        base: Some(base),
        format: args.format.into(),
        sample_type: args.sample_type.unwrap_or_default(),
        limit: args.limit,
        filter: Some(args.filter.into()),
        normalize: args.normalize,
        mark_base: args.mark_base,
    };
    let mut client = args.connection.query_client().await?;
    let answer = client.diff(request).await.map_err(refused)?.into_inner();

    warn_incomplete(answer.completeness.as_ref());
    warn(&answer.warnings);
    let output = args.output.as_ref();
    match answer.result {
        Some(Diff::Pprof(pprof)) => write_binary(output, &pprof),
        Some(Diff::Folded(text) | Diff::Dot(text)) => write_text(output, &text),
        Some(Diff::Top(top)) => write_text(output, &diff_table(&top, answer.profiles, answer.base_profiles)),
        Some(Diff::Flamegraph(graph)) => write_text(output, &flamegraph_json(&graph)?),
        None => anyhow::bail!("the server answered in a form this version does not know"),
    }
}
