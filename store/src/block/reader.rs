//! Reads a block: the table of contents when it is opened, then only the ranges that answer a question.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use afterglow_profile::Labels;
use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::aggregate::{Aggregate, SampleTypes, Summing};
use super::ahead::Ahead;
use super::chunk::{self, Needed, Profiles, Unpacked};
use super::columns::Samples;
use super::decoded::{Decoded, Keep, OfBlock, Place, Tables};
use super::error::Error;
use super::filters::Filters;
use super::frame::Frame;
use super::grouped::{Grouped, Grouping, Wanted};
use super::layout::{MAGIC, TRAILER_BYTES};
use super::order::Orders;
use super::piece::{Content, Read, pieces};
use super::rebuild::{self, Parts};
use super::rollups::Choice;
use super::rows::{self, Row, Window};
use super::symbols::{Symbols, frames};
use super::toc::{self, Chunk, Dataset, SEAL_BYTES, Toc, Values, kind};
use super::values::{self, Form};
use super::varint::Damage;

/// How much of the end of an object is read to open it: enough for the table of contents and the rows of a segment.
const TAIL_BYTES: u64 = 64 << 10;

/// What an opened block takes by itself, each of its datasets, and each of its small allocations besides what is asked for: as
/// measured on blocks of 1 to 50 datasets and 1 to 100 rows.
pub(crate) const BLOCK_BYTES: usize = 3 << 10;
pub(crate) const DATASET_BYTES: usize = 1_536;
const ALLOCATION_BYTES: usize = 24;

/// How much of a dataset is read together, and so held at once, to be summed up: some thousand profiles. What is more than that is read in turns.
const READ_AHEAD_BYTES: u64 = 16 << 20;

/// The largest Parquet footer that is believed.
const FOOTER_BYTES_MAX: u64 = 256 << 20;

/// A block in an object store. It is immutable, so what was read of it once stays true.
///
/// What it remembers is the table of contents and the rows; samples and symbol tables are read anew for each question, unless it is
/// one of a catalog that keeps what was decoded.
#[derive(Debug)]
pub struct Block {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    toc: Toc,
    /// What decoding the rows takes, until that is done.
    undecoded: Mutex<Option<Arc<Undecoded>>>,
    pub(super) rows: OnceCell<Arc<Vec<Row>>>,
    /// Once they were asked for; none where the block has none.
    filters: OnceCell<Option<Filters>>,
    /// What is kept of what was decoded besides; none where nothing is.
    pub(super) decoded: Option<OfBlock>,
    /// Whether a roll-up proved damaged of late.
    is_rollup_damaged: AtomicBool,
    /// See [`READ_AHEAD_BYTES`].
    pub(super) read_ahead: u64,
}

/// The rows as they were read: many times the size of what becomes of them.
#[derive(Debug)]
struct Undecoded {
    metadata: ParquetMetaData,
    /// The end of the object as far as it was read.
    tail: Window,
}

impl Block {
    /// Opens the block at `path`: one GET of the object's last 64 KiB, and more only where the table of contents is longer than that.
    ///
    /// # Errors
    /// The object cannot be read, is damaged or too new.
    pub async fn open(store: Arc<dyn ObjectStore>, path: Path) -> Result<Self, Error> {
        let options = GetOptions { range: Some(GetRange::Suffix(TAIL_BYTES)), ..GetOptions::default() };
        let read = |source| Error::Read { block: path.clone(), source };
        match store.get_opts(&path, options).await {
            Ok(result) => {
                let (size, range) = (result.meta.size, result.range.clone());
                let bytes = result.bytes().await.map_err(read)?;
                Self::open_from(store, path.clone(), size, Window { bytes, start: range.start }).await
            }
            // Azure has no requests for the end of an object.
            Err(object_store::Error::NotSupported { .. }) => {
                let size = store.head(&path).await.map_err(read)?.size;
                Self::open_sized(store, path, size).await
            }
            Err(source) => Err(read(source)),
        }
    }

    /// Opens the block at `path`, which is known to have `size` bytes, as a listing says it: like [`Block::open`], also where a store has
    /// no requests for the end of an object.
    ///
    /// # Errors
    /// The object cannot be read, is damaged or too new.
    pub async fn open_sized(store: Arc<dyn ObjectStore>, path: Path, size: u64) -> Result<Self, Error> {
        if size < TRAILER_BYTES as u64 {
            // Stores differ about what they answer to who asks for nothing.
            return Err(Error::corrupt(&path, "object", Damage("is too short to be a block")));
        }
        let start = size.saturating_sub(TAIL_BYTES);
        let bytes = get(&store, &path, start..size).await?;
        Self::open_from(store, path, size, Window { bytes, start }).await
    }

    async fn open_from(store: Arc<dyn ObjectStore>, path: Path, size: u64, tail: Window) -> Result<Self, Error> {
        let mut opening = Opening { store: &store, path: &path, size, tail };
        let metadata = opening.footer().await?;
        let toc = opening.toc(&metadata).await?;
        let undecoded = Mutex::new(Some(Arc::new(Undecoded { metadata, tail: opening.tail })));
        let is_rollup_damaged = AtomicBool::new(false);
        Ok(Self {
            store,
            path,
            size,
            toc,
            undecoded,
            rows: OnceCell::new(),
            filters: OnceCell::new(),
            decoded: None,
            is_rollup_damaged,
            read_ahead: READ_AHEAD_BYTES,
        })
    }

    /// Keeps what is decoded of samples and symbol tables in `decoded`, and looks there first.
    pub fn keeping(self, decoded: &Arc<Decoded>) -> Self {
        Self { decoded: decoded.of_block(&self.path), ..self }
    }

    /// Reads so many bytes of a dataset together instead of many.
    #[cfg(feature = "testing")]
    pub fn reading_ahead(self, read_ahead: u64) -> Self {
        Self { read_ahead, ..self }
    }

    /// Returns whether a roll-up proved damaged since this was last asked, so that profiles were read instead.
    pub fn take_rollup_damage(&self) -> bool {
        self.is_rollup_damaged.swap(false, Ordering::Relaxed)
    }

    /// Returns the key of the object.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the length of the object in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the table of contents.
    pub fn toc(&self) -> &Toc {
        &self.toc
    }

    /// Returns how many bytes of what is decoded of blocks are kept at most, of all blocks together; 0 where nothing is.
    pub fn keeps_bytes_max(&self) -> u64 {
        self.decoded.as_ref().map_or(0, OfBlock::bytes_max)
    }

    /// Returns what was derived from what lies in the block and kept under `key`, if it is a `T`. The key says all that it depends on.
    pub fn derived<T: Send + Sync + 'static>(&self, key: u128) -> Option<Arc<T>> {
        self.decoded.as_ref()?.derived(key)
    }

    /// Returns whether something is kept under `key` that was derived, without use of it.
    pub fn has_derived(&self, key: u128) -> bool {
        self.decoded.as_ref().is_some_and(|decoded| decoded.has(Place::Derived(key), SampleTypes::All))
    }

    /// Keeps what was derived, of `bytes` bytes, beside what is decoded; nothing where that is not kept.
    pub fn keep_derived<T: Send + Sync + 'static>(&self, key: u128, derived: Arc<T>, bytes: u64) {
        if let Some(decoded) = &self.decoded {
            decoded.keep_derived(key, derived, bytes);
        }
    }

    /// Returns about how many bytes of memory the table of contents takes, and the rows once they are decoded.
    pub fn memory(&self) -> usize {
        let datasets = self.toc.datasets();
        let labels = datasets.iter().flat_map(|dataset| dataset.series()).flat_map(Labels::iter);
        let label = |(name, value): (&str, &str)| {
            name.len() + value.len() + 2 * ALLOCATION_BYTES + size_of::<(Box<str>, Box<str>)>()
        };
        let row = |row: &Row| size_of::<Row>() + size_of_val(&*row.totals) + ALLOCATION_BYTES;
        let labels: usize = labels.map(label).sum();
        let rows: usize = self.rows.get().map_or(0, |rows| rows.iter().map(row).sum());
        BLOCK_BYTES + datasets.len() * DATASET_BYTES + labels + rows
    }

    /// Returns the table of contents, to make it say what no writer would.
    #[cfg(test)]
    pub(super) fn toc_mut(&mut self) -> &mut Toc {
        &mut self.toc
    }

    /// Returns the rows, in the order of their datasets. They are decoded once; that takes a GET only where they did not lie in what
    /// was read to open the block.
    ///
    /// # Errors
    /// The object cannot be read or its rows are damaged.
    pub async fn rows(&self) -> Result<Arc<Vec<Row>>, Error> {
        self.rows.get_or_try_init(|| self.read_rows()).await.cloned()
    }

    /// Returns the filters of functions, if the block has any: one GET, the first time.
    pub(super) async fn filters(&self) -> Result<Option<&Filters>, Error> {
        let read = async || match self.filters_section() {
            Some(section) => self.read_filters(section).await.map(Some),
            None => Ok(None),
        };
        self.filters.get_or_try_init(read).await.map(Option::as_ref)
    }

    /// Reads the object whole, and compares every section with its checksum, whether anything else reads it or not: a GET a section, and one
    /// of its beginning. The table of contents and the Parquet footer were compared when the block was opened.
    ///
    /// # Errors
    /// The object cannot be read, or the first part of it that is damaged.
    pub async fn check_sections(&self) -> Result<(), Error> {
        if get(&self.store, &self.path, 0..MAGIC.len() as u64).await? != MAGIC[..] {
            return Err(Error::corrupt(&self.path, "object", Damage("does not begin as it should")));
        }
        for (section, number) in self.toc.sections.iter().zip(0..) {
            let bytes = get(&self.store, &self.path, section.range()).await?;
            if crc32c::crc32c(&bytes) != section.crc {
                let damage = Damage("has a wrong checksum");
                return Err(Error::corrupt(&self.path, format!("section {number}"), damage));
            }
        }
        Ok(())
    }

    async fn read_rows(&self) -> Result<Arc<Vec<Row>>, Error> {
        let corrupt = |damage| Error::corrupt(&self.path, "rows", damage);
        let mut sections = self.toc.sections.iter().filter(|section| section.kind == kind::ROWS);
        let section = *sections.next().ok_or_else(|| corrupt(Damage("are missing")))?;
        let undecoded = self.undecoded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let undecoded = undecoded.expect("rows are decoded once, and until then what they take is kept");
        let bytes = match undecoded.tail.slice(section.range()) {
            Some(bytes) => bytes,
            None => get(&self.store, &self.path, section.range()).await?,
        };
        if crc32c::crc32c(&bytes) != section.crc {
            return Err(corrupt(Damage("have a wrong checksum")));
        }
        let window = Window { bytes, start: section.offset };
        let mut rows = rows::read(&undecoded.metadata, &window).map_err(|_| corrupt(Damage("are no parquet rows")))?;
        if rows.len() != self.toc.profiles() {
            return Err(corrupt(Damage("are not as many as the datasets say")));
        }
        for (dataset, index) in self.toc.datasets.iter().zip(0..) {
            let rows = &mut rows[dataset.rows()];
            rows.iter_mut().for_each(|row| row.dataset = index);
            place_rows(dataset, rows).map_err(corrupt)?;
        }
        *self.undecoded.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(Arc::new(rows))
    }

    /// Returns the protobuf bytes of a profile of this block exactly as they were sent, checked by their SHA-256. One round trip.
    ///
    /// # Errors
    /// The object cannot be read or is damaged.
    pub async fn fetch(&self, row: &Row) -> Result<Bytes, Error> {
        let corrupt = |damage| self.corrupt_row(row, damage);
        let foreign = || corrupt(Damage("is not a row of this block"));
        let dataset = self.toc.datasets.get(row.dataset as usize).ok_or_else(foreign)?;
        let chunk = dataset.chunks.get(row.chunk as usize).ok_or_else(foreign)?;
        let raw = match chunk {
            Chunk::Blob(frame) => {
                let bytes = get(&self.store, &self.path, frame.range()).await?;
                frame.unpack(&bytes).map_err(corrupt)?
            }
            Chunk::Columns { stacks, meta, .. } => {
                let symbols = self.toc.symbols[dataset.symbols as usize].range();
                let ranges = [symbols, stacks.offset..meta.range().end];
                let [symbols, columns] = &*self.get_ranges(&ranges, &Ahead::default()).await? else {
                    return Err(foreign());
                };
                let symbols = self.symbols(dataset, symbols.clone())?;
                let chunk = unpack(chunk, columns, dataset.samples_version(&self.toc), true).map_err(corrupt)?;
                rebuild_row(&symbols, &chunk, row).map_err(corrupt)?
            }
        };
        if raw.len() as u64 != row.raw_bytes || <[u8; 32]>::from(Sha256::digest(&raw)) != row.sha256 {
            return Err(corrupt(Damage("has another sha-256 than what was sent")));
        }
        Ok(raw.into())
    }

    /// Returns the sums of the samples of `rows` (indices into [`Block::rows`], all of dataset `dataset`), one aggregate for each distinct
    /// header; merging them gives what merging the profiles gives, reduced to the sample types that are summed. Values of others are
    /// neither decoded nor checked. One round trip.
    ///
    /// # Errors
    /// The object cannot be read or is damaged.
    pub async fn aggregate(&self, dataset: usize, rows: &[usize], types: SampleTypes) -> Result<Vec<Aggregate>, Error> {
        let rows: Vec<(usize, ())> = rows.iter().map(|&row| (row, ())).collect();
        let start = |tables| Summing::new(tables, types);
        Ok(self.read_rows_of(dataset, &rows, |()| types, start, (Keep::Decoded, &Ahead::default())).await?.finish())
    }

    /// Returns the samples of `rows` of dataset `dataset`, each stack once for each distinct header, and the values that are wanted by
    /// the groups of their profiles. Each chunk is read once, whatever the groups. One round trip, or none where all was read `ahead`.
    ///
    /// # Errors
    /// The object cannot be read or is damaged.
    pub async fn by_group(
        &self,
        dataset: usize,
        rows: &[(usize, Wanted)],
        keep: Keep,
        ahead: &Ahead,
    ) -> Result<Vec<Grouped>, Error> {
        Ok(self.read_rows_of(dataset, rows, Wanted::types, Grouping::new, (keep, ahead)).await?.finish())
    }

    /// Hands the samples of `rows` (indices into [`Block::rows`], all of dataset `dataset`) to a reader that `start` makes, each with
    /// what stands beside it, by which `types` says what is summed of it. Where roll-ups say the same, it gets those instead; where one is
    /// damaged, the rows after all.
    async fn read_rows_of<T: Copy + PartialEq, R: Read<T>>(
        &self,
        dataset: usize,
        rows: &[(usize, T)],
        types: impl Fn(T) -> SampleTypes,
        start: impl Fn(Tables) -> R,
        reading: (Keep, &Ahead),
    ) -> Result<R, Error> {
        let all = self.rows().await?;
        let Some(of) = self.toc.datasets.get(dataset) else {
            return Err(Error::corrupt(&self.path, format!("dataset {dataset}"), Damage("is not in this block")));
        };
        let mut asked: Vec<(&Row, T)> = rows.iter().filter_map(|&(row, with)| Some((all.get(row)?, with))).collect();
        if asked.len() != rows.len() || asked.iter().any(|(row, _)| row.dataset as usize != dataset) {
            return Err(Error::corrupt(
                &self.path,
                format!("dataset {dataset}"),
                Damage("lacks a row that was asked for"),
            ));
        }
        asked.sort_by_key(|(row, _)| (row.chunk, row.position));
        let choice = of.rollups.choose(&all[of.rows()], asked.clone());
        let corrupt = |damage| Error::corrupt(&self.path, format!("roll-ups of dataset {dataset}"), damage);
        match self.read_parts(dataset, &choice, &types, &start, reading).await? {
            Ok(reader) => Ok(reader),
            Err(damage) => {
                tracing::error!(error = %corrupt(damage), "profiles are read instead of their sums");
                self.is_rollup_damaged.store(true, Ordering::Relaxed);
                let rows_alone = Choice { rollups: Vec::new(), rows: asked };
                self.read_parts(dataset, &rows_alone, &types, &start, reading).await?.map_err(corrupt)
            }
        }
    }

    /// Hands what was chosen of a dataset to a reader that `start` makes. In the inner result is what is wrong with a roll-up.
    async fn read_parts<T: Copy + PartialEq, R: Read<T>>(
        &self,
        dataset: usize,
        choice: &Choice<'_, '_, T>,
        types: &impl Fn(T) -> SampleTypes,
        start: &impl Fn(Tables) -> R,
        (keep, ahead): (Keep, &Ahead),
    ) -> Result<Result<R, Damage>, Error> {
        let of = &self.toc.datasets[dataset];
        // What is not decoded already is read together, up to a bound.
        let (mut ranges, decoded) = (Vec::new(), self.decoded.as_ref());
        let mut tables = match decoded {
            Some(decoded) => decoded.tables(of.symbols, keep).await,
            None => Err(None),
        };
        if tables.is_err() {
            ranges.push(self.toc.symbols[of.symbols as usize].range());
        }
        let pieces: Vec<_> = pieces(dataset, of, choice).collect();
        let (mut reader, mut left, version) = (None, &pieces[..], of.samples_version(&self.toc));
        while reader.is_none() || !left.is_empty() {
            let (mut together, mut length) = (Vec::new(), 0);
            while let [piece, after @ ..] = left
                && (length == 0 || length + piece.length() <= self.read_ahead)
            {
                left = after;
                let sums = match (decoded, piece.place) {
                    (Some(decoded), Some(place)) => decoded.sums(place, types(piece.with), keep).await,
                    _ => Err(None),
                };
                if sums.is_err() {
                    length += piece.length();
                    ranges.push(piece.chunk.range_to_merge());
                }
                together.push((piece, sums));
            }
            let ranges = std::mem::take(&mut ranges);
            let mut parts =
                if ranges.is_empty() { Vec::new() } else { self.get_ranges(&ranges, ahead).await? }.into_iter();
            let mut read = || parts.next().expect("there are as many parts as ranges");
            let known = match tables {
                Ok(known) => known,
                Err(vacant) => {
                    let read = Tables::new(self.symbols_for(of, read(), false)?);
                    if let Some(vacant) = vacant {
                        vacant.keep_tables(&read);
                    }
                    read
                }
            };
            // The next turn has them.
            tables = Ok(known.clone());
            let reader = reader.get_or_insert_with(|| start(known.clone()));
            for (piece, sums) in together {
                let bytes = if sums.is_err() { read() } else { Bytes::new() };
                let vacant = match sums {
                    Ok(sums) => Ok(sums),
                    Err(vacant) => Err((vacant, &bytes[..])),
                };
                match (piece.hand_over(vacant, version, &known, types(piece.with), reader), piece.content) {
                    (Ok(()), _) => {}
                    (Err(damage), Content::Rollup(..)) => return Ok(Err(damage)),
                    (Err(damage), Content::Rows(rows)) => return Err(self.corrupt_row(rows[0].0, damage)),
                }
            }
        }
        Ok(Ok(reader.expect("it is made before anything is read into it")))
    }

    /// Reads ranges of the object, but for those that were read ahead.
    pub(super) async fn get_ranges(&self, ranges: &[Range<u64>], ahead: &Ahead) -> Result<Vec<Bytes>, Error> {
        let missing: Vec<Range<u64>> = ranges.iter().filter(|range| ahead.get(range).is_none()).cloned().collect();
        let mut read = Vec::new();
        if !missing.is_empty() {
            // The store's client joins ranges that lie close to each other, so a small block is read in one GET.
            let parts = self.store.get_ranges(&self.path, &missing).await;
            read = parts.map_err(|source| Error::Read { block: self.path.clone(), source })?;
        }
        let mut read = read.into_iter();
        let parts: Vec<Bytes> =
            ranges.iter().filter_map(|range| ahead.get(range).cloned().or_else(|| read.next())).collect();
        let complete = parts.len() == ranges.len()
            && parts.iter().zip(ranges).all(|(part, range)| part.len() as u64 == range.end - range.start);
        if complete { Ok(parts) } else { Err(Error::corrupt(&self.path, "object", SHORT)) }
    }

    /// Reads a part of the object.
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        get(&self.store, &self.path, range).await
    }

    /// Checks and decodes the symbol tables of a dataset, of which `bytes` is the section.
    pub(crate) fn symbols(&self, dataset: &Dataset, bytes: Bytes) -> Result<Arc<Symbols>, Error> {
        self.symbols_for(dataset, bytes, true)
    }

    /// The same; without what only an exact copy needs, where that is not asked for.
    fn symbols_for(&self, dataset: &Dataset, bytes: Bytes, is_exact: bool) -> Result<Arc<Symbols>, Error> {
        let tables = &self.toc.symbols[dataset.symbols as usize];
        let start = tables.range().start;
        let corrupt = |name: &str, damage| {
            Error::corrupt(&self.path, format!("{name} of service {:?}", dataset.service()), damage)
        };
        let mut unpacked: [Vec<u8>; frames::FRAMES] = Default::default();
        for (number, ((frame, out), name)) in tables.frames.iter().zip(&mut unpacked).zip(frames::NAMES).enumerate() {
            if number == frames::EXACT && !is_exact {
                continue;
            }
            *out = frame.unpack(within(&bytes, start, frame)).map_err(|damage| corrupt(name, damage))?;
        }
        let version = self.toc.sections[tables.section as usize].version;
        frames::decode(&unpacked, version, is_exact).map(Arc::new).map_err(|(name, damage)| corrupt(name, damage))
    }

    pub(crate) fn corrupt_row(&self, row: &Row, damage: Damage) -> Error {
        Error::corrupt(&self.path, format!("profile {}", row.id), damage)
    }
}

const SHORT: Damage = Damage("was not read in full");

async fn get(store: &Arc<dyn ObjectStore>, path: &Path, range: Range<u64>) -> Result<Bytes, Error> {
    let length = range.end - range.start;
    let bytes = match store.get_range(path, range.clone()).await {
        Ok(bytes) => bytes,
        Err(source) => {
            // Where an object ends before the range, some stores say nothing but that this failed.
            let is_gone = matches!(source, object_store::Error::NotFound { .. });
            return match store.head(path).await {
                Ok(found) if !is_gone && found.size < range.end => Err(Error::corrupt(path, "object", SHORT)),
                _ => Err(Error::Read { block: path.clone(), source }),
            };
        }
    };
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(Error::corrupt(path, "object", SHORT)) }
}

/// Returns the bytes of a frame, of a part of the object that starts at `start`; the table of contents has it inside.
fn within<'a>(bytes: &'a [u8], start: u64, frame: &Frame) -> &'a [u8] {
    let range = frame.range();
    &bytes[(range.start - start) as usize..(range.end - start) as usize]
}

/// Sets what the rows of a dataset refer to.
fn place_rows(dataset: &Dataset, rows: &mut [Row]) -> Result<(), Damage> {
    let mut taken = vec![0; dataset.chunks.len()];
    let places = dataset.runs.iter().flat_map(|&(place, rows)| std::iter::repeat_n(place, rows as usize));
    for (row, place) in rows.iter_mut().zip(places) {
        let taken = &mut taken[place.chunk as usize];
        row.series = place.series;
        row.sample_types = place.sample_types;
        row.chunk = place.chunk;
        row.position = *taken;
        row.columns = matches!(dataset.chunks[place.chunk as usize], Chunk::Columns { .. });
        *taken += 1;
        if row.totals.len() != dataset.sample_types[place.sample_types as usize].len() {
            return Err(Damage("have another number of totals than of sample types"));
        }
    }
    Ok(())
}

const NO_COLUMNS: Damage = Damage("is no chunk of columns");

/// Unpacks all frames of a chunk of columns, of a section of this version; `bytes` is the part of it from the stacks on.
pub(crate) fn unpack(chunk: &Chunk, bytes: &[u8], version: u32, with_meta: bool) -> Result<Unpacked, Damage> {
    let Chunk::Columns { stacks, meta, .. } = chunk else { return Err(NO_COLUMNS) };
    let mut unpacked = unpack_stacks(chunk, bytes, version)?;
    unpack_values(chunk, bytes, &Needed::All, &mut unpacked)?;
    if with_meta {
        unpacked.meta = meta.unpack(within(bytes, stacks.offset, meta))?;
    }
    Ok(unpacked)
}

/// Unpacks the stacks and labels of a chunk of columns, as [`unpack`] does.
pub(super) fn unpack_stacks(chunk: &Chunk, bytes: &[u8], version: u32) -> Result<Unpacked, Damage> {
    let Chunk::Columns { profiles, stacks, labels, .. } = chunk else { return Err(NO_COLUMNS) };
    let frame = |frame: &Frame| frame.unpack(within(bytes, stacks.offset, frame));
    Ok(Unpacked {
        profiles: *profiles as usize,
        stacks: frame(stacks)?,
        labels: chunk::read_labels(frame(labels)?, version)?,
        values: Vec::new(),
        types: Vec::new(),
        meta: Vec::new(),
    })
}

/// Unpacks the values that are needed, and those they follow from.
pub(super) fn unpack_values(chunk: &Chunk, bytes: &[u8], needed: &Needed, into: &mut Unpacked) -> Result<(), Damage> {
    let Chunk::Columns { stacks, values, .. } = chunk else { return Err(NO_COLUMNS) };
    let mut is_needed: Vec<bool> = match needed {
        Needed::All => vec![true; values.len()],
        Needed::Only(types) => (0..values.len()).map(|t| types.contains(&t)).collect(),
    };
    let said = |values: &Values| match *values {
        Values::Frame(frame) => (Some(frame), Form::Plain),
        Values::Multiple(multiple) => (None, Form::Multiple(multiple)),
        Values::Product { of, rest } => (Some(rest), Form::Product { of }),
        Values::Seen { rate, seen } => (Some(seen), Form::Seen { rate }),
        Values::Bytes { of, rate, rest } => (Some(rest), Form::Bytes { of, rate }),
    };
    let said: Vec<_> = values.iter().map(said).collect();
    // What a type follows from lies before it.
    for t in (0..said.len()).rev() {
        if let (true, Some(of)) = (is_needed[t], said[t].1.of()) {
            is_needed[of] = true;
        }
    }
    into.types = (0..said.len()).filter(|&t| is_needed[t]).collect();
    for ((frame, form), is_needed) in said.into_iter().zip(is_needed) {
        let bytes = match frame {
            Some(frame) if is_needed => frame.unpack(within(bytes, stacks.offset, &frame))?,
            _ => Vec::new(),
        };
        into.values.push((bytes, form));
    }
    Ok(())
}

fn rebuild_row(symbols: &Symbols, chunk: &Unpacked, row: &Row) -> Result<Vec<u8>, Damage> {
    let mut samples = Samples::default();
    let numbers = values::numbers(symbols);
    let mut profiles = Profiles::new(chunk, &numbers)?;
    let position = row.position as usize;
    let head = profiles.read(position, &mut samples)?;
    let meta = profiles.meta(position, &head)?;
    let mut raw = Vec::with_capacity(row.raw_bytes.min(chunk.stacks.len() as u64 * 64) as usize);
    let row_times = (row.time_nanos, row.duration_nanos);
    let parts = Parts { symbols, head: &head, samples: &samples, meta: &meta, row_times };
    rebuild::rebuild(parts, &mut Orders::default(), &mut raw)?;
    Ok(raw)
}

/// A block while it is opened.
struct Opening<'a> {
    store: &'a Arc<dyn ObjectStore>,
    path: &'a Path,
    size: u64,
    tail: Window,
}

impl Opening<'_> {
    /// Returns a range of the object; what lies before the tail is read and becomes part of it.
    async fn need(&mut self, range: Range<u64>) -> Result<Bytes, Error> {
        if range.start < self.tail.start {
            let before = get(self.store, self.path, range.start..self.tail.start).await?;
            let mut bytes = BytesMut::with_capacity(before.len() + self.tail.bytes.len());
            bytes.extend_from_slice(&before);
            bytes.extend_from_slice(&self.tail.bytes);
            self.tail = Window { bytes: bytes.freeze(), start: range.start };
        }
        self.tail.slice(range).ok_or_else(|| Error::corrupt(self.path, "object", SHORT))
    }

    fn corrupt(&self, part: &str, damage: &'static str) -> Error {
        Error::corrupt(self.path, part, Damage(damage))
    }

    /// Reads and checks the Parquet footer.
    async fn footer(&mut self) -> Result<ParquetMetaData, Error> {
        let trailer_start = self.size.saturating_sub(TRAILER_BYTES as u64);
        let trailer = self.need(trailer_start..self.size).await?;
        let Some((length, magic)) = trailer.split_first_chunk::<4>() else {
            return Err(self.corrupt("footer", "is too short"));
        };
        if *magic != MAGIC {
            return Err(self.corrupt("footer", "does not end as a parquet file does"));
        }
        let length = u64::from(u32::from_le_bytes(*length));
        let start = trailer_start.checked_sub(length).filter(|_| length <= FOOTER_BYTES_MAX);
        let Some(seal_start) = start.and_then(|start| start.checked_sub(SEAL_BYTES as u64)) else {
            return Err(self.corrupt("footer", "has an impossible length"));
        };
        let bytes = self.need(seal_start..trailer_start).await?;
        let (seal, footer) = bytes.split_at(SEAL_BYTES);
        if !seal.starts_with(&toc::SEAL) {
            return Err(self.corrupt("footer", "has no seal before it: the object is damaged or no block"));
        }
        if seal[toc::SEAL.len()..] != crc32c::crc32c(footer).to_le_bytes() {
            return Err(self.corrupt("footer", "has a wrong checksum"));
        }
        ParquetMetaDataReader::decode_metadata(footer).map_err(|_| self.corrupt("footer", "is no parquet footer"))
    }

    /// Reads the table of contents where the footer says it lies.
    async fn toc(&mut self, metadata: &ParquetMetaData) -> Result<Toc, Error> {
        let pairs = metadata.file_metadata().key_value_metadata();
        let value = |key: &str| pairs?.iter().find(|pair| pair.key == key)?.value.as_deref();
        let needed = value(toc::KEY_READER).and_then(|version| version.parse().ok());
        let Some(needed) = needed else {
            return Err(self.corrupt("footer", "does not say which reader it needs"));
        };
        if needed > toc::VERSION {
            return Err(Error::TooNew { block: self.path.clone(), needed, known: toc::VERSION });
        }
        let frame = value(toc::KEY_TOC).and_then(toc::read_place);
        let frame = frame.filter(|frame| frame.offset.checked_add(frame.stored).is_some_and(|end| end <= self.size));
        let Some(frame) = frame else {
            return Err(self.corrupt("footer", "does not say where the table of contents lies"));
        };
        let bytes = self.need(frame.range()).await?;
        let corrupt = |damage| Error::corrupt(self.path, "table of contents", damage);
        Toc::decode(&frame.unpack(&bytes).map_err(corrupt)?, frame.offset, needed).map_err(corrupt)
    }
}
