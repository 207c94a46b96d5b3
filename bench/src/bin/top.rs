//! Which functions a whole fleet spends its time in: Top over a thousand services.
//!
//! `top FOLDER` makes a fleet of the profiles in `FOLDER` (see [`afterglow_bench::fleet`]), of `--services` that each run one of the recorded
//! servers and send one `--type`, and maintains it to rest in a process of its own. Then a new querier is asked for the functions of all of
//! them, and which services run one of them, once and again and again.
//!
//! Everything is written to standard output as one line of JSON a step.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};

use afterglow_bench::bucket::{self, Command, Place, Writer};
use afterglow_bench::fleet::{Fleet, Options};
use afterglow_bench::questions::Querier;
use afterglow_store::clock::{Clock as _, SystemClock};
use anyhow::Result;
use clap::Parser;
use serde_json::{Value, json};

/// The allocator of the servers.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const DAY_NANOS: i64 = 86_400_000_000_000;
const HOUR_NANOS: i64 = 3_600_000_000_000;

/// Measures questions about a whole fleet.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// A folder of base profiles, `<server>-<type>-*.pb.gz`.
    #[arg(default_value = "tests/fixtures/profiles")]
    profiles: PathBuf,
    /// The type that is sent.
    #[arg(long = "type", default_value = "cpu")]
    profile_type: String,
    /// How many services there are.
    #[arg(long, default_value_t = 1_000)]
    services: usize,
    /// How many instances each service has.
    #[arg(long, default_value_t = 2)]
    instances: usize,
    /// How many profiles each instance sends in two hours.
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// The function whose services are asked for.
    #[arg(long, default_value = "runtime.mallocgc")]
    function: String,
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
    // Ten in the morning of the day before yesterday, which is over for maintenance.
    let began = SystemClock.unix_nanos() / DAY_NANOS * DAY_NANOS - 2 * DAY_NANOS + 10 * HOUR_NANOS;
    let prepared = args.place.prepare(began, async |storage| write(&args, storage, began).await).await?;
    let (storage, start_nanos) = (&prepared.storage, prepared.start_nanos);
    let hours = [
        ("an hour", 0, HOUR_NANOS),
        ("an hour from half past", HOUR_NANOS / 2, HOUR_NANOS),
        ("two hours", 0, 2 * HOUR_NANOS),
    ];
    for (window, from, length) in hours {
        let params = |more: &[(&'static str, &str)]| {
            let mut params = vec![
                ("query", "{}".to_owned()),
                ("type", args.profile_type.clone()),
                ("start", (start_nanos + from).to_string()),
                ("end", (start_nanos + from + length).to_string()),
                ("limit", "100".to_owned()),
            ];
            params.extend(more.iter().map(|&(name, value)| (name, value.to_owned())));
            params
        };
        let questions = [
            ("the functions of all", params(&[])),
            ("one function's, by service", params(&[("by", "service"), ("function", &args.function)])),
        ];
        for (name, params) in questions {
            let querier = Querier::start(&args.place.program, storage, &args.place.program_arg)?;
            let cost = querier.cost(&querier.question("/api/v1/top", &params)?).await?;
            let mut report = cost.report();
            let answer = cost.json()?;
            report["step"] = json!(format!("{name}, {window}"));
            report["groups"] = json!(answer["groups"].as_array().map_or(0, Vec::len));
            println!("{report}");
        }
    }
    Ok(())
}

async fn write(args: &Args, storage: &Path, start_nanos: i64) -> Result<Value> {
    let options = Options { services: args.services, instances: args.instances, noise: 0.1, seed: 1, start_nanos };
    let fleet = Fleet::open_of(&args.profiles, options, |_server, profile_type| profile_type == args.profile_type)?;
    let mut fleet = fleet.every(2 * HOUR_NANOS / args.rounds as i64);
    let mut writer = Writer::open(storage, 64).await?;
    for _ in 0..fleet.of_round() * args.rounds {
        let made = fleet.next_made()?;
        writer.add(&made.raw, &made.profile_type, made.labels).await?;
    }
    writer.report().await
}
