//! One stream of profiles: reads them, whole or in chunks, and answers each as its outcome is known.
//!
//! The answers are produced by polling: nothing runs beside the stream, and a client that goes away takes all of it
//! along (but not what was added to a segment). A refused profile is an answer; only what breaks the stream itself ends
//! it.
//!
//! Back-pressure is not reading: while [`UNDER_WAY_MAX`] profiles of the stream are under way, while [`TURNS`] of them
//! wait for a core, and while the client does not read its answers, nothing more is read, and HTTP/2's window fills at
//! the sender's end.
//!
//! When the ingester drains or the connection is about to close, nothing more is read, the profiles under way are
//! answered, and the stream ends with UNAVAILABLE: what was sent and not answered is to be sent again elsewhere.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{Profile, ProfileChunk, ProfileHeader, PushRequest, PushResponse};
use afterglow_service::stack::Closing;
use afterglow_service::telemetry::Place;
use afterglow_service::{Failure, Kind};
use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream::{FuturesUnordered, Stream, StreamExt};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};

use super::frames::{Permits, blame};
use super::{Call, answer};
use crate::budget::Permit;
use crate::ingest::{Ingest, Refused, Request, body_too_large, stalled};

/// How many profiles of one stream may be under way. With a flush every 250 ms that is 1,000 a second; who sends more
/// has several streams.
const UNDER_WAY_MAX: usize = 256;

/// How many profiles of one stream may wait for a core: one in work, one to follow. A queue is better kept at the
/// sender's end.
const TURNS: usize = 2;

/// How many profiles of one stream may be begun in chunks and not complete.
const UPLOADS_MAX: usize = 64;

/// How many refused profiles are remembered whose chunks may still be on the way.
const REFUSED_REMEMBERED: usize = 2 * UPLOADS_MAX;

/// The bytes of a SHA-256.
const SHA256_BYTES: usize = 32;

/// A stream of profiles under way.
pub(super) struct Session {
    ingest: Ingest,
    call: Call,
    messages: Streaming<PushRequest>,
    permits: Permits,
    closing: Option<Closing>,
    /// Each gives an answer: the pushes under way, and the refusals that need no push.
    answers: FuturesUnordered<BoxFuture<'static, PushResponse>>,
    uploads: HashMap<u64, Upload>,
    /// Chunks of these are thrown away, without another answer.
    refused: VecDeque<u64>,
    turns: Arc<Semaphore>,
    /// What the next profile takes along, and what reading needs.
    turn: Option<OwnedSemaphorePermit>,
    /// Nothing more is read; so the stream ends when all that is under way is answered.
    end: Option<Result<(), Status>>,
}

/// A profile of which more chunks are to come.
struct Upload {
    profile: Profile,
    size: u64,
    /// What the sender says the SHA-256 is, and how far it is computed.
    sha256: Option<(Bytes, Sha256)>,
    data: BytesMut,
    permit: Permit,
    /// When its last part came.
    heard: Instant,
    /// The trace it belongs to, where its header says so.
    trace: Option<Place>,
}

// === impl Session ===

impl Session {
    pub(super) fn new(
        ingest: Ingest,
        call: Call,
        messages: Streaming<PushRequest>,
        permits: Permits,
        closing: Option<Closing>,
    ) -> Self {
        Self {
            ingest,
            call,
            messages,
            permits,
            closing,
            answers: FuturesUnordered::new(),
            uploads: HashMap::new(),
            refused: VecDeque::new(),
            turns: Arc::new(Semaphore::new(TURNS)),
            turn: None,
            end: None,
        }
    }

    /// Returns the answers, and at last the status of the stream where it is not OK.
    pub(super) fn answers(self) -> impl Stream<Item = Result<PushResponse, Status>> + Send {
        futures::stream::unfold(Some(self), |session| async move {
            let mut session = session?;
            match session.next().await {
                Ok(answer) => answer.map(|answer| (Ok(answer), Some(session))),
                Err(status) => Some((Err(status), None)),
            }
        })
    }

    /// Returns the next answer; `None` at the good end of the stream.
    async fn next(&mut self) -> Result<Option<PushResponse>, Status> {
        loop {
            if self.answers.is_empty()
                && let Some(end) = self.end.take()
            {
                return end.map(|()| None);
            }
            let reads = self.end.is_none() && self.answers.len() < UNDER_WAY_MAX;
            let listens = reads && self.turn.is_some();
            let stall_timeout = self.ingest.stall_timeout();
            let stall = self.uploads.values().map(|upload| upload.heard + stall_timeout).min();
            tokio::select! {
                biased;
                Some(answer) = self.answers.next(), if !self.answers.is_empty() => return Ok(Some(answer)),
                failure = closes(&self.ingest, self.closing.as_ref()), if self.end.is_none() => {
                    self.refuse_uploads(|_| failure.clone());
                    self.end = Some(Err(failure.into()));
                }
                turn = Arc::clone(&self.turns).acquire_owned(), if reads && self.turn.is_none() => {
                    self.turn = Some(turn.expect("the semaphore is never closed"));
                }
                // After the messages: what is late because nobody read it has not stalled.
                message = self.messages.message(), if listens => match message {
                    Ok(Some(message)) => self.read(message).await,
                    Ok(None) => {
                        self.refuse_uploads(|upload| {
                            let (came, size) = (upload.data.len(), upload.size);
                            Failure::invalid(format!("stream ends after {came} of {size} bytes of the profile"))
                        });
                        self.end = Some(Ok(()));
                    }
                    Err(status) => {
                        self.uploads.clear();
                        self.end = Some(Err(blame(status)));
                    }
                },
                () = sleep_until(stall.unwrap_or_else(Instant::now)), if listens && stall.is_some() => {
                    self.refuse_stalled();
                }
            }
        }
    }

    /// Takes the next message.
    async fn read(&mut self, message: PushRequest) {
        let PushRequest { seq, part, traceparent } = message;
        let trace = Place::parse(&traceparent);
        let permit = match self.permits.next() {
            Ok(permit) => permit,
            Err(failure) => return self.refuse(seq, failure),
        };
        match part {
            Some(Part::Profile(_)) if self.uploads.contains_key(&seq) => self.refuse(seq, begun_already(seq)),
            Some(Part::Profile(profile)) => {
                self.push(seq, Request { trace, ..self.call.request(profile, permit) });
            }
            Some(Part::Header(header)) => match self.begin(seq, header, trace).await {
                Ok(upload) => self.go_on(seq, upload),
                Err(failure) => self.refuse(seq, failure),
            },
            Some(Part::Chunk(chunk)) => match self.uploads.remove(&seq) {
                Some(mut upload) => match upload.fill(chunk) {
                    Ok(()) => self.go_on(seq, upload),
                    Err(failure) => self.refuse(seq, failure),
                },
                None if self.refused.contains(&seq) => {}
                None => self.refuse(seq, Failure::invalid("chunk without a header")),
            },
            None => self.refuse(seq, Failure::invalid("message has neither a profile nor a header nor a chunk")),
        }
    }

    /// Begins a profile in chunks; all of it is paid for before its first byte is kept.
    async fn begin(&mut self, seq: u64, header: ProfileHeader, trace: Option<Place>) -> Result<Upload, Failure> {
        let ProfileHeader { profile, size, sha256 } = header;
        if self.uploads.contains_key(&seq) {
            return Err(begun_already(seq));
        }
        if self.uploads.len() >= UPLOADS_MAX {
            return Err(Failure::invalid(format!("{UPLOADS_MAX} profiles of the stream are begun and not complete")));
        }
        let profile = profile.ok_or_else(|| Failure::invalid("profile is missing in the header"))?;
        if !profile.pprof.is_empty() {
            return Err(Failure::invalid("pprof is in the header: it goes in chunks"));
        }
        if !sha256.is_empty() && sha256.len() != SHA256_BYTES {
            return Err(Failure::invalid(format!("sha256 has {} bytes instead of {SHA256_BYTES}", sha256.len())));
        }
        if size > self.ingest.limits().body_bytes_max {
            return Err(body_too_large(size, self.ingest.limits()));
        }
        let permit = self.ingest.budget().acquire(size).await?;
        Ok(Upload {
            profile,
            size,
            sha256: (!sha256.is_empty()).then(|| (sha256, Sha256::new())),
            data: BytesMut::with_capacity(size as usize),
            permit,
            heard: Instant::now(),
            trace,
        })
    }

    /// Pushes a profile that is complete, keeps another.
    fn go_on(&mut self, seq: u64, upload: Upload) {
        if (upload.data.len() as u64) < upload.size {
            // The seq may have been a refused profile's before.
            self.refused.retain(|refused| *refused != seq);
            self.uploads.insert(seq, upload);
            return;
        }
        let trace = upload.trace.clone();
        match upload.complete() {
            Ok((profile, permit)) => self.push(seq, Request { trace, ..self.call.request(profile, permit) }),
            Err(failure) => self.refuse(seq, failure),
        }
    }

    fn push(&mut self, seq: u64, request: Request) {
        let request = Request { turn: self.turn.take(), ..request };
        let ingest = self.ingest.clone();
        self.answers.push(async move { answer(seq, ingest.push(request).await) }.boxed());
    }

    /// Answers a profile with a refusal and forgets what there is of it.
    fn refuse(&mut self, seq: u64, failure: Failure) {
        self.ingest.count_refused(self.call.protocol, failure.kind());
        self.uploads.remove(&seq);
        if self.refused.len() == REFUSED_REMEMBERED {
            self.refused.pop_front();
        }
        self.refused.push_back(seq);
        self.answers.push(ready(answer(seq, Err(Refused { id: None, failure }))).boxed());
    }

    fn refuse_uploads(&mut self, failure: impl Fn(&Upload) -> Failure) {
        for (seq, upload) in std::mem::take(&mut self.uploads) {
            self.refuse(seq, failure(&upload));
        }
    }

    fn refuse_stalled(&mut self) {
        let stall_timeout = self.ingest.stall_timeout();
        let late = Instant::now() - stall_timeout;
        let stalled_uploads = self.uploads.iter().filter(|(_, upload)| upload.heard <= late);
        for seq in stalled_uploads.map(|(seq, _)| *seq).collect::<Vec<_>>() {
            self.refuse(seq, stalled(stall_timeout));
        }
    }
}

/// Waits until nothing more is to be read, and returns why: the ingester drains, or the connection is about to close.
async fn closes(ingest: &Ingest, closing: Option<&Closing>) -> Failure {
    let connection = async {
        match closing {
            Some(closing) => closing.wait().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = ingest.draining().cancelled() => Failure::shutting_down(),
        () = connection => match closing {
            Some(closing) if closing.is_draining() => Failure::shutting_down(),
            _ => Failure::new(Kind::ShuttingDown, "connection is about to close: go on with a new one"),
        },
    }
}

fn begun_already(seq: u64) -> Failure {
    Failure::invalid(format!("profile with seq {seq} is begun already"))
}

// === impl Upload ===

impl Upload {
    fn fill(&mut self, chunk: ProfileChunk) -> Result<(), Failure> {
        let came = self.data.len() as u64 + chunk.data.len() as u64;
        if came > self.size {
            let size = self.size;
            return Err(Failure::invalid(format!("chunks have {came} bytes where the header announced {size}")));
        }
        if let Some((_, hasher)) = &mut self.sha256 {
            hasher.update(&chunk.data);
        }
        self.data.extend_from_slice(&chunk.data);
        self.heard = Instant::now();
        Ok(())
    }

    fn complete(self) -> Result<(Profile, Permit), Failure> {
        if let Some((expected, hasher)) = self.sha256 {
            let found = hasher.finalize();
            if found[..] != expected[..] {
                let (found, expected) = (hex::encode(found), hex::encode(expected));
                return Err(Failure::invalid(format!("sha256 of the chunks is {found}, the header has {expected}")));
            }
        }
        Ok((Profile { pprof: self.data.freeze(), ..self.profile }, self.permit))
    }
}
