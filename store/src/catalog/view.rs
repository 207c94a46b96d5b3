//! What a question sees, and selecting in it.
//!
//! A [`View`] is a list of segments by their names, each with the rows that do not count because an earlier segment has their ids.
//! Selecting goes from coarse to fine: segments and series by what is always known of them, then rows of the few blocks that are
//! left. The selector is asked once for each series, however many segments have it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use afterglow_profile::{Labels, ProfileType, Selector};
use futures::StreamExt;
use ulid::Ulid;

use super::Problem;
use super::segment::{Blocks, Entry, Id, OpenBlock, Segment, Series};
use crate::block::{Block, Row, SampleType};
use crate::paths::SegmentName;

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

/// The profiles of a tenant as of a listing. It never changes.
pub struct View {
    listed: Vec<Listed>,
    problems: Vec<Problem>,
    blocks: Arc<Blocks>,
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
    pub(super) fn new(listed: Vec<Listed>, problems: Vec<Problem>, blocks: Arc<Blocks>) -> Self {
        Self { listed, problems, blocks }
    }

    /// Returns what could not be read, so that answers may lack what it holds.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Returns how many segments there are.
    pub fn segments(&self) -> usize {
        self.listed.len()
    }

    /// Returns the names of the segments, in their order.
    pub fn names(&self) -> impl Iterator<Item = &SegmentName> {
        self.listed.iter().map(|listed| &listed.segment.name)
    }

    /// Returns how many profiles there are, each id once.
    pub fn profiles(&self) -> u64 {
        let count =
            |listed: &Listed| listed.segment.ids.len() - listed.hidden.as_ref().map_or(0, |hidden| hidden.len());
        self.listed.iter().map(|listed| count(listed) as u64).sum()
    }

    /// Selects profiles. Makes no request where their blocks are in the cache, else one GET for each that is not.
    pub async fn select(&self, query: &Query) -> Selection {
        let mut selection = Selection { matches: Vec::new(), problems: self.problems.clone() };
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
        let open = async |(listed, entries): (&Listed, Vec<bool>)| {
            let open = self.blocks.get(&listed.segment.location).await?;
            Ok::<_, Problem>((listed.rows(&open, &entries, query), open))
        };
        let mut opened = futures::stream::iter(chosen.into_iter().map(open)).buffered(OPENS_MAX);
        while let Some(found) = opened.next().await {
            match found {
                Ok((rows, open)) => {
                    selection.matches.extend(rows.into_iter().map(|row| Match { open: Arc::clone(&open), row }));
                }
                Err(problem) => selection.problems.push(problem),
            }
        }
        selection
    }

    /// Says which series there are and how many profiles each has: what services, types, labels and their values follow from.
    ///
    /// Makes no request but for blocks that the window cuts through and that are not in the cache.
    pub async fn series(&self, query: &Query) -> Summary {
        let mut problems = self.problems.clone();
        let mut matcher = Matcher::new(query);
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
                cut.push((number, entries));
            }
        }
        // Only the rows say which of these profiles count.
        let open = async |(number, entries): (usize, Vec<bool>)| {
            let listed = &self.listed[number];
            (listed, entries, self.blocks.get(&listed.segment.location).await)
        };
        let mut opened = futures::stream::iter(cut.into_iter().map(open)).buffered(OPENS_MAX);
        while let Some((listed, entries, open)) = opened.next().await {
            match open {
                Ok(open) => {
                    let entry = |id: &Id| &listed.segment.entries[id.entry as usize];
                    listed.ids(&open, &entries, query).for_each(|id| count(entry(id), 1));
                }
                Err(problem) => problems.push(problem),
            }
        }
        Summary { series: counts.into_values().collect(), problems }
    }

    /// Returns the profile with this id.
    ///
    /// Makes no request where its block is in the cache, else one GET.
    ///
    /// # Errors
    /// The [`Problem`] with its block.
    pub async fn get(&self, id: Ulid) -> Result<Option<Match>, Problem> {
        // Segments are in the order in which they win, and within one the first row does.
        let found = self.listed.iter().find_map(|listed| Some((listed, listed.segment.find(id.into())?.row)));
        let Some((listed, row)) = found else { return Ok(None) };
        let open = self.blocks.get(&listed.segment.location).await?;
        Ok(Some(Match { open, row }))
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("segments", &self.listed.len())
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
            && *self.known.entry(address(&entry.series)).or_insert_with(|| {
                let Series { labels, profile_type } = &*entry.series;
                query.profile_type.as_ref().is_none_or(|wanted| wanted == profile_type)
                    && query.selector.matches(labels, profile_type)
            })
    }
}

// === impl Listed ===

impl Listed {
    fn is_hidden(&self, row: u32) -> bool {
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

    /// Returns what its totals count.
    pub fn sample_types(&self) -> &[SampleType] {
        &self.dataset().sample_types()[self.row().sample_types as usize]
    }
}
