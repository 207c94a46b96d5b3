//! The wrapper that keeps parts of blocks in memory: the symbol tables and samples that questions read again and again.
//!
//! Objects are immutable, so what was read of one stays true, and (object, range) is all there is to a key. The cache has a bound in
//! bytes and sheds by use (S3-FIFO), so that a question about everything, once, does not push out what is asked for all the time.
//! Whoever asks for what somebody else is reading waits for that. Parts of one object that are missing are still asked for together,
//! so that the client below can join them into few requests.
//!
//! What is not in memory may be on disk ([`disk`]), where that is wanted: there it outlives what memory has no room for, and the process.
//!
//! Nothing is checked here: whoever finds that what it got is damaged says so ([`Ranges::forget`]), for the next one gets it from the store again.
//! Only what is asked for as ranges is kept: the ends of objects become opened blocks, which the catalog keeps by itself. Unlike
//! [`Patient`](crate::patient) and `Metered` this is not around every store: what compaction reads once would be a waste.

mod disk;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, PlaceholderGuard};
use tokio::time::Instant;

pub use disk::DiskOptions;

use crate::bill::Bill;
use crate::metrics::Metrics;
use disk::Disk;

/// What a part takes besides its bytes: the key, the entry, and two allocations.
const PART_BYTES: u64 = 256;

/// What a part has on average, which only sizes the tables of the cache.
const PART_BYTES_MEAN: u64 = 64 << 10;

type Key = (Path, Range<u64>);

/// Keeps ranges of the store within.
pub(crate) struct Ranges {
    inner: Arc<dyn ObjectStore>,
    cache: Option<Parts>,
    disk: Option<Disk>,
    metrics: Metrics,
}

type Parts = Cache<Key, Bytes, Weight>;

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Bytes> for Weight {
    fn weight(&self, (path, _): &Key, part: &Bytes) -> u64 {
        PART_BYTES + path.as_ref().len() as u64 + part.len() as u64
    }
}

// === impl Ranges ===

impl Ranges {
    /// Keeps up to `bytes_max` bytes of what is read of `inner`; 0 keeps nothing, and still counts. Keeps it on disk as well, where that is
    /// wanted and a folder can be used.
    pub(crate) fn new(
        inner: Arc<dyn ObjectStore>,
        bytes_max: u64,
        disk: Option<&DiskOptions>,
        metrics: Metrics,
    ) -> Self {
        let parts = usize::try_from(bytes_max / PART_BYTES_MEAN).unwrap_or(usize::MAX);
        let cache = (bytes_max > 0).then(|| Cache::with_weighter(parts.max(1), bytes_max, Weight));
        let disk = disk.and_then(|options| Disk::open(options, &metrics));
        Self { inner, cache, disk, metrics }
    }

    /// Forgets what was read of an object: it did not keep what its checksums say, which may have happened on the way here.
    pub(crate) fn forget(&self, path: &Path) {
        if let Some(cache) = &self.cache {
            cache.retain(|(of, _), _| of != path);
        }
        if let Some(disk) = &self.disk {
            disk.forget(path);
        }
    }

    /// Reads ranges from disk, and those that are not there from the store, together. Returns them with how many were on disk.
    async fn fetch(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<(Vec<Bytes>, usize)> {
        let Some(disk) = &self.disk else { return Ok((self.inner.get_ranges(location, ranges).await?, 0)) };
        let mut found = disk.read(location, ranges).await;
        let missing: Vec<usize> = (0..ranges.len()).filter(|&number| found[number].is_none()).collect();
        if !missing.is_empty() {
            let wanted: Vec<Range<u64>> = missing.iter().map(|&number| ranges[number].clone()).collect();
            let parts = self.inner.get_ranges(location, &wanted).await?;
            for (&number, part) in missing.iter().zip(parts) {
                // A store that gives less than was asked for is for the reader to find fault with, and nothing to keep.
                if part.len() as u64 == ranges[number].end - ranges[number].start {
                    disk.keep(location, ranges[number].clone(), part.clone());
                }
                found[number] = Some(part);
            }
        }
        Ok((found.into_iter().flatten().collect(), ranges.len() - missing.len()))
    }

    /// Reads ranges through the cache, and returns them with how many were there.
    async fn read(
        &self,
        cache: &Parts,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<(Vec<Bytes>, usize)> {
        let mut order: Vec<usize> = (0..ranges.len()).collect();
        // Places are taken in one order by all, so that no two wait for each other.
        order.sort_unstable_by_key(|&number| (ranges[number].start, ranges[number].end));
        let mut found: Vec<Option<Bytes>> = vec![None; ranges.len()];
        let mut missing: Vec<(usize, PlaceholderGuard<'_, _, _, _, _, _>)> = Vec::new();
        let mut again = Vec::new();
        for (place, &number) in order.iter().enumerate() {
            // Whoever asks for the same twice must not wait for itself.
            if place > 0 && ranges[order[place - 1]] == ranges[number] {
                again.push((number, order[place - 1]));
                continue;
            }
            match cache.get_value_or_guard_async(&(location.clone(), ranges[number].clone())).await {
                Ok(part) => found[number] = Some(part),
                Err(guard) => missing.push((number, guard)),
            }
        }
        let mut cached = ranges.len() - missing.len();
        self.metrics.ranges_found.inc_by(cached as u64);
        self.metrics.ranges_missed.inc_by(missing.len() as u64);
        if !missing.is_empty() {
            let wanted: Vec<Range<u64>> = missing.iter().map(|(number, _)| ranges[*number].clone()).collect();
            let (parts, on_disk) = self.fetch(location, &wanted).await?;
            cached += on_disk;
            for ((number, guard), part) in missing.into_iter().zip(parts) {
                // What was read together is one allocation, which one part of it would keep whole.
                let part = Bytes::copy_from_slice(&part);
                // Where it is not taken, it is too large or was pushed out at once: the answer has it all the same.
                let _ = guard.insert(part.clone());
                found[number] = Some(part);
            }
        }
        for (number, like) in again {
            found[number] = found[like].clone();
        }
        // A store that gives fewer than were asked for is for the reader to find fault with.
        Ok((found.into_iter().flatten().collect(), cached))
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranges")
            .field("inner", &self.inner)
            .field("cache", &self.cache.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Ranges {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        let began = Instant::now();
        let (parts, cached) = match &self.cache {
            Some(cache) => self.read(cache, location, ranges).await?,
            None => self.fetch(location, ranges).await?,
        };
        if let Some(cache) = &self.cache {
            self.metrics.ranges_bytes.set(i64::try_from(cache.weight()).unwrap_or(i64::MAX));
        }
        if let Some(bill) = Bill::current() {
            bill.add_ranges(ranges.len(), cached, began.elapsed());
        }
        Ok(parts)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a list of one range is what is asked for")]
mod tests {
    use std::time::Duration;

    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::metrics::Metered;
    use crate::testing::faults::{Faulty, Operation, Trouble};

    const MIB: u64 = 1 << 20;

    struct World {
        faults: Faulty,
        metrics: Metrics,
        ranges: Arc<Ranges>,
    }

    impl World {
        /// A store with one object of 4 MiB under `x`, of which so much is kept.
        async fn new(bytes_max: u64) -> Self {
            let faults = Faulty::new(Arc::new(InMemory::new()));
            let metrics = Metrics::default();
            let body: Vec<u8> = (0..4 * MIB).map(|at| (at >> 10) as u8).collect();
            faults.put(&path(), body.into()).await.expect("memory works");
            let metered = Arc::new(Metered::new(faults.clone(), metrics.clone()));
            Self { faults, ranges: Arc::new(Ranges::new(metered, bytes_max, None, metrics.clone())), metrics }
        }

        async fn read(&self, ranges: &[Range<u64>]) -> Vec<Bytes> {
            let parts = self.ranges.get_ranges(&path(), ranges).await.expect("memory works");
            for (part, range) in parts.iter().zip(ranges) {
                assert_eq!(part.len() as u64, range.end - range.start);
                assert!(part.iter().zip(range.clone()).all(|(byte, at)| *byte == (at >> 10) as u8), "{range:?}");
            }
            parts
        }
    }

    fn path() -> Path {
        Path::from("x")
    }

    /// Goal: what was read is not asked for again, in whatever order it is asked for, and the same twice is one part.
    #[tokio::test]
    async fn what_was_read_is_not_read_again() {
        let world = World::new(MIB).await;
        world.read(&[5_000..9_000, 10..20]).await;
        assert_eq!(world.metrics.requests(), 1, "both lie close to each other");
        let parts = world.read(&[10..20, 5_000..9_000, 10..20]).await;
        assert_eq!((parts.len(), world.metrics.requests()), (3, 1));
        world.read(&[10..20, 30..40]).await;
        assert_eq!(world.metrics.requests(), 2, "only what is missing is asked for");
        assert_eq!((world.metrics.ranges_found.get(), world.metrics.ranges_missed.get()), (4, 3));
        assert!(world.metrics.ranges_bytes.get() >= 4_020);
    }

    /// Goal: the bound holds whatever is read, what is larger than the cache passes it by, and without a cache nothing is kept.
    #[tokio::test]
    async fn the_bound_holds() {
        let world = World::new(MIB).await;
        for start in 0..64 {
            world.read(&[start * 32_768..(start + 1) * 32_768]).await;
            assert!(world.metrics.ranges_bytes.get() <= MIB as i64);
        }
        world.read(&[0..2 * MIB]).await;
        let requests = world.metrics.requests();
        world.read(&[0..2 * MIB]).await;
        assert_eq!(world.metrics.requests(), requests + 1);

        let none = World::new(0).await;
        none.read(&[0..10]).await;
        none.read(&[0..10]).await;
        assert_eq!(none.metrics.requests(), 2);
    }

    /// Goal: a sweep over much more than the cache holds does not push out what is asked for again and again.
    #[tokio::test]
    async fn a_sweep_leaves_what_is_used() {
        let world = World::new(MIB).await;
        let used = [100..20_000, 20_000..40_000];
        for _ in 0..3 {
            world.read(&used).await;
        }
        for start in 2..120 {
            world.read(&[start * 32_768..(start + 1) * 32_768]).await;
        }
        let requests = world.metrics.requests();
        world.read(&used).await;
        assert_eq!(world.metrics.requests(), requests);
    }

    /// Goal: what proved damaged on the way is read again, and nothing else is.
    #[tokio::test]
    async fn what_is_forgotten_is_read_again() {
        let world = World::new(MIB).await;
        world.faults.script(Operation::Get, [Trouble::FlipBit(3)]);
        let flipped = world.ranges.get_ranges(&path(), &[0..10]).await.expect("memory works");
        world.ranges.forget(&Path::from("y"));
        let kept = world.ranges.get_ranges(&path(), &[0..10]).await.expect("memory works");
        assert_eq!((&kept, world.metrics.requests()), (&flipped, 1));
        world.ranges.forget(&path());
        assert_ne!(world.read(&[0..10]).await, flipped);
        assert_eq!(world.metrics.requests(), 2);
    }

    /// Goal: who asks for what is being read waits for it; where that fails or is given up, the next one reads.
    #[tokio::test(start_paused = true)]
    async fn what_is_being_read_is_waited_for() {
        let world = World::new(MIB).await;
        let ask = || {
            let ranges = Arc::clone(&world.ranges);
            tokio::spawn(async move { ranges.get_ranges(&path(), &[0..10, 20..30]).await })
        };
        world.faults.script(Operation::Get, [Trouble::Stall]);
        let stalled = ask();
        tokio::task::yield_now().await;
        let waiting: Vec<_> = (0..8).map(|_| ask()).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.metrics.requests(), 0, "the first has not ended, and nobody else asked");
        stalled.abort();
        for waiter in waiting {
            assert_eq!(waiter.await.expect("it was not aborted").expect("memory works").len(), 2);
        }
        assert_eq!(world.metrics.requests(), 2, "the one that was given up, and one for all others");

        world.faults.script(Operation::Get, [Trouble::Refuse(503)]);
        assert!(world.ranges.get_ranges(&path(), &[50..60]).await.is_err());
        world.read(&[50..60]).await;
    }
}
