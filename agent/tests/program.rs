//! `afterglow-agent` as a process: exit codes, and how it ends.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const GOOD: &str = "[[scrape_configs]]\njob_name = \"a\"\ntargets = [\"127.0.0.1:1\"]\n";

fn agent(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterglow-agent"));
    command.arg("--config").arg(config);
    command
}

fn file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_good_file_passes_the_check_and_a_bad_one_exits_78_with_all_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let good = agent(&file(&folder, GOOD)).arg("--check-config").output().unwrap();
    assert_eq!(good.status.code(), Some(0), "{good:?}");

    let bad = file(&folder, "[[scrape_configs]]\njob_name = \"a\"\ntargets = [\"x\", \"y\"]\n");
    for flag in [Some("--check-config"), None] {
        let output = agent(&bad).args(flag).args(["--server", "ftp://x"]).output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        for said in ["\"x\" is not HOST:PORT", "\"y\" is not HOST:PORT", "ftp://x"] {
            assert!(text(&output).contains(said), "{output:?}");
        }
    }
    let unknown = agent(&file(&folder, &format!("{GOOD}intervall = 1\n"))).output().unwrap();
    assert_eq!(unknown.status.code(), Some(78));
    assert!(text(&unknown).contains("unknown field `intervall`"), "{unknown:?}");

    let missing = agent(&folder.path().join("nothing.toml")).output().unwrap();
    assert_eq!(missing.status.code(), Some(78));
    let usage = Command::new(env!("CARGO_BIN_EXE_afterglow-agent")).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn on_sigterm_it_ends_well_though_nothing_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = agent(&file(&folder, GOOD));
    let command = command.args(["--server", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("scraping")), "it begins to scrape");

    let asked = Instant::now();
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    // Read on: a full pipe would hold the process up.
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(11));
}
