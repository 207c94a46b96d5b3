//! The rig: real processes over MinIO, of which one is killed by `kill -9` again and again, in whatever it is doing.
//!
//! Two ingesters, which compact as well, are pushed to by two agents that never give up; one process only compacts, retains and collects,
//! at once. A querier is asked all the while. `RIG_SECONDS` says for how long (10 s unless told otherwise; `make rig` runs half an
//! hour). Goal: what was acknowledged is there from then on, each profile once, and `verify --deep` has nothing to say.

#![expect(clippy::disallowed_methods, reason = "a test has its own environment")]

use std::collections::HashSet;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use afterglow_e2e::{Address, Program, Tiers, ids, merged_profiles, output, push_until_acked, small_profile};

/// How long the rig runs, in seconds, unless it is told.
const SECONDS: u64 = 10;

/// The time between two kills.
const BETWEEN_KILLS: Duration = Duration::from_millis(1_500);

/// How many profiles an agent sends before it rests, and begins with the next service.
const BATCH: usize = 250;

/// How long an agent rests: half an hour makes some hundred thousand profiles, whose last check takes minutes and not hours.
const REST: Duration = Duration::from_secs(3);

/// What a querier may take to see what an ingester acknowledged.
const VISIBLE_MAX: Duration = Duration::from_secs(1);

/// How deletion is left to mistakes: at once, and of nothing that is meant to be kept.
const MAINTAIN: [&str; 5] = ["maintain", "--grace", "0s", "--retention.max-age", "0s"];

/// What was acknowledged, by service.
type Acked = Arc<Mutex<Vec<(String, HashSet<String>)>>>;

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "a rig says what it did")]
async fn nothing_acked_is_lost_or_doubled_whatever_is_killed() {
    let seconds = std::env::var("RIG_SECONDS").ok().map_or(SECONDS, |s| s.parse().expect("seconds"));
    let tiers = Tiers::new("rig");
    let querier = tiers.querier();
    let mut ingesters = [tiers.ingester(), tiers.ingester()];
    let mut compactor = compactor(&tiers);
    let addresses = ingesters.each_ref().map(|ingester| Arc::new(Mutex::new(ingester.url())));
    let (acked, stop) = (Acked::default(), Arc::new(AtomicBool::new(false)));
    let agents: Vec<_> = (addresses.iter().enumerate())
        .map(|(i, address)| tokio::spawn(agent(i, Arc::clone(address), Arc::clone(&acked), Arc::clone(&stop))))
        .collect();

    let began = Instant::now();
    let (mut kills, mut asked) = (0, 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(BETWEEN_KILLS).await;
        match kills % 3 {
            2 => {
                end(&mut compactor);
                compactor = self::compactor(&tiers);
            }
            victim => {
                ingesters[victim].kill_9();
                ingesters[victim] = tiers.ingester();
                *addresses[victim].lock().expect("no holder panics") = ingesters[victim].url();
            }
        }
        kills += 1;
        asked += usize::from(ask_for_the_last(&querier, &acked).await);
    }
    stop.store(true, Ordering::Relaxed);
    for agent in agents {
        agent.await.expect("an agent ends when all it sent is acknowledged");
    }
    end(&mut compactor);
    drop(ingesters);

    let maintained = output(tiers.over_storage(&[&MAINTAIN[..], &["--once"]].concat()));
    assert!(maintained.status.success(), "{}", String::from_utf8_lossy(&maintained.stderr));
    let acked = std::mem::take(&mut *acked.lock().expect("no holder panics"));
    let profiles: usize = acked.iter().map(|(_, ids)| ids.len()).sum();
    let verified = output(tiers.over_storage(&["verify", "--deep"]));
    let verified = String::from_utf8(verified.stdout).expect("verify prints text");
    assert!(verified.contains(&format!("{profiles} profiles in")), "{profiles} were acknowledged: {verified}");
    tokio::time::sleep(VISIBLE_MAX).await;
    for (service, ids) in &acked {
        assert_all_there(&querier, service, ids).await;
    }
    assert!(kills > 0 && asked > 0, "{kills} kills, {asked} questions");
    println!("{profiles} profiles acknowledged, {kills} kills, {asked} questions meanwhile, nothing lost or doubled");
}

/// Pushes batch after batch, each as a service of its own, until it is told to stop.
async fn agent(number: usize, address: Address, acked: Acked, stop: Arc<AtomicBool>) {
    let body = small_profile();
    for batch in 0.. {
        let service = format!("rig-{number}-{batch}");
        let pushed = push_until_acked(Arc::clone(&address), &service, &body, BATCH).await;
        acked.lock().expect("no holder panics").push((service, pushed.acked));
        if stop.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep(REST).await;
    }
}

/// Asks for what was acknowledged last, which compactors are at work on; returns whether there was anything.
async fn ask_for_the_last(querier: &Program, acked: &Acked) -> bool {
    let Some((service, ids)) = acked.lock().expect("no holder panics").last().cloned() else { return false };
    tokio::time::sleep(VISIBLE_MAX).await;
    assert_all_there(querier, &service, &ids).await;
    true
}

async fn assert_all_there(querier: &Program, service: &str, acked: &HashSet<String>) {
    assert_eq!(&ids(querier, service), acked, "what is found of {service} is what was acked");
    assert_eq!(merged_profiles(querier, service).await, acked.len() as u64, "each of {service} counts once in a merge");
}

fn compactor(tiers: &Tiers) -> Child {
    tiers.over_storage(&MAINTAIN).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

fn end(compactor: &mut Child) {
    assert!(compactor.try_wait().expect("it is ours").is_none(), "a compactor ended by itself");
    compactor.kill().expect("it is ours to end");
    compactor.wait().expect("it ends");
}
