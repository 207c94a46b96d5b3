//! Diffs: what `pprof -proto -base=…` writes is what ours is.

use std::path::{Path, PathBuf};

use afterglow_profile::{Limits, compress, decode, diff, encode};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use serde_json::{Value, json};

use super::golden::{Golden, merge, series};
use super::sketch::{self, SampleTypes};

/// How many pairs of random profiles are compared, each in every mode.
const RANDOM_PAIRS: usize = 60;

/// How the base is treated: marked or not, normalized or not.
const MODES: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

/// Compares what both make of `file` against `base`, and returns how many samples that are.
fn check(golden: &mut Golden, file: &Path, base: &Path, (mark, normalize): (bool, bool)) -> u64 {
    let [ours, theirs] = [file, base].map(|file| merge(&[file.to_owned()]));
    // pprof does not merge equal samples of one file, and would round each by itself: so both begin with the merges.
    let merged = ["selection.pb.gz", "base.pb.gz"].map(|name| golden.folder.path().join(name));
    for (path, body) in merged.iter().zip([&ours, &theirs]) {
        std::fs::write(path, compress::gzip(body)).expect("the merge can be written");
    }
    let [selection, based] = [&ours, &theirs].map(|body| decode::decode(body, &Limits::default()).expect("our own"));
    let aligned = diff::align(&selection, &based).expect("they go together");
    let (mut selection, mut based) = match &aligned {
        Some((selection, based)) => (selection.profile(), based.profile()),
        None => (selection, based),
    };
    if normalize {
        diff::normalize(&mut selection, &based);
    }
    if mark {
        diff::mark_base(&mut based);
    }
    let difference = diff::subtract(&selection, based).expect("they go together");
    let output = golden.folder.path().join("ours.pb.gz");
    std::fs::write(&output, compress::gzip(&encode::encode(&difference.profile())))
        .expect("the profile can be written");
    let mut options = vec![format!("-{}={}", if mark { "diff_base" } else { "base" }, merged[1].display())];
    options.extend(normalize.then(|| "-normalize".to_owned()));
    let answer = golden.ask(&json!({"op": "filter", "files": [merged[0]], "options": options, "ours": output}));
    assert_eq!(answer["differences"], Value::Null, "{} {options:?}: {answer:#}", file.display());
    answer["samples"].as_u64().expect("samples are counted")
}

#[test]
fn diffs_of_real_profiles_are_those_of_pprof() {
    let mut golden = Golden::start();
    let mut samples = 0;
    for files in series().into_values().filter(|files| files.len() > 1) {
        // pprof makes mappings up where there are none, and cuts stacks at what `drop_frames` names; we do neither.
        let is_plain = |file: &PathBuf| {
            let body = merge(std::slice::from_ref(file));
            let profile = decode::decode(&body, &Limits::default()).expect("our own");
            !profile.mappings.is_empty() && profile.drop_frames == 0
        };
        if files[..2].iter().all(is_plain) {
            for mode in MODES {
                samples += check(&mut golden, &files[1], &files[0], mode);
            }
        }
    }
    assert!(samples > 0, "nothing differs");
}

#[test]
fn diffs_of_random_profiles_are_those_of_pprof() {
    let mut golden = Golden::start();
    let mut random = TestRunner::deterministic();
    let folder = tempfile::tempdir().expect("a folder for the profiles");
    let files = [folder.path().join("ours.pb"), folder.path().join("base.pb")];
    for sample_types in [SampleTypes::Same, SampleTypes::Different] {
        let lists = sketch::profiles(sample_types);
        for _ in 0..RANDOM_PAIRS {
            let profiles = lists.new_tree(&mut random).expect("lists can be made").current();
            for (file, profile) in files.iter().zip(&profiles) {
                std::fs::write(file, encode::encode(profile)).expect("the profile can be written");
            }
            // pprof refuses to normalize profiles that count differently.
            let modes = if sample_types == SampleTypes::Same { &MODES[..] } else { &MODES[..2] };
            // A sample type that keeps its scale beside others that change theirs makes pprof drop samples that have no other values.
            let totals = [&profiles[0], &profiles[1]].map(|profile| profile.totals().0);
            let some_keep = totals[0].iter().zip(&totals[1]).any(|(ours, base)| ours == base);
            for &mode in modes.iter().filter(|(_, normalize)| !(normalize & some_keep)) {
                check(&mut golden, &files[0], &files[1], mode);
            }
        }
    }
}
