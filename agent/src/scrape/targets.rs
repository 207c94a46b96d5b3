//! How targets are reached: one HTTP client for all jobs with the same TLS, so that connections are kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, redirect};
use tokio::time::Instant;

use super::config::ScrapeTls;
use crate::connect::{Tls, innermost};

/// How long a connection to a target may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many redirects are followed.
const REDIRECTS_MAX: usize = 3;

/// How long files of certificates are believed, which may be renewed while the agent runs.
const FILES_FOR: Duration = Duration::from_secs(600);

/// The clients of all jobs, by their TLS.
#[derive(Debug)]
pub(super) struct Targets(BTreeMap<ScrapeTls, Mutex<Made>>);

/// A client, and when it was made.
#[derive(Debug)]
struct Made {
    client: Client,
    at: Instant,
}

// === impl Targets ===

impl Targets {
    /// Makes a client for each of these.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub(super) fn new<'a>(all: impl Iterator<Item = &'a ScrapeTls>) -> Result<Self, String> {
        let mut clients = BTreeMap::new();
        for tls in all {
            if !clients.contains_key(tls) {
                let made = Made { client: tls.client()?, at: Instant::now() };
                clients.insert(tls.clone(), Mutex::new(made));
            }
        }
        Ok(Self(clients))
    }

    /// Returns the client for targets with this TLS, which knows files as they were minutes ago. Files that cannot be used leave those
    /// read before them in force.
    pub(super) async fn client(&self, tls: &ScrapeTls) -> Client {
        let mut made = self.0[tls].lock().unwrap_or_else(PoisonError::into_inner);
        if tls.has_files() && made.at.elapsed() >= FILES_FOR {
            made.at = Instant::now();
            match tls.client() {
                Ok(client) => made.client = client,
                Err(error) => tracing::warn!(error, "cannot use files of tls_config; those read before stay in force"),
            }
        }
        made.client.clone()
    }
}

// === impl ScrapeTls ===

impl ScrapeTls {
    fn has_files(&self) -> bool {
        self.ca_file.is_some() || self.cert_file.is_some()
    }

    /// Makes a client.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub(super) fn client(&self) -> Result<Client, String> {
        let Self { ca_file, cert_file, key_file, insecure_skip_verify } = self.clone();
        let files = Tls { ca_file, cert_file, key_file }.read().map_err(|error| error.to_string())?;
        let mut builder = Client::builder()
            .user_agent(concat!("afterglow-agent/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirects())
            .tls_danger_accept_invalid_certs(insecure_skip_verify);
        if let Some(ca) = files.ca {
            builder = builder.tls_certs_only(Certificate::from_pem_bundle(&ca).map_err(|error| innermost(&error))?);
        }
        if let Some((cert, key)) = files.identity {
            let identity = Identity::from_pem(&[cert, key].join(&b'\n')).map_err(|error| innermost(&error))?;
            builder = builder.identity(identity);
        }
        builder.build().map_err(|error| innermost(&error))
    }
}

/// Follows few redirects, and none out of TLS: what a job says is verified, and its token, would go on in the clear. To another host or port
/// the client takes no token along.
fn redirects() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let is_downgrade =
            attempt.url().scheme() != "https" && attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if is_downgrade { attempt.stop() } else { redirect::Policy::limited(REDIRECTS_MAX).redirect(attempt) }
    })
}
