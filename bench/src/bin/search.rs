//! Search of a million stored profiles: pages by label and window, and the values of labels.
//!
//! `search --count 1000000` writes profiles of one sample each, with ten labels, through the store into a folder, as ingesters leave them, and
//! maintains it to rest in a process of its own. Then a new querier for each question is asked it once, and again and again. What is in the
//! profiles does not matter here: a question is answered from their rows.
//!
//! Everything is written to standard output as one line of JSON a step. CPU time and memory are the kernel's, requests are counted by
//! the querier.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;

use afterglow_bench::bucket::{self, Command, Place, Writer};
use afterglow_bench::questions::Querier;
use afterglow_store::clock::{Clock as _, SystemClock};
use anyhow::{Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

/// The allocator of the servers.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const DAY_NANOS: i64 = 86_400_000_000_000;

/// Measures searches.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many profiles there are.
    #[arg(long, default_value_t = 1_000_000)]
    count: usize,
    /// How many services they are of.
    #[arg(long, default_value_t = 200)]
    services: usize,
    /// How many instances each service has.
    #[arg(long, default_value_t = 10)]
    instances: usize,
    /// How many profiles a segment has.
    #[arg(long, default_value_t = 512)]
    flush: usize,
    #[command(flatten)]
    place: Place,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Command::Maintain { storage }) = &args.command {
        println!("{}", bucket::maintain(storage).await?);
        return Ok(());
    }
    // The day before yesterday, which is over for maintenance.
    let began = SystemClock.unix_nanos() / DAY_NANOS * DAY_NANOS - 2 * DAY_NANOS;
    let prepared = args.place.prepare(began, async |storage| write(&args, storage, began).await).await?;
    let (storage, start_nanos) = (&prepared.storage, prepared.start_nanos);
    for question in questions(start_nanos) {
        println!("{}", ask(&args, storage, &question).await?);
    }
    Ok(())
}

/// Writes the profiles of a day, round by round.
async fn write(args: &Args, storage: &Path, start_nanos: i64) -> Result<Value> {
    let mut writer = Writer::open(storage, args.flush).await?;
    let raw = afterglow_e2e::tiny_profile("one_thing");
    let of_round = args.services * args.instances;
    let rounds = args.count.div_ceil(of_round) as i64;
    for n in 0..args.count {
        let (round, n) = ((n / of_round) as i64, n % of_round);
        let (service, instance) = (n % args.services, n / args.services);
        let region = ["eu-west-1", "eu-central-1", "us-east-1", "us-west-2", "ap-south-1"][instance % 5];
        let labels = [
            ("service", format!("service-{service:03}")),
            ("instance", format!("10.{}.{}.{instance}:6060", service / 256, service % 256)),
            ("pod", format!("service-{service:03}-7d4b9c-{instance:05}")),
            ("namespace", format!("namespace-{}", service % 25)),
            ("team", format!("team-{}", service % 40)),
            ("region", region.to_owned()),
            ("zone", format!("{region}{}", ["a", "b", "c"][n % 3])),
            // Two rolls of the fleet a day.
            ("version", format!("1.{}.{}", service % 7, 3 * round / rounds)),
            ("env", "production".to_owned()),
            ("language", ["go", "rust", "java"][service % 3].to_owned()),
        ];
        let time_nanos = start_nanos + DAY_NANOS / rounds * round + 1_000_000 * n as i64;
        writer.add_of(Some(time_nanos), &raw, "cpu", labels).await?;
    }
    writer.report().await
}

/// A question, with its name.
struct Question {
    name: &'static str,
    path: &'static str,
    params: Vec<(&'static str, String)>,
    /// Whether a page of 100 has to come.
    is_page: bool,
}

fn questions(start_nanos: i64) -> Vec<Question> {
    const HOUR_NANOS: i64 = DAY_NANOS / 24;
    let of = |name, path, query: &str, hours: std::ops::Range<i64>| {
        let at = |hour: i64| (start_nanos + hour * HOUR_NANOS).to_string();
        let mut params = vec![("start", at(hours.start)), ("end", at(hours.end))];
        if !query.is_empty() {
            params.push(("query", query.to_owned()));
        }
        Question { name, path, params, is_page: false }
    };
    let page = |name, query: &str, hours: std::ops::Range<i64>| {
        let mut question = of(name, "/api/v1/profiles", query, hours);
        question.params.extend([("limit", "100".to_owned()), ("type", "cpu".to_owned())]);
        question.is_page = true;
        question
    };
    let values = |name, label: &'static str, query: &str, hours: std::ops::Range<i64>| of(name, label, query, hours);
    vec![
        page("page: a team in a region, an hour", r#"{team="team-7",region="eu-west-1"}"#, 10..11),
        page("page: a service, an hour", r#"{service="service-042"}"#, 10..11),
        page("page: an instance, the day", r#"{instance="10.0.42.3:6060"}"#, 0..24),
        page("page: services by a pattern, an hour", r#"{service=~"service-0[0-4].*",language!="go"}"#, 10..11),
        page("page: all, the day", "", 0..24),
        values("values of service, the day", "/api/v1/labels/service/values", "", 0..24),
        values("values of pod, the day", "/api/v1/labels/pod/values", "", 0..24),
        values(
            "values of version of a service, the day",
            "/api/v1/labels/version/values",
            r#"{service="service-042"}"#,
            0..24,
        ),
        values("values of service, an hour", "/api/v1/labels/service/values", "", 10..11),
        values("names of labels, the day", "/api/v1/labels", "", 0..24),
    ]
}

/// Asks a new querier.
async fn ask(args: &Args, storage: &Path, question: &Question) -> Result<Value> {
    let querier = Querier::start(&args.place.program, storage, &args.place.program_arg)?;
    let cost = querier.cost(&querier.question(question.path, &question.params)?).await?;
    let answer = cost.json()?;
    let items = answer.as_object().and_then(|fields| fields.values().find_map(Value::as_array)).map_or(0, Vec::len);
    ensure!(items > 0 && (!question.is_page || items == 100), "{}: {items} items", question.name);
    let mut report = cost.report();
    report["step"] = json!(question.name);
    report["items"] = json!(items);
    Ok(report)
}
