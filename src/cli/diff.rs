//! `afterglow diff`: what some profiles have that others have not.

use afterglow_proto::v1::DiffRequest;
use afterglow_proto::v1::diff_response::Result as Diff;

use super::forms::{FormArgs, diff_table, flamegraph_json};
use super::{BaseArgs, Connection, SelectionArgs, refused, usage, warn, warn_incomplete, write_binary, write_text};

/// Holds two merges against each other: the selected profiles, and a base.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow diff '{service=\"api\"}' --type cpu --base-from -25h --format top --limit 20\n  \
    afterglow diff '{service=\"api\", version=\"2\"}' --base '{service=\"api\", version=\"1\"}' --type cpu --normalize --format top\n  \
    afterglow diff '{service=\"api\"}' --base-from -25h --type heap --mark-base -o diff.pb.gz && go tool pprof -top diff.pb.gz")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    base: BaseArgs,
    /// Scales the selection to the sum of the base, so that shares are compared.
    #[arg(long)]
    normalize: bool,
    /// Keeps the samples of the base apart in a pprof, as pprof -diff_base does, so that readers show shares of the base.
    #[arg(long)]
    mark_base: bool,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let selection = args.selection.selection();
    let Some(base) = args.base.selection(&args.selection) else {
        return Err(usage("the base is the selection itself: give --base, --base-from or --base-to"));
    };
    let request = DiffRequest {
        selection: Some(selection),
        base: Some(base),
        format: args.form.format.into(),
        sample_type: args.form.sample_type,
        limit: args.form.limit,
        filter: Some(args.form.filter.into()),
        explain: args.form.explain.explain,
        normalize: args.normalize,
        mark_base: args.mark_base,
    };
    let mut client = args.connection.query_client().await?;
    let answer = client.diff(request).await.map_err(refused)?.into_inner();

    warn_incomplete(answer.completeness.as_ref());
    warn(&answer.warnings);
    args.form.explain.tell(answer.explain.as_ref());
    let output = args.form.output.as_ref();
    match answer.result {
        Some(Diff::Pprof(pprof)) => write_binary(output, &pprof),
        Some(Diff::Folded(text) | Diff::Dot(text)) => write_text(output, &text),
        Some(Diff::Top(top)) => write_text(output, &diff_table(&top, answer.profiles, answer.base_profiles)),
        Some(Diff::Flamegraph(graph)) => write_text(output, &flamegraph_json(&graph)?),
        None => anyhow::bail!("the server answered in a form this version does not know"),
    }
}
