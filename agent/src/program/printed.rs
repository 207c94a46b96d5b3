//! `--print-config`: the settings in effect as a file that gives the same ones, but for the token, which is masked.
//!
//! What the file and the flags both know comes first, each with where its value comes from; then, as comments, what flags and the environment
//! alone can say; then the file's labels and jobs, in its own words.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use afterglow_service::config::{Secret, mask_password};
use toml::{Table, Value};

use super::{QUEUE_DEFAULT, SERVER_DEFAULT};
use crate::scrape::{INTERVAL, TIMEOUT};

/// The token, and the file that holds it instead: who gives one of them by a flag gives both.
const TOKENS: [&str; 2] = ["token", "token_file"];

/// A setting as flags and the environment have it.
#[derive(Clone, Debug)]
struct Given {
    value: String,
    origin: String,
}

/// Writes the file: `flags` are all flags with their values, as `--print-config` of other programs has them, `file` is what the file says.
pub(super) fn printed(flags: &str, mut file: Table) -> String {
    let (mut given, rest) = flags_of(flags);
    let mut tls = match file.remove("tls_config") {
        Some(Value::Table(tls)) => tls,
        _ => Table::new(),
    };
    if TOKENS.iter().any(|key| given.contains_key(&flag_of(key))) {
        TOKENS.iter().for_each(|key| drop(file.remove(*key)));
    }
    let mut text = String::new();
    let queue = QUEUE_DEFAULT.to_string();
    let span = |time| humantime::format_duration(time).to_string();
    for (key, default) in [
        ("server", Some(Value::from(SERVER_DEFAULT))),
        ("tenant", None),
        ("token", None),
        ("token_file", None),
        ("token_in_clear", Some(Value::from(false))),
        ("listen", None),
        ("queue", Some(Value::from(queue))),
        ("scrape_interval", Some(Value::from(span(INTERVAL)))),
        ("scrape_timeout", Some(Value::from(span(TIMEOUT)))),
    ] {
        text.push_str(&line(key, given.remove(&flag_of(key)), file.remove(key), default));
    }
    text.push_str("\n# By flags and the environment alone:\n");
    text.push_str(&rest);
    text.push_str("\n[tls_config]\n");
    for key in ["ca_file", "cert_file", "key_file"] {
        text.push_str(&line(key, given.remove(&format!("tls.{}", flag_of(key))), tls.remove(key), None));
    }
    // What is left are tables: labels and jobs.
    if !file.is_empty() {
        let left = toml::to_string(&file).expect("a table that was read can be written");
        // Writing to a string does not fail.
        let _ = write!(text, "\n{left}");
    }
    text
}

fn flag_of(key: &str) -> String {
    key.replace('_', "-")
}

fn line(key: &str, given: Option<Given>, file: Option<Value>, default: Option<Value>) -> String {
    match (given, file, default) {
        (Some(Given { value, origin }), _, _) => format!("{key} = {value} # {origin}\n"),
        (None, Some(_), _) if key == "token" => format!("{key} = {} # file\n", Value::from(Secret::MASK)),
        (None, Some(Value::String(text)), _) => format!("{key} = {} # file\n", Value::from(mask_password(&text))),
        (None, Some(value), _) => format!("{key} = {value} # file\n"),
        (None, None, Some(value)) => format!("{key} = {value} # default\n"),
        (None, None, None) => format!("# {key} is not set\n"),
    }
}

/// Takes apart what other programs would show: by name what flags and the environment give of what the file knows as well; and all else, as
/// comments.
fn flags_of(flags: &str) -> (BTreeMap<String, Given>, String) {
    const SHARED: [&str; 10] = [
        "server",
        "tenant",
        "token",
        "token-file",
        "token-in-clear",
        "listen",
        "queue",
        "tls.ca-file",
        "tls.cert-file",
        "tls.key-file",
    ];
    let (mut given, mut rest, mut prefix) = (BTreeMap::new(), String::new(), String::new());
    for line in flags.lines().filter(|line| !line.is_empty()) {
        if let Some(table) = line.strip_prefix('[') {
            prefix = format!("{}.", table.trim_end_matches(']'));
            continue;
        }
        let unset = line.strip_prefix("# ").and_then(|line| line.strip_suffix(" is not set"));
        let name = unset.or_else(|| Some(line.split_once(" = ")?.0)).unwrap_or_default();
        let name = format!("{prefix}{name}");
        if !SHARED.contains(&name.as_str()) {
            let line = if unset.is_some() { format!("# {name} is not set\n") } else { format!("# {prefix}{line}\n") };
            rest.push_str(&line);
        } else if let Some((value, origin)) = line.split_once(" = ").and_then(|(_, rest)| rest.rsplit_once(" # "))
            && origin != "default"
        {
            given.insert(name, Given { value: value.to_owned(), origin: origin.to_owned() });
        }
    }
    (given, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is shown is in effect and says where it comes from; a token given here replaces the file's, however that was given.
    #[test]
    fn flags_go_over_the_file_and_the_file_over_defaults() {
        let flags = "server = \"https://a\" # flag\n# tenant is not set\n# token is not set\ntoken-file = \"t\" # environment\n\
                     token-in-clear = false # default\nlog-level = \"info\" # default\n\n[tls]\nca-file = \"ca.pem\" # flag\n\
                     # key-file is not set\n\n[auth]\n# tokens-file is not set\n";
        let file = "server = \"http://b\"\ntenant = \"t\"\ntoken = \"hunter2\"\nscrape_interval = \"30s\"\n\
                    [tls_config]\nca_file = \"other\"\nkey_file = \"key.pem\"\n[[scrape_configs]]\njob_name = \"a\"\ntargets = [\"a:1\"]\n";
        let text = printed(flags, file.parse().expect("TOML"));
        for line in [
            "server = \"https://a\" # flag",
            "tenant = \"t\" # file",
            "# token is not set",
            "token_file = \"t\" # environment",
            "token_in_clear = false # default",
            "queue = \"64 MiB\" # default",
            "scrape_interval = \"30s\" # file",
            "scrape_timeout = \"10s\" # default",
            "# log-level = \"info\" # default",
            "# auth.tokens-file is not set",
            "ca_file = \"ca.pem\" # flag",
            "key_file = \"key.pem\" # file",
            "job_name = \"a\"",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
        text.parse::<crate::scrape::File>().expect("what is printed can be read");
    }
}
