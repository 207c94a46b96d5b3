//! What is kept of a dataset: what chosen profiles of it came to, so that the next question about them reads and sums nothing.
//!
//! It lies beside what is decoded of blocks, in the same bound, and is shed with it. The key says all that it depends on: blocks are
//! immutable, and which profiles are meant, in which groups, by which sample types, and which function counts, is in it. So a question that
//! is asked again finds everything, as long as its window holds the same profiles of a block, which is so for all blocks but the newest
//! and those at its ends.

use std::sync::Arc;

use afterglow_store::block::{Block, Wanted};
use xxhash_rust::xxh3::Xxh3Default;

use super::Made;

/// What is kept of one dataset for one question at most, in bytes: the functions of a large program. What is larger, as many groups are, is
/// made anew each time.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// What chosen profiles of a dataset are known by. It does not say of which block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u128);

/// What is made of a dataset, until it is kept.
pub(super) struct Keeping<M> {
    /// Nothing where it is not to be kept.
    key: Option<Key>,
    made: Vec<M>,
    bytes: usize,
}

// === impl Key ===

impl Key {
    /// Makes the key of what rows of a dataset come to, of all functions or of one.
    pub(super) fn new(function: Option<&str>, dataset: usize, rows: &[(usize, Wanted)]) -> Self {
        let mut hasher = Xxh3Default::new();
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

    /// Returns what was kept of a block.
    pub(super) fn find<M: Made>(self, block: &Block) -> Option<Arc<Vec<M>>> {
        block.made(self.0)
    }
}

// === impl Keeping ===

impl<M: Made> Keeping<M> {
    /// Starts with nothing, which is to be kept under a key, if there is one.
    pub(super) fn new(key: Option<Key>) -> Self {
        Self { key, made: Vec::new(), bytes: 0 }
    }

    /// Takes what was made.
    pub(super) fn add(&mut self, made: M) {
        if self.key.is_none() {
            return;
        }
        self.bytes += size_of::<M>() + made.memory();
        self.made.push(made);
        if self.bytes > KEPT_BYTES_MAX {
            (self.key, self.made) = (None, Vec::new());
        }
    }

    /// Keeps all of it.
    pub(super) fn keep(self, block: &Block) {
        if let Some(Key(key)) = self.key {
            block.keep_made(key, Arc::new(self.made), self.bytes as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whatever changes what is made has another key.
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
