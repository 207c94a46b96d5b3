//! Protobuf's wire format, written: varints, and messages whose length is known only when they are complete.

/// Room for the longest varint, ten bytes, as a power of two.
const VARINT_ROOM: usize = 16;

/// Room for a key and a length in front of bytes.
const HEADER_ROOM: usize = 16;

/// A growing output.
///
/// The vector is kept longer than what is written, filled with zeros, so that a varint costs one check for room, not one a byte.
pub(super) struct Writer {
    buffer: Vec<u8>,
    /// How much of the buffer is written.
    len: usize,
}

impl Writer {
    /// Creates a writer that appends to `out` and has room for `bytes` more.
    pub(super) fn new(out: Vec<u8>, bytes: usize) -> Self {
        let len = out.len();
        let mut buffer = out;
        buffer.resize(len + bytes + VARINT_ROOM, 0);
        Self { buffer, len }
    }

    /// Returns what is written.
    pub(super) fn into_vec(mut self) -> Vec<u8> {
        self.buffer.truncate(self.len);
        self.buffer
    }

    /// Writes a varint.
    #[inline(always)]
    pub(super) fn varint(&mut self, value: u64) {
        if self.buffer.len() - self.len < VARINT_ROOM {
            self.grow(VARINT_ROOM);
        }
        let window = &mut self.buffer[self.len..self.len + VARINT_ROOM];
        if value < 0x80 {
            window[0] = value as u8;
            self.len += 1;
        } else if value < 1 << 56 {
            // Groups of seven bits spread over eight bytes: 2 x 28, 4 x 14, 8 x 7.
            let word = (value & 0x0fff_ffff) | ((value & 0x00ff_ffff_f000_0000) << 4);
            let word = (word & 0x0000_3fff_0000_3fff) | ((word & 0x0fff_c000_0fff_c000) << 2);
            let word = (word & 0x007f_007f_007f_007f) | ((word & 0x3f80_3f80_3f80_3f80) << 1);
            let len = varint_len(value);
            let more = 0x8080_8080_8080_8080 & ((1 << (8 * (len - 1))) - 1);
            window[..8].copy_from_slice(&(word | more).to_le_bytes());
            self.len += len;
        } else {
            let mut rest = value;
            let mut len = 0;
            while rest >= 0x80 {
                window[len] = rest as u8 | 0x80;
                rest >>= 7;
                len += 1;
            }
            window[len] = rest as u8;
            self.len += len + 1;
        }
    }

    /// Writes a key, which is a single byte for every field of pprof.
    #[inline(always)]
    pub(super) fn key(&mut self, key: u8) {
        self.varint(u64::from(key));
    }

    /// Writes a field with a varint.
    #[inline(always)]
    pub(super) fn number(&mut self, key: u8, value: u64) {
        self.key(key);
        self.varint(value);
    }

    /// Writes a field with bytes.
    #[inline(always)]
    pub(super) fn bytes(&mut self, key: u8, bytes: &[u8]) {
        if self.buffer.len() - self.len < HEADER_ROOM + bytes.len() {
            self.grow(HEADER_ROOM + bytes.len());
        }
        self.number(key, bytes.len() as u64);
        // The varint may have used the room it asked for anew.
        if self.buffer.len() - self.len < bytes.len() {
            self.grow(bytes.len());
        }
        self.buffer[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Writes a field with a message that `fields` writes. Returns what that returns.
    #[inline(always)]
    pub(super) fn message<T>(&mut self, key: u8, fields: impl FnOnce(&mut Self) -> T) -> T {
        self.key(key);
        // One byte is enough for the length of most messages; longer ones are moved.
        self.key(0);
        let start = self.len;
        let result = fields(self);
        let len = self.len - start;
        if len < 0x80 {
            self.buffer[start - 1] = len as u8;
        } else {
            self.move_for_length(start, len);
        }
        result
    }

    /// Moves the message at `start` away to put its length in front, which takes more than the one byte left for it.
    fn move_for_length(&mut self, start: usize, len: usize) {
        let more = varint_len(len as u64) - 1;
        if self.buffer.len() - self.len < more + VARINT_ROOM {
            self.grow(more + VARINT_ROOM);
        }
        self.buffer.copy_within(start..start + len, start + more);
        let mut rest = len;
        for at in start - 1..start - 1 + more {
            self.buffer[at] = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.buffer[start - 1 + more] = rest as u8;
        self.len += more;
    }

    #[cold]
    fn grow(&mut self, room: usize) {
        self.buffer.resize((self.len + room).max(self.buffer.len() * 2), 0);
    }
}

/// Returns how many bytes the varint of `value` takes.
fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}
