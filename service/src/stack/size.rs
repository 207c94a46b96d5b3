//! Bounds what a client may send: the body of an HTTP request, and each message of a gRPC call, by what its five-byte prefix announces.
//!
//! tonic has a limit of its own, but refuses with OUT_OF_RANGE, which clients of OTLP retry for ever. So the prefix is read here,
//! before tonic sees it, and the refusal is RESOURCE_EXHAUSTED without a delay. Nothing is copied, nothing buffered.

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
            next.run(request.map(|inner| Body::new(Bounded { inner, bound: messages }))).await
        }
        Protocol::Http => {
            let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            if let Some(bytes) = announced.filter(|bytes| *bytes > max.bytes()) {
                return Protocol::Http.respond(&over("body", Some(ByteSize(bytes)), max));
            }
            let whole = Whole { seen: 0, max };
            next.run(request.map(|inner| Body::new(Bounded { inner, bound: whole }))).await
        }
    }
}

fn over(what: &str, size: Option<ByteSize>, max: ByteSize) -> Failure {
    let size = size.map_or_else(String::new, |size| format!(" {size}"));
    Failure::too_large(format!("{what}{size} exceeds max_body {max} (--limits.max-body)"))
}

/// A bound that looks at data as it passes.
trait Bound: Unpin {
    type Refusal: Into<axum::BoxError>;

    fn pass(&mut self, data: &[u8]) -> Result<(), Self::Refusal>;
}

/// A body that fails where it goes over its bound.
struct Bounded<B> {
    inner: Body,
    bound: B,
}

impl<B: Bound> HttpBody for Bounded<B> {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => match frame.data_ref().map(|data| self.bound.pass(data)) {
                Some(Err(refusal)) => Some(Err(refusal.into())),
                _ => Some(Ok(frame)),
            },
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The bound of an HTTP body.
struct Whole {
    seen: u64,
    max: ByteSize,
}

impl Bound for Whole {
    type Refusal = Failure;

    fn pass(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.seen += data.len() as u64;
        // How long the body would have been is not known when nobody announced it.
        if self.seen > self.max.bytes() { Err(over("body", None, self.max)) } else { Ok(()) }
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
}

impl Bound for Messages {
    // What tonic finds in the error's sources becomes the status of the call.
    type Refusal = tonic::Status;

    fn pass(&mut self, mut data: &[u8]) -> Result<(), tonic::Status> {
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
                    return Err(over("message", Some(ByteSize(length as u64)), self.max).into());
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
    use super::*;

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
            let status = refused.unwrap_or_else(|| panic!("cut into {cut}"));
            assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        }
    }

    #[test]
    fn a_body_is_bounded_to_the_byte() {
        let mut whole = Whole { seen: 0, max: ByteSize(10) };
        assert_eq!(whole.pass(&[0; 4]), Ok(()));
        assert_eq!(whole.pass(&[0; 6]), Ok(()));
        let refusal = whole.pass(&[0; 1]).expect_err("one too many");
        assert_eq!(refusal.message(), "body exceeds max_body 10 B (--limits.max-body)");
    }
}
