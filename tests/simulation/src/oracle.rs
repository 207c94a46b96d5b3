//! What must be true, known from outside: which profiles were sent, which were acknowledged, and what they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use afterglow_store::paths::{SegmentKey, SegmentName, TenantId};
use tokio::time::Instant;
use ulid::Ulid;

use crate::retention::{Keeps, Ledger};
use crate::store::SimStore;
use crate::world::World;

/// How long after it was sent a profile may still become visible: its ingester sleeps, its PUT lands late.
const ARRIVAL_MAX: Duration = Duration::from_secs(20 * 60);
/// The most faults of a run that are told.
const WRONGS_MAX: usize = 10;

/// The oracle of a run; cheap to clone.
#[derive(Clone, Debug)]
pub struct Oracle {
    world: World,
    objects: SimStore,
    state: Arc<Mutex<State>>,
}

/// A profile that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The SHA-256 of its protobuf.
    pub sha256: [u8; 32],
    /// The service.
    pub service: &'static str,
}

#[derive(Debug)]
struct State {
    /// Every profile that was ever sent.
    sent: BTreeMap<Ulid, Sent>,
    acked: BTreeSet<Ulid>,
    /// Every acknowledgement that reached its agent, by time.
    acks: Vec<Ack>,
    /// What retention removed.
    ledger: Ledger,
    /// When each profile was last sent.
    sent_at: BTreeMap<Ulid, Instant>,
    /// Acknowledged profiles that are gone, as retention may have it, and when that was seen.
    dropped: BTreeMap<Ulid, Instant>,
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
    /// Makes an oracle that knows of nothing yet but the store, and how long profiles are kept.
    pub fn new(world: &World, objects: &SimStore, keeps: Keeps) -> Self {
        let state = State {
            sent: BTreeMap::new(),
            acked: BTreeSet::new(),
            acks: Vec::new(),
            ledger: Ledger::new(world, keeps),
            sent_at: BTreeMap::new(),
            dropped: BTreeMap::new(),
            wrongs: Vec::new(),
            waiting: 0,
        };
        Self { world: world.clone(), objects: objects.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// Learns that a profile will be sent.
    pub fn sends(&self, id: Ulid, sent: Sent) {
        self.state().sent.insert(id, sent);
    }

    /// Learns that profiles are sent now.
    pub fn sends_now(&self, ids: impl IntoIterator<Item = Ulid>) {
        let now = Instant::now();
        self.state().sent_at.extend(ids.into_iter().map(|id| (id, now)));
    }

    /// Returns how many acknowledged profiles are known to have been dropped.
    pub fn dropped(&self) -> usize {
        self.state().dropped.len()
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
    /// complete, all of the first `due` acknowledgements, but for what retention removed, and rightly. Where it is of what lay in the bucket at
    /// `formed` or later: none that had been dropped by then.
    pub fn check(
        &self,
        who: &str,
        found: impl IntoIterator<Item = (Ulid, [u8; 32])>,
        due: Option<usize>,
        formed: Option<Instant>,
    ) {
        let mut ids = BTreeSet::new();
        let mut state = self.state();
        let mut wrongs = state.ledger.take(self.objects.landed());
        for (id, sha256) in found {
            if !ids.insert(id) {
                wrongs.push(format!("{who} counts {id} twice"));
            }
            match state.sent.get(&id) {
                None => wrongs.push(format!("{who} finds {id}, which nobody sent")),
                Some(sent) if sent.sha256 != sha256 => wrongs.push(format!("{who} finds another profile under {id}")),
                Some(_) => {}
            }
            let dropped = state.dropped.get(&id).copied();
            if let (Some(formed), Some(dropped)) = (formed, dropped)
                && dropped <= formed
            {
                wrongs.push(format!("{who} finds {id}, which had been dropped"));
            }
        }
        let State { acks, dropped, sent_at, ledger, .. } = &mut *state;
        for ack in &acks[..due.unwrap_or(0)] {
            if ids.contains(&ack.id) {
                continue;
            }
            if ledger.is_gone(ack.id) {
                // A copy that is still under way may become visible, until compaction has made a block of it and that is dropped too.
                if sent_at.get(&ack.id).is_none_or(|at| at.elapsed() >= ARRIVAL_MAX) {
                    dropped.entry(ack.id).or_insert_with(Instant::now);
                }
            } else {
                wrongs.push(format!("{who} does not find {}, acknowledged in {}", ack.id, ack.segment));
            }
        }
        drop(state);
        wrongs.into_iter().for_each(|wrong| self.wrong(wrong));
    }

    /// Checks, of what is found after a bucket was brought to rest and nothing fails any more, that what must be gone is: what was too old
    /// when that `began`.
    pub fn check_gone(&self, who: &str, found: &BTreeSet<Ulid>, began: SystemTime) {
        // Of what looks damaged, rules remove nothing.
        if self.objects.has_quarantined() {
            return;
        }
        let now_nanos = began.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let state = self.state();
        let is_overdue = |id: &&Ulid| {
            let time_nanos = id.timestamp_ms() as i64 * 1_000_000;
            let sent = state.sent.get(*id);
            sent.is_some_and(|sent| state.ledger.keeps().must_be_gone(sent.service, time_nanos, now_nanos))
        };
        let overdue: Vec<String> =
            found.iter().filter(is_overdue).map(|id| format!("{who} finds {id}, which is too old")).collect();
        let bytes_over = state.ledger.bytes_over();
        drop(state);
        overdue.into_iter().for_each(|wrong| self.wrong(wrong));
        if bytes_over > 0 {
            self.wrong(format!("blocks have {bytes_over} bytes more than they may"));
        }
    }

    /// Checks that an answer which is complete has a profile whose token was brought.
    pub fn check_token(&self, who: &str, ids: &BTreeSet<Ulid>, ack: &Ack) {
        if !ids.contains(&ack.id) && !self.is_gone(ack.id) {
            self.wrong(format!("{who} does not see {}, though it brought the token {}", ack.id, ack.segment));
        }
    }

    /// Returns whether retention removed a profile.
    fn is_gone(&self, id: Ulid) -> bool {
        let mut state = self.state();
        let wrongs = state.ledger.take(self.objects.landed());
        let is_gone = state.ledger.is_gone(id);
        drop(state);
        wrongs.into_iter().for_each(|wrong| self.wrong(wrong));
        is_gone
    }

    /// Returns the SHA-256 of a profile that was sent.
    pub fn sha256(&self, id: Ulid) -> Option<[u8; 32]> {
        self.state().sent.get(&id).map(|sent| sent.sha256)
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
