//! Why a profile is refused, in words for the person who sent it.
//!
//! Every variant carries facts: the place in the profile (`sample[7]`, `function[3].name`), the value, the limit with the name of
//! its setting, the byte offset after gunzip. Texts are part of the product's promises and are pinned by tests.

use std::fmt;

/// A refusal of a profile's bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There are no bytes, or none after gunzip.
    #[error("profile is empty")]
    Empty,
    /// The gzip framing, its checksum or what follows it is wrong.
    #[error("gzip stream is damaged at byte {byte}")]
    Gzip {
        /// How many bytes of the body were read when it showed.
        byte: usize,
    },
    /// What comes out of gunzip is gzip again.
    #[error("gzip inside gzip")]
    NestedGzip,
    /// The body as sent is larger than allowed.
    #[error("body {} exceeds max_body {} (--limits.max-body)", Beyond(*.bytes, *.limit), Size(*.limit))]
    Body {
        /// Its length in bytes.
        bytes: u64,
        /// The most bytes allowed.
        limit: u64,
    },
    /// The body holds more after gunzip than allowed.
    #[error("profile inflates beyond {} (--limits.max-inflated)", Size(*.limit))]
    Inflated {
        /// The most bytes allowed.
        limit: u64,
    },
    /// The body holds suspiciously more after gunzip than before.
    #[error("profile inflates beyond {ratio} times its {} (--limits.max-inflate-ratio)", Size(*.bytes))]
    InflateRatio {
        /// The length of the body in bytes.
        bytes: u64,
        /// The most times this length allowed.
        ratio: u64,
    },
    /// A field that no pprof profile has, or with a wire type that it never has.
    #[error("not a pprof profile: field {field} has wire type {wire_type} at byte {byte}")]
    NotPprof {
        /// The field.
        field: FieldPath,
        /// The wire type it has.
        wire_type: u8,
        /// Where its key starts.
        byte: usize,
    },
    /// A field says that it goes on beyond the message that holds it.
    #[error("protobuf ends inside field {field} at byte {byte}")]
    Truncated {
        /// The field.
        field: FieldPath,
        /// Where its message ends.
        byte: usize,
    },
    /// A varint does not fit into 64 bits.
    #[error("varint of field {field} is longer than 64 bits at byte {byte}")]
    Varint {
        /// The field.
        field: FieldPath,
        /// Where the varint starts.
        byte: usize,
    },
    /// There is no string table, or its first string is not the empty one.
    #[error("string_table[0] must be empty")]
    StringZero,
    /// A reference to a string that is not in the table.
    #[error("{place}: string index {index} out of range 0..{len}")]
    StringIndex {
        /// The field, such as `function[3].name`.
        place: String,
        /// The index it holds.
        index: i64,
        /// How many strings there are.
        len: usize,
    },
    /// An id of 0, which stands for "none" in references.
    #[error("{place}: {entity} id 0 is reserved")]
    IdZero {
        /// The message, such as `location[3]`.
        place: String,
        /// `mapping`, `location` or `function`.
        entity: &'static str,
    },
    /// Two entities of one kind with one id.
    #[error("{place}: {entity} id {id} is a duplicate")]
    IdDuplicate {
        /// The second message with this id, such as `location[3]`.
        place: String,
        /// `mapping`, `location` or `function`.
        entity: &'static str,
        /// The id.
        id: u64,
    },
    /// A reference to an entity that the profile does not hold.
    #[error("{place}: {entity} {id} not defined")]
    Undefined {
        /// The message that refers, such as `sample[7]`.
        place: String,
        /// `mapping`, `location` or `function`.
        entity: &'static str,
        /// The id it refers to.
        id: u64,
    },
    /// The profile does not say what its values count.
    #[error("missing sample type information")]
    NoSampleType,
    /// A sample has not one value for each sample type.
    #[error("sample[{sample}]: mismatch: sample has {values} values vs. {sample_types} types")]
    ValueCount {
        /// Which sample.
        sample: usize,
        /// How many values it has; where it has too many, how many were read when that showed.
        values: usize,
        /// How many sample types there are.
        sample_types: usize,
    },
    /// There is more of something than the limits allow.
    #[error("{what} {value} exceeds {setting} {limit} (--limits.{})", Flag(.setting))]
    Limit {
        /// What is too large, such as `sample[7] stack depth` or `samples`.
        what: String,
        /// Its size; where counting stopped early, the first that was too large.
        value: u64,
        /// The largest allowed.
        limit: u64,
        /// The name of the setting.
        setting: &'static str,
    },
}

/// What the sender may do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The profile is wrong: fix it.
    Invalid,
    /// The body is too large: send less, or have the limit raised.
    TooLarge,
}

impl Error {
    /// Returns what the sender may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Body { .. } | Self::Inflated { .. } | Self::InflateRatio { .. } => ErrorKind::TooLarge,
            _ => ErrorKind::Invalid,
        }
    }
}

/// A field by its protobuf numbers from the outermost message inwards: `2.3.1` is the key of a label of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPath {
    /// The fields that lead to the message that holds it.
    pub parents: &'static [u32],
    /// Its own number.
    pub number: u32,
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for parent in self.parents {
            write!(f, "{parent}.")?;
        }
        write!(f, "{}", self.number)
    }
}

/// Shows a number of bytes in the largest binary unit that keeps it above one, with at most one decimal.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let Some((unit, scale)) = UNITS.into_iter().find(|(_, scale)| self.0 >= *scale) else {
            return write!(f, "{} B", self.0);
        };
        if self.0.is_multiple_of(scale) {
            write!(f, "{} {unit}", self.0 / scale)
        } else {
            write!(f, "{:.1} {unit}", self.0 as f64 / scale as f64)
        }
    }
}

/// Shows a number of bytes beside the limit that it exceeds: to the byte where it would read like that.
struct Beyond(u64, u64);

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes, limit) = *self;
        let shown = Size(bytes).to_string();
        if shown.replace(".0 ", " ") == Size(limit).to_string() { write!(f, "{bytes} B") } else { f.write_str(&shown) }
    }
}

/// Shows the name of a setting as its flag spells it.
struct Flag<'a>(&'a str);

impl fmt::Display for Flag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.split('_').enumerate().try_for_each(|(i, word)| write!(f, "{}{word}", if i == 0 { "" } else { "-" }))
    }
}
