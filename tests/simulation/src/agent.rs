//! Agents: they send profiles and send them again until they are acknowledged, as the SDK does.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use afterglow_profile::model::{Function, Line, Location, NONE, Profile, Samples, ValueType};
use afterglow_profile::{compress, encode};
use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{self, PushProfileRequest, PushRequest};
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use ulid::Ulid;

use crate::network::{Losses, Network};
use crate::oracle::{Oracle, Sent};
use crate::world::{Calm, Chance, World};

/// How long an agent waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The first wait between two tries, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often a profile is tried before its agent turns to the next and comes back to it at the end.
const TRIES_MAX: u32 = 6;
/// How often it is tried at the end, when nothing fails any more.
const LAST_TRIES_MAX: u32 = 20;
/// The most profiles in one stream.
const BATCH_MAX: u64 = 6;

/// The services that send.
pub const SERVICES: [&str; 4] = ["api", "batch", "checkout", "web"];
const FRAMES: [&str; 12] = [
    "main.main",
    "net/http.(*conn).serve",
    "main.handle",
    "encoding/json.Marshal",
    "runtime.mallocgc",
    "main.parse",
    "runtime.gcBgMarkWorker",
    "compress/flate.(*compressor).deflate",
    "main.(*cache).get",
    "sort.Slice",
    "syscall.read",
    "main.render",
];

/// What an agent does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many profiles it sends.
    pub profiles: u64,
    /// The mean time between two pushes.
    pub every: Duration,
    /// How likely it sends again what was acknowledged.
    pub resends: f64,
    /// What the network loses.
    pub losses: Losses,
}

/// An agent.
#[derive(Debug)]
pub struct Agent {
    name: String,
    world: World,
    network: Network,
    oracle: Oracle,
    plan: Plan,
    chance: Chance,
    /// How far its clock is ahead, in milliseconds.
    ahead_millis: i64,
}

/// A profile with what its agent calls it.
#[derive(Clone, Debug)]
struct Push {
    id: Ulid,
    profile: v1::Profile,
}

/// How a try ended.
enum Outcome {
    Acked { token: String },
    Again { after: Option<Duration> },
    Refused(Status),
}

impl Agent {
    /// Makes an agent.
    pub fn new(name: String, world: World, network: Network, oracle: Oracle, plan: Plan) -> Self {
        let mut chance = world.chance(&name);
        let ahead_millis = chance.number(0..1_200_000) as i64 - 600_000;
        Self { name, world, network, oracle, plan, chance, ahead_millis }
    }

    /// Sends its profiles; then, once it is calm, all that were not acknowledged, until they are.
    pub async fn run(mut self, calm: Calm) {
        let mut left = self.plan.profiles;
        let mut unacked = Vec::new();
        while left > 0 && !calm.is_now() {
            sleep(self.chance.interval(self.plan.every)).await;
            let batch = if self.chance.is(0.6) { 1 } else { self.chance.number(2..BATCH_MAX + 1) }.min(left);
            left -= batch;
            let pushes = (0..batch).map(|_| self.capture()).collect();
            unacked.extend(self.push(pushes, TRIES_MAX, true).await);
        }
        self.oracle.waits();
        calm.begun().await;
        self.plan.losses = Losses::default();
        for pushes in unacked.chunks(BATCH_MAX as usize) {
            for push in self.push(pushes.to_vec(), LAST_TRIES_MAX, false).await {
                self.oracle.wrong(format!("{} cannot push {} though all is well", self.name, push.id));
            }
        }
    }

    /// Pushes until all is acknowledged; returns what was not in so many tries.
    async fn push(&mut self, mut pushes: Vec<Push>, tries_max: u32, resends: bool) -> Vec<Push> {
        for tries in 0..tries_max {
            let outcomes = self.try_once(&pushes).await;
            let mut left = Vec::new();
            let mut asked = Duration::ZERO;
            for (push, outcome) in pushes.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Acked { token } => {
                        self.world.note(format_args!("{} has {} acknowledged", self.name, push.id));
                        match token.parse() {
                            Ok(segment) => self.oracle.acked(push.id, segment),
                            Err(_) => self.oracle.wrong(format!("{} was told the token {token:?}", self.name)),
                        }
                        if resends && self.chance.is(self.plan.resends) {
                            left.push(push);
                        }
                    }
                    Outcome::Again { after } => {
                        asked = asked.max(after.unwrap_or_default());
                        left.push(push);
                    }
                    Outcome::Refused(status) => {
                        self.oracle.wrong(format!("{} is refused {}: {status:?}", self.name, push.id));
                    }
                }
            }
            pushes = left;
            if pushes.is_empty() {
                break;
            }
            let (base, most) = BACKOFF;
            let jitter = self.chance.time((base * 2u32.pow(tries)).min(most));
            sleep(asked.max(jitter)).await;
        }
        pushes
    }

    async fn try_once(&mut self, pushes: &[Push]) -> Vec<Outcome> {
        self.oracle.sends_now(pushes.iter().map(|push| push.id));
        let connection = self.network.connect(self.plan.losses, &mut self.chance);
        let client = IngestServiceClient::new(connection);
        let mut outcomes: Vec<Outcome> = pushes.iter().map(|_| Outcome::Again { after: None }).collect();
        match pushes {
            [push] if self.chance.is(0.5) => {
                let request = PushProfileRequest { profile: Some(push.profile.clone()) };
                if let Ok(answer) = timeout(ANSWER_TIMEOUT, call(client, request)).await {
                    outcomes[0] = answer;
                }
            }
            _ => {
                // What the timeout leaves without an outcome is tried again.
                let _ = timeout(ANSWER_TIMEOUT, stream(client, pushes, &mut outcomes)).await;
            }
        }
        outcomes
    }

    /// Takes a profile: a few samples of a few stacks, with a value that makes it unlike all others.
    fn capture(&mut self) -> Push {
        let chance = &mut self.chance;
        let ahead = Duration::from_millis(self.ahead_millis.unsigned_abs());
        let now = self.world.now().duration_since(UNIX_EPOCH).expect("the run begins long after 1970");
        let time = if self.ahead_millis < 0 { now - ahead } else { now + ahead };
        let high = u128::from(chance.number(0..1 << 40));
        let id = Ulid::from_parts(time.as_millis() as u64, high << 40 | u128::from(chance.number(0..1 << 40)));
        let raw = pprof(chance, time.as_nanos() as i64);
        let sha256 = Sha256::digest(&raw).into();
        let body = if chance.is(0.2) { compress::gzip(&raw) } else { raw };
        let service = *chance.choose(&SERVICES);
        self.oracle.sends(id, Sent { sha256, service });
        let labels = [("service", service), ("instance", &self.name)];
        let profile = v1::Profile {
            id: id.to_string(),
            r#type: "cpu".to_owned(),
            labels: BTreeMap::from(labels.map(|(name, value)| (name.to_owned(), value.to_owned()))),
            time: None,
            duration: None,
            pprof: body.into(),
        };
        Push { id, profile }
    }
}

/// Encodes a small CPU profile.
fn pprof(chance: &mut Chance, time_nanos: i64) -> Vec<u8> {
    let mut strings: Vec<&[u8]> = vec![b"", b"samples", b"count", b"cpu", b"nanoseconds"];
    let first = strings.len() as u32;
    strings.extend(FRAMES.iter().map(|frame| frame.as_bytes()));
    let count = FRAMES.len() as u32;
    let id = |at: u32| u64::from(at) + 1;
    let mut samples = Samples::default();
    for _ in 0..chance.number(1..8) {
        for _ in 0..chance.number(1..6) {
            samples.locations.push(chance.number(0..u64::from(count)) as u32);
        }
        samples.location_ends.push(samples.locations.len() as u32);
        samples.label_ends.push(0);
        samples.shapes.push(0);
        let hits = chance.number(1..100) as i64;
        samples.values.extend([hits, hits * 10_000_000 + chance.number(0..10_000_000) as i64]);
    }
    encode::encode(&Profile {
        sample_types: vec![ValueType { kind: 1, unit: 2, shape: 0 }, ValueType { kind: 3, unit: 4, shape: 0 }],
        samples,
        locations: (0..count)
            .map(|at| Location { id: id(at), mapping: NONE, lines_start: at, lines_end: at + 1, ..Location::default() })
            .collect(),
        lines: (0..count).map(|at| Line { function: at, line: 7 + i64::from(at), ..Line::default() }).collect(),
        functions: (0..count).map(|at| Function { id: id(at), name: first + at, ..Function::default() }).collect(),
        strings,
        time_nanos,
        duration_nanos: 10_000_000_000,
        ..Profile::default()
    })
}

type Client = IngestServiceClient<crate::network::Connection>;

async fn call(mut client: Client, request: PushProfileRequest) -> Outcome {
    match client.push_profile(request).await {
        Ok(answer) => Outcome::Acked { token: answer.into_inner().read_token },
        Err(status) => judge(status),
    }
}

async fn stream(mut client: Client, pushes: &[Push], outcomes: &mut [Outcome]) {
    let messages = pushes.iter().zip(0..).map(|(push, seq)| PushRequest {
        seq,
        part: Some(Part::Profile(push.profile.clone())),
        ..PushRequest::default()
    });
    let messages: Vec<_> = messages.collect();
    let mut answers = match client.push(futures::stream::iter(messages)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => {
            outcomes.iter_mut().for_each(|outcome| *outcome = judge(status.clone()));
            return;
        }
    };
    // Whatever ends the stream, what had no answer by then is tried again.
    while let Ok(Some(answer)) = answers.message().await {
        let Some(outcome) = outcomes.get_mut(answer.seq as usize) else { continue };
        *outcome = match answer.status.filter(|status| status.code != 0) {
            None => Outcome::Acked { token: answer.read_token },
            Some(status) => judge(Status::new(status.code.into(), status.message)),
        };
    }
}

/// Tells what a retry may help against from what is final.
fn judge(status: Status) -> Outcome {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => {
            Outcome::Again { after: None }
        }
        // An ingester takes what is right for wrong where its own clock is days off; another may know better.
        Code::InvalidArgument if status.message().contains("check the clock of the host") => {
            Outcome::Again { after: None }
        }
        _ => Outcome::Refused(status),
    }
}
