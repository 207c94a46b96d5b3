//! `afterglow push`: pprof files into the store, over one stream.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use afterglow_agent::{Backoff, Client, Options};
use afterglow_proto::v1::Profile;
use afterglow_service::causes::Causes;
use anyhow::Context as _;
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Connection, Moment, usage};

/// How many files are read and under way at once: enough to fill a flush, few enough to bound memory.
const UNDER_WAY_MAX: usize = 64;

/// How long the end of the stream is waited for, once every file has its outcome.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// From how many files on a terminal shows a progress bar.
const PROGRESS_FILES_MIN: usize = 4;

/// Pushes pprof files and prints a line `<id> <file>` for each once it is durable.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow push cpu.pb.gz --service checkout --type cpu --label version=1.3\n  \
    afterglow push profiles/*.pb.gz --service checkout --label dc=eu-1 --label instance=a7\n  \
    curl -s localhost:6060/debug/pprof/heap | afterglow push - --service checkout --type heap")]
pub(crate) struct Args {
    /// The files, gzip'd or not; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The service that the profiles are of.
    #[arg(long, value_name = "SERVICE")]
    service: String,
    /// The profile type; by default it is taken from the sample types.
    #[arg(long = "type", value_name = "TYPE")]
    profile_type: Option<String>,
    /// A label; may be given many times.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// When the profiles began, where they do not say so themselves: RFC 3339, unix seconds, or relative such as -10m.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    time: Option<Moment>,
    /// The id of the profile, a ULID, so that a repeated push counts once; for a single file.
    #[arg(long, value_name = "ULID")]
    id: Option<String>,
    /// How long one file is tried.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors
/// Says how many files were not stored, after all others were; each has been explained on standard error.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if args.id.is_some() && args.files.len() > 1 {
        return Err(usage(format!("--id names one profile, but {} files were given", args.files.len())));
    }
    let template = template(&args)?;
    let options = Options {
        deadline: args.timeout,
        backoff: Backoff { base: Duration::from_millis(100), max: Duration::from_secs(5) },
        ..Options::default()
    };
    let client = Client::new(args.connection.target()?, options)?;
    let bar = progress_bar(args.files.len());

    let mut outcomes = futures::stream::iter(&args.files)
        .map(|file| {
            let (client, template) = (&client, &template);
            async move { (file, push(client, template, file).await) }
        })
        .buffer_unordered(UNDER_WAY_MAX);
    let mut failed = 0;
    while let Some((file, outcome)) = outcomes.next().await {
        // Lines must not mix with the bar, and each is written whole as soon as its profile is durable.
        bar.suspend(|| match outcome {
            Ok(ack) => {
                for warning in &ack.warnings {
                    let _ = writeln!(std::io::stderr(), "{}: warning: {warning}", file.display());
                }
                writeln!(std::io::stdout(), "{} {}", ack.id, file.display())
            }
            Err(error) => {
                failed += 1;
                writeln!(std::io::stderr(), "{}: {}", file.display(), Causes(&*error))
            }
        })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    drop(outcomes);
    // Ended rather than broken off: a server counts a stream that its client leaves as cancelled.
    client.close(CLOSE_TIMEOUT).await;
    if failed > 0 {
        anyhow::bail!("{failed} of {} files were not stored", args.files.len());
    }
    Ok(())
}

/// Returns what all profiles of this call have in common.
fn template(args: &Args) -> anyhow::Result<Profile> {
    let mut profile = Profile {
        id: args.id.clone().unwrap_or_default(),
        r#type: args.profile_type.clone().unwrap_or_default(),
        time: args.time.map(Moment::timestamp),
        ..Profile::default()
    };
    profile.labels.insert("service".to_owned(), args.service.clone());
    for (name, value) in &args.labels {
        if profile.labels.insert(name.clone(), value.clone()).is_some() {
            return Err(usage(format!("label {name} is given twice")));
        }
    }
    Ok(profile)
}

/// Reads a file and pushes it.
async fn push(client: &Client, template: &Profile, file: &Path) -> anyhow::Result<afterglow_agent::Ack> {
    let pprof = if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
        bytes
    } else {
        tokio::fs::read(file).await.context("cannot read the file")?
    };
    Ok(client.push(Profile { pprof: pprof.into(), ..template.clone() }).await?)
}

/// Splits `name=value`.
fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Returns a bar on a terminal, or one that draws nothing.
fn progress_bar(files: usize) -> ProgressBar {
    if files < PROGRESS_FILES_MIN || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} profiles, {per_sec}, {eta} left")
        .expect("the template is valid");
    ProgressBar::with_draw_target(Some(files as u64), ProgressDrawTarget::stderr()).with_style(style)
}
