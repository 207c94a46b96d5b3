//! A real program as a child process.

use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a program may take until it listens. Generous: it covers a loaded machine with cold caches.
const START_MAX: Duration = Duration::from_secs(60);

/// A running server of ours; dropping it kills it.
pub struct Program {
    name: String,
    child: Child,
    address: SocketAddr,
    log: PathBuf,
    _folder: TempDir,
}

// === impl Program ===

impl Program {
    /// Starts a program that was built beside the tests, on a port of the system's choice, and waits until it listens.
    pub fn start<A: AsRef<OsStr>>(name: &str, args: &[A], env: &[(&str, &str)]) -> Self {
        Self::start_at(name, "127.0.0.1:0", args, env)
    }

    /// Starts a program so at an address of loopback.
    pub fn start_at<A: AsRef<OsStr>>(name: &str, address: &str, args: &[A], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(crate::built(name));
        command.args(args).args(["--listen", address]);
        command.envs(env.iter().copied());
        Self::spawn(name, command)
    }

    /// Starts a command that logs that it listens and where, as our servers do.
    ///
    /// # Panics
    /// Shows the log, where it ends before it listens.
    pub fn spawn(name: &str, mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        let file = File::create(&log).expect("a log file");
        // No load balancer has to notice; a test that is about one sets its own.
        if !command.get_envs().any(|(name, _)| name == "AFTERGLOW_DRAIN_DELAY") {
            command.env("AFTERGLOW_DRAIN_DELAY", "0s");
        }
        command
            .env("AFTERGLOW_LOG_FORMAT", "json")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle of the log"))
            .stderr(file);
        let child = command.spawn().unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        let mut program =
            Self { name: name.to_owned(), child, address: ([127, 0, 0, 1], 0).into(), log, _folder: folder };
        program.address = program.wait_until_it_listens();
        program
    }

    /// Polls the log for the address: the only thing a program says about itself before anybody can ask it.
    fn wait_until_it_listens(&mut self) -> SocketAddr {
        let start = Instant::now();
        loop {
            let log = self.log();
            if let Some(address) = log.lines().find_map(listening_address) {
                return address;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended before it listened ({status}):\n{log}", self.name);
            }
            assert!(start.elapsed() < START_MAX, "{} does not listen after {START_MAX:?}:\n{log}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns `http://127.0.0.1:<port>`, or whatever address it was started at.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns `127.0.0.1:<port>`, as grpcurl and scrape targets want it.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns what it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it by GET and returns the status and the body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut curl = Command::new("curl");
        curl.args(["-s", "--max-time", "20", "-w", "\n%{http_code}"]).arg(format!("{}{path}", self.url()));
        let answer = String::from_utf8_lossy(&output(curl).stdout).into_owned();
        let (body, status) = answer.rsplit_once('\n').expect("curl adds a line");
        (status.parse().expect("curl adds the status"), body.to_owned())
    }

    /// Kills it as the kernel would: no chance to finish anything.
    pub fn kill_9(&mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
    }

    /// Asks it to end by SIGTERM and waits.
    ///
    /// # Panics
    /// Shows the log, where it has not ended within `patience`.
    pub fn terminate(&mut self, patience: Duration) -> ExitStatus {
        let killed = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().expect("kill(1) runs");
        assert!(killed.success(), "{} had ended already:\n{}", self.name, self.log());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                return status;
            }
            assert!(start.elapsed() < patience, "{} still runs {patience:?} after SIGTERM:\n{}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of {}'s log\n{}", self.name, lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}

/// Finds the address in a line of JSON log that says that a program listens.
fn listening_address(line: &str) -> Option<SocketAddr> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    if !event.get("message")?.as_str()?.ends_with(" listens") {
        return None;
    }
    event.get("address")?.as_str()?.parse().ok()
}

/// Runs `afterglow` as a client and returns its standard output.
///
/// # Panics
/// Shows what it said, where it fails.
pub fn client<A: AsRef<OsStr>>(args: &[A], server: &str) -> Vec<u8> {
    let mut command = Command::new(crate::built("afterglow"));
    command.args(args).env("AFTERGLOW_SERVER", server);
    let output = output(command);
    assert!(
        output.status.success(),
        "afterglow {:?} failed: {}",
        args.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Runs a command to its end.
pub fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"))
}

/// Returns a test tool that `make tools` installs.
///
/// # Panics
/// Says how to install it, where it is missing.
pub fn tool(name: &str) -> PathBuf {
    let path = Path::new(crate::workspace()).join(".cache/bin").join(name);
    assert!(path.exists(), "{} is missing: run `make tools` first", path.display());
    path
}
