//! The client by which Grafana's data source asks Pyroscope, asked by the program in `tests/golden/pyroscope`: a question a line, an answer a line.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::golden;

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
    let mut answer = golden::ask_of(program(), &question);
    match answer["code"].as_str() {
        Some(code) => Err((code.to_owned(), answer["error"].as_str().unwrap_or_default().to_owned())),
        None => Ok(answer["response"].take()),
    }
}

/// Builds the program, once for all questions.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| golden::build("afterglow-golden-pyroscope", "tests/golden/pyroscope"))
}
