//! The only table from what went wrong to the codes of gRPC and HTTP.
//!
//! A part of a server fails with its own error; at its edge that is folded into a [`Failure`]: a coarse [`Kind`], named
//! after what the caller does next, and a text for people. From there on the codes are a matter of this table: as a
//! `tonic::Status` for a call, as JSON for HTTP, as `google.rpc.Status` for one profile of a stream. A failure that a
//! retry can heal always carries a delay (google.rpc.RetryInfo, Retry-After), one that it cannot heal never does:
//! clients decide by that.
//!
//! What went wrong inside never reaches the caller: [`Failure::internal`] logs it under an id, and the caller gets the
//! id.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use prost::Message as _;
use serde::Serialize;
use tonic::Code;

use crate::causes::Causes;

/// Names what a failure means to the one who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong: fix it.
    Invalid,
    /// The request is over a limit that does not move: send less.
    TooLarge,
    /// There is no such thing.
    NotFound,
    /// There is such a thing already, and it differs.
    AlreadyExists,
    /// The server is at a limit just now: slow down, then try again.
    Exhausted,
    /// The tenant is at a limit that is its own, whatever room the server has: slow down, then try again.
    Limited,
    /// The server cannot do it now, or does not know whether it did: try again, the same way.
    Unavailable,
    /// The server is going away: try again, elsewhere.
    ShuttingDown,
    /// It took too long.
    DeadlineExceeded,
    /// The server does not do this, or not in this configuration.
    Unimplemented,
    /// The body is compressed in a way the server does not know.
    UnsupportedEncoding,
    /// The path exists, with another HTTP method.
    MethodNotAllowed,
    /// The caller did not say who it is, or was not believed.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// What is stored is damaged: call the operator.
    Corrupt,
    /// A bug: report it, with the id in the message.
    Internal,
}

/// One row of the table.
struct Row {
    code: Code,
    http: StatusCode,
    /// A retry may help; the answer says when to try.
    retriable: bool,
}

/// How long to wait before a retry where the failure did not say.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

impl Kind {
    /// Every kind, in the order of the table.
    pub const ALL: [Kind; 16] = [
        Kind::Invalid,
        Kind::TooLarge,
        Kind::NotFound,
        Kind::AlreadyExists,
        Kind::Exhausted,
        Kind::Limited,
        Kind::Unavailable,
        Kind::ShuttingDown,
        Kind::DeadlineExceeded,
        Kind::Unimplemented,
        Kind::UnsupportedEncoding,
        Kind::MethodNotAllowed,
        Kind::Unauthenticated,
        Kind::PermissionDenied,
        Kind::Corrupt,
        Kind::Internal,
    ];

    const fn row(self) -> Row {
        let (code, http, retriable) = match self {
            Kind::Invalid => (Code::InvalidArgument, StatusCode::BAD_REQUEST, false),
            // Not OUT_OF_RANGE, which clients of OTLP retry for ever; without a delay RESOURCE_EXHAUSTED is final to
            // them.
            Kind::TooLarge => (Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE, false),
            Kind::NotFound => (Code::NotFound, StatusCode::NOT_FOUND, false),
            Kind::AlreadyExists => (Code::AlreadyExists, StatusCode::CONFLICT, false),
            Kind::Exhausted | Kind::Limited => (Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS, true),
            Kind::Unavailable => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, true),
            Kind::ShuttingDown => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, true),
            Kind::DeadlineExceeded => (Code::DeadlineExceeded, StatusCode::REQUEST_TIMEOUT, false),
            Kind::Unimplemented => (Code::Unimplemented, StatusCode::NOT_IMPLEMENTED, false),
            Kind::UnsupportedEncoding => (Code::Unimplemented, StatusCode::UNSUPPORTED_MEDIA_TYPE, false),
            Kind::MethodNotAllowed => (Code::Unimplemented, StatusCode::METHOD_NOT_ALLOWED, false),
            Kind::Unauthenticated => (Code::Unauthenticated, StatusCode::UNAUTHORIZED, false),
            Kind::PermissionDenied => (Code::PermissionDenied, StatusCode::FORBIDDEN, false),
            Kind::Corrupt => (Code::DataLoss, StatusCode::INTERNAL_SERVER_ERROR, false),
            Kind::Internal => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR, false),
        };
        Row { code, http, retriable }
    }

    /// Returns the gRPC code.
    pub const fn code(self) -> Code {
        self.row().code
    }

    /// Returns the name of the gRPC code, as [`code_name`] does.
    pub const fn code_name(self) -> &'static str {
        code_name(self.code())
    }

    /// Returns the HTTP status.
    pub const fn http_status(self) -> StatusCode {
        self.row().http
    }

    /// Returns whether the same request may succeed later; such answers carry a delay.
    pub const fn retriable(self) -> bool {
        self.row().retriable
    }
}

/// Returns the name of a gRPC code as protobuf spells it, such as `INVALID_ARGUMENT`.
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A refusal or failure as the caller gets to see it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    kind: Kind,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
}

// === impl Failure ===

impl Failure {
    /// Creates a failure; `message` is for people, lower case, with the facts. A retriable kind asks for a second of
    /// patience until [`Failure::retry_after`] says otherwise.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = kind.retriable().then_some(RETRY_AFTER_DEFAULT);
        Self { kind, message: message.into(), retry_after }
    }

    /// Creates [`Kind::Invalid`].
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Creates [`Kind::TooLarge`].
    pub fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::TooLarge, message)
    }

    /// Creates [`Kind::NotFound`].
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Creates [`Kind::AlreadyExists`].
    pub fn already_exists(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::AlreadyExists, message)
    }

    /// Creates [`Kind::Exhausted`], to be retried after `delay`.
    pub fn exhausted(message: impl Into<Cow<'static, str>>, delay: Duration) -> Self {
        Self::new(Kind::Exhausted, message).after(delay)
    }

    /// Creates [`Kind::Limited`], to be retried after `delay`.
    pub fn limited(message: impl Into<Cow<'static, str>>, delay: Duration) -> Self {
        Self::new(Kind::Limited, message).after(delay)
    }

    /// Creates [`Kind::Unavailable`], to be retried after `delay`.
    pub fn unavailable(message: impl Into<Cow<'static, str>>, delay: Duration) -> Self {
        Self::new(Kind::Unavailable, message).after(delay)
    }

    /// Creates [`Kind::ShuttingDown`] with the one text for it.
    pub fn shutting_down() -> Self {
        Self::new(Kind::ShuttingDown, "server is shutting down")
    }

    /// Creates [`Kind::DeadlineExceeded`].
    pub fn deadline_exceeded(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::DeadlineExceeded, message)
    }

    /// Creates [`Kind::Unimplemented`].
    pub fn unimplemented(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unimplemented, message)
    }

    /// Creates [`Kind::Corrupt`].
    pub fn corrupt(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    /// Creates [`Kind::Internal`]: logs `error` with all its sources under a fresh id, and keeps only the id for the
    /// caller.
    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        let error = error.into();
        let id = format!("{:016x}", rand::random::<u64>());
        tracing::error!(error_id = %id, error = %Causes(&*error), "internal error");
        Self::new(Kind::Internal, format!("internal error, id {id}"))
    }

    /// Sets how long the caller waits before it retries. Has no effect on a kind that no retry can heal: a delay there
    /// would make clients retry.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        if self.kind.retriable() {
            self.retry_after = Some(delay);
        }
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the text for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns how long to wait before a retry; present exactly where a retry may help.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Answers the request that had `headers`: a gRPC status to a gRPC call, JSON to anything else.
    pub fn respond_to(&self, headers: &HeaderMap) -> Response {
        if crate::http::is_grpc(headers) { tonic::Status::from(self).into_http() } else { self.into_response() }
    }

    /// Returns how long to wait before a retry, as protobuf has it.
    pub(crate) fn retry_info(&self) -> Option<tonic_types::pb::RetryInfo> {
        let delay = self.retry_after?;
        // A delay beyond what protobuf can say is not one anybody waits for.
        let retry_delay = prost_types::Duration::try_from(delay).unwrap_or_default();
        Some(tonic_types::pb::RetryInfo { retry_delay: Some(retry_delay) })
    }
}

/// The type URL of the only detail that answers carry.
const RETRY_INFO_URL: &str = "type.googleapis.com/google.rpc.RetryInfo";

// === conversions ===

impl From<&Failure> for tonic::Status {
    fn from(failure: &Failure) -> Self {
        let code = failure.kind.code();
        let Some(retry_info) = failure.retry_info() else {
            return Self::new(code, failure.message());
        };
        let details = tonic_types::Status {
            code: code as i32,
            message: failure.message().to_owned(),
            details: vec![prost_types::Any { type_url: RETRY_INFO_URL.to_owned(), value: retry_info.encode_to_vec() }],
        };
        Self::with_details(code, failure.message(), Bytes::from(details.encode_to_vec()))
    }
}

impl From<Failure> for tonic::Status {
    fn from(failure: Failure) -> Self {
        Self::from(&failure)
    }
}

impl From<&Failure> for afterglow_proto::google::rpc::Status {
    fn from(failure: &Failure) -> Self {
        let details = failure.retry_info().map(|retry_info| afterglow_proto::Any {
            type_url: RETRY_INFO_URL.to_owned(),
            value: Bytes::from(retry_info.encode_to_vec()),
        });
        Self {
            code: failure.kind.code() as i32,
            message: failure.message().to_owned(),
            details: details.into_iter().collect(),
        }
    }
}

impl From<Failure> for afterglow_proto::google::rpc::Status {
    fn from(failure: Failure) -> Self {
        Self::from(&failure)
    }
}

impl IntoResponse for &Failure {
    fn into_response(self) -> Response {
        let details =
            self.retry_after.map(|delay| RetryInfo { url: RETRY_INFO_URL, retry_delay: protobuf_json(delay) });
        let error =
            Body { code: self.kind.code_name(), message: &self.message, details: details.into_iter().collect() };
        let body = serde_json::to_vec(&Envelope { error }).expect("texts and lists are JSON");

        let mut response =
            (self.kind.http_status(), [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if let Some(delay) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, whole_seconds(delay));
        }
        if self.kind == Kind::UnsupportedEncoding {
            // RFC 9110, 15.5.16: an answer 415 about the content coding names those that would do.
            response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, identity"));
        }
        // For those on its way out who say it in other words.
        response.extensions_mut().insert(self.clone());
        response
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (&self).into_response()
    }
}

/// The body of an error over HTTP. Types rather than a map, for the order of fields is what people read.
#[derive(Serialize)]
struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'static str,
    message: &'a str,
    details: Vec<RetryInfo>,
}

/// google.rpc.RetryInfo, as protobuf's JSON mapping writes it within an Any.
#[derive(Serialize)]
struct RetryInfo {
    #[serde(rename = "@type")]
    url: &'static str,
    #[serde(rename = "retryDelay")]
    retry_delay: String,
}

/// Writes a duration as protobuf's JSON mapping does: seconds with 0, 3, 6 or 9 digits after the point.
fn protobuf_json(delay: Duration) -> String {
    let (seconds, nanos) = (delay.as_secs(), delay.subsec_nanos());
    match nanos {
        0 => format!("{seconds}s"),
        n if n % 1_000_000 == 0 => format!("{seconds}.{:03}s", n / 1_000_000),
        n if n % 1_000 == 0 => format!("{seconds}.{:06}s", n / 1_000),
        n => format!("{seconds}.{n:09}s"),
    }
}

/// Writes Retry-After, which knows whole seconds only: rounded up, so that nobody comes too early.
fn whole_seconds(delay: Duration) -> HeaderValue {
    let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

#[cfg(test)]
mod tests;
