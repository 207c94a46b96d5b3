//! What questions decoded of blocks and may need again, in memory: the tables of a service, what the profiles of a roll-up, or those
//! of a chunk that lie one after the other, add up to, and what whoever asks derived from these.
//!
//! Blocks are immutable, so what was decoded stays true, and the key says all: the block, the place in it, and which sample types
//! were summed. Sums are small: a chunk of 64 profiles becomes the stacks of about one, so more fits in here than of what it was decoded
//! from. The cache has a bound in bytes and sheds by use (S3-FIFO). Whoever needs what somebody else is decoding waits for that; where that
//! one fails or is given up, the next decodes. Places are taken in one order by all ([`Place`]), so that no two wait for each other.
//!
//! What does not add up whatever the order (a negative value, a sum beyond 64 bits) is not kept: it is read anew for each question.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use object_store::path::Path;
use quick_cache::sync::{Cache, DefaultLifecycle, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::aggregate::SampleTypes;
use super::sums::Sum;
use super::symbols::Symbols;
use super::values;
use crate::bill::Bill;
use crate::metrics::Metrics;

/// What an entry takes besides what it holds: the key, the place in the cache, its allocations.
const ENTRY_BYTES: u64 = 256;

/// What an entry has on average, which only sizes the tables of the cache.
const ENTRY_BYTES_MEAN: u64 = 16 << 10;

/// A shard has a share of the bound and takes nothing larger than that. The tables of a large program are some MiB, so shards are few.
const SHARDS: usize = 2;

/// Keeps what was decoded of blocks, for all questions; see [`Block::keeping`](super::Block::keeping).
pub struct Decoded {
    cache: Option<Parts>,
    metrics: Metrics,
}

/// What is kept of what is decoded for a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All of it.
    Decoded,
    /// Nothing, for it is more than there is room for. What is kept already is used.
    Nothing,
}

type Parts = Cache<Key, Part, Weight>;

/// What is decoded of one block.
#[derive(Clone)]
pub(crate) struct OfBlock {
    all: Arc<Decoded>,
    path: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    block: Arc<str>,
    place: Place,
    /// All for tables.
    types: SampleTypes,
}

/// Where in a block it lies: indices into its table of contents, which are looked for in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// The tables of a service.
    Tables(u32),
    /// A roll-up of a dataset.
    Rollup(u32, u32),
    /// Profiles of a chunk of a dataset.
    Run {
        /// The dataset.
        dataset: u32,
        /// The chunk.
        chunk: u32,
        /// The position of the first.
        first: u32,
        /// How many there are.
        profiles: u32,
    },
    /// Something that was derived from what lies in the block, by a key that says what. Nobody waits for it.
    Derived(u128),
}

/// The tables of a service, with what every reader of samples needs besides.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    pub(crate) symbols: Arc<Symbols>,
    /// The number of each label set.
    pub(crate) numbers: Arc<[i64]>,
}

/// What profiles add up to, header by header.
pub(crate) type SharedSums = Arc<[Sum]>;

#[derive(Clone, Debug)]
enum Part {
    Tables(Tables),
    Sums(SharedSums),
    /// What is shown by default is this sample type; the sums lie there.
    Shown(usize),
    /// What was derived, and its size.
    Derived(Arc<dyn Any + Send + Sync>, u64),
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Part> for Weight {
    fn weight(&self, _key: &Key, part: &Part) -> u64 {
        ENTRY_BYTES
            + match part {
                Part::Tables(tables) => tables.memory() as u64,
                Part::Sums(sums) => sums.iter().map(Sum::memory).sum::<usize>() as u64,
                Part::Shown(_) => 0,
                Part::Derived(_, bytes) => *bytes,
            }
    }
}

/// A place that nothing was found for. Whoever has it decodes, and others wait.
pub(crate) struct Vacant<'a> {
    of: &'a OfBlock,
    guard: Option<Guard<'a>>,
    place: Place,
    types: SampleTypes,
}

type Guard<'a> = PlaceholderGuard<'a, Key, Part, Weight, DefaultHashBuilder, DefaultLifecycle<Key, Part>>;

// === impl Tables ===

impl Tables {
    pub(crate) fn new(symbols: Arc<Symbols>) -> Self {
        Self { numbers: values::numbers(&symbols).into(), symbols }
    }

    /// Returns how many bytes of memory they take.
    fn memory(&self) -> usize {
        self.symbols.memory() + size_of_val(&*self.numbers)
    }
}

// === impl Decoded ===

impl Decoded {
    /// Keeps up to `bytes_max` bytes; 0 keeps nothing.
    pub fn new(bytes_max: u64, metrics: Metrics) -> Self {
        let entries = usize::try_from(bytes_max / ENTRY_BYTES_MEAN).unwrap_or(usize::MAX).max(1);
        let mut options = OptionsBuilder::new();
        options.shards(SHARDS).estimated_items_capacity(entries).weight_capacity(bytes_max);
        let options = options.build().expect("all that has no default is set");
        let cache = || Cache::with_options(options, Weight, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self { cache: (bytes_max > 0).then(cache), metrics }
    }

    /// Returns what is kept of the block at `path`; none where nothing is kept.
    pub(crate) fn of_block(self: &Arc<Self>, path: &Path) -> Option<OfBlock> {
        self.cache.as_ref().map(|_| OfBlock { all: Arc::clone(self), path: path.as_ref().into() })
    }

    /// Forgets what was decoded of a block.
    pub(crate) fn forget(&self, path: &Path) {
        if let Some(cache) = &self.cache {
            cache.retain(|key, _| &*key.block != path.as_ref());
        }
    }

    fn note_bytes(&self) {
        self.metrics.decoded_bytes.set(i64::try_from(self.cache().weight()).unwrap_or(i64::MAX));
    }

    fn cache(&self) -> &Parts {
        self.cache.as_ref().expect("what is of a block is made where there is a cache")
    }
}

impl fmt::Debug for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoded").field("bytes", &self.cache.as_ref().map(Cache::weight)).finish_non_exhaustive()
    }
}

// === impl OfBlock ===

impl OfBlock {
    /// Returns the tables of a service, or the place for them, if they are to be kept.
    pub(crate) async fn tables(&self, symbols: u32, keep: Keep) -> Result<Tables, Option<Vacant<'_>>> {
        let (place, types) = (Place::Tables(symbols), SampleTypes::All);
        match self.find(place, types, keep).await {
            Ok(Part::Tables(tables)) => {
                self.note(true);
                Ok(tables)
            }
            Ok(Part::Sums(_) | Part::Shown(_) | Part::Derived(..)) => {
                unreachable!("only tables are kept in their place")
            }
            Err(guard) => Err(self.vacant(place, types, guard)),
        }
    }

    /// Returns sums of these sample types at least, or the place for them, if they are to be kept.
    pub(crate) async fn sums(
        &self,
        place: Place,
        types: SampleTypes,
        keep: Keep,
    ) -> Result<SharedSums, Option<Vacant<'_>>> {
        if types != SampleTypes::All
            && let Some(Part::Sums(all)) = self.all.cache().get(&self.key(place, SampleTypes::All))
        {
            self.note(true);
            return Ok(all);
        }
        let mut types = types;
        loop {
            match self.find(place, types, keep).await {
                Ok(Part::Sums(sums)) => {
                    self.note(true);
                    return Ok(sums);
                }
                Ok(Part::Shown(shown)) => types = SampleTypes::One(shown),
                Ok(Part::Tables(_) | Part::Derived(..)) => unreachable!("these have places of their own"),
                Err(guard) => return Err(self.vacant(place, types, guard)),
            }
        }
    }

    /// Returns whether something is kept, without use of it: whether it is looked for is not known yet.
    pub(crate) fn has(&self, place: Place, types: SampleTypes) -> bool {
        self.all.cache().contains_key(&self.key(place, types))
            || types != SampleTypes::All && self.all.cache().contains_key(&self.key(place, SampleTypes::All))
    }

    /// Returns what was derived and kept under `key`, if it is a `T`. Nobody waits for what somebody else derives: it may be too large to be
    /// kept. What is not here counts where what it is derived from is looked for.
    pub(crate) fn derived<T: Send + Sync + 'static>(&self, key: u128) -> Option<Arc<T>> {
        let found = self.all.cache().get(&self.key(Place::Derived(key), SampleTypes::All));
        let derived = found.and_then(|part| match part {
            Part::Derived(derived, _) => derived.downcast().ok(),
            Part::Tables(_) | Part::Sums(_) | Part::Shown(_) => None,
        });
        if derived.is_some() {
            self.note(true);
        }
        derived
    }

    /// Keeps what was derived, of so many bytes.
    pub(crate) fn keep_derived<T: Send + Sync + 'static>(&self, key: u128, derived: Arc<T>, bytes: u64) {
        self.all.cache().insert(self.key(Place::Derived(key), SampleTypes::All), Part::Derived(derived, bytes));
        self.all.note_bytes();
    }

    /// Returns how many bytes are kept at most, of all blocks.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.all.cache().capacity()
    }

    async fn find(&self, place: Place, types: SampleTypes, keep: Keep) -> Result<Part, Option<Guard<'_>>> {
        let key = self.key(place, types);
        match keep {
            Keep::Decoded => self.all.cache().get_value_or_guard_async(&key).await.map_err(Some),
            Keep::Nothing => self.all.cache().get(&key).ok_or(None),
        }
    }

    fn key(&self, place: Place, types: SampleTypes) -> Key {
        Key { block: Arc::clone(&self.path), place, types }
    }

    fn vacant<'a>(&'a self, place: Place, types: SampleTypes, guard: Option<Guard<'a>>) -> Option<Vacant<'a>> {
        self.note(false);
        guard.map(|guard| Vacant { of: self, guard: Some(guard), place, types })
    }

    /// Counts what was looked for. What is not here is counted on the bill where it is read.
    fn note(&self, is_found: bool) {
        let metrics = &self.all.metrics;
        if is_found {
            metrics.decoded_found.inc()
        } else {
            metrics.decoded_missed.inc()
        };
        if let (true, Some(bill)) = (is_found, Bill::current()) {
            bill.add_ranges(1, 1, std::time::Duration::ZERO);
        }
    }
}

impl fmt::Debug for Vacant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vacant").field("place", &self.place).finish_non_exhaustive()
    }
}

impl fmt::Debug for OfBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfBlock").field("path", &self.path).finish_non_exhaustive()
    }
}

// === impl Vacant ===

impl Vacant<'_> {
    /// Keeps the tables that were decoded.
    pub(crate) fn keep_tables(self, tables: &Tables) {
        self.keep(Part::Tables(tables.clone()));
    }

    /// Keeps the sums that were decoded.
    pub(crate) fn keep_sums(self, sums: &SharedSums) {
        let part = Part::Sums(Arc::clone(sums));
        if self.types != SampleTypes::Default {
            return self.keep(part);
        }
        // Whoever asks for that type by its index is to find it too.
        match &sums[..] {
            [first, rest @ ..] if rest.iter().all(|sum| sum.sample_type == first.sample_type) => {
                if let Some(shown) = first.sample_type {
                    self.of.all.cache().insert(self.of.key(self.place, SampleTypes::One(shown)), part);
                    self.keep(Part::Shown(shown));
                }
            }
            _ => {}
        }
    }

    fn keep(mut self, part: Part) {
        let guard = self.guard.take().expect("it is taken once");
        // Where it is not taken, it is too large or was pushed out at once: the answer has it all the same.
        let _ = guard.insert(part);
        self.of.all.note_bytes();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::block::columns::Samples;

    fn sums(stacks: usize, sample_type: Option<usize>) -> SharedSums {
        let samples = Samples { stacks: vec![1; stacks], labels: Vec::new(), values: vec![vec![7; stacks]] };
        Arc::new([Sum { header: 0, sample_type, profiles: 2, times: (1, 2), samples }])
    }

    fn place(chunk: u32) -> Place {
        Place::Run { dataset: 0, chunk, first: 0, profiles: 2 }
    }

    async fn find(of: &OfBlock, place: Place, types: SampleTypes) -> Result<SharedSums, Vacant<'_>> {
        of.sums(place, types, Keep::Decoded).await.map_err(|vacant| vacant.expect("it is to be kept"))
    }

    fn kept(bytes_max: u64) -> (Arc<Decoded>, OfBlock) {
        let decoded = Arc::new(Decoded::new(bytes_max, Metrics::default()));
        let of = decoded.of_block(&Path::from("x")).expect("something is kept");
        (decoded, of)
    }

    /// Goal: sums are found under the type that was asked for, under the one that this proved to be, and in the sums of all types.
    #[tokio::test]
    async fn sums_are_found_by_what_they_sum() {
        let (decoded, of) = kept(1 << 20);
        find(&of, place(0), SampleTypes::Default).await.expect_err("it is new").keep_sums(&sums(3, Some(1)));
        for types in [SampleTypes::Default, SampleTypes::One(1)] {
            assert!(find(&of, place(0), types).await.is_ok(), "{types:?}");
        }
        assert!(find(&of, place(0), SampleTypes::One(0)).await.is_err());
        find(&of, place(1), SampleTypes::All).await.expect_err("it is new").keep_sums(&sums(3, None));
        for types in [SampleTypes::Default, SampleTypes::One(0), SampleTypes::All] {
            assert!(find(&of, place(1), types).await.is_ok(), "{types:?}");
        }
        assert_eq!((decoded.metrics.decoded_found.get(), decoded.metrics.decoded_missed.get()), (5, 3));
        assert!(of.sums(place(1), SampleTypes::One(1), Keep::Nothing).await.is_ok());
        assert!(of.sums(place(2), SampleTypes::All, Keep::Nothing).await.is_err_and(|vacant| vacant.is_none()));
        decoded.forget(&Path::from("y"));
        assert!(find(&of, place(1), SampleTypes::All).await.is_ok());
        decoded.forget(&Path::from("x"));
        assert!(find(&of, place(1), SampleTypes::All).await.is_err());
        assert!(Arc::new(Decoded::new(0, Metrics::default())).of_block(&Path::from("x")).is_none());
    }

    /// Goal: the bound holds, by what sums really take.
    #[tokio::test]
    async fn the_bound_holds() {
        let (decoded, of) = kept(1 << 20);
        for chunk in 0..500 {
            find(&of, place(chunk), SampleTypes::All).await.expect_err("it is new").keep_sums(&sums(1_000, None));
        }
        let bytes = decoded.metrics.decoded_bytes.get();
        let fits = (0..500).filter(|&chunk| decoded.cache().peek(&of.key(place(chunk), SampleTypes::All)).is_some());
        let fits = fits.count() as i64;
        assert!(bytes <= 1 << 20 && fits > 40 && bytes >= fits * 12_000, "{fits} take {bytes}");
    }

    /// Goal: what was derived is found by its key and as what it is, counts with its size, and is forgotten with its block.
    #[tokio::test]
    async fn what_was_derived_is_found_by_its_key() {
        let (decoded, of) = kept(1 << 20);
        assert!(of.derived::<String>(1).is_none());
        of.keep_derived(1, Arc::new("derived".to_owned()), 1_000);
        assert_eq!(of.derived::<String>(1).as_deref().map(String::as_str), Some("derived"));
        assert!(of.derived::<String>(2).is_none() && of.derived::<u64>(1).is_none());
        assert!(decoded.of_block(&Path::from("y")).is_some_and(|other| other.derived::<String>(1).is_none()));
        assert_eq!(decoded.metrics.decoded_bytes.get(), 1_000 + ENTRY_BYTES as i64);
        of.keep_derived(2, Arc::new(String::new()), 2 << 20);
        assert!(of.derived::<String>(2).is_none(), "it is larger than the cache");
        decoded.forget(&Path::from("x"));
        assert!(of.derived::<String>(1).is_none());
    }

    /// Goal: who needs what is being decoded waits for it; where that is given up, the next one decodes.
    #[tokio::test(start_paused = true)]
    async fn what_is_being_decoded_is_waited_for() {
        let (_, of) = kept(1 << 20);
        let first = find(&of, place(0), SampleTypes::All).await.expect_err("it is new");
        let ask = |keep: bool| {
            let of = of.clone();
            tokio::spawn(async move {
                match find(&of, place(0), SampleTypes::All).await {
                    Ok(_) => true,
                    Err(vacant) => {
                        if keep {
                            vacant.keep_sums(&sums(3, None));
                        }
                        false
                    }
                }
            })
        };
        let waiting: Vec<_> = [false, true, true, true].into_iter().map(ask).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(waiting.iter().all(|waiter| !waiter.is_finished()));
        drop(first);
        let mut found = 0;
        for waiter in waiting {
            found += u32::from(waiter.await.expect("nobody panics"));
        }
        assert!(
            (2..=3).contains(&found),
            "one decoded, and but for who gave up before, all found what it kept: {found}"
        );
    }
}
