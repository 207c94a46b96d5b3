//! How a client reaches a server: address, TLS, and the metadata that every call carries.
//!
//! A [`Target`] is plain data. [`Target::channel`] dials lazily and serves any tonic client; [`Target::dial`] opens a new connection,
//! so that a name is resolved again, a load balancer can choose again, and files of certificates are read again. `https://` is verified
//! against the system's root certificates, or against those of [`Tls`]. The tenant and the token travel as metadata and never appear in
//! `Debug` output or errors.

mod tls;

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

pub use tls::Tls;

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
    #[error("{name} is empty, or holds characters that a header cannot carry")]
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
    /// A file of certificates or keys cannot be used.
    #[error("{flag} {}: {reason}", path.display())]
    TlsFile {
        /// The setting.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong; never quotes the file.
        reason: String,
    },
    /// Settings of TLS do not go together, or not with the address.
    #[error("{0}")]
    TlsSettings(&'static str),
    /// The token would be for everybody on the way to read.
    #[error(
        "the token would go to {server} in the clear, where whoever is on the way can read it: use https://, or say that this is meant \
         (token-in-clear)"
    )]
    TokenInClear {
        /// The address as given.
        server: String,
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
    /// The server answers, but is not who it should be, as far as the authorities tell.
    #[error("cannot verify {server}: {cause}")]
    NotVerified {
        /// The address as given.
        server: String,
        /// What TLS said.
        cause: String,
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
    /// A bearer token. It goes over `https://`, or to this machine, unless `token_in_clear`.
    pub token: Option<String>,
    /// Sends the token over plain `http://` to other machines as well.
    pub token_in_clear: bool,
    /// How `https://` is verified.
    pub tls: Tls,
    /// What opens connections in place of the network: the way into a server of the same process.
    pub connector: Option<Connector>,
    /// The program that speaks, such as `afterglow-agent/0.1.0`.
    pub user_agent: String,
}

/// Opens connections in place of the network.
#[derive(Clone)]
pub struct Connector(Arc<dyn Fn() -> Opening + Send + Sync>);

/// A connection that is being opened.
type Opening = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// What a connection is made of.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

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
    read_one_token(path).map_err(|reason| Error::TokenFile { path: path.to_owned(), reason })
}

/// Reads a token as [`read_token`] does, whatever the setting that names the file is called.
///
/// # Errors
/// What is wrong; never quotes the file.
pub(crate) fn read_one_token(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(TOKEN_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let token = text.trim();
    if token.is_empty() || text.len() as u64 > TOKEN_BYTES_MAX || token.contains(char::is_whitespace) {
        return Err("does not hold one token".to_owned());
    }
    Ok(token.to_owned())
}

/// Opens a connection to `server`, without tenant and token.
///
/// # Errors
/// As [`Target::dial`].
pub async fn connect(server: &str) -> Result<Channel, Error> {
    let target = Target::new(server);
    target.connect().await
}

// === impl Target ===

impl Target {
    /// Returns the target `server` without tenant and token.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            tenant: None,
            token: None,
            token_in_clear: false,
            tls: Tls::default(),
            connector: None,
            user_agent: concat!("afterglow-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Returns a channel that connects when it is first used, and again after it broke.
    ///
    /// # Errors
    /// [`Error`] when the target itself is not valid; a server that does not answer shows at the first call.
    pub fn channel(&self) -> Result<Connection, Error> {
        let (credentials, endpoint) = (self.credentials()?, self.endpoint()?);
        let channel = match &self.connector {
            Some(connector) => endpoint.connect_with_connector_lazy(connector.service()),
            None => endpoint.connect_lazy(),
        };
        Ok(InterceptedService::new(channel, credentials))
    }

    /// Opens a new connection.
    ///
    /// # Errors
    /// [`Error`] when the target is not valid, [`Error::Unreachable`] when the server does not answer within 5 s,
    /// [`Error::NotVerified`] when it has no certificate that may be believed.
    pub async fn dial(&self) -> Result<Connection, Error> {
        let credentials = self.credentials()?;
        Ok(InterceptedService::new(self.connect().await?, credentials))
    }

    async fn connect(&self) -> Result<Channel, Error> {
        let endpoint = self.endpoint()?;
        let connected = match &self.connector {
            Some(connector) => endpoint.connect_with_connector(connector.service()).await,
            None => endpoint.connect().await,
        };
        connected.map_err(|error| {
            let (server, cause) = (self.shown(), tls::explain(innermost(&error)));
            if tls::is_about_verification(&cause) {
                Error::NotVerified { server, cause }
            } else {
                Error::Unreachable { server, cause }
            }
        })
    }

    /// Checks address, tenant, token, user agent and the files of TLS without connecting.
    ///
    /// # Errors
    /// [`Error`] with the first that is not valid.
    pub fn check(&self) -> Result<(), Error> {
        self.credentials()?;
        self.endpoint().map(drop)
    }

    /// Returns the address as it may be told: what stands before an `@` may be a password.
    pub(crate) fn shown(&self) -> String {
        let (scheme, rest) = self.server.split_at(self.server.find("://").map_or(0, |at| at + "://".len()));
        match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}***@{host}"),
            None => self.server.clone(),
        }
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let address = || Error::Address { server: self.shown() };
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
        if self.token.is_some()
            && !self.token_in_clear
            && !secure
            && self.connector.is_none()
            && !is_this_machine(endpoint.uri().host().unwrap_or_default())
        {
            return Err(Error::TokenInClear { server: self.shown() });
        }
        if secure {
            let tls = self.tls.config()?.timeout(CONNECT_TIMEOUT);
            endpoint = endpoint.tls_config(tls).map_err(|source| Error::Tls { server: self.shown(), source })?;
        } else if self.tls != Tls::default() {
            return Err(Error::TlsSettings(
                "files of TLS are given, but the server's address does not begin with https://",
            ));
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
        let header = |name: &'static str, before: &str, text: &String| {
            let value = MetadataValue::try_from(format!("{before}{text}")).ok().filter(|_| !text.is_empty());
            let mut value = value.ok_or(Error::Header { name })?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        Ok(Credentials {
            tenant: self.tenant.as_ref().map(|tenant| header("tenant", "", tenant)).transpose()?,
            authorization: self.token.as_ref().map(|token| header("token", "Bearer ", token)).transpose()?,
        })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("server", &self.shown())
            .field("tenant", &self.tenant)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("token_in_clear", &self.token_in_clear)
            .field("tls", &self.tls)
            .field("connector", &self.connector)
            .field("user_agent", &self.user_agent)
            .finish()
    }
}

/// Returns whether what is sent there leaves this machine's memory.
pub(crate) fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse().map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address: IpAddr| address.is_loopback())
}

// === impl Connector ===

impl Connector {
    /// Opens connections by a call of `open`.
    pub fn new<F, S>(open: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self(Arc::new(move || {
            let opening = open();
            Box::pin(async move { Ok(Box::new(opening.await?) as Box<dyn Stream>) })
        }))
    }

    fn service(
        &self,
    ) -> impl tower::Service<
        http::Uri,
        Response = TokioIo<Box<dyn Stream>>,
        Error = io::Error,
        Future = impl Future<Output = io::Result<TokioIo<Box<dyn Stream>>>> + Send + use<>,
    > + Send
    + use<> {
        let Self(open) = self.clone();
        tower::service_fn(move |_: http::Uri| {
            let opening = open();
            async move { Ok(TokioIo::new(opening.await?)) }
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
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

    #[tokio::test]
    async fn a_token_goes_in_the_clear_to_this_machine_alone_unless_that_is_meant() {
        let target = |server: &str| Target { token: Some("agw_1".into()), ..Target::new(server) };
        for good in ["localhost:4100", "http://127.0.0.2:4100", "http://[::1]:4100", "https://profiles.example.com"] {
            assert!(target(good).check().is_ok(), "{good}");
            assert!(Target::new(good).check().is_ok(), "{good}");
        }
        for bad in
            ["ingester:4100", "http://10.0.0.1:4100", "http://localhost.example.com", "http://[2001:db8::1]:4100"]
        {
            let error = target(bad).check().unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("token-in-clear") && !error.contains("agw_1"), "{error}");
            assert!(Target { token_in_clear: true, ..target(bad) }.check().is_ok(), "{bad}");
            assert!(Target::new(bad).check().is_ok(), "{bad}");
        }
    }

    #[test]
    fn a_token_that_cannot_be_a_header_is_refused_and_never_shown() {
        let mut target = Target::new("localhost:4100");
        target.token = Some("line\nbreak".into());
        assert_eq!(
            target.check().unwrap_err().to_string(),
            "token is empty, or holds characters that a header cannot carry"
        );
        assert!(!format!("{target:?}").contains("break"));
    }

    /// Symptom: `--server http://user:password@host` was told, and logged, with the password.
    #[tokio::test]
    async fn a_password_in_the_address_is_never_shown() {
        for server in ["ftp://user:hunter2@host", "https://user:hun/ter2@", "user:hunter2@", "http://hunter2@host:port"]
        {
            let target = Target::new(server);
            let shown = format!("{} {target:?}", target.shown());
            assert!(shown.contains("***@") && !shown.contains("ter2"), "{shown}");
        }
        let error = Target::new("ftp://user:hunter2@host").check().unwrap_err().to_string();
        assert!(error.starts_with("server address \"ftp://***@host\" is not valid"), "{error}");
        let error = connect("http://user:hunter2@127.0.0.1:1").await.unwrap_err().to_string();
        assert!(error.starts_with("cannot connect to http://***@127.0.0.1:1: "), "{error}");
    }
}
