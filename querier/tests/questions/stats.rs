//! Stats: what is stored, each id once, before and after a compaction.

use afterglow_proto::v1;

use crate::series::put_fixtures;
use crate::world::{World, cpu, fixtures};

const PATH: &str = "/api/v1/stats";

async fn ask(world: &World) -> v1::StatsResponse {
    serde_json::from_value(world.json(PATH, &[]).await).unwrap()
}

/// Goal: the numbers are those of a listing of all profiles, and a compaction changes only where they lie.
#[tokio::test]
async fn stats_count_what_is_listed() {
    let world = World::with(&["--query.max-list-age=0s"]).await;
    put_fixtures(&world).await;
    // The same once more: a retry that another ingester took.
    put_fixtures(&world).await;
    let listed: v1::SearchResponse =
        serde_json::from_value(world.json("/api/v1/profiles", &[("start", "0"), ("limit", "10000")]).await).unwrap();
    let before = ask(&world).await;
    assert_eq!((before.profiles, before.profiles), (listed.profiles.len() as u64, fixtures().len() as u64));
    assert_eq!(before.raw_bytes, listed.profiles.iter().map(|profile| profile.bytes).sum::<u64>());
    assert_eq!(before.last, listed.profiles[0].time);
    assert_eq!(before.first, listed.profiles.last().unwrap().time);
    assert_eq!((before.commit, before.levels.len(), before.levels[0].level, before.levels[0].blocks), (0, 1, 0, 6));
    for of in &before.services {
        let of_listed = listed.profiles.iter().filter(|p| (&p.service, &p.r#type) == (&of.service, &of.r#type));
        assert_eq!(of.profiles, of_listed.clone().count() as u64, "{of:?}");
        assert_eq!(of.raw_bytes, of_listed.clone().map(|profile| profile.bytes).sum::<u64>(), "{of:?}");
        let labels: std::collections::BTreeSet<_> = of_listed.map(|profile| &profile.labels).collect();
        assert_eq!(of.series, labels.len() as u64, "{of:?}");
    }

    world.compact().await;
    let after = ask(&world).await;
    assert!(after.commit > 0 && after.levels.iter().all(|level| level.level > 0), "{:?}", after.levels);
    assert_eq!((after.profiles, after.raw_bytes, after.first), (before.profiles, before.raw_bytes, before.first));
    assert!(after.stored_bytes < before.stored_bytes, "{} {}", after.stored_bytes, before.stored_bytes);
    let shares: u64 = after.services.iter().map(|of| of.stored_bytes).sum();
    // Each share of each block is rounded down.
    assert!(shares <= after.stored_bytes && shares + 100 > after.stored_bytes, "{shares} of {}", after.stored_bytes);
}

/// Goal: what was counted once is not opened again, though the cache of blocks has long dropped it.
#[tokio::test]
async fn blocks_are_counted_once() {
    let world = World::with(&["--query.max-list-age=0s", "--query.cache=1"]).await;
    put_fixtures(&world).await;
    let first = ask(&world).await;
    assert!(first.levels[0].blocks > 2, "{:?}", first.levels);
    let requests = world.store.metrics().requests();
    assert_eq!(ask(&world).await, first);
    let more = world.store.metrics().requests() - requests;
    assert!(more <= 2, "a listing, and a look for a new commit: {more} requests");
}

/// Goal: nothing is stored, and the process that answers deletes nothing.
#[tokio::test]
async fn nothing_is_counted_as_nothing() {
    let world = World::new().await;
    assert_eq!(
        ask(&world).await,
        v1::StatsResponse { completeness: Some(v1::Completeness::default()), ..Default::default() }
    );
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    assert_eq!(
        world.refusal(PATH, &[("type", "cpu")]).await,
        "400 INVALID_ARGUMENT unknown parameter \"type\"; known are none"
    );
}

/// Goal: a querier that deletes nothing says how long profiles are kept, as whoever maintains the bucket does; where two differ, both.
#[tokio::test]
async fn stats_say_what_maintainers_keep() {
    use afterglow_store::maintenance::{Maintainer, Options};
    use afterglow_store::retention::Policy;
    let objects: std::sync::Arc<dyn object_store::ObjectStore> =
        std::sync::Arc::new(object_store::memory::InMemory::new());
    let world = World::over(std::sync::Arc::clone(&objects), &[]).await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    let rules = vec!["{service=\"keep\"}=0s".parse().unwrap(), "{service=\"batch\"}=7d".parse().unwrap()];
    let by_rules = Policy { age_max: None, rules, bytes_max: Some(5) };
    let by_bytes = Policy { age_max: None, rules: Vec::new(), bytes_max: Some(1 << 40) };
    for retention in [by_rules, by_bytes] {
        let options = Options { retention, ..Options::default() };
        // Only to say so: what it would do is the concern of others.
        let _ = Maintainer::new(world.store.clone(), options).round().await.unwrap();
    }
    let said = |rules: Vec<v1::RetentionRule>| {
        let text = |rule: v1::RetentionRule| {
            format!("{} {:?} {}", rule.selector, rule.max_age.map(|age| age.seconds), rule.max_bytes)
        };
        rules.into_iter().map(text).collect::<std::collections::BTreeSet<_>>()
    };
    let expected =
        ["{service=\"batch\"} Some(604800) 0", "{service=\"keep\"} None 0", "{} None 5", "{} None 1099511627776"];
    assert_eq!(said(ask(&world).await.retention), expected.map(str::to_owned).into());
}
