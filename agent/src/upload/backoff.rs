//! How long to wait before the next try: full jitter, so that a fleet that lost its server together does not return together.

use std::time::Duration;

/// Waits between tries: a random time up to `base * 2^attempt`, at most `max`.
///
/// The whole range is random ("full jitter"): of the usual schemes it loads a recovering server least
/// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The upper end of the first wait.
    pub base: Duration,
    /// The upper end of any wait.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_secs(1), max: Duration::from_secs(300) }
    }
}

impl Backoff {
    /// Returns the wait after `attempt` failures (0 for the first). A server that named a delay gets at least that.
    pub(crate) fn wait(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let ceiling = self.base.saturating_mul(2u32.saturating_pow(attempt)).min(self.max);
        let jitter = ceiling.mul_f64(rand::random_range(0.0..=1.0));
        match asked {
            Some(asked) => asked.max(jitter),
            None => jitter,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_stays_under_its_ceiling_and_over_what_the_server_asked() {
        let backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(2) };
        for attempt in [0, 1, 4, 31, 32, u32::MAX] {
            let ceiling = Duration::from_millis(100).saturating_mul(2u32.saturating_pow(attempt)).min(backoff.max);
            for _ in 0..100 {
                assert!(backoff.wait(attempt, None) <= ceiling);
                let asked = Duration::from_secs(3);
                assert_eq!(backoff.wait(attempt, Some(asked)), asked);
            }
        }
    }

    #[test]
    fn waits_spread_over_the_whole_range() {
        let backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(1) };
        let waits: Vec<_> = (0..1000).map(|_| backoff.wait(0, None)).collect();
        assert!(waits.iter().any(|w| *w < Duration::from_millis(100)));
        assert!(waits.iter().any(|w| *w > Duration::from_millis(900)));
    }
}
