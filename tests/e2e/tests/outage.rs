//! What an ingester costs and says while its store is away, and what is left afterwards.
//!
//! `OUTAGE_SECONDS` says how long the store is away; by default as long as CI can wait.

#![allow(clippy::disallowed_methods, reason = "a test has its own environment")]
#![allow(clippy::print_stdout, reason = "the figures are for who asks with --nocapture")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use afterglow_e2e::{MinIo, Program, cpu_profile, ids, real_profiles};
use afterglow_proto::v1::PushProfileRequest;
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use futures::future::join_all;
use tonic::{Code, Status};
use ulid::Ulid;

/// How long the store is away where nobody says.
const AWAY: Duration = Duration::from_secs(20);
/// How many senders there are; each waits for its answer, and heeds no delay that it is told.
const SENDERS: usize = 24;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
/// What profiles under way may take, and a tenth more, beyond the most that the ingester took before.
const BUDGET: u64 = 24 << 20;
/// How fast a sender is sent back once the store is taken for down.
const REFUSED_WITHIN: Duration = Duration::from_millis(50);
/// How long it may take, after the store is back, until all is as before.
const RECOVERED_WITHIN: Duration = Duration::from_secs(30);

/// An answer: how long after the beginning of the outage it came, how long it took, and what it was.
struct Answer {
    at: Duration,
    took: Duration,
    refusal: Option<Status>,
}

/// Pushes profiles, each until it is acknowledged, until it is told to stop; returns the ids that were, and all answers.
async fn send(url: String, body: Vec<u8>, began: Instant, stop: Arc<AtomicBool>) -> (HashSet<String>, Vec<Answer>) {
    let mut client = IngestServiceClient::connect(url).await.expect("the ingester answers");
    let (mut acked, mut answers) = (HashSet::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let profile = cpu_profile("outage", Ulid::generate(), &body);
        loop {
            let asked = Instant::now();
            let answer = client.push_profile(PushProfileRequest { profile: Some(profile.clone()) }).await;
            let refusal = answer.map(|ack| acked.insert(ack.into_inner().id)).err();
            let is_refused = refusal.is_some();
            answers.push(Answer { at: began.elapsed(), took: asked.elapsed(), refusal });
            if !is_refused {
                break;
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }
    (acked, answers)
}

/// Returns a line of `/proc/<pid>/status`, in bytes (proc_pid_status(5)).
fn memory(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let kib = status.lines().find_map(|text| text.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("the kernel tells") * 1024
}

/// Whether a refusal tells when to try again.
fn says_when(status: &Status) -> bool {
    use tonic_types::StatusExt as _;
    status.get_details_retry_info().and_then(|info| info.retry_delay).is_some_and(|delay| delay > Duration::ZERO)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_senders_are_sent_back_at_once_and_nothing_is_lost() {
    let away = std::env::var("OUTAGE_SECONDS").ok().and_then(|s| s.parse().ok()).map_or(AWAY, Duration::from_secs);
    let minio = MinIo::start();
    let storage = minio.bucket("outage");
    let budget = format!("--memory-budget={BUDGET}");
    let any_age = [("AFTERGLOW_LIMITS_MAX_AGE", "0s"), ("AFTERGLOW_RETENTION_MAX_AGE", "0s")];
    let env = [&minio.env()[..], &any_age].concat();
    // Alone: merging blocks takes memory of its own.
    let ingester = Program::start("afterglow-ingester", &["--roles=ingest", "--storage", &storage, &budget], &env);
    let querier = Program::start("afterglow-querier", &["--storage", &storage], &env);
    let profile = real_profiles().into_iter().filter(|p| p.body.len() < 200_000).max_by_key(|p| p.body.len());
    let body = profile.expect("there are profiles").body;

    let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let senders = (0..SENDERS).map(|_| tokio::spawn(send(ingester.url(), body.clone(), began, Arc::clone(&stop))));
    let senders: Vec<_> = senders.collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = memory(ingester.pid(), "VmHWM:");
    minio.pause();
    let gone = began.elapsed();
    tokio::time::sleep(away).await;
    let peak = memory(ingester.pid(), "VmHWM:");
    minio.resume();
    let back = began.elapsed();
    tokio::time::sleep(Duration::from_secs(5)).await;
    stop.store(true, Ordering::Relaxed);
    let sent =
        tokio::time::timeout(RECOVERED_WITHIN, join_all(senders)).await.expect("all are acknowledged in the end");

    let (mut acked, mut answers) = (HashSet::new(), Vec::new());
    for (ids, more) in sent.into_iter().map(|sender| sender.expect("no panic")) {
        acked.extend(ids);
        answers.extend(more);
    }
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.refusal.is_some()).collect();
    for status in refused.iter().filter_map(|answer| answer.refusal.as_ref()) {
        assert!(matches!(status.code(), Code::Unavailable | Code::ResourceExhausted), "{status:?}");
        assert!(says_when(status), "{status:?}");
    }
    // From the first that was sent back at once on, the store is taken for down.
    let quick = |answer: &&&Answer| answer.at > gone && answer.took < REFUSED_WITHIN;
    let known = refused.iter().find(quick).expect("some are sent back at once").at;
    let mut took: Vec<Duration> = refused.iter().filter(|a| a.at > known && a.at < back).map(|a| a.took).collect();
    took.sort_unstable();
    let median = took[took.len() / 2];
    println!(
        "{} acknowledged, {} refused, {} of them while the store was taken for down ({:?} after it went), half within {median:?}; memory {} MiB at most before, {} MiB then",
        acked.len(),
        refused.len(),
        took.len(),
        known - gone,
        before >> 20,
        peak >> 20
    );
    assert!(median < REFUSED_WITHIN, "half take more than {median:?}");
    assert!(peak <= before + BUDGET + BUDGET / 10, "{before} bytes at most before, {peak} then");

    let stored = ids(&querier, "outage");
    assert_eq!(
        stored.symmetric_difference(&acked).count(),
        0,
        "all that was sent was acknowledged in the end, and no more"
    );
}
