//! What must be true, known from outside: which profiles were sent, which were acknowledged, and what they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use afterglow_store::paths::{SegmentKey, SegmentName, TenantId};
use tokio::time::Instant;
use ulid::Ulid;

use crate::store::SimStore;
use crate::world::World;

/// The most faults of a run that are told.
const WRONGS_MAX: usize = 10;

/// The oracle of a run; cheap to clone.
#[derive(Clone, Debug)]
pub struct Oracle {
    world: World,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The SHA-256 of every profile that was ever sent.
    sent: BTreeMap<Ulid, [u8; 32]>,
    acked: BTreeSet<Ulid>,
    /// Every acknowledgement that reached its agent, by time.
    acks: Vec<Ack>,
    wrongs: Vec<String>,
    waiting: usize,
}

/// An acknowledgement that reached its agent.
#[derive(Clone, Debug)]
pub struct Ack {
    /// The profile.
    pub id: Ulid,
    /// The segment it named.
    pub segment: SegmentName,
    /// When it came.
    pub at: Instant,
}

impl Oracle {
    /// Makes an oracle that knows of nothing yet.
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), state: Arc::default() }
    }

    /// Learns that a profile will be sent.
    pub fn sends(&self, id: Ulid, sha256: [u8; 32]) {
        self.state().sent.insert(id, sha256);
    }

    /// Learns that an ingester is about to acknowledge a profile, and checks that it may.
    pub fn leaves(&self, objects: &SimStore, id: &str, read_token: &str) {
        let Ok(segment) = read_token.parse::<SegmentName>() else {
            return self.wrong(format!("the acknowledgement of {id} has the token {read_token:?}"));
        };
        let key = SegmentKey { tenant: TenantId::anonymous(), name: segment };
        if !objects.was_written(&key.path()) {
            self.wrong(format!("{id} is acknowledged before {key} is durable"));
        }
    }

    /// Learns that an acknowledgement reached its agent.
    pub fn acked(&self, id: Ulid, segment: SegmentName) {
        let mut state = self.state();
        state.acked.insert(id);
        state.acks.push(Ack { id, segment, at: Instant::now() });
    }

    /// Returns how many acknowledgements there were.
    pub fn acks(&self) -> usize {
        self.state().acks.len()
    }

    /// Returns an acknowledgement.
    pub fn ack(&self, number: usize) -> Ack {
        self.state().acks[number].clone()
    }

    /// Returns how many acknowledgements came no later than this.
    pub fn acks_by(&self, at: Instant) -> usize {
        self.state().acks.partition_point(|ack| ack.at <= at)
    }

    /// Returns how many profiles were acknowledged.
    pub fn acked_profiles(&self) -> usize {
        self.state().acked.len()
    }

    /// Checks an answer, the ids and digests in it: each id once, none that was not sent, none altered; and where it claims to be
    /// complete, all of the first `due` acknowledgements.
    pub fn check(&self, who: &str, found: impl IntoIterator<Item = (Ulid, [u8; 32])>, due: Option<usize>) {
        let mut ids = BTreeSet::new();
        let mut wrongs = Vec::new();
        let state = self.state();
        for (id, sha256) in found {
            if !ids.insert(id) {
                wrongs.push(format!("{who} counts {id} twice"));
            }
            match state.sent.get(&id) {
                None => wrongs.push(format!("{who} finds {id}, which nobody sent")),
                Some(sent) if *sent != sha256 => wrongs.push(format!("{who} finds another profile under {id}")),
                Some(_) => {}
            }
        }
        for ack in &state.acks[..due.unwrap_or(0)] {
            if !ids.contains(&ack.id) {
                wrongs.push(format!("{who} does not find {}, acknowledged in {}", ack.id, ack.segment));
            }
        }
        drop(state);
        wrongs.into_iter().for_each(|wrong| self.wrong(wrong));
    }

    /// Returns the SHA-256 of a profile that was sent.
    pub fn sha256(&self, id: Ulid) -> Option<[u8; 32]> {
        self.state().sent.get(&id).copied()
    }

    /// Learns that an agent has sent what it had.
    pub fn waits(&self) {
        self.state().waiting += 1;
    }

    /// Returns how many agents have sent what they had.
    pub fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// Learns that something is wrong.
    pub fn wrong(&self, text: String) {
        self.world.note(format_args!("WRONG: {text}"));
        let mut state = self.state();
        if state.wrongs.len() < WRONGS_MAX {
            state.wrongs.push(text);
        }
    }

    /// Returns what is wrong so far.
    pub fn wrongs(&self) -> Vec<String> {
        self.state().wrongs.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}
