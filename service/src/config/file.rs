//! The TOML file, as pairs of key and values: tables become keys with dots, scalars become what one would write behind
//! the flag.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {problem}", path.display())]
    Toml { path: PathBuf, problem: String },
}

/// Says in a line what is wrong with TOML. The parser's own text quotes the line of the file, and what stands where something else should:
/// either may be a secret, and what is told here ends up in logs.
pub fn toml_problem(text: &str, error: &toml::de::Error) -> String {
    let (line, reason) = explain(text, error);
    format!("line {line}: {reason}")
}

/// Says where something is wrong with TOML, by its line from 1, and what, as [`toml_problem`] does.
pub(crate) fn explain(text: &str, error: &toml::de::Error) -> (usize, String) {
    let offset = error.span().map_or(0, |span| span.start).min(text.len());
    let line = text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
    let reason = error.message().lines().next().unwrap_or_default();
    (line, without_value(reason))
}

/// Leaves out the value from what serde says of one that is of another type: `invalid type: string "hunter2", expected a table`.
fn without_value(reason: &str) -> String {
    let is_of_value = ["invalid type: ", "invalid value: "].iter().any(|kind| reason.starts_with(kind));
    match reason.rsplit_once(", expected ") {
        Some((found, expected)) if is_of_value => {
            let kind = found.find(['"', '`']).map_or(found, |at| &found[..at]);
            format!("{}, expected {expected}", kind.trim_end())
        }
        _ => reason.to_owned(),
    }
}

/// One setting of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) given: Given,
}

/// What the file gives for a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Given {
    One(String),
    Many(Vec<String>),
    /// A list of something that is no scalar.
    Unusable,
}

/// Reads a file; entries come in the order of their keys.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let table = text
        .parse::<Table>()
        .map_err(|error| Error::Toml { path: path.to_owned(), problem: toml_problem(&text, &error) })?;
    let mut entries = Vec::new();
    flatten("", &table, &mut entries);
    Ok(entries)
}

fn flatten(prefix: &str, table: &Table, entries: &mut Vec<Entry>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let given = match value {
            Value::Table(inner) => {
                flatten(&key, inner, entries);
                continue;
            }
            Value::Array(values) => {
                values.iter().map(scalar).collect::<Option<_>>().map_or(Given::Unusable, Given::Many)
            }
            value => scalar(value).map_or(Given::Unusable, Given::One),
        };
        entries.push(Entry { key, given });
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(n) => Some(n.to_string()),
        Value::Float(n) => Some(n.to_string()),
        Value::Boolean(b) => Some(b.to_string()),
        Value::Datetime(at) => Some(at.to_string()),
        Value::Array(_) | Value::Table(_) => None,
    }
}
