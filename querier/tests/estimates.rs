//! What questions are thought to take, beside what they take, counted by the allocator of this process: a question is admitted by the former.
//!
//! One test, for everything in the process counts. The caches are off: what they keep has bounds of its own.

#![allow(clippy::print_stdout, reason = "the figures are for who asks with --nocapture")]

#[allow(dead_code, reason = "it is there for the questions")]
#[path = "questions/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::Path;

use afterglow_profile::model::{Function, Line, Location, NONE, ValueType};
use afterglow_profile::{Labels, Limits, Profile, ProfileType, compress, encode};
use afterglow_proto::v1;
use afterglow_store::block::ProfileMeta;
use peak_alloc::PeakAlloc;
use ulid::Ulid;
use world::{SECOND, Sent, World, fixture_raw, fixtures};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// How far an estimate may lie below what is taken, and above it. Where one sample type of four is read, it is far above: nobody asks which.
const MERGE: (f64, f64) = (0.5, 4.0);
const ONE_TYPE: (f64, f64) = (0.5, 12.0);

/// The same of a diff: nobody knows, either, what both sides have in common, which is held once.
const DIFF_OF_ONE_TYPE: (f64, f64) = (0.5, 16.0);

/// The instances of the base of what compares two sides; each side has half of them.
const BASE: &str = r#"{instance=~"i[0-5]"}"#;
const SELECTION: &str = r#"{instance=~"i([6-9]|1.)"}"#;

/// What is asked: the path and its parameters, beside the type and the window; how far the estimate may be off; and the fewest profiles.
type Question = (&'static str, &'static [(&'static str, &'static str)], (f64, f64), usize);

const QUESTIONS: [Question; 10] = [
    ("merge", &[("format", "pprof")], MERGE, 1),
    ("merge", &[("format", "flamegraph")], ONE_TYPE, 1),
    ("diff", &[("format", "pprof"), ("query", SELECTION), ("base_query", BASE)], MERGE, 24),
    ("diff", &[("format", "top"), ("query", SELECTION), ("base_query", BASE)], DIFF_OF_ONE_TYPE, 24),
    ("top", &[("limit", "0")], ONE_TYPE, 1),
    // Tables of groups are admitted as they are written: what they take is their answer, which here is the client's as well.
    ("top", &[("limit", "20"), ("by", "instance")], ONE_TYPE, 1),
    ("top", &[("limit", "20"), ("by", "instance"), ("ignore", "^none$")], ONE_TYPE, 1),
    ("function", &[("name", "runtime.mallocgc"), ("by", "instance")], ONE_TYPE, 1),
    ("statistics", &[("limit", "10000"), ("by", "instance")], ONE_TYPE, 1),
    ("regressions", &[("all", "true"), ("limit", "10000"), ("query", SELECTION), ("base_query", BASE)], ONE_TYPE, 24),
];

/// What nobody estimates: a request, an answer on its way, the tables of a block.
const SLACK_BYTES: usize = 2 << 20;

/// Returns real profiles, series by series: the repository's, and those of the folder that is named.
#[expect(clippy::disallowed_methods, reason = "this one is for tests alone")]
fn series() -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut series: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let mut add = |file: &str, raw| {
        let name: Vec<&str> = file.split('-').take(2).collect();
        series.entry(name.join("-")).or_default().push(raw);
    };
    fixtures().iter().for_each(|file| add(file, fixture_raw(file)));
    if let Some(folder) = std::env::var_os("AFTERGLOW_TEST_PROFILES") {
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        for file in files.iter().filter_map(|file| file.to_str()).filter(|file| file.ends_with(".pb.gz")) {
            let body = std::fs::read(Path::new(&folder).join(file)).unwrap();
            add(file, compress::inflate(&body, &Limits::default()).unwrap().into_owned());
        }
    }
    series
}

/// Goal: whatever is asked about real profiles, few or many, is admitted by about what it takes.
#[tokio::test]
async fn questions_are_admitted_by_about_what_they_take() {
    let flags = ["--query.range-cache=0", "--query.decoded-cache=0", "--query.memory=1GiB"];
    let mut off = Vec::new();
    for (name, raws) in series() {
        for (profiles, is_compacted) in [(1, false), (24, false), (24, true), (240, true)] {
            if raws.iter().map(Vec::len).max() > Some(1 << 20) && profiles > 24 {
                continue;
            }
            let world = World::with(&flags).await;
            let (service, profile_type) = name.split_once('-').unwrap();
            let sent: Vec<Sent> = (0..profiles)
                .map(|n| {
                    let raw = raws[n % raws.len()].clone();
                    let labels = [("service", service), ("instance", &*format!("i{}", n % 12))];
                    // Two hours ago, so that what is compacted has roll-ups where blocks have any.
                    let time_nanos = world::NOW_NANOS - (7_200 + n as i64) * SECOND;
                    let meta = ProfileMeta {
                        id: Ulid::from(1 + n as u128),
                        profile_type: ProfileType::parse(profile_type).unwrap(),
                        labels: Labels::new(labels).unwrap(),
                        time_nanos,
                        duration_nanos: 10 * SECOND,
                    };
                    Sent { meta, raw }
                })
                .collect();
            for chunk in sent.chunks(24) {
                world.put(chunk).await;
            }
            drop(sent);
            if is_compacted {
                world.compact().await;
            }
            for (path, asked, (low, high), _) in QUESTIONS.into_iter().filter(|(.., least)| profiles >= *least) {
                let query = [&[("type", profile_type), ("start", "-1d"), ("explain", "true")], asked].concat();
                // Opens the blocks.
                world.json("/api/v1/profiles", &query[..2]).await;
                let before = MEMORY.current_usage();
                MEMORY.reset_peak_usage();
                let answer = world.get(&format!("/api/v1/{path}"), &query).await;
                let peak = (MEMORY.peak_usage() - before).max(1);
                assert_eq!(answer.status, 200, "{path} {asked:?}: {answer}");
                let explain = match answer.header("x-afterglow-explain") {
                    "" => serde_json::from_value::<v1::Explain>(answer.json()["explain"].clone()).unwrap(),
                    header => serde_json::from_str(header).unwrap(),
                };
                let estimate = explain.estimate_bytes as usize;
                let ratio = (estimate + SLACK_BYTES) as f64 / (peak + SLACK_BYTES) as f64;
                let line = format!(
                    "{name} {profiles} {} {path} {asked:?}: {} KiB at the peak, {} estimated, {ratio:.2}; {} KiB raw each",
                    if is_compacted { "compacted" } else { "segments" },
                    peak >> 10,
                    estimate >> 10,
                    raws[0].len() >> 10,
                );
                println!("{line}");
                if !(low..=high).contains(&ratio) {
                    off.push(line);
                }
            }
        }
    }
    assert_eq!(off, [""; 0]);
    tables_of_many_groups_grow_within_the_budget().await;
    trees_grow_within_the_budget().await;
    trees_are_admitted_by_about_what_they_take().await;
}

/// Goal: how many functions each of many groups has is not known before, so memory is asked for as tables grow, and not when they are there.
async fn tables_of_many_groups_grow_within_the_budget() {
    let world = World::with(&["--query.range-cache=0", "--query.decoded-cache=0", "--query.memory=16MiB"]).await;
    let raws = series().remove("svc-cpu").expect("it is among the fixtures");
    let sent = |n: usize| {
        let meta = ProfileMeta {
            id: Ulid::from(1 + n as u128),
            profile_type: ProfileType::parse("cpu").unwrap(),
            labels: Labels::new([("service", "svc"), ("instance", &*format!("i{n}"))]).unwrap(),
            time_nanos: world::NOW_NANOS - (7_200 + n as i64) * SECOND,
            duration_nanos: 10 * SECOND,
        };
        Sent { meta, raw: raws[n % raws.len()].clone() }
    };
    for begin in (0..2_000).step_by(250) {
        world.put(&(begin..begin + 250).map(sent).collect::<Vec<_>>()).await;
    }
    world.compact().await;
    for path in ["top", "statistics"] {
        let query = [("type", "cpu"), ("start", "-1d"), ("limit", "1"), ("by", "instance")];
        world.json("/api/v1/profiles", &query[..2]).await;
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let answer = world.get(&format!("/api/v1/{path}"), &query).await;
        let peak = MEMORY.peak_usage() - before;
        println!("{path} of 2,000 groups: {} KiB at the peak, {}", peak >> 10, answer.status);
        assert_eq!(answer.status, 413, "{path}: {answer}");
        assert!(peak < 40 << 20, "{path}: {} KiB where 16 MiB are allowed", peak >> 10);
    }
}

/// How many stacks [`deep`] makes, and how many frames each has: more than a million nodes.
const STACKS: usize = 300;
const DEPTH: usize = 4_000;

/// Returns a profile of deep stacks that share next to nothing, of a few functions.
fn deep() -> Vec<u8> {
    const FUNCTIONS: usize = 997;
    let names: Vec<String> = (0..FUNCTIONS).map(|n| format!("deep.f{n}")).collect();
    let mut profile = Profile { strings: vec![b"", b"cpu", b"nanoseconds"], ..Profile::default() };
    profile.sample_types.push(ValueType { kind: 1, unit: 2, shape: 0 });
    for (at, name) in (0..).zip(&names) {
        profile.strings.push(name.as_bytes());
        let (id, name) = (u64::from(at) + 1, at + 3);
        profile.functions.push(Function { id, name, ..Function::default() });
        profile.lines.push(Line { function: at, line: 7, ..Line::default() });
        let (lines_start, lines_end) = (at, at + 1);
        profile.locations.push(Location { id, mapping: NONE, lines_start, lines_end, ..Location::default() });
    }
    let samples = &mut profile.samples;
    for stack in 0..STACKS {
        let frame = |i: usize| (stack * 7 + i * (stack + 1)) % FUNCTIONS;
        samples.locations.extend((0..DEPTH).map(|i| frame(i) as u32));
        samples.location_ends.push(samples.locations.len() as u32);
        samples.label_ends.push(0);
        samples.values.push(1 + stack as i64);
    }
    encode::encode(&profile)
}

/// Returns a querier with this memory, over two instances with such a profile each.
async fn deep_world(memory: &str) -> World {
    let world = World::with(&["--query.range-cache=0", "--query.decoded-cache=0", memory]).await;
    let raw = deep();
    let sent = |n: usize| {
        let meta = ProfileMeta {
            id: Ulid::from(1 + n as u128),
            profile_type: ProfileType::parse("cpu").unwrap(),
            labels: Labels::new([("service", "deep"), ("instance", &*format!("i{n}"))]).unwrap(),
            time_nanos: world::NOW_NANOS - (7_200 + n as i64) * SECOND,
            duration_nanos: 10 * SECOND,
        };
        Sent { meta, raw: raw.clone() }
    };
    let both = [sent(0), sent(1)];
    world.put(&both).await;
    world.json("/api/v1/profiles", &[("start", "-1d")]).await;
    world
}

/// What makes a tree, of one instance or of both.
const TREES: [(&str, &[(&str, &str)]); 5] = [
    ("merge", &[("format", "flamegraph"), ("limit", "100")]),
    ("merge", &[("format", "flamegraph")]),
    ("merge", &[("format", "folded")]),
    ("diff", &[("format", "flamegraph"), ("limit", "100"), ("base_query", r#"{instance="i1"}"#)]),
    ("diff", &[("format", "folded"), ("base_query", r#"{instance="i1"}"#)]),
];

/// Goal: deep stacks that share nothing make a tree of tens of times what the profile takes, whatever is left of it then: memory is asked for
/// as it grows, and not when it is there.
async fn trees_grow_within_the_budget() {
    const ALLOWED: usize = 64 << 20;
    let world = deep_world("--query.memory=64MiB").await;
    for (path, asked) in TREES {
        let query = [&[("type", "cpu"), ("start", "-1d"), ("query", r#"{instance="i0"}"#)], asked].concat();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let answer = world.get(&format!("/api/v1/{path}"), &query).await;
        let peak = MEMORY.peak_usage() - before;
        println!("{path} {asked:?} of deep stacks: {} KiB at the peak, {}", peak >> 10, answer.status);
        assert_eq!(answer.status, 413, "{path}: {answer}");
        assert!(answer.to_string().contains("more than the 48 MiB that all queries share"), "{path}: {answer}");
        assert!(peak < ALLOWED, "{path} {asked:?}: {} KiB where 64 MiB are allowed", peak >> 10);
    }
    let json = [("content-type", "application/json")];
    let body = format!(
        r#"{{"profileTypeID":"process_cpu:cpu:nanoseconds:cpu:nanoseconds","maxNodes":16,"labelSelector":"{{instance=\"i0\"}}","start":{},"end":{}}}"#,
        (world::NOW_NANOS - 86_400 * SECOND) / 1_000_000,
        world::NOW_NANOS / 1_000_000
    );
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let answer = world.post("/querier.v1.QuerierService/SelectMergeStacktraces", &json, body).await;
    let peak = MEMORY.peak_usage() - before;
    assert_eq!(answer.json()["code"], "resource_exhausted", "{answer}");
    assert!(peak < ALLOWED, "Grafana: {} KiB where 64 MiB are allowed", peak >> 10);
    let pprof = world.get("/api/v1/merge", &[("type", "cpu"), ("start", "-1d")]).await;
    assert_eq!(pprof.status, 200, "what has no tree is had: {pprof}");
}

/// Goal: where there is room, what was taken of it is about what trees take; and of the largest a flame graph has a million nodes, and says so.
async fn trees_are_admitted_by_about_what_they_take() {
    let world = deep_world("--query.memory=2GiB").await;
    for (path, asked) in TREES {
        let common = [("type", "cpu"), ("start", "-1d"), ("query", r#"{instance="i0"}"#), ("explain", "true")];
        let query = [&common[..], asked].concat();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let answer = world.get(&format!("/api/v1/{path}"), &query).await;
        let peak = MEMORY.peak_usage() - before;
        assert_eq!(answer.status, 200, "{path}: {answer}");
        let explain: v1::Explain = match answer.header("x-afterglow-explain") {
            "" => {
                let text = str::from_utf8(&answer.body).unwrap();
                let at = text.rfind(r#""explain":"#).expect("it was asked for") + r#""explain":"#.len();
                serde_json::Deserializer::from_str(&text[at..]).into_iter().next().unwrap().unwrap()
            }
            header => serde_json::from_str(header).unwrap(),
        };
        let estimate = explain.estimate_bytes as usize;
        let ratio = estimate as f64 / peak as f64;
        println!(
            "{path} {asked:?} of deep stacks: {} KiB at the peak, {} estimated, {ratio:.2}",
            peak >> 10,
            estimate >> 10
        );
        assert!(
            (MERGE.0..=MERGE.1).contains(&ratio),
            "{path} {asked:?}: {peak} bytes at the peak, {estimate} estimated"
        );
    }
    for limit in [0, u32::MAX] {
        let request = v1::MergeRequest {
            selection: Some(v1::Selection {
                query: r#"{instance="i0"}"#.to_owned(),
                start: Some(afterglow_proto::Timestamp { seconds: 0, nanos: 0 }),
                ..v1::Selection::default()
            }),
            format: v1::MergeFormat::Flamegraph.into(),
            limit,
            ..v1::MergeRequest::default()
        };
        let mut client = world.grpc.clone();
        let answer = client.merge(request).await.unwrap().into_inner();
        let Some(v1::merge_response::Result::Flamegraph(graph)) = answer.result else { panic!("no flame graph") };
        assert_eq!(graph.nodes.len(), 1_000_000);
        let whole = graph.nodes.len() as u64 + graph.nodes_truncated;
        assert!((1_000_001..=(STACKS * DEPTH + 1) as u64).contains(&whole), "{whole}");
    }
}
