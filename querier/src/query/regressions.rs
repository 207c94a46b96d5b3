//! Regressions: which functions cost another share than in a base, beyond what instances and moments differ by anyway.
//!
//! Profiles of the selection and of the base are parted into cells, an instance in a step of time each, and the functions of each are
//! summed, without a merge. What is a change and what is noise is for [`stats`] to say. A cell is many profiles where there are few
//! instances and few where there are many: enough cells to see the noise, few enough to hold.
//!
//! Values below 0 have no shares: a cell in which there are some is left out, and said to be.
//!
//! All of it follows from the profiles alone, not from how they lie in blocks: the same question has the same answer to the last digit
//! before and after compaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use afterglow_profile::Labels;
use afterglow_profile::stats::{self, Cell, Change, Options, Sides};
use afterglow_proto::v1;
use afterglow_store::catalog::Match;
use afterglow_store::paths::TenantId;

use super::by::By;
use super::explain::Step;
use super::lane::SMALL_READ;
use super::metrics::Question;
use super::selection::Selection;
use super::shown::Shown;
use super::tally::used::{Used, Value, Whole};
use super::tally::{self, Done, Tally as _};
use super::{Engine, Error, completeness, filter, merge};
use crate::window::Window;

/// How many cells either side should have: with fewer, one odd moment looks like a change.
const CELLS_WANTED: usize = 48;

/// The fewest steps, if there are profiles in them: with fewer, how moments differ for all instances is hardly to be seen.
const STEPS_MIN: usize = 4;

/// The most steps. Shorter ones are less and less independent of each other.
const STEPS_MAX: usize = 8;

/// How many groups instances are put into where there are more: these tell as well how instances differ, and a cell is not free.
const INSTANCES_MAX: u32 = 24;

/// The label that says what an instance runs, so that it is the same instance whatever it is.
const VERSION: &str = "version";

/// The unit of what is counted, in every producer's profiles.
const COUNT: &str = "count";

/// The most sets of labels that a warning names.
const NAMED_MAX: usize = 3;

/// How many functions are listed when the request does not say.
const LIMIT_DEFAULT: usize = 50;

/// Why a question is refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    /// A share or a chance that is none.
    #[error("{name} {value} is not between 0 and 1")]
    Range {
        /// The field.
        name: &'static str,
        /// What it is.
        value: f64,
    },
    /// A change that is none.
    #[error("min_change {value} is not a finite number of 0 or more")]
    Change {
        /// What it is.
        value: f64,
    },
    /// Both sides are the same profiles.
    #[error("the base is the selection itself: {selection}")]
    Same {
        /// What both are.
        selection: String,
    },
    /// There is too little to compare.
    #[error("{}", [&[error.to_string()], &why[..]].concat().join("; "))]
    Stats {
        /// Of what.
        error: stats::Error,
        /// Why it is so little: which cells were left out, or that a filter matched nothing.
        why: Vec<String>,
    },
}

/// Which cell each profile belongs to; those of the base come first.
struct Parted {
    of: Vec<u32>,
    base_cells: usize,
    /// The number of the instance and of the step of each cell.
    cells: Vec<(u32, u32)>,
    /// Of which sides, the base and the selection, one instance alone is known, and not that of the other.
    alone: [bool; 2],
}

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    mut request: v1::RegressionsRequest,
) -> Result<v1::RegressionsResponse, Error> {
    let options = options(&request)?;
    let filter = filter::read(request.filter.take())?;
    let value = v1::FunctionValue::try_from(request.value).map_err(|_| Error::Value { number: request.value })?;
    let limit = if request.limit == 0 { LIMIT_DEFAULT } else { request.limit as usize };
    let now = engine.now_nanos();
    let selection = Selection::read(request.selection, now)?;
    let is_named = request.base.is_some();
    let base = match request.base {
        Some(base) => Selection::read(Some(base), now)?,
        None => selection.within(before(selection.window)),
    };
    if base.to_string() == selection.to_string() {
        return Err(Refused::Same { selection: selection.to_string() }.into());
    }
    let view = engine.view(tenant, selection.freshness.clone()).await?;
    let asked = engine.enter(tenant, &[(&view, &base), (&view, &selection)], SMALL_READ).await?;
    let of_base = |error| if is_named { Error::Base(Box::new(error)) } else { Error::Before(Box::new(error)) };
    let before = merge::select_any(&asked, &view, &base).await.map_err(of_base)?;
    let sides = [before, merge::select_any(&asked, &view, &selection).await?];
    let engine = asked.clone();
    let (sample_type, is_self) = (request.sample_type, value != v1::FunctionValue::SeriesValueTotal);
    let answer = async move {
        let [before, after] = sides;
        let base_profiles = before.matches.len();
        let mut problems = before.problems;
        problems.extend(after.problems);
        problems.sort_by(|a, b| (&a.key, &a.text).cmp(&(&b.key, &b.text)));
        problems.dedup();
        let matches = [before.matches, after.matches].concat();
        // Of one type, as a merge of both would have to be.
        By::default().groups(&matches, &selection)?;
        let shown = Shown::new(&matches, &sample_type)?;
        let cells = Parted::new(&matches, base_profiles);
        let used = Used::new(cells.cells.len());
        let of = (&matches[..], &cells.of[..]);
        let done = tally::read(&engine, Question::Regressions, of, &shown, &selection, filter, used).await?;
        let Done { tally: used, is_read, problems: unread, warnings, mut admitted } = done;
        problems.extend(unread);
        let _timed = engine.1.step(Step::Encode);
        // Once more as cells, and the answer.
        admitted.cover(3 * used.memory() as u64)?;
        let used = used.in_order();
        let is_left_out: Vec<bool> = used.cells.iter().map(|cell| cell.whole() == Whole::Negative).collect();
        let left_out = cells.left_out(&is_left_out, &matches);
        let is_compared: Vec<bool> =
            is_read.iter().zip(&cells.of).map(|(is_read, cell)| *is_read && !is_left_out[*cell as usize]).collect();
        let count = |is: &[bool], wanted: bool| is.iter().filter(|is| **is == wanted).count() as u64;
        let (base_compared, compared) = is_compared.split_at(base_profiles);
        let (base_left_out, selection_left_out) = is_left_out.split_at(cells.base_cells);
        let own = parted(&used, &cells, &is_left_out, |value| value.own);
        let of_compared = matches.iter().zip(&is_compared).filter(|(_, is_compared)| **is_compared);
        let options = Options { sample_value: sample_value(of_compared.map(|(found, _)| found), &shown), ..options };
        let functions = used.names.len();
        let own = Sides::new(&own.0, &own.1, functions, &options);
        let typical = own.typical();
        let found = if is_self {
            own.compare(typical)
        } else {
            let whole = parted(&used, &cells, &is_left_out, |value| value.total);
            Sides::new(&whole.0, &whole.1, functions, &options).compare(typical)
        };
        let found = found.map_err(|error| Refused::Stats { error, why: [&warnings[..], &left_out].concat() })?;
        let mut changes: Vec<_> = (found.iter())
            .filter(|change| request.all || change.is_significant)
            .map(|change| message(change, &used))
            .collect();
        let warnings = shown.warnings.into_iter().chain(warnings).chain(cells.warnings()).chain(left_out).collect();
        let changes_truncated = changes.len().saturating_sub(limit) as u64;
        changes.truncate(limit);
        engine.keep(admitted);
        Ok(v1::RegressionsResponse {
            sample_type: Some(shown.sample_type.clone()),
            typical_ratio: typical.ratio,
            changes,
            changes_truncated,
            tested: found.len() as u64,
            profiles: count(compared, true),
            base_profiles: count(base_compared, true),
            cells: count(selection_left_out, false),
            base_cells: count(base_left_out, false),
            completeness: Some(completeness(&problems)),
            warnings,
            explain: None,
        })
    };
    asked.drive(answer).await?
}

/// Reads what counts as a change; 0 stands for the default.
fn options(request: &v1::RegressionsRequest) -> Result<Options, Refused> {
    let default = Options::default();
    let part = |name, value: f64, default| match value {
        0.0 => Ok(default),
        value if value > 0.0 && value <= 1.0 => Ok(value),
        value => Err(Refused::Range { name, value }),
    };
    let change_min = match request.min_change {
        0.0 => default.change_min,
        value if value > 0.0 && value.is_finite() => value,
        value => return Err(Refused::Change { value }),
    };
    Ok(Options {
        share_min: part("min_share", request.min_share, default.share_min)?,
        change_min,
        alarm_chance: part("alarm_chance", request.alarm_chance, default.alarm_chance)?,
        ..default
    })
}

/// Returns the window of the same length that ends where this one begins.
fn before(window: Window) -> Window {
    let length = window.end_nanos.saturating_sub(window.start_nanos);
    Window { start_nanos: window.start_nanos.saturating_sub(length), end_nanos: window.start_nanos }
}

/// Returns what one sample stands for, in the unit of the values: 1 of what is counted; else the mean of what is measured with it, where
/// something is counted beside it, as samples are beside their nanoseconds; else 0, for not known.
fn sample_value<'m>(matches: impl Iterator<Item = &'m Match>, shown: &Shown<'_>) -> f64 {
    if shown.sample_type.unit == COUNT {
        return 1.0;
    }
    let (mut measured, mut counted) = (0, 0);
    for found in matches {
        let (types, shown_at) = (found.sample_types(), shown.column(found).index);
        let is_count = |at: &usize| &*types[*at].unit == COUNT;
        // Heaps say how many before they say how much, of what was allocated and of what is in use.
        let count = shown_at.checked_sub(1).filter(is_count).or_else(|| (0..types.len()).find(is_count));
        if let Some(at) = count {
            measured += shown.total(found);
            counted += i128::from(found.row().totals[at]);
        }
    }
    if counted > 0 { (measured as f64 / counted as f64).max(0.0) } else { 0.0 }
}

// === impl Parted ===

impl Parted {
    /// Parts `matches`, of which the first `base` are the base's.
    fn new(matches: &[Match], base: usize) -> Self {
        let sides = <[_; 2]>::from(matches.split_at(base));
        let instances = instances(matches);
        let of_side = sides.map(|side| side.iter().map(|found| instances[found.labels()]).collect::<BTreeSet<_>>());
        let is_alone = of_side[0].is_disjoint(&of_side[1]);
        let steps = steps(sides, of_side.each_ref().map(BTreeSet::len));
        let (mut of, mut cells, mut firsts) = (Vec::with_capacity(matches.len()), Vec::new(), [0, 0]);
        for (side, matches) in sides.into_iter().enumerate() {
            firsts[side] = cells.len();
            let places: Vec<(u32, u32)> = (matches.iter())
                .map(|found| (instances[found.labels()] % INSTANCES_MAX, steps[side].of(found.row().time_nanos)))
                .collect();
            // In their order, not in that of the matches, so that sums over cells do not depend on it.
            let known: BTreeMap<(u32, u32), usize> =
                places.iter().copied().collect::<BTreeSet<_>>().into_iter().zip(cells.len()..).collect();
            let number = |place| u32::try_from(known[place]).expect("a cell a profile at most, fewer than 2^32");
            of.extend(places.iter().map(number));
            cells.extend(known.into_keys());
        }
        Self { of, base_cells: firsts[1], cells, alone: of_side.map(|of| is_alone && of.len() == 1) }
    }

    /// Says which cells are left out, side by side, and whose they are.
    fn left_out(&self, is_left_out: &[bool], matches: &[Match]) -> Vec<String> {
        let sides = [("base", 0..self.base_cells), ("selection", self.base_cells..self.cells.len())];
        let say = |(side, cells): (&str, Range<usize>)| {
            let (all, left_out) = (cells.len(), cells.clone().filter(|&cell| is_left_out[cell]).count());
            if left_out == 0 {
                return None;
            }
            let is_in = |cell: usize| cells.contains(&cell) && is_left_out[cell];
            let of = matches.iter().zip(&self.of).filter(|(_, cell)| is_in(**cell as usize));
            let labels: BTreeSet<&Labels> = of.map(|(found, _)| found.labels()).collect();
            let mut names: Vec<String> = labels.iter().take(NAMED_MAX).map(ToString::to_string).collect();
            if labels.len() > names.len() {
                names.push(format!("and {} more", labels.len() - names.len()));
            }
            let names = names.join(", ");
            Some(format!(
                "{left_out} of {all} cells of the {side} have negative values, and so no shares: those of {names}"
            ))
        };
        sides.into_iter().filter_map(say).collect()
    }

    /// Says what cannot be known of noise.
    fn warnings(&self) -> Option<String> {
        let of = match self.alone {
            [false, false] => return None,
            [true, true] => "either side has profiles of a single instance",
            [true, false] => "the base has profiles of a single instance",
            [false, true] => "the selection has profiles of a single instance",
        };
        Some(format!("{of}, not of the same: a change may be what that instance does differently anyway"))
    }
}

/// Numbers the instances: what labels beside the version tell apart.
fn instances(matches: &[Match]) -> HashMap<&Labels, u32> {
    let mut known: BTreeMap<Vec<(&str, &str)>, Vec<&Labels>> = BTreeMap::new();
    for labels in matches.iter().map(Match::labels).collect::<BTreeSet<_>>() {
        known.entry(labels.iter().filter(|(name, _)| *name != VERSION).collect()).or_default().push(labels);
    }
    let numbered = known.into_values().zip(0..);
    numbered.flat_map(|(labels, number)| labels.into_iter().map(move |labels| (labels, number))).collect()
}

/// How a side's time is parted into steps.
#[derive(Clone, Copy)]
struct Steps {
    start_nanos: i128,
    /// So much time has `steps` of them.
    length_nanos: i128,
    steps: i128,
    /// The number of the first.
    first: u32,
}

impl Steps {
    /// Returns the number of the step of a time.
    fn of(self, time_nanos: i64) -> u32 {
        let step = (i128::from(time_nanos) - self.start_nanos) * self.steps / self.length_nanos;
        self.first + u32::try_from(step).expect("there are a few steps, and none before the first profile")
    }
}

/// Returns the steps of both sides, which are the same ones where the sides were taken at the same time.
fn steps(sides: [&[Match]; 2], instances: [usize; 2]) -> [Steps; 2] {
    let times = sides.map(|side| {
        let times = || side.iter().map(|found| i128::from(found.row().time_nanos));
        (times().min().unwrap_or_default(), times().max().unwrap_or_default() + 1)
    });
    let lengths = times.map(|(start, end)| end - start);
    let [of_base, of_selection] = instances.map(|n| (CELLS_WANTED / n.max(1)).clamp(STEPS_MIN, STEPS_MAX) as i128);
    let [(base_start, base_end), (start, end)] = times;
    if start < base_end && base_start < end {
        let same = Steps {
            start_nanos: base_start.min(start),
            length_nanos: lengths[0].max(lengths[1]),
            steps: of_base.min(of_selection),
            first: 0,
        };
        return [same; 2];
    }
    let base = Steps { start_nanos: base_start, length_nanos: lengths[0], steps: of_base, first: 0 };
    [base, Steps { start_nanos: start, length_nanos: lengths[1], steps: of_selection, first: of_base as u32 }]
}

/// Returns the cells of the base and those of the selection that are not left out, with one of the values of each function.
fn parted(used: &Used, parted: &Parted, is_left_out: &[bool], value: impl Fn(&Value) -> f64) -> (Vec<Cell>, Vec<Cell>) {
    let cell = |at: usize| {
        let (cell, (instance, step)) = (&used.cells[at], parted.cells[at]);
        let mut values: Vec<_> = cell.values.iter().map(|(&function, of)| (function, value(of))).collect();
        values.sort_unstable_by_key(|(function, _)| *function);
        Cell { total: cell.total, values, instance, step }
    };
    let side = |cells: Range<usize>| cells.filter(|&at| !is_left_out[at]).map(cell).collect();
    (side(0..parted.base_cells), side(parted.base_cells..parted.cells.len()))
}

/// Writes a change as protobuf has it.
fn message(change: &Change, used: &Used) -> v1::Regression {
    let (name, file) = &used.names[change.function as usize];
    v1::Regression {
        name: name.clone(),
        file: file.clone(),
        base_share: change.base_share,
        share: change.share,
        change: change.change,
        change_error: change.change_error,
        chance: change.chance,
        significant: change.is_significant,
    }
}
