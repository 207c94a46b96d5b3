//! Which fields each message carried, and in which order, as numbers.
//!
//! A message that can be written again from its values has each field once, or one run of a repeated field, so its shape is a
//! sequence of distinct keys: ten at most, each a byte. A profile has few shapes; most messages have the shape of the one before.

use crate::model::ShapeIndex;

/// The keys of one message as they come.
#[derive(Clone, Copy, Default)]
pub(super) struct Keys {
    /// The keys, the latest in the lowest byte.
    code: u128,
    /// A bit for each field number that came.
    seen: u32,
    /// A field came again, so the values do not say what was written.
    pub(super) again: bool,
}

impl Keys {
    /// Adds a field that may come once.
    #[inline(always)]
    pub(super) fn once(&mut self, key: u8) {
        let bit = 1 << (key >> 3);
        self.again |= self.seen & bit != 0;
        self.seen |= bit;
        self.code = self.code << 8 | u128::from(key);
    }

    /// Adds an element of a run of fields with the same key.
    #[inline(always)]
    pub(super) fn run(&mut self, key: u8) {
        if self.code as u8 != key {
            self.once(key);
        }
    }
}

/// More distinct shapes than any encoder writes: beyond, the profile is kept as bytes rather than as columns.
const SHAPES_MAX: usize = 1024;

/// Places in the cache of recent shapes; a power of two. A message kind has one to four shapes in practice.
const RECENT: usize = 64;

/// The distinct shapes of a profile.
pub(super) struct Shapes {
    shapes: Vec<Box<[u8]>>,
    /// All codes with their shapes, sorted.
    sorted: Vec<(u128, ShapeIndex)>,
    /// Recent codes by a few bits of their hash.
    recent: [(u128, ShapeIndex); RECENT],
}

impl Shapes {
    /// Creates an empty set.
    pub(super) fn new() -> Self {
        // A code of all ones is no shape: its keys would be no fields.
        Self { shapes: Vec::new(), sorted: Vec::new(), recent: [(u128::MAX, 0); RECENT] }
    }

    /// Returns the number of the shape of `keys`, or `None` if there are too many.
    #[inline(always)]
    pub(super) fn number(&mut self, keys: Keys) -> Option<ShapeIndex> {
        let place = Self::place(keys.code);
        let (code, shape) = self.recent[place];
        if code == keys.code { Some(shape) } else { self.find(keys.code, place) }
    }

    #[inline(always)]
    fn place(code: u128) -> usize {
        // Fibonacci hashing of the first and last eight keys.
        let folded = (code as u64) ^ ((code >> 64) as u64).rotate_left(32);
        (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - RECENT.ilog2())) as usize
    }

    #[cold]
    fn find(&mut self, code: u128, place: usize) -> Option<ShapeIndex> {
        let shape = match self.sorted.binary_search_by_key(&code, |entry| entry.0) {
            Ok(i) => self.sorted[i].1,
            Err(_) if self.shapes.len() == SHAPES_MAX => return None,
            Err(i) => {
                let shape = self.shapes.len() as ShapeIndex;
                let keys = code.to_be_bytes();
                let start = (code.leading_zeros() / 8) as usize;
                self.shapes.push(keys[start..].into());
                self.sorted.insert(i, (code, shape));
                shape
            }
        };
        self.recent[place] = (code, shape);
        Some(shape)
    }

    /// Returns the shapes by number.
    pub(super) fn into_shapes(self) -> Vec<Box<[u8]>> {
        self.shapes
    }
}
