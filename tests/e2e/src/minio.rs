//! A real MinIO for a test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long MinIO may take until it answers.
const START_MAX: Duration = Duration::from_secs(60);

/// A MinIO server over a temporary folder; dropping it kills it and its data.
pub struct MinIo {
    child: Child,
    endpoint: String,
    _folder: TempDir,
}

// === impl MinIo ===

impl MinIo {
    /// Starts a server and waits until it is live.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = free_address();
        let child = Command::new(crate::tool("minio"))
            .args(["server", "--quiet", "--address", &address, "--console-address", &free_address()])
            .arg(folder.path())
            .envs([("MINIO_ROOT_USER", "minioadmin"), ("MINIO_ROOT_PASSWORD", "minioadmin")])
            .envs([("MINIO_UPDATE", "off"), ("MINIO_BROWSER", "off"), ("MINIO_CALLHOME_ENABLE", "off")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("minio starts");
        let minio = Self { child, endpoint: format!("http://{address}"), _folder: folder };
        minio.wait_until_it_is_live();
        minio
    }

    /// Polls the health endpoint.
    fn wait_until_it_is_live(&self) {
        let url = format!("{}/minio/health/live", self.endpoint);
        let start = Instant::now();
        loop {
            let mut curl = Command::new("curl");
            curl.args(["-sf", "-o", "/dev/null", "--max-time", "2", &url]);
            if crate::output(curl).status.success() {
                return;
            }
            assert!(start.elapsed() < START_MAX, "minio does not answer at {url} after {START_MAX:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Creates a bucket by `afterglow bucket init` and returns its storage URL.
    pub fn bucket(&self, name: &str) -> String {
        let url = format!("s3://{name}");
        let mut command = Command::new(crate::built("afterglow"));
        command.args(["bucket", "init", "--storage", &url]).envs(self.env());
        let output = crate::output(command);
        assert!(output.status.success(), "bucket init failed: {}", String::from_utf8_lossy(&output.stderr));
        url
    }

    /// Stops it where it stands: connections stay open and nothing is answered, until [`MinIo::resume`].
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill(1) runs");
        assert!(sent.success(), "minio had ended");
    }

    /// Returns the environment that points a program at this server, as any S3 client reads it.
    pub fn env(&self) -> Vec<(&str, &str)> {
        vec![
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ACCESS_KEY_ID", "minioadmin"),
            ("AWS_SECRET_ACCESS_KEY", "minioadmin"),
            ("AWS_REGION", "us-east-1"),
        ]
    }
}

impl Drop for MinIo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks the system for a port that is free now. MinIO cannot say which port it chose, so the choice is made here.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound listener has an address").to_string()
}
