//! What it takes to make a slow request a second time: knowing what is slow, and a budget.
//!
//! [`Latencies`] are of the last requests of a kind, so what is slow follows the store within some hundred requests. [`Budget`] lets so many requests
//! in a hundred be extra ones, whatever the store does: a store that is slow as a whole must not be asked twice for everything. Who may be
//! asked twice, and what for, is decided by `put` for writes and by `patient` for reads.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long the last requests of a kind took.
#[derive(Debug)]
pub(crate) struct Latencies {
    last: Mutex<Last>,
    kept: usize,
}

#[derive(Debug, Default)]
struct Last {
    latencies: Vec<Duration>,
    next: usize,
}

/// Extra requests that may be made: each request earns a part of one.
#[derive(Debug)]
pub(crate) struct Budget {
    saved: Mutex<f64>,
    ratio: f64,
    saved_max: f64,
}

// === impl Latencies ===

impl Latencies {
    /// Keeps the last `kept`.
    pub(crate) fn new(kept: usize) -> Self {
        Self { last: Mutex::default(), kept }
    }

    /// Notes how long a request took, in the place of the oldest.
    pub(crate) fn record(&self, latency: Duration) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let next = last.next;
        match last.latencies.get_mut(next) {
            Some(oldest) => *oldest = latency,
            None => last.latencies.push(latency),
        }
        last.next = (next + 1) % self.kept;
    }

    /// Returns what the given part of the last requests took at most; nothing where there are fewer than `needed`, which say little.
    pub(crate) fn quantile(&self, quantile: f64, needed: usize) -> Option<Duration> {
        let mut sorted = self.last.lock().unwrap_or_else(PoisonError::into_inner).latencies.clone();
        if sorted.len() < needed.max(1) {
            return None;
        }
        let rank = ((sorted.len() - 1) as f64 * quantile).round() as usize;
        let (_, slow, _) = sorted.select_nth_unstable(rank);
        Some(*slow)
    }
}

// === impl Budget ===

impl Budget {
    /// Begins with `saved` extra requests; each request earns `ratio` of another one, and up to `saved_max` are saved.
    pub(crate) fn new(saved: f64, ratio: f64, saved_max: f64) -> Self {
        Self { saved: Mutex::new(saved), ratio, saved_max }
    }

    /// Notes a request.
    pub(crate) fn earn(&self) {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        *saved = (*saved + self.ratio).min(self.saved_max);
    }

    /// Takes an extra request, if there is one.
    pub(crate) fn spend(&self) -> bool {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let is_enough = *saved >= 1.0;
        if is_enough {
            *saved -= 1.0;
        }
        is_enough
    }
}
