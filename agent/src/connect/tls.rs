//! How a server that speaks TLS is verified, and what is presented to it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::Error;

/// The largest of the files: some hundred authorities.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How `https://` is verified, and what is presented. The files are read for each connection, so that certificates may be renewed while a
/// program runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities to believe; none for those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the certificate to present, for servers that ask for one; it goes with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of its private key.
    pub key_file: Option<PathBuf>,
}

/// What stands in the files, PEM.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) ca: Option<Vec<u8>>,
    /// A certificate and its key.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

// === impl Tls ===

impl Tls {
    /// Reads the files.
    pub(super) fn config(&self) -> Result<ClientTlsConfig, Error> {
        let Contents { ca, identity } = self.read()?;
        let config = match ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        Ok(match identity {
            Some((cert, key)) => config.identity(Identity::from_pem(cert, key)),
            None => config,
        })
    }

    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::TlsFile`] and [`Error::TlsSettings`].
    pub(crate) fn read(&self) -> Result<Contents, Error> {
        let ca = self.ca_file.as_deref().map(|path| read("tls.ca-file", path, "CERTIFICATE-----")).transpose()?;
        let identity = match (&self.cert_file, &self.key_file) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                Some((read("tls.cert-file", cert, "CERTIFICATE-----")?, read("tls.key-file", key, "PRIVATE KEY-----")?))
            }
            (Some(_), None) => return Err(Error::TlsSettings("tls.cert-file is given without tls.key-file")),
            (None, Some(_)) => return Err(Error::TlsSettings("tls.key-file is given without tls.cert-file")),
        };
        Ok(Contents { ca, identity })
    }
}

/// Reads a PEM file in which something of this kind stands. What exactly is for TLS to judge, which takes a file without anything for no
/// file.
fn read(flag: &'static str, path: &Path, kind: &str) -> Result<Vec<u8>, Error> {
    let failed = |reason: String| Error::TlsFile { flag, path: path.to_owned(), reason };
    let mut contents = Vec::new();
    let file = File::open(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut contents)
        .map_err(|error| failed(format!("cannot be read: {error}")))?;
    if contents.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    if !contents.windows(kind.len()).any(|window| window == kind.as_bytes()) {
        return Err(failed(format!("holds no {} in PEM", kind.trim_end_matches('-').to_lowercase())));
    }
    Ok(contents)
}

/// Adds to what TLS said what may be done about it.
pub(super) fn explain(cause: String) -> String {
    let hint = if cause.contains("UnknownIssuer") {
        "name the file of the authority that issued its certificate (tls.ca-file)"
    } else if cause.contains("InvalidContentType") {
        "it does not speak TLS there; is it http://?"
    } else {
        return cause;
    };
    format!("{cause}: {hint}")
}

/// Says whether TLS failed for the certificate that the server presented, as rustls words it.
pub(super) fn is_about_verification(cause: &str) -> bool {
    cause.starts_with("invalid peer certificate")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::Target;

    /// Goal: what is wrong with the files is said with the setting and without what stands in them.
    #[tokio::test]
    async fn files_are_checked_before_they_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(folder.path().join(name));
        std::fs::write(
            folder.path().join("key.pem"),
            "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
        )
        .unwrap();
        let of = |server: &str, tls: Tls| Target { tls, ..Target::new(server) }.check().unwrap_err().to_string();
        for (tls, reason) in [
            (Tls { ca_file: path("none.pem"), ..Tls::default() }, "tls.ca-file FOLDER/none.pem: cannot be read: "),
            (
                Tls { ca_file: path("key.pem"), ..Tls::default() },
                "tls.ca-file FOLDER/key.pem: holds no certificate in PEM",
            ),
            (Tls { cert_file: path("key.pem"), ..Tls::default() }, "tls.cert-file is given without tls.key-file"),
            (Tls { key_file: path("key.pem"), ..Tls::default() }, "tls.key-file is given without tls.cert-file"),
            (
                Tls { cert_file: path("key.pem"), key_file: path("key.pem"), ..Tls::default() },
                "tls.cert-file FOLDER/key.pem: holds no certificate in PEM",
            ),
        ] {
            let error = of("https://localhost:1", tls).replace(&folder.path().display().to_string(), "FOLDER");
            assert!(error.starts_with(reason) && !error.contains("c2VjcmV0"), "{error}");
        }
        let error = of("http://localhost:1", Tls { ca_file: path("ca.pem"), ..Tls::default() });
        assert!(error.contains("does not begin with https://"), "{error}");
    }
}
