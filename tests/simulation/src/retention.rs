//! Retention as it must be: how long which profiles are kept, and what the commits say that was removed.
//!
//! A profile that was acknowledged may be missing where a commit of retention removed it, and nowhere else. So each such commit is read
//! off the store when it lands, with the blocks that it removes and adds, and what they differ in must be what [`Keeps`] lets go: profiles
//! that are too old by the true time, or whole blocks, the oldest first and no more than it takes for the rest to fit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use afterglow_store::block::Block;
use afterglow_store::commit::{Reason, State};
use afterglow_store::paths::{BlockName, Day};
use afterglow_store::retention::Policy;
use bytes::Bytes;
use futures::FutureExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use ulid::Ulid;

use crate::agent::SERVICES;
use crate::met::Met;
use crate::store::Landed;
use crate::world::{Chance, World};

/// How likely there is an age for all.
const AGES: f64 = 0.25;
/// How likely there is a rule where a day ends while it goes on, so that it meets trouble; and else, where it waits for the night.
const RULES: (f64, f64) = (0.5, 0.1);
/// How likely there are bytes that all may have together.
const BUDGETS: f64 = 0.15;

/// How long a run keeps profiles.
#[derive(Clone, Debug, Default)]
pub struct Keeps {
    /// How old they become where no rule is about them; none for ever.
    pub age_max: Option<Duration>,
    /// How old those of a service become; none for ever.
    pub rule: Option<(&'static str, Option<Duration>)>,
    /// The bytes that all blocks may have together.
    pub bytes_max: Option<u64>,
}

/// A profile in a block, as far as retention asks.
#[derive(Clone, Copy, Debug)]
struct Profile {
    time_nanos: i64,
    is_of_rule: bool,
}

/// A live block: its last time, by which the oldest go first, its name and its bytes.
type Weighed = (i64, BlockName, u64);

/// What retention did, as far as is known.
#[derive(Debug)]
pub struct Ledger {
    world: World,
    keeps: Keeps,
    /// The state after the last commit; only where there is a budget.
    state: State,
    /// The live blocks after each commit, likewise.
    weighed: Vec<Vec<Weighed>>,
    gone: BTreeSet<Ulid>,
}

// === impl Keeps ===

impl Keeps {
    /// Draws it; `ages` is what draws an age for all.
    pub fn draw(world: &World, ages: &mut Chance) -> Self {
        let age_max = ages.is(AGES).then(|| Duration::from_secs(*ages.choose(&[12 * 60, 20 * 60])));
        let mut chance = world.chance("plan of retention");
        let (soon, late) = RULES;
        let rule = chance.is(if world.begins_before_midnight() { soon } else { late }).then(|| {
            let age = *chance.choose(&[Some(60), Some(300), None]);
            (*chance.choose(&SERVICES), age.map(Duration::from_secs))
        });
        let bytes_max = chance.is(BUDGETS).then(|| *chance.choose(&[10_000, 40_000]));
        Self { age_max, rule, bytes_max }
    }

    /// Returns the same as the programs have it, its rule as one gives it.
    pub fn policy(&self) -> Policy {
        let rule = self.rule.map(|(service, age)| {
            let text = format!("{{service=\"{service}\"}}={}s", age.unwrap_or_default().as_secs());
            text.parse().expect("a rule of this form is valid")
        });
        Policy { age_max: self.age_max, rules: rule.into_iter().collect(), bytes_max: self.bytes_max }
    }

    /// Returns whether profiles of a service are those of the rule.
    fn is_of_rule(&self, service: &str) -> bool {
        self.rule.is_some_and(|(of_rule, _)| of_rule == service)
    }

    fn age_of(&self, is_of_rule: bool) -> Option<Duration> {
        self.rule.filter(|_| is_of_rule).map_or(self.age_max, |(_, age)| age)
    }

    /// Returns whether a profile that was taken then is older than it becomes.
    fn is_too_old(&self, profile: Profile, now_nanos: i64) -> bool {
        let age = self.age_of(profile.is_of_rule);
        age.is_some_and(|age| profile.time_nanos.saturating_add(age.as_nanos() as i64) < now_nanos)
    }

    /// Returns whether a profile must be gone once a bucket was brought to rest now: one goes with its day, never later.
    pub fn must_be_gone(&self, service: &str, time_nanos: i64, now_nanos: i64) -> bool {
        let time_nanos = Day::of_nanos(time_nanos).last_nanos();
        self.is_too_old(Profile { time_nanos, is_of_rule: self.is_of_rule(service) }, now_nanos)
    }
}

// === impl Ledger ===

impl Ledger {
    /// Makes one of a bucket without commits.
    pub fn new(world: &World, keeps: Keeps) -> Self {
        let (state, weighed, gone) = (State::default(), Vec::new(), BTreeSet::new());
        Self { world: world.clone(), keeps, state, weighed, gone }
    }

    /// Returns how long profiles are kept.
    pub fn keeps(&self) -> &Keeps {
        &self.keeps
    }

    /// Returns whether a commit removed this profile for good.
    pub fn is_gone(&self, id: Ulid) -> bool {
        self.gone.contains(&id)
    }

    /// Takes in what landed, in its order. Returns what is wrong with it.
    pub fn take(&mut self, landed: Vec<Landed>) -> Vec<String> {
        landed.into_iter().filter_map(|landed| self.take_one(&landed).err()).collect()
    }

    fn take_one(&mut self, landed: &Landed) -> Result<(), String> {
        let Landed { number, at_millis, commit, .. } = landed;
        let judged = if commit.reason == Reason::Retention { self.judge(landed) } else { Ok(()) };
        if self.keeps.bytes_max.is_some() {
            let applied = self.state.apply(commit, *at_millis);
            applied.map_err(|conflict| format!("commit {number} does not follow: {conflict}"))?;
            let weigh = |live: &afterglow_store::commit::Live| {
                let entry = &live.entry;
                (entry.last_nanos, entry.name, entry.bytes)
            };
            let mut weighed: Vec<Weighed> = self.state.blocks().map(weigh).collect();
            weighed.sort_unstable();
            self.weighed.push(weighed);
        }
        judged
    }

    /// Judges a commit of retention, which may be about what is too old or about what is too much.
    fn judge(&mut self, landed: &Landed) -> Result<(), String> {
        let Landed { number, at_millis, commit, blocks } = landed;
        let added: BTreeSet<BlockName> = commit.adds.iter().map(|entry| entry.name).collect();
        let (kept, removed): (Vec<_>, Vec<_>) = blocks.iter().partition(|(name, _)| added.contains(name));
        let mut lost = BTreeMap::new();
        for (name, bytes) in &removed {
            lost.extend(self.profiles(name, bytes));
        }
        for (name, bytes) in kept {
            for (id, _) in self.profiles(name, bytes) {
                if lost.remove(&id).is_none() {
                    return Err(format!("commit {number} of retention adds {id}, which it does not remove"));
                }
            }
        }
        let now_nanos = *at_millis as i64 * 1_000_000;
        let young = lost.iter().find(|(_, profile)| !self.keeps.is_too_old(**profile, now_nanos));
        if let Some((id, _)) = young {
            let removed: BTreeSet<BlockName> = removed.iter().map(|(name, _)| **name).collect();
            // By the state that its maker saw, which nothing says; others may have committed since.
            let is_right = added.is_empty() && self.weighed.iter().any(|live| self.too_much(live) == removed);
            if !is_right {
                let keeps = &self.keeps;
                return Err(format!(
                    "commit {number} of retention removes {id}, which is neither too old nor too much: {keeps:?}"
                ));
            }
            self.world.meets(Met::DropsOverBudget);
        } else if !added.is_empty() {
            self.world.meets(Met::Rewrites);
        } else {
            self.world.meets(Met::DropsOld);
        }
        self.gone.extend(lost.into_keys());
        Ok(())
    }

    /// Returns what is too much of these blocks, which are in the order in which they go.
    fn too_much(&self, live: &[Weighed]) -> BTreeSet<BlockName> {
        let Some(bytes_max) = self.keeps.bytes_max else { return BTreeSet::new() };
        let left = |from: usize| live[from..].iter().map(|(_, _, bytes)| bytes).sum::<u64>();
        let fits = (0..live.len()).find(|from| left(*from) <= bytes_max).unwrap_or(live.len());
        live[..fits].iter().map(|(_, name, _)| *name).collect()
    }

    /// Returns by how many bytes all live blocks are too many.
    pub fn bytes_over(&self) -> u64 {
        let bytes: u64 = self.weighed.last().into_iter().flatten().map(|(_, _, bytes)| bytes).sum();
        self.keeps.bytes_max.map_or(0, |bytes_max| bytes.saturating_sub(bytes_max))
    }

    /// Reads the profiles of a block.
    fn profiles(&self, name: &BlockName, bytes: &Bytes) -> BTreeMap<Ulid, Profile> {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from(name.to_string());
        let read = async {
            objects.put(&path, bytes.clone().into()).await.expect("it is in memory");
            let block = Block::open(Arc::clone(&objects), path.clone()).await.expect("what is committed can be read");
            let rows = block.rows().await.expect("what is committed can be read");
            let profile = |row: &afterglow_store::block::Row| {
                let labels = &block.toc().datasets()[row.dataset as usize].series()[row.series as usize];
                let is_of_rule = labels.get("service").is_some_and(|service| self.keeps.is_of_rule(service));
                (row.id, Profile { time_nanos: row.time_nanos, is_of_rule })
            };
            rows.iter().map(profile).collect()
        };
        read.now_or_never().expect("memory answers at once")
    }
}
