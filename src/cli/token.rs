//! `afterglow token`: makes a token for a server's `--auth.tokens-file`.
//!
//! The entry for the file, which is no secret, goes to standard output, where it can be appended; the token goes to standard error or
//! into a file of its own, once, and is kept nowhere else.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use afterglow_service::access::{Entry, Role};
use anyhow::Context as _;

use super::usage;

/// Makes a token: prints the entry for a server's --auth.tokens-file, and the token itself, once
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow token --name agents --role write >> tokens.toml\n  \
    afterglow token --name grafana --role read --tenant team-a --tenant team-b >> tokens.toml\n  \
    afterglow token --name gateway --role write,read --tenant '*' --output gateway.token >> tokens.toml")]
pub(crate) struct Args {
    /// What the token is called in logs and refusals.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What it may be used for; may be given many times.
    #[arg(long = "role", value_enum, value_name = "ROLE", value_delimiter = ',', required = true)]
    roles: Vec<Role>,
    /// Whose data it is for; may be given many times; * for a proxy that names the tenant itself.
    #[arg(long = "tenant", value_name = "TENANT", default_value = "anonymous")]
    tenants: Vec<String>,
    /// Writes the token to a new file that only its owner may read, instead of standard error.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Says what is wrong with the name or a tenant, or why the file cannot be written.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let (token, entry) = Entry::generate(args.name, args.roles, args.tenants).map_err(usage)?;
    // The token first: an entry whose token nobody has is of no use.
    match &args.output {
        Some(path) => {
            let mut file = OpenOptions::new()
                .write(true)
                // Not over an older one, which somebody may still use.
                .create_new(true)
                .mode(0o600)
                .open(path)
                .with_context(|| format!("cannot make {}", path.display()))?;
            writeln!(file, "{}", token.reveal()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => writeln!(std::io::stderr(), "the token, shown this once: {}", token.reveal())?,
    }
    std::io::stdout().write_all(entry.to_toml().as_bytes()).context("cannot write to standard output")
}
