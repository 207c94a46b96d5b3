//! One input of a merge.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use afterglow_profile::Labels;
use bytes::Bytes;

use super::plan::{Ordinal, Pick};
use super::split::Split;
use crate::block::chunk::Stored;
use crate::block::columns::Meta;
use crate::block::error::Error;
use crate::block::frame::Frame;
use crate::block::reader::{self, Block};
use crate::block::rows::Row;
use crate::block::symbols::{Adopted, Adopting, Interner, Listed, Symbols};
use crate::block::toc::{Chunk, Dataset, SampleType};
use crate::block::varint::{self, Damage, Delta};

/// The least that is read at once, if there is so much.
const AHEAD_MIN: u64 = 64 << 10;

/// The most that is read ahead at once: more saves few requests.
const AHEAD_MAX: u64 = 4 << 20;

/// Parts of an object closer to each other than this are read in one.
const GAP_MAX: u64 = 64 << 10;

/// An input, and what of it is in memory.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) block: Arc<Block>,
    rows: Arc<Vec<Row>>,
    /// What will be needed, in this order: of each service its tables, then its chunks.
    parts: VecDeque<Range<u64>>,
    /// The first of those that were read.
    read: VecDeque<Bytes>,
    /// The service and the chunk that will be needed last of these.
    last: Option<(Ordinal, Part)>,
    tables: Option<Tables>,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    dataset: u32,
    chunk: u32,
}

#[derive(Debug)]
struct Tables {
    symbols: Arc<Symbols>,
    places: Adopted,
}

/// A chunk that profiles are taken from.
#[derive(Debug)]
struct Open {
    part: Part,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Blob(Frame, Bytes),
    Columns(Split),
}

impl Source {
    pub(super) fn new(block: Arc<Block>, rows: Arc<Vec<Row>>) -> Self {
        Self { block, rows, parts: VecDeque::new(), read: VecDeque::new(), last: None, tables: None, open: None }
    }

    /// Returns a row, and what it refers to.
    pub(super) fn row(&self, pick: &Pick) -> (&Row, &Labels, &[SampleType]) {
        let row = &self.rows[pick.row as usize];
        let dataset = self.dataset(row);
        (row, &dataset.series[row.series as usize], &dataset.sample_types[row.sample_types as usize])
    }

    fn dataset(&self, row: &Row) -> &Dataset {
        &self.block.toc().datasets()[row.dataset as usize]
    }

    /// Lets go of everything of the service before.
    pub(super) fn begin_service(&mut self) {
        (self.tables, self.open) = (None, None);
    }

    /// Takes note that this profile will be asked for, after those before, as one of this service of those that are begun.
    pub(super) fn will_need(&mut self, pick: &Pick, service: Ordinal) {
        let row = &self.rows[pick.row as usize];
        let part = Part { dataset: row.dataset, chunk: row.chunk };
        let toc = self.block.toc();
        let dataset = &toc.datasets()[part.dataset as usize];
        let last = self.last.replace((service, part));
        if last.is_none_or(|(last, _)| last != service) {
            self.parts.push_back(toc.symbols[dataset.symbols as usize].range());
        }
        if last != Some((service, part)) {
            self.parts.push_back(dataset.chunks[part.chunk as usize].range());
        }
    }

    /// Lets go of where entries came to lie: the next are taken over into other tables.
    pub(super) fn forget_places(&mut self) {
        if let Some(tables) = &mut self.tables {
            tables.places = Adopted::new(&tables.symbols);
        }
    }

    /// Returns what should be read now, if all that was read is used up.
    pub(super) fn wants(&self, ahead: u64) -> Option<Range<u64>> {
        if !self.read.is_empty() {
            return None;
        }
        let ahead = ahead.clamp(AHEAD_MIN, AHEAD_MAX);
        let mut parts = self.parts.iter();
        let mut range = parts.next()?.clone();
        for part in parts {
            if part.start < range.end || part.start - range.end > GAP_MAX || part.end - range.start > ahead {
                break;
            }
            range.end = part.end;
        }
        Some(range)
    }

    /// Takes what was read, from `start` on.
    pub(super) fn take(&mut self, start: u64, bytes: &Bytes) {
        let end = start + bytes.len() as u64;
        while let Some(part) = self.parts.pop_front_if(|part| start <= part.start && part.end <= end) {
            self.read.push_back(bytes.slice((part.start - start) as usize..(part.end - start) as usize));
        }
    }

    /// Unpacks what a profile needs, and returns whether it was there.
    ///
    /// # Errors
    /// It is damaged.
    pub(super) fn is_ready(&mut self, pick: &Pick) -> Result<bool, Error> {
        let row = &self.rows[pick.row as usize];
        let block = self.block.clone();
        let dataset = &block.toc().datasets()[row.dataset as usize];
        if self.tables.is_none() {
            let Some(bytes) = self.read.pop_front() else { return Ok(false) };
            let symbols = block.symbols(dataset, bytes)?;
            self.tables = Some(Tables { places: Adopted::new(&symbols), symbols });
        }
        let part = Part { dataset: row.dataset, chunk: row.chunk };
        if self.open.as_ref().is_none_or(|open| open.part != part) {
            self.open = None;
            let Some(bytes) = self.read.pop_front() else { return Ok(false) };
            let chunk = &dataset.chunks[row.chunk as usize];
            let content = match chunk {
                Chunk::Blob(frame) => frame.check(&bytes).map(|()| Content::Blob(*frame, bytes)),
                Chunk::Columns { .. } => reader::unpack(chunk, &bytes, dataset.samples_version(block.toc()), true)
                    .and_then(Split::new)
                    .map(Content::Columns),
            };
            let content = content.map_err(|damage| block.corrupt_row(row, damage))?;
            self.open = Some(Open { part, content });
        }
        Ok(true)
    }

    /// Returns a profile whose chunk is open with its indices replaced by those of `to`.
    ///
    /// # Errors
    /// The profile is damaged.
    pub(super) fn carry(&mut self, pick: &Pick, to: &mut Interner) -> Result<Stored, Error> {
        let row = &self.rows[pick.row as usize];
        let (Some(tables), Some(open)) = (&mut self.tables, &self.open) else {
            return Err(self.block.corrupt_row(row, NOT_THERE));
        };
        let Tables { symbols, places } = tables;
        let stored = match &open.content {
            Content::Blob(frame, bytes) => Ok(Stored::Blob { packed: bytes.to_vec(), frame: *frame }),
            Content::Columns(split) => carry(split, row.position, &mut Adopting { to, from: symbols, places }),
        };
        stored.map_err(|damage| self.block.corrupt_row(row, damage))
    }
}

const NOT_THERE: Damage = Damage("has fewer profiles than its rows say");

/// Returns the profile at `position` with its indices replaced.
fn carry(split: &Split, position: u32, adopting: &mut Adopting<'_>) -> Result<Stored, Damage> {
    let mut head = split.head(position).ok_or(NOT_THERE)?;
    head.header = adopting.header(head.header)?;

    let mut said = Vec::with_capacity(head.samples);
    Delta::default().read_indices(&mut split.stacks(position), head.samples, &mut said)?;
    let (mut put, mut stacks) = (Delta::default(), Vec::with_capacity(2 * said.len()));
    for &stack in &said {
        put.put(&mut stacks, adopting.stack(stack)?.into());
    }

    said.clear();
    let mut from = split.labels(position);
    let count = if from.left() == 0 { 0 } else { head.samples };
    varint::read_indices(&mut from, count, &mut said)?;
    let (mut labels, mut any) = (Vec::with_capacity(2 * said.len()), false);
    for &set in &said {
        let set = adopting.label_set(set)?;
        any |= set != 0;
        varint::put(&mut labels, set.into());
    }
    if !any {
        labels.clear();
    }

    let meta = carry_meta(split.meta(position)?, adopting)?;
    Ok(Stored::columns(head, [&stacks, &labels, &meta], split.values(position)))
}

fn carry_meta(mut meta: Meta, adopting: &mut Adopting<'_>) -> Result<Vec<u8>, Damage> {
    meta.pattern = adopting.pattern(meta.pattern)?;
    for shape in &mut meta.shapes {
        *shape = adopting.checked_shape(*shape)?;
    }
    for (table, list) in [
        (Listed::Locations, &mut meta.locations),
        (Listed::Functions, &mut meta.functions),
        (Listed::Mappings, &mut meta.mappings),
        (Listed::Strings, &mut meta.strings),
    ] {
        list.iter_mut().try_for_each(|list| adopting.listed(table, list))?;
    }
    let mut out = Vec::new();
    meta.put(&mut out);
    Ok(out)
}
