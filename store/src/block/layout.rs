//! Lays a block out: sections, rows, table of contents, seal, Parquet footer.

use bytes::Bytes;
use parquet::file::metadata::KeyValue;

use super::chunk;
use super::error::Error;
use super::frame::Packer;
use super::rows::{self, Named};
use super::symbols::{Symbols, frames};
use super::toc::{self, Dataset, Place, Section, SymbolTables, Toc, kind};
use super::writer::Entry;

/// What a Parquet file starts and ends with.
pub(crate) const MAGIC: [u8; 4] = *b"PAR1";

/// What follows the Parquet footer: its length and the magic.
pub(crate) const TRAILER_BYTES: usize = 8;

/// A block while it is written.
pub(crate) struct Layout<'a> {
    packer: &'a mut Packer,
    /// The object so far.
    bytes: Vec<u8>,
    toc: Toc,
}

impl<'a> Layout<'a> {
    /// Starts a block.
    pub(crate) fn new(packer: &'a mut Packer) -> Self {
        Self { packer, bytes: MAGIC.to_vec(), toc: Toc::default() }
    }

    /// Writes the tables of a service and returns their index.
    pub(crate) fn symbols(&mut self, symbols: &Symbols) -> u32 {
        let start = self.bytes.len();
        let frames = frames::encode(symbols).map(|columns| self.packer.pack_columns(&mut self.bytes, &columns));
        let section = self.section(kind::SYMBOLS, start);
        self.toc.symbols.push(SymbolTables { section, frames });
        self.toc.symbols.len() as u32 - 1
    }

    /// Writes the samples of a dataset whose tables are `symbols`, with the numbers of their label sets. `entries` are sorted by series.
    pub(crate) fn dataset(&mut self, entries: &[Entry], symbols: u32, numbers: &[i64]) {
        let first_row = self.toc.profiles();
        let (mut series, mut sample_types) = (Vec::new(), Vec::new());
        let mut places = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            if series.last() != Some(&entry.meta.labels) {
                series.push(entry.meta.labels.clone());
            }
            let known = sample_types.iter().position(|list| *list == entry.sample_types);
            let list = known.unwrap_or_else(|| {
                sample_types.push(entry.sample_types.clone());
                sample_types.len() - 1
            });
            places.push(Place { series: series.len() as u32 - 1, sample_types: list as u32, chunk: 0 });
        }
        let start = self.bytes.len();
        let plan = chunk::plan(places.iter().map(|place| place.series).zip(entries.iter().map(|entry| &entry.stored)));
        let mut chunks = Vec::with_capacity(plan.len());
        for members in &plan {
            members.iter().for_each(|&member| places[member].chunk = chunks.len() as u32);
            let stored: Vec<_> = members.iter().map(|&member| &entries[member].stored).collect();
            chunks.push(chunk::write(&stored, numbers, self.packer, &mut self.bytes));
        }
        let section = self.section(kind::SAMPLES, start);
        let times = || entries.iter().map(|entry| entry.row.time_nanos);
        self.toc.datasets.push(Dataset {
            service: entries[0].meta.labels.service().into(),
            profile_type: entries[0].meta.profile_type.clone(),
            series,
            sample_types,
            time_nanos: times().min().unwrap_or(0)..times().max().unwrap_or(0).saturating_add(1),
            rows: first_row..first_row + entries.len(),
            raw_bytes: entries.iter().map(|entry| entry.row.raw_bytes).sum(),
            symbols,
            section,
            chunks,
            runs: places.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u32)).collect(),
        });
    }

    fn section(&mut self, kind: u32, start: usize) -> u32 {
        self.toc.sections.push(Section::new(kind, start as u64, &self.bytes[start..]));
        self.toc.sections.len() as u32 - 1
    }

    /// Writes everything else, and returns the object.
    ///
    /// # Errors
    /// The rows cannot be written.
    pub(crate) fn finish(mut self, entries: &[Entry]) -> Result<Bytes, Error> {
        let named: Vec<_> = entries
            .iter()
            .map(|entry| Named {
                row: &entry.row,
                service: entry.meta.labels.service(),
                profile_type: entry.meta.profile_type.as_str(),
                labels: &entry.meta.labels,
                sample_types: &entry.sample_types,
            })
            .collect();
        let mut file = rows::begin(Vec::with_capacity(self.bytes.len() + self.bytes.len() / 8))?;
        let io = |error: std::io::Error| Error::Rows(error.into());
        file.write_all(&self.bytes[MAGIC.len()..]).map_err(io)?;
        if !named.is_empty() {
            rows::write(&mut file, &named)?;
        }
        file.flush().map_err(io)?;
        self.toc.sections.push(Section::new(kind::ROWS, self.bytes.len() as u64, &file.inner()[self.bytes.len()..]));

        let mut tail = Vec::new();
        let toc = self.packer.pack(&mut tail, &self.toc.encode());
        let at = file.bytes_written() as u64;
        for (key, value) in [
            (toc::KEY_FORMAT, toc::VERSION.to_string()),
            (toc::KEY_READER, toc::READER_VERSION.to_string()),
            (toc::KEY_TOC, toc::place(&toc, at)),
        ] {
            file.append_key_value_metadata(KeyValue::new(key.into(), value));
        }
        tail.extend_from_slice(&toc::SEAL);
        tail.extend_from_slice(&[0; 4]);
        file.write_all(&tail).map_err(io)?;
        let footer = file.bytes_written();
        let mut bytes = file.into_inner()?;
        let crc = crc32c::crc32c(&bytes[footer..bytes.len() - TRAILER_BYTES]);
        bytes[footer - 4..footer].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes.into())
    }
}
