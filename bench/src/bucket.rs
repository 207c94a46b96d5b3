//! A bucket in a folder: profiles written as ingesters leave them, then maintained to rest.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use afterglow_profile::{Labels, Limits, Profile, ProfileType, decode};
use afterglow_store::block::{Options as BlockOptions, ProfileMeta, SegmentWriter};
use afterglow_store::maintenance::{Maintainer, Options as MaintenanceOptions};
use afterglow_store::paths::TenantId;
use afterglow_store::{Metrics, StorageUrl, Store, StoreOptions};
use anyhow::ensure;
use clap::{Args, Subcommand};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use ulid::Ulid;

use crate::{cpu, process};

/// How long a segment may take to be written.
const PUT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the bucket of a benchmark lies, and the querier that is asked about it.
#[derive(Args)]
pub struct Place {
    /// The querier to start.
    #[arg(long, default_value = "target/release/afterglow-querier")]
    pub program: PathBuf,
    /// More arguments for the querier.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub program_arg: Vec<String>,
    /// Where to store, and to leave what was stored; a temporary folder by default. What a run before left there is measured again.
    #[arg(long)]
    pub storage: Option<PathBuf>,
}

/// What a benchmark calls itself for.
#[derive(Subcommand)]
pub enum Command {
    /// Maintains a folder to rest, and prints what it took.
    #[command(hide = true)]
    Maintain {
        /// The folder.
        storage: PathBuf,
    },
}

/// A bucket that is there to be asked about; a temporary folder lives as long as this.
pub struct Prepared {
    /// The folder.
    pub storage: PathBuf,
    /// When its profiles begin, in nanoseconds since 1970.
    pub start_nanos: i64,
    _temporary: Option<TempDir>,
}

/// A store, with its own count of what was asked of it.
pub struct Counted {
    /// The store.
    pub store: Store,
    registry: Registry,
}

/// Writes profiles as segments of so many.
pub struct Writer {
    store: Store,
    tenant: TenantId,
    flush: usize,
    open: SegmentWriter,
    /// How many profiles were added.
    pub profiles: usize,
    /// How many segments were put.
    pub segments: usize,
    /// The length of their protobufs.
    pub raw_bytes: usize,
    /// The length of the segments.
    pub stored_bytes: usize,
    /// The CPU time of decoding, interning and compressing.
    pub took: Duration,
}

// === impl Place ===

impl Place {
    /// Writes profiles that begin at a time, in nanoseconds since 1970, by `write`, and maintains them to rest; takes what a run before left in
    /// the folder as it is. Prints what was done.
    ///
    /// # Errors
    /// The folder cannot be used, or what `write` or maintenance give.
    #[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
    pub async fn prepare<W>(&self, start_nanos: i64, write: W) -> anyhow::Result<Prepared>
    where
        W: AsyncFnOnce(&Path) -> anyhow::Result<Value>,
    {
        let (storage, temporary) = match &self.storage {
            Some(storage) => (storage.clone(), None),
            None => {
                let temporary = tempfile::tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let noted = storage.join("started");
        let start_nanos = match std::fs::read_to_string(&noted) {
            Ok(text) => text.trim().parse()?,
            Err(_) => {
                println!("{}", write(&storage).await?);
                println!("{}", maintain_apart(&storage)?);
                std::fs::write(&noted, start_nanos.to_string())?;
                start_nanos
            }
        };
        Ok(Prepared { storage, start_nanos, _temporary: temporary })
    }
}

// === impl Counted ===

impl Counted {
    /// Opens the store in a folder.
    ///
    /// # Errors
    /// What opening gives.
    pub async fn open(folder: &Path) -> anyhow::Result<Self> {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let url: StorageUrl = format!("file://{}", folder.display()).parse()?;
        let options = StoreOptions { metrics, ..StoreOptions::default() };
        Ok(Self { store: afterglow_store::open(&url, options).await?, registry })
    }

    /// Returns how many requests of each kind were made.
    ///
    /// # Errors
    /// None, really.
    pub fn requests(&self) -> anyhow::Result<Value> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(requests(&text))
    }
}

/// Sums the requests of a page of metrics by operation.
pub fn requests(metrics: &str) -> Value {
    let mut sums = serde_json::Map::new();
    for line in metrics.lines().filter(|line| line.starts_with("afterglow_store_requests_total{")) {
        let operation = line.split("operation=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let count: f64 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
        let sum = sums.get(operation).and_then(Value::as_f64).unwrap_or_default() + count;
        if sum > 0.0 {
            sums.insert(operation.to_owned(), json!(sum));
        }
    }
    Value::Object(sums)
}

// === impl Writer ===

impl Writer {
    /// Writes to the store in a folder.
    ///
    /// # Errors
    /// What opening gives.
    pub async fn open(folder: &Path, flush: usize) -> anyhow::Result<Self> {
        let Counted { store, .. } = Counted::open(folder).await?;
        Ok(Self {
            store,
            tenant: TenantId::anonymous(),
            flush,
            open: SegmentWriter::new(BlockOptions::default()),
            profiles: 0,
            segments: 0,
            raw_bytes: 0,
            stored_bytes: 0,
            took: Duration::ZERO,
        })
    }

    /// Adds a profile, and puts the segment when it is full.
    ///
    /// # Errors
    /// The profile, its type or its labels are none, or the store does not take the segment.
    pub async fn add<L>(&mut self, raw: &[u8], profile_type: &str, labels: L) -> anyhow::Result<()>
    where
        L: IntoIterator<Item = (&'static str, String)>,
    {
        self.add_of(None, raw, profile_type, labels).await
    }

    /// Adds a profile of a time, in nanoseconds since 1970; its own where that is none.
    ///
    /// # Errors
    /// As [`Writer::add`].
    pub async fn add_of<L>(
        &mut self,
        time_nanos: Option<i64>,
        raw: &[u8],
        profile_type: &str,
        labels: L,
    ) -> anyhow::Result<()>
    where
        L: IntoIterator<Item = (&'static str, String)>,
    {
        let mut took = Duration::ZERO;
        cpu::timed(&mut took, || -> anyhow::Result<()> {
            let profile = decode::decode(raw, &Limits::default())?;
            self.add_decoded(time_nanos.unwrap_or(profile.time_nanos), raw, &profile, profile_type, labels)
        })?;
        self.took += took;
        if self.open.len() >= self.flush { self.flush().await } else { Ok(()) }
    }

    fn add_decoded<L>(
        &mut self,
        time_nanos: i64,
        raw: &[u8],
        profile: &Profile<'_>,
        profile_type: &str,
        labels: L,
    ) -> anyhow::Result<()>
    where
        L: IntoIterator<Item = (&'static str, String)>,
    {
        let meta = ProfileMeta {
            id: Ulid::from_parts(time_nanos as u64 / 1_000_000, self.profiles as u128),
            profile_type: ProfileType::parse(profile_type)?,
            labels: Labels::new(labels)?,
            time_nanos,
            duration_nanos: profile.duration_nanos,
        };
        self.open.add(meta, raw, profile)?;
        self.profiles += 1;
        self.raw_bytes += raw.len();
        Ok(())
    }

    /// Puts what is not put yet.
    ///
    /// # Errors
    /// The store does not take it.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.open, SegmentWriter::new(BlockOptions::default()));
        let mut took = Duration::ZERO;
        let finished = cpu::timed(&mut took, || full.finish())?;
        self.took += took;
        self.stored_bytes += finished.bytes.len();
        self.segments += 1;
        self.store.put_segment(&self.tenant, finished.bytes, tokio::time::Instant::now() + PUT_TIMEOUT).await?;
        Ok(())
    }

    /// Puts what is not put yet, and says what was written and what it took.
    ///
    /// # Errors
    /// As [`Writer::flush`].
    pub async fn report(&mut self) -> anyhow::Result<Value> {
        self.flush().await?;
        let n = self.profiles as f64;
        Ok(json!({
            "step": "write", "profiles": self.profiles, "segments": self.segments, "raw_kb": self.raw_bytes as f64 / n / 1e3,
            "stored_kb": self.stored_bytes as f64 / n / 1e3, "cpu_seconds_per_1000": self.took.as_secs_f64() / n * 1e3,
        }))
    }
}

/// Maintains a folder to rest, keeping profiles of any age, and says what that took this process.
///
/// # Errors
/// What maintenance gives.
pub async fn maintain(storage: &Path) -> anyhow::Result<Value> {
    let counted = Counted::open(storage).await?;
    let mut options = MaintenanceOptions::default();
    options.collection.grace = Duration::ZERO;
    options.retention.age_max = None;
    let began = Instant::now();
    let report = Maintainer::new(counted.store.clone(), options).run_to_rest().await?;
    ensure!(report.failed.is_empty(), "{:?}", report.failed);
    let compaction = &report.compaction;
    let (cpu, peak) = (cpu::of_process(), process::peak_rss(std::process::id())?);
    Ok(json!({
        "step": "maintain", "merges": compaction.committed, "profiles_read": compaction.profiles,
        "bytes_in": compaction.bytes_in, "bytes_out": compaction.bytes_out, "cpu_seconds": cpu.as_secs_f64(),
        "wall_seconds": began.elapsed().as_secs_f64(), "peak_rss_mib": peak >> 20, "requests": counted.requests()?,
    }))
}

/// Maintains a folder to rest in a process of its own: this program, called with `maintain FOLDER`, which is to print [`maintain`].
///
/// # Errors
/// What the process says.
pub fn maintain_apart(storage: &Path) -> anyhow::Result<String> {
    let done = std::process::Command::new(std::env::current_exe()?).arg("maintain").arg(storage).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}
