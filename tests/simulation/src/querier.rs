//! The real catalog as a process: it asks again and again, and every answer is checked.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use afterglow_profile::Selector;
use afterglow_store::catalog::{self, Catalog, Freshness, Match, Query, View};
use afterglow_store::paths::TenantId;
use futures::future::LocalBoxFuture;
use object_store::path::Path;
use tokio::time::{Instant, sleep};
use ulid::Ulid;

use crate::oracle::Oracle;
use crate::process::{Life, Process};
use crate::world::Chance;

/// The mean time between two questions.
const EVERY: Duration = Duration::from_secs(5);
/// How many profiles of an answer are read.
const FETCHES: usize = 2;

/// A querier.
#[derive(Debug)]
pub struct Querier {
    /// Its name.
    pub name: String,
    /// Who checks its answers.
    pub oracle: Oracle,
}

impl Process for Querier {
    fn name(&self) -> &str {
        &self.name
    }

    fn writes(&self) -> bool {
        false
    }

    fn live(&self, mut life: Life) -> LocalBoxFuture<'static, ()> {
        let (name, oracle) = (self.name.clone(), self.oracle.clone());
        Box::pin(async move {
            let catalog = Catalog::new(life.store.clone(), catalog::Options::default());
            while !life.stop.is_cancelled() {
                sleep(life.pause(EVERY)).await;
                ask(&name, &catalog, &oracle, &mut life.chance).await;
            }
        })
    }
}

/// Asks for all there is.
async fn ask(name: &str, catalog: &Catalog, oracle: &Oracle, chance: &mut Chance) {
    let acks = oracle.acks();
    let asked = Instant::now();
    let mut brought = None;
    let (freshness, due) = match chance.number(0..3) {
        0 => (Freshness::Now, acks),
        1 if acks > 0 => {
            let number = chance.number(0..acks as u64) as usize;
            let ack = oracle.ack(number);
            (Freshness::AtLeast(brought.insert(ack).segment.clone()), 0)
        }
        _ => {
            let age = catalog::Options::default().list_age_max;
            let then = Instant::now().checked_sub(age);
            (Freshness::AtMostOld, then.map_or(0, |then| oracle.acks_by(then)))
        }
    };
    let formed = matches!(freshness, Freshness::Now).then_some(asked);
    // Who is not answered asks again another time.
    let Ok(view) = catalog.view(&TenantId::anonymous(), freshness).await else { return };
    check(name, &view, oracle, Some(due), formed).await;
    let selection = view.select(&everything()).await;
    if let Some(ack) = brought
        && selection.problems.is_empty()
    {
        // The segment itself may have been compacted.
        oracle.check_token(name, &selection.matches.iter().map(|found| found.row().id).collect(), &ack);
    }
    let found = selection.matches;
    for _ in 0..FETCHES.min(found.len()) {
        // What cannot be read now is not wrong; what is read is checked.
        fetch(name, chance.choose(&found), oracle).await.ok();
    }
}

/// Checks all that a view answers; returns whether it was complete.
async fn check(name: &str, view: &View, oracle: &Oracle, due: Option<usize>, formed: Option<Instant>) -> bool {
    let selection = view.select(&everything()).await;
    let is_complete = selection.problems.is_empty();
    let found = selection.matches.iter().map(|found| (found.row().id, found.row().sha256));
    oracle.check(name, found, due.filter(|_| is_complete), formed);
    let series = view.series(&everything()).await;
    let counted: u64 = series.series.iter().map(|series| series.profiles).sum();
    let one_by_one = selection.matches.len() as u64;
    if is_complete && series.problems.is_empty() && counted != one_by_one {
        // Where a block was collected meanwhile each was answered from a newer view of its own, and profiles came in between: asked again
        // after that, there are those, too.
        let again = view.select(&everything()).await;
        let after = again.matches.len() as u64;
        if again.problems.is_empty() && !(one_by_one.min(after)..=one_by_one.max(after)).contains(&counted) {
            oracle.wrong(format!(
                "{name} counts {counted} profiles in series, {one_by_one} one by one before and {after} after"
            ));
        }
    }
    is_complete
}

/// Reads a profile back; says why where it cannot.
async fn fetch(name: &str, found: &Match, oracle: &Oracle) -> Result<(), String> {
    use sha2::Digest;
    let id = found.row().id;
    let raw = found.block().fetch(found.row()).await.map_err(|error| error.to_string())?;
    let sha256: [u8; 32] = sha2::Sha256::digest(&raw).into();
    if oracle.sha256(id) != Some(sha256) {
        oracle.wrong(format!("{name} reads other bytes under {id} than were sent"));
    }
    Ok(())
}

/// What was read back and found to be what was sent, and from which block: blocks never change.
pub type ReadBack = HashSet<(Ulid, Path)>;

/// Checks, when nothing fails any more, that every acknowledged profile is there and is what was sent, unless that was `read` before from
/// the same block. Returns what there is.
pub async fn check_all(name: &str, catalog: &Catalog, oracle: &Oracle, read: &mut ReadBack) -> BTreeSet<Ulid> {
    let asked = Instant::now();
    let view = match catalog.view(&TenantId::anonymous(), Freshness::Now).await {
        Ok(view) => view,
        Err(error) => {
            oracle.wrong(format!("{name} cannot list though all is well: {error:?}"));
            return BTreeSet::new();
        }
    };
    if !check(name, &view, oracle, Some(oracle.acks()), Some(asked)).await {
        oracle.wrong(format!("{name} cannot read all though all is well: {:?}", view.problems()));
    }
    let mut ids = BTreeSet::new();
    for found in view.select(&everything()).await.matches {
        let id = found.row().id;
        ids.insert(id);
        if read.insert((id, found.block().path().clone()))
            && let Err(error) = fetch(name, &found, oracle).await
        {
            oracle.wrong(format!("{name} cannot read {id} though all is well: {error}"));
        }
    }
    ids
}

fn everything() -> Query {
    let selector = Selector::parse("{}").expect("it selects all");
    Query { selector, profile_type: None, start_nanos: i64::MIN, end_nanos: i64::MAX }
}
