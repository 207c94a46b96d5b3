//! Merges and tables.

use std::process::Command;

use afterglow_profile::{Limits, compress, decode, encode};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use serde_json::json;

use super::golden::{Golden, merge, read, series};
use super::sketch::{self, SampleTypes};

/// How many lists of random profiles are merged: enough that each rule of merging decides in several.
const RANDOM_LISTS: usize = 150;

#[test]
fn the_merge_of_every_series_is_that_of_pprof() {
    let mut golden = Golden::start();
    let mut samples = 0;
    for (name, files) in series() {
        samples += golden.check_merge("merge", &name, &files);
    }
    assert!(samples > 0, "nothing was merged");
}

#[test]
fn a_profile_merged_with_itself_is_that_of_pprof() {
    let mut golden = Golden::start();
    for file in series().into_values().flatten() {
        golden.check_merge("merge", &file.display().to_string(), &[file.clone(), file.clone()]);
    }
}

#[test]
fn the_merge_of_files_is_what_pprof_proto_writes() {
    let mut golden = Golden::start();
    for (name, files) in series() {
        // pprof gives profiles without mappings one that stands for the unknown binary, and cuts what `drop_frames` names off
        // the stacks; we do neither, and both are done by whoever shows the result.
        let bodies: Vec<_> = files.iter().map(|file| read(file)).collect();
        let is_plain = |body: &Vec<u8>| {
            let profile = decode::decode(body, &Limits::default()).expect("it is valid");
            !profile.mappings.is_empty() && profile.drop_frames == 0
        };
        if files.len() > 1 && bodies.iter().all(is_plain) {
            golden.check_merge("proto", &name, &files);
        }
    }
}

#[test]
fn the_merge_of_random_profiles_is_that_of_pprof() {
    merge_random_profiles("merge", SampleTypes::Same);
}

#[test]
fn profiles_that_count_differently_merge_as_pprof_proto_merges_them() {
    merge_random_profiles("proto", SampleTypes::Different);
}

fn merge_random_profiles(op: &str, sample_types: SampleTypes) {
    let mut golden = Golden::start();
    let mut random = TestRunner::deterministic();
    let lists = sketch::profiles(sample_types);
    for list in 0..RANDOM_LISTS {
        let profiles = lists.new_tree(&mut random).expect("lists can be made").current();
        let folder = tempfile::tempdir().expect("a folder for the profiles");
        let files: Vec<_> = (0..profiles.len()).map(|i| folder.path().join(format!("{i}.pb"))).collect();
        for (file, profile) in files.iter().zip(&profiles) {
            std::fs::write(file, encode::encode(profile)).expect("the profile can be written");
        }
        golden.check_merge(op, &format!("random list {list}"), &files);
    }
}

#[test]
fn the_table_of_every_profile_is_that_of_pprof() {
    let mut golden = Golden::start();
    for file in series().into_values().flatten() {
        let body = read(&file);
        let profile = decode::decode(&body, &Limits::default()).expect("it is valid");
        for sample_type in 0..profile.sample_types.len() {
            golden.check_top(&file, &profile, sample_type);
        }
    }
}

#[test]
fn go_tool_pprof_reports_the_same_of_our_merge() {
    let mut golden = Golden::start();
    let folder = tempfile::tempdir().expect("a folder for the merges");
    let (ours, theirs) = (folder.path().join("ours.pb.gz"), folder.path().join("theirs.pb.gz"));
    let series = series();
    for name in
        ["producers/go/cpu", "producers/go/heap", "producers/python/all", "producers/cpp/cpu", "profiles/svc-cpu-i1"]
    {
        let files = &series[name];
        std::fs::write(&ours, compress::gzip(&merge(files))).expect("the merge can be written");
        golden.ask(&json!({"op": "write", "files": files, "output": theirs}));
        for report in ["-raw", "-traces", "-top"] {
            let [ours, theirs] = [&ours, &theirs].map(|file| {
                let output = Command::new("go")
                    .args(["tool", "pprof", "-symbolize=none", report])
                    .arg(file)
                    .output()
                    .expect("go runs, for the tests need it");
                assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8_lossy(&output.stdout).into_owned()
            });
            assert!(!ours.is_empty());
            assert_eq!(ours, theirs, "{name} {report}");
        }
    }
}
