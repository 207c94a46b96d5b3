//! TLS towards siblings: files that are read again when they change.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// The largest of the files: some hundred authorities.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where the files lie, as far as there are any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// The authorities; none for those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// What is presented, and its key.
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// What stands in the files. It is not printed: one of them is a key.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

// === impl Tls ===

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence with the setting.
    pub(crate) fn load(&self) -> Result<Contents, String> {
        let ca = self.ca.as_deref().map(|path| read("query.siblings-ca-file", path)).transpose()?;
        let identity = match (&self.cert, &self.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                Some((read("query.siblings-cert-file", cert)?, read("query.siblings-key-file", key)?))
            }
            _ => {
                return Err("query.siblings-cert-file and query.siblings-key-file go together: one of them is missing"
                    .to_owned());
            }
        };
        let contents = Contents { ca, identity };
        // What is no certificate shows here rather than at the first question.
        let endpoint = tonic::transport::Endpoint::from_static("https://sibling").tls_config(contents.config(None));
        endpoint.map_err(|error| format!("TLS towards siblings: {}", innermost(&error)))?;
        Ok(contents)
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    let failed = |reason: String| format!("{flag} {}: {reason}", path.display());
    let cannot = |error: std::io::Error| failed(format!("cannot be read: {error}"));
    let mut contents = Vec::new();
    File::open(path).map_err(cannot)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut contents).map_err(cannot)?;
    if contents.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    // TLS takes a file in which nothing stands for no file.
    if !contents.windows(5).any(|window| window == b"-----") {
        return Err(failed("is not PEM".to_owned()));
    }
    Ok(contents)
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

// === impl Contents ===

impl Contents {
    /// Returns the settings of a connection; `name` is verified instead of the host that is connected to.
    pub(super) fn config(&self, name: Option<&str>) -> ClientTlsConfig {
        let mut config = match &self.ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((cert, key)) = &self.identity {
            config = config.identity(Identity::from_pem(cert, key));
        }
        if let Some(name) = name {
            config = config.domain_name(name);
        }
        config
    }
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contents")
    }
}
