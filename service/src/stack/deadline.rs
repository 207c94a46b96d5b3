//! Ends what takes too long: a call at the deadline its caller set (`grpc-timeout`, or Connect's `connect-timeout-ms`), and any request
//! whose answer has not begun within the server's own limit.
//!
//! The caller's deadline also ends a stream, for that is what it means; the server's limit does not, since a stream may
//! be as long as its client likes.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{Extensions, HeaderMap};
use tokio::time::Instant;

use super::Protocol;
use super::end::Until;
use crate::Failure;

/// The header in which gRPC's callers say how long they wait.
const HEADER: &str = "grpc-timeout";

/// The header in which Connect's callers say it, in milliseconds.
const CONNECT_HEADER: &str = "connect-timeout-ms";

/// A time-out beyond this is none: it would overflow the clock.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// When the caller stops waiting, among the extensions of a request whose caller said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

// === impl Deadline ===

impl Deadline {
    /// Returns the deadline among a request's extensions.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }

    /// Returns the moment.
    pub fn instant(self) -> Instant {
        self.0
    }
}

pub(super) async fn layer(State(limit): State<Duration>, mut request: Request, next: Next) -> Response {
    let protocol = Protocol::of(request.headers());
    let begin = Instant::now();
    let asked = match asked(request.headers()) {
        Ok(asked) => asked.map(|timeout| begin + timeout),
        Err(failure) => return protocol.respond(&failure),
    };
    if let Some(deadline) = asked {
        request.extensions_mut().insert(Deadline(deadline));
    }

    let own = begin + limit;
    let expired = move |at: Instant| match asked {
        Some(deadline) if deadline == at => Failure::deadline_exceeded("the deadline of the caller has passed"),
        _ => {
            let limit = humantime::format_duration(limit);
            Failure::deadline_exceeded(format!("no answer within {limit} (--limits.request-timeout)"))
        }
    };
    let at = asked.map_or(own, |deadline| deadline.min(own));
    let Ok(response) = tokio::time::timeout_at(at, next.run(request)).await else {
        return protocol.respond(&expired(at));
    };
    match asked {
        None => response,
        Some(deadline) => {
            let end = tokio::time::sleep_until(deadline);
            response.map(|inner| Body::new(Until::new(inner, end, protocol, expired(deadline))))
        }
    }
}

/// Reads `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Requests").
fn asked(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(HEADER) else {
        return asked_by_connect(headers);
    };
    let refuse = || Failure::invalid(format!("header {HEADER} is not up to 8 digits and one of H, M, S, m, u, n"));
    let text = value.to_str().map_err(|_| refuse())?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(refuse)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse());
    }
    let n: u64 = digits.parse().map_err(|_| refuse())?;
    let timeout = match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return Err(refuse()),
    };
    Ok(Some(timeout.min(TIMEOUT_MAX)))
}

/// Reads `connect-timeout-ms`: up to ten digits (Connect, "Unary-Request").
fn asked_by_connect(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(CONNECT_HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let is_number = (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(milliseconds) if is_number => Ok(Some(Duration::from_millis(milliseconds).min(TIMEOUT_MAX))),
        _ => Err(Failure::invalid(format!("header {CONNECT_HEADER} is not up to 10 digits"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(text: &'static str) -> Result<Option<Duration>, Failure> {
        asked(&HeaderMap::from_iter([(http::HeaderName::from_static(HEADER), HeaderValue::from_static(text))]))
    }

    #[test]
    fn units_of_grpc_timeout() {
        for (text, timeout) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("10S", Duration::from_secs(10)),
            ("150m", Duration::from_millis(150)),
            ("7u", Duration::from_micros(7)),
            ("12345678n", Duration::from_nanos(12_345_678)),
            ("0S", Duration::ZERO),
            ("99999999H", TIMEOUT_MAX),
        ] {
            assert_eq!(of(text), Ok(Some(timeout)), "{text}");
        }
        assert_eq!(asked(&HeaderMap::new()), Ok(None));
    }

    /// Goal: a time-out that cannot be read is refused, not taken for none.
    #[test]
    fn other_texts_are_refused() {
        for text in ["", "S", "10", "123456789S", "-1S", "+1S", "1s", "1.5S", "1 S"] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn connect_says_milliseconds() {
        let of = |text: &'static str| {
            asked(&HeaderMap::from_iter([(
                http::HeaderName::from_static(CONNECT_HEADER),
                HeaderValue::from_static(text),
            )]))
        };
        for (text, timeout) in [
            ("0", Duration::ZERO),
            ("150", Duration::from_millis(150)),
            ("9999999999", Duration::from_millis(9_999_999_999)),
        ] {
            assert_eq!(of(text), Ok(Some(timeout)), "{text}");
        }
        for text in ["", "12345678901", "-1", "+1", "1.5", "1s", " 1"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
