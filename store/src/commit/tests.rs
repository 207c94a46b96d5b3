//! Commits over a store that fails as told: what each handle sees, what it costs, and that of racing makers each is told the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use proptest::prelude::*;
use tokio::time::sleep;
use ulid::Ulid;

use super::state::tests::{HOUR, NOW, entry, segment};
use super::*;
use crate::StoreOptions;
use crate::clock::{Random, SeededRandom};
use crate::paths::{BlockKey, BlockName, BlockRef, Day};
use crate::testing::faults::{Faulty, Operation, Trouble};
use crate::testing::time::PausedClock;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: i64 = 86_400_000_000_000;

struct World {
    faulty: Faulty,
    store: Store,
    tenant: TenantId,
}

impl World {
    fn new() -> Self {
        let faulty = Faulty::new(Arc::new(InMemory::new()));
        let options = StoreOptions {
            clock: Arc::new(PausedClock::new()),
            random: Arc::new(SeededRandom::new(1)),
            ..StoreOptions::default()
        };
        let store = Store::new(Arc::new(faulty.clone()), "faulty".to_owned(), options);
        Self { faulty, store, tenant: TenantId::anonymous() }
    }

    /// A handle that knows nothing yet, as that of another process.
    fn commits(&self) -> Commits {
        Commits::new(self.store.clone(), self.tenant.clone())
    }

    async fn put(&self, key: &Path, bytes: Vec<u8>) {
        self.faulty.inner().put(key, PutPayload::from(bytes)).await.expect("memory works");
    }

    /// Puts something as long as a block that shall be added.
    async fn put_block(&self, entry: &BlockEntry) {
        let key = BlockKey { tenant: self.tenant.clone(), name: entry.name }.path();
        self.put(&key, vec![0; entry.bytes as usize]).await;
    }

    async fn delete(&self, key: &Path) {
        self.faulty.inner().delete(key).await.expect("memory works");
    }

    /// Commits a block of its own number in the place of a segment.
    async fn commit(&self, commits: &Commits, number: u128) -> u64 {
        let draft = self.draft(&commits.refresh().await.expect("the store works"), number).await;
        match commits.commit(draft, async |_, _| true).await.expect("the store works") {
            Outcome::Committed { number } => number,
            outcome => panic!("nobody else commits: {outcome:?}"),
        }
    }

    async fn draft(&self, state: &State, number: u128) -> Draft {
        let adds = vec![entry(number, number as i64 % 3 * DAY)];
        self.put_block(&adds[0]).await;
        let removes = vec![segment(NOW + number as u64).into()];
        Draft { base: state.number(), reason: Reason::Compaction, adds, removes, boundary: None }
    }

    /// How many creates, listings and reads were made since this was asked before.
    fn requests(&self, before: &mut [usize; 3]) -> [usize; 3] {
        let now = [Operation::Create, Operation::List, Operation::Get].map(|operation| self.faulty.count(operation));
        let made = [now[0] - before[0], now[1] - before[1], now[2] - before[2]];
        *before = now;
        made
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_costs_a_read_for_each_new_commit_and_one_that_finds_none() {
    let world = World::new();
    let (maker, reader) = (world.commits(), world.commits());
    let mut before = [0; 3];
    assert_eq!(reader.refresh().await.expect("the store works").number(), 0);
    assert_eq!(world.requests(&mut before), [0, 1, 1], "at first the snapshots are listed");
    reader.refresh().await.expect("the store works");
    assert_eq!(world.requests(&mut before), [0, 0, 1]);
    for number in 1..=3 {
        assert_eq!(world.commit(&maker, number).await, number as u64);
    }
    world.requests(&mut before);
    let state = reader.refresh().await.expect("the store works");
    // One, then two at once, then four at once, of which none is there.
    assert_eq!((state.number(), state.len(), world.requests(&mut before)), (3, 3, [0, 0, 7]));
    assert_eq!(*state, *maker.refresh().await.expect("the store works"));
    world.requests(&mut before);
    sleep(11 * MINUTE).await;
    reader.refresh().await.expect("the store works");
    assert_eq!(world.requests(&mut before), [0, 1, 1], "now and then they are listed again");
}

#[tokio::test(start_paused = true)]
async fn whoever_starts_late_starts_from_a_snapshot_and_sees_the_same() {
    let world = World::new();
    let (maker, follower) = (world.commits(), world.commits());
    follower.refresh().await.expect("the store works");
    for number in 1..=140 {
        world.commit(&maker, number).await;
        if number % 10 == 0 {
            follower.refresh().await.expect("the store works");
        }
    }
    let mut before = [0; 3];
    world.requests(&mut before);
    let late = world.commits().refresh().await.expect("the store works");
    // A listing; the head of 128 and three days; twelve commits, in windows of 1, 2, 4 and 8.
    assert_eq!(world.requests(&mut before), [0, 1, 4 + 15]);
    assert_eq!(*late, *follower.refresh().await.expect("the store works"), "replayed or read, the state is one");
    assert_eq!((late.number(), late.len(), late.removed().count()), (140, 140, 140));
}

#[tokio::test(start_paused = true)]
async fn a_reader_far_behind_skips_to_a_snapshot() {
    let world = World::new();
    let (maker, slow) = (world.commits(), world.commits());
    slow.refresh().await.expect("the store works");
    for number in 1..=700 {
        world.commit(&maker, number).await;
    }
    let mut before = [0; 3];
    world.requests(&mut before);
    assert_eq!(slow.refresh().await.expect("the store works").number(), 700);
    let [_, lists, gets] = world.requests(&mut before);
    assert!(lists == 1 && gets < 260, "{gets} reads instead of 700");
}

/// Old commits may be deleted once a snapshot has them. A reader that is older than that must neither stop there nor take what a
/// sleeper makes anew in the hole for the next commit.
#[tokio::test(start_paused = true)]
async fn a_reader_that_meets_a_hole_starts_from_the_newest_snapshot() {
    for sleeper in [false, true] {
        let world = World::new();
        let (maker, slept) = (world.commits(), world.commits());
        for number in 1..=10 {
            world.commit(&maker, number).await;
        }
        assert_eq!(slept.refresh().await.expect("the store works").number(), 10);
        for number in 11..=70 {
            world.commit(&maker, number).await;
        }
        for number in 1..=64 {
            world.delete(&world.tenant.commit(number)).await;
        }
        sleep(24 * 60 * MINUTE).await;
        if sleeper {
            let draft =
                Commit { reason: Reason::Compaction, adds: vec![entry(999, 0)], removes: vec![], boundary: None };
            let log = Log::new(world.store.clone(), world.tenant.clone());
            let nonce = log::Nonce::draw(&**world.store.random());
            assert!(matches!(log.append(11, nonce, &draft.encode()).await, log::Appended::Committed));
        }
        let state = slept.refresh().await.expect("the newest snapshot is there");
        assert_eq!(*state, *maker.refresh().await.expect("the store works"), "sleeper: {sleeper}");
        assert_eq!(state.number(), 70);
        assert_eq!(*world.commits().refresh().await.expect("the store works"), *state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_costs_requests_as_long_as_the_commits_are_there() {
    let world = World::new();
    let maker = world.commits();
    for number in 1..=130 {
        world.commit(&maker, number).await;
    }
    let state = maker.refresh().await.expect("the store works");
    let shard = world.tenant.day(Day::of_nanos(DAY), 128);
    for damaged in [world.tenant.snapshot(128), shard] {
        world.faulty.on_key(&damaged, Trouble::FlipBit(77));
        assert_eq!(*world.commits().refresh().await.expect("the one before it will do"), *state);
        world.faulty.on_key(&world.tenant.snapshot(64), Trouble::FlipBit(77));
        assert_eq!(*world.commits().refresh().await.expect("the commits will do"), *state);
        world.faulty.on_key(&world.tenant.commit(3), Trouble::Refuse(404));
        let reader = world.commits();
        for _ in 0..2 {
            let error = reader.refresh().await.expect_err("nobody knows the state");
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
        }
        for key in [&damaged, &world.tenant.snapshot(64), &world.tenant.commit(3)] {
            world.faulty.on_key(key, Trouble::None);
        }
        assert_eq!(*reader.refresh().await.expect("all is well again"), *state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_commit_is_told_until_a_snapshot_has_it() {
    let world = World::new();
    let (maker, reader) = (world.commits(), world.commits());
    reader.refresh().await.expect("the store works");
    for number in 1..=10 {
        world.commit(&maker, number).await;
    }
    world.faulty.on_key(&world.tenant.commit(7), Trouble::FlipBit(99));
    let error = reader.refresh().await.expect_err("what follows is not known");
    assert!(error.is_damage() && error.to_string().contains("commit/00000000000000000007"), "{error}");
    for number in 11..=64 {
        world.commit(&maker, number).await;
    }
    assert_eq!(reader.refresh().await.expect("a snapshot has it").number(), 64);
}

/// Goal: a commit that something else deleted is named; none is made in its place, which would leave out all that was committed since.
#[tokio::test(start_paused = true)]
async fn a_lost_commit_is_not_the_end() {
    let world = World::new();
    let maker = world.commits();
    for number in 1..=30 {
        world.commit(&maker, number).await;
    }
    let (mut read, mut listed) = (0, 0);
    for lost in 1..30 {
        let key = world.tenant.commit(lost);
        let bytes = world.faulty.get(&key).await.expect("it is there").bytes().await.expect("it is there");
        world.delete(&key).await;
        let late = world.commits();
        let error = match late.refresh().await {
            Err(error) => {
                read += 1;
                error
            }
            // It was the last that was asked for at once: only who wants to commit has to know.
            Ok(state) => {
                listed += 1;
                assert_eq!(state.number(), lost - 1);
                let draft = world.draft(&state, 1000 + u128::from(lost)).await;
                late.commit(draft, async |_, _| true).await.expect_err("there are later ones")
            }
        };
        let text = format!("{key} is missing, though later commits are there");
        assert!(error.is_damage() && error.to_string() == text, "{error}");
        world.faulty.put(&key, bytes.into()).await.expect("the store works");
        assert_eq!(late.refresh().await.expect("it is there again").number(), 30);
        assert_eq!(world.commits().refresh().await.expect("nothing was made in its place").number(), 30);
    }
    assert!(read > 20 && listed > 2, "{read} {listed}");
    assert_eq!(world.commit(&world.commits(), 31).await, 31);
}

#[tokio::test(start_paused = true)]
async fn a_maker_that_was_outrun_looks_again() {
    let world = World::new();
    let (first, second) = (world.commits(), world.commits());
    let state = second.refresh().await.expect("the store works");
    let drafts = [world.draft(&state, 1).await, world.draft(&state, 2).await, world.draft(&state, 3).await];
    let [others, refused, taken] = drafts;
    let theirs = others.adds[0].name;
    first.commit(others.clone(), async |_, _| panic!("nobody was faster")).await.expect("the store works");
    for (draft, answer) in [(refused, false), (taken, true)] {
        let outcome = second.commit(draft, async |state: Arc<State>, added: Vec<Arc<BlockEntry>>| {
            assert_eq!((state.number(), added.len(), added[0].name), (1, 1, theirs));
            answer
        });
        match (answer, outcome.await.expect("the store works")) {
            (false, Outcome::Rejected(Rejection::Refused)) | (true, Outcome::Committed { number: 2 }) => {}
            (_, outcome) => panic!("{outcome:?}"),
        }
    }
    let outcome = second.commit(others, async |_, _| true).await.expect("the store works");
    assert!(matches!(outcome, Outcome::Rejected(Rejection::Conflict(Conflict::Added(_)))), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_in_the_bucket_is_not_added() {
    let world = World::new();
    let commits = world.commits();
    let draft = world.draft(&State::default(), 1).await;
    let name = draft.adds[0].name;
    // A machine that slept for half a day after its PUT.
    let state = State { at_millis: u64::MAX / 2, ..State::default() };
    let commit = Commit { reason: draft.reason, adds: draft.adds.clone(), removes: vec![], boundary: None };
    let found = commits.look_for_blocks(&commit, &state).await.expect("the store works");
    assert_eq!(found, Err(Rejection::TooOld(name)));
    world.put_block(&BlockEntry { bytes: 7, ..draft.adds[0].clone() }).await;
    let outcome = commits.commit(draft.clone(), async |_, _| true).await.expect("the store works");
    assert!(matches!(outcome, Outcome::Rejected(Rejection::Missing(missing)) if missing == name), "{outcome:?}");
    world.delete(&BlockRef::from(name).path(&world.tenant)).await;
    let outcome = commits.commit(draft, async |_, _| true).await.expect("the store works");
    assert!(matches!(outcome, Outcome::Rejected(Rejection::Missing(missing)) if missing == name), "{outcome:?}");
    assert_eq!(commits.refresh().await.expect("the store works").number(), 0);
}

/// Makers on handles of their own, over a store in which every second request goes wrong in some way. Each is told the truth, and
/// all who look afterwards see the same.
#[tokio::test(start_paused = true)]
async fn racing_makers_are_told_the_truth() {
    const MAKERS: u64 = 6;
    const EACH: u64 = 25;
    for seed in 0..4 {
        let world = Arc::new(World::new());
        let random = SeededRandom::new(seed);
        let troubles = [
            Trouble::Refuse(500),
            Trouble::Refuse(409),
            Trouble::ApplyThenRefuse(500),
            Trouble::ApplyThenRefuse(412),
            Trouble::LoseAnswer,
            Trouble::Stall,
            Trouble::ApplyThenStall,
            Trouble::ApplyLater(Duration::from_secs(7)),
            Trouble::Slow(Duration::from_millis(50)),
            Trouble::Unreachable,
        ];
        let draw = |random: &SeededRandom| match random.next_u64() % 20 {
            n if n < 10 => troubles[n as usize],
            _ => Trouble::None,
        };
        world.faulty.script(Operation::Create, (0..2_000).map(|_| draw(&random)).collect::<Vec<_>>());
        let makers = (0..MAKERS).map(|maker| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let commits = world.commits();
                let mut told = BTreeMap::new();
                for n in 0..EACH {
                    let number = u128::from(maker * EACH + n);
                    let state = commits.refresh().await.expect("reads work");
                    let draft = world.draft(&state, number).await;
                    told.insert(number, commits.commit(draft, async |_, _| true).await);
                }
                told
            })
        });
        let mut told = BTreeMap::new();
        for maker in futures::future::join_all(makers).await {
            told.extend(maker.expect("no maker panics"));
        }
        sleep(MINUTE).await;
        let state = world.commits().refresh().await.expect("reads work");
        let live: BTreeSet<u128> = state.blocks().map(|live| live.entry.name.ulid().into()).collect();
        let mut numbers = BTreeSet::new();
        let mut committed = 0;
        for (number, outcome) in told {
            let is_live = live.contains(&number);
            match outcome {
                Ok(Outcome::Committed { number: commit }) => {
                    assert!(is_live && numbers.insert(commit), "seed {seed}: {number} is live once");
                    let block = state.blocks().find(|live| u128::from(live.entry.name.ulid()) == number);
                    assert_eq!(block.expect("live").added_in, commit);
                    committed += 1;
                }
                Ok(Outcome::Rejected(rejection)) => panic!("seed {seed}: nothing was in the way: {rejection}"),
                Err(error) => assert!(!is_live, "seed {seed}: {error}"),
                Ok(Outcome::Unknown { .. }) => {}
            }
        }
        assert!(committed > (MAKERS * EACH) as usize / 2, "seed {seed}: {committed}");
        let replayed = replay_all(&world).await;
        assert_eq!(replayed, *state, "seed {seed}: replayed from the first commit");
    }
}

/// The state by the words of the rule: every commit that is there, from the first on.
async fn replay_all(world: &World) -> State {
    let log = Log::new(world.store.clone(), world.tenant.clone());
    let mut state = State::default();
    while let Some(found) = log.read(state.number() + 1).await.expect("reads work") {
        let commit = Commit::decode(&found.payload).expect("sound");
        state.apply(&commit, found.at_millis).expect("each commit follows upon the one before");
    }
    state
}

/// What happens next: a block is added, blocks and segments are removed, the boundary moves, time passes.
#[derive(Clone, Debug)]
struct Step {
    add: Option<(u128, u8)>,
    remove: Option<prop::sample::Index>,
    segments: Vec<u64>,
    boundary: Option<u64>,
    hours: u64,
    snapshot: bool,
}

fn any_step() -> impl Strategy<Value = Step> {
    (
        prop::option::of((any::<u128>(), 0..4u8)),
        prop::option::of(any::<prop::sample::Index>()),
        prop::collection::vec(0..48u64, 0..4),
        prop::option::of(0..48u64),
        0..10u64,
        any::<bool>(),
    )
        .prop_map(|(add, remove, segments, boundary, hours, snapshot)| Step {
            add,
            remove,
            segments,
            boundary,
            hours,
            snapshot,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever was committed, a snapshot over an older one gives the same state back, and what a state says of a name is what the
    /// commits said.
    #[test]
    fn a_snapshot_is_the_state(steps in prop::collection::vec(any_step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
        runtime.block_on(async {
            let world = World::new();
            let (mut state, mut head, mut now) = (State::default(), None, NOW);
            let mut live: BTreeMap<BlockName, u64> = BTreeMap::new();
            for step in steps {
                now += step.hours * HOUR;
                let adds: Vec<_> = step.add.iter().map(|(number, day)| entry(*number, i64::from(*day) * DAY)).collect();
                let mut removes: Vec<BlockRef> = step.segments.iter().map(|hour| segment(NOW + hour * HOUR).into()).collect();
                if let (Some(index), false) = (step.remove, live.is_empty()) {
                    removes.push((**index.get(&live.keys().collect::<Vec<_>>())).into());
                }
                let boundary = step.boundary.map(|hour| NOW + hour * HOUR);
                let commit = Commit { reason: Reason::Compaction, adds, removes, boundary };
                let before = state.clone();
                if state.apply(&commit, now).is_err() {
                    prop_assert_eq!(&state, &before);
                    continue;
                }
                for entry in &commit.adds {
                    live.insert(entry.name, state.number());
                }
                for removed in &commit.removes {
                    if let BlockRef::Block(name) = removed {
                        live.remove(name);
                    }
                    // Invisible from now on, by its name or by the boundary.
                    if let BlockRef::Segment(name) = removed {
                        prop_assert!(state.is_removed(name));
                    }
                }
                let found: BTreeMap<_, _> = state.blocks().map(|live| (live.entry.name, live.added_in)).collect();
                prop_assert_eq!(&found, &live);
                if step.snapshot {
                    let (written, _) = snapshot::write(&world.store, &world.tenant, &state, head.as_ref()).await.expect("memory works");
                    let read = snapshot::read(&world.store, &world.tenant, state.number()).await.expect("memory works");
                    let (found, read) = read.expect("it was written");
                    prop_assert_eq!(&read, &state);
                    prop_assert_eq!(&found, &written);
                    head = Some(written);
                }
            }
            Ok(())
        })?;
    }
}

/// What a snapshot costs does not grow with the blocks but with the days that changed: the figures of docs/decisions.
#[tokio::test]
async fn a_snapshot_of_a_hundred_thousand_blocks_costs_two_requests() {
    const BLOCKS: u128 = 100_000;
    const DAYS: u128 = 30;
    let world = World::new();
    let mut state = State::default();
    for day in 0..DAYS {
        let of_day = BLOCKS / DAYS + 1;
        let number = |n: u128| Ulid::from_parts(NOW + n as u64, day * of_day + n);
        let like = |n: u128| BlockEntry {
            bytes: 64 << 20,
            rows: 10_000,
            raw_bytes: 1 << 30,
            last_nanos: day as i64 * DAY + DAY / 2,
            last_id: number(n + 500),
            ..entry(number(n).into(), day as i64 * DAY + n as i64)
        };
        let adds: Vec<_> = (0..of_day).map(like).collect();
        let commit = Commit { reason: Reason::Compaction, adds, removes: vec![], boundary: None };
        state.apply(&commit, NOW).expect("valid");
    }
    // A day of two ingesters that flush every quarter of a second: 691,200 segments.
    for hour in 0..24 {
        let removes = (0..28_800).map(|n| segment(NOW + hour * HOUR + n * 125).into()).collect();
        let commit = Commit { reason: Reason::Compaction, adds: vec![], removes, boundary: None };
        state.apply(&commit, NOW + hour * HOUR).expect("valid");
    }
    let (head, first) = snapshot::write(&world.store, &world.tenant, &state, None).await.expect("memory works");
    let add = Commit { reason: Reason::Compaction, adds: vec![entry(1, 0)], removes: vec![], boundary: None };
    state.apply(&add, NOW).expect("valid");
    let (_, second) = snapshot::write(&world.store, &world.tenant, &state, Some(&head)).await.expect("memory works");
    assert_eq!((first.objects, second.objects), (31, 2));
    let removed = world.faulty.inner().head(&world.tenant.snapshot(state.number())).await.expect("it is there").size;
    let shard = second.bytes - removed;
    #[expect(clippy::print_stderr, reason = "the figures of docs/decisions/0011 come from here")]
    {
        eprintln!(
            "snapshot of 10^5 blocks: {first:?}, after one changed day: {second:?}, of which the head is {removed}"
        );
    }
    assert!(shard < 100 * BLOCKS as u64 / DAYS as u64, "{shard}");
    assert!(removed < 13 * 691_200, "{removed}");
    let (_, read) =
        snapshot::read(&world.store, &world.tenant, state.number()).await.expect("memory works").expect("there");
    assert_eq!(read, state);
}
