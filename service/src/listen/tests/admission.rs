//! Goal: who is sent back by the head of a call learns all that it needs, and neither it nor others lose anything else by it.

use std::sync::atomic::Ordering;

use http::StatusCode;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;

const PUSH_PROFILE: &str = "/afterglow.v1.IngestService/PushProfile";

fn window(bytes: u64) -> Options {
    drain(|options| options.limits.stream_window = ByteSize(bytes))
}

/// Goal: hundreds of large calls, sent back at once, leave the connection to those that are under way on it; h2 ends one after 256 frames for
/// streams that it has forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_sent_back_and_the_connection_lives_on() {
    let server = Running::start(window(16 << 10)).await;
    let client = server.ingest().await;
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { client.push_profile(push("wait")).await }
    });
    server.gate.arrival().await;

    server.full.store(true, Ordering::SeqCst);
    let large = push(&"a".repeat(200 << 10));
    let (mut delays, mut ids) = (Vec::new(), std::collections::HashSet::new());
    for _ in 0..8 {
        let calls = (0..128).map(|_| {
            let (mut client, large) = (client.clone(), large.clone());
            async move { client.push_profile(large).await }
        });
        for outcome in futures::future::join_all(calls).await {
            let status = outcome.expect_err("there is no room");
            assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "no room"), "{status}");
            let id = status.metadata().get("x-request-id").expect("an id").to_str().expect("ASCII");
            assert!(id.len() == 32 && ids.insert(id.to_owned()), "{id} is a fresh one");
            delays.push(status.get_details_retry_info().and_then(|info| info.retry_delay).expect("a delay"));
        }
    }
    assert!(delays.iter().all(|delay| (Duration::from_secs(2)..Duration::from_secs(4)).contains(delay)), "{delays:?}");
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 8, "they do not all come back together: {delays:?}");

    server.gate.open();
    waiting.await.expect("no panic").expect("it was let in");
    server.full.store(false, Ordering::SeqCst);
    client.clone().push_profile(push("a")).await.expect("there is room again");
    server.metric("afterglow_server_connections_accepted_total 1").await;
    let labels = format!("protocol=\"grpc\",method=\"POST\",route=\"{PUSH_PROFILE}\"");
    server.metric(&format!("afterglow_server_requests_total{{{labels},code=\"RESOURCE_EXHAUSTED\"}} 1024")).await;
    server.metric(&format!("afterglow_server_request_seconds_count{{{labels}}} 1026")).await;
}

/// Goal: the answer is a head and nothing else, and comes soon though the body does not.
#[tokio::test]
async fn the_answer_is_a_head_and_does_not_wait_for_a_body_that_is_slow() {
    let server = Running::start(Options::default()).await;
    server.full.store(true, Ordering::SeqCst);
    let call = Request::post(PUSH_PROFILE).version(Version::HTTP_2).header("content-type", "application/grpc");
    let call = call.header("x-request-id", "mine-1");
    let slow = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, io::Error>>());
    let slow = http_body_util::BodyExt::boxed_unsync(slow);
    let answer =
        tokio::time::timeout(PATIENCE, server.try_send(call, slow)).await.expect("in time").expect("an answer");
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("8")));
    assert!(answer.header("grpc-status-details-bin").is_some() && answer.body.is_empty());
    assert_eq!(answer.header("x-request-id"), Some("mine-1"), "the client's own");
}

/// Goal: only what is asked about is sent back; and once the server drains all are told the same.
#[tokio::test]
async fn others_are_let_in() {
    let server = Running::start(Options::default()).await;
    server.full.store(true, Ordering::SeqCst);
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let answer = server.send(Request::get("/things/1").version(version), "").await;
        assert_eq!(answer.status, StatusCode::OK, "{version:?}");
    }
    let push_stream = futures::stream::iter([PushRequest { seq: 7, ..PushRequest::default() }]);
    let mut answers = server.ingest().await.push(push_stream).await.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("no error").expect("an answer").seq, 7);
}
