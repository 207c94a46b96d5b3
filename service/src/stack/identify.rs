//! Gives each request an id: the client's own where it sent a sane one, else a fresh one; the answer carries it back.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries the id, both ways.
const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// A longer id is not one, but somebody filling our logs.
const LENGTH_MAX: usize = 64;

/// The id of a request, among its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

// === impl RequestId ===

impl RequestId {
    /// Returns the id, 1 to 64 characters of `[A-Za-z0-9._-]`.
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("ids are plain ASCII")
    }

    /// Returns the id of a request by its headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers.get(&HEADER).and_then(Self::sent).unwrap_or_else(Self::fresh)
    }

    /// Puts the id among the headers of the answer.
    pub(crate) fn answer(mut self, headers: &mut HeaderMap) {
        // No secret, but never to be had again: by this HPACK keeps it out of its table, from which it would drive what does come again.
        self.0.set_sensitive(true);
        headers.insert(HEADER, self.0);
    }

    fn sent(value: &HeaderValue) -> Option<Self> {
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let bytes = value.as_bytes();
        let sane = (1..=LENGTH_MAX).contains(&bytes.len()) && bytes.iter().all(is_plain);
        sane.then(|| Self(value.clone()))
    }

    fn fresh() -> Self {
        let id = format!("{:032x}", rand::random::<u128>());
        Self(HeaderValue::try_from(id).expect("hexadecimal digits"))
    }
}

pub(super) async fn layer(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    id.answer(response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an id from outside cannot write into our logs what it likes.
    #[test]
    fn only_sane_ids_are_taken_over() {
        let sent = |id: &str| RequestId::sent(&HeaderValue::from_str(id).expect("a header value"));
        assert_eq!(sent("Root=1-67.a_b").map(|_| ()), None);
        assert_eq!(sent("a b"), None);
        assert_eq!(sent(""), None);
        assert_eq!(sent(&"a".repeat(65)), None);
        assert_eq!(sent("01J-a.b_c").expect("sane").as_str(), "01J-a.b_c");
        assert_eq!(sent(&"a".repeat(64)).expect("sane").as_str().len(), 64);
        assert_ne!(RequestId::fresh(), RequestId::fresh());
        assert_eq!(RequestId::fresh().as_str().len(), 32);
    }
}
