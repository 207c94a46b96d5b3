//! Turns a panic of a handler into the answer `internal error, id …`, before or within the answer's body; the process
//! lives on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::anyhow;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt as _;
use http_body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;

use super::{Protocol, trailers};
use crate::{Failure, Metrics};

/// Counts what should never happen.
#[derive(Clone, Debug)]
pub(super) struct Panics {
    total: Counter,
}

// === impl Panics ===

impl Panics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let total = Counter::default();
        metrics.register(|registry| {
            registry.register(
                "afterglow_server_panics",
                "Requests that ended in a panic, which is a bug",
                total.clone(),
            );
        });
        Self { total }
    }

    fn failure(&self, payload: &(dyn Any + Send)) -> Failure {
        self.total.inc();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        Failure::internal(anyhow!("handler panicked: {text}"))
    }
}

pub(super) async fn layer(State(panics): State<Panics>, request: Request, next: Next) -> Response {
    let protocol = Protocol::of(request.headers());
    // Nothing a handler leaves half done is seen again: its state is dropped with it, what it shares is behind locks of
    // its own.
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response.map(|inner| Body::new(Caught { inner: Some(inner), protocol, panics })),
        Err(payload) => protocol.respond(&panics.failure(&*payload)),
    }
}

/// A body that ends with an internal error where polling it panics.
struct Caught {
    /// Gone once it has panicked.
    inner: Option<Body>,
    protocol: Protocol,
    panics: Panics,
}

impl HttpBody for Caught {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let payload = match catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(cx))) {
            Ok(frame) => return frame.map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Err(payload) => payload,
        };
        self.inner = None;
        let failure = self.panics.failure(&*payload);
        Poll::Ready(Some(match self.protocol {
            Protocol::Grpc => Ok(Frame::trailers(trailers(&failure))),
            Protocol::Http => Err(failure.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}
