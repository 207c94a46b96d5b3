//! Goal: what a client gets is decided by the layers in their order, over real connections, and a handler cannot spoil
//! it.

use super::*;
use crate::config::ByteSize;
use crate::listen::Options;
use crate::testing::{Lines, PATIENCE, Running, push};
use afterglow_proto::v1::{PushProfileResponse, PushRequest};
use bytes::Bytes;
use futures::SinkExt as _;
use http::{Method, Request, Version};
use http_body_util::{BodyExt as _, Full, StreamBody};
use prost::Message as _;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_types::StatusExt as _;

fn limits(change: impl FnOnce(&mut Limits)) -> Options {
    let mut options = Options::default();
    change(&mut options.limits);
    options
}

fn grpc(path: &str) -> http::request::Builder {
    Request::post(path).version(Version::HTTP_2).header("content-type", "application/grpc").header("te", "trailers")
}

/// The line of the metrics that counts requests.
fn requests(protocol: &str, method: &str, route: &str, code: &str, count: u64) -> String {
    let labels = format!("protocol=\"{protocol}\",method=\"{method}\",route=\"{route}\",code=\"{code}\"");
    format!("afterglow_server_requests_total{{{labels}}} {count}")
}

const PUSH: &str = "/afterglow.v1.IngestService/Push";
const PUSH_PROFILE: &str = "/afterglow.v1.IngestService/PushProfile";

fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).expect("a length").to_be_bytes());
    framed.extend(message);
    framed
}

#[tokio::test]
async fn a_panic_is_an_internal_error_with_an_id() {
    let server = Running::start(Options::default()).await;
    let answer = server.get("/panic").await;
    assert_eq!(answer.status, 500);
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(body["error"]["code"], "INTERNAL");
    assert!(body["error"]["message"].as_str().expect("a text").starts_with("internal error, id "), "{body}");
    assert!(!answer.text().contains("secretly"));
    // The layers around the panic did their work all the same.
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));

    let status = server.ingest().await.push_profile(push("panic")).await.expect_err("a panic");
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().starts_with("internal error, id "), "{status}");

    server.metric("afterglow_server_panics_total 2").await;
    server.metric(&requests("http", "GET", "/panic", "500", 1)).await;
    assert_eq!(server.get("/things/1").await.text(), "a thing", "the process lives on");
}

/// Goal: what panics when the head of the answer is gone does not pass for complete, and takes nobody along.
#[tokio::test]
async fn a_panic_within_an_answer_ends_that_answer() {
    let server = Running::start(Options::default()).await;
    let mut client = server.ingest().await;
    let (mut sender, requests) = futures::channel::mpsc::channel(1);
    let mut send = async |seq| sender.send(PushRequest { seq, ..PushRequest::default() }).await.expect("a stream");
    send(1).await;
    let mut answers = client.push(requests).await.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("the first is fine").expect("an answer").seq, 1);
    send(13).await;
    assert_eq!(answers.message().await.expect_err("a panic").code(), Code::Internal);
    client.push_profile(push("a")).await.expect("the connection lives on");

    let broken = server.try_send(Request::get("/panic-in-body"), Full::new(Bytes::new())).await;
    assert!(broken.is_err(), "{broken:?}");
    server.metric("afterglow_server_panics_total 2").await;
}

/// Goal: who is refused for load learns when to come back, and the operator still sees the server, and which limit it is at.
#[tokio::test]
async fn load_beyond_the_limit_is_shed() {
    let lines = Lines::capture();
    let server = Running::start(limits(|limits| limits.requests_max = 1)).await;
    let mut client = server.ingest().await;
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { client.push_profile(push("wait")).await }
    });
    server.gate.arrival().await;

    let status = client.push_profile(push("a")).await.expect_err("no room");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "server works on 1 requests already (--limits.max-requests)");
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay).expect("a delay");
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&delay), "{delay:?}");

    let answer = server.get("/things/1").await;
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer.header("retry-after").and_then(|value| value.parse().ok()).expect("seconds");
    assert!((1..=3).contains(&seconds));
    assert!(answer.header("x-request-id").is_some() && answer.header("content-security-policy").is_some());

    for path in ["/healthz", "/readyz", "/metrics", "/version", "/debug/pprof/"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }

    let labels = |protocol, method, route| format!("{{protocol=\"{protocol}\",method=\"{method}\",route=\"{route}\"}}");
    for line in [
        format!("afterglow_server_requests_shed_total{} 1", labels("grpc", "POST", PUSH_PROFILE)),
        format!("afterglow_server_requests_shed_total{} 1", labels("http", "GET", "/things/{id}")),
        "afterglow_server_requests_admitted 1".to_owned(),
        "afterglow_server_requests_limit 1".to_owned(),
    ] {
        server.metric(&line).await;
    }
    let text = lines.text();
    let said: Vec<&str> = text.lines().filter(|line| line.contains("requests are refused")).collect();
    assert!(
        matches!(said.as_slice(), [one] if one.contains("WARN") && one.contains("setting=\"--limits.max-requests\"")),
        "{text}"
    );

    server.gate.open();
    waiting.await.expect("no panic").expect("its turn");
    client.push_profile(push("a")).await.expect("room again");
    server.metric("afterglow_server_requests_admitted 0").await;
}

/// Goal: a frame that announces 4 GiB is final (OTLP clients retry OUT_OF_RANGE for ever), for calls and for streams.
#[tokio::test]
async fn a_frame_of_four_gigabytes_is_exhausted_and_final() {
    let server = Running::start(Options::default()).await;
    for path in [PUSH_PROFILE, PUSH] {
        let answer = server.send(grpc(path), vec![0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]).await;
        assert_eq!(answer.header("grpc-status"), Some("8"), "{path}");
        let message = answer.header("grpc-message").expect("a text").replace("%20", " ");
        assert_eq!(message, "message 4 GiB exceeds max_body 32 MiB (--limits.max-body)", "{path}");
        assert_eq!(answer.header("grpc-status-details-bin"), None, "{path}: a delay would make clients retry");
    }
}

/// Goal: what is small on the wire and large in memory is refused alike.
#[tokio::test]
async fn a_compressed_message_is_bounded_by_what_it_inflates_to() {
    let server = Running::start(limits(|limits| limits.body_bytes_max = ByteSize::mib(1))).await;
    let mut client = server.ingest().await.send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let status = client.push_profile(push(&"a".repeat(4 << 20))).await.expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.get_details_retry_info().is_none());
    client.push_profile(push(&"a".repeat(1 << 20))).await.expect("within the limit");
}

#[tokio::test]
async fn an_unknown_grpc_encoding_is_unimplemented_and_names_the_known() {
    let server = Running::start(Options::default()).await;
    let request = grpc(PUSH_PROFILE).header("grpc-encoding", "snappy");
    let answer = server.send(request, framed(&push("a").encode_to_vec())).await;
    assert_eq!(answer.header("grpc-status"), Some("12"));
    let accepted = answer.header("grpc-accept-encoding").expect("what would do");
    assert!(accepted.contains("gzip") && accepted.contains("identity"), "{accepted}");
}

/// Goal: 413 as early as it can be known, with the limit and its flag.
#[tokio::test]
async fn bodies_beyond_the_limit_are_refused() {
    let server = Running::start(limits(|limits| limits.body_bytes_max = ByteSize::kib(64))).await;
    assert_eq!(server.send(Request::post("/echo"), vec![b'a'; 64 << 10]).await.status, 200);

    let announced = server.send(Request::post("/echo"), vec![b'a'; 70_000]).await;
    assert_eq!(announced.status, 413);
    insta::assert_snapshot!(
        announced.text(),
        @r#"{"error":{"code":"RESOURCE_EXHAUSTED","message":"body 68.4 KiB exceeds max_body 64 KiB (--limits.max-body)","details":[]}}"#
    );

    let parts = (0..9).map(|_| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(vec![b'a'; 8 << 10]))));
    let body = StreamBody::new(futures::stream::iter(parts)).boxed_unsync();
    let chunked = server.try_send(Request::post("/echo"), body).await.expect("an answer");
    assert_eq!(chunked.status, 413);
    assert!(chunked.text().contains("body exceeds max_body 64 KiB (--limits.max-body)"), "{}", chunked.text());
}

/// Goal: a client that writes all it has before it reads anything gets its refusal and no broken pipe, whoever refused.
#[tokio::test]
async fn a_refusal_reaches_who_is_still_sending() {
    for (max, path, status) in [(ByteSize::kib(64), "/echo", "413"), (ByteSize::mib(32), "/nothing", "404")] {
        let server = Running::start(limits(|limits| limits.body_bytes_max = max)).await;
        for length in [70_000, 8 << 20] {
            let mut stream = TcpStream::connect(server.address).await.expect("a connection");
            let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("a head");
            // In pieces and slowly enough for the answer to be on its way long before the last one.
            for piece in vec![b'a'; length].chunks(1 << 20) {
                stream.write_all(piece).await.unwrap_or_else(|error| panic!("{path} with {length} bytes: {error}"));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let mut answer = vec![0; 12];
            stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{path} with {length} bytes");
        }
    }
}

/// Goal: nor does it by HTTP/2 get a reset, which many clients take for a failure; what it has is read.
#[tokio::test]
async fn a_refusal_by_http2_comes_without_a_reset() {
    let server = Running::start(Options::default()).await;
    let (ended, mut has_ended) = tokio::sync::mpsc::channel::<()>(1);
    // Many times the window of a stream, so that a reset would come before the end.
    let pieces = (0..64).map(|_| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(vec![b'a'; 64 << 10]))));
    let all = pieces.chain(std::iter::from_fn(move || {
        let _ = ended.try_send(());
        None
    }));
    let request = Request::post("/nothing").version(Version::HTTP_2);
    let answer =
        server.try_send(request, StreamBody::new(futures::stream::iter(all)).boxed_unsync()).await.expect("an answer");
    assert_eq!(answer.status, 404);
    let all_was_read = tokio::time::timeout(PATIENCE, has_ended.recv()).await.expect("it ends in time");
    assert!(all_was_read.is_some(), "the stream was reset before all was sent");
}

#[tokio::test]
async fn the_deadline_of_a_caller_is_kept() {
    let server = Running::start(Options::default()).await;
    // Written by hand, for tonic's own client would give up by itself.
    let request = grpc(PUSH_PROFILE).header("grpc-timeout", "50m");
    let answer = server.send(request, framed(&push("wait").encode_to_vec())).await;
    assert_eq!(answer.header("grpc-status"), Some("4"));
    assert_eq!(answer.header("grpc-message"), Some("the%20deadline%20of%20the%20caller%20has%20passed"));

    let request = grpc(PUSH_PROFILE).header("grpc-timeout", "soon");
    let answer = server.send(request, framed(&push("a").encode_to_vec())).await;
    assert_eq!(answer.header("grpc-status"), Some("3"));
}

/// Goal: a caller's deadline ends a stream, too, with a status.
#[tokio::test]
async fn the_deadline_of_a_caller_ends_a_stream() {
    let server = Running::start(Options::default()).await;
    let mut request = tonic::Request::new(futures::stream::pending::<PushRequest>());
    request.metadata_mut().insert("grpc-timeout", "100m".parse().expect("a value"));
    let mut client = server.ingest().await;
    let mut answers = client.push(request).await.expect("a stream").into_inner();
    let ended = tokio::time::timeout(PATIENCE, answers.message()).await.expect("ends in time");
    let status = ended.expect_err("the deadline");
    // tonic's client may notice first, and says so in its own words.
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    server.metric(&requests("grpc", "POST", PUSH, "DEADLINE_EXCEEDED", 1)).await;
}

#[tokio::test]
async fn an_answer_that_does_not_begin_is_timed_out() {
    let server = Running::start(limits(|limits| limits.request_timeout = Duration::from_millis(50))).await;
    let answer = server.get("/wait").await;
    assert_eq!(answer.status, 408);
    assert!(answer.text().contains("no answer within 50ms (--limits.request-timeout)"), "{}", answer.text());
    let status = server.ingest().await.push_profile(push("wait")).await.expect_err("too slow");
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn requests_are_named_and_browsers_kept_safe() {
    let server = Running::start(Options::default()).await;
    let answer = server.send(Request::get("/things/1").header("x-request-id", "mine-1"), "").await;
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    let policy = "default-src 'self'; object-src 'none'; frame-ancestors 'self'; base-uri 'none'";
    assert_eq!(answer.header("content-security-policy"), Some(policy));
    let answer = server.send(Request::get("/things/1").header("x-request-id", "not sane"), "").await;
    assert_eq!(answer.header("x-request-id").map(str::len), Some(32));

    let response = server.ingest().await.push_profile(push("a")).await.expect("pushed");
    assert!(response.metadata().contains_key("x-request-id"));
    assert!(!response.metadata().contains_key("content-security-policy"));
}

#[tokio::test]
async fn json_is_compressed_for_those_who_ask_and_pprof_never() {
    let server = Running::start(Options::default()).await;
    let ask = |path: &str| Request::get(path).header("accept-encoding", "gzip");
    let json = server.send(ask("/json"), "").await;
    assert_eq!(json.header("content-encoding"), Some("gzip"));
    assert!(json.body.len() < 1000 && json.body.starts_with(b"\x1f\x8b"));
    let length = json.body.len().to_string();
    assert_eq!(
        json.header("content-length"),
        Some(&*length),
        "it is compressed whole, and what compresses does not wait for the client"
    );
    assert_eq!(server.get("/json").await.header("content-encoding"), None);
    let pprof = server.send(ask("/pprof"), "").await;
    assert_eq!((pprof.header("content-encoding"), pprof.body.len()), (None, 10_000));
}

/// Goal: whatever is sent, the number of series stays that of the routes.
#[tokio::test]
async fn labels_of_metrics_are_bounded() {
    let server = Running::start(Options::default()).await;
    for path in ["/things/1", "/things/2", "/things/3"] {
        assert_eq!(server.get(path).await.status, 200);
    }
    for path in ["/nothing/1", "/nothing/2"] {
        assert_eq!(server.get(path).await.status, 404);
        assert_eq!(server.send(grpc(path), "").await.header("grpc-status"), Some("12"));
    }
    let unknown = server.send(grpc("/afterglow.v1.IngestService/Steal"), "").await;
    assert_eq!(unknown.header("grpc-status"), Some("12"));
    let brew = Method::from_bytes(b"BREW").expect("a method");
    assert_eq!(server.send(Request::builder().method(brew).uri("/things/1"), "").await.status, 405);

    for (protocol, method, route, code, count) in [
        ("http", "GET", "/things/{id}", "200", 3),
        ("http", "GET", "unmatched", "404", 2),
        ("http", "other", "/things/{id}", "405", 1),
        ("grpc", "POST", "unmatched", "UNIMPLEMENTED", 3),
    ] {
        server.metric(&requests(protocol, method, route, code, count)).await;
    }
    server.metric("afterglow_server_requests_in_flight{protocol=\"http\"} 0").await;
}

/// Goal: a client that hangs up is counted as that, not as a success or a fault.
#[tokio::test]
async fn a_client_that_is_gone_is_counted_as_gone() {
    let server = Running::start(Options::default()).await;
    let mut client = server.ingest().await;
    let call = tokio::spawn(async move { client.push_profile(push("wait")).await.map(tonic::Response::into_inner) });
    server.gate.arrival().await;
    call.abort();
    let aborted: Result<Result<PushProfileResponse, _>, _> = call.await;
    assert!(aborted.is_err());
    server.metric(&requests("grpc", "POST", PUSH_PROFILE, "CANCELLED", 1)).await;
}

/// Goal: logs can be kept at info under load: nothing for what goes well, one line for what does not.
#[tokio::test]
async fn a_request_is_one_info_line_at_most() {
    let lines = Lines::capture();
    let server = Running::start(Options::default()).await;
    server.get("/things/1").await;
    server.send(Request::get("/nothing").header("x-request-id", "lost-1"), "").await;
    server.get("/fail").await;
    server.metric("afterglow_server_requests_in_flight{protocol=\"http\"} 0").await;
    let text = lines.text();
    let of_requests: Vec<&str> =
        text.lines().filter(|line| line.contains("afterglow_service::stack") && !line.contains("DEBUG")).collect();
    assert_eq!(of_requests.len(), 2, "{text}");
    assert!(of_requests[0].contains("request_id=\"lost-1\"") && of_requests[0].contains("code=\"404\""), "{text}");
    assert!(of_requests[1].contains("INFO") && of_requests[1].contains("code=\"503\""), "{text}");
}

/// Goal: a line that stands in the log says of what it is. What is for operators has its span at DEBUG alone.
#[tokio::test]
async fn what_operators_ask_in_vain_is_no_info_line() {
    let lines = Lines::capture();
    let server = Running::start(Options::default()).await;
    assert_eq!(server.get("/debug/pprof/heap").await.status, 501);
    server.metric("afterglow_server_requests_in_flight{protocol=\"http\"} 0").await;
    let text = lines.text();
    let said: Vec<&str> = text.lines().filter(|line| line.contains("request not served")).collect();
    assert!(
        matches!(said[..], [line] if line.contains("DEBUG") && line.contains("route=\"/debug/pprof/heap\"")),
        "{text}"
    );
}

/// Goal: who asks in vain all the time fills no disk, and hides nobody whose request fails otherwise.
#[tokio::test]
async fn lines_about_requests_that_are_not_served_are_bounded() {
    let lines = Lines::capture();
    let server = Running::start(Options::default()).await;
    for _ in 0..50 {
        server.get("/nothing").await;
    }
    server.get("/fail").await;
    server.metric(&requests("http", "GET", "/fail", "503", 1)).await;
    let text = lines.text();
    let of_code = |code: &str| text.lines().filter(|line| line.contains("not served") && line.contains(code)).count();
    assert!((10..=20).contains(&of_code("code=\"404\"")), "ten in ten seconds: {text}");
    assert_eq!(of_code("code=\"503\""), 1, "{text}");
    assert!(text.lines().any(|line| line.contains("code=\"503\"") && !line.contains("left_out=0")), "{text}");
}

/// Goal: who calls by Connect reads every refusal as one of Connect's, whichever layer it is of.
#[tokio::test]
async fn refusals_of_calls_by_connect_are_connect_s() {
    let server = Running::start(limits(|limits| {
        limits.body_bytes_max = ByteSize(100);
        limits.request_timeout = Duration::from_millis(500);
    }))
    .await;
    let ask = async |method: Method, name: &str, timeout: Option<&str>, body: &'static [u8]| {
        let mut request = Request::builder().method(method).uri(format!("/test.v1.Things/{name}"));
        if let Some(timeout) = timeout {
            request = request.header("connect-timeout-ms", timeout);
        }
        let answer = server.send(request, body).await;
        assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text());
        let error: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let message = error["message"].as_str().expect("a text").to_owned();
        (answer, error["code"].as_str().expect("a code").to_owned(), message, error["details"].clone())
    };

    let (answer, code, message, details) = ask(Method::POST, "Fail", None, b"").await;
    assert_eq!((answer.status, &*code, &*message), (503, "unavailable", "store is down"));
    assert_eq!(answer.header("retry-after"), Some("2"));
    // RetryInfo of two seconds: field 1, a Duration whose field 1 is 2.
    assert_eq!(details, serde_json::json!([{"type": "google.rpc.RetryInfo", "value": "CgIIAg"}]));
    assert!(answer.header("x-request-id").is_some());
    let (answer, code, message, details) = ask(Method::POST, "Echo", None, &[b'a'; 101]).await;
    assert_eq!((answer.status, &*code, details), (429, "resource_exhausted", serde_json::Value::Null));
    assert_eq!(message, "body 101 B exceeds max_body 100 B (--limits.max-body)");
    assert_eq!(answer.header("retry-after"), None, "it would be too large again");
    let (answer, code, message, _) = ask(Method::POST, "Wait", Some("50"), b"").await;
    assert_eq!((answer.status, &*code, &*message), (504, "deadline_exceeded", "the deadline of the caller has passed"));
    let (answer, code, message, _) = ask(Method::POST, "Wait", None, b"").await;
    assert_eq!((answer.status, &*code), (504, "deadline_exceeded"));
    assert_eq!(message, "no answer within 500ms (--limits.request-timeout)");
    let (answer, code, ..) = ask(Method::POST, "Wait", Some("soon"), b"").await;
    assert_eq!((answer.status, &*code), (400, "invalid_argument"));
    let (answer, code, message, _) = ask(Method::POST, "Steal", None, b"").await;
    assert_eq!((answer.status, &*code, &*message), (501, "unimplemented", "there is no method /test.v1.Things/Steal"));
    let (answer, code, ..) = ask(Method::GET, "Fail", None, b"").await;
    assert_eq!((answer.status, &*code), (405, "unimplemented"));

    assert_eq!(server.send(Request::post("/test.v1.Things/Echo"), "as it is").await.text(), "as it is");
    let answer = server.get("/fail").await;
    assert!(answer.text().starts_with("{\"error\":"), "others are told as before: {}", answer.text());
}
