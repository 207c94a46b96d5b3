//! Sees each request once: a span from its head to the end of its answer, counters by route and outcome, at most one
//! line, and of those that are not served only so many lines.
//!
//! Labels are bounded: a route is a pattern of the router or a method that the wire contract names, everything else is
//! `unmatched`; HTTP methods beyond the usual are `other`. What the answer came to is known at its end only: gRPC says
//! it in trailers, and a client that hangs up before is counted as just that.

use std::borrow::Cow;
use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::{Instrument as _, Level, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{Protocol, RequestId};
use crate::listen::Peer;
use crate::status::code_name;
use crate::throttle::{Bounds, Throttle};
use crate::{Metrics, telemetry};

/// Knows the routes and keeps the counters.
#[derive(Debug)]
pub(super) struct Observer {
    /// The paths of all gRPC methods; tonic's router knows services only.
    methods: HashSet<String>,
    requests: Family<Outcome, Counter>,
    seconds: Family<Route, Histogram>,
    in_flight: Family<Talk, Gauge>,
    shed: Family<Route, Counter>,
    /// Of requests that were not served, by their code.
    lines: Throttle<Cow<'static, str>>,
    shed_lines: Throttle,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Talk {
    protocol: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    protocol: &'static str,
    method: &'static str,
    route: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    protocol: &'static str,
    method: &'static str,
    route: Arc<str>,
    code: Cow<'static, str>,
}

/// From what a client notices to what no client waits for.
const BUCKETS_SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The lines of the log about requests that were not served: enough to see who does what wrong, and no more under overload.
const LINES: Bounds = Bounds { interval: Duration::from_secs(10), lines: 10, subjects: 50 };

/// How often the log says that there are more requests than are worked on at once.
const SHED_INTERVAL: Duration = Duration::from_secs(10);

/// The route of whatever has none.
const UNMATCHED: &str = "unmatched";

/// What nginx counts when the client is gone before it has its answer; no response ever carries it.
const CLIENT_GONE: &str = "499";

// === impl Observer ===

impl Observer {
    pub(super) fn new(metrics: &Metrics, methods: impl IntoIterator<Item = String>) -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(BUCKETS_SECONDS);
        let observer = Self {
            methods: methods.into_iter().collect(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            in_flight: Family::default(),
            shed: Family::default(),
            lines: Throttle::new(LINES),
            shed_lines: Throttle::new(Bounds::one_each(SHED_INTERVAL)),
        };
        metrics.register(|registry| {
            registry.register(
                "afterglow_server_requests",
                "Requests by route and gRPC code or HTTP status",
                observer.requests.clone(),
            );
            registry.register(
                "afterglow_server_request_seconds",
                "Time from a request's head to the end of its answer, streams in their whole length, in seconds",
                observer.seconds.clone(),
            );
            registry.register(
                "afterglow_server_requests_in_flight",
                "Requests whose answer has not ended",
                observer.in_flight.clone(),
            );
            registry.register(
                "afterglow_server_requests_shed",
                "Requests refused because as many as --limits.max-requests were worked on",
                observer.shed.clone(),
            );
        });
        for protocol in [Protocol::Grpc, Protocol::Http].map(Protocol::name) {
            drop(observer.in_flight.get_or_create(&Talk { protocol }));
        }
        // The one route that there is before anybody asks: what begins at 1 is no rise to whoever watches.
        let (protocol, route) = (Protocol::Http.name(), Arc::from(UNMATCHED));
        let route = Route { protocol, method: "GET", route };
        drop(observer.seconds.get_or_create(&route));
        drop(observer.shed.get_or_create(&route));
        let Route { protocol, method, route } = route;
        drop(observer.requests.get_or_create(&Outcome { protocol, method, route, code: "404".into() }));
        observer
    }

    pub(super) fn tally(&self, method: &str, code: Code) -> Tally {
        let (protocol, route) = (Protocol::Grpc.name(), Arc::from(method));
        let route = Route { protocol, method: "POST", route };
        let seconds = self.seconds.get_or_create_owned(&route);
        let Route { protocol, method, route } = route;
        let code = code_name(code).into();
        Tally { requests: self.requests.get_or_create_owned(&Outcome { protocol, method, route, code }), seconds }
    }

    /// Counts a request for which there is no room, and says so now and then: `max` are worked on at once.
    pub(super) fn shed(&self, request: &Request, max: usize) {
        let route = self.route(Protocol::of(request.headers()), request);
        if let Some(left_out) = self.shed_lines.line() {
            tracing::warn!(
                route = &*route.route,
                refused = left_out + 1,
                limit = max,
                setting = "--limits.max-requests",
                "requests are refused: as many as may be are worked on"
            );
        }
        self.shed.get_or_create(&route).inc();
    }

    fn route(&self, protocol: Protocol, request: &Request) -> Route {
        let path = request.uri().path();
        let route = match protocol {
            Protocol::Grpc if self.methods.contains(path) => path,
            Protocol::Grpc => UNMATCHED,
            Protocol::Http => request.extensions().get::<MatchedPath>().map_or(UNMATCHED, MatchedPath::as_str),
        };
        Route { protocol: protocol.name(), method: method(request.method()), route: Arc::from(route) }
    }
}

/// Counts requests of one route that all come to the same, without the way through the layer.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    requests: Counter,
    seconds: Histogram,
}

// === impl Tally ===

impl Tally {
    /// Counts one that took so long.
    pub(crate) fn count(&self, took: Duration) {
        self.requests.inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

pub(super) async fn layer(
    State((observer, audience)): State<(Arc<Observer>, Audience)>,
    request: Request,
    next: Next,
) -> Response {
    let protocol = Protocol::of(request.headers());
    let route = observer.route(protocol, &request);
    let span = audience.span(&route, request.extensions());
    // Fails only where nobody records traces, and then there is nothing to belong to.
    let _ = span.set_parent(telemetry::extract(request.headers()));

    let mut seen = Seen::begin(observer, audience, protocol, route, request.method() == Method::HEAD, span.clone());
    let response = next.run(request).instrument(span).await;
    seen.head(&response);
    response.map(|inner| Body::new(Observed { inner, seen }))
}

/// For whom a route is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Those who use the server; their requests are traced.
    Users,
    /// Those who operate it: probes and scrapes, a few every second, of which nobody wants a trace.
    Operators,
}

impl Audience {
    fn span(self, route: &Route, extensions: &Extensions) -> Span {
        // The level of a span is part of its place in the code.
        macro_rules! span {
            ($level:expr) => {
                tracing::span!(
                    $level,
                    "request",
                    otel.name = format!("{} {}", route.method, route.route),
                    otel.kind = "server",
                    otel.status_code = field::Empty,
                    protocol = route.protocol,
                    method = route.method,
                    route = &*route.route,
                    code = field::Empty,
                    request_id = extensions.get::<RequestId>().map(RequestId::as_str),
                    peer = extensions.get::<Peer>().map(field::display),
                )
            };
        }
        match self {
            Self::Users => span!(Level::INFO),
            Self::Operators => span!(Level::DEBUG),
        }
    }
}

/// One request on its way; counted when it ends or is dropped.
struct Seen {
    observer: Arc<Observer>,
    audience: Audience,
    protocol: Protocol,
    route: Route,
    /// The answer to HEAD ends with its head.
    headless: bool,
    span: Span,
    begin: Instant,
    http_status: Option<StatusCode>,
    grpc_code: Option<Code>,
    ended: bool,
}

// === impl Seen ===

impl Seen {
    fn begin(
        observer: Arc<Observer>,
        audience: Audience,
        protocol: Protocol,
        route: Route,
        headless: bool,
        span: Span,
    ) -> Self {
        observer.in_flight.get_or_create(&Talk { protocol: route.protocol }).inc();
        Self {
            observer,
            audience,
            protocol,
            route,
            headless,
            span,
            begin: Instant::now(),
            http_status: None,
            grpc_code: None,
            ended: false,
        }
    }

    fn head(&mut self, response: &Response) {
        self.http_status = Some(response.status());
        self.grpc_code = grpc_code(response.headers());
        self.ended = self.headless;
    }

    /// What the answer came to, and whether that is our fault.
    fn outcome(&self) -> (Cow<'static, str>, Fault) {
        match (self.protocol, self.http_status, self.grpc_code) {
            (Protocol::Grpc, _, Some(code)) => (code_name(code).into(), grpc_fault(code)),
            (Protocol::Grpc, Some(_), None) if self.ended => (code_name(Code::Unknown).into(), Fault::Server),
            (Protocol::Grpc, _, None) => (code_name(Code::Cancelled).into(), Fault::Client),
            (Protocol::Http, Some(status), _) if self.ended => (status.as_str().to_owned().into(), http_fault(status)),
            (Protocol::Http, _, _) => (CLIENT_GONE.into(), Fault::Client),
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let (code, fault) = self.outcome();
        let seconds = self.begin.elapsed().as_secs_f64();
        self.observer.in_flight.get_or_create(&Talk { protocol: self.route.protocol }).dec();
        self.observer.seconds.get_or_create(&self.route).observe(seconds);

        self.span.record("code", &*code);
        let _entered = self.span.enter();
        match fault {
            Fault::None => tracing::debug!(code = &*code, seconds, "request served"),
            // The level of its span, without which the line would not say what was asked.
            Fault::Client if self.audience == Audience::Operators => {
                tracing::debug!(code = &*code, seconds, "request not served");
            }
            Fault::Client => {
                if let Some(left_out) = self.observer.lines.line_about(code.clone()) {
                    tracing::info!(code = &*code, seconds, left_out, "request not served");
                }
            }
            Fault::Server => {
                self.span.record("otel.status_code", "ERROR");
                tracing::warn!(code = &*code, seconds, "request failed");
            }
        }

        let Route { protocol, method, route } = self.route.clone();
        self.observer.requests.get_or_create(&Outcome { protocol, method, route, code }).inc();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The request could not be served as it was, or not at this moment.
    Client,
    /// Something is wrong with the server.
    Server,
}

fn grpc_code(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

fn grpc_fault(code: Code) -> Fault {
    match code {
        Code::Ok => Fault::None,
        Code::Unknown | Code::Internal | Code::DataLoss => Fault::Server,
        _ => Fault::Client,
    }
}

fn http_fault(status: StatusCode) -> Fault {
    match status {
        // These speak of the moment, or of what this server does not do.
        StatusCode::NOT_IMPLEMENTED | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Fault::Client,
        status if status.is_server_error() => Fault::Server,
        status if status.is_client_error() => Fault::Client,
        _ => Fault::None,
    }
}

/// A body that notices its own end.
struct Observed {
    inner: Body,
    seen: Seen,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let Self { inner, seen } = &mut *self;
        let _entered = seen.span.clone().entered();
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        Poll::Ready(match frame {
            None => {
                seen.ended = true;
                None
            }
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    seen.ended = true;
                    seen.grpc_code = grpc_code(trailers).or(seen.grpc_code);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(error.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        // Servers do not poll a body that says it has ended: one frame, or none, is the common case.
        self.seen.ended |= self.inner.is_end_stream();
    }
}
