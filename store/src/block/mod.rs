//! The block: an immutable object that holds many profiles, and the only form in which profiles lie in the bucket.
//!
//! A block is a Parquet file with one row a profile. What the rows do not say (stacks, values, everything that makes the exact bytes)
//! lies in sections between the file's magic and its first row group, where Parquet readers do not look. docs/format.md describes the
//! bytes; the modules here follow it from the inside out:
//!
//! - `varint`, `planes`, `frame`: numbers, numbers by their bytes, and checked, compressed runs of bytes;
//! - `symbols`: the tables all profiles of a service share; `columns`, `chunk`: what is left of a profile then, alone and with others;
//! - `values`, `sampling`: the values of a chunk, and what a sampling profiler makes of those it saw;
//! - `order`, `pattern`, `rebuild`, `sink`: a profile's exact protobuf bytes from both;
//! - `gather`, `rows`, `toc`, `layout`: the profiles of a dataset together, what is known of a profile and a block without either, and where everything lies;
//! - `sums`, `rollups`: what profiles add up to, and the sums that lie beside them hour by hour; `decoded`: what questions keep of either;
//! - `to_read`, `ahead`, `piece`: what a question will read of a dataset, what it reads of several together, and what of one at a time;
//! - `filters`: which functions the tables of a service have, in a few bits a name;
//! - [`SegmentWriter`] writes a block of level 0, [`Merge`] makes larger ones of several, [`Block`] reads one of any level,
//!   [`Aggregate`] is the sum of many profiles, [`Grouped`] their values group by group.
//!
//! Invariants: what is read is checked before it is used; a profile comes back as the bytes that were added, proven by their SHA-256.
//! Must not enter: object keys, commits, clocks.

mod aggregate;
mod ahead;
pub(crate) mod chunk;
pub(crate) mod columns;
mod decoded;
mod error;
pub(crate) mod filters;
mod frame;
mod gather;
mod grouped;
mod layout;
mod merge;
mod order;
mod pattern;
mod piece;
mod planes;
mod reader;
mod rebuild;
mod rollups;
mod rows;
mod sampling;
mod sink;
mod sums;
pub(crate) mod symbols;
mod to_read;
mod toc;
pub(crate) mod values;
pub(crate) mod varint;
mod writer;

pub use aggregate::{Aggregate, SampleTypes};
pub use ahead::Ahead;
pub use decoded::{Decoded, Keep};
pub use error::Error;
pub use grouped::{Grouped, Part, Wanted};
pub(crate) use merge::ROWS_MAX;
pub use merge::{Footprint, Input, Merge, MergeOptions, Merged, Stats, Summary};
pub use reader::Block;
pub(crate) use reader::{BLOCK_BYTES, DATASET_BYTES};
pub use rows::Row;
pub use to_read::ToRead;
pub use toc::{Dataset, SampleType, Section, Toc};
pub use writer::{Added, Finished, Options, ProfileMeta, SegmentWriter};
