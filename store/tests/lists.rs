//! How many LISTs it takes where ten thousand segments are live: a page of a thousand keys is a request, and each costs what twelve reads do.
//!
//! Nothing may list once a segment, once a job, or all of them each time: that is what would make a backlog cost more the longer it lasts.
//! What it does cost is said in docs/operations.md, "What it costs".

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use afterglow_store::catalog::{self, Catalog, Freshness};
use afterglow_store::clock::{Clock, SystemClock};
use afterglow_store::maintenance::{Maintainer, Options};
use afterglow_store::paths::{SegmentKey, SegmentName, TenantId};
use afterglow_store::testing::segments::{Sent, segment};
use afterglow_store::testing::time::PausedClock;
use afterglow_store::{Store, StoreOptions};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::time::sleep;

/// How many segments are live.
const SEGMENTS: usize = 10_000;
/// The keys of a page, as S3 has them.
const PAGE_KEYS: usize = 1_000;
/// What a listing of all of them takes.
const PAGES: usize = SEGMENTS / PAGE_KEYS;

/// A store in memory that counts the pages which are listed.
#[derive(Debug, Default)]
struct Pages {
    inner: InMemory,
    /// Of each page, what was listed.
    listed: Arc<Mutex<Vec<String>>>,
}

impl Pages {
    /// Counts a page before its first key, as a client asks for one.
    fn counted(
        &self,
        prefix: Option<&Path>,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let pages = Arc::clone(&self.listed);
        let prefix = prefix.cloned().unwrap_or(Path::ROOT);
        count(&pages, &prefix);
        let next = move |(n, item)| {
            if n > 0 && n % PAGE_KEYS == 0 {
                count(&pages, &prefix);
            }
            item
        };
        list.enumerate().map(next).boxed()
    }
}

fn count(pages: &Mutex<Vec<String>>, prefix: &Path) {
    pages.lock().expect("no panic").push(prefix.to_string());
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that counts pages")
    }
}

#[async_trait]
impl ObjectStore for Pages {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counted(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counted(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        count(&self.listed, prefix.unwrap_or(&Path::ROOT));
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

struct World {
    pages: Arc<Pages>,
    store: Store,
    clock: Arc<dyn Clock>,
}

impl World {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let pages = Arc::new(Pages::default());
        let options = StoreOptions { clock: Arc::clone(&clock), ..StoreOptions::default() };
        let store = Store::new(Arc::clone(&pages) as _, "memory://".to_owned(), options);
        Self { pages, store, clock }
    }

    /// Puts a segment of this age, as a writer that is dead by now.
    async fn put(&self, nonce: usize, age: Duration, bytes: Bytes) {
        let millis = self.clock.unix_millis() - age.as_millis() as u64;
        let name = SegmentName::new(millis, &"w".parse().expect("valid"), nonce as u64);
        let key = SegmentKey { tenant: TenantId::anonymous(), name };
        self.pages.inner.put(&key.path(), PutPayload::from_bytes(bytes)).await.expect("it is in memory");
    }

    /// Puts ten thousand of this age, each with a profile of its own: of copies, all but one job would come to nothing.
    async fn put_all(&self, age: Duration) {
        let now_nanos = self.clock.unix_nanos();
        for n in 0..SEGMENTS {
            self.put(n, age, segment(&[Sent::new(n as u128 + 1, "api", &[], now_nanos)])).await;
        }
    }

    /// Returns what was listed since this was asked before, a page at a time.
    fn lists(&self) -> Vec<String> {
        std::mem::take(&mut *self.pages.listed.lock().expect("no panic"))
    }
}

/// Goal: a reader lists all once, then a page for each look; and again all of them never for more than a page a second.
#[tokio::test(start_paused = true)]
async fn a_reader_of_ten_thousand_segments_lists_a_page_a_look() {
    const LOOKS: usize = 120;
    let world = World::new(Arc::new(PausedClock::new()));
    let empty = segment(&[]);
    for n in 0..SEGMENTS {
        // One every 360 ms, up to now.
        let age = Duration::from_secs(3_600).mul_f64(1.0 - n as f64 / SEGMENTS as f64);
        world.put(n, age, empty.clone()).await;
    }
    let catalog = Catalog::new(world.store.clone(), catalog::Options::default());
    let look = || async { catalog.view(&TenantId::anonymous(), Freshness::Now).await.expect("it is in memory") };
    assert_eq!(look().await.segments().len(), SEGMENTS);
    let first = world.lists();
    assert!((PAGES..=PAGES + 1).contains(&first.len()), "all segments, and the snapshots: {first:?}");
    for n in 0..LOOKS {
        sleep(Duration::from_millis(500)).await;
        world.put(SEGMENTS + n, Duration::ZERO, empty.clone()).await;
        assert_eq!(look().await.segments().len(), SEGMENTS + n + 1);
    }
    let lists = world.lists().len();
    // A minute has four listings of all, each of one page more than at first by now.
    assert!((LOOKS..=LOOKS + 4 * (PAGES + 1)).contains(&lists), "{LOOKS} looks took {lists}");
}

/// Goal: a round lists all segments once, whether it merges nothing or all of them.
#[tokio::test]
async fn a_round_over_ten_thousand_segments_lists_them_once() {
    // The tenants, what is damaged.
    const BESIDES: usize = 2;
    // Segments, blocks, what is damaged.
    const SWEEP: usize = PAGES + 2;
    // The snapshots, and before a first commit the commits, of whoever has just started.
    const START: usize = 2;
    let world = World::new(Arc::new(SystemClock));
    for n in 0..SEGMENTS {
        world.put(n, Duration::from_secs(1), segment(&[])).await;
    }
    let options = Options { sweep_interval: Duration::from_secs(3_600), ..Options::default() };
    let mut maintainer = Maintainer::new(world.store.clone(), options.clone());
    let report = maintainer.round().await.expect("it is in memory");
    assert_eq!((report.compaction.committed, report.compaction.segments_left), (0, SEGMENTS), "too young: {report:?}");
    let first = world.lists();
    assert!(first.len() <= PAGES + BESIDES + SWEEP + START, "a first round lists {first:?}");
    maintainer.round().await.expect("it is in memory");
    let second = world.lists();
    assert!(second.len() <= PAGES + BESIDES, "a second one lists {second:?}");

    let world = World::new(Arc::new(SystemClock));
    world.put_all(Duration::from_secs(600)).await;
    let mut maintainer = Maintainer::new(world.store.clone(), options);
    let report = maintainer.round().await.expect("it is in memory");
    assert!(report.compaction.committed > 1 && report.compaction.segments_left == 0, "all are due: {report:?}");
    let first = world.lists();
    assert!(first.len() <= PAGES + BESIDES + SWEEP + START, "{} jobs take {first:?}", report.compaction.committed);
}
