//! Certificates made for a test, in files as servers and clients take them.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// An authority with a folder for what it issues; `ca.pem` there is its own certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

// === impl Authority ===

impl Authority {
    /// Makes an authority.
    #[expect(clippy::new_without_default, reason = "it makes a folder and a key")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        std::fs::write(folder.path().join("ca.pem"), pem).expect("a file");
        Self { issuer: Issuer::new(params, key), folder }
    }

    /// Issues a certificate for loopback, for servers and clients, as `NAME.pem` and `NAME-key.pem`, over those that are there.
    pub fn issue(&self, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let pem = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        // One after the other, as who copies files does.
        std::fs::write(self.path(&format!("{name}.pem")), pem).expect("a file");
        std::fs::write(self.path(&format!("{name}-key.pem")), key.serialize_pem()).expect("a file");
    }

    /// Returns where a file lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the flags by which a server or a client takes the certificate `name`.
    pub fn flags(&self, name: &str) -> Vec<String> {
        let file = |file: String| self.path(&file).display().to_string();
        vec![
            format!("--tls.cert-file={}", file(format!("{name}.pem"))),
            format!("--tls.key-file={}", file(format!("{name}-key.pem"))),
        ]
    }

    /// Returns a flag that names the authority's own certificate.
    pub fn flag(&self, name: &str) -> String {
        format!("{name}={}", self.path("ca.pem").display())
    }
}
