//! Overload: what an ingester acknowledges under several times the load that it can bear, against what it acknowledges at its best.
//!
//! First a closed loop finds out what the ingester bears. Then an open loop of single calls sends `--factor` times as much, whatever
//! the answers; who is refused comes back as often as the rate says, with another profile. All in one run, by the same senders. What is
//! counted is acknowledged profiles a second, how long those waited, what the others were told, and the ingester's CPU time by the kernel:
//! what it costs to serve and to refuse is right whoever else is on the machine.
//!
//! With `--streams` it comes over streams: first one a connection, each with `--window` profiles unanswered all the time, which says what the
//! ingester bears; then `--factor` times as many of them, to which as many times that is offered, whatever the answers: whoever is refused
//! sends another when it is due. What is due while a stream has as many unanswered is not sent, and counted as kept back. With `--heed` a stream
//! that is told when to come back waits until then, as an agent does; what was due meanwhile is counted as kept back, too.
//!
//! The two sides share a machine: `--pin` binds the ingester to processor 0 and the senders to the others, so that sending what is
//! refused does not take the ingester's time. They still share caches and memory, be it only those. So between the two the
//! closed loop runs once more, beside as many calls as will be refused, to a stand-in among the senders that refuses all: what the
//! ingester bears then differs from the first figure by what the senders' work alone takes from it.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afterglow_bench::fleet::{Fleet, Item, Options};
use afterglow_bench::process::{cpu_time, peak_rss};
use afterglow_e2e::Program;
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{Profile, PushProfileRequest, PushProfileResponse, PushRequest, PushResponse};
use afterglow_store::clock::{Clock as _, SystemClock};
use anyhow::Context as _;
use clap::Parser;
use prost::Message as _;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::StatusExt as _;

/// The fleet's first profiles are as old as this, so that none lies in the future.
const HOUR_NANOS: i64 = 3_600_000_000_000;

/// How many calls of the open loop are under way at most: more than any server should let wait.
const UNDER_WAY_MAX: usize = 20_000;

/// How long a sender waits after a refusal that sends as fast as it is answered.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// What the stand-in lets come of a body that it refuses: as much as an ingester by default.
const WINDOW_BYTES: u32 = 64 << 10;

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
    /// How long each of the three takes, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How far apart the open loop sends what has become due, in milliseconds: by one each call is sent when it is due.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    burst_millis: u64,
    /// Send over streams, as agents do, instead of by single calls.
    #[arg(long)]
    streams: bool,
    /// Let streams that are refused wait as long as they are told.
    #[arg(long, requires = "streams")]
    heed: bool,
    /// Bind the ingester to processor 0, and the senders to the others.
    #[arg(long)]
    pin: bool,
}

/// What a call came to.
struct Outcome {
    took: Duration,
    /// The length of the profile, gzip'd.
    bytes: usize,
    refusal: Option<Status>,
}

/// What all calls came to.
#[derive(Default)]
struct Sums {
    acked: Vec<Duration>,
    acked_bytes: usize,
    refused: BTreeMap<String, u64>,
    refused_after: Vec<Duration>,
    /// How many profiles were due that their sender kept back, because too many before them were not answered yet.
    kept_back: u64,
    /// How many were sent over streams and not answered in the end.
    unanswered: usize,
    /// What the ingester took of a processor meanwhile.
    cpu: Duration,
}

/// What came of one stream.
struct Streamed {
    outcomes: Vec<Outcome>,
    kept_back: u64,
    unanswered: usize,
}

/// Refuses all that comes, at once.
struct StandIn;

// === impl Sums ===

impl Sums {
    fn add(&mut self, Outcome { took, bytes, refusal }: Outcome) {
        match refusal {
            None => {
                self.acked.push(took);
                self.acked_bytes += bytes;
            }
            Some(status) => {
                // Who is told an id is told nothing else by it.
                let message = status.message().split(" id ").next().unwrap_or_default();
                *self.refused.entry(format!("{:?}: {message}", status.code())).or_default() += 1;
                self.refused_after.push(took);
            }
        }
    }

    fn per_second(&self, args: &Args) -> f64 {
        self.acked.len() as f64 / args.seconds as f64
    }

    fn cpu_ms_per_acked(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / self.acked.len().max(1) as f64
    }

    /// Returns what was acknowledged at what cost, as JSON.
    fn report(&mut self, args: &Args) -> serde_json::Value {
        serde_json::json!({
            "acked_per_second": self.per_second(args),
            "acked_bytes_mean": self.acked_bytes / self.acked.len().max(1),
            "acked_ms_p50": quantile_ms(&mut self.acked, 0.5),
            "acked_ms_p99": quantile_ms(&mut self.acked, 0.99),
            "cpu": self.cpu.as_secs_f64() / args.seconds as f64,
            "cpu_ms_per_acked": self.cpu_ms_per_acked(),
        })
    }
}

// === impl StandIn ===

impl StandIn {
    /// Begins to listen, and returns clients of it on as many connections.
    async fn start(connections: usize) -> anyhow::Result<Vec<IngestServiceClient<Channel>>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = Server::builder()
            .initial_stream_window_size(WINDOW_BYTES)
            .add_service(IngestServiceServer::new(Self))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(IngestServiceClient::connect(url.clone()).await?);
        }
        Ok(clients)
    }
}

#[tonic::async_trait]
impl IngestService for StandIn {
    type PushStream = tokio_stream::Empty<Result<PushResponse, Status>>;

    async fn push(&self, _: Request<Streaming<PushRequest>>) -> Result<Response<Self::PushStream>, Status> {
        Err(Status::unimplemented("the stand-in takes single calls"))
    }

    async fn push_profile(&self, _: Request<PushProfileRequest>) -> Result<Response<PushProfileResponse>, Status> {
        Err(Status::resource_exhausted("the stand-in refuses all"))
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
    // To merge blocks begins once there are some: then it would take from the second half what it did not take from the first.
    command
        .args([
            "--roles=ingest",
            "--listen",
            "127.0.0.1:0",
            "--storage",
            &format!("file://{}", storage.path().display()),
        ])
        .args(&args.program_arg);
    let server = Program::spawn("afterglow-ingester", command);
    if args.pin {
        bind(server.pid(), "0")?;
    }
    let mut clients = Vec::new();
    for _ in 0..args.connections {
        clients.push(IngestServiceClient::connect(server.url()).await.context("the ingester does not answer")?);
    }

    if args.streams {
        return run_streams(&args, server.pid(), &clients, &items).await;
    }
    let stand_in = StandIn::start(args.connections).await?;

    let mut alone = closed(&args, server.pid(), &clients, &items).await?;
    let rate = alone.per_second(&args) * args.factor;
    let rest = rate - alone.per_second(&args);
    let (beside, _) = tokio::join!(
        closed(&args, server.pid(), &clients, &items),
        open(&args, server.pid(), &stand_in, &items, rest),
    );
    let mut beside = beside?;
    let mut over = open(&args, server.pid(), &clients, &items, rate).await?;
    let (acked, refused) = (over.acked.len(), over.refused_after.len());
    let of_refusals = over.cpu.as_secs_f64() * 1e3 - beside.cpu_ms_per_acked() * acked as f64;
    println!(
        "{:#}",
        serde_json::json!({
            "bears": alone.report(&args),
            "bears_beside_the_stand_in": beside.report(&args),
            "overloaded": over.report(&args),
            "offered_times": (acked + refused) as f64 / args.seconds as f64 / alone.per_second(&args),
            "goodput": over.per_second(&args) / alone.per_second(&args),
            "goodput_beside_the_stand_in": over.per_second(&args) / beside.per_second(&args),
            "goodput_of_cpu": beside.cpu_ms_per_acked() / over.cpu_ms_per_acked(),
            "cpu_us_per_refused": of_refusals * 1e3 / refused.max(1) as f64,
            "refused_ms_p50": quantile_ms(&mut over.refused_after, 0.5),
            "refused_ms_p99": quantile_ms(&mut over.refused_after, 0.99),
            "refused": over.refused,
            "peak_rss_mib": peak_rss(server.pid())? as f64 / (1 << 20) as f64,
        })
    );
    Ok(())
}

/// Overloads an ingester over streams, and prints what came of it.
async fn run_streams(
    args: &Args,
    ingester: u32,
    clients: &[IngestServiceClient<Channel>],
    items: &Arc<Vec<Item>>,
) -> anyhow::Result<()> {
    let mut alone = closed(args, ingester, clients, items).await?;
    let streams = (args.connections as f64 * args.factor) as usize;
    let mut best = streamed(args, ingester, clients, items, (args.connections, f64::INFINITY)).await?;
    anyhow::ensure!(!best.acked.is_empty(), "the ingester acknowledged nothing");
    let rate = best.per_second(args) * args.factor;
    let mut over = streamed(args, ingester, clients, items, (streams, rate)).await?;
    let sent = over.acked.len() + over.refused_after.len() + over.unanswered;
    let offered = sent as u64 + over.kept_back;
    println!(
        "{:#}",
        serde_json::json!({
            "bears_single_calls": alone.report(args),
            "bears": best.report(args),
            "overloaded": over.report(args),
            "offered_times": offered as f64 / args.seconds as f64 / best.per_second(args),
            "goodput": over.per_second(args) / best.per_second(args),
            "goodput_of_cpu": best.cpu_ms_per_acked() / over.cpu_ms_per_acked(),
            "kept_back": over.kept_back,
            "unanswered": over.unanswered,
            "refused_ms_p50": quantile_ms(&mut over.refused_after, 0.5),
            "refused_ms_p99": quantile_ms(&mut over.refused_after, 0.99),
            "refused": over.refused,
            "refused_at_best": best.refused,
            "peak_rss_mib": peak_rss(ingester)? as f64 / (1 << 20) as f64,
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

/// Returns a profile that no one has sent.
fn under_new_id(item: &Item) -> Profile {
    Profile { id: ulid::Ulid::generate().to_string(), ..item.profile.clone() }
}

/// Pushes one profile under a new id.
async fn push(mut client: IngestServiceClient<Channel>, item: &Item) -> Outcome {
    let request = PushProfileRequest { profile: Some(under_new_id(item)) };
    let began = Instant::now();
    let refusal = client.push_profile(request).await.err();
    Outcome { took: began.elapsed(), bytes: item.profile.pprof.len(), refusal }
}

/// Sends as much as is acknowledged.
async fn closed(
    args: &Args,
    ingester: u32,
    clients: &[IngestServiceClient<Channel>],
    items: &Arc<Vec<Item>>,
) -> anyhow::Result<Sums> {
    let before = cpu_time(ingester)?;
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
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            }
            outcomes
        }));
    }
    let mut sums = Sums::default();
    for sender in senders {
        sender.await?.into_iter().for_each(|outcome| sums.add(outcome));
    }
    sums.cpu = cpu_time(ingester)? - before;
    Ok(sums)
}

/// Sends at a rate, whatever the answers.
async fn open(
    args: &Args,
    ingester: u32,
    clients: &[IngestServiceClient<Channel>],
    items: &Arc<Vec<Item>>,
    rate: f64,
) -> anyhow::Result<Sums> {
    let before = cpu_time(ingester)?;
    let began = Instant::now();
    let end = began + Duration::from_secs(args.seconds);
    // By chance, so that no connection carries large profiles only.
    let mut rng = SmallRng::seed_from_u64(1);
    let (outcomes, mut received) = tokio::sync::mpsc::channel(UNDER_WAY_MAX);
    let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut sums = Sums::default();
    for n in 0u32.. {
        let due_millis = (f64::from(n) / rate * 1e3) as u64;
        let due = began + Duration::from_millis(due_millis.next_multiple_of(args.burst_millis));
        if due > end {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let permit = Arc::clone(&under_way).acquire_owned().await?;
        if Instant::now() > end {
            break;
        }
        let (client, items) = (clients[rng.random_range(0..clients.len())].clone(), Arc::clone(items));
        let (item, outcomes) = (rng.random_range(0..items.len()), outcomes.clone());
        tokio::spawn(async move {
            let outcome = push(client, &items[item]).await;
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
    // What is under way by now is not counted, as at the beginning there was nothing under way.
    sums.cpu = cpu_time(ingester)? - before;
    drop(outcomes);
    while let Some(outcome) = received.recv().await {
        sums.add(outcome);
    }
    Ok(sums)
}

/// Offers `rate` profiles a second to so many streams, which send them as long as few enough are unanswered; without end, what they take.
async fn streamed(
    args: &Args,
    ingester: u32,
    clients: &[IngestServiceClient<Channel>],
    items: &Arc<Vec<Item>>,
    (streams, rate): (usize, f64),
) -> anyhow::Result<Sums> {
    let before = cpu_time(ingester)?;
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let every = Duration::from_secs_f64(streams as f64 / rate);
    let senders: Vec<_> = (0..streams)
        .map(|n| {
            let (client, items) = (clients[n % clients.len()].clone(), Arc::clone(items));
            tokio::spawn(stream(client, items, n as u64, (args.window, every, end), args.heed))
        })
        .collect();
    tokio::time::sleep_until(end.into()).await;
    let cpu = cpu_time(ingester)? - before;
    let mut sums = Sums { cpu, ..Sums::default() };
    for sender in senders {
        let Streamed { outcomes, kept_back, unanswered } = sender.await??;
        outcomes.into_iter().for_each(|outcome| sums.add(outcome));
        sums.kept_back += kept_back;
        sums.unanswered += unanswered;
    }
    Ok(sums)
}

/// Sends over one stream what is due every so often until the end, with so many unanswered at most; waits as it is told, if it heeds that.
async fn stream(
    mut client: IngestServiceClient<Channel>,
    items: Arc<Vec<Item>>,
    seed: u64,
    (window, every, end): (usize, Duration, Instant),
    heeds: bool,
) -> anyhow::Result<Streamed> {
    let mut rng = SmallRng::seed_from_u64(seed);
    // The streams are not due all at once.
    let mut due = Instant::now() + every.mul_f64(rng.random());
    let (messages, outbound) = tokio::sync::mpsc::channel(window);
    let mut answers = client.push(ReceiverStream::new(outbound)).await?.into_inner();
    let (mut unanswered, mut outcomes, mut kept_back, mut seq) = (BTreeMap::new(), Vec::new(), 0, 0);
    loop {
        let now = Instant::now().min(end);
        while due <= now && now < end && unanswered.len() < window {
            let item = &items[rng.random_range(0..items.len())];
            unanswered.insert(seq, (Instant::now(), item.profile.pprof.len()));
            let part = Some(Part::Profile(under_new_id(item)));
            messages.try_send(PushRequest { seq, part, ..PushRequest::default() })?;
            (seq, due) = (seq + 1, due + every);
        }
        while !every.is_zero() && due <= now {
            (kept_back, due) = (kept_back + 1, due + every);
        }
        if now == end {
            return Ok(Streamed { outcomes, kept_back, unanswered: unanswered.len() });
        }
        let next = if unanswered.len() < window { due.min(end) } else { end };
        tokio::select! {
            answer = answers.message() => {
                let answer = answer?.context("the ingester ended a stream")?;
                let (began, bytes) = unanswered.remove(&answer.seq).context("an answer to nothing")?;
                let refusal = answer.status.filter(|status| status.code != 0).map(|status| {
                    let details = status.encode_to_vec().into();
                    Status::with_details(Code::from_i32(status.code), status.message, details)
                });
                let delay = refusal.as_ref().and_then(|refusal| refusal.get_details_retry_info()?.retry_delay);
                if let Some(delay) = delay.filter(|_| heeds) {
                    let returns = Instant::now() + delay;
                    while !every.is_zero() && due < returns.min(end) {
                        (kept_back, due) = (kept_back + 1, due + every);
                    }
                    due = due.max(returns);
                }
                if every.is_zero() && refusal.is_some() {
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                outcomes.push(Outcome { took: began.elapsed(), bytes, refusal });
            }
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}
