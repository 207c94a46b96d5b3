//! Who may do what: bearer tokens from a file of their digests, each with roles and tenants; and certificates of clients.
//!
//! [`Options`] are the flags. A server opens an [`Access`] from them and sets it before each of its routes with what the
//! route needs ([`Need`]): the role of whoever pushes, asks or operates. What comes past it has a tenant that its token
//! allows, in the header that [`tenant`](crate::tenant) reads; the token itself goes no further.
//!
//! Where clients have to present a certificate (mTLS), each route needs one first; the token still says who asks. Without
//! a file of tokens everybody who comes so far is let in and the header decides. A server that others can reach starts with
//! neither only when it is told that this is meant (`--insecure`). With neither, pages of other sites are kept out ([`site`]).
//!
//! [`tokens`] reads the file, [`follow`] reads it again when it changes, [`credentials`] finds the token in a request,
//! [`decide`] is the pure decision, [`audit`] writes down what was refused. No part of this prints a token or its digest.

pub mod audit;
mod credentials;
mod decide;
mod follow;
mod layer;
pub(crate) mod site;
mod tokens;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::middleware::from_fn_with_state;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::config::Secret;
use crate::{Metrics, tls};

pub use decide::Caller;
pub use tokens::{Digest, Entry, Error, Role, Token};

use audit::Audit;
use site::Sites;
use tokens::Table;

/// Who may use a server, flattened into its options.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(skip)]
pub struct Options {
    /// File of the tokens that are let in, made with `afterglow token`; read again when it changes. Without it everybody
    /// is let in
    #[arg(long = "auth.tokens-file", value_name = "FILE")]
    pub tokens_file: Option<PathBuf>,
    /// Starts without tokens on an address that others can reach, where the network decides who does
    #[arg(long)]
    pub insecure: bool,
    /// Names of hosts by which a server may be asked that listens on loopback without tokens, beside addresses and names without a dot; pages whose name
    /// is made to resolve to this machine come by another. * for any
    #[arg(
        long = "allowed-hosts",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "host.docker.internal,host.containers.internal"
    )]
    pub allowed_hosts: Vec<String>,
}

/// What a route needs of whoever asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A token with this role.
    Role(Role),
    /// Nothing, for there are no data in it; but a browser is asked for a token here, since it presents it from then on.
    Page,
}

/// The guard of a server; cheap to clone, all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Nothing where everybody is let in.
    guard: Option<Arc<Guard>>,
    /// Whose pages are then kept out all the same.
    sites: Sites,
}

/// What is asked of a request, at least one of the two.
#[derive(Debug)]
struct Guard {
    /// Its connection has to have begun with a certificate.
    needs_certificate: bool,
    tokens: Option<Tokens>,
    refused: Family<Reason, Counter>,
    audit: Arc<Audit>,
}

/// The tokens in force, and what is counted of them.
#[derive(Debug)]
struct Tokens {
    file: PathBuf,
    /// Tokens of this process itself, which are in no file.
    own: Vec<(Digest, Arc<Token>)>,
    table: RwLock<Arc<Table>>,
    counters: Counters,
}

/// Says that a connection needs no certificate, among the extensions of its requests: it comes from this process itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside;

#[derive(Clone, Debug, Default)]
struct Counters {
    reads: Family<Outcome, Counter>,
    tokens: Gauge,
    is_stale: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

// === impl Options ===

impl Options {
    /// Returns what cannot work for a server that listens on `address` and speaks TLS so, one sentence each: clients may have to present
    /// a certificate. Reads the file of tokens.
    pub fn problems(&self, address: SocketAddr, tls: &tls::Options) -> Vec<String> {
        let mut problems = Vec::new();
        let needs_certificate = tls.client_ca_file.is_some();
        let client_ca_file = tls.names.client_ca_file;
        if self.insecure && needs_certificate {
            problems.push(format!(
                "insecure and {client_ca_file} are both given: the one lets everybody in, the other does not"
            ));
        }
        match &self.tokens_file {
            Some(_) if self.insecure => problems.push(
                "insecure and auth.tokens-file are both given: the one lets everybody in, the other does not".to_owned(),
            ),
            Some(file) => problems.extend(tokens::read(file).err().map(|error| error.to_string())),
            None if !self.insecure && !needs_certificate && !address.ip().is_loopback() => problems.push(format!(
                "listen {address} can be reached by others, and nothing says who may: give --auth.tokens-file FILE (see \
                 `afterglow token --help`), or --{client_ca_file} FILE, or --listen 127.0.0.1:{port}, or --insecure \
                 where the network lets in nobody else",
                port = address.port(),
            )),
            None => {}
        }
        problems.extend(self.allowed_hosts.iter().filter_map(|name| site::problem(name)));
        problems
    }
}

// === impl Access ===

impl Access {
    /// Reads the tokens of a server that listens on `address`. `own` are let in beside those of the file; `needs_certificate` asks for
    /// one first.
    pub(crate) fn open(
        options: &Options,
        address: SocketAddr,
        needs_certificate: bool,
        own: Vec<(Digest, Arc<Token>)>,
        audit: Arc<Audit>,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let tokens = options.tokens_file.clone().map(|file| Tokens::open(file, own, metrics)).transpose()?;
        let refused = Family::<Reason, Counter>::default();
        // What begins at 1 is no rise to whoever watches.
        for reason in
            ["no_certificate", "no_token", "unknown_token", "role", "tenant", "other_site", "host", "malformed"]
        {
            drop(refused.get_or_create(&Reason { reason }));
        }
        metrics.register(|registry| {
            registry.register(
                "afterglow_access_refusals",
                "Requests refused for who asked, by reason: no_certificate, no_token, unknown_token, role, tenant, \
                 other_site, host, malformed",
                refused.clone(),
            );
        });
        if tokens.is_none() && !needs_certificate {
            let sites = Sites::of(address, &options.allowed_hosts, refused, audit);
            return Ok(Self { guard: None, sites });
        }
        let guard = Arc::new(Guard { needs_certificate, tokens, refused, audit });
        Ok(Self { guard: Some(guard), sites: Sites::any() })
    }

    /// Returns what keeps pages of other sites out, to be set before all routes.
    pub(crate) fn sites(&self) -> Sites {
        self.sites.clone()
    }

    /// Sets the guard before all `routes`.
    ///
    /// # Panics
    /// When there are no routes, which is a mistake in the program.
    pub(crate) fn before(&self, need: Need, routes: Router) -> Router {
        match &self.guard {
            Some(guard) => routes.route_layer(from_fn_with_state((Arc::clone(guard), need), layer::layer)),
            None => routes,
        }
    }

    /// Reads the file again whenever it changes; never returns.
    pub(crate) async fn follow(self) {
        match self.guard.as_ref().and_then(|guard| guard.tokens.as_ref()) {
            Some(tokens) => follow::follow(tokens).await,
            None => std::future::pending().await,
        }
    }
}

// === impl Tokens ===

impl Tokens {
    fn open(file: PathBuf, own: Vec<(Digest, Arc<Token>)>, metrics: &Metrics) -> Result<Self, Error> {
        let contents = tokens::read_contents(&file)?;
        let table = tokens::parse(&file, &contents)?;
        let counters = Counters::new(metrics);
        counters.tokens.set(table.len());
        let table = RwLock::new(Arc::new(table.with(&own)));
        Ok(Self { file, own, table, counters })
    }

    fn table(&self) -> Arc<Table> {
        // Whoever writes it puts a whole table in its place: a panic leaves the old one or the new one.
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, table: Table) {
        self.counters.tokens.set(table.len());
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table.with(&self.own));
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
            let Self { reads, tokens, is_stale } = counters.clone();
            registry.register(
                "afterglow_access_file_reads",
                "Times the file of tokens had changed and was read, by outcome: ok, failed",
                reads,
            );
            registry.register("afterglow_access_tokens", "Tokens of the file that are let in", tokens);
            registry.register(
                "afterglow_access_file_stale",
                "1 while the file of tokens cannot be used and those read before it stay in force",
                is_stale,
            );
        });
        counters
    }
}

/// Makes a token for this process itself, which is in no file: it is never shown and dies with the process.
pub(crate) fn own_token(name: &str, role: Role, tenant: &str) -> (Secret, (Digest, Arc<Token>)) {
    let (secret, digest) = tokens::generate();
    (secret, (digest, Arc::new(Token::new(name, [role], [tenant]))))
}

#[cfg(test)]
mod tests;
