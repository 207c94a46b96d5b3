//! `afterglow bucket`: prepares object storage.

use std::io::Write as _;

use afterglow_store::bucket::{self, Lifecycle, Report};
use afterglow_store::{Environment, StorageUrl, StoreOptions};

use super::usage;

/// Prepares object storage.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Creates the bucket if need be, checks conditional writes, and sets lifecycle rules.
    #[command(after_help = "Examples:\n  \
        AWS_ENDPOINT_URL=http://127.0.0.1:9000 AWS_ACCESS_KEY_ID=minioadmin AWS_SECRET_ACCESS_KEY=minioadmin \\\n    \
        afterglow bucket init --storage s3://profiles")]
    Init {
        /// The storage to prepare, such as s3://profiles/prefix.
        #[arg(long, value_name = "URL")]
        storage: StorageUrl,
    },
}

// === impl Command ===

impl Command {
    /// Returns what cannot work, one sentence each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let Self::Init { storage } = self;
        Environment::of_process().problems(storage)
    }
}

/// Runs the command.
///
/// # Errors
/// Says that the bucket can be neither found nor made, or that the store does not keep the promises everything rests on.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { storage: StorageUrl::Memory { .. } } => {
            Err(usage("memory:// ends with this command: there is nothing to prepare"))
        }
        Command::Init { storage } => {
            let report = bucket::init(&storage, StoreOptions::default()).await?;
            writeln!(std::io::stdout(), "{}", describe(&storage, &report))?;
            Ok(())
        }
    }
}

/// Says in a sentence each what was done.
fn describe(storage: &StorageUrl, report: &Report) -> String {
    let bucket = if report.created { "the bucket was created" } else { "the bucket was there" };
    let lifecycle = match &report.lifecycle {
        Lifecycle::Set => "unfinished uploads will be removed after a day".to_owned(),
        Lifecycle::Kept => "the lifecycle rule was there".to_owned(),
        Lifecycle::NotNeeded => "no lifecycle rule is needed".to_owned(),
        Lifecycle::Refused(reason) => format!("the store takes no lifecycle rule ({reason})"),
    };
    format!("{storage} is ready: {bucket}, conditional writes work, {lifecycle}")
}
