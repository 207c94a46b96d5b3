//! A unary call of the Connect protocol: a POST whose body is one message, as protobuf or as JSON, and an answer likewise.
//!
//! Refusals are failures as everywhere; the server says them as Connect does (`afterglow_service::stack`), which also keeps the caller's
//! deadline. Answers are compressed by the server for those who take it.
//!
//! Source: <https://connectrpc.com/docs/protocol>, "Unary (Request-Response) RPCs".

use afterglow_profile::{Error as Damage, Limits, compress};
use afterglow_proto::v1;
use afterglow_service::config::ByteSize;
use afterglow_service::http::{Encoding, body_failure, content_encoding, is_grpc};
use afterglow_service::{Failure, http as answers, tenant};
use afterglow_store::paths::TenantId;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::grpc::REQUEST_BYTES_MAX;
use crate::http::merges::with_notes;

/// In which a client says which version of the protocol it speaks, where it does.
const VERSION: &str = "connect-protocol-version";

/// In which an answer 415 says what would do.
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/proto, application/json");

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// As protobuf.
    Proto,
    /// As JSON, by protobuf's mapping.
    Json,
}

/// A call.
#[derive(Debug)]
pub(super) struct Call<Q> {
    /// Whose profiles are asked for.
    pub(super) tenant: TenantId,
    /// The question.
    pub(super) message: Q,
    /// How it came, and how the answer is to be written.
    pub(super) codec: Codec,
}

/// What the reader of an answer should know beside it. Messages of others have no place for it, so it is said in the headers that files have.
#[derive(Debug, Default)]
pub(super) struct Notes {
    completeness: v1::Completeness,
    warnings: Vec<String>,
}

// === impl Call ===

impl<Q: Message + Default + DeserializeOwned, S: Send + Sync> FromRequest<S> for Call<Q> {
    type Rejection = Response;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        if is_grpc(&parts.headers) {
            let message =
                "these questions are asked over Connect, not gRPC; by gRPC there is afterglow.v1.QueryService";
            return Err(Failure::unimplemented(message).respond_to(&parts.headers));
        }
        let codec = Codec::of(&parts.headers).map_err(|failure| {
            let mut response = failure.into_response();
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            response.headers_mut().insert(ACCEPT_POST, ACCEPTED);
            response
        })?;
        Self::read(codec, &parts.headers, body).await.map_err(|failure| failure.into_response())
    }
}

impl<Q: Message + Default + DeserializeOwned> Call<Q> {
    async fn read(codec: Codec, headers: &HeaderMap, body: Body) -> Result<Self, Failure> {
        if headers.get(VERSION).is_some_and(|version| version != "1") {
            return Err(Failure::invalid(format!("header {VERSION} is not 1")));
        }
        let tenant = tenant::from_headers(headers)?;
        let tenant = tenant.parse().map_err(|error| Failure::invalid(format!("header {}: {error}", tenant::HEADER)))?;
        let encoding = content_encoding(headers)?;
        let bytes = read(body).await?;
        let bytes = if encoding == Encoding::Gzip { gunzip(&bytes)? } else { bytes };
        let message = match codec {
            Codec::Proto => Q::decode(&bytes[..]).map_err(|error| error.to_string()),
            Codec::Json => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        };
        let message = message.map_err(|error| Failure::invalid(format!("the body is not the question: {error}")))?;
        Ok(Self { tenant, message, codec })
    }
}

/// Reads a body, up to what a question may have.
async fn read(body: Body) -> Result<Vec<u8>, Failure> {
    let (mut bytes, mut pieces) = (Vec::new(), body.into_data_stream());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| body_failure(&error))?;
        if bytes.len() + piece.len() > REQUEST_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    // An empty message is an empty body, compressed or not.
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(Failure::invalid("the body is not gzip, as content-encoding says"));
    }
    let max = REQUEST_BYTES_MAX as u64;
    let limits = Limits { inflated_bytes_max: max, inflate_ratio_max: max, ..Limits::default() };
    match compress::inflate(bytes, &limits) {
        Ok(bytes) => Ok(bytes.into_owned()),
        Err(Damage::Empty) => Ok(Vec::new()),
        Err(Damage::Inflated { .. }) => Err(too_large()),
        Err(error) => Err(Failure::invalid(format!("the body: {error}"))),
    }
}

fn too_large() -> Failure {
    Failure::too_large(format!(
        "the question has more than {}, which is all that one may have",
        ByteSize(REQUEST_BYTES_MAX as u64)
    ))
}

// === impl Codec ===

impl Codec {
    /// Returns how the body of a request is written.
    fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let given =
            headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
        let media_type = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/proto" => Ok(Self::Proto),
            "application/json" => Ok(Self::Json),
            _ => {
                /// Enough of a long one to find it.
                const SHOWN_CHARS: usize = 64;
                let shown: String = given.chars().take(SHOWN_CHARS).collect();
                Err(Failure::unimplemented(format!(
                    "content-type {shown:?} is not application/proto or application/json"
                )))
            }
        }
    }

    /// Answers with a message.
    pub(super) fn answer<A: Message + Serialize>(self, message: &A, notes: &Notes) -> Response {
        match self {
            Self::Proto => proto(message.encode_to_vec().into(), notes),
            Self::Json => notes.beside(answers::json(message)),
        }
    }
}

/// Answers with a message that is written already, as protobuf.
pub(super) fn proto(message: Bytes, notes: &Notes) -> Response {
    notes.beside(([(CONTENT_TYPE, "application/proto")], message).into_response())
}

// === impl Notes ===

impl Notes {
    /// Adds whether all data could be read.
    pub(super) fn complete(&mut self, completeness: Option<v1::Completeness>) {
        let Some(v1::Completeness { partial, problems }) = completeness else { return };
        self.completeness.partial |= partial;
        for problem in problems {
            if !self.completeness.problems.contains(&problem) {
                self.completeness.problems.push(problem);
            }
        }
    }

    /// Adds what the reader should know.
    pub(super) fn warn(&mut self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.extend(warnings);
    }

    fn beside(&self, response: Response) -> Response {
        with_notes(response, &[], Some(self.completeness.clone()), &self.warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_inflates_too_far_is_refused() {
        let zeros = |bytes: usize| compress::gzip(&vec![0; bytes]);
        assert_eq!(gunzip(&zeros(REQUEST_BYTES_MAX)).unwrap().len(), REQUEST_BYTES_MAX);
        let failure = gunzip(&zeros(REQUEST_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(failure.message(), "the question has more than 1 MiB, which is all that one may have");
        assert_eq!(gunzip(&compress::gzip(b"")).unwrap(), b"");
        assert_eq!(gunzip(b"").unwrap(), b"");
        assert_eq!(gunzip(b"{}").unwrap_err().message(), "the body is not gzip, as content-encoding says");
        assert!(gunzip(&zeros(100)[..20]).unwrap_err().message().starts_with("the body: gzip stream is damaged"));
    }

    #[test]
    fn media_types_have_parameters_and_any_case() {
        let of = |text: &str| Codec::of(&HeaderMap::from_iter([(CONTENT_TYPE, text.parse().unwrap())])).ok();
        assert_eq!(of("application/proto"), Some(Codec::Proto));
        assert_eq!(of("Application/JSON; charset=utf-8"), Some(Codec::Json));
        for other in ["application/connect+proto", "application/x-protobuf", "text/plain", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
