//! The README's own commands, run as a reader would.

#![allow(
    clippy::disallowed_methods,
    reason = "a test waits for programs that cannot wake it, and has its own environment"
)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use afterglow_e2e::{Program, built, client, output, workspace};

/// The port that the README's commands name.
const README_ADDRESS: &str = "127.0.0.1:4100";

/// "Some seconds": what the README promises for the first profiles of the server itself, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(15);

/// How long a server may take to end.
const ENDED_MAX: Duration = Duration::from_secs(20);

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

/// The server that `make run` starts. make passes on SIGTERM, but nobody can pass on SIGKILL.
struct MakeRun(Program);

impl MakeRun {
    /// Starts it on a port of the system's choice, over an empty folder.
    fn start(folder: &Path) -> Self {
        let mut make = Command::new("make");
        make.current_dir(workspace())
            .args(["run", "LISTEN=127.0.0.1:0", "RUN_BUILD=true"])
            .arg(format!("STORAGE=file://{}", folder.join("data").display()))
            .arg(format!("RUN_PROGRAM={}", built("afterglow").display()));
        Self(Program::spawn("make run", make))
    }
}

impl Drop for MakeRun {
    fn drop(&mut self) {
        let pid = self.0.pid().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        // Gone when nothing listens any more.
        let start = Instant::now();
        while std::net::TcpStream::connect(self.0.address()).is_ok() && start.elapsed() < ENDED_MAX {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn the_readme_s_commands_do_what_they_say() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = MakeRun::start(folder.path());
    let server = &run.0;
    wait_for_own_profiles(server);

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

/// Waits until the server has stored profiles of itself that show something, which the README promises for the first search.
fn wait_for_own_profiles(server: &Program) {
    let start = Instant::now();
    loop {
        let search = ["search", "{service=\"afterglow\"}", "--from", "-5m", "--output", "json"];
        let found: serde_json::Value = serde_json::from_slice(&client(&search, &server.url())).expect("JSON");
        let has = |profile_type: &str| {
            let profiles = found["profiles"].as_array().into_iter().flatten();
            profiles.into_iter().any(|p| p["type"] == profile_type && p["samples"] != "0")
        };
        if has("cpu") && has("heap") {
            return;
        }
        assert!(start.elapsed() < SOON, "after {SOON:?} there are only {found:#}:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The Go snippet compiles as it stands in a program's `main`.
#[test]
fn the_readme_s_go_snippet_compiles() {
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("the README");
    let snippet = readme.split("```go\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a Go snippet");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("main.go");
    let text = format!(
        "package main\n\nimport afterglow \"github.com/afterglow-profiler/afterglow/agent/go\"\n\nfunc main() {{\n{snippet}\n\tif err != nil {{\n\t\tpanic(err)\n\t}}\n}}\n"
    );
    std::fs::write(&program, &text).expect("a program");
    let mut go = Command::new("go");
    go.current_dir(workspace().join("agent/go")).args(["build", "-o", "/dev/null"]).arg(&program);
    let done = output(go);
    assert!(done.status.success(), "{text}\n{}", String::from_utf8_lossy(&done.stderr));
}
