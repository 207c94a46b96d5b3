//! What can go wrong with a block.

use object_store::path::Path;

use super::varint::Damage;

/// Why a block could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was read is not what was written; other parts of the block may still be good.
    #[error("block {block} is corrupt: {part} {damage}")]
    Corrupt {
        /// The key of the object.
        block: Path,
        /// The damaged part.
        part: String,
        /// What is wrong with it, continuing the sentence.
        damage: &'static str,
    },
    /// A newer version wrote the block in a way that this one does not know.
    #[error("block {block} needs a reader of format version {needed}, this one knows {known}")]
    TooNew {
        /// The key of the object.
        block: Path,
        /// The version a reader must know at least.
        needed: u32,
        /// The version this reader knows.
        known: u32,
    },
    /// The object store did not give what was asked for.
    #[error("block {block} could not be read")]
    Read {
        /// The key of the object.
        block: Path,
        /// What the object store says.
        source: object_store::Error,
    },
    /// A segment was asked to hold a profile or a number of profiles that the format cannot hold.
    #[error("a segment cannot hold {what}")]
    Unwritable {
        /// What it cannot hold.
        what: &'static str,
    },
    /// Merging blocks would take more memory than it may.
    #[error("merging these blocks takes {needed} bytes of memory for their tables, more than the {max} it may")]
    Memory {
        /// How many bytes their tables take.
        needed: u64,
        /// How many they may.
        max: u64,
    },
    /// The rows could not be written as Parquet.
    #[error("the rows of a segment could not be written as parquet")]
    Rows(#[from] parquet::errors::ParquetError),
}

impl Error {
    /// Makes the error for a damaged part of a block.
    pub(crate) fn corrupt(block: &Path, part: impl Into<String>, damage: Damage) -> Self {
        Self::Corrupt { block: block.clone(), part: part.into(), damage: damage.0 }
    }

    /// Returns whether the block is damaged, so that reading it again will not help.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}
