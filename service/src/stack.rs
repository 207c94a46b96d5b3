//! The way of a request, in order: each layer, and why it stands where it stands.
//!
//! Read `Stack::operational` and `Stack::api` from top to bottom as a request meets the layers. Both share the outer
//! layers, which name, see, count and guard every request; only questions and profiles also pass the inner ones, so
//! that health, metrics and profiles of the server itself still answer when it is at its limits.
//!
//! A refusal is a [`Failure`] wherever it arises: a gRPC call gets its status in headers or trailers, anything else
//! JSON, to a call by Connect in that protocol's words.

mod connect;
mod deadline;
mod end;
mod identify;
mod linger;
mod observe;
mod panics;
mod secure;
mod shed;
mod size;
mod unread;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use http::HeaderMap;
use tower::ServiceBuilder;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate as _, SizeAbove};

use crate::access::site::{self, Sites};
use crate::listen::Limits;
use crate::{Failure, Kind, Metrics};

use observe::Audience;

pub use deadline::Deadline;
pub use end::Closing;
pub use identify::RequestId;
pub(crate) use observe::Tally;
pub(crate) use unread::Readers;
pub use unread::{Hold, keep};

/// What the layers need to know and to count with.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    limits: Limits,
    observer: Arc<observe::Observer>,
    panics: panics::Panics,
    room: shed::Room,
    sites: Sites,
    unread: unread::Room,
}

/// Smaller answers are not worth compressing: they fit into one packet as they are.
const COMPRESS_ABOVE_BYTES: u64 = 1024;

// === impl Stack ===

impl Stack {
    /// Creates the layers; `methods` are the paths of all gRPC methods the server knows, `sites` says whose pages are kept out.
    pub(crate) fn new(
        limits: Limits,
        sites: Sites,
        metrics: &Metrics,
        methods: impl IntoIterator<Item = String>,
    ) -> Self {
        let observer = Arc::new(observe::Observer::new(metrics, methods));
        let room = shed::Room::new(limits.requests_max, Arc::clone(&observer), metrics);
        Self { observer, panics: panics::Panics::new(metrics), room, sites, unread: unread::Room::new(metrics), limits }
    }

    /// Returns what counts calls of a gRPC method that are answered with `code` before they come here.
    pub(crate) fn tally(&self, method: &str, code: tonic::Code) -> Tally {
        self.observer.tally(method, code)
    }

    /// Wraps the routes that serve questions and profiles.
    pub(crate) fn api(&self, routes: Router) -> Router {
        let inner = ServiceBuilder::new()
            // Refuses what is too much before it costs anything.
            .layer(from_fn_with_state(self.room.clone(), shed::layer))
            // Gives the last answers while they can still be sent.
            .layer(from_fn(end::last_words))
            // Starts the clock once the request is in: the time is for the work, and what was refused needs none.
            .layer(from_fn_with_state(self.limits.request_timeout, deadline::layer))
            // Has all of an answer before the first of it goes out, compressed or not, and says how much that is.
            .layer(from_fn_with_state(self.unread.clone(), unread::settle))
            // Compresses JSON for those who ask; pprof is gzip'd already, and gRPC compresses its own messages.
            .layer(
                CompressionLayer::new().compress_when(
                    SizeAbove::new(COMPRESS_ABOVE_BYTES)
                        .and(NotForContentType::GRPC)
                        .and(NotForContentType::const_new("application/octet-stream")),
                ),
            );
        self.outer(Audience::Users, routes.layer(inner))
    }

    /// Wraps the routes that serve whoever operates the server: never shed, never timed out, and refused only where others take none of what they
    /// ask for.
    pub(crate) fn operational(&self, routes: Router) -> Router {
        let inner = ServiceBuilder::new()
            // Ends streams that would never end by themselves (health's Watch) when the connection closes, so that they
            // hold up no drain.
            .layer(from_fn(end::layer))
            // Whoever reads none of the metrics he asks for is bounded as well.
            .layer(from_fn_with_state(self.unread.clone(), unread::settle));
        self.outer(Audience::Operators, routes.layer(inner))
    }

    fn outer(&self, audience: Audience, routes: Router) -> Router {
        let outer = ServiceBuilder::new()
            // Sees the answer as it is handed to the connection, whoever made it: what it holds, and whether its client takes it.
            .layer(from_fn(unread::layer))
            // Names the request before it is worked on: all that follows can say which one it was.
            .layer(from_fn(identify::layer))
            // Sees everything behind it, refusals and panics included: the span, the counters, at most one line.
            .layer(from_fn_with_state((Arc::clone(&self.observer), audience), observe::layer))
            // Sets the headers that keep browsers from guessing, on refusals as well.
            .layer(from_fn(secure::layer))
            // Says refusals of all below as Connect does, where the request is a call by it.
            .layer(from_fn(connect::layer))
            // Turns a panic into an answer; outside of it nothing may panic, inside anything.
            .layer(from_fn_with_state(self.panics.clone(), panics::layer))
            // Lets a client that is still sending see why it was refused by anyone below.
            .layer(from_fn(linger::layer))
            // Bounds bodies and messages before anybody allocates for them.
            .layer(from_fn_with_state(self.limits.body_bytes_max, size::layer))
            // Keeps out pages of other sites where no token does, from what operators read as well.
            .layer(from_fn_with_state(self.sites.clone(), site::layer));
        routes.layer(outer)
    }
}

/// Answers a request for which there is no route.
pub(crate) async fn no_route(request: Request) -> Response {
    let path = request.uri().path();
    let failure = if crate::http::is_grpc(request.headers()) || connect::is_method(path) {
        Failure::unimplemented(format!("there is no method {path}"))
    } else {
        Failure::not_found(format!("there is nothing at {path}"))
    };
    failure.respond_to(request.headers())
}

/// Answers a request whose path exists, but not for its method.
pub(crate) async fn no_method(request: Request) -> Response {
    let message = format!("method {} is not allowed at {}", request.method(), request.uri().path());
    Failure::new(Kind::MethodNotAllowed, message).respond_to(request.headers())
}

/// Which of the two ways of talking a request uses, for those who answer when its headers are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Grpc,
    Http,
}

// === impl Protocol ===

impl Protocol {
    fn of(headers: &HeaderMap) -> Self {
        if crate::http::is_grpc(headers) { Self::Grpc } else { Self::Http }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }

    fn respond(self, failure: &Failure) -> Response {
        match self {
            Self::Grpc => tonic::Status::from(failure).into_http(),
            Self::Http => axum::response::IntoResponse::into_response(failure),
        }
    }
}

/// Writes a failure as the trailers that end a gRPC answer under way.
fn trailers(failure: &Failure) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if tonic::Status::from(failure).add_header(&mut trailers).is_err() {
        // Percent-encoding makes any text a header value, so this does not happen; a bare code is an answer all the
        // same.
        trailers.insert(tonic::Status::GRPC_STATUS, (failure.kind().code() as i32).into());
    }
    trailers
}

#[cfg(test)]
mod tests;
