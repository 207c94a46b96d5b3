//! Where rebuilt protobuf goes: into memory, or beside the bytes it should be.

use std::ops::Range;

use super::varint::{self, Cursor, Damage};

/// Takes the fields of a message one after the other.
pub(crate) trait Sink: Sized {
    /// Takes a byte: a field key.
    fn byte(&mut self, byte: u8) -> Result<(), Damage>;

    /// Takes a number as a varint.
    fn varint(&mut self, value: u64) -> Result<(), Damage>;

    /// Takes a field of bytes.
    fn bytes(&mut self, key: u8, bytes: &[u8]) -> Result<(), Damage>;

    /// Takes a field whose bytes `write` gives, with their length before them.
    fn message(&mut self, key: u8, write: impl FnOnce(&mut Self) -> Result<(), Damage>) -> Result<(), Damage>;

    /// Returns how many bytes it has taken.
    fn taken(&self) -> usize;

    /// Takes the same bytes again that it took at `range`.
    fn again(&mut self, range: Range<usize>) -> Result<(), Damage>;

    /// Takes note that nothing follows.
    fn finish(&mut self) -> Result<(), Damage>;

    /// Takes a field that is a number.
    #[inline]
    fn number(&mut self, key: u8, value: u64) -> Result<(), Damage> {
        self.byte(key)?;
        self.varint(value)
    }

    /// Takes a field whose value `write` gives.
    #[inline]
    fn scalar(&mut self, key: u8, write: impl FnOnce(&mut Self) -> Result<(), Damage>) -> Result<(), Damage> {
        self.byte(key)?;
        write(self)
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn byte(&mut self, byte: u8) -> Result<(), Damage> {
        self.push(byte);
        Ok(())
    }

    #[inline]
    fn varint(&mut self, value: u64) -> Result<(), Damage> {
        varint::put(self, value);
        Ok(())
    }

    fn bytes(&mut self, key: u8, bytes: &[u8]) -> Result<(), Damage> {
        self.push(key);
        varint::put_bytes(self, bytes);
        Ok(())
    }

    #[inline]
    fn message(&mut self, key: u8, write: impl FnOnce(&mut Self) -> Result<(), Damage>) -> Result<(), Damage> {
        self.push(key);
        // Most messages are shorter than 128 bytes, so a byte is left for the length and longer ones are moved.
        let at = self.len();
        self.push(0);
        write(self)?;
        let len = self.len() - at - 1;
        if len < 0x80 {
            self[at] = len as u8;
        } else {
            varint::put(self, len as u64);
            let prefix = self.len() - at - 1 - len;
            self[at..].rotate_right(prefix);
            // The spare byte has come to lie behind the length.
            self.copy_within(at + prefix + 1.., at + prefix);
            self.pop();
        }
        Ok(())
    }

    fn taken(&self) -> usize {
        self.len()
    }

    fn again(&mut self, range: Range<usize>) -> Result<(), Damage> {
        self.extend_from_within(range);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Damage> {
        Ok(())
    }
}

/// Compares what it takes with bytes that are known, without a copy of either.
#[derive(Debug)]
pub(crate) struct Compare<'a> {
    sent: &'a [u8],
    /// How many bytes were compared.
    at: usize,
    /// Where the present message ends.
    end: usize,
}

/// What is said where the bytes differ.
const DIFFERENT: Damage = Damage("differs from what was sent");

impl<'a> Compare<'a> {
    /// Expects `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { sent: bytes, at: 0, end: bytes.len() }
    }

    #[inline]
    fn expect(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        if self.sent[self.at..self.end].starts_with(bytes) {
            self.at += bytes.len();
            Ok(())
        } else {
            Err(DIFFERENT)
        }
    }

    /// Compares a varint byte by byte, at the end of what was sent or where it is long.
    #[cold]
    fn long_varint(&mut self, mut value: u64) -> Result<(), Damage> {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80)?;
            value >>= 7;
        }
        self.byte(value as u8)
    }

    /// Reads the length of a message and checks that it is written as short as it can be.
    #[inline]
    fn length(&mut self) -> Result<usize, Damage> {
        if let Some(&length @ ..0x80) = self.sent.get(self.at) {
            self.at += 1;
            return Ok(usize::from(length));
        }
        let length = Cursor::new(&self.sent[self.at..self.end]).varint()?;
        self.varint(length)?;
        usize::try_from(length).map_err(|_| DIFFERENT)
    }
}

impl Sink for Compare<'_> {
    #[inline]
    fn byte(&mut self, byte: u8) -> Result<(), Damage> {
        if self.at < self.end && self.sent[self.at] == byte {
            self.at += 1;
            Ok(())
        } else {
            Err(DIFFERENT)
        }
    }

    #[inline]
    fn varint(&mut self, value: u64) -> Result<(), Damage> {
        if value < 0x80 {
            return self.byte(value as u8);
        }
        match self.sent[self.at..].first_chunk() {
            Some(sent) if value < varint::SHORT => {
                let (bytes, len) = varint::spread(value);
                self.at += len;
                let differing = (u64::from_le_bytes(*sent) ^ bytes) << (64 - 8 * len);
                if differing == 0 && self.at <= self.end { Ok(()) } else { Err(DIFFERENT) }
            }
            _ => self.long_varint(value),
        }
    }

    fn bytes(&mut self, key: u8, bytes: &[u8]) -> Result<(), Damage> {
        self.number(key, bytes.len() as u64)?;
        self.expect(bytes)
    }

    #[inline]
    fn message(&mut self, key: u8, write: impl FnOnce(&mut Self) -> Result<(), Damage>) -> Result<(), Damage> {
        self.byte(key)?;
        let length = self.length()?;
        if length > self.end.saturating_sub(self.at) {
            return Err(DIFFERENT);
        }
        let outer = std::mem::replace(&mut self.end, self.at + length);
        write(self)?;
        self.finish()?;
        self.end = outer;
        Ok(())
    }

    fn taken(&self) -> usize {
        self.at
    }

    #[inline]
    fn again(&mut self, range: Range<usize>) -> Result<(), Damage> {
        let sent = self.sent;
        self.expect(&sent[range])
    }

    fn finish(&mut self) -> Result<(), Damage> {
        if self.at == self.end { Ok(()) } else { Err(DIFFERENT) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives a sink some fields, among them a message in a message.
    fn give<S: Sink>(sink: &mut S, numbers: &[u64], text: &[u8]) -> Result<(), Damage> {
        sink.number(0x08, 7)?;
        let mut place = 0..0;
        sink.message(0x12, |sink| {
            let start = sink.taken();
            numbers.iter().try_for_each(|&number| sink.varint(number))?;
            place = start..sink.taken();
            sink.message(0x1a, |sink| sink.again(place.clone()))
        })?;
        sink.bytes(0x22, text)?;
        sink.finish()
    }

    proptest! {
        #[test]
        fn what_one_writes_the_other_expects(
            numbers in proptest::collection::vec((0u32..65, any::<u64>()).prop_map(|(bits, n)| n.checked_shr(bits).unwrap_or(0)), 0..40),
            text in proptest::collection::vec(any::<u8>(), 0..200),
            flip in any::<proptest::sample::Index>(),
        ) {
            let mut written = Vec::new();
            prop_assert_eq!(give(&mut written, &numbers, &text), Ok(()));
            prop_assert_eq!(give(&mut Compare::new(&written), &numbers, &text), Ok(()));
            prop_assert!(give(&mut Compare::new(&written[..written.len() - 1]), &numbers, &text).is_err());
            let bit = flip.index(written.len() * 8);
            written[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(give(&mut Compare::new(&written), &numbers, &text).is_err());
            written[bit / 8] ^= 1 << (bit % 8);
            written.push(0);
            prop_assert!(give(&mut Compare::new(&written), &numbers, &text).is_err());
        }
    }
}
