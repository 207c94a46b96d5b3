//! The README's own commands, run as a reader would.

#![allow(
    clippy::disallowed_methods,
    reason = "a test waits for programs that cannot wake it, and has its own environment"
)]

use std::process::Command;
use std::time::{Duration, Instant};

use afterglow_e2e::{Program, built, client, output, workspace};

/// The port that the README's commands name.
const README_ADDRESS: &str = "127.0.0.1:4100";

/// Returns the shell commands of the README's section `## Two minutes`, but for those that start the server or run the tests.
fn commands() -> String {
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("the README");
    let section = readme.split("\n## ").find(|s| s.starts_with("Two minutes")).expect("the section `Two minutes`");
    let blocks: Vec<&str> = section
        .split("```sh\n")
        .skip(1)
        .map(|block| block.split("```").next().expect("a block that ends"))
        .filter(|block| !matches!(block.trim(), "make run" | "make test"))
        .collect();
    assert!(blocks.len() >= 4, "the README lost its commands");
    blocks.concat()
}

#[test]
fn the_readme_s_commands_do_what_they_say() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().join("data").display());
    let server = Program::start("afterglow", &["serve", "--storage", &storage], &[]);
    wait_for_own_profiles(&server);

    // The commands name the default port; here the system chose one.
    let script = commands().replace(README_ADDRESS, &server.address());
    assert!(script.contains("go tool pprof") && script.contains("afterglow push"), "{script}");
    let programs = built("afterglow").parent().expect("a folder").to_owned();
    let mut shell = Command::new("bash");
    shell
        .args(["-euo", "pipefail", "-c", &script])
        .env("AFTERGLOW_SERVER", server.url())
        .env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").expect("a PATH")))
        .env("PPROF_TMPDIR", folder.path())
        .current_dir(folder.path());
    let done = output(shell);
    let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "the README's commands failed:\n{stdout}\n{stderr}");

    assert!(stdout.contains("afterglow"), "the first search shows the server's own profiles:\n{stdout}");
    assert!(stdout.contains(r#""id":"#), "curl was answered with an id:\n{stdout}");
    assert!(stdout.contains(" cpu.pb.gz"), "push printed a line for its file:\n{stdout}");
    assert!(stdout.contains("Showing nodes accounting for"), "go tool pprof read the merge:\n{stdout}");
    assert!(folder.path().join("one.pb.gz").metadata().expect("the fetched profile").len() > 100);
}

/// Waits until the server has stored a profile of itself, which the README promises for the first search.
fn wait_for_own_profiles(server: &Program) {
    let start = Instant::now();
    while !String::from_utf8_lossy(&client(&["search", "--from", "-5m"], &server.url())).contains("afterglow") {
        assert!(start.elapsed() < Duration::from_secs(30), "no profile of itself after 30 s:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}
