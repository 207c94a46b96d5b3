//! Reads the files of TLS, and makes of them what a connection is begun with.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};

use super::{Names, x509};
use crate::causes::Causes;
use crate::time;

/// The largest of the files: some hundred authorities. A larger one is another file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the port speaks within TLS, the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where the files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) names: Names,
}

/// What stands in the files. It is not printed: one of them is a key.
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// What the files came to.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    /// When the first certificate of the chain expires, in unix seconds, where that can be read.
    pub(super) not_after: Option<i64>,
}

/// Why the files of TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of them cannot be read.
    #[error("{flag} {}: cannot be read: {source}", path.display())]
    Read {
        /// The setting.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What stands in one of them is not what should.
    #[error("{flag} {}: {reason}", path.display())]
    Contents {
        /// The setting.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong; never quotes the file.
        reason: String,
    },
}

// === impl Files ===

impl Files {
    /// Reads and checks.
    pub(super) fn load(&self) -> Result<Loaded, Error> {
        self.parse(&self.read()?)
    }

    /// Reads the files whole, up to their bound.
    pub(super) fn read(&self) -> Result<Contents, Error> {
        Ok(Contents {
            cert: read(self.names.cert_file, &self.cert)?,
            key: read(self.names.key_file, &self.key)?,
            client_ca: self.client_ca.as_deref().map(|path| read(self.names.client_ca_file, path)).transpose()?,
        })
    }

    /// Makes of the files' contents what a connection is begun with.
    pub(super) fn parse(&self, contents: &Contents) -> Result<Loaded, Error> {
        let wrong = |flag, path: &Path, reason: String| Error::Contents { flag, path: path.to_owned(), reason };
        let chain = certificates(&contents.cert).map_err(|reason| wrong(self.names.cert_file, &self.cert, reason))?;
        let key = private_key(&contents.key).map_err(|reason| wrong(self.names.key_file, &self.key, reason))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites of TLS 1.2 and 1.3");
        let builder = match (&contents.client_ca, &self.client_ca) {
            (Some(contents), Some(path)) => {
                let of = |reason| wrong(self.names.client_ca_file, path, reason);
                let mut roots = RootCertStore::empty();
                for authority in certificates(contents).map_err(of)? {
                    roots.add(authority).map_err(|error| of(format!("holds no authority: {error}")))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    // Who has none may still ask for health and metrics; the guard before each route says what not.
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| of(Causes(&error).to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let not_after = chain.iter().filter_map(|certificate| x509::not_after(certificate)).min();
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let reason = match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("is not the key of the certificate in {}", self.cert.display())
                }
                error => format!("cannot be used with the certificate in {}: {error}", self.cert.display()),
            };
            wrong(self.names.key_file, &self.key, reason)
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Loaded { config: Arc::new(config), not_after })
    }
}

/// Reads the authorities, or the chain of a certificate, of a PEM file, for whoever is a client; `flag` is the setting.
///
/// # Errors
/// It cannot be read, or holds none.
pub(crate) fn read_certificates(flag: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let contents = read(flag, path)?;
    match certificates(&contents) {
        Ok(_) => Ok(contents),
        Err(reason) => Err(Error::Contents { flag, path: path.to_owned(), reason }),
    }
}

/// Reads the private key of a PEM file, for whoever is a client; `flag` is the setting.
///
/// # Errors
/// It cannot be read, or holds none.
pub(crate) fn read_key(flag: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let contents = read(flag, path)?;
    match private_key(&contents) {
        Ok(_) => Ok(contents),
        Err(reason) => Err(Error::Contents { flag, path: path.to_owned(), reason }),
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { flag, path: path.to_owned(), source };
    let mut contents = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut contents).map_err(failed)?;
    if contents.len() as u64 > FILE_BYTES_MAX {
        let reason = format!("is larger than {FILE_BYTES_MAX} bytes");
        return Err(Error::Contents { flag, path: path.to_owned(), reason });
    }
    Ok(contents)
}

/// Reads the private key of a PEM file.
fn private_key(contents: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(contents).map_err(|error| match error {
        pem::Error::NoItemsFound => "holds no private key in PEM that is not encrypted".to_owned(),
        _ => "is not PEM".to_owned(),
    })
}

/// Reads the certificates of a PEM file, at least one.
fn certificates(contents: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(contents).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("holds no certificate in PEM".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err("is not PEM".to_owned()),
    }
}

// === impl Contents ===

impl Contents {
    /// Digests the files, to tell whether they have changed; keeps no key in memory.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for part in [&self.cert, &self.key].into_iter().chain(&self.client_ca) {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }
}

// === impl Loaded ===

impl Loaded {
    /// Returns when the chain expires, for a line of the log.
    pub(super) fn expires(&self) -> Option<String> {
        self.not_after.and_then(|seconds| seconds.checked_mul(1_000_000_000)).map(time::format)
    }
}
