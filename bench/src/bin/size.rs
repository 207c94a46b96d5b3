//! What profiles cost once they are stored: bytes in the bucket, and what merging them takes, level by level.
//!
//! `size FOLDER…` takes the profiles of some folders, as `<service>-<type>-*.pb.gz` or `<service>/<instance>-<type>-*.pb.gz`, in the order of the
//! number at the end of their names, as they would come in from everywhere at once. `size --fleet 20x50 --count 100000 FOLDER` makes a fleet of
//! the first form's profiles instead, every value perturbed. They are written in segments of `--flush`, which are merged to level 1, 2
//! and 3, each by a process of its own, so that its CPU time and its peak memory are those of the merge. All objects count: tables,
//! samples, rows, tables of contents, footers.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;

use afterglow_bench::fleet::{Fleet, Options as FleetOptions};
use afterglow_bench::{cpu, process};
use afterglow_profile::{Labels, Limits, ProfileType, compress, decode};
use afterglow_store::block::{
    Block, Footprint, Input, Merge, MergeOptions, Options as BlockOptions, ProfileMeta, SegmentWriter,
};
use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// The allocator of the servers.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures what profiles cost once they are stored.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Args)]
struct Run {
    /// Folders with `*.pb.gz` files.
    folders: Vec<PathBuf>,
    /// How many profiles go into one segment.
    #[arg(long, default_value_t = 16)]
    flush: usize,
    /// Only the profiles of these types; by default each type alone, then all together, or a fleet of all.
    #[arg(long)]
    only: Vec<String>,
    /// Makes a fleet of so many services and instances of the first folder's profiles.
    #[arg(long, value_name = "SERVICESxINSTANCES")]
    fleet: Option<String>,
    /// How many profiles a fleet sends.
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// How much the values of a fleet are perturbed.
    #[arg(long, default_value_t = 0.1)]
    noise: f64,
    /// By how many different factors, evenly apart; by default by any.
    #[arg(long)]
    factors: Option<NonZeroU32>,
    /// How many segments are merged into level 1 at once; of level 1 into 2, a quarter of that.
    #[arg(long, default_value_t = 64)]
    fan: usize,
    /// Compression level of zstd and profiles a chunk, of levels 1, 2 and 3, instead of the defaults: `3:64,9:64,9:64`.
    #[arg(long)]
    tune: Option<String>,
    /// Prints what the bytes of each level are spent on.
    #[arg(long)]
    parts: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Merges all blocks of a folder into another, and prints what it took.
    #[command(hide = true)]
    Merge {
        from: PathBuf,
        to: PathBuf,
        #[arg(long)]
        level: u8,
        #[arg(long)]
        fan: usize,
        #[arg(long)]
        tune: Option<String>,
    },
}

/// A profile as it was sent.
struct Sent {
    service: String,
    instance: String,
    profile_type: String,
    body: Vec<u8>,
}

/// What was sent, and what lies in the bucket for it.
#[derive(Default)]
struct Figures {
    profiles: usize,
    columns: usize,
    raw_bytes: u64,
    gzip_bytes: u64,
    levels: Vec<Level>,
}

/// A level, and what it took to make it.
#[derive(Default, Serialize, Deserialize)]
struct Level {
    objects: usize,
    bytes: u64,
    parts: BTreeMap<String, u64>,
    cpu_seconds: f64,
    peak_rss: u64,
    reads: u64,
    bytes_read: u64,
}

#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(Command::Merge { from, to, level, fan, tune }) = options.command {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let made = runtime.block_on(merge(&from, &to, level, fan, tune.as_deref()))?;
        println!("{}", serde_json::to_string(&made)?);
        return Ok(());
    }
    let run = options.run;
    println!(
        "                         profiles      | bytes a profile  | stored over gzip, %         | CPU seconds a 1,000  | peak MiB         | GETs"
    );
    println!(
        "what                     n of columns  |    raw    gzip   |    L0     L1     L2     L3 |    L1     L2     L3  |   L1   L2   L3   | a 1,000"
    );
    if let Some(shape) = &run.fleet {
        let (services, instances) = shape.split_once('x').context("--fleet is SERVICESxINSTANCES")?;
        let options = FleetOptions {
            services: services.parse()?,
            instances: instances.parse()?,
            noise: run.noise,
            seed: 1,
            start_nanos: 1_795_500_000_000_000_000,
        };
        let folder = run.folders.first().context("a fleet needs a folder")?;
        let wants = |profile_type: &str| run.only.is_empty() || run.only.iter().any(|only| only == profile_type);
        let mut fleet =
            Fleet::open_of(folder, options, |_server, profile_type| wants(profile_type))?.by_factors(run.factors);
        let items = (0..run.count).map(|_| {
            let item = fleet.next_item()?;
            let label = |name| Ok::<_, anyhow::Error>(item.profile.labels.get(name).context("it has one")?.clone());
            Ok(Sent {
                service: label("service")?,
                instance: label("instance")?,
                profile_type: item.profile.r#type,
                body: item.profile.pprof.to_vec(),
            })
        });
        let figures = measure(items, &run)?;
        println!("{}", figures.report("fleet", run.parts));
        return Ok(());
    }
    let mut paths = Vec::new();
    for folder in &run.folders {
        find(folder, &mut paths)?;
    }
    ensure!(!paths.is_empty(), "no *.pb.gz in these folders");
    paths.sort();
    let sent = named(&paths)?;
    let types: BTreeSet<_> = match &run.only[..] {
        [] => sent.iter().map(|(_, of)| &of.profile_type).collect(),
        only => only.iter().collect(),
    };
    for profile_type in types {
        let of_type = sent.iter().filter(|(_, of)| of.profile_type == *profile_type);
        println!("{}", measure(of_type.map(|(path, of)| of.read(path)), &run)?.report(profile_type, run.parts));
    }
    if run.only.is_empty() {
        println!("{}", measure(sent.iter().map(|(path, of)| of.read(path)), &run)?.report("all", run.parts));
    }
    Ok(())
}

fn find(folder: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, out)?;
        } else if path.to_str().is_some_and(|path| path.ends_with(".pb.gz")) {
            out.push(path);
        }
    }
    Ok(())
}

/// Returns the profiles in the order in which they were taken, without their bytes.
fn named(paths: &[PathBuf]) -> Result<Vec<(PathBuf, Sent)>> {
    let mut sent = Vec::new();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pb.gz")).context("names are text")?;
        let folder = path.parent().and_then(|folder| folder.file_name()?.to_str()).unwrap_or_default();
        let words: Vec<&str> = name.split('-').collect();
        let number: u64 = words.last().and_then(|word| word.parse().ok()).unwrap_or(0);
        let [first, profile_type, ..] = words[..] else { continue };
        if ProfileType::parse(profile_type).is_err() {
            continue;
        }
        // In a folder of its own a service's files begin with the instance, which has a digit; else with the service.
        let is_instance = first.bytes().any(|byte| byte.is_ascii_digit());
        let (service, instance) = if is_instance { (folder, first) } else { (first, "i1") };
        let (service, instance, profile_type) = (service.to_owned(), instance.to_owned(), profile_type.to_owned());
        sent.push((number, path.clone(), Sent { service, instance, profile_type, body: Vec::new() }));
    }
    sent.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    Ok(sent.into_iter().map(|(_, path, of)| (path, of)).collect())
}

impl Sent {
    /// Returns it with the bytes of its file.
    fn read(&self, path: &Path) -> Result<Self> {
        let (service, instance) = (self.service.clone(), self.instance.clone());
        let body = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(Self { service, instance, profile_type: self.profile_type.clone(), body })
    }
}

/// Stores profiles, and merges them level by level.
fn measure(sent: impl Iterator<Item = Result<Sent>>, run: &Run) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let level_folder = |level: u8| folder.path().join(level.to_string());
    let mut figures = Figures::default();
    (0..=3).try_for_each(|level| std::fs::create_dir(level_folder(level)))?;
    write(sent, &level_folder(0), run.flush, &mut figures)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    figures.levels.push(runtime.block_on(level(&level_folder(0)))?);
    for level in 1..=3u8 {
        let fan = match level {
            1 => run.fan,
            2 => run.fan.div_ceil(4),
            _ => usize::MAX,
        };
        let (from, to) = (level_folder(level - 1), level_folder(level));
        let mut child = Process::new(std::env::current_exe()?);
        child.arg("merge").args([from, to]).args(["--level", &level.to_string(), "--fan", &fan.to_string()]);
        child.args(run.tune.iter().flat_map(|tune| ["--tune", tune]));
        let done = child.output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        figures.levels.push(serde_json::from_slice(&done.stdout)?);
    }
    Ok(figures)
}

/// Writes segments.
fn write(sent: impl Iterator<Item = Result<Sent>>, folder: &Path, flush: usize, figures: &mut Figures) -> Result<()> {
    let limits = Limits::default();
    let mut chance = SmallRng::seed_from_u64(7);
    let mut writer = SegmentWriter::new(BlockOptions::default());
    let (mut segments, mut time_nanos) = (0, 0);
    let mut finish = |writer: &mut SegmentWriter, figures: &mut Figures| -> Result<()> {
        let finished = std::mem::replace(writer, SegmentWriter::new(BlockOptions::default())).finish()?;
        figures.columns += finished.columns;
        segments += 1;
        Ok(std::fs::write(folder.join(format!("{segments:08}.agb")), &finished.bytes)?)
    };
    for sent in sent {
        let sent = sent?;
        let raw = compress::inflate(&sent.body, &limits)?;
        let profile = decode::decode(&raw, &limits)?;
        // Some producers do not say when.
        time_nanos = if profile.time_nanos > 0 { profile.time_nanos } else { time_nanos };
        let meta = ProfileMeta {
            id: Ulid::from_parts(time_nanos as u64 / 1_000_000, chance.random()),
            profile_type: ProfileType::parse(&sent.profile_type)?,
            labels: Labels::new([("service", sent.service), ("instance", sent.instance)])?,
            time_nanos,
            duration_nanos: profile.duration_nanos,
        };
        writer.add(meta, &raw, &profile)?;
        figures.profiles += 1;
        figures.raw_bytes += raw.len() as u64;
        figures.gzip_bytes += sent.body.len() as u64;
        if writer.len() == flush {
            finish(&mut writer, figures)?;
        }
    }
    if !writer.is_empty() {
        finish(&mut writer, figures)?;
    }
    Ok(())
}

fn keys(folder: &Path) -> Result<Vec<Key>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().into_string().ok().context("names are text")?);
    }
    names.sort();
    Ok(names.into_iter().map(Key::from).collect())
}

/// Adds up what lies in a folder.
async fn level(folder: &Path) -> Result<Level> {
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder)?);
    let mut level = Level::default();
    for key in keys(folder)? {
        let block = Block::open(store.clone(), key).await?;
        level.objects += 1;
        level.bytes += block.size();
        let parts = block.toc().parts();
        let listed: u64 = parts.values().sum();
        for (part, bytes) in parts.into_iter().chain([("contents and footer", block.size() - listed)]) {
            *level.parts.entry(part.into()).or_default() += bytes;
        }
    }
    Ok(level)
}

/// Merges all blocks of a folder, in groups, into another.
async fn merge(from: &Path, to: &Path, to_level: u8, fan: usize, tune: Option<&str>) -> Result<Level> {
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(from)?);
    let mut options = MergeOptions::of_level(to_level);
    if let Some(tune) = tune {
        let of_level = tune.split(',').nth(usize::from(to_level) - 1).context("--tune has three parts")?;
        let (zstd_level, profiles) = of_level.split_once(':').context("a part of --tune is LEVEL:PROFILES")?;
        options.zstd_level = zstd_level.parse()?;
        options.chunk_profiles_max = profiles.parse()?;
    }
    let keys = keys(from)?;
    let (mut reads, mut bytes_read, mut written, mut next) = (0, 0, 0, 0);
    while next < keys.len() {
        let (mut blocks, mut footprint): (Vec<Arc<Block>>, _) = (Vec::new(), Footprint::default());
        while blocks.len() < fan && next < keys.len() {
            let block = Arc::new(Block::open(store.clone(), keys[next].clone()).await?);
            footprint.add(&block);
            if !blocks.is_empty() && footprint.tables() > options.memory_max {
                break;
            }
            blocks.push(block);
            next += 1;
        }
        // Opening a block is a GET too.
        reads += blocks.len() as u64;
        let inputs = blocks.into_iter().map(|block| Input { block, skip: Arc::from([]) }).collect();
        let mut merge = Merge::begin(inputs, options.clone()).await?;
        while let Some(merged) = merge.next().await? {
            written += 1;
            std::fs::write(to.join(format!("{written:08}.agb")), &merged.bytes)?;
        }
        reads += merge.stats().reads;
        bytes_read += merge.stats().bytes_read;
    }
    let (cpu, peak_rss) = (cpu::of_process(), process::peak_rss(std::process::id())?);
    let made = level(to).await?;
    Ok(Level { cpu_seconds: cpu.as_secs_f64(), peak_rss, reads, bytes_read, ..made })
}

impl Figures {
    fn report(&self, name: &str, parts: bool) -> String {
        let n = self.profiles as f64;
        let share = |bytes: u64| 100.0 * bytes as f64 / self.gzip_bytes as f64;
        let mut out = format!(
            "{name:20} {:6} {:6}      | {:6.0}  {:6.0}   |",
            self.profiles,
            self.columns,
            self.raw_bytes as f64 / n,
            self.gzip_bytes as f64 / n
        );
        self.levels.iter().for_each(|level| out += &format!(" {:6.2}", share(level.bytes)));
        out += " |";
        let merges = &self.levels[1..];
        merges.iter().for_each(|level| out += &format!(" {:6.3}", level.cpu_seconds * 1000.0 / n));
        out += "  |";
        merges.iter().for_each(|level| out += &format!(" {:4}", level.peak_rss >> 20));
        out += "   |";
        merges.iter().for_each(|level| out += &format!(" {:4.0}", level.reads as f64 * 1000.0 / n));
        if parts {
            let names: BTreeSet<&String> = self.levels.iter().flat_map(|level| level.parts.keys()).collect();
            for part in names {
                out += &format!("\n    {part:30}");
                for level in &self.levels {
                    let bytes = level.parts.get(part).copied().unwrap_or(0);
                    out += &format!(" {bytes:10} ({:5.2} %)", share(bytes));
                }
            }
            out += "\n    objects                       ";
            self.levels.iter().for_each(|level| out += &format!(" {:10}          ", level.objects));
        }
        out
    }
}
