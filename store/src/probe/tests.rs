//! The probe finds what it is there to find, says what to do, and leaves nothing behind.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::memory::InMemory;
use tokio::time::Instant;

use super::*;
use crate::StoreOptions;
use crate::testing::faults::{Faulty, Operation, Trouble};
use crate::testing::time::PausedClock;

fn faulty() -> (Faulty, Store) {
    let faulty = Faulty::new(Arc::new(InMemory::new()));
    let store = Store::new(Arc::new(faulty.clone()), "s3://bucket/prefix".to_owned(), StoreOptions::default());
    (faulty, store)
}

async fn is_empty(faulty: &Faulty) -> bool {
    let left: Vec<_> = faulty.inner().list(None).try_collect().await.expect("memory works");
    left.is_empty()
}

fn text(error: &Error) -> String {
    error.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_works_passes_and_is_left_as_it_was() {
    let (faulty, store) = faulty();
    store.probe().await.expect("memory keeps the rules");
    assert!(is_empty(&faulty).await);
    let counts = [Operation::Create, Operation::Get, Operation::Delete, Operation::Put, Operation::List];
    assert_eq!(counts.map(|operation| faulty.count(operation)), [2, 1, 1, 0, 0]);
    let keys = faulty.keys(Operation::Create);
    assert!(keys[0] == keys[1] && keys[0].as_ref().starts_with("v1/probe/"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ignores_conditions_is_refused_by_name() {
    let (faulty, store) = faulty();
    faulty.always(Operation::Create, Trouble::IgnoreCondition);
    let error = store.probe().await.expect_err("the second create succeeded");
    assert!(matches!(error, Error::ConditionalWrites { .. }) && !error.is_passing());
    assert!(
        text(&error).starts_with("storage s3://bucket/prefix ignores conditional writes (If-None-Match: *)"),
        "{error}"
    );
    assert!(text(&error).contains("use a store that honours them"), "{error}");
    assert!(is_empty(&faulty).await);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_step_and_the_advice() {
    for (operation, status, step, advice) in [
        (Operation::Create, 403, "create an object", "check the credentials"),
        (Operation::Create, 404, "create an object", "`afterglow bucket init` creates it"),
        (Operation::Create, 501, "create an object", "knows conditional writes"),
        (Operation::Get, 403, "read the object back", "check the credentials"),
    ] {
        let (faulty, store) = faulty();
        faulty.always(operation, Trouble::Refuse(status));
        let error = store.probe().await.expect_err("the store refuses");
        assert_eq!(error.is_passing(), status != 501, "{error}");
        assert!(text(&error).contains(step) && text(&error).contains(advice), "{error}");
        assert!(is_empty(&faulty).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_tried_again_under_another_key() {
    let (faulty, store) = faulty();
    faulty.script(Operation::Create, [Trouble::LoseAnswer, Trouble::Refuse(503)]);
    store.probe().await.expect("the third try works");
    let keys = faulty.keys(Operation::Create);
    assert!(keys.len() == 4 && keys[0] != keys[1] && keys[1] != keys[2] && keys[2] == keys[3], "{keys:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_given_up() {
    let (faulty, store) = faulty();
    faulty.always(Operation::Create, Trouble::Stall);
    let began = Instant::now();
    let error = store.probe().await.expect_err("nobody answers");
    assert!(error.is_passing() && text(&error).contains("check that the store is up"), "{error}");
    assert_eq!(began.elapsed().as_millis(), 3 * 5_000 + 250 + 500);
}

#[tokio::test(start_paused = true)]
async fn a_probe_object_that_stays_is_no_reason_to_refuse() {
    let (faulty, store) = faulty();
    faulty.always(Operation::Delete, Trouble::Refuse(403));
    store.probe().await.expect("profiles can be stored");
    assert!(!is_empty(&faulty).await);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_far_from_the_stores_is_refused_by_how_far() {
    // Memory stamps objects by the machine's clock, which is years ahead of the test's.
    let clock = Arc::new(PausedClock::new());
    let options = StoreOptions { clock: clock.clone(), ..StoreOptions::default() };
    let store = Store::new(Arc::new(InMemory::new()), "memory".to_owned(), options);
    let error = store.probe().await.expect_err("the clock is years behind");
    assert!(matches!(error, Error::Clock { skew, .. } if skew.ahead_millis < -24 * 3_600 * 1_000), "{error}");
    assert!(error.is_passing() && text(&error).contains("years") && text(&error).contains("set the clock"), "{error}");
    clock.leap(error_of(&error));
    let found = store.probe().await.expect("memory keeps the rules");
    assert!(found.clock_ahead_millis.abs() < 60_000, "{found:?}");
}

/// How far a clock must leap to be right.
fn error_of(error: &Error) -> i64 {
    match error {
        Error::Clock { skew, .. } => -skew.ahead_millis,
        error => panic!("{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_content_with_a_listing() {
    let (faulty, store) = faulty();
    faulty.always(Operation::Create, Trouble::Refuse(403));
    store.probe_read().await.expect("reading works");
    faulty.always(Operation::List, Trouble::Refuse(403));
    let error = store.probe_read().await.expect_err("the store refuses");
    assert!(text(&error).contains("list objects") && text(&error).contains("check the credentials"), "{error}");
}
