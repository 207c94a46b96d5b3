//! A rolling restart: both tiers twice over one bucket, each process asked to end and started again in its turn, under load from clients
//! that try again. Nobody sees an error, and nothing that was acknowledged is lost.

#![allow(
    clippy::disallowed_methods,
    reason = "a test waits for programs that cannot wake it, and has its own environment"
)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use afterglow_e2e::{Program, Tiers, cpu_profile, ids, push_until_acked, small_profile};
use afterglow_proto::v1::PushProfileRequest;
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use tonic::Code;
use ulid::Ulid;

/// How long a client tries before it has an error to show.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long it waits between two tries.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// How often every process is restarted.
const ROUNDS: usize = 2;

/// How long load goes on between two restarts, so that each meets some under way.
const BETWEEN_RESTARTS: Duration = Duration::from_millis(700);

/// What a supervisor grants a process that it asked to end.
const GRACE: Duration = Duration::from_secs(30);

/// The servers of a tier; whoever starts one in the place of another says so here.
type Addresses = [Arc<Mutex<String>>; 2];

/// What the clients saw.
#[derive(Debug, Default)]
struct Seen {
    is_over: AtomicBool,
    acked: Mutex<HashSet<String>>,
    answers: AtomicU64,
    tries: AtomicU64,
    errors: Mutex<Vec<String>>,
}

// === impl Seen ===

impl Seen {
    fn error(&self, text: String) {
        self.errors.lock().expect("no holder panics").push(text);
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }
}

fn at(addresses: &Addresses, number: usize) -> String {
    addresses[number % 2].lock().expect("no holder panics").clone()
}

/// Pushes one profile after the other, each until it is acknowledged, at one server or the other.
async fn push(ingesters: Addresses, seen: Arc<Seen>, body: Vec<u8>) {
    let mut number = 0;
    while seen.goes_on() {
        let (id, began) = (Ulid::generate(), Instant::now());
        loop {
            number += 1;
            seen.tries.fetch_add(1, Ordering::Relaxed);
            let pushed = match IngestServiceClient::connect(at(&ingesters, number)).await {
                Ok(mut client) => {
                    let profile = Some(cpu_profile("rolling", id, &body));
                    client.push_profile(PushProfileRequest { profile }).await
                }
                Err(error) => Err(tonic::Status::unavailable(error.to_string())),
            };
            match pushed {
                Ok(answer) => {
                    seen.acked.lock().expect("no holder panics").insert(answer.into_inner().id);
                    break;
                }
                // Those that a retry may help, as every SDK takes them; the second and third are connections that broke.
                Err(status)
                    if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
                        && began.elapsed() < PATIENCE =>
                {
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
                Err(status) => return seen.error(format!("push: {status}")),
            }
        }
    }
}

/// Asks one question after the other, each until it is answered, at one server or the other, over connections that are kept.
async fn ask(queriers: Addresses, seen: Arc<Seen>) {
    let client = reqwest::Client::new();
    let mut number = 0;
    while seen.goes_on() {
        let began = Instant::now();
        loop {
            number += 1;
            seen.tries.fetch_add(1, Ordering::Relaxed);
            let query = "query=%7Bservice%3D%22rolling%22%7D&type=cpu&start=0&format=top";
            let answer = client.get(format!("{}/api/v1/merge?{query}", at(&queriers, number))).send().await;
            let problem = match answer {
                // Before the first profile is there.
                Ok(answer) if answer.status() == 200 || answer.status() == 404 => {
                    if answer.bytes().await.is_ok() {
                        seen.answers.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    "broke off".to_owned()
                }
                Ok(answer) if answer.status() != 503 => {
                    return seen.error(format!("{}: {:?}", answer.status(), answer.text().await));
                }
                Ok(answer) => answer.status().to_string(),
                Err(error) => error.to_string(),
            };
            if began.elapsed() >= PATIENCE {
                return seen.error(format!("no answer: {problem}"));
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }
}

/// Restarts a server as a supervisor does, and says where the next one is.
fn restart(server: &mut Program, address: &Mutex<String>, start: impl FnOnce() -> Program) {
    let status = server.terminate(GRACE);
    assert!(status.success(), "{status}\n{}", server.log());
    assert!(!server.log().contains("cutting what has not ended"), "{}", server.log());
    *server = start();
    *address.lock().expect("no holder panics") = server.url();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_is_seen_by_nobody() {
    let tiers = Tiers::new("rolling");
    // As by default, only shorter: it serves on while those who balance notice.
    let flags = ["--drain-delay=300ms"];
    let mut ingesters = [tiers.ingester_with(&flags), tiers.ingester_with(&flags)];
    let mut queriers = [tiers.querier_with(&flags), tiers.querier_with(&flags)];
    let addresses = |servers: &[Program; 2]| servers.each_ref().map(|server| Arc::new(Mutex::new(server.url())));
    let (writes, reads) = (addresses(&ingesters), addresses(&queriers));

    let (seen, body) = (Arc::new(Seen::default()), small_profile());
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..3 {
        load.spawn(push(writes.clone(), Arc::clone(&seen), body.clone()));
        load.spawn(ask(reads.clone(), Arc::clone(&seen)));
    }
    // Streams, as agents have them: each to a server of its own.
    for address in writes.clone() {
        let (seen, body) = (Arc::clone(&seen), body.clone());
        load.spawn(async move {
            while seen.goes_on() {
                let pushed = push_until_acked(Arc::clone(&address), "rolling", &body, 100).await;
                seen.acked.lock().expect("no holder panics").extend(pushed.acked);
            }
        });
    }

    for _ in 0..ROUNDS {
        for number in 0..2 {
            tokio::time::sleep(BETWEEN_RESTARTS).await;
            restart(&mut ingesters[number], &writes[number], || tiers.ingester_with(&flags));
            tokio::time::sleep(BETWEEN_RESTARTS).await;
            restart(&mut queriers[number], &reads[number], || tiers.querier_with(&flags));
        }
    }
    tokio::time::sleep(BETWEEN_RESTARTS).await;
    seen.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.expect("no client panics");
    }

    assert_eq!(*seen.errors.lock().expect("no holder panics"), [""; 0]);
    let (acked, answers) = (seen.acked.lock().expect("no holder panics").clone(), seen.answers.load(Ordering::Relaxed));
    assert!(acked.len() > 200 && answers > 50, "{} acknowledged and {answers} answers are no load", acked.len());
    let start = Instant::now();
    for querier in &queriers {
        // What was acknowledged last is visible within a second.
        while !acked.is_subset(&ids(querier, "rolling")) {
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {} are lost",
                acked.difference(&ids(querier, "rolling")).count(),
                acked.len()
            );
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }
}
