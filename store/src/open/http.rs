//! The HTTP client below the cloud stores, with two things added: the status of a refusal stays readable, and an answer tells what time
//! it is for the store, by its header `Date`, as [`TakenAt`].
//!
//! `object_store` gives the statuses that have a meaning of their own their own errors (404, 412, 409 ...) and folds the rest into
//! one whose status cannot be asked for. But whether a write may have happened hangs on it: a 400 proves that it did not, a 500
//! proves nothing. So every such answer becomes a [`StatusError`] here, which `fault` finds among the causes.

use std::fmt;
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use futures::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use crate::clock::TakenAt;

/// How much of the body of a refusal is kept for the error's text.
const BODY_BYTES_MAX: usize = 2 << 10;

/// Statuses that `object_store` itself turns into errors that can be told apart, but of listings.
const KNOWN: [u16; 6] = [401, 403, 404, 409, 412, 304];

/// An answer that is a refusal.
#[derive(Debug)]
pub(crate) struct StatusError {
    /// The HTTP status.
    pub(crate) status: http::StatusCode,
    /// What the body says, shortened.
    pub(crate) message: String,
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store answered {}", self.status)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl std::error::Error for StatusError {}

/// Makes clients that tell statuses.
#[derive(Debug, Default)]
pub(super) struct Connector(ReqwestConnector);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Service(HttpClient);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_listing = is_listing(request.uri().query());
        let mut response = self.0.execute(request).await?;
        let status = response.status();
        if let Some(at) = date(response.headers()) {
            response.extensions_mut().insert(at);
        }
        let is_known = !is_listing && KNOWN.contains(&status.as_u16());
        if !(status.is_client_error() || status.is_server_error()) || is_known {
            return Ok(response);
        }
        let mut body = response.into_body().bytes_stream();
        let mut text = Vec::new();
        while let Some(Ok(chunk)) = body.next().await {
            text.extend_from_slice(&chunk[..chunk.len().min(BODY_BYTES_MAX - text.len())]);
            if text.len() == BODY_BYTES_MAX {
                break;
            }
        }
        let message = explain(&String::from_utf8_lossy(&text));
        Err(HttpError::new(HttpErrorKind::Unknown, StatusError { status, message }))
    }
}

/// Whether a request with this query lists keys: `list-type=2` for S3 and what is like it, `comp=list` for Azure.
fn is_listing(query: Option<&str>) -> bool {
    query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .any(|pair| pair.starts_with("list-type=") || pair == "comp=list")
}

/// Returns what time it was for the store when it answered; to the second.
fn date(headers: &http::HeaderMap) -> Option<TakenAt> {
    let date = httpdate::parse_http_date(headers.get(http::header::DATE)?.to_str().ok()?).ok()?;
    let since = date.duration_since(UNIX_EPOCH).ok()?;
    Some(TakenAt(u64::try_from(since.as_millis()).ok()?))
}

/// Takes code and message out of the XML that S3, GCS and Azure answer with; other bodies stay as they are.
fn explain(body: &str) -> String {
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
    };
    match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => body.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_the_time_of_the_store() {
        let mut headers = http::HeaderMap::new();
        assert!(date(&headers).is_none());
        headers.insert(http::header::DATE, http::HeaderValue::from_static("Tue, 14 Nov 2023 22:13:20 GMT"));
        assert_eq!(date(&headers).map(|at| at.0), Some(1_700_000_000_000));
        headers.insert(http::header::DATE, http::HeaderValue::from_static("some day"));
        assert!(date(&headers).is_none());
    }

    #[test]
    fn the_text_of_a_refusal_is_its_code_and_message() {
        let slow_down =
            "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>";
        assert_eq!(explain(slow_down), "SlowDown: Reduce your request rate.");
        assert_eq!(explain("<Error><Code>InternalError</Code>"), "InternalError");
        assert_eq!(explain(" bad gateway\n"), "bad gateway");
        let error = StatusError { status: http::StatusCode::BAD_GATEWAY, message: String::new() };
        assert_eq!(error.to_string(), "the store answered 502 Bad Gateway");
    }
}
