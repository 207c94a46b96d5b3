//! Writes a profile's protobuf bytes again, from the tables and its columns alone.
//!
//! The writer runs this on every profile it has just turned into columns and keeps the columns only if the bytes are those that were
//! sent; the reader runs the same code on the same columns. Orders are replayed as [`columns`](super::columns) predicted them.
//!
//! What a block says is checked as it is used, so columns that contradict the tables are refused and nothing is out of range.

use afterglow_profile::model::NONE;

use super::columns::{Head, Meta};
use super::order::{self, Counts, key};
use super::symbols::{Header, Label, Symbols, ValueType};
use super::varint::{self, Damage};

/// The samples of one profile, decoded.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    /// The stack of each sample.
    pub(crate) stacks: Vec<u32>,
    /// The label set of each sample; empty where no sample has labels.
    pub(crate) labels: Vec<u32>,
    /// For each value type the value of each sample.
    pub(crate) values: Vec<Vec<i64>>,
}

impl Samples {
    /// Returns the label set of sample `i`.
    pub(crate) fn set(&self, i: usize) -> u32 {
        self.labels.get(i).copied().unwrap_or(0)
    }
}

/// Memory that is used again from one profile to the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    strings: Order,
    functions: Order,
    mappings: Order,
    locations: Order,
    /// The locations of all samples, as indices into the profile's own.
    frames: Vec<u32>,
    frame_ends: Vec<u32>,
    sample_needs: Vec<u32>,
    location_needs: Vec<u32>,
}

/// Which entries of a table a profile has, in its order, and where each of them stands in it.
#[derive(Debug, Default)]
struct Order {
    /// The entries.
    places: Vec<u32>,
    /// For each entry of the table, `profile << 32 | index`.
    index_of: Vec<u64>,
    /// Tells what the present profile has seen from what one before it had.
    profile: u64,
}

// === impl Order ===

impl Order {
    /// Begins a profile whose entries come from a table of `len`, in the order of `listed` if that is given.
    fn begin(&mut self, len: usize, listed: Option<&[u32]>) -> Result<(), Damage> {
        self.places.clear();
        self.index_of.resize(len, 0);
        self.profile += 1;
        if self.profile > u64::from(u32::MAX) {
            self.index_of.fill(0);
            self.profile = 1;
        }
        for &place in listed.into_iter().flatten() {
            if place as usize >= len || !self.see(place) {
                return Err(Damage("an order lists an entry twice, or one that does not exist"));
            }
        }
        Ok(())
    }

    /// Appends an entry if the profile does not have it yet, and returns whether it was new.
    #[inline]
    fn see(&mut self, place: u32) -> bool {
        let index = &mut self.index_of[place as usize];
        let is_new = *index >> 32 != self.profile;
        if is_new {
            *index = self.profile << 32 | self.places.len() as u64;
            self.places.push(place);
        }
        is_new
    }

    /// Returns where an entry stands in the profile.
    #[inline]
    fn index(&self, place: u32) -> Result<u32, Damage> {
        match self.index_of.get(place as usize) {
            Some(&index) if index >> 32 == self.profile => Ok(index as u32),
            _ => Err(Damage("an order lacks an entry that is used")),
        }
    }
}

/// Appends the protobuf bytes of a profile to `out`; `row_time` and `row_duration` are those of its row, in nanoseconds.
///
/// # Errors
/// The columns contradict each other or the tables.
pub(crate) fn rebuild(
    symbols: &Symbols,
    head: &Head,
    samples: &Samples,
    meta: &Meta,
    (row_time, row_duration): (i64, i64),
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> Result<(), Damage> {
    let header = header(symbols, head, samples, meta)?;
    scratch.find_entities(symbols, samples, meta)?;
    let pattern = match meta.pattern {
        pattern if (pattern as usize) < symbols.patterns.len() => symbols.patterns.get(pattern),
        _ => return Err(Damage("an index points past its table")),
    };
    scratch.find_strings(symbols, samples, meta, &header, pattern)?;
    let writer = Writer {
        symbols,
        samples,
        meta,
        header: &header,
        scratch,
        time: head.time_delta.wrapping_add(row_time),
        duration: head.duration_delta.wrapping_add(row_duration),
    };
    order::walk(pattern, &scratch.counts(&header), |key, i| writer.record(out, key, i))
}

/// Reads the header and checks what the samples refer to.
fn header(symbols: &Symbols, head: &Head, samples: &Samples, meta: &Meta) -> Result<Header, Damage> {
    let header = symbols.header(head.header)?;
    let len = samples.stacks.len();
    let fits = samples.values.len() == header.sample_types.len()
        && samples.values.iter().all(|column| column.len() == len)
        && (samples.labels.is_empty() || samples.labels.len() == len)
        && (meta.shapes.len() == len || (meta.shapes.len() == 1 && len > 0));
    if !fits {
        return Err(Damage("columns have different lengths"));
    }
    let within = |indices: &[u32], len: usize| indices.iter().all(|&i| (i as usize) < len);
    let in_range = within(&samples.stacks, symbols.leaves.len())
        && within(&samples.labels, symbols.label_sets.len())
        && within(&meta.shapes, symbols.shapes.len());
    if in_range { Ok(header) } else { Err(Damage("an index points past its table")) }
}

// === impl Scratch ===

impl Scratch {
    /// Finds the order of locations, mappings and functions, and the stacks in terms of it.
    fn find_entities(&mut self, symbols: &Symbols, samples: &Samples, meta: &Meta) -> Result<(), Damage> {
        self.locations.begin(symbols.locations.len(), meta.locations.as_deref())?;
        self.functions.begin(symbols.functions.len(), meta.functions.as_deref())?;
        self.mappings.begin(symbols.mappings.len(), meta.mappings.as_deref())?;
        let predicted = meta.locations.is_none();
        self.frames.clear();
        self.frame_ends.clear();
        self.sample_needs.clear();
        for &stack in &samples.stacks {
            let mut needs = 0;
            for location in symbols.frames_of(stack) {
                if predicted {
                    self.locations.see(location);
                }
                let index = self.locations.index(location)?;
                needs = needs.max(index + 1);
                self.frames.push(index);
            }
            self.frame_ends.push(self.frames.len() as u32);
            self.sample_needs.push(needs);
        }
        let (functions_predicted, mappings_predicted) = (meta.functions.is_none(), meta.mappings.is_none());
        self.location_needs.clear();
        for &place in &self.locations.places {
            let mapping = symbols.locations[place as usize].mapping;
            if mappings_predicted && mapping != NONE {
                self.mappings.see(mapping);
            }
            let mut needs = 0;
            for line in symbols.lines_of(place).iter().filter(|line| line.function != NONE) {
                if functions_predicted {
                    self.functions.see(line.function);
                }
                needs = needs.max(self.functions.index(line.function)? + 1);
            }
            self.location_needs.push(needs);
        }
        Ok(())
    }

    /// Finds the order of the string table.
    fn find_strings(
        &mut self,
        symbols: &Symbols,
        samples: &Samples,
        meta: &Meta,
        header: &Header,
        pattern: &[u8],
    ) -> Result<(), Damage> {
        self.strings.begin(symbols.strings.len(), meta.strings.as_deref())?;
        if meta.strings.is_some() {
            return Ok(());
        }
        let mut strings = std::mem::take(&mut self.strings);
        strings.see(0);
        let walked = order::walk(pattern, &self.counts(header), |key, i| {
            let mut see = |list: &[u32]| list.iter().for_each(|&string| _ = strings.see(string));
            match key {
                key::SAMPLE_TYPE => see(&[header.sample_types[i].kind, header.sample_types[i].unit]),
                key::PERIOD_TYPE => header.period_type.iter().for_each(|t| see(&[t.kind, t.unit])),
                key::SAMPLE => {
                    if let Some(&set) = samples.labels.get(i) {
                        symbols.labels_of(set).for_each(|label| see(&[label.key, label.str, label.num_unit]));
                    }
                }
                key::MAPPING => {
                    let mapping = symbols.mappings[self.mappings.places[i] as usize];
                    see(&[mapping.file, mapping.build_id]);
                }
                key::FUNCTION => {
                    let function = symbols.functions[self.functions.places[i] as usize];
                    see(&[function.name, function.system_name, function.file]);
                }
                key::COMMENT => see(&[header.comments[i]]),
                key::COMMENTS_PACKED => see(&header.comments),
                key::DROP_FRAMES => see(&[header.drop_frames]),
                key::KEEP_FRAMES => see(&[header.keep_frames]),
                key::DEFAULT_SAMPLE_TYPE => see(&[header.default_sample_type]),
                key::DOC_URL => see(&[header.doc_url]),
                // The strings come last as a rule, and are not known yet.
                _ => {}
            }
            Ok(())
        });
        self.strings = strings;
        walked
    }

    fn counts(&self, header: &Header) -> Counts<'_> {
        Counts {
            sample_types: header.sample_types.len(),
            mappings: self.mappings.places.len(),
            strings: self.strings.places.len(),
            comments: header.comments.len(),
            sample_needs: &self.sample_needs,
            location_needs: &self.location_needs,
            functions: self.functions.places.len(),
        }
    }
}

/// Writes records.
#[derive(Clone, Copy)]
struct Writer<'a> {
    symbols: &'a Symbols,
    samples: &'a Samples,
    meta: &'a Meta,
    header: &'a Header,
    scratch: &'a Scratch,
    time: i64,
    duration: i64,
}

impl Writer<'_> {
    /// Appends record `i` of those with this key.
    fn record(self, out: &mut Vec<u8>, key: u8, i: usize) -> Result<(), Damage> {
        let scratch = self.scratch;
        match key {
            key::SAMPLE => message(out, key, |out| self.sample(out, i)),
            key::LOCATION => message(out, key, |out| self.location(out, i)),
            key::FUNCTION => message(out, key, |out| self.function(out, i)),
            key::MAPPING => message(out, key, |out| self.mapping(out, i)),
            key::STRING => {
                out.push(key);
                varint::put_bytes(out, self.symbols.strings.get(scratch.strings.places[i]));
                Ok(())
            }
            key::SAMPLE_TYPE => message(out, key, |out| self.value_type(out, self.header.sample_types[i])),
            key::PERIOD_TYPE => {
                let period_type = self.header.period_type.ok_or(Damage("a period type is missing"))?;
                message(out, key, |out| self.value_type(out, period_type))
            }
            key::COMMENTS_PACKED => message(out, key, |out| {
                let mut comments = self.header.comments.iter();
                comments.try_for_each(|&comment| self.string(out, comment))
            }),
            key::COMMENT => scalar(out, key, |out| self.string(out, self.header.comments[i])),
            key::DROP_FRAMES => scalar(out, key, |out| self.string(out, self.header.drop_frames)),
            key::KEEP_FRAMES => scalar(out, key, |out| self.string(out, self.header.keep_frames)),
            key::DEFAULT_SAMPLE_TYPE => scalar(out, key, |out| self.string(out, self.header.default_sample_type)),
            key::DOC_URL => scalar(out, key, |out| self.string(out, self.header.doc_url)),
            key::TIME => number(out, key, self.time as u64),
            key::DURATION => number(out, key, self.duration as u64),
            key::PERIOD => number(out, key, self.header.period as u64),
            _ => Err(Damage("a record has an unknown field")),
        }
    }

    /// Appends the index of a string.
    fn string(self, out: &mut Vec<u8>, place: u32) -> Result<(), Damage> {
        varint::put(out, self.scratch.strings.index(place)?.into());
        Ok(())
    }

    fn shape(&self, shape: u32) -> &[u8] {
        self.symbols.shapes.get(shape)
    }

    fn value_type(self, out: &mut Vec<u8>, of: ValueType) -> Result<(), Damage> {
        self.shape(of.shape).iter().try_for_each(|&key| match key {
            0x08 => scalar(out, key, |out| self.string(out, of.kind)),
            0x10 => scalar(out, key, |out| self.string(out, of.unit)),
            _ => Err(UNKNOWN_FIELD),
        })
    }

    fn sample(self, out: &mut Vec<u8>, i: usize) -> Result<(), Damage> {
        let shape = self.meta.shapes[if self.meta.shapes.len() == 1 { 0 } else { i }];
        let ends = &self.scratch.frame_ends;
        let start = if i == 0 { 0 } else { ends[i - 1] as usize };
        let frames = &self.scratch.frames[start..ends[i] as usize];
        let ids = self.meta.location_ids.as_deref();
        for &key in self.shape(shape) {
            match key {
                0x08 => frames.iter().try_for_each(|&index| number(out, key, id(ids, index)?))?,
                0x0a => message(out, key, |out| match ids {
                    None => {
                        frames.iter().for_each(|&index| varint::put(out, u64::from(index) + 1));
                        Ok(())
                    }
                    ids => frames.iter().try_for_each(|&index| {
                        varint::put(out, id(ids, index)?);
                        Ok(())
                    }),
                })?,
                0x10 => self.samples.values.iter().try_for_each(|column| number(out, key, column[i] as u64))?,
                0x12 => message(out, key, |out| {
                    self.samples.values.iter().for_each(|column| varint::put(out, column[i] as u64));
                    Ok(())
                })?,
                0x1a => {
                    for label in self.samples.labels.get(i).into_iter().flat_map(|&set| self.symbols.labels_of(set)) {
                        message(out, key, |out| self.label(out, label))?;
                    }
                }
                _ => return Err(UNKNOWN_FIELD),
            }
        }
        Ok(())
    }

    fn label(self, out: &mut Vec<u8>, label: Label) -> Result<(), Damage> {
        self.shape(label.shape).iter().try_for_each(|&key| match key {
            0x08 => scalar(out, key, |out| self.string(out, label.key)),
            0x10 => scalar(out, key, |out| self.string(out, label.str)),
            0x18 => number(out, key, label.num as u64),
            0x20 => scalar(out, key, |out| self.string(out, label.num_unit)),
            _ => Err(UNKNOWN_FIELD),
        })
    }

    fn mapping(self, out: &mut Vec<u8>, i: usize) -> Result<(), Damage> {
        let mapping = self.symbols.mappings[self.scratch.mappings.places[i] as usize];
        self.shape(mapping.shape).iter().try_for_each(|&key| match key {
            0x08 => number(out, key, id(self.meta.mapping_ids.as_deref(), i as u32)?),
            0x10 => number(out, key, mapping.start),
            0x18 => number(out, key, mapping.limit),
            0x20 => number(out, key, mapping.offset),
            0x28 => scalar(out, key, |out| self.string(out, mapping.file)),
            0x30 => scalar(out, key, |out| self.string(out, mapping.build_id)),
            0x38 | 0x40 | 0x48 | 0x50 => number(out, key, (mapping.has >> ((key - 0x38) >> 3) & 1).into()),
            _ => Err(UNKNOWN_FIELD),
        })
    }

    fn location(self, out: &mut Vec<u8>, i: usize) -> Result<(), Damage> {
        let place = self.scratch.locations.places[i];
        let location = self.symbols.locations[place as usize];
        self.shape(location.shape).iter().try_for_each(|&key| match key {
            0x08 => number(out, key, id(self.meta.location_ids.as_deref(), i as u32)?),
            0x10 => match location.mapping {
                NONE => number(out, key, 0),
                mapping => {
                    let index = self.scratch.mappings.index(mapping)?;
                    number(out, key, id(self.meta.mapping_ids.as_deref(), index)?)
                }
            },
            0x18 => number(out, key, location.address),
            0x22 => {
                let mut lines = self.symbols.lines_of(place).iter();
                lines.try_for_each(|line| message(out, key, |out| self.line(out, line)))
            }
            0x28 => number(out, key, location.is_folded.into()),
            _ => Err(UNKNOWN_FIELD),
        })
    }

    fn line(self, out: &mut Vec<u8>, line: &super::symbols::Line) -> Result<(), Damage> {
        self.shape(line.shape).iter().try_for_each(|&key| match key {
            0x08 => match line.function {
                NONE => number(out, key, 0),
                function => {
                    let index = self.scratch.functions.index(function)?;
                    number(out, key, id(self.meta.function_ids.as_deref(), index)?)
                }
            },
            0x10 => number(out, key, line.line as u64),
            0x18 => number(out, key, line.column as u64),
            _ => Err(UNKNOWN_FIELD),
        })
    }

    fn function(self, out: &mut Vec<u8>, i: usize) -> Result<(), Damage> {
        let function = self.symbols.functions[self.scratch.functions.places[i] as usize];
        self.shape(function.shape).iter().try_for_each(|&key| match key {
            0x08 => number(out, key, id(self.meta.function_ids.as_deref(), i as u32)?),
            0x10 => scalar(out, key, |out| self.string(out, function.name)),
            0x18 => scalar(out, key, |out| self.string(out, function.system_name)),
            0x20 => scalar(out, key, |out| self.string(out, function.file)),
            0x28 => number(out, key, function.start_line as u64),
            _ => Err(UNKNOWN_FIELD),
        })
    }
}

const UNKNOWN_FIELD: Damage = Damage("a shape has an unknown field");

/// Returns the id of the entity at `index` of its profile: the listed one, else one more than the index.
#[inline]
fn id(listed: Option<&[u64]>, index: u32) -> Result<u64, Damage> {
    match listed {
        None => Ok(u64::from(index) + 1),
        Some(ids) => ids.get(index as usize).copied().ok_or(Damage("an id is missing")),
    }
}

/// Appends a field that is a number.
#[inline]
fn number(out: &mut Vec<u8>, key: u8, value: u64) -> Result<(), Damage> {
    out.push(key);
    varint::put(out, value);
    Ok(())
}

/// Appends a field whose value `write` appends.
#[inline]
fn scalar(out: &mut Vec<u8>, key: u8, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Damage>) -> Result<(), Damage> {
    out.push(key);
    write(out)
}

/// Appends a field whose bytes `write` appends, with their length before them.
#[inline]
fn message(out: &mut Vec<u8>, key: u8, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Damage>) -> Result<(), Damage> {
    out.push(key);
    // Most messages are shorter than 128 bytes, so a byte is left for the length and longer ones are moved.
    let at = out.len();
    out.push(0);
    write(out)?;
    let len = out.len() - at - 1;
    if len < 0x80 {
        out[at] = len as u8;
    } else {
        varint::put(out, len as u64);
        let prefix = out.len() - at - 1 - len;
        out[at..].rotate_right(prefix);
        // The spare byte has come to lie behind the length.
        out.copy_within(at + prefix + 1.., at + prefix);
        out.pop();
    }
    Ok(())
}
