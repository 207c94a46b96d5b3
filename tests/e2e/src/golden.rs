//! google/pprof itself, asked by the program in `tests/golden/go`: a request a line, an answer a line.

use std::io::Write as _;
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

/// Asks google/pprof one question.
fn ask(request: &Value) -> Value {
    ask_of(&build("afterglow-golden-e2e", "tests/golden/go"), request)
}

/// Asks one question of a golden program, which is started for it.
pub(crate) fn ask_of(program: &Path, request: &Value) -> Value {
    let mut child =
        Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the golden program starts");
    let mut requests = child.stdin.take().expect("it is piped");
    writeln!(requests, "{request}").expect("the golden program reads");
    drop(requests);
    let done = child.wait_with_output().expect("it ends with its input");
    assert!(done.status.success(), "{request}: the golden program says why above");
    let line = String::from_utf8_lossy(&done.stdout);
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{request}: {e}: {line:?}"))
}

/// Builds the golden program of a folder, or finds that Go's cache has it.
pub(crate) fn build(name: &str, source: &str) -> PathBuf {
    let program = crate::workspace().join(".cache/golden").join(name);
    let mut go = Command::new("go");
    go.current_dir(crate::workspace().join(source)).args(["build", "-o"]).arg(&program).arg(".");
    let output = crate::output(go);
    assert!(output.status.success(), "go build failed: {}", String::from_utf8_lossy(&output.stderr));
    program
}
