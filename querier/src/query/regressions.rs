//! Regressions: which functions cost another share than in a base, beyond what instances and moments differ by anyway.
//!
//! Profiles of the selection and of the base are parted into cells, an instance in a step of time each, and the functions of each are
//! summed, without a merge. What is a change and what is noise is for [`stats`] to say. A cell is many profiles where there are few
//! instances and few where there are many: enough cells to see the noise, few enough to hold.

use std::collections::{BTreeSet, HashMap};

use afterglow_profile::Labels;
use afterglow_profile::filter::Filter;
use afterglow_profile::stats::{self, Cell, Change, Options};
use afterglow_proto::v1;
use afterglow_store::catalog::Match;
use afterglow_store::paths::TenantId;

use super::by::By;
use super::explain::Step;
use super::lane::SMALL_READ;
use super::metrics::Question;
use super::selection::Selection;
use super::shown::Shown;
use super::tally::used::{Used, UsedCell, Value};
use super::tally::{self, Done, Tally as _};
use super::{Engine, Error, completeness, merge};
use crate::window::Window;

/// How many cells either side should have: with fewer, one odd moment looks like a change.
const CELLS_WANTED: usize = 48;

/// The most steps of an instance. Shorter ones are less and less independent of each other.
const STEPS_MAX: usize = 8;

/// How many functions are listed when the request does not say.
const LIMIT_DEFAULT: usize = 50;

/// Why a question is refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    /// A share or a chance that is none.
    #[error("{name} {value} is not between 0 and {max}")]
    Range {
        /// The field.
        name: &'static str,
        /// What it is.
        value: f64,
        /// The most that it may be.
        max: f64,
    },
    /// Both sides are the same profiles.
    #[error("the base is the selection itself: {selection}")]
    Same {
        /// What both are.
        selection: String,
    },
    /// There is too little to compare.
    #[error(transparent)]
    Stats(#[from] stats::Error),
}

/// Which cell each profile belongs to; those of the base come first.
struct Parted {
    of: Vec<u32>,
    base_cells: usize,
    cells: usize,
}

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::RegressionsRequest,
) -> Result<v1::RegressionsResponse, Error> {
    let options = options(&request)?;
    let limit = if request.limit == 0 { LIMIT_DEFAULT } else { request.limit as usize };
    let now = engine.now_nanos();
    let selection = Selection::read(request.selection, now)?;
    let base = match request.base {
        Some(base) => Selection::read(Some(base), now)?,
        None => selection.within(before(selection.window)),
    };
    if base.to_string() == selection.to_string() {
        return Err(Refused::Same { selection: selection.to_string() }.into());
    }
    let view = engine.view(tenant, selection.freshness.clone()).await?;
    let asked = engine.enter(tenant, &[(&view, &base), (&view, &selection)], SMALL_READ).await?;
    let mut sides = Vec::new();
    for side in [&base, &selection] {
        sides.push(merge::select_any(&asked, &view, side).await?);
    }
    let engine = asked.clone();
    let (sample_type, is_self) = (request.sample_type, request.value != i32::from(v1::FunctionValue::SeriesValueTotal));
    let answer = async move {
        let [before, after] = <[_; 2]>::try_from(sides).expect("there are two sides");
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
        let used = Used::new(cells.cells);
        let of = (&matches[..], &cells.of[..]);
        let filter = Filter::default();
        let done = tally::read(&engine, Question::Regressions, of, &shown, &selection, filter, used).await?;
        let Done { tally: used, is_read, problems: unread, mut admitted, .. } = done;
        problems.extend(unread);
        let _timed = engine.1.step(Step::Encode);
        // Once more as cells, and the answer.
        admitted.cover(3 * used.memory() as u64)?;
        let (base_read, read) = is_read.split_at(base_profiles);
        let count = |is_read: &[bool]| is_read.iter().filter(|is_read| **is_read).count() as u64;
        let own = parted(&used, cells.base_cells, |value| value.own);
        let options = Options { sample_value: used.sample_value(), ..options };
        let functions = used.names.len();
        let typical = stats::typical(&own.0, &own.1, functions, &options);
        let compared = if is_self { own } else { parted(&used, cells.base_cells, |value| value.total) };
        let found = stats::compare((&compared.0, &compared.1), functions, typical, &options).map_err(Refused::from)?;
        let mut changes: Vec<_> = (found.iter())
            .filter(|change| request.all || change.is_significant)
            .map(|change| message(change, &used))
            .collect();
        let changes_truncated = changes.len().saturating_sub(limit) as u64;
        changes.truncate(limit);
        Ok(v1::RegressionsResponse {
            sample_type: Some(shown.sample_type.clone()),
            typical_ratio: typical.ratio,
            changes,
            changes_truncated,
            tested: found.len() as u64,
            profiles: count(read),
            base_profiles: count(base_read),
            cells: (cells.cells - cells.base_cells) as u64,
            base_cells: cells.base_cells as u64,
            completeness: Some(completeness(&problems)),
            warnings: shown.warnings,
            explain: None,
        })
    };
    asked.drive(answer).await?
}

/// Reads what counts as a change; 0 stands for the default.
fn options(request: &v1::RegressionsRequest) -> Result<Options, Refused> {
    let default = Options::default();
    let read = |name, value: f64, default, max| match value {
        0.0 => Ok(default),
        value if value > 0.0 && value <= max => Ok(value),
        value => Err(Refused::Range { name, value, max }),
    };
    Ok(Options {
        share_min: read("min_share", request.min_share, default.share_min, 1.0)?,
        change_min: read("min_change", request.min_change, default.change_min, f64::MAX)?,
        alarm_chance: read("alarm_chance", request.alarm_chance, default.alarm_chance, 1.0)?,
        ..default
    })
}

/// Returns the window of the same length that ends where this one begins.
fn before(window: Window) -> Window {
    let length = window.end_nanos.saturating_sub(window.start_nanos);
    Window { start_nanos: window.start_nanos.saturating_sub(length), end_nanos: window.start_nanos }
}

// === impl Parted ===

impl Parted {
    /// Parts `matches`, of which the first `base` are the base's.
    fn new(matches: &[Match], base: usize) -> Self {
        let (before, after) = matches.split_at(base);
        let mut of = Vec::with_capacity(matches.len());
        let base_cells = part(before, 0, &mut of);
        let cells = part(after, base_cells, &mut of);
        Self { of, base_cells, cells }
    }
}

/// Parts one side into cells numbered from `first`, and returns the number after the last.
fn part(matches: &[Match], first: usize, of: &mut Vec<u32>) -> usize {
    let instances = matches.iter().map(Match::labels).collect::<BTreeSet<_>>().len();
    let times = || matches.iter().map(|found| found.row().time_nanos);
    let start = times().min().unwrap_or_default();
    let length = i128::from(times().max().unwrap_or_default()) - i128::from(start) + 1;
    let steps = (CELLS_WANTED / instances.max(1)).clamp(1, STEPS_MAX) as i128;
    let mut known: HashMap<(&Labels, i128), usize> = HashMap::new();
    for found in matches {
        let step = (i128::from(found.row().time_nanos) - i128::from(start)) * steps / length;
        let next = first + known.len();
        let cell = *known.entry((found.labels(), step)).or_insert(next);
        of.push(u32::try_from(cell).expect("a cell a profile at most, and a view holds fewer than 2^32"));
    }
    first + known.len()
}

/// Returns the cells of the base and those of the selection, with one of the values of each function.
fn parted(used: &Used, base_cells: usize, value: impl Fn(&Value) -> f64) -> (Vec<Cell>, Vec<Cell>) {
    let cell = |cell: &UsedCell| Cell {
        total: cell.total,
        values: cell.values.iter().map(|(&function, of)| (function, value(of))).collect(),
    };
    let mut base: Vec<Cell> = used.cells.iter().map(cell).collect();
    let selection = base.split_off(base_cells);
    (base, selection)
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
