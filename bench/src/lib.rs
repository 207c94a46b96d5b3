//! What the benchmarks have in common: a fleet made of real profiles, a bucket of them, a querier to ask, and the cost of a process as the
//! kernel counts it.
//!
//! Figures are CPU time, counts and ratios of two things measured in one run: machines are noisy, and wall time alone says little.

pub mod bucket;
pub mod cpu;
pub mod fleet;
pub mod process;
pub mod questions;
