//! The pprof model and everything that can be said about a profile without asking anyone: no I/O, no clock, no async.

pub mod model;
