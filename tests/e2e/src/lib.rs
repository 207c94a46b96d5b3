//! What the end-to-end tests have in common: the real programs as child processes, MinIO, the test tools, and real profiles.
//!
//! Everything listens on loopback, on ports the system chooses, and ends with the value that stands for it: a dropped
//! [`Program`] is killed by its own process id. Logs go to files; the end of a log is shown when its test panics.

#![allow(clippy::print_stderr, reason = "a test explains itself on standard error")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test waits for programs that cannot wake it, and has its own environment"
)]

mod authority;
mod golden;
pub mod grafana;
mod minio;
mod profiles;
mod program;
mod pusher;
mod tiers;

pub use authority::Authority;
pub use golden::assert_merge_equals_pprof;
pub use minio::MinIo;
pub use profiles::{RealProfile, real_profiles, small_profile, tiny_profile};
pub use program::{Program, client, output, tool};
pub use pusher::{Address, Pushed, cpu_profile, push_until_acked};
pub use tiers::{Tiers, ids, merged_profiles};

use std::path::{Path, PathBuf};

/// Returns the root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Returns the program `name` that was built beside these tests, or lies in the folder named by `AFTERGLOW_TEST_PROGRAMS`: figures that are promised are
/// those of optimised programs.
///
/// # Panics
/// Says how to build it, where it is missing.
pub fn built(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("a running test has a path");
    let folder = tests.parent().expect("a program lies in a folder");
    // Tests lie in target/<profile>/deps, benchmarks beside the programs.
    let folder = if folder.ends_with("deps") { folder.parent().expect("deps lies in a folder") } else { folder };
    let elsewhere = std::env::var_os("AFTERGLOW_TEST_PROGRAMS").map(PathBuf::from);
    let program = elsewhere.as_deref().unwrap_or(folder).join(name);
    assert!(program.exists(), "{} is missing: run `make programs` first", program.display());
    program
}
