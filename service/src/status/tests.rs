use super::*;
use http_body_util::BodyExt as _;
use tonic_types::StatusExt as _;

/// Goal: the table is what the documentation of refusals says; a change here is a change of the contract.
#[test]
fn the_table() {
    let rows: Vec<String> = Kind::ALL
        .iter()
        .map(|kind| {
            let retry = if kind.retriable() { "retry" } else { "final" };
            format!("{kind:?} {} {} {retry}", kind.code_name(), kind.http_status().as_u16())
        })
        .collect();
    insta::assert_snapshot!(rows.join("\n"));
}

/// Goal: a delay stands exactly where a retry helps; clients retry whatever has one.
#[test]
fn only_what_can_heal_has_a_delay() {
    for kind in Kind::ALL {
        let failure = Failure::new(kind, "x").after(Duration::from_secs(3));
        assert_eq!(failure.retry_after().is_some(), kind.retriable(), "{kind:?}");
        assert_eq!(Failure::new(kind, "x").retry_after().is_some(), kind.retriable(), "{kind:?}");

        let status = tonic::Status::from(&failure);
        assert_eq!(status.code(), kind.code());
        assert_eq!(status.message(), "x");
        let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(delay, kind.retriable().then_some(Duration::from_secs(3)), "{kind:?}");

        let parts = afterglow_proto::google::rpc::Status::from(&failure);
        assert_eq!((parts.code, parts.message.as_str()), (kind.code() as i32, "x"));
        assert_eq!(parts.details.len(), usize::from(kind.retriable()));
        // The status of a stream's answer and that of a call carry the same detail, to the byte.
        let of_call = tonic_types::Status::decode(status.details()).expect("details").details;
        let of_stream = parts.details.iter().map(|any| (any.type_url.as_str(), any.value.as_ref()));
        assert!(of_call.iter().map(|any| (any.type_url.as_str(), any.value.as_slice())).eq(of_stream), "{kind:?}");
    }
}

async fn http(failure: Failure) -> (u16, Option<String>, String) {
    let response = failure.into_response();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let retry_after =
        response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().expect("ASCII").to_owned());
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, retry_after, String::from_utf8(body.to_vec()).expect("JSON is UTF-8"))
}

/// Goal: the bodies of errors over HTTP, to the byte.
#[tokio::test]
async fn bodies_over_http() {
    let final_one = Failure::too_large("body 41.2 MiB exceeds max_body 32 MiB (--limits.max-body)");
    insta::assert_debug_snapshot!(http(final_one).await);
    let retriable = Failure::exhausted("ingester is at its \"memory budget\"", Duration::from_millis(2_500));
    insta::assert_debug_snapshot!(http(retriable).await);
}

#[test]
fn delays_are_written_as_protobuf_and_http_write_them() {
    for (delay, json, header) in [
        (Duration::ZERO, "0s", "1"),
        (Duration::from_millis(1), "0.001s", "1"),
        (Duration::from_secs(3), "3s", "3"),
        (Duration::from_millis(3_001), "3.001s", "4"),
        (Duration::from_micros(1_000_250), "1.000250s", "2"),
        (Duration::from_nanos(1_000_000_001), "1.000000001s", "2"),
    ] {
        assert_eq!(protobuf_json(delay), json);
        assert_eq!(whole_seconds(delay), header);
    }
}

/// Goal: what went wrong inside is in the log, and only its id is in the answer.
#[test]
fn internal_errors_keep_their_text() {
    let cause = std::io::Error::other("s3://bucket/secret-key denied");
    let error = anyhow::Error::new(cause).context("cannot read the table of contents");
    let (failure, log) = crate::testing::logged(|| Failure::internal(error));
    let id = failure.message().strip_prefix("internal error, id ").expect("an id");
    assert_eq!(id.len(), 16);
    assert!(log.contains(id), "{log}");
    assert!(log.contains("cannot read the table of contents: s3://bucket/secret-key denied"), "{log}");
    assert!(!format!("{:?}", tonic::Status::from(&failure)).contains("secret"));
}

#[test]
fn answers_speak_the_protocol_of_the_question() {
    let mut headers = HeaderMap::new();
    let failure = Failure::not_found("no profile X");
    assert_eq!(failure.respond_to(&headers).status(), 404);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
    let response = failure.respond_to(&headers);
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "5");
    assert_eq!(response.headers()["grpc-message"], "no%20profile%20X");
}
