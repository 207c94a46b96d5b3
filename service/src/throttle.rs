//! Keeps out of the log what others send as fast as they like: so many lines an interval, and how many were left out.
//!
//! Whoever is refused, or turned away, writes into our log by asking. So beyond a bound such lines are only counted, and the next that is
//! written says how many were. Metrics count all of them; a line is for what no label may carry, such as the name of a tenant.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bounds the lines about each subject of a kind, such as each tenant or each code of a refusal.
#[derive(Debug)]
pub struct Throttle<K = ()> {
    bounds: Bounds,
    state: Mutex<State<K>>,
}

/// How many lines there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The time that the others are about.
    pub interval: Duration,
    /// The lines about one subject.
    pub lines: u32,
    /// The subjects that there are lines about; those beyond are left out.
    pub subjects: usize,
}

#[derive(Debug)]
struct State<K> {
    began: Option<Instant>,
    /// The lines of this interval.
    lines: HashMap<K, u32>,
    left_out: u64,
}

// === impl Bounds ===

impl Bounds {
    /// Allows a line an interval, whatever it is about.
    pub const fn one_each(interval: Duration) -> Self {
        Self { interval, lines: 1, subjects: 1 }
    }
}

// === impl Throttle ===

impl Throttle {
    /// Returns how many lines were left out since the last, where one may be written now.
    pub fn line(&self) -> Option<u64> {
        self.line_about(())
    }
}

impl<K: Eq + Hash> Throttle<K> {
    /// Makes one that nothing was written by.
    pub fn new(bounds: Bounds) -> Self {
        let state = State { began: None, lines: HashMap::new(), left_out: 0 };
        Self { bounds, state: Mutex::new(state) }
    }

    /// Returns how many lines, whatever they were about, were left out since the last, where one about `subject` may be written now.
    pub fn line_about(&self, subject: K) -> Option<u64> {
        let (now, Bounds { interval, lines, subjects }) = (Instant::now(), self.bounds);
        // Each change is whole whenever the lock is free.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began.is_none_or(|began| now.duration_since(began) >= interval) {
            state.began = Some(now);
            state.lines.clear();
        }
        let is_new = !state.lines.contains_key(&subject);
        let has_room = if is_new { state.lines.len() < subjects } else { state.lines[&subject] < lines };
        if !has_room {
            state.left_out += 1;
            return None;
        }
        *state.lines.entry(subject).or_default() += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    /// Goal: a flood fills no disk, and none of it is forgotten.
    #[tokio::test(start_paused = true)]
    async fn what_is_left_out_is_counted() {
        let throttle: Throttle = Throttle::new(Bounds { interval: INTERVAL, lines: 20, subjects: 1 });
        assert_eq!((0..1000).filter(|_| throttle.line().is_some()).count(), 20);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(throttle.line(), Some(980));
        assert_eq!(throttle.line(), Some(0));
    }

    /// Goal: a subject that there is much of hides no other, and subjects without end are bounded, too.
    #[tokio::test(start_paused = true)]
    async fn each_subject_has_lines_of_its_own() {
        let throttle = Throttle::new(Bounds { interval: INTERVAL, lines: 2, subjects: 3 });
        let written = |subject| (0..5).filter(|_| throttle.line_about(subject).is_some()).count();
        assert_eq!(["a", "b", "c", "d"].map(written), [2, 2, 2, 0]);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(throttle.line_about("d"), Some(8), "since the first line about c");
    }
}
