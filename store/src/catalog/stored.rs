//! What a view holds, counted: blocks by level, profiles by service and type.
//!
//! Every block is opened for it, so that each id counts once and times are those of profiles that count; several at once, and one after the
//! other dropped from memory but for what the cache keeps. Nothing is kept of a block but sums, and the distinct labels.

use std::collections::{BTreeMap, HashSet};

use afterglow_profile::{Labels, ProfileType};
use futures::StreamExt;

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

/// What is gathered of a service and a type.
#[derive(Debug)]
struct Gathered {
    profiles: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    series: HashSet<Labels>,
    first_nanos: i64,
    last_nanos: i64,
}

/// What is gathered of all.
#[derive(Debug, Default)]
struct Gathering {
    levels: BTreeMap<u8, Level>,
    holdings: BTreeMap<(String, ProfileType), Gathered>,
}

impl View {
    /// Counts what is stored. Makes a GET or two for each block that is not in the cache.
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
        let mut opened = self.open_all(blocks.chain(segments));
        while let Some((name, location, listed, open)) = opened.next().await {
            let of = name.level();
            let profiles = match open {
                Ok(open) => gathering.add(&open, &location, listed),
                Err(error) => {
                    problems.push(note(error, name, &location, gone));
                    0
                }
            };
            let level = gathering.levels.entry(of).or_default();
            level.blocks += 1;
            level.bytes += location.bytes;
            level.profiles += profiles;
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

// === impl Gathering ===

impl Gathering {
    /// Adds the profiles of a block that count, and returns how many those are.
    fn add(&mut self, open: &OpenBlock, location: &Location, listed: Option<&Listed>) -> u64 {
        let counts = |number: usize| listed.is_none_or(|listed| !listed.is_hidden(number as u32));
        let counted = || open.rows().iter().enumerate().filter(|(number, _)| counts(*number)).map(|(_, row)| row);
        let raw_bytes: u64 = counted().map(|row| row.raw_bytes).sum();
        let mut rows = counted().peekable();
        let mut profiles = 0;
        while let Some(number) = rows.peek().map(|row: &&Row| row.dataset) {
            let dataset = &open.block().toc().datasets()[number as usize];
            let key = (dataset.service().to_owned(), dataset.profile_type().clone());
            let gathered = self.holdings.entry(key).or_insert_with(Gathered::new);
            let before = gathered.raw_bytes;
            let mut last_series = None;
            // Rows of a dataset stand together.
            while let Some(row) = rows.next_if(|row| row.dataset == number) {
                profiles += 1;
                gathered.profiles += 1;
                gathered.raw_bytes += row.raw_bytes;
                gathered.first_nanos = gathered.first_nanos.min(row.time_nanos);
                gathered.last_nanos = gathered.last_nanos.max(row.time_nanos);
                if last_series.replace(row.series) != Some(row.series) {
                    gathered.series.insert(dataset.series()[row.series as usize].clone());
                }
            }
            let share = u128::from(location.bytes) * u128::from(gathered.raw_bytes - before);
            gathered.stored_bytes += (share / u128::from(raw_bytes.max(1))) as u64;
        }
        profiles
    }
}

impl Gathered {
    fn new() -> Self {
        Self {
            profiles: 0,
            raw_bytes: 0,
            stored_bytes: 0,
            series: HashSet::new(),
            first_nanos: i64::MAX,
            last_nanos: i64::MIN,
        }
    }
}
