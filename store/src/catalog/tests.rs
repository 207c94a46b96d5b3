//! The catalog over real segments in a store that fails as told: what is found, how often the store is asked, what trouble does.

use std::collections::{BTreeMap, BTreeSet};

use afterglow_profile::{ProfileType, Selector};
use bytes::Bytes;
use futures::future::join_all;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::time::{Instant, advance, sleep};
use ulid::Ulid;

use super::*;
use crate::StoreOptions;
use crate::block::Block;
use crate::clock::{Clock, Random, SeededRandom};
use crate::paths::{SegmentKey, WriterId};
use crate::testing::faults::{Faulty, Operation, Trouble};
use crate::testing::segments::{Sent, segment};
use crate::testing::time::PausedClock;

mod compacted;

const SECOND: Duration = Duration::from_secs(1);

struct World {
    faulty: Faulty,
    clock: Arc<PausedClock>,
    store: Store,
    catalog: Catalog,
    tenant: TenantId,
}

impl World {
    fn new(options: Options) -> Self {
        let faulty = Faulty::new(Arc::new(InMemory::new()));
        let clock = Arc::new(PausedClock::new());
        let store_options =
            StoreOptions { clock: clock.clone(), random: Arc::new(SeededRandom::new(1)), ..StoreOptions::default() };
        let store = Store::new(Arc::new(faulty.clone()), "faulty".to_owned(), store_options);
        let catalog = Catalog::new(store.clone(), options);
        Self { faulty, clock, store, catalog, tenant: TenantId::anonymous() }
    }

    /// Puts a segment, after a moment, so that it has a time of its own in its name.
    async fn put(&self, profiles: &[Sent]) -> SegmentKey {
        sleep(Duration::from_millis(1)).await;
        let deadline = Instant::now() + 5 * SECOND;
        self.store.put_segment(&self.tenant, segment(profiles), deadline).await.expect("the store works")
    }

    /// Writes under a key of the test's choice, past the counting of requests.
    async fn put_as(&self, key: &SegmentKey, bytes: Bytes) {
        self.faulty.inner().put(&key.path(), PutPayload::from_bytes(bytes)).await.expect("memory works");
    }

    async fn delete(&self, key: &SegmentKey) {
        self.faulty.inner().delete(&key.path()).await.expect("memory works");
    }

    fn key(&self, millis: u64) -> SegmentKey {
        let writer: WriterId = "w".parse().expect("valid");
        SegmentKey { tenant: self.tenant.clone(), name: SegmentName::new(millis, &writer, millis) }
    }

    async fn view(&self, freshness: Freshness) -> Arc<View> {
        self.catalog.view(&self.tenant, freshness).await.expect("the store works")
    }

    /// Takes a view that lists a segment and opens it only after something has happened `meanwhile`.
    async fn view_while(&self, segment: &SegmentKey, meanwhile: impl Future<Output = ()>) -> Arc<View> {
        self.faulty.on_key(&segment.path(), Trouble::Slow(Duration::from_secs(1)));
        let meanwhile = async {
            sleep(Duration::from_millis(500)).await;
            meanwhile.await;
        };
        tokio::join!(self.view(Freshness::Now), meanwhile).0
    }

    /// The ids of all profiles in a view that is as fresh as can be.
    async fn ids(&self) -> Vec<u128> {
        ids(&self.view(Freshness::Now).await, &everything()).await
    }

    /// How many listings and reads of segments and blocks were made since this was asked before; those of commits are not counted.
    fn requests(&self, before: &mut (usize, usize)) -> (usize, usize) {
        let is_commits = |key: &Path| ["/commit/", "/snap", "/day/"].iter().any(|part| key.as_ref().contains(part));
        let count = |operation| self.faulty.keys(operation).iter().filter(|key| !is_commits(key)).count();
        let now = (count(Operation::List), count(Operation::Get));
        let made = (now.0 - before.0, now.1 - before.1);
        *before = now;
        made
    }
}

fn world() -> World {
    World::new(Options::default())
}

fn everything() -> Query {
    query("{}", None, i64::MIN..i64::MAX)
}

fn query(selector: &str, profile_type: Option<&str>, window: std::ops::Range<i64>) -> Query {
    Query {
        selector: Selector::parse(selector).expect("a test's selectors are valid"),
        profile_type: profile_type.map(|word| ProfileType::parse(word).expect("a test's types are valid")),
        start_nanos: window.start,
        end_nanos: window.end,
    }
}

async fn ids(view: &Arc<View>, query: &Query) -> Vec<u128> {
    view.select(query).await.matches.iter().map(|found| found.row().id.into()).collect()
}

/// How many profiles each series has, by its labels and type as text.
async fn counts(view: &Arc<View>, query: &Query) -> BTreeMap<String, u64> {
    let summary = view.series(query).await;
    summary
        .series
        .iter()
        .map(|count| (format!("{} {}", count.series.labels, count.series.profile_type), count.profiles))
        .collect()
}

fn cpu(id: u128, time_nanos: i64) -> Sent {
    Sent::new(id, "api", &[], time_nanos)
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_found_within_the_age_of_a_listing() {
    let world = world();
    assert_eq!(ids(&world.view(Freshness::AtMostOld).await, &everything()).await, [0; 0]);
    world.put(&[cpu(1, 10)]).await;
    sleep(Duration::from_millis(490)).await;
    assert_eq!(
        ids(&world.view(Freshness::AtMostOld).await, &everything()).await,
        [0; 0],
        "the listing is not too old yet"
    );
    sleep(Duration::from_millis(20)).await;
    assert_eq!(ids(&world.view(Freshness::AtMostOld).await, &everything()).await, [1]);
    world.put(&[cpu(2, 20)]).await;
    assert_eq!(ids(&world.view(Freshness::Now).await, &everything()).await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_token_finds_its_segment_at_once_and_lists_only_if_it_must() {
    let world = world();
    world.view(Freshness::AtMostOld).await;
    let token = world.put(&[cpu(1, 10)]).await.name;
    let mut before = (0, 0);
    world.requests(&mut before);
    let view = world.view(Freshness::AtLeast(token.clone())).await;
    assert_eq!(ids(&view, &everything()).await, [1]);
    assert_eq!(world.requests(&mut before), (1, 1));
    sleep(10 * SECOND).await;
    world.view(Freshness::AtLeast(token)).await;
    assert_eq!(world.requests(&mut before), (0, 0), "an old view that holds the segment will do");
    let nobodys = world.key(1).name;
    world.view(Freshness::AtLeast(nobodys.clone())).await;
    world.view(Freshness::AtLeast(nobodys)).await;
    assert_eq!(
        world.requests(&mut before),
        (2, 0),
        "a token that names nothing costs a listing each time and no error"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refresh_costs_one_list_and_one_get_for_each_new_segment() {
    let world = world();
    let mut before = (0, 0);
    for id in 0..20 {
        world.put(&[cpu(id, 10)]).await;
    }
    world.view(Freshness::AtMostOld).await;
    assert_eq!(world.requests(&mut before), (1, 20));
    for _ in 0..100 {
        let view = world.view(Freshness::AtMostOld).await;
        view.select(&everything()).await;
        view.series(&everything()).await;
        view.get(Ulid::from(7)).await.expect("the cache has it");
    }
    assert_eq!(world.requests(&mut before), (0, 0), "a fresh view and its rows cost nothing");
    sleep(SECOND).await;
    let same = world.view(Freshness::AtMostOld).await;
    assert_eq!(world.requests(&mut before), (1, 0));
    world.put(&[cpu(20, 10)]).await;
    sleep(SECOND).await;
    assert!(!Arc::ptr_eq(&same, &world.view(Freshness::AtMostOld).await));
    assert_eq!(world.requests(&mut before), (1, 1));
    let metrics = world.store.metrics();
    assert_eq!((metrics.blocks_opened.get(), metrics.blocks_reopened.get(), metrics.segments.get()), (21, 0, 21));
    // 21 segments were put, all else was counted above, but for the snapshots listed once and the next commit looked for thrice, and once
    // each by the writer.
    assert_eq!(metrics.requests(), 21 + 3 + 21 + 4 + 2);
}

#[tokio::test(start_paused = true)]
async fn readers_who_wait_share_a_listing() {
    let world = world();
    world.put(&[cpu(1, 10)]).await;
    let mut before = (0, 0);
    world.faulty.always(Operation::List, Trouble::Slow(Duration::from_millis(100)));
    // The first one's listing began before the others came, so they wait for the next, all together.
    let views = join_all((0..100).map(|_| world.view(Freshness::Now))).await;
    assert!(views.iter().all(|view| view.profiles() == 1));
    assert_eq!(world.requests(&mut before), (2, 1));
    sleep(SECOND).await;
    join_all((0..100).map(|_| world.view(Freshness::AtMostOld))).await;
    assert_eq!(world.requests(&mut before), (1, 0), "those who take what is half a second old take that one");
}

#[tokio::test(start_paused = true)]
async fn profiles_are_selected_by_labels_type_and_window() {
    let world = world();
    world
        .put(&[
            Sent::new(1, "api", &[("dc", "eu-1")], 10),
            Sent::new(2, "api", &[("dc", "eu-2")], 20),
            Sent::new(3, "api", &[("dc", "us-1")], 30),
            Sent::new(4, "api", &[("dc", "eu-1")], 15).of_type("heap"),
        ])
        .await;
    world.put(&[Sent::new(5, "web", &[], 25), Sent::new(6, "api", &[("dc", "eu-1")], 40)]).await;
    let view = world.view(Freshness::Now).await;
    for (selector, profile_type, window, expected) in [
        ("{}", None, 0..100, vec![1, 2, 3, 4, 5, 6]),
        (r#"{service="api"}"#, None, 0..100, vec![1, 2, 3, 4, 6]),
        (r#"{service="api", dc=~"eu-.*"}"#, Some("cpu"), 0..100, vec![1, 2, 6]),
        (r#"{dc=""}"#, None, 0..100, vec![5]),
        (r#"{service!="api"}"#, None, 0..100, vec![5]),
        ("{}", Some("heap"), 0..100, vec![4]),
        (r#"{type="heap"}"#, None, 0..100, vec![4]),
        ("{}", None, 10..20, vec![1, 4]),
        ("{}", None, 20..41, vec![2, 3, 5, 6]),
        ("{}", None, 41..100, vec![]),
        ("{}", None, 20..20, vec![]),
        (r#"{service="none"}"#, None, 0..100, vec![]),
    ] {
        let mut found = ids(&view, &query(selector, profile_type, window.clone())).await;
        found.sort_unstable();
        assert_eq!(found, expected, "{selector} {profile_type:?} {window:?}");
    }
    let found = view.select(&query(r#"{dc="us-1"}"#, None, 0..100)).await.matches;
    let [found] = &*found else { panic!("one profile is there: {found:?}") };
    assert_eq!((found.labels().get("dc"), found.profile_type().as_str()), (Some("us-1"), "cpu"));
    assert_eq!(&*found.sample_types()[0].kind, "cpu");
    assert_eq!(found.block().rows().await.expect("opened")[found.row_index()].id, Ulid::from(3));
    assert_eq!(found.row().time_nanos, 30);
}

#[tokio::test(start_paused = true)]
async fn series_are_counted_exactly_whatever_the_window_cuts() {
    let world = world();
    let eu = |id, time| Sent::new(id, "api", &[("dc", "eu")], time);
    world.put(&[eu(1, 10), eu(2, 20), eu(3, 30), Sent::new(4, "web", &[], 20).of_type("heap")]).await;
    world.put(&[eu(5, 40), eu(2, 20)]).await;
    let view = world.view(Freshness::Now).await;
    let (eu, web) = (r#"{dc="eu",service="api"} cpu"#, r#"{service="web"} heap"#);
    for (window, expected) in [
        (0..100, vec![(eu, 4), (web, 1)]),
        (10..40, vec![(eu, 3), (web, 1)]),
        (11..21, vec![(eu, 1), (web, 1)]),
        (21..30, vec![]),
        (40..41, vec![(eu, 1)]),
    ] {
        let expected = expected.into_iter().map(|(text, count)| (text.to_owned(), count)).collect();
        assert_eq!(counts(&view, &query("{}", None, window.clone())).await, expected, "{window:?}");
    }
    assert_eq!(counts(&view, &query(r#"{service="web"}"#, None, 0..100)).await.len(), 1);
    assert_eq!(counts(&view, &query("{}", Some("cpu"), 0..100)).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_id_counts_once_and_the_earliest_segment_has_it() {
    let world = world();
    world.put(&[Sent::new(1, "api", &[], 10), Sent::new(2, "api", &[], 10)]).await;
    sleep(SECOND).await;
    // Sent again with other labels, and once with other bytes.
    world
        .put(&[Sent::new(1, "web", &[], 10), Sent::new(2, "api", &[], 10).with_value(9), Sent::new(3, "api", &[], 10)])
        .await;
    assert_eq!(world.ids().await, [1, 2, 3]);
    let view = world.view(Freshness::Now).await;
    assert_eq!(view.profiles(), 3);
    assert_eq!(
        ids(&view, &query(r#"{service="web"}"#, None, 0..100)).await,
        [0; 0],
        "the later one is not there, matching or not"
    );
    assert_eq!((world.store.metrics().duplicates.get(), world.store.metrics().conflicts.get()), (2, 1));
    // A segment that comes late but was named before all others wins.
    world.put_as(&world.key(1), segment(&[Sent::new(1, "first", &[], 10)])).await;
    let view = world.view(Freshness::Now).await;
    assert_eq!(ids(&view, &query(r#"{service="first"}"#, None, 0..100)).await, [1]);
    assert_eq!(ids(&view, &query(r#"{service="api"}"#, None, 0..100)).await, [2, 3]);
    let found = view.get(Ulid::from(1)).await.expect("the cache has it").expect("it is there");
    assert_eq!(found.labels().service(), "first");
    // And when it goes, the next in line counts.
    world.delete(&world.key(1)).await;
    let view = world.view(Freshness::Now).await;
    assert_eq!(ids(&view, &query(r#"{service="api"}"#, None, 0..100)).await, [1, 2, 3]);
    assert_eq!(view.get(Ulid::from(4)).await.expect("nothing to read").map(|found| found.row_index()), None);
}

/// A bit in the part of a segment that opening it reads.
async fn flip_near_end(world: &World, key: &SegmentKey) -> Trouble {
    let bytes = world.faulty.inner().head(&key.path()).await.expect("memory works").size as usize;
    Trouble::FlipBit((bytes - 64) * 8)
}

#[tokio::test(start_paused = true)]
async fn a_damaged_block_is_named_and_the_rest_answers() {
    let world = world();
    world.put(&[cpu(1, 10)]).await;
    let bad = world.put(&[cpu(2, 20)]).await;
    world.put(&[cpu(3, 30)]).await;
    world.faulty.on_key(&bad.path(), flip_near_end(&world, &bad).await);
    let view = world.view(Freshness::Now).await;
    assert_eq!(ids(&view, &everything()).await, [1, 3]);
    let [problem] = view.problems() else { panic!("one problem is told: {:?}", view.problems()) };
    assert_eq!(problem.key, bad.path());
    assert!(problem.to_string().contains("corrupt"), "{problem}");
    assert_eq!(view.select(&everything()).await.problems, view.problems());
    assert_eq!(view.series(&everything()).await.problems, view.problems());
    assert_eq!(world.store.metrics().blocks_damaged.get(), 1);
    // It is read twice at once, for the damage may be on the way, and then now and then.
    let mut before = (0, 0);
    world.requests(&mut before);
    sleep(SECOND).await;
    world.view(Freshness::AtMostOld).await;
    assert_eq!(world.requests(&mut before), (1, 0));
    sleep(5 * SECOND).await;
    world.view(Freshness::AtMostOld).await;
    assert_eq!(world.requests(&mut before), (1, 2));
    // A token that names it is answered: nothing more will be known of it.
    world.view(Freshness::AtLeast(bad.name.clone())).await;
    assert_eq!(world.requests(&mut before), (0, 0));
    world.faulty.on_key(&bad.path(), Trouble::None);
    sleep(60 * SECOND).await;
    let view = world.view(Freshness::AtMostOld).await;
    assert_eq!((ids(&view, &everything()).await, view.problems()), (vec![1, 2, 3], &[][..]));
    assert_eq!(world.store.metrics().blocks_damaged.get(), 1, "one damage counts once");
}

/// More old segments than fit a page, so that listings ask for the newest only.
async fn put_a_page(world: &World) {
    let empty = segment(&[]);
    for n in 0..1_100 {
        world.put_as(&world.key(world.clock.unix_millis() - 3_600_000 + n), empty.clone()).await;
    }
    world.view(Freshness::Now).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_block_is_tried_again_though_listings_no_longer_name_it() {
    let world = world();
    let old = world.key(5);
    world.put_as(&old, segment(&[cpu(1, 10)])).await;
    world.faulty.on_key(&old.path(), Trouble::Refuse(403));
    put_a_page(&world).await;
    world.faulty.on_key(&old.path(), Trouble::None);
    sleep(6 * SECOND).await;
    assert_eq!(world.ids().await, [1]);
    assert_eq!(world.store.metrics().lists_full.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_tried_again_tells_nothing_of_clocks() {
    let world = world();
    put_a_page(&world).await;
    let bad = world.put(&[cpu(1, 10)]).await;
    world.faulty.on_key(&bad.path(), Trouble::Refuse(403));
    world.view(Freshness::Now).await;
    for _ in 0..20 {
        world.put_as(&world.key(world.clock.unix_millis()), segment(&[])).await;
        sleep(16 * SECOND).await;
        world.view(Freshness::Now).await;
    }
    let late = world.key(world.clock.unix_millis() - 90_000);
    world.put_as(&late, segment(&[])).await;
    assert!(
        !world.view(Freshness::Now).await.names().any(|name| *name == late.name),
        "no more is allowed for than before"
    );
}

#[tokio::test(start_paused = true)]
async fn a_problem_says_nothing_of_the_bucket() {
    let world = world();
    let keys = [world.put(&[cpu(1, 10)]).await, world.put(&[cpu(2, 20)]).await, world.put(&[cpu(3, 30)]).await];
    let troubles = [Trouble::Refuse(403), Trouble::Refuse(500), Trouble::Unreachable];
    for (key, trouble) in keys.iter().zip(troubles) {
        world.faulty.on_key(&key.path(), trouble);
    }
    let view = world.view(Freshness::Now).await;
    let texts: Vec<_> = view.problems().iter().map(|problem| &*problem.text).collect();
    assert_eq!(
        texts,
        [
            "cannot be read: the store denies access",
            "cannot be read: the store does not answer as it should",
            "cannot be read: the store cannot be reached",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_segment_that_vanished_all_are_listed() {
    let world = world();
    put_a_page(&world).await;
    let gone = world.put(&[cpu(2, 20)]).await;
    let lists = || (world.store.metrics().lists_full.get(), world.store.metrics().lists_incremental.get());
    let mut seen = vec![lists()];
    world.view_while(&gone, world.delete(&gone)).await;
    seen.push(lists());
    world.view(Freshness::Now).await;
    seen.push(lists());
    assert_eq!(seen, [(1, 0), (2, 1), (2, 2)]);
}

#[tokio::test(start_paused = true)]
async fn damage_on_the_way_is_no_damage() {
    let world = world();
    let key = world.put(&[cpu(1, 10)]).await;
    let flipped = flip_near_end(&world, &key).await;
    // The first read looks for a commit.
    world.faulty.script(Operation::Get, [Trouble::None, flipped, Trouble::CutBody(9)]);
    let view = world.view(Freshness::Now).await;
    assert_eq!((ids(&view, &everything()).await, view.problems()), (vec![1], &[][..]));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_segment_is_named_and_does_no_harm() {
    let world = world();
    world.put(&[cpu(1, 10)]).await;
    let stranger = Path::from("v1/t/anonymous/l0/notes.txt");
    world.faulty.inner().put(&stranger, PutPayload::from("hello")).await.expect("memory works");
    let key = world.key(5);
    world.put_as(&key, Bytes::new()).await;
    let view = world.view(Freshness::Now).await;
    assert_eq!(ids(&view, &everything()).await, [1]);
    let problems: Vec<_> = view.problems().iter().map(|problem| problem.key.clone()).collect();
    assert_eq!(problems, [key.path(), stranger.clone()]);
    world.faulty.inner().delete(&stranger).await.expect("memory works");
    world.delete(&key).await;
    assert_eq!(world.view(Freshness::Now).await.problems(), []);
}

#[tokio::test(start_paused = true)]
async fn many_problems_are_counted_not_listed() {
    let world = world();
    for n in 0..250 {
        let stranger = Path::from(format!("v1/t/anonymous/l0/{n:03}"));
        world.faulty.inner().put(&stranger, PutPayload::new()).await.expect("memory works");
    }
    let view = world.view(Freshness::Now).await;
    assert_eq!(view.problems().len(), 101);
    assert!(view.problems()[100].text.contains("150 more"), "{}", view.problems()[100]);
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_vanished_is_no_problem() {
    let world = world();
    world.put(&[cpu(1, 10)]).await;
    let gone = world.put(&[cpu(2, 20)]).await;
    let view = world.view_while(&gone, world.delete(&gone)).await;
    assert_eq!((ids(&view, &everything()).await, view.problems()), (vec![1], &[][..]));
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_is_listed_and_never_there_is_named() {
    let world = world();
    world.put(&[cpu(1, 10)]).await;
    let gone = world.put(&[cpu(2, 20)]).await;
    world.faulty.on_key(&gone.path(), Trouble::Refuse(404));
    let view = world.view(Freshness::Now).await;
    assert_eq!(ids(&view, &everything()).await, [1]);
    let problems: Vec<_> = view.problems().iter().map(ToString::to_string).collect();
    assert_eq!(problems, [format!("{}: is no longer there", gone.path())]);
    world.delete(&gone).await;
    let view = world.view(Freshness::Now).await;
    assert_eq!((ids(&view, &everything()).await, view.problems()), (vec![1], &[][..]));
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_is_forgotten() {
    let world = world();
    let keys = [world.put(&[cpu(1, 10)]).await, world.put(&[cpu(2, 20)]).await];
    let before = world.view(Freshness::Now).await;
    world.delete(&keys[0]).await;
    assert_eq!(world.ids().await, [2]);
    assert_eq!(ids(&before, &everything()).await, [1, 2], "a view never changes, while the cache has its blocks");
    assert_eq!(world.store.metrics().segments.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_holds_little_costs_requests_and_changes_no_answer() {
    let world = World::new(Options { cache_bytes_max: 32 << 10, ..Options::default() });
    let profiles: Vec<Vec<Sent>> = (0..40).map(|n| (0..10).map(|k| cpu(n * 10 + k, n as i64)).collect()).collect();
    for profiles in &profiles {
        world.put(profiles).await;
    }
    let view = world.view(Freshness::Now).await;
    let mut before = (0, 0);
    world.requests(&mut before);
    for _ in 0..3 {
        assert_eq!(ids(&view, &everything()).await, Vec::from_iter(0..400));
    }
    let (lists, gets) = world.requests(&mut before);
    assert!(lists == 0 && gets > 90, "{gets}");
    let metrics = world.store.metrics();
    assert_eq!(metrics.blocks_reopened.get(), gets as u64);
    assert!((1..=32 << 10).contains(&metrics.blocks_bytes.get()), "{}", metrics.blocks_bytes.get());
    // The forty were opened once as they were found: each question had each from the cache, or opened it again.
    assert_eq!(metrics.blocks_found.get() + metrics.blocks_reopened.get(), 3 * 40);
    // What needs no rows needs no block either, nor does a segment out of the window.
    view.series(&everything()).await;
    assert_eq!(ids(&view, &query("{}", None, 7..8)).await, Vec::from_iter(70..80));
    assert!(world.requests(&mut before).1 <= 1);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_cannot_be_read_again_is_a_problem_of_that_answer() {
    let world = World::new(Options { cache_bytes_max: 1, ..Options::default() });
    let bad = world.put(&[cpu(1, 10)]).await;
    world.put(&[cpu(2, 20)]).await;
    let view = world.view(Freshness::Now).await;
    world.faulty.on_key(&bad.path(), Trouble::Refuse(500));
    let selection = view.select(&everything()).await;
    assert_eq!(selection.matches.len(), 1);
    let [problem] = &*selection.problems else { panic!("one problem is told: {:?}", selection.problems) };
    assert_eq!(problem.key, bad.path());
    assert_eq!(view.get(Ulid::from(1)).await.expect_err("its block cannot be read").key, bad.path());
    world.faulty.on_key(&bad.path(), Trouble::None);
    assert_eq!(ids(&view, &everything()).await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_listed_gives_no_view_until_it_can() {
    let world = world();
    world.put(&[cpu(1, 10)]).await;
    world.view(Freshness::AtMostOld).await;
    world.faulty.always(Operation::List, Trouble::Refuse(500));
    world.view(Freshness::AtMostOld).await;
    sleep(SECOND).await;
    let error = world.catalog.view(&world.tenant, Freshness::AtMostOld).await.expect_err("the store refuses");
    assert!(matches!(error, Error::List { .. }), "{error}");
    world.faulty.always(Operation::List, Trouble::None);
    assert_eq!(world.ids().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_leaves_keeps_what_was_opened() {
    let world = World::new(Options { opens_max: 1, ..Options::default() });
    for id in 0..10 {
        world.put(&[cpu(id, 10)]).await;
    }
    world.faulty.always(Operation::Get, Trouble::Slow(Duration::from_millis(100)));
    let leaving = world.catalog.view(&world.tenant, Freshness::Now);
    // The first 100 ms look for a commit.
    assert!(tokio::time::timeout(Duration::from_millis(650), leaving).await.is_err());
    let mut before = (0, 0);
    assert_eq!(world.requests(&mut before), (1, 6));
    assert_eq!(world.ids().await, Vec::from_iter(0..10));
    assert_eq!(world.requests(&mut before), (1, 5), "five were taken in, the sixth was on its way");
}

#[tokio::test(start_paused = true)]
async fn tenants_see_their_own() {
    let world = world();
    world.put(&[cpu(1, 10)]).await;
    let other: TenantId = "other".parse().expect("valid");
    let deadline = Instant::now() + SECOND;
    world.store.put_segment(&other, segment(&[cpu(2, 20)]), deadline).await.expect("the store works");
    assert_eq!(world.ids().await, [1]);
    let view = world.catalog.view(&other, Freshness::Now).await.expect("the store works");
    assert_eq!(ids(&view, &everything()).await, [2]);
    assert_eq!(world.store.metrics().segments.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn more_segments_than_can_be_known_are_refused() {
    let world = World::new(Options { segments_max: 2, ..Options::default() });
    for id in 0..3 {
        world.put(&[cpu(id, 10)]).await;
    }
    let error = world.catalog.view(&world.tenant, Freshness::Now).await.expect_err("there are three");
    assert_eq!(
        error.to_string(),
        "tenant anonymous has 3 segments, more than the 2 a catalog takes: compaction is behind or off"
    );
}

/// Many segments, so that listings ask for the newest only; writers with clocks of their own, whose PUTs take up to five seconds.
/// Whatever was acknowledged before a view was asked for is in it.
#[tokio::test(start_paused = true)]
async fn no_acknowledged_segment_is_missed_by_listings_of_the_newest() {
    let world = World::new(Options::default());
    let random = SeededRandom::new(7);
    put_a_page(&world).await;
    // Empty segments are the cheapest to open, and names are all that listings look at.
    let empty = segment(&[]);
    // How far each writer's clock is ahead: from a minute behind to ten minutes ahead.
    let writers: Vec<(WriterId, i64)> =
        [-60_000, -30_000, -1_000, 0, 5_000, 600_000].map(|ahead| (WriterId::draw(&random), ahead)).into();
    let mut acknowledged = BTreeSet::new();
    let mut in_flight: Vec<(Instant, SegmentKey)> = Vec::new();
    for _ in 0..600 {
        let (writer, ahead) = &writers[(random.next_u64() % writers.len() as u64) as usize];
        let millis = world.clock.unix_millis().saturating_add_signed(*ahead);
        let key =
            SegmentKey { tenant: world.tenant.clone(), name: SegmentName::new(millis, writer, random.next_u64()) };
        in_flight.push((Instant::now() + Duration::from_millis(random.next_u64() % 5_000), key));
        advance(Duration::from_millis(random.next_u64() % 200)).await;
        for (_, key) in in_flight.extract_if(.., |(ends, _)| *ends <= Instant::now()) {
            world.put_as(&key, empty.clone()).await;
            acknowledged.insert(key.name);
        }
        if random.next_u64().is_multiple_of(4) {
            let view = world.view(Freshness::Now).await;
            let names: BTreeSet<_> = view.names().cloned().collect();
            let missed: Vec<_> = acknowledged.difference(&names).collect();
            assert!(missed.is_empty(), "{missed:?}");
        }
    }
    let metrics = world.store.metrics();
    let (full, incremental) = (metrics.lists_full.get(), metrics.lists_incremental.get());
    assert!(incremental > 10 * full && acknowledged.len() > 500, "{full} full, {incremental} incremental");
}

#[tokio::test(start_paused = true)]
async fn a_clock_far_behind_is_found_out_and_then_allowed_for() {
    let world = world();
    let empty = segment(&[]);
    for n in 0..1_100 {
        world.put_as(&world.key(world.clock.unix_millis() + n), empty.clone()).await;
    }
    world.view(Freshness::Now).await;
    let behind = |by: u64| world.key(world.clock.unix_millis() - by);
    let holds = |view: &View, key: &SegmentKey| view.names().any(|name| *name == key.name);
    let first = behind(200_000);
    world.put_as(&first, empty.clone()).await;
    assert!(!holds(&*world.view(Freshness::Now).await, &first), "three minutes are more than is allowed for");
    assert!(
        holds(&*world.view(Freshness::AtLeast(first.name.clone())).await, &first),
        "a token finds its segment all the same"
    );
    let second = behind(190_000);
    world.put_as(&second, empty.clone()).await;
    assert!(holds(&*world.view(Freshness::Now).await, &second), "and from then on others find such segments too");
    let third = behind(600_000);
    world.put_as(&third, empty.clone()).await;
    assert!(!holds(&*world.view(Freshness::Now).await, &third));
    sleep(16 * SECOND).await;
    assert!(holds(&*world.view(Freshness::Now).await, &third), "a listing of all finds what is later still");
}

#[test]
fn futures_may_move_between_threads() {
    fn is_send<T: Send>(_: T) {}
    let make = |catalog: Catalog, view: Arc<View>| {
        is_send(async move {
            let _ = catalog.view(&TenantId::anonymous(), Freshness::Now).await;
            let _ = (view.select(&everything()).await, view.series(&everything()).await, view.get(Ulid::nil()).await);
        });
    };
    let _: fn(Catalog, Arc<View>) = make;
}
