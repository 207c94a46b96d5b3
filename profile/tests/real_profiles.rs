//! Every real profile at hand: decoded, written back to the same bytes, and recognised.
//!
//! Runs over tests/fixtures/{profiles,producers}, and over the folder named by AFTERGLOW_TEST_PROFILES (by default `../shared/profiles` beside
//! the workspace), with its `foreign` folder, where that exists.

use afterglow_profile::{Limits, ProfileType, compress, decode, encode};
use std::path::{Path, PathBuf};

/// Returns the profiles of all folders, sorted, with their bytes as stored.
#[expect(clippy::print_stderr, reason = "a test run should say what it could not test")]
fn profiles() -> Vec<(PathBuf, Vec<u8>)> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    #[expect(clippy::disallowed_methods, reason = "a test's own switch, no setting of the product")]
    let more = std::env::var_os("AFTERGLOW_TEST_PROFILES").map(PathBuf::from);
    let more = more.unwrap_or_else(|| workspace.join("../shared/profiles"));
    if !more.is_dir() {
        eprintln!("no folder {}: only the fixtures are tested", more.display());
    }
    let mut profiles = Vec::new();
    let producers = workspace.join("tests/fixtures/producers");
    let producers = std::fs::read_dir(&producers).expect("the fixtures are there");
    let producers = producers.map(|entry| entry.expect("the folder can be listed").path());
    let folders = [workspace.join("tests/fixtures/profiles"), more.clone(), more.join("foreign")];
    for folder in folders.into_iter().chain(producers) {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("the folder can be listed").path();
            if path.extension().is_some_and(|extension| extension == "gz" || extension == "pprof") {
                let bytes = std::fs::read(&path).expect("the profile can be read");
                profiles.push((path, bytes));
            }
        }
    }
    profiles.sort();
    profiles
}

#[test]
fn every_real_profile_is_written_back_bit_for_bit() {
    let limits = Limits::default();
    for (path, body) in profiles() {
        let raw = compress::inflate(&body, &limits).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let profile = decode::decode(&raw, &limits).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if !profile.layout.exact {
            // async-profiler's converter pads the lengths of messages; such bytes are kept as they are.
            assert!(path.parent().is_some_and(|folder| folder.ends_with("producers/jvm")), "{}", path.display());
            continue;
        }
        let mut out = Vec::new();
        encode::encode_exact(&profile, &mut out).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(out == *raw, "{} is written differently", path.display());
    }
}

#[test]
fn the_type_of_every_go_profile_is_recognised() {
    for (path, body) in profiles() {
        let name = path.file_name().and_then(|name| name.to_str()).expect("the name is text");
        // `<server>-<type>-…`; foreign profiles have other names.
        let Some(("parca" | "profefe" | "svc", rest)) = name.split_once('-') else { continue };
        let expected = rest.split('-').next().expect("a split has a first part");
        let raw = compress::inflate(&body, &Limits::default()).expect("it inflates");
        let profile = decode::decode(&raw, &Limits::default()).expect("it is valid");
        assert_eq!(ProfileType::detect(&profile).as_str(), expected, "{name}");
    }
}
