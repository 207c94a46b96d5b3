//! Steps: a window of time cut into pieces of one length, each a multiple of it since 1970, so that answers of different windows and
//! queriers line up.

use afterglow_proto::Duration;

use crate::window::{NANOS, Window};

/// The most steps in a window: what a screen can show, several times over, and what Prometheus takes as well.
const STEPS_MAX: u64 = 11_000;

/// The most steps where the question does not say how long one is: a step for every few pixels of a chart.
const STEPS_DEFAULT: u64 = 120;

/// A window that is longer is meant to have no bound, so only its part that has profiles is cut.
const UNBOUNDED_NANOS: i64 = 366 * 86_400 * NANOS;

/// Lengths that people count in, in seconds. Beyond the last one they double.
const ROUND_SECONDS: [i64; 20] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
];

/// Why a step is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It is no length of time.
    #[error("step of {seconds} s and {nanos} ns is not between 1 ns and 292 years")]
    Length {
        /// Its seconds.
        seconds: i64,
        /// Its nanoseconds.
        nanos: i32,
    },
    /// There would be too many.
    #[error(
        "steps of {} make {steps} points of the window {window}, more than the {STEPS_MAX} that a series may have; take a longer step or a \
         narrower window",
        humantime::format_duration(std::time::Duration::from_nanos(*nanos as u64))
    )]
    TooMany {
        /// How long one is, in nanoseconds.
        nanos: i64,
        /// How many there would be.
        steps: u64,
        /// What they would cut.
        window: Window,
    },
}

/// The length of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    nanos: i64,
}

// === impl Step ===

impl Step {
    /// Chooses the step of a question about `window`: the one that it asks for, if any. `times` are the first and the last time of the
    /// profiles, in nanoseconds since 1970.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) fn choose(asked: Option<&Duration>, window: Window, times: Option<(i64, i64)>) -> Result<Self, Error> {
        let asked = asked.filter(|asked| **asked != Duration::default()).map(length).transpose()?;
        let is_unbounded = window.end_nanos.saturating_sub(window.start_nanos) > UNBOUNDED_NANOS;
        let window = match times {
            Some((first, last)) if is_unbounded => Window { start_nanos: first, end_nanos: last.saturating_add(1) },
            _ => window,
        };
        match asked {
            None => Ok(Self::round(window)),
            Some(nanos) => {
                let step = Self { nanos };
                // All of time in which nothing lies is not cut.
                let steps = if is_unbounded && times.is_none() { 0 } else { step.count(window) };
                if steps > STEPS_MAX { Err(Error::TooMany { nanos, steps, window }) } else { Ok(step) }
            }
        }
    }

    /// Returns the shortest round step that cuts `window` into few enough.
    fn round(window: Window) -> Self {
        let longest = ROUND_SECONDS[ROUND_SECONDS.len() - 1];
        let beyond = std::iter::successors(Some(longest), |seconds| seconds.checked_mul(2));
        let steps =
            ROUND_SECONDS.into_iter().chain(beyond).map(|seconds| Self { nanos: seconds.saturating_mul(NANOS) });
        let mut few = steps.filter(|step| step.count(window) <= STEPS_DEFAULT);
        few.next().expect("two steps of 292 years cut any window")
    }

    /// Returns how many steps have a part of the window.
    fn count(self, window: Window) -> u64 {
        let (first, last) = (self.index(window.start_nanos), self.index(window.end_nanos.saturating_sub(1)));
        last.abs_diff(first).saturating_add(1)
    }

    /// Returns the number of the step that an instant lies in: 0 begins in 1970.
    pub(super) fn index(self, nanos: i64) -> i64 {
        nanos.div_euclid(self.nanos)
    }

    /// Returns when a step begins, in nanoseconds since 1970; the first that can be said where it begins before that.
    pub(super) fn start_nanos(self, index: i64) -> i64 {
        index.saturating_mul(self.nanos)
    }

    /// Returns its length in nanoseconds.
    pub(super) fn nanos(self) -> i64 {
        self.nanos
    }
}

/// Reads the length of a step, in nanoseconds.
fn length(asked: &Duration) -> Result<i64, Error> {
    let Duration { seconds, nanos } = *asked;
    let length = i128::from(seconds) * i128::from(NANOS) + i128::from(nanos);
    let is_whole = (0..NANOS).contains(&i64::from(nanos));
    i64::try_from(length).ok().filter(|length| is_whole && *length > 0).ok_or(Error::Length { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(start: i64, end: i64) -> Window {
        Window { start_nanos: start * NANOS, end_nanos: end * NANOS }
    }

    fn step(seconds: i64, nanos: i32) -> Option<Duration> {
        Some(Duration { seconds, nanos })
    }

    #[test]
    fn a_step_is_round_where_none_is_asked_for() {
        let chosen = |window| Step::choose(None, window, None).unwrap().nanos() / NANOS;
        assert_eq!(chosen(seconds(0, 60)), 1);
        assert_eq!(chosen(seconds(0, 3_600)), 30);
        // Shifted by less than a step, the hour has a part of 121.
        assert_eq!(chosen(seconds(1, 3_601)), 60);
        assert_eq!(chosen(seconds(0, 86_400)), 900);
        assert_eq!(Step::choose(step(0, 0).as_ref(), seconds(0, 60), None).unwrap().nanos(), NANOS);
    }

    #[test]
    fn a_window_without_bounds_is_cut_where_there_are_profiles() {
        let times = Some((1_000 * NANOS, 1_059 * NANOS));
        assert_eq!(Step::choose(None, Window::ALL, times).unwrap().nanos(), NANOS);
        assert_eq!(Step::choose(step(0, 10_000_000).as_ref(), Window::ALL, times).unwrap().nanos(), NANOS / 100);
    }

    #[test]
    fn all_of_time_without_profiles_is_not_cut() {
        assert_eq!(Step::choose(step(3_600, 0).as_ref(), Window::ALL, None).unwrap().nanos(), 3_600 * NANOS);
    }

    #[test]
    fn steps_that_cannot_be_are_refused_with_the_limit() {
        let refused = |asked: Option<Duration>| Step::choose(asked.as_ref(), seconds(0, 3_600), None).unwrap_err();
        assert_eq!(
            refused(step(0, 1)).to_string(),
            "steps of 1ns make 3600000000000 points of the window [1970-01-01T00:00:00Z, 1970-01-01T01:00:00Z), more than the 11000 \
             that a series may have; take a longer step or a narrower window"
        );
        assert_eq!(refused(step(-1, 0)), Error::Length { seconds: -1, nanos: 0 });
        assert_eq!(refused(step(1, -1)), Error::Length { seconds: 1, nanos: -1 });
        assert_eq!(refused(step(i64::MAX, 0)), Error::Length { seconds: i64::MAX, nanos: 0 });
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Any window has a round step, and every instant lies in the step that begins before it, also before 1970.
        #[test]
        fn every_instant_lies_in_its_step(a in any::<i64>(), b in any::<i64>(), part in 0..1000i64) {
            let window = Window { start_nanos: a.min(b), end_nanos: a.max(b).saturating_add(1) };
            let step = Step::choose(None, window, None).unwrap();
            prop_assert!(step.count(window) <= STEPS_DEFAULT);
            let at = window.start_nanos.saturating_add(part.saturating_mul(NANOS));
            let start = step.start_nanos(step.index(at));
            prop_assert!(start <= at && at.abs_diff(start) < step.nanos() as u64);
        }
    }
}
