//! `afterglow merge`: many profiles as one.

use afterglow_proto::v1::merge_response::Result as Merged;
use afterglow_proto::v1::{MergeRequest, Selection, StackView};

use super::forms::{FormArgs, flamegraph_json, top_table};
use super::{Connection, SelectionArgs, refused, warn, warn_incomplete, write_binary, write_text};

/// Merges all selected profiles into one answer.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow merge '{service=\"api\"}' --type cpu -o api.pb.gz && go tool pprof -top api.pb.gz\n  \
    afterglow merge '{service=\"api\"}' --type heap --from -24h --format top --sample-type inuse_space --limit 20\n  \
    afterglow merge '{service=\"api\"}' --type cpu --format folded > api.folded\n  \
    afterglow merge '{service=\"api\"}' --type cpu --focus json --format dot | dot -Tsvg > json.svg\n  \
    afterglow merge '{service=\"api\"}' --type cpu --format folded --callers-of runtime.mallocgc")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Merges the profile with this id, whatever its time; once for each. SELECTOR and --type keep those of them that match.
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// Shows what calls this function (its exact name), in a flame graph or folded stacks.
    #[arg(long, value_name = "FUNCTION", conflicts_with = "callees_of")]
    callers_of: Option<String>,
    /// Shows what this function (its exact name) calls, in a flame graph or folded stacks.
    #[arg(long, value_name = "FUNCTION")]
    callees_of: Option<String>,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let selection = args.selection.selection();
    let selection = if args.ids.is_empty() { selection } else { Selection { start: None, end: None, ..selection } };
    let (view, function) = match (args.callers_of, args.callees_of) {
        (Some(name), _) => (StackView::Callers, name),
        (None, Some(name)) => (StackView::Callees, name),
        (None, None) => (StackView::Unspecified, String::new()),
    };
    let request = MergeRequest {
        selection: Some(selection),
        format: args.form.format.into(),
        sample_type: args.form.sample_type,
        limit: args.form.limit,
        filter: Some(args.form.filter.into()),
        explain: args.form.explain.explain,
        ids: args.ids,
        view: view.into(),
        function,
    };
    let mut client = args.connection.query_client().await?;
    let answer = client.merge(request).await.map_err(refused)?.into_inner();

    warn_incomplete(answer.completeness.as_ref());
    warn(&answer.warnings);
    args.form.explain.tell(answer.explain.as_ref());
    let output = args.form.output.as_ref();
    match answer.result {
        Some(Merged::Pprof(pprof)) => write_binary(output, &pprof),
        Some(Merged::Folded(text) | Merged::Dot(text)) => write_text(output, &text),
        Some(Merged::Top(top)) => write_text(output, &top_table(&top, answer.profiles)),
        Some(Merged::Flamegraph(graph)) => write_text(output, &flamegraph_json(&graph)?),
        None => anyhow::bail!("the server answered in a form this version does not know"),
    }
}
