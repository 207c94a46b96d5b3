//! The table of contents: everything a reader must know before it reads anything else.

use std::ops::Range;

use afterglow_profile::{Labels, ProfileType};

use super::frame::Frame;

/// What a block holds: its datasets and where the parts of each lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Toc {
    pub(crate) datasets: Vec<Dataset>,
    pub(crate) sections: Vec<Section>,
}

/// A contiguous part of a block with a checksum of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub(crate) kind: u32,
    pub(crate) version: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) crc: u32,
}

/// The profiles of one service and type in a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    pub(crate) service: Box<str>,
    pub(crate) profile_type: ProfileType,
    pub(crate) series: Vec<Labels>,
    pub(crate) sample_types: Vec<Vec<SampleType>>,
    pub(crate) time_nanos: Range<i64>,
    pub(crate) rows: Range<usize>,
    pub(crate) symbols: usize,
    pub(crate) chunks: Vec<Chunk>,
}

/// The name and the unit of one value of a sample.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleType {
    /// The name, such as `cpu`; what is not UTF-8 is shown as U+FFFD.
    pub kind: Box<str>,
    /// The unit, such as `nanoseconds`.
    pub unit: Box<str>,
}

/// A run of profiles whose columns are compressed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) profiles: usize,
    pub(crate) frames: Vec<Frame>,
}

impl Toc {
    /// Returns the datasets, sorted by service and type.
    pub fn datasets(&self) -> &[Dataset] {
        &self.datasets
    }

    /// Returns the sections in the order in which they lie.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Returns how many profiles the block holds.
    pub fn profiles(&self) -> usize {
        self.datasets.last().map_or(0, |dataset| dataset.rows.end)
    }
}

impl Section {
    /// Returns where it lies in the object.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.length
    }
}

impl Dataset {
    /// Returns the service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Returns the profile type.
    pub fn profile_type(&self) -> &ProfileType {
        &self.profile_type
    }

    /// Returns the labels of each series, sorted.
    pub fn series(&self) -> &[Labels] {
        &self.series
    }

    /// Returns the distinct lists of sample types its profiles have; a row names its own by index.
    pub fn sample_types(&self) -> &[Vec<SampleType>] {
        &self.sample_types
    }

    /// Returns the smallest time of a profile and one past the largest, in nanoseconds since 1970.
    pub fn time_nanos(&self) -> Range<i64> {
        self.time_nanos.clone()
    }

    /// Returns which rows of the block are its profiles.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }
}
