//! Writes a segment: a block of level 0, all profiles of one flush.
//!
//! A profile is interned, turned into columns and rebuilt from them as soon as it is added; only if the rebuilt bytes are those that
//! were sent are the columns kept, else the bytes are kept themselves as a *blob*. Nothing of the decoded profile is needed after
//! that. [`SegmentWriter::finish`] sorts, gathers columns into chunks, compresses and lays out.

use afterglow_profile::{Labels, Profile, ProfileType};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use ulid::Ulid;

use super::chunk::{self, Stored};
use super::columns::{Columns, Scratch};
use super::error::Error;
use super::frame::Packer;
use super::gather::Gathering;
use super::layout::Layout;
use super::rollups::Rollups;
use super::rows::Row;
use super::symbols::Interner;
use super::toc::SampleType;
use super::values::{self, Sets};

/// What a sender says of a profile besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileMeta {
    /// The id.
    pub id: Ulid,
    /// The type.
    pub profile_type: ProfileType,
    /// The labels, among them `service`.
    pub labels: Labels,
    /// When it was taken, in nanoseconds since 1970.
    pub time_nanos: i64,
    /// How long it was recorded, in nanoseconds.
    pub duration_nanos: i64,
}

/// How a segment is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// The compression level of zstd.
    pub zstd_level: i32,
    /// The most entries the shared tables of one service may have; a profile that comes when they are full is kept as it was sent.
    pub symbols_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { zstd_level: 3, symbols_max: 1 << 22 }
    }
}

/// Gathers profiles and makes one block of them.
#[derive(Debug)]
pub struct SegmentWriter {
    options: Options,
    packer: Packer,
    services: Vec<Interner>,
    service_index: FxHashMap<Box<str>, usize>,
    entries: Vec<Entry>,
    raw_bytes: u64,
    columns: Columns,
    scratch: Scratch,
}

/// A profile that was added.
#[derive(Debug)]
struct Entry {
    meta: ProfileMeta,
    service: usize,
    sample_types: Vec<SampleType>,
    row: Row,
    stored: Stored,
}

/// The most sample types of a profile that is kept as columns: each has a frame of its own in the table of contents, and real profiles
/// have four.
const SAMPLE_TYPES_MAX: usize = 64;

/// The compression level of the rows; a higher one saves nothing in columns as short as those of a segment.
const ROWS_ZSTD_LEVEL: i32 = 1;

/// From so many rows on those of a block are compressed. Each column of theirs takes two contexts of zstd of its own, to write and again to
/// read, and making those takes longer than taking some small profiles in; compressed, few rows are hardly smaller.
pub(super) const ROWS_COMPRESSED_MIN: usize = 16;

/// Why columns of this writer can be gathered.
const SOUND: &str = "the columns were read when the profile was added";

/// How a profile was taken into a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// The SHA-256 of its protobuf bytes.
    pub sha256: [u8; 32],
    /// Whether it is kept as columns; else its protobuf bytes are kept as they were sent.
    pub columns: bool,
}

/// A finished segment.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The bytes of the object.
    pub bytes: Bytes,
    /// How many profiles it holds.
    pub profiles: usize,
    /// How many of them are kept as columns.
    pub columns: usize,
    /// The length of all their protobuf bytes.
    pub raw_bytes: u64,
}

impl SegmentWriter {
    /// Makes an empty segment.
    pub fn new(options: Options) -> Self {
        Self {
            packer: Packer::new(options.zstd_level),
            options,
            services: Vec::new(),
            service_index: FxHashMap::default(),
            entries: Vec::new(),
            raw_bytes: 0,
            columns: Columns::default(),
            scratch: Scratch::default(),
        }
    }

    /// Adds a profile; `profile` is what `raw` decodes to.
    ///
    /// # Errors
    /// The format cannot hold another profile; the segment is as it was.
    pub fn add(&mut self, meta: ProfileMeta, raw: &[u8], profile: &Profile<'_>) -> Result<Added, Error> {
        if self.entries.len() >= u32::MAX as usize || raw.len() >= u32::MAX as usize {
            return Err(Error::Unwritable { what: "so many or so large profiles" });
        }
        let sha256 = Sha256::digest(raw).into();
        let service = self.service(meta.labels.service());
        let columns = self.columns(service, &meta, raw, profile);
        let stored = if columns { self.columns.stored() } else { Stored::blob(&mut self.packer, raw) };
        let text = |index: u32| String::from_utf8_lossy(profile.string(index)).into();
        self.raw_bytes += raw.len() as u64;
        self.entries.push(Entry {
            service,
            sample_types: profile
                .sample_types
                .iter()
                .map(|t| SampleType { kind: text(t.kind), unit: text(t.unit) })
                .collect(),
            row: Row {
                id: meta.id,
                dataset: 0,
                series: 0,
                sample_types: 0,
                time_nanos: meta.time_nanos,
                duration_nanos: meta.duration_nanos,
                totals: profile.totals().0.into(),
                raw_bytes: raw.len() as u64,
                samples: profile.samples.len() as u64,
                sha256,
                columns,
                chunk: 0,
                position: 0,
            },
            stored,
            meta,
        });
        Ok(Added { sha256, columns })
    }

    /// Returns how many profiles were added.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether none was added.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the length of all protobuf bytes that were added.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    /// Makes the block.
    ///
    /// # Errors
    /// The rows cannot be written.
    pub fn finish(mut self) -> Result<Finished, Error> {
        let mut entries = std::mem::take(&mut self.entries);
        let (profiles, columns) = (entries.len(), entries.iter().filter(|entry| entry.row.columns).count());
        entries.sort_by(|a, b| a.order().cmp(&b.order()));
        let mut layout = Layout::new((profiles >= ROWS_COMPRESSED_MIN).then_some(ROWS_ZSTD_LEVEL), false)?;
        let mut entries = entries.into_iter().peekable();
        while let Some(Entry { service, .. }) = entries.peek() {
            let service = *service;
            let tables = &self.services[service].symbols;
            let (symbols, numbers) = (layout.symbols(tables, &mut self.packer)?, values::numbers(tables));
            let sets = Sets { symbols: tables, numbers: &numbers };
            while let Some(first) = entries.next_if(|entry| entry.service == service) {
                let (labels, profile_type) = (first.meta.labels.clone(), first.meta.profile_type.clone());
                let mut gathering = Gathering::new(chunk::LIMITS);
                let mut gather = |entry: Entry| {
                    let Entry { meta, sample_types, row, stored, .. } = entry;
                    let gathered = gathering.push(row, &meta.labels, &sample_types, stored, (sets, &mut self.packer));
                    gathered.expect(SOUND);
                };
                gather(first);
                let same = |entry: &Entry| entry.service == service && entry.meta.profile_type == profile_type;
                while let Some(entry) = entries.next_if(same) {
                    gather(entry);
                }
                gathering.close(sets, &mut self.packer).expect(SOUND);
                layout.dataset((labels.service(), &profile_type), gathering, symbols, Rollups::default())?;
            }
        }
        Ok(Finished { bytes: layout.finish(&mut self.packer)?, profiles, columns, raw_bytes: self.raw_bytes })
    }

    /// Returns the index of the tables of a service, and makes them if it has none.
    fn service(&mut self, name: &str) -> usize {
        if let Some(&service) = self.service_index.get(name) {
            return service;
        }
        self.services.push(Interner::new());
        self.service_index.insert(name.into(), self.services.len() - 1);
        self.services.len() - 1
    }

    /// Turns a profile into columns, and returns whether its bytes can be rebuilt from them; if not, the tables are as they were.
    fn columns(&mut self, service: usize, meta: &ProfileMeta, raw: &[u8], profile: &Profile<'_>) -> bool {
        let interner = &mut self.services[service];
        let is_exact = profile.layout.exact
            && profile.sample_types.len() <= SAMPLE_TYPES_MAX
            && interner.entries() <= self.options.symbols_max;
        if !is_exact {
            return false;
        }
        let mark = interner.mark();
        let row_times = (meta.time_nanos, meta.duration_nanos);
        let filled = self.columns.fill(profile, raw, row_times, interner, &mut self.scratch);
        if filled.is_err() {
            interner.undo(mark);
        }
        filled.is_ok()
    }
}

// === impl Entry ===

impl Entry {
    /// Returns what rows are sorted by.
    fn order(&self) -> impl Ord {
        let meta = &self.meta;
        (meta.labels.service(), &meta.profile_type, &meta.labels, meta.time_nanos, meta.id)
    }
}
