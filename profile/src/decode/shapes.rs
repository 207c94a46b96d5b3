//! Which fields each message carried, and in which order, as numbers.
//!
//! A message that can be written again from its values has each field once, or one run of a repeated field, so its shape is a
//! sequence of distinct keys: ten at most, each a byte. A profile has few shapes; most messages have the shape of the one before.

use crate::model::ShapeIndex;

/// The keys of one message as they come, the latest in the lowest byte.
///
/// After more than sixteen, the first are forgotten; then some field has come twice, as messages have ten at most.
#[derive(Clone, Copy, Default)]
pub(super) struct Keys(u128);

impl Keys {
    /// Adds a field.
    #[inline(always)]
    pub(super) fn once(&mut self, key: u8) {
        self.0 = self.0 << 8 | u128::from(key);
    }

    /// Adds an element of a run of fields with the same key.
    #[inline(always)]
    pub(super) fn run(&mut self, key: u8) {
        if self.0 as u8 != key {
            self.once(key);
        }
    }

    /// Returns the keys in order if they tell all: each field comes once, or in one run.
    fn shape(self) -> Option<Box<[u8]>> {
        let keys = self.0.to_be_bytes();
        let keys = &keys[(self.0.leading_zeros() / 8) as usize..];
        let mut seen = 0u32;
        for key in keys {
            let bit = 1 << (key >> 3);
            if keys.len() > FIELDS_MAX || seen & bit != 0 {
                return None;
            }
            seen |= bit;
        }
        Some(keys.into())
    }
}

/// The most fields of a message: those of a mapping.
const FIELDS_MAX: usize = 10;

/// More distinct shapes than any encoder writes: beyond, the profile is kept as bytes rather than as columns.
const SHAPES_MAX: usize = 1024;

/// Places in the cache of recent shapes; a power of two. A message kind has one to four shapes in practice.
const RECENT: usize = 64;

/// The distinct shapes of a profile.
pub(super) struct Shapes {
    shapes: Vec<Box<[u8]>>,
    /// All keys that have a shape, sorted.
    sorted: Vec<(u128, ShapeIndex)>,
    /// Recent keys by a few bits of their hash.
    recent: [(u128, ShapeIndex); RECENT],
}

impl Shapes {
    /// Creates an empty set.
    pub(super) fn new() -> Self {
        // No message has the keys that all ones would be.
        Self { shapes: Vec::new(), sorted: Vec::new(), recent: [(u128::MAX, 0); RECENT] }
    }

    /// Returns the number of the shape that `keys` make, or `None` if they make none or there are too many.
    #[inline(always)]
    pub(super) fn number(&mut self, keys: Keys) -> Option<ShapeIndex> {
        // Fibonacci hashing of the first and the last eight keys.
        let folded = (keys.0 as u64) ^ ((keys.0 >> 64) as u64).rotate_left(32);
        let place = (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - RECENT.ilog2())) as usize;
        let (recent, shape) = self.recent[place];
        if recent == keys.0 { Some(shape) } else { self.find(keys, place) }
    }

    #[inline(never)]
    fn find(&mut self, keys: Keys, place: usize) -> Option<ShapeIndex> {
        let shape = match self.sorted.binary_search_by_key(&keys.0, |entry| entry.0) {
            Ok(i) => self.sorted[i].1,
            Err(_) if self.shapes.len() == SHAPES_MAX => return None,
            Err(i) => {
                let shape = self.shapes.len() as ShapeIndex;
                self.shapes.push(keys.shape()?);
                self.sorted.insert(i, (keys.0, shape));
                shape
            }
        };
        self.recent[place] = (keys.0, shape);
        Some(shape)
    }

    /// Returns the shapes by number.
    pub(super) fn into_shapes(self) -> Vec<Box<[u8]>> {
        self.shapes
    }
}
