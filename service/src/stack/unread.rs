//! Answers that their clients have not taken yet: what they hold, and who takes nothing of them.
//!
//! An answer waits wherever its client lets it wait: in its body, which is asked for more only while there is room, or in the buffers of
//! HTTP/1 and HTTP/2. So it is handed on in pieces, and each piece knows when it is let go. As long as any of them is there, so is what the answer
//! [`keep`]s, which is how a budget counts what waits; and an answer of which nothing has been taken for too long ends its connection
//! ([`Readers`]), for nobody can end a stream whose client gives it no room.
//!
//! Who waits for whom is told by how the body is asked: once it has given a piece it waits for the client until it is asked again, and once
//! it had nothing to give, the client waits for it. So a stream with nothing to say, such as health's Watch, holds up nobody.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task_local;
use tokio::time::{Instant, sleep_until};

use super::Protocol;
use crate::config::ByteSize;
use crate::metrics::register_reading;
use crate::{Failure, Metrics};

/// The most that is handed on at once: a frame of HTTP/2 as long as every client takes. A client that takes less than this in the time it has
/// takes nothing, as far as can be seen.
const PIECE_BYTES: usize = 16 << 10;

/// How much is compressed at a time: a millisecond's work, about.
const YIELD_EVERY_BYTES: usize = 16 << 10;

/// The memory of answers that hold nothing of a budget: those of hundreds who load the UI at once, most of which leave at once.
const ROOM_BYTES: usize = 64 << 20;

/// Smaller ones need no room: what serves a stream takes about as much, and streams have a limit.
const ROOM_FROM_BYTES: u64 = 16 << 10;

/// Whoever finds no room comes back after one to three seconds, not all at once.
const DELAY: Range<Duration> = Duration::from_secs(1)..Duration::from_secs(3);

/// What an answer holds until its client has taken the last of it, such as a part of a budget; given back when dropped.
pub trait Hold: Send + Sync + 'static {
    /// Is told how many bytes the answer comes to, before any of it is sent. A stream does not know, nor does a gRPC call: it is not told.
    fn settle(&mut self, bytes: u64);
}

task_local! {
    static KEPT: Kept;
}

/// Keeps `held` until the client has taken the answer to the request whose task this is, or is gone. Outside of a request it is dropped.
pub fn keep(held: impl Hold) {
    let _ = KEPT.try_with(|kept| kept.lock().push(Box::new(held)));
}

/// What the answer to a request holds so far.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Holds>>);

type Holds = Vec<Box<dyn Hold>>;

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Holds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees how each answer is taken, from outside of all that makes it.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    let readers = request.extensions().get::<Readers>().cloned().unwrap_or_default();
    let kept = Kept::default();
    let response = KEPT.scope(kept.clone(), next.run(request)).await;
    let held = std::mem::take(&mut *kept.lock());
    response.map(|inner| if inner.is_end_stream() { inner } else { Body::new(Unread::new(inner, held, &readers)) })
}

/// The memory of answers that hold nothing, such as metrics and the pages of the UI.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

// === impl Room ===

impl Room {
    /// Makes room, and shows how much of it is taken.
    pub(super) fn new(metrics: &Metrics) -> Self {
        let room = Arc::new(Semaphore::new(ROOM_BYTES >> 10));
        let free = Arc::clone(&room);
        metrics.register(|registry| {
            let help = "Memory of answers that their clients have not taken and no question holds, such as metrics and pages, in bytes";
            let read = move || ROOM_BYTES - (free.available_permits() << 10);
            register_reading(registry, "afterglow_server_unread_bytes", help, read);
            let help = "Memory that such answers may take; beyond, requests for them are refused";
            register_reading(registry, "afterglow_server_unread_limit_bytes", help, || ROOM_BYTES);
        });
        Self(room)
    }

    /// Takes room for an answer of so many bytes, or for as long an answer as there can be.
    fn take(&self, bytes: u64) -> Option<Taken> {
        let kib = u32::try_from(bytes.min(ROOM_BYTES as u64) >> 10).expect("the room is less than 2^32");
        Arc::clone(&self.0).try_acquire_many_owned(kib).ok().map(Taken)
    }
}

/// Room that an answer takes.
struct Taken(#[expect(dead_code, reason = "it is held, not looked at")] OwnedSemaphorePermit);

impl Hold for Taken {
    fn settle(&mut self, _bytes: u64) {}
}

/// Compresses an answer whole, where it is to be compressed, rather than as its client takes it: what compresses takes more memory than most
/// answers, and they less once it is done. Tells what the answer holds how long it is, where that is known, and has it take no more; where it
/// holds nothing, and is not small, it takes room.
pub(super) async fn settle(State(room): State<Room>, request: Request, next: Next) -> Response {
    let protocol = Protocol::of(request.headers());
    let mut response = next.run(request).await;
    if response.headers().contains_key(CONTENT_ENCODING) {
        response = match whole(response).await {
            Ok(response) => response,
            Err(error) => return Failure::internal(error).into_response(),
        };
    }
    let Some(bytes) = response.body().size_hint().exact() else { return response };
    let is_held = KEPT.try_with(|kept| {
        let mut kept = kept.lock();
        let mut left = bytes;
        // Where several questions made it, what the first held is for all of it.
        kept.iter_mut().for_each(|held| held.settle(std::mem::take(&mut left)));
        !kept.is_empty()
    });
    if bytes < ROOM_FROM_BYTES {
        return response;
    }
    if is_held == Ok(true) {
        return fitted(response).await.unwrap_or_else(|error| Failure::internal(error).into_response());
    }
    if is_held == Ok(false) {
        match room.take(bytes) {
            Some(taken) => keep(taken),
            None => {
                let message = format!(
                    "answers that their clients do not take fill the {} that there are for them",
                    ByteSize(ROOM_BYTES as u64)
                );
                return protocol.respond(&Failure::exhausted(message, rand::random_range(DELAY)));
            }
        }
    }
    response
}

/// Gives back what the buffer of an answer, of which all is there, has beyond it: as much again, where it was doubled as it filled.
async fn fitted(response: Response) -> Result<Response, axum::Error> {
    let (parts, body) = response.into_parts();
    let all = Vec::from(body.collect().await?.to_bytes()).into_boxed_slice();
    Ok(Response::from_parts(parts, Body::from(Bytes::from(all))))
}

/// Takes all of a body, leaving the thread to others now and then.
async fn whole(response: Response) -> Result<Response, axum::Error> {
    let (parts, mut body) = response.into_parts();
    let mut all = BytesMut::new();
    let mut left = YIELD_EVERY_BYTES;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        all.extend_from_slice(&data);
        left = left.saturating_sub(data.len());
        if left == 0 {
            left = YIELD_EVERY_BYTES;
            tokio::task::yield_now().await;
        }
    }
    Ok(Response::from_parts(parts, Body::from(all.freeze())))
}

/// The answers on their way over one connection, among the extensions of its requests; clones are of the same.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    began: Instant,
    answers: Arc<Mutex<Numbered>>,
}

/// Answers by numbers that are given in turn, after the next of these.
type Numbered = (u64, HashMap<u64, Arc<Progress>>);

/// How an answer is taken.
#[derive(Debug)]
struct Progress {
    /// The pieces that were handed on and not let go, and one more while the body waits to be asked for the next.
    waiting: AtomicUsize,
    /// When any of this changed last, in milliseconds since the connection began.
    moved_millis: AtomicU64,
}

// === impl Readers ===

impl Default for Readers {
    fn default() -> Self {
        Self { began: Instant::now(), answers: Arc::default() }
    }
}

impl Readers {
    /// Returns once nothing has been taken for `timeout` of an answer that waits for its client.
    pub(crate) async fn stalled(&self, timeout: Duration) {
        loop {
            let now = Instant::now();
            // Whoever begins to wait while nobody does is looked at in time as well.
            let until = self.longest_waiting().map_or(now, |since| since) + timeout;
            if until <= now {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// Returns since when the answer that has waited for the longest does; none where none waits.
    fn longest_waiting(&self) -> Option<Instant> {
        let (_, answers) = &*self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = answers.values().filter(|progress| progress.waiting.load(Ordering::Acquire) > 0);
        let since = waiting.map(|progress| progress.moved_millis.load(Ordering::Acquire)).min();
        since.map(|millis| self.began + Duration::from_millis(millis))
    }

    fn moved(&self, progress: &Progress) {
        progress.moved_millis.store(self.began.elapsed().as_millis() as u64, Ordering::Release);
    }
}

/// An answer that is not all taken: there for as long as its body or any of its pieces is.
struct Answer {
    _held: Holds,
    readers: Readers,
    number: u64,
    progress: Arc<Progress>,
}

// === impl Answer ===

impl Answer {
    fn new(held: Holds, readers: &Readers) -> Arc<Self> {
        let progress = Arc::new(Progress { waiting: AtomicUsize::new(0), moved_millis: AtomicU64::new(0) });
        let (next, answers) = &mut *readers.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *next;
        *next += 1;
        answers.insert(number, Arc::clone(&progress));
        Arc::new(Self { _held: held, readers: readers.clone(), number, progress })
    }

    /// Notes that one more waits for the client.
    fn wait(&self) {
        self.readers.moved(&self.progress);
        self.progress.waiting.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that one less does.
    fn take(&self) {
        self.readers.moved(&self.progress);
        self.progress.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.readers.answers.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.number);
    }
}

/// A part of an answer that was handed on.
struct Piece {
    bytes: Bytes,
    answer: Arc<Answer>,
}

// === impl Piece ===

impl Piece {
    /// Makes bytes of it that let it go when they are.
    fn hand_on(bytes: Bytes, answer: &Arc<Answer>) -> Bytes {
        answer.wait();
        Bytes::from_owner(Self { bytes, answer: Arc::clone(answer) })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.answer.take();
    }
}

/// A body whose client may not have taken it.
struct Unread {
    inner: Body,
    /// What is left of the frame that is being handed on.
    rest: Bytes,
    /// Whether it waits to be asked for more.
    is_waiting: bool,
    answer: Arc<Answer>,
}

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unread").field("progress", &self.answer.progress).finish_non_exhaustive()
    }
}

// === impl Unread ===

impl Unread {
    fn new(inner: Body, held: Holds, readers: &Readers) -> Self {
        let answer = Answer::new(held, readers);
        answer.wait();
        Self { inner, rest: Bytes::new(), is_waiting: true, answer }
    }

    fn wait(&mut self, is_waiting: bool) {
        match (self.is_waiting, is_waiting) {
            (false, true) => self.answer.wait(),
            (true, false) => self.answer.take(),
            _ => return,
        }
        self.is_waiting = is_waiting;
    }
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.wait(false);
        if this.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data(),
                ended => return Poll::Ready(ended),
            };
            match frame {
                Ok(data) => this.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        this.wait(true);
        Poll::Ready(Some(Ok(Frame::data(Piece::hand_on(piece, &this.answer)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, inner) = (self.rest.len() as u64, self.inner.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.saturating_add(inner.lower()));
        if let Some(upper) = inner.upper() {
            hint.set_upper(rest.saturating_add(upper));
        }
        hint
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.wait(false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Says whether it is still held.
    struct Held(Arc<AtomicBool>);

    impl Hold for Held {
        fn settle(&mut self, _bytes: u64) {}
    }

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.store(false, Ordering::SeqCst);
        }
    }

    /// Returns whether somebody stalls who takes nothing more from now on, and after how long that is seen.
    async fn stalls(readers: &Readers) -> Option<Duration> {
        let begin = Instant::now();
        let stalled = tokio::time::timeout(3 * TIMEOUT, readers.stalled(TIMEOUT)).await;
        stalled.ok().map(|()| begin.elapsed())
    }

    async fn piece(body: &mut Unread) -> Bytes {
        body.frame().await.expect("a frame").expect("no error").into_data().expect("data")
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_answer_holds_is_held_until_its_last_piece_is_let_go() {
        let (readers, is_held) = (Readers::default(), Arc::new(AtomicBool::new(true)));
        let all = Bytes::from((0..3 * PIECE_BYTES + 7).map(|n| n as u8).collect::<Vec<_>>());
        let mut body = Unread::new(Body::from(all.clone()), vec![Box::new(Held(Arc::clone(&is_held)))], &readers);
        let (mut pieces, mut left) = (Vec::new(), all.len() as u64);
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some(left));
            let piece = piece(&mut body).await;
            assert!(piece.len() <= PIECE_BYTES, "{}", piece.len());
            left -= piece.len() as u64;
            pieces.push(piece);
        }
        assert!((left, pieces.len()) == (0, 4) && pieces.concat() == all);
        drop(body);
        let last = pieces.pop();
        drop(pieces);
        assert!(is_held.load(Ordering::SeqCst));
        assert_eq!(stalls(&readers).await, Some(TIMEOUT), "it lies in a buffer that nobody empties");
        drop(last);
        assert!(!is_held.load(Ordering::SeqCst));
        assert_eq!(stalls(&readers).await, None);
    }

    /// Goal: whoever takes a piece in time goes on, and whoever is owed the next is never cut for it.
    #[tokio::test(start_paused = true)]
    async fn who_waits_for_whom_is_told() {
        let readers = Readers::default();
        let (mut sender, frames) = futures::channel::mpsc::channel::<Result<Bytes, std::io::Error>>(4);
        let mut body = Unread::new(Body::from_stream(frames), Vec::new(), &readers);
        assert_eq!(stalls(&readers).await, Some(TIMEOUT), "nobody asks for the first piece");

        let mut watch = Box::pin(readers.stalled(TIMEOUT));
        for _ in 0..5 {
            sender.try_send(Ok(Bytes::from_static(b"some"))).expect("room");
            drop(piece(&mut body).await);
            assert!(tokio::time::timeout(TIMEOUT * 9 / 10, watch.as_mut()).await.is_err(), "it is steady");
        }
        assert!(futures::poll!(body.frame()).is_pending());
        assert_eq!(stalls(&readers).await, None, "there is nothing to take");
        sender.try_send(Ok(Bytes::from_static(b"more"))).expect("room");
        let more = piece(&mut body).await;
        assert!(futures::poll!(body.frame()).is_pending());
        assert_eq!(stalls(&readers).await, Some(TIMEOUT), "a piece is not let go");
        drop((more, body));
        assert_eq!(stalls(&readers).await, None);
    }

    /// Goal: answers that no budget counts do not fill memory.
    #[test]
    fn room_is_bounded_and_given_back() {
        let room = Room::new(&Metrics::new(crate::testing::PROGRAM));
        let half = room.take(ROOM_BYTES as u64 / 2).expect("room");
        let all = room.take(2 * ROOM_BYTES as u64);
        assert!(all.is_none());
        let other = room.take(ROOM_BYTES as u64 / 2).expect("room");
        assert!(room.take(ROOM_FROM_BYTES).is_none());
        drop((half, other));
        assert!(room.take(u64::MAX).is_some(), "one that is larger than all of it is alone");
    }
}
