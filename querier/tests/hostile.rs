//! What a call for a share can cost a querier, whoever makes it, an answer by a sibling that lies, and a question as Grafana asks it, counted by
//! the allocator of this process: what claims much and brings little takes little, and no answer is wrong for it.
//!
//! One test, for everything in the process counts. The other side of each call is in it as well.

#![allow(clippy::print_stdout, reason = "the figures are for who asks with --nocapture")]

#[allow(dead_code, reason = "it is there for the questions")]
#[path = "questions/world.rs"]
mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use afterglow_proto::v1;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full, StreamBody};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use peak_alloc::PeakAlloc;
use prost::Message as _;
use prost::encoding::encode_varint;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};
use world::{NOW_NANOS, SECOND, Sent, World, cpu, small};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const CALL: &str = "/afterglow.v1.SiblingService/MergeShare";

/// The largest request.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// The largest share.
const SHARE_BYTES_MAX: usize = 64 << 20;
/// How many times its bytes a message may take, both sides of its way and all that is made of it.
const FACTOR: usize = 8;
/// What a question takes by itself: connections, tables, the answer.
const SLACK_BYTES: usize = 4 << 20;

/// tonic makes room for what a frame claims, up to the most that it takes. It is not touched before it comes.
const CLAIM: &str = "a frame that claims what is not there";

/// Runs a call, and returns what it answers and how much memory it took.
async fn counted<T>(call: impl Future<Output = T>) -> (T, usize) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let answer = call.await;
    (answer, MEMORY.peak_usage().saturating_sub(before))
}

/// Puts a message into the frame of gRPC that claims `length` bytes.
fn frame(length: usize, message: &[u8]) -> Bytes {
    let length = u32::try_from(length).expect("a length of gRPC");
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

/// Makes the field of a protobuf that claims `length` bytes.
fn field(number: u64, length: usize, content: &[u8]) -> Vec<u8> {
    let mut field = Vec::with_capacity(content.len() + 16);
    encode_varint(number << 3 | 2, &mut field);
    encode_varint(length as u64, &mut field);
    field.extend_from_slice(content);
    field
}

/// Makes a request for parts.
fn request(parts: &[v1::SharePart]) -> v1::MergeShareRequest {
    let parts = parts.iter().flat_map(|part| part.encode_length_delimited_to_vec()).collect::<Vec<_>>();
    v1::MergeShareRequest { parts: parts.into(), ..v1::MergeShareRequest::default() }
}

/// Asks for a share, and returns the status of gRPC, or why it is declined.
async fn ask(channel: &mut Channel, frame: Bytes) -> String {
    let request = Request::post(format!("http://querier{CALL}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(frame)))
        .expect("a request");
    let response = channel.ready().await.expect("a connection").call(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body");
    let status = head.headers.get("grpc-status").or_else(|| body.trailers()?.get("grpc-status")).cloned();
    let status = status.expect("a status").to_str().expect("text").to_owned();
    if status != "0" {
        return status;
    }
    let answer = v1::MergeShareResponse::decode(body.to_bytes().slice(5..)).expect("a message");
    if answer.declined.is_empty() { format!("{} bytes", answer.profile.len()) } else { answer.declined }
}

/// Goal: a request takes about what it has, however many parts, rows and bytes it claims, and is no sign of damage.
async fn requests_cost_what_they_bring() {
    let world = World::new().await;
    let path = world.put(&[1, 2].map(|id| cpu(id, &[("service", "api")], 40))).await.path();
    let bytes = world.faults.inner().head(&path).await.expect("it is there").size;
    let mut channel = Channel::from_shared(world.url().to_owned()).expect("a URL").connect().await.expect("a server");
    let part = |row_steps: Vec<u32>| v1::SharePart { path: path.to_string(), bytes, dataset: 0, row_steps };
    let of = |message: &[u8]| frame(message.len(), message);
    let asked = |parts: &[v1::SharePart]| of(&request(parts).encode_to_vec());
    let room = REQUEST_BYTES_MAX - 64;
    for bytes in [0, 1, bytes - 1, bytes + 1, u64::MAX] {
        let other = asked(&[v1::SharePart { bytes, ..part(vec![0]) }]);
        let (answered, peak) = counted(ask(&mut channel, other)).await;
        assert_eq!(answered, "a block cannot be opened", "{bytes} bytes where it has others");
        assert!(peak <= SLACK_BYTES, "{bytes} bytes took {} KiB", peak >> 10);
    }
    let good = asked(&[part(vec![0, 1])]);
    let answered = ask(&mut channel, good.clone()).await;
    assert!(answered.ends_with(" bytes"), "{answered}");

    let one = part(vec![0]).encode_length_delimited_to_vec();
    let named = room / one.len();
    let parts = |parts: Vec<u8>| {
        of(&v1::MergeShareRequest { parts: parts.into(), ..v1::MergeShareRequest::default() }.encode_to_vec())
    };
    let with = |request: v1::MergeShareRequest| of(&request.encode_to_vec());
    let fine = || request(&[part(vec![0, 1])]);
    let sample_type = |sample_type| v1::MergeShareRequest { types: v1::ShareTypes::One.into(), sample_type, ..fine() };
    let nowhere = "a block cannot be opened";
    let no_rows = "a block has no such rows";
    let malformed = "its parts cannot be read";
    for (name, frame, expected) in [
        ("as many parts as fit, all empty", parts(vec![0; room]), nowhere),
        (
            "as many parts as fit, where older versions have them",
            of(&[0x0a, 0].repeat(room / 2)),
            "nothing is asked for",
        ),
        ("one dataset again and again", parts(one.repeat(named)), "a dataset stands in it twice"),
        (
            "one dataset by two spellings of its key",
            asked(&[part(vec![0]), v1::SharePart { path: format!("/{path}"), ..part(vec![1]) }]),
            "a dataset stands in it twice",
        ),
        ("as many rows as fit, all the same", asked(&[part(vec![0; room - 256])]), no_rows),
        ("as many rows as fit", asked(&[part(vec![1; room - 256])]), no_rows),
        ("rows beyond 64 bits", asked(&[part(vec![u32::MAX; 2])]), no_rows),
        ("a part that claims what is not there", parts(field(1, usize::MAX >> 1, b"v1")[1..].to_vec()), malformed),
        (
            "a path that claims what is not there",
            parts([&[12][..], &field(1, u32::MAX as usize, b"v1")[..]].concat()),
            malformed,
        ),
        ("parts that claim what is not there", of(&field(5, u32::MAX as usize, &[0; 8])), "13"),
        (CLAIM, frame(room, b""), "13"),
        ("a frame that is too large", frame(u32::MAX as usize, b""), "8"),
        ("more memory than there is", with(v1::MergeShareRequest { estimate_bytes: u64::MAX, ..fine() }), "8"),
        ("a sample type that is not there", with(sample_type(2)), "a profile has no such sample type"),
        ("a sample type beyond all", with(sample_type(u32::MAX)), "a profile has no such sample type"),
        (
            "sample types of a later version",
            with(v1::MergeShareRequest { types: 9, ..fine() }),
            "other versions have other sample types",
        ),
        ("no rows", asked(&[part(vec![])]), no_rows),
        ("nothing", of(b""), "nothing is asked for"),
    ] {
        let length = frame.len();
        let (answered, peak) = counted(ask(&mut channel, frame)).await;
        println!("{name}: {length} bytes took {} KiB: {answered}", peak >> 10);
        assert_eq!(answered, expected, "{name}");
        let claimed = if name == CLAIM { REQUEST_BYTES_MAX } else { 0 };
        assert!(peak <= FACTOR * length + claimed + SLACK_BYTES, "{name}: {length} bytes took {} KiB", peak >> 10);
    }
    assert_eq!(ask(&mut channel, good).await, answered, "all is as it was");
    let metrics = String::from_utf8(world.get("/metrics", &[]).await.body.to_vec()).expect("text");
    let damaged = metrics.lines().find(|line| line.starts_with("afterglow_query_damaged_total"));
    assert_eq!(damaged, Some("afterglow_query_damaged_total 0"), "nothing is damaged");
}

/// What a sibling answers to whatever it is asked, and how often it was.
#[derive(Clone, Default)]
struct Liar(Arc<Mutex<(Bytes, usize)>>);

impl Liar {
    fn says(&self, frame: Bytes) {
        *self.0.lock().expect("nobody panics") = (frame, 0);
    }

    fn asked(&self) -> usize {
        self.0.lock().expect("nobody panics").1
    }
}

async fn lie(State(liar): State<Liar>) -> Response {
    let frame = {
        let mut said = liar.0.lock().expect("nobody panics");
        said.1 += 1;
        said.0.clone()
    };
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
    let frames = [http_body::Frame::data(frame), http_body::Frame::trailers(trailers)];
    let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
    Response::builder()
        .header("content-type", "application/grpc")
        .body(axum::body::Body::new(body))
        .expect("a response")
}

/// Profiles of two datasets, so that one of them is a share.
fn shared() -> Vec<Sent> {
    let heap = |id, service| {
        let stacks: [(&[&str], &[i64]); 1] = [(&["main", "work"], &[3, 30])];
        let counts = [("alloc_space", "bytes"), ("inuse_space", "bytes")];
        small(id, "heap", &[("service", service)], NOW_NANOS - 40 * SECOND, &counts, &stacks)
    };
    vec![heap(1, "a"), heap(2, "b")]
}

/// Goal: a sibling that answers what it was not asked for costs what it says, and is not believed.
async fn answers_cost_what_they_bring() {
    let liar = Liar::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let siblings = format!("--query.siblings={}", listener.local_addr().expect("an address"));
    let router = Router::new().route(CALL, post(lie)).with_state(liar.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let alone = World::over(Arc::clone(&objects), &[]).await;
    alone.put(&shared()).await;
    let empty_samples = [0x12, 0].repeat(500_000);
    let strings = [0x32, 0].repeat(500_000);
    let raw = shared().remove(1).raw;
    let answer = |profile: &[u8], sample_type| v1::MergeShareResponse {
        profile: profile.to_vec().into(),
        sample_type,
        declined: String::new(),
    };
    let message = |message: v1::MergeShareResponse| {
        let message = message.encode_to_vec();
        frame(message.len(), &message)
    };
    let folded = [("type", "heap"), ("format", "folded")];
    let one = [folded[0], folded[1], ("sample_type", "alloc_space")];
    let all = [("type", "heap"), ("format", "folded"), ("focus", "work")];
    for (name, frame, query, is_believed) in [
        ("nothing", message(answer(b"", None)), &folded[..], false),
        (
            "one that declines",
            message(v1::MergeShareResponse { declined: "no".to_owned(), ..answer(b"", None) }),
            &folded,
            false,
        ),
        (CLAIM, frame(SHARE_BYTES_MAX - 1, b""), &folded, false),
        ("a frame that is too large", frame(u32::MAX as usize, b""), &folded, false),
        (
            "a profile that claims what is not there",
            {
                let message = field(1, u32::MAX as usize, b"");
                frame(message.len(), &message)
            },
            &folded,
            false,
        ),
        ("a sample type that there is not", message(answer(&raw, Some(u32::MAX))), &folded, false),
        ("one sample type where all are asked for", message(answer(&raw, Some(0))), &all, false),
        ("another sample type than is asked for", message(answer(&raw, Some(1))), &one, false),
        ("all sample types where one is asked for", message(answer(&raw, None)), &one, false),
        ("one that has them all, as one", message(answer(&raw, Some(0))), &one, false),
        ("half a million samples", message(answer(&empty_samples, Some(1))), &folded, false),
        ("half a million strings", message(answer(&strings, Some(1))), &folded, false),
        ("what it was asked for", message(answer(&raw, None)), &all, true),
    ] {
        // Whoever lied is left alone for a while; this one has not met it.
        let world = World::over(Arc::clone(&objects), &[&siblings, "--query.share-above=1B"]).await;
        let expected = alone.get("/api/v1/merge", query).await;
        assert_eq!(expected.status, 200, "{expected}");
        let length = frame.len();
        liar.says(frame);
        let (answered, peak) = counted(world.get("/api/v1/merge", query)).await;
        println!("{name}: {length} bytes took {} KiB: {}", peak >> 10, answered.status);
        assert_eq!((answered.status, &answered.body), (200, &expected.body), "{name}: {answered}");
        assert_eq!(liar.asked(), 1, "{name}: it is asked once");
        let metrics = String::from_utf8(world.get("/metrics", &[]).await.body.to_vec()).expect("text");
        let done = metrics.lines().any(|line| line == "afterglow_query_shares_done_total 1");
        assert_eq!(done, is_believed, "{name}");
        let claimed = if name == CLAIM { SHARE_BYTES_MAX } else { 0 };
        assert!(peak <= FACTOR * length + claimed + SLACK_BYTES, "{name}: {length} bytes took {} KiB", peak >> 10);
    }
}

/// Goal: a question of a mebibyte that is nothing but lists takes no more than any body may, in memory and time, in either codec.
async fn questions_cost_what_they_bring() {
    /// The largest question.
    const QUESTION_BYTES: usize = 1 << 20;
    /// What a body of a mebibyte may take.
    const QUESTION_COST_MAX: usize = 64 << 20;
    const CPU_MAX: Duration = Duration::from_secs(1);
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 40)]).await;
    let cpu = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";
    let room = QUESTION_BYTES - 1024;
    let id = field(1, cpu.len(), cpu.as_bytes());
    let lists = |number: u64, of: &[u8]| field(number, of.len(), of).repeat(room / (of.len() + 2));
    let json = |before: &str, list: &str, of: &str| {
        let all = vec![of; room / (of.len() + 1)].join(",");
        format!("{{{before}{list:?}:[{all}]}}").into_bytes()
    };
    let typed = format!("\"profileTypeID\":{cpu:?},");
    let mut by_label = Vec::new();
    (0..room / 12).for_each(|n| by_label.extend(field(5, 6, format!("{n:06}").as_bytes())));
    for (method, is_json, body, status) in [
        ("LabelNames", false, lists(1, b""), 400),
        ("LabelNames", true, json("", "matchers", "\"\""), 400),
        ("Series", false, lists(2, b""), 200),
        ("Series", true, json("", "labelNames", "\"\""), 200),
        ("SelectSeries", false, [&id[..], &lists(5, b"")].concat(), 400),
        ("SelectSeries", false, [&id[..], &by_label].concat(), 400),
        ("SelectSeries", true, json(&typed, "groupBy", "\"a\""), 400),
        // Call sites without a name, in one selector and in as many as fit.
        ("SelectMergeStacktraces", false, [&id[..], &field(7, room, &lists(1, b""))].concat(), 400),
        ("SelectMergeStacktraces", false, [&id[..], &lists(7, &[0x0a, 0])].concat(), 400),
        ("SelectMergeStacktraces", false, [&id[..], &lists(8, b"")].concat(), 400),
        ("SelectMergeStacktraces", false, [&id[..], &lists(10, b"")].concat(), 400),
        ("SelectMergeStacktraces", true, json(&typed, "spanSelector", "\"\""), 400),
        ("SelectMergeProfile", false, [&id[..], &lists(7, b"00000000000000000000000009")].concat(), 404),
        ("SelectMergeStacktraces", true, "[".repeat(room).into_bytes(), 400),
        ("SelectMergeStacktraces", true, format!("{{\"a\":{}", "[".repeat(room)).into_bytes(), 400),
    ] {
        let codec = if is_json { "application/json" } else { "application/proto" };
        let (path, length) = (format!("/querier.v1.QuerierService/{method}"), body.len());
        assert!(length <= QUESTION_BYTES, "{method} {codec}: {length} bytes");
        let began = cpu_time();
        let (answered, peak) = counted(world.post(&path, &[("content-type", codec)], body)).await;
        let took = cpu_time() - began;
        let said: String = answered.to_string().chars().take(200).collect();
        println!("{method} {codec}: {length} bytes took {} KiB and {took:?}: {said}", peak >> 10);
        assert_eq!(answered.status, status, "{method} {codec}: {said}");
        assert!(peak <= QUESTION_COST_MAX && took <= CPU_MAX, "{method} {codec}: {} KiB, {took:?}", peak >> 10);
    }
}

/// Returns the CPU time of this process.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[tokio::test]
async fn who_claims_much_and_brings_little_takes_little() {
    requests_cost_what_they_bring().await;
    answers_cost_what_they_bring().await;
    questions_cost_what_they_bring().await;
}
