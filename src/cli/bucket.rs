//! `afterglow bucket`: prepares object storage.

use std::io::Write as _;

/// Prepares object storage.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Creates the bucket if need be, checks conditional writes, and sets lifecycle rules.
    #[command(after_help = "Examples:\n  \
        AWS_ENDPOINT_URL=http://127.0.0.1:9000 AWS_ACCESS_KEY_ID=minioadmin AWS_SECRET_ACCESS_KEY=minioadmin \\\n    \
        afterglow bucket init --storage s3://profiles")]
    Init {
        /// The storage to prepare, such as s3://profiles/prefix.
        #[arg(long, env = "AFTERGLOW_STORAGE", value_name = "URL")]
        storage: String,
    },
}

/// Runs the command.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { storage } => {
            let report = afterglow_store::bucket::init(&storage).await?;
            writeln!(std::io::stdout(), "{report}")?;
            Ok(())
        }
    }
}
