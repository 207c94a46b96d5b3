//! What a bucket of many profiles costs: compacting it, and merging from it.
//!
//! `scale FOLDER --count 100000` makes a fleet of the profiles in `FOLDER` (see [`afterglow_bench::fleet`]), and writes it through the store
//! into a temporary folder, in segments of `--flush`, as ingesters leave them. Then a process of its own maintains it to rest, and says what that
//! took: CPU time, peak memory, requests. Then a querier answers merges of more and more profiles of one type, each asked once by a new
//! process and again by one that has answered it before. Beside the merges stands what decoding and merging the same profiles one by one
//! takes with the same decoder and merger, measured here in the same run.
//!
//! Everything is written to standard output as one line of JSON a step. CPU time and memory are the kernel's, requests are counted by
//! the store.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use afterglow_bench::bucket::{self, Command, Counted, Place, requests};
use afterglow_bench::fleet::{Fleet, Options as FleetOptions};
use afterglow_bench::questions::{Querier, millis, received};
use afterglow_bench::{cpu, process};
use afterglow_profile::merge::Merger;
use afterglow_profile::{Labels, Limits, ProfileType, compress, decode, encode};
use afterglow_store::block::{Options as BlockOptions, ProfileMeta, SegmentWriter};
use afterglow_store::clock::{Clock as _, SystemClock};
use afterglow_store::paths::TenantId;
use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use ulid::Ulid;

/// The allocator of the servers.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How often a warm querier is asked, so that the clock's ticks of 10 ms are small beside it.
const WARM_ASKS: u32 = 5;

/// How long a segment may take to be written.
const PUT_TIMEOUT: Duration = Duration::from_secs(10);

const HOUR_NANOS: i64 = 3_600_000_000_000;

/// Measures compaction and merges at scale.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// A folder of base profiles, `<server>-<type>-*.pb.gz`.
    #[arg(default_value = "tests/fixtures/profiles")]
    profiles: PathBuf,
    /// How many profiles the fleet sends.
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// How many services it has.
    #[arg(long, default_value_t = 3)]
    services: usize,
    /// How many instances each service has.
    #[arg(long, default_value_t = 50)]
    instances: usize,
    /// How far values are perturbed.
    #[arg(long, default_value_t = 0.1)]
    noise: f64,
    /// How many profiles a segment has.
    #[arg(long, default_value_t = 64)]
    flush: usize,
    /// The type that is merged.
    #[arg(long = "type", default_value = "heap")]
    profile_type: String,
    /// The service that is merged.
    #[arg(long, default_value = "service-000")]
    service: String,
    /// How many profiles are merged, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,100000")]
    merges: Vec<usize>,
    #[command(flatten)]
    place: Place,
}

/// A selected part of the fleet.
struct Selection<'a> {
    service: &'a str,
    profile_type: &'a str,
    /// Times of its profiles, in nanoseconds since 1970, ascending.
    times: Vec<i64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Command::Maintain { storage }) = &args.command {
        println!("{}", bucket::maintain(storage).await?);
        return Ok(());
    }
    let temporary = tempfile::tempdir()?;
    let storage = args.place.storage.clone().unwrap_or_else(|| temporary.path().to_owned());
    let start_nanos = 1_000_000_000 * (SystemClock.unix_nanos() / 1_000_000_000) - 26 * HOUR_NANOS;
    let started = storage.join("started");
    let start_nanos = match std::fs::read_to_string(&started) {
        Ok(text) => text.trim().parse()?,
        Err(_) => {
            println!("{}", write(&args, &storage, start_nanos).await?);
            std::fs::write(&started, start_nanos.to_string())?;
            start_nanos
        }
    };
    println!("{}", bucket::maintain_apart(&storage)?);

    let (selection, alone) = one_by_one(&args, start_nanos)?;
    println!("{}", alone.report(selection.times.len()));
    let mut last = 0;
    for &profiles in &args.merges {
        let profiles = profiles.min(selection.times.len());
        if profiles > last {
            println!("{}", merges(&args, &storage, &selection, profiles, &alone).await?);
        }
        last = profiles;
    }
    Ok(())
}

fn fleet(args: &Args, start_nanos: i64) -> Result<Fleet> {
    let options =
        FleetOptions { services: args.services, instances: args.instances, noise: args.noise, seed: 1, start_nanos };
    Fleet::open(&args.profiles, options)
}

/// Writes the fleet's profiles as segments.
async fn write(args: &Args, storage: &Path, start_nanos: i64) -> Result<Value> {
    let Counted { store, .. } = Counted::open(storage).await?;
    let mut fleet = fleet(args, start_nanos)?;
    let limits = Limits::default();
    let tenant = TenantId::anonymous();
    let mut writer = SegmentWriter::new(BlockOptions::default());
    let (mut raw_bytes, mut gzip_bytes, mut stored_bytes, mut segments) = (0, 0, 0, 0);
    let mut took = Duration::ZERO;
    for n in 0..args.count {
        let item = fleet.next_item()?;
        let finished = cpu::timed(&mut took, || -> Result<_> {
            let raw = compress::inflate(&item.profile.pprof, &limits)?;
            let profile = decode::decode(&raw, &limits)?;
            let meta = ProfileMeta {
                id: Ulid::from_parts(profile.time_nanos as u64 / 1_000_000, n as u128),
                profile_type: ProfileType::parse(&item.profile.r#type)?,
                labels: Labels::new(item.profile.labels.clone())?,
                time_nanos: profile.time_nanos,
                duration_nanos: profile.duration_nanos,
            };
            writer.add(meta, &raw, &profile)?;
            raw_bytes += raw.len();
            if writer.len() < args.flush && n + 1 < args.count {
                return Ok(None);
            }
            Ok(Some(std::mem::replace(&mut writer, SegmentWriter::new(BlockOptions::default())).finish()?))
        })?;
        gzip_bytes += item.profile.pprof.len();
        if let Some(finished) = finished {
            stored_bytes += finished.bytes.len();
            segments += 1;
            store.put_segment(&tenant, finished.bytes, tokio::time::Instant::now() + PUT_TIMEOUT).await?;
        }
    }
    let n = args.count as f64;
    Ok(json!({
        "step": "write", "profiles": args.count, "segments": segments, "raw_kb": raw_bytes as f64 / n / 1e3,
        "gzip_kb": gzip_bytes as f64 / n / 1e3, "stored_over_gzip": stored_bytes as f64 / gzip_bytes as f64,
        "cpu_seconds_per_1000": took.as_secs_f64() / n * 1e3,
    }))
}

/// What decoding and merging profiles one by one takes, after so many of them.
struct OneByOne {
    /// The CPU time after each profile.
    after: Vec<Duration>,
}

impl OneByOne {
    fn report(&self, profiles: usize) -> Value {
        let all = self.after.last().copied().unwrap_or_default();
        json!({ "step": "decode and merge one by one", "profiles": profiles, "measured": self.after.len(), "cpu_seconds": all.as_secs_f64() })
    }

    /// Returns what so many profiles take; beyond those that were measured, in proportion.
    fn of(&self, profiles: usize) -> Duration {
        let measured = profiles.min(self.after.len());
        self.after[measured - 1].mul_f64(profiles as f64 / measured as f64)
    }
}

/// Goes through the fleet again: finds the times of what is merged, and decodes and merges the first thousand one by one.
fn one_by_one(args: &Args, start_nanos: i64) -> Result<(Selection<'_>, OneByOne)> {
    const MEASURED: usize = 1_000;
    let limits = Limits::default();
    let mut fleet = fleet(args, start_nanos)?;
    let mut selection = Selection { service: &args.service, profile_type: &args.profile_type, times: Vec::new() };
    let (mut merger, mut took, mut after) = (Merger::new(), Duration::ZERO, Vec::new());
    for _ in 0..args.count {
        let item = fleet.next_item()?;
        if item.profile.r#type != args.profile_type || item.profile.labels["service"] != args.service {
            continue;
        }
        let raw = compress::inflate(&item.profile.pprof, &limits)?;
        let time = decode::decode(&raw, &limits)?.time_nanos;
        selection.times.push(time);
        if after.len() < MEASURED {
            cpu::timed(&mut took, || merger.add(&decode::decode(&raw, &limits)?).map_err(anyhow::Error::from))?;
            after.push(took);
        }
    }
    ensure!(!after.is_empty(), "{} sends no {}", args.service, args.profile_type);
    cpu::timed(&mut took, || std::hint::black_box(encode::encode(&merger.finish().profile())));
    Ok((selection, OneByOne { after }))
}

/// Has a new querier merge the first so many profiles, cold and warm.
async fn merges(
    args: &Args,
    storage: &Path,
    selection: &Selection<'_>,
    profiles: usize,
    alone: &OneByOne,
) -> Result<Value> {
    // As many as the steps of time hold that are needed for so many.
    let last = selection.times[profiles - 1];
    let merged = selection.times.partition_point(|&time| time <= last);
    let mut answers = serde_json::Map::new();
    for format in ["pprof", "flamegraph"] {
        let querier = Querier::start(&args.place.program, storage, &args.place.program_arg)?;
        let question = querier.question(
            "/api/v1/merge",
            &[
                ("query", format!("{{service=\"{}\"}}", selection.service)),
                ("type", selection.profile_type.to_owned()),
                ("start", selection.times[0].to_string()),
                ("end", (last + 1).to_string()),
                ("format", format.to_owned()),
            ],
        )?;
        let ask = async || -> Result<usize> {
            let (body, profiles) = querier.ask(&question).await?;
            if format == "pprof" {
                let profiles = profiles.context("a merge says of how many")?;
                ensure!(profiles == merged, "{profiles} profiles, not {merged}");
            }
            Ok(body.len())
        };
        let idle = process::cpu_time(querier.pid())?;
        let (before, began) = (querier.metrics().await?, Instant::now());
        let bytes = ask().await?;
        let (cold_wall, cold) = (began.elapsed(), process::cpu_time(querier.pid())?.saturating_sub(idle));
        let after = querier.metrics().await?;
        let (begun, warm_began) = (process::cpu_time(querier.pid())?, Instant::now());
        for _ in 0..WARM_ASKS {
            ask().await?;
        }
        let warm = (process::cpu_time(querier.pid())?.saturating_sub(begun)) / WARM_ASKS;
        let warm_wall = warm_began.elapsed() / WARM_ASKS;
        let one_by_one = alone.of(merged);
        answers.insert(
            format.to_owned(),
            json!({
                "answer_bytes": bytes, "cold_cpu_ms": millis(cold), "cold_wall_ms": millis(cold_wall), "warm_cpu_ms": millis(warm),
                "warm_wall_ms": millis(warm_wall), "peak_rss_mib": process::peak_rss(querier.pid())? >> 20,
                "bytes_read": received(&after) - received(&before), "requests": requests(&after),
                "one_by_one_over_warm": one_by_one.as_secs_f64() / warm.as_secs_f64(),
                "one_by_one_over_cold": one_by_one.as_secs_f64() / cold.as_secs_f64(),
            }),
        );
    }
    Ok(
        json!({ "step": "merge", "profiles": merged, "one_by_one_cpu_ms": millis(alone.of(merged)), "answers": answers }),
    )
}
