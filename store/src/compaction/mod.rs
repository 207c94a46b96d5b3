//! Compaction: few large blocks in the place of many small ones, and every answer as before.
//!
//! ```text
//! plan   which blocks to merge next: a pure function of what lies in the bucket
//! run    carries a job out: open, merge, write, read back, commit
//! trial  what segments would become, for whoever only asks
//! known  the ids of live blocks, for profiles that were sent twice
//! ```
//!
//! Invariants. Live blocks have no id in common: what a live block has already stays behind when segments are merged, and a commit
//! that others overtook is looked at again for that. Inputs stay readable until collection deletes them, long after the commit. Nothing is
//! deleted here. What is damaged is noted in the bucket and left alone; the rest goes on.

mod known;
pub mod plan;
mod run;
pub(crate) mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;

use self::known::Known;
pub use self::plan::{Due, Job};
use crate::Store;
use crate::block::{self, MergeOptions};
use crate::commit::{self, Commits};
use crate::paths::{BlockRef, WriterId};

/// How a compactor works.
#[derive(Clone, Debug)]
pub struct Options {
    /// When blocks are merged, and how many at once.
    pub plan: plan::Options,
    /// The most memory in bytes that the tables and the read-ahead of a merge may take. What its opened inputs hold may take as much again.
    pub memory_max: u64,
    /// The bytes that the ids of live blocks may take in memory.
    pub known_bytes_max: u64,
    /// Whose segments are the compactor's own, to be merged before others may; by default those of its store.
    pub writer: Option<WriterId>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plan: plan::Options::default(),
            memory_max: MergeOptions::of_level(1).memory_max,
            known_bytes_max: 32 << 20,
            writer: None,
        }
    }
}

/// Why a round of compaction could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket could not be listed; a retry may help.
    #[error("{key} could not be listed")]
    List {
        /// The folder.
        key: Path,
        /// Why.
        source: object_store::Error,
    },
    /// The commits could not be read, or one could not be made.
    #[error(transparent)]
    Commit(#[from] commit::Error),
    /// A block could not be read, or not be made.
    #[error(transparent)]
    Block(#[from] block::Error),
    /// An object could not be written; a retry may help.
    #[error("{key} could not be written")]
    Write {
        /// The object.
        key: Path,
        /// What went wrong last.
        source: commit::Cause,
    },
    /// This machine and the store differ about what time it is, so nobody knows how old anything is.
    #[error(
        "nothing is deleted by age: the clock of this machine is {} {} that of the storage, more than {}; set it right",
        humantime::format_duration(Duration::from_secs(ahead_millis.unsigned_abs() / 1_000)),
        if *ahead_millis > 0 { "ahead of" } else { "behind" },
        humantime::format_duration(crate::retention::SKEW_MAX)
    )]
    Clocks {
        /// How far the machine's is ahead, in milliseconds; negative where it is behind.
        ahead_millis: i64,
    },
}

impl Error {
    /// Whether this block itself is at fault, so that reading it again will not help.
    pub(crate) fn is_damage_of(&self, path: &Path) -> bool {
        matches!(self, Self::Block(block::Error::Corrupt { block, .. }) if block == path)
    }
}

/// Lists a folder. Costs a request for each thousand keys.
pub(crate) async fn list(store: &Store, folder: Path) -> Result<Vec<ObjectMeta>, Error> {
    let listed = store.objects().list(Some(&folder)).try_collect().await;
    listed.map_err(|source| Error::List { key: folder, source })
}

/// What a round has done and left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// How many jobs were committed.
    pub committed: usize,
    /// How many were given up because others had been faster.
    pub lost: usize,
    /// How many ended without anybody knowing whether they were committed, or because an input looked damaged for the first time; the
    /// next round sees.
    pub unknown: usize,
    /// What was found damaged, and noted.
    pub quarantined: Vec<BlockRef>,
    /// Jobs that failed for another reason, and why; the others went on.
    pub failures: Vec<String>,
    /// How many profiles came along in jobs that were committed.
    pub profiles: u64,
    /// How many bytes went into jobs that were committed, and came out.
    pub bytes_in: u64,
    /// How many bytes came out.
    pub bytes_out: u64,
    /// How many segments no commit has removed yet; those that are damaged, and so wait for nothing, left out.
    pub segments_left: usize,
    /// How old the oldest of these is.
    pub oldest_left: Duration,
}

impl Round {
    /// Whether another round would find nothing new to do.
    pub fn rests(&self) -> bool {
        self.committed + self.unknown + self.quarantined.len() == 0
    }

    /// Adds what another round did; of what is left and of ages it takes the later.
    pub(crate) fn add(&mut self, other: Self) {
        self.committed += other.committed;
        self.lost += other.lost;
        self.unknown += other.unknown;
        self.quarantined.extend(other.quarantined);
        self.failures.extend(other.failures);
        self.profiles += other.profiles;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.segments_left = other.segments_left;
        self.oldest_left = self.oldest_left.max(other.oldest_left);
    }
}

/// Merges the blocks of one tenant.
#[derive(Debug)]
pub struct Compactor {
    store: Store,
    commits: Commits,
    options: Options,
    worker: plan::Worker,
    known: Arc<Known>,
    /// How many rounds there were.
    rounds: AtomicU64,
    /// What was found damaged, and in which round first: the damage may have happened on the way here.
    suspects: Mutex<BTreeMap<BlockRef, u64>>,
    /// What this process leaves as it is, for merging it would take more memory than it may, or come to nothing.
    aside: Mutex<BTreeSet<BlockRef>>,
}

impl Compactor {
    /// Makes a compactor. Makes no request.
    pub fn new(store: Store, commits: Commits, options: Options) -> Self {
        let writer = options.writer.clone().unwrap_or_else(|| store.writer().clone());
        let worker = plan::Worker { writer, seed: store.random().next_u64() };
        let known = Arc::new(Known::new(store.clone(), commits.tenant().clone(), options.known_bytes_max));
        let (rounds, suspects, aside) = (AtomicU64::new(0), Mutex::default(), Mutex::default());
        Self { store, commits, options, worker, known, rounds, suspects, aside }
    }
}
