//! How numbers are written inside a block: LEB128 varints, as protobuf has them, and zigzag for what may be negative.
//!
//! [`Cursor`] is the only way anything is read back from a block. It never reads past its slice, and a length or count it returns
//! is never more than the bytes that are left could hold, so that no damaged number makes a reader allocate or loop for long.
//! Checksums are checked before a cursor is made; what it refuses is a block that was written wrong, not one that rotted.

/// Why a part of a block cannot be what a writer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) &'static str);

/// The longest varint: ten bytes of seven bits hold 64.
const VARINT_BYTES_MAX: usize = 10;

/// How many bytes are looked at together.
const WORD: usize = size_of::<u64>();

/// The bits of eight bytes that say of each whether it is followed by more of a varint: where they are clear, one ends.
const LAST_BYTES: u64 = 0x8080_8080_8080_8080;

/// The numbers below this take at most eight bytes.
pub(crate) const SHORT: u64 = 1 << 56;

/// Returns the bytes of a varint, the first in the lowest, and how many there are; `value` must be below [`SHORT`].
#[inline]
pub(crate) fn spread(value: u64) -> (u64, usize) {
    // Groups of 28, 14 and 7 bits move apart, each step into twice as many lanes.
    let x = (value & 0x0fff_ffff) | (value & 0x00ff_ffff_f000_0000) << 4;
    let x = (x & 0x0000_3fff_0000_3fff) | (x & 0x0fff_c000_0fff_c000) << 2;
    let x = (x & 0x007f_007f_007f_007f) | (x & 0x3f80_3f80_3f80_3f80) << 1;
    let len = len(value);
    // All bytes but the last say that more follow.
    let more = LAST_BYTES & ((1u64 << (8 * (len - 1))) - 1);
    (x | more, len)
}

/// Undoes [`spread`], given the bytes up to the last.
#[inline]
fn gather(bytes: u64) -> u64 {
    let x = bytes & 0x7f7f_7f7f_7f7f_7f7f;
    let x = (x & 0x007f_007f_007f_007f) | (x & 0x7f00_7f00_7f00_7f00) >> 1;
    let x = (x & 0x0000_3fff_0000_3fff) | (x & 0x3fff_0000_3fff_0000) >> 2;
    (x & 0x0fff_ffff) | (x & 0x0fff_ffff_0000_0000) >> 4
}

/// Appends `value` as a varint.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
    } else if value < SHORT {
        let (bytes, len) = spread(value);
        let end = out.len() + len;
        out.extend_from_slice(&bytes.to_le_bytes());
        out.truncate(end);
    } else {
        put_long(out, value);
    }
}

#[cold]
fn put_long(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Returns how many bytes [`put`] appends.
#[inline]
pub(crate) fn len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends `value` as a zigzag varint: small numbers of either sign stay short.
#[inline]
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, zigzag(value));
}

/// Appends `bytes` with their length before them.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Maps 0, -1, 1, -2 … to 0, 1, 2, 3 ….
#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A position in a slice of a block.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Has nothing to read.
    pub(crate) const fn empty() -> Self {
        Self { bytes: &[], at: 0 }
    }

    /// Takes all bytes that are left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    /// Returns how many bytes were read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Returns how many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Reads a varint.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Damage> {
        let rest = &self.bytes[self.at..];
        match rest.first() {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            Some(_) => self.long_varint(),
            None => Err(Damage("ends inside a number")),
        }
    }

    #[inline]
    fn long_varint(&mut self) -> Result<u64, Damage> {
        if let Some(bytes) = self.bytes[self.at..].first_chunk() {
            let bytes = u64::from_le_bytes(*bytes);
            let last = !bytes & LAST_BYTES;
            if last != 0 {
                let bits = last.trailing_zeros() + 1;
                self.at += bits as usize / 8;
                return Ok(gather(bytes & (u64::MAX >> (64 - bits))));
            }
        }
        self.longest_varint()
    }

    #[cold]
    fn longest_varint(&mut self) -> Result<u64, Damage> {
        let mut value = 0u64;
        for (i, &byte) in self.bytes[self.at..].iter().take(VARINT_BYTES_MAX).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        Err(Damage("ends inside a number, or a number is too long"))
    }

    /// Reads a zigzag varint.
    #[inline]
    pub(crate) fn signed(&mut self) -> Result<i64, Damage> {
        self.varint().map(unzigzag)
    }

    /// Reads a varint that fits 32 bits.
    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, Damage> {
        u32::try_from(self.varint()?).map_err(|_| Damage("a number is out of range"))
    }

    /// Reads an index into a table of `len` entries.
    #[inline]
    pub(crate) fn index(&mut self, len: usize) -> Result<u32, Damage> {
        match self.varint()? {
            i if i < len as u64 => Ok(i as u32),
            _ => Err(Damage("an index points past its table")),
        }
    }

    /// Reads `count` varints, each of which goes to `take`.
    ///
    /// # Errors
    /// Those that are left are fewer, or one is too long; those before it were taken.
    #[inline]
    pub(crate) fn each(&mut self, count: usize, mut take: impl FnMut(u64)) -> Result<(), Damage> {
        let mut left = count;
        while let Some((word, ends)) = self.word(left) {
            if ends == LAST_BYTES {
                word.to_le_bytes().into_iter().for_each(|byte| take(byte.into()));
                (self.at, left) = (self.at + WORD, left - WORD);
                continue;
            }
            let (mut start, mut ends) = (0, ends);
            while ends != 0 {
                let end = ends.trailing_zeros() + 1;
                take(gather(word >> start & u64::MAX >> (64 - (end - start))));
                (start, ends, left) = (end, ends & (ends - 1), left - 1);
            }
            self.at += start as usize / 8;
            // One of nine bytes or ten.
            if start == 0 {
                take(self.longest_varint()?);
                left -= 1;
            }
        }
        for _ in 0..left {
            take(self.varint()?);
        }
        Ok(())
    }

    /// Skips `count` varints.
    ///
    /// # Errors
    /// Those that are left are fewer, or one is too long.
    pub(crate) fn skip(&mut self, count: usize) -> Result<(), Damage> {
        let mut left = count;
        while let Some((_, ends)) = self.word(left) {
            if ends == 0 {
                self.longest_varint()?;
                left -= 1;
            }
            self.at += WORD - ends.leading_zeros() as usize / 8;
            left -= ends.count_ones() as usize;
        }
        (0..left).try_for_each(|_| self.varint().map(drop))
    }

    /// Returns the next eight bytes and a bit at the top of each in which a varint ends; nothing where there are fewer bytes, or more varints
    /// may end in them than are `left`.
    #[inline]
    fn word(&self, left: usize) -> Option<(u64, u64)> {
        let word = u64::from_le_bytes(*self.bytes[self.at..].first_chunk()?);
        (left >= WORD).then_some((word, !word & LAST_BYTES))
    }

    /// Reads the number of things that follow, each of which takes at least `bytes_each` bytes (at least one).
    pub(crate) fn count(&mut self, bytes_each: usize) -> Result<usize, Damage> {
        let count = self.varint()?;
        if count > (self.left() / bytes_each.max(1)) as u64 {
            return Err(Damage("a count is larger than what follows"));
        }
        Ok(count as usize)
    }

    /// Takes the next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Damage> {
        let taken = self.bytes[self.at..].get(..len).ok_or(Damage("ends too early"))?;
        self.at += len;
        Ok(taken)
    }

    /// Takes a length and that many bytes.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Damage> {
        let len = self.count(1)?;
        self.take(len)
    }

    /// Reads four bytes, the lowest first.
    pub(crate) fn u32_fixed(&mut self) -> Result<u32, Damage> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes were taken")))
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(&self) -> Result<(), Damage> {
        if self.left() == 0 { Ok(()) } else { Err(Damage("is longer than it should be")) }
    }
}

/// Reads `count` varints that fit 32 bits into `into`.
///
/// # Errors
/// Those that are left are fewer, or one does not fit.
#[inline]
pub(crate) fn read_indices(from: &mut Cursor<'_>, count: usize, into: &mut Vec<u32>) -> Result<(), Damage> {
    let mut is_beyond = false;
    from.each(count, |value| {
        is_beyond |= value > u64::from(u32::MAX);
        into.push(value as u32);
    })?;
    if is_beyond { Err(Damage("a number is out of range")) } else { Ok(()) }
}

/// A running value of which only the changes are written, as zigzag varints.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delta(i64);

impl Delta {
    /// Appends how `value` differs from the one before.
    #[inline]
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, value: u64) {
        put_signed(out, (value as i64).wrapping_sub(self.0));
        self.0 = value as i64;
    }

    /// Reads the next value.
    #[inline]
    pub(crate) fn read(&mut self, from: &mut Cursor<'_>) -> Result<u64, Damage> {
        self.0 = self.0.wrapping_add(from.signed()?);
        Ok(self.0 as u64)
    }

    /// Reads the next `count` values, indices each, into `into`.
    ///
    /// # Errors
    /// Those that are left are fewer, or one is no index: 2^32 - 1 or more.
    #[inline]
    pub(crate) fn read_indices(
        &mut self,
        from: &mut Cursor<'_>,
        count: usize,
        into: &mut Vec<u32>,
    ) -> Result<(), Damage> {
        let mut is_beyond = false;
        from.each(count, |said| {
            self.0 = self.0.wrapping_add(unzigzag(said));
            is_beyond |= self.0 as u64 >= u64::from(u32::MAX);
            into.push(self.0 as u32);
        })?;
        if is_beyond { Err(Damage("an index points past its table")) } else { Ok(()) }
    }

    /// Reads the next value, an index into a table of `len` entries.
    #[inline]
    pub(crate) fn read_index(&mut self, from: &mut Cursor<'_>, len: usize) -> Result<u32, Damage> {
        match self.read(from)? {
            i if i < len as u64 => Ok(i as u32),
            _ => Err(Damage("an index points past its table")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(
            values in proptest::collection::vec((0u32..64, any::<i64>()).prop_map(|(bits, n)| n >> bits), 0..64),
        ) {
            let (mut out, mut delta) = (Vec::new(), Delta::default());
            for &v in &values {
                let before = out.len();
                put(&mut out, v as u64);
                prop_assert_eq!(out.len() - before, len(v as u64));
                put_signed(&mut out, v);
                delta.put(&mut out, v as u64);
            }
            let (mut cursor, mut delta) = (Cursor::new(&out), Delta::default());
            for &v in &values {
                prop_assert_eq!(cursor.varint(), Ok(v as u64));
                prop_assert_eq!(cursor.signed(), Ok(v));
                prop_assert_eq!(delta.read(&mut cursor), Ok(v as u64));
            }
            prop_assert_eq!(cursor.finish(), Ok(()));
        }

        /// Many are read, and passed over, as they are one by one: short ones and long ones, and those that are too long or have no end.
        #[test]
        fn many_are_read_as_one_by_one(
            numbers in proptest::collection::vec(
                prop_oneof![6 => 1usize..=2, 2 => 3usize..=8, 2 => 9usize..=10, 1 => Just(11)],
                0..60,
            ),
            count in 0usize..70,
            end in proptest::collection::vec(0x80u8.., 0..12),
        ) {
            let number = |&len: &usize| (1..=len).map(move |at| if at == len { len as u8 } else { 0x80 | at as u8 });
            let bytes: Vec<u8> = numbers.iter().flat_map(number).chain(end).collect();
            let mut one = Cursor::new(&bytes);
            let expected: Result<Vec<u64>, _> = (0..count).map(|_| one.varint()).collect();
            let (mut many, mut skipped, mut read) = (Cursor::new(&bytes), Cursor::new(&bytes), Vec::new());
            let (each, skip) = (many.each(count, |value| read.push(value)), skipped.skip(count));
            prop_assert_eq!(skip.is_ok(), expected.is_ok());
            prop_assert_eq!(each.map(|()| read), expected);
            if skip.is_ok() {
                prop_assert_eq!((many.position(), skipped.position()), (one.position(), one.position()));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut cursor = Cursor::new(&bytes);
            while cursor.left() > 0 {
                let before = cursor.left();
                if cursor.varint().is_err() && cursor.bytes().is_err() {
                    break;
                }
                prop_assert!(cursor.left() < before);
            }
        }
    }

    #[test]
    fn a_count_never_exceeds_what_could_follow() {
        let mut out = Vec::new();
        put(&mut out, u64::MAX);
        out.extend([0; 32]);
        assert!(Cursor::new(&out).count(1).is_err());
        assert!(Cursor::new(&out).bytes().is_err());
        out[0] = 9;
        assert_eq!(Cursor::new(&out[..10]).count(1), Ok(9));
        assert!(Cursor::new(&out[..10]).count(2).is_err());
    }
}
