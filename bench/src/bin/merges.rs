//! Merges of more and more profiles: what they cost a querier, google/pprof, and our own merger one by one.
//!
//! `merges FOLDER` makes services of one recorded server and type each (see [`afterglow_bench::fleet`]; `--series heap:profefe:40` is one of 40
//! instances), whose instances send `--rounds` profiles, one every `--every` seconds. All are written through the store into a folder, as
//! ingesters leave them, and a process of its own maintains it to rest. Then, service by service and window by window, a new querier is asked
//! for a pprof and another for a flame graph, once and again and again. Windows are given in hours from the start, `--hours 1,4`; `0.5-3.5`
//! is from half past to half past, which no roll-up is for. Each is asked for all instances, and for all but one, which no roll-up is for either.
//!
//! Beside these stand, for services of at most `--alone` profiles, decoding and merging the same profiles one by one with the same decoder and
//! merger, here; and with `--go PROGRAM` (`bench/go/fleetmerge`, built) google/pprof's parse and merge of the same files.
//!
//! Everything is written to standard output as one line of JSON a step. CPU time and memory are the kernel's, requests are counted by
//! the querier.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::str::FromStr;
use std::time::Duration;

use afterglow_bench::bucket::{self, Command, Place, Writer};
use afterglow_bench::cpu;
use afterglow_bench::fleet::{Fleet, Options};
use afterglow_bench::questions::{Querier, millis};
use afterglow_profile::merge::Merger;
use afterglow_profile::{Limits, compress, decode, encode};
use afterglow_store::clock::{Clock as _, SystemClock};
use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

/// The allocator of the servers.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SECOND_NANOS: f64 = 1e9;
const HOUR_NANOS: f64 = 3600.0 * SECOND_NANOS;
const DAY_NANOS: i64 = 86_400_000_000_000;

/// Measures merges.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// A folder of base profiles, `<server>-<type>-*.pb.gz`.
    #[arg(default_value = "tests/fixtures/profiles")]
    profiles: PathBuf,
    /// The services, as TYPE:SERVER:INSTANCES.
    #[arg(long, value_delimiter = ',', default_value = "heap:profefe:4,heap:profefe:40")]
    series: Vec<Series>,
    /// How many profiles each instance sends.
    #[arg(long, default_value_t = 250)]
    rounds: usize,
    /// How many seconds lie between two.
    #[arg(long, default_value_t = 57.6)]
    every: f64,
    /// How far values are perturbed.
    #[arg(long, default_value_t = 0.1)]
    noise: f64,
    /// The windows, in hours from the start: 4, or 0.5-3.5.
    #[arg(long, value_delimiter = ',', default_value = "4,0.5-3.5")]
    hours: Vec<Hours>,
    /// How many days ago it starts.
    #[arg(long, default_value_t = 2)]
    days_ago: i64,
    /// The most profiles of a service that are also merged one by one.
    #[arg(long, default_value_t = 10_000)]
    alone: usize,
    /// google/pprof to compare with: `bench/go/fleetmerge`, built.
    #[arg(long)]
    go: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// A service to make.
#[derive(Clone, Debug)]
struct Series {
    profile_type: String,
    server: String,
    instances: usize,
}

/// A window, in hours from the start.
#[derive(Clone, Copy, Debug)]
struct Hours {
    from: f64,
    to: f64,
}

impl FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let [profile_type, server, instances] = parts[..] else {
            anyhow::bail!("{text:?} is not TYPE:SERVER:INSTANCES")
        };
        Ok(Self { profile_type: profile_type.to_owned(), server: server.to_owned(), instances: instances.parse()? })
    }
}

impl FromStr for Hours {
    type Err = std::num::ParseFloatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (from, to) = text.split_once('-').unwrap_or(("0", text));
        Ok(Self { from: from.parse()?, to: to.parse()? })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Command::Maintain { storage }) = &args.command {
        println!("{}", bucket::maintain(storage).await?);
        return Ok(());
    }
    let began = SystemClock.unix_nanos() / DAY_NANOS * DAY_NANOS - args.days_ago * DAY_NANOS;
    let prepared = args.place.prepare(began, async |storage| write(&args, storage, began).await).await?;
    let (storage, start_nanos) = (&prepared.storage, prepared.start_nanos);
    for number in 0..args.series.len() {
        let others = others(&args, number, start_nanos)?;
        if let Some((report, ..)) = &others {
            println!("{report}");
        }
        for &hours in &args.hours {
            for all in [true, false] {
                println!("{}", merges(&args, storage, number, start_nanos, hours, all, others.as_ref()).await?);
            }
        }
    }
    Ok(())
}

/// Opens the fleet of a service.
fn fleet(args: &Args, number: usize, start_nanos: i64) -> Result<Fleet> {
    let Series { profile_type, server, instances } = &args.series[number];
    let options =
        Options { services: 1, instances: *instances, noise: args.noise, seed: 1 + number as u64, start_nanos };
    let fleet = Fleet::open_of(&args.profiles, options, |of, of_type| of == server && of_type == profile_type)?;
    Ok(fleet.every((args.every * SECOND_NANOS) as i64).from_service(number))
}

/// Writes the profiles of all services, round by round.
async fn write(args: &Args, storage: &Path, start_nanos: i64) -> Result<Value> {
    let mut fleets: Vec<Fleet> =
        (0..args.series.len()).map(|number| fleet(args, number, start_nanos)).collect::<Result<_>>()?;
    let mut writer = Writer::open(storage, 64).await?;
    for _ in 0..args.rounds {
        for fleet in &mut fleets {
            for _ in 0..fleet.of_round() {
                let made = fleet.next_made()?;
                writer.add(&made.raw, &made.profile_type, made.labels).await?;
            }
        }
    }
    writer.report().await
}

/// Merges all profiles of a service one by one and with google/pprof, where they are few enough. Returns the CPU time of each, a profile.
fn others(args: &Args, number: usize, start_nanos: i64) -> Result<Option<(Value, Duration, Option<Duration>)>> {
    let mut fleet = fleet(args, number, start_nanos)?;
    let profiles = fleet.of_round() * args.rounds;
    if profiles > args.alone {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let (mut merger, mut took) = (Merger::new(), Duration::ZERO);
    for n in 0..profiles {
        let made = fleet.next_made()?;
        let gzip = compress::gzip(&made.raw);
        cpu::timed(&mut took, || -> Result<()> {
            let raw = compress::inflate(&gzip, &Limits::default())?;
            Ok(merger.add(&decode::decode(&raw, &Limits::default())?)?)
        })?;
        std::fs::write(folder.path().join(format!("{n:06}.pb.gz")), gzip)?;
    }
    let samples = cpu::timed(&mut took, || {
        let merged = merger.finish();
        let profile = merged.profile();
        std::hint::black_box(compress::gzip(&encode::encode(&profile)));
        profile.samples.len()
    });
    let mut report = json!({
        "step": "others", "series": name(&args.series[number]), "profiles": profiles, "samples": samples,
        "one_by_one_cpu_ms": millis(took),
    });
    let mut go = None;
    if let Some(program) = &args.go {
        let done = Process::new(program).arg(folder.path()).output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let said: Value = serde_json::from_slice(&done.stdout)?;
        let seconds = said["cpu_seconds"].as_f64().context("it says its CPU time")?;
        ensure!(said["samples"] == json!(samples), "{said}: not {samples} samples");
        go = Some(Duration::from_secs_f64(seconds) / profiles as u32);
        report["go_cpu_ms"] = json!(seconds * 1e3);
        report["go_peak_rss_mib"] = said["peak_rss_mib"].clone();
    }
    Ok(Some((report, took / profiles as u32, go)))
}

fn name(Series { profile_type, server, instances }: &Series) -> String {
    format!("{profile_type} of {server}, {instances} instances")
}

/// Has new queriers merge what a service sent in a window.
async fn merges(
    args: &Args,
    storage: &Path,
    number: usize,
    start_nanos: i64,
    hours: Hours,
    all: bool,
    others: Option<&(Value, Duration, Option<Duration>)>,
) -> Result<Value> {
    let at = |hour: f64| start_nanos + (hour * HOUR_NANOS) as i64;
    let but_one = format!(r#",instance!="10.0.{number}.0:6060""#);
    let query = format!(r#"{{service="service-{number:03}"{}}}"#, if all { "" } else { &but_one });
    let mut report = json!({
        "step": "merge", "series": name(&args.series[number]), "hours": hours.to - hours.from, "from": hours.from,
        "instances": if all { "all" } else { "all but one" },
    });
    let mut profiles = None;
    for format in ["pprof", "flamegraph"] {
        let querier = Querier::start(&args.place.program, storage, &args.place.program_arg)?;
        let params = [
            ("query", query.clone()),
            ("type", args.series[number].profile_type.clone()),
            ("start", at(hours.from).to_string()),
            ("end", at(hours.to).to_string()),
            ("format", format.to_owned()),
        ];
        let cost = match querier.cost(&querier.question("/api/v1/merge", &params)?).await {
            Ok(cost) => cost,
            Err(refusal) => {
                report[format] = json!({ "refused": refusal.to_string() });
                continue;
            }
        };
        report[format] = cost.report();
        profiles = profiles.or(cost.profiles);
        if let (Some((_, one_by_one, go)), Some(profiles)) = (others, profiles) {
            let times = |of: Duration| of.as_secs_f64() * profiles as f64 / cost.warm.1.as_secs_f64();
            report[format]["one_by_one_over_warm"] = json!(times(*one_by_one));
            report[format]["go_over_warm"] = json!(go.map(times));
        }
    }
    report["profiles"] = json!(profiles);
    Ok(report)
}
