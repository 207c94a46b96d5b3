//! Goal: what is refused is refused with the promised code and words on every way in, and says that a retry helps
//! exactly where it does.
//!
//! Each row is pushed whole on a stream, in chunks on a stream, by a call and over HTTP; the answers must agree. The
//! table they make is the golden file `snapshots/refusals__*.snap`, to be read like the promise it is: `(R)` marks what
//! may be retried.

mod support;

use std::fmt::Write as _;
use std::time::Duration;

use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{Profile, ProfileChunk, ProfileHeader, PushRequest};
use afterglow_service::access::{Entry, Role};
use afterglow_store::testing::faults::{Operation, Trouble};
use bytes::Bytes;
use futures::future::join_all;
use support::pprof::{
    self, FUNCTION, LOCATION, MAPPING, SAMPLE, SAMPLE_TYPE, STRING, bytes, good, gzip, number, spoilt,
};
use support::{Body, NOW_NANOS, Outcome, Push, TestServer, Way, plain, raw, screaming, stops_after, whole};
use tonic::Code;

const ALL: [Way; 4] = [Way::Stream, Way::Chunks, Way::Call, Way::Http];
const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
const OTHER_ID: &str = "01BX5ZZKBKACTAV9WEVGEMMVRZ";

/// The table as it grows.
#[derive(Default)]
struct Table(String);

impl Table {
    /// Pushes a profile by all ways and adds the row on which they agree.
    async fn row(&mut self, server: &TestServer, name: &str, push: Push) {
        self.row_by(&ALL, server, name, push).await;
    }

    async fn row_by(&mut self, ways: &[Way], server: &TestServer, name: &str, push: Push) {
        let outcomes = join_all(ways.iter().map(|way| push.by(*way, server))).await;
        self.agreed(ways, name, &outcomes);
    }

    /// Adds the row on which the ways agree.
    fn agreed(&mut self, ways: &[Way], name: &str, outcomes: &[Outcome]) {
        let said = |outcome: &Outcome| {
            let Outcome { code, message, retriable, duplicate, warnings, .. } = outcome.clone();
            (code, message, retriable, duplicate, warnings)
        };
        for (way, outcome) in ways.iter().zip(outcomes) {
            assert_eq!(said(outcome), said(&outcomes[0]), "{name}: {way:?} and {:?} disagree", ways[0]);
        }
        let last = outcomes.last().expect("a way");
        self.add(name, last);
    }

    /// Pushes by each way until it is refused as exhausted, and adds the row on which they agree: what comes and goes with time.
    async fn row_of_exhausted(&mut self, server: &TestServer, name: &str, push: Push) {
        let mut outcomes = Vec::new();
        for way in ALL {
            outcomes.push(loop {
                let outcome = push.by(way, server).await;
                if outcome.code != Code::Ok {
                    break outcome;
                }
            });
        }
        self.agreed(&ALL, name, &outcomes);
    }

    /// Sends what `make` makes over HTTP/1.1 and HTTP/2, and adds the row on which both agree, with the headers that tell a client what to
    /// do.
    async fn plain_row(&mut self, server: &TestServer, name: &str, make: impl Fn() -> http::Request<Body>) {
        let mut seen = None;
        for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
            let mut request = make();
            request.headers_mut().insert("x-request-id", "refusals-7".parse().expect("a header"));
            let (head, body) = plain(server, version, request).await.into_parts();
            let header = |name: &str| head.headers.get(name).map(|value| value.to_str().expect("text").to_owned());
            assert_eq!(header("x-request-id").as_deref(), Some("refusals-7"), "{name}, {version:?}");
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_else(|error| {
                panic!("{name}, {version:?}: {error}: {}", String::from_utf8_lossy(&body));
            });
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let retry = header("retry-after");
            if let Some(seconds) = &retry {
                assert!((1..=90).contains(&seconds.parse::<u32>().expect("whole seconds")), "{name}: {seconds}");
            }
            let mut row = format!(
                "{name}\n    {} {}{} {}\n",
                text(&body["error"]["code"]),
                head.status.as_u16(),
                if retry.is_some() { " (R)" } else { "" },
                without_id(&text(&body["error"]["message"])),
            );
            for name in ["content-type", "retry-after", "www-authenticate", "accept-encoding", "allow", "cache-control"]
            {
                if let Some(value) = header(name) {
                    let value = if name == "retry-after" { "<SECONDS>".to_owned() } else { value };
                    writeln!(row, "    {name}: {value}").expect("a string");
                }
            }
            let first = seen.get_or_insert_with(|| row.clone());
            assert_eq!(&row, first, "{name}: HTTP/1.1 and HTTP/2 disagree");
        }
        self.0 += &seen.expect("two versions");
    }

    fn add(&mut self, name: &str, outcome: &Outcome) {
        let Outcome { code, http, message, retriable, duplicate, warnings, .. } = outcome;
        let retriable = if *retriable { " (R)" } else { "" };
        let http = http.map_or_else(String::new, |status| format!(" {status}"));
        let duplicate = if *duplicate { " duplicate=true" } else { "" };
        writeln!(self.0, "{name}\n    {}{http}{retriable}{duplicate} {message}", screaming(*code)).expect("a string");
        for warning in warnings {
            writeln!(self.0, "    warning: {warning}").expect("a string");
        }
    }

    fn check(self, name: &str) {
        let lines: Vec<_> = self.0.lines().map(str::trim_end).collect();
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => true }, {
            insta::assert_snapshot!(name, lines.join("\n"));
        });
    }
}

/// A bug's id is another each time.
fn without_id(message: &str) -> String {
    match message.rsplit_once("internal error, id ") {
        Some((before, _)) => format!("{before}internal error, id <ID>"),
        None => message.to_owned(),
    }
}

/// Tokens in a file, and what to send as `authorization` for each.
struct Tokens {
    folder: tempfile::TempDir,
    headers: Vec<(&'static str, String)>,
}

impl Tokens {
    fn of(tokens: &[(&'static str, Role, &[&str])]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut text, mut headers) = (String::new(), Vec::new());
        for (name, role, tenants) in tokens {
            let tenants = tenants.iter().map(|tenant| (*tenant).to_owned()).collect();
            let (secret, entry) = Entry::generate((*name).to_owned(), vec![*role], tenants).expect("an entry");
            text.push_str(&entry.to_toml());
            headers.push((*name, format!("Bearer {}", secret.reveal())));
        }
        std::fs::write(folder.path().join("tokens.toml"), text).expect("a file");
        Self { folder, headers }
    }

    /// Some of each kind.
    fn usual() -> Self {
        Self::of(&[
            ("writer", Role::Write, &["a"]),
            ("reader", Role::Read, &["a"]),
            ("admin", Role::Admin, &["a"]),
            ("two", Role::Write, &["a", "b"]),
        ])
    }

    fn header(&self, name: &str) -> String {
        self.headers.iter().find(|(known, _)| *known == name).expect("a token of the test").1.clone()
    }

    fn flag(&self) -> String {
        format!("--auth.tokens-file={}", self.folder.path().join("tokens.toml").display())
    }
}

/// What a profile's bytes can be wrong in; the profile crate has every field of every message, here is one of each
/// kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_profiles() {
    let server = TestServer::start(&["--flush-interval=5ms"]).await;
    let mut table = Table::default();
    let gzipped = gzip(good(1));
    let bad_crc = {
        let mut bad = gzipped.clone();
        let at = bad.len() - 8;
        bad[at] ^= 1;
        bad
    };
    let two_members = [gzip(&good(1)[..20]), gzip(&good(1)[20..])].concat();
    let table_of = |strings: [&str; 3]| strings.map(|text| bytes(STRING, text)).concat();
    let sample_type = bytes(SAMPLE_TYPE, [number(1, 1), number(2, 2)].concat());
    let location = |id: u64| bytes(LOCATION, number(1, id));
    let function = |id: u64| bytes(FUNCTION, number(1, id));
    let sample = |location: u64, values: &[u8]| bytes(SAMPLE, [bytes(1, [location as u8]), bytes(2, values)].concat());
    let sparse = spoilt(&[bytes(LOCATION, number(1, 1 << 63)), location(7), location(3), sample(7, &[1])]);
    let max = i64::MAX as u64;
    for (name, body) in [
        ("good, not gzip'd", good(1)),
        ("good, gzip'd", gzipped.clone()),
        ("empty body", vec![]),
        ("gzip of nothing", gzip("")),
        ("HTML", b"<!doctype html><title>404</title>".to_vec()),
        ("JSON", b"{\"profile\": []}".to_vec()),
        ("PNG", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR".to_vec()),
        ("truncated gzip", gzipped[..gzipped.len() / 2].to_vec()),
        ("gzip with a bad CRC", bad_crc),
        ("gzip with garbage after it", [&gzipped[..], b"garbage"].concat()),
        ("gzip of two members", two_members),
        ("gzip inside gzip", gzip(&gzipped)),
        ("9 MiB of zeros in 9 KiB", pprof::gzip_best(vec![0; 9 << 20])),
        ("truncated protobuf", good(1)[..good(1).len() - 1].to_vec()),
        ("length past the end", spoilt(&[vec![0x12, 0x7f, 1]])),
        ("varint of 11 bytes", spoilt(&[[&[0x48][..], &[0xff; 10], &[1]].concat()])),
        ("group wire type", spoilt(&[vec![0x0b, 0x0c]])),
        ("string index beyond the table", spoilt(&[bytes(FUNCTION, [number(1, 1), number(2, 4)].concat())])),
        ("string index -1", spoilt(&[bytes(FUNCTION, [number(1, 1), number(2, u64::MAX)].concat())])),
        ("no string table", bytes(SAMPLE_TYPE, number(1, 0))),
        ("first string not empty", [sample_type.clone(), table_of(["cpu", "nanoseconds", ""])].concat()),
        ("id 0", spoilt(&[location(0)])),
        ("duplicate id", spoilt(&[function(1), function(1)])),
        ("duplicate mapping id", spoilt(&[bytes(MAPPING, number(1, 5)), bytes(MAPPING, number(1, 5))])),
        ("sample of an unknown location", spoilt(&[sample(99, &[1])])),
        ("location in an unknown mapping", spoilt(&[bytes(LOCATION, [number(1, 1), number(2, 9)].concat())])),
        ("line of an unknown function", spoilt(&[bytes(LOCATION, [number(1, 1), bytes(4, number(1, 9))].concat())])),
        ("two values for one type", spoilt(&[location(1), sample(1, &[1, 2])])),
        ("no sample types", [table_of(["", "a", "b"]), pprof::when()].concat()),
        ("sparse, unsorted ids up to 2^63", sparse),
        ("no samples", spoilt(&[])),
        ("invalid UTF-8 in a name", spoilt(&[bytes(STRING, [0xff, 0xfe])])),
        ("values whose sum overflows", [good(max), pprof::sample(max)].concat()),
        ("negative value", good(-5_i64 as u64)),
        ("negative duration", [good(1), number(pprof::DURATION, -5_i64 as u64)].concat()),
        ("no time", [pprof::head(), pprof::body(1)].concat()),
        ("negative time", [good(1), number(pprof::TIME, -7_i64 as u64)].concat()),
        ("time 25 h ahead", [good(1), number(pprof::TIME, NOW_NANOS as u64 + 25 * 3_600_000_000_000)].concat()),
        ("time 31 days ago", [good(1), number(pprof::TIME, NOW_NANOS as u64 - 31 * 86_400_000_000_000)].concat()),
    ] {
        table.row(&server, name, Push::new(body)).await;
    }
    table.check("bytes_of_profiles");
}

/// The limits, made small so that small profiles are over them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits() {
    let server = TestServer::start(&[
        "--flush-interval=5ms",
        "--limits.max-body=1MiB",
        "--limits.max-inflated=2MiB",
        "--limits.max-samples=2",
        "--limits.max-stack-depth=3",
        "--limits.max-string=16B",
        "--limits.max-sample-types=2",
    ])
    .await;
    let mut table = Table::default();
    let location = bytes(LOCATION, number(1, 1));
    let sample = |stack: &[u8]| bytes(SAMPLE, [bytes(1, stack), bytes(2, [1])].concat());
    let sample_type = || bytes(SAMPLE_TYPE, [number(1, 1), number(2, 2)].concat());
    for (name, body) in [
        ("3 samples of at most 2", spoilt(&[location.clone(), sample(&[1]), sample(&[1]), sample(&[1])])),
        ("a stack of 4 of at most 3", spoilt(&[location.clone(), sample(&[1, 1, 1, 1])])),
        ("a string of 17 bytes of at most 16", spoilt(&[bytes(STRING, "x".repeat(17))])),
        ("3 sample types of at most 2", spoilt(&[sample_type(), sample_type()])),
        (
            "inflates to 2.1 MiB of at most 2",
            gzip(pprof::noise(2_200_000).iter().map(|byte| byte & 1).collect::<Vec<_>>()),
        ),
    ] {
        table.row(&server, name, Push::new(body)).await;
    }
    // The body alone is over the limit; with a margin for labels and framing the message is not.
    let body = Push::new(pprof::noise(1_258_291));
    table.row(&server, "a body of 1.2 MiB of at most 1", body).await;
    let message = Push::new(pprof::noise(2 << 20));
    table.row_by(&[Way::Stream, Way::Call], &server, "a message of 2 MiB", message.clone()).await;
    table.row_by(&[Way::Chunks], &server, "chunks of 2 MiB together", message.clone()).await;
    table.row_by(&[Way::Http], &server, "a body of 2 MiB", message).await;
    let stream = futures::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>(pprof::noise(1 << 20))));
    let url = format!("http://{}/api/v1/profiles?service=api", server.address);
    let unannounced = reqwest::Client::new().post(url).body(reqwest::Body::wrap_stream(stream)).send().await;
    table.add("a body of 3 MiB that does not say so", &Outcome::of_response(unannounced.expect("an answer")).await);
    table.check("limits");
}

/// What a profile can be called, and what not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names() {
    let server = TestServer::start(&["--flush-interval=5ms"]).await;
    let mut table = Table::default();
    let push = || Push::new(good(1));
    let service = |value: &str| Push { labels: vec![("service".to_owned(), value.to_owned())], ..push() };
    let many = |count: usize| (0..count).fold(push(), |push, n| push.label(&format!("label_{n}"), "x"));
    let of_type = |word: &str| Push { profile_type: word.to_owned(), ..push() };
    let tenant = |name: &str| Push { tenant: Some(name.to_owned()), ..push() };
    for (name, push) in [
        ("no service", Push { labels: vec![], ..push() }),
        ("empty service", service("")),
        ("service of 257 bytes", service(&"s".repeat(257))),
        ("service of 256 bytes", service(&"s".repeat(256))),
        ("service ../../x", service("../../x")),
        ("service a/b", service("a/b")),
        ("service %2e%2e", service("%2e%2e")),
        ("service with a newline", service("a\nb")),
        ("service with an emoji", service("🔥")),
        ("empty label name", push().label("", "x")),
        ("reserved label name", push().label("__name__", "x")),
        ("label name with a space", push().label("a b", "x")),
        ("label name of 129 bytes", push().label(&"n".repeat(129), "x")),
        ("label name of 128 bytes", push().label(&"n".repeat(128), "x")),
        ("label value of 2049 bytes", push().label("dc", &"v".repeat(2049))),
        ("label value of 2048 bytes", push().label("dc", &"v".repeat(2048))),
        ("65 labels", many(64)),
        ("64 labels", many(63)),
        ("label value with NUL", push().label("dc", "a\0b")),
        ("label value with an escape", push().label("dc", "\x1b[31m")),
        ("unknown profile type", of_type("gpu_kernels")),
        ("profile type in capitals", of_type("CPU")),
        ("label type and no profile type", of_type("").label("type", "heap")),
        ("label type like the profile type", push().label("type", "cpu")),
        ("label type unlike the profile type", push().label("type", "heap")),
        ("id that is no ULID", push().id("7")),
        ("id beyond 128 bits", push().id("81ARZ3NDEKTSV4RRFFQ69G5FAV")),
        ("tenant ..", tenant("..")),
        ("tenant a/b", tenant("a/b")),
        ("tenant a|b", tenant("a|b")),
        ("empty tenant", tenant("")),
        ("tenant of 151 characters", tenant(&"t".repeat(151))),
        ("tenant of 150 characters", tenant(&"t".repeat(150))),
    ] {
        table.row(&server, name, push).await;
    }
    table.row_by(&[Way::Http], &server, "label twice", push().label("dc", "a").label("dc", "b")).await;
    table.check("names");
}

/// What retention would delete at once is not acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention() {
    let flags = ["--flush-interval=5ms", "--retention.max-age=7d", "--retention.rule={service=\"batch\"}=2d"];
    let kept_longer = ["--limits.max-age=0s", "--retention.rule={service=\"batch\"}=60d"];
    let server = TestServer::start(&[&flags[..], &kept_longer[..1]].concat()).await;
    let days_ago = |days: u64| [good(1), number(pprof::TIME, NOW_NANOS as u64 - days * 86_400_000_000_000)].concat();
    let of = |service: &str, days| {
        let mut push = Push::new(days_ago(days));
        push.labels = vec![("service".to_owned(), service.to_owned())];
        push
    };
    let mut table = Table::default();
    table.row(&server, "6 days old, kept for 7", of("api", 6)).await;
    table.row(&server, "8 days old, kept for 7", of("api", 8)).await;
    table.row(&server, "1 day old, of a service that is kept for 2", of("batch", 1)).await;
    table.row(&server, "6 days old, of a service that is kept for 2", of("batch", 6)).await;
    let server = TestServer::start(&[&flags[..1], &kept_longer].concat()).await;
    table.row(&server, "31 days old, of a service that is kept for 60", of("batch", 31)).await;
    table.check("retention");
}

/// Ids that come again. Each way has ids of its own, else they would be each other's retries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids() {
    let server = TestServer::start(&["--flush-interval=5ms"]).await;
    let mut table = Table::default();
    for (name, body) in [
        ("an id for the first time", good(1)),
        ("same id, same bytes again", good(1)),
        ("same id, same bytes, gzip'd", gzip(good(1))),
        ("same id, other bytes", good(2)),
    ] {
        let mut outcomes = Vec::new();
        for (n, way) in ALL.into_iter().enumerate() {
            let id = format!("{}{n}", &ID[..ID.len() - 1]);
            let outcome = Push::new(body.clone()).id(&id).by(way, &server).await;
            outcomes.push(Outcome { message: outcome.message.replace(&id, "<ID>"), ..outcome });
        }
        table.agreed(&ALL, name, &outcomes);
    }
    table.check("ids");
}

/// What only a stream can be wrong in. After each the same stream takes a good profile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams() {
    let server = TestServer::start(&["--flush-interval=5ms"]).await;
    let mut table = Table::default();
    let (sender, mut answers) = server.stream().await;
    let profile = || Push::new(Bytes::new()).profile();
    let header = |size: u64| ProfileHeader { profile: Some(profile()), size, sha256: Bytes::new() };
    let begin = |header: ProfileHeader| Some(Part::Header(header));
    let chunk = |data: &'static [u8]| Some(Part::Chunk(ProfileChunk { data: Bytes::from_static(data) }));
    let at_once = |body: Vec<u8>| Some(Part::Profile(Profile { pprof: body.into(), ..profile() }));
    let wrong_sha256 = ProfileHeader { sha256: vec![7; 32].into(), ..header(3) };
    let mut seq = 0;
    for (name, parts) in [
        ("chunk without a header", vec![chunk(b"abc")]),
        ("header twice", vec![begin(header(9)), chunk(b"abc"), begin(header(9)), chunk(b"abc"), chunk(b"abc")]),
        ("whole profile in the middle of chunks", vec![begin(header(9)), at_once(good(1)), chunk(b"abc")]),
        ("more bytes than announced", vec![begin(header(3)), chunk(b"ab"), chunk(b"cd"), chunk(b"ef")]),
        ("sha256 of other bytes", vec![begin(wrong_sha256), chunk(b"abc")]),
        ("sha256 of 5 bytes", vec![begin(ProfileHeader { sha256: vec![7; 5].into(), ..header(3) }), chunk(b"abc")]),
        ("header without a profile", vec![begin(ProfileHeader { profile: None, ..header(3) })]),
        (
            "pprof in the header",
            vec![begin(ProfileHeader { profile: Some(Profile { pprof: good(1).into(), ..profile() }), ..header(3) })],
        ),
        ("header of 33 MiB", vec![begin(header(33 << 20)), chunk(b"abc")]),
        ("chunks of 0 bytes", vec![begin(header(0))]),
        ("message without a part", vec![None]),
        ("whole profile that is spoilt", vec![at_once(b"<html>".to_vec())]),
    ] {
        seq += 1;
        for part in parts {
            sender.send(PushRequest { seq, part, ..PushRequest::default() }).await.expect("the stream goes on");
        }
        let answer = answers.message().await.expect("the stream goes on").expect("an answer");
        assert_eq!(answer.seq, seq, "{name}");
        table.add(name, &Outcome::of_answer(answer));
        seq += 1;
        sender
            .send(PushRequest { seq, part: at_once(good(seq)), ..PushRequest::default() })
            .await
            .expect("the stream goes on");
        let answer = answers.message().await.expect("the stream goes on").expect("an answer");
        assert_eq!((answer.seq, answer.status), (seq, None), "the stream takes a good profile after: {name}");
    }
    sender
        .send(PushRequest { seq: 99, part: begin(header(9)), ..PushRequest::default() })
        .await
        .expect("the stream goes on");
    sender
        .send(PushRequest { seq: 99, part: chunk(b"abc"), ..PushRequest::default() })
        .await
        .expect("the stream goes on");
    drop(sender);
    let answer = answers.message().await.expect("the stream goes on").expect("an answer");
    table.add("fewer bytes than announced", &Outcome::of_answer(answer));
    assert_eq!(answers.message().await.expect("a good end"), None);
    table.check("streams");
}

/// What only HTTP can be wrong in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http() {
    let server = TestServer::start(&["--flush-interval=5ms"]).await;
    let mut table = Table::default();
    let client = reqwest::Client::new();
    let url = |query: &str| format!("http://{}/api/v1/profiles?{query}", server.address);
    for query in [
        "service=api&type=cpu&duration=10s&time=1795559000",
        "service=api&version=1.4",
        "service=api&service=api",
        "service=api&type=cpu&type=heap",
        "service=api&label.service=web",
        "service=%ff",
        "service=api&time=yesterday",
        "service=api&duration=-5s",
        "service=api&duration=ten",
    ] {
        let outcome = client.post(url(query)).body(good(1)).send().await.expect("an answer");
        table.add(query, &Outcome::of_response(outcome).await);
    }
    for (encoding, body) in [("gzip", gzip(good(1))), ("identity", good(1)), ("br", good(1)), ("gzip, gzip", good(1))] {
        let request = client.post(url("service=api")).header("content-encoding", encoding).body(body);
        let response = request.send().await.expect("an answer");
        let accepts = response.headers().get("accept-encoding").map(|value| value.to_str().expect("text").to_owned());
        let outcome = Outcome::of_response(response).await;
        assert_eq!(accepts.as_deref(), (outcome.code != Code::Ok).then_some("gzip, identity"));
        table.add(&format!("content-encoding {encoding}"), &outcome);
    }
    table.check("http");
}

/// What no client library sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_grpc() {
    let server = TestServer::start(&["--flush-interval=5ms"]).await;
    let mut table = Table::default();
    let framed = |message: &[u8]| [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
    let label = [bytes(1, "dc"), bytes(2, [0xff])].concat();
    let not_utf8 = bytes(1, bytes(3, label));
    // A flag, and what inflates to more than any message may have.
    let inflates = [&[1][..], &framed(&pprof::gzip_best(vec![0; 40 << 20]))[1..]].concat();
    for (name, method, encoding, body) in [
        ("label that is not UTF-8, by a call", "PushProfile", "identity", framed(&not_utf8)),
        ("message that is no protobuf, by a call", "PushProfile", "identity", framed(b"<html>")),
        ("message that is no protobuf, on a stream", "Push", "identity", framed(b"<html>")),
        ("no message, by a call", "PushProfile", "identity", vec![]),
        ("no profile, by a call", "PushProfile", "identity", framed(b"")),
        ("message that ends early, by a call", "PushProfile", "identity", framed(b"abcdef")[..8].to_vec()),
        ("message that ends early, on a stream", "Push", "identity", framed(b"abcdef")[..8].to_vec()),
        ("frame that announces 4 GiB, by a call", "PushProfile", "identity", vec![0, 0xff, 0xff, 0xff, 0xff, 1]),
        ("frame that announces 4 GiB, on a stream", "Push", "identity", vec![0, 0xff, 0xff, 0xff, 0xff, 1]),
        ("message of 40 MiB in 40 KiB, by a call", "PushProfile", "gzip", inflates.clone()),
        ("message of 40 MiB in 40 KiB, on a stream", "Push", "gzip", inflates),
        ("grpc-encoding snappy", "PushProfile", "snappy", framed(b"")),
    ] {
        let (outcome, headers) = raw(&server, method, encoding, whole(body)).await;
        table.add(name, &outcome);
        if outcome.code == Code::Unimplemented {
            assert_eq!(headers["grpc-accept-encoding"], "gzip,identity");
        }
    }
    table.check("raw_grpc");
}

/// Who stops in the middle. A stream goes on after it, but for one that stops inside a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalls() {
    let server = TestServer::start(&["--flush-interval=5ms", "--limits.stall-timeout=200ms"]).await;
    let mut table = Table::default();
    let (sender, mut answers) = server.stream().await;
    let header = ProfileHeader { profile: Some(Push::new(Bytes::new()).profile()), size: 9, sha256: Bytes::new() };
    sender
        .send(PushRequest { seq: 1, part: Some(Part::Header(header)), ..PushRequest::default() })
        .await
        .expect("the stream goes on");
    let answer = answers.message().await.expect("the stream goes on").expect("an answer");
    assert_eq!(answer.seq, 1);
    table.add("a client stops between chunks of a stream", &Outcome::of_answer(answer));
    let next = Profile { pprof: good(1).into(), ..Push::new(Bytes::new()).profile() };
    sender
        .send(PushRequest { seq: 2, part: Some(Part::Profile(next)), ..PushRequest::default() })
        .await
        .expect("the stream goes on");
    let answer = answers.message().await.expect("the stream goes on").expect("an answer");
    assert_eq!((answer.seq, answer.status), (2, None), "the stream takes a good profile after that");

    // A flag, a length of 100, and three bytes.
    let begin = [0, 0, 0, 0, 100, 1, 2, 3];
    for (name, method) in [
        ("a client stops inside a message, by a call", "PushProfile"),
        ("a client stops inside a message, on a stream", "Push"),
    ] {
        let (outcome, _headers) = raw(&server, method, "identity", stops_after(begin.to_vec())).await;
        table.add(name, &outcome);
    }
    let post = |announced: Option<&str>| {
        let request = http::Request::post("/api/v1/profiles?service=api&type=cpu");
        let request = announced.into_iter().fold(request, |request, length| request.header("content-length", length));
        request.body(stops_after(good(1))).expect("a request")
    };
    table.plain_row(&server, "a client stops in a body of known length", || post(Some("1000"))).await;
    table.plain_row(&server, "a client stops in a body of unknown length", || post(None)).await;
    table.check("stalls");
}

/// What a tenant may send, and what a server works on at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rates() {
    let mut table = Table::default();
    let push = || Push { tenant: Some("busy".to_owned()), ..Push::new(good(1)) };
    for (name, flag) in [
        ("a tenant sends more profiles than it may", "--tenant.max-profiles-per-second=1"),
        ("a tenant sends more bytes than it may", "--tenant.max-bytes-per-second=1B"),
    ] {
        let server = TestServer::start(&["--flush-interval=5ms", flag]).await;
        table.row_of_exhausted(&server, name, push()).await;
        let other = Push { tenant: Some("idle".to_owned()), ..push() };
        assert_eq!(other.by(Way::Call, &server).await.code, Code::Ok, "{name}: another is not held up");
    }
    let server = TestServer::start(&["--flush-interval=5ms", "--limits.max-requests=1"]).await;
    let held = async {
        loop {
            let slow =
                http::Request::post("/api/v1/profiles?service=api").body(stops_after(good(1))).expect("a request");
            let answer = plain(&server, http::Version::HTTP_11, slow).await;
            // One that is refused came while a push of the row was worked on.
            if answer.status() != http::StatusCode::TOO_MANY_REQUESTS {
                return answer;
            }
        }
    };
    tokio::select! {
        answer = held => panic!("{answer:?}"),
        () = table.row_of_exhausted(&server, "a server works on as many requests as it may", push()) => {}
    }
    table.check("rates");
}

/// Who may not send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access() {
    let tokens = Tokens::usual();
    let server = TestServer::start(&["--flush-interval=5ms", &tokens.flag()]).await;
    let mut table = Table::default();
    let by = |authorization: &str, tenant: Option<&str>| {
        let authorization = (!authorization.is_empty()).then(|| authorization.to_owned());
        Push { authorization, tenant: tenant.map(str::to_owned), ..Push::new(good(1)) }
    };
    for (name, push) in [
        ("a token of the role and the tenant", by(&tokens.header("writer"), Some("a"))),
        ("a token of the role, and no tenant named", by(&tokens.header("writer"), None)),
        ("no token", by("", None)),
        ("no token, but a tenant", by("", Some("a"))),
        ("a token that the server does not know", by("Bearer agw_0123456789", None)),
        ("an authorization that holds no token", by("Negotiate YII=", None)),
        ("a token of the role read", by(&tokens.header("reader"), None)),
        ("a token of the role admin", by(&tokens.header("admin"), None)),
        ("a token of another tenant", by(&tokens.header("writer"), Some("b"))),
        ("a token of two tenants, and none named", by(&tokens.header("two"), None)),
        ("a token of two tenants, and a third named", by(&tokens.header("two"), Some("c"))),
    ] {
        table.row(&server, name, push).await;
    }
    table.check("access");
}

/// What a client sees that knows nothing but HTTP, whichever version: the status, the words, and the headers by which it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http() {
    let tokens = Tokens::usual();
    let server =
        TestServer::start(&["--flush-interval=5ms", "--limits.max-body=1MiB", "--tenant.max-bytes-per-second=1KiB"])
            .await;
    let guarded = TestServer::start(&["--flush-interval=5ms", &tokens.flag()]).await;
    let mut table = Table::default();
    let post = |query: &str, headers: &[(&str, &str)], body: Vec<u8>| {
        let request = http::Request::post(format!("/api/v1/profiles?{query}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(whole(body)).expect("a request")
    };
    let usual = "service=api&type=cpu";
    table.plain_row(&server, "an empty body", || post(usual, &[], vec![])).await;
    table.plain_row(&server, "no service", || post("type=cpu", &[], good(1))).await;
    table.plain_row(&server, "tenant ..", || post(usual, &[("x-scope-orgid", "..")], good(1))).await;
    let twice = [("x-scope-orgid", "a"), ("x-scope-orgid", "b")];
    table.plain_row(&server, "two tenants", || post(usual, &twice, good(1))).await;
    let site = [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")];
    table.plain_row(&server, "a page of another site, without tokens", || post(usual, &site, good(1))).await;
    let origin = [("origin", "http://evil.example")];
    table.plain_row(&server, "the same, by a browser that says less", || post(usual, &origin, good(1))).await;
    let name = [("host", "evil.example:4100")];
    table.plain_row(&server, "a name that is not the server's, on loopback", || post(usual, &name, good(1))).await;
    let elsewhere = || http::Request::post("/api/v1/nothing").body(whole(good(1))).expect("a request");
    table.plain_row(&server, "a path that is none", elsewhere).await;
    let get = || http::Request::get("/api/v1/profiles").body(whole(vec![])).expect("a request");
    table.plain_row(&server, "a method that is none", get).await;
    let named = format!("{usual}&id={ID}");
    let first = plain(&server, http::Version::HTTP_11, post(&named, &[], good(1))).await;
    assert_eq!(first.status(), 200, "{first:?}");
    table.plain_row(&server, "an id of another profile", || post(&named, &[], good(2))).await;
    table.plain_row(&server, "a body of 2 MiB of at most 1", || post(usual, &[], pprof::noise(2 << 20))).await;
    table.plain_row(&server, "content-encoding br", || post(usual, &[("content-encoding", "br")], good(1))).await;
    let busy = [("x-scope-orgid", "busy")];
    let large = [good(1), (0..2).flat_map(|_| bytes(STRING, pprof::noise(20 << 10))).collect()].concat();
    let first = plain(&server, http::Version::HTTP_11, post(usual, &busy, large)).await;
    assert_eq!(first.status(), 200, "{first:?}");
    table.plain_row(&server, "a tenant sends more than it may", || post(usual, &busy, good(1))).await;
    table.plain_row(&guarded, "no token", || post(usual, &[], good(1))).await;
    let unknown = [("authorization", "Bearer agw_0123456789")];
    table.plain_row(&guarded, "a token that the server does not know", || post(usual, &unknown, good(1))).await;
    let reader = tokens.header("reader");
    let reader = [("authorization", reader.as_str())];
    table.plain_row(&guarded, "a token of another role", || post(usual, &reader, good(1))).await;
    let writer = tokens.header("writer");
    let writer = [("authorization", writer.as_str()), ("x-scope-orgid", "b")];
    table.plain_row(&guarded, "a token of another tenant", || post(usual, &writer, good(1))).await;
    guarded.store.always(Operation::Put, Trouble::Panic);
    let own = [("authorization", writer[0].1)];
    table.plain_row(&guarded, "a bug", || post(usual, &own, good(1))).await;
    let named = format!("{usual}&id={OTHER_ID}");
    guarded.store.always(Operation::Put, Trouble::LoseAnswer);
    table.plain_row(&guarded, "the store loses its answer", || post(&named, &own, good(1))).await;
    guarded.store.always(Operation::Put, Trouble::None);
    guarded.stop_ingester.cancel();
    while plain(&guarded, http::Version::HTTP_11, post(usual, &own, good(1))).await.status() == 200 {}
    table.plain_row(&guarded, "the ingester is shutting down", || post(usual, &own, good(1))).await;
    table.check("plain_http");

    // Without an id of its own a request gets one, another each time.
    let id = async || {
        let answer = plain(&server, http::Version::HTTP_11, post(usual, &[], vec![])).await;
        answer.headers()["x-request-id"].to_str().expect("text").to_owned()
    };
    let (first, second) = (id().await, id().await);
    assert!(first.len() == 32 && first != second, "{first} {second}");
}

/// What is nobody's fault, and may be retried; and what is ours, and may not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble() {
    let server = TestServer::start(&["--flush-interval=5ms", "--memory-budget=16KiB"]).await;
    let mut table = Table::default();
    let push = || Push::new(good(1)).id(ID);
    for (name, trouble) in [
        ("the store refuses", Trouble::Refuse(403)),
        ("the store cannot be reached", Trouble::Unreachable),
        ("the store asks to slow down", Trouble::Refuse(503)),
        ("the store loses its answer", Trouble::LoseAnswer),
        ("the store does not answer in time", Trouble::Stall),
    ] {
        server.store.always(Operation::Put, trouble);
        table.row(&server, name, push()).await;
        // A row of failures would be taken for an outage.
        server.store.always(Operation::Put, Trouble::None);
        assert_eq!(Push::new(good(1)).by(Way::Call, &server).await.code, Code::Ok);
    }
    server.store.always(Operation::Put, Trouble::Unreachable);
    for way in ALL {
        // Now and then one is let through to try.
        let outcome = loop {
            let outcome = Push::new(good(1)).by(way, &server).await;
            if outcome.message.contains("has been failing") {
                break outcome;
            }
        };
        let (text, seconds) =
            outcome.message.strip_suffix(" s").and_then(|text| text.rsplit_once(' ')).expect("seconds");
        seconds.parse::<u64>().expect("a number");
        if way == Way::Http {
            let message = format!("{text} <N> s");
            table.add("the store has failed three times in a row", &Outcome { message, ..outcome });
        }
    }
    server.store.always(Operation::Put, Trouble::None);
    while Push::new(good(1)).by(Way::Call, &server).await.code != Code::Ok {}

    server.store.always(Operation::Put, Trouble::Panic);
    for way in ALL {
        let outcome = Push::new(good(1)).by(way, &server).await;
        let (text, id) = outcome.message.rsplit_once(' ').expect("an id at the end");
        assert_eq!((text, id.len()), ("internal error, id", 16), "{way:?}");
        if way == Way::Http {
            table.add("a bug", &Outcome { message: format!("{text} <ID>"), ..outcome });
        }
    }

    server.store.always(Operation::Put, Trouble::Slow(Duration::from_secs(2)));
    let body = Bytes::from([good(1), bytes(STRING, pprof::noise(9 << 10))].concat());
    let first = Push::new(body.clone()).id(OTHER_ID);
    let puts = server.store.count(Operation::Put);
    let (first, ()) = tokio::join!(first.by(Way::Call, &server), async {
        while server.store.count(Operation::Put) == puts {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        table.row(&server, "the memory budget is taken", Push::new(body.clone())).await;
    });
    assert_eq!(first.code, Code::Ok, "{first:?}");
    server.store.always(Operation::Put, Trouble::None);

    server.stop_ingester.cancel();
    // The flag is set by the ingester's own task.
    while Push::new(good(1)).by(Way::Call, &server).await.code == Code::Ok {}
    table.row_by(&[Way::Call, Way::Http], &server, "the ingester is shutting down", push()).await;
    table.row_by(&[Way::Stream, Way::Chunks], &server, "the ingester is shutting down, on a stream", push()).await;
    table.check("trouble");
}
