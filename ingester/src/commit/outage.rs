//! Whether the store is taken for down: then profiles are refused at once instead of after the time of a flush.
//!
//! After [`FAILURES_MIN`] flushes in a row that failed, one profile every [`TRY_INTERVAL`] is let through to try, and
//! the others are sent back in a moment with a delay, before anything is inflated for them. The first flush that
//! succeeds ends it, or the first probe: with nobody sending, the ingester finds out by itself. So while a store is away the ingester costs its senders nothing but patience, and holds no memory
//! for profiles it cannot place.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use afterglow_store::clock::Skew;
use tokio::sync::watch;
use tokio::time::Instant;

/// How many flushes in a row must have failed: one is a hiccup that the senders' retries get over.
const FAILURES_MIN: u32 = 3;

/// How long after the last try another profile is let through.
const TRY_INTERVAL: Duration = Duration::from_secs(1);

/// What the last flushes say of the store.
#[derive(Debug, Default)]
pub(super) struct Outage {
    state: Mutex<State>,
    /// Whether the store is taken for down, for who waits for a change.
    down: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// Flushes in a row that failed, and when the first of them did.
    failures: u32,
    since: Option<Instant>,
    last_try: Option<Instant>,
    /// How wrong our clock is, where that is why.
    skew: Option<Skew>,
}

impl Outage {
    /// Returns since when the store is taken for down, and whether our own clock is why, unless it is not or this profile may try.
    pub(super) fn refuses(&self) -> Option<(Instant, Option<Skew>)> {
        let now = Instant::now();
        let mut state = self.lock();
        let since = state.since.filter(|_| state.failures >= FAILURES_MIN)?;
        if state.last_try.is_none_or(|last| now >= last + TRY_INTERVAL) {
            state.last_try = Some(now);
            return None;
        }
        Some((since, state.skew))
    }

    /// Learns from a flush that our clock is wrong: which is no hiccup.
    pub(super) fn learn_skew(&self, skew: Skew) {
        self.lock().skew = Some(skew);
        (0..FAILURES_MIN).for_each(|_| self.learn(false));
    }

    /// Learns from a flush.
    pub(super) fn learn(&self, succeeded: bool) {
        let mut state = self.lock();
        if succeeded {
            if let Some(since) = state.since.filter(|_| state.failures >= FAILURES_MIN) {
                tracing::info!(lasted = ?since.elapsed(), "the store works again");
            }
            *state = State::default();
            self.down.send_replace(false);
            return;
        }
        let now = Instant::now();
        state.since.get_or_insert(now);
        state.failures = state.failures.saturating_add(1);
        if state.failures == FAILURES_MIN {
            state.last_try = Some(now);
            self.down.send_replace(true);
            match state.skew {
                Some(skew) => tracing::error!(%skew, "profiles are refused until the clock is set"),
                None => {
                    tracing::error!(
                        flushes = FAILURES_MIN,
                        "the store is taken for down, profiles are refused at once"
                    );
                }
            }
        }
    }

    /// Follows whether the store is taken for down.
    pub(super) fn follow(&self) -> watch::Receiver<bool> {
        self.down.subscribe()
    }

    /// Returns how wrong our clock is, where that is why the store is taken for down.
    pub(super) fn skew(&self) -> Option<Skew> {
        self.lock().skew
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Goal: a store that fails now and then is not down; one that fails again and again is, but for a try a second.
    #[tokio::test(start_paused = true)]
    async fn down_is_a_row_of_failures() {
        let outage = Outage::default();
        for _ in 0..10 {
            outage.learn(false);
            outage.learn(false);
            assert_eq!(outage.refuses(), None);
            outage.learn(true);
        }
        let since = Instant::now();
        let down = outage.follow();
        assert!(!*down.borrow());
        for _ in 0..FAILURES_MIN {
            outage.learn(false);
        }
        assert!(*down.borrow());
        for _ in 0..10 {
            assert_eq!(outage.refuses(), Some((since, None)));
            advance(TRY_INTERVAL).await;
            assert_eq!(outage.refuses(), None, "one may try");
            assert_eq!(outage.refuses(), Some((since, None)), "the next may not");
            outage.learn(false);
        }
        outage.learn(true);
        assert_eq!(outage.refuses(), None);
        assert!(!*down.borrow());
    }

    /// Goal: a wrong clock is said to be one from the first flush on that shows it, and until one shows that it is right.
    #[tokio::test(start_paused = true)]
    async fn a_wrong_clock_is_named() {
        let outage = Outage::default();
        let skew = Skew { ahead_millis: -7_200_000 };
        outage.learn_skew(skew);
        assert_eq!(outage.refuses(), Some((Instant::now(), Some(skew))));
        outage.learn(true);
        for _ in 0..FAILURES_MIN {
            outage.learn(false);
        }
        assert_eq!(outage.refuses(), Some((Instant::now(), None)));
    }
}
