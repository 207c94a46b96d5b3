//! The task behind a [`Client`](super::Client): it opens a stream, runs it until it ends, waits, and opens the next.
//!
//! One [`Session`] is one stream. It owns the profiles under way on it; whatever ends the session, each of them is settled or back in
//! the queue. Deadlines are looked at every [`TICK`], in the waits between sessions as well.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{ProfileChunk, ProfileHeader, PushRequest, PushResponse};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::outcome::{Broken, PushError, Verdict, judge, judge_stream, stream_retry_delay};
use super::queue::Entry;
use super::{Shared, add};
use crate::connect::{self, Target};

/// How often deadlines and delays are looked at while there is something to push.
const TICK: Duration = Duration::from_millis(100);

/// The most of a pprof in one message. gRPC servers and proxies commonly take 4 MiB.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Messages handed to the transport ahead of what it sent: enough to keep it busy, few enough to bound their memory.
const OUTBOUND_MESSAGES: usize = 2;

/// The longest wait between tries once the client is being closed.
const CLOSING_WAIT_MAX: Duration = Duration::from_millis(500);

/// How long the server may take to end a stream in which nothing is under way.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a session ended.
enum End {
    /// The queue was closed and everything has its outcome.
    Closed,
    /// The stream was old, or the server ended it when nothing was under way. Nothing failed.
    Retired,
    /// The connection or the call was not established.
    NotOpened(Status),
    /// The stream broke.
    Broken(Status),
}

/// One stream.
struct Session<'a> {
    shared: &'a Shared,
    /// Sends one profile at a time, to find the one that breaks the stream.
    alone: bool,
    seq: u64,
    under_way: BTreeMap<u64, Entry>,
    /// The profile whose chunks are being sent.
    chunks: Option<(u64, Bytes)>,
    /// No new profile is sent before: the server has too much to do.
    hold_until: Instant,
    /// When the server last answered, or took something after a silence.
    last_progress: Instant,
    /// How many answers came.
    answers: u64,
}

/// Keeps a stream to `target` while there is something to push, until the queue is closed and empty.
pub(super) async fn run(shared: Arc<Shared>, target: Target) {
    let mut failures = 0;
    let mut alone = false;
    while wait_for_work(&shared).await {
        let mut session = Session::new(&shared, alone);
        let end = session.run(&target).await;
        if session.answers > 0 {
            failures = 0;
            alone = false;
        }
        let (status, meaning) = match end {
            End::Closed => return,
            End::Retired => continue,
            // Refused before it began: that is about the caller, not about a profile.
            End::NotOpened(status) => {
                shared.queue().held_up(status.message());
                match judge_stream(&status) {
                    Broken::Passing => (status, Broken::Passing),
                    Broken::Denied | Broken::Suspect => (status, Broken::Denied),
                }
            }
            End::Broken(status) => {
                let meaning = judge_stream(&status);
                (status, meaning)
            }
        };
        let (code, under_way) = (status.code(), session.under_way.len());
        // A server that stays away is worth a line when it goes, not for each try.
        if failures == 0 {
            tracing::warn!(server = target.shown(), ?code, under_way, "the push stream broke: {}", status.message());
        } else {
            tracing::debug!(
                server = target.shown(),
                ?code,
                under_way,
                failures,
                "no push stream: {}",
                status.message()
            );
        }
        match meaning {
            Broken::Passing => {}
            Broken::Suspect if session.under_way.len() > 1 => alone = true,
            Broken::Suspect => session.refuse_all(&status),
            Broken::Denied => {
                session.give_back(status.message());
                refuse_waited_for(&shared, &status);
            }
        }
        session.give_back(status.message());
        let wait = shared.options.backoff.wait(failures, stream_retry_delay(&status));
        failures = failures.saturating_add(1);
        while_expiring(&shared, pause(&shared, wait)).await;
    }
}

/// Waits before the next try; not long once the client is being closed, so that the last profiles have their chance.
async fn pause(shared: &Shared, wait: Duration) {
    let began = Instant::now();
    let closed = async {
        loop {
            let work = shared.work.notified();
            if shared.queue().is_closed() {
                return;
            }
            work.await;
        }
    };
    tokio::select! {
        () = sleep(wait) => {}
        () = closed => sleep(wait.min(CLOSING_WAIT_MAX).saturating_sub(began.elapsed())).await,
    }
}

/// Waits until something is queued. Returns false when nothing ever will be.
async fn wait_for_work(shared: &Shared) -> bool {
    loop {
        let work = shared.work.notified();
        {
            let queue = shared.queue();
            if queue.len() > 0 {
                return true;
            }
            if queue.is_closed() {
                return false;
            }
        }
        work.await;
    }
}

/// Runs `future`, giving up on waiting profiles at their deadlines meanwhile.
async fn while_expiring<T>(shared: &Shared, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut tick = ticker();
    loop {
        tokio::select! {
            output = &mut future => return output,
            _ = tick.tick() => expire_waiting(shared),
        }
    }
}

fn expire_waiting(shared: &Shared) {
    let now = Instant::now();
    let expired = shared.queue().remove_waiting(|e| e.deadline <= now);
    give_up(shared, expired);
}

/// Refuses the waiting profiles that somebody waits for. Those of an agent stay: a token may be put right while it runs.
fn refuse_waited_for(shared: &Shared, status: &Status) {
    let refused = shared.queue().remove_waiting(Entry::is_waited_for);
    add(&shared.counters.refused, refused.len() as u64);
    for entry in refused {
        entry.answer(Err(refusal(status)));
    }
    shared.settled.notify_waiters();
}

fn refusal(status: &Status) -> PushError {
    PushError::Refused { code: status.code(), message: status.message().to_owned() }
}

fn give_up(shared: &Shared, expired: Vec<Entry>) {
    if expired.is_empty() {
        return;
    }
    tracing::warn!(profiles = expired.len(), "gave up on profiles at their deadline");
    add(&shared.counters.expired, expired.len() as u64);
    for entry in expired {
        let last = if entry.last_error.is_empty() { "no answer".to_owned() } else { entry.last_error.clone() };
        let after = entry.deadline - entry.offered;
        entry.answer(Err(PushError::Deadline { after, last }));
    }
    shared.settled.notify_waiters();
}

fn ticker() -> tokio::time::Interval {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

// === impl Session ===

impl<'a> Session<'a> {
    fn new(shared: &'a Shared, alone: bool) -> Self {
        let now = Instant::now();
        Self {
            shared,
            alone,
            seq: 0,
            under_way: BTreeMap::new(),
            chunks: None,
            hold_until: now,
            last_progress: now,
            answers: 0,
        }
    }

    /// Connects and runs the stream to its end.
    async fn run(&mut self, target: &Target) -> End {
        let connection = match while_expiring(self.shared, target.dial()).await {
            Ok(connection) => connection,
            // No profile will fare better until somebody sees to the certificates: who waits is told at once.
            Err(error @ connect::Error::NotVerified { .. }) => {
                return End::NotOpened(Status::failed_precondition(error.to_string()));
            }
            Err(error) => return End::NotOpened(Status::unavailable(error.to_string())),
        };
        add(&self.shared.counters.streams, 1);
        let age_max = self.shared.options.stream_age_max.mul_f64(rand::random_range(0.75..1.25));
        let retire_at = Instant::now() + age_max;
        self.last_progress = Instant::now();

        let (outbound, requests) = mpsc::channel(OUTBOUND_MESSAGES);
        let mut client = IngestServiceClient::new(connection);
        // A server may send its headers only with the first answer, so requests must flow while the call is opening.
        let mut call = pin!(client.push(ReceiverStream::new(requests)));
        let mut answers: Option<Streaming<PushResponse>> = None;
        let mut outbound_open = true;
        let mut tick = ticker();
        loop {
            let now = Instant::now();
            let closing = self.shared.queue().is_closed() && self.shared.queue().len() == 0;
            let retiring = now >= retire_at;
            if closing || (retiring && self.under_way.is_empty()) {
                break;
            }
            tokio::select! {
                opened = &mut call, if answers.is_none() => match opened {
                    Ok(response) => answers = Some(response.into_inner()),
                    Err(status) => return End::NotOpened(status),
                },
                answer = next(&mut answers), if answers.is_some() => match answer {
                    Ok(Some(answer)) => self.settle(answer),
                    Ok(None) => return self.ended(Status::unavailable("the server ended the stream")),
                    Err(status) => return self.ended(status),
                },
                permit = outbound.reserve(), if outbound_open && self.may_send(now, retiring) => match permit {
                    Ok(permit) => {
                        if let Some(request) = self.next_request(now) {
                            permit.send(request);
                        }
                    }
                    // The transport has ended the sending side; why comes as an answer.
                    Err(_) => outbound_open = false,
                },
                () = self.shared.work.notified() => {}
                _ = tick.tick(), if self.shared.queue().len() > 0 => {
                    self.expire();
                    let silence = self.last_progress.elapsed();
                    if !self.under_way.is_empty() && silence >= self.shared.options.answer_timeout {
                        let text = format!("no answer for {} s", silence.as_secs());
                        return End::Broken(Status::new(Code::Unavailable, text));
                    }
                }
            }
        }
        // Nothing is under way: end the sending side and let the server end the stream.
        drop(outbound);
        let goodbye = async {
            if answers.is_none() {
                answers = call.await.ok().map(tonic::Response::into_inner);
            }
            while let Ok(Some(_)) = next(&mut answers).await {}
        };
        let _ = timeout(GOODBYE_TIMEOUT, goodbye).await;
        if self.shared.queue().is_closed() { End::Closed } else { End::Retired }
    }

    /// Says what it means that the server ended the stream. Nothing, when it did its work: servers shut down, and spread their load.
    fn ended(&self, status: Status) -> End {
        if self.under_way.is_empty() && self.answers > 0 && status.code() == Code::Unavailable {
            End::Retired
        } else {
            End::Broken(status)
        }
    }

    fn may_send(&self, now: Instant, retiring: bool) -> bool {
        if self.chunks.is_some() {
            return true;
        }
        let limit = if self.alone { 1 } else { self.shared.options.in_flight_max };
        !retiring && now >= self.hold_until && self.under_way.len() < limit && self.shared.queue().has_ready(now)
    }

    /// Returns the next message: the next chunk, or the next profile (or its header).
    fn next_request(&mut self, now: Instant) -> Option<PushRequest> {
        if let Some((seq, rest)) = &mut self.chunks {
            let seq = *seq;
            let data = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
            if rest.is_empty() {
                self.chunks = None;
            }
            // A slow line takes long for a large profile; that is not silence.
            self.last_progress = now;
            let part = Some(Part::Chunk(ProfileChunk { data }));
            return Some(PushRequest { seq, part, ..PushRequest::default() });
        }
        let entry = self.shared.queue().take(now)?;
        if self.under_way.is_empty() {
            self.last_progress = now;
        }
        self.seq += 1;
        let mut profile = entry.profile.clone();
        let part = if profile.pprof.len() <= CHUNK_BYTES_MAX {
            Part::Profile(profile)
        } else {
            let pprof = std::mem::take(&mut profile.pprof);
            let size = pprof.len() as u64;
            self.chunks = Some((self.seq, pprof));
            // No digest: the pprof's own gzip has a checksum, and `size` shows a cut.
            Part::Header(ProfileHeader { profile: Some(profile), size, sha256: Bytes::new() })
        };
        let traceparent = entry.trace.sent(entry.attempts + 1);
        self.under_way.insert(self.seq, entry);
        Some(PushRequest { seq: self.seq, part: Some(part), traceparent })
    }

    /// Carries out what one answer says.
    fn settle(&mut self, answer: PushResponse) {
        self.answers += 1;
        self.last_progress = Instant::now();
        let seq = answer.seq;
        // An answer to a profile given up meanwhile, or a second one.
        let Some(mut entry) = self.under_way.remove(&seq) else { return };
        if self.chunks.as_ref().is_some_and(|(s, _)| *s == seq) {
            self.chunks = None;
        }
        let counters = &self.shared.counters;
        let outcome = match judge(answer) {
            Verdict::Acked(ack) => {
                add(&counters.acked, 1);
                add(&counters.duplicates, ack.duplicate.into());
                if !ack.warnings.is_empty() {
                    tracing::debug!(id = ack.id, warnings = ?ack.warnings, "acknowledged with warnings");
                }
                Ok(ack)
            }
            Verdict::Refused(error) => {
                add(&counters.refused, 1);
                if !entry.is_waited_for() {
                    let service = entry.profile.labels.get("service");
                    tracing::warn!(
                        id = entry.profile.id,
                        service,
                        profile_type = entry.profile.r#type,
                        "profile {error}"
                    );
                }
                Err(error)
            }
            Verdict::Retry { reason, delay, slow_down } => {
                add(&counters.retries, 1);
                let wait = self.shared.options.backoff.wait(entry.attempts, delay);
                entry.not_before = Instant::now() + wait;
                entry.attempts = entry.attempts.saturating_add(1);
                entry.last_error = reason;
                if slow_down {
                    self.hold_until = self.hold_until.max(entry.not_before);
                }
                self.shared.queue().put_back(vec![entry]);
                return;
            }
        };
        self.shared.queue().settle(&entry);
        entry.answer(outcome);
        self.shared.settled.notify_waiters();
    }

    /// Gives up on what is past its deadline, here and in the queue.
    fn expire(&mut self) {
        expire_waiting(self.shared);
        let now = Instant::now();
        let late: Vec<_> = self.under_way.iter().filter(|(_, e)| e.deadline <= now).map(|(seq, _)| *seq).collect();
        // Its chunks must go on: the server counts bytes.
        let expired: Vec<_> = late.iter().filter_map(|seq| self.under_way.remove(seq)).collect();
        for entry in &expired {
            self.shared.queue().settle(entry);
        }
        give_up(self.shared, expired);
    }

    /// Gives all that is under way back to the queue, in the order it was sent.
    fn give_back(&mut self, reason: &str) {
        let mut entries: Vec<_> = std::mem::take(&mut self.under_way).into_values().collect();
        for entry in &mut entries {
            entry.last_error = reason.to_owned();
        }
        self.shared.queue().put_back(entries);
    }

    /// Refuses all that is under way.
    fn refuse_all(&mut self, status: &Status) {
        for entry in std::mem::take(&mut self.under_way).into_values() {
            add(&self.shared.counters.refused, 1);
            self.shared.queue().settle(&entry);
            entry.answer(Err(refusal(status)));
        }
        self.shared.settled.notify_waiters();
    }
}

/// Returns the next answer; waits for ever where the call is not open.
async fn next(answers: &mut Option<Streaming<PushResponse>>) -> Result<Option<PushResponse>, Status> {
    match answers {
        Some(answers) => answers.message().await,
        None => std::future::pending().await,
    }
}
