//! `afterglow labels`: what labels there are, and their values.

use std::fmt::Write as _;

use afterglow_proto::v1::{LabelNamesRequest, LabelValuesRequest};

use super::table::printable;
use super::{Connection, WindowArgs, refused, warn_incomplete, write_text};

/// Lists the names of labels, or the values of one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow labels\n  \
    afterglow labels version --query '{service=\"api\"}' --from -7d")]
pub(crate) struct Args {
    /// The label whose values to list; without it the names are listed.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// A selector: only the labels of these profiles count.
    #[arg(long, value_name = "SELECTOR", default_value = "{}")]
    query: String,
    #[command(flatten)]
    window: WindowArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let selection = Some(args.window.selection(&args.query));
    let mut client = args.connection.query_client().await?;
    let (lines, completeness) = match args.name {
        Some(name) => {
            let request = LabelValuesRequest { name, selection };
            let answer = client.label_values(request).await.map_err(refused)?.into_inner();
            (answer.values, answer.completeness)
        }
        None => {
            let request = LabelNamesRequest { selection };
            let answer = client.label_names(request).await.map_err(refused)?.into_inner();
            (answer.names, answer.completeness)
        }
    };
    warn_incomplete(completeness.as_ref());
    let mut text = String::new();
    for line in lines {
        let _ = writeln!(text, "{}", printable(&line));
    }
    write_text(None, &text)
}
