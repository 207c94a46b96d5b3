//! Headers that keep a browser from guessing, leaking or running what is only data. gRPC clients are not browsers and
//! get none.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue};

const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'self'; object-src 'none'; frame-ancestors 'self'; base-uri 'none'"),
    ),
];

pub(super) async fn layer(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if !crate::http::is_grpc(response.headers()) {
        for (name, value) in HEADERS {
            // A handler that knows better, such as a page with a stricter policy, has said so already.
            response.headers_mut().entry(name).or_insert(value);
        }
    }
    response
}
