//! Moments as people and scripts write them, in query parameters and on the command line.
//!
//! Accepted are RFC 3339 (`2026-11-24T22:40:00Z`), unix time in s, ms, us or ns told apart by size (`1795559000`,
//! `1795559000123`; seconds may have a fraction), `now`, and a distance from now (`-1h`, `now-1h`, `now+5m`).

use std::str::FromStr as _;

use jiff::Timestamp;

/// Says that a text is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text has none of the accepted forms.
    #[error(
        "`{0}` is not a time: give RFC 3339 (2026-11-24T22:40:00Z), unix s, ms, us or ns (1795559000), `now`, \
         or a distance from now (-1h, now-90m, -7d)"
    )]
    Form(String),
    /// The moment is not between the years 1677 and 2262, which is what 64 bits of nanoseconds hold.
    #[error("time `{0}` is out of range: 1677-09-21 to 2262-04-11")]
    Range(String),
}

// Up to where a unix time counts seconds, milliseconds, microseconds. As seconds the first is the year 5138; as
// milliseconds it is 1973, before which nobody recorded profiles.
const SECONDS_BELOW: u64 = 100_000_000_000;
const MILLIS_BELOW: u64 = SECONDS_BELOW * 1_000;
const MICROS_BELOW: u64 = MILLIS_BELOW * 1_000;

// The last year of RFC 3339, and another that has the same days and lies beyond 64 bits of nanoseconds as well.
const LAST_YEAR: &str = "9999-";
const LIKE_LAST_YEAR: &str = "9998-";

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Reads a moment; gives unix time in nanoseconds. `now_nanos` is the present, in the same unit.
///
/// # Errors
/// [`Error::Form`] names the accepted forms; [`Error::Range`] is for moments that nanoseconds cannot hold.
pub fn parse(text: &str, now_nanos: i64) -> Result<i64, Error> {
    i64::try_from(read(text, now_nanos)?).map_err(|_| Error::Range(text.to_owned()))
}

/// Reads a moment that bounds a window, as [`parse`] does. One that nanoseconds cannot hold becomes the nearest that they can: nothing is
/// stored beyond, and `9999-12-31T00:00:00Z` is a fair way to say "no end".
///
/// # Errors
/// [`Error::Form`].
pub fn parse_bound(text: &str, now_nanos: i64) -> Result<i64, Error> {
    Ok(read(text, now_nanos)?.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

/// Reads a moment, of any range.
fn read(text: &str, now_nanos: i64) -> Result<i128, Error> {
    let form = || Error::Form(text.to_owned());
    let trimmed = text.trim();
    if !trimmed.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(i128::from(now_nanos) + distance(trimmed).ok_or_else(form)?);
    }
    if let Some(nanos) = unix(trimmed) {
        return Ok(nanos);
    }
    let rfc3339 = |text: &str| Timestamp::from_str(text).map(Timestamp::as_nanosecond);
    let read = rfc3339(trimmed).or_else(|error| match trimmed.strip_prefix(LAST_YEAR) {
        // Its last two days are beyond what jiff holds, for they would not be in it in every time zone. No leap year, either.
        Some(rest) => rfc3339(&format!("{LIKE_LAST_YEAR}{rest}")),
        None => Err(error),
    });
    read.map_err(|_| form())
}

/// Writes a moment as RFC 3339 in UTC, as answers do.
pub fn format(nanos: i64) -> String {
    let timestamp = Timestamp::from_nanosecond(i128::from(nanos)).expect("64 bits of nanoseconds are a timestamp");
    timestamp.to_string()
}

/// Writes a moment as RFC 3339 in UTC to the millisecond, for tables that people read.
pub fn format_millis(nanos: i64) -> String {
    let timestamp = Timestamp::from_nanosecond(i128::from(nanos)).expect("64 bits of nanoseconds are a timestamp");
    format!("{timestamp:.3}")
}

/// Returns the present by the system's clock, in unix nanoseconds, for the edges that have no clock of their own.
pub fn now_nanos() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).expect("the present lies before 2262")
}

/// Reads digits, or digits with a fraction, as unix time.
fn unix(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    if !whole.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let unit = match whole {
        0..SECONDS_BELOW => 1_000_000_000,
        SECONDS_BELOW..MILLIS_BELOW => 1_000_000,
        MILLIS_BELOW..MICROS_BELOW => 1_000,
        _ => 1,
    };
    let fraction = match fraction {
        None => 0,
        Some(digits) if unit == NANOS_PER_SECOND => fraction_nanos(digits)?,
        Some(_) => return None,
    };
    Some(i128::from(whole) * unit + fraction)
}

/// Reads the digits after the point of seconds; what is finer than nanoseconds is dropped.
fn fraction_nanos(digits: &str) -> Option<i128> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: String = digits.chars().chain("000000000".chars()).take(9).collect();
    nanos.parse().ok()
}

/// Reads `now`, `now-1h`, `now+1h` and `-1h`, in nanoseconds from now.
fn distance(text: &str) -> Option<i128> {
    let (sign, duration) = match text.strip_prefix("now") {
        Some("") => return Some(0),
        Some(rest) => match rest.strip_prefix('-') {
            Some(duration) => (-1, duration),
            None => (1, rest.strip_prefix('+')?),
        },
        None => (-1, text.strip_prefix('-')?),
    };
    let duration = humantime::parse_duration(duration.trim()).ok()?;
    Some(sign * i128::try_from(duration.as_nanos()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_559_000_000_000_000;
    const MINUTE: i64 = 60_000_000_000;

    /// Goal: each form the documentation names gives the moment it means.
    #[test]
    fn accepted_forms() {
        for (text, nanos) in [
            ("now", NOW),
            (" now ", NOW),
            ("-1h", NOW - 60 * MINUTE),
            ("now-1h", NOW - 60 * MINUTE),
            ("-90m", NOW - 90 * MINUTE),
            ("-7d", NOW - 7 * 24 * 60 * MINUTE),
            ("-1h30m", NOW - 90 * MINUTE),
            ("now+5m", NOW + 5 * MINUTE),
            ("2026-11-24T22:23:20Z", NOW),
            ("2026-11-24T23:23:20+01:00", NOW),
            ("2026-11-24T22:23:20.000000001Z", NOW + 1),
            ("0", 0),
            ("1795559000", NOW),
            ("1795559000.5", NOW + 500_000_000),
            ("1795559000.1234567891", NOW + 123_456_789),
            ("1795559000000", NOW),
            ("1795559000000000", NOW),
            ("1795559000000000000", NOW),
        ] {
            assert_eq!(parse(text, NOW), Ok(nanos), "{text}");
        }
    }

    /// Goal: a text that is no moment is refused with the forms that are.
    #[test]
    fn refusals_name_the_forms() {
        for text in [
            "",
            "yesterday",
            "-",
            "-1",
            "now-",
            "now1h",
            "now - 1h",
            "1h",
            "+1h",
            "1795559000.",
            "1795559000000.5",
            "12:00",
            "2026-11-24",
        ] {
            let error = parse(text, NOW).expect_err(text);
            assert_eq!(error, Error::Form(text.to_owned()));
            assert!(error.to_string().contains("RFC 3339"), "{error}");
        }
    }

    #[test]
    fn out_of_range_is_said_so() {
        for text in ["9999-01-01T00:00:00Z", "99999999999", "99999999999999", "18446744073709551615", "-1000y"] {
            assert_eq!(parse(text, NOW), Err(Error::Range(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_bounds_a_window_has_no_range() {
        for text in ["9999-12-31T00:00:00Z", "9999-12-31T23:59:59Z", "9999-01-01T00:00:00Z", "10000000000", "now+1000y"]
        {
            assert_eq!(parse_bound(text, NOW), Ok(i64::MAX), "{text}");
            assert_eq!(parse(text, NOW), Err(Error::Range(text.to_owned())), "{text}");
        }
        for text in ["0001-01-01T00:00:00Z", "-1000y"] {
            assert_eq!(parse_bound(text, NOW), Ok(i64::MIN), "{text}");
        }
        assert_eq!(parse_bound("-1h", NOW), Ok(NOW - 60 * MINUTE));
        for text in ["9999-13-01T00:00:00Z", "9999-02-29T00:00:00Z", "9999-", "never"] {
            assert_eq!(parse_bound(text, NOW), Err(Error::Form(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_format_writes_is_what_parse_reads() {
        for nanos in [0, NOW, NOW + 1, i64::MIN, i64::MAX] {
            assert_eq!(parse(&format(nanos), 0), Ok(nanos));
        }
    }

    #[test]
    fn millis_are_always_written() {
        assert_eq!(format_millis(NOW), "2026-11-24T22:23:20.000Z");
        assert_eq!(format_millis(NOW + 1_999_999), "2026-11-24T22:23:20.001Z");
    }
}
