//! What one question asks of the store. The [`metrics`](crate::metrics) know everything together; a [`Bill`] knows its question alone.
//!
//! A bill hangs on the task that works for the question ([`Bill::charge`]); whoever hands work to another task takes it along
//! ([`carried`]). Requests, ranges and caches note themselves in the bill of the task that they find themselves in, and in none where there
//! is none, which costs a look at a thread-local a request. What several questions wait for at once is on the bill of the one that began it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::path::Path;
use tokio::task_local;

task_local! {
    static BILL: Option<Bill>;
}

/// What one question asks of the store; clones note in the same.
#[derive(Clone, Debug, Default)]
pub struct Bill(Arc<Items>);

#[derive(Debug, Default)]
struct Items {
    requests: AtomicU64,
    bytes: AtomicU64,
    objects: Mutex<HashSet<Path>>,
    ranges: AtomicU64,
    ranges_cached: AtomicU64,
    blocks: AtomicU64,
    blocks_cached: AtomicU64,
    waited_nanos: AtomicU64,
}

/// The sums of a bill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Requests to the store, each attempt and each page of a listing.
    pub requests: u64,
    /// Bytes that came back as bodies.
    pub bytes: u64,
    /// Objects of which something was read from the store.
    pub objects: u64,
    /// Parts of blocks that were needed: symbol tables, and samples.
    pub ranges: u64,
    /// Those of them that were in memory.
    pub ranges_cached: u64,
    /// Blocks whose rows were needed.
    pub blocks: u64,
    /// Those of them that were open already.
    pub blocks_cached: u64,
    /// How long was waited for ranges; waits beside each other are added.
    pub waited: Duration,
}

// === impl Bill ===

impl Bill {
    /// Does `work` on this bill.
    pub async fn charge<F: Future>(&self, work: F) -> F::Output {
        BILL.scope(Some(self.clone()), work).await
    }

    /// Returns the bill of this task, if it has one.
    pub(crate) fn current() -> Option<Self> {
        BILL.try_with(Clone::clone).ok().flatten()
    }

    /// Returns what is on it so far.
    pub fn sums(&self) -> Sums {
        let Items { requests, bytes, objects, ranges, ranges_cached, blocks, blocks_cached, waited_nanos } = &*self.0;
        let read = |item: &AtomicU64| item.load(Ordering::Relaxed);
        Sums {
            requests: read(requests),
            bytes: read(bytes),
            objects: objects.lock().unwrap_or_else(PoisonError::into_inner).len() as u64,
            ranges: read(ranges),
            ranges_cached: read(ranges_cached),
            blocks: read(blocks),
            blocks_cached: read(blocks_cached),
            waited: Duration::from_nanos(read(waited_nanos)),
        }
    }

    pub(crate) fn add_request(&self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_object(&self, path: &Path) {
        self.0.objects.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
    }

    pub(crate) fn add_ranges(&self, ranges: usize, cached: usize, waited: Duration) {
        self.0.ranges.fetch_add(ranges as u64, Ordering::Relaxed);
        self.0.ranges_cached.fetch_add(cached as u64, Ordering::Relaxed);
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.0.waited_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn add_block(&self, is_cached: bool) {
        self.0.blocks.fetch_add(1, Ordering::Relaxed);
        self.0.blocks_cached.fetch_add(u64::from(is_cached), Ordering::Relaxed);
    }
}

/// Takes the bill of this task along, to wherever the future that is returned is driven.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    BILL.scope(Bill::current(), work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_handed_to_another_task_is_on_the_same_bill() {
        let bill = Bill::default();
        let work = async {
            Bill::current().expect("charged").add_request();
            let elsewhere = async { Bill::current().expect("carried").add_ranges(3, 2, Duration::from_millis(1)) };
            tokio::spawn(carried(elsewhere)).await.unwrap();
        };
        bill.charge(work).await;
        let expected =
            Sums { requests: 1, ranges: 3, ranges_cached: 2, waited: Duration::from_millis(1), ..Sums::default() };
        assert_eq!(bill.sums(), expected);
        assert!(Bill::current().is_none());
        assert!(carried(async { Bill::current().is_none() }).await, "there is none to carry");
    }
}
