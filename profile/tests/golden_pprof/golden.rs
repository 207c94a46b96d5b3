//! The golden program, and the profiles that it and we are asked about.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::LazyLock,
};

use afterglow_profile::{Limits, Profile, compress, decode, encode, merge::Merger, top::Top};
use serde_json::{Value, json};

/// The running golden program: a line in, a line out.
pub(crate) struct Golden {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) folder: tempfile::TempDir,
}

impl Golden {
    pub(crate) fn start() -> Self {
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

    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.requests, "{request}").expect("the golden program reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the golden program answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{request}: {e}: {line:?}"));
        assert_eq!(answer["error"], Value::Null, "{request}");
        answer
    }

    /// Merges `files`, compares with what `op` makes of them, and returns how many samples that are.
    pub(crate) fn check_merge(&mut self, op: &str, name: &str, files: &[PathBuf]) -> u64 {
        let ours = self.folder.path().join("ours.pb");
        std::fs::write(&ours, merge(files)).expect("the merge can be written");
        let answer = self.ask(&json!({"op": op, "files": files, "ours": ours}));
        assert_eq!(answer["differences"], Value::Null, "{name}: {answer:#}");
        answer["samples"].as_u64().expect("samples are counted")
    }

    pub(crate) fn check_top(&mut self, file: &Path, profile: &Profile<'_>, sample_type: usize) {
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

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Returns the files of each series, in order of time: what one process, or processes of one program, sent of one type.
pub(crate) fn series() -> BTreeMap<String, Vec<PathBuf>> {
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

pub(crate) fn read(file: &Path) -> Vec<u8> {
    let body = std::fs::read(file).expect("the profile can be read");
    compress::inflate(&body, &Limits::default()).expect("it inflates").into_owned()
}

/// Returns our merge of `files`, encoded.
pub(crate) fn merge(files: &[PathBuf]) -> Vec<u8> {
    let mut merger = Merger::new();
    for file in files {
        let body = read(file);
        let profile = decode::decode(&body, &Limits::default()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        merger.add(&profile).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
    encode::encode(&merger.finish().profile())
}
