//! The client by which Grafana's data source asks Pyroscope, asked by the program in `tests/golden/pyroscope`: a question a line, an answer a line.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

/// How a question goes over the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wire<'a> {
    /// Headers, by their names.
    pub headers: &'a [(&'a str, &'a str)],
    /// Whether messages go as JSON rather than protobuf.
    pub json: bool,
    /// Whether the question goes compressed.
    pub gzip: bool,
}

/// Asks a method of `querier.v1.QuerierService`, and returns the answer as protobuf's JSON, or the code and the text of the refusal.
///
/// # Panics
/// Shows what is wrong, where the answer is none of the protocol.
pub fn ask(url: &str, wire: Wire<'_>, method: &str, request: &Value) -> Result<Value, (String, String)> {
    let headers: serde_json::Map<String, Value> =
        wire.headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let question = json!({
        "url": url, "headers": headers, "json": wire.json, "gzip": wire.gzip, "method": method, "request": request,
    });
    let mut child = Command::new(program())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the golden program starts");
    let mut questions = child.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut questions, format!("{question}\n").as_bytes()).expect("the golden program reads");
    drop(questions);
    let done = child.wait_with_output().expect("it ends with its input");
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{question}: the golden program says why above");
    let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{question}: {error}: {text:?}"));
    match answer["code"].as_str() {
        Some(code) => Err((code.to_owned(), answer["error"].as_str().unwrap_or_default().to_owned())),
        None => Ok(answer["response"].take()),
    }
}

/// Builds the program once, or finds that Go's cache has it.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = crate::workspace().join(".cache/golden/afterglow-golden-pyroscope");
        let mut go = Command::new("go");
        let source = crate::workspace().join("tests/golden/pyroscope");
        go.current_dir(source).args(["build", "-o"]).arg(&program).arg(".");
        let output = crate::output(go);
        assert!(output.status.success(), "go build failed: {}", String::from_utf8_lossy(&output.stderr));
        program
    })
}
