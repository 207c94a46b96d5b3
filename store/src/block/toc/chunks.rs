//! How the table of contents lists chunks: where each frame lies, and how values are said.

use std::ops::Range;

use super::Section;
use crate::block::columns::Multiple;
use crate::block::frame::Frame;
use crate::block::varint::{self, Cursor, Damage};

/// Profiles that are compressed together, and where their parts lie, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// One profile as it was sent.
    Blob(Frame),
    /// Several profiles as columns.
    Columns { profiles: u32, stacks: Frame, labels: Frame, values: Vec<Values>, meta: Frame },
}

/// The values of one sample type in a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// They lie in a frame.
    Frame(Frame),
    /// They are those of an earlier sample type, each times the same factor.
    Multiple(Multiple),
    /// A frame has what is added to the product of an earlier sample type's value and the number of the sample's label.
    Product { of: u32, rest: Frame },
    /// A frame has how many objects a sampling profiler saw.
    Seen { rate: u64, seen: Frame },
    /// A frame has what is added to the bytes that a sampling profiler says for an earlier sample type's objects.
    Bytes { of: u32, rate: u64, rest: Frame },
}

/// Reads frames that lie one after the other in a section.
pub(crate) struct Frames {
    at: u64,
    end: u64,
}

impl Frames {
    /// Starts where a section does.
    pub(crate) fn of(section: &Section) -> Self {
        Self { at: section.offset, end: section.offset + section.length }
    }

    /// Reads the listing of the next frame.
    ///
    /// # Errors
    /// It lies outside the section.
    pub(crate) fn read(&mut self, from: &mut Cursor<'_>) -> Result<Frame, Damage> {
        let frame = Frame::read(from, self.at)?;
        self.at = frame.range().end;
        if self.at <= self.end { Ok(frame) } else { Err(Damage("a frame lies outside its section")) }
    }
}

// === impl Values ===

impl Values {
    /// Returns the frame, if there is one.
    pub(super) fn frame(&self) -> Option<&Frame> {
        match self {
            Self::Multiple(_) => None,
            Self::Frame(frame)
            | Self::Product { rest: frame, .. }
            | Self::Seen { seen: frame, .. }
            | Self::Bytes { rest: frame, .. } => Some(frame),
        }
    }

    fn frame_mut(&mut self) -> Option<&mut Frame> {
        match self {
            Self::Multiple(_) => None,
            Self::Frame(frame)
            | Self::Product { rest: frame, .. }
            | Self::Seen { seen: frame, .. }
            | Self::Bytes { rest: frame, .. } => Some(frame),
        }
    }
}

// === impl Chunk ===

/// How a chunk that is a blob is told from others, and the forms of values.
const BLOB: u64 = 0;
const FRAME: u64 = 0;
const MULTIPLE: u64 = 1;
const PRODUCT: u64 = 2;
const SEEN: u64 = 3;
const BYTES: u64 = 4;

impl Chunk {
    /// Returns how many profiles it holds.
    pub(crate) fn profiles(&self) -> usize {
        match self {
            Self::Blob(_) => 1,
            Self::Columns { profiles, .. } => *profiles as usize,
        }
    }

    /// Moves it to where what it lies in starts at `offset`.
    pub(crate) fn shift(&mut self, offset: u64) {
        let shift = |frame: &mut Frame| *frame = frame.shifted(offset);
        match self {
            Self::Blob(frame) => shift(frame),
            Self::Columns { stacks, labels, values, meta, .. } => {
                [stacks, labels, meta].into_iter().for_each(shift);
                values.iter_mut().filter_map(Values::frame_mut).for_each(shift);
            }
        }
    }

    /// Returns where all of it lies.
    pub(crate) fn range(&self) -> Range<u64> {
        match self {
            Self::Blob(frame) => frame.range(),
            Self::Columns { stacks, meta, .. } => stacks.offset..meta.range().end,
        }
    }

    /// Returns where all that a merge needs lies.
    pub(crate) fn range_to_merge(&self) -> Range<u64> {
        match self {
            Self::Blob(frame) => frame.range(),
            Self::Columns { stacks, meta, .. } => stacks.offset..meta.offset,
        }
    }

    /// Returns how many bytes unpack to what a merge needs.
    pub(crate) fn unpacked_to_merge(&self) -> u64 {
        match self {
            Self::Blob(frame) => frame.unpacked,
            Self::Columns { stacks, labels, values, .. } => {
                let values = values.iter().filter_map(Values::frame);
                [stacks, labels].into_iter().chain(values).map(|frame| frame.unpacked).sum()
            }
        }
    }

    /// Appends its listing.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Blob(frame) => {
                varint::put(out, BLOB);
                frame.put(out);
            }
            Self::Columns { profiles, stacks, labels, values, meta } => {
                varint::put(out, (*profiles).into());
                varint::put(out, values.len() as u64);
                stacks.put(out);
                labels.put(out);
                for values in values {
                    match values {
                        Values::Frame(frame) => {
                            varint::put(out, FRAME);
                            frame.put(out);
                        }
                        Values::Multiple(Multiple { of, factor }) => {
                            varint::put(out, MULTIPLE);
                            varint::put(out, (*of).into());
                            varint::put_signed(out, *factor);
                        }
                        Values::Product { of, rest } => {
                            varint::put(out, PRODUCT);
                            varint::put(out, (*of).into());
                            rest.put(out);
                        }
                        Values::Seen { rate, seen } => {
                            varint::put(out, SEEN);
                            varint::put(out, *rate);
                            seen.put(out);
                        }
                        Values::Bytes { of, rate, rest } => {
                            varint::put(out, BYTES);
                            varint::put(out, (*of).into());
                            varint::put(out, *rate);
                            rest.put(out);
                        }
                    }
                }
                meta.put(out);
            }
        }
    }

    /// Reads what [`Chunk::put`] wrote.
    ///
    /// # Errors
    /// It contradicts itself.
    pub(crate) fn read(from: &mut Cursor<'_>, frames: &mut Frames) -> Result<Self, Damage> {
        let profiles = from.u32()?;
        if u64::from(profiles) == BLOB {
            return Ok(Self::Blob(frames.read(from)?));
        }
        let count = from.count(3)?;
        let (stacks, labels) = (frames.read(from)?, frames.read(from)?);
        let mut values = Vec::with_capacity(count);
        for t in 0..count {
            values.push(match from.varint()? {
                FRAME => Values::Frame(frames.read(from)?),
                MULTIPLE => Values::Multiple(Multiple { of: from.index(t)?, factor: from.signed()? }),
                PRODUCT => Values::Product { of: from.index(t)?, rest: frames.read(from)? },
                SEEN => Values::Seen { rate: from.varint()?, seen: frames.read(from)? },
                BYTES => Values::Bytes { of: from.index(t)?, rate: from.varint()?, rest: frames.read(from)? },
                _ => return Err(Damage("values are of an unknown form")),
            });
        }
        Ok(Self::Columns { profiles, stacks, labels, values, meta: frames.read(from)? })
    }
}
