//! A crowd: questions about much wait for each other, are refused when they are too many, and never stand in the way of small ones.

use std::thread::available_parallelism;

use afterglow_store::testing::faults::Trouble;
use tokio::task::JoinSet;

use crate::trouble::{gauge, wait_until};
use crate::world::{Sent, World, cpu};

const MERGE: &str = "/api/v1/merge";
const FLEET: [(&str, &str); 2] = [("query", "{service=\"fleet\"}"), ("format", "top")];
const API: [(&str, &str); 2] = [("query", "{service=\"api\"}"), ("format", "top")];

/// How many questions wait at most.
const WAITING_MAX: usize = 100;

/// Returns how many large questions are answered, and how many wait.
fn large(metrics: &str) -> (i64, i64) {
    (gauge(metrics, "afterglow_query_large"), gauge(metrics, "afterglow_query_large_waiting"))
}

/// Goal: while all places are held by questions about much, which wait for a store that does not answer, small questions are answered as
/// ever, more large ones wait, and those beyond are told to come back. Who goes away leaves nothing taken.
#[tokio::test(flavor = "multi_thread")]
async fn small_questions_do_not_wait_for_large_ones() {
    let world = World::new().await;
    let fleet: Vec<Sent> = (1..=1_100).map(|id| cpu(id, &[("service", "fleet")], 20)).collect();
    let stalled = world.put(&fleet).await;
    world.put(&[cpu(2_000, &[("service", "api")], 20)]).await;
    // Opens both, so that the samples alone have to be read.
    assert_eq!(world.json("/api/v1/services", &[]).await["services"].as_array().map(Vec::len), Some(2));
    world.json("/api/v1/profiles", &[]).await;
    world.faults.on_key(&stalled.path(), Trouble::Stall);

    let places = available_parallelism().map_or(1, usize::from).max(2);
    let mut crowd = JoinSet::new();
    let world = std::sync::Arc::new(world);
    for _ in 0..places + WAITING_MAX {
        let world = std::sync::Arc::clone(&world);
        crowd.spawn(async move { world.get(MERGE, &FLEET).await.status });
    }
    wait_until(&world, |metrics| large(metrics) == (places as i64, WAITING_MAX as i64)).await;

    let metrics = world.get("/metrics", &[]).await.to_string();
    assert_eq!(gauge(&metrics, "afterglow_query_large_limit"), places as i64);
    assert_eq!(gauge(&metrics, "afterglow_query_large_waiting_limit"), WAITING_MAX as i64);
    let [memory, limit] = ["", "_limit"].map(|of| gauge(&metrics, &format!("afterglow_query_memory{of}_bytes")));
    assert!(0 < memory && memory <= limit, "{memory} of {limit}");

    for (path, query) in [(MERGE, &API[..]), ("/api/v1/profiles", &API[..1]), ("/api/v1/top", &API[..1])] {
        let answer = world.get(path, query).await;
        assert_eq!(answer.status, 200, "{path}: {answer}");
    }
    // What looks at rows alone is small for far more of them.
    assert_eq!(world.get("/api/v1/profiles", &FLEET[..1]).await.status, 200);
    let refused = world.get(MERGE, &FLEET).await;
    assert_eq!((refused.status, &*refused.json()["error"]["code"].to_string()), (429, r#""RESOURCE_EXHAUSTED""#));
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| (2..=6).contains(&seconds)), "{refused}");
    assert_eq!(
        refused.json()["error"]["message"],
        format!(
            "of questions about so much {places} are answered at once, and 100 wait already: come back later, or narrow the \
             window or the selector"
        )
    );
    // Nothing near a window that has nothing is looked for at such a price.
    let nothing = world.refusal(MERGE, &[("query", "{service=\"fleet\"}"), ("start", "0"), ("end", "1")]).await;
    assert!(nothing.starts_with("404 NOT_FOUND no profiles match {service=\"fleet\"} in "), "{nothing}");

    crowd.abort_all();
    wait_until(&world, |metrics| large(metrics) == (0, 0) && gauge(metrics, "afterglow_query_memory_bytes") == 0).await;
}
