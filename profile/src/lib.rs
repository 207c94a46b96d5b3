//! The pprof model and everything that can be said about a profile without asking anyone: no I/O, no clock, no async.

pub mod folded;
mod frames;
pub mod merge;
pub mod model;
pub mod top;
pub mod tree;
