//! Retention: what is too old, or too much, goes for good.
//!
//! ```text
//! Policy   how long which profiles are kept, and how many bytes in all
//! plan     which blocks are dropped, rewritten or looked into: a pure function of the state and the time
//! round    looks into blocks, rewrites, and commits; dry_run only says what a round would do
//! published  what maintainers say of theirs, for readers to tell
//! ```
//!
//! Blocks hold one day each, so nearly all of retention is a commit that removes whole blocks. Only where a selector keeps some profiles
//! of a block longer than others is the block written anew without these. A profile goes with its day: at most a day, and the time
//! until the next round, later than its age says, never earlier. Segments are never dropped: compaction makes blocks of them first.
//!
//! A compaction that is under way loses the race: its inputs are not live any more when it commits. So what was dropped stays so.
//!
//! *Now* is the store's (docs/decisions/0009), and where this machine's clock says something else, nothing goes. A damaged block into which
//! rules would have to look is named, and holds up nobody; it goes with all others of its age.
//!
//! Each commit that deletes profiles writes a line for auditors, which says whose, how many, of which days, and by which setting.

mod published;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use afterglow_profile::{Labels, ProfileType, Selector};

pub use self::published::Published;
pub(crate) use self::published::{PUBLISH_INTERVAL, publish};
use crate::Store;
use crate::block::{self, Block, Dataset, Input, Row};
use crate::commit::{BlockEntry, Commits, Draft, Outcome, Reason, State};
use crate::compaction::trial::Tried;
use crate::compaction::{Compactor, Error};
use crate::now::{Now, now};
use crate::paths::{BlockKey, BlockName, BlockRef, Day};

/// The most blocks that one commit drops: some 20 KB.
const DROPS_MAX: usize = 1_000;
/// How far the clock of this machine may be from the store's for anything to be deleted by age: further than those of servers ever are that
/// are kept right, and far less than any age.
pub(crate) const SKEW_MAX: Duration = Duration::from_secs(15 * 60);

/// What an age of a rule is that never comes.
const FOR_EVER: &str = "0s";
/// The shortest age of a rule: what is shorter was meant otherwise.
const AGE_MIN: Duration = Duration::from_secs(1);

/// How long profiles are kept.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The age of a profile that no rule is about; none keeps it for ever.
    pub age_max: Option<Duration>,
    /// Rules, of which the first whose selector matches counts.
    pub rules: Vec<Rule>,
    /// The bytes that all blocks may have together; the oldest go first.
    pub bytes_max: Option<u64>,
}

impl Default for Policy {
    /// Keeps everything for 30 days.
    fn default() -> Self {
        Self { age_max: Some(Duration::from_secs(30 * 24 * 3_600)), rules: Vec::new(), bytes_max: None }
    }
}

impl Policy {
    /// Returns how old a profile of this type with these labels becomes; none for ever.
    pub fn age_of(&self, labels: &Labels, profile_type: &ProfileType) -> Option<Duration> {
        self.rule_of(labels, profile_type).map_or(self.age_max, |rule| rule.age_max)
    }

    /// Returns the rule that is about a profile of this type with these labels; none where it is as old as others become.
    fn rule_of(&self, labels: &Labels, profile_type: &ProfileType) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.selector.matches(labels, profile_type))
    }

    /// Returns the setting by which profiles that no rule is about become too old, as one gives it.
    fn age_setting(&self) -> String {
        let age = self.age_max.unwrap_or_default();
        format!("--retention.max-age={}", humantime::format_duration(age))
    }

    /// Returns the setting by which the oldest go when there is too much.
    fn bytes_setting(&self) -> String {
        format!("--retention.max-bytes={}", self.bytes_max.unwrap_or(u64::MAX))
    }

    /// Returns all settings about ages.
    fn age_settings(&self) -> BTreeSet<String> {
        let of_all = self.age_max.map(|_| self.age_setting());
        self.rules.iter().map(Rule::setting).chain(of_all).collect()
    }

    /// Returns what cannot be meant, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (n, rule) in self.rules.iter().enumerate() {
            let selector = rule.selector.to_string();
            let is_other = |other: &&Rule| other.selector.to_string() == selector && other.age_max != rule.age_max;
            if self.rules[..n].iter().any(|other| is_other(&other)) {
                problems.push(format!("retention.rule says two ages for {selector}: leave one of them"));
            }
        }
        problems
    }

    /// Whether anything goes because of its age.
    fn has_ages(&self) -> bool {
        self.ages().flatten().next().is_some()
    }

    /// Returns all ages; none is for ever.
    fn ages(&self) -> impl Iterator<Item = Option<Duration>> {
        self.rules.iter().map(|rule| rule.age_max).chain([self.age_max])
    }
}

/// How long the profiles that a selector matches are kept.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which.
    pub selector: Selector,
    /// How old they become; none for ever.
    pub age_max: Option<Duration>,
}

impl Rule {
    /// Returns the setting, as one gives it.
    fn setting(&self) -> String {
        let age = self.age_max.unwrap_or_default();
        format!("--retention.rule={}={}", self.selector, humantime::format_duration(age))
    }
}

/// Says why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("retention rule {text:?} is not of the form {{service=\"batch\"}}=7d: {reason}")]
pub struct NotARule {
    text: String,
    reason: String,
}

impl FromStr for Rule {
    type Err = NotARule;

    /// Reads `{service="batch"}=7d`: a selector and an age in days, hours and so on; `0s` is for ever, as it is for all profiles.
    fn from_str(text: &str) -> Result<Self, NotARule> {
        let refused = |reason: String| NotARule { text: text.to_owned(), reason };
        // The selector holds equals signs too; the last one is the rule's own, as no age holds one.
        let (selector, age) = text.rsplit_once('=').ok_or_else(|| refused("it has no =".to_owned()))?;
        let selector = Selector::parse(selector).map_err(|error| refused(error.to_string()))?;
        let age = age.trim();
        let age_max = humantime::parse_duration(age).map_err(|error| refused(error.to_string()))?;
        // A bare 0 could be meant either way.
        if age_max.is_zero() && age != FOR_EVER {
            return Err(refused(format!("{FOR_EVER} keeps for ever, and nothing else says so")));
        }
        if !age_max.is_zero() && age_max < AGE_MIN {
            let text = format!("{age} is below {}; {FOR_EVER} keeps for ever", humantime::format_duration(AGE_MIN));
            return Err(refused(text));
        }
        Ok(Self { selector, age_max: (!age_max.is_zero()).then_some(age_max) })
    }
}

/// What retention does because of ages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Blocks in which everything is too old.
    pub expired: Vec<Arc<BlockEntry>>,
    /// Blocks in which, by the rules, some profiles may be too old.
    pub mixed: Vec<Arc<BlockEntry>>,
}

/// Plans by the bounds of blocks alone.
pub fn plan<'e>(blocks: impl IntoIterator<Item = &'e Arc<BlockEntry>>, policy: &Policy, now_nanos: i64) -> Plan {
    // None, that is for ever, is the longest.
    let longest = if policy.ages().any(|age| age.is_none()) { None } else { policy.ages().flatten().max() };
    let shortest = policy.ages().flatten().min();
    let is_older = |entry: &BlockEntry, age: Option<Duration>| {
        age.is_some_and(|age| {
            let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
            entry.last_nanos < now_nanos.saturating_sub(age)
        })
    };
    let mut plan = Plan::default();
    for entry in blocks {
        if is_older(entry, longest) {
            plan.expired.push(Arc::clone(entry));
        } else if is_older(entry, shortest) {
            plan.mixed.push(Arc::clone(entry));
        }
    }
    plan
}

/// Returns the blocks that go because all together have too many bytes, the oldest first. What is too old must be gone before: it makes room.
fn over_budget(mut entries: Vec<Arc<BlockEntry>>, policy: &Policy) -> Vec<Arc<BlockEntry>> {
    let Some(bytes_max) = policy.bytes_max else { return Vec::new() };
    let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
    entries.sort_by_key(|entry| (entry.last_nanos, entry.name));
    let is_too_much = |entry: &Arc<BlockEntry>| {
        let is_too_much = bytes > bytes_max;
        bytes -= entry.bytes;
        is_too_much
    };
    entries.into_iter().take_while(is_too_much).collect()
}

/// What a round of retention did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The blocks that were dropped whole.
    pub dropped: Vec<BlockName>,
    /// The blocks that were written anew, without so many profiles.
    pub rewritten: BTreeMap<BlockName, u64>,
    /// How many profiles went.
    pub profiles: u64,
    /// How many bytes the blocks have that were dropped or written anew.
    pub bytes: u64,
    /// Damaged blocks in which rules would keep some profiles longer than others: they are left as they are, until all of it is too old.
    pub damaged: Vec<BlockName>,
    /// How many of these were noted now for the first time.
    pub quarantined: usize,
    /// Of what a dry run says, how many profiles lie in segments: how many blocks these become, and with how many bytes, is about right, not
    /// exact.
    pub in_segments: u64,
}

impl Report {
    /// Adds what another round did.
    pub(crate) fn add(&mut self, other: Self) {
        self.dropped.extend(other.dropped);
        self.rewritten.extend(other.rewritten);
        self.profiles += other.profiles;
        self.bytes += other.bytes;
        self.damaged.extend(other.damaged);
        self.quarantined += other.quarantined;
        self.in_segments += other.in_segments;
    }

    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.profiles == 0 && self.damaged.is_empty()
    }
}

/// What of a block is too old.
struct TooOld {
    block: Arc<Block>,
    /// Its rows.
    skip: Arc<[u32]>,
    /// The settings by which they are.
    settings: BTreeSet<String>,
}

/// Applies a policy to one tenant.
#[derive(Debug)]
pub struct Retention {
    store: Store,
    commits: Commits,
    policy: Policy,
    /// Blocks that were looked into, and when the next of their profiles becomes too old; in nanoseconds since 1970.
    sound_until: Mutex<BTreeMap<BlockName, i64>>,
}

impl Retention {
    /// Makes it. Makes no request.
    pub fn new(store: Store, commits: Commits, policy: Policy) -> Self {
        Self { store, commits, policy, sound_until: Mutex::default() }
    }

    /// Drops and rewrites what the policy says: what is too old, and of what is left the oldest where it is too much. What it did stands in
    /// `report`, also where it fails in the end. Costs the refresh of the commits, once more where there is too much, and three requests to
    /// learn the store's time; where rules are about a part of a block, a LIST, and what it takes to look into it and to
    /// write it anew.
    ///
    /// # Errors
    /// Where the bucket could not be read or written, of several blocks for the first; or [`Error::Clocks`].
    pub async fn round(&self, compactor: &Compactor, report: &mut Report) -> Result<(), Error> {
        let state = self.commits.refresh().await?;
        self.forget(&state);
        if state.is_empty() {
            return Ok(());
        }
        let now_nanos = self.now_nanos().await?;
        let plan = plan(state.blocks().map(|live| &live.entry), &self.policy, now_nanos);
        let entries = |state: &State| state.blocks().map(|live| Arc::clone(&live.entry)).collect();
        let is_over_budget = !over_budget(entries(&state), &self.policy).is_empty();
        let round = Round::new(self, compactor, &state, now_nanos, None);
        round.carry_out(plan, report).await?;
        if !is_over_budget || round.is_overtaken() {
            return Ok(());
        }
        let state = self.commits.refresh().await?;
        let round = Round::new(self, compactor, &state, now_nanos, None);
        round.drop_over_budget(over_budget(entries(&state), &self.policy), report).await
    }

    /// Says what a round would do once segments are merged, and does nothing. Costs what a round costs that writes nothing, and the merge
    /// of all segments.
    ///
    /// # Errors
    /// As [`Retention::round`].
    pub async fn dry_run(&self, compactor: &Compactor) -> Result<Report, Error> {
        if !self.policy.has_ages() && self.policy.bytes_max.is_none() {
            return Ok(Report::default());
        }
        let now_nanos = self.now_nanos().await?;
        let (state, mut trial) = compactor.trial().await?;
        let (mut entries, mut tried) = (Vec::new(), BTreeMap::new());
        while let Some(Tried { entry, block }) = trial.next().await? {
            let rows = block.rows().await?;
            let expired = self.expired(&block, &rows, entry.name.day(), now_nanos);
            tried.insert(entry.name, expired.rows.len() as u64);
            entries.push(entry);
        }
        let plan = plan(state.blocks().map(|live| &live.entry).chain(&entries), &self.policy, now_nanos);
        let round = Round::new(self, compactor, &state, now_nanos, Some(&tried));
        let mut report = Report::default();
        round.carry_out(plan, &mut report).await?;
        let dropped: BTreeSet<BlockName> = report.dropped.iter().copied().collect();
        let left =
            state.blocks().map(|live| &live.entry).chain(&entries).filter(|entry| !dropped.contains(&entry.name));
        // A block that is written anew is taken to have its part of the bytes.
        let left = left.map(|entry| match report.rewritten.get(&entry.name) {
            Some(profiles) => {
                let rows = entry.rows - profiles;
                let bytes = (u128::from(entry.bytes) * u128::from(rows) / u128::from(entry.rows)) as u64;
                Arc::new(BlockEntry { rows, bytes, ..BlockEntry::clone(entry) })
            }
            None => Arc::clone(entry),
        });
        let over_budget = over_budget(left.collect(), &self.policy);
        round.drop_over_budget(over_budget, &mut report).await?;
        Ok(report)
    }

    /// Returns the time by the store's clock, in nanoseconds since 1970; 0 where nothing goes by its age.
    async fn now_nanos(&self) -> Result<i64, Error> {
        if !self.policy.has_ages() {
            return Ok(0);
        }
        let Now { millis, ahead_millis } = now(&self.store).await?;
        // One of the two is wrong, and what it would delete is gone for good.
        if u128::from(ahead_millis.unsigned_abs()) > SKEW_MAX.as_millis() {
            return Err(Error::Clocks { ahead_millis });
        }
        Ok(i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1_000_000))
    }

    /// Writes down, as `service::access::audit` writes what people do, that so many profiles of these blocks were deleted, and by which
    /// settings: those that made them too old, or, where all of a block is too old for any, all about ages.
    fn audit(&self, settings: &BTreeSet<String>, blocks: &[Arc<BlockEntry>], profiles: u64) {
        let days = || blocks.iter().map(|entry| entry.name.day());
        tracing::info!(
            target: "audit",
            event = "deleted",
            by = "retention",
            setting = settings.iter().map(String::as_str).collect::<Vec<_>>().join(" "),
            tenant = %self.commits.tenant(),
            profiles,
            blocks = blocks.len(),
            bytes = blocks.iter().map(|entry| entry.bytes).sum::<u64>(),
            first_day = days().min().map(tracing::field::display),
            last_day = days().max().map(tracing::field::display),
            "profiles deleted"
        );
    }

    /// Returns what of a block is too old; nothing where nothing is. Costs a GET or two, once for each block until one of its profiles
    /// becomes too old.
    async fn too_old(&self, entry: &BlockEntry, now_nanos: i64) -> Result<Option<TooOld>, Error> {
        if self.sound_until().get(&entry.name).is_some_and(|until| now_nanos < *until) {
            return Ok(None);
        }
        let block = self.open(entry).await?;
        let rows = block.rows().await?;
        let Expired { rows: skip, until_nanos } = self.expired(&block, &rows, entry.name.day(), now_nanos);
        if !skip.is_empty() {
            let series: BTreeSet<(u32, u32)> =
                skip.iter().map(|row| &rows[*row as usize]).map(|row| (row.dataset, row.series)).collect();
            let settings = series.into_iter().map(|(dataset, series)| {
                let dataset = &block.toc().datasets()[dataset as usize];
                let rule = self.policy.rule_of(&dataset.series()[series as usize], dataset.profile_type());
                rule.map_or_else(|| self.policy.age_setting(), Rule::setting)
            });
            let settings = settings.collect();
            return Ok(Some(TooOld { block, skip, settings }));
        }
        self.sound_until().insert(entry.name, until_nanos);
        Ok(None)
    }

    /// Says which rows of a block are too old.
    fn expired(&self, block: &Block, rows: &[Row], day: Day, now_nanos: i64) -> Expired {
        let ages: Vec<Vec<Option<i64>>> = block.toc().datasets().iter().map(|dataset| self.ages(dataset)).collect();
        // A profile goes with its day, so that a block is not written anew again and again while it ages.
        let expires = |row: &Row| {
            let age = ages[row.dataset as usize][row.series as usize]?;
            Some(day.last_nanos().saturating_add(age))
        };
        let is_too_old = |row: &Row| expires(row).is_some_and(|at| at < now_nanos);
        let expired = (0..).zip(rows).filter(|(_, row)| is_too_old(row)).map(|(n, _)| n).collect();
        Expired { rows: expired, until_nanos: rows.iter().filter_map(expires).min().unwrap_or(i64::MAX) }
    }

    /// Returns how old the profiles of each series become, in nanoseconds; none for ever.
    fn ages(&self, dataset: &Dataset) -> Vec<Option<i64>> {
        let age = |labels| {
            let age = self.policy.age_of(labels, dataset.profile_type())?;
            Some(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
        };
        dataset.series().iter().map(age).collect()
    }

    async fn open(&self, entry: &BlockEntry) -> Result<Arc<Block>, Error> {
        let key = BlockKey { tenant: self.commits.tenant().clone(), name: entry.name };
        Ok(Arc::new(Block::open_sized(self.store.objects(), key.path(), entry.bytes).await?))
    }

    fn sound_until(&self) -> std::sync::MutexGuard<'_, BTreeMap<BlockName, i64>> {
        self.sound_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets blocks that are not live any more.
    fn forget(&self, state: &State) {
        self.sound_until().retain(|name, _| state.block(name).is_some());
    }
}

/// What is too old of a block.
struct Expired {
    /// Its rows.
    rows: Arc<[u32]>,
    /// When the first of all its rows becomes too old.
    until_nanos: i64,
}

/// The settings by which all of a block is too old, if it is.
struct Whole(Option<BTreeSet<String>>);

/// A round under way.
struct Round<'a> {
    retention: &'a Retention,
    compactor: &'a Compactor,
    state: &'a State,
    now_nanos: i64,
    /// The blocks that segments were merged into on trial, and how many of their profiles are too old, where nothing is to be done.
    tried: Option<&'a BTreeMap<BlockName, u64>>,
    /// Whether something was not committed that should have been.
    is_overtaken: AtomicBool,
}

impl<'a> Round<'a> {
    fn new(
        retention: &'a Retention,
        compactor: &'a Compactor,
        state: &'a State,
        now_nanos: i64,
        tried: Option<&'a BTreeMap<BlockName, u64>>,
    ) -> Self {
        Self { retention, compactor, state, now_nanos, tried, is_overtaken: AtomicBool::new(false) }
    }

    /// Whether something is still there that is too old, for the next round to look at again.
    fn is_overtaken(&self) -> bool {
        self.is_overtaken.load(Ordering::Relaxed)
    }

    /// Drops what is too much.
    async fn drop_over_budget(&self, entries: Vec<Arc<BlockEntry>>, report: &mut Report) -> Result<(), Error> {
        self.drop_whole(&BTreeSet::from([self.retention.policy.bytes_setting()]), &entries, report).await
    }

    /// Does what is planned: drops first, for that needs no look into any block.
    async fn carry_out(&self, plan: Plan, report: &mut Report) -> Result<(), Error> {
        self.drop_whole(&self.retention.policy.age_settings(), &plan.expired, report).await?;
        if plan.mixed.is_empty() {
            return Ok(());
        }
        let quarantined = self.compactor.quarantined().await?;
        let (mut whole, mut failed) = (BTreeMap::<BTreeSet<String>, Vec<_>>::new(), None);
        for entry in plan.mixed {
            if quarantined.contains(&BlockRef::Block(entry.name)) {
                report.damaged.push(entry.name);
                continue;
            }
            match self.apply_rules(&entry, report).await {
                Ok(Whole(Some(settings))) => whole.entry(settings).or_default().push(entry),
                Ok(Whole(None)) => {}
                // It will never be smaller; the rest is not to wait for that.
                Err(Error::Block(error @ block::Error::Memory { .. })) => {
                    tracing::warn!(block = %entry.name, %error, "rules of retention cannot be applied to a block that is so large: it stays until all of it is too old");
                }
                Err(error) if failed.is_none() => failed = Some(error),
                Err(error) => {
                    tracing::warn!(block = %entry.name, error = &error as &dyn std::error::Error, "rules of retention could not be applied");
                }
            }
        }
        for (settings, entries) in whole {
            self.drop_whole(&settings, &entries, report).await?;
        }
        failed.map_or(Ok(()), Err)
    }

    fn is_dry(&self) -> bool {
        self.tried.is_some()
    }

    /// Returns how many profiles of a block are too old that is there on trial alone; none where it lies in the bucket.
    fn tried(&self, name: &BlockName) -> Option<u64> {
        self.tried?.get(name).copied()
    }

    /// Drops whole blocks, by these settings.
    async fn drop_whole(
        &self,
        settings: &BTreeSet<String>,
        entries: &[Arc<BlockEntry>],
        report: &mut Report,
    ) -> Result<(), Error> {
        for dropped in entries.chunks(DROPS_MAX) {
            let removes = dropped.iter().map(|entry| BlockRef::Block(entry.name)).collect();
            if self.is_dry() || self.commit(Vec::new(), removes).await? {
                report.dropped.extend(dropped.iter().map(|entry| entry.name));
                let profiles = dropped.iter().map(|entry| entry.rows).sum::<u64>();
                report.profiles += profiles;
                report.bytes += dropped.iter().map(|entry| entry.bytes).sum::<u64>();
                let tried = dropped.iter().filter(|entry| self.tried(&entry.name).is_some());
                report.in_segments += tried.map(|entry| entry.rows).sum::<u64>();
                if !self.is_dry() {
                    self.retention.audit(settings, dropped, profiles);
                }
            }
        }
        Ok(())
    }

    /// Applies the rules to a block, and once more where it looks damaged, which may have happened on the way here. What is damaged
    /// indeed is noted, as an input of a merge is.
    async fn apply_rules(&self, entry: &Arc<BlockEntry>, report: &mut Report) -> Result<Whole, Error> {
        let path = BlockKey { tenant: self.retention.commits.tenant().clone(), name: entry.name }.path();
        let applied = match self.apply_rules_once(entry, report).await {
            Err(error) if error.is_damage_of(&path) => self.apply_rules_once(entry, report).await,
            applied => applied,
        };
        let is_gone = |error: &Error| {
            matches!(error, Error::Block(block::Error::Read { source: object_store::Error::NotFound { .. }, .. }))
        };
        match applied {
            // Others have merged or dropped it.
            Err(error) if is_gone(&error) && !self.is_live(&entry.name).await? => Ok(Whole(None)),
            Err(error) if is_gone(&error) || error.is_damage_of(&path) => {
                report.damaged.push(entry.name);
                if !self.is_dry() {
                    self.compactor.quarantine(&BlockRef::Block(entry.name), &error).await?;
                    report.quarantined += 1;
                }
                Ok(Whole(None))
            }
            applied => applied,
        }
    }

    /// Whether a block is live by now.
    async fn is_live(&self, name: &BlockName) -> Result<bool, Error> {
        Ok(self.retention.commits.refresh().await?.block(name).is_some())
    }

    async fn apply_rules_once(&self, entry: &Arc<BlockEntry>, report: &mut Report) -> Result<Whole, Error> {
        if let Some(profiles) = self.tried(&entry.name) {
            if profiles > 0 && profiles < entry.rows {
                report.rewritten.insert(entry.name, profiles);
                report.profiles += profiles;
                report.bytes += entry.bytes;
                report.in_segments += profiles;
            }
            // By which settings does not matter to a trial.
            return Ok(Whole((profiles == entry.rows).then(BTreeSet::new)));
        }
        let Some(TooOld { block, skip, settings }) = self.retention.too_old(entry, self.now_nanos).await? else {
            return Ok(Whole(None));
        };
        if skip.len() as u64 == entry.rows {
            return Ok(Whole(Some(settings)));
        }
        let profiles = skip.len() as u64;
        if self.is_dry() || self.rewrite(entry, Input { block, skip }).await? {
            report.rewritten.insert(entry.name, profiles);
            report.profiles += profiles;
            report.bytes += entry.bytes;
            if !self.is_dry() {
                self.retention.audit(&settings, std::slice::from_ref(entry), profiles);
            }
        }
        Ok(Whole(None))
    }

    /// Writes a block anew without the rows that `input` skips. Returns whether that was committed.
    async fn rewrite(&self, entry: &BlockEntry, input: Input) -> Result<bool, Error> {
        let adds = self.compactor.rewrite(entry.name.level(), input).await?;
        self.commit(adds, vec![BlockRef::Block(entry.name)]).await
    }

    async fn commit(&self, adds: Vec<BlockEntry>, removes: Vec<BlockRef>) -> Result<bool, Error> {
        let draft = Draft { base: self.state.number(), reason: Reason::Retention, adds, removes, boundary: None };
        // What comes in has no id that the block it replaces had not, so others' blocks are no concern.
        match self.retention.commits.commit(draft, async |_, _| true).await? {
            Outcome::Committed { .. } => Ok(true),
            Outcome::Rejected(rejection) => {
                tracing::debug!(%rejection, "retention was overtaken; the next round looks again");
                self.is_overtaken.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Outcome::Unknown { number, source } => {
                tracing::warn!(
                    commit = number,
                    error = &source as &dyn std::error::Error,
                    "whether a commit was made is unknown"
                );
                self.is_overtaken.store(true, Ordering::Relaxed);
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;
    use crate::commit::Commit;
    use crate::paths::Day;

    const DAY: i64 = 86_400_000_000_000;
    const NOW: i64 = 20_000 * DAY + DAY / 2;

    /// A block of so many days ago.
    fn block(days_ago: i64, bytes: u64) -> BlockEntry {
        let nanos = NOW - days_ago * DAY;
        let ulid = Ulid::from(days_ago as u128 + 1);
        BlockEntry {
            name: BlockName::new(3, Day::of_nanos(nanos), ulid),
            bytes,
            rows: 10,
            raw_bytes: 1,
            first_nanos: nanos,
            last_nanos: nanos,
            first_id: ulid,
            last_id: ulid,
        }
    }

    fn days_ago(entries: &[Arc<BlockEntry>]) -> Vec<i64> {
        entries.iter().map(|entry| (NOW - entry.last_nanos) / DAY).collect()
    }

    fn planned(policy: &Policy) -> (Vec<i64>, Vec<i64>, Vec<i64>) {
        let blocks: Vec<BlockEntry> = [0, 1, 8, 29, 31, 60, 400].map(|days| block(days, 100)).into();
        let mut state = State::default();
        let commit = Commit { reason: Reason::Compaction, adds: blocks, removes: Vec::new(), boundary: None };
        state.apply(&commit, 1).expect("the blocks are sound");
        let plan = plan(state.blocks().map(|live| &live.entry), policy, NOW);
        let left = state.blocks().map(|live| Arc::clone(&live.entry)).filter(|entry| !plan.expired.contains(entry));
        let over_budget = over_budget(left.collect(), policy);
        (days_ago(&plan.expired), days_ago(&over_budget), days_ago(&plan.mixed))
    }

    fn days(days: u64) -> Duration {
        Duration::from_secs(days * 24 * 3_600)
    }

    #[test]
    fn thirty_days_are_kept_unless_somebody_says_otherwise() {
        assert_eq!(planned(&Policy::default()), (vec![400, 60, 31], vec![], vec![]));
        assert_eq!(planned(&Policy { age_max: None, ..Policy::default() }), (vec![], vec![], vec![]));
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits() {
        let policy = Policy { age_max: None, bytes_max: Some(450), ..Policy::default() };
        assert_eq!(planned(&policy), (vec![], vec![400, 60, 31], vec![]));
        let policy = Policy { bytes_max: Some(0), ..Policy::default() };
        assert_eq!(planned(&policy), (vec![400, 60, 31], vec![29, 8, 1, 0], vec![]));
    }

    #[test]
    fn a_rule_makes_blocks_mixed_between_its_age_and_the_others() {
        let rule = |text: &str| text.parse::<Rule>().expect("valid");
        let shorter = Policy { rules: vec![rule("{service=\"batch\"}=7d")], ..Policy::default() };
        assert_eq!(planned(&shorter), (vec![400, 60, 31], vec![], vec![29, 8]));
        let longer = Policy { rules: vec![rule("{service=~\"api|web\"} = 90d")], ..Policy::default() };
        assert_eq!(planned(&longer), (vec![400], vec![], vec![60, 31]));
        let for_ever = Policy { age_max: None, ..shorter };
        assert_eq!(planned(&for_ever), (vec![], vec![], vec![400, 60, 31, 29, 8]));
    }

    #[test]
    fn a_rule_is_read_and_refused_with_its_reason() {
        let rule: Rule = "{service=\"a=b\", dc!=\"x\"}=36h".parse().expect("valid");
        assert_eq!(rule.age_max, Some(days(1) + days(1) / 2));
        for (text, reason) in [
            ("7d", "it has no ="),
            ("{service=\"a\"}=soon", "expected number at 0"),
            ("{service=\"a\"}=0", "0s keeps for ever, and nothing else says so"),
            ("{service=\"a\"}=0d", "0s keeps for ever, and nothing else says so"),
            ("{service=\"a\"}=1ns", "1ns is below 1s; 0s keeps for ever"),
        ] {
            let error = text.parse::<Rule>().expect_err(text);
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert!("{service}=7d".parse::<Rule>().is_err());
    }

    /// Goal: 0s is never in a rule as it is for all, where it once deleted everything at once.
    #[test]
    fn a_rule_of_0s_keeps_for_ever() {
        let rules = vec!["{service=\"keep\"}=0s".parse::<Rule>().expect("valid")];
        assert_eq!(rules[0].age_max, None);
        let policy = Policy { rules, ..Policy::default() };
        assert_eq!(planned(&policy), (vec![], vec![], vec![400, 60, 31]));
        let cpu: ProfileType = "cpu".parse().expect("valid");
        let labels = |service: &str| Labels::new([("service", service)]).expect("valid");
        let age = |service| policy.age_of(&labels(service), &cpu);
        assert_eq!((age("keep"), age("api")), (None, Some(days(30))));
    }

    #[test]
    fn two_ages_for_one_selector_are_refused() {
        let policy = |texts: &[&str]| {
            let rules = texts.iter().map(|text| text.parse().expect("valid")).collect();
            Policy { rules, ..Policy::default() }
        };
        assert_eq!(policy(&["{dc=\"a\"}=1d", "{dc=\"b\"}=2d", "{dc=\"a\"}=1d"]).problems(), [""; 0]);
        let problems = policy(&["{dc=\"a\"}=1d", "{dc=\"a\"}=0s"]).problems();
        assert_eq!(problems, ["retention.rule says two ages for {dc=\"a\"}: leave one of them"]);
    }
}
