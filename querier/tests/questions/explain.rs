//! What answers cost: told where it is asked for, and less the second time.

use afterglow_proto::v1;
use afterglow_store::testing::faults::{Operation, Trouble};

use crate::series::put_fixtures;
use crate::world::{NOW_NANOS, SECOND, World, cpu};

/// Asks for JSON with its explanation.
async fn explained(world: &World, path: &str, query: &[(&str, &str)]) -> v1::Explain {
    let answer = world.json(path, &[query, &[("explain", "true")]].concat()).await;
    serde_json::from_value(answer["explain"].clone()).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
}

fn steps(explain: &v1::Explain) -> Vec<&str> {
    explain.steps.iter().map(|step| step.name.as_str()).collect()
}

/// Goal: the second of two equal merges reads nothing from the store, and both give the same.
#[tokio::test]
async fn the_second_of_two_equal_merges_reads_nothing() {
    let world = World::new().await;
    put_fixtures(&world).await;
    world.compact().await;
    let query = [("type", "cpu"), ("start", "0"), ("format", "folded")];
    let first = world.get("/api/v1/merge", &[&query[..], &[("explain", "")]].concat()).await;
    let second = world.get("/api/v1/merge", &[&query[..], &[("explain", "")]].concat()).await;
    assert!(first.status == 200 && first.body == second.body, "{first}");
    let read = |answer: &str| serde_json::from_str::<v1::Explain>(answer).unwrap();
    let (first, second) = (read(first.header("x-afterglow-explain")), read(second.header("x-afterglow-explain")));
    assert!(first.requests > 0 && first.bytes > 0 && first.objects > 0 && first.ranges > 0, "{first:?}");
    assert!(first.profiles > 0 && first.estimate_bytes > 0 && first.ranges_cached == 0, "{first:?}");
    assert_eq!((second.profiles, second.ranges, second.blocks), (first.profiles, first.ranges, first.blocks));
    assert_eq!((second.objects, second.bytes, second.ranges_cached), (0, 0, first.ranges), "{second:?}");
    assert_eq!(second.blocks_cached, second.blocks);
    for explain in [first, second] {
        for step in ["select", "decode", "sum", "encode"] {
            assert!(steps(&explain).contains(&step), "{step}: {explain:?}");
        }
    }

    let plain = world.get("/api/v1/merge", &query).await;
    assert_eq!((plain.status, plain.header("x-afterglow-explain")), (200, ""));
}

/// Goal: without a cache everything is read each time, and said so.
#[tokio::test]
async fn without_a_cache_everything_is_read_each_time() {
    let world = World::with(&["--query.range-cache=0", "--query.decoded-cache=0"]).await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    for _ in 0..2 {
        let explain = explained(&world, "/api/v1/merge", &[("format", "top")]).await;
        assert!(explain.ranges > 0 && explain.ranges_cached == 0 && explain.objects == 1, "{explain:?}");
    }
}

/// Goal: every question that has a cost tells it, with all profiles it is about.
#[tokio::test]
async fn every_question_tells_its_cost() {
    let world = World::new().await;
    for id in 0..4 {
        world.put(&[cpu(id + 1, &[("service", "api"), ("instance", &format!("{}", id % 2))], id as i64 + 1)]).await;
    }
    let middle = format!("{}", NOW_NANOS - 5 * SECOND / 2);
    let (base, whole) = ([("start", &*middle), ("base_start", "-1h"), ("base_end", &*middle)], [("start", "-1h")]);
    for (path, query, profiles) in [
        ("/api/v1/profiles", &whole[..], 4),
        ("/api/v1/merge?format=flamegraph", &[], 4),
        ("/api/v1/diff", &[&base[..], &[("format", "top")]].concat(), 4),
        ("/api/v1/series", &whole, 4),
        ("/api/v1/top", &whole, 4),
        ("/api/v1/function", &[("name", "work")], 4),
        ("/api/v1/regressions", &base, 4),
        ("/api/v1/statistics", &whole, 4),
    ] {
        let (path, query) = match path.split_once('?') {
            Some((path, form)) => (path, vec![form.split_once('=').unwrap()]),
            None => (path, query.to_vec()),
        };
        let explain = explained(&world, path, &query).await;
        assert_eq!(explain.profiles, profiles, "{path}: {explain:?}");
        assert!(explain.duration.is_some() && steps(&explain).contains(&"select"), "{path}: {explain:?}");
        assert!(world.json(path, &query).await["explain"].is_null(), "{path}");
    }
}

/// Goal: what was damaged on its way here is read again by the next question, though it had been kept.
#[tokio::test]
async fn damage_on_the_way_does_not_stay() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    let query = [("format", "folded")];
    // Opens the block, so that the next GET is one of samples.
    world.json("/api/v1/profiles", &[]).await;
    world.faults.script(Operation::Get, [Trouble::FlipBit(400)]);
    let damaged = world.get("/api/v1/merge", &query).await;
    assert_eq!(damaged.status, 500, "{damaged}");
    let whole = world.get("/api/v1/merge", &query).await;
    assert_eq!((whole.status, whole.header("x-afterglow-partial")), (200, ""), "{whole}");
}
