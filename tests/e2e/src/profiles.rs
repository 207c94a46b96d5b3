//! Real profiles to send.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use afterglow_profile::compress::inflate;
use afterglow_profile::limits::Limits;
use base64::Engine as _;
use sha2::{Digest as _, Sha256};

/// A profile of a real program.
#[derive(Clone, Debug)]
pub struct RealProfile {
    /// Where it lies.
    pub path: PathBuf,
    /// The program and type it is of, from its name: files of one series merge.
    pub series: String,
    /// The profile type, from its name.
    pub profile_type: String,
    /// The bytes as the program gave them: gzip'd, or not.
    pub body: Vec<u8>,
    /// The SHA-256 of the protobuf, in hexadecimal.
    pub sha256: String,
}

/// Returns every real profile there is: those of `tests/fixtures/profiles`, and those of `AFTERGLOW_TEST_PROFILES` (by default
/// `../shared/profiles` beside the repository) where that folder exists.
///
/// # Panics
/// Says what is wrong, where a file cannot be read.
pub fn real_profiles() -> Vec<RealProfile> {
    let more = std::env::var_os("AFTERGLOW_TEST_PROFILES")
        .map_or_else(|| crate::workspace().join("../shared/profiles"), PathBuf::from);
    let mut found = Vec::new();
    if more.is_dir() {
        collect(&more, &mut found);
        collect(&more.join("foreign"), &mut found);
    } else {
        let _ = writeln!(std::io::stderr(), "{} is missing: only the fixtures are tested", more.display());
        collect(&crate::workspace().join("tests/fixtures/profiles"), &mut found);
    }
    assert!(!found.is_empty(), "no profiles to test with");
    // Written past the capture of tests that pass: how much was shown depends on what is there.
    let _ = writeln!(std::io::stderr(), "testing with {} real profiles", found.len());
    found
}

/// Adds the profiles that lie in `folder`, by name.
fn collect(folder: &Path, found: &mut Vec<RealProfile>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("a readable folder").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|n| n.to_str()).expect("profile names are UTF-8").to_owned();
        if !name.ends_with(".pb.gz") && !name.ends_with(".pprof") {
            continue;
        }
        let body = std::fs::read(&path).expect("a readable profile");
        let raw = inflate(&body, &Limits::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let sha256 = hex::encode(Sha256::digest(&raw));
        let parts: Vec<&str> = name.split('-').collect();
        let (series, profile_type) = match parts[..] {
            [server, kind, ..] if parts.len() >= 3 => (format!("{server}-{kind}"), kind.to_owned()),
            _ => (name.trim_end_matches(".pb.gz").to_owned(), "other".to_owned()),
        };
        found.push(RealProfile { path, series, profile_type, body, sha256 });
    }
}

/// Returns the smallest of the real profiles.
pub fn small_profile() -> Vec<u8> {
    real_profiles().into_iter().map(|p| p.body).min_by_key(Vec::len).expect("at least one profile")
}

/// A pprof with one sample of 10 ms in `helm_test`, and no time of its own.
const TINY: &str =
    "CgQIARACEgkKAQESBICt4gQiBggBIgIIASoGCAEQAxgDMgAyA2NwdTILbmFub3NlY29uZHMyCWhlbG1fdGVzdFoECAEQAmCAreIE";
const TINY_FUNCTION: &[u8] = b"helm_test";

/// Returns a profile of now with one sample of 10 ms of CPU in a function of this name.
///
/// # Panics
/// When the name does not have nine bytes: it takes the place of another.
pub fn tiny_profile(function: &str) -> Vec<u8> {
    let mut pprof = base64::engine::general_purpose::STANDARD.decode(TINY).expect("base64");
    let at = pprof.windows(TINY_FUNCTION.len()).position(|window| window == TINY_FUNCTION).expect("its function");
    pprof[at..at + TINY_FUNCTION.len()].copy_from_slice(function.as_bytes());
    pprof
}
