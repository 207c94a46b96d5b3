//! The real maintenance as a process: it compacts, drops and collects, beside others that do the same.

use std::fmt;
use std::time::Duration;

use afterglow_store::maintenance::{Maintainer, Options, Report};
use afterglow_store::paths::TenantId;
use afterglow_store::verify::verify;
use afterglow_store::{Store, collect, compaction};
use futures::future::LocalBoxFuture;
use tokio::time::{sleep, timeout};

use crate::oracle::Oracle;
use crate::process::{Life, Process};
use crate::retention::Keeps;
use crate::world::World;

/// How long a round may take. A request that is never answered would hold it up for ever, as would one of a process that hangs.
const ROUND_MAX: Duration = Duration::from_secs(300);
/// How likely a round merges all there is, due or not.
const RESTS: f64 = 0.15;

/// How a run is maintained.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many processes do it.
    pub maintainers: usize,
    /// How they do it.
    pub options: Options,
    /// How long profiles are kept, of which the options say the same.
    pub keeps: Keeps,
}

impl Plan {
    /// Draws a plan in which there is much to do: all that a day brings, within minutes.
    pub fn draw(world: &World) -> Self {
        let mut chance = world.chance("plan of maintenance");
        let mut seconds = |of: &[u64]| Duration::from_secs(*chance.choose(of));
        let plan = compaction::plan::Options {
            segment_age: seconds(&[1, 20]),
            orphan_age: seconds(&[2, 35]),
            hour_age: seconds(&[10, 60, 300]),
            day_age: seconds(&[10, 300, 3_600]),
            spread: seconds(&[0, 5, 15]),
            ..compaction::plan::Options::default()
        };
        let grace = seconds(&[1, 60, 900, 900]);
        let interval = seconds(&[1, 10]);
        let sweep_interval = seconds(&[10, 60]);
        let plan = compaction::plan::Options { inputs_max: *chance.choose(&[2, 5, 1_024]), ..plan };
        let keeps = Keeps::draw(world, &mut chance);
        Self {
            maintainers: chance.number(1..4) as usize,
            options: Options {
                compaction: compaction::Options { plan, ..compaction::Options::default() },
                retention: keeps.policy(),
                collection: collect::Options { grace, ..collect::Options::default() },
                interval,
                sweep_interval,
            },
            keeps,
        }
    }
}

/// Maintenance.
#[derive(Debug)]
pub struct Maintenance {
    /// Its name.
    pub name: String,
    /// Where it tells what it did.
    pub world: World,
    /// How it is done.
    pub options: Options,
}

impl Process for Maintenance {
    fn name(&self) -> &str {
        &self.name
    }

    fn live(&self, mut life: Life) -> LocalBoxFuture<'static, ()> {
        let (name, world, options) = (self.name.clone(), self.world.clone(), self.options.clone());
        Box::pin(async move {
            let mut maintainer = Maintainer::new(life.store.clone(), options);
            while !life.stop.is_cancelled() {
                sleep(life.pause(maintainer.interval())).await;
                let rests = life.chance.is(RESTS);
                let round = async { if rests { maintainer.run_to_rest().await } else { maintainer.round().await } };
                // Whatever fails is tried again by the next round.
                match timeout(ROUND_MAX, round).await {
                    Ok(Ok(report)) => world.note(format_args!("{name} {}", Told(&report))),
                    Ok(Err(error)) => world.note(format_args!("{name} fails: {error}")),
                    Err(_) => world.note(format_args!("{name} hangs")),
                }
            }
        })
    }
}

/// Brings a bucket to rest when nothing fails any more, and verifies it, every byte where `reads_all` or where bringing it to rest wrote any;
/// tells what is wrong.
pub async fn rest_and_verify(
    store: &Store,
    options: &Options,
    oracle: &Oracle,
    world: &World,
    reads_all: bool,
) -> Report {
    let mut maintainer = Maintainer::new(store.clone(), options.clone());
    let report = match maintainer.run_to_rest().await {
        Ok(report) => report,
        Err(error) => {
            oracle.wrong(format!("the bucket cannot be maintained though all is well: {error}"));
            return Report::default();
        }
    };
    world.note(format_args!("at rest: {}", Told(&report)));
    for (tenant, error) in &report.failed {
        oracle.wrong(format!("{tenant} cannot be maintained though all is well: {error}"));
    }
    // A job may lose to another of the same round that had one of its ids; the next round has it again.
    if report.compaction.unknown + report.compaction.quarantined.len() > 0 {
        oracle.wrong(format!("jobs fail though all is well and nobody else is there: {:?}", report.compaction));
    }
    // Every byte once: what was read then is as it was.
    let deep = reads_all || report.compaction.committed > 0 || !report.retention.is_empty();
    match verify(store, &TenantId::anonymous(), deep).await {
        Ok(verified) => {
            for finding in &verified.findings {
                oracle.wrong(format!("verification finds: {finding}"));
            }
            world.note(format_args!("verified: {verified:?}"));
        }
        Err(error) => oracle.wrong(format!("the bucket cannot be verified though all is well: {error}")),
    }
    report
}

/// A report as the trace tells it.
struct Told<'a>(&'a Report);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { compaction, retention, collection, failed } = self.0;
        let dropped: u64 = retention.values().map(|report| report.profiles).sum();
        let compaction::Round { committed, lost, unknown, quarantined, .. } = compaction;
        let collect::Report { segments, blocks, fenced, waiting, .. } = collection;
        write!(
            f,
            "compacts {committed} ({lost} lost, {unknown} unknown, {} damaged), drops {dropped} profiles, deletes {segments} segments and \
             {blocks} blocks ({fenced} fenced, {waiting} wait), fails {}",
            quarantined.len(),
            failed.len()
        )
    }
}
