//! Looks at the frame headers of a gRPC request before tonic does, so that a message is paid for before it is buffered.
//!
//! tonic allocates what a frame header announces and hands a message on when it is complete; a thousand streams with
//! half a message each would hold gigabytes that nobody counted. [`Frames`] wraps the service, [`Body`] the body of
//! each request: it takes the announced bytes from the budget first and queues the permit; the handler takes one permit
//! a message ([`Permits`]).
//!
//! - No bytes in the budget: a unary call ends with the refusal. On a stream the message is read and thrown away, and
//!   an empty one with its `seq` takes its place, so that the stream survives and the refusal finds its profile.
//! - A call whose message cannot be decoded is the sender's mistake: INVALID_ARGUMENT, where tonic says INTERNAL.
//! - A sender that stops in the middle of a message for the stall time-out is cut off; between messages it may be silent.
//!
//! That no message is over the limit has been seen to before, in the server's own layers.
//!
//! Framing: a flag byte, a length in four bytes, big endian, the message (gRPC over HTTP/2: Length-Prefixed-Message).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use afterglow_proto::v1::PushRequest;
use afterglow_service::Failure;
use afterglow_service::config::ByteSize;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::Frame;
use prost::Message as _;
use prost::encoding::decode_varint;
use tokio::time::{Instant, Sleep};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use crate::budget::{Budget, Permit};
use crate::ingest::stalled;

/// The flag and the length.
const HEADER_BYTES: usize = 5;

/// The flag of a message that is not compressed.
const FLAG_PLAIN: u8 = 0;

/// As much of a message as tells its `seq`: a key and a varint.
const SEQ_BYTES: usize = 11;

/// Wraps the ingest service.
#[derive(Clone, Debug)]
pub(crate) struct Frames<S> {
    inner: S,
    budget: Budget,
    message_bytes_max: u64,
    stall_timeout: Duration,
}

/// One entry for each message that was let through, in order; an extension of the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Permits(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    permits: VecDeque<Result<Permit, Failure>>,
    /// A message was decoded and given to the handler.
    reached_handler: bool,
}

/// The body of a request, frame by frame.
pub(crate) struct Body<B> {
    inner: B,
    budget: Budget,
    message_bytes_max: u64,
    permits: Permits,
    survives: bool,
    state: State,
    /// What has come and was not looked at.
    chunk: Bytes,
    stall_timeout: Duration,
    stall: Pin<Box<Sleep>>,
}

enum State {
    /// Reads a frame header.
    Header(BytesMut),
    /// Waits for the bytes that the header announced.
    Waiting { header: Bytes, length: u32, permit: BoxFuture<'static, Result<Permit, Failure>> },
    /// Hands the message on.
    Message { remaining: u32 },
    /// Throws the message away but for its beginning.
    Refused { remaining: u32, beginning: BytesMut, failure: Failure },
    /// The call has ended.
    Ended,
}

// === impl Frames ===

impl<S> Frames<S> {
    /// Wraps `inner`, whose messages have at most `message_bytes_max` bytes and are paid for from `budget`; whoever sends one may stop
    /// within it for `stall_timeout`.
    pub(crate) fn new(inner: S, budget: Budget, message_bytes_max: u64, stall_timeout: Duration) -> Self {
        Self { inner, budget, message_bytes_max, stall_timeout }
    }
}

impl<S: NamedService> NamedService for Frames<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Frames<S>
where
    S: Service<http::Request<Body<B>>, Response = http::Response<tonic::body::Body>>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let permits = Permits::default();
        request.extensions_mut().insert(permits.clone());
        let survives = request.uri().path().ends_with("/Push");
        let (budget, message_bytes_max) = (self.budget.clone(), self.message_bytes_max);
        let stall_timeout = self.stall_timeout;
        let answer = self.inner.call(request.map(|inner| Body {
            inner,
            budget,
            message_bytes_max,
            permits: permits.clone(),
            survives,
            state: State::header(),
            chunk: Bytes::new(),
            stall_timeout,
            stall: Box::pin(tokio::time::sleep(stall_timeout)),
        }));
        async move { Ok(permits.blame(answer.await?)) }.boxed()
    }
}

// === impl Permits ===

impl Permits {
    /// Returns the permit of the next message, or why it was thrown away.
    pub(crate) fn next(&self) -> Result<Permit, Failure> {
        let mut queue = self.lock();
        queue.reached_handler = true;
        let next = queue.permits.pop_front();
        next.unwrap_or_else(|| Err(Failure::internal(anyhow::anyhow!("a message came without a frame"))))
    }

    fn push(&self, permit: Result<Permit, Failure>) {
        self.lock().permits.push_back(permit);
    }

    /// Corrects an answer that calls it internal what went wrong before the handler had a message.
    fn blame(&self, answer: http::Response<tonic::body::Body>) -> http::Response<tonic::body::Body> {
        match Status::from_header_map(answer.headers()) {
            Some(status) if !self.lock().reached_handler => blame(status).into_http(),
            _ => answer,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Corrects what tonic says of a message that it cannot read.
pub(crate) fn blame(status: Status) -> Status {
    let message = status.message();
    match status.code() {
        Code::Internal => Failure::invalid(message.to_owned()).into(),
        // The only number in its text is the limit, in bytes: max_body and what may be around it.
        Code::ResourceExhausted if message.ends_with(INFLATES) => {
            let limit = message.chars().filter(char::is_ascii_digit).collect::<String>().parse().map(ByteSize);
            let limit = limit.map_or_else(|_| "what it may".to_owned(), |limit| limit.to_string());
            Failure::too_large(format!("message inflates beyond {limit} (--limits.max-body)")).into()
        }
        _ => status,
    }
}

/// How tonic ends when it says that a compressed message inflates too far.
const INFLATES: &str = "exceeded while decompressing message";

// === impl State ===

impl State {
    fn header() -> Self {
        Self::Header(BytesMut::new())
    }

    /// Returns whether the sender owes bytes.
    fn inside_message(&self) -> bool {
        match self {
            Self::Header(bytes) => !bytes.is_empty(),
            Self::Message { .. } | Self::Refused { .. } => true,
            Self::Waiting { .. } | Self::Ended => false,
        }
    }
}

// === impl Body ===

impl<B> http_body::Body for Body<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if matches!(this.state, State::Ended) {
            return Poll::Ready(None);
        }
        let piece = ready!(this.poll_piece(cx));
        if matches!(piece, None | Some(Err(_))) {
            this.state = State::Ended;
        }
        Poll::Ready(piece)
    }
}

impl<B> Body<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let State::Waiting { permit, .. } = &mut self.state {
                let permit = ready!(permit.poll_unpin(cx));
                // The wait was ours, not the sender's.
                self.stall.as_mut().reset(Instant::now() + self.stall_timeout);
                match self.go_on(permit) {
                    Ok(Some(header)) => return Poll::Ready(Some(Ok(Frame::data(header)))),
                    Ok(None) => {}
                    Err(failure) => return Poll::Ready(Some(Err(failure.into()))),
                }
            }
            if self.chunk.is_empty() && !self.owes_nothing() {
                match ready!(self.poll_chunk(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => self.chunk = data,
                        Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    },
                    end => return Poll::Ready(end),
                }
            }
            match self.step() {
                Ok(None) => {}
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Err(failure) => return Poll::Ready(Some(Err(failure.into()))),
            }
        }
    }

    /// Returns whether the state can be left without more bytes: the message is complete, or has none.
    fn owes_nothing(&self) -> bool {
        matches!(self.state, State::Message { remaining: 0 } | State::Refused { remaining: 0, .. })
    }

    /// Waits for bytes of the sender.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let inside = self.state.inside_message();
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(None) if inside => {
                Poll::Ready(Some(Err(Failure::invalid("stream ends inside a message").into())))
            }
            Poll::Ready(frame) => {
                self.stall.as_mut().reset(Instant::now() + self.stall_timeout);
                Poll::Ready(frame.map(|frame| frame.map_err(|error| Status::from_error(error.into()))))
            }
            Poll::Pending if inside => {
                ready!(self.stall.as_mut().poll(cx));
                Poll::Ready(Some(Err(stalled(self.stall_timeout).into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Looks at what has come; returns a piece to hand on, if there is one.
    fn step(&mut self) -> Result<Option<Bytes>, Failure> {
        match &mut self.state {
            State::Header(bytes) => {
                let missing = HEADER_BYTES - bytes.len();
                bytes.put(self.chunk.split_to(missing.min(self.chunk.len())));
                if bytes.len() == HEADER_BYTES {
                    let header = bytes.split().freeze();
                    self.announced(header);
                }
                Ok(None)
            }
            State::Message { remaining } => {
                let piece = self.chunk.split_to(self.chunk.len().min(*remaining as usize));
                *remaining -= piece.len() as u32;
                if *remaining == 0 {
                    self.state = State::header();
                }
                Ok((!piece.is_empty()).then_some(piece))
            }
            State::Refused { remaining, beginning, failure } => {
                let piece = self.chunk.split_to(self.chunk.len().min(*remaining as usize));
                *remaining -= piece.len() as u32;
                let wanted = SEQ_BYTES.saturating_sub(beginning.len()).min(piece.len());
                beginning.put(piece.slice(..wanted));
                if *remaining > 0 {
                    return Ok(None);
                }
                // Who does not write `seq` first cannot be told which profile was refused.
                let Some(seq) = seq_of(beginning) else {
                    return Err(failure.clone());
                };
                self.permits.push(Err(failure.clone()));
                self.state = State::header();
                Ok(Some(empty_message(seq)))
            }
            State::Waiting { .. } | State::Ended => unreachable!("neither looks at bytes"),
        }
    }

    /// Asks the budget for what a frame header announces.
    fn announced(&mut self, header: Bytes) {
        let length = (&header[1..]).get_u32();
        // What a compressed message inflates to is not known before it is too late; the handler gives back what it is
        // not.
        let bytes = if header[0] == FLAG_PLAIN { length.into() } else { self.message_bytes_max };
        let budget = self.budget.clone();
        let permit = async move { budget.acquire(bytes).await }.boxed();
        self.state = State::Waiting { header, length, permit };
    }

    /// Lets the announced message through, or begins to throw it away.
    fn go_on(&mut self, permit: Result<Permit, Failure>) -> Result<Option<Bytes>, Failure> {
        let State::Waiting { header, length, .. } = std::mem::replace(&mut self.state, State::Ended) else {
            unreachable!("called in this state only");
        };
        match permit {
            Ok(permit) => {
                self.permits.push(Ok(permit));
                self.state = State::Message { remaining: length };
                Ok(Some(header))
            }
            // A compressed message does not show its `seq`.
            Err(failure) if self.survives && header[0] == FLAG_PLAIN => {
                self.state = State::Refused { remaining: length, beginning: BytesMut::new(), failure };
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Reads `seq` off the beginning of a [`PushRequest`]: encoders write fields in the order of their numbers and leave
/// out 0.
fn seq_of(mut message: &[u8]) -> Option<u64> {
    match message.first() {
        Some(0x08) => {
            message.advance(1);
            decode_varint(&mut message).ok()
        }
        Some(0x12 | 0x1a | 0x22 | 0x2a) | None => Some(0),
        Some(_) => None,
    }
}

/// Writes the frame of a message that has a `seq` and nothing else.
fn empty_message(seq: u64) -> Bytes {
    let message = PushRequest { seq, ..PushRequest::default() };
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + length);
    frame.put_u8(FLAG_PLAIN);
    frame.put_u32(length as u32);
    message.encode(&mut frame).expect("the buffer grows");
    frame.freeze()
}

#[cfg(test)]
mod tests;
