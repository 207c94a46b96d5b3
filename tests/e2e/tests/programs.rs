//! A real Go program, profiled by the Go SDK and scraped by the agent, shows where it burns its time.

#![allow(clippy::disallowed_methods, reason = "a test waits for programs that cannot wake it")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use afterglow_e2e::{Program, built, client, output, workspace};

/// How long a profile may take from the program to a search, on a loaded machine.
const SHOWN_MAX: Duration = Duration::from_secs(60);

/// The share of CPU time that the example burns in `threeQuarters`, give or take what sampling and its own lock take.
const SHARE: std::ops::Range<f64> = 0.55..0.95;

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(folder: &Path) -> Program {
    let storage = format!("file://{}", folder.join("data").display());
    Program::start("afterglow", &["serve", "--no-self-profile", "--storage", &storage], &[])
}

/// Builds the SDK's example program.
fn example(folder: &Path) -> PathBuf {
    let program = folder.join("example");
    let mut go = Command::new("go");
    go.current_dir(workspace().join("agent/go")).args(["build", "-o"]).arg(&program).arg("./example");
    let done = output(go);
    assert!(done.status.success(), "go build failed: {}", String::from_utf8_lossy(&done.stderr));
    program
}

/// Waits until the service has profiles of each type.
fn wait_for(server: &Program, service: &str, types: &[&str]) {
    let start = Instant::now();
    let query = format!("{{service={service:?}}}");
    loop {
        let found: serde_json::Value =
            serde_json::from_slice(&client(&["search", &query, "--output", "json"], &server.url())).expect("JSON");
        let profiles = found["profiles"].as_array().cloned().unwrap_or_default();
        if types.iter().all(|t| profiles.iter().any(|p| p["type"] == *t && p["samples"] != "0")) {
            return;
        }
        assert!(start.elapsed() < SHOWN_MAX, "after {SHOWN_MAX:?} there are only {profiles:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Returns which share of the service's CPU time one function and its callees take.
fn share(server: &Program, service: &str, function: &str) -> f64 {
    let query = format!("{{service={service:?}}}");
    let top = client(&["merge", &query, "--type", "cpu", "--format", "top"], &server.url());
    let top = String::from_utf8(top).expect("a table is text");
    let row = top.lines().find(|l| l.ends_with(function)).unwrap_or_else(|| panic!("{function} is not in\n{top}"));
    let percent = row.split_whitespace().nth(3).and_then(|p| p.strip_suffix('%')).expect("self, self%, total, total%");
    percent.parse::<f64>().expect("a percentage") / 100.0
}

#[test]
fn the_go_sdk_shows_where_a_program_burns_its_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = serve(folder.path());
    let child = Command::new(example(folder.path()))
        .args(["-server", &server.url(), "-service", "sdk", "-period", "2s"])
        .stdout(Stdio::null())
        .spawn()
        .expect("the example starts");
    let _running = Running(child);
    wait_for(&server, "sdk", &["cpu", "heap", "goroutine"]);
    let share = share(&server, "sdk", "main.threeQuarters");
    assert!(SHARE.contains(&share), "main.threeQuarters takes {share}");
}

#[test]
fn the_agent_scrapes_a_program_that_knows_nothing_of_us() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = serve(folder.path());
    let mut child = Command::new(example(folder.path()))
        .args(["-server", "", "-http", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the example starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("it says where");
    let _running = Running(child);
    let target = line.trim().trim_start_matches("serving http://").trim_end_matches("/debug/pprof/").to_owned();

    let config = folder.path().join("agent.toml");
    let text = format!(
        "server = {:?}\n\n[[scrape_configs]]\njob_name = \"scraped\"\nscrape_interval = \"2s\"\ntargets = [{target:?}]\n\
         profiles = [{{ type = \"cpu\", seconds = 1 }}, \"heap\", \"goroutine\"]\n",
        server.url()
    );
    std::fs::write(&config, text).expect("a configuration");
    let agent = Command::new(built("afterglow")).arg("agent").arg("--config").arg(&config).spawn();
    let _agent = Running(agent.expect("the agent starts"));
    wait_for(&server, "scraped", &["cpu", "heap", "goroutine"]);
    let share = share(&server, "scraped", "main.threeQuarters");
    assert!(SHARE.contains(&share), "main.threeQuarters takes {share}");
}
