//! The pprof model and everything that can be said about a profile without asking anyone: no I/O, no clock, no async.
//!
//! Bytes come in through [`compress::inflate`] and [`decode::decode`], which check them against [`limits::Limits`], and leave through
//! [`encode`]. In between, [`model`] is what everyone reads. [`labels`], [`profile_type`] and [`selector`] are what a profile is
//! called and how it is asked for; [`merge`] makes one profile of many, [`diff`] holds two against each other, [`filter`]
//! leaves what is of interest, and [`tree`], [`top`], [`folded`] and [`dot`] are what people look at, with numbers as [`measure`] writes them;
//! [`functions`] makes tables of many profiles without a merge, of which [`stats`] tells changes from noise and [`spread`] what is usual.

pub mod compress;
pub mod decode;
pub mod diff;
pub mod dot;
mod drops;
pub mod encode;
pub mod error;
pub mod filter;
pub mod folded;
pub mod frames;
pub mod functions;
pub mod labels;
pub mod limits;
pub mod measure;
pub mod memory;
pub mod merge;
pub mod model;
pub mod profile_type;
pub mod selector;
pub mod spread;
pub mod stats;
pub mod top;
pub mod tree;
mod units;

pub use error::{Error, ErrorKind};
pub use labels::Labels;
pub use limits::Limits;
pub use model::Profile;
pub use profile_type::ProfileType;
pub use selector::Selector;
