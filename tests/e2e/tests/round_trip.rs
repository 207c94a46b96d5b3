//! Every real profile goes in by the stream and comes back with the same bytes, and each series merges as pprof merges it, from a local
//! folder and from MinIO, before and after all of it was compacted.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::Command;

use afterglow_e2e::{MinIo, Program, RealProfile, assert_merge_equals_pprof, built, client, real_profiles};
use sha2::{Digest as _, Sha256};

/// Accepts profiles of any age: the real ones were taken when they were taken.
const ANY_AGE: (&str, &str) = ("AFTERGLOW_LIMITS_MAX_AGE", "0s");

/// And keeps them, whatever their age.
const FOR_EVER: (&str, &str) = ("AFTERGLOW_RETENTION_MAX_AGE", "0s");

/// The whole of time, for searches.
const ALL_TIME: [&str; 4] = ["--from", "2000-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z"];

#[test]
fn every_profile_comes_back_bit_for_bit_from_a_local_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().display());
    let env = [ANY_AGE, FOR_EVER];
    let server = Program::start("afterglow", &["serve", "--no-self-profile", "--storage", &storage], &env);
    round_trip(&server, &storage, &env);
}

#[test]
fn every_profile_comes_back_bit_for_bit_from_minio() {
    let minio = MinIo::start();
    let storage = minio.bucket("round-trip");
    let mut env = minio.env();
    env.extend([ANY_AGE, FOR_EVER]);
    let server = Program::start("afterglow", &["serve", "--no-self-profile", "--storage", &storage], &env);
    round_trip(&server, &storage, &env);
}

/// Pushes all profiles, series by series, and asks for each; then compacts, and asks for each again.
fn round_trip(server: &Program, storage: &str, env: &[(&str, &str)]) {
    let profiles = real_profiles();
    let mut series: BTreeMap<&str, Vec<&RealProfile>> = BTreeMap::new();
    for profile in &profiles {
        series.entry(&profile.series).or_default().push(profile);
    }
    let mut sent = BTreeMap::new();
    for (name, files) in &series {
        let pushed = push(server, name, files);
        assert_eq!(pushed.len(), files.len(), "one id a file");
        ask(server, name, files, &pushed);
        sent.insert(*name, pushed);
    }
    assert_eq!(count(server), profiles.len(), "each profile is found once");

    let maintained = afterglow(&["maintain", "--storage", storage, "--once", "--grace", "0s"], env);
    assert!(maintained.contains("merges of"), "{maintained}");
    let verified = afterglow(&["verify", "--storage", storage, "--deep"], env);
    for part in
        [format!("{} profiles in", profiles.len()), "and 0 segments".to_owned(), format!("{} rebuilt", profiles.len())]
    {
        assert!(verified.contains(&part), "{part} is not in: {verified}");
    }
    assert_eq!(count(server), profiles.len(), "each profile is found once after compaction, too");
    for (name, files) in &series {
        ask(server, name, files, &sent[name]);
    }
}

/// Fetches each profile of a series, and merges them all.
fn ask(server: &Program, series: &str, files: &[&RealProfile], sent: &[(String, String)]) {
    for (id, path) in sent {
        let want = files.iter().find(|f| f.path.as_os_str() == path.as_str()).expect("a file that was pushed");
        let raw = client(&["fetch", "--raw", "-o", "-", id], &server.url());
        assert_eq!(hex::encode(Sha256::digest(&raw)), want.sha256, "{path} came back altered");
    }
    merge(server, series, files);
}

/// Returns how many profiles a search for all finds.
fn count(server: &Program) -> usize {
    let mut search = vec!["search", "--limit", "100000", "--output", "json"];
    search.extend(ALL_TIME);
    let found: serde_json::Value = serde_json::from_slice(&client(&search, &server.url())).expect("search prints JSON");
    found["profiles"].as_array().expect("a list").len()
}

/// Runs a command over the storage itself, and returns what it printed.
fn afterglow(args: &[&str], env: &[(&str, &str)]) -> String {
    let mut command = Command::new(built("afterglow"));
    command.args(args).envs(env.iter().copied());
    let output = command.output().expect("the command runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Merges a series by the command line and compares with google/pprof's merge of the files.
fn merge(server: &Program, series: &str, files: &[&RealProfile]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = folder.path().join("merged.pb.gz");
    let query = format!("{{service={series:?}}}");
    let mut args = vec!["merge", &query, "--type", &files[0].profile_type];
    args.extend(ALL_TIME);
    args.extend(["-o", ours.to_str().expect("temporary folders are UTF-8")]);
    client(&args, &server.url());
    let files: Vec<_> = files.iter().map(|f| f.path.clone()).collect();
    let samples = assert_merge_equals_pprof(series, &files, &ours);
    assert!(samples > 0 || files.len() == 1, "{series} merged to nothing");
}

/// Pushes the files of a series by the command line and returns the pairs of id and path it prints.
fn push(server: &Program, series: &str, files: &[&RealProfile]) -> Vec<(String, String)> {
    let mut args: Vec<OsString> =
        ["push", "--service", series, "--type", &files[0].profile_type].map(OsString::from).to_vec();
    args.extend(files.iter().map(|f| f.path.clone().into_os_string()));
    let printed = String::from_utf8(client(&args, &server.url())).expect("push prints text");
    printed
        .lines()
        .map(|line| {
            let (id, path) = line.split_once(' ').expect("`<id> <file>` a line");
            (id.to_owned(), path.to_owned())
        })
        .collect()
}
