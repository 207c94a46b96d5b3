//! Writes a segment: a block of level 0.

use afterglow_profile::{Labels, Profile, ProfileType};
use bytes::Bytes;
use ulid::Ulid;

use super::Error;

/// What a sender says of a profile besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileMeta {
    /// The id.
    pub id: Ulid,
    /// The type.
    pub profile_type: ProfileType,
    /// The labels, among them `service`.
    pub labels: Labels,
    /// When it was taken, in nanoseconds since 1970.
    pub time_nanos: i64,
    /// How long it was recorded, in nanoseconds.
    pub duration_nanos: i64,
}

/// How a segment is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// The compression level of zstd.
    pub zstd_level: i32,
    /// The most entries the shared tables of one service may have; a profile that comes when they are full is kept as it was sent.
    pub symbols_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { zstd_level: 3, symbols_max: 1 << 22 }
    }
}

/// Gathers profiles and makes one block of them.
#[derive(Debug)]
pub struct SegmentWriter {
    options: Options,
    profiles: usize,
    raw_bytes: u64,
}

/// How a profile was taken into a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// The SHA-256 of its protobuf bytes.
    pub sha256: [u8; 32],
    /// Whether it is kept as columns; else its protobuf bytes are kept as they were sent.
    pub columns: bool,
}

/// A finished segment.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The bytes of the object.
    pub bytes: Bytes,
    /// How many profiles it holds.
    pub profiles: usize,
    /// How many of them are kept as columns.
    pub columns: usize,
    /// The length of all their protobuf bytes.
    pub raw_bytes: u64,
}

impl SegmentWriter {
    /// Makes an empty segment.
    pub fn new(options: Options) -> Self {
        Self { options, profiles: 0, raw_bytes: 0 }
    }

    /// Adds a profile; `profile` is what `raw` decodes to.
    ///
    /// # Errors
    /// The format cannot hold another profile; the segment is as it was.
    pub fn add(&mut self, _meta: ProfileMeta, _raw: &[u8], _profile: &Profile<'_>) -> Result<Added, Error> {
        Err(Error::Unwritable { what: "a profile yet" })
    }

    /// Returns how many profiles were added.
    pub fn len(&self) -> usize {
        self.profiles
    }

    /// Returns whether none was added.
    pub fn is_empty(&self) -> bool {
        self.profiles == 0
    }

    /// Returns the length of all protobuf bytes that were added.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    /// Makes the block.
    ///
    /// # Errors
    /// The segment is larger than the format can say.
    pub fn finish(self) -> Result<Finished, Error> {
        let _ = self.options;
        Err(Error::Unwritable { what: "a profile yet" })
    }
}
