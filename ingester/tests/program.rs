//! Goal: the program starts, takes a profile, and ends as its operator asks; what is configured wrongly it says at
//! once.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterglow-ingester"));
    // What is counted is what the test pushes.
    command.args(arguments).env_clear().env("AFTERGLOW_NO_SELF_PROFILE", "true").stderr(Stdio::piped());
    command
}

fn output(arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = program(arguments).output().expect("the program runs");
    let text = [stdout, stderr].concat();
    (status.code().expect("an exit code"), String::from_utf8(text).expect("text"))
}

/// A program that is ended when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads the log up to the line that names the address.
fn address(log: &mut impl BufRead) -> SocketAddr {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).expect("a log") > 0, "it ended:\n{seen}");
        let value = line.split_whitespace().find_map(|word| word.strip_prefix("address="));
        if let Some(address) = value {
            return address.parse().expect("an address");
        }
        seen.push_str(&line);
    }
}

#[tokio::test]
async fn it_serves_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = format!("--storage=file://{}", folder.path().display());
    let child = program(&[&storage, "--listen=127.0.0.1:0"]).spawn().expect("the program runs");
    let mut running = Running(child);
    let mut log = BufReader::new(running.0.stderr.take().expect("a pipe"));
    let address = address(&mut log);

    // The smallest pprof: a sample type, and the empty string.
    let url = format!("http://{address}/api/v1/profiles?service=api&type=cpu");
    let response = reqwest::Client::new().post(url).body(vec![0x0a, 0x00, 0x32, 0x00]).send().await.expect("an answer");
    let (status, text) = (response.status(), response.text().await.expect("a body"));
    assert_eq!(status, 200, "{text}");
    let ready = reqwest::get(format!("http://{address}/readyz")).await.expect("an answer");
    assert_eq!(ready.status(), 200);
    let tenant = folder.path().join("v1/t/anonymous/l0");
    assert_eq!(std::fs::read_dir(tenant).expect("the folder of segments").count(), 1);

    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    let mut rest = String::new();
    log.read_to_string(&mut rest).expect("a log");
    assert_eq!(running.0.wait().expect("it ends").code(), Some(0), "{rest}");
    assert!(rest.contains("all profiles are answered"), "{rest}");
}

/// Goal: a process that only maintains is healthy and measured like any other, and takes no profiles.
#[tokio::test]
async fn it_may_maintain_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = format!("--storage=file://{}", folder.path().display());
    let child = program(&[&storage, "--listen=127.0.0.1:0", "--roles=maintain"]).spawn().expect("the program runs");
    let mut running = Running(child);
    let mut log = BufReader::new(running.0.stderr.take().expect("a pipe"));
    let address = address(&mut log);
    let get = async |path: &str| reqwest::get(format!("http://{address}{path}")).await.expect("an answer");
    assert_eq!(get("/readyz").await.status(), 200);
    // The first round is made at once.
    let rounds = async || {
        let text = get("/metrics").await.text().await.expect("a body");
        text.lines().find_map(|line| line.strip_prefix("afterglow_maintenance_rounds_total ")).map(str::to_owned)
    };
    let one = async {
        while rounds().await.as_deref() != Some("1") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), one).await.expect("a round is made");
    let url = format!("http://{address}/api/v1/profiles?service=api&type=cpu");
    let response = reqwest::Client::new().post(url).body(vec![0x0a, 0x00, 0x32, 0x00]).send().await.expect("an answer");
    assert_eq!(response.status(), 404);
}

#[test]
fn bad_settings_are_said_together() {
    let (code, text) =
        output(&["--storage=memory://", "--flush-interval=0s", "--maintenance.memory=1MiB", "--limits.max-body=0"]);
    assert_eq!(code, 78, "{text}");
    for problem in [
        "error: flush-interval is 0: no profile could be taken",
        "error: maintenance.memory 1 MiB is below 16 MiB: no large block could be merged",
        "error: limits.max-body is 0: nothing could be served",
    ] {
        assert!(text.lines().any(|line| line == problem), "{problem} in\n{text}");
    }
    let (code, text) = output(&["--storage=file:///proc/afterglow", "--insecure"]);
    assert_eq!(code, 78, "{text}");
    assert!(text.contains("cannot use the storage: storage file:///proc/afterglow cannot be opened"), "{text}");
    for usage in [&["--storage=ftp://x"][..], &["--storage=memory://", "--no-such-flag"], &[]] {
        let (code, text) = output(usage);
        assert_eq!(code, 2, "{usage:?}: {text}");
    }
    assert_eq!(output(&["--help"]).0, 0);
}
