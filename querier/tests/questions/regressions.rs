//! Regressions: a function that became slower is told from noise, and noise is not taken for one.

use afterglow_proto::v1;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::world::{NOW_NANOS, SECOND, Sent, World, cpu, small};

const REGRESSIONS: &str = "/api/v1/regressions";

/// How many instances a version has, and how many profiles each sends.
const INSTANCES: u128 = 3;
const PROFILES: u128 = 16;

/// The functions of the program that is compared, and what share of its time each has.
const FUNCTIONS: [(&str, f64); 6] =
    [("parse", 0.30), ("encode", 0.25), ("hash", 0.20), ("copy", 0.15), ("lock", 0.08), ("log", 0.02)];

/// Makes the profiles of a version, in which `slower` takes `factor` times as long as it should.
fn version(chance: &mut SmallRng, version: &str, slower: &str, factor: f64) -> Vec<Sent> {
    let first: u128 = chance.random_range(1..1 << 60);
    let mut profile = |instance: u128, number: u128| {
        let busy = chance.random_range(300.0..1_000.0);
        let samples = FUNCTIONS.map(|(name, share)| {
            let factor = if name == slower { factor } else { 1.0 };
            (busy * share * factor * chance.random_range(0.85..1.15)) as i64
        });
        let stacks: Vec<([&str; 2], [i64; 2])> =
            FUNCTIONS.iter().zip(samples).map(|((name, _), n)| (["main", *name], [n, 10_000_000 * n])).collect();
        let stacks: Vec<(&[&str], &[i64])> = stacks.iter().map(|(stack, values)| (&stack[..], &values[..])).collect();
        let name = format!("i{instance}");
        let labels = [("service", "api"), ("version", version), ("instance", &name)];
        let time = NOW_NANOS - (1 + number as i64) * 30 * SECOND;
        let counts = [("samples", "count"), ("cpu", "nanoseconds")];
        small(first + instance * PROFILES + number, "cpu", &labels, time, &counts, &stacks)
    };
    (0..INSTANCES)
        .flat_map(|instance| (0..PROFILES).map(move |number| (instance, number)))
        .map(|(i, n)| profile(i, n))
        .collect()
}

async fn ask(world: &World, asked: &[(&str, &str)]) -> v1::RegressionsResponse {
    let about = [("type", "cpu"), ("query", r#"{version="2"}"#), ("base_query", r#"{version="1"}"#)];
    serde_json::from_value(world.json(REGRESSIONS, &[&about, asked].concat()).await).unwrap()
}

async fn world_of(seed: u64, slower: &str, factor: f64) -> World {
    let world = World::with(&["--query.max-list-age=0s"]).await;
    let mut chance = SmallRng::seed_from_u64(seed);
    world.put(&version(&mut chance, "1", slower, 1.0)).await;
    world.put(&version(&mut chance, "2", slower, factor)).await;
    world
}

/// Goal: one function that takes a fifth longer is found, it alone, by about as much as it changed, in segments and in blocks.
#[tokio::test]
async fn a_function_that_became_a_fifth_slower_is_found() {
    let world = world_of(1, "hash", 1.2).await;
    let found = ask(&world, &[]).await;
    let names: Vec<&str> = found.changes.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(names, ["hash"], "{found:?}");
    let change = &found.changes[0];
    assert!((0.1..0.3).contains(&change.change) && change.chance < 0.05 && change.significant, "{change:?}");
    assert!((0.18..0.22).contains(&change.base_share) && change.share > change.base_share);
    assert!((0.9..1.0).contains(&found.typical_ratio));
    let profiles = (INSTANCES * PROFILES) as u64;
    assert_eq!((found.profiles, found.base_profiles, found.tested), (profiles, profiles, 6));
    assert_eq!((found.cells, found.base_cells), (24, 24), "three instances in eight steps each");
    let before = serde_json::to_value(&found).unwrap();
    world.compact().await;
    assert_eq!(serde_json::to_value(ask(&world, &[]).await).unwrap(), before);
}

/// Goal: profiles that both sides select count on both, in segments and in blocks.
#[tokio::test]
async fn sides_may_have_profiles_in_common() {
    let world = world_of(3, "hash", 1.5).await;
    let ask = async |query, base| {
        let about = [("type", "cpu"), ("query", query), ("base_query", base), ("all", "true")];
        let found: v1::RegressionsResponse = serde_json::from_value(world.json(REGRESSIONS, &about).await).unwrap();
        let share = found.changes.iter().find(|change| change.name == "hash").map(|change| change.share).unwrap();
        (share, found)
    };
    let (new, _) = ask(r#"{version="2"}"#, r#"{version="1"}"#).await;
    let (old, _) = ask(r#"{version="1"}"#, r#"{version="2"}"#).await;
    for _ in ["segments", "blocks"] {
        let (all, found) = ask("{}", r#"{version="1"}"#).await;
        let profiles = (INSTANCES * PROFILES) as u64;
        assert_eq!((found.profiles, found.base_profiles), (2 * profiles, profiles));
        assert!(old + 0.02 < all && all + 0.02 < new, "{old}, {all}, {new}");
        assert!(found.completeness.unwrap().problems.is_empty());
        world.compact().await;
    }
}

/// Goal: how profiles lie in segments and blocks says nothing about a program: one in each segment, some merged, or all in one block.
#[tokio::test]
async fn an_answer_is_the_same_to_the_last_digit_however_profiles_lie() {
    let mut answers = Vec::new();
    for together in [1, 7, 96] {
        let world = World::with(&["--query.max-list-age=0s"]).await;
        let mut chance = SmallRng::seed_from_u64(11);
        let mut sent = version(&mut chance, "1", "hash", 1.0);
        sent.extend(version(&mut chance, "2", "hash", 1.2));
        for profiles in sent.chunks(together) {
            world.put(profiles).await;
        }
        for _ in 0..2 {
            answers.push(serde_json::to_value(ask(&world, &[("all", "true")]).await).unwrap());
            world.compact().await;
        }
    }
    assert_eq!(answers[0]["changes"][0]["name"], "hash");
    assert_eq!(answers[0]["changes"].as_array().unwrap().len(), 6);
    for answer in &answers {
        assert_eq!(answer, &answers[0]);
    }
}

/// Goal: who compares one instance with another is told what cannot be known then; who compares it with itself is not.
#[tokio::test]
async fn a_single_instance_is_said_to_be_one() {
    let world = world_of(12, "", 1.0).await;
    let warned = |answer: v1::RegressionsResponse| answer.warnings.join(" ");
    assert_eq!(warned(ask(&world, &[]).await), "");
    let of = |query| [("query", query), ("base_query", r#"{version="1", instance="i0"}"#)];
    let ask = async |query: [(&str, &str); 2]| {
        let answer = world.json(REGRESSIONS, &[&[("type", "cpu")], &query[..]].concat()).await;
        warned(serde_json::from_value(answer).unwrap())
    };
    assert_eq!(ask(of(r#"{version="2", instance="i0"}"#)).await, "", "it is the same one");
    let other = ask(of(r#"{version="2", instance="i1"}"#)).await;
    assert!(other.contains("either side has profiles of a single instance, not of the same"), "{other}");
    let others = ask(of(r#"{version="2", instance!="i0"}"#)).await;
    assert!(others.contains("the base has profiles of a single instance"), "{others}");
}

/// Goal: that is said where there are so many instances that groups of them are compared, whichever the one that is alone would be grouped with.
#[tokio::test]
async fn a_single_instance_beside_many_is_said_to_be_one() {
    let world = World::with(&["--query.max-list-age=0s"]).await;
    let profile = |number: u128| {
        let version = if number < 4 { "1" } else { "2" };
        let instance = format!("i{:02}", number / 4);
        cpu(
            1 + number,
            &[("service", "api"), ("version", version), ("instance", &instance)],
            20 + number as i64 % 4 * 100,
        )
    };
    world.put(&(0..4 * 60).map(profile).collect::<Vec<_>>()).await;
    let warned = ask(&world, &[]).await.warnings.join(" ");
    assert!(warned.contains("the base has profiles of a single instance"), "{warned:?}");
}

/// Goal: of twenty comparisons of a program with itself, hardly one raises an alarm; [`afterglow_profile::stats`] counts over hundreds.
#[tokio::test]
async fn a_program_that_did_not_change_raises_no_alarm() {
    let mut alarms = 0;
    for seed in 100..120 {
        let world = world_of(seed, "", 1.0).await;
        let found = ask(&world, &[]).await;
        alarms += usize::from(!found.changes.is_empty());
        assert_eq!(ask(&world, &[("all", "true")]).await.changes.len(), 6);
    }
    assert!(alarms <= 2, "{alarms} alarms in 20 comparisons");
}

#[tokio::test]
async fn totals_are_compared_when_asked_for() {
    let world = world_of(2, "encode", 1.5).await;
    let totals = ask(&world, &[("value", "total"), ("all", "true")]).await;
    let main = totals.changes.iter().find(|change| change.name == "main").unwrap();
    // What it calls became slower, and so did it, against what did not change.
    assert_eq!((main.base_share, main.share, main.significant), (1.0, 1.0, true));
    assert!((0.05..0.25).contains(&main.change), "{main:?}");
    let encode = totals.changes.iter().find(|change| change.name == "encode").unwrap();
    assert!(encode.significant && encode.change > main.change, "{totals:?}");
    // Where only large changes are asked for, this is none.
    assert!(ask(&world, &[("min_change", "0.9")]).await.changes.is_empty());
    let cut = ask(&world, &[("all", "true"), ("limit", "2")]).await;
    assert_eq!((cut.changes.len(), cut.changes_truncated), (2, 4));
}

/// The profiles of a version of which `gain` counts `of_gain`, in four instances of six profiles each.
fn gaining(first: u128, version: &str, of_gain: [i64; 2]) -> Vec<Sent> {
    let mut chance = SmallRng::seed_from_u64(first as u64);
    (0..24u128)
        .map(|number| {
            let mut value = |from, to| chance.random_range(from..to) * 10_000_000i64;
            let values = [value(of_gain[0], of_gain[1]), value(50, 90), value(50, 90), value(50, 90), value(50, 90)];
            let names = ["gain", "parse", "encode", "hash", "copy"];
            let stacks: Vec<([&str; 2], [i64; 1])> =
                names.into_iter().zip(values).map(|(name, value)| (["main", name], [value])).collect();
            let stacks: Vec<(&[&str], &[i64])> = stacks.iter().map(|(stack, value)| (&stack[..], &value[..])).collect();
            let labels = [("service", "api"), ("version", version), ("instance", &*format!("i{}", number % 4))];
            let time = NOW_NANOS - (1 + number as i64 / 4) * 60 * SECOND;
            small(first + number, "cpu", &labels, time, &[("cpu", "nanoseconds")], &stacks)
        })
        .collect()
}

/// Goal: what counts as less than nothing is never told as a share that changed by more than all of it, with an error below 0: where too little
/// is left it is refused, and said why; where enough is left, what was left out is said.
#[tokio::test]
async fn negative_values_are_no_shares() {
    let world = World::new().await;
    world.put(&gaining(1, "1", [100, 150])).await;
    world.put(&gaining(101, "2", [-300, -150])).await;
    for (query, base, side) in
        [(r#"{version="2"}"#, r#"{version="1"}"#, "selection"), (r#"{version="1"}"#, r#"{version="2"}"#, "base")]
    {
        let refused = world.refusal(REGRESSIONS, &[("type", "cpu"), ("query", query), ("base_query", base)]).await;
        assert!(refused.starts_with("400 INVALID_ARGUMENT it takes at least two cells"), "{refused}");
        let why = format!("; 24 of 24 cells of the {side} have negative values, and so no shares: those of ");
        assert!(refused.contains(&why) && refused.ends_with(", and 1 more"), "{refused}");
    }

    let world = world_of(1, "hash", 1.2).await;
    let before = ask(&world, &[]).await;
    let labels = [("service", "api"), ("version", "2"), ("instance", "odd")];
    let stacks: [(&[&str], &[i64]); 2] = [(&["main", "hash"], &[9, -90]), (&["main", "copy"], &[9, 900])];
    let counts = [("samples", "count"), ("cpu", "nanoseconds")];
    world.put(&[small(7, "cpu", &labels, NOW_NANOS - 40 * SECOND, &counts, &stacks)]).await;
    let found = ask(&world, &[]).await;
    let warning = "1 of 25 cells of the selection have negative values, and so no shares: those of \
                   {instance=\"odd\",service=\"api\",version=\"2\"}";
    assert_eq!(found.warnings, [warning]);
    assert_eq!(found, v1::RegressionsResponse { warnings: found.warnings.clone(), ..before });
}

/// Goal: a filter leaves of a comparison what it leaves of the samples.
#[tokio::test]
async fn shares_are_of_what_a_filter_leaves() {
    let world = world_of(1, "hash", 1.2).await;
    let found = ask(&world, &[("all", "true"), ("ignore", "^(parse|encode)$")]).await;
    let names: Vec<&str> = found.changes.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    let hash = found.changes.iter().find(|change| change.name == "hash").unwrap();
    assert!((0.42..0.47).contains(&hash.base_share) && hash.significant, "of 0.20 and 0.25 that is left: {hash:?}");
    let nothing =
        [("type", "cpu"), ("query", "{version=\"2\"}"), ("base_query", "{version=\"1\"}"), ("focus", "absent")];
    let refused = world.refusal(REGRESSIONS, &nothing).await;
    assert!(refused.ends_with("of the base there are 0, of the selection 0; focus matched nothing"), "{refused}");
}

/// Goal: without a base it is the window before.
#[tokio::test]
async fn the_base_is_the_window_before_where_none_is_given() {
    let world = World::new().await;
    let labels = [("service", "api"), ("instance", "a")];
    let ids = 1..=8;
    let profiles: Vec<Sent> = ids.map(|i| cpu(i, &labels, 60 * i as i64)).collect();
    world.put(&profiles).await;
    let asked = [("type", "cpu"), ("start", "-5m"), ("end", "now"), ("all", "true")];
    let found: v1::RegressionsResponse = serde_json::from_value(world.json(REGRESSIONS, &asked).await).unwrap();
    assert_eq!((found.profiles, found.base_profiles), (5, 3));
    assert!(found.changes.iter().all(|change| change.change.abs() < 1e-9 && !change.significant), "{found:?}");
}

#[tokio::test]
async fn refusals_say_what_is_missing() {
    let world = World::new().await;
    world
        .put(&[
            cpu(1, &[("service", "api"), ("version", "1")], 60),
            cpu(2, &[("service", "api"), ("version", "2")], 60),
        ])
        .await;
    let base = |query| [("query", r#"{version="2"}"#), ("base_query", query), ("type", "cpu")];
    let mut refusals = Vec::new();
    for asked in [
        [&base(r#"{version="1"}"#)[..], &[]].concat(),
        [&base(r#"{version="2"}"#)[..], &[]].concat(),
        [&base(r#"{version="3"}"#)[..], &[]].concat(),
        [&base(r#"{version="1"}"#)[..], &[("min_share", "2")]].concat(),
        [&base(r#"{version="1"}"#)[..], &[("min_change", "much")]].concat(),
        [&base(r#"{version="1"}"#)[..], &[("sample_type", "bytes")]].concat(),
    ] {
        refusals.push(world.refusal(REGRESSIONS, &asked).await);
    }
    refusals.push(world.refusal(REGRESSIONS, &[("query", r#"{version="2"}"#), ("type", "cpu")]).await);
    insta::assert_snapshot!(refusals.join("\n"));
}
