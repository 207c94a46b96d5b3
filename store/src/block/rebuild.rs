//! Writes a profile's protobuf bytes again, from the tables and its columns alone.
//!
//! The writer runs this on every profile it has just turned into columns, into a [`Sink`] that compares with what was sent, and keeps
//! the columns only if nothing differs; the reader runs the same code on the same columns. Orders are replayed as [`super::order`] predicts
//! them.
//!
//! What a block says is checked as it is used, so columns that contradict the tables are refused and nothing is out of range.

use afterglow_profile::model::NONE;

use super::columns::{Head, Meta, Samples};
use super::order::{Orders, Written};
use super::pattern::{self, key};
use super::sink::Sink;
use super::symbols::{Header, Label, Line, Symbols, ValueType};
use super::varint::Damage;

/// All that makes the bytes of one profile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) symbols: &'a Symbols,
    pub(crate) head: &'a Head,
    pub(crate) samples: &'a Samples,
    pub(crate) meta: &'a Meta,
    /// The time and the duration of the row, in nanoseconds.
    pub(crate) row_times: (i64, i64),
}

/// Puts the protobuf bytes of a profile into `out`.
///
/// # Errors
/// The columns contradict each other or the tables.
pub(crate) fn rebuild<S: Sink>(parts: Parts<'_>, orders: &mut Orders, out: &mut S) -> Result<(), Damage> {
    let header = check(parts)?;
    orders.replay(parts.symbols, parts.samples, &header, parts.meta)?;
    write(parts, &header, orders, out)
}

/// Reads the header and checks what the samples refer to.
pub(crate) fn check(parts: Parts<'_>) -> Result<Header, Damage> {
    let Parts { symbols, head, samples, meta, .. } = parts;
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
        && within(&samples.labels, symbols.label_ends.len())
        && within(&meta.shapes, symbols.shapes.len());
    if in_range { Ok(header) } else { Err(Damage("an index points past its table")) }
}

/// Puts the protobuf bytes of a profile into `out`, whose orders are found and whose parts are checked.
///
/// # Errors
/// The columns contradict each other or the tables, or `out` refuses.
pub(crate) fn write<S: Sink>(
    parts: Parts<'_>,
    header: &Header,
    orders: &mut Orders,
    out: &mut S,
) -> Result<(), Damage> {
    let Parts { symbols, head, samples, meta, row_times } = parts;
    let mut written_at = std::mem::take(&mut orders.written);
    let mut writer = Writer {
        symbols,
        samples,
        meta,
        header,
        orders,
        written: &mut written_at,
        fresh: Vec::new(),
        ids_end: 0,
        time: head.time_delta.wrapping_add(row_times.0),
        duration: head.duration_delta.wrapping_add(row_times.1),
    };
    let pattern = symbols.pattern(meta.pattern)?;
    let written = pattern::walk(pattern, &orders.counts(header), |key, i| writer.record(out, key, i));
    orders.written = written_at;
    written.and_then(|()| out.finish())
}

/// Writes records.
struct Writer<'a> {
    symbols: &'a Symbols,
    samples: &'a Samples,
    meta: &'a Meta,
    header: &'a Header,
    orders: &'a Orders,
    /// Where nodes were written; that of `orders`, which changes while stacks are written.
    written: &'a mut [Written],
    /// The nodes of the present sample that were written for the first time, and how far before the end of its ids.
    fresh: Vec<(u32, usize)>,
    /// Where the ids of the present sample end.
    ids_end: usize,
    time: i64,
    duration: i64,
}

impl Writer<'_> {
    /// Appends record `i` of those with this key.
    fn record<S: Sink>(&mut self, out: &mut S, key: u8, i: usize) -> Result<(), Damage> {
        let orders = self.orders;
        match key {
            key::SAMPLE => self.whole_sample(out, key, i),
            key::LOCATION => out.message(key, |out| self.location(out, i)),
            key::FUNCTION => out.message(key, |out| self.function(out, i)),
            key::MAPPING => out.message(key, |out| self.mapping(out, i)),
            key::STRING => out.bytes(key, self.symbols.strings.get(orders.strings.places[i])),
            key::SAMPLE_TYPE => out.message(key, |out| self.value_type(out, self.header.sample_types[i])),
            key::PERIOD_TYPE => {
                let period_type = self.header.period_type.ok_or(Damage("a period type is missing"))?;
                out.message(key, |out| self.value_type(out, period_type))
            }
            key::COMMENTS_PACKED => out.message(key, |out| {
                let mut comments = self.header.comments.iter();
                comments.try_for_each(|&comment| self.string(out, comment))
            }),
            key::COMMENT => out.scalar(key, |out| self.string(out, self.header.comments[i])),
            key::DROP_FRAMES => out.scalar(key, |out| self.string(out, self.header.drop_frames)),
            key::KEEP_FRAMES => out.scalar(key, |out| self.string(out, self.header.keep_frames)),
            key::DEFAULT_SAMPLE_TYPE => out.scalar(key, |out| self.string(out, self.header.default_sample_type)),
            key::DOC_URL => out.scalar(key, |out| self.string(out, self.header.doc_url)),
            key::TIME => out.number(key, self.time as u64),
            key::DURATION => out.number(key, self.duration as u64),
            key::PERIOD => out.number(key, self.header.period as u64),
            _ => Err(Damage("a record has an unknown field")),
        }
    }

    /// Appends the index of a string.
    fn string<S: Sink>(&self, out: &mut S, place: u32) -> Result<(), Damage> {
        out.varint(self.orders.strings.index(place)?.into())
    }

    fn shape(&self, shape: u32) -> &[u8] {
        self.symbols.shapes.get(shape)
    }

    fn value_type<S: Sink>(&self, out: &mut S, of: ValueType) -> Result<(), Damage> {
        self.shape(of.shape).iter().try_for_each(|&key| match key {
            0x08 => out.scalar(key, |out| self.string(out, of.kind)),
            0x10 => out.scalar(key, |out| self.string(out, of.unit)),
            _ => Err(UNKNOWN_FIELD),
        })
    }

    fn sample<S: Sink>(&mut self, out: &mut S, i: usize) -> Result<(), Damage> {
        let shape = self.meta.shapes[if self.meta.shapes.len() == 1 { 0 } else { i }];
        let (symbols, samples) = (self.symbols, self.samples);
        for &key in symbols.shapes.get(shape) {
            match key {
                0x08 => self.unpacked_ids(out, key, samples.stacks[i])?,
                0x0a => self.packed_ids(out, key, samples.stacks[i])?,
                0x10 => samples.values.iter().try_for_each(|column| out.number(key, column[i] as u64))?,
                0x12 => {
                    out.message(key, |out| samples.values.iter().try_for_each(|column| out.varint(column[i] as u64)))?
                }
                0x1a => {
                    for label in samples.labels.get(i).into_iter().flat_map(|&set| symbols.labels_of(set)) {
                        out.message(key, |out| self.label(out, label))?;
                    }
                }
                _ => return Err(UNKNOWN_FIELD),
            }
        }
        Ok(())
    }

    fn unpacked_ids<S: Sink>(&self, out: &mut S, key: u8, stack: u32) -> Result<(), Damage> {
        let ids = self.meta.location_ids.as_deref();
        self.symbols
            .nodes_of(stack)
            .try_for_each(|(_, location)| out.number(key, id(ids, self.orders.locations.index(location)?)?))
    }

    /// Puts the ids of a stack. From the first node on that a sample before had, the bytes are those of that sample.
    fn packed_ids<S: Sink>(&mut self, out: &mut S, key: u8, stack: u32) -> Result<(), Damage> {
        let ids = self.meta.location_ids.as_deref();
        let Self { symbols, orders, written, fresh, .. } = self;
        let profile = orders.locations.profile();
        out.message(key, |out| {
            for (node, location) in symbols.nodes_of(stack) {
                let before = written[node as usize - 1];
                if before.profile == profile {
                    out.again(before.start as usize..before.end as usize)?;
                    break;
                }
                fresh.push((node, out.taken()));
                out.varint(id(ids, orders.locations.index(location)?)?)?;
            }
            let end = out.taken();
            fresh.iter_mut().for_each(|(_, start)| *start = end - *start);
            Ok(())
        })?;
        self.ids_end = out.taken();
        Ok(())
    }

    /// Puts sample `i`, and takes note of where the ids of its stack went.
    fn whole_sample<S: Sink>(&mut self, out: &mut S, key: u8, i: usize) -> Result<(), Damage> {
        self.fresh.clear();
        let mut after_ids = 0;
        out.message(key, |out| {
            self.sample(out, i)?;
            after_ids = out.taken() - self.ids_end.min(out.taken());
            Ok(())
        })?;
        // Only now, behind the length of the sample, is it known where its bytes lie.
        let end = out.taken() - after_ids;
        let profile = self.orders.locations.profile();
        let place = |at: usize| u32::try_from(at).map_err(|_| Damage("is too large a profile"));
        for &(node, before_end) in &self.fresh {
            self.written[node as usize - 1] = Written { profile, start: place(end - before_end)?, end: place(end)? };
        }
        Ok(())
    }

    fn label<S: Sink>(&self, out: &mut S, label: &Label) -> Result<(), Damage> {
        self.shape(label.shape).iter().try_for_each(|&key| match key {
            0x08 => out.scalar(key, |out| self.string(out, label.key)),
            0x10 => out.scalar(key, |out| self.string(out, label.str)),
            0x18 => out.number(key, label.num as u64),
            0x20 => out.scalar(key, |out| self.string(out, label.num_unit)),
            _ => Err(UNKNOWN_FIELD),
        })
    }

    fn mapping<S: Sink>(&self, out: &mut S, i: usize) -> Result<(), Damage> {
        let mapping = self.symbols.mappings[self.orders.mappings.places[i] as usize];
        self.shape(mapping.shape).iter().try_for_each(|&key| match key {
            0x08 => out.number(key, id(self.meta.mapping_ids.as_deref(), i as u32)?),
            0x10 => out.number(key, mapping.start),
            0x18 => out.number(key, mapping.limit),
            0x20 => out.number(key, mapping.offset),
            0x28 => out.scalar(key, |out| self.string(out, mapping.file)),
            0x30 => out.scalar(key, |out| self.string(out, mapping.build_id)),
            0x38 | 0x40 | 0x48 | 0x50 => out.number(key, (mapping.has >> ((key - 0x38) >> 3) & 1).into()),
            _ => Err(UNKNOWN_FIELD),
        })
    }

    fn location<S: Sink>(&self, out: &mut S, i: usize) -> Result<(), Damage> {
        let place = self.orders.locations.places[i];
        let location = self.symbols.locations[place as usize];
        self.shape(location.shape).iter().try_for_each(|&key| match key {
            0x08 => out.number(key, id(self.meta.location_ids.as_deref(), i as u32)?),
            0x10 => match location.mapping {
                NONE => out.number(key, 0),
                mapping => {
                    let index = self.orders.mappings.index(mapping)?;
                    out.number(key, id(self.meta.mapping_ids.as_deref(), index)?)
                }
            },
            0x18 => out.number(key, location.address),
            0x22 => {
                let mut lines = self.symbols.lines_of(place).iter();
                lines.try_for_each(|line| out.message(key, |out| self.line(out, line)))
            }
            0x28 => out.number(key, location.is_folded.into()),
            _ => Err(UNKNOWN_FIELD),
        })
    }

    fn line<S: Sink>(&self, out: &mut S, line: &Line) -> Result<(), Damage> {
        self.shape(line.shape).iter().try_for_each(|&key| match key {
            0x08 => match line.function {
                NONE => out.number(key, 0),
                function => {
                    let index = self.orders.functions.index(function)?;
                    out.number(key, id(self.meta.function_ids.as_deref(), index)?)
                }
            },
            0x10 => out.number(key, line.line as u64),
            0x18 => out.number(key, line.column as u64),
            _ => Err(UNKNOWN_FIELD),
        })
    }

    fn function<S: Sink>(&self, out: &mut S, i: usize) -> Result<(), Damage> {
        let function = self.symbols.functions[self.orders.functions.places[i] as usize];
        self.shape(function.shape).iter().try_for_each(|&key| match key {
            0x08 => out.number(key, id(self.meta.function_ids.as_deref(), i as u32)?),
            0x10 => out.scalar(key, |out| self.string(out, function.name)),
            0x18 => out.scalar(key, |out| self.string(out, function.system_name)),
            0x20 => out.scalar(key, |out| self.string(out, function.file)),
            0x28 => out.number(key, function.start_line as u64),
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
