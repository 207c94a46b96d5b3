//! Finds the token in a request: `Authorization: Bearer TOKEN`, or the password of `Authorization: Basic`, under any
//! user name.
//!
//! Basic is for what cannot send the other: a browser, which asks its user and then sends it with every request to this
//! server, and clients that take credentials in a URL, as `go tool pprof` does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::tokens::Digest;

/// A longer token is none that was ever made here: it is not worth a digest.
const TOKEN_BYTES_MAX: usize = 512;

/// What a request presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presented {
    /// Nothing.
    None,
    /// Something that is no token: another scheme, two headers, bytes that cannot be read.
    Malformed,
    /// A token, by its digest.
    Token {
        digest: Digest,
        /// A browser may have sent it by itself, on behalf of whatever site its user was on.
        is_basic: bool,
    },
}

/// Reads the headers.
pub(super) fn presented(headers: &HeaderMap) -> Presented {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Presented::None };
    if values.next().is_some() {
        return Presented::Malformed;
    }
    let Some((scheme, credentials)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return Presented::Malformed;
    };
    let credentials = credentials.trim();
    let token = |bytes: &[u8], is_basic| {
        if bytes.is_empty() || bytes.len() > TOKEN_BYTES_MAX {
            return Presented::Malformed;
        }
        Presented::Token { digest: Digest::of(bytes), is_basic }
    };
    if scheme.eq_ignore_ascii_case("bearer") {
        token(credentials.as_bytes(), false)
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = BASE64.decode(credentials).unwrap_or_default();
        // The user's name ends at the first colon (RFC 7617, 2).
        let password = decoded.iter().position(|byte| *byte == b':').map(|colon| &decoded[colon + 1..]);
        token(password.unwrap_or_default(), true)
    } else {
        Presented::Malformed
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(values: &[&str]) -> Presented {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a header"));
        }
        presented(&headers)
    }

    #[test]
    fn a_token_is_found_however_it_is_presented() {
        let token = |is_basic| Presented::Token { digest: Digest::of(b"agw_1:2"), is_basic };
        assert_eq!(of(&["Bearer agw_1:2"]), token(false));
        assert_eq!(of(&["bearer  agw_1:2"]), token(false));
        for user in ["", "anybody"] {
            let encoded = BASE64.encode(format!("{user}:agw_1:2"));
            assert_eq!(of(&[&format!("Basic {encoded}")]), token(true), "{user}");
        }
    }

    #[test]
    fn anything_else_is_no_token() {
        assert_eq!(of(&[]), Presented::None);
        let long = format!("Bearer {}", "a".repeat(TOKEN_BYTES_MAX + 1));
        let empty = format!("Basic {}", BASE64.encode("user:"));
        let alone = format!("Basic {}", BASE64.encode("agw_1"));
        for odd in ["Bearer", "Bearer ", "agw_1", "Digest agw_1", "Basic ???", &long, &empty, &alone] {
            assert_eq!(of(&[odd]), Presented::Malformed, "{odd}");
        }
        assert_eq!(of(&["Bearer a", "Bearer a"]), Presented::Malformed);
    }
}
