use std::io::Write;

use afterglow_service::Kind;
use afterglow_store::testing::faults::{Operation, Trouble};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::time::{sleep, timeout};

use super::*;
use crate::pool;
use crate::testing::{Harness, id, pprof};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn kind(outcome: Result<Accepted, Refused>) -> Kind {
    outcome.expect_err("it is refused").failure.kind()
}

/// Goal: a retry counts once: the same bytes are a duplicate, gzip'd or not, and cost no PUT; others are refused.
#[tokio::test(start_paused = true)]
async fn an_id_names_one_profile() {
    let harness = Harness::new(&[]);
    let first = harness.push(id(1), pprof(1)).await.expect("a good profile");
    assert_eq!((first.id.to_string(), first.duplicate), (id(1), false));
    for body in [pprof(1), gzip(&pprof(1))] {
        let again = harness.push(id(1), body).await.expect("the same profile");
        assert_eq!(again, Accepted { duplicate: true, ..first.clone() });
    }
    let mut relabelled = harness.request(id(1), pprof(1)).await;
    relabelled.names.labels.push(("version".to_owned(), "2".to_owned()));
    let again = harness.ingest.push(relabelled).await.expect("the same profile");
    let warning = format!("id {} is stored with the labels of its first push; those of this one were not used", id(1));
    assert_eq!((again.duplicate, again.warnings), (true, vec![warning]));
    let other = harness.push(id(1), pprof(2)).await.expect_err("another profile");
    assert_eq!(other.failure.kind(), Kind::AlreadyExists);
    assert_eq!(other.failure.message(), format!("id {} already names another profile", id(1)));
    assert_eq!(harness.store.count(Operation::Put), 1);
    let minted = harness.push("", pprof(1)).await.expect("a good profile");
    let again = harness.push(minted.id.to_string(), pprof(1)).await.expect("the id it was given");
    assert!(again.duplicate);
}

/// Goal: a retry of what is under way waits for the same outcome, good or bad.
#[tokio::test(start_paused = true)]
async fn a_retry_shares_the_outcome_of_the_first_attempt() {
    let harness = Harness::new(&[]);
    let same = || harness.push(id(1), pprof(1));
    let (first, second, other) = tokio::join!(same(), same(), harness.push(id(1), pprof(2)));
    assert_eq!(first.map(|accepted| accepted.duplicate), Ok(false));
    assert_eq!(second.map(|accepted| accepted.duplicate), Ok(true));
    assert_eq!(kind(other), Kind::AlreadyExists);
    assert_eq!(harness.store.count(Operation::Put), 1);

    harness.store.script(Operation::Put, [Trouble::LoseAnswer]);
    let same = || harness.push(id(2), pprof(1));
    let (first, second) = tokio::join!(same(), same());
    assert_eq!((kind(first), kind(second)), (Kind::Unavailable, Kind::Unavailable));
    assert_eq!(harness.store.count(Operation::Put), 2);
}

/// Goal: a refusal says nothing about what somebody else brings under the same id.
#[tokio::test(start_paused = true)]
async fn a_refused_profile_does_not_take_its_id_along() {
    let harness = Harness::new(&[]);
    let bad = harness.push(id(1), "<html>");
    let (bad, good) = tokio::join!(bad, harness.push(id(1), pprof(1)));
    assert_eq!(kind(bad), Kind::Invalid);
    assert_eq!(good.map(|accepted| accepted.duplicate), Ok(false));
}

/// Goal: the answer leaves before the caller's deadline, whatever the store does.
#[tokio::test(start_paused = true)]
async fn the_caller_hears_before_its_deadline() {
    let harness = Harness::new(&[]);
    harness.store.always(Operation::Put, Trouble::Stall);
    let start = Instant::now();
    let mut request = harness.request(id(1), pprof(1)).await;
    request.deadline = Some(start + Duration::from_secs(1));
    let refused = harness.ingest.push(request).await.expect_err("there is no answer");
    assert_eq!(refused.failure.message(), format!("outcome unknown: retry with the same id {}", id(1)));
    assert_eq!(start.elapsed(), Duration::from_secs(1) - ANSWER_MARGIN);
}

/// Goal: what is in a segment is committed though its caller went away, and the retry learns so.
#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_its_profile() {
    let harness = Harness::new(&["--flush-interval=1s"]);
    let request = harness.request(id(1), pprof(1)).await;
    let gone = timeout(Duration::from_millis(500), harness.ingest.push(request)).await;
    assert!(gone.is_err(), "it went away before the tick");
    sleep(Duration::from_secs(1)).await;
    let retried = harness.push(id(1), pprof(1)).await.expect("a good profile");
    assert!(retried.duplicate);
    assert_eq!(harness.store.count(Operation::Put), 1);
    assert_eq!(harness.ingest.budget().bytes_held(), 0);
}

/// Goal: who finds no core is told to come back, and takes nothing.
#[tokio::test(start_paused = true)]
async fn who_finds_no_core_is_refused() {
    let harness = Harness::new(&[]);
    let busy = harness.ingest.0.parts.pool.slot(None).await.expect("it is free");
    let start = Instant::now();
    let refused = harness.push(id(1), pprof(1)).await.expect_err("the only core is taken");
    assert_eq!(start.elapsed(), pool::PATIENCE);
    assert_eq!(refused.failure.kind(), Kind::Exhausted);
    assert_eq!(refused.failure.message(), "ingester is busy: no core was free within 4s");
    drop(busy);
    harness.push(id(1), pprof(1)).await.expect("it is free again");
    assert_eq!(harness.ingest.budget().bytes_held(), 0);
}

/// Goal: a profile that finds no bytes to be worked on is refused, and can be retried.
#[tokio::test(start_paused = true)]
async fn who_finds_no_bytes_to_be_worked_on_is_refused() {
    let harness = Harness::new(&["--memory-budget=64KiB"]);
    let body = vec![b'<'; 10 << 10];
    let request = harness.request(id(1), body.clone()).await;
    let mut working = harness.ingest.budget().acquire(1).await.expect("the budget has room");
    working.begin_work(50 << 10).await.expect("the budget has room");
    let refused = harness.ingest.push(request).await.expect_err("4 KiB are left");
    assert_eq!(refused.failure.kind(), Kind::Exhausted);
    assert_eq!(refused.failure.message(), "ingester is at its memory budget of 64 KiB (--memory-budget)");
    drop(working);
    assert_eq!(kind(harness.push(id(1), body).await), Kind::Invalid, "there is room to look at it");
}

/// Goal: an id is minted by the time of arrival, and a profile without a time has that, with a warning.
#[tokio::test(start_paused = true)]
async fn a_profile_gets_what_it_lacks() {
    let harness = Harness::new(&[]);
    let minted = harness.push("", pprof(1)).await.expect("a good profile");
    assert!(minted.id.timestamp_ms() <= harness.clock.unix_millis());
    assert!(minted.warnings.is_empty(), "{:?}", minted.warnings);
    let far = harness.push("", pprof(i64::MAX / 2)).await.expect_err("a time far away");
    assert!(far.failure.message().contains("check the clock of the host"), "{}", far.failure);
}
