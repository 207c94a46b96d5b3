//! What is read of a block before it is needed, of several datasets at once.
//!
//! A question about many services reads little of each dataset of a block, and each by itself: that would be a request for each, one round trip
//! after the other. Datasets lie next to each other, so whoever knows which come next reads some of them together.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::error::Error;
use super::reader::Block;

/// Ranges of one block that were read; cheap to clone. Whoever needs another reads it.
#[derive(Clone, Debug, Default)]
pub struct Ahead(Option<Arc<FxHashMap<Range<u64>, Bytes>>>);

// === impl Ahead ===

impl Ahead {
    /// Returns what was read of a range.
    pub(super) fn get(&self, range: &Range<u64>) -> Option<&Bytes> {
        self.0.as_ref()?.get(range)
    }
}

// === impl Block ===

impl Block {
    /// Reads ranges together, such as [`Block::ranges_by_group`] returns for several datasets.
    ///
    /// # Errors
    /// The object cannot be read, or is shorter.
    pub async fn read_ahead(&self, ranges: &[Range<u64>]) -> Result<Ahead, Error> {
        let parts = self.get_ranges(ranges, &Ahead::default()).await?;
        Ok(Ahead(Some(Arc::new(ranges.iter().cloned().zip(parts).collect()))))
    }
}
