//! Reads on for a while where somebody was answered before all of the body had come.
//!
//! HTTP/1.1 has no way to say "stop sending" but to close the connection, and what then still arrives is met with a
//! reset that overtakes the answer: the client sees a broken pipe and never the refusal (RFC 9112, 9.6). So the answer
//! goes out at once, and what is left of the body is read and thrown away until the client has seen it, within bounds
//! of bytes and time. HTTP/2 can say it, by a reset of the stream without an error (RFC 9113, 8.1), which clients of gRPC know; but curl and
//! others that post a file take it for a failure and throw the answer away. So what is not gRPC is read on there as well.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::Version;
use http::header::EXPECT;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{sleep, timeout};

use super::Closing;

/// How much of a body nobody wants is still read: a client that has not noticed by then is not reading.
const BYTES_MAX: u64 = 64 << 20;

/// How long. Below the time a drain has.
const TIME_MAX: Duration = Duration::from_secs(5);

/// How long once the server is about to end.
const LAST_TIME_MAX: Duration = Duration::from_millis(200);

pub(super) async fn layer(request: Request, next: Next) -> Response {
    let knows_resets = request.version() >= Version::HTTP_2 && crate::http::is_grpc(request.headers());
    // Who waits to be asked for the body sends none when refused.
    if knows_resets || request.headers().contains_key(EXPECT) {
        return next.run(request).await;
    }
    let closing = request.extensions().get::<Closing>().cloned();
    next.run(request.map(|inner| Body::new(Lingering { inner, closing }))).await
}

/// A body that is read on when it is dropped before its end.
struct Lingering {
    inner: Body,
    closing: Option<Closing>,
}

// === impl Lingering ===

impl Drop for Lingering {
    fn drop(&mut self) {
        if !self.inner.is_end_stream() {
            let rest = std::mem::take(&mut self.inner);
            // It ends by itself, soon, and nobody waits for it but the connection it reads.
            let closing = self.closing.take();
            tokio::spawn(async move {
                let over = async {
                    match closing {
                        Some(closing) => closing.over().await,
                        None => std::future::pending().await,
                    }
                    sleep(LAST_TIME_MAX).await;
                };
                tokio::select! {
                    _ = timeout(TIME_MAX, discard(rest)) => {}
                    () = over => {}
                }
            });
        }
    }
}

/// Reads a body to its end, an error or the bound; returns the bytes read.
async fn discard(mut body: Body) -> u64 {
    let mut bytes = 0;
    while bytes <= BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    bytes
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Goal: what nobody reads is read to its end, and an endless body is not.
    #[tokio::test]
    async fn a_rest_is_read_within_bounds() {
        let endless = || futures::stream::repeat(Ok::<_, Infallible>(Bytes::from(vec![7; 1 << 20])));
        let some = futures::StreamExt::take(endless(), 3);
        assert_eq!(discard(Body::from_stream(some)).await, 3 << 20);
        assert_eq!(discard(Body::from_stream(endless())).await, BYTES_MAX + (1 << 20));
    }
}
