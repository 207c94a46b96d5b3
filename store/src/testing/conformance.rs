//! What Afterglow asks of an object store, as one suite to run against any.
//!
//! **It deletes everything under the prefix it is given, before and after.** Each rule below is one that code in this crate relies
//! on; a store that breaks one would lose or hide profiles, so the suite panics with the rule's name. What stores are free to
//! differ in is left open: whether deleting a missing object is an error, and (see [`Order`]) in which order keys are listed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::commit::log::{Appended, Log, Nonce};
use crate::paths::TenantId;
use crate::{Store, StoreOptions};

/// How many writers race to create one object.
const RACING: usize = 16;
/// How often they do.
const ROUNDS: usize = 8;
/// More keys than one page of a listing holds.
const MORE_THAN_A_PAGE: usize = 1_050;
/// How many requests are under way at once where that does not matter.
const CONCURRENCY: usize = 32;

/// In which order a store lists keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By their bytes, as S3, GCS and Azure promise.
    Sorted,
    /// Any, as a file system. The catalog sorts for itself.
    Any,
}

/// Checks every rule under `prefix`, **which it clears first** and leaves empty.
///
/// # Panics
/// Where the store breaks a rule or a request fails.
pub async fn check(objects: Arc<dyn ObjectStore>, prefix: Path, order: Order) {
    tracing::warn!(store = %objects, %prefix, "the conformance suite deletes everything under the prefix");
    let suite = Suite { objects, prefix, order };
    suite.clear().await;
    suite.what_is_put_is_got().await;
    suite.ranges_are_exact().await;
    suite.what_is_missing_is_not_found().await;
    suite.an_overwrite_replaces().await;
    suite.a_listing_has_what_lies_under_its_prefix().await;
    suite.a_listing_spans_pages().await;
    suite.odd_names_stay_as_they_are().await;
    suite.a_second_create_fails().await;
    suite.of_racing_creates_one_wins().await;
    suite.of_racing_commits_one_wins().await;
    suite.clear().await;
    assert_eq!(suite.list(&suite.prefix).await, [] as [Path; 0], "what is deleted is not listed");
}

struct Suite {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    order: Order,
}

impl Suite {
    fn path(&self, rest: &str) -> Path {
        Path::parse(format!("{}/{rest}", self.prefix)).expect("the suite's keys are valid")
    }

    async fn put(&self, path: &Path, content: impl Into<Bytes>) {
        let done = self.objects.put(path, PutPayload::from_bytes(content.into())).await;
        done.unwrap_or_else(|error| panic!("put {path}: {error}"));
    }

    async fn get(&self, path: &Path) -> Bytes {
        self.range(path, None).await.unwrap_or_else(|error| panic!("get {path}: {error}"))
    }

    async fn range(&self, path: &Path, range: Option<GetRange>) -> Result<Bytes, Error> {
        self.objects.get_opts(path, GetOptions { range, ..GetOptions::default() }).await?.bytes().await
    }

    async fn create(&self, path: &Path, content: impl Into<Bytes>) -> Result<(), Error> {
        let payload = PutPayload::from_bytes(content.into());
        self.objects.put_opts(path, payload, PutOptions::from(PutMode::Create)).await.map(|_| ())
    }

    /// Lists keys in the order that the store gives them, once checked against what it promises.
    async fn list(&self, prefix: &Path) -> Vec<Path> {
        let found = self.objects.list(Some(prefix)).map_ok(|meta| meta.location).try_collect().await;
        self.in_order(found.unwrap_or_else(|error| panic!("list {prefix}: {error}")))
    }

    async fn list_after(&self, prefix: &Path, offset: &Path) -> Vec<Path> {
        let found =
            self.objects.list_with_offset(Some(prefix), offset).map_ok(|meta| meta.location).try_collect().await;
        self.in_order(found.unwrap_or_else(|error| panic!("list {prefix} after {offset}: {error}")))
    }

    fn in_order(&self, mut found: Vec<Path>) -> Vec<Path> {
        match self.order {
            Order::Sorted => assert!(found.is_sorted(), "a listing is sorted by the bytes of its keys: {found:?}"),
            Order::Any => found.sort(),
        }
        assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "a listing names each key once: {found:?}");
        found
    }

    async fn clear(&self) {
        let keys = self.list(&self.prefix).await;
        let keys = futures::stream::iter(keys.into_iter().map(Ok)).boxed();
        let deleted: Result<Vec<_>, _> = self.objects.delete_stream(keys).try_collect().await;
        deleted.unwrap_or_else(|error| panic!("delete under {}: {error}", self.prefix));
    }

    async fn what_is_put_is_got(&self) {
        for bytes in [0, 1, 65_536, 9 << 20] {
            let path = self.path(&format!("put/{bytes}"));
            let content = Bytes::from((0..bytes).map(|n: u32| (n % 251) as u8).collect::<Vec<_>>());
            self.put(&path, content.clone()).await;
            assert!(self.get(&path).await == content, "what is put is got, {bytes} bytes");
            let head = self.objects.head(&path).await.unwrap_or_else(|error| panic!("head {path}: {error}"));
            assert_eq!(head.size, u64::from(bytes), "the head tells the size");
            assert_eq!(head.location, path, "the head tells the key");
        }
    }

    async fn ranges_are_exact(&self) {
        let path = self.path("ranges");
        let content = Bytes::from((0..1_000).map(|n: u32| (n % 256) as u8).collect::<Vec<_>>());
        self.put(&path, content.clone()).await;
        for (range, expected) in [
            (GetRange::Bounded(0..1), 0..1),
            (GetRange::Bounded(10..500), 10..500),
            (GetRange::Bounded(999..1_000), 999..1_000),
            (GetRange::Bounded(900..2_000), 900..1_000),
            (GetRange::Offset(990), 990..1_000),
            (GetRange::Suffix(10), 990..1_000),
            (GetRange::Suffix(1_000), 0..1_000),
            // A block is opened by its last 64 KiB whether it is longer or not.
            (GetRange::Suffix(65_536), 0..1_000),
        ] {
            let text = format!("a range is exact: {range:?}");
            let options = GetOptions { range: Some(range), ..GetOptions::default() };
            let found = self.objects.get_opts(&path, options).await.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(found.meta.size, 1_000, "a range tells the size of the whole object");
            assert_eq!(found.range, expected.start as u64..expected.end as u64, "{text}");
            let body = found.bytes().await.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(body == content[expected], "{text}");
        }
        let several = self.objects.get_ranges(&path, &[0..3, 500..510, 2..5]).await;
        let several = several.unwrap_or_else(|error| panic!("several ranges: {error}"));
        assert_eq!(
            several,
            [content.slice(0..3), content.slice(500..510), content.slice(2..5)],
            "ranges come as asked"
        );
        let beyond = self.range(&path, Some(GetRange::Bounded(1_000..1_001))).await;
        assert!(beyond.is_err(), "a range that begins after the end is an error");
    }

    async fn what_is_missing_is_not_found(&self) {
        let path = self.path("missing");
        let is_not_found = |result: Result<(), Error>| matches!(result, Err(Error::NotFound { .. }));
        assert!(is_not_found(self.range(&path, None).await.map(|_| ())), "a missing object is not found");
        let suffix = self.range(&path, Some(GetRange::Suffix(10))).await;
        assert!(is_not_found(suffix.map(|_| ())), "the end of a missing object is not found");
        assert!(is_not_found(self.objects.head(&path).await.map(|_| ())), "the head of a missing object is not found");
        match self.objects.delete(&path).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => panic!("deleting a missing object does nothing: {error}"),
        }
        assert_eq!(self.list(&self.path("no/such/folder")).await, [] as [Path; 0], "a missing folder is empty");
    }

    async fn an_overwrite_replaces(&self) {
        let path = self.path("overwrite");
        for content in ["a long first content", "second", ""] {
            self.put(&path, content).await;
            assert_eq!(self.get(&path).await, content, "an overwrite replaces the whole object at once");
        }
        self.objects.delete(&path).await.unwrap_or_else(|error| panic!("delete {path}: {error}"));
        let gone = self.range(&path, None).await;
        assert!(matches!(gone, Err(Error::NotFound { .. })), "what is deleted is not found");
        assert!(!self.list(&self.prefix).await.contains(&path), "what is deleted is not listed");
    }

    async fn a_listing_has_what_lies_under_its_prefix(&self) {
        let inside: Vec<_> = ["list/a/1", "list/a/2", "list/a/b/3", "list/a/z"].map(|rest| self.path(rest)).into();
        let outside = ["list/aa/1", "list/a0", "list/b"].map(|rest| self.path(rest));
        for path in inside.iter().chain(&outside) {
            self.put(path, path.to_string()).await;
        }
        let folder = self.path("list/a");
        assert_eq!(self.list(&folder).await, inside, "a listing has what lies under its prefix, and nothing beside it");
        let found: Vec<_> =
            self.objects.list(Some(&folder)).try_collect().await.unwrap_or_else(|error| panic!("{error}"));
        assert!(found.iter().all(|meta| meta.size == meta.location.as_ref().len() as u64), "a listing tells sizes");
        for (offset, expected) in [
            (self.path("list/a/1"), &inside[1..]),
            (self.path("list/a/10"), &inside[1..]),
            (self.path("list/a/0"), &inside[..]),
            (self.path("list/a/z"), &[]),
        ] {
            assert_eq!(
                self.list_after(&folder, &offset).await,
                expected,
                "an offset leaves out itself and all before: {offset}"
            );
        }
    }

    async fn a_listing_spans_pages(&self) {
        let folder = self.path("pages");
        let paths: Vec<_> = (0..MORE_THAN_A_PAGE).map(|n| self.path(&format!("pages/{n:05}"))).collect();
        futures::stream::iter(&paths).for_each_concurrent(CONCURRENCY, |path| self.put(path, "x")).await;
        assert!(self.list(&folder).await == paths, "a listing has all keys, however many, as soon as they are put");
        let later = self.list_after(&folder, &paths[20]).await;
        assert!(later == paths[21..], "a listing with an offset has all keys after it, however many");
    }

    async fn odd_names_stay_as_they_are(&self) {
        let long = "x".repeat(200);
        let names =
            ["a b", "a+b=c&d", "100%", "%2e%2e", "-._!'()*", ".hidden", "größe", "日本", "a:b@c,d;e", long.as_str()];
        for name in names {
            let path = self.path(&format!("odd/{name}"));
            self.put(&path, name.to_owned()).await;
            assert_eq!(self.get(&path).await, name, "an odd name is found: {name}");
        }
        let listed: BTreeSet<_> = self.list(&self.path("odd")).await.into_iter().collect();
        let expected = names.iter().map(|name| self.path(&format!("odd/{name}"))).collect();
        assert_eq!(listed, expected, "an odd name is listed as it was put");
    }

    async fn a_second_create_fails(&self) {
        let path = self.path("create");
        self.create(&path, "first").await.unwrap_or_else(|error| panic!("create {path}: {error}"));
        let second = self.create(&path, "second").await;
        assert!(
            matches!(second, Err(Error::AlreadyExists { .. })),
            "a second create fails as AlreadyExists: {second:?}"
        );
        let same = self.create(&path, "first").await;
        assert!(
            matches!(same, Err(Error::AlreadyExists { .. })),
            "a create with the same bytes fails as well: {same:?}"
        );
        assert_eq!(self.get(&path).await, "first", "a create that fails changes nothing");
        self.objects.delete(&path).await.unwrap_or_else(|error| panic!("delete {path}: {error}"));
        self.create(&path, "third").await.unwrap_or_else(|error| panic!("create {path} after its deletion: {error}"));
    }

    async fn of_racing_creates_one_wins(&self) {
        for round in 0..ROUNDS {
            let path = self.path(&format!("race/{round}"));
            let racers = (0..RACING).map(|racer| {
                let (objects, path) = (Arc::clone(&self.objects), path.clone());
                // Each on a task of its own: they shall truly run at once.
                tokio::spawn(async move {
                    let payload = PutPayload::from(format!("racer {racer}"));
                    objects.put_opts(&path, payload, PutOptions::from(PutMode::Create)).await.map(|_| racer)
                })
            });
            let mut winners = Vec::new();
            for result in futures::future::join_all(racers).await {
                match result.expect("a racer does not panic") {
                    Ok(racer) => winners.push(racer),
                    Err(Error::AlreadyExists { .. }) => {}
                    Err(error) => panic!("a lost race is AlreadyExists: {error}"),
                }
            }
            assert_eq!(winners.len(), 1, "of racing creates one wins: {winners:?}");
            assert_eq!(self.get(&path).await, format!("racer {}", winners[0]), "the winner's content stays");
        }
    }

    /// The log of commits over this store: each number has one maker, who is told so; all others are told that they are not.
    async fn of_racing_commits_one_wins(&self) {
        let objects = Arc::new(PrefixStore::new(Arc::clone(&self.objects), self.path("log")));
        let store = Store::new(objects, "conformance".to_owned(), StoreOptions::default());
        for number in 1..=ROUNDS as u64 {
            let racers = (0..RACING).map(|racer| {
                let log = Log::new(store.clone(), TenantId::anonymous());
                let nonce = Nonce::draw(&**store.random());
                tokio::spawn(async move { (racer, log.append(number, nonce, racer.to_string().as_bytes()).await) })
            });
            let mut winners = Vec::new();
            for result in futures::future::join_all(racers).await {
                match result.expect("a racer does not panic") {
                    (racer, Appended::Committed) => winners.push(racer),
                    (_, Appended::Rejected) => {}
                    (racer, outcome) => panic!("a lost race is rejected: racer {racer} is told {outcome:?}"),
                }
            }
            assert_eq!(winners.len(), 1, "of racing commits one wins: {winners:?}");
            let found = Log::new(store.clone(), TenantId::anonymous()).read(number).await;
            let found = found.unwrap_or_else(|error| panic!("read commit {number}: {error}"));
            let found = found.unwrap_or_else(|| panic!("commit {number} is there"));
            assert_eq!(found.payload, winners[0].to_string(), "the winner's commit stays");
            assert!(found.at_millis > 0, "the store says when it took a commit");
        }
    }
}
