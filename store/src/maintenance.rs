//! Maintenance of a whole bucket: compaction, retention and collection for every tenant, round by round.
//!
//! Any number of processes may maintain one bucket, each on its own: they meet in the commits alone. A tenant in trouble does not hold
//! up the others. Rounds of compaction are short and often; retention and collection look around less often.

use std::collections::BTreeMap;
use std::time::Duration;

use object_store::path::Path;
use tokio::time::Instant;

use crate::Store;
use crate::collect::{self, Collector};
use crate::commit::Commits;
use crate::compaction::{self, Compactor, Due, Error};
use crate::paths::TenantId;
use crate::retention::{self, Policy, Retention};

/// How a bucket is maintained.
#[derive(Clone, Debug)]
pub struct Options {
    /// How blocks are merged.
    pub compaction: compaction::Options,
    /// How long profiles are kept.
    pub retention: Policy,
    /// When objects are deleted.
    pub collection: collect::Options,
    /// How long it is from one round of compaction to the next.
    pub interval: Duration,
    /// How long it is from one round of retention and collection to the next.
    pub sweep_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compaction: compaction::Options::default(),
            retention: Policy::default(),
            collection: collect::Options::default(),
            // A segment is compacted within a minute; see the ages of the plan.
            interval: Duration::from_secs(10),
            sweep_interval: Duration::from_secs(300),
        }
    }
}

/// What a round over all tenants has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Compaction, all tenants together; of ages the greatest.
    pub compaction: compaction::Round,
    /// Retention, by tenant, where it did something.
    pub retention: BTreeMap<TenantId, retention::Report>,
    /// Collection, all tenants together.
    pub collection: collect::Report,
    /// Tenants whose round failed, and why.
    pub failed: Vec<(TenantId, String)>,
}

/// Maintains a bucket.
#[derive(Debug)]
pub struct Maintainer {
    store: Store,
    options: Options,
    tenants: BTreeMap<TenantId, Tenant>,
    swept: Option<Instant>,
    /// When the bucket was told how long profiles are kept here.
    published: Option<Instant>,
}

#[derive(Debug)]
struct Tenant {
    compactor: Compactor,
    retention: Retention,
    collector: Collector,
}

impl Maintainer {
    /// Makes it. Makes no request.
    pub fn new(store: Store, options: Options) -> Self {
        Self { store, options, tenants: BTreeMap::new(), swept: None, published: None }
    }

    /// Returns how long to wait between rounds.
    pub fn interval(&self) -> Duration {
        self.options.interval
    }

    /// Makes a round: compaction of what is due, and retention and collection when it is their time.
    ///
    /// # Errors
    /// Where the tenants could not be listed.
    pub async fn round(&mut self) -> Result<Report, Error> {
        let sweeps = self.swept.is_none_or(|at| at.elapsed() >= self.options.sweep_interval);
        if sweeps {
            self.swept = Some(Instant::now());
        }
        self.find_tenants().await?;
        if sweeps {
            self.publish().await;
        }
        let mut report = Report::default();
        for (id, tenant) in &self.tenants {
            if let Err(error) = tenant.round(id, Due::WithAge, sweeps, &mut report).await {
                report.fail(id, &error);
            }
        }
        Ok(report)
    }

    /// Compacts, drops and collects until nothing is left to do; what waits for its grace is left.
    ///
    /// # Errors
    /// Where the tenants could not be listed.
    pub async fn run_to_rest(&mut self) -> Result<Report, Error> {
        self.find_tenants().await?;
        self.publish().await;
        let mut report = Report::default();
        for (id, tenant) in &self.tenants {
            if let Err(error) = tenant.run_to_rest(id, &mut report).await {
                report.fail(id, &error);
            }
        }
        Ok(report)
    }

    /// Says what retention would do once everything is merged, and does nothing.
    ///
    /// # Errors
    /// Where the bucket could not be read.
    pub async fn dry_run(&mut self) -> Result<BTreeMap<TenantId, retention::Report>, Error> {
        self.find_tenants().await?;
        let mut reports = BTreeMap::new();
        for (id, tenant) in &self.tenants {
            reports.insert(id.clone(), tenant.retention.dry_run(&tenant.compactor).await?);
        }
        Ok(reports)
    }

    /// Tells readers how long profiles are kept, where there are any.
    async fn publish(&mut self) {
        let is_due = self.published.is_none_or(|at| at.elapsed() >= retention::PUBLISH_INTERVAL);
        if self.tenants.is_empty() || !is_due {
            return;
        }
        match retention::publish(&self.store, &self.options.retention).await {
            Ok(()) => self.published = Some(Instant::now()),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "readers cannot be told how long profiles are kept"
                );
            }
        }
    }

    /// Takes up tenants that are new.
    async fn find_tenants(&mut self) -> Result<(), Error> {
        for id in tenants(&self.store).await? {
            let (store, options) = (&self.store, &self.options);
            self.tenants.entry(id).or_insert_with_key(|id| Tenant::new(store, id, options));
        }
        Ok(())
    }
}

/// Returns the tenants that have anything in the bucket. Costs one LIST.
///
/// # Errors
/// Where the bucket could not be listed.
pub async fn tenants(store: &Store) -> Result<Vec<TenantId>, Error> {
    let folder = TenantId::folder_of_all();
    let listed = store.objects().list_with_delimiter(Some(&folder)).await;
    let listed = listed.map_err(|source| Error::List { key: folder, source })?;
    let name = |path: &Path| path.parts().next_back()?.as_ref().parse::<TenantId>().ok();
    Ok(listed.common_prefixes.iter().filter_map(name).collect())
}

impl Tenant {
    fn new(store: &Store, id: &TenantId, options: &Options) -> Self {
        let commits = Commits::new(store.clone(), id.clone());
        Self {
            compactor: Compactor::new(store.clone(), commits.clone(), options.compaction.clone()),
            retention: Retention::new(store.clone(), commits.clone(), options.retention.clone()),
            collector: Collector::new(store.clone(), commits, options.collection.clone()),
        }
    }

    async fn round(&self, id: &TenantId, due: Due, sweeps: bool, report: &mut Report) -> Result<(), Error> {
        let compacted = self.compact(id, due, report).await.map(drop);
        // Whatever stops the one, the other goes on.
        let swept = if sweeps { self.sweep(id, report).await } else { Ok(()) };
        compacted.and(swept)
    }

    /// Makes a round of compaction, and returns whether it rests.
    async fn compact(&self, id: &TenantId, due: Due, report: &mut Report) -> Result<bool, Error> {
        let mut round = self.compactor.round(due).await?;
        for failure in round.failures.drain(..) {
            let failure = (id.clone(), failure);
            if !report.failed.contains(&failure) {
                report.failed.push(failure);
            }
        }
        let rests = round.rests();
        report.compaction.add(round);
        Ok(rests)
    }

    async fn sweep(&self, id: &TenantId, report: &mut Report) -> Result<(), Error> {
        let mut dropped = retention::Report::default();
        let retained = self.retention.round(&self.compactor, &mut dropped).await;
        if !dropped.is_empty() {
            report.retention.entry(id.clone()).or_default().add(dropped);
        }
        // What was removed is to go, whatever retention cannot do.
        let collected = self.collector.round().await.map(|collected| report.collection.add(collected));
        retained.and(collected)
    }

    async fn run_to_rest(&self, id: &TenantId, report: &mut Report) -> Result<(), Error> {
        let compacted = loop {
            match self.compact(id, Due::Now, report).await {
                Ok(true) => break Ok(()),
                Ok(false) => {}
                Err(error) => break Err(error),
            }
        };
        compacted.and(self.sweep(id, report).await)
    }
}

impl Report {
    fn fail(&mut self, tenant: &TenantId, error: &Error) {
        let error: &dyn std::error::Error = error;
        tracing::warn!(%tenant, error, "maintenance failed; the next round tries again");
        self.failed.push((tenant.clone(), error.to_string()));
    }
}

#[cfg(test)]
mod tests;
