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

#[cfg(test)]
mod tests {
    use afterglow_store::paths::{TENANT_BYTES_MAX, TenantId};

    use super::*;

    /// Symptom: a token for the tenant `a/b` was made and taken, and each of its requests was refused. Goal: a token is for tenants that
    /// the store knows as such, and for no others.
    #[test]
    fn a_token_is_for_tenants_that_requests_can_have() {
        let one_character = ('\0'..='\u{ff}').map(String::from);
        let longest = [TENANT_BYTES_MAX, TENANT_BYTES_MAX + 1].map(|bytes| "a".repeat(bytes));
        let others = ["", ".", "..", "...", "a/b", "a b", "a|b", "team-a", "a.b_c!'()*", "größe"].map(str::to_owned);
        for tenant in one_character.chain(longest).chain(others) {
            let made = Entry::generate("agents".to_owned(), vec![Role::Read], vec![tenant.clone()]);
            let is_tenant = tenant.parse::<TenantId>().is_ok();
            assert_eq!(made.is_ok(), is_tenant, "{tenant:?}");
            if let Err(problem) = made {
                assert!(problem.contains(&format!("tenant {tenant:?} is not ")), "{problem}");
            }
        }
    }
}
