//! Calls from agents to ingesters: the real messages, encoded and decoded by tonic, without sockets.
//!
//! A call is carried to the process that serves and worked on there, so that it dies and sleeps with it. Requests and answers take
//! time and are lost by chance; a connection that breaks says so.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::world::Chance;

/// Calls that wait for their server at once.
const CALLS_MAX: usize = 256;
/// Frames of an answer on their way at once.
const FRAMES_MAX: usize = 16;
/// How long a message takes in the median.
const LATENCY: Duration = Duration::from_millis(2);
/// What gRPC puts before a message: a flag, and the length in four bytes.
const HEADER_BYTES: usize = 5;

/// Who serves where; cheap to clone.
#[derive(Clone, Debug)]
pub struct Network {
    servers: Arc<Mutex<Vec<Option<mpsc::Sender<Call>>>>>,
}

/// How likely messages are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// A call never reaches its server.
    pub calls: f64,
    /// A call is worked on, and its answer is lost.
    pub answers: f64,
}

/// A call on its way.
#[derive(Debug)]
pub struct Call {
    request: Request<Body>,
    answer: oneshot::Sender<Response<Body>>,
    /// Whether the server goes on with it after its caller went away.
    goes_on: bool,
}

impl Network {
    /// Makes a network of so many servers, none of which serves yet.
    pub fn new(servers: usize) -> Self {
        Self { servers: Arc::new(Mutex::new(vec![None; servers])) }
    }

    /// Begins to serve.
    pub fn listen(&self, server: usize) -> mpsc::Receiver<Call> {
        let (sender, receiver) = mpsc::channel(CALLS_MAX);
        self.servers()[server] = Some(sender);
        receiver
    }

    /// Connects for one call to some server; what happens to the call is drawn now.
    pub fn connect(&self, losses: Losses, chance: &mut Chance) -> Connection {
        let server = chance.number(0..self.servers().len() as u64) as usize;
        Connection {
            server: self.servers()[server].clone(),
            latencies: [chance.latency(LATENCY), chance.latency(LATENCY)],
            loses_call: chance.is(losses.calls),
            loses_answer: chance.is(losses.answers),
            goes_on: chance.is(0.5),
        }
    }

    fn servers(&self) -> MutexGuard<'_, Vec<Option<mpsc::Sender<Call>>>> {
        self.servers.lock().expect("nothing panics while it holds the lock")
    }
}

/// Works on calls for ever. `inspect` sees every message of every answer before it leaves, with the path of its call.
pub async fn serve<S>(mut calls: mpsc::Receiver<Call>, service: S, inspect: impl Fn(&str, &[u8]))
where
    S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible> + Clone,
{
    let mut working = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = working.next(), if !working.is_empty() => {}
            Some(call) = calls.recv() => working.push(work(call, service.clone(), &inspect)),
        }
    }
}

async fn work<S>(call: Call, mut service: S, inspect: &impl Fn(&str, &[u8]))
where
    S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible>,
{
    let Call { request, mut answer, goes_on } = call;
    let path = request.uri().path().to_owned();
    let response = tokio::select! {
        biased;
        response = service.call(request) => response,
        // The caller has gone, and the server notices.
        () = answer.closed(), if !goes_on => return,
    };
    let Ok(response) = response;
    let (head, mut body) = response.into_parts();
    let (frames, receiver) = mpsc::channel(FRAMES_MAX);
    if answer.send(Response::from_parts(head, Body::new(Received(receiver)))).is_err() && !goes_on {
        return;
    }
    let mut messages = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(frame) = &frame
            && let Some(data) = frame.data_ref()
        {
            messages.extend_from_slice(data);
            while let Some(message) = next_message(&mut messages) {
                inspect(&path, &message);
            }
        }
        if frames.send(Some(frame)).await.is_err() && !goes_on {
            return;
        }
    }
    // Without this, the connection broke.
    drop(frames.send(None).await);
}

fn next_message(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = buffer.get(1..HEADER_BYTES)?.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
    if buffer.len() < HEADER_BYTES + length {
        return None;
    }
    buffer.advance(HEADER_BYTES);
    Some(buffer.split_to(length).freeze())
}

fn reset() -> Status {
    Status::unavailable("connection reset")
}

// === impl Connection ===

/// A connection for one call.
#[derive(Clone, Debug)]
pub struct Connection {
    server: Option<mpsc::Sender<Call>>,
    latencies: [Duration; 2],
    loses_call: bool,
    loses_answer: bool,
    goes_on: bool,
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { server, latencies: [there, back], loses_call, loses_answer, goes_on } = self.clone();
        Box::pin(async move {
            sleep(there).await;
            if loses_call {
                return Err(reset());
            }
            let refused = || Status::unavailable("connection refused");
            let server = server.ok_or_else(refused)?;
            let (answer, answered) = oneshot::channel();
            server.send(Call { request, answer, goes_on }).await.map_err(|_| refused())?;
            let response = answered.await.map_err(|_| reset())?;
            sleep(back).await;
            if loses_answer { Err(reset()) } else { Ok(response) }
        })
    }
}

/// The body of an answer as it comes.
struct Received(mpsc::Receiver<Option<Result<Frame<Bytes>, Status>>>);

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(match ready!(self.0.poll_recv(cx)) {
            Some(frame) => frame,
            None => Some(Err(reset())),
        })
    }
}
