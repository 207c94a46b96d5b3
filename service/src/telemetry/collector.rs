//! The collector that spans go to, and TLS on the way there.
//!
//! The variables are OpenTelemetry's own: `OTEL_EXPORTER_OTLP_CERTIFICATE` names a file of the authorities by which a collector is verified,
//! instead of those of the system, `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE` and `OTEL_EXPORTER_OTLP_CLIENT_KEY` what is presented to it; each
//! has a form for traces alone. The files are read once, at the start: what is wrong with them is said then.

use std::path::PathBuf;

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::Error;
use crate::config::Secret;
use crate::tls::{read_certificates, read_key};

/// A file, and the variable that names it.
type Named = (&'static str, PathBuf);

/// Where spans go, and how it is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Collector {
    pub(super) endpoint: String,
    /// An address without a scheme is meant in the clear; otherwise it is over TLS, as OpenTelemetry has it.
    pub(super) is_insecure: bool,
    /// The authorities; none for those of the system.
    pub(super) ca: Option<Named>,
    /// What is presented, and its key.
    pub(super) cert: Option<Named>,
    pub(super) key: Option<Named>,
}

// === impl Collector ===

impl Collector {
    /// Checks the address, and reads the files as [`Collector::tls`] does.
    ///
    /// # Errors
    /// The address is none, and those of [`Collector::tls`].
    pub(super) fn check(&self) -> Result<Option<ClientTlsConfig>, Error> {
        let bad = || Error::Endpoint { endpoint: self.shown() };
        let has_scheme = self.endpoint.contains("://");
        let address = if has_scheme { self.endpoint.clone() } else { format!("http://{}", self.endpoint) };
        let uri: http::Uri = address.parse().map_err(|_| bad())?;
        let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
        if !is_known || uri.host().is_none_or(str::is_empty) {
            return Err(bad());
        }
        self.tls()
    }

    /// Returns the address as it may be told: of one that is malformed, whatever stands before an `@` may be a password.
    fn shown(&self) -> String {
        let (scheme, rest) = self.endpoint.split_at(self.endpoint.find("://").map_or(0, |at| at + "://".len()));
        match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}{}@{host}", Secret::MASK),
            None => self.endpoint.clone(),
        }
    }

    /// Reads the files; nothing where spans go in the clear.
    ///
    /// # Errors
    /// A file cannot be used, or one of two is missing.
    pub(super) fn tls(&self) -> Result<Option<ClientTlsConfig>, Error> {
        let is_in_clear = match self.endpoint.split_once("://") {
            Some((scheme, _)) => !scheme.eq_ignore_ascii_case("https"),
            None => self.is_insecure,
        };
        if is_in_clear {
            return Ok(None);
        }
        let config = match &self.ca {
            Some((variable, path)) => {
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read_certificates(variable, path)?))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        Ok(Some(match (&self.cert, &self.key) {
            (None, None) => config,
            (Some((cert_variable, cert)), Some((key_variable, key))) => config
                .identity(Identity::from_pem(read_certificates(cert_variable, cert)?, read_key(key_variable, key)?)),
            (Some((given, _)), None) => {
                return Err(Error::HalfPair { given, missing: "OTEL_EXPORTER_OTLP_CLIENT_KEY" });
            }
            (None, Some((given, _))) => {
                return Err(Error::HalfPair { given, missing: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" });
            }
        }))
    }
}
