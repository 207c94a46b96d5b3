//! The protobuf wire format, as far as pprof uses it: a cursor over one message.
//!
//! A [`Reader`] holds the bytes from the start of the *profile* to the end of its message, so its position is the byte offset that
//! errors name. It notes whether any varint was longer than need be: legal, but such bytes cannot be written again from values.
//! Errors are built in cold functions and boxed, so that the hot path carries one pointer.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use crate::error::{Error, FieldPath};

/// The result of reading something; errors are boxed because they are large and rare.
pub(super) type Result<T> = std::result::Result<T, Box<Error>>;

/// The bit of each byte of a word that says that the varint goes on.
pub(super) const CONTINUATION: u64 = 0x8080_8080_8080_8080;

/// The wire type of a varint.
pub(super) const VARINT: u8 = 0;
/// The wire type of eight bytes.
pub(super) const FIXED64: u8 = 1;
/// The wire type of a length with as many bytes.
pub(super) const LENGTH: u8 = 2;
/// The wire type of four bytes.
pub(super) const FIXED32: u8 = 5;

/// The messages of profile.proto.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Profile,
    SampleType,
    Sample,
    Label,
    Mapping,
    Location,
    Line,
    Function,
    PeriodType,
}

impl Kind {
    /// Returns the fields that lead to such a message.
    fn parents(self) -> &'static [u32] {
        match self {
            Self::Profile => &[],
            Self::SampleType => &[1],
            Self::Sample => &[2],
            Self::Label => &[2, 3],
            Self::Mapping => &[3],
            Self::Location => &[4],
            Self::Line => &[4, 4],
            Self::Function => &[5],
            Self::PeriodType => &[11],
        }
    }
}

/// A position in a message.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    /// The profile, up to the end of the message.
    bytes: &'a [u8],
    /// The next byte to read.
    pos: usize,
    /// Where the key of the current field starts.
    key_at: usize,
    /// What the message is, for errors.
    kind: Kind,
    /// No varint so far was longer than need be.
    pub(super) minimal: bool,
}

impl<'a> Reader<'a> {
    /// Creates a reader of a whole profile.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0, key_at: 0, kind: Kind::Profile, minimal: true }
    }

    /// Stands for every key above 127: it belongs to no field of pprof.
    pub(super) const OTHER: u8 = 0xff;

    /// Reads the key of the next field, or `None` at the end of the message. After [`Reader::OTHER`], and after any key that the
    /// caller does not know, comes [`Reader::skip`].
    #[inline(always)]
    pub(super) fn key(&mut self) -> Option<u8> {
        self.key_at = self.pos;
        let key = *self.bytes.get(self.pos)?;
        if key < 0x80 {
            self.pos += 1;
            Some(key)
        } else {
            Some(self.long_key())
        }
    }

    /// Reads a key of several bytes, which may still be a small number. What is wrong with it comes out when it is skipped.
    #[cold]
    fn long_key(&mut self) -> u8 {
        match self.varint() {
            Ok(key @ 0..0x80) => key as u8,
            _ => Self::OTHER,
        }
    }

    /// Reads a varint.
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64> {
        match self.bytes.get(self.pos) {
            Some(&byte) if byte < 0x80 => {
                self.pos += 1;
                Ok(u64::from(byte))
            }
            Some(&byte) => match self.bytes.get(self.pos + 1) {
                Some(&second) if second < 0x80 => {
                    self.pos += 2;
                    self.minimal &= second != 0;
                    Ok(u64::from(byte & 0x7f) | u64::from(second) << 7)
                }
                _ => self.long_varint(),
            },
            None => Err(self.truncated()),
        }
    }

    /// Reads a varint that is known to be a longer one. Not inlined: there are many places, and it is the rarer case in all of them.
    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64> {
        self.any_varint()
    }

    /// Reads a varint whose length cannot be guessed, as the values of samples are: without a branch on it.
    #[inline(always)]
    pub(super) fn any_varint(&mut self) -> Result<u64> {
        let word = self.word();
        let ends = !word & CONTINUATION;
        if ends == 0 {
            return self.bytewise_varint();
        }
        let bits = ends.trailing_zeros() + 1;
        let word = word & (u64::MAX >> (64 - bits));
        // Seven bits of each byte, packed pairwise: 8 x 7, 4 x 14, 2 x 28, 56.
        let word = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
        let word = (word & 0x0000_3fff_0000_3fff) | ((word & 0x3fff_0000_3fff_0000) >> 2);
        let value = (word & 0x0fff_ffff) | ((word & 0x0fff_ffff_0000_0000) >> 4);
        let len = bits / 8;
        self.pos += len as usize;
        // The last of several bytes adds nothing if those before it hold all of the value.
        self.minimal &= (value >> (7 * (len - 1)) != 0) | (len == 1);
        Ok(value)
    }

    /// Returns the next eight bytes, the first lowest. Beyond the end of the message come bytes that never end a varint.
    #[inline(always)]
    pub(super) fn word(&self) -> u64 {
        match self.bytes.get(self.pos..self.pos + 8) {
            Some(window) => u64::from_le_bytes(window.try_into().expect("the window has eight bytes")),
            None => self.last_word(),
        }
    }

    #[inline(always)]
    fn last_word(&self) -> u64 {
        let missing = 8 * (8 - self.remaining() as u32);
        let beyond = u64::MAX.unbounded_shl(64 - missing);
        match self.bytes.last_chunk() {
            Some(last) => u64::from_le_bytes(*last).unbounded_shr(missing) | beyond,
            // A message at the very beginning: its varints are read byte by byte.
            None => u64::MAX,
        }
    }

    /// Goes on by bytes of [`Reader::word`].
    #[inline(always)]
    pub(super) fn advance(&mut self, bytes: u8) {
        self.pos += usize::from(bytes);
    }

    /// Reads a varint near the end of the message, or one of nine or ten bytes.
    fn bytewise_varint(&mut self) -> Result<u64> {
        let start = self.pos;
        let mut value = 0u64;
        for i in 0..10 {
            let Some(&byte) = self.bytes.get(start + i) else { return Err(self.truncated()) };
            let part = u64::from(byte & 0x7f);
            if i == 9 && byte > 1 {
                break;
            }
            value |= part << (7 * i);
            if byte < 0x80 {
                self.pos = start + i + 1;
                self.minimal &= byte != 0 || i == 0;
                return Ok(value);
            }
        }
        Err(Box::new(Error::Varint { field: self.field(), byte: start }))
    }

    /// Reads a length and as many bytes.
    #[inline(always)]
    pub(super) fn slice(&mut self) -> Result<&'a [u8]> {
        let len = self.varint()?;
        let rest = self.bytes.len() - self.pos;
        if len > rest as u64 {
            return Err(self.truncated());
        }
        let slice = &self.bytes[self.pos..self.pos + len as usize];
        self.pos += len as usize;
        Ok(slice)
    }

    /// Reads a length and gives a reader of the message of that length.
    #[inline(always)]
    pub(super) fn message(&mut self, kind: Kind) -> Result<Reader<'a>> {
        let len = self.varint()?;
        let rest = self.bytes.len() - self.pos;
        if len > rest as u64 {
            return Err(self.truncated());
        }
        let pos = self.pos;
        self.pos += len as usize;
        Ok(Reader { bytes: &self.bytes[..self.pos], pos, key_at: pos, kind, minimal: true })
    }

    /// Reads a length and gives a reader of the packed varints of that length. Errors in it name the current field.
    #[inline(always)]
    pub(super) fn packed(&mut self) -> Result<Reader<'a>> {
        let key_at = self.key_at;
        let inner = self.message(self.kind)?;
        Ok(Reader { key_at, ..inner })
    }

    /// Returns whether all of the message is read.
    #[inline(always)]
    pub(super) fn is_at_end(&self) -> bool {
        self.pos >= self.bytes.len()
    }

    /// Returns how many bytes of the message are left.
    #[inline(always)]
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.pos
    }

    /// Counts the varints that are left in a packed run.
    #[cold]
    pub(super) fn count_varints(&self) -> usize {
        self.bytes[self.pos..].iter().filter(|byte| **byte < 0x80).count()
    }

    /// Skips the current field, which the caller does not know.
    ///
    /// # Errors
    /// A field that is `known` has come with a wire type that it never has, or the field cannot be skipped: groups, field 0.
    #[cold]
    pub(super) fn skip(&mut self, known: impl Fn(u32) -> bool) -> Result<()> {
        self.pos = self.key_at;
        let key = self.varint()?;
        let (number, wire_type) = (key >> 3, (key & 7) as u8);
        if number == 0 || key > u64::from(u32::MAX) || known(number as u32) {
            return Err(self.not_pprof());
        }
        let len = match wire_type {
            VARINT => return self.varint().map(drop),
            LENGTH => return self.slice().map(drop),
            FIXED64 => 8,
            FIXED32 => 4,
            _ => return Err(self.not_pprof()),
        };
        if self.remaining() < len {
            return Err(self.truncated());
        }
        self.pos += len;
        Ok(())
    }

    /// Returns the error that the message ends inside the current field.
    #[cold]
    fn truncated(&self) -> Box<Error> {
        Box::new(Error::Truncated { field: self.field(), byte: self.bytes.len() })
    }

    /// Returns the error that the current field does not belong into a pprof profile.
    #[cold]
    fn not_pprof(&self) -> Box<Error> {
        let wire_type = self.bytes.get(self.key_at).map_or(0, |key| key & 7);
        Box::new(Error::NotPprof { field: self.field(), wire_type, byte: self.key_at })
    }

    /// Returns the current field.
    fn field(&self) -> FieldPath {
        // The key may itself be what is cut off or too long: as much of it as there is.
        let mut key = 0u64;
        for (i, byte) in self.bytes[self.key_at.min(self.bytes.len())..].iter().take(5).enumerate() {
            key |= u64::from(byte & 0x7f) << (7 * i);
            if *byte < 0x80 {
                break;
            }
        }
        FieldPath { parents: self.kind.parents(), number: (key >> 3) as u32 }
    }
}
