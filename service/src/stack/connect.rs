//! Says what went wrong as the Connect protocol does to those who call by it: `{"code":"invalid_argument","message":…}`, with its HTTP statuses.
//!
//! Whoever refuses, at whichever layer, answers with a [`Failure`], which leaves itself among the answer's extensions. Where the path is that of
//! a method, `/package.Service/Method`, the answer is written anew here. No other path of ours looks so, and a gRPC call has its
//! status in headers or trailers by then.
//!
//! Source: <https://connectrpc.com/docs/protocol>, "Unary-Response" and "Error Codes".

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use prost::Message as _;
use serde::Serialize;

use crate::{Failure, Kind};

/// An error, as Connect has it. Types rather than a map, for the order of fields is what people read.
#[derive(Serialize)]
struct Error<'a> {
    code: String,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<[Detail; 1]>,
}

#[derive(Serialize)]
struct Detail {
    #[serde(rename = "type")]
    name: &'static str,
    value: String,
}

pub(super) async fn layer(request: Request, next: Next) -> Response {
    let is_call = is_method(request.uri().path());
    let response = next.run(request).await;
    if !is_call {
        return response;
    }
    match response.extensions().get::<Failure>().cloned() {
        Some(failure) => say(&failure, response),
        None => response,
    }
}

/// Returns whether a path is that of a method: a service, whose name has its package in front, and a name.
pub(super) fn is_method(path: &str) -> bool {
    let parts = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    parts.is_some_and(|(service, method)| service.contains('.') && !method.is_empty() && !method.contains('/'))
}

/// Writes an answer anew, but for its headers, such as those that say when to come back and how to prove who one is.
fn say(failure: &Failure, response: Response) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.extensions.remove::<Failure>();
    // One that a handler has chosen by itself stays.
    if parts.status == failure.kind().http_status() {
        parts.status = status(failure.kind());
    }
    for name in [CONTENT_LENGTH, CONTENT_ENCODING] {
        parts.headers.remove(name);
    }
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let details = failure
        .retry_info()
        .map(|info| [Detail { name: "google.rpc.RetryInfo", value: STANDARD_NO_PAD.encode(info.encode_to_vec()) }]);
    let code = failure.kind().code_name().to_ascii_lowercase();
    let error = Error { code, message: failure.message(), details };
    Response::from_parts(parts, Body::from(serde_json::to_vec(&error).expect("texts and lists are JSON")))
}

/// Returns the HTTP status of Connect's table, where it is another than ours.
fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::TooLarge => StatusCode::TOO_MANY_REQUESTS,
        Kind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Kind::UnsupportedEncoding => StatusCode::NOT_IMPLEMENTED,
        kind => kind.http_status(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_methods_are_told_from_others() {
        for path in ["/querier.v1.QuerierService/Series", "/a.B/C"] {
            assert!(is_method(path), "{path}");
        }
        for path in ["/", "/a.B", "/a.B/", "/a.B/C/D", "/api/v1", "/assets/index-1a2b.js", "/things/1", "a.B/C"] {
            assert!(!is_method(path), "{path}");
        }
    }

    /// Goal: a code is never said with a status that Connect's clients would take for another one.
    #[test]
    fn every_kind_has_the_status_of_its_code() {
        for kind in Kind::ALL {
            let expected = match kind.code_name() {
                "INVALID_ARGUMENT" => 400,
                "UNAUTHENTICATED" => 401,
                "PERMISSION_DENIED" => 403,
                "NOT_FOUND" => 404,
                "ALREADY_EXISTS" => 409,
                "RESOURCE_EXHAUSTED" => 429,
                // A method of HTTP is refused before there is a call.
                "UNIMPLEMENTED" if kind == Kind::MethodNotAllowed => 405,
                "UNIMPLEMENTED" => 501,
                "UNAVAILABLE" => 503,
                "DEADLINE_EXCEEDED" => 504,
                "INTERNAL" | "DATA_LOSS" => 500,
                other => panic!("{other} has no status"),
            };
            assert_eq!(status(kind).as_u16(), expected, "{kind:?}");
        }
    }
}
