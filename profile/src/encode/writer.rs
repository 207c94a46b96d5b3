//! Protobuf's wire format, written: varints, and messages whose length is known only when they are complete.

/// Room that a varint is written into: ten bytes at most, and whole words.
const VARINT_ROOM: usize = 16;

/// A growing output.
///
/// The vector is kept longer than what is written, filled with zeros, so that a varint costs one check for room, not one a byte.
pub(super) struct Writer {
    buffer: Vec<u8>,
    /// How much of the buffer is written.
    len: usize,
    /// By key, how many bytes the length of the last message with it took: the next one's is likely as long.
    length_bytes: [u8; 128],
}

impl Writer {
    /// Creates a writer that appends to `out` and has room for `bytes` more.
    pub(super) fn new(out: Vec<u8>, bytes: usize) -> Self {
        let len = out.len();
        let mut buffer = out;
        buffer.resize(len + bytes + VARINT_ROOM, 0);
        Self { buffer, len, length_bytes: [1; 128] }
    }

    /// Returns what is written.
    pub(super) fn into_vec(mut self) -> Vec<u8> {
        self.buffer.truncate(self.len);
        self.buffer
    }

    /// Writes many varints, of lengths that cannot be guessed.
    #[inline(always)]
    pub(super) fn varints(&mut self, values: impl ExactSizeIterator<Item = u64>) {
        self.reserve(values.len() * 10 + VARINT_ROOM);
        let out = &mut self.buffer[self.len..];
        let mut len = 0;
        for value in values {
            len += if value < 1 << 14 {
                // One or two bytes, without a branch on which: ids are a mix of both.
                let more = u16::from(value >= 0x80);
                let bytes = (value as u16 & 0x7f) | more << 7 | (value as u16 >> 7) << 8;
                out[len..len + 2].copy_from_slice(&bytes.to_le_bytes());
                1 + usize::from(more)
            } else {
                put_varint(&mut out[len..], value)
            };
        }
        self.len += len;
    }

    /// Writes a field with a varint.
    #[inline(always)]
    pub(super) fn number(&mut self, key: u8, value: u64) {
        self.reserve(1 + VARINT_ROOM);
        // Every key of pprof is a single byte.
        self.buffer[self.len] = key;
        self.len += 1 + put_varint(&mut self.buffer[self.len + 1..], value);
    }

    /// Writes a field with bytes.
    #[inline(always)]
    pub(super) fn bytes(&mut self, key: u8, bytes: &[u8]) {
        self.reserve(1 + VARINT_ROOM + bytes.len());
        self.number(key, bytes.len() as u64);
        self.buffer[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Writes a field with a message that `fields` writes. Returns what that returns.
    #[inline(always)]
    pub(super) fn message<T>(&mut self, key: u8, fields: impl FnOnce(&mut Self) -> T) -> T {
        self.reserve(VARINT_ROOM);
        self.buffer[self.len] = key;
        let length_at = self.len + 1;
        let guess = usize::from(self.length_bytes[usize::from(key & 0x7f)]);
        let start = length_at + guess;
        self.len = start;
        let result = fields(self);
        let len = self.len - start;
        let length_bytes = varint_len(len as u64);
        if length_bytes != guess {
            self.move_message(start, length_at + length_bytes, len);
            self.length_bytes[usize::from(key & 0x7f)] = length_bytes as u8;
        }
        let mut rest = len;
        for at in length_at..length_at + length_bytes {
            self.buffer[at] = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.buffer[length_at + length_bytes - 1] &= 0x7f;
        result
    }

    /// Moves the message that was just written, as its length takes more or less room than was left for it.
    fn move_message(&mut self, from: usize, to: usize, len: usize) {
        self.reserve(VARINT_ROOM);
        self.buffer.copy_within(from..from + len, to);
        self.len = to + len;
    }

    /// Makes room for `bytes` more.
    #[inline(always)]
    fn reserve(&mut self, bytes: usize) {
        if self.buffer.len() - self.len < bytes {
            self.grow(bytes);
        }
    }

    #[cold]
    fn grow(&mut self, bytes: usize) {
        self.buffer.resize((self.len + bytes).max(self.buffer.len() * 2), 0);
    }
}

/// Writes a varint at the start of `out`, which has [`VARINT_ROOM`] bytes at least. Returns its length.
#[inline(always)]
fn put_varint(out: &mut [u8], value: u64) -> usize {
    if value < 0x80 {
        out[0] = value as u8;
        return 1;
    }
    if value < 1 << 56 {
        // Groups of seven bits spread over eight bytes: 2 x 28, 4 x 14, 8 x 7.
        let word = (value & 0x0fff_ffff) | ((value & 0x00ff_ffff_f000_0000) << 4);
        let word = (word & 0x0000_3fff_0000_3fff) | ((word & 0x0fff_c000_0fff_c000) << 2);
        let word = (word & 0x007f_007f_007f_007f) | ((word & 0x3f80_3f80_3f80_3f80) << 1);
        let len = varint_len(value);
        let more = 0x8080_8080_8080_8080 & ((1 << (8 * (len - 1))) - 1);
        out[..8].copy_from_slice(&(word | more).to_le_bytes());
        return len;
    }
    let mut rest = value;
    let mut len = 0;
    while rest >= 0x80 {
        out[len] = rest as u8 | 0x80;
        rest >>= 7;
        len += 1;
    }
    out[len] = rest as u8;
    len + 1
}

/// Returns how many bytes the varint of `value` takes.
#[inline(always)]
fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    // A division by seven, exact for the 64 values there are.
    (bits * 9 + 64) / 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length_are_minimal() {
        for bit in 0..64 {
            for value in [1u64 << bit, (1 << bit) - 1, 1 << bit | 1, u64::MAX >> bit] {
                let mut expected = Vec::new();
                let mut rest = value;
                while rest >= 0x80 {
                    expected.push(rest as u8 | 0x80);
                    rest >>= 7;
                }
                expected.push(rest as u8);
                let mut one = Writer::new(Vec::new(), 0);
                one.number(0x08, value);
                assert_eq!(one.into_vec(), [&[0x08], &expected[..]].concat(), "{value:#x}");
                let mut many = Writer::new(Vec::new(), 0);
                many.varints([value, value].into_iter());
                assert_eq!(many.into_vec(), [&expected[..], &expected].concat(), "{value:#x}");
                assert_eq!(varint_len(value), expected.len());
            }
        }
    }

    #[test]
    fn messages_have_their_lengths_in_front_whatever_the_one_before() {
        let mut out = Writer::new(b"x".to_vec(), 0);
        let mut expected = b"x".to_vec();
        for len in [0, 1, 127, 128, 5, 16_383, 16_384, 300, 3_000_000, 127] {
            let written = out.message(0x12, |out| {
                out.message(0x0a, |out| out.varints(std::iter::repeat_n(7, len)));
                len
            });
            assert_eq!(written, len);
            let mut inner = Writer::new(Vec::new(), 0);
            inner.bytes(0x0a, &vec![7; len]);
            let inner = inner.into_vec();
            let mut outer = Writer::new(Vec::new(), 0);
            outer.number(0x12, inner.len() as u64);
            expected.extend(outer.into_vec());
            expected.extend(inner);
        }
        assert!(out.into_vec() == expected);
    }
}
