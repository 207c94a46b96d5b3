//! Ingesters and queriers as separate processes over one bucket: what any ingester acknowledges, any querier finds; what was
//! acknowledged survives `kill -9` of ingesters and of compactors.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use afterglow_e2e::{
    Address, Pushed, Tiers, cpu_profile, ids, merged_profiles, output, push_until_acked, small_profile,
};
use afterglow_proto::v1::PushProfileRequest;
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use ulid::Ulid;

/// What any querier may take to see what any ingester acknowledged.
const VISIBLE_MAX: Duration = Duration::from_secs(1);

/// How often an ingester is killed in mid-stream.
const KILLS: usize = 20;

/// How many profiles are pushed while ingesters are killed; enough that every kill hits some under way.
const PUSHED_WHILE_KILLING: usize = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_any_ingester_acks_any_querier_finds_within_a_second() {
    let tiers = Tiers::new("visible");
    let ingesters = [tiers.ingester(), tiers.ingester()];
    let queriers = [tiers.querier(), tiers.querier()];
    let body = small_profile();
    for round in 0..10 {
        for (i, ingester) in ingesters.iter().enumerate() {
            let service = format!("visible-{round}-{i}");
            let profile = cpu_profile(&service, Ulid::generate(), &body);
            let mut client = IngestServiceClient::connect(ingester.url()).await.expect("the ingester answers");
            let answer = client.push_profile(PushProfileRequest { profile: Some(profile) }).await.expect("an ack");
            let acked = Instant::now();
            let id = answer.into_inner().id;
            for querier in &queriers {
                while !ids(querier, &service).contains(&id) {
                    assert!(acked.elapsed() < VISIBLE_MAX, "{id} is not visible {VISIBLE_MAX:?} after its ack");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acked_is_lost_when_an_ingester_is_killed_in_mid_stream() {
    let tiers = Tiers::new("killed");
    let querier = tiers.querier();
    let mut ingester = tiers.ingester();
    let address = Arc::new(Mutex::new(ingester.url()));
    let pusher = tokio::spawn(pushing(address.clone()));

    let mut killed = 0;
    while killed < KILLS {
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(!pusher.is_finished(), "all was pushed after {killed} kills: push more");
        ingester.kill_9();
        killed += 1;
        ingester = tiers.ingester();
        *address.lock().expect("no holder panics") = ingester.url();
    }
    let pushed = pusher.await.expect("the pusher ends");
    assert_eq!(pushed.acked.len(), PUSHED_WHILE_KILLING);
    assert!(pushed.connections > KILLS, "each kill broke a stream, but there were {} streams", pushed.connections);

    tokio::time::sleep(VISIBLE_MAX).await;
    // `ids` itself asserts that each is listed once, whatever was sent twice.
    assert_eq!(ids(&querier, "killed"), pushed.acked, "what is found is what was acked");
    assert_eq!(merged_profiles(&querier, "killed").await, PUSHED_WHILE_KILLING as u64, "each counts once in a merge");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_compactors_are_killed_at_work() {
    let tiers = Tiers::new("compacted");
    let querier = tiers.querier();
    let ingester = tiers.ingester();
    let pusher = tokio::spawn(pushing(Arc::new(Mutex::new(ingester.url()))));
    // For ever, so that the test does not depend on when its profiles were taken; and deleted at once, so that a mistake is one for good.
    let maintain = ["maintain", "--once", "--grace", "0s", "--retention.max-age", "0s"];
    for kill in 0..KILLS as u64 {
        // Two at a time, so that they race as well; later and later, so that they die at every step.
        let mut compactors: Vec<_> = (0..2)
            .map(|_| {
                tiers.over_storage(&maintain).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
            })
            .collect();
        for compactor in &mut compactors {
            tokio::time::sleep(Duration::from_millis(60 + 20 * kill)).await;
            compactor.kill().expect("it is ours to end");
            compactor.wait().expect("it ends");
        }
    }
    let pushed = pusher.await.expect("the pusher ends");
    assert_eq!(pushed.acked.len(), PUSHED_WHILE_KILLING);
    let maintained = output(tiers.over_storage(&maintain));
    assert!(maintained.status.success(), "{}", String::from_utf8_lossy(&maintained.stderr));
    let verified = output(tiers.over_storage(&["verify", "--deep"]));
    let verified = String::from_utf8(verified.stdout).expect("verify prints text");
    assert!(verified.contains(&format!("{PUSHED_WHILE_KILLING} profiles in")), "{verified}");
    assert!(verified.contains("and 0 segments"), "{verified}");

    tokio::time::sleep(VISIBLE_MAX).await;
    assert_eq!(ids(&querier, "killed"), pushed.acked, "what is found is what was acked");
    assert_eq!(merged_profiles(&querier, "killed").await, PUSHED_WHILE_KILLING as u64, "each counts once in a merge");
}

async fn pushing(address: Address) -> Pushed {
    push_until_acked(address, "killed", &small_profile(), PUSHED_WHILE_KILLING).await
}
