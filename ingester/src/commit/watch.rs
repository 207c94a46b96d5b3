//! What the ingester says of its store to whoever asks whether it is ready.
//!
//! Two things make it not ready: flushes that fail in a row ([`Outage`](super::outage::Outage)), and a store that does not answer although
//! nothing is flushed ([`Store::watch`](afterglow_store::Store::watch)). A load balancer then sends nothing, so no flush would ever end
//! the outage: the ingester probes with small writes of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use afterglow_service::health::Part;
use afterglow_store::watch::Need;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Shared;

/// The time between two probes while flushes are taken to fail.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Keeps `part` told until it is dropped.
pub(super) async fn watch(shared: Arc<Shared>, need: Need, part: Part) -> Infallible {
    let (reached, mut reach) = watch::channel(Ok(()));
    let mut down = shared.outage.follow();
    let tell = async {
        loop {
            let answers = reach.borrow_and_update().clone();
            match answers {
                _ if *down.borrow_and_update() => match shared.outage.skew() {
                    Some(skew) => part.not_ready(skew.to_string()),
                    None => part.not_ready("writes to the object store fail"),
                },
                Ok(()) => part.ready(),
                Err(reason) => part.not_ready(reason),
            }
            // The senders are held beside: neither ends.
            tokio::select! {
                _ = reach.changed() => {}
                _ = down.changed() => {}
            }
        }
    };
    let checks = shared.store.watch(need, |answers| drop(reached.send_replace(answers)));
    tokio::select! {
        biased;
        never = checks => never,
        never = probe(&shared) => never,
        never = tell => never,
    }
}

/// Ends an outage by probes.
async fn probe(shared: &Shared) -> Infallible {
    let mut down = shared.outage.follow();
    loop {
        if down.wait_for(|down| *down).await.is_err() {
            // Cannot be: the sender is in `shared`.
            std::future::pending::<()>().await;
        }
        sleep(PROBE_INTERVAL).await;
        let is_down = *down.borrow();
        if is_down {
            match shared.store.probe_once().await {
                Ok(_) => shared.outage.learn(true),
                Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "the store still fails"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use afterglow_store::testing::faults::{Operation, Trouble};

    use super::*;
    use crate::testing::{Harness, pprof};

    fn reasons(harness: &Harness) -> Vec<String> {
        harness.health.readiness().reasons
    }

    /// Goal: an ingester whose flushes fail is not ready, and ready again by itself once writes work, though nobody sends.
    #[tokio::test(start_paused = true)]
    async fn failing_flushes_make_it_not_ready_until_a_probe_succeeds() {
        let mut harness = Harness::new(&[]);
        tokio::spawn(harness.watch.take().expect("taken once"));
        sleep(Duration::from_millis(1)).await;
        assert_eq!(reasons(&harness), [""; 0]);
        let all = |trouble| [Operation::Put, Operation::Create].map(|write| harness.store.always(write, trouble));
        all(Trouble::Refuse(503));
        for n in 0..2 {
            harness.push("", pprof(n)).await.expect_err("the store refuses");
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(reasons(&harness), [""; 0], "two failures are none");
        harness.push("", pprof(2)).await.expect_err("the store refuses");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(reasons(&harness), ["storage: writes to the object store fail"]);
        all(Trouble::None);
        sleep(PROBE_INTERVAL * 2).await;
        assert_eq!(reasons(&harness), [""; 0]);
        harness.push("", pprof(3)).await.expect("the store works");
    }

    /// Goal: an ingester whose clock leaps acknowledges nothing, says by how much it is wrong, and goes on once it is right.
    #[tokio::test(start_paused = true)]
    async fn a_wrong_clock_is_named_and_nothing_is_acknowledged() {
        let mut harness = Harness::new(&["--limits.max-future=1000h"]);
        tokio::spawn(harness.watch.take().expect("taken once"));
        harness.push("", pprof(0)).await.expect("the clock is right");
        harness.clock.leap(-48 * 3_600_000);
        let behind = "the clock of this machine is 2days behind that of the object store";
        let refused = harness.push("", pprof(1)).await.expect_err("the clock is wrong").failure.message().to_owned();
        assert!(refused.starts_with(&format!("not acknowledged: {behind}; retry with the same id ")), "{refused}");
        sleep(Duration::from_millis(1)).await;
        assert_eq!(reasons(&harness), [format!("storage: {behind}")]);
        let puts = harness.store.count(Operation::Put);
        assert_eq!(
            harness.push("", pprof(2)).await.expect_err("still").failure.message(),
            format!("not stored: {behind}")
        );
        assert_eq!(harness.store.count(Operation::Put), puts, "at once");
        sleep(PROBE_INTERVAL * 3).await;
        assert_eq!(reasons(&harness), [format!("storage: {behind}")], "a probe finds the same");
        harness.clock.leap(0);
        sleep(PROBE_INTERVAL * 2).await;
        assert_eq!(reasons(&harness), [""; 0]);
        harness.push("", pprof(3)).await.expect("the clock is right again");
    }

    /// Goal: an idle ingester whose store is silent is not ready within half a minute, and ready again when it answers.
    #[tokio::test(start_paused = true)]
    async fn a_silent_store_makes_an_idle_ingester_not_ready() {
        let mut harness = Harness::new(&[]);
        tokio::spawn(harness.watch.take().expect("taken once"));
        harness.store.always(Operation::List, Trouble::Stall);
        sleep(Duration::from_secs(30)).await;
        assert_eq!(reasons(&harness), ["storage: the object store failed 3 checks in a row"]);
        harness.store.always(Operation::List, Trouble::None);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(reasons(&harness), [""; 0]);
    }
}
