//! What functions and services add up to, over the real program: by HTTP and by the command line.

#![allow(clippy::disallowed_methods, reason = "a test has its own environment")]

use std::process::Command;

use afterglow_e2e::{Program, built, client, output, workspace};
use serde_json::Value;

/// What the fixtures' times are after, in unix seconds, and before.
const WINDOW: [&str; 4] = ["--from", "1795480000", "--to", "1795490000"];

fn json(args: &[&str], server: &Program) -> Value {
    serde_json::from_slice(&client(args, &server.url())).expect("JSON")
}

fn number(value: &Value) -> i64 {
    value.as_str().expect("64 bits are a text").parse().expect("a number")
}

/// Goal: series, top, function and stats give the same numbers over HTTP and on the command line, and those of a merge.
#[test]
fn sums_are_the_same_by_http_and_by_the_command_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().display());
    let args = ["serve", "--no-self-profile", "--storage", &storage];
    let server = Program::start("afterglow", &args, &[]);
    for (service, file) in [("svc", "svc-cpu-i1-0036"), ("svc", "svc-cpu-i1-0037"), ("parca", "parca-cpu-1795481626")] {
        let path = workspace().join(format!("tests/fixtures/profiles/{file}.pb.gz"));
        let path = path.to_str().expect("a path of text");
        client(&["push", path, "--service", service, "--type", "cpu"], &server.url());
    }
    let ask = |args: &[&str]| json(&[args, &["--type", "cpu", "--output", "json"], &WINDOW[..]].concat(), &server);
    let get = |path: &str| -> Value {
        let (status, body) = server.get(&format!("{path}type=cpu&start=1795480000&end=1795490000"));
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    };
    let merged = get("/api/v1/merge?format=top&");

    let top = ask(&["top", "--by", "service", "--limit", "0"]);
    assert_eq!(top["top"], merged["top"]);
    assert_eq!(top, get("/api/v1/top?by=service&limit=0&"));
    let groups = top["groups"].as_array().expect("groups");
    assert_eq!(groups.iter().map(|group| number(&group["top"]["total"])).sum::<i64>(), number(&top["top"]["total"]));

    let series = ask(&["series", "--by", "service", "--step", "1m"]);
    assert_eq!(series, get("/api/v1/series?by=service&step=60&"));
    let totals = series["series"].as_array().expect("series").iter().map(|series| number(&series["total"]));
    assert_eq!(totals.sum::<i64>(), number(&top["top"]["total"]));

    let row = &merged["top"]["functions"][0];
    let name = row["name"].as_str().expect("a name");
    let function = ask(&["function", name, "--step", "1m"]);
    let history = function["history"].as_array().expect("a history").iter().map(|series| number(&series["total"]));
    assert_eq!(history.sum::<i64>(), number(&row["total"]));

    let stats = json(&["stats", "--output", "json"], &server);
    assert_eq!((&stats["profiles"], &stats["retention"][0]["maxAge"]), (&"3".into(), &"2592000s".into()), "{stats:#}");
    let in_window = |args: &[&'static str]| [args, &WINDOW[..]].concat();
    for args in
        [vec!["stats"], in_window(&["top"]), in_window(&["series"]), [&["function", name], &WINDOW[..]].concat()]
    {
        let text = String::from_utf8(client(&args, &server.url())).expect("text");
        assert!(!text.is_empty() && text.lines().all(|line| line == line.trim_end()), "{text}");
    }

    let mut refused = Command::new(built("afterglow"));
    refused.args(["top", "--function", "(", "--server", &server.url()]);
    let refused = output(refused);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("error: INVALID_ARGUMENT: function: "));
}
