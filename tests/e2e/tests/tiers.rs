//! Ingesters and queriers as separate processes over one bucket: what any ingester acknowledges, any querier finds; what was
//! acknowledged survives `kill -9` of ingesters and of compactors.

use std::collections::{BTreeMap, HashSet};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use afterglow_e2e::{MinIo, Program, built, client, output, real_profiles};
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{Profile, PushProfileRequest, PushRequest};
use futures::StreamExt as _;
use ulid::Ulid;

/// Accepts profiles of any age: the real ones were taken when they were taken.
const ANY_AGE: (&str, &str) = ("AFTERGLOW_LIMITS_MAX_AGE", "0s");

/// What any querier may take to see what any ingester acknowledged.
const VISIBLE_MAX: Duration = Duration::from_secs(1);

/// How often an ingester is killed in mid-stream.
const KILLS: usize = 20;

/// How many profiles are pushed while ingesters are killed; enough that every kill hits some under way.
const PUSHED_WHILE_KILLING: usize = 2_000;

struct Tiers {
    minio: MinIo,
    storage: String,
}

impl Tiers {
    fn new(bucket: &str) -> Self {
        let minio = MinIo::start();
        let storage = minio.bucket(bucket);
        Self { minio, storage }
    }

    fn ingester(&self) -> Program {
        self.start("afterglow-ingester")
    }

    fn querier(&self) -> Program {
        self.start("afterglow-querier")
    }

    /// A command over the storage itself, with no server between.
    fn over_storage(&self, args: &[&str]) -> Command {
        let mut command = Command::new(built("afterglow"));
        command.args(args).args(["--storage", &self.storage]).envs(self.minio.env());
        command
    }

    fn start(&self, name: &str) -> Program {
        let mut env = self.minio.env();
        env.push(ANY_AGE);
        Program::start(name, &["--storage", &self.storage], &env)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_any_ingester_acks_any_querier_finds_within_a_second() {
    let tiers = Tiers::new("visible");
    let ingesters = [tiers.ingester(), tiers.ingester()];
    let queriers = [tiers.querier(), tiers.querier()];
    let body = small_profile();
    for round in 0..10 {
        for (i, ingester) in ingesters.iter().enumerate() {
            let service = format!("visible-{round}-{i}");
            let profile = profile(&service, Ulid::generate(), &body);
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
    let pusher = tokio::spawn(push_until_all_are_acked(address.clone()));

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
    let pusher = tokio::spawn(push_until_all_are_acked(Arc::new(Mutex::new(ingester.url()))));
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

/// What a pusher saw.
struct Pushed {
    acked: HashSet<String>,
    connections: usize,
}

/// Pushes profiles with ids of its own over streams, and sends again by the same id what no answer came for.
async fn push_until_all_are_acked(address: Arc<Mutex<String>>) -> Pushed {
    let body = small_profile();
    let mut waiting: BTreeMap<u64, Profile> =
        (0..PUSHED_WHILE_KILLING as u64).map(|seq| (seq, profile("killed", Ulid::generate(), &body))).collect();
    let mut pushed = Pushed { acked: HashSet::new(), connections: 0 };
    while !waiting.is_empty() {
        let url = address.lock().expect("no holder panics").clone();
        let Ok(mut client) = IngestServiceClient::connect(url).await else { continue };
        pushed.connections += 1;
        let requests: Vec<PushRequest> = waiting
            .iter()
            .map(|(seq, profile)| PushRequest { seq: *seq, part: Some(Part::Profile(profile.clone())) })
            .collect();
        // A trickle, so that a kill finds some acked, some under way and some not yet sent.
        let trickle = futures::stream::iter(requests).then(|request| async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            request
        });
        let Ok(answers) = client.push(trickle).await else { continue };
        let mut answers = answers.into_inner();
        while let Ok(Some(answer)) = answers.message().await {
            if answer.status.as_ref().is_none_or(|s| s.code == 0) {
                let profile = waiting.remove(&answer.seq).expect("one answer a profile and stream");
                assert_eq!(answer.id, profile.id);
                pushed.acked.insert(answer.id);
            }
        }
    }
    pushed
}

/// Asks a querier how many profiles a merge of the service counts.
async fn merged_profiles(querier: &Program, service: &str) -> u64 {
    use afterglow_proto::v1::query_service_client::QueryServiceClient;
    use afterglow_proto::v1::{MergeFormat, MergeRequest, Selection};

    let mut client = QueryServiceClient::connect(querier.url()).await.expect("the querier answers");
    let selection = Selection {
        query: format!("{{service={service:?}}}"),
        start: Some(afterglow_proto::Timestamp { seconds: 0, nanos: 0 }),
        ..Selection::default()
    };
    let request =
        MergeRequest { selection: Some(selection), format: MergeFormat::Top.into(), ..MergeRequest::default() };
    client.merge(request).await.expect("a merge").into_inner().profiles
}

/// Makes a profile to push.
fn profile(service: &str, id: Ulid, body: &[u8]) -> Profile {
    Profile {
        id: id.to_string(),
        r#type: "cpu".to_owned(),
        labels: [("service".to_owned(), service.to_owned())].into(),
        pprof: body.to_vec().into(),
        ..Profile::default()
    }
}

/// Returns a small real profile.
fn small_profile() -> Vec<u8> {
    real_profiles().into_iter().map(|p| p.body).min_by_key(Vec::len).expect("at least one profile")
}

/// Asks a querier for the ids of a service, in the last day.
fn ids(querier: &Program, service: &str) -> HashSet<String> {
    let query = format!("{{service={service:?}}}");
    let args = ["search", &query, "--from", "2000-01-01T00:00:00Z", "--limit", "100000", "--output", "json"];
    let found: serde_json::Value = serde_json::from_slice(&client(&args, &querier.url())).expect("search prints JSON");
    let profiles = found["profiles"].as_array().cloned().unwrap_or_default();
    let ids: HashSet<String> = profiles.iter().map(|p| p["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids.len(), profiles.len(), "an id was listed twice");
    ids
}
