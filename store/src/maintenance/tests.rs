//! Compaction, retention, collection and verification together, over a store in memory: what is asked before is answered after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use afterglow_profile::Selector;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::time::Instant;
use ulid::Ulid;

use super::*;
use crate::StoreOptions;
use crate::catalog::{Catalog, Freshness, Query};
use crate::paths::{BlockRef, SegmentKey, SegmentName};
use crate::retention::Rule;
use crate::testing::segments::{Sent, segment};
use crate::verify::verify;

const DAY: i64 = 86_400_000_000_000;

/// What an answer says of a profile.
type Answer = BTreeMap<Ulid, (String, i64, Vec<u8>)>;

/// A bucket, and a process that opened it.
struct World {
    objects: Arc<dyn ObjectStore>,
    store: Store,
}

impl World {
    fn new() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    fn over(objects: Arc<dyn ObjectStore>) -> Self {
        let store = Store::new(Arc::clone(&objects), "memory://".to_owned(), StoreOptions::default());
        Self { objects, store }
    }

    fn tenant() -> TenantId {
        TenantId::anonymous()
    }

    /// Another process over the same bucket.
    fn another(&self) -> Self {
        Self::over(Arc::clone(&self.objects))
    }

    async fn push(&self, profiles: &[Sent]) -> Path {
        let deadline = Instant::now() + Duration::from_secs(5);
        let key = self.store.put_segment(&Self::tenant(), segment(profiles), deadline).await.expect("it is in memory");
        key.path()
    }

    /// Asks a process that has just started for everything.
    async fn ask(&self) -> (Answer, Vec<String>) {
        let catalog = Catalog::new(self.another().store, crate::catalog::Options::default());
        let view = catalog.view(&Self::tenant(), Freshness::Now).await.expect("it is in memory");
        let query = Query {
            selector: Selector::parse("{}").expect("valid"),
            profile_type: None,
            start_nanos: i64::MIN,
            end_nanos: i64::MAX,
        };
        let selection = view.select(&query).await;
        let mut answer = Answer::new();
        for found in &selection.matches {
            let bytes = found.block().fetch(found.row()).await.expect("what is found can be read").to_vec();
            let labels = format!("{} {:?}", found.profile_type(), found.labels());
            let row = found.row();
            assert!(answer.insert(row.id, (labels, row.time_nanos, bytes)).is_none(), "{} counts twice", row.id);
            assert!(view.get(row.id).await.expect("it can be read").is_some(), "{} is found by its id", row.id);
        }
        (answer, selection.problems.iter().map(ToString::to_string).collect())
    }

    async fn count(&self, folder: Path) -> usize {
        use futures::TryStreamExt;
        self.objects.list(Some(&folder)).try_collect::<Vec<_>>().await.expect("it is in memory").len()
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.collection.grace = Duration::ZERO;
    options
}

async fn to_rest(world: &World, options: Options) -> Report {
    let report = Maintainer::new(world.store.clone(), options).run_to_rest().await.expect("it is in memory");
    assert_eq!(report.failed, []);
    report
}

fn now_nanos() -> i64 {
    use crate::clock::{Clock, SystemClock};
    SystemClock.unix_nanos()
}

/// Profile number `n` of one of three services; two days old and younger.
fn profile(n: u128) -> Sent {
    let service = ["api", "batch", "web"][n as usize % 3];
    let instance = format!("i{}", n % 5);
    let time = now_nanos() - 2 * DAY + (n as i64 * 7_919_000_000_000) % (2 * DAY);
    Sent::new(n + 1, service, &[("instance", &instance)], time).with_value(n as i64)
}

/// Goal: compaction changes no answer, and then there is little left in the bucket.
#[tokio::test]
async fn every_answer_is_the_same_before_and_after() {
    let world = World::new();
    let profiles: Vec<Sent> = (0..240).map(profile).collect();
    for sent in profiles.chunks(12) {
        world.push(sent).await;
    }
    let (before, problems) = world.ask().await;
    assert_eq!((before.len(), problems), (240, vec![]));

    let report = to_rest(&world, options()).await;
    assert!(report.compaction.committed >= 2, "level 1, then level 2: {report:?}");
    let (after, problems) = world.ask().await;
    assert_eq!(problems, [] as [String; 0]);
    assert!(before == after, "the answers differ");

    let tenant = World::tenant();
    assert_eq!(world.count(tenant.segments()).await, 0, "segments are collected once they are removed");
    assert!(world.count(tenant.blocks()).await <= 3, "a block a day");
    let verified = verify(&world.store, &tenant, true).await.expect("it is in memory");
    assert_eq!((verified.findings, verified.profiles, verified.rebuilt), (vec![], 240, 240));
    assert_eq!(verified.garbage, 0);

    let again = to_rest(&world, options()).await;
    assert_eq!(again.compaction.committed, 0, "what rests stays at rest");
}

/// Goal: the questions of a process that runs all the time see each profile once, whatever others compact meanwhile.
#[tokio::test]
async fn a_reader_sees_each_profile_once_while_two_compact() {
    let world = World::new();
    for n in 0..30 {
        world.push(&(n * 8..n * 8 + 8).map(profile).collect::<Vec<_>>()).await;
    }
    let (before, _) = world.ask().await;
    let maintain = async |world: World| {
        let mut options = Options::default();
        options.compaction.plan.inputs_max = 5;
        let mut maintainer = Maintainer::new(world.store, options);
        maintainer.run_to_rest().await.expect("it is in memory")
    };
    let (a, b, ()) = tokio::join!(maintain(world.another()), maintain(world.another()), async {
        for _ in 0..20 {
            let (during, problems) = world.ask().await;
            assert_eq!(problems, [] as [String; 0]);
            assert!(before == during, "the answers differ");
            tokio::task::yield_now().await;
        }
    });
    assert!(a.compaction.committed + b.compaction.committed > 0);
    assert_eq!((a.failed, b.failed), (vec![], vec![]));
    let verified = verify(&world.store, &World::tenant(), true).await.expect("it is in memory");
    assert_eq!((verified.findings, verified.profiles), (vec![], 240));
}

/// Goal: a push retried after its profile was compacted counts once, before and after it is compacted, too.
#[tokio::test]
async fn a_retry_counts_once_for_ever() {
    let world = World::new();
    world.push(&[profile(1), profile(2)]).await;
    to_rest(&world, options()).await;
    world.push(&[profile(2), profile(3)]).await;
    world.push(&[profile(3)]).await;
    let (before, _) = world.ask().await;
    assert_eq!(before.len(), 3);
    to_rest(&world, options()).await;
    let (after, _) = world.ask().await;
    assert!(before == after, "the answers differ");
    let verified = verify(&world.store, &World::tenant(), false).await.expect("it is in memory");
    assert_eq!((verified.findings, verified.profiles, verified.segments), (vec![], 3, 0));

    // Nothing but what is known already: the segment goes, and no block comes.
    world.push(&[profile(1)]).await;
    to_rest(&world, options()).await;
    assert!(after == world.ask().await.0);
}

/// Goal: one damaged segment of many is named, in answers and in the bucket; the others are compacted.
#[tokio::test]
async fn a_damaged_segment_holds_up_nobody() {
    let world = World::new();
    let mut keys = Vec::new();
    for n in 0..10 {
        keys.push(world.push(&[profile(n)]).await);
    }
    let damaged = keys[4].clone();
    let mut bytes =
        world.objects.get(&damaged).await.expect("it is there").bytes().await.expect("it is there").to_vec();
    let middle = bytes.len() / 4;
    bytes[middle] ^= 1;
    world.objects.put(&damaged, PutPayload::from(bytes)).await.expect("it is in memory");

    let report = to_rest(&world, options()).await;
    assert_eq!(report.compaction.quarantined.len(), 1, "{report:?}");
    assert_eq!(world.count(World::tenant().quarantined()).await, 1);
    assert_eq!(world.count(World::tenant().segments()).await, 1, "the damaged one stays where it is");
    let verified = verify(&world.store, &World::tenant(), true).await.expect("it is in memory");
    assert_eq!(verified.findings.iter().map(|finding| &finding.key).collect::<Vec<_>>(), [&damaged]);
    assert_eq!(verified.profiles, 9);
    let again = to_rest(&world, options()).await;
    assert_eq!((again.compaction.quarantined.len(), again.compaction.committed), (0, 0));
}

/// Goal: a live block that is damaged or gone is named, as an input is; segments that might have its ids are merged, and retention and
/// collection go on.
#[tokio::test]
async fn a_damaged_or_missing_live_block_holds_up_nobody() {
    for is_gone in [false, true] {
        let world = World::new();
        let now = now_nanos();
        let of_days_ago = |n: u128, days: i64| Sent::new(n, "api", &[], now - days * DAY);
        world.push(&[of_days_ago(1, 2), of_days_ago(9, 2)]).await;
        world.push(&[of_days_ago(20, 10)]).await;
        let mut keep = options();
        keep.retention.rules = vec!["{service=\"api\",dc=\"eu\"}=1d".parse::<Rule>().expect("valid")];
        to_rest(&world, keep.clone()).await;
        let commits = Commits::new(world.store.clone(), World::tenant());
        let state = commits.refresh().await.expect("it is in memory");
        let entry = state.blocks().find(|live| live.entry.rows == 2).expect("it was merged").entry.clone();
        let live = BlockRef::Block(entry.name);
        let path = live.path(&World::tenant());
        if is_gone {
            world.objects.delete(&path).await.expect("it is in memory");
        } else {
            let bytes = world.objects.get(&path).await.expect("it is there").bytes().await.expect("it is there");
            let mut bytes = bytes.to_vec();
            let place = bytes.len() - 40;
            bytes[place] ^= 0xff;
            world.objects.put(&path, bytes.into()).await.expect("it is in memory");
        }
        world.push(&[of_days_ago(5, 2)]).await;
        world.push(&[of_days_ago(6, 2)]).await;
        keep.retention.age_max = Some(Duration::from_secs(7 * 24 * 3_600));
        let report = to_rest(&world, keep.clone()).await;
        assert_eq!(report.compaction.quarantined, [live]);
        assert_eq!((report.compaction.segments_left, world.count(World::tenant().segments()).await), (0, 0));
        assert_eq!(report.retention[&World::tenant()].profiles, 1, "the tenth day is dropped");
        assert_eq!(world.count(World::tenant().quarantined()).await, 1);
        let again = to_rest(&world, keep).await;
        assert_eq!((again.compaction.quarantined.len(), again.compaction.committed), (0, 0));
    }
}

/// Goal: a live block that was noted as damaged, and can be read, keeps its ids: what was damaged on the way here twice is whole in the bucket, and
/// queriers count its profiles.
#[tokio::test]
async fn a_live_block_that_was_noted_by_mistake_doubles_nothing() {
    let world = World::new();
    let twice = profile(1);
    world.push(&[twice.clone(), profile(2)]).await;
    to_rest(&world, options()).await;
    let commits = Commits::new(world.store.clone(), World::tenant());
    let state = commits.refresh().await.expect("it is in memory");
    let live = BlockRef::Block(state.blocks().next().expect("it was merged").entry.name);
    let compactor = Compactor::new(world.store.clone(), commits, compaction::Options::default());
    compactor.quarantine(&live, &std::io::Error::other("flipped on the way")).await.expect("it is in memory");

    world.push(&[twice, profile(3)]).await;
    let report = to_rest(&world, options()).await;
    assert_eq!((report.compaction.segments_left, report.compaction.quarantined.len()), (0, 0), "{report:?}");
    assert_eq!(world.ask().await.0.len(), 3, "none counts twice");
    let verified = verify(&world.store, &World::tenant(), true).await.expect("it is in memory");
    assert_eq!((verified.findings.len(), verified.profiles), (0, 3), "{verified:?}");
}

/// Goal: a block of level 1 that is missing is named, and the others of its day come up.
#[tokio::test]
async fn a_missing_block_holds_up_no_day() {
    let world = World::new();
    let commits = Commits::new(world.store.clone(), World::tenant());
    let compactor = Compactor::new(world.store.clone(), commits.clone(), compaction::Options::default());
    let at = now_nanos() - 2 * DAY;
    let round = async || compactor.round(Due::Now).await.expect("it is in memory");
    world.push(&[Sent::new(1, "api", &[], at)]).await;
    assert_eq!(round().await.committed, 1);
    let state = commits.refresh().await.expect("it is in memory");
    let first = state.blocks().next().expect("it was merged").entry.name;
    world.objects.delete(&BlockRef::Block(first).path(&World::tenant())).await.expect("it is in memory");
    world.push(&[Sent::new(2, "api", &[], at)]).await;
    let mut all = compaction::Round::default();
    for _ in 0..5 {
        all.add(round().await);
    }
    assert_eq!((all.quarantined, all.lost), (vec![BlockRef::Block(first)], 0));
    let state = commits.refresh().await.expect("it is in memory");
    let levels: Vec<u8> = state.blocks().map(|live| live.entry.name.level()).collect();
    assert_eq!(levels, [1, 2], "the missing one, and the one that came up");
}

/// Goal: a segment whose tables take more memory than a merge may is carried over as it is; where it cannot be, it alone is left. No such
/// thing counts as a race lost, and all else goes on.
#[tokio::test]
async fn what_is_too_large_to_be_merged_holds_up_nobody() {
    let world = World::new();
    let at = now_nanos() - 3 * DAY;
    let profile = |n: u128, time| Sent::new(n, "api", &[], time).with_value(n as i64);
    for n in 1..6 {
        world.push(&[profile(2 * n, at), profile(2 * n + 1, at)]).await;
    }
    let two_days = world.push(&[profile(20, at), profile(21, at - DAY)]).await;
    // What was sent before stays behind, and so that one is not carried over as it is either.
    world.push(&[profile(2, at)]).await;
    let (before, _) = world.ask().await;
    let mut options = options();
    options.compaction.memory_max = 1;
    let report = to_rest(&world, options).await;
    assert_eq!((report.compaction.lost, report.compaction.quarantined.len()), (0, 0), "{report:?}");
    assert!(report.compaction.segments_left <= 2, "{report:?}");
    world.objects.head(&two_days).await.expect("it is left where it is");
    let (after, problems) = world.ask().await;
    assert_eq!((before == after, problems), (true, vec![]));
    let verified = verify(&world.store, &World::tenant(), true).await.expect("it is in memory");
    assert_eq!(verified.findings, []);

    // With some more memory it is merged all the same, for it is alone.
    let mut options = self::options();
    options.compaction.memory_max = 700;
    let report = to_rest(&world, options).await;
    assert_eq!(report.compaction.segments_left, 0, "{report:?}");
    assert!(before == world.ask().await.0, "the answers differ");
}

/// Goal: an empty object under the name of a segment, or one that ends too early, is damage like any other.
#[tokio::test]
async fn an_empty_segment_holds_up_nobody() {
    let world = World::new();
    for (n, keeps) in [(1, 0), (2, 3), (3, 200)] {
        let key = world.push(&[profile(n)]).await;
        let bytes = world.objects.get(&key).await.expect("it is there").bytes().await.expect("it is there");
        world.objects.put(&key, bytes.slice(..keeps).into()).await.expect("it is in memory");
    }
    world.push(&[profile(4)]).await;
    let report = to_rest(&world, options()).await;
    assert_eq!((report.compaction.quarantined.len(), report.compaction.segments_left), (3, 0));
    assert_eq!(world.count(World::tenant().quarantined()).await, 3);
    assert_eq!(world.count(World::tenant().segments()).await, 3, "nothing damaged is deleted");
}

/// Goal: a damaged segment holds the boundary for three days, so that names are forgotten after that; it is never deleted.
#[tokio::test]
async fn a_damaged_segment_does_not_hold_the_boundary_for_ever() {
    const HOUR: u64 = 3_600_000;
    let now = now_nanos() as u64 / 1_000_000;
    for (hours, is_held) in [(30, true), (80, false)] {
        let world = World::new();
        let name = SegmentName::new(now - hours * HOUR, &"w".parse().expect("valid"), 1);
        let key = SegmentKey { tenant: World::tenant(), name }.path();
        world.objects.put(&key, PutPayload::from_static(b"damaged")).await.expect("it is in memory");
        world.push(&[profile(1)]).await;
        let report = to_rest(&world, options()).await;
        assert_eq!((report.compaction.quarantined.len(), report.compaction.segments_left), (1, 0));
        let state = Commits::new(world.store.clone(), World::tenant()).refresh().await.expect("it is in memory");
        let expected = if is_held { now - hours * HOUR } else { now - 24 * HOUR };
        assert!(state.boundary().abs_diff(expected) < HOUR / 10, "{hours} {} {expected}", state.boundary());
        to_rest(&world, options()).await;
        world.objects.head(&key).await.expect("what is damaged is never deleted");
    }
}

/// Goal: profiles that come late, one by one, do not pile up as blocks of their day.
#[tokio::test]
async fn late_profiles_do_not_pile_up_as_blocks() {
    let world = World::new();
    let at = now_nanos() - 5 * DAY;
    let mut most = 0;
    for n in 1..=40 {
        world.push(&[Sent::new(n, "api", &[], at).with_value(n as i64)]).await;
        to_rest(&world, options()).await;
        most = most.max(world.count(World::tenant().blocks()).await);
    }
    assert!(most <= 9, "{most} blocks");
    assert_eq!(world.ask().await.0.len(), 40);
    let verified = verify(&world.store, &World::tenant(), true).await.expect("it is in memory");
    assert_eq!((verified.findings, verified.profiles), (vec![], 40));
}

/// Goal: retention by age and by selector drops exactly what it says, for good, and says it beforehand when asked.
#[tokio::test]
async fn retention_drops_what_it_says() {
    let world = World::new();
    let of_days_ago = |n: u128, service: &str, days: i64| Sent::new(n, service, &[], now_nanos() - days * DAY);
    let sent = [
        of_days_ago(1, "api", 1),
        of_days_ago(2, "batch", 1),
        of_days_ago(3, "api", 10),
        of_days_ago(4, "batch", 10),
        of_days_ago(5, "api", 40),
        of_days_ago(6, "batch", 40),
    ];
    world.push(&sent).await;
    let mut keep = options();
    keep.retention.age_max = None;
    to_rest(&world, keep).await;
    assert_eq!(world.ask().await.0.len(), 6);

    let mut policy = options();
    policy.retention.rules = vec!["{service=\"batch\"}=7d".parse::<Rule>().expect("valid")];
    let mut maintainer = Maintainer::new(world.store.clone(), policy.clone());
    let dry = maintainer.dry_run().await.expect("it is in memory");
    let planned = &dry[&World::tenant()];
    assert_eq!((planned.profiles, planned.dropped.len(), planned.rewritten.len()), (3, 1, 1));
    assert_eq!(world.ask().await.0.len(), 6, "a dry run does nothing");

    let report = to_rest(&world, policy.clone()).await;
    assert_eq!(&report.retention[&World::tenant()], planned);
    assert_eq!(planned.in_segments, 0);
    let left: Vec<u128> = world.ask().await.0.keys().map(|id| u128::from(*id)).collect();
    assert_eq!(left, [1, 2, 3]);
    let again = to_rest(&world, policy).await;
    assert_eq!(again.retention, BTreeMap::new());
    assert_eq!(world.count(World::tenant().blocks()).await, 2, "what was dropped is deleted");
    let verified = verify(&world.store, &World::tenant(), true).await.expect("it is in memory");
    assert_eq!((verified.findings, verified.profiles), (vec![], 3));
}

/// Goal: what a rule takes away makes room, so that nothing else goes that fits then; a dry run says so.
#[tokio::test]
async fn what_a_rule_takes_away_makes_room() {
    let of_days_ago = |n: u128| {
        let service = if n.is_multiple_of(8) { "api" } else { "batch" };
        Sent::new(n, service, &[], now_nanos() - (2 + n as i64 / 40) * DAY)
    };
    let rules = vec!["{service=\"batch\"}=1d".parse::<Rule>().expect("valid")];
    let by_rule = Policy { age_max: None, rules, bytes_max: None };
    let live_bytes = async |world: &World| {
        let state = Commits::new(world.store.clone(), World::tenant()).refresh().await.expect("it is in memory");
        state.blocks().map(|live| live.entry.bytes).sum::<u64>()
    };
    let mut known = Vec::new();
    for is_limited in [false, true] {
        let world = World::new();
        world.push(&(0..400).map(of_days_ago).collect::<Vec<_>>()).await;
        let mut policy = options();
        policy.retention.age_max = None;
        to_rest(&world, policy.clone()).await;
        let before = live_bytes(&world).await;
        policy.retention = by_rule.clone();
        if let [(before, after)] = known[..] {
            policy.retention.bytes_max = Some((before + after) / 2);
        }
        let dry = Maintainer::new(world.store.clone(), policy.clone()).dry_run().await.expect("it is in memory");
        assert_eq!((dry[&World::tenant()].profiles, is_limited), (350, !known.is_empty()));
        to_rest(&world, policy).await;
        assert_eq!(world.ask().await.0.len(), 50, "what the rule is not about fits");
        known.push((before, live_bytes(&world).await));
        assert!(known[0].1 < known[0].0, "{known:?}");
    }
    // Where it does not fit all the same, the oldest go.
    let world = World::new();
    world.push(&(0..400).map(of_days_ago).collect::<Vec<_>>()).await;
    let mut policy = options();
    policy.retention = Policy { bytes_max: Some(known[0].1 / 2), ..by_rule };
    to_rest(&world, policy).await;
    let left: Vec<u128> = world.ask().await.0.keys().map(|id| u128::from(*id)).collect();
    assert!(!left.is_empty() && left.len() < 50, "{}", left.len());
    assert!(left.iter().all(|n| n.is_multiple_of(8) && *n < 8 * left.len() as u128), "{left:?}");
}

/// Goal: a block too large to be written anew without what a rule takes away stays, and neither counts as a failure nor keeps days that are
/// too much.
#[tokio::test]
async fn a_block_that_is_too_large_for_a_rule_holds_up_nobody() {
    let world = World::new();
    let of_days_ago = |n: u128| {
        let service = if n.is_multiple_of(2) { "api" } else { "batch" };
        Sent::new(n, service, &[], now_nanos() - (2 + n as i64 / 40) * DAY)
    };
    world.push(&(0..160).map(of_days_ago).collect::<Vec<_>>()).await;
    let mut policy = options();
    policy.retention.age_max = None;
    to_rest(&world, policy.clone()).await;
    let state = Commits::new(world.store.clone(), World::tenant()).refresh().await.expect("it is in memory");
    let bytes: u64 = state.blocks().map(|live| live.entry.bytes).sum();
    let rules = vec!["{service=\"batch\"}=1d".parse::<Rule>().expect("valid")];
    policy.retention = Policy { age_max: None, rules, bytes_max: Some(bytes / 2) };
    policy.compaction.memory_max = 1;
    let report = to_rest(&world, policy.clone()).await.retention[&World::tenant()].clone();
    assert!(!report.dropped.is_empty() && report.rewritten.is_empty() && report.damaged.is_empty(), "{report:?}");
    let left: Vec<u128> = world.ask().await.0.keys().map(|id| u128::from(*id)).collect();
    assert!(!left.is_empty() && left.len() <= 80 && left.contains(&1), "{left:?}");

    // With the memory that a merge of several has, it is written anew.
    policy.compaction.memory_max = options().compaction.memory_max;
    let report = to_rest(&world, policy).await.retention[&World::tenant()].clone();
    assert_eq!(report.profiles as usize, left.len() / 2, "{report:?}");
}

/// Goal: a dry run says the same of what lies in segments, by age, by selector and by bytes: the run after it merges them first. A retry, in
/// another segment or of what is compacted already, counts once.
#[tokio::test]
async fn a_dry_run_counts_what_lies_in_segments() {
    let of_days_ago = |n: u128, service: &str, days: i64| Sent::new(n, service, &[], now_nanos() - days * DAY);
    let day = Duration::from_secs(86_400);
    let by_age = Policy { age_max: Some(5 * day), ..Policy::default() };
    let rules = vec!["{service=\"batch\"}=1d".parse().expect("valid"), "{service=\"keep\"}=0s".parse().expect("valid")];
    let by_rules = Policy { rules, ..by_age.clone() };
    let by_bytes = Policy { age_max: None, bytes_max: Some(8_000), ..Policy::default() };
    for (policy, profiles, merged) in [(by_age, Some(60), 20), (by_rules, Some(50), 20), (by_bytes, None, 0)] {
        let world = World::new();
        let sent = |n: u128| of_days_ago(n, ["api", "batch", "keep"][n as usize % 3], [0, 3, 10, 12][n as usize % 4]);
        let mut keep = options();
        keep.retention.age_max = None;
        world.push(&(0..20).map(sent).collect::<Vec<_>>()).await;
        if merged > 0 {
            to_rest(&world, keep).await;
        }
        for n in 1..6 {
            world.push(&(n * 20 - 5..n * 20 + 20).map(sent).collect::<Vec<_>>()).await;
        }
        world.push(&(100..120).map(sent).collect::<Vec<_>>()).await;
        let mut options = options();
        options.retention = policy.clone();
        let dry = Maintainer::new(world.store.clone(), options.clone()).dry_run().await.expect("it is in memory");
        let dry = dry[&World::tenant()].clone();
        assert_eq!(world.ask().await.0.len(), 120, "a dry run does nothing");
        let report = to_rest(&world, options).await;
        let real = report.retention.get(&World::tenant()).cloned().unwrap_or_default();
        assert_eq!(dry.profiles, real.profiles, "{policy:?}: {dry:?} {real:?}");
        assert_eq!(dry.profiles, profiles.unwrap_or(dry.profiles));
        assert!(dry.profiles > 0 && dry.profiles < 120, "{dry:?}");
        assert_eq!(dry.in_segments == dry.profiles, merged == 0, "{dry:?}");
    }
}

/// Goal: a damaged block that a rule is about is named, and neither keeps days that are too old nor the rules from other blocks; wherever the
/// damage lies.
#[tokio::test]
async fn a_damaged_block_that_a_rule_is_about_holds_up_nobody() {
    use futures::TryStreamExt;
    for damage_at in [|len: usize| len - 40, |len: usize| len / 8] {
        let world = World::new();
        let of_days_ago = |n: u128, service: &str, days: i64| Sent::new(n, service, &[], now_nanos() - days * DAY);
        let days = [2, 3, 10, 12];
        let sent = |(n, days): (u128, &i64)| [of_days_ago(2 * n, "api", *days), of_days_ago(2 * n + 1, "batch", *days)];
        world.push(&(1..).zip(&days).flat_map(sent).collect::<Vec<_>>()).await;
        let mut keep = options();
        keep.retention.age_max = None;
        to_rest(&world, keep).await;
        let tenant = World::tenant();
        let blocks: Vec<_> = world.objects.list(Some(&tenant.blocks())).try_collect().await.expect("it is in memory");
        let day = crate::paths::Day::of_nanos(now_nanos() - 3 * DAY);
        let of_day = |key: &Path| crate::paths::BlockKey::parse(&tenant, key).expect("a block").name;
        let damaged =
            blocks.iter().map(|meta| &meta.location).find(|key| of_day(key).day() == day).expect("a block a day");
        let good = world.objects.get(damaged).await.expect("it is there").bytes().await.expect("it is there");
        let mut bytes = good.to_vec();
        bytes[damage_at(good.len())] ^= 0xff;
        world.objects.put(damaged, bytes.into()).await.expect("it is in memory");

        let mut policy = options();
        policy.retention.age_max = Some(Duration::from_secs(5 * 86_400));
        policy.retention.rules = vec!["{service=\"batch\"}=1d".parse().expect("valid")];
        for round in 0..2 {
            let report = to_rest(&world, policy.clone()).await;
            let report = &report.retention[&tenant];
            assert_eq!((&report.damaged[..], report.quarantined), (&[of_day(damaged)][..], 1 - round), "{report:?}");
            let done = (report.dropped.len(), report.rewritten.len(), report.profiles);
            assert_eq!(done, if round == 0 { (2, 1, 5) } else { (0, 0, 0) });
        }
        assert_eq!(world.count(tenant.quarantined()).await, 1);
        assert_eq!(world.count(tenant.blocks()).await, 2, "what was dropped is deleted");
        let dry = Maintainer::new(world.store.clone(), policy.clone()).dry_run().await.expect("it is in memory");
        assert_eq!(dry[&tenant].damaged, [of_day(damaged)]);

        // Restored, as the runbook says, it is treated as any other.
        world.objects.put(damaged, good.into()).await.expect("it is in memory");
        world.objects.delete(&tenant.quarantine(&of_day(damaged).into())).await.expect("it is in memory");
        let report = to_rest(&world, policy).await;
        assert_eq!(report.retention[&tenant].rewritten.values().sum::<u64>(), 1, "{report:?}");
    }
}

/// A clock that differs from the machine's.
#[derive(Debug)]
struct Ahead(i64);

impl crate::clock::Clock for Ahead {
    fn now(&self) -> std::time::SystemTime {
        let now = crate::clock::SystemClock.now();
        let by = Duration::from_secs(self.0.unsigned_abs());
        if self.0 < 0 { now - by } else { now + by }
    }
}

/// Goal: a maintainer whose clock is a month ahead deletes nothing, and says why; minutes change nothing, for ages are measured by the
/// clock of the store.
#[tokio::test]
async fn a_wrong_clock_deletes_nothing() {
    let world = World::new();
    let age = |days: i64| now_nanos() - days * DAY;
    world.push(&[Sent::new(1, "api", &[], age(1)), Sent::new(2, "api", &[], age(40))]).await;
    let mut keep = options();
    keep.retention.age_max = None;
    to_rest(&world, keep).await;
    let maintain = async |seconds: i64| {
        let options = StoreOptions { clock: Arc::new(Ahead(seconds)), ..StoreOptions::default() };
        let store = Store::new(Arc::clone(&world.objects), "memory://".to_owned(), options);
        Maintainer::new(store, self::options()).run_to_rest().await.expect("it is in memory")
    };
    for (seconds, text) in [(32 * 86_400, "ahead of"), (-32 * 86_400, "behind"), (3_600, "ahead of")] {
        let report = maintain(seconds).await;
        let [(_, failed)] = &report.failed[..] else { panic!("{seconds}: {report:?}") };
        assert!(failed.contains(&format!("{text} that of the storage, more than 15m")), "{failed}");
        assert_eq!((report.retention, world.ask().await.0.len()), (BTreeMap::new(), 2), "{seconds}");
    }
    let report = maintain(600).await;
    assert_eq!((report.failed, world.ask().await.0.len()), (vec![], 1));

    // What no age is about needs no clock.
    let options = StoreOptions { clock: Arc::new(Ahead(32 * 86_400)), ..StoreOptions::default() };
    let store = Store::new(Arc::clone(&world.objects), "memory://".to_owned(), options);
    let mut by_bytes = self::options();
    by_bytes.retention = Policy { age_max: None, bytes_max: Some(1), ..Policy::default() };
    let report = Maintainer::new(store, by_bytes).run_to_rest().await.expect("it is in memory");
    assert_eq!((report.failed, world.ask().await.0.len()), (vec![], 0));
}

/// Goal: what verification is for: each kind of trouble is found and named.
#[tokio::test]
async fn verification_finds_what_is_wrong() {
    use futures::TryStreamExt;
    let world = World::new();
    let profiles: Vec<_> = (0..6).map(profile).collect();
    world.push(&profiles).await;
    to_rest(&world, options()).await;
    let tenant = World::tenant();
    let blocks: Vec<_> = world.objects.list(Some(&tenant.blocks())).try_collect().await.expect("it is in memory");
    let key = &blocks[0].location;
    let good = world.objects.get(key).await.expect("it is there").bytes().await.expect("it is there");
    let texts = async || {
        let report = verify(&world.store, &tenant, true).await.expect("it is in memory");
        report.findings.into_iter().map(|finding| finding.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(texts().await, [] as [String; 0]);

    // Sent again it is a copy; another profile under the same id is one that nobody will find.
    world.push(&profiles[..1]).await;
    assert_eq!(texts().await, [] as [String; 0]);
    world.push(&[profiles[0].clone().with_value(77)]).await;
    let found = texts().await;
    assert!(found.len() == 1 && found[0].contains("another profile"), "{found:?}");
    for segment in world.objects.list(Some(&tenant.segments())).try_collect::<Vec<_>>().await.expect("it is in memory")
    {
        world.objects.delete(&segment.location).await.expect("it is in memory");
    }

    world.objects.put(key, good.slice(1..).into()).await.expect("it is in memory");
    assert_eq!(texts().await, [format!("{key}: has {} bytes, its commit says {}", good.len() - 1, good.len())]);

    let mut flipped = good.to_vec();
    flipped[good.len() / 8] ^= 0x10;
    world.objects.put(key, flipped.into()).await.expect("it is in memory");
    assert!(texts().await.iter().any(|text| text.contains("corrupt")), "{:?}", texts().await);

    world.objects.delete(key).await.expect("it is in memory");
    assert_eq!(texts().await, [format!("{key}: is live by the commits, and not there")]);
}
