//! `afterglow verify`: reads the bucket from outside and says what is wrong.

use std::io::Write as _;

use afterglow_store::paths::TenantId;
use afterglow_store::verify::verify;
use afterglow_store::{Environment, StorageUrl, StoreOptions, maintenance};

/// Reads the bucket from outside and compares it with what the commits say
///
/// Every commit and snapshot is read and replayed. Of every block its end is read: that it is there, which profiles it has, and that none is
/// twice. Samples and symbols, nearly all of the bytes, are read with --deep alone. Exits with 0 where all is well, with 1 and a line for
/// each finding where not. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow verify --storage s3://profiles\n  \
    afterglow verify --storage file:///var/lib/afterglow --deep")]
pub(crate) struct Args {
    /// Where profiles are kept: file:///var/lib/afterglow, s3://bucket/prefix, gs://bucket, az://container
    #[arg(long, value_name = "URL")]
    storage: StorageUrl,
    /// Reads every byte: compares every checksum, rebuilds every profile and compares it with its SHA-256, and sums profiles anew for each
    /// roll-up
    #[arg(long)]
    deep: bool,
    /// Only this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantId>,
}

// === impl Args ===

impl Args {
    /// Returns what cannot work, one sentence each.
    pub(crate) fn problems(&self) -> Vec<String> {
        Environment::of_process().problems(&self.storage)
    }
}

/// Runs the command.
///
/// # Errors
/// Says that the bucket cannot be read, or how much in it is wrong.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let store = afterglow_store::open(&args.storage, StoreOptions::default()).await?;
    let tenants = match args.tenant {
        Some(tenant) => vec![tenant],
        None => maintenance::tenants(&store).await?,
    };
    let mut out = std::io::stdout();
    let mut wrong = 0;
    for tenant in tenants {
        let report = verify(&store, &tenant, args.deep).await?;
        for finding in &report.findings {
            writeln!(out, "{finding}")?;
        }
        wrong += report.findings.len();
        writeln!(
            out,
            "{tenant}: {} profiles in {} blocks and {} segments ({} bytes) after commit {}, {} objects of the log, {} rebuilt, {} roll-ups compared, {} objects to be collected",
            report.profiles,
            report.blocks,
            report.segments,
            report.bytes,
            report.commits,
            report.log,
            report.rebuilt,
            report.rollups,
            report.garbage,
        )?;
    }
    anyhow::ensure!(wrong == 0, "{wrong} findings");
    Ok(())
}
