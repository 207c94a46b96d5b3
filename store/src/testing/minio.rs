//! A real S3 store on loopback: MinIO, as a process of its own that ends with the test.
//!
//! The binary is a tool of the tests alone, never a dependency: `make tools` builds it into `.cache/bin`. A test that needs it fails
//! without it and says so; it does not skip itself.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::location::StorageUrl;
use crate::open::Environment;

/// The environment variable that names another binary.
const BINARY_ENV: &str = "AFTERGLOW_TEST_MINIO";
/// Where `make tools` puts the binary.
const BINARY_DEFAULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/bin/minio");
/// How long MinIO may take to answer; on a busy machine it has taken ten seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is asked meanwhile.
const READY_POLL: Duration = Duration::from_millis(50);
/// A port that was free may be taken before MinIO binds it.
const TRIES_MAX: usize = 3;

/// Where MinIO's output goes, beside its data.
const OUTPUT: &str = "output";

const ACCESS_KEY: &str = "afterglow-test";
const SECRET_KEY: &str = "afterglow-test-secret";

/// A running MinIO; dropping it kills the process and removes its data.
#[derive(Debug)]
pub struct Minio {
    process: Child,
    endpoint: String,
    data: TempDir,
}

impl Minio {
    /// Starts MinIO over an empty folder and returns once it takes connections.
    ///
    /// # Panics
    /// Where the binary is missing or does not come up.
    pub async fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "a test's own switch, no setting of the product")]
        let binary = std::env::var_os(BINARY_ENV).map_or_else(|| PathBuf::from(BINARY_DEFAULT), PathBuf::from);
        assert!(
            binary.is_file(),
            "this test needs MinIO at {}: run `make tools`, or set {BINARY_ENV}",
            binary.display()
        );
        let mut output = String::new();
        for _ in 0..TRIES_MAX {
            let port = free_port().expect("loopback has a free port");
            let mut minio = Self::spawn(&binary, port).expect("MinIO can be started");
            if minio.is_ready(port).await {
                return minio;
            }
            output = std::fs::read_to_string(minio.data.path().join(OUTPUT)).unwrap_or_default();
        }
        panic!("MinIO does not come up: {} was tried {TRIES_MAX} times and said: {output}", binary.display());
    }

    fn spawn(binary: &PathBuf, port: u16) -> io::Result<Self> {
        let data = TempDir::new()?;
        let address = format!("127.0.0.1:{port}");
        let output = File::create(data.path().join(OUTPUT))?;
        let process = Command::new(binary)
            .args(["server", "--quiet", "--address", &address, "--console-address", "127.0.0.1:0"])
            .arg(data.path().join("data"))
            .env("MINIO_ROOT_USER", ACCESS_KEY)
            .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
            .env("MINIO_UPDATE", "off")
            .env("MINIO_BROWSER", "off")
            .env("HOME", data.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self { process, endpoint: format!("http://{address}"), data })
    }

    /// Waits until MinIO answers an HTTP request as one that serves; false where it has ended.
    async fn is_ready(&mut self, port: u16) -> bool {
        let until = Instant::now() + READY_TIMEOUT;
        while Instant::now() < until {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return false;
            }
            if is_healthy(port).await {
                return true;
            }
            sleep(READY_POLL).await;
        }
        false
    }

    /// Returns the URL under which it serves.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the variables by which programs find it.
    pub fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// Returns the same for a store that is opened in this process.
    pub fn environment(&self) -> Environment {
        self.variables().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Returns the URL of a bucket, which need not exist.
    pub fn storage(&self, bucket: &str, prefix: &str) -> StorageUrl {
        format!("s3://{bucket}/{prefix}").parse().expect("a test names its bucket well")
    }

    /// Returns the folder in which MinIO keeps its data.
    pub fn folder(&self) -> PathBuf {
        self.data.path().join("data")
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

async fn is_healthy(port: u16) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ask = async {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
        connection
            .write_all(b"GET /minio/health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    ask.await.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
}
