//! Real S3 stores on loopback, as processes of their own that end with the test: MinIO, and versitygw over a folder, which share no code.
//!
//! The binaries are tools of the tests alone, never a dependency: `make tools` builds them into `.cache/bin`. A test that needs one fails
//! without it and says so; it does not skip itself.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::location::StorageUrl;
use crate::open::Environment;

/// Where `make tools` puts the binaries.
const BINARIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/bin");
/// How long a store may take to answer; on a busy machine MinIO has taken ten seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is asked meanwhile.
const READY_POLL: Duration = Duration::from_millis(50);
/// A port that was free may be taken before the store binds it.
const TRIES_MAX: usize = 3;

/// Where the output goes, beside the data.
const OUTPUT: &str = "output";

const ACCESS_KEY: &str = "afterglow-test";
const SECRET_KEY: &str = "afterglow-test-secret";

/// The program behind a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Minio,
    Versity,
}

/// A running store; dropping it kills the process and removes its data.
#[derive(Debug)]
pub struct S3Server {
    process: Child,
    endpoint: String,
    data: TempDir,
}

// === impl Kind ===

impl Kind {
    fn binary(self) -> PathBuf {
        let (name, variable) = match self {
            Self::Minio => ("minio", "AFTERGLOW_TEST_MINIO"),
            Self::Versity => ("versitygw", "AFTERGLOW_TEST_VERSITYGW"),
        };
        #[expect(clippy::disallowed_methods, reason = "a test's own switch, no setting of the product")]
        let other = std::env::var_os(variable);
        let binary = other.map_or_else(|| PathBuf::from(BINARIES).join(name), PathBuf::from);
        let place = binary.display();
        assert!(binary.is_file(), "this test needs {name} at {place}: run `make tools`, or set {variable}");
        binary
    }

    /// What is asked to learn whether it serves.
    fn health(self) -> &'static str {
        match self {
            Self::Minio => "/minio/health/ready",
            Self::Versity => "/health",
        }
    }

    /// Returns the command that serves `data` at `address`.
    fn command(self, binary: &PathBuf, address: &str, data: &Path) -> io::Result<Command> {
        let mut command = Command::new(binary);
        match self {
            Self::Minio => {
                command
                    .args(["server", "--quiet", "--address", address, "--console-address", "127.0.0.1:0"])
                    .arg(data)
                    .env("MINIO_ROOT_USER", ACCESS_KEY)
                    .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
                    .env("MINIO_UPDATE", "off")
                    .env("MINIO_BROWSER", "off");
            }
            Self::Versity => {
                std::fs::create_dir(data)?;
                command
                    .args(["--quiet", "--port", address, "--health", self.health(), "posix"])
                    .arg(data)
                    .env("ROOT_ACCESS_KEY", ACCESS_KEY)
                    .env("ROOT_SECRET_KEY", SECRET_KEY);
            }
        }
        Ok(command)
    }
}

// === impl S3Server ===

impl S3Server {
    /// Starts MinIO over an empty folder and returns once it takes connections.
    ///
    /// # Panics
    /// Where the binary is missing or does not come up.
    pub async fn minio() -> Self {
        Self::start(Kind::Minio).await
    }

    /// Starts versitygw over an empty folder and returns once it takes connections.
    ///
    /// # Panics
    /// Where the binary is missing or does not come up.
    pub async fn versity() -> Self {
        Self::start(Kind::Versity).await
    }

    async fn start(kind: Kind) -> Self {
        let binary = kind.binary();
        let mut output = String::new();
        for _ in 0..TRIES_MAX {
            let port = free_port().expect("loopback has a free port");
            let mut server = Self::spawn(kind, &binary, port).expect("the store can be started");
            if server.is_ready(kind, port).await {
                return server;
            }
            output = std::fs::read_to_string(server.data.path().join(OUTPUT)).unwrap_or_default();
        }
        panic!("the store does not come up: {} was tried {TRIES_MAX} times and said: {output}", binary.display());
    }

    fn spawn(kind: Kind, binary: &PathBuf, port: u16) -> io::Result<Self> {
        let data = TempDir::new()?;
        let address = format!("127.0.0.1:{port}");
        let output = File::create(data.path().join(OUTPUT))?;
        let process = kind
            .command(binary, &address, &data.path().join("data"))?
            .env("HOME", data.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self { process, endpoint: format!("http://{address}"), data })
    }

    /// Waits until it answers an HTTP request as one that serves; false where it has ended.
    async fn is_ready(&mut self, kind: Kind, port: u16) -> bool {
        let until = Instant::now() + READY_TIMEOUT;
        while Instant::now() < until {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return false;
            }
            if is_healthy(kind.health(), port).await {
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

    /// Returns the folder in which it keeps its data.
    pub fn folder(&self) -> PathBuf {
        self.data.path().join("data")
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

async fn is_healthy(path: &str, port: u16) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ask = async {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    ask.await.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
}
