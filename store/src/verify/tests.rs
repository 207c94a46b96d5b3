//! Verification of a bucket that was maintained for a while, in which single bits are flipped.

#![allow(clippy::print_stdout, reason = "the figures are for whoever reads them")]

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, PutPayload};
use tokio::time::Instant;

use super::*;
use crate::StoreOptions;
use crate::clock::{Clock, Random, SeededRandom, SystemClock};
use crate::commit::{Commit, Reason, SNAPSHOT_EVERY, State};
use crate::maintenance::{Maintainer, Options};
use crate::paths::BlockName;
use crate::testing::segments::{Sent, segment};

const DAY: i64 = 86_400_000_000_000;

/// How many bits are flipped, unless the environment says so.
const FLIPS: u64 = 500;
/// Says how many.
const FLIPS_ENV: &str = "AFTERGLOW_FLIPS";

/// A bucket with blocks of several days and levels, segments, some hundred commits and at least two snapshots.
async fn maintained() -> (Arc<dyn ObjectStore>, Store) {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = Store::new(Arc::clone(&objects), "memory://".to_owned(), StoreOptions::default());
    let mut options = Options::default();
    options.collection.grace = Duration::ZERO;
    let mut maintainer = Maintainer::new(store.clone(), options);
    let now = SystemClock.unix_nanos();
    let sent = |n: u128| {
        let service = ["api", "web"][n as usize % 2];
        Sent::new(n + 1, service, &[("instance", &format!("i{}", n % 5))], now - n as i64 % 4 * DAY)
            .with_value(n as i64)
    };
    let push = async |n: u128| {
        let deadline = Instant::now() + Duration::from_secs(5);
        store.put_segment(&TenantId::anonymous(), segment(&[sent(n)]), deadline).await.expect("it is in memory");
    };
    for n in 0.. {
        push(n).await;
        let report = maintainer.run_to_rest().await.expect("it is in memory");
        assert_eq!(report.failed, []);
        let state = Commits::new(store.clone(), TenantId::anonymous()).refresh().await.expect("it is in memory");
        if state.number() > 2 * SNAPSHOT_EVERY + 5 {
            break;
        }
    }
    push(1_000).await;
    push(1_001).await;
    (objects, store)
}

async fn findings(store: &Store, deep: bool) -> Vec<String> {
    let report = verify(store, &TenantId::anonymous(), deep).await.expect("it is in memory");
    assert_eq!(report.is_clean(), report.findings.is_empty());
    report.findings.iter().map(ToString::to_string).collect()
}

async fn read(objects: &dyn ObjectStore, key: &Path) -> Vec<u8> {
    objects.get(key).await.expect("it is there").bytes().await.expect("it is there").to_vec()
}

async fn put(objects: &dyn ObjectStore, key: &Path, bytes: Vec<u8>) {
    objects.put(key, PutPayload::from(bytes)).await.expect("it is in memory");
}

async fn flip(objects: &dyn ObjectStore, key: &Path) -> Vec<u8> {
    let good = read(objects, key).await;
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    put(objects, key, bad).await;
    good
}

/// Goal: whatever object of a bucket a bit is flipped in, and wherever: `verify --deep` names that object. AFTERGLOW_FLIPS=10000 flips so many.
#[tokio::test]
async fn every_flipped_bit_of_a_maintained_bucket_is_named() {
    let (objects, store) = maintained().await;
    assert_eq!(findings(&store, true).await, [] as [String; 0]);
    let mut kinds: BTreeMap<String, Vec<Path>> = BTreeMap::new();
    for meta in objects.list(Some(&TenantId::folder_of_all())).try_collect::<Vec<_>>().await.expect("it is in memory") {
        let kind = meta.location.parts().nth(3).expect("all lies under a tenant").as_ref().to_owned();
        kinds.entry(kind).or_default().push(meta.location);
    }
    assert_eq!(kinds.keys().map(String::as_str).collect::<Vec<_>>(), ["b", "commit", "day", "l0", "snap"]);
    #[expect(clippy::disallowed_methods, reason = "a test's own switch, no setting of the product")]
    let flips = std::env::var(FLIPS_ENV).map_or(FLIPS, |flips| flips.parse().expect("a number"));
    let random = SeededRandom::new(4);
    let below = |bound: usize| (random.next_u64() % bound as u64) as usize;
    let mut done: BTreeMap<&str, u64> = BTreeMap::new();
    for n in 0..flips {
        let (kind, keys) = kinds.iter().nth(n as usize % kinds.len()).expect("it is below");
        let key = &keys[below(keys.len())];
        let good = read(&*objects, key).await;
        let bit = below(8 * good.len());
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        put(&*objects, key, bad).await;
        let found = findings(&store, true).await;
        assert!(found.iter().any(|text| text.starts_with(&format!("{key}: "))), "bit {bit} of {key}: {found:?}");
        put(&*objects, key, good).await;
        *done.entry(kind).or_default() += 1;
    }
    assert_eq!(findings(&store, true).await, [] as [String; 0]);
    println!("flipped and found: {done:?}");
}

/// Goal: damage that readers get around is named all the same, with how they do.
#[tokio::test]
async fn damage_of_the_log_is_named_with_what_readers_make_of_it() {
    let (objects, store) = maintained().await;
    let tenant = TenantId::anonymous();
    let newest = 2 * SNAPSHOT_EVERY;
    let number = Commits::new(store.clone(), tenant.clone()).refresh().await.expect("sound").number();
    let reads = async || Commits::new(store.clone(), tenant.clone()).refresh().await.is_ok();

    // An old commit: nobody reads it.
    let good = flip(&*objects, &tenant.commit(7)).await;
    let text = format!(
        "{}: has another checksum than it says; readers do without it, for they start from snapshot {newest}",
        tenant.commit(7)
    );
    assert_eq!(findings(&store, false).await, [text]);
    assert!(reads().await);
    objects.delete(&tenant.commit(7)).await.expect("it is in memory");
    let text =
        format!("{}: is missing; readers do without it, for they start from snapshot {newest}", tenant.commit(7));
    assert_eq!(findings(&store, false).await, [text]);
    put(&*objects, &tenant.commit(7), good).await;

    // Both snapshots: all commits are there.
    let heads = [tenant.snapshot(SNAPSHOT_EVERY), tenant.snapshot(newest)];
    let goods = [flip(&*objects, &heads[0]).await, flip(&*objects, &heads[1]).await];
    let text = |key| format!("{key}: has another checksum than it says; readers replay all commits instead");
    assert_eq!(findings(&store, false).await, heads.each_ref().map(text));
    assert!(reads().await);
    for (key, good) in heads.iter().zip(goods) {
        put(&*objects, key, good).await;
    }

    // A commit that no snapshot has: nobody gets any further.
    let good = flip(&*objects, &tenant.commit(number)).await;
    let found = findings(&store, false).await;
    let text = format!(
        "{}: has another checksum than it says; nobody can read what was committed since",
        tenant.commit(number)
    );
    assert!(
        found.len() == 2 && found[0] == text && found[1].contains("blocks and segments were not looked at"),
        "{found:?}"
    );
    assert!(!reads().await);
    put(&*objects, &tenant.commit(number), good).await;

    // What is sound by itself, and says something else than the commits.
    let parts: Vec<_> = objects.list(Some(&tenant.days())).try_collect().await.expect("it is in memory");
    let of = |key: &Path| tenant.parse_day(key).expect("a part");
    let part = parts.iter().map(|meta| &meta.location).rfind(|key| of(key).1 == newest).expect("today changes");
    let good = read(&*objects, part).await;
    let commits = Commits::new(store.clone(), tenant.clone());
    let mut state = State::clone(&*commits.refresh().await.expect("sound"));
    let day = of(part).0;
    let live = Arc::clone(&state.blocks_of(day..=day).next().expect("a day of a snapshot has blocks").entry);
    let more = BlockEntry { name: BlockName::new(2, day, Ulid::from(7)), ..BlockEntry::clone(&live) };
    let commit = Commit { reason: Reason::Compaction, adds: vec![more], removes: Vec::new(), boundary: None };
    state.apply(&commit, 1).expect("it follows");
    put(&*objects, part, crate::commit::snapshot::tests::sealed_part(&state, day, newest)).await;
    let found = findings(&store, false).await;
    assert!(
        found.iter().any(|text| text.starts_with(&format!("{part}: has other blocks than the commits up to it say"))),
        "{found:?}"
    );
    objects.delete(part).await.expect("it is in memory");
    let found = findings(&store, false).await;
    assert!(
        found.iter().any(|text| text.starts_with(&format!("{part}: is named by snapshot {newest}, and not there"))),
        "{found:?}"
    );
    put(&*objects, part, good).await;
    let stray = tenant.commits().join("stray");
    put(&*objects, &stray, b"?".to_vec()).await;
    assert_eq!(findings(&store, false).await, [format!("{stray}: is not named as what lies here")]);
    objects.delete(&stray).await.expect("it is in memory");
    assert_eq!(findings(&store, true).await, [] as [String; 0]);
}

/// Goal: what plain verification is for, and what it is not: damage of samples takes `deep`.
#[tokio::test]
async fn damage_of_samples_is_found_by_deep_alone() {
    let (objects, store) = maintained().await;
    let block = objects.list(Some(&TenantId::anonymous().blocks())).try_next().await.expect("it is in memory");
    let key = block.expect("there are blocks").location;
    let mut bytes = read(&*objects, &key).await;
    bytes[100] ^= 1;
    put(&*objects, &key, bytes.clone()).await;
    assert_eq!(findings(&store, false).await, [] as [String; 0]);
    assert!(findings(&store, true).await.iter().any(|text| text.starts_with(&format!("{key}: "))));
    let end = bytes.len() - 40;
    bytes[end] ^= 1;
    put(&*objects, &key, bytes).await;
    assert!(findings(&store, false).await.iter().any(|text| text.starts_with(&format!("{key}: "))));
}
