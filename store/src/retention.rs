//! Retention: what is too old, or too much, goes for good.
//!
//! ```text
//! Policy   how long which profiles are kept, and how many bytes in all
//! plan     which blocks are dropped, rewritten or looked into: a pure function of the state and the time
//! run      looks into blocks, rewrites, and commits
//! ```
//!
//! Blocks hold one day each, so nearly all of retention is a commit that removes whole blocks. Only where a selector keeps some profiles
//! of a block longer than others is the block written anew without these. A profile goes with its day: at most a day, and the time
//! until the next round, later than its age says, never earlier. Segments are never dropped: compaction makes blocks of them first.
//!
//! A compaction that is under way loses the race: its inputs are not live any more when it commits. So what was dropped stays so.
//!
//! Each commit that deletes profiles writes a line for auditors, which says whose, how many, of which days, and by which setting.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use afterglow_profile::{Labels, ProfileType, Selector};

use crate::Store;
use crate::block::{Block, Input, Row};
use crate::commit::{BlockEntry, Commits, Draft, Outcome, Reason, State};
use crate::compaction::{Compactor, Error};
use crate::paths::{BlockKey, BlockName, BlockRef};

/// The most blocks that one commit drops: some 20 KB.
const DROPS_MAX: usize = 1_000;

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
        self.rule_of(labels, profile_type).map_or(self.age_max, |rule| Some(rule.age_max))
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
}

impl Rule {
    /// Returns the setting, as one gives it.
    fn setting(&self) -> String {
        format!("--retention.rule={}={}", self.selector, humantime::format_duration(self.age_max))
    }
}

/// How long the profiles that a selector matches are kept.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which.
    pub selector: Selector,
    /// How old they become.
    pub age_max: Duration,
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

    /// Reads `{service="batch"}=7d`: a selector and an age in days, hours and so on.
    fn from_str(text: &str) -> Result<Self, NotARule> {
        let refused = |reason: String| NotARule { text: text.to_owned(), reason };
        // The selector holds equals signs too; the last one is the rule's own, as no age holds one.
        let (selector, age) = text.rsplit_once('=').ok_or_else(|| refused("it has no =".to_owned()))?;
        let selector = Selector::parse(selector).map_err(|error| refused(error.to_string()))?;
        let age_max = humantime::parse_duration(age.trim()).map_err(|error| refused(error.to_string()))?;
        Ok(Self { selector, age_max })
    }
}

/// What retention does next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Blocks in which everything is too old.
    pub expired: Vec<Arc<BlockEntry>>,
    /// Blocks that go because all together have too many bytes, the oldest first.
    pub over_budget: Vec<Arc<BlockEntry>>,
    /// Blocks in which, by the rules, some profiles may be too old.
    pub mixed: Vec<Arc<BlockEntry>>,
}

/// Plans by the bounds of blocks alone.
pub fn plan(state: &State, policy: &Policy, now_nanos: i64) -> Plan {
    let ages = || policy.rules.iter().map(|rule| Some(rule.age_max)).chain([policy.age_max]);
    // None, that is for ever, is the longest.
    let longest = if ages().any(|age| age.is_none()) { None } else { ages().flatten().max() };
    let shortest = ages().flatten().min();
    let is_older = |entry: &BlockEntry, age: Option<Duration>| {
        age.is_some_and(|age| {
            let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
            entry.last_nanos < now_nanos.saturating_sub(age)
        })
    };
    let mut plan = Plan::default();
    let mut kept = Vec::new();
    for live in state.blocks() {
        let entry = &live.entry;
        if is_older(entry, longest) {
            plan.expired.push(Arc::clone(entry));
            continue;
        }
        if is_older(entry, shortest) {
            plan.mixed.push(Arc::clone(entry));
        }
        kept.push(entry);
    }
    let mut bytes: u64 = kept.iter().map(|entry| entry.bytes).sum();
    kept.sort_by_key(|entry| (entry.last_nanos, entry.name));
    for entry in kept {
        if policy.bytes_max.is_none_or(|max| bytes <= max) {
            break;
        }
        bytes -= entry.bytes;
        plan.over_budget.push(Arc::clone(entry));
    }
    let over_budget: BTreeSet<BlockName> = plan.over_budget.iter().map(|entry| entry.name).collect();
    plan.mixed.retain(|entry| !over_budget.contains(&entry.name));
    plan
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
}

impl Report {
    /// Adds what another round did.
    pub(crate) fn add(&mut self, other: Self) {
        self.dropped.extend(other.dropped);
        self.rewritten.extend(other.rewritten);
        self.profiles += other.profiles;
        self.bytes += other.bytes;
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

    /// Drops and rewrites what the policy says; with `dry_run`, only says what it would do.
    ///
    /// # Errors
    /// Where the bucket could not be read or written. What was committed before that stays.
    pub async fn round(&self, compactor: &Compactor, dry_run: bool) -> Result<Report, Error> {
        let state = self.commits.refresh().await?;
        let now_nanos = self.store.clock().unix_nanos();
        let plan = plan(&state, &self.policy, now_nanos);
        let mut report = Report::default();
        // The blocks that go whole, by the settings that say so.
        let mut dropped: BTreeMap<BTreeSet<String>, Vec<Arc<BlockEntry>>> = BTreeMap::new();
        dropped.insert(self.policy.age_settings(), plan.expired);
        dropped.entry(BTreeSet::from([self.policy.bytes_setting()])).or_default().extend(plan.over_budget);
        self.forget(&state);
        for entry in plan.mixed {
            let Some(TooOld { block, skip, settings }) = self.too_old(&entry, now_nanos).await? else { continue };
            if skip.len() as u64 == entry.rows {
                dropped.entry(settings).or_default().push(entry);
                continue;
            }
            let profiles = skip.len() as u64;
            if dry_run || self.rewrite(compactor, &state, &entry, Input { block, skip }).await? {
                report.rewritten.insert(entry.name, profiles);
                report.profiles += profiles;
                report.bytes += entry.bytes;
                if !dry_run {
                    self.audit(&settings, std::slice::from_ref(&entry), profiles);
                }
            }
        }
        for (settings, dropped) in dropped {
            for dropped in dropped.chunks(DROPS_MAX) {
                if !dry_run && !self.drop_all(&state, dropped).await? {
                    continue;
                }
                let profiles = dropped.iter().map(|entry| entry.rows).sum::<u64>();
                report.dropped.extend(dropped.iter().map(|entry| entry.name));
                report.profiles += profiles;
                report.bytes += dropped.iter().map(|entry| entry.bytes).sum::<u64>();
                if !dry_run {
                    self.audit(&settings, dropped, profiles);
                }
            }
        }
        Ok(report)
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

    /// Returns what of a block is too old; nothing where nothing is. Costs a GET or two, once for each block until one
    /// of its profiles becomes too old.
    async fn too_old(&self, entry: &BlockEntry, now_nanos: i64) -> Result<Option<TooOld>, Error> {
        if self.sound_until().get(&entry.name).is_some_and(|until| now_nanos < *until) {
            return Ok(None);
        }
        let block = self.open(entry).await?;
        let rows = block.rows().await?;
        let ages: Vec<Vec<Option<i64>>> = block.toc().datasets().iter().map(|dataset| self.ages(dataset)).collect();
        // A profile goes with its day, so that a block is not written anew again and again while it ages.
        let expires = |row: &Row| {
            let age = ages[row.dataset as usize][row.series as usize]?;
            Some(entry.name.day().last_nanos().saturating_add(age))
        };
        let is_too_old = |row: &Row| expires(row).is_some_and(|at| at < now_nanos);
        let skip: Arc<[u32]> = (0..).zip(rows.iter()).filter(|(_, row)| is_too_old(row)).map(|(n, _)| n).collect();
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
        let until = rows.iter().filter_map(expires).min().unwrap_or(i64::MAX);
        self.sound_until().insert(entry.name, until);
        Ok(None)
    }

    /// Returns how old the profiles of each series become, in nanoseconds; none for ever.
    fn ages(&self, dataset: &crate::block::Dataset) -> Vec<Option<i64>> {
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

    /// Writes a block anew without the rows that `input` skips. Returns whether that was committed.
    async fn rewrite(
        &self,
        compactor: &Compactor,
        state: &State,
        entry: &BlockEntry,
        input: Input,
    ) -> Result<bool, Error> {
        let adds = compactor.merge(entry.name.level(), vec![input]).await?;
        self.commit(state, adds, vec![BlockRef::Block(entry.name)]).await
    }

    async fn drop_all(&self, state: &State, entries: &[Arc<BlockEntry>]) -> Result<bool, Error> {
        let removes = entries.iter().map(|entry| BlockRef::Block(entry.name)).collect();
        self.commit(state, Vec::new(), removes).await
    }

    async fn commit(&self, state: &State, adds: Vec<BlockEntry>, removes: Vec<BlockRef>) -> Result<bool, Error> {
        let draft = Draft { base: state.number(), reason: Reason::Retention, adds, removes, boundary: None };
        // What comes in has no id that the block it replaces had not, so others' blocks are no concern.
        match self.commits.commit(draft, async |_, _| true).await? {
            Outcome::Committed { .. } => Ok(true),
            Outcome::Rejected(rejection) => {
                tracing::debug!(%rejection, "retention was overtaken; the next round looks again");
                Ok(false)
            }
            Outcome::Unknown { number, source } => {
                tracing::warn!(
                    commit = number,
                    error = &source as &dyn std::error::Error,
                    "whether a commit was made is unknown"
                );
                Ok(false)
            }
        }
    }

    fn sound_until(&self) -> std::sync::MutexGuard<'_, BTreeMap<BlockName, i64>> {
        self.sound_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets blocks that are not live any more.
    fn forget(&self, state: &State) {
        self.sound_until().retain(|name, _| state.block(name).is_some());
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
        let plan = plan(&state, policy, NOW);
        (days_ago(&plan.expired), days_ago(&plan.over_budget), days_ago(&plan.mixed))
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
        assert_eq!(rule.age_max, days(1) + days(1) / 2);
        for (text, reason) in [("7d", "it has no ="), ("{service=\"a\"}=soon", "expected number at 0")] {
            let error = text.parse::<Rule>().expect_err(text);
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert!("{service}=7d".parse::<Rule>().is_err());
    }
}
