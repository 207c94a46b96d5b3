//! SIGTERM with clients that are stuck: it ends in ten seconds all the same, and each of them hears why.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use afterglow_e2e::Program;
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{Profile, ProfileHeader, PushRequest};
use futures::StreamExt as _;
use tonic::Code;

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
                "POST /api/v1/profiles?service=a&type=cpu HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nhalf";
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
