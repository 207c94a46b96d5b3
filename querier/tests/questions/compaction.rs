//! A compaction changes no answer: random questions about random profiles are answered alike before it, while it goes on, and after.

use std::cell::Cell;
use std::time::Duration;

use afterglow_profile::model::Mapping;
use afterglow_profile::{Limits, compress, encode};
use afterglow_store::maintenance::{Maintainer, Options};
use afterglow_store::paths::TenantId;
use afterglow_store::testing::faults::{Operation, Trouble};
use afterglow_store::verify::verify;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::world::{Answer, NOW_NANOS, SECOND, Sent, World, decoded, meaning, small};

const HOUR: i64 = 3_600;

/// How long the store takes for each object it creates, so that questions fall between two commits.
const CREATE: Duration = Duration::from_millis(10);

/// Says from which number all is drawn.
const SEED_ENV: &str = "COMPACTION_SEED";

/// A question: a path with its parameters.
type Question = (&'static str, Vec<(&'static str, String)>);

/// A profile as it is drawn.
#[derive(Clone, Debug)]
struct Drawn {
    /// When it was taken, in seconds before now.
    ago: i64,
    service: &'static str,
    profile_type: &'static str,
    instance: u8,
    /// The stack and the values of each sample.
    samples: Vec<(usize, [i64; 2])>,
    /// Of what only one profile of a merge can decide, what it says: a bit for each.
    says: u8,
}

/// Draws a profile of the last three hours, which lie in two days. There are so few stacks that most hours get roll-ups.
fn profile() -> impl Strategy<Value = Drawn> {
    let samples = proptest::collection::vec((0usize..3, [0i64..100, 0..100]), 2..6);
    let types = select(vec!["cpu", "cpu", "cpu", "heap", "other"]);
    let drawn = (1..3 * HOUR, select(vec!["a", "a", "b"]), types, 0u8..4, samples, 0u8..16);
    drawn.prop_map(|(ago, service, profile_type, instance, samples, says)| Drawn {
        ago,
        service,
        profile_type,
        instance,
        samples,
        says,
    })
}

fn question() -> impl Strategy<Value = Question> {
    let query = select(vec!["{}", r#"{service="a"}"#, r#"{service=~"a|b", instance!="i0"}"#, r#"{instance="i1"}"#]);
    // Half of the windows are of whole hours.
    let time = prop_oneof![(0..4i64).prop_map(|hours| hours * HOUR), 0..3 * HOUR];
    let path = select(vec![
        ("/api/v1/profiles", vec![("limit", "1000")]),
        ("/api/v1/merge", vec![("format", "pprof")]),
        ("/api/v1/merge", vec![("format", "top")]),
        ("/api/v1/merge", vec![("format", "flamegraph")]),
        ("/api/v1/merge", vec![("format", "folded"), ("focus", "work")]),
        ("/api/v1/series", vec![("by", "service"), ("step", "10m")]),
        ("/api/v1/series", vec![("by", "instance"), ("step", "1h"), ("function", "work")]),
        ("/api/v1/series", vec![("step", "1h"), ("function", "main")]),
        ("/api/v1/top", vec![("by", "service"), ("limit", "0")]),
        ("/api/v1/top", vec![("by", "instance"), ("limit", "0")]),
        ("/api/v1/function", vec![("name", "work"), ("by", "service")]),
        ("/api/v1/diff", vec![("base_query", r#"{service="b"}"#), ("format", "top")]),
        ("/api/v1/diff", vec![("base_query", r#"{instance="i2"}"#), ("format", "flamegraph"), ("normalize", "true")]),
        ("/api/v1/statistics", vec![("by", "instance")]),
        ("/api/v1/regressions", vec![("base_query", r#"{service="b"}"#)]),
        ("/api/v1/labels", vec![]),
        ("/api/v1/labels/instance/values", vec![]),
        ("/api/v1/services", vec![]),
        ("/api/v1/types", vec![]),
    ]);
    (query, select(vec!["cpu", "heap", "other"]), time.clone(), time, path).prop_map(
        |(query, of_type, a, b, (path, more))| {
            let at = |seconds: i64| (NOW_NANOS - seconds * SECOND).to_string();
            let window = [("start", at(a.max(b))), ("end", at(a.min(b)))];
            let mut asked = vec![("query", query.to_owned()), ("type", of_type.to_owned())];
            asked.extend(window);
            asked.extend(more.into_iter().map(|(name, value)| (name, value.to_owned())));
            (path, asked)
        },
    )
}

fn sent(id: u128, Drawn { ago, service, profile_type, instance, mut samples, says }: Drawn) -> Sent {
    const STACKS: [&[&str]; 3] = [&["main", "work"], &["main", "work", "more"], &["main", "idle"]];
    // What changed since the profile before may be less than nothing, and cancel out.
    if profile_type == "heap" {
        samples.iter_mut().flat_map(|(_, values)| values).for_each(|value| *value = *value / 10 - 5);
    }
    let instance = format!("i{instance}");
    let labels = [("service", service), ("instance", &instance)];
    let stacks: Vec<(&[&str], &[i64])> = samples.iter().map(|(stack, values)| (STACKS[*stack], &values[..])).collect();
    let counts = [("samples", "count"), ("cpu", "nanoseconds")];
    let sent = small(id, profile_type, &labels, NOW_NANOS - ago * SECOND, &counts, &stacks);
    if profile_type == "other" { saying(sent, says) } else { sent }
}

/// Makes a profile differ from its like in what only one of a merge can decide.
fn saying(sent: Sent, says: u8) -> Sent {
    let mut profile = decoded(&sent.raw);
    let at = profile.strings.len() as u32;
    profile.strings.extend([&b"more"[..], b"samples", b"/bin/one", b"/bin/other"]);
    let [frames, shown, one, other] = [at, at + 1, at + 2, at + 3];
    let is = |bit: u8| says & 1 << bit != 0;
    if is(0) {
        profile.sample_types.reverse();
    }
    if is(1) {
        profile.drop_frames = frames;
    }
    if is(2) {
        profile.default_sample_type = shown;
    }
    let file = if is(3) { one } else { other };
    profile.mappings.push(Mapping { id: 1, start: 0x1000, limit: 0x2000, file, ..Mapping::default() });
    let raw = encode::encode(&profile);
    drop(profile);
    Sent { raw, ..sent }
}

/// Asks, and returns what the answer says, without what says nothing: the order of a pprof's tables and of lines.
async fn ask(world: &World, (path, asked): &Question) -> String {
    let asked: Vec<(&str, &str)> = asked.iter().map(|(name, value)| (*name, &value[..])).collect();
    let answer: Answer = world.get(path, &asked).await;
    let is = |format: &str| asked.contains(&("format", format));
    let said = match answer.status {
        200 if is("pprof") => {
            let raw = compress::inflate(&answer.body, &Limits::default()).expect("it is gzip'd");
            format!("{:?}", meaning(&decoded(&raw)))
        }
        200 if is("folded") => {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            lines.join("\n")
        }
        _ => answer.json().to_string(),
    };
    format!("{} {said}", answer.status)
}

/// Asks for a profile, which is what was sent.
async fn fetch(world: &World, sent: &Sent) {
    let answer = world.get(&format!("/api/v1/profiles/{}", sent.meta.id), &[("raw", "true")]).await;
    assert!((answer.status, &*answer.body) == (200, &*sent.raw), "{}: {answer}", sent.meta.id);
}

/// Draws the same each time, unless the environment says from which number.
fn runner() -> TestRunner {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch, no setting of the product")]
    let Ok(seed) = std::env::var(SEED_ENV) else { return TestRunner::deterministic() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.parse::<u64>().expect("a number").to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

#[tokio::test]
async fn answers_stay_the_same_while_blocks_are_merged() {
    let mut runner = runner();
    let (mut meanwhile, mut found, mut rolled) = (0, 0, 0);
    for _ in 0..4 {
        let mut draw = |count: usize| -> (Vec<_>, Vec<Question>) {
            let all = (proptest::collection::vec(profile(), count), proptest::collection::vec(question(), 24));
            all.new_tree(&mut runner).expect("it can be drawn").current()
        };
        let (profiles, questions) = draw(480);
        let world = World::with(&["--query.max-list-age=0s"]).await;
        let profiles: Vec<Sent> = (1..).zip(profiles).map(|(id, drawn)| sent(id, drawn)).collect();
        for (n, part) in profiles.chunks(12).enumerate() {
            // Every third segment has a profile of an earlier one, sent again.
            let again = (n % 3 == 2).then(|| profiles[n * 7].clone());
            world.put(&part.iter().cloned().chain(again).collect::<Vec<_>>()).await;
        }
        let mut before = Vec::new();
        for question in &questions {
            before.push(ask(&world, question).await);
        }
        found += before.iter().filter(|answer| answer.starts_with("200")).count();

        world.faults.always(Operation::Create, Trouble::Slow(CREATE));
        let mut options = Options::default();
        // Small steps: many commits for questions to fall between.
        options.compaction.plan.inputs_max = 4;
        // The clock of this world stands; nothing is to go by age.
        options.retention.age_max = None;
        let mut maintainer = Maintainer::new(world.store.clone(), options);
        let rests = Cell::new(false);
        let maintain = async {
            let report = maintainer.run_to_rest().await.expect("the bucket can be listed");
            rests.set(true);
            report
        };
        let asks = async {
            for ((question, expected), sent) in questions.iter().zip(&before).cycle().zip(profiles.iter().cycle()) {
                if rests.get() {
                    break;
                }
                fetch(&world, sent).await;
                assert_eq!(&ask(&world, question).await, expected, "meanwhile: {question:?}");
                meanwhile += 1;
            }
        };
        let (report, ()) = tokio::join!(maintain, asks);
        assert_eq!(report.failed, []);
        assert!(report.compaction.committed > 10, "{report:?}");

        for (question, expected) in questions.iter().zip(&before) {
            assert_eq!(&ask(&world, question).await, expected, "after: {question:?}");
        }
        for sent in &profiles {
            fetch(&world, sent).await;
        }
        let looked = verify(&world.store, &TenantId::anonymous(), true).await;
        let looked = looked.expect("the bucket can be read");
        assert_eq!(looked.findings, []);
        rolled += looked.rollups;
    }
    assert!(
        meanwhile >= 20 && found >= 48 && rolled > 10,
        "{meanwhile} meanwhile, {found} found something, {rolled} roll-ups"
    );
}
