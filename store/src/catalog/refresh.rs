//! A tenant's state, and how it is brought up to date.
//!
//! One refresh is under way at a time: list, then replay commits, open what is new, publish a view of both in one step. In this order
//! nothing is missed: what a commit removed after the listing is in the blocks that it added. Whoever comes meanwhile waits for it and then looks
//! whether its view is fresh enough, so any number of readers cost one LIST, or two where some came after it had begun. A refresh
//! runs in the future of a reader. If that is dropped, the next one in line starts anew; what was opened by then is kept.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use object_store::path::Path;
use tokio::time::Instant;

use super::cover::{Comparison, Cover};
use super::dedupe::{Doubles, Index, Slot};
use super::listing::{self, Found, Lister, Scope};
use super::segment::{Blocks, Interner, Location, OpenBlock, Segment, Unopened};
use super::view::{Listed, View};
use super::{Error, Freshness, Options, Problem};
use crate::commit::{self, Commits};
use crate::paths::{SegmentName, TenantId};

/// How soon a block that could not be read is tried again; doubled for each failure before.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How long at most until then.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// How often a refresh begins anew because what it listed was deleted before it was opened. Each time means that what a compaction
/// removed was collected within one refresh, which a grace is there to prevent.
const RESTARTS_MAX: usize = 3;
/// The most problems that a view names.
const PROBLEMS_MAX: usize = 100;

/// All that is known of a tenant.
pub(super) struct Tenant {
    id: TenantId,
    options: Options,
    blocks: Arc<Blocks>,
    commits: Commits,
    /// How many listings have begun.
    begun: AtomicU64,
    /// Held by who refreshes.
    lister: tokio::sync::Mutex<Lister>,
    /// Held for moments, never while waiting.
    state: Mutex<State>,
}

struct State {
    segments: BTreeMap<SegmentName, Slot>,
    index: Index,
    cover: Cover,
    interner: Interner,
    /// The newest name that a listing showed, removed or not.
    newest: Option<SegmentName>,
    /// Segments that could not be read.
    troubled: BTreeMap<SegmentName, Troubled>,
    /// What lies among the segments and is none.
    strangers: Vec<Path>,
    /// Something changed since the view was made.
    is_changed: bool,
    view: Arc<View>,
    /// The listing that the view rests on; none before the first.
    listed: Option<Listing>,
}

/// What a listing brings to be opened.
struct Changes {
    /// Segments that were not known.
    new: Vec<(SegmentName, Location)>,
    /// Segments that could not be read and are to be tried again.
    due: Vec<(SegmentName, Location)>,
}

/// One listing.
#[derive(Clone, Copy)]
struct Listing {
    /// Its number, counted from 1. Numbers tell what began before what also where time stands still, as in a simulation.
    number: u64,
    began: Instant,
}

/// When a reader came.
#[derive(Clone, Copy)]
struct Asked {
    /// How many listings had begun by then.
    begun: u64,
    at: Instant,
}

struct Troubled {
    location: Location,
    problem: Problem,
    failures: u32,
    retry_at: Instant,
}

impl Tenant {
    pub(super) fn new(id: TenantId, blocks: Arc<Blocks>, options: Options) -> Self {
        let state = State {
            segments: BTreeMap::new(),
            index: Index::new(blocks.store.random().next_u64()),
            cover: Cover::default(),
            newest: None,
            interner: Interner::default(),
            troubled: BTreeMap::new(),
            strangers: Vec::new(),
            is_changed: true,
            view: Arc::new(View::new(
                Vec::new(),
                Vec::new(),
                BTreeMap::new(),
                Arc::clone(&blocks),
                Arc::default(),
                id.clone(),
                Weak::new(),
            )),
            listed: None,
        };
        Self {
            commits: Commits::new(blocks.store.clone(), id.clone()),
            id,
            begun: AtomicU64::new(0),
            lister: tokio::sync::Mutex::new(Lister::new(&options)),
            options,
            blocks,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn commits(&self) -> &Commits {
        &self.commits
    }

    /// Returns a view that is as fresh as asked.
    pub(super) async fn view(self: &Arc<Self>, freshness: &Freshness) -> Result<Arc<View>, Error> {
        let asked = Asked { begun: self.begun.load(Ordering::SeqCst), at: Instant::now() };
        if let Some(view) = self.fresh(freshness, asked) {
            return Ok(view);
        }
        let mut lister = self.lister.lock().await;
        // Whom we waited for may have listed for us as well.
        if let Some(view) = self.fresh(freshness, asked) {
            return Ok(view);
        }
        let token = match freshness {
            Freshness::AtLeast(name) => Some(name),
            Freshness::AtMostOld | Freshness::Now => None,
        };
        self.refresh(&mut lister, token).await
    }

    fn fresh(&self, freshness: &Freshness, asked: Asked) -> Option<Arc<View>> {
        let state = self.state();
        let listed = state.listed?;
        let is_fresh = listed.number > asked.begun
            || match freshness {
                Freshness::AtMostOld => asked.at - listed.began <= self.options.list_age_max,
                // What was taken in since the view was made does not count: the view does not have it.
                Freshness::AtLeast(name) => state.view.holds(name) || state.troubled.contains_key(name),
                Freshness::Now => false,
            };
        is_fresh.then(|| Arc::clone(&state.view))
    }

    async fn refresh(self: &Arc<Self>, lister: &mut Lister, token: Option<&SegmentName>) -> Result<Arc<View>, Error> {
        for _ in 0..RESTARTS_MAX {
            if let Some(view) = self.refresh_once(lister, token, false).await? {
                return Ok(view);
            }
        }
        Ok(self.refresh_once(lister, token, true).await?.expect("the last one takes what it finds"))
    }

    /// Lists, replays commits, opens what is new and publishes a view. Where something that was listed is gone when it is opened, its
    /// profiles are in a block by now, of which these commits do not know yet: then there is no view, unless this is the `last` time, which
    /// names what is missing.
    async fn refresh_once(
        self: &Arc<Self>,
        lister: &mut Lister,
        token: Option<&SegmentName>,
        last: bool,
    ) -> Result<Option<Arc<View>>, Error> {
        let store = &self.blocks.store;
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let (began, began_millis) = (Instant::now(), store.clock().unix_millis());
        let (scope, newest) = {
            let state = self.state();
            (lister.plan(began, state.segments.len(), state.newest.as_ref(), token), state.newest.clone())
        };
        let metrics = store.metrics();
        let lists = if scope == Scope::All { &metrics.lists_full } else { &metrics.lists_incremental };
        lists.inc();
        let found = listing::list(&*store.objects(), &self.id, scope).await;
        let found = found.map_err(|source| Error::List { tenant: self.id.clone(), source: Arc::new(source) })?;
        let keys = found.segments.len() + found.strangers.len();
        let newest_found = found.segments.last().map(|(name, _)| name.clone());
        let commits = self.commits.refresh().await;
        let commits = commits.map_err(|source| Error::Commits { tenant: self.id.clone(), source })?;
        let Changes { new, due } = self.compare(scope, found, &commits, began);
        let segments = self.state().segments.len() + new.len();
        if segments > self.options.segments_max {
            return Err(Error::TooManySegments { tenant: self.id.clone(), segments, max: self.options.segments_max });
        }
        if scope == Scope::All {
            lister.learn(newest.as_ref(), new.iter().map(|(name, _)| name));
        }
        let gone = self.open(new.into_iter().chain(due)).await;
        // Only now: what a refresh listed and was dropped before it had opened must be listed again.
        lister.done(scope, began, began_millis, keys);
        if !gone.is_empty() {
            lister.is_stale();
            if !last {
                return Ok(None);
            }
            for (name, location) in gone {
                let problem = Unopened::Gone.problem(&location);
                self.trouble(name, location, problem);
            }
        }
        self.cover(&commits).await;
        Ok(Some(self.publish(Listing { number, began }, newest_found, commits)))
    }

    /// Forgets what is no longer listed or was removed, and returns what is to be opened: never what was removed, listed or not.
    fn compare(&self, scope: Scope, found: Found, commits: &commit::State, now: Instant) -> Changes {
        let mut state = self.state();
        if commits.number() != state.view.state().number() {
            let removed = state.segments.keys().filter(|name| commits.is_removed(name)).cloned().collect();
            self.forget(&mut state, removed);
            let troubled = state.troubled.len();
            state.troubled.retain(|name, _| !commits.is_removed(name));
            state.is_changed |= state.troubled.len() != troubled;
        }
        if scope == Scope::All {
            let is_listed =
                |name: &SegmentName| found.segments.binary_search_by(|(listed, _)| listed.cmp(name)).is_ok();
            let gone = state.segments.keys().filter(|name| !is_listed(name)).cloned().collect();
            self.forget(&mut state, gone);
            let troubled = state.troubled.len();
            state.troubled.retain(|name, _| is_listed(name));
            state.is_changed |= state.troubled.len() != troubled || state.strangers != found.strangers;
            state.strangers = found.strangers;
        }
        let is_known = |name: &SegmentName| state.segments.contains_key(name) || state.troubled.contains_key(name);
        let new = found.segments.into_iter().filter(|(name, _)| !is_known(name) && !commits.is_removed(name));
        let due = state.troubled.iter().filter(|(_, troubled)| troubled.retry_at <= now);
        let due = due.map(|(name, troubled)| (name.clone(), troubled.location.clone()));
        Changes { new: new.collect(), due: due.collect() }
    }

    fn forget(&self, state: &mut State, segments: Vec<SegmentName>) {
        for name in segments {
            let slot = state.segments.remove(&name).expect("the name was found there");
            state.index.remove(slot);
            state.cover.remove(&name);
            self.blocks.store.metrics().segments.dec();
            state.is_changed = true;
        }
    }

    /// Finds out which profiles of segments compacted blocks have too. Opens the blocks whose ids may be those of a segment.
    async fn cover(&self, commits: &commit::State) {
        let (before, plan) = {
            let mut state = self.state();
            let before = state.cover.uncompared();
            let is_uncovered = state.cover.retain(commits);
            state.is_changed |= is_uncovered;
            let State { segments, index, cover, .. } = &mut *state;
            let segments = segments.values().map(|slot| index.slots.get(*slot));
            (before, cover.plan(commits, segments, Instant::now()))
        };
        let open = async |comparison: Comparison| {
            let location = Location::of(&self.id, &comparison.entry);
            let opened = self.blocks.get(&location).await.map_err(|error| error.problem(&location));
            (comparison, opened)
        };
        let mut opening = futures::stream::iter(plan.into_iter().map(open)).buffer_unordered(self.options.opens_max);
        while let Some((Comparison { entry, segments }, opened)) = opening.next().await {
            let mut state = self.state();
            match opened {
                Ok(open) => {
                    let metrics = self.blocks.store.metrics();
                    for segment in segments {
                        let (duplicates, conflicts) = state.cover.compare(entry.name, &open, &segment);
                        state.is_changed |= duplicates > 0;
                        metrics.duplicates.inc_by(duplicates);
                        metrics.conflicts.inc_by(conflicts);
                    }
                }
                // Whoever asks for what it holds is told.
                Err(problem) => state.cover.unread(entry.name, problem, Instant::now()),
            }
        }
        let mut state = self.state();
        state.cover.done(commits);
        state.is_changed |= !state.cover.uncompared().keys().eq(before.keys());
    }

    /// Opens segments, many at once, and takes each in as soon as it is read. Returns those that were not there any more: deleted since
    /// they were listed.
    async fn open(&self, segments: impl Iterator<Item = (SegmentName, Location)>) -> Vec<(SegmentName, Location)> {
        let mut gone = Vec::new();
        let open = async |(name, location): (SegmentName, Location)| {
            let opened = self.blocks.open(&location).await;
            (name, location, opened)
        };
        let mut opening = futures::stream::iter(segments.map(open)).buffer_unordered(self.options.opens_max);
        while let Some((name, location, opened)) = opening.next().await {
            match opened {
                Ok(block) => self.take_in(name, location, &block),
                Err(Unopened::Gone) => {
                    let mut state = self.state();
                    state.is_changed |= state.troubled.remove(&name).is_some();
                    drop(state);
                    gone.push((name, location));
                }
                Err(Unopened::Unreadable(problem)) => self.trouble(name, location, problem),
            }
        }
        gone
    }

    fn take_in(&self, name: SegmentName, location: Location, block: &OpenBlock) {
        let mut state = self.state();
        let segment = Segment::new(name.clone(), location, block, &mut state.interner);
        let (slot, Doubles { duplicates, conflicts }) = state.index.insert(Arc::new(segment));
        state.troubled.remove(&name);
        state.cover.insert(name.clone());
        state.segments.insert(name, slot);
        state.is_changed = true;
        let metrics = self.blocks.store.metrics();
        metrics.segments.inc();
        metrics.duplicates.inc_by(duplicates);
        metrics.conflicts.inc_by(conflicts);
    }

    fn trouble(&self, name: SegmentName, location: Location, problem: Problem) {
        let mut state = self.state();
        let failures = state.troubled.get(&name).map_or(0, |troubled| troubled.failures);
        if failures == 0 {
            self.blocks.store.metrics().blocks_damaged.inc();
        }
        let retry_at = Instant::now() + retry_pause(failures);
        state.troubled.insert(name, Troubled { location, problem, failures: failures + 1, retry_at });
        state.is_changed = true;
    }

    /// Makes the view of what is held now, as of this listing and these commits.
    fn publish(
        self: &Arc<Self>,
        listed: Listing,
        newest: Option<SegmentName>,
        commits: Arc<commit::State>,
    ) -> Arc<View> {
        let mut state = self.state();
        state.newest = state.newest.take().max(newest);
        let before = state.view.state();
        if state.is_changed || commits.number() != before.number() {
            let blocks = commits.len() as i64 - before.len() as i64;
            self.blocks.store.metrics().live_blocks.inc_by(blocks);
            let segments = state.segments.iter().map(|(name, slot)| Listed {
                segment: Arc::clone(state.index.slots.get(*slot)),
                hidden: state.cover.hidden(name, state.index.hidden(*slot)),
            });
            let segments = segments.collect();
            let (blocks, origin) = (Arc::clone(&self.blocks), Arc::downgrade(self));
            let uncompared = state.cover.uncompared();
            let view = View::new(segments, state.problems(), uncompared, blocks, commits, self.id.clone(), origin);
            state.view = Arc::new(view);
            state.is_changed = false;
        }
        state.listed = Some(listed);
        Arc::clone(&state.view)
    }
}

/// Returns how long to wait after so many failures before and one more.
pub(super) fn retry_pause(failures: u32) -> Duration {
    RETRY_PAUSE.saturating_mul(2u32.saturating_pow(failures)).min(RETRY_PAUSE_MAX)
}

impl State {
    /// Returns the problems, not all where they are many.
    fn problems(&self) -> Vec<Problem> {
        let stranger = |key: &Path| Problem { key: key.clone(), text: "does not name a segment".to_owned() };
        let all =
            self.troubled.values().map(|troubled| troubled.problem.clone()).chain(self.strangers.iter().map(stranger));
        let mut problems: Vec<Problem> = all.take(PROBLEMS_MAX).collect();
        let more = (self.troubled.len() + self.strangers.len()).saturating_sub(PROBLEMS_MAX);
        if more > 0 {
            let text = format!("and {more} more objects cannot be read");
            problems.push(Problem { key: Path::ROOT, text });
        }
        problems
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        let state = self.state();
        let metrics = self.blocks.store.metrics();
        metrics.segments.dec_by(state.segments.len() as i64);
        metrics.live_blocks.dec_by(state.view.state().len() as i64);
    }
}
