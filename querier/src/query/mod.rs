//! The questions, one file each, and what they share.
//!
//! A question is a function from a request message to an answer message; gRPC and HTTP only translate. All go the same way: read
//! the selection, take a [`View`] of the tenant's blocks that is fresh enough, select rows in it (each id once), answer from the rows
//! or from the blocks they lie in, and say what could not be read. [`Engine`] is what they need for that: the catalog, a
//! clock, limits, the memory budget and the metrics. It puts a deadline on each, and dropping a question's future ends its reads.
//!
//! - [`search`], [`types`], [`services`], [`labels`], [`label_sets`]: answered from what the catalog knows, without a look into profiles
//! - [`series`]: sums over time, from the totals that rows carry; [`step`], [`by`] and [`shown`] say of what, over what and for whom
//! - [`top`], [`function`], and [`series`] of a function: sums of samples group by group, which [`tally`] reads;
//!   [`regressions`]: what differs between such sums beyond noise; [`statistics`]: how their shares spread; [`stats`]: what is stored
//! - [`fetch`]: one profile; [`merge`]: many as one; [`diff`]: two such against each other; admitted by [`budget`]. [`filter`] and [`view`]
//!   say what of their stacks is shown
//! - [`answer`]: what all answers have in common; [`explain`]: what one cost; [`places`]: how many a tenant may ask for at once
//! - [`lane`]: a small question is answered at once, a large one by turns; [`gate`]: how many large ones at a time
//!
//! What does not belong here: how a request came in, and anything that writes to the bucket.

mod answer;
mod budget;
mod by;
mod cursor;
mod diff;
mod error;
mod explain;
mod fetch;
mod filter;
mod function;
mod gate;
mod label_sets;
mod labels;
mod lane;
pub(crate) mod merge;
mod metrics;
mod places;
mod regressions;
mod search;
mod selection;
mod series;
mod services;
mod shown;
mod statistics;
mod stats;
mod step;
mod tally;
mod top;
mod types;
mod view;

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use afterglow_proto::v1;
use afterglow_service::{Failure, stack};
use afterglow_store::block::Block;
use afterglow_store::catalog::{self, Catalog, Freshness, Match, Problem, Summary, View};
use afterglow_store::clock::Clock;
use afterglow_store::paths::TenantId;
use afterglow_store::retention::{Policy, Published};
use tokio::time::Instant;

pub(crate) use error::Error;
pub(crate) use fetch::Fetched;
pub(crate) use label_sets::LabelSets;
pub(crate) use metrics::Metrics;

use answer::Answer;
use budget::{Admitted, Budget, UNCOUNTED_BYTES};
use explain::{Explaining, Step};
use gate::{Gate, Place};
use lane::{Lane, Threads};
use metrics::Question;
use places::Places;
use selection::Selection;

use crate::siblings::Siblings;
use crate::window;

/// What bounds a question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long it may take.
    pub(crate) timeout: Duration,
    /// The memory that all merges under way share, in bytes.
    pub(crate) memory_bytes: u64,
    /// The most profiles in one merge.
    pub(crate) merge_profiles_max: u64,
    /// How many datasets one merge reads at once.
    pub(crate) merge_reads: usize,
    /// The estimated memory of a merge above which siblings do shares of it, in bytes.
    pub(crate) share_above_bytes: u64,
    /// How many questions of one tenant are answered at once; 0 for any number.
    pub(crate) tenant_queries_max: usize,
}

/// Answers questions; cheap to clone. What one cost is noted in the second part, the third says which way it goes, the fourth by when it
/// is to be answered, and the last has the memory that its answer keeps: each question has these for itself.
#[derive(Clone, Debug)]
pub(crate) struct Engine(Arc<Parts>, Explaining, Lane, Option<Instant>, Keeping);

/// The memory of a question whose answer is made.
type Keeping = Arc<Mutex<Option<Admitted>>>;

#[derive(Debug)]
struct Parts {
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    limits: Limits,
    budget: Budget,
    places: Places,
    gate: Gate,
    threads: Threads,
    metrics: Metrics,
    siblings: Siblings,
    /// How long profiles are kept, where this process is what deletes them.
    retention: OnceLock<Policy>,
    /// How long others keep them.
    published: Published,
}

// === impl Engine ===

impl Engine {
    /// Puts the parts together.
    pub(crate) fn new(
        catalog: Catalog,
        published: Published,
        clock: Arc<dyn Clock>,
        limits: Limits,
        siblings: Siblings,
        metrics: Metrics,
    ) -> Self {
        let budget = Budget::new(limits.memory_bytes, metrics.memory.clone());
        let places = Places::new(limits.tenant_queries_max);
        let gate = Gate::new(lane::places(), metrics.large.clone(), metrics.large_waiting.clone());
        metrics.set_limits(limits.memory_bytes, lane::places(), gate::WAITING_MAX);
        let (threads, retention) = (Threads::new(), OnceLock::new());
        let parts =
            Parts { catalog, clock, limits, budget, places, gate, threads, metrics, siblings, retention, published };
        Self(Arc::new(parts), Explaining::default(), Lane::Small, None, Keeping::default())
    }

    /// Says how long this process keeps profiles. What was said first stays.
    pub(crate) fn set_retention(&self, policy: Policy) {
        let _ = self.0.retention.set(policy);
    }

    /// Returns the time now, in nanoseconds since 1970.
    pub(crate) fn now_nanos(&self) -> i64 {
        self.0.clock.unix_nanos()
    }

    /// Lists profiles, newest first, page by page.
    ///
    /// # Errors
    /// As all questions: [`Error`], folded.
    #[tracing::instrument(name = "search", skip_all, fields(%tenant))]
    pub(crate) async fn search(
        &self,
        tenant: &TenantId,
        request: v1::SearchRequest,
    ) -> Result<v1::SearchResponse, Failure> {
        let engine = self.explaining(request.explain);
        engine.ask(tenant, Question::Search, search::answer(&engine, tenant, request)).await
    }

    /// Gives one profile, exactly as it was sent; or only what is known of it, where `is_known` says of its SHA-256 (in hexadecimal) that
    /// the bytes are there already.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "fetch", skip_all, fields(%tenant, id = request.id))]
    pub(crate) async fn get_profile(
        &self,
        tenant: &TenantId,
        request: v1::GetProfileRequest,
        is_known: impl FnOnce(&str) -> bool,
    ) -> Result<Fetched, Failure> {
        let engine = self.explaining(false);
        engine.ask(tenant, Question::GetProfile, fetch::answer(&engine, tenant, request, is_known)).await
    }

    /// Merges profiles into one answer.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "merge", skip_all, fields(%tenant, profiles, bytes, blocks, estimate))]
    pub(crate) async fn merge(
        &self,
        tenant: &TenantId,
        request: v1::MergeRequest,
    ) -> Result<v1::MergeResponse, Failure> {
        let engine = self.explaining(request.explain);
        engine.ask(tenant, Question::Merge, merge::answer(&engine, tenant, request)).await
    }

    /// Does a share of a merge for a sibling.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "share", skip_all, fields(%tenant))]
    pub(crate) async fn share(
        &self,
        tenant: &TenantId,
        request: v1::MergeShareRequest,
    ) -> Result<v1::MergeShareResponse, Failure> {
        // The sibling has a place for the whole question, and may itself wait for us: whoever waits here could wait for ever.
        let engine = self.explaining(false).on_lane(None);
        engine.ask(tenant, Question::Share, merge::share::answer(&engine, tenant, request)).await
    }

    /// Sums over time.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "series", skip_all, fields(%tenant, profiles, bytes, blocks, estimate))]
    pub(crate) async fn series(
        &self,
        tenant: &TenantId,
        request: v1::SeriesRequest,
    ) -> Result<v1::SeriesResponse, Failure> {
        let engine = self.explaining(request.explain);
        engine.ask(tenant, Question::Series, series::answer(&engine, tenant, request)).await
    }

    /// Ranks functions.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "top", skip_all, fields(%tenant, profiles, bytes, blocks, estimate))]
    pub(crate) async fn top(&self, tenant: &TenantId, request: v1::TopRequest) -> Result<v1::TopResponse, Failure> {
        let engine = self.explaining(request.explain);
        engine.ask(tenant, Question::Top, top::answer(&engine, tenant, request)).await
    }

    /// Says all about one function.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "function", skip_all, fields(%tenant, name = request.name, profiles, bytes, blocks, estimate))]
    pub(crate) async fn function(
        &self,
        tenant: &TenantId,
        request: v1::FunctionRequest,
    ) -> Result<v1::FunctionResponse, Failure> {
        let engine = self.explaining(request.explain);
        engine.ask(tenant, Question::Function, function::answer(&engine, tenant, request)).await
    }

    /// Tells which functions cost another share than before, beyond noise.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "regressions", skip_all, fields(%tenant, profiles, bytes, blocks, estimate))]
    pub(crate) async fn regressions(
        &self,
        tenant: &TenantId,
        request: v1::RegressionsRequest,
    ) -> Result<v1::RegressionsResponse, Failure> {
        let engine = self.explaining(request.explain);
        engine.ask(tenant, Question::Regressions, regressions::answer(&engine, tenant, request)).await
    }

    /// Says how shares of functions spread over groups of profiles.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "statistics", skip_all, fields(%tenant, profiles, bytes, blocks, estimate))]
    pub(crate) async fn statistics(
        &self,
        tenant: &TenantId,
        request: v1::StatisticsRequest,
    ) -> Result<v1::StatisticsResponse, Failure> {
        let engine = self.explaining(request.explain);
        engine.ask(tenant, Question::Statistics, statistics::answer(&engine, tenant, request)).await
    }

    /// Says what is stored.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "stats", skip_all, fields(%tenant))]
    pub(crate) async fn stats(
        &self,
        tenant: &TenantId,
        request: v1::StatsRequest,
    ) -> Result<v1::StatsResponse, Failure> {
        self.ask(tenant, Question::Stats, stats::answer(self, tenant, request)).await
    }

    /// Holds two merges against each other.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "diff", skip_all, fields(%tenant, profiles, bytes, blocks, estimate))]
    pub(crate) async fn diff(&self, tenant: &TenantId, request: v1::DiffRequest) -> Result<v1::DiffResponse, Failure> {
        let engine = self.explaining(request.explain);
        engine.ask(tenant, Question::Diff, diff::answer(&engine, tenant, request)).await
    }

    /// Lists profile types.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "profile_types", skip_all, fields(%tenant))]
    pub(crate) async fn profile_types(
        &self,
        tenant: &TenantId,
        request: v1::ProfileTypesRequest,
    ) -> Result<v1::ProfileTypesResponse, Failure> {
        self.ask(tenant, Question::ProfileTypes, types::answer(self, tenant, request)).await
    }

    /// Lists services.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "services", skip_all, fields(%tenant))]
    pub(crate) async fn services(
        &self,
        tenant: &TenantId,
        request: v1::ServicesRequest,
    ) -> Result<v1::ServicesResponse, Failure> {
        self.ask(tenant, Question::Services, services::answer(self, tenant, request)).await
    }

    /// Lists the names of labels.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "label_names", skip_all, fields(%tenant))]
    pub(crate) async fn label_names(
        &self,
        tenant: &TenantId,
        request: v1::LabelNamesRequest,
    ) -> Result<v1::LabelNamesResponse, Failure> {
        self.ask(tenant, Question::LabelNames, labels::names(self, tenant, request)).await
    }

    /// Lists the values of a label.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "label_values", skip_all, fields(%tenant, label = request.name))]
    pub(crate) async fn label_values(
        &self,
        tenant: &TenantId,
        request: v1::LabelValuesRequest,
    ) -> Result<v1::LabelValuesResponse, Failure> {
        self.ask(tenant, Question::LabelValues, labels::values(self, tenant, request)).await
    }

    /// Lists series: their labels, types, and what their samples count.
    ///
    /// # Errors
    /// As [`Engine::search`].
    #[tracing::instrument(name = "label_sets", skip_all, fields(%tenant))]
    pub(crate) async fn label_sets(&self, tenant: &TenantId, selection: v1::Selection) -> Result<LabelSets, Failure> {
        self.ask(tenant, Question::LabelSets, label_sets::answer(self, tenant, selection)).await
    }

    /// Returns the engine of one question, which notes what the answer costs where that is asked for.
    fn explaining(&self, is_asked: bool) -> Self {
        let until = Instant::now() + self.0.limits.timeout;
        Self(Arc::clone(&self.0), Explaining::new(is_asked), Lane::Small, Some(until), Keeping::default())
    }

    /// Returns the engine of a question that is large.
    fn on_lane(&self, place: Option<Place>) -> Self {
        let lane = Lane::Large { threads: self.0.threads.clone(), _place: place.map(Arc::new) };
        Self(Arc::clone(&self.0), self.1.clone(), lane, self.3, Arc::clone(&self.4))
    }

    /// Finds out whether a question about these selections is small: about `small_max` profiles at most. If not, waits for a place at the
    /// gate. Returns the engine that it is answered by.
    async fn enter(&self, tenant: &TenantId, asked: &[(&View, &Selection)], small_max: u64) -> Result<Self, Error> {
        let mut profiles = 0;
        for (view, selection) in asked {
            profiles += view.at_most(&selection.query(), small_max + 1 - profiles).await;
            if profiles > small_max {
                return self.enter_large(tenant).await;
            }
        }
        Ok(self.clone())
    }

    /// Waits for a place at the gate, and returns the engine of the question that has it.
    async fn enter_large(&self, tenant: &TenantId) -> Result<Self, Error> {
        let _timed = self.1.step(Step::Wait);
        Ok(self.on_lane(Some(self.0.gate.enter(tenant).await?)))
    }

    /// Returns by when the question is to be answered.
    fn until(&self) -> Instant {
        self.3.unwrap_or_else(|| Instant::now() + self.0.limits.timeout)
    }

    /// Waits for an answer, but not for ever, and counts it.
    async fn ask<T: Answer>(
        &self,
        tenant: &TenantId,
        question: Question,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let asking = self.0.metrics.begin(question);
        // A share is part of a question that has its place at a sibling.
        let place = if matches!(question, Question::Share) { Ok(None) } else { self.0.places.take(tenant) };
        let answer = async {
            // Held for as long as the question is worked on, and no longer.
            let _place = place?;
            let answer = self.1.charge(answer).await?;
            self.hold(answer.bytes()).await?;
            Ok(answer)
        };
        let after = self.0.limits.timeout;
        let late = |_| Err(Error::Deadline { after }.into());
        let mut result = tokio::time::timeout_at(self.until(), answer).await.unwrap_or_else(late);
        asking.end(result.as_ref().map(Answer::is_partial));
        if let (Ok(answer), Some(explain)) = (&mut result, self.1.finish()) {
            answer.explain(explain);
        }
        result
    }

    /// Keeps what a question held for its answer, which it has made.
    fn keep(&self, admitted: Admitted) {
        *self.4.lock().unwrap_or_else(PoisonError::into_inner) = Some(admitted);
    }

    /// Holds as much memory as an answer that is made takes until its client has taken it: of what the question held, or else of what there is.
    async fn hold(&self, bytes: u64) -> Result<(), Error> {
        let kept = self.4.lock().unwrap_or_else(PoisonError::into_inner).take();
        if bytes < UNCOUNTED_BYTES {
            return Ok(());
        }
        let admitted = match kept {
            Some(mut admitted) => {
                admitted.resize(bytes)?;
                admitted
            }
            None => self.admit_whole(bytes).await?,
        };
        stack::keep(admitted);
        Ok(())
    }

    /// Returns a view of the tenant's profiles.
    async fn view(&self, tenant: &TenantId, freshness: Freshness) -> Result<Arc<View>, Error> {
        let _timed = self.1.step(Step::Refresh);
        Ok(self.0.catalog.view(tenant, freshness).await?)
    }

    /// Selects profiles in a view.
    async fn select_in(&self, view: &Arc<View>, selection: &Selection) -> Result<catalog::Selection, Error> {
        let _timed = self.1.step(Step::Select);
        let (within, query) = (Arc::clone(view), selection.query());
        let selected = match &self.2 {
            Lane::Small => within.select(&query).await,
            Lane::Large { .. } => self.drive(async move { within.select(&query).await }).await?,
        };
        self.1.add_profiles(selected.matches.len());
        Ok(selected)
    }

    /// Waits for memory for an answer that is thought to take `estimate` bytes.
    async fn admit(&self, estimate: u64) -> Result<Admitted, Error> {
        let _timed = self.1.step(Step::Wait);
        self.1.add_estimate(estimate);
        Ok(self.0.budget.admit(estimate, self.2.is_small()).await?)
    }

    /// Waits for memory for something that takes `bytes`, however much there is.
    async fn admit_whole(&self, bytes: u64) -> Result<Admitted, Error> {
        let _timed = self.1.step(Step::Wait);
        Ok(self.0.budget.admit_whole(bytes, self.2.is_small()).await?)
    }

    /// Drives a future where the question may compute, and leaves it there at its next await when what is returned is dropped.
    async fn drive<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, Error> {
        Ok(self.2.drive(work).await?)
    }

    /// Does work that waits for nothing where the question may compute.
    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        Ok(self.2.compute(work).await?)
    }

    /// The same, of what is worth a thread of its own only where the question is large.
    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        Ok(self.2.aside(work).await?)
    }

    /// Counts a part of a block that proved damaged. If that happened on its way here, the next question gets it anew.
    fn note_damage(&self, block: &Block) {
        self.0.metrics.damaged.inc();
        self.0.catalog.forget(block.path());
    }

    /// Counts roll-ups of a block that proved damaged, so that profiles were read instead: the answer is right, the block is not.
    fn note_rollup_damage(&self, block: &Block) {
        if block.take_rollup_damage() {
            self.note_damage(block);
        }
    }

    /// Selects series of the tenant, and counts the profiles of each.
    async fn summary(&self, tenant: &TenantId, selection: &Selection) -> Result<Summary, Error> {
        let view = self.view(tenant, selection.freshness.clone()).await?;
        Ok(view.series(&selection.query()).await)
    }
}

/// Says whether all stored data could be read.
fn completeness(problems: &[Problem]) -> v1::Completeness {
    v1::Completeness { partial: !problems.is_empty(), problems: problems.iter().map(ToString::to_string).collect() }
}

/// Describes a stored profile.
fn info(found: &Match) -> v1::ProfileInfo {
    let (row, labels) = (found.row(), found.labels());
    let totals = found.sample_types().iter().zip(&row.totals).map(|(sample_type, &value)| v1::Total {
        r#type: sample_type.kind.to_string(),
        unit: sample_type.unit.to_string(),
        value,
    });
    v1::ProfileInfo {
        id: row.id.to_string(),
        r#type: found.profile_type().to_string(),
        service: labels.service().to_owned(),
        labels: labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        time: Some(window::timestamp(row.time_nanos)),
        duration: Some(window::duration(row.duration_nanos)),
        totals: totals.collect(),
        bytes: row.raw_bytes,
        samples: row.samples,
        sha256: hex::encode(row.sha256),
    }
}
