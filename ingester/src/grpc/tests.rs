//! The service over its own body and codec, without sockets, in paused time: what takes 30 s takes none.

use std::time::Duration;

use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{ProfileChunk, ProfileHeader};
use afterglow_store::testing::faults::{Operation, Trouble};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::*;
use crate::testing::{Harness, id, pprof};

const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The default.
const STALL_MAX: Duration = Duration::from_secs(30);

/// A client's end of a stream.
struct Stream {
    messages: mpsc::Sender<PushRequest>,
    answers: Streaming<PushResponse>,
}

impl Stream {
    async fn open(harness: &Harness) -> Self {
        let (messages, receiver) = mpsc::channel(1_000);
        let mut client = IngestServiceClient::new(service(harness.ingest.clone(), MESSAGE_BYTES_MAX));
        let answers = client.push(ReceiverStream::new(receiver)).await.expect("a stream").into_inner();
        Self { messages, answers }
    }

    async fn send(&self, seq: u64, part: Part) {
        self.messages
            .send(PushRequest { seq, part: Some(part), ..PushRequest::default() })
            .await
            .expect("the stream is read");
    }

    async fn answer(&mut self) -> PushResponse {
        self.answers.message().await.expect("the stream goes on").expect("the stream goes on")
    }

    /// Reads the answers that are left, and the status at the end.
    async fn rest(mut self) -> (Vec<PushResponse>, Code) {
        drop(self.messages);
        let mut answers = Vec::new();
        loop {
            match self.answers.message().await {
                Ok(Some(answer)) => answers.push(answer),
                Ok(None) => return (answers, Code::Ok),
                Err(status) => return (answers, status.code()),
            }
        }
    }
}

fn profile(id: String, pprof: impl Into<Bytes>) -> Profile {
    let labels = [("service".to_owned(), "api".to_owned())].into();
    Profile { id, r#type: "cpu".to_owned(), labels, pprof: pprof.into(), ..Profile::default() }
}

fn whole(pprof: impl Into<Bytes>) -> Part {
    Part::Profile(profile(String::new(), pprof))
}

fn header(size: u64) -> Part {
    let profile = profile(String::new(), Bytes::new());
    Part::Header(ProfileHeader { profile: Some(profile), size, sha256: Bytes::new() })
}

fn chunk(data: impl Into<Bytes>) -> Part {
    Part::Chunk(ProfileChunk { data: data.into() })
}

fn code(answer: &PushResponse) -> Code {
    answer.status.as_ref().map_or(Code::Ok, |status| Code::from(status.code))
}

/// Goal: an answer comes when its outcome is known, not in its turn.
#[tokio::test(start_paused = true)]
async fn answers_come_as_they_are_known() {
    let harness = Harness::new(&[]);
    let mut stream = Stream::open(&harness).await;
    stream.send(1, whole(pprof(1))).await;
    stream.send(2, whole("<html>")).await;
    stream.send(3, whole(pprof(3))).await;
    let refused = stream.answer().await;
    assert_eq!((refused.seq, code(&refused)), (2, Code::InvalidArgument));
    let (answers, end) = stream.rest().await;
    let mut seqs: Vec<_> = answers.iter().map(|answer| (answer.seq, code(answer))).collect();
    seqs.sort_unstable_by_key(|(seq, _)| *seq);
    assert_eq!((seqs, end), (vec![(1, Code::Ok), (3, Code::Ok)], Code::Ok));
    assert_eq!(harness.store.count(Operation::Put), 1);
}

/// Goal: profiles in chunks may interleave with each other and with whole ones.
#[tokio::test(start_paused = true)]
async fn chunks_interleave() {
    let harness = Harness::new(&[]);
    let mut stream = Stream::open(&harness).await;
    let bodies = [1, 2].map(|n| Bytes::from(pprof(n)));
    for (seq, body) in (1..).zip(&bodies) {
        stream.send(seq, header(body.len() as u64)).await;
    }
    for at in (0..bodies[0].len()).step_by(7) {
        for (seq, body) in (1..).zip(&bodies) {
            stream.send(seq, chunk(body.slice(at..body.len().min(at + 7)))).await;
        }
    }
    stream.send(3, whole(pprof(3))).await;
    for _ in 0..3 {
        assert_eq!(code(&stream.answer().await), Code::Ok);
    }
    assert_eq!(harness.ingest.budget().bytes_held(), 0);
}

/// Goal: who stops in the middle of a profile loses that profile, after 30 s, and nothing else.
#[tokio::test(start_paused = true)]
async fn a_profile_that_stalls_is_given_up() {
    let harness = Harness::new(&[]);
    let mut stream = Stream::open(&harness).await;
    let start = Instant::now();
    stream.send(1, header(1_000)).await;
    sleep(STALL_MAX / 2).await;
    stream.send(1, chunk("abc")).await;
    stream.send(2, whole(pprof(2))).await;
    assert_eq!(stream.answer().await.seq, 2);
    let stalled = stream.answer().await;
    assert_eq!((stalled.seq, code(&stalled)), (1, Code::DeadlineExceeded));
    assert_eq!(start.elapsed().as_secs(), (STALL_MAX + STALL_MAX / 2).as_secs());
    assert_eq!(harness.ingest.budget().bytes_held(), 0);
    stream.send(1, chunk("a late one")).await;
    stream.send(3, whole(pprof(3))).await;
    assert_eq!(stream.answer().await.seq, 3, "the late chunk has no answer of its own");
}

/// Goal: a stream takes no more than its share; what is not read waits at the sender's end, and all of it comes
/// through.
#[tokio::test(start_paused = true)]
async fn a_stream_is_read_no_faster_than_it_is_answered() {
    let harness = Harness::new(&[]);
    harness.store.always(Operation::Put, Trouble::Slow(Duration::from_secs(1)));
    let stream = Stream::open(&harness).await;
    for seq in 0..600 {
        stream.send(seq, whole(pprof(seq as i64))).await;
    }
    let mut most = 0;
    let watch = async {
        loop {
            most = most.max(harness.ingest.in_flight());
            sleep(Duration::from_millis(10)).await;
        }
    };
    let (answers, end) = tokio::select! {
        rest = stream.rest() => rest,
        () = watch => unreachable!("it watches for ever"),
    };
    assert_eq!((answers.len(), end), (600, Code::Ok));
    assert!(answers.iter().all(|answer| code(answer) == Code::Ok));
    assert!(most <= 256, "{most} under way");
}

/// Goal: a message that finds no bytes in the budget is refused with a delay, and the stream goes on.
#[tokio::test(start_paused = true)]
async fn a_stream_survives_the_budget() {
    let harness = Harness::new(&["--memory-budget=64KiB"]);
    let mut stream = Stream::open(&harness).await;
    let taken = harness.ingest.budget().acquire(31 << 10).await.expect("an empty budget");
    stream.send(7, whole(vec![0; 20 << 10])).await;
    let refused = stream.answer().await;
    assert_eq!((refused.seq, code(&refused)), (7, Code::ResourceExhausted));
    let status = refused.status.expect("a status");
    assert_eq!(status.message, "ingester is at its memory budget of 64 KiB (--memory-budget)");
    assert_eq!(status.details.len(), 1, "a delay");
    stream.send(8, header(20 << 10)).await;
    assert_eq!(code(&stream.answer().await), Code::ResourceExhausted);
    drop(taken);
    stream.send(9, whole(pprof(9))).await;
    assert_eq!(code(&stream.answer().await), Code::Ok);
}

/// Goal: a drain answers what is under way, refuses what is half here and ends the stream, so that its client goes
/// elsewhere.
#[tokio::test(start_paused = true)]
async fn a_drain_answers_and_ends_the_stream() {
    let harness = Harness::new(&["--flush-interval=4s"]);
    let mut stream = Stream::open(&harness).await;
    stream.send(1_000, header(10)).await;
    for seq in 0..100 {
        stream.send(seq, whole(pprof(seq as i64))).await;
    }
    let drain = async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(harness.ingest.in_flight(), 100);
        harness.ingest.drain().await;
    };
    let mut answers = Vec::new();
    let read = async {
        loop {
            match stream.answers.message().await {
                Ok(answer) => answers.push(answer.expect("it does not end well")),
                Err(status) => return status,
            }
        }
    };
    let start = Instant::now();
    let (status, ()) = tokio::join!(read, drain);
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "server is shutting down"));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let (good, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| code(answer) == Code::Ok);
    assert_eq!(good.len(), 100);
    assert_eq!(
        refused.iter().map(|answer| (answer.seq, code(answer))).collect::<Vec<_>>(),
        [(1_000, Code::Unavailable)]
    );
}

/// Goal: a client that goes away takes nothing along that was in a segment, and leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let harness = Harness::new(&["--flush-interval=1s"]);
    let stream = Stream::open(&harness).await;
    stream.send(1, Part::Profile(profile(id(1), pprof(1)))).await;
    stream.send(2, header(1_000)).await;
    let read = timeout(Duration::from_millis(500), stream.rest()).await;
    assert!(read.is_err(), "it went away before the tick");
    sleep(Duration::from_secs(1)).await;
    assert_eq!((harness.ingest.budget().bytes_held(), harness.ingest.in_flight()), (0, 0));
    assert!(harness.push(id(1), pprof(1)).await.expect("a good profile").duplicate);
}

/// Goal: a client that begins profiles and does not complete them is told, before it holds much.
#[tokio::test(start_paused = true)]
async fn only_so_many_profiles_may_be_begun() {
    let harness = Harness::new(&[]);
    let mut stream = Stream::open(&harness).await;
    for seq in 0..65 {
        stream.send(seq, header(10)).await;
    }
    let refused = stream.answer().await;
    assert_eq!((refused.seq, code(&refused)), (64, Code::InvalidArgument));
    let message = refused.status.expect("a status").message;
    assert_eq!(message, "64 profiles of the stream are begun and not complete");
}

/// Goal: clients that compress whatever they send are understood.
#[tokio::test(start_paused = true)]
async fn compressed_calls_are_read() {
    let harness = Harness::new(&[]);
    let client = IngestServiceClient::new(service(harness.ingest.clone(), MESSAGE_BYTES_MAX));
    let mut client = client.send_compressed(CompressionEncoding::Gzip);
    let request = PushProfileRequest { profile: Some(profile(id(1), pprof(1))) };
    let answer = client.push_profile(request).await.expect("a good profile").into_inner();
    assert_eq!(answer.id, id(1));
    assert_eq!(harness.ingest.budget().bytes_held(), 0);
}
