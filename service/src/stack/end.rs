//! Answers that end before they are done: when their connection is about to close, or their time is up.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Protocol, trailers};
use crate::Failure;

/// Says that the connection of a request is about to close, because it is old or the server goes away; among the
/// request's extensions.
///
/// A handler whose stream has no end of its own watches it: it takes nothing new, gives the outstanding answers and
/// ends the stream. What has not ended by the end of the grace is cut.
#[derive(Clone, Debug)]
pub struct Closing {
    connection: CancellationToken,
    server: CancellationToken,
    over: CancellationToken,
}

// === impl Closing ===

impl Closing {
    pub(crate) fn new(connection: CancellationToken, server: CancellationToken, over: CancellationToken) -> Self {
        Self { connection, server, over }
    }

    /// Waits until the connection is about to close.
    pub async fn wait(&self) {
        self.connection.cancelled().await;
    }

    /// Returns whether the connection is about to close.
    pub fn is_closing(&self) -> bool {
        self.connection.is_cancelled()
    }

    /// Returns whether it closes because the server goes away.
    pub fn is_draining(&self) -> bool {
        self.server.is_cancelled()
    }

    /// Waits until the server is about to end, and whoever has no answer is to be told so.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }
}

/// Tells those who have no answer shortly before the server ends that they get none here, whatever they wait for: a slow question, or the
/// rest of their own body, which may never come.
pub(super) async fn last_words(request: Request, next: Next) -> Response {
    let protocol = Protocol::of(request.headers());
    let Some(closing) = request.extensions().get::<Closing>().cloned() else { return next.run(request).await };
    let response = tokio::select! {
        biased;
        response = next.run(request) => response,
        () = closing.over() => return protocol.respond(&Failure::shutting_down()),
    };
    let end = closing.over.cancelled_owned();
    response.map(|inner| {
        Body::new(Until::<WaitForCancellationFutureOwned>::new(inner, end, protocol, Failure::shutting_down()))
    })
}

pub(super) async fn layer(request: Request, next: Next) -> Response {
    let protocol = Protocol::of(request.headers());
    let closing = request.extensions().get::<Closing>().cloned();
    let response = next.run(request).await;
    match closing {
        // Only gRPC has streams here that never end.
        Some(closing) if protocol == Protocol::Grpc => {
            let end = closing.connection.cancelled_owned();
            response.map(|inner| {
                Body::new(Until::<WaitForCancellationFutureOwned>::new(inner, end, protocol, Failure::shutting_down()))
            })
        }
        _ => response,
    }
}

pin_project! {
    /// A body that ends with a failure when `end` comes before its own end.
    pub(super) struct Until<F> {
        #[pin]
        inner: Body,
        #[pin]
        end: F,
        protocol: Protocol,
        failure: Option<Failure>,
    }
}

// === impl Until ===

impl<F> Until<F> {
    pub(super) fn new(inner: Body, end: F, protocol: Protocol, failure: Failure) -> Self {
        Self { inner, end, protocol, failure: Some(failure) }
    }
}

impl<F: Future> HttpBody for Until<F> {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = self.project();
        if this.failure.is_none() {
            return Poll::Ready(None);
        }
        // What is ready goes first: an answer that is complete in time is not spoilt by a clock looked at too late.
        if let Poll::Ready(frame) = this.inner.poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(this.end.poll(cx));
        let failure = this.failure.take().expect("looked at above");
        Poll::Ready(Some(match this.protocol {
            Protocol::Grpc => Ok(Frame::trailers(trailers(&failure))),
            // HTTP has no word for it after the head: breaking off is the only way not to pass for complete.
            Protocol::Http => Err(failure.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.failure.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
