//! The window of time that a question is about: `[start, end)` in nanoseconds since 1970.

use std::fmt;

use afterglow_proto::{Duration, Timestamp};
use afterglow_service::time;

/// How far a window reaches back from its end when a question does not say.
pub(crate) const DEFAULT_NANOS: i64 = 3_600 * NANOS;

/// How many nanoseconds a second has.
pub(crate) const NANOS: i64 = 1_000_000_000;

/// A window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// The first instant, in nanoseconds since 1970.
    pub(crate) start_nanos: i64,
    /// The instant after the last.
    pub(crate) end_nanos: i64,
}

/// Why a window is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It holds no instant.
    #[error("window {window} is empty: start must be before end")]
    Empty {
        /// The window.
        window: Window,
    },
    /// The nanoseconds are not a part of a second.
    #[error("{field}.nanos {nanos} is outside 0..1000000000")]
    Nanos {
        /// `start` or `end`.
        field: &'static str,
        /// What was given.
        nanos: i32,
    },
}

impl Window {
    /// Everything that can be stored.
    pub(crate) const ALL: Self = Self { start_nanos: i64::MIN, end_nanos: i64::MAX };

    /// Makes the window of a request: without an end it ends now, without a start it began an hour before its end.
    ///
    /// # Errors
    /// When it is empty, or a time malformed.
    pub(crate) fn resolve(start: Option<&Timestamp>, end: Option<&Timestamp>, now_nanos: i64) -> Result<Self, Error> {
        let end_nanos = end.map_or(Ok(now_nanos), |end| nanos("end", end))?;
        let start_nanos = match start {
            Some(start) => nanos("start", start)?,
            None => end_nanos.saturating_sub(DEFAULT_NANOS),
        };
        let window = Self { start_nanos, end_nanos };
        if window.is_empty() { Err(Error::Empty { window }) } else { Ok(window) }
    }

    /// Makes a window of which at least one end is given: without the other it is as long as `like`.
    ///
    /// # Errors
    /// When it is empty, or a time malformed.
    pub(crate) fn as_long(start: Option<&Timestamp>, end: Option<&Timestamp>, like: Self) -> Result<Self, Error> {
        let length = like.end_nanos.saturating_sub(like.start_nanos);
        let start = start.map(|start| nanos("start", start)).transpose()?;
        let end = end.map(|end| nanos("end", end)).transpose()?;
        let start_nanos = start.unwrap_or_else(|| end.unwrap_or(like.end_nanos).saturating_sub(length));
        let window = Self { start_nanos, end_nanos: end.unwrap_or_else(|| start_nanos.saturating_add(length)) };
        if window.is_empty() { Err(Error::Empty { window }) } else { Ok(window) }
    }

    /// Returns whether no instant lies in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.start_nanos >= self.end_nanos
    }

    /// Returns whether an instant lies in it.
    pub(crate) fn contains(&self, nanos: i64) -> bool {
        (self.start_nanos..self.end_nanos).contains(&nanos)
    }

    /// Returns how far an instant lies outside of it, in nanoseconds; 0 inside.
    pub(crate) fn distance(&self, nanos: i64) -> u64 {
        match nanos {
            early if early < self.start_nanos => self.start_nanos.abs_diff(early),
            late if late >= self.end_nanos => late.abs_diff(self.end_nanos) + 1,
            _ => 0,
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", time::format(self.start_nanos), time::format(self.end_nanos))
    }
}

/// Returns nanoseconds since 1970 as protobuf has it.
pub(crate) fn timestamp(nanos: i64) -> Timestamp {
    Timestamp { seconds: nanos.div_euclid(NANOS), nanos: nanos.rem_euclid(NANOS) as i32 }
}

/// Returns a length in nanoseconds as protobuf has it: both parts have the same sign.
pub(crate) fn duration(nanos: i64) -> Duration {
    Duration { seconds: nanos / NANOS, nanos: (nanos % NANOS) as i32 }
}

/// Returns a protobuf time as nanoseconds since 1970. What lies beyond 64 bits becomes the nearest that does not: nothing is stored
/// out there, and `9999-12-31` is a fair way to say "no end".
fn nanos(field: &'static str, time: &Timestamp) -> Result<i64, Error> {
    if !(0..NANOS).contains(&time.nanos.into()) {
        return Err(Error::Nanos { field, nanos: time.nanos });
    }
    let nanos = i128::from(time.seconds) * i128::from(NANOS) + i128::from(time.nanos);
    Ok(nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn a_window_defaults_to_the_last_hour() {
        let now = 7_200 * NANOS;
        let hour = Window { start_nanos: 3_600 * NANOS, end_nanos: now };
        assert_eq!(Window::resolve(None, None, now), Ok(hour));
        let earlier = Window { start_nanos: 0, end_nanos: 3_600 * NANOS };
        assert_eq!(Window::resolve(None, Some(&at(3_600)), now), Ok(earlier));
        let since = Window { start_nanos: 5 * NANOS, end_nanos: now };
        assert_eq!(Window::resolve(Some(&at(5)), None, now), Ok(since));
    }

    #[test]
    fn an_empty_window_is_refused_as_it_was_read() {
        let error = Window::resolve(Some(&at(60)), Some(&at(60)), 0).unwrap_err();
        let text = "window [1970-01-01T00:01:00Z, 1970-01-01T00:01:00Z) is empty: start must be before end";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn times_beyond_64_bits_mean_no_bound() {
        let far = Timestamp { seconds: 253_402_300_799, nanos: 0 };
        let before = Timestamp { seconds: -253_402_300_799, nanos: 0 };
        assert_eq!(Window::resolve(Some(&before), Some(&far), 0), Ok(Window::ALL));
        let bad = Timestamp { seconds: 0, nanos: -1 };
        assert_eq!(Window::resolve(Some(&bad), None, 0), Err(Error::Nanos { field: "start", nanos: -1 }));
    }

    #[test]
    fn times_before_1970_survive_the_way_to_protobuf() {
        for nanos in [-1, 0, 1, -NANOS, i64::MIN, i64::MAX, 1_795_481_601_123_456_789] {
            assert_eq!(super::nanos("start", &timestamp(nanos)), Ok(nanos));
        }
        assert_eq!(timestamp(-1), Timestamp { seconds: -1, nanos: 999_999_999 });
    }
}
