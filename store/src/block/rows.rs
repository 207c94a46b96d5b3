//! The rows of a block: one a profile, as a Parquet row group.

use ulid::Ulid;

/// What a block says of one profile without its samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The id of the profile.
    pub id: Ulid,
    /// An index into [`Toc::datasets`](super::Toc::datasets).
    pub dataset: u32,
    /// An index into [`Dataset::series`](super::Dataset::series).
    pub series: u32,
    /// An index into [`Dataset::sample_types`](super::Dataset::sample_types): what the totals count.
    pub sample_types: u32,
    /// When it was taken, in nanoseconds since 1970.
    pub time_nanos: i64,
    /// How long it was recorded, in nanoseconds.
    pub duration_nanos: i64,
    /// The sum of each sample type's values, saturating.
    pub totals: Box<[i64]>,
    /// The length of its protobuf bytes.
    pub raw_bytes: u64,
    /// How many samples it has.
    pub samples: u64,
    /// The SHA-256 of its protobuf bytes.
    pub sha256: [u8; 32],
    /// Whether it is kept as columns; else its protobuf bytes are kept as they were.
    pub columns: bool,
    pub(crate) chunk: u32,
    pub(crate) position: u32,
}
