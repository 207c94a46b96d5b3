//! An agent that does not give up: profiles with ids of its own over streams, sent again by the same id until each is acknowledged.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{Profile, PushRequest};
use futures::StreamExt as _;
use ulid::Ulid;

/// Where an ingester listens just now; whoever starts another in its place says so here.
pub type Address = Arc<Mutex<String>>;

/// The time between two profiles of a stream: a trickle, so that a kill finds some acknowledged, some under way and some not yet sent.
const BETWEEN_PROFILES: Duration = Duration::from_millis(2);

/// How long to wait for an ingester that cannot be reached.
const BEFORE_RECONNECT: Duration = Duration::from_millis(20);

/// What a pusher saw.
#[derive(Debug, Default)]
pub struct Pushed {
    /// The ids that were acknowledged.
    pub acked: HashSet<String>,
    /// How many streams it took.
    pub connections: usize,
}

/// Pushes `count` profiles of `service`, all with the pprof `body`, until each is acknowledged.
///
/// # Panics
/// Where an answer is for a profile that was answered in the same stream, or names another id.
pub async fn push_until_acked(address: Address, service: &str, body: &[u8], count: usize) -> Pushed {
    let mut waiting: BTreeMap<u64, Profile> =
        (0..count as u64).map(|seq| (seq, cpu_profile(service, Ulid::generate(), body))).collect();
    let mut pushed = Pushed::default();
    while !waiting.is_empty() {
        let url = address.lock().expect("no holder panics").clone();
        let Ok(mut client) = IngestServiceClient::connect(url).await else {
            tokio::time::sleep(BEFORE_RECONNECT).await;
            continue;
        };
        pushed.connections += 1;
        let requests: Vec<PushRequest> = waiting
            .iter()
            .map(|(seq, profile)| PushRequest {
                seq: *seq,
                part: Some(Part::Profile(profile.clone())),
                ..PushRequest::default()
            })
            .collect();
        let trickle = futures::stream::iter(requests).then(|request| async move {
            tokio::time::sleep(BETWEEN_PROFILES).await;
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

/// Makes a CPU profile to push.
pub fn cpu_profile(service: &str, id: Ulid, body: &[u8]) -> Profile {
    Profile {
        id: id.to_string(),
        r#type: "cpu".to_owned(),
        labels: [("service".to_owned(), service.to_owned())].into(),
        pprof: body.to_vec().into(),
        ..Profile::default()
    }
}
