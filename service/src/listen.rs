//! One port that speaks gRPC, HTTP/1.1 and HTTP/2 alike, with TLS or without, from the first connection to the last.
//!
//! A [`Server`] puts together what a program serves (gRPC services, HTTP routes) and what every server has:
//! `grpc.health.v1`, reflection, `/healthz`, `/readyz`, `/metrics`, `/version`, `/debug/pprof/`. All of it passes the
//! layers of [`stack`](crate::stack), and what a program adds it adds with what [`access`](crate::access) is to ask for.
//!
//! The end, too, is here: when asked to stop, the server is first not ready, serves on while load balancers notice,
//! then takes no new connections, tells the open ones to finish (GOAWAY), waits for what is under way, answers what is left
//! with UNAVAILABLE, and cuts who does not take even that.

mod admission;
mod connection;
mod door;
mod greeting;
mod handshake;
mod operational;
mod seats;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use humantime::parse_duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body as TonicBody;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;

use crate::access::audit::Audit;
use crate::access::{self, Access, Digest, Need, Role, Token};
use crate::config::{ByteSize, Secret, not_within, too_large};
use crate::debug::{self, Profiles};
use crate::metrics::register_reading;
use crate::stack::{self, Stack};
use crate::tls::{self, Tls};
use crate::{Health, Metrics, Program, tenant};

pub use admission::Admission;
pub use connection::Peer;
pub use door::Door;

use admission::Admissions;
use connection::Entrance;
use door::Threshold;
use handshake::Handshakes;

/// What a server does and does not take on, flattened into each program's settings.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct Options {
    /// What is too much.
    #[command(flatten)]
    pub limits: Limits,
    /// How it ends.
    #[command(flatten)]
    pub drain: Drain,
    /// Who may use it.
    #[command(flatten)]
    pub access: access::Options,
    /// Whether it speaks TLS.
    #[command(flatten)]
    pub tls: tls::Options,
}

/// The limits of a server; each refusal names its flag.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct Limits {
    /// Largest body of an HTTP request, and largest profile of a gRPC call, as sent
    #[arg(long = "limits.max-body", value_name = "SIZE", default_value = "32MiB")]
    pub body_bytes_max: ByteSize,
    /// Open connections; beyond, the most silent one is asked to end, or new ones wait
    #[arg(long = "limits.max-connections", value_name = "N", default_value_t = 4096)]
    pub connections_max: usize,
    /// Calls and streams under way on one HTTP/2 connection; beyond, the client waits
    #[arg(long = "limits.max-streams", value_name = "N", default_value_t = 256)]
    pub streams_max: u32,
    /// What a client may send of a request before the server has read any of it. Who is far away sends no more than this in a round
    /// trip; of what is refused no more than this comes
    #[arg(long = "limits.stream-window", value_name = "SIZE", default_value = "64KiB")]
    pub stream_window: ByteSize,
    /// Requests worked on at once; beyond, they are refused and may be retried
    #[arg(long = "limits.max-requests", value_name = "N", default_value_t = 1024)]
    pub requests_max: usize,
    /// Time for a connection to send the head of a request, and before that to do the handshake of TLS
    #[arg(
        long = "limits.header-timeout",
        value_name = "DURATION",
        default_value = "10s",
        value_parser = parse_duration
    )]
    pub header_timeout: Duration,
    /// How long a sender may stop in the middle of a profile, and a client may take nothing of an answer that waits for it, or less than 16 KiB;
    /// beyond, the profile is refused, the connection of the answer ends
    #[arg(
        long = "limits.stall-timeout",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = parse_duration
    )]
    pub stall_timeout: Duration,
    /// Time for an answer to begin
    #[arg(
        long = "limits.request-timeout",
        value_name = "DURATION",
        default_value = "60s",
        value_parser = parse_duration
    )]
    pub request_timeout: Duration,
    /// Age at which a connection is asked to end, give or take a tenth, so that load spreads to new servers; 0s for
    /// never
    #[arg(
        long = "limits.max-connection-age",
        value_name = "DURATION",
        default_value = "20m",
        value_parser = parse_duration
    )]
    pub connection_age_max: Duration,
}

/// How a server ends.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct Drain {
    /// Time to go on serving while not ready, so that load balancers notice first; part of --drain-timeout
    #[arg(long = "drain-delay", value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub delay: Duration,
    /// Time from the signal to the end of the process. Requests that are under way shortly before are told to come back, and cut
    #[arg(long = "drain-timeout", value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// What a message has beside its pprof: labels, ids, framing of protobuf. Twice what the limits on labels let through.
const ENVELOPE_BYTES_MAX: usize = 256 << 10;

/// The largest body that may be allowed: a message holds it in memory several times over.
const BODY_MAX: ByteSize = ByteSize::mib(1024);

/// The bounds of the window of a stream: below, a profile takes many round trips; above is memory that no budget knows of.
const WINDOW_MIN: ByteSize = ByteSize::kib(4);
const WINDOW_MAX: ByteSize = ByteSize::mib(16);

/// The bounds of time-outs: below, no network is that fast; above, none is meant.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The longest that a stall may last: all the while it holds memory for somebody who may be gone.
const STALL_MAX: Duration = Duration::from_secs(3600);

/// The bounds of the age of a connection.
const AGE_MIN: Duration = Duration::from_secs(1);
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest part of a drain: an orchestrator has long killed the process by then.
const DRAIN_MAX: Duration = Duration::from_secs(3600);

// === impl Options ===

impl Default for Options {
    /// Returns what the flags default to.
    fn default() -> Self {
        let command = <Self as clap::Args>::augment_args(clap::Command::new("defaults").no_binary_name(true));
        let matches = command.get_matches_from(std::iter::empty::<&str>());
        <Self as clap::FromArgMatches>::from_arg_matches(&matches).expect("defaults are valid")
    }
}

impl Options {
    /// Returns what cannot work for a server that listens on `address`, one sentence each.
    pub fn problems(&self, address: SocketAddr) -> Vec<String> {
        let mut problems = self.limits.problems();
        problems.extend(self.access.problems(address, &self.tls));
        problems.extend(self.tls.problems());
        problems.extend(not_within("drain-delay", self.drain.delay, Duration::ZERO, DRAIN_MAX));
        problems.extend(not_within("drain-timeout", self.drain.timeout, Duration::ZERO, DRAIN_MAX));
        if self.drain.delay > Duration::ZERO && self.drain.delay >= self.drain.told_after() {
            let [delay, timeout] = [self.drain.delay, self.drain.timeout].map(humantime::format_duration);
            problems.push(format!(
                "drain-delay {delay} leaves no time to end what is under way: drain-timeout {timeout} counts from the signal, too"
            ));
        }
        problems
    }
}

// === impl Drain ===

impl Drain {
    /// Returns how long after the signal what is under way is told that it will not end here: at 85 % of the time.
    pub fn told_after(&self) -> Duration {
        self.timeout - self.timeout / 100 * 15
    }

    /// Returns how long after the signal what is left is cut: at 90 % of the time. The rest is for the last spans.
    pub fn cut_after(&self) -> Duration {
        self.timeout - self.timeout / 10
    }
}

// === impl Limits ===

impl Limits {
    /// Returns the largest gRPC message. Give it to `max_decoding_message_size` of each service: the stack has refused
    /// larger ones by then, tonic applies it to what a compressed message inflates to.
    pub fn message_bytes_max(&self) -> usize {
        message_bytes_max(self.body_bytes_max)
    }

    /// Returns what cannot work, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let zeros = [
            ("limits.max-body", self.body_bytes_max.bytes() == 0),
            ("limits.max-connections", self.connections_max == 0),
            ("limits.max-streams", self.streams_max == 0),
            ("limits.max-requests", self.requests_max == 0),
            ("limits.header-timeout", self.header_timeout.is_zero()),
            ("limits.stall-timeout", self.stall_timeout.is_zero()),
            ("limits.request-timeout", self.request_timeout.is_zero()),
        ];
        let zeros =
            zeros.iter().filter(|(_, zero)| *zero).map(|(name, _)| format!("{name} is 0: nothing could be served"));
        let mut problems: Vec<_> = zeros.collect();
        problems.extend(too_large("limits.max-body", self.body_bytes_max, BODY_MAX));
        if !(WINDOW_MIN..=WINDOW_MAX).contains(&self.stream_window) {
            let window = self.stream_window;
            problems.push(format!("limits.stream-window {window} is not within {WINDOW_MIN} and {WINDOW_MAX}"));
        }
        for (name, timeout, max) in [
            ("limits.header-timeout", self.header_timeout, TIMEOUT_MAX),
            ("limits.stall-timeout", self.stall_timeout, STALL_MAX),
            ("limits.request-timeout", self.request_timeout, TIMEOUT_MAX),
        ] {
            if !timeout.is_zero() {
                problems.extend(not_within(name, timeout, TIMEOUT_MIN, max));
            }
        }
        if !self.connection_age_max.is_zero() {
            problems.extend(not_within("limits.max-connection-age", self.connection_age_max, AGE_MIN, AGE_MAX));
        }
        problems
    }
}

pub(crate) fn message_bytes_max(body: ByteSize) -> usize {
    body.as_usize().saturating_add(ENVELOPE_BYTES_MAX)
}

/// Why a server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The descriptors of the services cannot be read.
    #[error("gRPC reflection cannot be built")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The listener is not one.
    #[error("listener has no address")]
    Listener(#[source] io::Error),
    /// The tokens cannot be read.
    #[error("cannot tell who may use the server")]
    Access(#[from] access::Error),
    /// Certificate, key or authorities cannot be used.
    #[error("cannot speak TLS")]
    Tls(#[from] tls::Error),
}

// === impl Error ===

impl Error {
    /// Returns whether the configuration is to be corrected.
    pub fn is_bad_configuration(&self) -> bool {
        matches!(self, Self::Access(_) | Self::Tls(_))
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had not ended in time and were cut.
    pub cut: usize,
}

/// Opens a port.
///
/// # Errors
/// [`Error::Bind`] names the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })
}

/// A server that is being put together; [`Server::run`] sets it going.
pub struct Server {
    program: Program,
    options: Options,
    health: Health,
    metrics: Metrics,
    services: Vec<&'static str>,
    routes: Vec<(Need, Router)>,
    own_tokens: Vec<(Digest, Arc<Token>)>,
    profiles: Option<Arc<dyn Profiles>>,
    admissions: Vec<(&'static str, Arc<dyn Admission>)>,
    door: Door,
    threshold: Threshold,
}

// === impl Server ===

impl Server {
    /// Begins a server that has nothing yet but what every server has.
    pub fn new(program: Program, options: Options, health: Health, metrics: Metrics) -> Self {
        let (door, threshold) = door::door();
        Self {
            program,
            options,
            health,
            metrics,
            services: Vec::new(),
            routes: Vec::new(),
            own_tokens: Vec::new(),
            profiles: None,
            admissions: Vec::new(),
            door,
            threshold,
        }
    }

    /// Adds a gRPC service for those who have `role`. Its descriptors are those of the wire contract; set its `max_decoding_message_size` to
    /// [`Limits::message_bytes_max`].
    #[must_use]
    pub fn grpc<S>(mut self, role: Role, service: S) -> Self
    where
        S: Service<Request<TonicBody>, Error = std::convert::Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.services.push(S::NAME);
        self.routes.push((Need::Role(role), Routes::new(service).into_axum_router().reset_fallback()));
        self
    }

    /// Asks `admission` whether a call of a gRPC method, `/package.Service/Method`, is let in, before it costs anything.
    #[must_use]
    pub fn admission(mut self, method: &'static str, admission: Arc<dyn Admission>) -> Self {
        self.admissions.push((method, admission));
        self
    }

    /// Adds HTTP routes for those who have `role`, at least one. They have no fallback of their own: what has no route is answered here.
    #[must_use]
    pub fn http(mut self, role: Role, routes: Router) -> Self {
        self.routes.push((Need::Role(role), routes));
        self
    }

    /// Adds pages for browsers, at least one. Whoever asks may have them, for there are no data in them; a browser is asked for a token.
    #[must_use]
    pub fn pages(mut self, routes: Router) -> Self {
        self.routes.push((Need::Page, routes));
        self
    }

    /// Makes a token by which this process itself may push to this server as the tenant `anonymous`; nothing where none is needed.
    pub fn own_token(&mut self, name: &str) -> Option<Secret> {
        self.options.access.tokens_file.as_ref()?;
        let (secret, entry) = access::own_token(name, Role::Write, tenant::ANONYMOUS);
        self.own_tokens.push(entry);
        Some(secret)
    }

    /// Returns a way in for this process itself, which needs neither a network nor a certificate.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// Adds the means to take profiles of this process, and the metric of what it has allocated.
    #[must_use]
    pub fn profiles(mut self, profiles: Arc<dyn Profiles>) -> Self {
        let allocated = Arc::clone(&profiles);
        self.metrics.register(|registry| {
            register_reading(
                registry,
                "afterglow_memory_allocated_bytes",
                "Memory that the program has allocated and not freed; what is resident beyond it is the allocator's, and given back in time",
                move || allocated.allocated_bytes(),
            );
        });
        self.profiles = Some(profiles);
        self
    }

    /// Serves until `stop` is cancelled, then drains. On return no request is under way.
    ///
    /// # Errors
    /// When it cannot begin; once it serves it ends well.
    ///
    /// # Panics
    /// When two routes overlap, which is a mistake in the program.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> Result<Drained, Error> {
        let address = listener.local_addr().map_err(Error::Listener)?;
        let Self { program, options, health, metrics, services, routes, own_tokens, .. } = self;
        let Self { profiles, admissions, threshold, .. } = self;
        let audit = Arc::new(Audit::default());
        let tls = Tls::open(&options.tls, &metrics)?;
        let needs_certificate = options.tls.client_ca_file.is_some();
        let access =
            Access::open(&options.access, address, needs_certificate, own_tokens, Arc::clone(&audit), &metrics)?;
        let handshakes = Handshakes::new(tls.clone(), options.limits.header_timeout, audit, &metrics);
        let stack = Stack::new(options.limits.clone(), access.sites(), &metrics, operational::methods());
        let admissions = Admissions::new(admissions, options.limits.stream_window.bytes(), &stack);
        let (reporter, operational) = operational::router(program, &health, &metrics, &services)?;
        let operational = operational.merge(access.before(Need::Role(Role::Admin), debug::router(program, profiles)));
        let api = routes.into_iter().fold(Router::new(), |api, (need, routes)| api.merge(access.before(need, routes)));
        let router = Router::new()
            .merge(stack.operational(operational))
            .merge(stack.api(api.fallback(stack::no_route).method_not_allowed_fallback(stack::no_method)));

        let reports = tokio::spawn(operational::report(health.clone(), reporter, services));
        let followed = tokio::spawn(access.follow());
        let renewed = tokio::spawn(async move {
            if let Some(tls) = tls {
                tls.follow().await;
            }
        });
        let entrance = Entrance { listener, threshold, handshakes };
        tracing::info!(%address, version = program.version, revision = program.revision, "{} listens", program.name);
        let drained = connection::serve(entrance, admissions, router, &options, &health, &metrics, stop).await;
        reports.abort();
        followed.abort();
        renewed.abort();
        Ok(drained)
    }
}

#[cfg(test)]
mod tests;
