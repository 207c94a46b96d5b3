//! A diff by the real server is what `go tool pprof -base` and `-diff_base` make of the files: asked for by URL and by command.

use std::path::Path;
use std::process::Command;

use afterglow_e2e::{Program, client, output, workspace};

/// Both profiles are of the fixtures' day.
const WINDOW: &str = "start=2000-01-01T00:00:00Z&end=2100-01-01T00:00:00Z";

/// Returns the table of `go tool pprof -top`, from the line on that says what is shown.
fn top(args: &[&str], folder: &Path) -> String {
    let text = report(&[&["-top"], args].concat(), folder);
    text[text.find("Showing nodes").unwrap_or_else(|| panic!("{args:?}: {text}"))..].to_owned()
}

/// Returns the stacks of `go tool pprof -traces` with their labels and values, in no order.
fn traces(args: &[&str], folder: &Path) -> Vec<String> {
    let text = report(&[&["-traces"], args].concat(), folder);
    // What comes before the first line says when and of what.
    let mut traces: Vec<String> =
        text.split("-----------+").skip(1).map(|trace| trace.trim_matches(['-', '\n']).to_owned()).collect();
    traces.retain(|trace| !trace.is_empty());
    traces.sort();
    traces
}

/// Returns what `go tool pprof` prints.
fn report(args: &[&str], folder: &Path) -> String {
    let mut command = Command::new("go");
    command.args(["tool", "pprof", "-symbolize=none"]).args(args);
    // Where it keeps a copy of what it fetches.
    command.env("PPROF_TMPDIR", folder);
    let done = output(command);
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn go_tool_pprof_shows_the_same_of_our_diff_as_of_the_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().join("data").display());
    let env = [("AFTERGLOW_LIMITS_MAX_AGE", "0s"), ("AFTERGLOW_RETENTION_MAX_AGE", "0s")];
    let server = Program::start("afterglow", &["serve", "--no-self-profile", "--storage", &storage], &env);
    let fixtures = workspace().join("tests/fixtures/producers/go");
    let [base, file] = ["a-heap.pb.gz", "b-heap.pb.gz"].map(|name| fixtures.join(name).display().to_string());
    for (path, service) in [(&base, "before"), (&file, "after")] {
        client(&["push", path, "--service", service, "--type", "heap"], &server.url());
    }
    let url = format!(
        "{}/api/v1/diff?query={{service=\"after\"}}&base_query={{service=\"before\"}}&type=heap&{WINDOW}",
        server.url()
    );
    for (option, parameters) in [
        (format!("-base={base}"), ""),
        (format!("-diff_base={base}"), "&mark_base=true"),
        (format!("-diff_base={base}"), "&mark_base=true&normalize=true"),
        (format!("-base={base}"), "&focus=runtime"),
    ] {
        // Go's flags end at the first file.
        let mut theirs = vec![option.as_str()];
        theirs.extend(parameters.contains("normalize").then_some("-normalize"));
        theirs.extend(parameters.contains("focus").then_some("-focus=runtime"));
        theirs.push(&file);
        let ours = format!("{url}{parameters}");
        let of_ours = traces(&[&ours], folder.path());
        assert!(of_ours.len() > 10, "{of_ours:?}");
        assert_eq!(of_ours, traces(&theirs, folder.path()), "{option} {parameters}");
        if !parameters.contains("focus") {
            let by_total = |args: &[&str]| top(&[&["-cum"], args].concat(), folder.path());
            assert_eq!(by_total(&[&ours]), by_total(&theirs), "-cum {option} {parameters}");
        }
        let (ours, theirs) = (top(&[&ours], folder.path()), top(&theirs, folder.path()));
        // A filter of pprof's leaves the sum that shares are of, ours has none to tell it: rows without shares are the same.
        let rows = |text: &str| -> Vec<String> {
            let values =
                |line: &str| line.split_whitespace().filter(|word| !word.ends_with('%')).collect::<Vec<_>>().join(" ");
            text.lines().skip_while(|line| !line.contains("flat%")).map(values).collect()
        };
        assert_eq!(rows(&ours), rows(&theirs), "{option} {parameters}");
        if !parameters.contains("focus") {
            assert_eq!(ours, theirs, "{option} {parameters}");
        }
    }

    let url = server.url();
    let diff = |more: &[&str]| {
        let window = ["--from", "2000-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z", "--type", "heap"];
        let args = [&["diff", "{service=\"after\"}", "--base", "{service=\"before\"}"], &window[..], more].concat();
        String::from_utf8(client(&args, &url)).expect("a text")
    };
    let table = diff(&["--format", "top", "--limit", "3"]);
    assert!(table.starts_with("inuse_space/bytes, 1 profile, total ") && table.contains("self +/-"), "{table}");
    assert_eq!(table.lines().count(), 2 + 3 + 1, "{table}");
    let graph = diff(&["--format", "dot"]);
    assert!(graph.starts_with("digraph \"server\" {") && graph.contains(" -> "), "{graph}");
    let folded = diff(&["--format", "folded", "--focus", "runtime"]);
    assert!(folded.lines().all(|line| line.contains("runtime")) && !folded.is_empty(), "{folded}");
}
