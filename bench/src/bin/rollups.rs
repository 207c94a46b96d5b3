//! What roll-ups cost and spare: their share of a block, and merges of shorter and longer windows from blocks with and without.
//!
//! `rollups FOLDER` makes a service of `--instances` out of the `<server>-<type>-*.pb.gz` in `FOLDER` (see [`afterglow_bench::fleet`]), of
//! which each sends every `--every` seconds for `--hours`, all of one day and one `--type`. Its segments are merged to level 3 once for each
//! of `--steps`, and without roll-ups; then each block is asked for merges of the first hours of it, also by one who keeps what it decoded.
//!
//! CPU time is the process's, the bytes are those that the store gave; the best of several rounds counts.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use afterglow_bench::cpu;
use afterglow_bench::fleet::{Fleet, Options as FleetOptions};
use afterglow_profile::{Labels, Limits, ProfileType, compress, decode};
use afterglow_store::block::{
    Block, Decoded, Input, Merge, MergeOptions, Options as BlockOptions, ProfileMeta, SampleTypes, SegmentWriter,
};
use afterglow_store::{Metrics, StorageUrl, StoreOptions};
use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use prometheus_client::registry::Registry;
use ulid::Ulid;

/// The allocator of the servers.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How many profiles a segment has.
const FLUSH: usize = 64;

/// How often each question is asked; the best counts.
const ROUNDS: usize = 3;

/// The memory for what was decoded: enough for all.
const DECODED_BYTES: u64 = 256 << 20;

/// The start of a day, in nanoseconds since 1970.
const START_NANOS: i64 = 20_000 * 86_400 * 1_000_000_000;

const SECOND_NANOS: i64 = 1_000_000_000;

/// Measures roll-ups.
#[derive(Parser)]
struct Args {
    /// A folder of base profiles, `<server>-<type>-*.pb.gz`.
    #[arg(default_value = "tests/fixtures/profiles")]
    profiles: PathBuf,
    /// The type that is sent and merged.
    #[arg(long = "type", default_value = "heap")]
    profile_type: String,
    /// How many instances the service has.
    #[arg(long, default_value_t = 16)]
    instances: usize,
    /// How many seconds lie between two profiles of an instance.
    #[arg(long, default_value_t = 60)]
    every: i64,
    /// How many hours they send.
    #[arg(long, default_value_t = 6)]
    hours: i64,
    /// How far values are perturbed.
    #[arg(long, default_value_t = 0.1)]
    noise: f64,
    /// How many seconds a step has, one block each; 0 for no roll-ups.
    #[arg(long, value_delimiter = ',', default_value = "0,600,3600")]
    steps: Vec<u64>,
    /// How many of the hours are merged, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1,6")]
    windows: Vec<i64>,
}

/// A store that says how many bytes it gave.
struct Counted {
    objects: Arc<dyn ObjectStore>,
    registry: Registry,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let store = Counted::open(folder.path()).await?;
    let mut segments = Vec::new();
    for (n, payload) in (0..).zip(segments_of(&args)?) {
        segments.push(store.put(&format!("segment-{n:06}"), payload).await?);
    }
    let decoded = Arc::new(Decoded::new(DECODED_BYTES, Metrics::default()));
    println!(
        "step s | block bytes  roll-ups %  CPU s of the merge | hours  profiles  sample types |   ms    MB read  GETs |  kept ms"
    );
    for &step in &args.steps {
        let options =
            MergeOptions { rollup_step: (step > 0).then(|| Duration::from_secs(step)), ..MergeOptions::of_level(3) };
        let inputs = segments.iter().map(|block| Input { block: block.clone(), skip: Arc::from([]) }).collect();
        let began = cpu::of_process();
        let mut merge = Merge::begin(inputs, MergeOptions { memory_max: u64::MAX, ..options }).await?;
        let merged = merge.next().await?.context("there are profiles")?;
        ensure!(merge.next().await?.is_none(), "they do not fit into one block");
        let took = cpu::of_process().saturating_sub(began);
        let block = store.put(&format!("step-{step}"), merged.bytes.into()).await?;
        let share = 100.0 * block.toc().parts()["roll-ups"] as f64 / block.size() as f64;
        println!("{step:6} | {:11} {share:11.2} {:19.2} |", block.size(), took.as_secs_f64());
        let rows = block.rows().await?;
        let kept = Block::open(store.objects.clone(), block.path().clone()).await?.keeping(&decoded);
        kept.rows().await?;
        for &hours in &args.windows {
            let end = START_NANOS + hours * 3_600 * SECOND_NANOS;
            let chosen: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].time_nanos < end).collect();
            for types in [SampleTypes::All, SampleTypes::Default] {
                let before = store.given()?;
                let best = best_of(&block, &chosen, types).await?;
                let after = store.given()?;
                // The first of its rounds decodes.
                let again = best_of(&kept, &chosen, types).await?;
                let [bytes, gets] = [0, 1].map(|i| (after[i] - before[i]) / ROUNDS as f64);
                println!(
                    "{:56} | {hours:5} {:9} {:>13} | {:6.1} {:8.2} {gets:5.0} | {:8.2}",
                    "",
                    chosen.len(),
                    format!("{types:?}"),
                    best.as_secs_f64() * 1e3,
                    bytes / 1e6,
                    again.as_secs_f64() * 1e3,
                );
            }
        }
    }
    Ok(())
}

/// Returns the least CPU time that summing these rows took in so many rounds.
async fn best_of(block: &Block, rows: &[usize], types: SampleTypes) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = cpu::of_process();
        black_box(block.aggregate(0, rows, types).await?);
        best = best.min(cpu::of_process().saturating_sub(began));
    }
    Ok(best)
}

/// Makes the segments.
fn segments_of(args: &Args) -> Result<Vec<PutPayload>> {
    let limits = Limits::default();
    let options =
        FleetOptions { services: 1, instances: args.instances, noise: args.noise, seed: 1, start_nanos: START_NANOS };
    let mut fleet = Fleet::open(&args.profiles, options)?;
    let (mut segments, mut writer) = (Vec::new(), SegmentWriter::new(BlockOptions::default()));
    let count = args.hours * 3_600 / args.every * args.instances as i64;
    let mut n = 0;
    while n < count {
        let item = fleet.next_item()?;
        if item.profile.r#type != args.profile_type {
            continue;
        }
        let round = n / args.instances as i64;
        let time_nanos = START_NANOS + round * args.every * SECOND_NANOS;
        let raw = compress::inflate(&item.profile.pprof, &limits)?;
        let profile = decode::decode(&raw, &limits)?;
        let meta = ProfileMeta {
            id: Ulid::from_parts(time_nanos as u64 / 1_000_000, n as u128),
            profile_type: ProfileType::parse(&item.profile.r#type)?,
            labels: Labels::new(item.profile.labels.clone())?,
            time_nanos,
            duration_nanos: profile.duration_nanos,
        };
        writer.add(meta, &raw, &profile)?;
        n += 1;
        if writer.len() == FLUSH || n == count {
            let finished = std::mem::replace(&mut writer, SegmentWriter::new(BlockOptions::default())).finish()?;
            segments.push(finished.bytes.into());
        }
    }
    Ok(segments)
}

// === impl Counted ===

impl Counted {
    async fn open(folder: &std::path::Path) -> Result<Self> {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let url: StorageUrl = format!("file://{}", folder.display()).parse()?;
        let store = afterglow_store::open(&url, StoreOptions { metrics, ..StoreOptions::default() }).await?;
        Ok(Self { objects: store.objects(), registry })
    }

    /// Puts a block and opens it.
    async fn put(&self, name: &str, payload: PutPayload) -> Result<Arc<Block>> {
        let key = Key::from(name);
        self.objects.put(&key, payload).await?;
        Ok(Arc::new(Block::open(self.objects.clone(), key).await?))
    }

    /// Returns how many bytes were given so far, by how many GETs.
    fn given(&self) -> Result<[f64; 2]> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        let sum = |name: &str, with: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(with));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        Ok([sum("afterglow_store_received_bytes_total", ""), sum("afterglow_store_requests_total", "operation=\"get")])
    }
}
