//! What is damaged, slow or away: answers are partial and say so, or fail and say so, and are never wrong.

use std::time::Duration;

use afterglow_proto::v1;
use afterglow_store::testing::faults::{Operation, Trouble};
use bytes::BytesMut;
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};

use crate::world::{Sent, World, cpu, decoded, fixture};

const PATH: &str = "/api/v1/merge";

/// Flips a bit of an object, `at` of its length from its start.
pub(crate) async fn damage(world: &World, key: &Path, at: f64) {
    let objects = world.faults.inner();
    let mut bytes = BytesMut::from(&*objects.get(key).await.unwrap().bytes().await.unwrap());
    let index = ((bytes.len() - 1) as f64 * at) as usize;
    bytes[index] ^= 0x10;
    objects.put(key, PutPayload::from_bytes(bytes.freeze())).await.unwrap();
}

/// Goal: a block that cannot be opened hides its profiles, not those of others, and every answer says so and names it.
#[tokio::test]
async fn a_block_that_cannot_be_opened_makes_answers_partial() {
    let world = World::new().await;
    let broken = world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    world.put(&[cpu(2, &[("service", "api")], 10)]).await;
    damage(&world, &broken.path(), 1.0).await;

    for (path, key) in [
        ("/api/v1/profiles", "profiles"),
        ("/api/v1/types", "types"),
        ("/api/v1/services", "services"),
        ("/api/v1/labels", "names"),
        ("/api/v1/labels/service/values", "values"),
        ("/api/v1/merge?format=top", "top"),
    ] {
        let answer = world.json(path, &[]).await;
        assert!(answer[key].as_array().is_none_or(|list| !list.is_empty()), "{path}: {answer}");
        assert_eq!(answer["completeness"]["partial"], true, "{path}: {answer}");
        let problems = answer["completeness"]["problems"].as_array().unwrap();
        assert_eq!(problems.len(), 1, "{path}: {answer}");
        assert!(problems[0].as_str().unwrap().contains(broken.path().as_ref()), "{path}: {answer}");
    }
    let file = world.get("/api/v1/merge", &[]).await;
    assert_eq!((file.header("x-afterglow-partial"), file.header("x-afterglow-profiles")), ("true", "1"));
    assert!(file.header("x-afterglow-problem").contains(broken.path().as_ref()));

    // What is asked for may lie in it.
    let id = ulid::Ulid::from(1u128);
    for refusal in [
        world.refusal(&format!("/api/v1/profiles/{id}"), &[]).await,
        world.refusal("/api/v1/merge", &[("query", "{service=\"web\"}")]).await,
    ] {
        assert!(refusal.starts_with("404 NOT_FOUND "), "{refusal}");
        assert!(refusal.contains("but not all that is stored could be read: "), "{refusal}");
        assert!(refusal.contains(broken.path().as_ref()), "{refusal}");
    }
}

/// Goal: wherever a bit is wrong, no profile comes back altered: it comes back right or is reported, and others are as they were.
#[tokio::test]
async fn damaged_samples_are_reported_never_returned() {
    let mut reported = 0;
    for at in (0..20).map(|step| f64::from(step) / 20.0) {
        let world = World::new().await;
        let sent = fixture("profefe-cpu-1795481626.pb.gz", 1, &[("service", "profefe")]);
        let broken = world.put(std::slice::from_ref(&sent)).await;
        let good = fixture("profefe-cpu-1795481632.pb.gz", 2, &[("service", "api")]);
        world.put(std::slice::from_ref(&good)).await;
        damage(&world, &broken.path(), at).await;

        let fetched = world.get(&format!("/api/v1/profiles/{}", sent.meta.id), &[("raw", "true")]).await;
        match fetched.status {
            200 => assert_eq!(fetched.body, sent.raw, "at {at}"),
            500 => assert_eq!(fetched.json()["error"]["code"], "DATA_LOSS", "at {at}: {fetched}"),
            404 => assert!(fetched.to_string().contains(broken.path().as_ref()), "at {at}: {fetched}"),
            other => panic!("at {at}: {other} {fetched}"),
        }

        // Alone it is lost, beside others it is left out and named, or it is right.
        let alone = world.get(PATH, &[("query", "{service=\"profefe\"}"), ("format", "top")]).await;
        let both = world.json(PATH, &[("format", "top")]).await;
        let total = both["top"]["total"].as_str().unwrap().parse::<i64>().unwrap();
        if alone.status == 200 {
            assert_eq!((both["profiles"].as_str(), total), (Some("2"), cpu_nanos(&sent) + cpu_nanos(&good)), "at {at}");
        } else {
            assert!([404, 500].contains(&alone.status), "at {at}: {alone}");
            assert!(alone.to_string().contains(broken.path().as_ref()), "at {at}: {alone}");
            assert_eq!((both["profiles"].as_str(), total), (Some("1"), cpu_nanos(&good)), "at {at}");
            assert_eq!(both["completeness"]["partial"], true, "at {at}");
            assert!(both["completeness"]["problems"][0].as_str().unwrap().contains(broken.path().as_ref()), "at {at}");
            let metrics = world.get("/metrics", &[]).await.to_string();
            // Damage is counted by the catalog that opens a block, or by the question that reads on.
            let counted = ["afterglow_query_damaged_total", "afterglow_catalog_blocks_damaged_total"];
            let is_counted = |line: &str| counted.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0");
            assert!(metrics.lines().any(is_counted), "at {at}: {metrics}");
            reported += 1;
        }
    }
    assert!(reported > 5, "most of a block is needed for a merge, and only {reported} of 20 damages showed");
}

/// Returns the CPU time of a profile.
fn cpu_nanos(sent: &Sent) -> i64 {
    *decoded(&sent.raw).totals().0.last().unwrap()
}

/// Goal: a store that is away is said to be away, with a delay, and without its name.
#[tokio::test]
async fn a_store_that_is_away_is_worth_a_retry() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    world.faults.always(Operation::List, Trouble::Refuse(503));
    let answer = world.get("/api/v1/profiles", &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "2"), "{answer}");
    assert_eq!(answer.json()["error"]["message"], "stored profiles cannot be read now");
}

/// Goal: a question that takes too long ends, with the setting that says how long.
#[tokio::test]
async fn a_question_that_takes_too_long_ends() {
    let world = World::with(&["--query.timeout=50ms"]).await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    world.faults.always(Operation::List, Trouble::Slow(Duration::from_secs(60)));
    insta::assert_snapshot!(world.refusal("/api/v1/merge", &[]).await);
}

/// Goal: a merge whose client goes away gives back its memory and stops reading, long before its deadline.
#[tokio::test]
async fn a_merge_that_nobody_waits_for_ends() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    // Opens the block, so that only the merge still has to read.
    world.json("/api/v1/profiles", &[]).await;
    world.faults.always(Operation::Get, Trouble::Stall);

    let mut grpc = world.grpc.clone();
    let merge = tokio::spawn(async move { grpc.merge(v1::MergeRequest::default()).await });
    let is_reading = |metrics: &str| gauge(metrics, "afterglow_query_memory_bytes") > 0;
    wait_until(&world, is_reading).await;
    merge.abort();
    wait_until(&world, |metrics| {
        metrics.contains(r#"afterglow_query_requests_total{question="merge",outcome="cancelled"} 1"#)
            && gauge(metrics, "afterglow_query_memory_bytes") == 0
    })
    .await;
}

/// Asks for the metrics again and again until they are as they should be.
pub(crate) async fn wait_until(world: &World, holds: impl Fn(&str) -> bool) {
    let asking = async {
        loop {
            let metrics = world.get("/metrics", &[]).await.to_string();
            if holds(&metrics) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asking).await.expect("the metrics become as they should be");
}

pub(crate) fn gauge(metrics: &str, name: &str) -> i64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in\n{metrics}")).parse().unwrap()
}
