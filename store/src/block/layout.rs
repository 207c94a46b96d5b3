//! Lays a block out: sections, rows, table of contents, seal, Parquet footer.

use std::{fmt, io};

use afterglow_profile::ProfileType;
use bytes::Bytes;
use parquet::file::metadata::KeyValue;
use parquet::file::writer::SerializedFileWriter;

use super::error::Error;
use super::filters;
use super::frame::{Codec, Frame, Packer};
use super::gather::Gathering;
use super::rollups::{Rolled, Rollups};
use super::rows::{self, Row};
use super::symbols::{Symbols, frames};
use super::toc::{self, Dataset, Section, SymbolTables, Toc, kind};

/// What a Parquet file starts and ends with.
pub(crate) const MAGIC: [u8; 4] = *b"PAR1";

/// What follows the Parquet footer: its length and the magic.
pub(crate) const TRAILER_BYTES: usize = 8;

/// A block while it is written.
pub(crate) struct Layout {
    file: SerializedFileWriter<Vec<u8>>,
    toc: Toc,
    rows: Vec<Row>,
    /// The filters of the tables so far, if there are to be any.
    filters: Option<Vec<u8>>,
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layout").field("toc", &self.toc).finish_non_exhaustive()
    }
}

impl Layout {
    /// Starts a block, with filters of functions or without; its rows will be compressed with zstd's `level`, or not at all.
    ///
    /// # Errors
    /// Parquet does not take it.
    pub(crate) fn new(level: Option<i32>, has_filters: bool) -> Result<Self, Error> {
        let filters = has_filters.then(Vec::new);
        Ok(Self { file: rows::begin(level)?, toc: Toc::default(), rows: Vec::new(), filters })
    }

    /// Returns how many bytes there are so far.
    pub(crate) fn len(&self) -> u64 {
        self.file.bytes_written() as u64
    }

    /// Returns the rows of the datasets so far.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Writes the tables of a service and returns their index.
    ///
    /// # Errors
    /// Parquet does not take the bytes.
    pub(crate) fn symbols(&mut self, symbols: &Symbols, packer: &mut Packer) -> Result<u32, Error> {
        let (start, mut bytes) = (self.len(), Vec::new());
        let (labels, numbers) = numbers_apart(symbols, packer).unzip();
        let columns = frames::encode(symbols, labels);
        let mut frames: Vec<_> = columns.iter().map(|columns| packer.pack_columns(&mut bytes, columns)).collect();
        let mut version = frames::PLAIN_VERSION;
        if let Some(Numbers { frame, packed }) = numbers {
            frames.push(frame.shifted(bytes.len() as u64));
            bytes.extend_from_slice(&packed);
            version = frames::NUMBERS_VERSION;
        }
        frames.iter_mut().for_each(|frame| *frame = frame.shifted(start));
        let section = self.section(kind::SYMBOLS, &bytes)?;
        let of = &mut self.toc.sections[section as usize];
        *of = of.of_version(version);
        if let Some(filters) = &mut self.filters {
            filters::put(symbols, filters);
        }
        self.toc.symbols.push(SymbolTables { section, frames });
        Ok(self.toc.symbols.len() as u32 - 1)
    }

    /// Writes the roll-ups of a dataset, and returns where they lie.
    ///
    /// # Errors
    /// Parquet does not take the bytes.
    pub(crate) fn rollups(&mut self, rolled: Rolled) -> Result<Rollups, Error> {
        if rolled.is_empty() {
            return Ok(Rollups::default());
        }
        let start = self.len();
        let section = self.section(kind::ROLLUPS, &rolled.bytes)?;
        Ok(rolled.placed(section, start))
    }

    /// Writes a dataset whose tables are `symbols`; all its profiles lie in chunks. Its roll-ups were written before.
    ///
    /// # Errors
    /// Parquet does not take the bytes.
    pub(crate) fn dataset(
        &mut self,
        (service, profile_type): (&str, &ProfileType),
        gathered: Gathering,
        symbols: u32,
        rollups: Rollups,
    ) -> Result<(), Error> {
        let (start, first_row) = (self.len(), self.rows.len());
        let section = self.section(kind::SAMPLES, &gathered.bytes)?;
        let runs = gathered.runs();
        let Gathering { mut chunks, series, sample_types, rows, .. } = gathered;
        chunks.iter_mut().for_each(|chunk| chunk.shift(start));
        let times = || rows.iter().map(|row| row.time_nanos);
        let dataset = self.toc.datasets.len() as u32;
        self.toc.datasets.push(Dataset {
            service: service.into(),
            profile_type: profile_type.clone(),
            series,
            sample_types,
            time_nanos: times().min().unwrap_or(0)..times().max().unwrap_or(0).saturating_add(1),
            rows: first_row..first_row + rows.len(),
            raw_bytes: rows.iter().map(|row| row.raw_bytes).sum(),
            symbols,
            section,
            chunks,
            runs,
            rollups,
        });
        self.rows.extend(rows.into_iter().map(|row| Row { dataset, ..row }));
        Ok(())
    }

    fn section(&mut self, kind: u32, bytes: &[u8]) -> Result<u32, Error> {
        let offset = self.len();
        self.write(bytes)?;
        self.toc.sections.push(Section::new(kind, offset, bytes));
        Ok(self.toc.sections.len() as u32 - 1)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(rows_error)
    }

    /// Writes everything else, and returns the object.
    ///
    /// # Errors
    /// The rows cannot be written.
    pub(crate) fn finish(mut self, packer: &mut Packer) -> Result<Bytes, Error> {
        if let Some(filters) = self.filters.take() {
            self.section(kind::FUNCTIONS, &filters)?;
        }
        let start = self.len();
        if !self.rows.is_empty() {
            rows::write(&mut self.file, &self.rows, &self.toc)?;
        }
        self.file.flush().map_err(rows_error)?;
        self.toc.sections.push(Section::new(kind::ROWS, start, &self.file.inner()[start as usize..]));

        let mut tail = Vec::new();
        let toc = packer.pack(&mut tail, &self.toc.encode());
        let at = self.len();
        for (key, value) in [
            (toc::KEY_FORMAT, toc::VERSION.to_string()),
            (toc::KEY_READER, self.toc.reader_version().to_string()),
            (toc::KEY_TOC, toc::place(&toc, at)),
        ] {
            self.file.append_key_value_metadata(KeyValue::new(key.into(), value));
        }
        tail.extend_from_slice(&toc::SEAL);
        tail.extend_from_slice(&[0; 4]);
        self.write(&tail)?;
        let footer = self.file.bytes_written();
        let mut bytes = self.file.into_inner()?;
        let crc = crc32c::crc32c(&bytes[footer..bytes.len() - TRAILER_BYTES]);
        bytes[footer - 4..footer].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes.into())
    }
}

/// Numbers of labels that lie apart, packed.
struct Numbers {
    frame: Frame,
    packed: Vec<u8>,
}

/// Returns the columns of the label sets without the numbers that lie apart, and the frame of these: where there are such, and they take
/// less by their bytes.
fn numbers_apart(symbols: &Symbols, packer: &mut Packer) -> Option<(Vec<Vec<u8>>, Numbers)> {
    if !packer.packs_by_bytes() {
        return None;
    }
    let (labels, numbers) = frames::apart(symbols)?;
    let mut packed = Vec::new();
    let frame = packer.pack_numbers(&mut packed, &numbers);
    (frame.codec == Codec::Planes).then_some((labels, Numbers { frame, packed }))
}

fn rows_error(error: io::Error) -> Error {
    Error::Rows(error.into())
}
