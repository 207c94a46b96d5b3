//! What handlers of HTTP requests share: reading a query and a body, and answering with JSON or a file.
//!
//! All of it fails with [`Failure`], so that every refusal looks the same, whoever refuses.

use std::error::Error as StdError;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Failure, Kind};

/// Returns whether the request is a gRPC call, by its content type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Returns whether the client asks for HTML by name, as every browser does and no tool by itself.
pub fn is_browser(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/html"))
}

/// The query parameters of a request, as `T`; extracts like axum's, and refuses as everything here does. `Vec<(String,
/// String)>` takes any parameters, in their order.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                // The rejection's own text is a headline; what is wrong with which parameter is in its source.
                let reason = rejection.source().map_or_else(|| rejection.body_text(), ToString::to_string);
                Err(Failure::invalid(format!("query parameters: {reason}")))
            }
        }
    }
}

/// How a request's body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all, as far as HTTP knows.
    Identity,
    /// By gzip.
    Gzip,
}

/// Returns how the body is compressed, by the header Content-Encoding.
///
/// # Errors
/// [`Kind::UnsupportedEncoding`] for anything but `gzip` and `identity`; the answer names those two.
pub fn content_encoding(headers: &HeaderMap) -> Result<Encoding, Failure> {
    let mut encoding = Encoding::Identity;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let name = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
        match (name.as_str(), encoding) {
            ("" | "identity", _) => {}
            ("gzip" | "x-gzip", Encoding::Identity) => encoding = Encoding::Gzip,
            _ => {
                let message = format!("content-encoding `{name}` is not supported, send gzip or identity");
                return Err(Failure::new(Kind::UnsupportedEncoding, message));
            }
        }
    }
    Ok(encoding)
}

/// Reads a request's body whole, up to the limit the stack has put on it.
///
/// # Errors
/// [`Kind::TooLarge`] over the limit; [`Kind::Invalid`] when the body ends before it is complete.
pub async fn read_body(body: Body) -> Result<Bytes, Failure> {
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(body_failure(&error)),
    }
}

/// Folds what reading a request's body failed with: what the stack refused, or else a body that ends before it is
/// complete.
pub fn body_failure(error: &(dyn StdError + 'static)) -> Failure {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return failure.clone();
        }
        cause = error.source();
    }
    Failure::invalid("request body ended early")
}

/// Answers with JSON; messages of the wire contract serialize by protobuf's mapping.
pub fn json<T: Serialize>(answer: &T) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => Failure::internal(error).into_response(),
    }
}

/// Answers with a file of bytes, such as a pprof, under a name for whoever saves it. Characters that a header or a file
/// system might take amiss become `_`.
pub fn file(name: &str, bytes: impl Into<Body>) -> Response {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let disposition = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")).expect("plain characters only");
    let mut response = Response::new(bytes.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    response
}

#[cfg(test)]
mod tests;
