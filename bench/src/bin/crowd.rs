//! A crowd that asks for everything: what becomes of a querier, of small questions to it, and of an ingester beside it.
//!
//! `crowd --storage FOLDER` takes a bucket that `merges` has left, starts a querier under a limit of memory (a control group of its own, where
//! one can be made; this says if not), and an ingester over the same bucket. Small questions are asked one after the other, and profiles of another tenant
//! pushed at a fixed rate, all the time: alone for `--seconds`, then while `--crowd` clients ask for merges of everything again and again, then alone
//! once more, so that what the machine does shows. Everyone of the crowd has to be answered or refused with a reason.
//!
//! With `--pin` the querier has processor 0 for itself, and all others the rest: as on machines of their own.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use afterglow_bench::fleet::{Fleet, Item, Options};
use afterglow_bench::process;
use afterglow_bench::questions::{millis, quantile};
use afterglow_e2e::Program;
use afterglow_proto::v1::PushProfileRequest;
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_store::clock::{Clock as _, SystemClock};
use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tonic::Request;
use tonic::transport::Channel;

const HOUR_NANOS: i64 = 3_600_000_000_000;

/// How long a client waits between two small questions.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a client of the crowd waits after a refusal.
const PAUSE_REFUSED: Duration = Duration::from_millis(250);

/// Asks a querier for everything, many times at once.
#[derive(Parser)]
struct Args {
    /// A folder that `merges` has left.
    #[arg(long)]
    storage: PathBuf,
    /// A folder of base profiles for the ingester.
    #[arg(long, default_value = "tests/fixtures/profiles")]
    profiles: PathBuf,
    /// How many ask for everything at once.
    #[arg(long, default_value_t = 200)]
    crowd: usize,
    /// What they ask for, by selectors, in turn.
    #[arg(long, value_delimiter = ';', default_value = "{};{service=\"service-001\"};{service=\"service-002\"}")]
    queries: Vec<String>,
    /// Of which types, in turn.
    #[arg(long = "types", value_delimiter = ',', default_value = "heap")]
    types: Vec<String>,
    /// The service and the type of the small questions.
    #[arg(long, default_value = "service-000")]
    service: String,
    /// How many hours there are.
    #[arg(long, default_value_t = 4)]
    hours: i64,
    /// How long each part takes, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Profiles a second that are pushed meanwhile.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// The memory that the querier may use, in MiB.
    #[arg(long, default_value_t = 512)]
    memory_mib: u64,
    /// Bind the querier to processor 0, and all others to the rest.
    #[arg(long)]
    pin: bool,
    /// The querier to start.
    #[arg(long, default_value = "target/release/afterglow-querier")]
    querier: PathBuf,
    /// More arguments for the querier.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    querier_arg: Vec<String>,
    /// The ingester to start.
    #[arg(long, default_value = "target/release/afterglow-ingester")]
    ingester: PathBuf,
}

/// A control group that limits memory, removed when dropped.
struct Group {
    folder: PathBuf,
}

// === impl Group ===

impl Group {
    /// Makes a group of version 2 or 1 (cgroups(7)).
    fn new(memory_mib: u64) -> std::io::Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let is_v2 = root.join("cgroup.controllers").exists();
        let (root, limit) =
            if is_v2 { (root.to_owned(), "memory.max") } else { (root.join("memory"), "memory.limit_in_bytes") };
        let folder = root.join(format!("afterglow-crowd-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let group = Self { folder };
        std::fs::write(group.folder.join(limit), (memory_mib << 20).to_string())?;
        Ok(group)
    }

    /// Returns the most memory that it has used, with the cache of files, and how many were killed for want of it.
    fn told(&self) -> Value {
        let number =
            |file: &str| -> Option<u64> { std::fs::read_to_string(self.folder.join(file)).ok()?.trim().parse().ok() };
        let field = |file: &str, name: &str| -> Option<u64> {
            let text = std::fs::read_to_string(self.folder.join(file)).ok()?;
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        json!({
            "most_used_mib": number("memory.peak").or_else(|| number("memory.max_usage_in_bytes")).map(|bytes| bytes >> 20),
            "oom_kills": field("memory.events", "oom_kill ").or_else(|| field("memory.oom_control", "oom_kill ")),
        })
    }
}

impl Drop for Group {
    #[expect(clippy::disallowed_methods, reason = "the kernel tells nobody when a group is empty")]
    fn drop(&mut self) {
        // What was killed is a moment in going.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What small questions and pushes took in one part.
#[derive(Default)]
struct Part {
    took: BTreeMap<&'static str, Vec<Duration>>,
    failed: BTreeMap<String, u64>,
}

// === impl Part ===

impl Part {
    fn add(&mut self, name: &'static str, took: Duration, failure: Option<String>) {
        match failure {
            None => self.took.entry(name).or_default().push(took),
            Some(failure) => *self.failed.entry(format!("{name}: {failure}")).or_default() += 1,
        }
    }

    fn merge(&mut self, other: Self) {
        for (name, took) in other.took {
            self.took.entry(name).or_default().extend(took);
        }
        for (name, count) in other.failed {
            *self.failed.entry(name).or_default() += count;
        }
    }

    fn report(&mut self) -> Value {
        let took = self.took.iter_mut().map(|(name, took)| {
            let (p50, p99) = (millis(quantile(took, 0.5)), millis(quantile(took, 0.99)));
            ((*name).to_owned(), json!({ "n": took.len(), "p50_ms": p50, "p99_ms": p99 }))
        });
        json!({ "took": serde_json::Map::from_iter(took), "failed": self.failed })
    }

    fn p99(&mut self, name: &str) -> f64 {
        self.took.get_mut(name).map_or(f64::NAN, |took| millis(quantile(took, 0.99)))
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.pin {
        bind(std::process::id(), "1-1023")?;
    }
    tokio::runtime::Runtime::new()?.block_on(run(Arc::new(args)))
}

async fn run(args: Arc<Args>) -> Result<()> {
    let noted = std::fs::read_to_string(args.storage.join("started")).context("`merges --storage` makes the bucket")?;
    let start_nanos: i64 = noted.trim().parse()?;
    let group = Group::new(args.memory_mib);
    if let Err(error) = &group {
        println!("{}", json!({ "step": "limit", "none": error.to_string() }));
    }
    let storage = format!("file://{}", args.storage.display());
    let mut command = within(group.as_ref().ok(), &args.querier, "querier");
    command.args(["--listen", "127.0.0.1:0", "--storage", &storage]).args(&args.querier_arg);
    let querier = Program::spawn("afterglow-querier", command);
    let mut command = within(None, &args.ingester, "ingester");
    command.args(["--listen", "127.0.0.1:0", "--storage", &storage]);
    let ingester = Program::spawn("afterglow-ingester", command);
    if args.pin {
        bind(querier.pid(), "0")?;
    }

    let mut parts = Vec::new();
    let mut outcomes = BTreeMap::new();
    for is_crowded in [false, true, false] {
        let until = Instant::now() + Duration::from_secs(args.seconds);
        let ended = Arc::new(AtomicBool::new(false));
        let mut crowd = Vec::new();
        for n in 0..if is_crowded { args.crowd } else { 0 } {
            crowd.push(tokio::spawn(everything(Arc::clone(&args), querier.url(), start_nanos, n, Arc::clone(&ended))));
        }
        let small = tokio::spawn(small(Arc::clone(&args), querier.url(), start_nanos, until));
        let pushes = tokio::spawn(push(Arc::clone(&args), ingester.url(), until));
        let mut part = small.await??;
        part.merge(pushes.await??);
        ended.store(true, Ordering::Relaxed);
        for client in crowd {
            for (outcome, count) in client.await? {
                *outcomes.entry(outcome).or_insert(0) += count;
            }
        }
        println!("{}", json!({ "step": if is_crowded { "crowd" } else { "alone" }, "part": part.report() }));
        parts.push(part);
    }
    let [before, during, after] = &mut parts[..] else { unreachable!("there are three") };
    let names: Vec<&str> = before.took.keys().copied().collect();
    let times = names.into_iter().map(|name| {
        (name.to_owned(), json!({ "crowded_over_alone": during.p99(name) / before.p99(name), "after_over_before": after.p99(name) / before.p99(name) }))
    });
    let is_alive =
        reqwest::get(format!("{}/healthz", querier.url())).await.is_ok_and(|answer| answer.status().is_success());
    println!(
        "{}",
        json!({
            "step": "sum", "p99": serde_json::Map::from_iter(times), "crowd": outcomes, "is_alive": is_alive,
            "peak_rss_mib": process::peak_rss(querier.pid())? >> 20, "group": group.as_ref().ok().map(Group::told),
        })
    );
    ensure!(is_alive, "the querier is gone:\n{}", querier.log());
    drop((querier, ingester));
    Ok(())
}

/// Returns the command of a server, in a group if there is one.
fn within(group: Option<&Group>, program: &Path, name: &str) -> Command {
    let mut command = match group {
        // It joins before it becomes the server, which looks at its limit when it starts.
        Some(group) => {
            let mut shell = Command::new("sh");
            let procs = group.folder.join("cgroup.procs");
            shell.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(procs).arg(program);
            shell
        }
        None => Command::new(program),
    };
    if program.file_name().is_some_and(|file| file == "afterglow") {
        command.arg(name);
    }
    command
}

/// Binds a process and its threads to come to processors, by taskset(1).
fn bind(pid: u32, processors: &str) -> Result<()> {
    let status = Command::new("taskset").args(["-a", "-cp", processors, &pid.to_string()]).output()?.status;
    ensure!(status.success(), "taskset does not bind {pid} to {processors}");
    Ok(())
}

/// One of the crowd: asks for everything until it is over, and returns what it was told, each with how often.
async fn everything(
    args: Arc<Args>,
    url: String,
    start_nanos: i64,
    number: usize,
    ended: Arc<AtomicBool>,
) -> BTreeMap<String, u64> {
    let client = reqwest::Client::new();
    let mut outcomes = BTreeMap::new();
    for n in number.. {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let query = &args.queries[n % args.queries.len()];
        let params = [
            ("query", query.clone()),
            ("type", args.types[n / args.queries.len() % args.types.len()].clone()),
            ("start", start_nanos.to_string()),
            ("end", (start_nanos + args.hours * HOUR_NANOS).to_string()),
            ("format", ["pprof", "flamegraph"][number % 2].to_owned()),
        ];
        let asked = reqwest::Url::parse_with_params(&format!("{url}/api/v1/merge"), params).expect("a URL");
        let outcome = match client.get(asked).send().await {
            Err(error) => format!("no answer: {error}"),
            Ok(answer) => {
                let status = answer.status();
                match answer.bytes().await {
                    Err(error) => format!("a broken answer: {error}"),
                    Ok(_) if status.is_success() => "answered".to_owned(),
                    Ok(body) => {
                        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
                        format!("{status}: {}", said["error"]["message"].as_str().unwrap_or("no reason"))
                    }
                }
            }
        };
        let is_answered = outcome == "answered";
        *outcomes.entry(format!("{query}: {outcome}")).or_insert(0) += 1;
        if !is_answered {
            tokio::time::sleep(PAUSE_REFUSED).await;
        }
    }
    outcomes
}

/// Asks small questions one after the other.
async fn small(args: Arc<Args>, url: String, start_nanos: i64, until: Instant) -> Result<Part> {
    let client = reqwest::Client::new();
    let profile_type = args.types[0].clone();
    let window = |from: i64, length: i64| {
        [("start", (start_nanos + from).to_string()), ("end", (start_nanos + from + length).to_string())]
    };
    let query = format!(r#"{{service="{}"}}"#, args.service);
    let at = |path: &str, params: &[(&str, String)]| reqwest::Url::parse_with_params(&format!("{url}{path}"), params);
    let selection = [("query", query), ("type", profile_type)];
    let page =
        at("/api/v1/profiles", &[&selection[..], &window(0, HOUR_NANOS), &[("limit", "100".to_owned())]].concat())?;
    let values = at("/api/v1/labels/instance/values", &[&selection[..1], &window(0, HOUR_NANOS)].concat())?;
    let merge = at(
        "/api/v1/merge",
        &[&selection[..], &window(HOUR_NANOS / 2, HOUR_NANOS / 12), &[("format", "flamegraph".to_owned())]].concat(),
    )?;
    let listed = client.get(page.clone()).send().await?.error_for_status()?.bytes().await?;
    let listed: Value = serde_json::from_slice(&listed)?;
    let id = listed["profiles"][0]["id"].as_str().context("there are profiles")?;
    let fetch = at(&format!("/api/v1/profiles/{id}"), &[])?;
    let questions = [
        ("a page of a search", page),
        ("values of a label", values),
        ("a profile", fetch),
        ("a merge of five minutes", merge),
    ];
    let mut part = Part::default();
    while Instant::now() < until {
        for (name, question) in &questions {
            let began = Instant::now();
            let answer = client.get(question.clone()).send().await?;
            let status = answer.status();
            let body = answer.bytes().await?;
            let failure = (!status.is_success()).then(|| format!("{status}: {}", String::from_utf8_lossy(&body)));
            part.add(name, began.elapsed(), failure);
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(part)
}

/// Pushes profiles at a rate, each counted from when it was due.
async fn push(args: Arc<Args>, url: String, until: Instant) -> Result<Part> {
    let options =
        Options { services: 4, instances: 8, noise: 0.1, seed: 1, start_nanos: SystemClock.unix_nanos() - HOUR_NANOS };
    let mut fleet = Fleet::open(&args.profiles, options)?;
    let items: Vec<Item> = (0..200).map(|_| fleet.next_item()).collect::<Result<_>>()?;
    let client = IngestServiceClient::connect(url).await.context("the ingester does not answer")?;
    let (began, mut pushes) = (Instant::now(), tokio::task::JoinSet::new());
    for n in 0u32.. {
        let due = began + Duration::from_secs_f64(f64::from(n) / args.rate);
        if due >= until {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let (client, item) = (client.clone(), items[n as usize % items.len()].clone());
        pushes.spawn(async move { (push_one(client, item).await, due.elapsed()) });
    }
    let mut part = Part::default();
    while let Some(pushed) = pushes.join_next().await {
        let (failure, took) = pushed?;
        part.add("an acknowledgement", took, failure);
    }
    Ok(part)
}

/// Pushes a profile of another tenant than what is asked for, under a new id; returns why it is refused.
async fn push_one(mut client: IngestServiceClient<Channel>, item: Item) -> Option<String> {
    let mut profile = item.profile;
    profile.id = ulid::Ulid::generate().to_string();
    let mut request = Request::new(PushProfileRequest { profile: Some(profile) });
    request.metadata_mut().insert("x-scope-orgid", "crowd".parse().expect("a name"));
    client.push_profile(request).await.err().map(|status| format!("{:?}: {}", status.code(), status.message()))
}
