//! Accepts connections and sees each through to its end: by its client, of age, or with the server.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use futures::future::{Either, FutureExt as _, TryFutureExt as _};
use http::Extensions;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::admission::Admissions;
use super::door::Threshold;
use super::greeting::Greeting;
use super::handshake::{Begun, Handshakes};
use super::seats::{Line, Seats};
use super::{Drained, Limits, Options};
use crate::access::Inside;
use crate::stack::{Closing, Readers};
use crate::throttle::{Bounds, Throttle};
use crate::{Failure, Health, Kind, Metrics};

/// The address at the other end of a request's connection, among the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often an idle HTTP/2 connection is asked whether its other end is still there, and how long it may take to say
/// so.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What a client may send on all streams of a connection before a handler has read it, or as much as on one stream, where that is more.
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;

/// The longest frame: what one read takes at most. With those of 16 KiB, the shortest limit there is, a profile takes three times as many.
const FRAME_BYTES_MAX: u32 = 64 << 10;

/// The largest head of a request. Selectors travel in URLs.
const HEAD_BYTES_MAX: u32 = 64 << 10;

/// How many streams of a connection a client may have opened and reset before anybody looked at them, and how many may have ended because
/// the client broke the protocol; beyond, the connection ends (CVE-2023-44487). A client that gives up on requests does so now and then,
/// not hundreds of times at once.
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 256;

/// How long to wait after the system has refused a connection: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection that is asked to make room may take before the next one is.
const PLACE_PAUSE: Duration = Duration::from_millis(20);

/// How much of its answers the system holds for a client beyond what is on its way to it. Otherwise it is megabytes for each connection, which no
/// budget knows of, and what lies there is taken for read.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// How often the log says that connections are cut because their clients do not take their answers.
const STALLED_INTERVAL: Duration = Duration::from_secs(10);

/// Connections in numbers.
#[derive(Clone, Debug, Default)]
struct Counters {
    open: Gauge,
    limit: Gauge,
    total: Counter,
    cut: Counter,
    displaced: Counter,
}

// === impl Counters ===

impl Counters {
    fn new(metrics: &Metrics, max: usize) -> Self {
        let counters = Self::default();
        counters.limit.set(i64::try_from(max).unwrap_or(i64::MAX));
        metrics.register(|registry| {
            let Self { open, limit, total, cut, displaced } = counters.clone();
            registry.register("afterglow_server_connections", "Open connections", open);
            registry.register("afterglow_server_connections_limit", "Connections that are let in at once", limit);
            registry.register(
                "afterglow_server_connections_displaced",
                "Connections asked to end because all places were taken and they were the most silent",
                displaced,
            );
            registry.register("afterglow_server_connections_accepted", "Connections accepted", total);
            registry.register(
                "afterglow_server_connections_cut",
                "Connections cut with requests under way, or because their clients took nothing of an answer",
                cut,
            );
        });
        counters
    }
}

/// Where connections come from, and how they begin.
pub(super) struct Entrance {
    pub(super) listener: TcpListener,
    /// Where the process itself comes in.
    pub(super) threshold: Threshold,
    pub(super) handshakes: Handshakes,
}

/// Serves until `stop`, then drains as [`Server::run`](super::Server::run) says.
pub(super) async fn serve(
    entrance: Entrance,
    admissions: Admissions,
    router: Router,
    options: &Options,
    health: &Health,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Drained {
    let Entrance { listener, threshold, handshakes } = entrance;
    let connections = Arc::new(Connections {
        builder: builder(&options.limits),
        admissions: Arc::new(admissions),
        router,
        handshakes,
        limits: options.limits.clone(),
        drain_timeout: options.drain.timeout,
        places: Arc::new(Semaphore::new(options.limits.connections_max.min(Semaphore::MAX_PERMITS))),
        seats: Seats::new(),
        tasks: TaskTracker::new(),
        leaving: CancellationToken::new(),
        draining: CancellationToken::new(),
        over: CancellationToken::new(),
        cut: CancellationToken::new(),
        counters: Counters::new(metrics, options.limits.connections_max),
        stalled_lines: Throttle::new(Bounds::one_each(STALLED_INTERVAL)),
    });

    let drain = async {
        stop.cancelled().await;
        let began = Instant::now();
        connections.leaving.cancel();
        health.drain();
        tracing::info!(delay = ?options.drain.delay, "not ready, still serving");
        sleep(options.drain.delay).await;
        began
    };
    let began = tokio::select! {
        began = drain => began,
        () = connections.accept(listener, threshold) => Instant::now(),
    };

    connections.draining.cancel();
    connections.tasks.close();
    tracing::info!(connections = connections.tasks.len(), timeout = ?options.drain.timeout, "draining");
    let end_by = async |after: Duration| {
        let left = after.saturating_sub(began.elapsed());
        tokio::time::timeout(left, connections.tasks.wait()).await.is_ok()
    };
    if end_by(options.drain.told_after()).await {
        return Drained { cut: 0 };
    }
    // Who has no answer by now is told to come back elsewhere, be it in the middle of what it sends.
    connections.over.cancel();
    if end_by(options.drain.cut_after()).await {
        return Drained { cut: 0 };
    }
    let cut = connections.tasks.len();
    tracing::warn!(connections = cut, "cutting what has not ended in time");
    connections.cut.cancel();
    connections.tasks.wait().await;
    Drained { cut }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let stream_window = u32::try_from(limits.stream_window.bytes()).unwrap_or(u32::MAX);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES.max(stream_window))
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(limits.streams_max)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        // Of CONTINUATION frames h2 itself takes no more than this many bytes need.
        .max_header_list_size(HEAD_BYTES_MAX);
    builder
}

/// What all connections share.
struct Connections {
    builder: auto::Builder<TokioExecutor>,
    admissions: Arc<Admissions>,
    router: Router,
    handshakes: Handshakes,
    limits: Limits,
    drain_timeout: Duration,
    places: Arc<Semaphore>,
    seats: Arc<Seats>,
    tasks: TaskTracker,
    /// Still serving, but not for long.
    leaving: CancellationToken,
    draining: CancellationToken,
    /// What has no answer gets one.
    over: CancellationToken,
    cut: CancellationToken,
    counters: Counters,
    stalled_lines: Throttle,
}

// === impl Connections ===

impl Connections {
    async fn accept(self: &Arc<Self>, listener: TcpListener, mut threshold: Threshold) {
        loop {
            // Who cannot be served yet waits in the system's queue, not in our memory: all but one.
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                stream = threshold.accept() => {
                    let place = self.place().await;
                    let connections = Arc::clone(self);
                    self.spawn(place, async move {
                        // Nobody asks from where; it has to be an address.
                        let mut marks = Extensions::new();
                        marks.insert(Inside);
                        connections.see_through(stream, Peer(([127, 0, 0, 1], 0).into()), marks).await;
                    });
                    continue;
                }
            };
            let (stream, peer) = match accepted {
                Ok((stream, peer)) => (stream, Peer(peer)),
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let place = self.place().await;
            let connections = Arc::clone(self);
            self.spawn(place, async move { connections.begin(stream, peer).await });
        }
    }

    /// Waits for a place; where there is none, for one that a silent connection gives up.
    async fn place(&self) -> OwnedSemaphorePermit {
        let mut place = pin!(Arc::clone(&self.places).acquire_owned());
        let mut pause = Duration::ZERO;
        loop {
            if let Ok(place) = tokio::time::timeout(pause, place.as_mut()).await {
                return place.expect("never closed");
            }
            pause = PLACE_PAUSE;
            if self.seats.make_room() {
                self.counters.displaced.inc();
                tracing::debug!(
                    "all places for connections are taken (limits.max-connections): the most silent one is asked to end"
                );
            }
        }
    }

    fn spawn(self: &Arc<Self>, place: OwnedSemaphorePermit, connection: impl Future<Output = ()> + Send + 'static) {
        let counters = self.counters.clone();
        self.tasks.spawn(async move {
            let _place = place;
            counters.total.inc();
            counters.open.inc();
            connection.await;
            counters.open.dec();
        });
    }

    async fn begin(&self, stream: TcpStream, peer: Peer) {
        // Answers are written whole; waiting to fill a packet would only delay them. Where it cannot be set, nothing is
        // lost.
        let _ = stream.set_nodelay(true);
        // Where it cannot be set, more of an answer that is not taken waits in the system.
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        let begun = tokio::select! {
            begun = self.handshakes.begin(stream, peer) => begun,
            // Nothing has been asked on it yet, so there is nothing to end well.
            () = self.draining.cancelled() => return,
        };
        let mut marks = Extensions::new();
        match begun {
            None => {}
            Some(Begun::Plain(stream)) => self.see_through(stream, peer, marks).await,
            Some(Begun::Tls { stream, certificate }) => {
                if let Some(certificate) = certificate {
                    marks.insert(certificate);
                }
                self.see_through(stream, peer, marks).await;
            }
            Some(Begun::Misled(stream)) => Box::pin(self.turn_away(stream)).await,
        }
    }

    /// Tells a client that speaks plain text to a port that speaks TLS, in the protocol it speaks, and nothing else.
    async fn turn_away(&self, stream: TcpStream) {
        let (stream, greeting) = Greeting::watch(stream, Line::new(Instant::now()));
        let told = CancellationToken::new();
        let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
            told.cancel();
            std::future::ready(Ok::<_, std::convert::Infallible>(speaks_tls(&request)))
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = connection.as_mut() => return,
            () = greeting.missing(self.limits.header_timeout) => return,
            () = sleep(self.limits.request_timeout) => return,
            () = self.draining.cancelled() => return,
            () = told.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(self.limits.header_timeout, connection).await;
    }

    /// Serves a connection to its end; `marks` go into the extensions of each of its requests.
    async fn see_through<S>(&self, stream: S, peer: Peer, mut marks: Extensions)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let seat = self.seats.take();
        let (stream, greeting) = Greeting::watch(stream, seat.line.clone());
        let closing = CancellationToken::new();
        marks.insert(peer);
        marks.insert(Closing::new(closing.clone(), self.draining.clone(), self.over.clone()));
        let readers = Readers::default();
        marks.insert(readers.clone());
        let (router, admissions) = (self.router.clone(), Arc::clone(&self.admissions));
        let (leaving, draining) = (self.leaving.clone(), self.draining.clone());
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            let (is_http1, leaving) = (request.version() < http::Version::HTTP_2, leaving.clone());
            // While it drains all are told the same.
            let answer = if !draining.is_cancelled()
                && let Some(refused) = admissions.refuse(&mut request)
            {
                Either::Left(refused.answer(request.into_body()).map(Ok))
            } else {
                request.extensions_mut().extend(marks.clone());
                Either::Right(router.clone().call(request))
            };
            answer.map_ok(move |mut response| {
                // Else its client would find the connection closed when it sends the next request, and may not know whether to send it again.
                if is_http1 && leaving.is_cancelled() {
                    response.headers_mut().insert(http::header::CONNECTION, CLOSE);
                }
                response
            })
        });
        // In a place of its own: as a part of this future it would be there several times, once for each place that it was moved through.
        let mut connection = Box::pin(self.builder.serve_connection(TokioIo::new(stream), service));

        let age = age_max(self.limits.connection_age_max);
        let patience = self.limits.request_timeout.max(self.drain_timeout);
        let grace = tokio::select! {
            ended = connection.as_mut() => {
                if greeting.is_of_tls() {
                    self.handshakes.spoke_tls(peer);
                }
                return log_end(peer, ended);
            }
            () = greeting.missing(self.limits.header_timeout) => {
                tracing::debug!(%peer, "connection said nothing in time");
                return;
            }
            () = readers.stalled(self.limits.stall_timeout) => return self.cut_stalled(peer),
            // How long it may take is then the drain's to say, who cuts.
            () = self.draining.cancelled() => None,
            // Of age alone, or to make room, nothing is cut that a request's own limit would have let end.
            () = age => Some(patience),
            () = seat.line.is_to_leave() => Some(patience),
        };
        connection.as_mut().graceful_shutdown();
        closing.cancel();
        let over = async {
            match grace {
                Some(grace) => sleep(grace).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = connection.as_mut() => log_end(peer, ended),
            () = readers.stalled(self.limits.stall_timeout) => self.cut_stalled(peer),
            () = self.cut.cancelled() => { self.counters.cut.inc(); }
            () = over => { self.counters.cut.inc(); }
        }
    }

    /// Notes that a connection is cut because its client does not take an answer.
    fn cut_stalled(&self, peer: Peer) {
        self.counters.cut.inc();
        if let Some(left_out) = self.stalled_lines.line() {
            let after = humantime::format_duration(self.limits.stall_timeout);
            tracing::info!(%peer, %after, setting = "--limits.stall-timeout", left_out, "connection cut: its client takes nothing of an answer");
        }
    }
}

/// Says of an answer over HTTP/1 that it is the last on its connection.
const CLOSE: http::HeaderValue = http::HeaderValue::from_static("close");

/// Answers a request that came in plain text to a port that speaks TLS.
fn speaks_tls<B>(request: &http::Request<B>) -> Response {
    let message = "this port speaks TLS: use https://";
    let kind = if crate::http::is_grpc(request.headers()) {
        // No fault of the message: what a client holds it may send again once it is set up rightly.
        Kind::Unauthenticated
    } else {
        // As nginx and Go do.
        Kind::Invalid
    };
    let mut response = Failure::new(kind, message).respond_to(request.headers());
    if request.version() < http::Version::HTTP_2 {
        response.headers_mut().insert(http::header::CONNECTION, CLOSE);
    }
    response
}

/// Waits until a connection is old: `max` give or take a tenth, so that connections made together do not end together.
async fn age_max(max: Duration) {
    if max.is_zero() {
        return std::future::pending().await;
    }
    sleep(max.mul_f64(rand::random_range(0.9..1.1))).await;
}

/// Clients come and go, rudely at times; that is a matter for whoever debugs, not for operators.
fn log_end(peer: Peer, ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, error = %error, "connection broke");
    }
}
