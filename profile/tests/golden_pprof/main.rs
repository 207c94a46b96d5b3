//! What google/pprof itself makes of real profiles, and what we make of them: sample for sample, row for row.
//!
//! tests/golden/go asks google/pprof; it is built with Go, which these tests need. They run over tests/fixtures/{profiles,producers}
//! and over the folder named by AFTERGLOW_TEST_PROFILES (by default `../shared/profiles` beside the workspace) where that exists.

mod diffs;
mod filters;
mod golden;
mod graphs;
mod merges;
#[path = "../sketch/mod.rs"]
mod sketch;
