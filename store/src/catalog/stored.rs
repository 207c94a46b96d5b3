//! What a view holds, counted: blocks by level, profiles by service and type.
//!
//! Blocks are opened for it, so that each id counts once and times are those of profiles that count; several at once, and one after the
//! other dropped from memory but for what the cache keeps. What a block adds never changes as long as all of its profiles count, so its sums
//! are kept ([`Counted`]), and the block is opened for them once. A segment of which some profiles do not count is counted each time.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use afterglow_profile::{Labels, ProfileType};
use futures::StreamExt;
use object_store::path::Path;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rustc_hash::FxBuildHasher;

use super::Problem;
use super::segment::{Location, OpenBlock};
use super::view::{Listed, View, note};
use crate::block::Row;
use crate::paths::BlockRef;

/// What is stored of a tenant.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The number of the last commit; 0 where there is none.
    pub commit: u64,
    /// The blocks by their level.
    pub levels: BTreeMap<u8, Level>,
    /// The profiles by service and type, in the order of their names.
    pub holdings: Vec<Holding>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// The blocks of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// How many there are.
    pub blocks: u64,
    /// Their length in bytes, together.
    pub bytes: u64,
    /// How many profiles count in those that can be read.
    pub profiles: u64,
}

/// The profiles of a service and a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The service.
    pub service: String,
    /// The type.
    pub profile_type: ProfileType,
    /// How many there are, each id once.
    pub profiles: u64,
    /// The length of their protobufs in bytes.
    pub raw_bytes: u64,
    /// The share of their blocks' length that falls to them, by the length of their protobufs, in bytes.
    pub stored_bytes: u64,
    /// How many distinct sets of labels they have.
    pub series: u64,
    /// The time of the first and of the last, in nanoseconds since 1970.
    pub first_nanos: i64,
    /// See `first_nanos`.
    pub last_nanos: i64,
}

/// The memory that the sums of blocks take at most, in bytes: those of some 30,000 blocks of ten services.
const COUNTED_BYTES_MAX: u64 = 32 << 20;

/// What the sums of a block take by themselves, and those of a service and type, in bytes, about.
const BLOCK_BYTES: usize = 200;
const HOLDING_BYTES: usize = 160;

/// The sums of a service and a type.
#[derive(Clone, Debug)]
struct Gathered {
    profiles: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    /// The hashes of the labels: of so many sets no two are likely to have the same before there are billions.
    series: HashSet<u64, FxBuildHasher>,
    first_nanos: i64,
    last_nanos: i64,
}

/// What a block adds.
#[derive(Debug, Default)]
pub(super) struct Counted {
    profiles: u64,
    holdings: BTreeMap<(String, ProfileType), Gathered>,
}

/// What blocks add of which all profiles count, by their paths.
pub(super) type CountedBlocks = Cache<Path, Arc<Counted>, Weight>;

/// Weighs the sums of blocks.
#[derive(Clone)]
pub(super) struct Weight;

impl Weighter<Path, Arc<Counted>> for Weight {
    fn weight(&self, path: &Path, counted: &Arc<Counted>) -> u64 {
        let holding = |((service, _), gathered): (&(String, ProfileType), &Gathered)| {
            HOLDING_BYTES + service.len() + gathered.series.capacity() * size_of::<u64>()
        };
        (BLOCK_BYTES + path.as_ref().len() + counted.holdings.iter().map(holding).sum::<usize>()) as u64
    }
}

/// Makes an empty cache of the sums of blocks.
pub(super) fn counted_blocks() -> CountedBlocks {
    Cache::with_weighter(COUNTED_BYTES_MAX as usize / (BLOCK_BYTES + HOLDING_BYTES), COUNTED_BYTES_MAX, Weight)
}

/// What is gathered of all.
#[derive(Debug, Default)]
struct Gathering {
    levels: BTreeMap<u8, Level>,
    holdings: BTreeMap<(String, ProfileType), Gathered>,
}

impl View {
    /// Counts what is stored. Makes a GET or two for each block that is not in the cache and was not counted before.
    pub async fn stored(&self) -> Stored {
        let mut gone = Vec::new();
        let stored = self.stored_once(&mut gone).await;
        match self.without(&gone).await {
            Some(view) => view.stored_once(&mut Vec::new()).await,
            None => stored,
        }
    }

    async fn stored_once(&self, gone: &mut Vec<BlockRef>) -> Stored {
        let mut problems = self.problems().to_vec();
        let mut gathering = Gathering::default();
        let blocks = self.state().blocks().map(|live| (BlockRef::Block(live.entry.name), self.place(live), None));
        let segments = self.listed().iter().map(|listed| {
            let segment = &listed.segment;
            (BlockRef::Segment(segment.name.clone()), segment.location.clone(), Some(listed))
        });
        let counted = self.counted();
        let mut unknown = Vec::new();
        for (name, location, listed) in blocks.chain(segments) {
            let is_whole = listed.is_none_or(|listed: &Listed| listed.hidden.is_none());
            match counted.get(&location.path).filter(|_| is_whole) {
                Some(known) => gathering.add(name.level(), location.bytes, &known),
                None => unknown.push((name, location, (listed, is_whole))),
            }
        }
        let mut opened = self.open_all(unknown.into_iter());
        while let Some((name, location, (listed, is_whole), open)) = opened.next().await {
            let of = name.level();
            let added = match open {
                Ok(open) => Arc::new(Counted::of(&open, &location, listed)),
                Err(error) => {
                    problems.push(note(error, name, &location, gone));
                    gathering.add(of, location.bytes, &Counted::default());
                    continue;
                }
            };
            gathering.add(of, location.bytes, &added);
            if is_whole {
                counted.insert(location.path, added);
            }
        }
        let holding = |((service, profile_type), gathered): ((String, ProfileType), Gathered)| Holding {
            service,
            profile_type,
            profiles: gathered.profiles,
            raw_bytes: gathered.raw_bytes,
            stored_bytes: gathered.stored_bytes,
            series: gathered.series.len() as u64,
            first_nanos: gathered.first_nanos,
            last_nanos: gathered.last_nanos,
        };
        Stored {
            commit: self.state().number(),
            levels: gathering.levels,
            holdings: gathering.holdings.into_iter().map(holding).collect(),
            problems,
        }
    }
}

// === impl Counted ===

impl Counted {
    /// Counts the profiles of a block that count.
    fn of(open: &OpenBlock, location: &Location, listed: Option<&Listed>) -> Self {
        let counts = |number: usize| listed.is_none_or(|listed| !listed.is_hidden(number as u32));
        let counted = || open.rows().iter().enumerate().filter(|(number, _)| counts(*number)).map(|(_, row)| row);
        let raw_bytes: u64 = counted().map(|row| row.raw_bytes).sum();
        let mut rows = counted().peekable();
        let mut this = Self::default();
        while let Some(number) = rows.peek().map(|row: &&Row| row.dataset) {
            let dataset = &open.block().toc().datasets()[number as usize];
            let key = (dataset.service().to_owned(), dataset.profile_type().clone());
            let gathered = this.holdings.entry(key).or_insert_with(Gathered::new);
            let before = gathered.raw_bytes;
            let mut last_series = None;
            // Rows of a dataset stand together.
            while let Some(row) = rows.next_if(|row| row.dataset == number) {
                this.profiles += 1;
                gathered.profiles += 1;
                gathered.raw_bytes += row.raw_bytes;
                gathered.first_nanos = gathered.first_nanos.min(row.time_nanos);
                gathered.last_nanos = gathered.last_nanos.max(row.time_nanos);
                if last_series.replace(row.series) != Some(row.series) {
                    gathered.series.insert(hash(&dataset.series()[row.series as usize]));
                }
            }
            let share = u128::from(location.bytes) * u128::from(gathered.raw_bytes - before);
            gathered.stored_bytes += (share / u128::from(raw_bytes.max(1))) as u64;
        }
        this.holdings.values_mut().for_each(|gathered| gathered.series.shrink_to_fit());
        this
    }
}

/// Returns a hash of labels, which is the same for equal ones as long as the process lives.
fn hash(labels: &Labels) -> u64 {
    let mut text = Vec::new();
    for part in labels.iter().flat_map(|(name, value)| [name, value]) {
        text.extend_from_slice(part.as_bytes());
        // No name or value has a zero in it.
        text.push(0);
    }
    xxhash_rust::xxh3::xxh3_64(&text)
}

// === impl Gathering ===

impl Gathering {
    /// Adds a block of a level and a length, and what it adds.
    fn add(&mut self, level: u8, bytes: u64, counted: &Counted) {
        let level = self.levels.entry(level).or_default();
        level.blocks += 1;
        level.bytes += bytes;
        level.profiles += counted.profiles;
        for (key, of) in &counted.holdings {
            let Some(gathered) = self.holdings.get_mut(key) else {
                self.holdings.insert(key.clone(), of.clone());
                continue;
            };
            gathered.profiles += of.profiles;
            gathered.raw_bytes += of.raw_bytes;
            gathered.stored_bytes += of.stored_bytes;
            gathered.series.extend(&of.series);
            gathered.first_nanos = gathered.first_nanos.min(of.first_nanos);
            gathered.last_nanos = gathered.last_nanos.max(of.last_nanos);
        }
    }
}

impl Gathered {
    fn new() -> Self {
        Self {
            profiles: 0,
            raw_bytes: 0,
            stored_bytes: 0,
            series: HashSet::default(),
            first_nanos: i64::MAX,
            last_nanos: i64::MIN,
        }
    }
}
