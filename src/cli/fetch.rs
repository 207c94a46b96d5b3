//! `afterglow fetch`: one profile, bit for bit.

use std::path::PathBuf;

use afterglow_proto::v1::GetProfileRequest;

use super::{Connection, refused, write_binary};

/// Fetches one profile and writes its pprof.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow fetch 01KB2Z3T9Q5W8R6X4V7C1D0EFG -o cpu.pb.gz\n  \
    afterglow fetch 01KB2Z3T9Q5W8R6X4V7C1D0EFG --raw | sha256sum")]
pub(crate) struct Args {
    /// The id of the profile, as search prints it.
    #[arg(value_name = "ID")]
    id: String,
    /// Where to write; standard output by default.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the protobuf exactly as it was sent, not gzip'd.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut client = args.connection.query_client().await?;
    let request = GetProfileRequest { id: args.id, read_token: String::new() };
    let answer = client.get_profile(request).await.map_err(refused)?.into_inner();
    if args.raw {
        write_binary(args.output.as_ref(), &answer.pprof)
    } else {
        write_binary(args.output.as_ref(), &afterglow_profile::compress::gzip(&answer.pprof))
    }
}
