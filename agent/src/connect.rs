//! How a client reaches a server: address, TLS, and the metadata that every call carries.
//!
//! A [`Target`] is plain data. [`Target::channel`] dials lazily and serves any tonic client; [`Target::dial`] opens a new connection,
//! so that a name is resolved again and a load balancer can choose again. `https://` is verified against the system's root
//! certificates. The tenant and the token travel as metadata and never appear in `Debug` output or errors.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

/// The metadata key that names the tenant.
const TENANT_KEY: &str = "x-scope-orgid";

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an idle connection is probed. Load balancers commonly cut a silent connection after 60 s or more.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// How long a probe may stay unanswered before the connection counts as dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest file of a token.
const TOKEN_BYTES_MAX: u64 = 4 << 10;

/// A channel that adds the tenant and the token to every call.
pub type Connection = InterceptedService<Channel, Credentials>;

/// Why a target cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not one.
    #[error("server address {server:?} is not valid: expected http://HOST:PORT or https://HOST:PORT")]
    Address {
        /// The address as given.
        server: String,
    },
    /// The tenant, token or user agent cannot be a header.
    #[error("{name} holds characters that a header cannot carry")]
    Header {
        /// Which of them.
        name: &'static str,
    },
    /// The file of the token cannot be read, or holds none.
    #[error("token-file {}: {reason}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// TLS could not be set up.
    #[error("TLS for {server} could not be set up")]
    Tls {
        /// The address as given.
        server: String,
        /// What tonic said.
        #[source]
        source: tonic::transport::Error,
    },
    /// The server does not answer.
    #[error("cannot connect to {server}: {cause}")]
    Unreachable {
        /// The address as given.
        server: String,
        /// What the operating system or TLS said.
        cause: String,
    },
}

/// Where a server is, and as whom to speak to it.
#[derive(Clone)]
pub struct Target {
    /// `http://HOST:PORT` or `https://HOST:PORT`; without a scheme it is `http`.
    pub server: String,
    /// The tenant; none means the server's default.
    pub tenant: Option<String>,
    /// A bearer token.
    pub token: Option<String>,
    /// The program that speaks, such as `afterglow-agent/0.1.0`.
    pub user_agent: String,
}

/// Adds the tenant and the token to every call.
#[derive(Clone)]
pub struct Credentials {
    tenant: Option<MetadataValue<Ascii>>,
    authorization: Option<MetadataValue<Ascii>>,
}

/// Reads the token that a file holds alone on its line, as `afterglow token --output` and mounted secrets have it.
///
/// # Errors
/// [`Error::TokenFile`] when it cannot be read, or does not hold one token.
pub fn read_token(path: &Path) -> Result<String, Error> {
    let failed = |reason: String| Error::TokenFile { path: path.to_owned(), reason };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(TOKEN_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() || text.len() as u64 > TOKEN_BYTES_MAX || token.contains(char::is_whitespace) {
        return Err(failed("does not hold one token".to_owned()));
    }
    Ok(token.to_owned())
}

/// Opens a connection to `server`, without tenant and token.
///
/// # Errors
/// As [`Target::dial`].
pub async fn connect(server: &str) -> Result<Channel, Error> {
    let target = Target::new(server);
    let channel = target.endpoint()?.connect().await;
    channel.map_err(|error| Error::Unreachable { server: target.server, cause: innermost(&error) })
}

// === impl Target ===

impl Target {
    /// Returns the target `server` without tenant and token.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            tenant: None,
            token: None,
            user_agent: concat!("afterglow-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Returns a channel that connects when it is first used, and again after it broke.
    ///
    /// # Errors
    /// [`Error`] when the target itself is not valid; a server that does not answer shows at the first call.
    pub fn channel(&self) -> Result<Connection, Error> {
        let credentials = self.credentials()?;
        Ok(InterceptedService::new(self.endpoint()?.connect_lazy(), credentials))
    }

    /// Opens a new connection.
    ///
    /// # Errors
    /// [`Error`] when the target is not valid, [`Error::Unreachable`] when the server does not answer within 5 s.
    pub async fn dial(&self) -> Result<Connection, Error> {
        let credentials = self.credentials()?;
        let channel = self
            .endpoint()?
            .connect()
            .await
            .map_err(|error| Error::Unreachable { server: self.server.clone(), cause: innermost(&error) })?;
        Ok(InterceptedService::new(channel, credentials))
    }

    /// Checks address, tenant, token and user agent without connecting.
    ///
    /// # Errors
    /// [`Error`] with the first that is not valid.
    pub fn check(&self) -> Result<(), Error> {
        self.credentials()?;
        self.endpoint().map(drop)
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let address = || Error::Address { server: self.server.clone() };
        let (secure, uri) = match self.server.split_once("://") {
            Some(("http", _)) => (false, self.server.clone()),
            Some(("https", _)) => (true, self.server.clone()),
            Some(_) => return Err(address()),
            None => (false, format!("http://{}", self.server)),
        };
        let mut endpoint = Endpoint::from_shared(uri).map_err(|_| address())?;
        if endpoint.uri().host().is_none_or(str::is_empty) {
            return Err(address());
        }
        if secure {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(tls).map_err(|source| Error::Tls { server: self.server.clone(), source })?;
        }
        endpoint = endpoint
            .user_agent(self.user_agent.as_str())
            .map_err(|_| Error::Header { name: "user agent" })?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        Ok(endpoint)
    }

    fn credentials(&self) -> Result<Credentials, Error> {
        let header = |name: &'static str, text: String| {
            let mut value = MetadataValue::try_from(text).map_err(|_| Error::Header { name })?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        Ok(Credentials {
            tenant: self.tenant.clone().map(|tenant| header("tenant", tenant)).transpose()?,
            authorization: self.token.as_ref().map(|token| header("token", format!("Bearer {token}"))).transpose()?,
        })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("server", &self.server)
            .field("tenant", &self.tenant)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("user_agent", &self.user_agent)
            .finish()
    }
}

// === impl Credentials ===

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(tenant) = &self.tenant {
            request.metadata_mut().insert(TENANT_KEY, tenant.clone());
        }
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

/// Returns the last error of the chain: tonic's own text for a refused connection is only `transport error`.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_may_leave_out_http_and_nothing_else() {
        for good in ["127.0.0.1:4100", "http://localhost:4100", "https://profiles.example.com"] {
            assert!(Target::new(good).channel().is_ok(), "{good}");
        }
        for bad in ["", "http://", "grpc://localhost:4100", "http://bad host:1", "s3://bucket"] {
            assert!(matches!(Target::new(bad).channel(), Err(Error::Address { .. })), "{bad}");
        }
    }

    #[test]
    fn a_token_is_read_from_a_file_that_holds_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(read_token(&path).unwrap_err().to_string().starts_with(&format!("token-file {}: ", path.display())));
        std::fs::write(&path, "agw_1\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), "agw_1");
        for odd in ["", "\n", "agw_1\nagw_2\n", "name = agw_1", &"a".repeat(5000)] {
            std::fs::write(&path, odd).unwrap();
            assert!(read_token(&path).unwrap_err().to_string().ends_with("does not hold one token"), "{odd}");
        }
    }

    #[test]
    fn a_token_that_cannot_be_a_header_is_refused_and_never_shown() {
        let mut target = Target::new("localhost:4100");
        target.token = Some("line\nbreak".into());
        assert_eq!(target.check().unwrap_err().to_string(), "token holds characters that a header cannot carry");
        assert!(!format!("{target:?}").contains("break"));
    }
}
