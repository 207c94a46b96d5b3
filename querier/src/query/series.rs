//! Series: how a sum moves over time, step by step, one series for each value of some labels.
//!
//! The sums are those of the totals that rows carry, so no sample is read, unless one function is asked for, or there is a filter. Steps lie on multiples of
//! their length, whatever the window. What is selected by no profile is an empty answer that says so, for a chart of nothing is a chart.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use afterglow_profile::functions;
use afterglow_profile::merge::Warning;
use afterglow_proto::v1;
use afterglow_store::catalog::Match;
use afterglow_store::paths::TenantId;
use tracing::Span;

use super::by::{By, Groups};
use super::explain::Step as Explained;
use super::lane::{SMALL_LISTED, SMALL_READ};
use super::metrics::Question;
use super::selection::Selection;
use super::shown::Shown;
use super::step::Step;
use super::tally;
use super::tally::cells::Cells;
use super::{Engine, Error, completeness, filter};
use crate::window;

/// How many series there are when the request does not say.
const LIMIT_DEFAULT: u32 = 100;

/// The most series: with some hundred points each, some 50 MB of JSON.
const LIMIT_MAX: u32 = 10_000;

/// The sum of a step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    /// Wide enough for any number of 64-bit values.
    pub(super) value: i128,
    pub(super) profiles: u64,
    pub(super) duration_nanos: i128,
}

/// The sums of a group, by the numbers of their steps.
pub(super) type Sums = BTreeMap<i64, Sum>;

/// What is summed.
enum Of {
    /// Everything, as rows say.
    Totals,
    /// A function, of which the name and the value that is meant.
    Function(String, fn(&functions::Sums) -> i128),
}

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::SeriesRequest,
) -> Result<v1::SeriesResponse, Error> {
    let of = Of::read(request.function, request.value)?;
    let by = By::read(request.by)?;
    let limit = limit(request.limit)?;
    let filter = filter::read(request.filter)?;
    let selection = Selection::read(request.selection, engine.now_nanos())?;
    let view = engine.view(tenant, selection.freshness.clone()).await?;
    // What is asked of all samples is told by the index; what is asked of some, or of one function, is read.
    let is_listed = matches!(of, Of::Totals) && filter.is_empty();
    let small_max = if is_listed { SMALL_LISTED } else { SMALL_READ };
    let asked = engine.enter(tenant, &[(&view, &selection)], small_max).await?;
    let selected = asked.select_in(&view, &selection).await?;
    Span::current().record("profiles", selected.matches.len());
    let (engine, step, sample_type) = (asked.clone(), request.step, request.sample_type);
    let answer = async move {
        let (matches, mut problems) = (&selected.matches, selected.problems);
        let step = Step::choose(step.as_ref(), selection.window, times(matches))?;
        let mut answer = v1::SeriesResponse { step: Some(window::duration(step.nanos())), ..Default::default() };
        if matches.is_empty() {
            answer.completeness = Some(completeness(&problems));
            answer.warnings.push(format!("no profiles match {selection}"));
            return Ok(answer);
        }
        let groups = by.groups(matches, &selection)?;
        let shown = groups.shown(matches, &sample_type, &selection)?;
        answer.warnings.extend(shown.warnings.iter().cloned().chain(groups.warnings()));
        let cells = (!is_listed).then(|| Cells::new(matches, &groups, step));
        let sums = match (of, &cells) {
            (Of::Totals, None) => {
                let _timed = engine.1.step(Explained::Sum);
                totals(matches, &groups, &shown, step)
            }
            (Of::Totals, Some(cells)) => {
                let (of, tally) = ((&matches[..], &cells.of[..]), cells.totals());
                let done = tally::read(&engine, Question::Series, of, &shown, &selection, filter, tally).await?;
                problems.extend(done.problems);
                answer.warnings.extend(done.warnings);
                engine.keep(done.admitted);
                cells.series(groups.len(), (matches, &done.is_read), |cell| done.tally.total(cell))
            }
            (Of::Function(name, value), cells) => {
                let cells = cells.as_ref().expect("samples are read for a function");
                let (of, tally) = ((&matches[..], &cells.of[..]), cells.tally(&name));
                let done = tally::read(&engine, Question::Series, of, &shown, &selection, filter, tally).await?;
                problems.extend(done.problems);
                answer.warnings.extend(done.warnings);
                answer.warnings.extend(done.tally.warning(&name));
                engine.keep(done.admitted);
                if done.tally.is_found() {
                    cells.series(groups.len(), (matches, &done.is_read), |cell| value(done.tally.sums(cell)))
                } else {
                    Vec::new()
                }
            }
        };
        let mut over = 0;
        for (group, sums) in sums.into_iter().enumerate().filter(|(_, sums)| !sums.is_empty()) {
            let (series, saturated) = write(sums, groups.labels(group), step);
            over += saturated;
            answer.series.push(series);
        }
        answer.series.sort_by(|a, b| (Reverse(a.total), &a.labels).cmp(&(Reverse(b.total), &b.labels)));
        answer.series_truncated = answer.series.len().saturating_sub(limit) as u64;
        answer.series.truncate(limit);
        answer.warnings.extend(saturated(over));
        answer.completeness = Some(completeness(&problems));
        answer.sample_type = Some(shown.sample_type);
        Ok(answer)
    };
    asked.drive(answer).await?
}

impl Of {
    fn read(function: String, number: i32) -> Result<Self, Error> {
        let value = v1::FunctionValue::try_from(number).map_err(|_| Error::Value { number })?;
        match (function.as_str(), value) {
            ("", v1::FunctionValue::SeriesValueSelf) => Err(Error::ValueOfNone),
            ("", _) => Ok(Self::Totals),
            (_, v1::FunctionValue::SeriesValueSelf) => Ok(Self::Function(function, |sums| sums.self_value)),
            (_, v1::FunctionValue::SeriesValueUnspecified | v1::FunctionValue::SeriesValueTotal) => {
                Ok(Self::Function(function, |sums| sums.total))
            }
        }
    }
}

fn limit(limit: u32) -> Result<usize, Error> {
    match limit {
        0 => Ok(LIMIT_DEFAULT as usize),
        1..=LIMIT_MAX => Ok(limit as usize),
        _ => Err(Error::SeriesLimit { limit, max: LIMIT_MAX }),
    }
}

/// Returns the first and the last time of profiles.
pub(super) fn times(matches: &[Match]) -> Option<(i64, i64)> {
    let times = || matches.iter().map(|found| found.row().time_nanos);
    times().min().zip(times().max())
}

/// Sums the totals of rows, group by group.
fn totals(matches: &[Match], groups: &Groups<'_>, shown: &Shown<'_>, step: Step) -> Vec<Sums> {
    let mut sums = vec![Sums::new(); groups.len()];
    for (found, &group) in matches.iter().zip(&groups.of) {
        let row = found.row();
        let sum = sums[group as usize].entry(step.index(row.time_nanos)).or_default();
        sum.value = sum.value.saturating_add(shown.total(found));
        sum.profiles += 1;
        sum.duration_nanos += i128::from(row.duration_nanos);
    }
    sums
}

/// Writes the sums of a group, and returns how many of them do not fit in 64 bits.
pub(super) fn write(sums: Sums, labels: BTreeMap<String, String>, step: Step) -> (v1::TimeSeries, usize) {
    let mut over = 0;
    let mut fit = |value: i128| {
        let fitting = clamp(value);
        // What stands at an end did not fit, or one of those that it is the sum of did not: an index has no more of it.
        over += usize::from(matches!(fitting, i64::MIN | i64::MAX));
        fitting
    };
    let total = fit(sums.values().fold(0i128, |total, sum| total.saturating_add(sum.value)));
    let profiles = sums.values().map(|sum| sum.profiles).sum();
    let points = sums.into_iter().map(|(index, sum)| v1::SeriesPoint {
        time: Some(window::timestamp(step.start_nanos(index))),
        value: fit(sum.value),
        profiles: sum.profiles,
        duration: Some(window::duration(clamp(sum.duration_nanos))),
    });
    let points = points.collect();
    (v1::TimeSeries { labels, points, total, profiles }, over)
}

/// Says how many sums do not fit in 64 bits, where there are any.
pub(super) fn saturated(sums: usize) -> Option<String> {
    (sums > 0).then(|| Warning::Saturated { sums }.to_string())
}

/// Returns `sum`, or the nearest value that 64 bits can hold.
pub(super) fn clamp(sum: i128) -> i64 {
    sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
