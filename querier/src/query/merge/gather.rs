//! From a selection to one merged profile in memory: what merges and diffs have in common.
//!
//! [`Chosen`] are the profiles, found and planned but not read: their estimate is there before anything is taken from the budget. To
//! [`Chosen::gather`] them reads the datasets concurrently, a few at once, in a fixed order; each gives sums of its profiles, which go
//! to a [`Worker`] that merges them; of what is heavy, siblings do shares ([`share`](super::share)). A dataset that is damaged is left out and named. A store that does not answer fails the question.

use afterglow_profile::merge::Merged;
use afterglow_store::block::{self, Aggregate, SampleTypes};
use afterglow_store::catalog::{self, Freshness, Match, Problem, View};
use afterglow_store::paths::TenantId;
use futures::{StreamExt as _, stream};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::Instant;
use ulid::Ulid;

use super::super::budget::Admitted;
use super::super::error::{Nearest, Unread};
use super::super::explain::Step;
use super::super::lane::{SMALL_LISTED, SMALL_READ};
use super::super::metrics::Question;
use super::super::selection::Selection;
use super::super::{Engine, Error};
use super::plan::{self, Part, Plan};
use super::share::{self, Done, Share, share_out};
use super::worker::Worker;
use crate::window::Window;

/// Profiles that are to be merged.
pub(in super::super) struct Chosen {
    matches: Vec<Match>,
    plan: Plan,
    problems: Vec<Problem>,
    selection: Selection,
    tenant: TenantId,
}

/// Profiles that are merged.
pub(in super::super) struct Gathered {
    pub(in super::super) merged: Merged,
    /// How many bytes of memory it holds.
    pub(in super::super) memory: u64,
    /// How many profiles there are.
    pub(in super::super) profiles: u64,
    /// What could not be read.
    pub(in super::super) problems: Vec<Problem>,
    /// The sample types that it was made of.
    pub(in super::super) types: SampleTypes,
}

/// What comes of reading.
pub(super) enum Read {
    /// All that could be read is merged.
    Merged {
        /// The merge, and how many bytes of memory it holds.
        worked: Box<(Merged, u64, Admitted)>,
        profiles: u64,
        /// The sample types that it was made of.
        types: SampleTypes,
    },
    /// All parts are damaged.
    Nothing,
    /// The profiles show different sample types by default.
    Apart(Admitted),
}

// === impl Chosen ===

impl Chosen {
    /// Finds all profiles of a view that are selected.
    ///
    /// # Errors
    /// There are none, or of several types, or too many.
    pub(in super::super) async fn select(
        engine: &Engine,
        tenant: &TenantId,
        view: &Arc<View>,
        selection: Selection,
    ) -> Result<Self, Error> {
        let selected = select_any(engine, view, &selection).await?;
        Self::new(engine, tenant, selected.matches, selected.problems, selection).await
    }

    /// Finds the profiles with these ids, and keeps those that the query and the type of `selection` match. Each counts once. Returns them with
    /// the engine that they are to be gathered by.
    ///
    /// # Errors
    /// An id is none, or no profile has it; and as [`Chosen::select`].
    pub(in super::super) async fn pick(
        engine: &Engine,
        tenant: &TenantId,
        selection: Selection,
        ids: &[String],
    ) -> Result<(Self, Engine), Error> {
        let max = engine.0.limits.merge_profiles_max;
        if ids.len() as u64 > max {
            return Err(Error::TooManyProfiles { profiles: ids.len() as u64, max });
        }
        let parse = |text: &String| Ulid::from_string(text).map_err(|_| Error::Id { text: text.clone() });
        let ids: BTreeSet<Ulid> = ids.iter().map(parse).collect::<Result<_, _>>()?;
        let is_small = ids.len() as u64 <= SMALL_READ;
        let engine = if is_small { engine.clone() } else { engine.enter_large(tenant).await? };
        let selection = selection.within(Window::ALL);
        let mut view = engine.view(tenant, selection.freshness.clone()).await?;
        let mut matches = Vec::with_capacity(ids.len());
        for id in ids {
            let get = async |view: &View| view.get(id).await.map_err(|problem| Error::Unread { id, problem });
            let mut found = get(&view).await?;
            if found.is_none() {
                // Whoever has an id may have it from an acknowledgement a moment ago.
                view = engine.view(tenant, Freshness::Now).await?;
                found = get(&view).await?;
            }
            let unread = || Unread::of(view.problems());
            matches.push(found.ok_or_else(|| Error::NoProfile { id, unread: unread() })?);
        }
        matches.retain(|found| {
            let profile_type = found.profile_type();
            selection.selector.matches(found.labels(), profile_type)
                && selection.profile_type.as_ref().is_none_or(|asked| asked == profile_type)
        });
        if matches.is_empty() {
            let selection = selection.to_string();
            return Err(Error::NoMatch { selection, nearest: Nearest::Nowhere, unread: Unread::of(view.problems()) });
        }
        engine.1.add_profiles(matches.len());
        let chosen = Self::new(&engine, tenant, matches, Vec::new(), selection).await?;
        Ok((chosen, engine))
    }

    async fn new(
        engine: &Engine,
        tenant: &TenantId,
        matches: Vec<Match>,
        problems: Vec<Problem>,
        selection: Selection,
    ) -> Result<Self, Error> {
        let (tenant, limits) = (tenant.clone(), engine.0.limits);
        let plan = move || {
            let plan = Plan::new(&matches, &selection, &limits)?;
            Ok(Self { matches, plan, problems, selection, tenant })
        };
        engine.aside(plan).await?
    }

    /// Returns what is read.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the profiles.
    pub(super) fn matches(&self) -> &[Match] {
        &self.matches
    }

    /// Returns how many bytes of memory it takes to gather them, about.
    pub(in super::super) fn estimate(&self) -> u64 {
        self.plan.estimate
    }

    /// Reads and merges them, in the memory that is `admitted`, of which `held` bytes are in use already. Where the profiles do not agree
    /// about the default among `types`, all are read.
    ///
    /// # Errors
    /// The store does not answer, all of it is damaged, the profiles do not merge, or need more memory than there is.
    pub(in super::super) async fn gather(
        self,
        engine: &Engine,
        question: Question,
        mut types: SampleTypes,
        mut admitted: Admitted,
        held: u64,
    ) -> Result<(Gathered, Admitted), Error> {
        let Self { tenant, matches, plan, mut problems, selection } = self;
        engine.0.metrics.read(question, plan.profiles, plan.raw_bytes, plan.blocks);
        loop {
            let mut unread = Vec::new();
            let shares = share_out(engine, &tenant, &plan, types).await;
            match merge(engine, shares, types, admitted, held, &mut unread).await {
                Ok(Read::Merged { worked, profiles, types }) => {
                    let (merged, memory, admitted) = *worked;
                    problems.extend(unread);
                    return Ok((Gathered { merged, memory, profiles, problems, types }, admitted));
                }
                Ok(Read::Nothing) => {
                    problems.extend(unread);
                    return Err(Error::Damaged { selection: selection.to_string(), problems: Unread::of(&problems) });
                }
                Ok(Read::Apart(back)) => (types, admitted) = (SampleTypes::All, back),
                Err(Error::Merge(error)) => {
                    return Err(plan::disagreement(&matches).map_or(Error::Merge(error), Error::from));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A merge under way.
struct Merging<'a> {
    engine: &'a Engine,
    worker: Worker,
    profiles: u64,
    asked: SampleTypes,
    /// What is merged, as soon as that is known.
    types: SampleTypes,
    problems: &'a mut Vec<Problem>,
}

/// Reads and merges these sample types of the parts, then of the shares that siblings do.
pub(super) async fn merge(
    engine: &Engine,
    (here, shares): (Vec<Part>, Vec<Share>),
    types: SampleTypes,
    admitted: Admitted,
    held: u64,
    problems: &mut Vec<Problem>,
) -> Result<Read, Error> {
    let began = Instant::now();
    let worker = Worker::start(admitted, held, engine);
    let mut merging = Merging { engine, worker, profiles: 0, asked: types, types, problems };
    let mut agree = merging.read(here).await?;
    let (took, mut shares) = (began.elapsed(), shares.into_iter());
    while agree && let Some(mut share) = shares.next() {
        let undone = 1 + shares.as_slice().iter().filter(|share| !share.is_answered()).count();
        let times = (began, Instant::now(), engine.until());
        let patience = share::patience(&engine.0.limits, times, took, undone);
        agree = match share.done(engine, patience).await {
            Some(done) => merging.add(&share.parts, done).await?,
            None => merging.read(share.parts).await?,
        };
    }
    let Merging { worker, profiles, types, .. } = merging;
    if !agree {
        return Ok(Read::Apart(worker.finish().await?.2));
    }
    if profiles == 0 {
        return Ok(Read::Nothing);
    }
    Ok(Read::Merged { worked: Box::new(worker.finish().await?), profiles, types })
}

impl Merging<'_> {
    /// Reads parts and adds them. Returns whether all that was added shows the same: else it does not merge.
    async fn read(&mut self, parts: Vec<Part>) -> Result<bool, Error> {
        let (asked, engine) = (self.asked, self.engine);
        let reads = parts.into_iter().map(|part| read(engine, part, asked));
        let mut reads = stream::iter(reads).buffered(self.engine.0.limits.merge_reads);
        while let Some((part, sums)) = reads.next().await {
            match sums? {
                Ok(sums) => {
                    self.engine.note_rollup_damage(&part.block);
                    self.profiles += part.rows.len() as u64;
                    // What has another name must not reach the worker: it would not merge.
                    if !sums.iter().filter_map(Aggregate::sample_type).all(|shown| self.agrees(shown)) {
                        return Ok(false);
                    }
                    self.worker.add(sums).await?;
                }
                Err(error) if error.is_corrupt() => {
                    self.engine.note_damage(&part.block);
                    tracing::error!(%error, "a dataset is left out of a merge");
                    self.problems.push(Problem { key: part.block.path().clone(), text: error.to_string() });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Adds a share that is done. Returns as [`Merging::read`].
    async fn add(&mut self, parts: &[Part], done: Done) -> Result<bool, Error> {
        if !done.sample_type.is_none_or(|shown| self.agrees(shown)) {
            return Ok(false);
        }
        self.engine.1.add_share();
        self.profiles += parts.iter().map(|part| part.rows.len() as u64).sum::<u64>();
        self.worker.add_share(done).await?;
        Ok(true)
    }

    /// Says whether a sample type is that of all before. The first that is shown by default is taken for that of all.
    fn agrees(&mut self, shown: usize) -> bool {
        if self.types == SampleTypes::Default {
            self.types = SampleTypes::One(shown);
        }
        self.types == SampleTypes::One(shown)
    }
}

/// Reads the sums of these sample types of a part.
async fn read(
    engine: &Engine,
    part: Part,
    types: SampleTypes,
) -> (Part, Result<Result<Vec<Aggregate>, block::Error>, Error>) {
    let Part { block, dataset, rows, .. } = part.clone();
    let explaining = engine.1.clone();
    let read = async move {
        let _timed = explaining.step(Step::Decode);
        block.aggregate(dataset, &rows, types).await
    };
    (part, engine.drive(read).await)
}

/// Selects profiles, of which there must be some.
///
/// # Errors
/// [`Error::NoMatch`].
pub(in super::super) async fn select_any(
    engine: &Engine,
    view: &Arc<View>,
    selection: &Selection,
) -> Result<catalog::Selection, Error> {
    let selected = engine.select_in(view, selection).await?;
    if selected.matches.is_empty() {
        Err(no_match(engine, view, selection, &selected.problems).await)
    } else {
        Ok(selected)
    }
}

/// Says that nothing matches, and where the nearest profile lies that would in another window.
async fn no_match(engine: &Engine, view: &Arc<View>, selection: &Selection, problems: &[Problem]) -> Error {
    let nearest = nearest(engine, view, selection).await.unwrap_or(Nearest::Unknown);
    Error::NoMatch { selection: selection.to_string(), nearest, unread: Unread::of(problems) }
}

/// Looks for the nearest profile that would match in another window; nothing where that takes a place at the gate and none is free.
async fn nearest(engine: &Engine, view: &Arc<View>, selection: &Selection) -> Option<Nearest> {
    let (view, query, window) = (Arc::clone(view), selection.within(Window::ALL).query(), selection.window);
    let is_let_in = !engine.2.is_small() || view.at_most(&query, SMALL_LISTED).await < SMALL_LISTED;
    let engine = if is_let_in { engine.clone() } else { engine.on_lane(Some(engine.0.gate.try_enter()?)) };
    let look = async move {
        let anywhen = view.select(&query).await;
        let times = anywhen.matches.iter().map(|found| found.row().time_nanos);
        times.min_by_key(|&nanos| window.distance(nanos)).map_or(Nearest::Nowhere, Nearest::At)
    };
    engine.drive(look).await.ok()
}
