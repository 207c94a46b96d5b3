//! Guesses at the next index, so that what is written is mostly 0 or small.
//!
//! Tables hold their entries in the order of first use. So an index is either the first that was not used yet, or one that was used before,
//! often lately.

use smallvec::SmallVec;

use crate::block::varint::{self, Cursor, Damage};

/// Says an index as how far it lies before the first that was not used yet: 0 for a new one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    /// One more than the largest index so far.
    next: u64,
    /// How many indices there are; distances are taken modulo this, so that any index can be said.
    len: u64,
}

impl Newest {
    /// Expects indices into a table of `len` entries, of which the first `next` count as used.
    pub(super) fn new(next: usize, len: usize) -> Self {
        Self { next: next as u64, len: len as u64 }
    }

    /// Takes note of an index that is said in another way.
    pub(super) fn see(&mut self, index: u64) {
        self.next = self.next.max(index + 1);
    }

    pub(super) fn put(&mut self, out: &mut Vec<u8>, index: u64) {
        varint::put(out, (self.next + self.len - index) % self.len);
        self.see(index);
    }

    #[inline]
    pub(super) fn read(&mut self, from: &mut Cursor<'_>) -> Result<u64, Damage> {
        let distance = from.varint()?;
        if distance >= self.len {
            return Err(Damage("an index points past its table"));
        }
        // That is modulo `len`, for `next` is at most `len`; a division is what takes longest here.
        let index = if distance <= self.next { self.next - distance } else { self.next + self.len - distance };
        let index = if index == self.len { 0 } else { index };
        self.see(index);
        Ok(index)
    }
}

/// How many indices [`Recent`] remembers: so many that searching them costs little.
const RECENT_MAX: usize = 64;

/// Says an index as its place among those used last: 1 for the last one; 0 says that it is none of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    list: SmallVec<[u32; 4]>,
}

impl Recent {
    /// Appends the place of `index` and returns whether it had one; if not, it must be said in another way.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, index: u32) -> bool {
        let place = self.list.iter().position(|&recent| recent == index);
        varint::put(out, place.map_or(0, |place| place as u64 + 1));
        match place {
            Some(place) => self.use_again(place),
            None => self.add(index),
        }
        place.is_some()
    }

    /// Reads what [`Recent::put`] wrote; an index that had no place is read by `otherwise`.
    pub(super) fn read(
        &mut self,
        from: &mut Cursor<'_>,
        otherwise: impl FnOnce() -> Result<u32, Damage>,
    ) -> Result<u32, Damage> {
        match from.varint()? {
            0 => self.add(otherwise()?),
            place if place <= self.list.len() as u64 => self.use_again(place as usize - 1),
            _ => return Err(Damage("a place points past what was used")),
        }
        Ok(self.list[0])
    }

    /// Makes the one at a place, from 0, the last one used. Mostly it is the last one, or was shortly before.
    fn use_again(&mut self, place: usize) {
        let index = self.list[place];
        self.list.copy_within(..place, 1);
        self.list[0] = index;
    }

    fn add(&mut self, index: u32) {
        self.list.truncate(RECENT_MAX - 1);
        self.list.insert(0, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn indices_come_back(indices in proptest::collection::vec(0u32..200, 0..300)) {
            let (mut places, mut others) = (Vec::new(), Vec::new());
            let (mut recent, mut newest) = (Recent::default(), Newest::new(0, 200));
            for &index in &indices {
                if recent.put(&mut places, index) {
                    newest.see(index.into());
                } else {
                    newest.put(&mut others, index.into());
                }
            }
            let (places, others) = (&mut Cursor::new(&places), &mut Cursor::new(&others));
            let (mut recent, mut newest) = (Recent::default(), Newest::new(0, 200));
            for &index in &indices {
                let read = recent.read(places, || newest.read(others).map(|index| index as u32));
                prop_assert_eq!(read, Ok(index));
                newest.see(index.into());
            }
            prop_assert_eq!(others.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64), len in 1usize..300) {
            let from = &mut Cursor::new(&bytes);
            let (mut recent, mut newest) = (Recent::default(), Newest::new(0, len));
            while from.left() > 0 {
                match newest.read(from) {
                    Ok(index) => prop_assert!(index < len as u64),
                    Err(_) => break,
                }
                if recent.read(from, || Ok(7)).is_err() {
                    break;
                }
            }
        }
    }
}
