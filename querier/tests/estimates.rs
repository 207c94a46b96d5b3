//! What questions are thought to take, beside what they take, counted by the allocator of this process: a question is admitted by the former.
//!
//! One test, for everything in the process counts. The caches are off: what they keep has bounds of its own.

#![allow(clippy::print_stdout, reason = "the figures are for who asks with --nocapture")]

#[allow(dead_code, reason = "it is there for the questions")]
#[path = "questions/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::Path;

use afterglow_profile::{Labels, Limits, ProfileType, compress};
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
