//! Room for whoever comes: where all places for connections are taken, the connection that has been silent for the longest is asked to end.
//!
//! A client may hold connections and say nothing on them, as many as there are; without this nobody else would be let in for as long as
//! a connection lasts, probes of health included. Being asked to end harms nobody: what is under way is answered, and whoever has more to
//! say connects again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a connection is left alone after something came or went on it.
const SILENT_MIN: Duration = Duration::from_secs(1);

/// The connections that there are.
#[derive(Debug)]
pub(super) struct Seats {
    began: Instant,
    lines: Mutex<(u64, HashMap<u64, Line>)>,
}

/// What is known of a connection; clones are of the same.
#[derive(Clone, Debug)]
pub(super) struct Line {
    began: Instant,
    /// When something came or went last, in milliseconds since then.
    heard_millis: Arc<AtomicU64>,
    leaving: CancellationToken,
}

/// A connection that has to be let in; dropping it says that it has ended.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    pub(super) line: Line,
}

// === impl Seats ===

impl Seats {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), lines: Mutex::default() })
    }

    /// Notes a connection.
    pub(super) fn take(self: &Arc<Self>) -> Seat {
        let line = Line::new(self.began);
        let (next, lines) = &mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *next;
        *next += 1;
        lines.insert(number, line.clone());
        Seat { seats: Arc::clone(self), number, line }
    }

    /// Asks the connection to end that has been silent for the longest; none where none has been for a while. Returns whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let latest = self.began.elapsed().saturating_sub(SILENT_MIN).as_millis() as u64;
        let (_, lines) = &mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = |line: &Line| line.heard_millis.load(Ordering::Relaxed);
        let silent =
            lines.iter().map(|(number, line)| (heard(line), *number)).min().filter(|(heard, _)| *heard < latest);
        // It is not asked twice.
        let line = silent.and_then(|(_, number)| lines.remove(&number));
        line.as_ref().inspect(|line| line.leaving.cancel()).is_some()
    }
}

// === impl Line ===

impl Line {
    pub(super) fn new(began: Instant) -> Self {
        let line = Self { began, heard_millis: Arc::default(), leaving: CancellationToken::new() };
        line.heard();
        line
    }

    /// Notes that something came or went.
    pub(super) fn heard(&self) {
        self.heard_millis.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns once it is to make room.
    pub(super) async fn is_to_leave(&self) {
        self.leaving.cancelled().await;
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lines.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_most_silent_makes_room_once() {
        let seats = Seats::new();
        let [first, second, third] = [(); 3].map(|()| seats.take());
        assert!(!seats.make_room(), "all have just come");
        tokio::time::advance(2 * SILENT_MIN).await;
        first.line.heard();
        drop(second);
        assert!(seats.make_room());
        assert!(third.line.leaving.is_cancelled() && !first.line.leaving.is_cancelled());
        assert!(!seats.make_room(), "the other has just said something, and none is asked twice");
        tokio::time::advance(2 * SILENT_MIN).await;
        assert!(seats.make_room() && first.line.leaving.is_cancelled() && !seats.make_room());
    }
}
