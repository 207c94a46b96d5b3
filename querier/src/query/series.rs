//! Series: how a sum moves over time, step by step, one series for each value of some labels.
//!
//! The sums are those of the totals that rows carry, so no sample is read. Steps lie on multiples of their length, whatever the
//! window. What is selected by no profile is an empty answer that says so, for a chart of nothing is a chart.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use afterglow_profile::merge::Warning;
use afterglow_proto::v1;
use afterglow_store::catalog::Match;
use afterglow_store::paths::TenantId;
use tracing::Span;

use super::by::{By, Groups};
use super::selection::Selection;
use super::shown::Shown;
use super::step::Step;
use super::{Engine, Error, completeness, on_pool};
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

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::SeriesRequest,
) -> Result<v1::SeriesResponse, Error> {
    let by = By::read(request.by)?;
    let limit = limit(request.limit)?;
    let selection = Selection::read(request.selection, engine.now_nanos())?;
    let selected = engine.select(tenant, &selection).await?;
    Span::current().record("profiles", selected.matches.len());
    let step = request.step;
    let mut answer = on_pool(async move {
        let matches = &selected.matches;
        let step = Step::choose(step.as_ref(), selection.window, times(matches))?;
        let answer = v1::SeriesResponse {
            step: Some(window::duration(step.nanos())),
            completeness: Some(completeness(&selected.problems)),
            ..v1::SeriesResponse::default()
        };
        if matches.is_empty() {
            return Ok(v1::SeriesResponse { warnings: vec![format!("no profiles match {selection}")], ..answer });
        }
        let groups = by.groups(matches, &selection)?;
        let shown = Shown::new(matches, &request.sample_type)?;
        let sums = totals(matches, &groups, &shown, step);
        let (series, saturated) = write(sums, &groups, step);
        let mut warnings = shown.warnings;
        warnings.extend(saturated);
        Ok::<_, Error>(v1::SeriesResponse { sample_type: Some(shown.sample_type), series, warnings, ..answer })
    })
    .await??;
    answer.series_truncated = answer.series.len().saturating_sub(limit) as u64;
    answer.series.truncate(limit);
    Ok(answer)
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
        let (row, column) = (found.row(), shown.column(found));
        let sum = sums[group as usize].entry(step.index(row.time_nanos)).or_default();
        sum.value = sum.value.saturating_add(i128::from(row.totals[column.index]).saturating_mul(column.factor));
        sum.profiles += 1;
        sum.duration_nanos += i128::from(row.duration_nanos);
    }
    sums
}

/// Writes the sums as series, the largest first, and says how many values did not fit.
pub(super) fn write(sums: Vec<Sums>, groups: &Groups<'_>, step: Step) -> (Vec<v1::TimeSeries>, Option<String>) {
    let mut saturated = 0;
    let mut fit = |value: i128| {
        let fitting = clamp(value);
        saturated += usize::from(i128::from(fitting) != value);
        fitting
    };
    let mut series: Vec<v1::TimeSeries> = Vec::with_capacity(sums.len());
    for (group, sums) in sums.into_iter().enumerate() {
        let total = sums.values().fold(0i128, |total, sum| total.saturating_add(sum.value));
        let profiles = sums.values().map(|sum| sum.profiles).sum();
        let points = sums.into_iter().map(|(index, sum)| v1::SeriesPoint {
            time: Some(window::timestamp(step.start_nanos(index))),
            value: fit(sum.value),
            profiles: sum.profiles,
            duration: Some(window::duration(clamp(sum.duration_nanos))),
        });
        let points = points.collect();
        series.push(v1::TimeSeries { labels: groups.labels(group), points, total: fit(total), profiles });
    }
    series.sort_by(|a, b| (Reverse(a.total), &a.labels).cmp(&(Reverse(b.total), &b.labels)));
    let saturated = (saturated > 0).then(|| Warning::Saturated { sums: saturated }.to_string());
    (series, saturated)
}

/// Returns `sum`, or the nearest value that 64 bits can hold.
pub(super) fn clamp(sum: i128) -> i64 {
    sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
