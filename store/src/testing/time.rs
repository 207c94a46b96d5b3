//! A wall clock that follows tokio's time, which a test can pause.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::clock::Clock;

/// When the world of a test begins, in milliseconds since 1970: a time of 13 digits that nobody mistakes for today.
const BEGINNING_MILLIS: u64 = 1_700_000_000_000;

/// A wall clock that begins at a fixed time, advances with tokio's and leaps when told.
#[derive(Debug)]
pub struct PausedClock {
    began: Instant,
    /// How far it is ahead of where it should be, in milliseconds.
    ahead: Mutex<i64>,
}

impl PausedClock {
    /// Makes a clock that begins now; call it within a runtime whose time is paused.
    pub fn new() -> Self {
        Self { began: Instant::now(), ahead: Mutex::new(0) }
    }

    /// Sets how far it goes ahead (or, below zero, behind), in milliseconds.
    pub fn leap(&self, ahead_millis: i64) {
        *self.ahead.lock().expect("no test panics while it holds the lock") = ahead_millis;
    }
}

impl Default for PausedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for PausedClock {
    fn now(&self) -> SystemTime {
        let ahead = *self.ahead.lock().expect("no test panics while it holds the lock");
        let beginning = Duration::from_millis(BEGINNING_MILLIS.saturating_add_signed(ahead));
        UNIX_EPOCH + beginning + self.began.elapsed()
    }
}
