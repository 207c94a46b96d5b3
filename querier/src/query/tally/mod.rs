//! Tallies: sums of samples group by group, for questions that compare instances, services or hours and need no merged profile.
//!
//! Each dataset is read once, whatever the groups, several at once, and what its samples add up to goes into one tally under a lock; it is
//! kept for the next question about the same profiles ([`kept`]). Sums are commutative, but for the last digits of what is beyond 53 bits, so they may come in any order. Admission, limits and
//! damage are as in a merge: the memory is estimated before anything is read and measured as the tally grows, for nobody knows before how many
//! functions each of many groups has; a damaged dataset is left out and named; dropping the question's future ends its reads.
//!
//! - [`cells`]: groups cut by time, and the sums of a function in each; [`used`]: the sums of all functions in each
//! - [`kept`]: what is kept of a dataset; [`ahead`]: what is read of several together

mod ahead;
pub(super) mod cells;
mod kept;
pub(super) mod used;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use afterglow_profile::filter::Filter;
use afterglow_profile::functions::{Stacks, Summed};
use afterglow_store::block::{self, Ahead, Block, Keep, ToRead, Wanted};
use afterglow_store::catalog::{Match, Problem};
use futures::{StreamExt as _, stream};
use tracing::Span;

use kept::{Keeping, Key};

use super::budget::Admitted;
use super::error::Unread;
use super::explain::Step;
use super::merge::plan::reading;
use super::metrics::Question;
use super::selection::Selection;
use super::shown::Shown;
use super::{Engine, Error, filter};

/// How many bytes a sample takes while a dataset is read: its number and its value for its group, and once as it is read.
const BYTES_PER_SAMPLE: u64 = 32;

/// How many bytes the tables of a profile take for each byte of its protobuf, with the frames of its stacks.
const BYTES_PER_RAW_BYTE: u64 = 4;

/// Which part of the room for what is decoded the tables of one question may take. Those of more would push out what they come to, and
/// everything else.
const TABLES_PART: u64 = 4;

/// How many sums of functions are made before they are added to the tally: 48 bytes each at most.
const SUMS_AT_ONCE: usize = 1 << 16;

/// What samples add up to.
pub(super) trait Tally: Send + 'static {
    /// What parts of a dataset come to.
    type Subtotal: Subtotal;

    /// Adds what samples of several groups come to. The group with number `n` there is `groups[n]` here. One is added at a time.
    fn add(&mut self, subtotal: &Self::Subtotal, groups: &[u32]);

    /// Returns the name of the only function whose stacks count, if there is one: who has none of that name adds nothing.
    fn function(&self) -> Option<&str> {
        None
    }

    /// Returns how many bytes of memory it holds, about.
    fn memory(&self) -> usize;
}

/// What parts of a dataset come to before that is added to a tally.
pub(super) trait Subtotal: Send + Sync + 'static {
    /// Returns how many parts are summed up at once, one at least.
    fn parts_at_once(stacks: &Stacks<'_>) -> usize;

    /// Sums up samples, of the only `function` that counts if there is one; `stacks` are theirs, by their numbers. It is done beside others,
    /// and so is where the work belongs.
    fn of(function: Option<&str>, stacks: &Stacks<'_>, parts: &[block::Part]) -> Self;

    /// Returns how many bytes of memory it takes, about.
    fn memory(&self) -> usize;
}

/// A tally of all that could be read.
#[derive(Debug)]
pub(super) struct Done<T> {
    pub(super) tally: T,
    /// For each profile, whether it is in the tally.
    pub(super) is_read: Vec<bool>,
    /// What could not be read.
    pub(super) problems: Vec<Problem>,
    /// The patterns of the filter that matched nothing, said of each.
    pub(super) warnings: Vec<String>,
    /// The memory that the question holds.
    pub(super) admitted: Admitted,
}

/// A tally while it grows.
struct Growing<T> {
    tally: T,
    /// The memory that the question holds, of which `reading` bytes are for what is read, and `keeping` for what is to be kept.
    admitted: Admitted,
    reading: u64,
    keeping: u64,
    /// The patterns that matched nothing so far; none before the first samples.
    unmatched: Option<BTreeSet<&'static str>>,
}

/// The profiles of one dataset of one block.
struct Part {
    block: Arc<Block>,
    dataset: usize,
    /// Their groups have numbers of their own, so what they come to does not depend on what else is asked for.
    rows: Vec<(usize, Wanted)>,
    /// The group of each of these numbers.
    groups: Vec<u32>,
    /// Their places among all profiles.
    places: Vec<usize>,
    /// What is kept of them is known by this. Expressions are many, and what they leave seldom asked for again.
    key: Option<Key>,
    /// How many bytes of the block are held at once.
    held: u64,
    /// How much memory they take while they are read, about.
    estimate: u64,
    /// And their tables of that.
    tables: u64,
}

/// Reads `matches`, each of the group that stands at its place in `groups`, and adds what `filter` leaves of them to
/// `tally`.
///
/// # Errors
/// [`Error::TooManyProfiles`] and [`Error::Budget`] over a limit, [`Error::Damaged`] where nothing could be read, [`Error::Block`] where the
/// store does not answer.
pub(super) async fn read<T: Tally>(
    engine: &Engine,
    question: Question,
    (matches, groups): (&[Match], &[u32]),
    shown: &Shown<'_>,
    selection: &Selection,
    filter: Filter,
    tally: T,
) -> Result<Done<T>, Error> {
    let limits = &engine.0.limits;
    let (profiles, max) = (matches.len() as u64, limits.merge_profiles_max);
    if profiles > max {
        return Err(Error::TooManyProfiles { profiles, max });
    }
    let filter = Arc::new(filter);
    let mut parts = plan(matches, groups, shown);
    let function: Option<Arc<str>> = tally.function().map(Into::into);
    // What a filter leaves is looked at as a whole, with or without the function.
    if let Some(name) = function.as_ref().filter(|_| filter.is_empty()) {
        parts = with_function(parts, name, limits.merge_reads).await;
    }
    if filter.is_empty() {
        parts.iter_mut().for_each(|part| part.key = Some(Key::new(function.as_deref(), part.dataset, &part.rows)));
    }
    let reading =
        reading(parts.iter().map(|part| part.estimate), limits.merge_reads) + ahead::held(&parts, limits.merge_reads);
    record(engine, question, matches, &parts, reading);
    let admitted = engine.admit(reading).await?;

    let growing = Arc::new(Mutex::new(Growing { tally, admitted, reading, keeping: 0, unmatched: None }));
    let (mut is_read, mut problems) = (vec![true; matches.len()], Vec::new());
    // What they come to is kept instead.
    let room = parts.first().map_or(0, |part| part.block.keeps_bytes_max()) / TABLES_PART;
    let tables: u64 = parts.iter().map(|part| part.tables).sum();
    let keep = if filter.is_empty() && tables > room { Keep::Nothing } else { Keep::Decoded };
    let read = |(part, ahead)| {
        read_part(engine, part, (Arc::clone(&filter), function.clone()), (keep, ahead), Arc::clone(&growing))
    };
    let parts = std::pin::pin!(ahead::each_with_ahead(parts));
    let mut reads = parts.map(read).buffer_unordered(limits.merge_reads);
    while let Some(part) = reads.next().await {
        let (block, places, added) = part?;
        match added {
            Ok(()) => engine.note_rollup_damage(&block),
            Err(error) if error.is_corrupt() => {
                engine.note_damage(&block);
                tracing::error!(%error, "a dataset is left out of a tally");
                problems.push(Problem { key: block.path().clone(), text: error.to_string() });
                places.into_iter().for_each(|place| is_read[place] = false);
            }
            Err(error) => return Err(error.into()),
        }
    }
    drop(reads);
    // Parts come back in any order; what is said of them does not depend on it.
    problems.sort_by(|a, b| (&a.key, &a.text).cmp(&(&b.key, &b.text)));
    if !is_read.contains(&true) {
        return Err(Error::Damaged { selection: selection.to_string(), problems: Unread::of(&problems) });
    }
    let growing = Arc::into_inner(growing).expect("all reads have ended, and each held one");
    let Growing { tally, admitted, unmatched, .. } = growing.into_inner().unwrap_or_else(PoisonError::into_inner);
    let warnings = unmatched.into_iter().flatten().map(filter::warning).collect();
    Ok(Done { tally, is_read, problems, warnings, admitted })
}

type PartRead = (Arc<Block>, Vec<usize>, Result<(), block::Error>);

/// Reads a part and adds it to the tally.
async fn read_part<T: Tally>(
    engine: &Engine,
    part: Part,
    (filter, function): (Arc<Filter>, Option<Arc<str>>),
    (keep, ahead): (Keep, Ahead),
    growing: Arc<Mutex<Growing<T>>>,
) -> Result<PartRead, Error> {
    let Part { block, dataset, rows, groups, places, key, .. } = part;
    let (from, explaining) = (Arc::clone(&block), engine.1.clone());
    let added = engine.drive(async move {
        let growing = || growing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = key.and_then(|key| key.find::<T::Subtotal>(&from)) {
            let _timed = explaining.step(Step::Sum);
            kept.iter().try_for_each(|subtotal| growing().add(subtotal, &groups))?;
            return Ok(Ok(()));
        }
        let timed = explaining.step(Step::Decode);
        let all = match from.by_group(dataset, &rows, keep, &ahead).await {
            Ok(all) => all,
            Err(error) => return Ok(Err(error)),
        };
        drop(timed);
        let _timed = explaining.step(Step::Sum);
        let mut keeping = Keeping::new(key, &from);
        for grouped in &all {
            let plain = if filter.is_empty() { grouped.stacks() } else { None };
            let (stacks, unmatched) = match plain {
                Some(stacks) => (stacks, BTreeSet::new()),
                None => {
                    let mut profile = grouped.profile();
                    let unmatched: BTreeSet<_> = filter.apply(&mut profile).into_iter().collect();
                    (Stacks::new(&profile), unmatched)
                }
            };
            for parts in grouped.parts().chunks(T::Subtotal::parts_at_once(&stacks)) {
                let subtotal = T::Subtotal::of(function.as_deref(), &stacks, parts);
                growing().add(&subtotal, &groups)?;
                keeping.add(subtotal, |bytes| growing().take_room(bytes));
            }
            growing().note_unmatched(unmatched);
        }
        growing().keeping -= keeping.bytes();
        keeping.keep(&from);
        Ok::<_, Error>(Ok(()))
    });
    Ok((block, places, added.await??))
}

// === impl Growing ===

impl<T: Tally> Growing<T> {
    fn add(&mut self, subtotal: &T::Subtotal, groups: &[u32]) -> Result<(), Error> {
        self.tally.add(subtotal, groups);
        Ok(self.admitted.cover(self.taken())?)
    }

    /// Takes room for what is to be kept, if there is any. A question does not fail for it.
    fn take_room(&mut self, bytes: u64) -> bool {
        let is_room = self.admitted.cover(self.taken() + bytes).is_ok();
        self.keeping += if is_room { bytes } else { 0 };
        is_room
    }

    fn taken(&self) -> u64 {
        self.reading + self.keeping + self.tally.memory() as u64
    }

    /// Notes which patterns matched nothing of some samples.
    fn note_unmatched(&mut self, unmatched: BTreeSet<&'static str>) {
        self.unmatched = Some(match self.unmatched.take() {
            Some(before) => &before & &unmatched,
            None => unmatched,
        });
    }
}

// === impl Subtotal ===

impl Subtotal for Summed {
    fn parts_at_once(stacks: &Stacks<'_>) -> usize {
        (SUMS_AT_ONCE / stacks.functions().max(1)).max(1)
    }

    fn of(_function: Option<&str>, stacks: &Stacks<'_>, parts: &[block::Part]) -> Self {
        stacks.sum(parts.iter().map(|part| {
            let values = part.samples.iter().zip(&part.values).map(|(&sample, &value)| (sample as usize, value));
            (part.group, values)
        }))
    }

    fn memory(&self) -> usize {
        self.memory()
    }
}

/// Parts profiles by the datasets they lie in.
fn plan(matches: &[Match], groups: &[u32], shown: &Shown<'_>) -> Vec<Part> {
    let mut parts: BTreeMap<(&str, usize), Part> = BTreeMap::new();
    let mut largest: BTreeMap<(&str, usize), u64> = BTreeMap::new();
    // The numbers of the groups of each part.
    let mut numbers: HashMap<(&str, usize, u32), u32> = HashMap::new();
    for (place, (found, &group)) in matches.iter().zip(groups).enumerate() {
        let key = (found.block().path().as_ref(), found.dataset_index());
        let part = parts.entry(key).or_insert_with(|| Part {
            block: Arc::clone(found.block()),
            dataset: found.dataset_index(),
            rows: Vec::new(),
            groups: Vec::new(),
            places: Vec::new(),
            key: None,
            held: 0,
            estimate: 0,
            tables: 0,
        });
        let column = shown.column(found);
        let number = *numbers.entry((key.0, key.1, group)).or_insert_with(|| {
            part.groups.push(group);
            part.groups.len() as u32 - 1
        });
        part.rows.push((found.row_index(), Wanted { group: number, column: column.index, factor: column.factor }));
        part.places.push(place);
        let largest = largest.entry(key).or_default();
        *largest = found.row().raw_bytes.max(*largest);
    }
    let finish = |(mut part, largest): (Part, u64)| {
        let ToRead { samples, held, tables, piece, .. } = part.block.to_read(part.dataset, &part.rows);
        // As they are read, unpacked, and decoded, which the tables take about twice.
        (part.tables, part.held) = (2 * tables, held);
        part.estimate = samples * BYTES_PER_SAMPLE + largest * BYTES_PER_RAW_BYTE + held + piece + 3 * tables;
        part
    };
    let apart = |(part, largest): (Part, u64)| each_once(part).into_iter().map(move |part| (part, largest));
    parts.into_values().zip(largest.into_values()).flat_map(apart).map(finish).collect()
}

/// Parts the profiles that are wanted in several groups, as those are that both sides of a comparison select: a read takes each row once.
fn each_once(part: Part) -> Vec<Part> {
    let Part { block, dataset, rows, groups, places, .. } = part;
    let (mut left, mut apart): (Vec<_>, _) = (rows.into_iter().zip(places).collect(), Vec::with_capacity(1));
    while !left.is_empty() {
        let mut seen = HashSet::with_capacity(left.len());
        let (once, again): (Vec<_>, Vec<_>) = left.into_iter().partition(|&((row, _), _)| seen.insert(row));
        let ((rows, places), (block, groups)) = (once.into_iter().unzip(), (Arc::clone(&block), groups.clone()));
        apart.push(Part { block, dataset, rows, groups, places, key: None, held: 0, estimate: 0, tables: 0 });
        left = again;
    }
    apart
}

/// Leaves out the parts that have no function called `name`, as far as their blocks say that in short. Where a block has profiles of one
/// service only, whoever asks has mostly seen the function there, so it is not asked.
async fn with_function(parts: Vec<Part>, name: &str, reads: usize) -> Vec<Part> {
    let mut services: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for part in &parts {
        let service = part.block.toc().datasets()[part.dataset].service();
        services.entry(part.block.path().as_ref()).or_default().insert(service);
    }
    let asks = |part: &Part| services[part.block.path().as_ref()].len() > 1;
    let looks: Vec<_> = parts
        .iter()
        .map(|part| async move { !asks(part) || part.block.may_have_function(part.dataset, name).await })
        .collect();
    let looks: Vec<bool> = stream::iter(looks).buffered(reads.max(1)).collect().await;
    parts.into_iter().zip(looks).filter_map(|(part, may_have)| may_have.then_some(part)).collect()
}

/// Counts what is read, and notes it in the span.
fn record(engine: &Engine, question: Question, matches: &[Match], parts: &[Part], estimate: u64) {
    let profiles = matches.len() as u64;
    let bytes = matches.iter().map(|found| found.row().raw_bytes).sum();
    let blocks = parts.iter().map(|part| part.block.path().as_ref()).collect::<BTreeSet<&str>>().len() as u64;
    engine.0.metrics.read(question, profiles, bytes, blocks);
    Span::current()
        .record("profiles", profiles)
        .record("bytes", bytes)
        .record("blocks", blocks)
        .record("estimate", estimate);
}
