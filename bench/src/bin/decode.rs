//! How fast profiles are inflated, decoded, written back and merged: MB of raw pprof per CPU second, series by series.
//!
//! `decode FOLDER`: the `*.pb.gz` of one folder; a series is all files whose names are equal up to the last `-`. CPU time is what the
//! thread used, so a busy machine makes the figures worse by its caches only. Every figure is the best of several rounds.
//! `bench/decode-merge.sh` runs it beside google/pprof, which the last two columns compare with.

use afterglow_bench::cpu::timed;
use afterglow_profile::merge::Merger;
use afterglow_profile::{Limits, Profile, compress, decode, encode};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The allocator of the servers: with the system's own, half the time would go into giving large tables back and getting them anew.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures inflate, decode, exact encode and merge of real profiles.
#[derive(Parser)]
struct Options {
    /// The folder with `*.pb.gz` files.
    folder: PathBuf,
    /// How often each series is measured; the best round counts.
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// What `bench/go/decodemerge` printed for the same folder, to compare with.
    #[arg(long, value_name = "FILE")]
    go: Option<PathBuf>,
}

/// CPU time of one series.
#[derive(Clone, Default)]
struct Figures {
    files: usize,
    gzip_bytes: usize,
    raw_bytes: usize,
    inflate: Duration,
    decode: Duration,
    encode: Duration,
    merge: Duration,
    /// What google/pprof takes to parse and merge the same files.
    go: Option<Duration>,
}

#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
fn main() -> Result<()> {
    let options = Options::parse();
    let go = options.go.as_deref().map(read_go).transpose()?.unwrap_or_default();
    let mut total = Figures::default();
    println!(
        "                         files  kB gzip   kB raw |  MB of raw pprof a second  |   microseconds a file: parse + merge"
    );
    println!(
        "series                                            | inflate   decode   encode  | inflate decode merge |   all     go times"
    );
    for (name, bodies) in series(&options.folder)? {
        let mut figures = measure(&bodies, options.rounds).with_context(|| name.clone())?;
        figures.go = go.get(&name).copied();
        println!("{}", figures.row(&name));
        total = total.plus(&figures);
    }
    ensure!(total.files > 0, "no *.pb.gz in {}", options.folder.display());
    println!("{}", total.row("total"));
    Ok(())
}

/// Reads what the Go program printed: the CPU time of each series, parse and merge together.
fn read_go(path: &Path) -> Result<BTreeMap<String, Duration>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let line = |line: &str| -> Option<(String, Duration)> {
        let (name, nanos) = line.split_once('\t')?;
        let (parse, merge) = nanos.split_once('\t')?;
        Some((name.to_owned(), Duration::from_nanos(parse.parse::<u64>().ok()? + merge.parse::<u64>().ok()?)))
    };
    text.lines().map(|text| line(text).with_context(|| format!("not a line of figures: {text}"))).collect()
}

/// Reads the profiles of a folder, by series.
fn series(folder: &Path) -> Result<BTreeMap<String, Vec<Vec<u8>>>> {
    let mut series: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        paths.push(entry?.path());
    }
    paths.sort();
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pb.gz")) else { continue };
        let name = name.rsplit_once('-').map_or(name, |(series, _)| series);
        series.entry(name.to_owned()).or_default().push(std::fs::read(&path)?);
    }
    Ok(series)
}

/// Measures one series.
fn measure(bodies: &[Vec<u8>], rounds: u32) -> Result<Figures> {
    let limits = Limits::default();
    let mut best = Figures { files: bodies.len(), ..Figures::default() };
    for round in 0..rounds {
        let mut figures = Figures { files: bodies.len(), ..Figures::default() };
        let raws = timed(&mut figures.inflate, || {
            bodies.iter().map(|body| compress::inflate(body, &limits)).collect::<Result<Vec<_>, _>>()
        })?;
        // Decoding alone, one profile at a time, as a server does it.
        timed(&mut figures.decode, || {
            raws.iter().try_for_each(|raw| decode::decode(raw, &limits).map(|p| drop(black_box(p))))
        })?;
        let profiles = raws.iter().map(|raw| decode::decode(raw, &limits)).collect::<Result<Vec<Profile<'_>>, _>>()?;
        let mut out = Vec::new();
        for (raw, profile) in raws.iter().zip(&profiles) {
            out.clear();
            timed(&mut figures.encode, || encode::encode_exact(profile, &mut out))?;
            ensure!(out == **raw, "a profile is written back differently");
        }
        let samples = timed(&mut figures.merge, || -> Result<usize> {
            let mut merger = Merger::new();
            for profile in &profiles {
                merger.add(profile)?;
            }
            Ok(merger.finish().profile().samples.len())
        })?;
        black_box(samples);
        figures.gzip_bytes = bodies.iter().map(Vec::len).sum();
        figures.raw_bytes = raws.iter().map(|raw| raw.len()).sum();
        if round == 0 {
            best = figures;
        } else {
            best.inflate = best.inflate.min(figures.inflate);
            best.decode = best.decode.min(figures.decode);
            best.encode = best.encode.min(figures.encode);
            best.merge = best.merge.min(figures.merge);
        }
    }
    Ok(best)
}

impl Figures {
    fn plus(&self, other: &Self) -> Self {
        Self {
            files: self.files + other.files,
            gzip_bytes: self.gzip_bytes + other.gzip_bytes,
            raw_bytes: self.raw_bytes + other.raw_bytes,
            inflate: self.inflate + other.inflate,
            decode: self.decode + other.decode,
            encode: self.encode + other.encode,
            merge: self.merge + other.merge,
            go: other.go.map(|go| go + self.go.unwrap_or_default()),
        }
    }

    fn row(&self, name: &str) -> String {
        let speed = |time: Duration| self.raw_bytes as f64 / 1e6 / time.as_secs_f64();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / self.files as f64;
        let all = self.inflate + self.decode + self.merge;
        let go = self
            .go
            .map_or_else(String::new, |go| format!("{:7.0} {:5.1}", each(go), go.as_secs_f64() / all.as_secs_f64()));
        format!(
            "{name:24} {:5} {:8} {:8} | {:7.0}  {:7.0}  {:7.0}  | {:7.0} {:6.0} {:5.0} | {:6.0} {go}",
            self.files,
            self.gzip_bytes / 1000,
            self.raw_bytes / 1000,
            speed(self.inflate),
            speed(self.decode),
            speed(self.encode),
            each(self.inflate),
            each(self.decode),
            each(self.merge),
            each(all),
        )
    }
}
