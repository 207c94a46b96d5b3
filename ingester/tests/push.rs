//! Goal: what a real server acknowledges lies in the store, bit for bit and once, soon, and to the end.

mod support;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use afterglow_proto::v1::PushRequest;
use afterglow_proto::v1::push_request::Part;
use afterglow_store::block::Block;
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::ObjectStore;
use support::pprof::good;
use support::{Outcome, Push, TestServer, Way};
use tokio::time::{Instant, sleep};
use tonic::Code;
use ulid::Ulid;

const ALL: [Way; 4] = [Way::Stream, Way::Chunks, Way::Call, Way::Http];

/// Reads everything in the store: the bytes of each profile by its id, once for each time it is stored.
async fn stored(server: &TestServer) -> BTreeMap<String, Vec<Bytes>> {
    let mut profiles: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
    let objects: Vec<_> = server.store.inner().list(None).try_collect().await.expect("a listing");
    for object in objects {
        let block = Block::open(server.store.inner(), object.location).await.expect("a good block");
        for row in block.rows().await.expect("good rows").iter() {
            let bytes = block.fetch(row).await.expect("a good profile");
            profiles.entry(row.id.to_string()).or_default().push(bytes);
        }
    }
    profiles
}

fn id(n: u128) -> String {
    Ulid::from_parts(1_795_559_000_000, n).to_string()
}

/// Waits until a metric has a value.
async fn metric(server: &TestServer, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let text = server.metrics.text().expect("metrics");
        if text.lines().any(|found| found == line) {
            return;
        }
        assert!(Instant::now() < deadline, "no line {line} in\n{text}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Goal: real profiles pushed by any way come back as the bytes they were before gzip.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_profiles_come_back_bit_for_bit() {
    let server = TestServer::start(&[]).await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/profiles");
    let files = std::fs::read_dir(folder).expect("the fixtures").map(|file| file.expect("a file").path());
    let bodies: Vec<Bytes> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "gz"))
        .map(|path| std::fs::read(path).expect("a file").into())
        .collect();
    assert!(bodies.len() > 20);
    let pushes = ALL.iter().enumerate().flat_map(|(way_index, way)| {
        let server = &server;
        bodies.iter().enumerate().map(move |(index, body)| async move {
            let id = id((way_index * 1_000 + index) as u128);
            let outcome =
                Push { profile_type: String::new(), ..Push::new(body.clone()).id(&id) }.by(*way, server).await;
            assert_eq!((outcome.code, outcome.warnings.len()), (Code::Ok, 0), "{way:?}: {outcome:?}");
            (id, body)
        })
    });
    let pushed = join_all(pushes).await;
    let stored = stored(&server).await;
    assert_eq!(stored.len(), pushed.len());
    for (id, body) in pushed {
        let mut raw = Vec::new();
        MultiGzDecoder::new(&body[..]).read_to_end(&mut raw).expect("good gzip");
        assert_eq!(stored[&id], [Bytes::from(raw)], "{id}");
    }
}

/// Goal: however often and by whichever ways a profile is pushed under one id, it is stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_are_stored_once() {
    let server = TestServer::start(&["--flush-interval=20ms"]).await;
    let pushes = (0..200).map(|n| {
        let server = &server;
        async move {
            let push = Push::new(good(n % 50)).id(&id(u128::from(n % 50)));
            push.by(ALL[(n / 50) as usize], server).await
        }
    });
    let outcomes = join_all(pushes).await;
    assert!(outcomes.iter().all(|outcome| outcome.code == Code::Ok), "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| !outcome.duplicate).count(), 50);
    let stored = stored(&server).await;
    assert_eq!(stored.len(), 50);
    assert!(stored.values().all(|profiles| profiles.len() == 1));
}

/// Goal: at the tick of 250 ms half of all profiles that come at any time are acknowledged within 300 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_median_acknowledgement_takes_less_than_300_ms() {
    let server = TestServer::start(&[]).await;
    let pushes = (0..100).map(|n| {
        let server = &server;
        async move {
            sleep(Duration::from_millis(n * 37 % 2_000)).await;
            let start = Instant::now();
            let outcome = Push::new(good(n)).by(Way::Call, server).await;
            assert_eq!(outcome.code, Code::Ok, "{outcome:?}");
            start.elapsed()
        }
    });
    let mut times = join_all(pushes).await;
    times.sort_unstable();
    assert!(times[times.len() / 2] < Duration::from_millis(300), "{times:?}");
}

/// Goal: 1,000 profiles under way when the server is told to stop are all answered, what is acknowledged is stored, and
/// the server ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_is_answered_when_the_server_stops() {
    const STREAMS: usize = 4;
    const EACH: usize = 225;
    const CALLS: usize = 50;
    let server = TestServer::start(&["--flush-interval=4s"]).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let (sender, answers) = server.stream().await;
        for seq in 0..EACH as u64 {
            let part = Some(Part::Profile(Push::new(good(seq)).profile()));
            sender.send(PushRequest { seq, part, ..PushRequest::default() }).await.expect("the stream is read");
        }
        // The sender's end stays open: the server has to end the stream.
        streams.push((sender, answers));
    }
    let grpc = server.grpc().await;
    let calls = tokio::spawn(join_all((0..CALLS as u64).map(|n| {
        let (mut grpc, request) = (grpc.clone(), Push::new(good(n)).request());
        async move { grpc.push_profile(request).await.expect("an acknowledgement").into_inner().id }
    })));
    let url = format!("http://{}/api/v1/profiles?service=api&type=cpu", server.address);
    let http = reqwest::Client::new();
    let posts = tokio::spawn(join_all((0..CALLS as u64).map(|n| {
        let post = http.post(&url).body(good(n));
        async move { Outcome::of_response(post.send().await.expect("an answer")).await }
    })));
    let bytes = |count: usize| (0..count).map(|n| good(n as u64).len()).sum::<usize>();
    let raw_bytes = STREAMS * bytes(EACH) + 2 * bytes(CALLS);
    metric(&server, &format!("afterglow_commit_raw_bytes_total {raw_bytes}")).await;

    let start = Instant::now();
    server.stop_ingester.cancel();
    server.stop_server.cancel();
    let mut acknowledged = Vec::new();
    for (_sender, mut answers) in streams {
        let status = loop {
            match answers.message().await {
                Ok(answer) => {
                    let outcome = Outcome::of_answer(answer.expect("it does not end well"));
                    assert_eq!(outcome.code, Code::Ok, "{outcome:?}");
                    acknowledged.push(outcome.id);
                }
                Err(status) => break status,
            }
        };
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "server is shutting down"));
    }
    assert_eq!(acknowledged.len(), STREAMS * EACH);
    acknowledged.extend(calls.await.expect("no panic"));
    for outcome in posts.await.expect("no panic") {
        assert_eq!(outcome.code, Code::Ok, "{outcome:?}");
        acknowledged.push(outcome.id);
    }
    let stored = stored(&server).await;
    assert!(acknowledged.iter().all(|id| stored.contains_key(id)));
    server.ended.await.expect("it ends well");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// Goal: an operator can see what came of the profiles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_are_counted_by_what_came_of_them() {
    let server = TestServer::start(&["--flush-interval=5ms", "--memory-budget=1MiB"]).await;
    for (way, protocol) in [(Way::Stream, "grpc_stream"), (Way::Call, "grpc"), (Way::Http, "http")] {
        let push = Push::new(good(1)).id(&id(way as u128));
        for (push, outcome) in [
            (push.clone(), "accepted"),
            (push.clone(), "duplicate"),
            (Push { body: good(2).into(), ..push.clone() }, "ALREADY_EXISTS"),
            (Push::new("<html>"), "INVALID_ARGUMENT"),
        ] {
            push.by(way, &server).await;
            let labels = format!("protocol=\"{protocol}\",outcome=\"{outcome}\"");
            metric(&server, &format!("afterglow_ingest_profiles_total{{{labels}}} 1")).await;
        }
    }
    for line in [
        "afterglow_commit_profiles_total 3",
        "afterglow_commit_flushes_total{outcome=\"durable\"} 3",
        "afterglow_commit_flushes_in_flight 0",
        "afterglow_commit_blobs_total 0",
        "afterglow_ingest_budget_limit_bytes 1048576",
        "afterglow_ingest_budget_used_bytes 0",
        "afterglow_ingest_budget_wanted_bytes 0",
    ] {
        metric(&server, line).await;
    }
}
