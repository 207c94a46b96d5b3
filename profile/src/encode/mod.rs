//! From a [`Profile`] to bytes: in our own canonical way, or exactly as the sender's encoder wrote it.
//!
//! [`encode`] follows google/pprof's `Profile.Write` in the order of records and leaves out fields that are zero; repeated numbers are
//! packed. [`encode_exact`] replays the [`Layout`]: the order of records and of the fields in each, zero or not. Both share one
//! function a kind of message, which writes the fields that a list of keys names, straight into the output.
//!
//! Decoding what either wrote gives the same profile again, and `encode_exact` after `decode` the same bytes.

mod writer;

use crate::model::{Function, Layout, Line, Location, Mapping, NONE, Profile, SampleLabel, ShapeIndex, ValueType};
use writer::Writer;

/// The layout of a profile does not say how to write the same bytes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the profile cannot be written exactly from its values")]
pub struct Inexact;

/// The keys of a message in canonical order; see `decode::messages` for how to read them.
const VALUE_TYPE: &[u8] = &[0x08, 0x10];
const SAMPLE: &[u8] = &[0x0a, 0x12, 0x1a];
const LABEL: &[u8] = &[0x08, 0x10, 0x18, 0x20];
const MAPPING: &[u8] = &[0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50];
const LOCATION: &[u8] = &[0x08, 0x10, 0x18, 0x22, 0x28];
const LINE: &[u8] = &[0x08, 0x10, 0x18];
const FUNCTION: &[u8] = &[0x08, 0x10, 0x18, 0x20, 0x28];

/// Encodes a profile canonically; its layout is ignored.
pub fn encode(profile: &Profile<'_>) -> Vec<u8> {
    let mut encoder = Encoder::new(profile, None, Vec::new());
    let one = |present: bool| u32::from(present);
    for (key, count) in [
        (0x0a, profile.sample_types.len() as u32),
        (0x12, profile.samples.len() as u32),
        (0x1a, profile.mappings.len() as u32),
        (0x22, profile.locations.len() as u32),
        (0x2a, profile.functions.len() as u32),
        (0x32, profile.strings.len() as u32),
        (0x38, one(profile.drop_frames != 0)),
        (0x40, one(profile.keep_frames != 0)),
        (0x48, one(profile.time_nanos != 0)),
        (0x50, one(profile.duration_nanos != 0)),
        (0x5a, one(profile.period_type.is_some())),
        (0x60, one(profile.period != 0)),
        (0x6a, one(!profile.comments.is_empty())),
        (0x70, one(profile.default_sample_type != 0)),
        (0x78, one(profile.doc_url != 0)),
    ] {
        encoder.records(key, count).expect("the canonical order holds each record once");
    }
    encoder.writer.into_vec()
}

/// Appends the bytes that `profile` was decoded from to `out`.
///
/// # Errors
/// The layout is not exact, or it does not fit the profile. `out` is then as it was before.
pub fn encode_exact(profile: &Profile<'_>, out: &mut Vec<u8>) -> Result<(), Inexact> {
    if !profile.layout.exact {
        return Err(Inexact);
    }
    let start = out.len();
    let mut encoder = Encoder::new(profile, Some(&profile.layout), std::mem::take(out));
    let mut result = Ok(());
    for &(key, count) in &profile.layout.records {
        result = result.and_then(|()| encoder.records(key, count));
    }
    let result = result.and_then(|()| if encoder.is_complete() { Ok(()) } else { Err(Inexact) });
    *out = encoder.writer.into_vec();
    if result.is_err() {
        out.truncate(start);
    }
    result
}

// === Encoder ===

/// What is written, and how far.
struct Encoder<'p, 'a> {
    profile: &'p Profile<'a>,
    /// The layout to replay; without one, messages have all their fields that are not zero.
    layout: Option<&'p Layout>,
    writer: Writer,
    /// Locations have the ids 1, 2, 3 …, so that a reference needs no look at them.
    dense: bool,
    /// How many records of each repeated field are written.
    written: [usize; 16],
}

impl<'p, 'a> Encoder<'p, 'a> {
    fn new(profile: &'p Profile<'a>, layout: Option<&'p Layout>, out: Vec<u8>) -> Self {
        let samples = &profile.samples;
        // Typical bytes of each: a good guess saves moving the output as it grows.
        let bytes = 2 * samples.locations.len()
            + 4 * samples.values.len()
            + 8 * (samples.len() + samples.labels.len())
            + 24 * profile.locations.len()
            + 12 * profile.functions.len()
            + profile.strings.iter().map(|string| string.len() + 3).sum::<usize>();
        Self {
            profile,
            layout,
            writer: Writer::new(out, bytes),
            dense: profile.locations.iter().enumerate().all(|(i, location)| location.id == i as u64 + 1),
            written: [0; 16],
        }
    }

    /// Returns whether every message of the profile is written.
    fn is_complete(&self) -> bool {
        let profile = self.profile;
        [
            profile.sample_types.len(),
            profile.samples.len(),
            profile.mappings.len(),
            profile.locations.len(),
            profile.functions.len(),
            profile.strings.len(),
        ] == self.written[1..=6]
            && profile.comments.len() == self.written[13]
    }

    /// Writes the next `count` records with this key.
    fn records(&mut self, key: u8, count: u32) -> Result<(), Inexact> {
        let profile = self.profile;
        let start = self.written[usize::from(key >> 3) & 15];
        let end = start + count as usize;
        let next = start..end;
        match key {
            0x0a => {
                for value_type in profile.sample_types.get(next).ok_or(Inexact)? {
                    self.value_type(key, value_type)?;
                }
            }
            0x12 => {
                if end > profile.samples.len() {
                    return Err(Inexact);
                }
                next.into_iter().try_for_each(|i| self.sample(i))?;
            }
            0x1a => {
                for mapping in profile.mappings.get(next).ok_or(Inexact)? {
                    self.mapping(mapping)?;
                }
            }
            0x22 => {
                for location in profile.locations.get(next).ok_or(Inexact)? {
                    self.location(location)?;
                }
            }
            0x2a => {
                for function in profile.functions.get(next).ok_or(Inexact)? {
                    self.function(function)?;
                }
            }
            0x32 => profile.strings.get(next).ok_or(Inexact)?.iter().for_each(|string| self.writer.bytes(key, string)),
            0x68 => {
                for &comment in profile.comments.get(next).ok_or(Inexact)? {
                    self.writer.number(key, comment.into());
                }
            }
            0x6a if count == 1 => {
                let comments = &profile.comments;
                self.writer.message(key, |out| out.varints(comments.iter().map(|&comment| comment.into())));
                self.written[13] = comments.len();
                return Ok(());
            }
            0x5a if count == 1 => {
                let period_type = profile.period_type.as_ref().ok_or(Inexact)?;
                self.value_type(key, period_type)?;
            }
            _ if count > 1 => return Err(Inexact),
            _ if count == 0 => {}
            0x38 => self.writer.number(key, profile.drop_frames.into()),
            0x40 => self.writer.number(key, profile.keep_frames.into()),
            0x48 => self.writer.number(key, profile.time_nanos as u64),
            0x50 => self.writer.number(key, profile.duration_nanos as u64),
            0x60 => self.writer.number(key, profile.period as u64),
            0x70 => self.writer.number(key, profile.default_sample_type.into()),
            0x78 => self.writer.number(key, profile.doc_url.into()),
            _ => return Err(Inexact),
        }
        self.written[usize::from(key >> 3)] = end;
        Ok(())
    }

    fn value_type(&mut self, key: u8, value_type: &ValueType) -> Result<(), Inexact> {
        let fields = self.fields(VALUE_TYPE, value_type.shape)?;
        self.writer.message(key, |out| {
            fields.write(out, |field| match field {
                0x08 => Some(value_type.kind.into()),
                0x10 => Some(value_type.unit.into()),
                _ => None,
            })
        })
    }

    fn sample(&mut self, i: usize) -> Result<(), Inexact> {
        let profile = self.profile;
        let (stack, values, labels) = (profile.samples.stack(i), profile.values(i), profile.samples.labels(i));
        let fields = self.fields(SAMPLE, profile.samples.shapes.get(i).copied().unwrap_or_default())?;
        let (layout, dense) = (self.layout, self.dense);
        let id = |location: u32| if dense { u64::from(location) + 1 } else { profile.locations[location as usize].id };
        self.writer.message(0x12, |out| {
            for &key in fields.keys {
                match key {
                    0x08 => stack.iter().for_each(|&location| out.number(key, id(location))),
                    0x0a if fields.zeros || !stack.is_empty() => {
                        out.message(key, |out| out.varints(stack.iter().map(|&location| id(location))));
                    }
                    0x10 => values.iter().for_each(|&value| out.number(key, value as u64)),
                    0x12 if fields.zeros || !values.is_empty() => {
                        out.message(key, |out| out.varints(values.iter().map(|&value| value as u64)));
                    }
                    0x1a => {
                        for label in labels {
                            let fields = Fields::new(layout, LABEL, label.shape)?;
                            out.message(key, |out| label_fields(out, label, fields))?;
                        }
                    }
                    0x0a | 0x12 => {}
                    _ => return Err(Inexact),
                }
            }
            Ok(())
        })
    }

    fn mapping(&mut self, mapping: &Mapping) -> Result<(), Inexact> {
        let fields = self.fields(MAPPING, mapping.shape)?;
        self.writer.message(0x1a, |out| {
            fields.write(out, |field| match field {
                0x08 => Some(mapping.id),
                0x10 => Some(mapping.start),
                0x18 => Some(mapping.limit),
                0x20 => Some(mapping.offset),
                0x28 => Some(mapping.file.into()),
                0x30 => Some(mapping.build_id.into()),
                0x38 | 0x40 | 0x48 | 0x50 => Some(mapping.has[usize::from(field >> 3) - 7].into()),
                _ => None,
            })
        })
    }

    fn location(&mut self, location: &Location) -> Result<(), Inexact> {
        let profile = self.profile;
        let layout = self.layout;
        let fields = self.fields(LOCATION, location.shape)?;
        let mapping_id = match location.mapping {
            NONE => 0,
            mapping => profile.mappings[mapping as usize].id,
        };
        self.writer.message(0x22, |out| {
            for &key in fields.keys {
                let value = match key {
                    0x08 => location.id,
                    0x10 => mapping_id,
                    0x18 => location.address,
                    0x22 => {
                        for line in &profile.lines[location.lines()] {
                            let fields = Fields::new(layout, LINE, line.shape)?;
                            out.message(key, |out| line_fields(out, profile, line, fields))?;
                        }
                        continue;
                    }
                    0x28 => location.is_folded.into(),
                    _ => return Err(Inexact),
                };
                fields.number(out, key, value);
            }
            Ok(())
        })
    }

    fn function(&mut self, function: &Function) -> Result<(), Inexact> {
        let fields = self.fields(FUNCTION, function.shape)?;
        self.writer.message(0x2a, |out| {
            fields.write(out, |field| match field {
                0x08 => Some(function.id),
                0x10 => Some(function.name.into()),
                0x18 => Some(function.system_name.into()),
                0x20 => Some(function.file.into()),
                0x28 => Some(function.start_line as u64),
                _ => None,
            })
        })
    }

    fn fields(&self, canonical: &'static [u8], shape: ShapeIndex) -> Result<Fields<'p>, Inexact> {
        Fields::new(self.layout, canonical, shape)
    }
}

fn label_fields(out: &mut Writer, label: &SampleLabel, fields: Fields<'_>) -> Result<(), Inexact> {
    fields.write(out, |field| match field {
        0x08 => Some(label.key.into()),
        0x10 => Some(label.str.into()),
        0x18 => Some(label.num as u64),
        0x20 => Some(label.num_unit.into()),
        _ => None,
    })
}

fn line_fields(out: &mut Writer, profile: &Profile<'_>, line: &Line, fields: Fields<'_>) -> Result<(), Inexact> {
    let function_id = match line.function {
        NONE => 0,
        function => profile.functions[function as usize].id,
    };
    fields.write(out, |field| match field {
        0x08 => Some(function_id),
        0x10 => Some(line.line as u64),
        0x18 => Some(line.column as u64),
        _ => None,
    })
}

// === Fields ===

/// The fields to write of one message.
#[derive(Clone, Copy)]
struct Fields<'p> {
    /// Their keys, in order.
    keys: &'p [u8],
    /// They are written though they are zero.
    zeros: bool,
}

impl<'p> Fields<'p> {
    /// Returns those that the layout says, or the canonical ones.
    #[inline(always)]
    fn new(layout: Option<&'p Layout>, canonical: &'static [u8], shape: ShapeIndex) -> Result<Self, Inexact> {
        match layout {
            Some(layout) => {
                let keys = layout.shapes.get(usize::from(shape)).ok_or(Inexact)?;
                Ok(Self { keys, zeros: true })
            }
            None => Ok(Self { keys: canonical, zeros: false }),
        }
    }

    #[inline(always)]
    fn number(self, out: &mut Writer, key: u8, value: u64) {
        if self.zeros || value != 0 {
            out.number(key, value);
        }
    }

    /// Writes them all; `value` knows the value of each, or `None` if the message has no such field.
    #[inline(always)]
    fn write(self, out: &mut Writer, value: impl Fn(u8) -> Option<u64>) -> Result<(), Inexact> {
        for &key in self.keys {
            self.number(out, key, value(key).ok_or(Inexact)?);
        }
        Ok(())
    }
}
