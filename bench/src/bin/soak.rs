//! Soak: whether memory and file descriptors of a server stay flat under hours of pushes and questions.
//!
//! It starts `afterglow serve` over a temporary folder, pushes a fleet's profiles at a steady rate with the time of now, and asks by turns
//! for searches, merges of the last minutes in every form, series and tables. Retention is minutes and the grace is seconds, so that
//! everything a server does in a month - merging through the levels, deleting, collecting - is done many times over, and what is stored
//! stays as large as it is. A line of CSV every `--every` seconds, and in the end the slopes of memory, resident and allocated,
//! over the second half.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use afterglow_bench::fleet::{Fleet, Options};
use afterglow_bench::process::{cpu_time, folder_bytes, open_files, rss};
use afterglow_e2e::Program;
use afterglow_proto::v1::PushProfileRequest;
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_store::clock::{Clock as _, SystemClock};
use anyhow::Context as _;
use clap::Parser;

const MIB: f64 = (1 << 20) as f64;

/// What is asked, by turns.
const QUESTIONS: [&str; 7] = [
    "/api/v1/search?start=-5m&limit=100",
    "/api/v1/merge?start=-3m&type=cpu&format=pprof",
    "/api/v1/merge?start=-3m&type=heap&format=flamegraph",
    "/api/v1/series?start=-10m&type=cpu&by=service",
    "/api/v1/top?start=-5m&type=cpu",
    "/api/v1/services?start=-10m",
    "/api/v1/diff?start=-2m&base_start=-4m&base_end=-2m&type=cpu&format=top",
];

/// Soaks a server.
#[derive(Parser)]
struct Args {
    /// The program to start, as `afterglow serve`.
    #[arg(long, default_value = "target/release/afterglow")]
    program: PathBuf,
    /// More arguments for it.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    program_arg: Vec<String>,
    /// Folders of base profiles, `<server>-<type>-*.pb.gz`.
    #[arg(long, default_value = "tests/fixtures/profiles")]
    profiles: PathBuf,
    /// How long, in seconds.
    #[arg(long, default_value_t = 7_200)]
    seconds: u64,
    /// How often it is looked, in seconds.
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// How many profiles are pushed a second.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// How many questions are asked a second.
    #[arg(long, default_value_t = 1.0)]
    questions: f64,
    /// How long profiles are kept.
    #[arg(long, default_value = "10m")]
    keep: String,
}

/// What was seen at one time.
struct Sample {
    hours: f64,
    rss_bytes: u64,
    /// What it has allocated and not freed; the rest of its memory is the allocator's.
    allocated_bytes: u64,
    files: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let storage = tempfile::tempdir()?;
    let mut command = Command::new(&args.program);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--storage", &format!("file://{}", storage.path().display())])
        .args(["--retention.max-age", &args.keep, "--maintenance.grace", "30s"])
        .args(&args.program_arg);
    let server = Program::spawn("afterglow", command);
    let began = Instant::now();
    let end = began + Duration::from_secs(args.seconds);
    let pushing = tokio::spawn(push(server.url(), fleet(&args.profiles, args.rate)?, args.rate, end));
    let asking = tokio::spawn(ask(server.url(), args.questions, end));

    println!("minutes,rss_mib,allocated_mib,files,cpu_seconds,stored_mib");
    let mut samples = Vec::new();
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(args.every)).await;
        let pid = server.pid();
        let hours = began.elapsed().as_secs_f64() / 3600.0;
        let allocated_bytes = allocated(&server.url()).await?;
        let sample = Sample { hours, rss_bytes: rss(pid)?, allocated_bytes, files: open_files(pid)? };
        println!(
            "{:.1},{:.1},{:.1},{},{:.1},{:.1}",
            sample.hours * 60.0,
            sample.rss_bytes as f64 / MIB,
            sample.allocated_bytes as f64 / MIB,
            sample.files,
            cpu_time(pid)?.as_secs_f64(),
            folder_bytes(storage.path())? as f64 / MIB
        );
        samples.push(sample);
    }
    let ((pushed, refused), (asked, unanswered)) = (pushing.await??, asking.await??);
    let half = &samples[samples.len() / 2..];
    let files = half.iter().map(|sample| sample.files);
    println!(
        "{:#}",
        serde_json::json!({
            "pushed": pushed,
            "refused": refused,
            "asked": asked,
            "unanswered": unanswered,
            "rss_mib_per_hour": slope(half, |sample| sample.rss_bytes) / MIB,
            "allocated_mib_per_hour": slope(half, |sample| sample.allocated_bytes) / MIB,
            "rss_mib_max": samples.iter().map(|sample| sample.rss_bytes).max().unwrap_or_default() as f64 / MIB,
            "files_min": files.clone().min(),
            "files_max": files.max(),
        })
    );
    // What is refused soaks nothing.
    anyhow::ensure!(refused * 100 <= pushed, "{refused} profiles were refused, beside {pushed} that were taken");
    anyhow::ensure!(unanswered * 100 <= asked, "{unanswered} questions were not answered, beside {asked} that were");
    Ok(())
}

/// Opens a fleet whose profiles are of about the time at which they are pushed at this rate.
fn fleet(folder: &Path, rate: f64) -> anyhow::Result<Fleet> {
    let options = Options { services: 6, instances: 4, noise: 0.1, seed: 1, start_nanos: SystemClock.unix_nanos() };
    let fleet = Fleet::open(folder, options)?;
    let round = Duration::from_secs_f64(fleet.of_round() as f64 / rate);
    Ok(fleet.every(i64::try_from(round.as_nanos())?))
}

/// Asks a server what it has allocated, in bytes.
async fn allocated(url: &str) -> anyhow::Result<u64> {
    let text = reqwest::get(format!("{url}/metrics")).await?.error_for_status()?.text().await?;
    let line = text.lines().find_map(|line| line.strip_prefix("afterglow_memory_allocated_bytes "));
    Ok(line.context("no metric says what is allocated")?.parse()?)
}

/// Returns by how many bytes an hour something grows: the least squares' line through the samples.
fn slope(samples: &[Sample], bytes: fn(&Sample) -> u64) -> f64 {
    let n = samples.len() as f64;
    let x = samples.iter().map(|sample| sample.hours).sum::<f64>() / n;
    let y = samples.iter().map(|sample| bytes(sample) as f64).sum::<f64>() / n;
    let (mut covariance, mut variance) = (0.0, 0.0);
    for sample in samples {
        covariance += (sample.hours - x) * (bytes(sample) as f64 - y);
        variance += (sample.hours - x).powi(2);
    }
    covariance / variance
}

/// Pushes at a rate; returns how many were acknowledged, and how many refused, as by a machine with other things to do.
async fn push(url: String, mut fleet: Fleet, rate: f64, end: Instant) -> anyhow::Result<(u64, u64)> {
    let client = IngestServiceClient::connect(url).await.context("the server does not answer")?;
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    let mut calls = tokio::task::JoinSet::new();
    let (mut pushed, mut refused) = (0, 0);
    let mut count = |outcome: Result<_, tonic::Status>| if outcome.is_ok() { pushed += 1 } else { refused += 1 };
    while Instant::now() <= end {
        ticks.tick().await;
        let profile = Some(fleet.next_item()?.profile);
        let mut client = client.clone();
        calls.spawn(async move { client.push_profile(PushProfileRequest { profile }).await });
        while let Some(done) = calls.try_join_next() {
            count(done?);
        }
    }
    calls.join_all().await.into_iter().for_each(count);
    Ok((pushed, refused))
}

/// Asks at a rate; returns how many were answered, and how many were not, as by a machine with other things to do.
async fn ask(url: String, rate: f64, end: Instant) -> anyhow::Result<(u64, u64)> {
    let client = reqwest::Client::new();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    let (mut asked, mut unanswered) = (0, 0);
    for question in QUESTIONS.iter().cycle() {
        ticks.tick().await;
        if Instant::now() > end {
            break;
        }
        let answer = match client.get(format!("{url}{question}")).send().await {
            // There is nothing to merge in the first moments.
            Ok(answer) if answer.status() == reqwest::StatusCode::NOT_FOUND => continue,
            Ok(answer) => match answer.error_for_status() {
                Ok(answer) => answer.bytes().await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if answer.is_ok() { asked += 1 } else { unanswered += 1 }
    }
    Ok((asked, unanswered))
}
