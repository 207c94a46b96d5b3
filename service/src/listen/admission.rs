//! Lets calls in by their heads alone, or sends them back before they cost anything.
//!
//! A server that is offered ten times what it can do spends all its time on refusing, if that costs a tenth of serving. So what can be
//! decided by the head of a call is decided here, before the layers of [`stack`](crate::stack): no span, no line in the log, no
//! answer put together. The answers are made when the server starts, a handful that differ in how long they ask to wait; equal
//! headers also take a byte each on the wire (HPACK). Only the id of the request is put in for each: the client's own, or a fresh one, by which
//! client and whoever stands between can tell calls apart; here no line is written for it. They are counted as the layers count theirs, and there is a line in the log
//! every [`SAY_INTERVAL`].
//!
//! The body of a refused call is on its way. What may come of it without anybody's asking for more, the window of its stream, is
//! waited for and thrown away before the answer: a stream that ended needs no reset, and after a reset nothing more comes. h2 remembers
//! a few resets only, takes frames for a stream that it has forgotten for a mistake of the client's, and ends the connection of
//! who makes many.
//!
//! Only HTTP/2 is looked at: it carries many calls on a connection, HTTP/1.1 one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Extensions, HeaderMap, Request, Version};
use http_body::Body as HttpBody;
use tokio::time::{Instant, timeout};

use crate::Failure;
use crate::stack::{RequestId, Stack, Tally};
use crate::throttle::{Bounds, Throttle};

/// Decides which calls of a method are let in.
pub trait Admission: Send + Sync {
    /// Decides whether the next call is let in, and may leave something for whoever serves it. It is asked for every call, on the way of
    /// all others: it has to be quick.
    fn admit(&self, extensions: &mut Extensions) -> bool;

    /// Says what a refused call is told. It is asked a few times when the server starts, and its delays are what callers get in turn.
    fn refusal(&self) -> Failure;
}

/// How many different answers there are: enough to spread those who come back over the delay.
const ANSWERS: usize = 16;

/// How long the rest of a body may take: a round trip.
const REST_MAX: Duration = Duration::from_millis(250);

/// How often the log says that calls are refused.
const SAY_INTERVAL: Duration = Duration::from_secs(10);

/// The methods whose calls are let in by their heads.
#[derive(Default)]
pub(super) struct Admissions {
    methods: Vec<Method>,
    /// What a client sends of a body without being asked for more.
    window_bytes: u64,
}

struct Method {
    path: &'static str,
    admission: Arc<dyn Admission>,
    answers: Vec<HeaderMap>,
    next: AtomicUsize,
    tally: Tally,
    said: Throttle,
}

/// A call that was sent back.
pub(super) struct Refused {
    began: Instant,
    id: RequestId,
    answer: HeaderMap,
    tally: Tally,
    window_bytes: u64,
}

// === impl Admissions ===

impl Admissions {
    pub(super) fn new(
        methods: impl IntoIterator<Item = (&'static str, Arc<dyn Admission>)>,
        window_bytes: u64,
        stack: &Stack,
    ) -> Self {
        let methods = methods.into_iter().map(|(path, admission)| Method::new(path, admission, stack)).collect();
        Self { methods, window_bytes }
    }

    /// Returns what becomes of a call that is not let in.
    pub(super) fn refuse<B>(&self, request: &mut Request<B>) -> Option<Refused> {
        if request.version() != Version::HTTP_2 {
            return None;
        }
        let method = self.methods.iter().find(|method| method.path == request.uri().path())?;
        if !crate::http::is_grpc(request.headers()) || method.admission.admit(request.extensions_mut()) {
            return None;
        }
        method.say();
        let n = method.next.fetch_add(1, Ordering::Relaxed) % method.answers.len();
        Some(Refused {
            began: Instant::now(),
            id: RequestId::of(request.headers()),
            answer: method.answers[n].clone(),
            tally: method.tally.clone(),
            window_bytes: self.window_bytes,
        })
    }
}

// === impl Method ===

impl Method {
    fn new(path: &'static str, admission: Arc<dyn Admission>, stack: &Stack) -> Self {
        let failures: Vec<Failure> = (0..ANSWERS).map(|_| admission.refusal()).collect();
        let tally = stack.tally(path, failures[0].kind().code());
        let answer = |failure: &Failure| tonic::Status::from(failure).into_http::<Body>().into_parts().0.headers;
        let answers = failures.iter().map(answer).collect();
        let said = Throttle::new(Bounds::one_each(SAY_INTERVAL));
        Self { path, admission, answers, next: AtomicUsize::new(0), tally, said }
    }

    /// Says now and then that calls are refused.
    fn say(&self) {
        if let Some(left_out) = self.said.line() {
            let refused = left_out + 1;
            tracing::warn!(method = self.path, refused, "calls are sent back before they are read: there are too many");
        }
    }
}

// === impl Refused ===

impl Refused {
    /// Answers, once nothing more of the body can be on its way.
    pub(super) async fn answer<B>(self, mut body: B) -> Response
    where
        B: HttpBody + Unpin,
        B::Data: bytes::Buf,
    {
        let mut seen = 0;
        let rest = std::future::poll_fn(|cx| {
            while !body.is_end_stream() && seen < self.window_bytes {
                match ready!(Pin::new(&mut body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        seen += frame.data_ref().map_or(0, |data| bytes::Buf::remaining(data) as u64);
                    }
                    // The client went away.
                    Some(Err(_)) | None => break,
                }
            }
            Poll::Ready(())
        });
        // Who is slow may be told before it has sent all that it may.
        let _ = timeout(REST_MAX, rest).await;
        self.tally.count(self.began.elapsed());
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = self.answer;
        self.id.answer(response.headers_mut());
        response
    }
}
