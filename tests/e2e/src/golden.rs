//! google/pprof itself, asked by the program in `tests/golden/go`: a request a line, an answer a line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Compares a merge of ours with google/pprof's merge of the same files and returns how many samples that has.
///
/// # Panics
/// Shows what stands in only one of the two.
pub fn assert_merge_equals_pprof(name: &str, files: &[PathBuf], ours: &Path) -> u64 {
    let answer = ask(&json!({"op": "merge", "files": files, "ours": ours}));
    assert_eq!(answer["error"], Value::Null, "{name}");
    assert_eq!(answer["differences"], Value::Null, "{name}: {answer:#}");
    answer["samples"].as_u64().expect("samples are counted")
}

/// Asks one question of a golden program of its own.
fn ask(request: &Value) -> Value {
    let mut child =
        Command::new(build()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the golden program starts");
    let mut requests = child.stdin.take().expect("it is piped");
    writeln!(requests, "{request}").expect("the golden program reads");
    drop(requests);
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it answers");
    child.wait().expect("it ends with its input");
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{request}: {e}: {line:?}"))
}

/// Builds the golden program, or finds that Go's cache has it.
fn build() -> PathBuf {
    let program = crate::workspace().join(".cache/golden/afterglow-golden-e2e");
    let mut go = Command::new("go");
    go.current_dir(crate::workspace().join("tests/golden/go")).args(["build", "-o"]).arg(&program).arg(".");
    let output = crate::output(go);
    assert!(output.status.success(), "go build failed: {}", String::from_utf8_lossy(&output.stderr));
    program
}
