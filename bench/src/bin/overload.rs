//! Overload: what an ingester acknowledges under several times the load that it can bear, against what it acknowledges at its best.
//!
//! First a closed loop finds out what the ingester bears. Then an open loop of single calls sends `--factor` times as much, whatever
//! the answers; who is refused comes back as often as the rate says, with another profile. Both in one run, by the same senders. What is
//! counted is acknowledged profiles a second, how long those waited, and what the others were told.
//!
//! The two sides share a machine: `--pin` binds the ingester to processor 0 and the senders to the others, so that sending what is
//! refused does not take the ingester's time.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afterglow_bench::fleet::{Fleet, Item, Options};
use afterglow_bench::process::peak_rss;
use afterglow_e2e::Program;
use afterglow_proto::v1::PushProfileRequest;
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_store::clock::{Clock as _, SystemClock};
use anyhow::Context as _;
use clap::Parser;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::transport::Channel;

/// The fleet's first profiles are as old as this, so that none lies in the future.
const HOUR_NANOS: i64 = 3_600_000_000_000;

/// How many calls of the open loop are under way at most: more than any server should let wait.
const UNDER_WAY_MAX: usize = 20_000;

/// Overloads an ingester and counts what it still acknowledges.
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
    /// How many different profiles there are; they are sent in turn, each time under an id of its own.
    #[arg(long, default_value_t = 500)]
    count: usize,
    /// How many connections there are.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How many calls each connection of the closed loop has under way.
    #[arg(long, default_value_t = 16)]
    window: usize,
    /// How many times more is sent than the ingester bears.
    #[arg(long, default_value_t = 10.0)]
    factor: f64,
    /// How long each of the two takes, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Bind the ingester to processor 0, and the senders to the others.
    #[arg(long)]
    pin: bool,
}

/// What a call came to.
struct Outcome {
    took: Duration,
    refusal: Option<Status>,
}

/// What all calls came to.
#[derive(Default)]
struct Sums {
    acked: Vec<Duration>,
    refused: BTreeMap<String, u64>,
    refused_after: Vec<Duration>,
}

// === impl Sums ===

impl Sums {
    fn add(&mut self, Outcome { took, refusal }: Outcome) {
        match refusal {
            None => self.acked.push(took),
            Some(status) => {
                *self.refused.entry(format!("{:?}: {}", status.code(), status.message())).or_default() += 1;
                self.refused_after.push(took);
            }
        }
    }

    fn per_second(&self, args: &Args) -> f64 {
        self.acked.len() as f64 / args.seconds as f64
    }
}

fn quantile_ms(times: &mut [Duration], q: f64) -> f64 {
    times.sort_unstable();
    times.get((times.len().saturating_sub(1) as f64 * q) as usize).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.pin {
        bind(std::process::id(), "1-1023")?;
    }
    tokio::runtime::Runtime::new()?.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let options =
        Options { services: 4, instances: 8, noise: 0.1, seed: 1, start_nanos: SystemClock.unix_nanos() - HOUR_NANOS };
    let mut fleet = Fleet::open(&args.profiles, options)?;
    let items = Arc::new((0..args.count).map(|_| fleet.next_item()).collect::<anyhow::Result<Vec<Item>>>()?);
    let storage = tempfile::tempdir()?;
    let mut command = Command::new(&args.program);
    command
        .args(["--listen", "127.0.0.1:0", "--storage", &format!("file://{}", storage.path().display())])
        .args(&args.program_arg);
    let server = Program::spawn("afterglow-ingester", command);
    if args.pin {
        bind(server.pid(), "0")?;
    }
    let mut clients = Vec::new();
    for _ in 0..args.connections {
        clients.push(IngestServiceClient::connect(server.url()).await.context("the ingester does not answer")?);
    }

    let mut best = closed(&args, &clients, &items).await?;
    let rate = best.per_second(&args) * args.factor;
    let mut over = open(&args, &clients, &items, rate).await?;
    let sent = over.acked.len() + over.refused_after.len();
    println!(
        "{:#}",
        serde_json::json!({
            "bears_per_second": best.per_second(&args),
            "bears_ack_ms_p50": quantile_ms(&mut best.acked, 0.5),
            "bears_ack_ms_p99": quantile_ms(&mut best.acked, 0.99),
            "offered_per_second": sent as f64 / args.seconds as f64,
            "offered_times": sent as f64 / args.seconds as f64 / best.per_second(&args),
            "acked_per_second": over.per_second(&args),
            "goodput": over.per_second(&args) / best.per_second(&args),
            "acked_ms_p50": quantile_ms(&mut over.acked, 0.5),
            "acked_ms_p99": quantile_ms(&mut over.acked, 0.99),
            "refused_ms_p50": quantile_ms(&mut over.refused_after, 0.5),
            "refused_ms_p99": quantile_ms(&mut over.refused_after, 0.99),
            "refused": over.refused,
            "peak_rss_mib": peak_rss(server.pid())? as f64 / (1 << 20) as f64,
        })
    );
    Ok(())
}

/// Binds a process and its threads to come to processors, by taskset(1).
fn bind(pid: u32, processors: &str) -> anyhow::Result<()> {
    let status = Command::new("taskset").args(["-a", "-cp", processors, &pid.to_string()]).output()?.status;
    anyhow::ensure!(status.success(), "taskset does not bind {pid} to {processors}");
    Ok(())
}

/// Pushes one profile under a new id.
async fn push(mut client: IngestServiceClient<Channel>, item: &Item) -> Outcome {
    let mut profile = item.profile.clone();
    profile.id = ulid::Ulid::generate().to_string();
    let began = Instant::now();
    let refusal = client.push_profile(PushProfileRequest { profile: Some(profile) }).await.err();
    Outcome { took: began.elapsed(), refusal }
}

/// Sends as much as is acknowledged.
async fn closed(args: &Args, clients: &[IngestServiceClient<Channel>], items: &Arc<Vec<Item>>) -> anyhow::Result<Sums> {
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut senders = Vec::new();
    for n in 0..args.connections * args.window {
        let (client, items) = (clients[n % args.connections].clone(), Arc::clone(items));
        senders.push(tokio::spawn(async move {
            let mut outcomes = Vec::new();
            let mut next = n * 7;
            while Instant::now() < end {
                outcomes.push(push(client.clone(), &items[next % items.len()]).await);
                next += 1;
                if outcomes.last().is_some_and(|outcome| outcome.refusal.is_some()) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            outcomes
        }));
    }
    let mut sums = Sums::default();
    for sender in senders {
        sender.await?.into_iter().for_each(|outcome| sums.add(outcome));
    }
    Ok(sums)
}

/// Sends at a rate, whatever the answers.
async fn open(
    args: &Args,
    clients: &[IngestServiceClient<Channel>],
    items: &Arc<Vec<Item>>,
    rate: f64,
) -> anyhow::Result<Sums> {
    let began = Instant::now();
    let end = began + Duration::from_secs(args.seconds);
    let (outcomes, mut received) = tokio::sync::mpsc::channel(UNDER_WAY_MAX);
    let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut sums = Sums::default();
    for n in 0u32.. {
        let due = began + Duration::from_secs_f64(f64::from(n) / rate);
        if due > end {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let permit = Arc::clone(&under_way).acquire_owned().await?;
        if Instant::now() > end {
            break;
        }
        let (client, items) = (clients[n as usize % args.connections].clone(), Arc::clone(items));
        let outcomes = outcomes.clone();
        tokio::spawn(async move {
            let outcome = push(client, &items[n as usize % items.len()]).await;
            let in_time = Instant::now() <= end;
            // What is acknowledged after the end was acknowledged by a server that was no longer overloaded.
            if in_time || outcome.refusal.is_some() {
                let _ = outcomes.send(outcome).await;
            }
            drop(permit);
        });
        while let Ok(outcome) = received.try_recv() {
            sums.add(outcome);
        }
    }
    drop(outcomes);
    while let Some(outcome) = received.recv().await {
        sums.add(outcome);
    }
    Ok(sums)
}
