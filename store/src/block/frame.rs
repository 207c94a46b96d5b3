//! Frames: the smallest part of a block that is read, checked and decompressed by itself.
//!
//! A frame's bytes lie in a section; what they are (codec, lengths, checksum) lies in the table of contents, so that a reader knows
//! what it will get before it asks, and notices bytes from the wrong place as surely as damaged ones.

use std::cell::RefCell;
use std::ops::Range;

use afterglow_profile::memory::filled;

use super::planes;
use super::varint::{self, Cursor, Damage};

/// The most bytes a frame may hold. No writer comes near it, as one profile is smaller than that; it bounds what a reader allocates.
pub(crate) const FRAME_BYTES_MAX: u64 = 1 << 30;

/// From this length on a column of a frame is compressed by itself: it pays for the header, as the statistics of columns differ.
const APART_MIN: usize = 1 << 10;

/// From this level on numbers are also packed by their bytes. It takes about as long again, which pays in blocks that stay.
const PLANES_LEVEL_MIN: i32 = 6;

thread_local! {
    /// Made once a thread: making a context asks the processor what it can do, which a virtual machine answers in microseconds. Small
    /// frames took longer to begin than to unpack.
    static UNZSTD: RefCell<zstd::bulk::Decompressor<'static>> =
        RefCell::new(zstd::bulk::Decompressor::new().expect("zstd has memory for a context"));
}

/// How the bytes of a frame are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// As they are.
    Stored,
    /// One zstd frame.
    Zstd,
    /// One byte, to be repeated.
    Run,
    /// Varints, as the zstd frames of their [`planes`].
    Planes,
}

/// Where a frame lies and how to check and unpack it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Where its bytes start in the object.
    pub(crate) offset: u64,
    /// How many bytes lie there.
    pub(crate) stored: u64,
    /// How many bytes they unpack to.
    pub(crate) unpacked: u64,
    pub(crate) codec: Codec,
    /// CRC-32C of the stored bytes.
    pub(crate) crc: u32,
}

/// Packs frames, with one compression context for all of them.
pub(crate) struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    level: i32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

// === impl Packer ===

impl Packer {
    /// Makes a packer that compresses with zstd's `level`.
    pub(crate) fn new(level: i32) -> Self {
        let zstd = zstd::bulk::Compressor::new(level).expect("zstd has memory for a context");
        Self { zstd, level, buffer: Vec::new() }
    }

    /// Returns whether it packs numbers by their bytes.
    pub(crate) fn packs_by_bytes(&self) -> bool {
        self.level >= PLANES_LEVEL_MIN
    }

    /// Appends `bytes`, packed the way that takes the least, to `out`, and returns where they lie.
    pub(crate) fn pack(&mut self, out: &mut Vec<u8>, bytes: &[u8]) -> Frame {
        let offset = out.len();
        let codec = if bytes.len() > 1 && bytes.iter().all(|&byte| byte == bytes[0]) {
            out.push(bytes[0]);
            Codec::Run
        } else if self.compress(bytes) {
            out.extend_from_slice(&self.buffer);
            Codec::Zstd
        } else {
            out.extend_from_slice(bytes);
            Codec::Stored
        };
        Frame::new(codec, out, offset, bytes.len())
    }

    /// Packs a frame of several columns: the lengths of all but the last, then the columns. Columns of some length are compressed by
    /// themselves, as several zstd frames one after the other, which unpack like one.
    pub(crate) fn pack_columns(&mut self, out: &mut Vec<u8>, columns: &[Vec<u8>]) -> Frame {
        let mut plain = Vec::new();
        columns.iter().rev().skip(1).rev().for_each(|column| varint::put(&mut plain, column.len() as u64));
        let offset = out.len();
        self.compress_apart(out, &mut plain, columns);
        if out.len() - offset >= plain.len() {
            out.truncate(offset);
            return self.pack(out, &plain);
        }
        Frame::new(Codec::Zstd, out, offset, plain.len())
    }

    /// Appends `varints`, packed the way that takes the least, to `out`, and returns where they lie.
    pub(crate) fn pack_numbers(&mut self, out: &mut Vec<u8>, varints: &[u8]) -> Frame {
        let offset = out.len();
        let frame = self.pack(out, varints);
        // What is short or a run of one byte cannot become much smaller.
        if !self.packs_by_bytes() || varints.len() < APART_MIN || frame.codec != Codec::Zstd {
            return frame;
        }
        let Some(columns) = planes::split(varints) else { return frame };
        let (mut plain, mut packed) = (Vec::with_capacity(2 * varints.len()), Vec::new());
        self.compress_apart(&mut packed, &mut plain, &columns);
        if packed.len() >= frame.stored as usize {
            return frame;
        }
        out.truncate(offset);
        out.extend_from_slice(&packed);
        Frame::new(Codec::Planes, out, offset, varints.len())
    }

    /// Appends `columns` to what stands in `plain`, and appends all of it compressed to `out`: columns of some length by themselves,
    /// what lies between them together.
    fn compress_apart(&mut self, out: &mut Vec<u8>, plain: &mut Vec<u8>, columns: &[Vec<u8>]) {
        let mut starts = vec![0];
        for column in columns {
            let start = plain.len();
            plain.extend_from_slice(column);
            if column.len() >= APART_MIN {
                starts.extend([start, plain.len()]);
            }
        }
        starts.push(plain.len());
        starts.dedup();
        for part in starts.windows(2) {
            self.compress(&plain[part[0]..part[1]]);
            out.extend_from_slice(&self.buffer);
        }
    }

    /// Compresses into the buffer and returns whether that made it smaller.
    fn compress(&mut self, bytes: &[u8]) -> bool {
        self.buffer.clear();
        self.buffer.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        let packed = self.zstd.compress_to_buffer(bytes, &mut self.buffer);
        packed.expect("the buffer has room for any input") < bytes.len()
    }
}

// === impl Frame ===

impl Frame {
    /// Makes the frame whose bytes are those of `out` from `offset` on.
    fn new(codec: Codec, out: &[u8], offset: usize, unpacked: usize) -> Self {
        let stored = &out[offset..];
        let (offset, unpacked) = (offset as u64, unpacked as u64);
        Self { offset, stored: stored.len() as u64, unpacked, codec, crc: crc32c::crc32c(stored) }
    }

    /// Returns it as it is when what it lies in starts at `offset`.
    pub(crate) fn shifted(self, offset: u64) -> Self {
        Self { offset: self.offset + offset, ..self }
    }

    /// Returns where it lies in the object.
    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.stored
    }

    /// Appends what a table of contents says of it; frames are listed in the order in which they lie, without gaps.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(match self.codec {
            Codec::Stored => 0,
            Codec::Zstd => 1,
            Codec::Run => 2,
            Codec::Planes => 3,
        });
        varint::put(out, self.stored);
        if self.codec != Codec::Stored {
            varint::put(out, self.unpacked);
        }
        out.extend_from_slice(&self.crc.to_le_bytes());
    }

    /// Reads what [`Frame::put`] wrote of a frame that starts at `offset`.
    pub(crate) fn read(from: &mut Cursor<'_>, offset: u64) -> Result<Self, Damage> {
        let codec = match from.take(1)?[0] {
            0 => Codec::Stored,
            1 => Codec::Zstd,
            2 => Codec::Run,
            3 => Codec::Planes,
            _ => return Err(Damage("a frame has an unknown codec")),
        };
        let stored = from.varint()?;
        let unpacked = if codec == Codec::Stored { stored } else { from.varint()? };
        if stored > FRAME_BYTES_MAX || unpacked > FRAME_BYTES_MAX || (codec == Codec::Run && stored != 1) {
            return Err(Damage("a frame has an impossible length"));
        }
        Ok(Self { offset, stored, unpacked, codec, crc: from.u32_fixed()? })
    }

    /// Checks `bytes`, read from where the frame lies.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<(), Damage> {
        if bytes.len() as u64 != self.stored {
            return Err(Damage("has another length than the table of contents says"));
        }
        if crc32c::crc32c(bytes) != self.crc {
            return Err(Damage("has a wrong checksum"));
        }
        Ok(())
    }

    /// Checks `bytes`, read from where the frame lies, and returns what they unpack to.
    pub(crate) fn unpack(&self, bytes: &[u8]) -> Result<Vec<u8>, Damage> {
        self.check(bytes)?;
        let unpacked = self.unpacked as usize;
        match self.codec {
            Codec::Stored => Ok(bytes.to_vec()),
            Codec::Run => Ok(filled(unpacked, bytes[0])),
            Codec::Zstd => match UNZSTD.with_borrow_mut(|zstd| zstd.decompress(bytes, unpacked)) {
                Ok(out) if out.len() == unpacked => Ok(out),
                _ => Err(LENGTH),
            },
            Codec::Planes => {
                let most = planes::bytes_max(self.unpacked) as usize;
                let columns = UNZSTD.with_borrow_mut(|zstd| zstd.decompress(bytes, most)).map_err(|_| LENGTH)?;
                planes::join(&columns, unpacked)
            }
        }
    }
}

const LENGTH: Damage = Damage("does not unpack to the length it should have");

/// Splits the unpacked bytes of a frame of `N` columns.
pub(crate) fn split_columns<const N: usize>(bytes: &[u8]) -> Result<[Cursor<'_>; N], Damage> {
    let mut from = Cursor::new(bytes);
    let mut lengths = [0; N];
    for length in &mut lengths[..N - 1] {
        *length = from.u32()? as usize;
    }
    let before: usize = lengths.iter().sum();
    lengths[N - 1] = from.left().checked_sub(before).ok_or(Damage("ends too early"))?;
    let mut columns = [const { Cursor::empty() }; N];
    for (column, length) in columns.iter_mut().zip(lengths) {
        *column = Cursor::new(from.take(length)?);
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listed(frame: Frame) -> Frame {
        let mut out = Vec::new();
        frame.put(&mut out);
        let mut from = Cursor::new(&out);
        let read = Frame::read(&mut from, frame.offset).expect("a frame that was just listed");
        assert_eq!(from.finish(), Ok(()));
        read
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(
            before in 0usize..4,
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                proptest::collection::vec(0u8..2, 0..5000),
                (any::<u8>(), 0usize..300).prop_map(|(byte, len)| vec![byte; len]),
            ],
            flip in any::<proptest::sample::Index>(),
        ) {
            let mut out = vec![7; before];
            let frame = Packer::new(1).pack(&mut out, &bytes);
            prop_assert_eq!(listed(frame), frame);
            prop_assert!(frame.stored <= bytes.len() as u64);
            prop_assert_eq!(frame.range(), before as u64..out.len() as u64);
            let mut stored = out[before..].to_vec();
            prop_assert_eq!(frame.unpack(&stored), Ok(bytes));
            if !stored.is_empty() {
                let bit = flip.index(stored.len() * 8);
                stored[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(frame.unpack(&stored), Err(Damage("has a wrong checksum")));
            }
            stored.push(0);
            prop_assert!(frame.unpack(&stored).is_err());
        }
    }

    #[test]
    fn numbers_are_packed_by_their_bytes_where_that_takes_less() {
        let mut varints = Vec::new();
        // The lower two bytes are chance, the upper ones and the length are not.
        let mut chance = 1u64;
        for _ in 0..4000 {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            varint::put(&mut varints, 0x0123_0000 | chance >> 48);
        }
        let (mut out, mut plain) = (vec![7], Vec::new());
        let frame = Packer::new(PLANES_LEVEL_MIN).pack_numbers(&mut out, &varints);
        assert_eq!(listed(frame), frame);
        assert_eq!(frame.codec, Codec::Planes);
        assert!(frame.stored < Packer::new(PLANES_LEVEL_MIN).pack(&mut plain, &varints).stored);
        assert_eq!(frame.unpack(&out[1..]), Ok(varints.clone()));
        for at in (1..out.len()).step_by(97) {
            out[at] ^= 1;
            assert!(frame.unpack(&out[1..]).is_err());
            out[at] ^= 1;
        }
        for lower in [PLANES_LEVEL_MIN - 1, 1] {
            assert_eq!(Packer::new(lower).pack_numbers(&mut out, &varints).codec, Codec::Zstd);
        }
    }

    #[test]
    fn an_impossible_length_is_refused() {
        let mut out = vec![2];
        varint::put(&mut out, 1);
        varint::put(&mut out, FRAME_BYTES_MAX + 1);
        out.extend([0; 4]);
        assert!(Frame::read(&mut Cursor::new(&out), 0).is_err());
    }
}
