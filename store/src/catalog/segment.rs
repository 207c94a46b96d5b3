//! What is known of one segment: little and for as long as it is listed ([`Segment`]), or all its rows while they are asked for
//! ([`OpenBlock`], in the cache of [`Blocks`]). Of a compacted block only the latter.
//!
//! A segment's rows are summed up by series: how many, and from when to when. That and the ids suffice to leave out a segment, to
//! count profiles, to find one by its id and to see duplicates; labels are shared by all segments that have them ([`Interner`]).

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use afterglow_profile::{Labels, ProfileType};
use object_store::ObjectStore;
use object_store::path::Path;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::stored::{self, CountedBlocks};
use super::{Options, Problem};
use crate::Store;
use crate::bill::{self, Bill};
use crate::block::{self, Block, Decoded, Row, SampleType};
use crate::commit::BlockEntry;
use crate::fault::Fault;
use crate::paths::{BlockRef, SegmentName, TenantId};
use crate::ranges::Ranges;

/// A block of so many bytes has rows that take some milliseconds to decode, in which a thread of the runtime would serve nobody.
const ON_THREAD_BYTES: u64 = 1 << 20;
/// The interner sheds what no segment has any more once it has grown by this much, and to twice its size.
const INTERNED_SLACK: usize = 1_024;

/// The labels and the type that a series' profiles share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Series {
    /// The labels.
    pub labels: Labels,
    /// The type.
    pub profile_type: ProfileType,
}

/// The profiles of a segment that have series and sample types in common.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) series: Arc<Series>,
    pub(super) sample_types: Arc<[SampleType]>,
    /// How many there are.
    pub(super) profiles: u32,
    /// The time of the first and of the last, in nanoseconds since 1970.
    pub(super) first_nanos: i64,
    pub(super) last_nanos: i64,
}

/// A profile of a segment, known by its id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Id {
    pub(super) id: u128,
    /// The first bytes of its SHA-256: enough to see that another profile is not the same.
    pub(super) digest: u64,
    /// The index of its row.
    pub(super) row: u32,
    /// The index of its entry.
    pub(super) entry: u32,
}

/// What is always known of a listed segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    pub(super) location: Location,
    pub(super) entries: Box<[Entry]>,
    /// Sorted by id, equal ones by row.
    pub(super) ids: Box<[Id]>,
    pub(super) first_nanos: i64,
    pub(super) last_nanos: i64,
}

/// Where a block lies and how long it is.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) path: Path,
    pub(crate) bytes: u64,
    /// Whether profiles are looked for by their ids in the opened block. Those of a segment are known without it.
    pub(crate) by_id: bool,
}

impl Location {
    /// Returns where a compacted block lies.
    pub(super) fn of(tenant: &TenantId, entry: &BlockEntry) -> Self {
        let path = BlockRef::Block(entry.name).path(tenant);
        Self { path, bytes: entry.bytes, by_id: true }
    }
}

impl Segment {
    pub(super) fn new(name: SegmentName, location: Location, open: &OpenBlock, interner: &mut Interner) -> Self {
        let datasets = open.block.toc().datasets();
        let mut numbers = HashMap::new();
        let mut entries: Vec<Entry> = Vec::new();
        let mut ids = Vec::with_capacity(open.rows.len());
        for (number, row) in open.rows.iter().enumerate() {
            let entry = *numbers.entry((row.dataset, row.series, row.sample_types)).or_insert_with(|| {
                let dataset = &datasets[row.dataset as usize];
                let labels = dataset.series()[row.series as usize].clone();
                let profile_type = dataset.profile_type().clone();
                entries.push(Entry {
                    series: interner.series.get(Series { labels, profile_type }),
                    sample_types: interner
                        .sample_types
                        .get(dataset.sample_types()[row.sample_types as usize].as_slice()),
                    profiles: 0,
                    first_nanos: i64::MAX,
                    last_nanos: i64::MIN,
                });
                entries.len() - 1
            });
            entries[entry].profiles += 1;
            entries[entry].first_nanos = entries[entry].first_nanos.min(row.time_nanos);
            entries[entry].last_nanos = entries[entry].last_nanos.max(row.time_nanos);
            ids.push(Id {
                id: row.id.into(),
                digest: digest_of(row),
                row: u32::try_from(number).expect("a block has fewer rows than 2^32"),
                entry: entry as u32,
            });
        }
        ids.sort_unstable_by_key(|id| (id.id, id.row));
        Self {
            name,
            location,
            first_nanos: entries.iter().map(|entry| entry.first_nanos).min().unwrap_or(i64::MAX),
            last_nanos: entries.iter().map(|entry| entry.last_nanos).max().unwrap_or(i64::MIN),
            entries: entries.into(),
            ids: ids.into(),
        }
    }

    /// Returns the profile with this id whose row comes first.
    pub(super) fn find(&self, id: u128) -> Option<&Id> {
        let at = self.ids.partition_point(|known| known.id < id);
        self.ids.get(at).filter(|found| found.id == id)
    }
}

/// Returns what tells a profile from another with the same id.
fn digest_of(row: &Row) -> u64 {
    let (digest, _) = row.sha256.split_first_chunk().expect("a SHA-256 is longer than 8 bytes");
    u64::from_le_bytes(*digest)
}

// === impl OpenBlock ===

/// An opened block with its rows.
#[derive(Debug)]
pub struct OpenBlock {
    block: Arc<Block>,
    rows: Arc<Vec<Row>>,
    runs: Box<[Run]>,
    /// The rows in the order of their ids, and equal ones in theirs; none where nobody looks for profiles by their ids here.
    by_id: Box<[u32]>,
    /// About what it takes in memory.
    bytes: u64,
}

impl OpenBlock {
    /// Returns the block.
    pub fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// Returns its rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns the runs of its rows, in their order.
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    async fn open(
        objects: Arc<dyn ObjectStore>,
        decoded: &Arc<Decoded>,
        location: &Location,
    ) -> Result<Self, block::Error> {
        // The listing told the length, which spares stores without requests for an object's end a question.
        let block = Block::open_sized(objects, location.path.clone(), location.bytes).await?.keeping(decoded);
        let rows = block.rows().await?;
        let mut by_id = Vec::new();
        if location.by_id {
            by_id.extend(0..u32::try_from(rows.len()).expect("a block has fewer rows than 2^32"));
            by_id.sort_unstable_by_key(|&row| (rows[row as usize].id, row));
        }
        let runs = Run::all(&rows);
        let bytes = (block.memory() + size_of_val(&*by_id) + size_of_val(&*runs)) as u64;
        Ok(Self { block: Arc::new(block), rows, runs: runs.into(), by_id: by_id.into(), bytes })
    }

    /// Returns the first row with this id, in a block that is opened to be asked for it.
    pub(super) fn find(&self, id: u128) -> Option<u32> {
        let id_of = |row: u32| u128::from(self.rows[row as usize].id);
        let at = self.by_id.partition_point(|&row| id_of(row) < id);
        self.by_id.get(at).copied().filter(|&row| id_of(row) == id)
    }

    /// Returns what tells the profile of a row from another with the same id.
    pub(super) fn digest(&self, row: u32) -> u64 {
        digest_of(&self.rows[row as usize])
    }
}

// === impl Run ===

/// Rows of one series that stand one after the other: as a block is ordered, all of the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) dataset: u32,
    pub(super) series: u32,
    /// The first row, and how many there are.
    pub(super) first: u32,
    pub(super) rows: u32,
    /// What the totals of all of them count; none where they differ.
    pub(super) sample_types: Option<u32>,
    /// Whether they stand in the order of their times.
    pub(super) is_sorted: bool,
    /// The earliest and the latest time, in nanoseconds since 1970.
    pub(super) first_nanos: i64,
    pub(super) last_nanos: i64,
}

impl Run {
    /// Finds the runs of rows.
    fn all(rows: &[Row]) -> Vec<Self> {
        let mut runs = Vec::new();
        let mut first = 0;
        for run in rows.chunk_by(|a, b| (a.dataset, a.series) == (b.dataset, b.series)) {
            let times = run.iter().map(|row| row.time_nanos);
            runs.push(Self {
                dataset: run[0].dataset,
                series: run[0].series,
                first,
                rows: run.len() as u32,
                sample_types: Some(run[0].sample_types).filter(|of| run.iter().all(|row| row.sample_types == *of)),
                is_sorted: times.clone().is_sorted(),
                first_nanos: times.clone().min().expect("a run has rows"),
                last_nanos: times.max().expect("a run has rows"),
            });
            first += run.len() as u32;
        }
        runs
    }
}

// === impl Blocks ===

/// Opens blocks and keeps the ones last asked for.
pub(super) struct Blocks {
    pub(super) store: Store,
    /// The store's, with the parts of blocks that are kept.
    objects: Arc<Ranges>,
    decoded: Arc<Decoded>,
    pub(super) counted: CountedBlocks,
    cache: Cache<Path, Arc<OpenBlock>, Bytes>,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Path, Arc<OpenBlock>> for Bytes {
    fn weight(&self, _key: &Path, block: &Arc<OpenBlock>) -> u64 {
        block.bytes
    }
}

impl Blocks {
    pub(super) fn new(store: Store, options: &Options) -> Self {
        let bytes_max = options.cache_bytes_max;
        // The most blocks there can be, which is all that this sizes.
        let blocks = usize::try_from(bytes_max).unwrap_or(usize::MAX) / (block::BLOCK_BYTES + block::DATASET_BYTES);
        let mut cache = OptionsBuilder::new();
        // A shard has a share of the bound and takes nothing larger: the block of a day of a large fleet may take most of it, and
        // would be opened anew for each question.
        cache.shards(1).estimated_items_capacity(blocks).weight_capacity(bytes_max);
        let cache = cache.build().expect("all that has no default is set");
        let objects = Arc::new(Ranges::new(
            store.objects(),
            options.ranges_bytes_max,
            options.disk.as_ref(),
            store.metrics().clone(),
        ));
        let decoded = Arc::new(Decoded::new(options.decoded_bytes_max, store.metrics().clone()));
        Self {
            store,
            objects,
            decoded,
            counted: stored::counted_blocks(),
            cache: Cache::with_options(cache, Bytes, DefaultHashBuilder::default(), DefaultLifecycle::default()),
        }
    }

    fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects) as _
    }

    /// Forgets what was read and decoded of the samples of a block.
    pub(super) fn forget(&self, path: &Path) {
        self.objects.forget(path);
        self.decoded.forget(path);
    }

    /// Opens a block for the first time, on a task of its own: decoding is work that many cores can share.
    pub(super) async fn open(self: &Arc<Self>, location: &Location) -> Result<Arc<OpenBlock>, Unopened> {
        let (this, place) = (Arc::clone(self), location.clone());
        let opening = start(
            location,
            bill::carried(async move {
                let open = match OpenBlock::open(this.objects(), &this.decoded, &place).await {
                    // The damage may have happened on the way here.
                    Err(error) if error.is_corrupt() => OpenBlock::open(this.objects(), &this.decoded, &place).await,
                    result => result,
                };
                let open = Arc::new(open?);
                this.store.metrics().blocks_opened.inc();
                this.cache.insert(place.path, Arc::clone(&open));
                this.show_bytes();
                Ok(open)
            }),
        );
        finish(opening, location).await
    }

    fn show_bytes(&self) {
        self.store.metrics().blocks_bytes.set(i64::try_from(self.cache.weight()).unwrap_or(i64::MAX));
    }

    /// Returns a block if it is in the cache. That does not count as a use.
    pub(super) fn opened(&self, location: &Location) -> Option<Arc<OpenBlock>> {
        self.cache.peek(&location.path)
    }

    /// Returns a block from the cache or by a GET or two; who asks for the same at once waits for the same.
    pub(super) async fn get(self: &Arc<Self>, location: &Location) -> Result<Arc<OpenBlock>, Unopened> {
        let found = self.cache.get(&location.path);
        if let Some(bill) = Bill::current() {
            bill.add_block(found.is_some());
        }
        if let Some(open) = found {
            self.store.metrics().blocks_found.inc();
            return Ok(open);
        }
        let (this, place) = (Arc::clone(self), location.clone());
        let opening = start(
            location,
            bill::carried(async move {
                let open = async {
                    this.store.metrics().blocks_reopened.inc();
                    OpenBlock::open(this.objects(), &this.decoded, &place).await.map(Arc::new)
                };
                let open = this.cache.get_or_insert_async(&place.path, open).await;
                this.show_bytes();
                open
            }),
        );
        finish(opening, location).await
    }
}

/// Why a block could not be opened.
#[derive(Debug)]
pub(super) enum Unopened {
    /// There is no such object any more.
    Gone,
    /// It cannot be read.
    Unreadable(Problem),
}

impl Unopened {
    /// Says it of the block that lies there.
    pub(super) fn problem(self, location: &Location) -> Problem {
        match self {
            Self::Gone => Problem { key: location.path.clone(), text: "is no longer there".to_owned() },
            Self::Unreadable(problem) => problem,
        }
    }
}

type Opened = Result<Arc<OpenBlock>, block::Error>;

/// Starts to open a block on a task of its own, or on a thread that may block where there is much to decode. It ends when the handle is
/// dropped, there at its next await.
fn start(
    location: &Location,
    opening: impl Future<Output = Opened> + Send + 'static,
) -> impl Future<Output = Result<Opened, JoinError>> {
    let token = CancellationToken::new();
    let abandoned = token.clone();
    let opening = async move { abandoned.run_until_cancelled(opening).await }.in_current_span();
    let opening = if location.bytes < ON_THREAD_BYTES {
        tokio::spawn(opening)
    } else {
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(opening))
    };
    let (opening, guard) = (AbortOnDropHandle::new(opening), token.drop_guard());
    async move {
        let opened = opening.await?;
        drop(guard);
        Ok(opened.expect("nobody cancels it while it is awaited"))
    }
}

/// Waits for a block that is opened.
async fn finish(
    opening: impl Future<Output = Result<Opened, JoinError>>,
    location: &Location,
) -> Result<Arc<OpenBlock>, Unopened> {
    let text = match opening.await {
        Ok(Ok(open)) => return Ok(open),
        Ok(Err(block::Error::Read { source: object_store::Error::NotFound { .. }, .. })) => return Err(Unopened::Gone),
        Ok(Err(error)) => {
            tracing::error!(key = %location.path, error = &error as &dyn std::error::Error, "a block cannot be read");
            match error {
                // What the client below says may name the bucket, which is not for users.
                block::Error::Read { source, .. } => format!("cannot be read: {}", Fault::of(&source).text()),
                error => error.to_string(),
            }
        }
        // A reader that panics has met what it was not made for; the rest must not suffer.
        Err(error) => {
            tracing::error!(key = %location.path, %error, "the reader of a block panicked");
            "cannot be read: it is not as any known version writes it".to_owned()
        }
    };
    Err(Unopened::Unreadable(Problem { key: location.path.clone(), text }))
}

// === impl Interner ===

/// Makes equal things one.
#[derive(Debug, Default)]
pub(super) struct Interner {
    series: Interned<Series>,
    sample_types: Interned<[SampleType]>,
}

#[derive(Debug)]
struct Interned<T: ?Sized> {
    known: HashSet<Arc<T>>,
    shed_at: usize,
}

impl<T: ?Sized> Default for Interned<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), shed_at: INTERNED_SLACK }
    }
}

impl<T: ?Sized + Eq + Hash> Interned<T> {
    fn get<V: Into<Arc<T>> + std::borrow::Borrow<T>>(&mut self, value: V) -> Arc<T> {
        if let Some(known) = self.known.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.shed_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.shed_at = 2 * self.known.len() + INTERNED_SLACK;
        }
        let value = value.into();
        self.known.insert(Arc::clone(&value));
        value
    }
}
