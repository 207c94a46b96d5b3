//! Every outcome of a put, exactly: what the caller is told, what lies in the store, how many requests it took and how long.

use std::collections::BTreeSet;

use object_store::memory::InMemory;

use super::*;
use crate::StoreOptions;
use crate::clock::{Clock, SeededRandom};
use crate::testing::faults::{Faulty, Operation, Trouble};
use crate::testing::time::PausedClock;
use std::sync::Arc;

use Trouble::{ApplyLater, ApplyThenRefuse, ApplyThenStall, LoseAnswer, Refuse, Slow, Stall, Unreachable};

struct World {
    faulty: Faulty,
    store: Store,
    clock: Arc<PausedClock>,
}

fn world(troubles: impl IntoIterator<Item = Trouble>) -> World {
    let faulty = Faulty::new(Arc::new(InMemory::new()));
    faulty.script(Operation::Put, troubles);
    let clock = Arc::new(PausedClock::new());
    let options =
        StoreOptions { clock: clock.clone(), random: Arc::new(SeededRandom::new(1)), ..StoreOptions::default() };
    let store = Store::new(Arc::new(faulty.clone()), "faulty".to_owned(), options);
    World { faulty, store, clock }
}

/// What a put came to.
#[derive(Debug, PartialEq)]
struct Came {
    told: &'static str,
    stored: bool,
    requests: usize,
    millis: u128,
}

impl World {
    async fn put_until(&self, deadline: Instant) -> (Result<SegmentKey, PutError>, Came) {
        let began = Instant::now();
        let before = self.faulty.count(Operation::Put);
        let result = self.store.put_segment(&TenantId::anonymous(), Bytes::from_static(b"segment"), deadline).await;
        let millis = began.elapsed().as_millis();
        let (told, key, attempts) = match &result {
            Ok(key) => ("ok", key, None),
            Err(PutError::Unknown { key, attempts, .. }) => ("unknown", key, Some(*attempts as usize)),
            Err(PutError::Failed { key, attempts, .. }) => ("failed", key, Some(*attempts as usize)),
        };
        let requests = self.faulty.count(Operation::Put) - before;
        assert_eq!(attempts.unwrap_or(requests), requests, "the error counts its attempts");
        assert!(
            self.faulty.keys(Operation::Put)[before..].iter().all(|put| *put == key.path()),
            "all attempts share one key"
        );
        let stored = self.is_stored(key).await;
        (result, Came { told, stored, requests, millis })
    }

    async fn put(&self) -> Came {
        self.put_until(Instant::now() + Duration::from_secs(60)).await.1
    }

    async fn is_stored(&self, key: &SegmentKey) -> bool {
        match self.faulty.inner().get(&key.path()).await {
            Ok(found) => found.bytes().await.expect("memory works") == "segment",
            Err(_) => false,
        }
    }
}

fn came(told: &'static str, stored: bool, requests: usize, millis: u128) -> Came {
    Came { told, stored, requests, millis }
}

fn is_between(came: &Came, shortest: u128, longest: u128) -> bool {
    (shortest..=longest).contains(&came.millis)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_works_is_asked_once() {
    assert_eq!(world([]).put().await, came("ok", true, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_put_again_under_the_same_key() {
    let came = world([LoseAnswer]).put().await;
    assert!(came.told == "ok" && came.stored && came.requests == 2 && is_between(&came, 25, 50), "{came:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_lost_each_time_leave_the_outcome_unknown() {
    let came = world([LoseAnswer; 3]).put().await;
    assert!(came.told == "unknown" && came.stored && came.requests == 3 && is_between(&came, 75, 150), "{came:?}");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_server_proves_nothing() {
    for status in [500, 502, 503, 504, 429, 408] {
        let before = world([Refuse(status); 3]).put().await;
        assert_eq!((before.told, before.stored, before.requests), ("unknown", false, 3), "{status}");
        let after = world([ApplyThenRefuse(status); 3]).put().await;
        assert_eq!((after.told, after.stored, after.requests), ("unknown", true, 3), "{status}");
        let once = world([Refuse(status)]).put().await;
        assert_eq!((once.told, once.stored, once.requests), ("ok", true, 2), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_and_proves_that_nothing_was_written() {
    for status in [400, 401, 403, 404, 405, 411, 501] {
        assert_eq!(world([Refuse(status)]).put().await, came("failed", false, 1, 0), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_never_reached_has_nothing() {
    let came = world([Unreachable; 3]).put().await;
    assert!(came.told == "failed" && !came.stored && came.requests == 3, "{came:?}");
    let came = world([Unreachable, Unreachable]).put().await;
    assert!(came.told == "ok" && came.stored && came.requests == 3, "{came:?}");
}

#[tokio::test(start_paused = true)]
async fn one_attempt_that_may_have_written_outweighs_all_that_cannot() {
    for troubles in [[LoseAnswer, Unreachable, Unreachable], [Unreachable, Unreachable, LoseAnswer]] {
        let came = world(troubles).put().await;
        assert_eq!((came.told, came.stored, came.requests), ("unknown", true, 3), "{troubles:?}");
    }
    let came = world([Refuse(500), Refuse(403)]).put().await;
    assert_eq!((came.told, came.stored, came.requests), ("unknown", false, 2));
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_is_hedged_and_the_first_answer_wins() {
    for stalled in [Stall, ApplyThenStall] {
        let world = world([stalled]);
        assert_eq!(world.put().await, came("ok", true, 2, 500));
        assert_eq!((world.store.metrics().put_hedges.get(), world.store.metrics().put_retries.get()), (1, 0));
    }
    // The first attempt answers before the hedge does.
    assert_eq!(world([Slow(Duration::from_millis(600)), Stall]).put().await, came("ok", true, 2, 600));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_starts_after_what_nearly_all_puts_took() {
    let world = world([]);
    world.faulty.script(Operation::Put, (1..=100).rev().map(|n| Slow(Duration::from_millis(n))));
    for _ in 0..100 {
        world.put().await;
    }
    assert_eq!(world.store.inner.pace.hedge_delay(), Duration::from_millis(95));
    world.faulty.script(Operation::Put, [Stall]);
    assert_eq!(world.put().await, came("ok", true, 2, 95));
    for _ in 0..LATENCIES_KEPT {
        world.put().await;
    }
    assert_eq!(world.store.inner.pace.hedge_delay(), Duration::from_millis(50), "never sooner than the bound");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_given_up_after_five_seconds() {
    let came_to = world([Stall; 3]).put().await;
    assert_eq!(came_to, came("unknown", false, 3, 5_000));
    let came_to = world([ApplyThenStall; 3]).put().await;
    assert_eq!(came_to, came("unknown", true, 3, 5_000));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_replaced_after_one_and_a_half_seconds() {
    // Two stall at 0 and 0.5 s; the first is given up at 1.5 s, and what replaces it answers at once.
    let came = world([Stall; 2]).put().await;
    assert!(came.told == "ok" && came.stored && came.requests == 3 && is_between(&came, 1_550, 1_600), "{came:?}");
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_holds() {
    let deadline = |millis| Instant::now() + Duration::from_millis(millis);
    let (_, came_to) = world([Stall; 3]).put_until(deadline(1_000)).await;
    assert_eq!(came_to, came("unknown", false, 2, 1_000));
    let (_, came_to) = world([Stall]).put_until(deadline(300)).await;
    assert_eq!(came_to, came("unknown", false, 1, 300));
    let (result, came_to) = world([]).put_until(Instant::now()).await;
    assert_eq!(came_to, came("failed", false, 0, 0));
    assert!(matches!(result, Err(PutError::Failed { source: Cause::TooLate, .. })));
}

#[tokio::test(start_paused = true)]
async fn a_put_that_lands_after_the_caller_gave_up_is_the_same_object() {
    let world = world([ApplyLater(Duration::from_secs(30)), Stall, Stall]);
    let (result, came_to) = world.put_until(Instant::now() + Duration::from_secs(60)).await;
    assert_eq!(came_to, came("unknown", false, 3, 5_000));
    let Err(PutError::Unknown { key, .. }) = result else { panic!("unknown was told") };
    sleep(Duration::from_secs(30)).await;
    assert!(world.is_stored(&key).await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_asks_to_slow_down_gets_more_time() {
    let came = world([Refuse(503), Refuse(503)]).put().await;
    assert!(came.told == "ok" && came.requests == 3 && is_between(&came, 375, 750), "{came:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lasting_trouble_adds_no_more_than_the_budget() {
    let world = world([]);
    world.faulty.always(Operation::Put, Refuse(500));
    for _ in 0..200 {
        world.put().await;
    }
    let requests = world.faulty.count(Operation::Put);
    // 200 first attempts, ten saved up and a tenth of the puts: never a third of what three attempts each would be.
    assert!((200 + 10 + 19..=200 + 10 + 20).contains(&requests), "{requests}");
    assert!(world.store.metrics().put_budget_refusals.get() > 150);
    world.faulty.always(Operation::Put, Trouble::None);
    assert_eq!(world.put().await.told, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_local_folder_is_asked_once_and_given_its_time() {
    let faulty = Faulty::new(Arc::new(InMemory::new()));
    faulty.script(Operation::Put, [Slow(Duration::from_secs(4)), Stall, LoseAnswer]);
    let options = StoreOptions { put: Some(Policy::local()), ..StoreOptions::default() };
    let store = Store::new(Arc::new(faulty.clone()), "faulty".to_owned(), options);
    let world = World { faulty, store, clock: Arc::default() };
    assert_eq!(world.put().await, came("ok", true, 1, 4_000));
    assert_eq!(world.put().await, came("unknown", false, 1, 5_000));
    assert_eq!(world.put().await, came("unknown", true, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn names_never_go_back_though_the_clock_does() {
    let world = world([]);
    let mut keys = Vec::new();
    for ahead in [0, 60_000, -600_000, 30_000, 0, 90_000] {
        world.clock.leap(ahead);
        let deadline = Instant::now() + Duration::from_secs(1);
        keys.push(
            world.store.put_segment(&TenantId::anonymous(), Bytes::new(), deadline).await.expect("the store works"),
        );
    }
    assert!(keys.is_sorted_by_key(|key| key.name.millis()));
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    assert_eq!(keys[5].name.millis() - keys[0].name.millis(), 90_000);
}

#[tokio::test(start_paused = true)]
async fn a_put_that_is_dropped_counts_its_request() {
    let world = world([Stall]);
    let tenant = TenantId::anonymous();
    let put = world.store.put_segment(&tenant, Bytes::new(), Instant::now() + Duration::from_secs(9));
    assert!(timeout(Duration::from_millis(100), put).await.is_err());
    assert_eq!(world.store.metrics().requests(), 3, "two before it, to learn the boundary");
}

/// The answers of a store say what time it is there: a clock days off is found out by the first put, and no name stays wrong once it is right.
#[tokio::test(start_paused = true)]
async fn a_writer_whose_clock_is_far_from_the_stores_acknowledges_nothing() {
    const HOUR: i64 = 3_600_000;
    let faulty = Faulty::new(Arc::new(InMemory::new()));
    let (own, of_store) = (Arc::new(PausedClock::new()), Arc::new(PausedClock::new()));
    faulty.tells_time_of(of_store.clone());
    let options = StoreOptions { clock: own.clone(), ..StoreOptions::default() };
    let store = Store::new(Arc::new(faulty), "faulty".to_owned(), options);
    let tenant = TenantId::anonymous();
    let put = async || {
        store.put_segment(&tenant, Bytes::from_static(b"segment"), Instant::now() + Duration::from_secs(5)).await
    };
    for ahead in [-48 * HOUR, 48 * HOUR, -HOUR - 1, HOUR + 1] {
        own.leap(ahead);
        let error = put().await.expect_err("the clock is wrong");
        assert!(
            matches!(&error, PutError::Unknown { source: Cause::Clock(skew), .. } if skew.ahead_millis == ahead),
            "{error:?}"
        );
        own.leap(0);
        let name = put().await.expect("the clock is right").name;
        let right = of_store.unix_millis();
        assert!((right..=right + HOUR as u64).contains(&name.millis()), "{name} at {right}");
    }
    own.leap(-HOUR);
    put().await.expect("an hour is tolerated");
    // It stood still with the machine, between the naming and the answer.
    own.leap(0);
    of_store.leap(48 * HOUR);
    put().await.expect_err("the store knows better");
}

/// A machine sleeps during a put: its own clock stands still, that on the wall tells.
#[tokio::test(start_paused = true)]
async fn a_writer_that_slept_acknowledges_nothing() {
    for (ahead, is_acknowledged) in [(59_000, true), (60_000, false)] {
        let world = world([Slow(Duration::from_millis(100))]);
        let sleeper = async {
            sleep(Duration::from_millis(50)).await;
            world.clock.leap(ahead);
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        let tenant = TenantId::anonymous();
        let put = world.store.put_segment(&tenant, Bytes::from_static(b"segment"), deadline);
        let (result, ()) = futures::future::join(put, sleeper).await;
        match result {
            Ok(_) => assert!(is_acknowledged, "{ahead}"),
            Err(PutError::Unknown { source: Cause::TooSlow { .. }, .. }) => assert!(!is_acknowledged, "{ahead}"),
            Err(error) => panic!("{error}"),
        }
    }
}
