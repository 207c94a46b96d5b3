//! Bounds what a client may send: the body of an HTTP request, and each message of a gRPC call, by what its five-byte
//! prefix announces.
//!
//! tonic has a limit of its own, but refuses with OUT_OF_RANGE, which clients of OTLP retry for ever. So the prefix is
//! read here, before tonic sees it, and the refusal is RESOURCE_EXHAUSTED without a delay. Nothing is copied, nothing
//! buffered.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::Protocol;
use crate::Failure;
use crate::config::ByteSize;
use crate::listen::message_bytes_max;

pub(super) async fn layer(State(max): State<ByteSize>, request: Request, next: Next) -> Response {
    match Protocol::of(request.headers()) {
        Protocol::Grpc => {
            let messages = Messages::new(max);
            next.run(request.map(|inner| Body::new(Framed { inner, messages }))).await
        }
        Protocol::Http => {
            let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            if let Some(bytes) = announced.filter(|bytes| *bytes > max.bytes()) {
                return Protocol::Http.respond(&over("body", Some(ByteSize(bytes)), max));
            }
            next.run(request.map(|inner| Body::new(Whole { inner, seen: 0, max }))).await
        }
    }
}

fn over(what: &str, size: Option<ByteSize>, max: ByteSize) -> Failure {
    let size = size.map_or_else(String::new, |size| format!(" {}", size.beyond(max)));
    Failure::too_large(format!("{what}{size} exceeds max_body {max} (--limits.max-body)"))
}

/// The body of an HTTP request that fails when it is too long.
struct Whole {
    inner: Body,
    seen: u64,
    max: ByteSize,
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()?;
        self.seen += frame.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        if self.seen > self.max.bytes() {
            // How long the body would have been is not known when nobody announced it.
            return Poll::Ready(Some(Err(over("body", None, self.max).into())));
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of a gRPC call that fails where a message is too long.
struct Framed {
    inner: Body,
    messages: Messages,
}

impl HttpBody for Framed {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()?;
        if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
            // What tonic finds among an error's sources becomes the status of the call.
            self.messages.pass(data).map_err(tonic::Status::from)?;
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The bound of each message of a gRPC call: a compression flag, four bytes of length, the message, and again.
struct Messages {
    max: ByteSize,
    prefix: [u8; PREFIX],
    /// How much of the prefix has been seen.
    filled: usize,
    /// How much of the message is still to come.
    rest: usize,
}

/// A flag and a big-endian length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

impl Messages {
    fn new(max: ByteSize) -> Self {
        Self { max, prefix: [0; PREFIX], filled: 0, rest: 0 }
    }

    /// Looks at the next bytes of the call; fails as soon as a prefix announces too much.
    fn pass(&mut self, mut data: &[u8]) -> Result<(), Failure> {
        while !data.is_empty() {
            if self.rest > 0 {
                let here = self.rest.min(data.len());
                self.rest -= here;
                data = &data[here..];
                continue;
            }
            let here = (PREFIX - self.filled).min(data.len());
            self.prefix[self.filled..self.filled + here].copy_from_slice(&data[..here]);
            self.filled += here;
            data = &data[here..];
            if self.filled == PREFIX {
                let [_, length @ ..] = self.prefix;
                let length = u32::from_be_bytes(length) as usize;
                if length > message_bytes_max(self.max) {
                    return Err(over("message", Some(ByteSize(length as u64)), self.max));
                }
                self.rest = length;
                self.filled = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::Kind;

    fn message(length: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(u32::try_from(length).expect("a length").to_be_bytes());
        message.resize(PREFIX + length, 7);
        message
    }

    /// Goal: however the stream is cut into frames, each prefix is found and only prefixes are taken for one.
    #[test]
    fn prefixes_are_found_across_frames() {
        let max = ByteSize(1000);
        let most = message_bytes_max(max);
        let stream: Vec<u8> = [message(0), message(300), message(1), message(most), message(7)].concat();
        for cut in [1, 2, 3, 5, 7, 64, 1000, stream.len()] {
            let mut messages = Messages::new(max);
            assert!(stream.chunks(cut).all(|data| messages.pass(data).is_ok()), "cut into {cut}");
            let too_long = message(most + 1);
            let refused = too_long[..PREFIX].chunks(cut).find_map(|data| messages.pass(data).err());
            let failure = refused.unwrap_or_else(|| panic!("cut into {cut}"));
            assert_eq!(failure.kind(), Kind::TooLarge);
        }
    }

    async fn bounded(length: usize, frames: usize) -> Result<usize, String> {
        let frames = (0..frames).map(move |_| Ok::<_, std::convert::Infallible>(Bytes::from(vec![7; length])));
        let inner = Body::from_stream(futures::stream::iter(frames));
        let body = Whole { inner, seen: 0, max: ByteSize(10) };
        body.collect().await.map(|body| body.to_bytes().len()).map_err(|error| error.to_string())
    }

    /// Goal: the bound holds to the byte, also where the body has no end.
    #[tokio::test]
    async fn a_body_is_bounded_to_the_byte() {
        let refused = || Err("body exceeds max_body 10 B (--limits.max-body)".to_owned());
        assert_eq!(bounded(5, 2).await, Ok(10));
        assert_eq!(bounded(11, 1).await, refused());
        assert_eq!(bounded(1, 11).await, refused());
        assert_eq!(bounded(1 << 20, usize::MAX).await, refused());
    }
}
