//! Reads a block: the table of contents when it is opened, then only the ranges that answer a question.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::aggregate::{Aggregate, SampleTypes, Summing};
use super::chunk::{self, Needed, Profiles, Unpacked};
use super::columns::Samples;
use super::error::Error;
use super::filters::Filters;
use super::frame::Frame;
use super::grouped::{Grouped, Grouping, Wanted};
use super::layout::{MAGIC, TRAILER_BYTES};
use super::order::Orders;
use super::rebuild::{self, Parts};
use super::rollups::Choice;
use super::rows::{self, Row, Window};
use super::symbols::{Symbols, frames};
use super::toc::{self, Chunk, Dataset, SEAL_BYTES, Toc, Values, kind};
use super::values::{self, Form};
use super::varint::Damage;

/// How much of the end of an object is read to open it: enough for the table of contents and the rows of a segment.
const TAIL_BYTES: u64 = 64 << 10;

/// The largest Parquet footer that is believed.
const FOOTER_BYTES_MAX: u64 = 256 << 20;

/// A block in an object store. It is immutable, so what was read of it once stays true.
///
/// What it remembers is the table of contents and the rows; samples and symbol tables are read anew for each question.
#[derive(Debug)]
pub struct Block {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    toc: Toc,
    /// What decoding the rows takes, until that is done.
    undecoded: Mutex<Option<Arc<Undecoded>>>,
    rows: OnceCell<Arc<Vec<Row>>>,
    /// Once they were asked for; none where the block has none.
    filters: OnceCell<Option<Filters>>,
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
        let start = size.saturating_sub(TAIL_BYTES);
        let bytes = get(&store, &path, start..size).await?;
        Self::open_from(store, path, size, Window { bytes, start }).await
    }

    async fn open_from(store: Arc<dyn ObjectStore>, path: Path, size: u64, tail: Window) -> Result<Self, Error> {
        let mut opening = Opening { store: &store, path: &path, size, tail };
        let metadata = opening.footer().await?;
        let toc = opening.toc(&metadata).await?;
        let undecoded = Mutex::new(Some(Arc::new(Undecoded { metadata, tail: opening.tail })));
        Ok(Self { store, path, size, toc, undecoded, rows: OnceCell::new(), filters: OnceCell::new() })
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
                let [symbols, columns] = &*self.get_ranges(&ranges).await? else { return Err(foreign()) };
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
        Ok(self.read_rows_of(dataset, &rows, |symbols| Summing::new(symbols, types)).await?.finish())
    }

    /// Returns the samples of `rows` of dataset `dataset`, each stack once for each distinct header, and the values that are wanted by
    /// the groups of their profiles. Each chunk is read once, whatever the groups. One round trip.
    ///
    /// # Errors
    /// The object cannot be read or is damaged.
    pub async fn by_group(&self, dataset: usize, rows: &[(usize, Wanted)]) -> Result<Vec<Grouped>, Error> {
        Ok(self.read_rows_of(dataset, rows, Grouping::new).await?.finish())
    }

    /// Hands the samples of `rows` (indices into [`Block::rows`], all of dataset `dataset`) to a reader that `start` makes, each with
    /// what stands beside it. Where roll-ups say the same, it gets those instead; where one is damaged, the rows after all.
    async fn read_rows_of<T: Copy + PartialEq, R: Read<T>>(
        &self,
        dataset: usize,
        rows: &[(usize, T)],
        start: impl Fn(Arc<Symbols>) -> R,
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
        match self.read_parts(of, &choice, &start).await? {
            Ok(reader) => Ok(reader),
            Err(damage) => {
                tracing::error!(error = %corrupt(damage), "profiles are read instead of their sums");
                let rows_alone = Choice { rollups: Vec::new(), rows: asked };
                self.read_parts(of, &rows_alone, &start).await?.map_err(corrupt)
            }
        }
    }

    /// Hands what was chosen of a dataset to a reader that `start` makes. In the inner result is what is wrong with a roll-up.
    async fn read_parts<T: Copy, R: Read<T>>(
        &self,
        of: &Dataset,
        Choice { rollups, rows }: &Choice<'_, '_, T>,
        start: &impl Fn(Arc<Symbols>) -> R,
    ) -> Result<Result<R, Damage>, Error> {
        let by_chunk: Vec<&[(&Row, T)]> = rows.chunk_by(|(a, _), (b, _)| a.chunk == b.chunk).collect();
        let mut ranges = vec![self.toc.symbols[of.symbols as usize].range()];
        ranges.extend(rollups.iter().map(|(rollup, _)| rollup.chunk.range_to_merge()));
        ranges.extend(by_chunk.iter().map(|rows| of.chunks[rows[0].0.chunk as usize].range_to_merge()));
        let parts = self.get_ranges(&ranges).await?;
        let (of_rollups, of_chunks) = parts[1..].split_at(rollups.len());
        let mut reader = start(self.symbols(of, parts[0].clone())?);
        let version = of.samples_version(&self.toc);
        for (&(rollup, with), bytes) in rollups.iter().zip(of_rollups) {
            let row = of.rollups.row(rollup);
            let mut read = || -> Result<(), Damage> {
                let mut unpacked = unpack_stacks(&rollup.chunk, bytes, version)?;
                let needed = reader.needed(&unpacked, &[(&row, with)])?;
                unpack_values(&rollup.chunk, bytes, &needed, &mut unpacked)?;
                reader.add_rollup(&unpacked, &row, with, rollup.rows as usize)
            };
            if let Err(damage) = read() {
                return Ok(Err(damage));
            }
        }
        for (rows, bytes) in by_chunk.into_iter().zip(of_chunks) {
            let (row, with) = rows[0];
            let corrupt = |damage| self.corrupt_row(row, damage);
            let chunk = &of.chunks[row.chunk as usize];
            match chunk {
                Chunk::Blob(frame) => {
                    reader.add_blob(frame.unpack(bytes).map_err(corrupt)?, with).map_err(corrupt)?;
                }
                Chunk::Columns { .. } => {
                    let mut unpacked = unpack_stacks(chunk, bytes, version).map_err(corrupt)?;
                    let needed = reader.needed(&unpacked, rows).map_err(corrupt)?;
                    unpack_values(chunk, bytes, &needed, &mut unpacked).map_err(corrupt)?;
                    reader.add_chunk(&unpacked, rows).map_err(corrupt)?;
                }
            }
        }
        Ok(Ok(reader))
    }

    async fn get_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        // The store's client joins ranges that lie close to each other, so a small block is read in one GET.
        let read = self.store.get_ranges(&self.path, ranges).await;
        let parts = read.map_err(|source| Error::Read { block: self.path.clone(), source })?;
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
        let tables = &self.toc.symbols[dataset.symbols as usize];
        let start = tables.range().start;
        let corrupt = |name: &str, damage| {
            Error::corrupt(&self.path, format!("{name} of service {:?}", dataset.service()), damage)
        };
        let mut unpacked: [Vec<u8>; frames::FRAMES] = Default::default();
        for ((frame, out), name) in tables.frames.iter().zip(&mut unpacked).zip(frames::NAMES) {
            *out = frame.unpack(within(&bytes, start, frame)).map_err(|damage| corrupt(name, damage))?;
        }
        let version = self.toc.sections[tables.section as usize].version;
        frames::decode(&unpacked, version).map(Arc::new).map_err(|(name, damage)| corrupt(name, damage))
    }

    pub(crate) fn corrupt_row(&self, row: &Row, damage: Damage) -> Error {
        Error::corrupt(&self.path, format!("profile {}", row.id), damage)
    }
}

/// Takes the samples of rows, each with what stands beside it.
pub(crate) trait Read<T> {
    /// Takes a profile that is kept as it was sent.
    fn add_blob(&mut self, raw: Vec<u8>, with: T) -> Result<(), Damage>;

    /// Returns which value types it needs of the profiles of `rows`, all of one chunk, of which nothing but the values is unpacked.
    fn needed(&mut self, chunk: &Unpacked, rows: &[(&Row, T)]) -> Result<Needed, Damage>;

    /// Takes the profiles of `rows`, all of one chunk and in the order of their positions, with the value types that it needs.
    fn add_chunk(&mut self, chunk: &Unpacked, rows: &[(&Row, T)]) -> Result<(), Damage>;

    /// Takes the sum of so many profiles, the only one of `chunk`, beside all of which the same stands. Its times are relative to `row`.
    fn add_rollup(&mut self, chunk: &Unpacked, row: &Row, with: T, profiles: usize) -> Result<(), Damage>;
}

const SHORT: Damage = Damage("was not read in full");

async fn get(store: &Arc<dyn ObjectStore>, path: &Path, range: Range<u64>) -> Result<Bytes, Error> {
    let length = range.end - range.start;
    let bytes = store.get_range(path, range).await.map_err(|source| Error::Read { block: path.clone(), source })?;
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
