//! What it costs to store profiles and to ask for them again: CPU time and bytes, series by series.
//!
//! `block FOLDER`: the `*.pb.gz` of one folder; a series is all files whose names are equal up to the last `-`, and the series of one
//! program (the name up to the first `-`) are one service. Every series is written in segments of `--flush` profiles, then all files
//! together, a service after the other. CPU time is what the thread used, so a busy machine makes the figures worse by its caches
//! only. Every figure is the best of several rounds.

use afterglow_bench::cpu::{self, timed};
use afterglow_profile::{Labels, Limits, ProfileType, compress, decode};
use afterglow_store::block::{Block, Finished, Options as BlockOptions, ProfileMeta, SampleTypes, SegmentWriter};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ulid::Ulid;

/// The allocator of the servers.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures segments of real profiles: writing, size, reading.
#[derive(Parser)]
struct Options {
    /// The folder with `*.pb.gz` files.
    folder: PathBuf,
    /// How many profiles go into one segment.
    #[arg(long, default_value_t = 16)]
    flush: usize,
    /// How often everything is measured; the best round counts.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// The compression level of zstd.
    #[arg(long, default_value_t = BlockOptions::default().zstd_level)]
    level: i32,
    /// Only the series that start with this.
    #[arg(long, default_value = "")]
    only: String,
    /// Writes only, asks nothing.
    #[arg(long)]
    write_only: bool,
    /// Prints what the bytes of the segments are spent on.
    #[arg(long)]
    parts: bool,
}

/// A file as it was sent.
struct File {
    service: String,
    profile_type: String,
    body: Vec<u8>,
}

/// CPU time and bytes of some files.
#[derive(Clone, Default)]
struct Figures {
    files: usize,
    samples: u64,
    gzip_bytes: usize,
    raw_bytes: usize,
    stored_bytes: usize,
    columns: usize,
    gunzip: Duration,
    inflate: Duration,
    decode: Duration,
    add: Duration,
    finish: Duration,
    open: Duration,
    fetch: Duration,
    aggregate: Duration,
    parts: BTreeMap<&'static str, u64>,
}

#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
fn main() -> Result<()> {
    let options = Options::parse();
    let series = series(&options.folder, &options.only)?;
    ensure!(!series.is_empty(), "no *.pb.gz in {}", options.folder.display());
    println!(
        "                        profiles        | bytes a profile      |  % | microseconds a profile            | ingest, raw     | questions"
    );
    println!(
        "series                     n of columns |    raw   gzip stored | gz | inflate decode    add finish   all |  MB/s  x gunzip | open us  fetch us  M samples/s"
    );
    for (name, files) in &series {
        println!("{}", measure(&files.iter().collect::<Vec<_>>(), &options).with_context(|| name.clone())?.row(name));
    }
    let all: Vec<_> = series.values().flatten().collect();
    let total = measure(&all, &options)?;
    println!("{}", total.row("all"));
    if options.parts {
        for (part, bytes) in &total.parts {
            println!("{part:24} {bytes:9} bytes {:5.1} %", 100.0 * *bytes as f64 / total.stored_bytes as f64);
        }
    }
    Ok(())
}

/// Reads the profiles of a folder, by series.
fn series(folder: &Path, only: &str) -> Result<BTreeMap<String, Vec<File>>> {
    let mut series: BTreeMap<String, Vec<File>> = BTreeMap::new();
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        paths.push(entry?.path());
    }
    paths.sort();
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pb.gz")) else { continue };
        if !name.starts_with(only) {
            continue;
        }
        let mut words = name.split('-').map(str::to_lowercase);
        let service = words.next().unwrap_or_default();
        let profile_type = words.next().filter(|word| ProfileType::parse(word).is_ok()).unwrap_or("other".into());
        let name = name.rsplit_once('-').map_or(name, |(series, _)| series);
        let file = File { service, profile_type, body: std::fs::read(&path)? };
        series.entry(name.to_owned()).or_default().push(file);
    }
    Ok(series)
}

/// Measures some files, in segments.
fn measure(files: &[&File], options: &Options) -> Result<Figures> {
    let mut best: Option<Figures> = None;
    for _ in 0..options.rounds {
        let mut figures = Figures { files: files.len(), ..Figures::default() };
        for flush in files.chunks(options.flush) {
            let finished = write(flush, options, &mut figures)?;
            if !options.write_only {
                read(&finished, &mut figures)?;
            }
        }
        best = Some(match best {
            None => figures,
            Some(best) => best.min(&figures),
        });
    }
    best.context("at least one round is needed")
}

/// Writes one segment, as an ingester does.
fn write(files: &[&File], options: &Options, figures: &mut Figures) -> Result<Finished> {
    let limits = Limits::default();
    let mut gunzip = libdeflater::Decompressor::new();
    let mut writer = SegmentWriter::new(BlockOptions { zstd_level: options.level, ..BlockOptions::default() });
    for (file, n) in files.iter().zip(1u64..) {
        let raw = timed(&mut figures.inflate, || compress::inflate(&file.body, &limits))?;
        let mut room = vec![0; raw.len()];
        timed(&mut figures.gunzip, || gunzip.gzip_decompress(&file.body, &mut room))?;
        let profile = timed(&mut figures.decode, || decode::decode(&raw, &limits))?;
        let meta = ProfileMeta {
            id: Ulid::from((n, n.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            profile_type: ProfileType::parse(&file.profile_type)?,
            labels: Labels::new([("service", file.service.as_str()), ("instance", "i1")])?,
            time_nanos: profile.time_nanos,
            duration_nanos: profile.duration_nanos,
        };
        let added = timed(&mut figures.add, || writer.add(meta, &raw, &profile))?;
        figures.columns += usize::from(added.columns);
        figures.samples += profile.samples.len() as u64;
        figures.gzip_bytes += file.body.len();
        figures.raw_bytes += raw.len();
        timed(&mut figures.decode, || drop(profile));
    }
    let finished = timed(&mut figures.finish, || writer.finish())?;
    figures.stored_bytes += finished.bytes.len();
    Ok(finished)
}

/// Asks a segment for everything, as a querier does.
fn read(finished: &Finished, figures: &mut Figures) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let key = Key::from("segment");
        store.put(&key, finished.bytes.clone().into()).await?;
        let start = cpu::of_thread();
        let block = Block::open(store, key).await?;
        let rows = block.rows().await?;
        figures.open += cpu::of_thread().saturating_sub(start);
        for (part, bytes) in block.toc().parts() {
            *figures.parts.entry(part).or_default() += bytes;
        }
        let start = cpu::of_thread();
        for row in rows.iter() {
            black_box(block.fetch(row).await?);
        }
        figures.fetch += cpu::of_thread().saturating_sub(start);
        let start = cpu::of_thread();
        for (dataset, index) in block.toc().datasets().iter().zip(0..) {
            black_box(block.aggregate(index, &dataset.rows().collect::<Vec<_>>(), SampleTypes::All).await?);
        }
        figures.aggregate += cpu::of_thread().saturating_sub(start);
        Ok(())
    })
}

impl Figures {
    fn min(self, other: &Self) -> Self {
        Self {
            gunzip: self.gunzip.min(other.gunzip),
            inflate: self.inflate.min(other.inflate),
            decode: self.decode.min(other.decode),
            add: self.add.min(other.add),
            finish: self.finish.min(other.finish),
            open: self.open.min(other.open),
            fetch: self.fetch.min(other.fetch),
            aggregate: self.aggregate.min(other.aggregate),
            ..self
        }
    }

    fn row(&self, name: &str) -> String {
        let files = self.files as f64;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / files;
        let all = self.inflate + self.decode + self.add + self.finish;
        format!(
            "{name:22} {:5} {:10} | {:6.0} {:6.0} {:6.0} | {:2.0} | {:7.0} {:6.0} {:6.0} {:6.0} {:5.0} | {:5.0} {:9.1} | {:7.0} {:9.0} {:11.0}",
            self.files,
            self.columns,
            self.raw_bytes as f64 / files,
            self.gzip_bytes as f64 / files,
            self.stored_bytes as f64 / files,
            100.0 * self.stored_bytes as f64 / self.gzip_bytes as f64,
            each(self.inflate),
            each(self.decode),
            each(self.add),
            each(self.finish),
            each(all),
            self.raw_bytes as f64 / 1e6 / all.as_secs_f64(),
            all.as_secs_f64() / self.gunzip.as_secs_f64(),
            each(self.open),
            each(self.fetch),
            self.samples as f64 / 1e6 / self.aggregate.as_secs_f64(),
        )
    }
}
