//! What is kept of a dataset: what chosen profiles of it came to, so that the next question about them reads and sums nothing.
//!
//! It lies beside what is decoded of blocks, in the same bound, and is shed with it. The key says all that it depends on: blocks are
//! immutable, and which profiles are meant, in which groups, by which sample types, and which function counts, is in it. So a question that
//! is asked again finds everything, as long as its window holds the same profiles of a block, which is so for all blocks but the newest
//! and those at its ends.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, LazyLock};

use afterglow_store::block::{Block, Wanted};
use xxhash_rust::xxh3::Xxh3Builder;

use super::Subtotal;

/// Which part of the room the subtotals of one dataset may take: with 256 MiB, 4 MiB are 40,000 functions, in one group or in many. What is
/// larger is summed anew each time.
const KEPT_PART: u64 = 64;

/// For names are what others send.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

/// What chosen profiles of a dataset are known by. It does not say of which block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u128);

/// The subtotals of a dataset, until they are kept.
pub(super) struct Keeping<S> {
    /// Nothing where they are not to be kept.
    key: Option<Key>,
    bytes_max: u64,
    subtotals: Vec<S>,
    bytes: u64,
}

// === impl Key ===

impl Key {
    /// Makes the key of what rows of a dataset come to, of all functions or of one.
    pub(super) fn new(function: Option<&str>, dataset: usize, rows: &[(usize, Wanted)]) -> Self {
        let mut hasher = Xxh3Builder::new().with_seed(*SEED).build();
        let mut add = |number: u64| hasher.update(&number.to_le_bytes());
        // How long the name is, which stands at the end, tells how many rows stand before it.
        add(function.map_or(0, |name| 1 + name.len() as u64));
        add(dataset as u64);
        for (row, Wanted { group, column, factor }) in rows {
            add(*row as u64);
            add(u64::from(*group));
            add(*column as u64);
            add(*factor as u64);
            add((*factor >> 64) as u64);
        }
        hasher.update(function.unwrap_or_default().as_bytes());
        Self(hasher.digest128())
    }

    /// Returns whether something is kept of a block, without use of it.
    pub(super) fn is_kept(self, block: &Block) -> bool {
        block.has_derived(self.0)
    }

    /// Returns what was kept of a block.
    pub(super) fn find<S: Subtotal>(self, block: &Block) -> Option<Arc<Vec<S>>> {
        block.derived(self.0)
    }
}

// === impl Keeping ===

impl<S: Subtotal> Keeping<S> {
    /// Starts with nothing, which is to be kept of a block under a key, if there is one.
    pub(super) fn new(key: Option<Key>, block: &Block) -> Self {
        Self { key, bytes_max: block.keeps_bytes_max() / KEPT_PART, subtotals: Vec::new(), bytes: 0 }
    }

    /// Takes one, if `is_room` for so many bytes more. Where there is none, none are kept.
    pub(super) fn add(&mut self, subtotal: S, is_room: impl FnOnce(u64) -> bool) {
        if self.key.is_none() {
            return;
        }
        let bytes = (size_of::<S>() + subtotal.memory()) as u64;
        if self.bytes + bytes > self.bytes_max || !is_room(bytes) {
            self.key = None;
            self.subtotals = Vec::new();
            return;
        }
        self.bytes += bytes;
        self.subtotals.push(subtotal);
    }

    /// Returns how many bytes of room were taken for them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps all of it.
    pub(super) fn keep(self, block: &Block) {
        if let Some(Key(key)) = self.key {
            block.keep_derived(key, Arc::new(self.subtotals), self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whatever changes a subtotal has another key.
    #[test]
    fn a_key_says_all_that_counts() {
        let wanted = Wanted { group: 0, column: 0, factor: 1 };
        let other = [
            (None, 0, vec![(7, wanted), (8, wanted)]),
            (None, 1, vec![(7, wanted), (8, wanted)]),
            (None, 0, vec![(7, wanted)]),
            (None, 0, vec![]),
            (None, 0, vec![(7, wanted), (9, wanted)]),
            (None, 0, vec![(7, wanted), (8, Wanted { group: 1, ..wanted })]),
            (None, 0, vec![(7, wanted), (8, Wanted { column: 1, ..wanted })]),
            (None, 0, vec![(7, wanted), (8, Wanted { factor: -1, ..wanted })]),
            (None, 0, vec![(7, wanted), (8, Wanted { factor: 1 + (1 << 64), ..wanted })]),
            (Some(""), 0, vec![(7, wanted), (8, wanted)]),
            (Some("main"), 0, vec![(7, wanted), (8, wanted)]),
            (Some("mait"), 0, vec![(7, wanted), (8, wanted)]),
        ];
        let keys = other.map(|(function, dataset, rows)| Key::new(function, dataset, &rows));
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(keys.iter().position(|other| other == key), Some(at));
        }
    }
}
