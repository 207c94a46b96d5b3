//! The log from outside: every commit, and every head and part of snapshots, that lies in the bucket.
//!
//! Readers look at few of these: they start from the newest snapshot that can be read, and make do with an older one or with commits where
//! they can. Here each object is read, and what it says is compared with what replaying the commits before it gives. Times are not
//! compared: those of commits are their objects', and a copy of a bucket has others.
//!
//! In one pass by number: at each the commit is applied, then the parts and the head as of it are compared. Where a commit cannot be
//! replayed, the next snapshot is where replaying begins anew. What is damaged is told with what readers make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;

use super::log::{Entry, Log};
use super::snapshot::{self, Head, Shard};
use super::state::DayBlocks;
use super::{Commit, Error, State};
use crate::Store;
use crate::paths::{Day, TenantId};

/// How many commits, or parts, are read ahead.
const AHEAD_MAX: usize = 16;
/// How many heads are: they are large.
const HEADS_AHEAD_MAX: usize = 2;

/// What was looked at.
#[derive(Debug, Default)]
pub(crate) struct Inspected {
    /// How many commits, heads and parts there are.
    pub(crate) objects: usize,
    /// What is wrong, and with which object.
    pub(crate) findings: Vec<(Path, String)>,
}

/// Reads every object of the log. Costs three LISTs and a GET for each object; memory for the state, and what is read ahead.
///
/// # Errors
/// Where the store does not answer. What is damaged is no error but a finding.
pub(crate) async fn inspect(store: &Store, tenant: &TenantId) -> Result<Inspected, Error> {
    // Whoever writes does so in the other order: a commit, parts, the head that names them.
    let mut inspection = Inspection::new(tenant);
    let heads = inspection.list(store, tenant.snapshots(), |path| tenant.parse_snapshot(path)).await?;
    let parts = inspection.list(store, tenant.days(), |path| tenant.parse_day(path).map(|(day, n)| (n, day))).await?;
    let commits = inspection.list(store, tenant.commits(), |path| tenant.parse_commit(path)).await?;
    inspection.objects = heads.len() + parts.len() + commits.len();
    inspection.parts_listed = parts.iter().copied().collect();
    inspection.first_commit = commits.first().copied();
    if inspection.first_commit.is_none_or(|first| first == 1) {
        inspection.replayed = Some(State::default());
    }

    let log = Log::new(store.clone(), tenant.clone());
    let read = async |number: u64| (number, log.read(number).await);
    let commits = futures::stream::iter(commits.into_iter().map(read)).buffered(AHEAD_MAX).peekable();
    let read = async |(number, day): (u64, Day)| (number, day, snapshot::read_part(store, tenant, day, number).await);
    let parts = futures::stream::iter(parts.into_iter().map(read)).buffered(AHEAD_MAX).peekable();
    let read = async |number: u64| (number, snapshot::read_head(store, tenant, number).await);
    let heads = futures::stream::iter(heads.into_iter().map(read)).buffered(HEADS_AHEAD_MAX).peekable();
    let (mut commits, mut parts, mut heads) = (pin!(commits), pin!(parts), pin!(heads));
    loop {
        let next = [
            commits.as_mut().peek().await.map(|(number, _)| *number),
            parts.as_mut().peek().await.map(|(number, ..)| *number),
            heads.as_mut().peek().await.map(|(number, _)| *number),
        ];
        let Some(number) = next.into_iter().flatten().min() else { break };
        if let Some((_, commit)) = commits.as_mut().next_if(|(next, _)| *next == number).await {
            inspection.take_commit(number, commit)?;
        }
        while let Some((_, day, part)) = parts.as_mut().next_if(|(next, ..)| *next == number).await {
            inspection.take_part(number, day, part)?;
        }
        if let Some((_, head)) = heads.as_mut().next_if(|(next, _)| *next == number).await {
            inspection.take_head(store, number, head).await?;
        }
    }
    Ok(inspection.end())
}

/// What an object that is wrong is to readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A commit, of this number.
    Commit(u64),
    /// A head.
    Head,
    /// A part of this number and day.
    Part(u64, Day),
    /// Nothing of ours.
    None,
}

struct Inspection<'a> {
    tenant: &'a TenantId,
    objects: usize,
    first_commit: Option<u64>,
    parts_listed: BTreeSet<(u64, Day)>,
    /// The last commit that was met.
    last_commit: u64,
    /// The state after the commits so far, where they can be replayed.
    replayed: Option<State>,
    /// The parts that are sound: when their day changed last, and how many blocks they have.
    parts: BTreeMap<(u64, Day), (u64, u64)>,
    /// The parts that heads name.
    named: BTreeSet<(u64, Day)>,
    /// The snapshots that can be read, head and parts.
    sound: BTreeSet<u64>,
    findings: Vec<(Path, String, Role)>,
}

impl<'a> Inspection<'a> {
    fn new(tenant: &'a TenantId) -> Self {
        Self {
            tenant,
            objects: 0,
            first_commit: None,
            parts_listed: BTreeSet::new(),
            last_commit: 0,
            replayed: None,
            parts: BTreeMap::new(),
            named: BTreeSet::new(),
            sound: BTreeSet::new(),
            findings: Vec::new(),
        }
    }

    /// Lists a folder, in order of the numbers.
    async fn list<N: Ord>(
        &mut self,
        store: &Store,
        folder: Path,
        number: impl Fn(&Path) -> Option<N>,
    ) -> Result<Vec<N>, Error> {
        let listed: Vec<_> =
            store.objects().list(Some(&folder)).try_collect().await.map_err(|source| Error::read(&folder, source))?;
        let mut numbers = Vec::with_capacity(listed.len());
        for meta in listed {
            match number(&meta.location) {
                Some(number) => numbers.push(number),
                None => self.find(meta.location, "is not named as what lies here".to_owned(), Role::None),
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn find(&mut self, key: Path, text: String, role: Role) {
        self.findings.push((key, text, role));
    }

    /// Takes damage for a finding, and anything else for an error.
    fn sound<T>(&mut self, read: Result<T, Error>, key: Path, role: Role) -> Result<Option<T>, Error> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.is_damage() => {
                let mut text = match &error {
                    Error::Damaged { damage, .. } => (*damage).to_owned(),
                    Error::Broken { source, .. } => format!("does not follow upon the commit before it: {source}"),
                    _ => error.to_string(),
                };
                if let Some(rest) = text.strip_prefix(&format!("{key} ")) {
                    text = rest.to_owned();
                }
                self.find(key, text, role);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn take_commit(&mut self, number: u64, read: Result<Option<Entry>, Error>) -> Result<(), Error> {
        let (key, role) = (self.tenant.commit(number), Role::Commit(number));
        // The first ones may have been deleted, for a snapshot has what they say.
        if self.last_commit > 0 && self.last_commit + 1 < number {
            self.miss(self.last_commit + 1..number);
        }
        self.last_commit = number;
        let decoded = read.and_then(|entry| {
            let entry =
                entry.ok_or_else(|| Error::Damaged { key: key.clone(), damage: "is gone since it was listed" })?;
            let commit = Commit::decode(&entry.payload).map_err(|damage| Error::damaged(&key, damage))?;
            Ok((commit, entry.at_millis))
        });
        let replayed = self.replayed.take().filter(|state| state.number + 1 == number);
        let Some((commit, at_millis)) = self.sound(decoded, key.clone(), role)? else { return Ok(()) };
        let Some(mut state) = replayed else { return Ok(()) };
        let applied = state.apply(&commit, at_millis).map_err(|source| Error::Broken { key: key.clone(), source });
        if self.sound(applied, key, role)?.is_some() {
            self.replayed = Some(state);
        }
        Ok(())
    }

    fn miss(&mut self, numbers: std::ops::Range<u64>) {
        let text = match numbers.end - numbers.start {
            1 => "is missing".to_owned(),
            commits => format!("is missing, and so are {} commits after it", commits - 1),
        };
        self.find(self.tenant.commit(numbers.start), text, Role::Commit(numbers.end - 1));
        self.replayed = None;
    }

    /// Returns the state after commit `number`, if it could be replayed.
    fn state_after(&self, number: u64) -> Option<&State> {
        self.replayed.as_ref().filter(|state| state.number == number)
    }

    fn take_part(&mut self, number: u64, day: Day, read: Result<Option<DayBlocks>, Error>) -> Result<(), Error> {
        let (key, role) = (self.tenant.day(day, number), Role::Part(number, day));
        let gone = || Error::Damaged { key: key.clone(), damage: "is gone since it was listed" };
        let read = read.and_then(|part| part.ok_or_else(gone));
        let Some(part) = self.sound(read, key.clone(), role)? else { return Ok(()) };
        if self.state_after(number).is_some_and(|state| state.days.get(&day) != Some(&part)) {
            self.find(key, "has other blocks than the commits up to it say".to_owned(), role);
            return Ok(());
        }
        self.parts.insert((number, day), (part.changed_in, part.blocks.len() as u64));
        Ok(())
    }

    async fn take_head(
        &mut self,
        store: &Store,
        number: u64,
        read: Result<Option<(Head, State)>, Error>,
    ) -> Result<(), Error> {
        let key = self.tenant.snapshot(number);
        let gone = || Error::Damaged { key: key.clone(), damage: "is gone since it was listed" };
        let read = read.and_then(|head| head.ok_or_else(gone));
        let Some((head, said)) = self.sound(read, key.clone(), Role::Head)? else { return Ok(()) };
        let mut is_sound = true;
        for (day, Shard { number: of, changed_in, blocks }) in &head.days {
            self.named.insert((*of, *day));
            if !self.parts_listed.contains(&(*of, *day)) {
                let text = format!("is named by snapshot {number}, and not there");
                self.find(self.tenant.day(*day, *of), text, Role::Part(*of, *day));
                // Once is enough.
                self.parts_listed.insert((*of, *day));
            }
            match self.parts.get(&(*of, *day)) {
                Some(part) if *part == (*changed_in, *blocks) => {}
                Some(_) => {
                    let text = format!("names part {} otherwise than it is", self.tenant.day(*day, *of));
                    self.find(key.clone(), text, Role::Head);
                    is_sound = false;
                }
                None => is_sound = false,
            }
        }
        if let Some(state) = self.state_after(number) {
            let said_days = head.days.iter().map(|(day, shard)| (*day, shard.changed_in, shard.blocks));
            let days = state.days.iter().map(|(day, of)| (*day, of.changed_in, of.blocks.len() as u64));
            let is_live = |state: &State, name| state.block(name).is_some();
            if said.boundary != state.boundary || !days.eq(said_days) {
                self.find(key, "says another state than the commits up to it".to_owned(), Role::Head);
                is_sound = false;
            } else if said.removed_blocks.keys().any(|name| is_live(state, name)) {
                self.find(key, "says that a live block was removed".to_owned(), Role::Head);
                is_sound = false;
            }
        } else if is_sound && let Some((_, state)) = snapshot::read(store, self.tenant, number).await? {
            self.replayed = Some(state);
        }
        if is_sound {
            self.sound.insert(number);
        }
        Ok(())
    }

    /// Says of each finding what readers make of it.
    fn end(mut self) -> Inspected {
        let newest = self.sound.last().copied();
        if let Some(first) = self.first_commit
            && first > 1
            && newest.is_none_or(|newest| newest + 1 < first)
        {
            self.miss(1..first);
        }
        let is_broken =
            self.first_commit != Some(1) || self.findings.iter().any(|(.., role)| matches!(role, Role::Commit(_)));
        let consequence = |role: &Role| match role {
            Role::Commit(number) => match newest.filter(|newest| newest >= number) {
                Some(newest) => format!("; readers do without it, for they start from snapshot {newest}"),
                None => "; nobody can read what was committed since".to_owned(),
            },
            Role::Part(number, day) if !self.named.contains(&(*number, *day)) => "; no snapshot names it".to_owned(),
            Role::Head | Role::Part(..) => match newest {
                Some(newest) => format!("; readers start from snapshot {newest}"),
                None if !is_broken => "; readers replay all commits instead".to_owned(),
                None => "; nobody can read what was committed".to_owned(),
            },
            Role::None => String::new(),
        };
        let findings =
            self.findings.iter().map(|(key, text, role)| (key.clone(), format!("{text}{}", consequence(role))));
        Inspected { objects: self.objects, findings: findings.collect() }
    }
}
