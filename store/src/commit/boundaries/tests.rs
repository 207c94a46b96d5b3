//! An ingester and a maintainer with a store each over one bucket, as two processes have them, and as one has.

use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use tokio::time::{Instant, sleep};

use super::*;
use crate::StoreOptions;
use crate::commit::boundary::NAMES_ABOVE;
use crate::commit::{Commits, Draft, Outcome, Reason, SNAPSHOT_EVERY};
use crate::put::{Cause, PutError};
use crate::testing::faults::{Faulty, Operation, Trouble};
use crate::testing::time::PausedClock;

const HOUR: u64 = 3_600_000;

struct Process {
    faulty: Faulty,
    store: Store,
    clock: Arc<PausedClock>,
}

fn process(bucket: &Arc<InMemory>, boundaries: Boundaries) -> Process {
    let faulty = Faulty::new(Arc::clone(bucket) as _);
    let clock = Arc::new(PausedClock::new());
    let options = StoreOptions { clock: clock.clone(), boundaries, ..StoreOptions::default() };
    Process { store: Store::new(Arc::new(faulty.clone()), "bucket".to_owned(), options), faulty, clock }
}

/// A maintainer, and an ingester that does nothing else.
fn apart() -> (Process, Process) {
    let bucket = Arc::new(InMemory::new());
    (process(&bucket, Boundaries::default()), process(&bucket, Boundaries::default()))
}

impl Process {
    async fn move_boundary(&self, commits: &Commits, millis: u64) {
        let base = commits.refresh().await.expect("memory works").number();
        let (adds, removes) = (Vec::new(), Vec::new());
        let draft = Draft { base, reason: Reason::Garbage, adds, removes, boundary: Some(millis) };
        let outcome = commits.commit(draft, async |_, _| true).await.expect("memory works");
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    }

    fn commits(&self, tenant: &TenantId) -> Commits {
        Commits::new(self.store.clone(), tenant.clone())
    }

    /// Writes a segment and returns the time in its name.
    async fn put(&self, tenant: &TenantId) -> Result<u64, PutError> {
        let deadline = Instant::now() + Duration::from_secs(5);
        Ok(self.store.put_segment(tenant, Bytes::from_static(b"segment"), deadline).await?.name.millis())
    }

    fn reads(&self) -> usize {
        [Operation::List, Operation::Get].map(|operation| self.faulty.count(operation)).iter().sum()
    }
}

/// Goal: an ingester whose clock is days behind names its first segment above a boundary that another process made, and the next ones
/// above where that one has moved it since.
#[tokio::test(start_paused = true)]
async fn a_writer_that_reads_no_commits_names_segments_above_the_boundary() {
    let (maintainer, ingester) = apart();
    let tenant = TenantId::anonymous();
    let commits = maintainer.commits(&tenant);
    let boundary = maintainer.store.clock().unix_millis() - 24 * HOUR;
    maintainer.move_boundary(&commits, boundary).await;
    ingester.clock.leap(-72 * HOUR as i64);
    let above = NAMES_ABOVE.as_millis() as u64;
    assert_eq!(ingester.put(&tenant).await.expect("it is known"), boundary + above);
    maintainer.move_boundary(&commits, boundary + 4 * HOUR).await;
    assert_eq!(ingester.put(&tenant).await.expect("it is known"), boundary + above, "above it all the same");
    sleep(AGE_ASKED).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(ingester.put(&tenant).await.expect("it is known"), boundary + 4 * HOUR + above);
}

/// Goal: it is found behind snapshots as well, and one that is damaged does not hide it.
#[tokio::test(start_paused = true)]
async fn a_snapshot_spares_the_commits_before_it() {
    let (maintainer, ingester) = apart();
    let tenant = TenantId::anonymous();
    let commits = maintainer.commits(&tenant);
    let beginning = maintainer.store.clock().unix_millis() - 500 * HOUR;
    for n in 0..2 * SNAPSHOT_EVERY + 3 {
        maintainer.move_boundary(&commits, beginning + n).await;
    }
    let known = || async { ingester.store.boundary(&tenant).await };
    assert_eq!(known().await.expect("it is known"), beginning + 2 * SNAPSHOT_EVERY + 2);
    assert!(ingester.faulty.count(Operation::Get) <= 8, "{}", ingester.faulty.count(Operation::Get));
    // Another, to whom the newest snapshot comes damaged.
    let other = process(&Arc::new(InMemory::new()), Boundaries::default());
    for key in maintainer.faulty.keys(Operation::Create).into_iter().chain(maintainer.faulty.keys(Operation::Put)) {
        let mut bytes = get(&maintainer, &key).await;
        if key == tenant.snapshot(2 * SNAPSHOT_EVERY) {
            bytes.truncate(bytes.len() - 1);
        }
        object_store::ObjectStoreExt::put(&other.faulty, &key, bytes.into()).await.expect("memory works");
    }
    assert_eq!(other.store.boundary(&tenant).await.expect("commits say it"), beginning + 2 * SNAPSHOT_EVERY + 2);
}

async fn get(process: &Process, key: &object_store::path::Path) -> Vec<u8> {
    let found = object_store::ObjectStoreExt::get(&process.faulty, key).await.expect("memory works");
    found.bytes().await.expect("memory works").to_vec()
}

/// Goal: what cannot be learned is not acknowledged past; a hiccup refuses nothing.
#[tokio::test(start_paused = true)]
async fn a_writer_that_cannot_learn_the_boundary_acknowledges_nothing() {
    let (_, ingester) = apart();
    let (tenant, other) = (TenantId::anonymous(), "b".parse::<TenantId>().expect("valid"));
    ingester.put(&tenant).await.expect("there is none");
    let all = |trouble| [Operation::Get, Operation::List].map(|read| ingester.faulty.always(read, trouble));
    all(Trouble::Refuse(500));
    let error = ingester.put(&other).await.expect_err("nothing is known of it");
    assert!(
        matches!(error, PutError::Failed { attempts: 0, source: Cause::Boundary(_) | Cause::TooLate, .. }),
        "{error:?}"
    );
    sleep(AGE_ASKED + Duration::from_secs(1)).await;
    ingester.put(&tenant).await.expect("what is known will do for a while");
    sleep(AGE_MAX - AGE_ASKED).await;
    let error = ingester.put(&tenant).await.expect_err("it is too old");
    assert!(matches!(error, PutError::Failed { attempts: 0, .. }), "{error:?}");
    all(Trouble::None);
    ingester.put(&tenant).await.expect("it can be read again");
    // A clock that leaps makes all that is known old.
    all(Trouble::Refuse(500));
    ingester.clock.leap(-2 * HOUR as i64);
    ingester.put(&tenant).await.expect_err("nobody knows how old it is");
    // Who may not read at all has always written.
    all(Trouble::Refuse(403));
    ingester.put(&tenant).await.expect("it follows its clock");
}

/// Goal: what it costs is about nothing: of a thousand flushes two reads and what was committed meanwhile, and none where the process
/// maintains the bucket.
#[tokio::test(start_paused = true)]
async fn a_thousand_flushes_cost_hardly_a_read() {
    let (_, ingester) = apart();
    let tenant = TenantId::anonymous();
    for _ in 0..1_000 {
        ingester.put(&tenant).await.expect("memory works");
        sleep(Duration::from_millis(250)).await;
    }
    assert_eq!((ingester.faulty.count(Operation::Put), ingester.reads()), (1_000, 2));

    let bucket = Arc::new(InMemory::new());
    let boundaries = Boundaries::default();
    let (maintainer, ingester) = (process(&bucket, boundaries.clone()), process(&bucket, boundaries));
    let commits = maintainer.commits(&tenant);
    for _ in 0..100 {
        commits.refresh().await.expect("memory works");
        ingester.put(&tenant).await.expect("memory works");
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!((ingester.faulty.count(Operation::Put), ingester.reads()), (100, 0));
}
