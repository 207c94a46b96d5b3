//! The catalog while blocks take the place of segments and of each other, and what was removed is deleted.

use std::sync::Mutex;

use super::*;
use crate::commit::{BlockEntry, Draft, Outcome, Reason};
use crate::paths::{BlockKey, BlockName, BlockRef, Day};

const DAY: i64 = 86_400_000_000_000;

impl World {
    /// A handle on the commits as that of another process.
    fn commits(&self) -> Commits {
        Commits::new(self.store.clone(), self.tenant.clone())
    }

    /// Puts a compacted block, which no commit names yet. A block has one form at every level.
    async fn put_block(&self, number: u128, profiles: &[Sent]) -> BlockEntry {
        let bytes = segment(profiles);
        let times = || profiles.iter().map(|sent| sent.time_nanos);
        let ids = || profiles.iter().map(|sent| Ulid::from(sent.id));
        let first_nanos = times().min().expect("a block has profiles");
        let name = BlockName::new(1, Day::of_nanos(first_nanos), Ulid::from(number));
        let key = BlockKey { tenant: self.tenant.clone(), name }.path();
        let entry = BlockEntry {
            name,
            bytes: bytes.len() as u64,
            rows: profiles.len() as u64,
            raw_bytes: 0,
            first_nanos,
            last_nanos: times().max().expect("likewise"),
            first_id: ids().min().expect("likewise"),
            last_id: ids().max().expect("likewise"),
        };
        self.faulty.inner().put(&key, PutPayload::from_bytes(bytes)).await.expect("memory works");
        entry
    }

    /// Puts a block in the place of what it replaces.
    async fn compact(&self, number: u128, profiles: &[Sent], removes: &[BlockRef]) -> BlockName {
        let adds = match profiles {
            [] => Vec::new(),
            profiles => vec![self.put_block(number, profiles).await],
        };
        let name = BlockName::new(1, Day::of_nanos(0), Ulid::from(number));
        let name = adds.first().map_or(name, |entry| entry.name);
        let commits = self.commits();
        let base = commits.refresh().await.expect("the store works").number();
        let draft = Draft { base, reason: Reason::Compaction, adds, removes: removes.to_vec(), boundary: None };
        let outcome = commits.commit(draft, async |_, _| true).await.expect("the store works");
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
        name
    }

    async fn collect(&self, removed: &[BlockRef]) {
        for block in removed {
            self.faulty.inner().delete(&block.path(&self.tenant)).await.expect("memory works");
        }
    }

    /// Another catalog, which knows nothing yet.
    fn fresh_catalog(&self) -> Catalog {
        Catalog::new(self.store.clone(), Options::default())
    }
}

fn refs(keys: &[SegmentKey]) -> Vec<BlockRef> {
    keys.iter().map(|key| key.name.clone().into()).collect()
}

fn sorted(mut ids: Vec<u128>) -> Vec<u128> {
    ids.sort_unstable();
    ids
}

#[tokio::test(start_paused = true)]
async fn a_compaction_changes_no_answer() {
    let world = world();
    let profiles: Vec<Sent> =
        (1..=6).map(|id| Sent::new(id, if id < 4 { "api" } else { "web" }, &[], id as i64)).collect();
    let keys = [world.put(&profiles[..2]).await, world.put(&profiles[2..4]).await];
    world.put(&profiles[4..]).await;
    let before = world.view(Freshness::Now).await;
    world.compact(1, &profiles[..4], &refs(&keys)).await;
    let after = world.view(Freshness::Now).await;
    assert_eq!((after.segments().len(), after.state().len(), after.profiles()), (1, 1, 6));
    for (selector, window) in [("{}", 0..100), (r#"{service="api"}"#, 2..6), ("{}", 3..5), (r#"{service="web"}"#, 0..5)]
    {
        let query = query(selector, None, window);
        let (old, new) = (ids(&before, &query).await, ids(&after, &query).await);
        assert_eq!(sorted(old), sorted(new), "{selector}");
        assert_eq!(counts(&before, &query).await, counts(&after, &query).await, "{selector}");
    }
    for id in 1..=7 {
        let [old, new] = [&before, &after].map(|view| view.get(Ulid::from(id)));
        let (old, new) = (old.await.expect("reads work"), new.await.expect("reads work"));
        assert_eq!(old.as_ref().map(|found| found.row().sha256), new.as_ref().map(|found| found.row().sha256));
        assert_eq!(new.is_some(), id < 7);
    }
    assert_eq!(world.store.metrics().live_blocks.get(), 1);
}

/// Goal: how much a question is about is known without a request, never as less than it proves to be, and exactly once blocks are open.
#[tokio::test(start_paused = true)]
async fn how_much_is_selected_at_most_is_known_without_a_request() {
    let world = world();
    let profiles: Vec<Sent> =
        (1..=9).map(|id| Sent::new(id, if id < 4 { "api" } else { "web" }, &[], id as i64)).collect();
    let keys = [world.put(&profiles[..2]).await, world.put(&profiles[2..6]).await];
    world.put(&profiles[6..]).await;
    world.compact(1, &profiles[..6], &refs(&keys)).await;
    let catalog = world.fresh_catalog();
    let view = catalog.view(&world.tenant, Freshness::Now).await.expect("the store works");
    let mut requests = (0, 0);
    world.requests(&mut requests);
    // Of a block that is not open all six profiles count, if its time is asked for at all.
    let asked = [("{}", 0..100, 9, 9), (r#"{service="api"}"#, 2..6, 6, 2), ("{}", 3..5, 6, 2), ("{}", 7..9, 3, 2)];
    for (selector, window, unopened, _) in asked.clone() {
        assert_eq!(view.at_most(&query(selector, None, window), 100).await, unopened, "{selector}");
    }
    assert_eq!(view.at_most(&everything(), 4).await, 4, "more need not be known");
    assert_eq!(world.requests(&mut requests), (0, 0));
    view.select(&everything()).await;
    world.requests(&mut requests);
    for (selector, window, _, selected) in asked {
        let query = query(selector, None, window.clone());
        let bound = view.at_most(&query, 100).await;
        assert_eq!(view.select(&query).await.matches.len(), selected, "{selector}");
        // A segment knows the first and the last time of its series, so it may count too many.
        assert!((selected..=selected + 1).contains(&(bound as usize)), "{selector} in {window:?}: {bound}");
    }
    assert_eq!(view.at_most(&query(r#"{service="db"}"#, None, 0..100), 100).await, 0);
    assert_eq!(view.at_most(&query("{}", None, 100..200), 100).await, 0);
    assert_eq!(world.requests(&mut requests), (0, 0));
}

/// Goal: what was listed, then compacted and collected before it was opened, is found all the same. The simulation met it (seed 21712): a
/// stalled read, and a grace that was shorter.
#[tokio::test(start_paused = true)]
async fn what_is_compacted_and_collected_while_a_view_is_taken_is_found() {
    let world = world();
    let profiles: Vec<Sent> = (1..=4).map(|id| cpu(id, id as i64)).collect();
    let keys = [world.put(&profiles[..2]).await, world.put(&profiles[2..]).await];
    let compacted = async {
        world.compact(1, &profiles, &refs(&keys)).await;
        world.collect(&refs(&keys)).await;
    };
    let view = world.view_while(&keys[1], compacted).await;
    assert_eq!(sorted(ids(&view, &everything()).await), [1, 2, 3, 4]);
    assert_eq!(view.problems(), []);
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_is_never_opened_though_it_is_listed() {
    let world = world();
    let profiles: Vec<Sent> = (1..=20).map(|id| cpu(id, id as i64)).collect();
    let mut keys = Vec::new();
    for profile in &profiles {
        keys.push(world.put(std::slice::from_ref(profile)).await);
    }
    world.compact(1, &profiles, &refs(&keys)).await;
    let catalog = world.fresh_catalog();
    let mut before = (0, 0);
    world.requests(&mut before);
    let view = catalog.view(&world.tenant, Freshness::Now).await.expect("the store works");
    assert_eq!(world.requests(&mut before), (1, 0), "neither the segments nor, until it is asked for, the block");
    assert_eq!(sorted(ids(&view, &everything()).await), Vec::from_iter(1..=20));
    assert_eq!(world.requests(&mut before), (0, 1));
    catalog.view(&world.tenant, Freshness::Now).await.expect("the store works");
    assert_eq!(world.requests(&mut before), (1, 0));
    world.collect(&refs(&keys)).await;
    let view = catalog.view(&world.tenant, Freshness::Now).await.expect("the store works");
    assert_eq!((ids(&view, &everything()).await.len(), view.problems()), (20, &[][..]));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_segment_that_was_compacted_is_answered_by_the_block() {
    let world = world();
    let key = world.put(&[cpu(1, 10)]).await;
    world.compact(1, &[cpu(1, 10)], &refs(std::slice::from_ref(&key))).await;
    world.view(Freshness::Now).await;
    sleep(10 * SECOND).await;
    let mut before = (0, 0);
    world.requests(&mut before);
    let view = world.view(Freshness::AtLeast(key.name)).await;
    assert_eq!((world.requests(&mut before), ids(&view, &everything()).await), ((0, 0), vec![1]));
}

#[tokio::test(start_paused = true)]
async fn blocks_are_opened_only_where_time_or_ids_say_so() {
    let world = world();
    for day in 0..5 {
        let profiles: Vec<Sent> = (0..4).map(|n| cpu(10 * day as u128 + n, day * DAY + n as i64)).collect();
        world.compact(day as u128, &profiles, &[]).await;
    }
    let view = world.view(Freshness::Now).await;
    let mut before = (0, 0);
    world.requests(&mut before);
    let found = ids(&view, &query("{}", None, 2 * DAY..3 * DAY)).await;
    assert_eq!((sorted(found), world.requests(&mut before)), (vec![20, 21, 22, 23], (0, 1)));
    assert_eq!(ids(&view, &query("{}", None, DAY + 4..2 * DAY)).await, [0; 0]);
    assert_eq!(ids(&view, &query("{}", None, DAY..DAY)).await, [0; 0]);
    assert_eq!(view.get(Ulid::from(7)).await.expect("nothing to read").map(|found| found.row_index()), None);
    assert_eq!(world.requests(&mut before), (0, 0));
    let found = view.get(Ulid::from(41)).await.expect("reads work").expect("it is there");
    assert_eq!((found.row().time_nanos, world.requests(&mut before)), (4 * DAY + 1, (0, 1)));
    // A new segment is compared with the block that may have its id, and with no other.
    world.put(&[cpu(33, 3 * DAY), cpu(99, 3 * DAY)]).await;
    let view = world.view(Freshness::Now).await;
    assert_eq!((view.profiles(), world.requests(&mut before)), (21, (1, 2)));
    world.view(Freshness::Now).await;
    assert_eq!(world.requests(&mut before), (1, 0), "once");
}

#[tokio::test(start_paused = true)]
async fn an_id_that_a_block_has_counts_there_alone() {
    let world = world();
    let first = world.put(&[cpu(1, 10), cpu(2, 20)]).await;
    // A retry that was written before what it repeats was compacted, and one after it, which says something else.
    world.put(&[cpu(1, 10), cpu(3, 30)]).await;
    let block = world.compact(1, &[cpu(1, 10), cpu(2, 20)], &refs(&[first])).await;
    world.put(&[Sent::new(2, "web", &[], 25).with_value(5), cpu(4, 40)]).await;
    for catalog in [world.catalog.clone(), world.fresh_catalog()] {
        let view = catalog.view(&world.tenant, Freshness::Now).await.expect("the store works");
        assert_eq!((sorted(ids(&view, &everything()).await), view.profiles()), (vec![1, 2, 3, 4], 4));
        assert_eq!(ids(&view, &query(r#"{service="web"}"#, None, 0..100)).await, [0; 0]);
        assert_eq!(counts(&view, &everything()).await.values().sum::<u64>(), 4);
        let found = view.get(Ulid::from(2)).await.expect("reads work").expect("it is there");
        assert_eq!(found.labels().service(), "api");
    }
    assert_eq!(world.store.metrics().conflicts.get(), 2, "each catalog saw it once");
    // Blocks take each other's place: nothing is uncovered. When the last goes, what it covered counts.
    let merged = world.compact(2, &[cpu(1, 10), cpu(2, 20)], &[block.into()]).await;
    assert_eq!(sorted(world.ids().await), [1, 2, 3, 4]);
    world.compact(0, &[], &[merged.into()]).await;
    let view = world.view(Freshness::Now).await;
    assert_eq!(sorted(ids(&view, &everything()).await), [1, 2, 3, 4]);
    assert_eq!(ids(&view, &query(r#"{service="web"}"#, None, 0..100)).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_block_is_told_to_those_who_ask_for_its_time() {
    let world = world();
    let bad = world.compact(1, &[cpu(1, 10), cpu(5, 50)], &[]).await;
    world.compact(2, &[cpu(11, DAY + 10)], &[]).await;
    let path = BlockRef::from(bad).path(&world.tenant);
    world.faulty.on_key(&path, Trouble::Refuse(403));
    world.put(&[cpu(3, 30)]).await;
    let view = world.view(Freshness::Now).await;
    assert_eq!(view.problems(), []);
    let selection = view.select(&query("{}", None, DAY..2 * DAY)).await;
    assert_eq!((selection.matches.len(), &*selection.problems), (1, &[][..]));
    let selection = view.select(&everything()).await;
    assert_eq!((selection.matches.len(), selection.problems.len()), (2, 1));
    assert_eq!(selection.problems[0].key, path);
    assert_eq!(view.series(&everything()).await.problems.len(), 1);
    assert_eq!(view.get(Ulid::from(4)).await.expect_err("who knows").key, path);
    assert!(view.get(Ulid::from(3)).await.expect("a segment has it").is_some());
    world.faulty.on_key(&path, Trouble::None);
    sleep(6 * SECOND).await;
    assert_eq!(sorted(world.ids().await), [1, 3, 5, 11]);
}

/// What a block shares with segments is found out when it comes. Where that failed, it must not answer until it is made up for.
#[tokio::test(start_paused = true)]
async fn a_block_that_could_not_be_compared_does_not_count_an_id_twice() {
    let world = world();
    let first = world.put(&[cpu(1, 10), cpu(2, 20)]).await;
    world.put(&[cpu(1, 10), cpu(3, 30)]).await;
    let block = world.compact(1, &[cpu(1, 10), cpu(2, 20)], &refs(&[first])).await;
    let path = BlockRef::from(block).path(&world.tenant);
    world.faulty.on_key(&path, Trouble::Refuse(403));
    let view = world.view(Freshness::Now).await;
    world.faulty.on_key(&path, Trouble::None);
    let selection = view.select(&everything()).await;
    assert_eq!((selection.matches.len(), selection.problems.len()), (2, 1));
    assert_eq!(counts(&view, &everything()).await.values().sum::<u64>(), 2);
    // A segment that comes meanwhile is no reason to take the block for compared.
    world.put(&[cpu(2, 20), cpu(4, 40)]).await;
    let view = world.view(Freshness::Now).await;
    assert_eq!(
        sorted(view.select(&everything()).await.matches.iter().map(|found| u128::from(found.row().id)).collect()),
        [1, 2, 3, 4]
    );
    sleep(6 * SECOND).await;
    let view = world.view(Freshness::Now).await;
    assert_eq!(view.select(&everything()).await.problems, []);
    assert_eq!((sorted(ids(&view, &everything()).await), view.profiles()), (vec![1, 2, 3, 4], 4));
}

#[tokio::test(start_paused = true)]
async fn commits_that_cannot_be_read_give_no_view_until_they_can() {
    let world = world();
    world.compact(1, &[cpu(1, 10)], &[]).await;
    world.faulty.always(Operation::Get, Trouble::Refuse(500));
    let error = world.catalog.view(&world.tenant, Freshness::Now).await.expect_err("the store refuses");
    assert!(matches!(&error, Error::Commits { source, .. } if !source.is_damage()), "{error:?}");
    world.faulty.always(Operation::Get, Trouble::None);
    assert_eq!(world.ids().await, [1]);
}

/// A view may name what is deleted while it is used. Its answers are those of a new view then, and lack nothing.
#[tokio::test(start_paused = true)]
async fn what_was_collected_is_found_where_it_is_now() {
    let world = World::new(Options { cache_bytes_max: 1, ..Options::default() });
    let keys = [world.put(&[cpu(1, 10)]).await, world.put(&[cpu(2, 20)]).await];
    let with_segments = world.view(Freshness::Now).await;
    let block = world.compact(1, &[cpu(1, 10), cpu(2, 20)], &refs(&keys)).await;
    let with_block = world.view(Freshness::Now).await;
    world.compact(2, &[cpu(1, 10), cpu(2, 20)], &[block.into()]).await;
    world.collect(&refs(&keys)).await;
    world.collect(&[block.into()]).await;
    for view in [with_segments, with_block] {
        let selection = view.select(&everything()).await;
        assert_eq!((selection.matches.len(), &*selection.problems), (2, &[][..]));
        // The window cuts the segments, so their rows are asked.
        let cut = query("{}", None, 0..15);
        assert_eq!(counts(&view, &cut).await.values().sum::<u64>(), 1);
        assert_eq!(view.series(&cut).await.problems, []);
        assert!(view.get(Ulid::from(2)).await.expect("the new view has it").is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_but_still_named_is_a_problem() {
    let world = World::new(Options { cache_bytes_max: 1, ..Options::default() });
    let block = world.compact(1, &[cpu(1, 10)], &[]).await;
    world.put(&[cpu(2, 20)]).await;
    world.collect(&[block.into()]).await;
    let selection = world.view(Freshness::Now).await.select(&everything()).await;
    let texts: Vec<_> = selection.problems.iter().map(|problem| &*problem.text).collect();
    assert_eq!((selection.matches.len(), texts), (1, vec!["is no longer there"]));
}

/// Two compactors at once, each with a handle of its own, and a collector with little patience: whoever reads meanwhile sees each
/// profile that was acknowledged before exactly once, and nothing is amiss.
#[tokio::test(start_paused = true)]
async fn readers_during_commits_see_each_profile_exactly_once() {
    let world = Arc::new(World::new(Options { cache_bytes_max: 64 << 10, ..Options::default() }));
    world.faulty.always(Operation::Get, Trouble::Slow(Duration::from_millis(20)));
    let acknowledged: Arc<Mutex<BTreeSet<u128>>> = Arc::default();
    let (writing, rounds) = (Arc::clone(&world), 400u128);
    let acks = Arc::clone(&acknowledged);
    let writer = tokio::spawn(async move {
        let random = SeededRandom::new(3);
        for round in 0..rounds {
            // Every third is sent again with a later one.
            let mut batch = vec![cpu(2 * round, round as i64), cpu(2 * round + 1, round as i64)];
            if round > 3 && round % 3 == 0 {
                let again = 2 * (u128::from(random.next_u64()) % round);
                batch.push(cpu(again, again as i64 / 2));
            }
            writing.put(&batch).await;
            acks.lock().expect("no panics").extend(batch.iter().map(|sent| sent.id));
            sleep(Duration::from_millis(40)).await;
        }
    });
    let held: Arc<Mutex<BTreeMap<BlockName, Vec<u128>>>> = Arc::default();
    let compactors = [1u128, 2].map(|compactor| {
        let (world, held) = (Arc::clone(&world), Arc::clone(&held));
        tokio::spawn(async move {
            let catalog = world.fresh_catalog();
            let commits = world.commits();
            let (mut committed, mut rejected) = (0, 0);
            for round in 0..200u128 {
                sleep(Duration::from_millis(60)).await;
                let view = catalog.view(&world.tenant, Freshness::Now).await.expect("the store works");
                let inputs: Vec<SegmentName> = view.segments().take(6).map(|segment| segment.name.clone()).collect();
                let blocks: Vec<BlockName> = view.state().blocks().map(|live| live.entry.name).collect();
                let merged: Vec<BlockName> = if blocks.len() > 4 { blocks[..3].to_vec() } else { Vec::new() };
                let kept = |name: &BlockName| !merged.contains(name);
                let taken: BTreeSet<u128> = {
                    let held = held.lock().expect("no panics");
                    blocks.iter().filter(|name| kept(name)).flat_map(|name| held[name].clone()).collect()
                };
                let mut ids: BTreeSet<u128> =
                    merged.iter().flat_map(|name| held.lock().expect("no panics")[name].clone()).collect();
                for name in &inputs {
                    let key = SegmentKey { tenant: world.tenant.clone(), name: name.clone() };
                    let found = world.faulty.inner().get(&key.path()).await;
                    // Another compactor was faster, and the collector as well.
                    let Ok(_) = found else { continue };
                    let block = Block::open(world.faulty.inner(), key.path()).await.expect("reads work");
                    ids.extend(block.rows().await.expect("reads work").iter().map(|row| u128::from(row.id)));
                }
                let ids: Vec<u128> = ids.into_iter().filter(|id| !taken.contains(id)).collect();
                if inputs.is_empty() || ids.is_empty() {
                    continue;
                }
                let sent: Vec<Sent> = ids.iter().map(|id| cpu(*id, *id as i64 / 2)).collect();
                let entry = world.put_block(compactor << 64 | round, &sent).await;
                held.lock().expect("no panics").insert(entry.name, ids.clone());
                let removes: Vec<BlockRef> =
                    inputs.iter().cloned().map(BlockRef::from).chain(merged.into_iter().map(BlockRef::from)).collect();
                let draft = Draft {
                    base: view.state().number(),
                    reason: Reason::Compaction,
                    adds: vec![entry],
                    removes: removes.clone(),
                    boundary: None,
                };
                let is_right = |_, others: Vec<Arc<BlockEntry>>| {
                    let held = held.lock().expect("no panics");
                    let shares = others.iter().any(|other| held[&other.name].iter().any(|id| ids.contains(id)));
                    std::future::ready(!shares)
                };
                match commits.commit(draft, is_right).await.expect("the store works") {
                    Outcome::Committed { .. } => {
                        committed += 1;
                        let world = Arc::clone(&world);
                        tokio::spawn(async move {
                            // Longer than a question takes here.
                            sleep(2 * SECOND).await;
                            world.collect(&removes).await;
                        });
                    }
                    Outcome::Rejected(_) => rejected += 1,
                    Outcome::Unknown { .. } => panic!("creates work"),
                }
            }
            (committed, rejected)
        })
    });
    let mut looks = 0;
    while !writer.is_finished() {
        let expected = acknowledged.lock().expect("no panics").clone();
        let view = world.view(Freshness::Now).await;
        let selection = view.select(&everything()).await;
        assert_eq!(selection.problems, [], "nothing is amiss");
        let found: Vec<u128> = selection.matches.iter().map(|found| found.row().id.into()).collect();
        let distinct: BTreeSet<u128> = found.iter().copied().collect();
        assert_eq!(distinct.len(), found.len(), "each counts once");
        assert!(distinct.is_superset(&expected), "nothing is missed: {:?}", expected.difference(&distinct));
        looks += 1;
        sleep(Duration::from_millis(7)).await;
    }
    writer.await.expect("no panics");
    let mut total = (0, 0);
    for compactor in compactors {
        let (committed, rejected) = compactor.await.expect("no panics");
        total = (total.0 + committed, total.1 + rejected);
    }
    assert!(looks > 30 && total.0 > 64 && total.1 > 0, "{looks} looks, {total:?} commits made and thrown away");
    let all = Vec::from_iter(0..2 * rounds);
    assert_eq!(sorted(world.ids().await), all);
    let late = world.fresh_catalog().view(&world.tenant, Freshness::Now).await.expect("the store works");
    assert_eq!(sorted(ids(&late, &everything()).await), all, "from a snapshot as well");
    assert!(late.state().number() >= 64, "a snapshot was written: {}", late.state().number());
}

/// Goal: however the rows of a block stand, and wherever a window cuts, a selection has the profiles that a look at each of them finds, and
/// each is found by its id.
#[tokio::test(start_paused = true)]
async fn what_is_selected_in_a_block_is_what_a_look_at_each_profile_finds() {
    let world = world();
    let profiles: Vec<Sent> = (0..60_u128)
        .map(|id| {
            let (service, dc) = (["api", "web", "db"][id as usize % 3], ["eu", "us"][id as usize / 3 % 2]);
            // Some stand in the order of their times, some do not, some are of one time.
            let time = match service {
                "api" => id as i64,
                "web" => (id as i64 * 7) % 60,
                _ => 30,
            };
            Sent::new(id + 1, service, &[("dc", dc)], time).of_type(if id % 5 == 0 { "heap" } else { "cpu" })
        })
        .collect();
    world.compact(1, &profiles, &[]).await;
    let view = world.view(Freshness::Now).await;
    let windows = [(0, 60), (0, 61), (1, 59), (30, 31), (29, 30), (17, 43), (60, 90), (-5, 0), (-5, 1)];
    for (start, end) in windows {
        for (selector, service) in
            [("{}", None), (r#"{service="web"}"#, Some("web")), (r#"{service=~"d."}"#, Some("db"))]
        {
            for profile_type in [None, Some("heap")] {
                let is_asked = |sent: &&Sent| {
                    let of_type = |wanted: &str| sent.profile_type.as_str() == wanted;
                    (start..end).contains(&sent.time_nanos)
                        && service.is_none_or(|service| sent.labels.service() == service)
                        && profile_type.is_none_or(of_type)
                };
                let expected: Vec<&Sent> = profiles.iter().filter(is_asked).collect();
                let asked = query(selector, profile_type, start..end);
                let expected_ids = sorted(expected.iter().map(|sent| sent.id).collect());
                assert_eq!(sorted(ids(&view, &asked).await), expected_ids, "{asked:?}");
                let mut series = BTreeMap::new();
                for sent in expected {
                    *series.entry(format!("{} {}", sent.labels, sent.profile_type)).or_insert(0) += 1;
                }
                assert_eq!(counts(&view, &asked).await, series, "{asked:?}");
            }
        }
    }
    for sent in &profiles {
        let found = view.get(sent.id.into()).await.expect("the store works").expect("it is there");
        assert_eq!(u128::from(found.row().id), sent.id);
    }
    assert!(view.get(Ulid::from(61)).await.expect("the store works").is_none());
}

/// Goal: a block that takes most of the cache, as that of a day of a large fleet, is not opened anew for each question.
#[tokio::test(start_paused = true)]
async fn a_block_that_takes_most_of_the_cache_is_kept() {
    let world = World::new(Options { cache_bytes_max: 256 << 10, ..Options::default() });
    let profiles: Vec<Sent> = (1..=1_000).map(|id| cpu(id, id as i64)).collect();
    world.compact(1, &profiles, &[]).await;
    let view = world.view(Freshness::Now).await;
    let mut before = (0, 0);
    assert_eq!(ids(&view, &everything()).await.len(), 1_000);
    assert!(world.requests(&mut before).1 > 0);
    assert_eq!(ids(&view, &everything()).await.len(), 1_000);
    assert_eq!(world.requests(&mut before), (0, 0));
}
