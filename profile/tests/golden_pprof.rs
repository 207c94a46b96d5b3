//! What google/pprof itself makes of real profiles, and what we make of them: merges sample for sample, tables row for row.
//!
//! tests/golden/go asks google/pprof; it is built with Go, which these tests need. They run over tests/fixtures/{profiles,producers}
//! and over the folder named by AFTERGLOW_TEST_PROFILES (by default `../shared/profiles` beside the workspace) where that exists.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::LazyLock,
};

use afterglow_profile::{Limits, Profile, compress, decode, encode, merge::Merger, top::Top};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use serde_json::{Value, json};

use self::sketch::SampleTypes;

mod sketch;

/// How many lists of random profiles are merged: enough that each rule of merging decides in several.
const RANDOM_LISTS: usize = 150;

// === What is compared ===

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

// === The golden program ===

/// The running golden program: a line in, a line out.
struct Golden {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

impl Golden {
    fn start() -> Self {
        /// The program is built once for all tests.
        static PROGRAM: LazyLock<PathBuf> = LazyLock::new(build);
        let mut child = Command::new(&*PROGRAM)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the golden program starts");
        let requests = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, requests, answers, folder: tempfile::tempdir().expect("a folder for our merges") }
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.requests, "{request}").expect("the golden program reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the golden program answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{request}: {e}: {line:?}"));
        assert_eq!(answer["error"], Value::Null, "{request}");
        answer
    }

    /// Merges `files`, compares with what `op` makes of them, and returns how many samples that are.
    fn check_merge(&mut self, op: &str, name: &str, files: &[PathBuf]) -> u64 {
        let ours = self.folder.path().join("ours.pb");
        std::fs::write(&ours, merge(files)).expect("the merge can be written");
        let answer = self.ask(&json!({"op": op, "files": files, "ours": ours}));
        assert_eq!(answer["differences"], Value::Null, "{name}: {answer:#}");
        answer["samples"].as_u64().expect("samples are counted")
    }

    fn check_top(&mut self, file: &Path, profile: &Profile<'_>, sample_type: usize) {
        let unit = String::from_utf8_lossy(profile.string(profile.sample_types[sample_type].unit));
        let answer = self.ask(&json!({"op": "top", "files": [file], "sample_type": sample_type, "unit": unit}));
        let rows = answer["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut theirs: Vec<(String, i64, i64)> = rows
            .iter()
            .map(|row| {
                let number = |key: &str| row[key].as_i64().expect("a number");
                (row["name"].as_str().expect("a name").to_owned(), number("flat"), number("cum"))
            })
            .collect();
        let top = Top::new(profile, sample_type, None);
        let mut ours: Vec<_> = top.rows.into_iter().map(|row| (row.name, row.self_value, row.total)).collect();
        theirs.sort();
        ours.sort();
        assert_eq!(ours, theirs, "{} sample type {sample_type}", file.display());
    }
}

impl Drop for Golden {
    fn drop(&mut self) {
        // It ends by itself at the end of its input, but a failed test should not wait for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn build() -> PathBuf {
    let program = workspace().join(".cache/golden/afterglow-golden");
    let output = Command::new("go")
        .current_dir(workspace().join("tests/golden/go"))
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .output()
        .unwrap_or_else(|e| {
            panic!("these tests compare with google/pprof and need Go in the PATH (https://go.dev/dl): {e}")
        });
    assert!(output.status.success(), "go build failed: {}", String::from_utf8_lossy(&output.stderr));
    program
}

// === The profiles ===

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Returns the files of each series, in order of time: what one process, or processes of one program, sent of one type.
fn series() -> BTreeMap<String, Vec<PathBuf>> {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch, no setting of the product")]
    let more = std::env::var_os("AFTERGLOW_TEST_PROFILES").map(PathBuf::from);
    let more = more.unwrap_or_else(|| workspace().join("../shared/profiles"));
    let mut folders = vec![("profiles".to_owned(), workspace().join("tests/fixtures/profiles"))];
    folders.extend([("shared".to_owned(), more.clone()), ("foreign".to_owned(), more.join("foreign"))]);
    let producers = workspace().join("tests/fixtures/producers");
    for producer in ["cpp", "go", "jvm", "node", "pprof", "python", "rust"] {
        folders.push((format!("producers/{producer}"), producers.join(producer)));
    }
    let mut series: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (label, folder) in folders {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("the folder can be listed").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("the name is text");
            let Some(stem) = name.strip_suffix(".pb.gz").or(name.strip_suffix(".pprof")) else { continue };
            // `<server>-<type>-<time>`, `<run>-<type>`, and of the foreign ones one family that is numbered.
            let key = match label.split('/').next() {
                Some("producers") => stem.split_once('-').map(|(_, kind)| kind),
                Some("foreign") => stem.contains("_many_").then_some("many"),
                _ => stem.rsplit_once('-').map(|(key, _)| key),
            };
            let series = series.entry(format!("{label}/{}", key.unwrap_or(stem))).or_default();
            series.push(path);
        }
    }
    series.values_mut().for_each(|files| files.sort());
    series
}

fn read(file: &Path) -> Vec<u8> {
    let body = std::fs::read(file).expect("the profile can be read");
    compress::inflate(&body, &Limits::default()).expect("it inflates").into_owned()
}

/// Returns our merge of `files`, encoded.
fn merge(files: &[PathBuf]) -> Vec<u8> {
    let mut merger = Merger::new();
    for file in files {
        let body = read(file);
        let profile = decode::decode(&body, &Limits::default()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        merger.add(&profile).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
    encode::encode(&merger.finish().profile())
}
