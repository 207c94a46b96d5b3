use afterglow_service::Kind;
use afterglow_store::testing::faults::{Operation, Trouble};
use futures::future::join_all;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tokio::time::{sleep, timeout};

use super::*;
use crate::testing::{Harness, id, pprof};

const TICK: Duration = Duration::from_millis(250);

async fn objects(harness: &Harness) -> usize {
    harness.store.inner().list(None).count().await
}

/// Goal: what comes within a tick is one PUT, and nobody waits longer than the tick.
#[tokio::test(start_paused = true)]
async fn profiles_of_one_tick_share_a_put() {
    let harness = Harness::new(&[]);
    let start = Instant::now();
    let accepted = join_all((0..10).map(|n| harness.push("", pprof(n)))).await;
    let accepted: Vec<_> = accepted.into_iter().map(|outcome| outcome.expect("the store works")).collect();
    assert!(start.elapsed() <= TICK, "{:?}", start.elapsed());
    assert_eq!(harness.store.count(Operation::Put), 1);
    assert!(accepted.iter().all(|profile| profile.read_token == accepted[0].read_token));
    harness.push("", pprof(10)).await.expect("the store works");
    assert_eq!(harness.store.count(Operation::Put), 2);
}

/// Goal: many threads make no PUTs that one would not have made.
#[tokio::test(start_paused = true)]
async fn small_profiles_share_a_put_whichever_threads_add_them() {
    let harness = Harness::of_threads(8, &[]);
    for tick in 1..=5 {
        let outcomes = join_all((0..200).map(|n| harness.push("", pprof(n)))).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert_eq!(harness.store.count(Operation::Put), tick);
    }
}

/// Goal: an idle ingester costs nothing.
#[tokio::test(start_paused = true)]
async fn without_profiles_there_is_no_flush() {
    let harness = Harness::new(&[]);
    sleep(TICK * 100).await;
    assert_eq!(harness.store.count(Operation::Put), 0);
}

/// Goal: durable before ack.
#[tokio::test(start_paused = true)]
async fn a_profile_is_acknowledged_after_its_put() {
    let harness = Harness::new(&[]);
    let slow = Duration::from_secs(2);
    harness.store.script(Operation::Put, [Trouble::Slow(slow)]);
    let mut push = std::pin::pin!(harness.push("", pprof(1)));
    assert!(timeout(slow, push.as_mut()).await.is_err(), "its PUT is under way");
    assert_eq!((harness.store.count(Operation::Put), objects(&harness).await), (1, 0));
    push.await.expect("the PUT went well");
    assert_eq!(objects(&harness).await, 1);
}

/// Goal: a segment of enough bytes is flushed at once.
#[tokio::test(start_paused = true)]
async fn a_full_segment_does_not_wait_for_the_tick() {
    let body = pprof(1);
    let bytes = format!("--flush-bytes={}", body.len() * 3);
    let harness = Harness::new(&[&bytes, "--flush-interval=4s"]);
    let start = Instant::now();
    let pushes = join_all((0..3).map(|_| harness.push("", body.clone()))).await;
    assert!(pushes.iter().all(Result::is_ok), "{pushes:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(harness.store.count(Operation::Put), 1);
}

/// Goal: a flush that fails fails the profiles in it, and says what is known of them.
#[tokio::test(start_paused = true)]
async fn each_flush_has_its_own_outcome() {
    let harness = Harness::new(&[]);
    harness.store.script(Operation::Put, [Trouble::Refuse(403), Trouble::LoseAnswer, Trouble::None]);
    for (n, text) in [(1, "not stored: retry with the same id"), (2, "outcome unknown: retry with the same id")] {
        let refused = harness.push(id(n), pprof(1)).await.expect_err("the PUT fails");
        assert_eq!(refused.failure.kind(), Kind::Unavailable);
        assert_eq!(refused.failure.message(), format!("{text} {}", id(n)));
        let delay = refused.failure.retry_after().expect("it can be retried");
        assert!((RETRY_DELAY..RETRY_DELAY * 2).contains(&delay), "{delay:?}");
    }
    for n in [1, 2] {
        let retried = harness.push(id(n), pprof(1)).await.expect("the store works again");
        assert!(!retried.duplicate, "it was never acknowledged");
    }
}

/// Goal: nobody waits for a store that does not answer beyond the tick and the time of a flush.
#[tokio::test(start_paused = true)]
async fn a_put_without_an_answer_ends() {
    let harness = Harness::new(&[]);
    harness.store.always(Operation::Put, Trouble::Stall);
    let start = Instant::now();
    let refused = harness.push(id(1), pprof(1)).await.expect_err("there is no answer");
    assert_eq!(refused.failure.message(), format!("outcome unknown: retry with the same id {}", id(1)));
    assert!(start.elapsed() <= TICK + FLUSH_TIMEOUT, "{:?}", start.elapsed());
}

/// Goal: while the store is away profiles are refused in a moment and hold nothing; when it is back they are taken
/// within seconds.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_costs_nothing() {
    let harness = Harness::new(&[]);
    harness.store.always(Operation::Put, Trouble::Stall);
    for _ in 0..3 {
        harness.push("", pprof(1)).await.expect_err("the store is away");
    }
    // The last sender may have given up just before its flush did.
    sleep(TICK).await;
    let start = Instant::now();
    let puts = harness.store.count(Operation::Put);
    for n in 0..1_000 {
        let refused = harness.push("", pprof(n)).await.expect_err("the store is away");
        assert_eq!((refused.failure.kind(), refused.failure.retry_after().is_some()), (Kind::Unavailable, true));
        assert!(
            refused.failure.message().starts_with("not stored: the object store has been failing for 1"),
            "{refused:?}"
        );
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!((harness.store.count(Operation::Put), harness.ingest.budget().bytes_held()), (puts, 0));

    harness.store.always(Operation::Put, Trouble::None);
    sleep(Duration::from_secs(1)).await;
    harness.push("", pprof(1)).await.expect("one may try, and finds the store back");
    harness.push("", pprof(2)).await.expect("it is back for all");
}

/// Goal: damage of one tenant's commits is told to that tenant, by name, and holds up no other: the store works.
#[tokio::test(start_paused = true)]
async fn damaged_commits_are_no_outage() {
    let harness = Harness::new(&[]);
    let push_as = async |tenant: &str, n: i64| {
        let mut request = harness.request(id(n as u128), pprof(n)).await;
        request.tenant = tenant.parse().expect("a tenant");
        harness.ingest.push(request).await
    };
    let damaged: TenantId = "damaged".parse().expect("a tenant");
    harness.store.inner().put(&damaged.commit(1), "no commit".into()).await.expect("the store works");
    for n in 1..=10 {
        let refused = push_as("damaged", n).await.expect_err("its commits cannot be read").failure;
        assert_eq!((refused.kind(), refused.retry_after().is_some()), (Kind::Unavailable, true));
        let text = format!(
            "not stored: v1/t/damaged/commit/00000000000000000001 is damaged: it does not begin as it should; \
             retry with the same id {}",
            id(n as u128)
        );
        assert_eq!(refused.message(), text);
    }
    let others = join_all((11..=15).map(|n| push_as("sound", n))).await;
    assert!(others.iter().all(Result::is_ok), "{others:?}");
}

/// Goal: while no more flushes may be under way the next segment grows, and one PUT carries it all.
#[tokio::test(start_paused = true)]
async fn a_slow_store_gets_larger_segments() {
    let harness = Harness::new(&["--flushes-in-flight=2"]);
    harness.store.script(Operation::Put, [Trouble::Slow(TICK * 10), Trouble::Slow(TICK * 10)]);
    let pushes = (0..40).map(|n| {
        let harness = &harness;
        async move {
            sleep(TICK / 4 * n).await;
            harness.push("", pprof(n.into())).await
        }
    });
    let start = Instant::now();
    let outcomes = join_all(pushes).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(start.elapsed() < TICK * 13, "{:?}", start.elapsed());
    assert_eq!(harness.store.count(Operation::Put), 3);
}

/// Goal: a panic in a flush is answered, and the next flush works.
#[tokio::test(start_paused = true)]
async fn a_flush_that_panics_answers_its_profiles() {
    let harness = Harness::new(&[]);
    harness.store.script(Operation::Put, [Trouble::Panic]);
    let outcomes = join_all((0..5).map(|n| harness.push("", pprof(n)))).await;
    for outcome in outcomes {
        let failure = outcome.expect_err("it panics").failure;
        assert_eq!(failure.kind(), Kind::Internal);
        assert!(failure.message().starts_with("internal error, id "), "{failure}");
    }
    harness.push("", pprof(9)).await.expect("the next flush works");
}

/// Goal: tenants never share an object, and too many of them at once are refused, not forgotten.
#[tokio::test(start_paused = true)]
async fn tenants_have_objects_of_their_own() {
    let harness = Harness::new(&[]);
    let pushes = (0..=TENANTS_MAX).map(|n| {
        let harness = &harness;
        async move {
            let mut request = harness.request("", pprof(1)).await;
            request.tenant = format!("tenant-{n}").parse().expect("a tenant");
            harness.ingest.push(request).await
        }
    });
    let (accepted, refused): (Vec<_>, Vec<_>) = join_all(pushes).await.into_iter().partition(Result::is_ok);
    assert_eq!((accepted.len(), refused.len()), (TENANTS_MAX, 1));
    let failure = &refused[0].as_ref().expect_err("one too many").failure;
    assert_eq!(failure.kind(), Kind::Exhausted);
    assert_eq!(failure.message(), "more than 1024 tenants have profiles under way");
    assert_eq!(objects(&harness).await, TENANTS_MAX);
    sleep(TICK).await;
    harness.push("", pprof(1)).await.expect("those that are done with make room");
}

/// Goal: a drain flushes at once, answers everybody and takes nobody new.
#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_the_tick() {
    let harness = Harness::new(&["--flush-interval=4s"]);
    let start = Instant::now();
    let pushes = join_all((0..100).map(|n| harness.push("", pprof(n))));
    let drain = async {
        // Some are in segments by then, some wait for the pool.
        while harness.ingest.in_flight() < 100 {
            tokio::task::yield_now().await;
        }
        harness.ingest.drain().await;
    };
    let (outcomes, ()) = tokio::join!(pushes, drain);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let refused = harness.push("", pprof(1)).await.expect_err("it drains");
    assert_eq!((refused.failure.kind(), refused.id), (Kind::ShuttingDown, None));
}
