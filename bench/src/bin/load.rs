//! The load generator: a fleet of real, perturbed profiles against an ingester, and what that cost the server.
//!
//! It starts the ingester it is given over a temporary folder, or with `--minio` over a MinIO of its own, makes all profiles first so that making them
//! does not count, pushes them over gRPC streams, closed loop (each stream waits for its answers) or open loop (at a fixed rate,
//! whatever the server does), and prints one line of JSON. CPU time and memory are the kernel's; requests are the server's own count;
//! the floor is the CPU time that only gunzipping the same bytes with the same library takes here, in the same run.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afterglow_bench::fleet::{Fleet, Item, Options};
use afterglow_bench::process::{cpu_time, folder_bytes, peak_rss};
use afterglow_e2e::{MinIo, Program};
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{PushRequest, PushResponse};
use afterglow_store::clock::{Clock as _, SystemClock};
use anyhow::Context as _;
use clap::Parser;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// The fleet's first profiles are as old as this, so that none lies in the future.
const HOUR_NANOS: i64 = 3_600_000_000_000;

/// Pushes a fleet's profiles and measures the server.
#[derive(Parser)]
struct Args {
    /// The ingester to start.
    #[arg(long, default_value = "target/release/afterglow-ingester")]
    program: PathBuf,
    /// More arguments for the ingester.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    program_arg: Vec<String>,
    /// Folders of base profiles, `<server>-<type>-*.pb.gz`.
    #[arg(long, default_value = "tests/fixtures/profiles")]
    profiles: PathBuf,
    /// Keep profiles in a MinIO of its own instead of a folder. `tests/tools.sh` installs it.
    #[arg(long)]
    minio: bool,
    /// How many profiles to push.
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// How many services the fleet has.
    #[arg(long, default_value_t = 4)]
    services: usize,
    /// How many instances each service has.
    #[arg(long, default_value_t = 8)]
    instances: usize,
    /// How far values are perturbed.
    #[arg(long, default_value_t = 0.1)]
    noise: f64,
    /// What the random numbers start from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many streams push at once.
    #[arg(long, default_value_t = 16)]
    streams: usize,
    /// How many profiles a stream leaves unanswered before it waits: 1 is a closed loop.
    #[arg(long, default_value_t = 1)]
    window: usize,
    /// Profiles a second over all streams, whatever the answers: an open loop. 0 sends as fast as the window allows.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let items = make(&args)?;
    let raw_bytes: usize = items.iter().map(|i| i.raw_bytes).sum();
    let sent_bytes: usize = items.iter().map(|i| i.profile.pprof.len()).sum();
    let floor = gunzip_floor(&items)?;

    let folder = tempfile::tempdir()?;
    let minio = args.minio.then(MinIo::start);
    let storage =
        minio.as_ref().map_or_else(|| format!("file://{}", folder.path().display()), |minio| minio.bucket("load"));
    let mut command = Command::new(&args.program);
    command.args(["--listen", "127.0.0.1:0", "--storage", &storage]).args(&args.program_arg);
    command.envs(minio.iter().flat_map(MinIo::env));
    let server = Program::spawn("afterglow-ingester", command);
    let idle_cpu = cpu_time(server.pid())?;
    let puts_before = puts(&server.url()).await?;

    let began = Instant::now();
    let mut latencies = push(&args, &server.url(), items).await?;
    let wall = began.elapsed();
    let cpu = cpu_time(server.pid())?.saturating_sub(idle_cpu);
    latencies.sort_unstable();
    let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
    let stored = if args.minio { None } else { Some(folder_bytes(folder.path())?) };
    let requests = puts(&server.url()).await? - puts_before;
    let (put_p50, put_p99) = put_quantiles(&server.url()).await?;

    let n = latencies.len() as f64;
    println!(
        "{}",
        serde_json::json!({
            "profiles": latencies.len(),
            "raw_kb_per_profile": raw_bytes as f64 / n / 1e3,
            "gzip_kb_per_profile": sent_bytes as f64 / n / 1e3,
            "profiles_per_second": n / wall.as_secs_f64(),
            "cpu_seconds_per_1000": cpu.as_secs_f64() / n * 1e3,
            "raw_mb_per_cpu_second": raw_bytes as f64 / 1e6 / cpu.as_secs_f64(),
            "gunzip_floor_cpu_seconds_per_1000": floor.as_secs_f64() / n * 1e3,
            "cpu_over_gunzip_floor": cpu.as_secs_f64() / floor.as_secs_f64(),
            "peak_rss_mib": peak_rss(server.pid())? as f64 / (1 << 20) as f64,
            "puts": requests,
            "profiles_per_put": n / requests,
            "stored_over_gzip": stored.map(|stored| stored as f64 / sent_bytes as f64),
            "put_ms_p50": put_p50 * 1e3,
            "put_ms_p99": put_p99 * 1e3,
            "ack_ms_p50": quantile(0.5),
            "ack_ms_p99": quantile(0.99),
        })
    );
    Ok(())
}

/// Makes all profiles of the run.
fn make(args: &Args) -> anyhow::Result<Vec<Item>> {
    let options = Options {
        services: args.services,
        instances: args.instances,
        noise: args.noise,
        seed: args.seed,
        start_nanos: SystemClock.unix_nanos() - HOUR_NANOS,
    };
    let mut fleet = Fleet::open(&args.profiles, options)?;
    (0..args.count).map(|_| fleet.next_item()).collect()
}

/// Returns the CPU time that gunzipping all profiles takes with the library that the server uses.
fn gunzip_floor(items: &[Item]) -> anyhow::Result<Duration> {
    let mut inflated = vec![0; items.iter().map(|i| i.raw_bytes).max().unwrap_or(0)];
    let mut decompressor = libdeflater::Decompressor::new();
    let me = std::process::id();
    let before = cpu_time(me)?;
    // The clock ticks every 10 ms: several passes make that small.
    const PASSES: u32 = 5;
    for _ in 0..PASSES {
        for item in items {
            decompressor.gzip_decompress(&item.profile.pprof, &mut inflated)?;
        }
    }
    Ok((cpu_time(me)? - before) / PASSES)
}

/// Pushes all profiles and returns how long each waited for its answer.
async fn push(args: &Args, url: &str, items: Vec<Item>) -> anyhow::Result<Vec<Duration>> {
    let mut queues: Vec<Vec<Item>> = vec![Vec::new(); args.streams];
    for (i, item) in items.into_iter().enumerate() {
        queues[i % args.streams].push(item);
    }
    let interval = (args.rate > 0.0).then(|| Duration::from_secs_f64(args.streams as f64 / args.rate));
    let streams: Vec<_> =
        queues.into_iter().map(|queue| tokio::spawn(stream(url.to_owned(), queue, args.window, interval))).collect();
    let mut latencies = Vec::new();
    for stream in streams {
        latencies.extend(stream.await??);
    }
    Ok(latencies)
}

/// Pushes the profiles of one stream.
async fn stream(
    url: String,
    items: Vec<Item>,
    window: usize,
    interval: Option<Duration>,
) -> anyhow::Result<Vec<Duration>> {
    let mut client = IngestServiceClient::connect(url).await.context("the ingester does not answer")?;
    let count = items.len();
    let (requests, receiver) = mpsc::channel(1);
    let permits = Arc::new(Semaphore::new(if interval.is_some() { Semaphore::MAX_PERMITS } else { window }));
    let began = Instant::now();
    let sender = tokio::spawn({
        let permits = Arc::clone(&permits);
        async move {
            let mut sent = Vec::with_capacity(items.len());
            for (seq, item) in items.into_iter().enumerate() {
                // An open loop counts from when a profile was due, so that a stalled server cannot hide its delay.
                let due = interval.map(|i| began + i * seq as u32);
                if let Some(due) = due {
                    tokio::time::sleep_until(due.into()).await;
                }
                permits.acquire().await.expect("never closed").forget();
                sent.push(due.unwrap_or_else(Instant::now));
                let request =
                    PushRequest { seq: seq as u64, part: Some(Part::Profile(item.profile)), ..PushRequest::default() };
                if requests.send(request).await.is_err() {
                    break;
                }
            }
            sent
        }
    });
    let mut answers = client.push(ReceiverStream::new(receiver)).await?.into_inner();
    let mut answered = vec![None; count];
    while let Some(PushResponse { seq, status, .. }) = answers.message().await? {
        if let Some(status) = status.filter(|s| s.code != 0) {
            anyhow::bail!("a profile was refused: {}", status.message);
        }
        answered[seq as usize] = Some(Instant::now());
        permits.add_permits(1);
    }
    let sent = sender.await?;
    sent.iter()
        .zip(answered)
        .map(|(sent, answered)| Ok(answered.context("a profile was not answered")?.duration_since(*sent)))
        .collect()
}

/// Asks the server how long its PUTs took, in seconds: the median and the 99th in 100, between the bounds of its histogram as Prometheus
/// draws the line (`histogram_quantile`).
async fn put_quantiles(url: &str) -> anyhow::Result<(f64, f64)> {
    let text = metrics(url).await?;
    // (upper bound, PUTs at most as long), as they are written: the bounds rise.
    let buckets: Vec<(f64, f64)> = text
        .lines()
        .filter(|l| l.starts_with("afterglow_store_request_duration_seconds_bucket") && l.contains("operation=\"put\""))
        .filter_map(|l| {
            let bound = l.split_once("le=\"")?.1.split('"').next()?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, l.rsplit(' ').next()?.parse().ok()?))
        })
        .collect();
    let total = buckets.last().context("no PUT was counted")?.1;
    let quantile = |q: f64| {
        let (mut lower, mut below) = (0.0, 0.0);
        for (upper, count) in &buckets {
            if *count >= q * total {
                return if upper.is_finite() {
                    lower + (upper - lower) * (q * total - below) / (count - below)
                } else {
                    lower
                };
            }
            (lower, below) = (*upper, *count);
        }
        lower
    };
    Ok((quantile(0.5), quantile(0.99)))
}

async fn metrics(url: &str) -> anyhow::Result<String> {
    Ok(reqwest::get(format!("{url}/metrics")).await?.error_for_status()?.text().await?)
}

/// Asks the server how many PUTs it has sent to its store.
async fn puts(url: &str) -> anyhow::Result<f64> {
    let metrics = metrics(url).await?;
    Ok(metrics
        .lines()
        .filter(|l| l.starts_with("afterglow_store_requests_total") && l.contains("operation=\"put\""))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}
