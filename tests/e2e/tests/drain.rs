//! SIGTERM with much in flight and with clients that are stuck: what is in flight is acknowledged or refused, it ends in ten seconds all the
//! same, and each client hears why.

#![allow(clippy::print_stdout, reason = "the figures are for who asks with --nocapture")]

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use afterglow_e2e::{Program, cpu_profile, tiny_profile};
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{Profile, ProfileHeader, PushProfileRequest, PushRequest};
use futures::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use ulid::Ulid;

/// The whole of it, by default.
const END_MAX: Duration = Duration::from_secs(10);

/// Clients that stop in the middle of what they send.
const STUCK: usize = 50;

/// Begins a profile over a stream, and returns what the stream says at last.
async fn begin_and_wait(url: String, begun: std::sync::mpsc::SyncSender<()>) -> (Code, Code) {
    let mut client = IngestServiceClient::connect(url).await.expect("a connection");
    let profile = Profile { labels: [("service".to_owned(), "a".to_owned())].into(), ..Profile::default() };
    let header = ProfileHeader { profile: Some(profile), size: 1_000, ..ProfileHeader::default() };
    let header = PushRequest { seq: 1, part: Some(Part::Header(header)), ..PushRequest::default() };
    // What is refused at once, after it: once that is heard the server has begun to read the first.
    let refused = PushRequest { seq: 2, part: Some(Part::Profile(Profile::default())), ..PushRequest::default() };
    let messages = futures::stream::iter([header, refused]).chain(futures::stream::pending());
    let mut answers = client.push(messages).await.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("an answer").expect("one for what is empty").seq, 2);
    begun.send(()).expect("somebody waits");
    let answer = answers.message().await.expect("an answer").expect("one for the profile");
    let end = answers.message().await.expect_err("the server ends the stream");
    (Code::from(answer.status.expect("a refusal").code), end.code())
}

#[test]
fn sigterm_takes_ten_seconds_at_most_and_the_stuck_are_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().display());
    // As it is by default, which programs under test have not.
    let delay = [("AFTERGLOW_DRAIN_DELAY", "5s")];
    let mut ingester = Program::start("afterglow-ingester", &["--storage", &storage], &delay);
    let mut stuck: Vec<TcpStream> = (0..STUCK)
        .map(|_| {
            let mut stream = TcpStream::connect(ingester.address()).expect("a connection");
            let head =
                "POST /api/v1/profiles?service=a&type=cpu HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nhalf";
            stream.write_all(head.as_bytes()).expect("written");
            stream
        })
        .collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (begun, has_begun) = std::sync::mpsc::sync_channel(1);
    let stream = runtime.spawn(begin_and_wait(ingester.url(), begun));
    has_begun.recv().expect("it begins");

    assert!(ingester.terminate(END_MAX).success());
    for stream in &mut stuck {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("closed, not reset");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: "), "{answer}");
    }
    let told = runtime.block_on(stream).expect("no panic");
    assert_eq!(told, (Code::Unavailable, Code::Unavailable));
}

/// Pushes in flight at SIGTERM, all in all.
const IN_FLIGHT: usize = 1_000;

/// As many of them over HTTP/1.1, a connection each; the others are calls over the connections of gRPC.
const OVER_HTTP: usize = 100;

/// How long a client waits that is told that the server is busy.
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// How many connections of gRPC there are.
const CONNECTIONS: usize = 18;

/// Pushes one profile after the other until the server ends; returns the ids that were acknowledged, and why it ended.
async fn push_until_refused(
    mut client: IngestServiceClient<Channel>,
    acked: Arc<AtomicUsize>,
    body: Arc<[u8]>,
) -> (Vec<String>, Status) {
    let mut ids = Vec::new();
    loop {
        let profile = Some(cpu_profile("in-flight", Ulid::generate(), &body));
        match client.push_profile(PushProfileRequest { profile }).await {
            Ok(answer) => {
                ids.push(answer.into_inner().id);
                acked.fetch_add(1, Ordering::Relaxed);
            }
            // A thousand clients are more than a machine has cores for, and are told so at any time.
            Err(status) if status.code() == Code::ResourceExhausted => tokio::time::sleep(BUSY_WAIT).await,
            Err(status) => return (ids, status),
        }
    }
}

/// P16: whatever is in flight at SIGTERM is acknowledged, and then it is there, or refused in words; no connection is cut, nobody waits.
#[test]
fn what_is_in_flight_at_sigterm_is_acked_or_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().display());
    // Not none: a request that nobody has read when its connection closes has no answer, by which clients would have to be told apart.
    let mut ingester =
        Program::start("afterglow-ingester", &["--storage", &storage], &[("AFTERGLOW_DRAIN_DELAY", "1s")]);
    let body: Arc<[u8]> = tiny_profile("in_flight").into();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let acked = Arc::<AtomicUsize>::default();
    let mut pushers = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = runtime.block_on(IngestServiceClient::connect(ingester.url())).expect("a connection");
        pushers.extend(
            (0..(IN_FLIGHT - OVER_HTTP) / CONNECTIONS)
                .map(|_| runtime.spawn(push_until_refused(client.clone(), Arc::clone(&acked), Arc::clone(&body)))),
        );
    }
    let mut over_http: Vec<TcpStream> =
        (0..OVER_HTTP).map(|_| TcpStream::connect(ingester.address()).expect("a connection")).collect();
    while acked.load(Ordering::Relaxed) < 2 * IN_FLIGHT {
        std::thread::yield_now();
    }
    // All but the last byte of each before, and that after.
    let (before, after) = body.split_at(body.len() - 1);
    for stream in &mut over_http {
        let head = "POST /api/v1/profiles?service=in-flight&type=cpu HTTP/1.1\r\nhost: localhost\r\ncontent-length:";
        let head = format!("{head} {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), before].concat()).expect("written");
    }
    let mut last: Vec<TcpStream> = over_http.iter().map(|stream| stream.try_clone().expect("a handle")).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| last.iter_mut().for_each(|stream| stream.write_all(after).expect("it still listens to these")));
        assert!(ingester.terminate(END_MAX).success());
    });

    let (mut ids, mut refused) = (HashSet::new(), 0);
    for pusher in pushers {
        let (acked, end) = runtime.block_on(pusher).expect("no panic");
        ids.extend(acked);
        // A call that came when nobody listened any more has not begun: there was no connection, the one that it waited for was closed, or it
        // has a number beyond the last that the server said it would serve (RFC 9113, 6.8).
        let cause = format!("{:?}", std::error::Error::source(&end));
        let has_not_begun = ["ConnectError", "Canceled, \"connection closed\"", "GoAway(b\"\", NO_ERROR, Remote)"]
            .iter()
            .any(|known| cause.contains(known));
        let is_told = end.code() == Code::Unavailable && end.get_error_details().retry_info().is_some();
        assert!(has_not_begun || is_told, "cut: {end:?}");
        refused += usize::from(!has_not_begun);
    }
    let (mut acked_over_http, mut refused_over_http) = (0, 0);
    for stream in &mut over_http {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("closed, not reset");
        if answer.starts_with("HTTP/1.1 200") {
            let (_, json) = answer.split_once("\r\n\r\n").expect("a body");
            let json: serde_json::Value = serde_json::from_str(json).expect("an answer is JSON");
            ids.insert(json["id"].as_str().expect("an id").to_owned());
            acked_over_http += 1;
        } else {
            let is_told = answer.starts_with("HTTP/1.1 503") || answer.starts_with("HTTP/1.1 429");
            assert!(is_told && answer.contains("retry-after: "), "{answer:?}");
            refused_over_http += 1;
        }
    }
    println!(
        "{} acknowledged, {acked_over_http} of {OVER_HTTP} over HTTP; refused: {refused} calls, {refused_over_http} over HTTP",
        ids.len()
    );
    let querier = Program::start("afterglow-querier", &["--storage", &storage], &[]);
    let lost = ids.difference(&afterglow_e2e::ids(&querier, "in-flight")).count();
    assert_eq!(lost, 0, "of {}", ids.len());
}
