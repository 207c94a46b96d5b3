//! One pass over all fields: a function for each kind of message, in the order of profile.proto.
//!
//! Keys are written as the bytes they are, `number << 3 | wire type`: 0x0a is field 1 as a length with bytes, 0x08 as a varint. Each
//! function notes the shape of its message and clears `exact` where values and shape together would not give the bytes back.

use super::ids::{Entity, Index, References};
use super::packed;
use super::shapes::{Keys, Shapes};
use super::wire::{Kind, Reader, Result};
use super::{Counts, PROFILE_FIELD_MAX, STACK_LOCATIONS, exceeded};
use crate::error::Error;
use crate::limits::Limits;
use crate::model::{Function, Line, Location, Mapping, Profile, SampleLabel, ShapeIndex, StringIndex, ValueType};

/// The most bytes of a varint.
const VARINT_BYTES_MAX: usize = 10;

/// A profile in the making.
pub(super) struct Decoder<'a, 'l> {
    profile: Profile<'a>,
    counts: Counts,
    limits: &'l Limits,
    shapes: Shapes,
    exact: bool,
    /// The references of samples to locations.
    to_locations: References,
    /// The references of locations to mappings.
    to_mappings: References,
    /// The references of lines to functions.
    to_functions: References,
    /// A bit for each scalar field of the profile that came.
    seen: u32,
}

impl<'a, 'l> Decoder<'a, 'l> {
    /// Creates a decoder of a profile that holds `counts`.
    pub(super) fn new(counts: Counts, limits: &'l Limits) -> Self {
        let mut profile = Profile::default();
        profile.sample_types.reserve_exact(counts.sample_types);
        profile.samples.location_ends.reserve_exact(counts.samples);
        profile.samples.label_ends.reserve_exact(counts.samples);
        profile.samples.shapes.reserve_exact(counts.samples);
        // Each value takes a byte at least; stacks are most of a sample, with up to two bytes for each location.
        profile.samples.values.reserve_exact((counts.samples * counts.sample_types).min(counts.sample_bytes));
        // Stacks beyond the limits are refused, so nothing is kept for more than the one that is too much.
        let Limits { stack_depth_max: depth, stack_locations_max: all, .. } = *limits;
        let most = (counts.samples as u64).saturating_mul(depth).min(all.saturating_add(depth));
        profile.samples.locations.reserve((counts.sample_bytes / 2).min(usize::try_from(most).unwrap_or(usize::MAX)));
        profile.mappings.reserve_exact(counts.mappings);
        profile.locations.reserve_exact(counts.locations);
        profile.lines.reserve(counts.locations);
        profile.functions.reserve_exact(counts.functions);
        profile.strings.reserve_exact(counts.strings);
        profile.layout.records.reserve_exact(counts.runs);
        Self {
            profile,
            counts,
            limits,
            shapes: Shapes::new(),
            exact: true,
            to_locations: References::default(),
            to_mappings: References::default(),
            to_functions: References::default(),
            seen: 0,
        }
    }

    /// Reads all fields of the profile.
    pub(super) fn profile(&mut self, mut reader: Reader<'a>) -> Result<()> {
        while let Some(key) = reader.key() {
            match self.profile.layout.records.last_mut() {
                Some((last, count)) if *last == key => *count += 1,
                _ => self.profile.layout.records.push((key, 1)),
            }
            match key {
                0x0a => {
                    let i = self.profile.sample_types.len();
                    let mut value_type = ValueType::default();
                    self.value_type(reader.message(Kind::SampleType)?, &mut value_type, || {
                        format!("sample_type[{i}]")
                    })?;
                    self.profile.sample_types.push(value_type);
                }
                0x12 => self.sample(reader.message(Kind::Sample)?)?,
                0x1a => self.mapping(reader.message(Kind::Mapping)?)?,
                0x22 => self.location(reader.message(Kind::Location)?)?,
                0x2a => self.function(reader.message(Kind::Function)?)?,
                0x32 => self.string(reader.slice()?)?,
                0x38 => {
                    self.profile.drop_frames = self.index(reader.varint()?, || "drop_frames".to_owned())?;
                    self.scalar(key);
                }
                0x40 => {
                    self.profile.keep_frames = self.index(reader.varint()?, || "keep_frames".to_owned())?;
                    self.scalar(key);
                }
                0x48 => {
                    self.profile.time_nanos = reader.varint()? as i64;
                    self.scalar(key);
                }
                0x50 => {
                    self.profile.duration_nanos = reader.varint()? as i64;
                    self.scalar(key);
                }
                0x5a => {
                    // A message that comes again is merged into the one before, field by field.
                    let mut value_type = self.profile.period_type.unwrap_or_default();
                    self.value_type(reader.message(Kind::PeriodType)?, &mut value_type, || "period_type".to_owned())?;
                    self.profile.period_type = Some(value_type);
                    self.scalar(key);
                }
                0x60 => {
                    self.profile.period = reader.varint()? as i64;
                    self.scalar(key);
                }
                0x68 => {
                    let comment = reader.varint()?;
                    self.comment(comment)?;
                    // Unpacked comments may come in any number and place, but not beside packed ones.
                    self.exact &= self.seen & COMMENTS_PACKED == 0;
                    self.seen |= COMMENTS_UNPACKED;
                }
                0x6a => {
                    let mut run = reader.packed()?;
                    while !run.is_at_end() {
                        let comment = run.varint()?;
                        self.comment(comment)?;
                    }
                    self.exact &= run.minimal && self.seen & (COMMENTS_PACKED | COMMENTS_UNPACKED) == 0;
                    self.seen |= COMMENTS_PACKED;
                }
                0x70 => {
                    self.profile.default_sample_type =
                        self.index(reader.varint()?, || "default_sample_type".to_owned())?;
                    self.scalar(key);
                }
                0x78 => {
                    self.profile.doc_url = self.index(reader.varint()?, || "doc_url".to_owned())?;
                    self.scalar(key);
                }
                _ => self.unknown(&mut reader, PROFILE_FIELD_MAX)?,
            }
        }
        self.exact &= reader.minimal;
        Ok(())
    }

    /// Turns ids into indices and gives the profile.
    pub(super) fn finish(mut self) -> Result<Profile<'a>> {
        let profile = &mut self.profile;
        let mappings = Index::new(Entity::Mapping, profile.mappings.iter().map(|m| m.id))?;
        let locations = Index::new(Entity::Location, profile.locations.iter().map(|l| l.id))?;
        let functions = Index::new(Entity::Function, profile.functions.iter().map(|f| f.id))?;
        let undefined = |place, entity: Entity, id| Box::new(Error::Undefined { place, entity: entity.name(), id });

        self.to_mappings
            .resolve(profile.locations.iter_mut().map(|l| &mut l.mapping), &mappings, true)
            .map_err(|(i, id)| undefined(format!("location[{i}]"), Entity::Mapping, id))?;
        if let Err((i, id)) =
            self.to_functions.resolve(profile.lines.iter_mut().map(|l| &mut l.function), &functions, true)
        {
            let location = profile.locations.partition_point(|l| l.lines_end as usize <= i);
            let line = i - profile.locations[location].lines_start as usize;
            return Err(undefined(format!("location[{location}].line[{line}]"), Entity::Function, id));
        }
        if let Err((i, id)) = self.to_locations.resolve_all(&mut profile.samples.locations, &locations) {
            let sample = profile.samples.location_ends.partition_point(|&end| end as usize <= i);
            return Err(undefined(format!("sample[{sample}]"), Entity::Location, id));
        }
        self.profile.layout.exact = self.exact;
        self.profile.layout.shapes = self.shapes.into_shapes();
        Ok(self.profile)
    }

    fn value_type(
        &mut self,
        mut reader: Reader<'a>,
        value_type: &mut ValueType,
        place: impl Fn() -> String,
    ) -> Result<()> {
        let mut keys = Keys::default();
        while let Some(key) = reader.key() {
            keys.once(key);
            match key {
                0x08 => value_type.kind = self.index(reader.varint()?, || place() + ".type")?,
                0x10 => value_type.unit = self.index(reader.varint()?, || place() + ".unit")?,
                _ => self.unknown(&mut reader, 2)?,
            }
        }
        value_type.shape = self.close(keys, &reader);
        Ok(())
    }

    #[inline(never)]
    fn sample(&mut self, mut reader: Reader<'a>) -> Result<()> {
        let samples = &self.profile.samples;
        let (stack_start, values_start) = (samples.locations.len(), samples.values.len());
        let i = samples.len();
        let values_max = self.counts.sample_types;
        let depth_max = usize::try_from(self.limits.stack_depth_max).unwrap_or(usize::MAX);
        // What is too much is counted for the refusal, not kept.
        let (mut locations_left_out, mut values_left_out) = (0, 0);
        let mut keys = Keys::default();
        while let Some(key) = reader.key() {
            match key {
                0x08 => {
                    keys.run(key);
                    let id = reader.varint()?;
                    if self.profile.samples.locations.len() - stack_start > depth_max {
                        locations_left_out += 1;
                    } else {
                        self.profile.samples.locations.push(self.to_locations.slot(id));
                    }
                }
                0x0a => {
                    keys.once(key);
                    let mut run = reader.packed()?;
                    if run.remaining() > depth_max.saturating_mul(VARINT_BYTES_MAX) {
                        return Err(self.too_deep(i, run.count_varints()));
                    }
                    packed::read_ids(&mut run, &mut self.profile.samples.locations, &mut self.to_locations)?;
                    self.exact &= run.minimal;
                }
                0x10 => {
                    keys.run(key);
                    let value = reader.varint()? as i64;
                    if self.profile.samples.values.len() - values_start > values_max {
                        values_left_out += 1;
                    } else {
                        self.profile.samples.values.push(value);
                    }
                }
                0x12 => {
                    keys.once(key);
                    let mut run = reader.packed()?;
                    if run.remaining() > values_max * VARINT_BYTES_MAX {
                        return Err(self.wrong_values(i, run.count_varints()));
                    }
                    while !run.is_at_end() {
                        self.profile.samples.values.push(run.any_varint()? as i64);
                    }
                    self.exact &= run.minimal;
                }
                0x1a => {
                    keys.run(key);
                    let message = reader.message(Kind::Label)?;
                    self.label(message, i)?;
                }
                _ => {
                    keys.once(key);
                    self.unknown(&mut reader, 3)?;
                }
            }
        }
        let samples = &self.profile.samples;
        let depth = samples.locations.len() - stack_start + locations_left_out;
        if depth > depth_max {
            return Err(self.too_deep(i, depth));
        }
        let (locations, most) = (samples.locations.len() as u64, self.limits.stack_locations_max);
        if locations > most {
            return Err(exceeded("locations of stacks".to_owned(), locations, most, STACK_LOCATIONS));
        }
        let values = samples.values.len() - values_start + values_left_out;
        if values != values_max {
            return Err(self.wrong_values(i, values));
        }
        let shape = self.close(keys, &reader);
        let samples = &mut self.profile.samples;
        samples.location_ends.push(samples.locations.len() as u32);
        samples.label_ends.push(samples.labels.len() as u32);
        samples.shapes.push(shape);
        Ok(())
    }

    #[inline(never)]
    fn label(&mut self, mut reader: Reader<'a>, sample: usize) -> Result<()> {
        let count = self.profile.samples.labels.len() as u64 + 1;
        if count > self.limits.labels_max {
            return Err(exceeded("labels of samples".to_owned(), count, self.limits.labels_max, "max_labels"));
        }
        let place = |this: &Self, field| {
            let before = this.profile.samples.label_ends.last().map_or(0, |&end| end as usize);
            format!("sample[{sample}].label[{}].{field}", this.profile.samples.labels.len() - before)
        };
        let mut label = SampleLabel::default();
        let mut keys = Keys::default();
        while let Some(key) = reader.key() {
            keys.once(key);
            match key {
                0x08 => label.key = self.index(reader.varint()?, || place(self, "key"))?,
                0x10 => label.str = self.index(reader.varint()?, || place(self, "str"))?,
                0x18 => label.num = reader.varint()? as i64,
                0x20 => label.num_unit = self.index(reader.varint()?, || place(self, "num_unit"))?,
                _ => self.unknown(&mut reader, 4)?,
            }
        }
        label.shape = self.close(keys, &reader);
        self.profile.samples.labels.push(label);
        Ok(())
    }

    #[inline(never)]
    fn mapping(&mut self, mut reader: Reader<'a>) -> Result<()> {
        let i = self.profile.mappings.len();
        let mut mapping = Mapping::default();
        let mut keys = Keys::default();
        while let Some(key) = reader.key() {
            keys.once(key);
            match key {
                0x08 => mapping.id = reader.varint()?,
                0x10 => mapping.start = reader.varint()?,
                0x18 => mapping.limit = reader.varint()?,
                0x20 => mapping.offset = reader.varint()?,
                0x28 => mapping.file = self.index(reader.varint()?, || format!("mapping[{i}].filename"))?,
                0x30 => mapping.build_id = self.index(reader.varint()?, || format!("mapping[{i}].build_id"))?,
                0x38 | 0x40 | 0x48 | 0x50 => mapping.has[usize::from(key >> 3) - 7] = self.flag(reader.varint()?),
                _ => self.unknown(&mut reader, 10)?,
            }
        }
        mapping.shape = self.close(keys, &reader);
        self.profile.mappings.push(mapping);
        Ok(())
    }

    #[inline(never)]
    fn location(&mut self, mut reader: Reader<'a>) -> Result<()> {
        let mut location = Location { lines_start: self.profile.lines.len() as u32, ..Location::default() };
        let mut mapping_id = 0;
        let mut keys = Keys::default();
        while let Some(key) = reader.key() {
            match key {
                0x22 => {
                    keys.run(key);
                    let message = reader.message(Kind::Line)?;
                    self.line(message)?;
                    continue;
                }
                0x08 => location.id = reader.varint()?,
                0x10 => mapping_id = reader.varint()?,
                0x18 => location.address = reader.varint()?,
                0x28 => location.is_folded = self.flag(reader.varint()?),
                _ => self.unknown(&mut reader, 5)?,
            }
            keys.once(key);
        }
        location.mapping = self.to_mappings.slot(mapping_id);
        location.lines_end = self.profile.lines.len() as u32;
        location.shape = self.close(keys, &reader);
        self.profile.locations.push(location);
        Ok(())
    }

    #[inline(never)]
    fn line(&mut self, mut reader: Reader<'a>) -> Result<()> {
        let count = self.profile.lines.len() as u64 + 1;
        if count > self.limits.lines_max {
            return Err(exceeded("lines of locations".to_owned(), count, self.limits.lines_max, "max_lines"));
        }
        let mut line = Line::default();
        let mut function_id = 0;
        let mut keys = Keys::default();
        while let Some(key) = reader.key() {
            keys.once(key);
            match key {
                0x08 => function_id = reader.varint()?,
                0x10 => line.line = reader.varint()? as i64,
                0x18 => line.column = reader.varint()? as i64,
                _ => self.unknown(&mut reader, 3)?,
            }
        }
        line.function = self.to_functions.slot(function_id);
        line.shape = self.close(keys, &reader);
        self.profile.lines.push(line);
        Ok(())
    }

    #[inline(never)]
    fn function(&mut self, mut reader: Reader<'a>) -> Result<()> {
        let i = self.profile.functions.len();
        let mut function = Function::default();
        let mut keys = Keys::default();
        while let Some(key) = reader.key() {
            keys.once(key);
            match key {
                0x08 => function.id = reader.varint()?,
                0x10 => function.name = self.index(reader.varint()?, || format!("function[{i}].name"))?,
                0x18 => function.system_name = self.index(reader.varint()?, || format!("function[{i}].system_name"))?,
                0x20 => function.file = self.index(reader.varint()?, || format!("function[{i}].filename"))?,
                0x28 => function.start_line = reader.varint()? as i64,
                _ => self.unknown(&mut reader, 5)?,
            }
        }
        function.shape = self.close(keys, &reader);
        self.profile.functions.push(function);
        Ok(())
    }

    fn string(&mut self, string: &'a [u8]) -> Result<()> {
        let i = self.profile.strings.len();
        if i == 0 && !string.is_empty() {
            return Err(Box::new(Error::StringZero));
        }
        if string.len() as u64 > self.limits.string_bytes_max {
            let what = format!("string_table[{i}] length");
            return Err(exceeded(what, string.len() as u64, self.limits.string_bytes_max, "max_string"));
        }
        self.profile.strings.push(string);
        Ok(())
    }

    fn comment(&mut self, index: u64) -> Result<()> {
        let i = self.profile.comments.len();
        if i as u64 == self.limits.comments_max {
            return Err(exceeded("comments".to_owned(), i as u64 + 1, self.limits.comments_max, "max_comments"));
        }
        let comment = self.index(index, || format!("comment[{i}]"))?;
        self.profile.comments.push(comment);
        Ok(())
    }

    /// Checks a reference to a string; `place` names its field.
    #[inline(always)]
    fn index(&self, index: u64, place: impl FnOnce() -> String) -> Result<StringIndex> {
        if index < self.counts.strings as u64 {
            Ok(index as StringIndex)
        } else {
            Err(Box::new(Error::StringIndex { place: place(), index: index as i64, len: self.counts.strings }))
        }
    }

    /// Reads a bool: any number but 0 is true, though encoders write 1.
    fn flag(&mut self, value: u64) -> bool {
        self.exact &= value <= 1;
        value != 0
    }

    /// Notes a field of the profile that may come once.
    fn scalar(&mut self, key: u8) {
        let bit = 1 << (key >> 3);
        self.exact &= self.seen & bit == 0;
        self.seen |= bit;
    }

    /// Skips a field that is not in profile.proto, which knows all numbers up to `known_max`.
    #[cold]
    fn unknown(&mut self, reader: &mut Reader<'a>, known_max: u32) -> Result<()> {
        self.exact = false;
        reader.skip(|number| number <= known_max)
    }

    /// Ends a message: returns the number of its shape.
    #[inline(always)]
    fn close(&mut self, keys: Keys, reader: &Reader<'_>) -> ShapeIndex {
        self.exact &= reader.minimal;
        self.shapes.number(keys).unwrap_or_else(|| {
            self.exact = false;
            0
        })
    }

    #[cold]
    fn too_deep(&self, sample: usize, depth: usize) -> Box<Error> {
        let what = format!("sample[{sample}] stack depth");
        exceeded(what, depth as u64, self.limits.stack_depth_max, "max_stack_depth")
    }

    #[cold]
    fn wrong_values(&self, sample: usize, values: usize) -> Box<Error> {
        Box::new(Error::ValueCount { sample, values, sample_types: self.counts.sample_types })
    }
}

/// The bit of unpacked comments in `Decoder::seen`, beside those of the scalar fields.
const COMMENTS_UNPACKED: u32 = 1 << 16;
/// The bit of packed comments.
const COMMENTS_PACKED: u32 = 1 << 17;
