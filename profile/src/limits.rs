//! How much of everything a profile may hold.
//!
//! They keep a small body from costing much memory or time, and are far above what real profilers write. What is over a limit is
//! refused with the limit's name, never cut. The names of the settings are those of the fields with `max` in front.

/// The limits that decoding keeps. `Default` gives those that the documentation promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of a body as sent, compressed or not.
    pub body_bytes_max: u64,
    /// The most bytes of a profile after gunzip.
    pub inflated_bytes_max: u64,
    /// The most times its length that a body may inflate to, once it is beyond [`INFLATE_RATIO_FREE_BYTES`].
    pub inflate_ratio_max: u64,
    /// The most samples.
    pub samples_max: u64,
    /// The most locations in the stack of one sample.
    pub stack_depth_max: u64,
    /// The most locations in the stacks of all samples together.
    pub stack_locations_max: u64,
    /// The most bytes of one string.
    pub string_bytes_max: u64,
    /// The most sample types. Real profiles have one to four.
    pub sample_types_max: u64,
    /// The most mappings.
    pub mappings_max: u64,
    /// The most locations.
    pub locations_max: u64,
    /// The most lines of all locations together.
    pub lines_max: u64,
    /// The most functions.
    pub functions_max: u64,
    /// The most strings.
    pub strings_max: u64,
    /// The most labels of all samples together.
    pub labels_max: u64,
    /// The most comments.
    pub comments_max: u64,
}

/// How far a body may inflate whatever its ratio: small repetitive profiles compress very well.
pub const INFLATE_RATIO_FREE_BYTES: u64 = 8 << 20;

impl Limits {
    /// Refuses nothing: for profiles that were taken already, under limits of whoever took them.
    pub const UNLIMITED: Self = Self {
        body_bytes_max: u64::MAX,
        inflated_bytes_max: u64::MAX,
        inflate_ratio_max: u64::MAX,
        samples_max: u64::MAX,
        stack_depth_max: u64::MAX,
        stack_locations_max: u64::MAX,
        string_bytes_max: u64::MAX,
        sample_types_max: u64::MAX,
        mappings_max: u64::MAX,
        locations_max: u64::MAX,
        lines_max: u64::MAX,
        functions_max: u64::MAX,
        strings_max: u64::MAX,
        labels_max: u64::MAX,
        comments_max: u64::MAX,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 << 20,
            inflated_bytes_max: 64 << 20,
            inflate_ratio_max: 200,
            samples_max: 1_000_000,
            stack_depth_max: 4096,
            stack_locations_max: 16_000_000,
            string_bytes_max: 64 << 10,
            sample_types_max: 64,
            mappings_max: 65_536,
            locations_max: 1_000_000,
            lines_max: 4_000_000,
            functions_max: 1_000_000,
            strings_max: 1_000_000,
            labels_max: 4_000_000,
            comments_max: 65_536,
        }
    }
}
