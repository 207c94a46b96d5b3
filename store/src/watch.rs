//! Watches whether the store answers, for as long as a server runs: what was probed at start may be gone later.
//!
//! A check is one LIST of the root, every [`CHECK_INTERVAL`], so an idle server costs some 260 000 a month. One that fails is no outage:
//! [`FAILURES_MAX`] in a row are, and they come quicker after each other. The first that succeeds ends it.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use crate::Store;
use crate::error::Error;
use crate::fault::Fault;

/// The time between two checks while the store answers.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The time between two checks while it does not.
pub const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How many checks in a row must fail until the store is said to be gone.
pub const FAILURES_MAX: u32 = 3;

/// What a server needs of the store to be of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// That it answers, be it that listing is not allowed: enough for who only writes, and learns from that of the rest.
    Answers,
    /// That it can be listed, without which nothing is found.
    Lists,
}

impl Store {
    /// Checks the store again and again and reports each change, first from "answers": `Err` says why it is taken for gone, in words
    /// for whoever asks a server for its health. Never ends by itself. A check waits 5 s for its answer, so a store that is silent is
    /// reported within half a minute.
    pub async fn watch(&self, need: Need, mut report: impl FnMut(Result<(), String>)) -> Infallible {
        let mut failures = 0;
        loop {
            sleep(if failures == 0 { CHECK_INTERVAL } else { RECHECK_INTERVAL }).await;
            match self.probe_read().await {
                Err(error) if !suffices(&error, need) => {
                    failures += 1;
                    if failures == FAILURES_MAX {
                        let cause = &error as &dyn std::error::Error;
                        tracing::error!(storage = self.name(), error = cause, "the store does not answer");
                        report(Err(format!("the object store failed {FAILURES_MAX} checks in a row")));
                    }
                }
                _ => {
                    if failures >= FAILURES_MAX {
                        tracing::info!(storage = self.name(), "the store answers again");
                        report(Ok(()));
                    }
                    failures = 0;
                }
            }
        }
    }
}

/// Says whether a check that failed still shows all that is needed.
fn suffices(error: &Error, need: Need) -> bool {
    match error {
        Error::Probe { source, .. } => need == Need::Answers && Fault::of(source) == Fault::Denied,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use object_store::memory::InMemory;

    use super::*;
    use crate::StoreOptions;
    use crate::testing::faults::{Faulty, Operation, Trouble};

    /// A store, and what a watch of it has reported so far.
    fn watched(need: Need) -> (Faulty, Arc<Mutex<Vec<bool>>>) {
        let faulty = Faulty::new(Arc::new(InMemory::new()));
        let store = Store::new(Arc::new(faulty.clone()), "memory://".to_owned(), StoreOptions::default());
        let reports: Arc<Mutex<Vec<bool>>> = Arc::default();
        let into = Arc::clone(&reports);
        tokio::spawn(
            async move { store.watch(need, |report| into.lock().expect("no panics").push(report.is_ok())).await },
        );
        (faulty, reports)
    }

    /// Goal: a store that is gone is reported within half a minute, be it silent; and so is that it is back.
    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_gone_is_reported_and_so_is_its_return() {
        for trouble in [Trouble::Stall, Trouble::Refuse(503), Trouble::Refuse(403)] {
            let (faulty, reports) = watched(Need::Lists);
            sleep(Duration::from_secs(60)).await;
            assert_eq!(*reports.lock().expect("no panics"), [true; 0], "nothing changed");
            faulty.always(Operation::List, trouble);
            sleep(Duration::from_secs(30)).await;
            assert_eq!(*reports.lock().expect("no panics"), [false]);
            sleep(Duration::from_secs(60)).await;
            faulty.always(Operation::List, Trouble::None);
            sleep(Duration::from_secs(10)).await;
            assert_eq!(*reports.lock().expect("no panics"), [false, true]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_failures_in_a_row_are_no_outage() {
        let (faulty, reports) = watched(Need::Lists);
        for _ in 0..5 {
            faulty.script(Operation::List, [Trouble::Refuse(503), Trouble::Refuse(503)]);
            sleep(Duration::from_secs(30)).await;
        }
        assert_eq!(*reports.lock().expect("no panics"), [true; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_writes_need_not_be_allowed_to_list() {
        let (faulty, reports) = watched(Need::Answers);
        faulty.always(Operation::List, Trouble::Refuse(403));
        sleep(Duration::from_secs(120)).await;
        assert_eq!(*reports.lock().expect("no panics"), [true; 0]);
    }
}
