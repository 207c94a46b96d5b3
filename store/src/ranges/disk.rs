//! Ranges on disk, below those in memory: what a querier has read of blocks, for after it was pushed out of memory and for its next start.
//!
//! ```text
//! <folder>/afterglow.lock                          held by the one process that uses the folder
//! <folder>/<2 digits>/<object>-<start>-<end>       a part: the object's hash and the range, in hexadecimal
//! <folder>/<2 digits>/<...>.<n>.new                one that is being written
//! ```
//!
//! A part is `AGPART1\n`, start, end and length of the path (8, 8 and 4 bytes, little endian), the path, the bytes, and XXH3-64 of all
//! before it. Objects are immutable, so a part that reads well is right for ever. One that does not (a flipped bit, a write that a crash cut
//! short: nothing is synced) is counted, removed and read from the store again.
//!
//! Invariants. What parts take, in whole pages, is never more than the bound: who is pushed out (S3-FIFO) is removed before the next is
//! written. Questions never wait for a write: parts are written behind them, and past [`WRITING_BYTES_MAX`] they are not kept. A disk that
//! does not take parts is left alone for a while; what is there is still read. What must not enter: anything but ranges of immutable objects.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::metrics::Metrics;

/// What a part begins with; another version of the format has another.
const MAGIC: &[u8; 8] = b"AGPART1\n";

/// The bytes of a part before the path, and of its checksum.
const HEADER_BYTES: usize = MAGIC.len() + 8 + 8 + 4;
const CHECKSUM_BYTES: usize = 8;

/// What file systems give out at least. A part is charged in whole ones, and one more for its name in the folder.
const PAGE_BYTES: u64 = 4 << 10;

/// What a part has on average, which only sizes the tables of the index.
const PART_BYTES_MEAN: u64 = 64 << 10;

/// The parts that wait to be written, in bytes: a disk slower than the store must not fill memory.
const WRITING_BYTES_MAX: usize = 32 << 20;

/// How long a disk is left alone that did not take a part.
const LEFT_ALONE_FOR: Duration = Duration::from_secs(60);

/// Where parts of blocks are kept on disk, and how many bytes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// The folder, for one process alone; it is made if need be.
    pub folder: PathBuf,
    /// The bytes that the parts may take.
    pub bytes_max: u64,
}

/// Keeps ranges on disk; cheap to clone.
#[derive(Clone)]
pub(super) struct Disk(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    index: Index,
    /// Permits are bytes.
    writing: Arc<Semaphore>,
    /// Since when the disk is left alone.
    failed: Mutex<Option<Instant>>,
    is_removal_warned: AtomicBool,
    /// Numbers the files that are being written.
    next: AtomicU64,
    metrics: Metrics,
    /// Held for as long as this process uses the folder.
    _lock: File,
}

type Index = Cache<Part, u64, Weight, DefaultHashBuilder, PushedOut>;

/// A part, by which its file is named. Two objects with one hash take turns: the path in the file tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Part {
    object: u64,
    start: u64,
    end: u64,
}

/// Weighs parts by what their files take.
#[derive(Clone)]
struct Weight;

impl Weighter<Part, u64> for Weight {
    fn weight(&self, _part: &Part, charged: &u64) -> u64 {
        *charged
    }
}

/// Tells which parts an insertion pushed out.
#[derive(Clone)]
struct PushedOut;

impl Lifecycle<Part, u64> for PushedOut {
    type RequestState = Vec<Part>;

    fn on_evict(&self, pushed_out: &mut Vec<Part>, part: Part, _charged: u64) {
        pushed_out.push(part);
    }
}

// === impl Part ===

impl Part {
    fn new(path: &Path, range: &Range<u64>) -> Self {
        Self { object: hash(path), start: range.start, end: range.end }
    }

    /// Returns where it lies in the folder.
    fn file(&self, folder: &FilePath) -> PathBuf {
        let Self { object, start, end } = self;
        folder.join(format!("{:02x}", object >> 56)).join(format!("{object:016x}-{start:x}-{end:x}"))
    }

    /// Reads the name of a file.
    fn parse(name: &str) -> Option<Self> {
        let mut numbers = name.split('-').map(|text| u64::from_str_radix(text, 16));
        let (Some(Ok(object)), Some(Ok(start)), Some(Ok(end)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return None;
        };
        Some(Self { object, start, end })
    }
}

fn hash(path: &Path) -> u64 {
    xxh3_64(path.as_ref().as_bytes())
}

/// Returns what a file of so many bytes is charged.
fn charge(bytes: u64) -> u64 {
    (bytes.div_ceil(PAGE_BYTES) + 1) * PAGE_BYTES
}

/// Writes a part as it lies on disk.
fn encode(path: &Path, range: &Range<u64>, bytes: &[u8]) -> Vec<u8> {
    let path = path.as_ref().as_bytes();
    let mut out = Vec::with_capacity(HEADER_BYTES + path.len() + bytes.len() + CHECKSUM_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&range.start.to_le_bytes());
    out.extend_from_slice(&range.end.to_le_bytes());
    out.extend_from_slice(&(path.len() as u32).to_le_bytes());
    out.extend_from_slice(path);
    out.extend_from_slice(bytes);
    out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
    out
}

/// Returns the bytes of a part as it lies on disk; none if it is not whole, or not this one.
fn decode(file: Vec<u8>, path: &Path, range: &Range<u64>) -> Option<Bytes> {
    let (checked, checksum) = file.split_last_chunk::<CHECKSUM_BYTES>()?;
    let (_, rest) = checked.split_at_checked(HEADER_BYTES)?;
    let from = HEADER_BYTES + path.as_ref().len();
    let bytes = rest.get(path.as_ref().len()..)?;
    let is_whole = xxh3_64(checked) == u64::from_le_bytes(*checksum) && bytes.len() as u64 == range.end - range.start;
    // The header says again what is asked for, so all that stands before the bytes can be compared at once.
    let is_this = is_whole && encode(path, range, &[])[..from] == checked[..from];
    let to = checked.len();
    is_this.then(|| Bytes::from(file).slice(from..to))
}

// === impl Disk ===

impl Disk {
    /// Keeps parts in a folder, with those that an earlier process left there; none where the folder cannot be used, of which it warns.
    /// Reads the folder's names and lengths, some microseconds each.
    pub(super) fn open(options: &DiskOptions, metrics: &Metrics) -> Option<Self> {
        match Self::try_open(options, metrics) {
            Ok(disk) => Some(disk),
            Err(error) => {
                let folder = options.folder.display();
                tracing::warn!(%folder, %error, "parts of blocks are not kept on disk: the folder cannot be used");
                None
            }
        }
    }

    fn try_open(options: &DiskOptions, metrics: &Metrics) -> io::Result<Self> {
        let DiskOptions { folder, bytes_max } = options;
        make_folder(folder)?;
        let lock = File::create(folder.join("afterglow.lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, "another process uses it"),
            fs::TryLockError::Error(error) => error,
        })?;
        let parts = usize::try_from(bytes_max / PART_BYTES_MEAN).unwrap_or(usize::MAX).max(1);
        let mut cache = OptionsBuilder::new();
        // A shard has a share of the bound and takes nothing larger; what is done under its lock is nothing beside the disk.
        cache.shards(1).estimated_items_capacity(parts).weight_capacity(*bytes_max);
        let cache = cache.build().expect("all that has no default is set");
        let disk = Self(Arc::new(Inner {
            folder: folder.clone(),
            index: Cache::with_options(cache, Weight, DefaultHashBuilder::default(), PushedOut),
            writing: Arc::new(Semaphore::new(WRITING_BYTES_MAX)),
            failed: Mutex::default(),
            is_removal_warned: AtomicBool::new(false),
            next: AtomicU64::new(0),
            metrics: metrics.clone(),
            _lock: lock,
        }));
        disk.0.load()?;
        Ok(disk)
    }

    /// Reads those ranges of an object that are there.
    pub(super) async fn read(&self, path: &Path, ranges: &[Range<u64>]) -> Vec<Option<Bytes>> {
        let known: Vec<usize> =
            (0..ranges.len()).filter(|&n| self.0.index.get(&Part::new(path, &ranges[n])).is_some()).collect();
        let mut found = vec![None; ranges.len()];
        if !known.is_empty() {
            let (inner, path) = (Arc::clone(&self.0), path.clone());
            let wanted: Vec<_> = known.iter().map(|&n| ranges[n].clone()).collect();
            let read = move || wanted.iter().map(|range| inner.read(&path, range)).collect::<Vec<_>>();
            // Where the runtime ends, nobody waits for the answer any more.
            let parts = tokio::task::spawn_blocking(read).await.unwrap_or_default();
            for (n, part) in known.into_iter().zip(parts) {
                found[n] = part;
            }
        }
        let hits = found.iter().flatten().count() as u64;
        self.0.metrics.disk_found.inc_by(hits);
        self.0.metrics.disk_missed.inc_by(ranges.len() as u64 - hits);
        found
    }

    /// Keeps a range of an object that was read of the store, some time soon; not where too much waits already, or the disk is left alone.
    pub(super) fn keep(&self, path: &Path, range: Range<u64>, bytes: Bytes) {
        if self.0.is_left_alone() {
            return;
        }
        let permits = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.0.writing).try_acquire_many_owned(permits) else { return };
        let (inner, path) = (Arc::clone(&self.0), path.clone());
        tokio::task::spawn_blocking(move || {
            inner.keep(&path, &range, &bytes);
            // Whoever waits until it is written may open the folder anew, which this holds the lock of.
            drop(inner);
            drop(permit);
        });
    }

    /// Forgets all that is kept of an object.
    pub(super) fn forget(&self, path: &Path) {
        let object = hash(path);
        let parts: Vec<Part> = self.0.index.iter().map(|(part, _)| part).filter(|part| part.object == object).collect();
        parts.iter().for_each(|part| self.0.remove(part));
    }

    /// Waits until all that is to be kept is written.
    #[cfg(test)]
    pub(super) async fn written(&self) {
        drop(self.0.writing.acquire_many(WRITING_BYTES_MAX as u32).await.expect("never closed"));
    }
}

// === impl Inner ===

impl Inner {
    /// Finds what an earlier process left, the oldest first, and removes what is not whole or too much. What is not ours stays.
    fn load(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for folder in fs::read_dir(&self.folder)? {
            let folder = folder?;
            let is_ours = folder
                .file_name()
                .to_str()
                .is_some_and(|name| name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
            if !is_ours || !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let file = file?;
                let name = file.file_name();
                let name = name.to_str().unwrap_or_default();
                if let Some(part) = Part::parse(name).filter(|part| part.file(&self.folder) == file.path()) {
                    let metadata = file.metadata()?;
                    found.push((metadata.modified().ok(), part, charge(metadata.len())));
                } else if let Some((name, "new")) = name.rsplit_once('.')
                    && name.split('.').next().is_some_and(|name| Part::parse(name).is_some())
                {
                    fs::remove_file(file.path())?;
                }
            }
        }
        found.sort_unstable_by_key(|(modified, ..)| *modified);
        for (_, part, charged) in found {
            self.insert(part, charged);
        }
        self.note_bytes();
        Ok(())
    }

    /// Takes a part into the index, removes what had to make room, and says whether it was taken.
    fn insert(&self, part: Part, charged: u64) -> bool {
        let mut pushed_out = Vec::new();
        self.index.insert_with_lifecycle(part, charged, &mut pushed_out);
        let is_taken = self.index.peek(&part).is_some();
        for out in pushed_out {
            // One that takes its own place is told of as well.
            if out != part || !is_taken {
                self.remove_file(&out);
            }
        }
        is_taken
    }

    fn read(&self, path: &Path, range: &Range<u64>) -> Option<Bytes> {
        let part = Part::new(path, range);
        match fs::read(part.file(&self.folder)) {
            Ok(file) => {
                let bytes = decode(file, path, range);
                if bytes.is_none() {
                    self.metrics.disk_damaged.inc();
                    self.remove(&part);
                }
                bytes
            }
            // It is being written, or somebody has tidied up: it will be written anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.leave_alone(&error, "a part of a block cannot be read from disk");
                None
            }
        }
    }

    fn keep(&self, path: &Path, range: &Range<u64>, bytes: &[u8]) {
        let (part, encoded) = (Part::new(path, range), encode(path, range, bytes));
        if self.insert(part, charge(encoded.len() as u64)) {
            if let Err(error) = self.write(&part, &encoded) {
                self.remove(&part);
                self.leave_alone(&error, "parts of blocks are not kept on disk for now: it does not take them");
            } else if self.index.peek(&part).is_none() {
                // It was pushed out before it was there to be removed.
                self.remove_file(&part);
            }
        }
        self.note_bytes();
    }

    /// Writes a file and then names it, so that a reader finds all of it or nothing.
    fn write(&self, part: &Part, encoded: &[u8]) -> io::Result<()> {
        let file = part.file(&self.folder);
        make_folder(file.parent().expect("it lies in a folder"))?;
        let new = file.with_extension(format!("{}.new", self.next.fetch_add(1, Ordering::Relaxed)));
        let written =
            File::create(&new).and_then(|mut out| out.write_all(encoded)).and_then(|()| fs::rename(&new, &file));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    fn remove(&self, part: &Part) {
        self.index.remove(part);
        self.remove_file(part);
        self.note_bytes();
    }

    fn remove_file(&self, part: &Part) {
        match fs::remove_file(part.file(&self.folder)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // It takes its bytes until the next start, which counts it again.
            Err(error) => {
                if !self.is_removal_warned.swap(true, Ordering::Relaxed) {
                    let folder = self.folder.display();
                    tracing::warn!(%folder, %error, "a part of a block cannot be removed from disk");
                }
            }
        }
    }

    /// Leaves the disk alone for a while, and warns of it once.
    fn leave_alone(&self, error: &io::Error, what: &str) {
        self.metrics.disk_failed.inc();
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_none_or(|at| at.elapsed() >= LEFT_ALONE_FOR) {
            tracing::warn!(folder = %self.folder.display(), %error, "{what}");
        }
        *failed = Some(Instant::now());
    }

    fn is_left_alone(&self) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|at| at.elapsed() < LEFT_ALONE_FOR)
    }

    fn note_bytes(&self) {
        self.metrics.disk_bytes.set(i64::try_from(self.index.weight()).unwrap_or(i64::MAX));
    }
}

/// Makes a folder that only this user reads: what is profiled may tell secrets.
fn make_folder(folder: &FilePath) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests;
