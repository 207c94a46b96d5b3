//! TLS of a server's port: a certificate and its key from files, read again when they change, and the authorities of
//! clients' certificates.
//!
//! [`Options`] are the flags. A server opens a [`Tls`] from them, which gives each connection the settings in force. The
//! files are looked at every few seconds ([`follow`]): a new pair is in force for connections that begin from then on,
//! and one that cannot be used leaves the one before it in force, is said, and shows in the metrics.
//!
//! With authorities of clients (mTLS) a certificate is asked for, and verified where one comes; whether a request may go
//! without is for [`access`](crate::access) to say, as the probes of an orchestrator have none.
//!
//! [`files`] reads and checks, [`x509`] finds what a certificate is called and until when it is good. No part of this
//! prints a key.

mod files;
mod follow;
mod x509;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;

use crate::Metrics;

pub use files::Error;
pub(crate) use files::{read_certificates, read_key};

use files::{Files, Loaded};

/// TLS of the port, flattened into a server's options.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(skip)]
pub struct Options {
    /// PEM file of the certificate, followed by those between it and its authority: the port then speaks TLS, and nothing
    /// else. Read again when it changes
    #[arg(long = "tls.cert-file", value_name = "FILE")]
    pub cert_file: Option<PathBuf>,
    /// PEM file of the certificate's private key; read again when it changes
    #[arg(long = "tls.key-file", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// PEM file of the authorities of which clients have to present a certificate, for all but health and metrics; read
    /// again when it changes
    #[arg(long = "tls.client-ca-file", value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// What these settings are called in what is said about them.
    #[arg(skip)]
    pub names: Names,
}

/// What the settings of TLS are called: a program that is a client as well has the usual names for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// The setting of the certificate.
    pub cert_file: &'static str,
    /// The setting of its key.
    pub key_file: &'static str,
    /// The setting of the authorities of clients.
    pub client_ca_file: &'static str,
}

impl Default for Names {
    fn default() -> Self {
        Self { cert_file: "tls.cert-file", key_file: "tls.key-file", client_ca_file: "tls.client-ca-file" }
    }
}

/// The TLS of a port; cheap to clone, all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: Files,
    /// What stood in the files at the start, by its digest.
    begun_with: [u8; 32],
    config: RwLock<Arc<ServerConfig>>,
    counters: Counters,
}

#[derive(Clone, Debug, Default)]
struct Counters {
    expiration: Gauge,
    reads: Family<Outcome, Counter>,
    is_stale: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// The certificate by which a client proved who it is, among the extensions of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    name: Arc<str>,
}

// === impl Options ===

impl Options {
    /// Returns whether the port speaks TLS.
    pub fn is_on(&self) -> bool {
        self.cert_file.is_some()
    }

    /// Returns what cannot work, one sentence each. Reads the files.
    pub fn problems(&self) -> Vec<String> {
        let Names { cert_file, key_file, client_ca_file } = self.names;
        let without = |given: &str, missing: &str| vec![format!("{given} is given without {missing}")];
        match (&self.cert_file, &self.key_file, &self.client_ca_file) {
            (Some(_), None, _) => without(cert_file, key_file),
            (None, Some(_), _) => without(key_file, cert_file),
            (None, None, Some(_)) => without(client_ca_file, &format!("{cert_file} and {key_file}")),
            _ => self.files().and_then(|files| files.load().err()).map(|error| error.to_string()).into_iter().collect(),
        }
    }

    fn files(&self) -> Option<Files> {
        let (cert, key) = (self.cert_file.clone()?, self.key_file.clone()?);
        Some(Files { cert, key, client_ca: self.client_ca_file.clone(), names: self.names })
    }
}

// === impl Tls ===

impl Tls {
    /// Reads the files; nothing where the port is to speak plain text.
    ///
    /// # Errors
    /// The files cannot be used.
    pub(crate) fn open(options: &Options, metrics: &Metrics) -> Result<Option<Self>, Error> {
        let counters = Counters::new(metrics);
        let Some(files) = options.files() else { return Ok(None) };
        let contents = files.read()?;
        let loaded = files.parse(&contents)?;
        counters.expiration.set(loaded.not_after.unwrap_or_default());
        tracing::info!(certificate = %files.cert.display(), expires = loaded.expires(), "the port speaks TLS");
        let begun_with = contents.digest();
        Ok(Some(Self(Arc::new(Inner { files, begun_with, config: RwLock::new(loaded.config), counters }))))
    }

    /// Returns the settings for a connection that begins now.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        // Whoever writes it puts a whole one in its place: a panic leaves the old one or the new one.
        Arc::clone(&self.0.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again whenever they change; never returns.
    pub(crate) async fn follow(&self) {
        follow::follow(&self.0).await;
    }
}

// === impl Inner ===

impl Inner {
    fn replace(&self, loaded: Loaded) {
        self.counters.expiration.set(loaded.not_after.unwrap_or_default());
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = loaded.config;
    }

    fn certificate(&self) -> &Path {
        &self.files.cert
    }
}

// === impl Counters ===

impl Counters {
    fn new(metrics: &Metrics) -> Self {
        let counters = Self::default();
        for outcome in ["ok", "failed"] {
            drop(counters.reads.get_or_create(&Outcome { outcome }));
        }
        metrics.register(|registry| {
            let Self { expiration, reads, is_stale } = counters.clone();
            registry.register(
                "afterglow_tls_certificate_expiration_timestamp_seconds",
                "When the first certificate of the chain that the port presents expires, in unix time; 0 without TLS",
                expiration,
            );
            registry.register(
                "afterglow_tls_file_reads",
                "Times the files of TLS had changed and were read, by outcome: ok, failed",
                reads,
            );
            registry.register(
                "afterglow_tls_files_stale",
                "1 while the files of TLS cannot be used and those read before them stay in force",
                is_stale,
            );
        });
        counters
    }
}

// === impl ClientCertificate ===

impl ClientCertificate {
    /// Knows the certificate that a client presented, and that was verified.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        Self { name: x509::name(certificate).unwrap_or_else(|| "without a name".to_owned()).into() }
    }

    /// Returns what it is called: its common name, or else the first URI or DNS name that it is for.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
