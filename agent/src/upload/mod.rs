//! Pushes profiles to an ingester over one gRPC stream, through every failure that another try can mend.
//!
//! [`Client`] is the handle: [`Client::push`] waits for the outcome of one profile, [`Client::try_push`] never waits. Both put the
//! profile in a queue bounded in bytes; a background task keeps the stream, sends, and settles each profile by its own answer.
//!
//! - A profile has its id before it is first sent and keeps it over all tries, so a retry counts once.
//! - A stream that ends for whatever reason gives all unanswered profiles back to the queue; the next one sends them again.
//! - Waits between tries have full jitter and are never shorter than the server's `RetryInfo`.
//! - A profile larger than 1 MiB goes in chunks, so no message limit of a proxy or server is met.

mod backoff;
mod outcome;
mod queue;
mod session;
#[cfg(test)]
mod tests;
mod trace;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use afterglow_proto::v1::Profile;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

pub use self::backoff::Backoff;
pub use self::outcome::{Ack, PushError};
use self::queue::{Entry, Queue};
use crate::connect::{self, Target};

/// How a [`Client`] behaves. The defaults suit an agent that runs for months; a command sets a shorter deadline and backoff.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most bytes of profiles kept until their outcome is known.
    pub queue_bytes_max: usize,
    /// The most profiles under way on the stream.
    pub in_flight_max: usize,
    /// How long one profile is tried.
    pub deadline: Duration,
    /// The waits between tries.
    pub backoff: Backoff,
    /// How long the server may leave everything that is under way unanswered before the stream counts as dead.
    pub answer_timeout: Duration,
    /// How long a stream lives, give or take a quarter: a new connection lets a load balancer choose again.
    pub stream_age_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_bytes_max: 64 << 20,
            in_flight_max: 64,
            // As long as an outage that a queue of this size may bridge; older profiles make room anyway.
            deadline: Duration::from_secs(3600),
            backoff: Backoff::default(),
            answer_timeout: Duration::from_secs(30),
            stream_age_max: Duration::from_secs(15 * 60),
        }
    }
}

/// What a client has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Profiles taken into the queue.
    pub accepted: u64,
    /// Profiles acknowledged.
    pub acked: u64,
    /// Of these, how many the server had acknowledged before.
    pub duplicates: u64,
    /// Profiles refused for good.
    pub refused: u64,
    /// Profiles given up at their deadline.
    pub expired: u64,
    /// Profiles dropped, or not taken, for want of room.
    pub dropped: u64,
    /// Answers that asked for another try.
    pub retries: u64,
    /// Streams opened.
    pub streams: u64,
    /// Profiles whose outcome is not known.
    pub queued: usize,
    /// The bytes they take.
    pub queued_bytes: usize,
}

/// A handle to the task that pushes; clones share it. When the last one is dropped the task ends and what it holds is lost:
/// [`Client::close`] first.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    task: Arc<Task>,
}

/// What handles and task share.
#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// There may be something to send, or the queue was closed.
    work: Notify,
    /// An outcome became known: there is room.
    settled: Notify,
    counters: Counters,
    options: Options,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    acked: AtomicU64,
    duplicates: AtomicU64,
    refused: AtomicU64,
    expired: AtomicU64,
    dropped: AtomicU64,
    retries: AtomicU64,
    streams: AtomicU64,
}

/// The task behind the handles; it is aborted with the last of them.
#[derive(Debug)]
struct Task {
    handle: AbortHandle,
    /// Cancelled when it has ended.
    ended: CancellationToken,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

// === impl Client ===

impl Client {
    /// Starts the task that pushes to `target`. It connects when there is something to push. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`connect::Error`] when the target is not valid.
    pub fn new(target: Target, options: Options) -> Result<Self, connect::Error> {
        target.check()?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(options.queue_bytes_max)),
            work: Notify::new(),
            settled: Notify::new(),
            counters: Counters::default(),
            options,
        });
        let ended = CancellationToken::new();
        let (run, guard) = (session::run(Arc::clone(&shared), target), ended.clone().drop_guard());
        let task = tokio::spawn(async move {
            let _ended = guard;
            run.await;
        });
        Ok(Self { shared, task: Arc::new(Task { handle: task.abort_handle(), ended }) })
    }

    /// Pushes one profile and waits for its outcome; first for room in the queue. Mints the id where it is empty.
    ///
    /// A caller that stops waiting does not call the profile back.
    ///
    /// # Errors
    /// [`PushError`]; after `Deadline` the outcome is unknown.
    pub async fn push(&self, profile: Profile) -> Result<Ack, PushError> {
        let (reply, outcome) = oneshot::channel();
        let mut entry = self.entry(profile, Some(reply));
        loop {
            // Created before the look at the queue, so that room made in between is not missed.
            let settled = self.shared.settled.notified();
            match self.shared.queue().offer(entry, false) {
                Ok(_) => break,
                Err(refused) => match refused.error {
                    PushError::Full { .. } => entry = *refused.entry,
                    error => return Err(error),
                },
            }
            if tokio::time::timeout_at(entry.deadline, settled).await.is_err() {
                add(&self.shared.counters.expired, 1);
                let last = PushError::Full { queue_bytes_max: self.shared.options.queue_bytes_max }.to_string();
                return Err(PushError::Deadline { after: self.shared.options.deadline, last });
            }
        }
        add(&self.shared.counters.accepted, 1);
        self.shared.work.notify_one();
        outcome.await.unwrap_or(Err(PushError::Closed))
    }

    /// Hands over one profile without ever waiting, and returns its id, minted where it was empty. Without room it drops the oldest
    /// profiles handed over in this way. The outcome shows in [`Client::stats`] and the log alone.
    ///
    /// # Errors
    /// [`PushError::TooLarge`], [`PushError::Full`] when nothing may be dropped, [`PushError::Closed`].
    pub fn try_push(&self, profile: Profile) -> Result<String, PushError> {
        let entry = self.entry(profile, None);
        let id = entry.profile.id.clone();
        let offered = self.shared.queue().offer(entry, true);
        match offered {
            Ok(evicted) => {
                if !evicted.is_empty() {
                    tracing::warn!(profiles = evicted.len(), "the queue is full: dropped the oldest profiles");
                    add(&self.shared.counters.dropped, evicted.len() as u64);
                }
                add(&self.shared.counters.accepted, 1);
                self.shared.work.notify_one();
                Ok(id)
            }
            Err(refused) => {
                if !matches!(refused.error, PushError::Closed) {
                    add(&self.shared.counters.dropped, 1);
                }
                Err(refused.error)
            }
        }
    }

    /// Takes no more profiles, waits up to `timeout` for the outcome of those it has, and ends the stream. Returns how many are left
    /// without an outcome.
    pub async fn close(&self, timeout: Duration) -> usize {
        self.shared.queue().close();
        self.shared.work.notify_one();
        // The task ends by itself once nothing is left, and with it the stream. Either way the queue says what is left.
        let _ = tokio::time::timeout(timeout, self.task.ended.cancelled()).await;
        self.shared.queue().len()
    }

    /// Returns how many bytes the profiles whose outcome is not known may take.
    pub fn queue_bytes_max(&self) -> usize {
        self.shared.options.queue_bytes_max
    }

    /// Returns what the client has done so far.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (queued, queued_bytes) = {
            let queue = self.shared.queue();
            (queue.len(), queue.bytes())
        };
        Stats {
            accepted: get(&counters.accepted),
            acked: get(&counters.acked),
            duplicates: get(&counters.duplicates),
            refused: get(&counters.refused),
            expired: get(&counters.expired),
            dropped: get(&counters.dropped),
            retries: get(&counters.retries),
            streams: get(&counters.streams),
            queued,
            queued_bytes,
        }
    }

    fn entry(&self, mut profile: Profile, reply: Option<oneshot::Sender<Result<Ack, PushError>>>) -> Entry {
        if profile.id.is_empty() {
            profile.id = Ulid::generate().to_string();
        }
        let now = Instant::now();
        let deadline = now + self.shared.options.deadline;
        let trace = trace::Trace::begin(&profile);
        Entry { profile, offered: now, deadline, not_before: now, attempts: 0, last_error: String::new(), reply, trace }
    }
}

// === impl Shared ===

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no one panics while holding the queue")
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
