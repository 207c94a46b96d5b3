//! Certificates made for a test, and a client that presents them.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;

use super::Options;

/// Who issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Files as a server is given them.
pub(crate) struct Folder(TempDir);

/// A client that trusts an authority.
pub(crate) struct TlsClient {
    pub(crate) address: SocketAddr,
    config: Arc<ClientConfig>,
}

// === impl Authority ===

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Issues a certificate for loopback, good until the given year, by which client and server can prove to be `name`.
    pub(crate) fn issue_until(&self, name: &str, year: i32) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        Pair { cert: params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key: key.serialize_pem() }
    }

    pub(crate) fn issue(&self, name: &str) -> Pair {
        self.issue_until(name, 2090)
    }
}

// === impl Folder ===

impl Folder {
    pub(crate) fn new(pair: &Pair, client_ca: Option<&str>) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        folder.write("cert.pem", &pair.cert);
        folder.write("key.pem", &pair.key);
        if let Some(authority) = client_ca {
            folder.write("ca.pem", authority);
        }
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    pub(crate) fn options(&self) -> Options {
        let ca = self.path("ca.pem");
        Options {
            cert_file: Some(self.path("cert.pem")),
            key_file: Some(self.path("key.pem")),
            client_ca_file: ca.exists().then_some(ca),
            ..Options::default()
        }
    }
}

// === impl TlsClient ===

impl TlsClient {
    /// A client of all versions of TLS, without a certificate of its own or with one.
    pub(crate) fn new(address: SocketAddr, authority: &Authority, own: Option<&Pair>) -> Self {
        Self::of_versions(address, authority, own, rustls::ALL_VERSIONS)
    }

    pub(crate) fn of_versions(
        address: SocketAddr,
        authority: &Authority,
        own: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM")).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(Pair { cert, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM")];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("a certificate")
            }
        };
        Self { address, config: Arc::new(config) }
    }

    /// Opens a connection for one of these protocols.
    pub(crate) async fn connect(&self, protocols: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Asks by GET on a connection of its own, and returns status and text; the end of the connection is an error.
    pub(crate) async fn get(&self, path: &str, version: Version) -> io::Result<(u16, String)> {
        let request = Request::get(format!("https://localhost{path}")).header("host", "localhost");
        let request = request.version(version).body(Empty::<Bytes>::new()).expect("a request");
        let response = if version == Version::HTTP_2 {
            let stream = TokioIo::new(self.connect(&[b"h2"]).await?);
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(io::Error::other)?
        } else {
            let stream = TokioIo::new(self.connect(&[b"http/1.1"]).await?);
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(io::Error::other)?
        };
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok((status, String::from_utf8(body.to_vec()).expect("text")))
    }

    /// Returns a channel for calls.
    pub(crate) async fn channel(&self) -> Channel {
        let stream = self.connect(&[b"h2"]).await.expect("a connection");
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: http::Uri| {
            std::future::ready(stream.take().ok_or(io::Error::other("one connection alone")))
        });
        let endpoint = Channel::from_static("http://localhost");
        endpoint.connect_with_connector(connector).await.expect("HTTP/2")
    }
}
