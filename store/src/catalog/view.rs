//! What a question sees, and selecting in it.
//!
//! A [`View`] is the state after a commit, whose blocks are opened when they are asked for, and a list of segments by their names, each
//! with the rows that do not count because a block or an earlier segment has their ids. Selecting goes from coarse to fine: blocks by
//! time, segments and series by what is always known of them, then rows of the few that are left. The selector is asked once for
//! each series of the segments, however many have it.
//!
//! What a view names may be collected while the view is used. Then the question is asked once more, of a view that is new.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Weak};

use afterglow_profile::{Labels, ProfileType, Selector};
use futures::StreamExt;
use ulid::Ulid;

use super::refresh::Tenant;
use super::segment::{Blocks, Entry, Id, Location, OpenBlock, Run, Segment, Series, Unopened};
use super::stored::CountedBlocks;
use super::{Freshness, Problem};
use crate::block::{Block, Row, SampleType};
use crate::commit::{Live, State};
use crate::paths::{BlockName, BlockRef, Day, SegmentName, TenantId};

/// How many blocks are opened again at once for one question.
const OPENS_MAX: usize = 16;
/// After so many segments a selection lets others run: each takes about a microsecond.
const SEGMENTS_BETWEEN_YIELDS: usize = 512;

/// Which profiles a question is about.
#[derive(Clone, Debug)]
pub struct Query {
    /// By labels.
    pub selector: Selector,
    /// By type; none means any.
    pub profile_type: Option<ProfileType>,
    /// The first time that belongs to the window, in nanoseconds since 1970.
    pub start_nanos: i64,
    /// The first time that does not.
    pub end_nanos: i64,
}

/// The profiles of a tenant as of a listing and the commits after it. It never changes.
pub struct View {
    /// By name.
    listed: Vec<Listed>,
    problems: Vec<Problem>,
    /// Live blocks of which it is not known what they share with segments: they could not be read when the view was made.
    uncompared: BTreeMap<BlockName, Problem>,
    blocks: Arc<Blocks>,
    state: Arc<State>,
    tenant: TenantId,
    /// Where a newer view comes from.
    origin: Weak<Tenant>,
}

/// What is known of a segment without opening it again.
#[derive(Clone, Copy, Debug)]
pub struct SegmentInfo<'a> {
    /// Its name.
    pub name: &'a SegmentName,
    /// The length of the object.
    pub bytes: u64,
    /// How many profiles it holds, those that do not count included.
    pub rows: u64,
    /// The time of the first and of the last profile, in nanoseconds since 1970; the first after the last where there is none.
    pub first_nanos: i64,
    /// See `first_nanos`.
    pub last_nanos: i64,
}

/// A segment in a view.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) segment: Arc<Segment>,
    /// The rows that do not count, sorted.
    pub(super) hidden: Option<Arc<[u32]>>,
}

/// A profile that was selected.
#[derive(Clone, Debug)]
pub struct Match {
    open: Arc<OpenBlock>,
    row: u32,
}

/// What was selected.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The profiles, each id once, in the order of their segments and rows.
    pub matches: Vec<Match>,
    /// What could not be read, so that profiles may be missing: the view's problems and those met now.
    pub problems: Vec<Problem>,
}

/// How many profiles a series has in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesCount {
    /// The series.
    pub series: Arc<Series>,
    /// What the values of its samples are.
    pub sample_types: Arc<[SampleType]>,
    /// How many profiles there are, each id once.
    pub profiles: u64,
}

/// The series that were selected.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Each series, once for each list of sample types that it has, in no order.
    pub series: Vec<SeriesCount>,
    /// As in [`Selection`].
    pub problems: Vec<Problem>,
}

impl View {
    pub(super) fn new(
        listed: Vec<Listed>,
        problems: Vec<Problem>,
        uncompared: BTreeMap<BlockName, Problem>,
        blocks: Arc<Blocks>,
        state: Arc<State>,
        tenant: TenantId,
        origin: Weak<Tenant>,
    ) -> Self {
        Self { listed, problems, uncompared, blocks, state, tenant, origin }
    }

    /// Returns what could not be read, so that answers may lack what it holds.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Returns the segments, by their names: those that can be read and that no commit removed.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = SegmentInfo<'_>> {
        self.listed.iter().map(|Listed { segment, .. }| SegmentInfo {
            name: &segment.name,
            bytes: segment.location.bytes,
            rows: segment.ids.len() as u64,
            first_nanos: segment.first_nanos,
            last_nanos: segment.last_nanos,
        })
    }

    /// Returns the segments with what does not count of them.
    pub(super) fn listed(&self) -> &[Listed] {
        &self.listed
    }

    /// Returns the names of the segments, in their order.
    pub fn names(&self) -> impl Iterator<Item = &SegmentName> {
        self.listed.iter().map(|listed| &listed.segment.name)
    }

    /// Returns the state whose compacted blocks are in it.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Returns how many profiles there are, each id once.
    pub fn profiles(&self) -> u64 {
        let count =
            |listed: &Listed| listed.segment.ids.len() - listed.hidden.as_ref().map_or(0, |hidden| hidden.len());
        let segments: u64 = self.listed.iter().map(|listed| count(listed) as u64).sum();
        segments + self.state.blocks().map(|live| live.entry.rows).sum::<u64>()
    }

    /// Whether it has what this segment has: the segment itself, or the block that took its place.
    pub(super) fn holds(&self, segment: &SegmentName) -> bool {
        self.has_segment(segment) || self.state.is_removed(segment)
    }

    fn has_segment(&self, segment: &SegmentName) -> bool {
        self.listed.binary_search_by(|listed| listed.segment.name.cmp(segment)).is_ok()
    }

    /// Returns how many profiles a query selects at most, or so many that it is `enough` to know: a bound that is known without a request and
    /// without looking at a profile. It is about what [`View::select`] selects where what that looks at is in memory; of a block that is
    /// not opened, which is work by itself, all profiles count.
    pub async fn at_most(&self, query: &Query, enough: u64) -> u64 {
        let mut profiles = 0;
        for live in self.live(query) {
            profiles += match self.blocks.opened(&self.place(live)) {
                Some(open) => query.at_most(&open, enough - profiles),
                None => live.entry.rows,
            };
            if profiles >= enough {
                return enough;
            }
        }
        let mut matcher = Matcher::new(query);
        for (number, listed) in self.listed.iter().enumerate() {
            if number % SEGMENTS_BETWEEN_YIELDS == SEGMENTS_BETWEEN_YIELDS - 1 {
                tokio::task::yield_now().await;
            }
            if !query.overlaps(listed.segment.first_nanos, listed.segment.last_nanos) {
                continue;
            }
            let entries = listed.segment.entries.iter().filter(|entry| matcher.entry(entry));
            profiles += entries.map(|entry| u64::from(entry.profiles)).sum::<u64>();
            if profiles >= enough {
                return enough;
            }
        }
        profiles
    }

    /// Selects profiles. Makes no request where their blocks are in the cache, else a GET or two for each that is not.
    pub async fn select(&self, query: &Query) -> Selection {
        let mut gone = Vec::new();
        let selection = self.select_once(query, &mut gone).await;
        match self.without(&gone).await {
            Some(view) => view.select_once(query, &mut Vec::new()).await,
            None => selection,
        }
    }

    async fn select_once(&self, query: &Query, gone: &mut Vec<BlockRef>) -> Selection {
        let mut selection = Selection { matches: Vec::new(), problems: self.problems.clone() };
        let mut opened =
            self.open_all(self.live(query).map(|live| (BlockRef::Block(live.entry.name), self.place(live), ())));
        while let Some((name, location, (), open)) = opened.next().await {
            match open {
                Ok(open) => {
                    let rows = query.rows(&open);
                    selection.matches.extend(rows.into_iter().map(|row| Match { open: Arc::clone(&open), row }));
                }
                Err(error) => selection.problems.push(note(error, name, &location, gone)),
            }
        }
        drop(opened);
        let mut matcher = Matcher::new(query);
        let mut chosen = Vec::new();
        for (number, listed) in self.listed.iter().enumerate() {
            if number % SEGMENTS_BETWEEN_YIELDS == SEGMENTS_BETWEEN_YIELDS - 1 {
                tokio::task::yield_now().await;
            }
            let entries = matcher.entries(&listed.segment);
            if entries.contains(&true) {
                chosen.push((listed, entries));
            }
        }
        let mut opened = self.open_all(chosen.into_iter().map(|(listed, entries)| {
            let segment = &listed.segment;
            (BlockRef::Segment(segment.name.clone()), segment.location.clone(), (listed, entries))
        }));
        while let Some((name, location, (listed, entries), open)) = opened.next().await {
            match open {
                Ok(open) => {
                    let rows = listed.rows(&open, &entries, query);
                    selection.matches.extend(rows.into_iter().map(|row| Match { open: Arc::clone(&open), row }));
                }
                Err(error) => selection.problems.push(note(error, name, &location, gone)),
            }
        }
        selection
    }

    /// Says which series there are and how many profiles each has: what services, types, labels and their values follow from.
    ///
    /// Makes no request but for compacted blocks, and segments that the window cuts through, that are not in the cache.
    pub async fn series(&self, query: &Query) -> Summary {
        let mut gone = Vec::new();
        let summary = self.series_once(query, &mut gone).await;
        match self.without(&gone).await {
            Some(view) => view.series_once(query, &mut Vec::new()).await,
            None => summary,
        }
    }

    async fn series_once(&self, query: &Query, gone: &mut Vec<BlockRef>) -> Summary {
        let mut problems = self.problems.clone();
        let mut matcher = Matcher::new(query);
        // Those of segments are known by where they lie, which is quick; blocks have others that are equal.
        let mut counts: HashMap<(usize, usize), SeriesCount> = HashMap::new();
        let mut count = |entry: &Entry, profiles: u64| {
            if profiles > 0 {
                let key = (address(&entry.series), address(&entry.sample_types));
                let counted = counts.entry(key).or_insert_with(|| SeriesCount {
                    series: Arc::clone(&entry.series),
                    sample_types: Arc::clone(&entry.sample_types),
                    profiles: 0,
                });
                counted.profiles += profiles;
            }
        };
        let mut cut = Vec::new();
        for (number, listed) in self.listed.iter().enumerate() {
            if number % SEGMENTS_BETWEEN_YIELDS == SEGMENTS_BETWEEN_YIELDS - 1 {
                tokio::task::yield_now().await;
            }
            let mut entries = matcher.entries(&listed.segment);
            if listed.hidden.is_none() {
                for (entry, matches) in listed.segment.entries.iter().zip(&mut entries) {
                    if *matches && query.holds_all(entry) {
                        count(entry, u64::from(entry.profiles));
                        *matches = false;
                    }
                }
            }
            if entries.contains(&true) {
                cut.push((listed, entries));
            }
        }
        // Only the rows say which of these profiles count.
        let mut opened = self.open_all(cut.into_iter().map(|(listed, entries)| {
            let segment = &listed.segment;
            (BlockRef::Segment(segment.name.clone()), segment.location.clone(), (listed, entries))
        }));
        while let Some((name, location, (listed, entries), open)) = opened.next().await {
            match open {
                Ok(open) => {
                    let entry = |id: &Id| &listed.segment.entries[id.entry as usize];
                    listed.ids(&open, &entries, query).for_each(|id| count(entry(id), 1));
                }
                Err(error) => problems.push(note(error, name, &location, gone)),
            }
        }
        drop(opened);
        let mut by_value: HashMap<(Arc<Series>, Arc<[SampleType]>), u64> = HashMap::new();
        for SeriesCount { series, sample_types, profiles } in counts.into_values() {
            *by_value.entry((series, sample_types)).or_default() += profiles;
        }
        let mut opened =
            self.open_all(self.live(query).map(|live| (BlockRef::Block(live.entry.name), self.place(live), ())));
        while let Some((name, location, (), open)) = opened.next().await {
            match open {
                Ok(open) => query.count(&open, &mut by_value),
                Err(error) => problems.push(note(error, name, &location, gone)),
            }
        }
        let series = by_value.into_iter().map(|((series, sample_types), profiles)| SeriesCount {
            series,
            sample_types,
            profiles,
        });
        Summary { series: series.collect(), problems }
    }

    /// Returns the profile with this id.
    ///
    /// Makes no request where its block is in the cache, else a GET or two; as many for each compacted block that may have the id, where
    /// no segment has it.
    ///
    /// # Errors
    /// The [`Problem`] with its block.
    pub async fn get(&self, id: Ulid) -> Result<Option<Match>, Problem> {
        let mut gone = Vec::new();
        let found = self.get_once(id, &mut gone).await;
        match self.without(&gone).await {
            Some(view) => view.get_once(id, &mut Vec::new()).await,
            None => found,
        }
    }

    async fn get_once(&self, id: Ulid, gone: &mut Vec<BlockRef>) -> Result<Option<Match>, Problem> {
        // Segments are in the order in which they win, and within one the first row does. If that does not count, a block has it.
        let found = self.listed.iter().find_map(|listed| Some((listed, listed.segment.find(id.into())?.row)));
        if let Some((listed, row)) = found.filter(|(listed, row)| !listed.is_hidden(*row)) {
            let Segment { name, location, .. } = &*listed.segment;
            let open = self.blocks.get(location).await;
            let open = open.map_err(|error| note(error, BlockRef::Segment(name.clone()), location, gone))?;
            return Ok(Some(Match { open, row }));
        }
        let may_hold = self.state.blocks().filter(|live| live.entry.may_hold(id));
        let mut opened = self.open_all(may_hold.map(|live| (BlockRef::Block(live.entry.name), self.place(live), ())));
        let mut unread = None;
        while let Some((name, location, (), open)) = opened.next().await {
            match open {
                Ok(open) => {
                    if let Some(row) = open.find(id.into()) {
                        return Ok(Some(Match { open, row }));
                    }
                }
                Err(error) => unread = Some(note(error, name, &location, gone)),
            }
        }
        unread.map_or(Ok(None), Err)
    }

    /// Returns the live blocks that may have profiles in the window.
    fn live(&self, query: &Query) -> impl Iterator<Item = &Live> {
        let days = Day::of_nanos(query.start_nanos)..=Day::of_nanos(query.end_nanos.saturating_sub(1));
        let overlaps = |live: &&Live| query.overlaps(live.entry.first_nanos, live.entry.last_nanos);
        self.state.blocks_of(days).filter(move |live| !query.is_empty() && overlaps(live))
    }

    /// Returns what is known of blocks that were counted before.
    pub(super) fn counted(&self) -> &CountedBlocks {
        &self.blocks.counted
    }

    pub(super) fn place(&self, live: &Live) -> Location {
        Location::of(&self.tenant, &live.entry)
    }

    /// Opens blocks, several at once, in their order.
    pub(super) fn open_all<'a, T: 'a>(
        &'a self,
        blocks: impl Iterator<Item = (BlockRef, Location, T)> + 'a,
    ) -> impl futures::Stream<Item = (BlockRef, Location, T, Result<Arc<OpenBlock>, Unopened>)> + Unpin + 'a {
        let blocks: Vec<_> = blocks.collect();
        let open = move |(name, location, with): (BlockRef, Location, T)| async move {
            let uncompared = match &name {
                BlockRef::Block(name) => self.uncompared.get(name),
                BlockRef::Segment(_) => None,
            };
            // With one of these, an id that a segment has too would count twice.
            let open = match uncompared {
                Some(problem) => Err(Unopened::Unreadable(problem.clone())),
                None => self.blocks.get(&location).await,
            };
            (name, location, with, open)
        };
        Box::pin(futures::stream::iter(blocks).map(open).buffered(OPENS_MAX))
    }

    /// Returns a view that has not all of these, which are gone from the store; none where there is none.
    pub(super) async fn without(&self, gone: &[BlockRef]) -> Option<Arc<Self>> {
        if gone.is_empty() {
            return None;
        }
        let view = self.origin.upgrade()?.view(&Freshness::Now).await.ok()?;
        let has = |block: &BlockRef| match block {
            BlockRef::Segment(name) => view.has_segment(name),
            BlockRef::Block(name) => view.state.block(name).is_some(),
        };
        (!gone.iter().all(has)).then_some(view)
    }
}

/// Turns what kept a block from being opened into a problem, and notes what is gone.
pub(super) fn note(error: Unopened, name: BlockRef, location: &Location, gone: &mut Vec<BlockRef>) -> Problem {
    if matches!(error, Unopened::Gone) {
        gone.push(name);
    }
    error.problem(location)
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("segments", &self.listed.len())
            .field("commit", &self.state.number())
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

// === impl Query ===

impl Query {
    fn holds(&self, nanos: i64) -> bool {
        (self.start_nanos..self.end_nanos).contains(&nanos)
    }

    /// Whether some time between these may be in the window.
    fn overlaps(&self, first_nanos: i64, last_nanos: i64) -> bool {
        first_nanos < self.end_nanos && last_nanos >= self.start_nanos
    }

    fn holds_all(&self, entry: &Entry) -> bool {
        self.holds(entry.first_nanos) && self.holds(entry.last_nanos)
    }

    fn is_empty(&self) -> bool {
        self.start_nanos >= self.end_nanos
    }

    fn matches(&self, labels: &Labels, profile_type: &ProfileType) -> bool {
        self.profile_type.as_ref().is_none_or(|wanted| wanted == profile_type)
            && self.selector.matches(labels, profile_type)
    }

    /// Finds the rows of a compacted block that are selected, in their order, as parts of runs, until `found` has enough. All of them count.
    fn each_run(&self, open: &OpenBlock, mut found: impl FnMut(&Run, Range<u32>) -> ControlFlow<()>) {
        let (rows, datasets) = (open.rows(), open.block().toc().datasets());
        // By dataset and series, asked once for each.
        let mut known: Vec<Vec<Option<bool>>> =
            datasets.iter().map(|dataset| vec![None; dataset.series().len()]).collect();
        for run in open.runs().iter().filter(|run| self.overlaps(run.first_nanos, run.last_nanos)) {
            let (of, series) = (&datasets[run.dataset as usize], run.series as usize);
            let is_selected = &mut known[run.dataset as usize][series];
            if !*is_selected.get_or_insert_with(|| self.matches(&of.series()[series], of.profile_type())) {
                continue;
            }
            let end = run.first + run.rows;
            let flow = if self.holds(run.first_nanos) && self.holds(run.last_nanos) {
                found(run, run.first..end)
            } else if run.is_sorted {
                let times = &rows[run.first as usize..end as usize];
                let before = |nanos: i64| times.partition_point(|row| row.time_nanos < nanos) as u32;
                found(run, run.first + before(self.start_nanos)..run.first + before(self.end_nanos))
            } else {
                let is_in = |number: &u32| self.holds(rows[*number as usize].time_nanos);
                (run.first..end).filter(is_in).try_for_each(|number| found(run, number..number + 1))
            };
            if flow.is_break() {
                return;
            }
        }
    }

    /// Returns how many rows of a compacted block are selected, or `enough`.
    fn at_most(&self, open: &OpenBlock, enough: u64) -> u64 {
        let mut rows = 0;
        self.each_run(open, |_, part| {
            rows += part.len() as u64;
            if rows < enough { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        rows.min(enough)
    }

    /// Returns the rows of a compacted block that are selected, in their order.
    fn rows(&self, open: &OpenBlock) -> Vec<u32> {
        let mut rows = Vec::new();
        self.each_run(open, |_, part| {
            rows.extend(part);
            ControlFlow::Continue(())
        });
        rows
    }

    /// Counts the rows of a compacted block that are selected.
    fn count(&self, open: &OpenBlock, counts: &mut HashMap<(Arc<Series>, Arc<[SampleType]>), u64>) {
        let datasets = open.block().toc().datasets();
        let mut rows: HashMap<(u32, u32, u32), u64> = HashMap::new();
        self.each_run(open, |run, part| {
            match run.sample_types {
                Some(sample_types) => {
                    *rows.entry((run.dataset, run.series, sample_types)).or_default() += part.len() as u64;
                }
                None => {
                    for number in part {
                        let sample_types = open.rows()[number as usize].sample_types;
                        *rows.entry((run.dataset, run.series, sample_types)).or_default() += 1;
                    }
                }
            }
            ControlFlow::Continue(())
        });
        for ((dataset, series, sample_types), profiles) in rows.into_iter().filter(|(_, profiles)| *profiles > 0) {
            let dataset = &datasets[dataset as usize];
            let labels = dataset.series()[series as usize].clone();
            let series = Arc::new(Series { labels, profile_type: dataset.profile_type().clone() });
            let sample_types = dataset.sample_types()[sample_types as usize].as_slice().into();
            *counts.entry((series, sample_types)).or_default() += profiles;
        }
    }
}

/// Asks the selector once for each series.
struct Matcher<'a> {
    query: &'a Query,
    /// By address: equal series are one while a view holds them.
    known: HashMap<usize, bool>,
}

/// Tells apart what the catalog has made one where it is equal, as long as the view keeps it alive.
fn address<T: ?Sized>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).cast::<()>().addr()
}

impl<'a> Matcher<'a> {
    fn new(query: &'a Query) -> Self {
        Self { query, known: HashMap::new() }
    }

    /// Says for each entry of a segment whether profiles of it may match. Empty where none can.
    fn entries(&mut self, segment: &Segment) -> Vec<bool> {
        if !self.query.overlaps(segment.first_nanos, segment.last_nanos) {
            return Vec::new();
        }
        segment.entries.iter().map(|entry| self.entry(entry)).collect()
    }

    fn entry(&mut self, entry: &Entry) -> bool {
        let query = self.query;
        query.overlaps(entry.first_nanos, entry.last_nanos)
            && *self
                .known
                .entry(address(&entry.series))
                .or_insert_with(|| query.matches(&entry.series.labels, &entry.series.profile_type))
    }
}

// === impl Listed ===

impl Listed {
    pub(super) fn is_hidden(&self, row: u32) -> bool {
        self.hidden.as_ref().is_some_and(|hidden| hidden.binary_search(&row).is_ok())
    }

    /// Returns the rows of these entries that are in the window and count, sorted.
    fn rows(&self, open: &OpenBlock, entries: &[bool], query: &Query) -> Vec<u32> {
        let mut rows: Vec<u32> = self.ids(open, entries, query).map(|id| id.row).collect();
        rows.sort_unstable();
        rows
    }

    /// Returns the ids of the profiles of these entries that are in the window and count.
    fn ids<'a>(&'a self, open: &'a OpenBlock, entries: &'a [bool], query: &'a Query) -> impl Iterator<Item = &'a Id> {
        let is_in = |id: &&Id| {
            entries[id.entry as usize]
                && query.holds(open.rows()[id.row as usize].time_nanos)
                && !self.is_hidden(id.row)
        };
        self.segment.ids.iter().filter(is_in)
    }
}

// === impl Match ===

impl Match {
    /// Returns the block that holds it.
    pub fn block(&self) -> &Arc<Block> {
        self.open.block()
    }

    /// Returns the index of its row in the block.
    pub fn row_index(&self) -> usize {
        self.row as usize
    }

    /// Returns its row.
    pub fn row(&self) -> &Row {
        &self.open.rows()[self.row as usize]
    }

    /// Returns the index of its dataset in the block.
    pub fn dataset_index(&self) -> usize {
        self.row().dataset as usize
    }

    fn dataset(&self) -> &crate::block::Dataset {
        &self.block().toc().datasets()[self.dataset_index()]
    }

    /// Returns its labels.
    pub fn labels(&self) -> &Labels {
        &self.dataset().series()[self.row().series as usize]
    }

    /// Returns its type.
    pub fn profile_type(&self) -> &ProfileType {
        self.dataset().profile_type()
    }

    /// Returns whether it has the very series of the other, in the same dataset of the same block: cheaper to ask than whether labels are
    /// equal, for they are looked at only where this says no.
    pub fn has_series_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.open, &other.open)
            && (self.row().dataset, self.row().series) == (other.row().dataset, other.row().series)
    }

    /// Returns whether it lies in the same dataset of the same block as the other.
    pub fn has_dataset_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.open, &other.open) && self.row().dataset == other.row().dataset
    }

    /// Returns what its totals count.
    pub fn sample_types(&self) -> &[SampleType] {
        &self.dataset().sample_types()[self.row().sample_types as usize]
    }
}
