//! The bounded queue between those who push and the stream: plain data, no clock, no I/O.
//!
//! A profile takes its place, in bytes, from the moment it is offered until its outcome is known, whether it waits here or is under
//! way on the stream. When there is no room, only profiles nobody waits for are dropped, the oldest first.

use std::collections::VecDeque;

use afterglow_proto::v1::Profile;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::outcome::{Ack, PushError};
use super::trace::Trace;

/// What a profile takes in memory beside its pprof and labels: the entry itself, allocations, its answer.
const ENTRY_OVERHEAD_BYTES: usize = 512;

/// A profile on its way.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The profile; it has its id.
    pub(crate) profile: Profile,
    /// When it was offered.
    pub(crate) offered: Instant,
    /// When to give up.
    pub(crate) deadline: Instant,
    /// Not to be sent before.
    pub(crate) not_before: Instant,
    /// How many tries failed.
    pub(crate) attempts: u32,
    /// Why the last try failed.
    pub(crate) last_error: String,
    /// Where the outcome goes; none where nobody waits.
    pub(crate) reply: Option<oneshot::Sender<Result<Ack, PushError>>>,
    /// The span of its way.
    pub(crate) trace: Trace,
}

/// All profiles whose outcome is not known.
#[derive(Debug)]
pub(crate) struct Queue {
    bytes_max: usize,
    bytes: usize,
    waiting: VecDeque<Entry>,
    under_way: usize,
    closed: bool,
}

/// An entry that was not taken, and why.
#[derive(Debug)]
pub(crate) struct NotTaken {
    pub(crate) entry: Box<Entry>,
    pub(crate) error: PushError,
}

// === impl Entry ===

impl Entry {
    /// Returns what it takes in the queue, in bytes.
    pub(crate) fn cost(&self) -> usize {
        let labels: usize = self.profile.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.profile.pprof.len() + labels + ENTRY_OVERHEAD_BYTES
    }

    /// Returns whether somebody waits for the outcome.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// Tells whoever waits; nobody may.
    pub(crate) fn answer(self, outcome: Result<Ack, PushError>) {
        self.trace.ended(outcome.as_ref().map(drop));
        if let Some(reply) = self.reply {
            // The one who pushed may have gone away: its loss.
            let _ = reply.send(outcome);
        }
    }
}

// === impl Queue ===

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, waiting: VecDeque::new(), under_way: 0, closed: false }
    }

    /// Takes an entry in at the end. With `evict`, drops the oldest waiting entries without a reply to make room and returns them.
    ///
    /// # Errors
    /// The entry, when the queue is closed, or has no room and could not make any.
    pub(crate) fn offer(&mut self, entry: Entry, evict: bool) -> Result<Vec<Entry>, NotTaken> {
        let cost = entry.cost();
        let error = if self.closed {
            Some(PushError::Closed)
        } else if cost > self.bytes_max {
            Some(PushError::TooLarge { bytes: cost, queue_bytes_max: self.bytes_max })
        } else if self.bytes + cost > self.bytes_max + if evict { self.evictable() } else { 0 } {
            Some(PushError::Full { queue_bytes_max: self.bytes_max })
        } else {
            None
        };
        if let Some(error) = error {
            return Err(NotTaken { entry: Box::new(entry), error });
        }
        let mut evicted = Vec::new();
        while self.bytes + cost > self.bytes_max {
            let oldest = self.waiting.iter().position(|e| !e.is_waited_for()).expect("there is enough to evict");
            let entry = self.waiting.remove(oldest).expect("the position is in the queue");
            self.bytes -= entry.cost();
            evicted.push(entry);
        }
        self.bytes += cost;
        self.waiting.push_back(entry);
        Ok(evicted)
    }

    fn evictable(&self) -> usize {
        self.waiting.iter().filter(|e| !e.is_waited_for()).map(Entry::cost).sum()
    }

    /// Takes out the first entry that may be sent at `now`; it is then under way.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Entry> {
        let first = self.waiting.iter().position(|e| e.not_before <= now)?;
        self.under_way += 1;
        self.waiting.remove(first)
    }

    /// Returns whether `take` would give an entry.
    pub(crate) fn has_ready(&self, now: Instant) -> bool {
        self.waiting.iter().any(|e| e.not_before <= now)
    }

    /// Puts entries that were under way back to the front, in their order.
    pub(crate) fn put_back(&mut self, entries: Vec<Entry>) {
        self.under_way -= entries.len();
        for entry in entries.into_iter().rev() {
            self.waiting.push_front(entry);
        }
    }

    /// Forgets an entry that was under way.
    pub(crate) fn settle(&mut self, entry: &Entry) {
        self.under_way -= 1;
        self.bytes -= entry.cost();
    }

    /// Takes out all waiting entries that `remove` says.
    pub(crate) fn remove_waiting(&mut self, remove: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        if !self.waiting.iter().any(&remove) {
            return Vec::new();
        }
        let (removed, kept): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(remove);
        self.waiting = kept.into();
        self.bytes -= removed.iter().map(Entry::cost).sum::<usize>();
        removed
    }

    /// Takes note of why none of the waiting entries could be sent.
    pub(crate) fn held_up(&mut self, reason: &str) {
        self.waiting.iter_mut().for_each(|entry| reason.clone_into(&mut entry.last_error));
    }

    /// Takes no more in.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns how many profiles wait for their outcome here or on the stream.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.under_way
    }

    /// Returns how many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, bytes: usize, waited_for: bool) -> Entry {
        let now = Instant::now();
        Entry {
            profile: Profile { id: id.into(), pprof: vec![0; bytes].into(), ..Default::default() },
            offered: now,
            deadline: now,
            not_before: now,
            attempts: 0,
            last_error: String::new(),
            reply: waited_for.then(reply),
            trace: Trace::default(),
        }
    }

    /// A reply whose receiver lives as long as the test.
    fn reply() -> oneshot::Sender<Result<Ack, PushError>> {
        let (reply, outcome) = oneshot::channel();
        std::mem::forget(outcome);
        reply
    }

    fn ids(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|e| e.profile.id.as_str()).collect()
    }

    #[tokio::test]
    async fn the_oldest_that_nobody_waits_for_is_dropped_first() {
        let mut queue = Queue::new(3 * (1000 + ENTRY_OVERHEAD_BYTES));
        for (id, waited_for) in [("a", true), ("b", false), ("c", false)] {
            assert!(queue.offer(entry(id, 1000, waited_for), true).unwrap().is_empty());
        }
        assert_eq!(ids(&queue.offer(entry("d", 1000, false), true).unwrap()), ["b"]);
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.bytes(), 3 * (1000 + ENTRY_OVERHEAD_BYTES));
    }

    #[tokio::test]
    async fn nothing_is_dropped_when_dropping_would_not_make_room() {
        let mut queue = Queue::new(2 * (1000 + ENTRY_OVERHEAD_BYTES));
        queue.offer(entry("a", 1000, true), true).unwrap();
        queue.offer(entry("b", 10, false), true).unwrap();
        let refused = queue.offer(entry("c", 2000, false), true).unwrap_err();
        assert!(matches!(refused.error, PushError::Full { .. }));
        assert_eq!(queue.len(), 2);
        let refused = queue.offer(entry("d", 9000, false), true).unwrap_err();
        assert!(matches!(refused.error, PushError::TooLarge { bytes: 9512, .. }));
    }

    #[tokio::test]
    async fn what_is_under_way_keeps_its_place_until_it_is_settled() {
        let mut queue = Queue::new(1 << 20);
        let now = Instant::now() + std::time::Duration::from_secs(1);
        for id in ["a", "b", "c"] {
            queue.offer(entry(id, 1000, false), false).unwrap();
        }
        let (a, b) = (queue.take(now).unwrap(), queue.take(now).unwrap());
        assert_eq!(queue.bytes(), 3 * (1000 + ENTRY_OVERHEAD_BYTES));
        queue.put_back(vec![a, b]);
        let order: Vec<_> = std::iter::from_fn(|| queue.take(now)).collect();
        assert_eq!(ids(&order), ["a", "b", "c"]);
        for e in &order {
            queue.settle(e);
        }
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }

    #[tokio::test]
    async fn an_entry_that_must_wait_lets_others_pass() {
        let mut queue = Queue::new(1 << 20);
        let now = Instant::now() + std::time::Duration::from_secs(1);
        let mut late = entry("late", 1, false);
        late.not_before = now + std::time::Duration::from_secs(5);
        queue.offer(late, false).unwrap();
        queue.offer(entry("now", 1, false), false).unwrap();
        assert_eq!(queue.take(now).unwrap().profile.id, "now");
        assert!(!queue.has_ready(now));
        assert!(queue.has_ready(now + std::time::Duration::from_secs(5)));
    }
}
