use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{Profile, PushRequest};
use afterglow_store::clock::SeededRandom;
use futures::stream::{self, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use tonic::Code;

use super::*;

const STALL_MAX: Duration = Duration::from_secs(30);

fn budget(kib: u64) -> Budget {
    Budget::new(kib * 1024, Arc::new(SeededRandom::new(1)))
}

fn message(seq: u64, bytes: usize) -> PushRequest {
    let pprof = Bytes::from(vec![7; bytes]);
    PushRequest { seq, part: Some(Part::Profile(Profile { pprof, ..Profile::default() })), ..PushRequest::default() }
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message");
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

/// The guarded body of a request whose bytes come in `chunks`; with `survives` as of a stream.
fn body<S>(
    chunks: S,
    budget: &Budget,
    survives: bool,
) -> (Body<impl http_body::Body<Data = Bytes, Error = Status> + Unpin + use<S>>, Permits)
where
    S: futures::Stream<Item = Vec<u8>> + Unpin + Send,
{
    let permits = Permits::default();
    let inner = StreamBody::new(chunks.map(|chunk| Ok(Frame::data(Bytes::from(chunk)))));
    let body = Body {
        inner,
        budget: budget.clone(),
        message_bytes_max: 16 * 1024,
        permits: permits.clone(),
        survives,
        state: State::header(),
        chunk: Bytes::new(),
        stall_timeout: STALL_MAX,
        stall: Box::pin(tokio::time::sleep(STALL_MAX)),
    };
    (body, permits)
}

async fn read<B>(mut body: Body<B>) -> Result<Vec<u8>, Status>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Unpin,
{
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        all.extend_from_slice(&frame?.into_data().expect("no trailers in this test"));
    }
    Ok(all)
}

fn cut(bytes: &[u8], every: usize) -> impl futures::Stream<Item = Vec<u8>> + Unpin + Send + use<> {
    stream::iter(bytes.chunks(every).map(<[u8]>::to_vec).collect::<Vec<_>>())
}

/// Goal: wherever the bytes are cut, they pass unchanged, and each message has its permit.
#[tokio::test(start_paused = true)]
async fn messages_pass_with_a_permit_each() {
    let budget = budget(64);
    let messages = [message(1, 3_000), message(0, 0), PushRequest::default(), message(u64::MAX, 700)];
    let sent: Vec<u8> = messages.iter().flat_map(|message| framed(0, &message.encode_to_vec())).collect();
    for every in [1, 2, 4, 5, 6, 7, 100, sent.len()] {
        let (body, permits) = body(cut(&sent, every), &budget, true);
        assert_eq!(read(body).await.expect("all of it"), sent, "cut every {every}");
        for (message, kib) in messages.iter().zip([3, 1, 1, 1]) {
            let permit = permits.next().unwrap_or_else(|failure| panic!("{message:?}: {failure}"));
            assert_eq!(permit.bytes(), kib * 1024);
        }
        permits.next().expect_err("no more messages, no more permits");
        assert_eq!(budget.bytes_held(), 0);
    }
}

/// Goal: on a stream a message without bytes in the budget is replaced by an empty one with its seq; the next one
/// passes.
#[tokio::test(start_paused = true)]
async fn a_stream_survives_a_message_that_is_not_paid_for() {
    let budget = budget(64);
    for seq in [0, 1, 300, u64::MAX] {
        let taken = budget.acquire(30 * 1024).await.expect("an empty budget");
        let refused = framed(0, &message(seq, 3_000).encode_to_vec());
        let passes = framed(0, &message(9, 10).encode_to_vec());
        for every in [1, 7, 10_000] {
            let (body, permits) = body(cut(&[refused.clone(), passes.clone()].concat(), every), &budget, true);
            let empty = framed(0, &PushRequest { seq, ..PushRequest::default() }.encode_to_vec());
            assert_eq!(read(body).await.expect("the stream goes on"), [empty, passes.clone()].concat());
            let failure = permits.next().expect_err("it was not paid for");
            assert!(failure.retry_after().is_some(), "{failure}");
            permits.next().expect("there is room for a small one");
        }
        drop(taken);
    }
}

/// Goal: a compressed message is paid for as the largest that it may inflate to.
#[tokio::test(start_paused = true)]
async fn a_compressed_message_pays_for_the_most_it_may_be() {
    let (body, permits) = body(cut(&framed(1, &[7; 100]), 64), &budget(64), true);
    read(body).await.expect("it passes");
    assert_eq!(permits.next().expect("it passed").bytes(), 16 * 1024);
}

/// Goal: without a seq to answer to, the refusal ends the call, with its delay.
#[tokio::test(start_paused = true)]
async fn a_call_ends_with_the_refusal() {
    let budget = budget(8);
    let _taken = budget.acquire(4 * 1024).await.expect("an empty budget");
    let good = message(1, 100).encode_to_vec();
    for (sent, survives) in [(framed(0, &good), false), (framed(1, &good), true), (framed(0, &[0x32, 0, 0]), true)] {
        let (body, permits) = body(cut(&sent, 64), &budget, survives);
        let status = read(body).await.expect_err("the budget is taken");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(!status.details().is_empty(), "a delay");
        permits.next().expect_err("nothing passed");
    }
}

/// Goal: a sender may be silent between messages, not within one.
#[tokio::test(start_paused = true)]
async fn a_sender_that_stops_in_a_message_is_cut_off() {
    let budget = budget(64);
    let sent = framed(0, &message(1, 3_000).encode_to_vec());
    for until in [1, 4, 6, sent.len() - 1] {
        let chunks = stream::iter([sent[..until].to_vec()]).chain(stream::pending());
        let (body, _permits) = body(chunks, &budget, true);
        let start = Instant::now();
        let status = read(body).await.expect_err("it stops");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(status.message(), "no bytes for 30s in the middle of a profile (--limits.stall-timeout)");
        assert_eq!(start.elapsed().as_secs(), STALL_MAX.as_secs());
    }
    let (body, permits) = body(stream::iter([sent.clone()]).chain(stream::pending()), &budget, true);
    let silent = tokio::time::timeout(STALL_MAX * 10, read(body)).await;
    assert!(silent.is_err(), "between messages it waits");
    permits.next().expect("the message passed");
}

#[tokio::test]
async fn a_body_that_ends_in_a_message_is_refused() {
    let sent = framed(0, &message(1, 3_000).encode_to_vec());
    for until in [1, 5, sent.len() - 1] {
        let (body, _permits) = body(cut(&sent[..until], 999), &budget(64), true);
        let status = read(body).await.expect_err("it ends early");
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "stream ends inside a message"));
    }
}
