//! What it costs a server to profile itself, and whether its profiles name its functions whole.

#![allow(clippy::disallowed_methods, reason = "a test waits for programs that cannot wake it")]

use std::time::{Duration, Instant};

use afterglow_e2e::{Program, client};

/// What a server with a profiler may keep resident: some 25 MB of its own, 18 MB of the sampler, and what it has mapped.
const RESIDENT_MAX: u64 = 100 << 20;

/// How long freed memory may take until it is given back.
const GIVEN_BACK_MAX: Duration = Duration::from_secs(60);

/// Returns the resident bytes of a process (man 5 proc_pid_status).
fn resident(server: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says so");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

fn assert_small(server: &Program) {
    let start = Instant::now();
    while resident(server) > RESIDENT_MAX {
        assert!(start.elapsed() < GIVEN_BACK_MAX, "{} bytes are resident", resident(server));
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// How long the first profiles of a process may take until they are found, on a loaded machine.
const SHOWN_MAX: Duration = Duration::from_secs(60);

fn wait_for(server: &Program, service: &str, profile_type: &str) {
    let start = Instant::now();
    let query = format!("{{service={service:?}}}");
    loop {
        let found = client(&["search", &query, "--type", profile_type, "--output", "json"], &server.url());
        let found: serde_json::Value = serde_json::from_slice(&found).expect("search prints JSON");
        if found["profiles"].as_array().is_some_and(|profiles| !profiles.is_empty()) {
            let instance = &found["profiles"][0]["labels"]["instance"];
            assert!(instance.as_str().is_some_and(|name| !name.is_empty()), "replicas are told apart: {found}");
            return;
        }
        assert!(start.elapsed() < SHOWN_MAX, "no {profile_type} of {service}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Goal: the trouble of each tier is found with Afterglow itself: who takes profiles pushes to itself, the others to it.
#[test]
fn each_tier_pushes_profiles_of_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().display());
    let own = [("AFTERGLOW_SELF_PROFILE_PERIOD", "2s")];
    let ingester = Program::start(
        "afterglow-ingester",
        &["--roles=ingest", "--storage", &storage, "--self-profile.server=here"],
        &own,
    );
    let url = ingester.url();
    let told = ["--storage", &storage, "--self-profile.server", &url];
    let maintainer = Program::start("afterglow-ingester", &[&["--roles=maintain"], &told[..]].concat(), &own);
    let mut querier = Program::start("afterglow-querier", &told, &own);
    let scrapes = folder.path().join("agent.toml");
    std::fs::write(&scrapes, "[[scrape_configs]]\njob_name = \"nobody\"\ntargets = [\"127.0.0.1:1\"]\n")
        .expect("a file");
    let scrapes = scrapes.display().to_string();
    let agent = Program::start("afterglow-agent", &["--config", &scrapes, "--server", &url], &own);
    for service in ["afterglow-ingester", "afterglow-maintainer", "afterglow-querier"] {
        wait_for(&querier, service, "cpu");
        wait_for(&querier, service, "heap");
    }
    wait_for(&querier, "afterglow-agent", "cpu");
    drop((maintainer, agent));
    assert!(querier.terminate(Duration::from_secs(10)).success());
}

/// Debug information is looked at, not held: of one profile on demand as of a profiler that runs.
#[test]
fn a_server_that_profiles_itself_stays_small() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().display());
    let period = ["serve", "--self-profile-period", "2s", "--storage", &storage];
    let server = Program::start("afterglow", &period, &[]);
    let querier = Program::start("afterglow-querier", &["--storage", &storage], &[]);
    assert_eq!(querier.get("/debug/pprof/profile?seconds=1").0, 200);
    assert_small(&querier);

    std::thread::sleep(Duration::from_secs(6));
    assert_small(&server);
    let folded = client(&["merge", "{service=\"afterglow\"}", "--type", "cpu", "--format", "folded"], &server.url());
    let folded = String::from_utf8(folded).expect("folded stacks are text");
    assert!(folded.contains("afterglow_agent::profiler::"), "{folded}");
}
