//! What the store counts, and the wrapper that counts it: requests are the bill.
//!
//! [`Metered`] stands directly around the real store, inside of all retries, so each attempt counts once by what it did and how it
//! ended. A future that is dropped (a hedge that lost, a query that was cancelled) counts as `abandoned`, or as `unanswered` where the store
//! had said nothing for as long as the shortest time-out lasts: the provider may charge for it all the same. A listing counts a request for each thousand keys, which is the page of S3, GCS and MinIO; the
//! trait does not show pages. No label ever carries a user's value.
//!
//! Each request is a span, too, of the target `afterglow_spans` under the span it is made in: what it did with which key, how it ended, and the
//! bytes of its body. Where no collector is told, none is made.

use std::fmt::{self, Write as _};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;
use tracing::{Span, field};

use crate::bill::Bill;
use crate::commit::log::Appended;
use crate::fault::Fault;

/// The keys of one page of a listing.
const LIST_PAGE_KEYS: u64 = 1_000;

/// Buckets for durations: from a local write to the longest deadline of a read, with the steps at which deadlines are set.
const DURATION_BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0];

/// After how long without an answer it is the store that hangs, not the caller who lost patience: just before the shortest time-out of an
/// attempt, that of a put.
const UNANSWERED_AFTER: Duration = Duration::from_millis(1_400);

/// What a request did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Put,
    Create,
    Update,
    Get,
    Head,
    List,
    Delete,
    Copy,
    Multipart,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outcome {
    Ok,
    NotFound,
    Conflict,
    Denied,
    Throttled,
    Failed,
    Abandoned,
    Unanswered,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Create => "create",
            Self::Update => "update",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Copy => "copy",
            Self::Multipart => "multipart",
        }
    }
}

impl EncodeLabelValue for Operation {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.name())
    }
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
            Self::Unanswered => "unanswered",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    operation: Operation,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Doing {
    operation: Operation,
}

/// The metrics of this crate; clones count into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<Request, Counter>,
    durations: Family<Doing, Histogram, fn() -> Histogram>,
    sent: Family<Doing, Counter>,
    received: Family<Doing, Counter>,
    /// Attempts of a put beyond its first because one failed.
    pub(crate) put_retries: Counter,
    /// Attempts of a put beyond its first because one was slow.
    pub(crate) put_hedges: Counter,
    /// Attempts of a put that the retry budget did not allow.
    pub(crate) put_budget_refusals: Counter,
    /// Attempts of a read beyond its first.
    pub(crate) read_retries: Counter,
    /// Reads that were made a second time because the first took longer than nearly all others.
    pub(crate) read_hedges: Counter,
    /// Those of them whose answer came first.
    pub(crate) read_hedges_won: Counter,
    /// Reads that were slow and that the budget did not allow to make a second time.
    pub(crate) read_hedge_refusals: Counter,
    /// Listings of the catalog that asked for all keys.
    pub(crate) lists_full: Counter,
    /// Listings of the catalog that asked for new keys.
    pub(crate) lists_incremental: Counter,
    /// Blocks that the catalog opened for the first time.
    pub(crate) blocks_opened: Counter,
    /// Blocks that the catalog had to open again because its cache had dropped them.
    pub(crate) blocks_reopened: Counter,
    /// Blocks that the cache of opened ones had.
    pub(crate) blocks_found: Counter,
    /// The bytes that the cache of opened blocks holds.
    pub(crate) blocks_bytes: Gauge,
    /// What it may hold.
    pub(crate) blocks_bytes_max: Gauge,
    /// Parts of blocks that a cache had.
    pub(crate) ranges_found: Counter,
    /// Parts of blocks that a cache did not have.
    pub(crate) ranges_missed: Counter,
    /// The bytes that a cache of parts of blocks holds.
    pub(crate) ranges_bytes: Gauge,
    /// What it may hold.
    pub(crate) ranges_bytes_max: Gauge,
    /// Parts of blocks that were on disk.
    pub(crate) disk_found: Counter,
    /// Parts of blocks that were not on disk, or damaged.
    pub(crate) disk_missed: Counter,
    /// Parts of blocks that were damaged on disk.
    pub(crate) disk_damaged: Counter,
    /// Reads and writes of parts of blocks that the disk refused.
    pub(crate) disk_failed: Counter,
    /// The bytes that parts of blocks take on disk.
    pub(crate) disk_bytes: Gauge,
    /// What they may take.
    pub(crate) disk_bytes_max: Gauge,
    /// Symbol tables and sums that were decoded already.
    pub(crate) decoded_found: Counter,
    /// Symbol tables and sums that had to be decoded.
    pub(crate) decoded_missed: Counter,
    /// The bytes that decoded symbol tables and sums take.
    pub(crate) decoded_bytes: Gauge,
    /// What they may take.
    pub(crate) decoded_bytes_max: Gauge,
    /// Blocks that the catalog could not read.
    pub(crate) blocks_damaged: Counter,
    /// Segments that the catalogs hold.
    pub(crate) segments: Gauge,
    /// Segments that a catalog takes of one tenant.
    pub(crate) segments_max: Gauge,
    /// Compacted blocks that the catalogs know as live.
    pub(crate) live_blocks: Gauge,
    /// Profiles that a second segment held too.
    pub(crate) duplicates: Counter,
    /// Profiles whose id another profile had before.
    pub(crate) conflicts: Counter,
    commits: Family<Commit, Counter>,
    /// Snapshots of the state that were written.
    pub(crate) snapshots_written: Counter,
}

/// How an attempt to make a commit ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Commit {
    outcome: &'static str,
}

impl Default for Metrics {
    /// Makes metrics that nobody sees.
    fn default() -> Self {
        Self::new(&mut Registry::default())
    }
}

impl Metrics {
    /// Makes the metrics and registers them: call it once for a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            sent: Family::default(),
            received: Family::default(),
            put_retries: Counter::default(),
            put_hedges: Counter::default(),
            put_budget_refusals: Counter::default(),
            read_retries: Counter::default(),
            read_hedges: Counter::default(),
            read_hedges_won: Counter::default(),
            read_hedge_refusals: Counter::default(),
            lists_full: Counter::default(),
            lists_incremental: Counter::default(),
            blocks_opened: Counter::default(),
            blocks_reopened: Counter::default(),
            blocks_found: Counter::default(),
            blocks_bytes: Gauge::default(),
            blocks_bytes_max: Gauge::default(),
            ranges_found: Counter::default(),
            ranges_missed: Counter::default(),
            ranges_bytes: Gauge::default(),
            ranges_bytes_max: Gauge::default(),
            disk_found: Counter::default(),
            disk_missed: Counter::default(),
            disk_damaged: Counter::default(),
            disk_failed: Counter::default(),
            disk_bytes: Gauge::default(),
            disk_bytes_max: Gauge::default(),
            decoded_found: Counter::default(),
            decoded_missed: Counter::default(),
            decoded_bytes: Gauge::default(),
            decoded_bytes_max: Gauge::default(),
            blocks_damaged: Counter::default(),
            segments: Gauge::default(),
            segments_max: Gauge::default(),
            duplicates: Counter::default(),
            live_blocks: Gauge::default(),
            conflicts: Counter::default(),
            commits: Family::default(),
            snapshots_written: Counter::default(),
        };
        let m = &metrics;
        let store = registry.sub_registry_with_prefix("afterglow_store");
        store.register(
            "requests",
            "Requests to the object store by what they did and how they ended: ok, not_found, conflict, denied, throttled, failed, \
             abandoned (nobody waited any more), unanswered (nor did the store say anything for 1.4 s)",
            m.requests.clone(),
        );
        let help = "Time until the answer, or until the first byte of one with a body";
        store.register_with_unit("request_duration", help, Unit::Seconds, m.durations.clone());
        store.register_with_unit("sent", "Bodies sent to the object store", Unit::Bytes, m.sent.clone());
        store.register_with_unit("received", "Bodies received from the object store", Unit::Bytes, m.received.clone());
        store.register("put_retries", "Attempts of a put after one that failed", m.put_retries.clone());
        store.register("put_hedges", "Attempts of a put beside one that was slow", m.put_hedges.clone());
        let help = "Attempts of a put that the retry budget did not allow";
        store.register("put_budget_refusals", help, m.put_budget_refusals.clone());
        store.register("read_retries", "Attempts of a read after one that failed", m.read_retries.clone());
        store.register("read_hedges", "Attempts of a read beside one that was slow", m.read_hedges.clone());
        let help = "Attempts of a read beside one that was slow which answered first";
        store.register("read_hedges_won", help, m.read_hedges_won.clone());
        let help = "Reads that were slow, but for which the budget allowed no second attempt";
        store.register("read_hedge_refusals", help, m.read_hedge_refusals.clone());
        let catalog = registry.sub_registry_with_prefix("afterglow_catalog");
        catalog.register("lists_full", "Listings of all segments", m.lists_full.clone());
        catalog.register("lists_incremental", "Listings of the newest segments", m.lists_incremental.clone());
        catalog.register("blocks_opened", "Blocks opened for the first time", m.blocks_opened.clone());
        catalog.register(
            "blocks_reopened",
            "Blocks opened again after the cache dropped them",
            m.blocks_reopened.clone(),
        );
        catalog.register("blocks_damaged", "Blocks that could not be read", m.blocks_damaged.clone());
        catalog.register("segments", "Segments known", m.segments.clone());
        let help = "Segments of one tenant beyond which its questions are refused, because compaction is behind or off";
        catalog.register("segments_limit", help, m.segments_max.clone());
        catalog.register("live_blocks", "Compacted blocks known", m.live_blocks.clone());
        catalog.register("duplicate_profiles", "Profiles that a second segment held too", m.duplicates.clone());
        catalog.register("conflicting_profiles", "Profiles whose id named another profile before", m.conflicts.clone());
        let cache = registry.sub_registry_with_prefix("afterglow_block_cache");
        cache.register("hits", "Blocks that were open already", m.blocks_found.clone());
        let help = "Memory that opened blocks take";
        cache.register_with_unit("memory", help, Unit::Bytes, m.blocks_bytes.clone());
        let help = "Memory that they may take (--query.cache)";
        cache.register_with_unit("limit", help, Unit::Bytes, m.blocks_bytes_max.clone());
        let cache = registry.sub_registry_with_prefix("afterglow_range_cache");
        cache.register("hits", "Parts of blocks that were in memory", m.ranges_found.clone());
        cache.register("misses", "Parts of blocks that had to be read", m.ranges_missed.clone());
        let help = "Memory that parts of blocks take";
        cache.register_with_unit("memory", help, Unit::Bytes, m.ranges_bytes.clone());
        let help = "Memory that they may take (--query.range-cache)";
        cache.register_with_unit("limit", help, Unit::Bytes, m.ranges_bytes_max.clone());
        let cache = registry.sub_registry_with_prefix("afterglow_disk_cache");
        cache.register("hits", "Parts of blocks that were on disk", m.disk_found.clone());
        cache.register("misses", "Parts of blocks that were not on disk, or damaged there", m.disk_missed.clone());
        cache.register("damaged", "Parts of blocks that were damaged on disk", m.disk_damaged.clone());
        let help = "Reads and writes of parts of blocks that the disk refused";
        cache.register("failures", help, m.disk_failed.clone());
        cache.register_with_unit("used", "Disk that parts of blocks take", Unit::Bytes, m.disk_bytes.clone());
        let help = "Disk that they may take (--query.disk-cache-bytes); 0 without --query.disk-cache-dir";
        cache.register_with_unit("limit", help, Unit::Bytes, m.disk_bytes_max.clone());
        let cache = registry.sub_registry_with_prefix("afterglow_decoded_cache");
        cache.register("hits", "Symbol tables and sums that were decoded already", m.decoded_found.clone());
        cache.register("misses", "Symbol tables and sums that had to be decoded", m.decoded_missed.clone());
        let help = "Memory that decoded symbol tables and sums take";
        cache.register_with_unit("memory", help, Unit::Bytes, m.decoded_bytes.clone());
        let help = "Memory that they may take (--query.decoded-cache)";
        cache.register_with_unit("limit", help, Unit::Bytes, m.decoded_bytes_max.clone());
        let commit = registry.sub_registry_with_prefix("afterglow_commit");
        commit.register("attempts", "Attempts to make a commit by how they ended", m.commits.clone());
        commit.register("snapshots_written", "Snapshots of the live blocks written", m.snapshots_written.clone());
        m.begin_at_zero();
        metrics
    }

    /// Shows series before there is anything to count: what begins at 1 is no rise to whoever watches, and a family without series is not shown.
    fn begin_at_zero(&self) {
        for operation in ALL_OPERATIONS {
            drop(self.requests.get_or_create(&Request { operation, outcome: Outcome::Ok }));
            drop(self.durations.get_or_create(&Doing { operation }));
        }
        drop(self.sent.get_or_create(&Doing { operation: Operation::Put }));
        drop(self.received.get_or_create(&Doing { operation: Operation::Get }));
        for outcome in ["committed", "rejected", "unknown", "failed"] {
            drop(self.commits.get_or_create(&Commit { outcome }));
        }
    }

    /// Returns how many requests were made to the store, whatever came of them: the figure on the bill.
    pub fn requests(&self) -> u64 {
        ALL_OPERATIONS
            .iter()
            .flat_map(|operation| ALL_OUTCOMES.map(|outcome| Request { operation: *operation, outcome }))
            .filter_map(|request| self.requests.get(&request).map(|counter| counter.get()))
            .sum()
    }

    /// Counts an attempt to make a commit.
    pub(crate) fn count_commit(&self, appended: &Appended) {
        let outcome = match appended {
            Appended::Committed => "committed",
            Appended::Rejected => "rejected",
            Appended::Unknown(_) => "unknown",
            Appended::Failed(_) => "failed",
        };
        self.commits.get_or_create(&Commit { outcome }).inc();
    }

    fn finish(&self, operation: Operation, outcome: Outcome, bill: Option<&Bill>) {
        if let Some(bill) = bill {
            bill.add_request();
        }
        self.requests.get_or_create(&Request { operation, outcome }).inc();
    }
}

const ALL_OPERATIONS: [Operation; 9] = [
    Operation::Put,
    Operation::Create,
    Operation::Update,
    Operation::Get,
    Operation::Head,
    Operation::List,
    Operation::Delete,
    Operation::Copy,
    Operation::Multipart,
];

const ALL_OUTCOMES: [Outcome; 8] = [
    Outcome::Ok,
    Outcome::NotFound,
    Outcome::Conflict,
    Outcome::Denied,
    Outcome::Throttled,
    Outcome::Failed,
    Outcome::Abandoned,
    Outcome::Unanswered,
];

impl Outcome {
    fn of<T>(result: &object_store::Result<T>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(error) => match Fault::of(error) {
                Fault::NotFound => Self::NotFound,
                Fault::Conflict => Self::Conflict,
                Fault::Denied => Self::Denied,
                Fault::Throttled => Self::Throttled,
                Fault::Refused | Fault::Unreachable | Fault::Ambiguous => Self::Failed,
            },
        }
    }
}

/// Makes the span of a request.
fn span(operation: Operation, key: &dyn fmt::Display) -> Span {
    tracing::info_span!(
        target: "afterglow_spans",
        "store",
        otel.name = format_args!("store {}", operation.name()),
        otel.kind = "client",
        otel.status_code = field::Empty,
        operation = operation.name(),
        key = %key,
        outcome = field::Empty,
        bytes = field::Empty,
    )
}

/// Notes how a request ended.
fn record(span: &Span, outcome: Outcome) {
    span.record("outcome", outcome.name());
    // What is not there, or is there already, is an answer.
    if matches!(outcome, Outcome::Denied | Outcome::Throttled | Outcome::Failed | Outcome::Unanswered) {
        span.record("otel.status_code", "ERROR");
    }
}

/// A request that is under way; dropping it before [`Pending::end`] counts it as abandoned, or as unanswered after a while.
struct Pending {
    metrics: Metrics,
    span: Span,
    operation: Operation,
    /// That of the question it is made for.
    bill: Option<Bill>,
    began: Instant,
    ended: bool,
}

impl Pending {
    fn begin(metrics: &Metrics, operation: Operation, key: &dyn fmt::Display) -> Self {
        let span = span(operation, key);
        Self { metrics: metrics.clone(), span, operation, bill: Bill::current(), began: Instant::now(), ended: false }
    }

    fn end<T>(mut self, result: &object_store::Result<T>) {
        self.ended = true;
        let outcome = Outcome::of(result);
        record(&self.span, outcome);
        self.metrics.finish(self.operation, outcome, self.bill.as_ref());
        let doing = Doing { operation: self.operation };
        self.metrics.durations.get_or_create(&doing).observe(self.began.elapsed().as_secs_f64());
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.ended {
            let outcome =
                if self.began.elapsed() < UNANSWERED_AFTER { Outcome::Abandoned } else { Outcome::Unanswered };
            record(&self.span, outcome);
            self.metrics.finish(self.operation, outcome, self.bill.as_ref());
        }
    }
}

/// The body of an answer on its way; its span ends with it.
struct Receiving {
    span: Span,
    received: Counter,
    bill: Option<Bill>,
    bytes: u64,
}

// === impl Receiving ===

impl Receiving {
    fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.received.inc_by(bytes);
        if let Some(bill) = &self.bill {
            bill.add_bytes(bytes);
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.span.record("bytes", self.bytes);
    }
}

// === impl Metered ===

/// Counts what is asked of the store within.
#[derive(Clone, Debug)]
pub(crate) struct Metered<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Metered<S> {
    pub(crate) fn new(inner: S, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }

    fn list_counted(
        &self,
        prefix: Option<&Path>,
        list: BoxStream<'static, object_store::Result<ObjectMeta>>,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let pending = Pending::begin(&self.metrics, Operation::List, prefix.unwrap_or(&Path::ROOT));
        let state = (list, Some(pending), 0u64, self.metrics.clone());
        futures::stream::unfold(state, |(mut list, mut pending, mut keys, metrics)| async move {
            let item = list.next().await;
            match &item {
                Some(Ok(_)) => {
                    keys += 1;
                    if keys > LIST_PAGE_KEYS && keys % LIST_PAGE_KEYS == 1 {
                        metrics.finish(Operation::List, Outcome::Ok, Bill::current().as_ref());
                    }
                }
                Some(failed) => {
                    if let Some(pending) = pending.take() {
                        pending.end(failed);
                    }
                }
                None => {
                    if let Some(pending) = pending.take() {
                        pending.end(&Ok(()));
                    }
                }
            }
            item.map(|item| (item, (list, pending, keys, metrics)))
        })
        .boxed()
    }
}

impl<S: fmt::Display> fmt::Display for Metered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Metered<S> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let operation = match options.mode {
            PutMode::Overwrite => Operation::Put,
            PutMode::Create => Operation::Create,
            PutMode::Update(_) => Operation::Update,
        };
        let bytes = payload.content_length() as u64;
        self.metrics.sent.get_or_create(&Doing { operation }).inc_by(bytes);
        let pending = Pending::begin(&self.metrics, operation, location);
        pending.span.record("bytes", bytes);
        let result = self.inner.put_opts(location, payload, options).await;
        pending.end(&result);
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let pending = Pending::begin(&self.metrics, Operation::Multipart, location);
        let result = self.inner.put_multipart_opts(location, options).await;
        pending.end(&result);
        result
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let pending = Pending::begin(&self.metrics, operation, location);
        let span = pending.span.clone();
        let result = self.inner.get_opts(location, options).await;
        pending.end(&result);
        let mut result = result?;
        if operation == Operation::Get {
            let received = self.metrics.received.get_or_create_owned(&Doing { operation });
            let bill = Bill::current();
            if let Some(bill) = &bill {
                bill.add_object(location);
            }
            let mut receiving = Receiving { span, received, bill, bytes: 0 };
            match result.payload {
                GetResultPayload::File(..) => receiving.count(result.range.end - result.range.start),
                GetResultPayload::Stream(body) => {
                    let counted = body.inspect(move |chunk| {
                        if let Ok(chunk) = chunk {
                            receiving.count(chunk.len() as u64);
                        }
                    });
                    result.payload = GetResultPayload::Stream(counted.boxed());
                }
            }
        }
        Ok(result)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let metrics = self.metrics.clone();
        let parent = Span::current();
        let count = move |result: &object_store::Result<Path>| {
            // When it was sent is not seen: a provider may delete many by one request.
            let outcome = Outcome::of(result);
            if let Ok(key) = result {
                parent.in_scope(|| record(&span(Operation::Delete, key), outcome));
            }
            metrics.finish(Operation::Delete, outcome, Bill::current().as_ref());
        };
        self.inner.delete_stream(locations).inspect(count).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.list_counted(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.list_counted(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let pending = Pending::begin(&self.metrics, Operation::List, prefix.unwrap_or(&Path::ROOT));
        let result = self.inner.list_with_delimiter(prefix).await;
        pending.end(&result);
        result
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        let pending = Pending::begin(&self.metrics, Operation::Copy, to);
        let result = self.inner.copy_opts(from, to, options).await;
        pending.end(&result);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::testing::faults::{Faulty, Operation as Kind, Trouble};
    use crate::{patient, put};

    #[tokio::test]
    async fn requests_are_counted_by_what_they_did_and_how_they_ended() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let faulty = Faulty::new(Arc::new(InMemory::new()));
        let metered = Metered::new(faulty.clone(), metrics.clone());
        let path = Path::from("x");
        metered.put(&path, PutPayload::from_static(b"12345")).await.expect("memory works");
        metered.get(&path).await.expect("memory works").bytes().await.expect("memory works");
        assert!(metered.get(&Path::from("y")).await.is_err());
        assert!(metered.put_opts(&path, PutPayload::new(), PutMode::Create.into()).await.is_err());
        faulty.script(Kind::Put, [Trouble::Refuse(503), Trouble::Refuse(403), Trouble::LoseAnswer, Trouble::Stall]);
        for _ in 0..3 {
            assert!(metered.put(&path, PutPayload::new()).await.is_err());
        }
        let stalled = metered.put(&path, PutPayload::new());
        assert!(tokio::time::timeout(Duration::from_millis(1), stalled).await.is_err());
        metered.list(None).try_collect::<Vec<_>>().await.expect("memory works");
        metered.delete(&path).await.expect("memory works");
        let mut text = String::new();
        encode(&mut text, &registry).expect("the metrics have a text");
        for line in [
            r#"afterglow_store_requests_total{operation="put",outcome="ok"} 1"#,
            r#"afterglow_store_requests_total{operation="put",outcome="throttled"} 1"#,
            r#"afterglow_store_requests_total{operation="put",outcome="denied"} 1"#,
            r#"afterglow_store_requests_total{operation="put",outcome="failed"} 1"#,
            r#"afterglow_store_requests_total{operation="put",outcome="abandoned"} 1"#,
            r#"afterglow_store_requests_total{operation="create",outcome="conflict"} 1"#,
            r#"afterglow_store_requests_total{operation="get",outcome="ok"} 1"#,
            r#"afterglow_store_requests_total{operation="get",outcome="not_found"} 1"#,
            r#"afterglow_store_requests_total{operation="list",outcome="ok"} 1"#,
            r#"afterglow_store_requests_total{operation="delete",outcome="ok"} 1"#,
            r#"afterglow_store_sent_bytes_total{operation="put"} 5"#,
            r#"afterglow_store_received_bytes_total{operation="get"} 5"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(metrics.requests(), 10);
    }

    /// Goal: a store that hangs is told from callers who lose patience, whoever gives up the request.
    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_does_not_answer() {
        for attempt in [put::Policy::default().attempt_timeout, patient::Policy::default().attempt_timeout] {
            assert!(UNANSWERED_AFTER < attempt, "{attempt:?}");
        }
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let faulty = Faulty::new(Arc::new(InMemory::new()));
        let metered = Metered::new(faulty.clone(), metrics.clone());
        faulty.always(Kind::Put, Trouble::Stall);
        let path = Path::from("x");
        for millis in [1_000, 1_500, 5_000] {
            let put = metered.put(&path, PutPayload::new());
            assert!(tokio::time::timeout(Duration::from_millis(millis), put).await.is_err());
        }
        let mut text = String::new();
        encode(&mut text, &registry).expect("the metrics have a text");
        for line in [
            r#"afterglow_store_requests_total{operation="put",outcome="abandoned"} 1"#,
            r#"afterglow_store_requests_total{operation="put",outcome="unanswered"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(metrics.requests(), 3);
    }

    #[tokio::test]
    async fn a_listing_counts_its_pages() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let count = async |keys: usize| {
            for key in 0..keys {
                inner.put(&Path::from(format!("{key:05}")), PutPayload::new()).await.expect("memory works");
            }
            let metrics = Metrics::default();
            let metered = Metered::new(Arc::clone(&inner), metrics.clone());
            metered.list(None).try_collect::<Vec<_>>().await.expect("memory works");
            metrics.requests()
        };
        assert_eq!([count(0).await, count(1).await, count(1_000).await], [1, 1, 1]);
        assert_eq!([count(1_001).await, count(2_000).await, count(2_001).await], [2, 2, 3]);
    }
}
