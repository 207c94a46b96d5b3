//! Goal: one port serves every protocol, keeps out what would exhaust it, and ends without losing what is under way.

mod abuse;
mod admission;
mod tls;
mod unread;

use super::*;
use crate::testing::{PATIENCE, Running, push};
use afterglow_proto::v1::PushRequest;
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use bytes::Bytes;
use http::{Request, Version};
use http_body::{Body as HttpBody, Frame};
use http_body_util::StreamBody;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::{v1, v1alpha};

#[tokio::test]
async fn one_port_speaks_grpc_http1_and_http2() {
    let server = Running::start(Options::default()).await;
    let pushed = server.ingest().await.push_profile(push("a")).await.expect("gRPC");
    assert_eq!(pushed.into_inner().id, "a");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let answer = server.send(Request::get("/things/1").version(version), "").await;
        assert_eq!((answer.status, answer.version, answer.text()), (200, version, "a thing"));
    }
}

#[tokio::test]
async fn what_every_server_has() {
    let server = Running::start(Options::default()).await;
    for path in ["/healthz", "/-/healthy", "/readyz", "/ready", "/-/ready"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.text()), (200, "ok\n"), "{path}");
    }
    let version = server.get("/version").await;
    assert_eq!(version.text(), r#"{"name":"afterglow-test","version":"1.2.3","revision":"abc"}"#);
    let metrics = server.get("/metrics").await;
    assert!(metrics.header("content-type").expect("a type").starts_with("application/openmetrics-text"));
    assert!(metrics.text().contains("afterglow_server_connections 1\n"), "{}", metrics.text());
    assert!(server.get("/debug/pprof/").await.text().contains("/debug/pprof/heap"));

    let part = server.health.part("store");
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status, answer.text()), (503, "store: starting\n"));
    assert_eq!(server.get("/healthz").await.status, 200, "not ready is not dead");
    part.ready();
    assert_eq!(server.get("/readyz").await.status, 200);
}

/// Goal: refusals of the router look like all others.
#[tokio::test]
async fn no_route_and_no_method() {
    let server = Running::start(Options::default()).await;
    let answer = server.get("/nothing?a=b").await;
    assert_eq!(answer.status, 404);
    insta::assert_snapshot!(
        answer.text(),
        @r#"{"error":{"code":"NOT_FOUND","message":"there is nothing at /nothing","details":[]}}"#
    );
    let answer = server.send(Request::delete("/things/1"), "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")));
    insta::assert_snapshot!(
        answer.text(),
        @r#"{"error":{"code":"UNIMPLEMENTED","message":"method DELETE is not allowed at /things/1","details":[]}}"#
    );
}

async fn health_of(server: &Running, service: &str) -> Result<ServingStatus, tonic::Code> {
    let mut client = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest { service: service.to_owned() };
    client.check(request).await.map(|response| response.into_inner().status()).map_err(|status| status.code())
}

#[tokio::test]
async fn grpc_health_follows_readiness() {
    let server = Running::start(Options::default()).await;
    let mut watch = HealthClient::new(server.channel().await)
        .watch(HealthCheckRequest { service: "afterglow.v1.IngestService".to_owned() })
        .await
        .expect("a stream")
        .into_inner();
    let mut next = async || watch.message().await.expect("no error").as_ref().map(HealthCheckResponse::status);
    assert_eq!(next().await, Some(ServingStatus::Serving));
    assert_eq!(health_of(&server, "").await, Ok(ServingStatus::Serving));
    assert_eq!(health_of(&server, "no.Such").await, Err(tonic::Code::NotFound));
    server.health.part("store").not_ready("probe failed 3 times");
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    assert_eq!(health_of(&server, "").await, Ok(ServingStatus::NotServing));
}

/// Goal: grpcurl, old and new, lists and describes the services that are mounted, and no other.
#[tokio::test]
async fn reflection_in_both_versions() {
    let server = Running::start(Options::default()).await;
    let expected = ["afterglow.v1.IngestService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

    let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1::ServerReflectionRequest { message_request: Some(list), ..Default::default() };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(server.channel().await);
    let mut answers = client.server_reflection_info(futures::stream::iter([request])).await.expect("v1").into_inner();
    let answer = answers.message().await.expect("an answer").expect("one").message_response.expect("a response");
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(expected.iter().all(|name| names.contains(name)), "{names:?}");
    assert!(!names.contains(&"afterglow.v1.QueryService"), "{names:?}");

    let symbol = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(expected[0].to_owned());
    let request = v1alpha::ServerReflectionRequest { message_request: Some(symbol), ..Default::default() };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel().await);
    let mut answers =
        client.server_reflection_info(futures::stream::iter([request])).await.expect("v1alpha").into_inner();
    let answer = answers.message().await.expect("an answer").expect("one").message_response.expect("a response");
    use v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse;
    assert!(matches!(&answer, FileDescriptorResponse(files) if !files.file_descriptor_proto.is_empty()), "{answer:?}");
}

fn drain(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    change(&mut options);
    options
}

/// Goal: what is under way when the server is asked to stop gets its answer; nobody new is let in.
#[tokio::test]
async fn a_request_under_way_outlives_the_stop() {
    let server = Running::start(Options::default()).await;
    let mut client = server.ingest().await;
    let grpc = tokio::spawn(async move { client.push_profile(push("wait")).await });
    let request = server.try_send(Request::get("/wait"), http_body_util::Full::new(Bytes::new()));
    let address = server.address;
    let gate = Arc::clone(&server.gate);
    let (http, ()) = tokio::join!(request, async {
        gate.arrival().await;
        gate.arrival().await;
        server.stop.cancel();
        // The port is closed once the stop is noticed.
        let closed = async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.expect("the port closes");
        assert!(!server.health.readiness().is_ready());
        gate.open();
        gate.open();
    });
    assert_eq!(http.expect("an answer").text(), "waited");
    assert_eq!(grpc.await.expect("no panic").expect("an answer").into_inner().id, "wait");
    assert_eq!(server.end().await, Drained { cut: 0 });
}

/// Goal: who holds a connection open is told to leave it while the server still serves, before he finds it closed.
#[tokio::test]
async fn who_keeps_a_connection_is_told_to_leave_it() {
    let server = Running::start(drain(|options| options.drain.delay = PATIENCE)).await;
    let mut stream = TcpStream::connect(server.address).await.expect("a connection");
    let mut ask = async |last: &str| {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).ends_with(last) {
            assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0, "{}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8(answer).expect("a text")
    };
    assert!(!ask("ok\n").await.contains("connection: close"));
    server.stop.cancel();
    tokio::time::timeout(PATIENCE, async {
        while server.health.readiness().is_ready() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it drains");
    let answer = ask("ok\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    closes(stream).await;
    let http2 = server.try_send(Request::get("/healthz").version(Version::HTTP_2), http_body_util::Empty::new()).await;
    assert_eq!(http2.expect("an answer").header("connection"), None);
}

/// A body of which the rest never comes.
fn half(bytes: &'static [u8]) -> impl HttpBody<Data = Bytes, Error = Infallible> + Send + Unpin + use<> {
    let begin = futures::stream::iter([Ok(Frame::data(Bytes::from_static(bytes)))]);
    StreamBody::new(Box::pin(futures::StreamExt::chain(begin, futures::stream::pending())))
}

/// Goal: who has no answer when the server ends is told to come back, whoever keeps whom waiting, and hears it before the connection ends.
#[tokio::test]
async fn who_has_no_answer_is_told_before_the_end() {
    let server = Running::start(drain(|options| options.drain.timeout = Duration::from_secs(2))).await;
    let mut client = server.ingest().await;
    let waits = tokio::spawn(async move { client.push_profile(push("wait")).await });
    let mut http1 = TcpStream::connect(server.address).await.expect("a connection");
    http1
        .write_all(b"POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf")
        .await
        .expect("written");
    let http2 = server.try_send(Request::post("/echo").version(Version::HTTP_2), half(b"half"));
    let grpc = Request::post("/afterglow.v1.IngestService/PushProfile").version(Version::HTTP_2);
    let grpc = grpc.header("content-type", "application/grpc").header("te", "trailers");
    let grpc = server.try_send(grpc, half(b"\0\0\0\0\x0ahalf"));
    let stop = async {
        server.metric(r#"afterglow_server_requests_in_flight{protocol="http"} 2"#).await;
        server.metric(r#"afterglow_server_requests_in_flight{protocol="grpc"} 2"#).await;
        server.stop.cancel();
    };
    let (http2, grpc, ()) = tokio::join!(http2, grpc, stop);

    let http2 = http2.expect("an answer");
    assert_eq!((http2.status, http2.header("retry-after").is_some()), (503, true), "{http2:?}");
    let grpc = grpc.expect("an answer");
    assert_eq!(grpc.header("grpc-status"), Some("14"), "{grpc:?}");
    assert!(grpc.header("grpc-status-details-bin").is_some(), "when to come back: {grpc:?}");
    let status = waits.await.expect("no panic").expect_err("nobody opened the gate");
    assert_eq!((status.code(), status.details().is_empty()), (tonic::Code::Unavailable, false), "{status:?}");
    let mut answer = String::new();
    let whole = tokio::time::timeout(PATIENCE, http1.read_to_string(&mut answer)).await.expect("closed in time");
    whole.expect("closed, not reset");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: "), "{answer}");
    // Whether a connection has closed by itself before it is cut is a matter of milliseconds here.
    server.end().await;
}

/// Goal: who never says what it wants is not waited for.
#[tokio::test]
async fn what_does_not_end_is_cut() {
    let server = Running::start(drain(|options| options.drain.timeout = Duration::from_millis(100))).await;
    let mut stream = TcpStream::connect(server.address).await.expect("a connection");
    stream.write_all(b"GET /things/1 HTTP/1.1\r\nhos").await.expect("written");
    server.metric("afterglow_server_connections 1").await;
    server.stop.cancel();
    assert_eq!(server.end().await, Drained { cut: 1 });
    closes(stream).await;
}

/// Goal: the time that an operator gives is that of the whole end.
#[test]
fn a_delay_has_to_leave_time_to_drain() {
    let problems = |delay: u64, timeout: u64| {
        let drain = Drain { delay: Duration::from_secs(delay), timeout: Duration::from_secs(timeout) };
        let options = Options { drain, ..Options::default() };
        options.problems(([127, 0, 0, 1], 0).into())
    };
    assert_eq!(problems(0, 0), [""; 0]);
    assert_eq!(problems(5, 10), [""; 0]);
    let found = problems(9, 10);
    let want = "drain-delay 9s leaves no time to end what is under way: drain-timeout 10s counts from the signal, too";
    assert_eq!(found, [want]);
}

/// Goal: load balancers see the server go before it goes.
#[tokio::test]
async fn before_it_drains_it_serves_without_being_ready() {
    let server = Running::start(drain(|options| options.drain.delay = Duration::from_millis(500))).await;
    let mut client = server.ingest().await;
    server.stop.cancel();
    let unready = async { while server.get("/readyz").await.status == 200 {} };
    tokio::time::timeout(PATIENCE, unready).await.expect("not ready in time");
    client.push_profile(push("a")).await.expect("still serving");
    drop(client);
    assert_eq!(server.end().await, Drained { cut: 0 });
}

/// Goal: streams that would go on for ever hear of the end and do not hold it up: a push stream ends itself, Watch is
/// ended.
#[tokio::test]
async fn endless_streams_end_with_the_server() {
    let server = Running::start(Options::default()).await;
    let mut watch = HealthClient::new(server.channel().await)
        .watch(HealthCheckRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    assert_eq!(watch.message().await.expect("no error").expect("an answer").status(), ServingStatus::Serving);
    let endless = futures::stream::StreamExt::chain(
        futures::stream::iter([PushRequest { seq: 7, ..PushRequest::default() }]),
        futures::stream::pending(),
    );
    let mut push = server.ingest().await.push(endless).await.expect("a stream").into_inner();
    assert_eq!(push.message().await.expect("no error").expect("an answer").seq, 7);

    server.stop.cancel();
    assert_eq!(push.message().await.expect("ended well"), None);
    let last = watch.message().await;
    let last = if matches!(&last, Ok(Some(answer)) if answer.status() == ServingStatus::NotServing) {
        watch.message().await
    } else {
        last
    };
    assert_eq!(last.expect_err("ended").code(), tonic::Code::Unavailable);
    assert_eq!(server.end().await, Drained { cut: 0 });
}

/// Goal: an old connection is asked to end and its client moves on without an error.
#[tokio::test]
async fn connections_end_of_age() {
    let server = Running::start(drain(|options| options.limits.connection_age_max = Duration::from_millis(100))).await;
    let mut client = server.ingest().await;
    let mut push_stream = client.push(futures::stream::pending::<PushRequest>()).await.expect("a stream").into_inner();
    let ended = tokio::time::timeout(PATIENCE, push_stream.message()).await.expect("ends of age");
    assert_eq!(ended.expect("ended well"), None);
    // tonic's client opens the next connection by itself.
    client.push_profile(push("a")).await.expect("a new connection");
    server.metric("afterglow_server_connections_accepted_total 2").await;
}

async fn closes(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed in time");
}

/// Goal: a connection that does not say what it wants does not stay.
#[tokio::test]
async fn slow_beginnings_are_closed() {
    let server = Running::start(drain(|options| options.limits.header_timeout = Duration::from_millis(100))).await;
    for beginning in ["", "PRI * HTT", "GET / HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.expect("a connection");
        stream.write_all(beginning.as_bytes()).await.expect("written");
        closes(stream).await;
    }
    server.metric("afterglow_server_connections 0").await;
}

/// Goal: connections beyond the limit wait in the system's queue and are served when one ends.
#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let server = Running::start(drain(|options| options.limits.connections_max = 1)).await;
    let mut first = TcpStream::connect(server.address).await.expect("a connection");
    first.write_all(b"GET /wait HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
    server.gate.arrival().await;
    let mut second = TcpStream::connect(server.address).await.expect("queued by the system");
    second.write_all(b"GET /things/1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.expect("written");
    let mut answer = String::new();
    let early = tokio::time::timeout(Duration::from_millis(100), second.read_to_string(&mut answer)).await;
    assert!(early.is_err(), "{answer}");
    server.metric("afterglow_server_connections_accepted_total 1").await;
    drop(first);
    let late = tokio::time::timeout(PATIENCE, second.read_to_string(&mut answer)).await;
    late.expect("served in time").expect("read");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

/// Goal: who holds all connections and says nothing on them keeps nobody out; what is under way on one is answered all the same.
#[tokio::test]
async fn silent_connections_make_room() {
    let server = Running::start(drain(|options| options.limits.connections_max = 3)).await;
    let connect = async || TcpStream::connect(server.address).await.expect("a connection");
    let mut busy = connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
    server.gate.arrival().await;
    let _silent = [connect().await, connect().await];
    let mut answer = String::new();
    for _ in 0..3 {
        let mut probe = connect().await;
        probe
            .write_all(b"GET /things/1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .expect("written");
        answer.clear();
        tokio::time::timeout(PATIENCE, probe.read_to_string(&mut answer)).await.expect("let in").expect("read");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    let metrics = server.metrics.text().expect("text");
    assert!(!metrics.contains("afterglow_server_connections_displaced_total 0\n"), "{metrics}");
    server.gate.open();
    answer.clear();
    tokio::time::timeout(PATIENCE, busy.read_to_string(&mut answer)).await.expect("answered").expect("read");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let server = Running::start(Options::default()).await;
    let error = bind(server.address).await.expect_err("taken");
    assert_eq!(error.to_string(), format!("cannot listen on {}", server.address));
}
