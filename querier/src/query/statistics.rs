//! Statistics: how the share of each function spreads over instances, versions or steps of time, and which of them are odd.
//!
//! Profiles are parted into groups by labels, by time, or by both; each group's functions are summed without a merge, and what a share's
//! mean, deviation, quantiles and outliers are is for [`spread`] to say. Every group counts as much as any other, whatever its load: the
//! question is what an instance is like, not what the fleet costs. A group that lacks a function has a share of 0 of it.

use std::collections::HashMap;

use afterglow_profile::spread::{GROUPS_MIN, Spread};
use afterglow_proto::v1;
use afterglow_store::catalog::Match;
use afterglow_store::paths::TenantId;

use super::by::{By, Groups};
use super::explain::Step as Explained;
use super::lane::SMALL_READ;
use super::metrics::Question;
use super::selection::Selection;
use super::series::{clamp, times};
use super::shown::Shown;
use super::step::Step;
use super::tally::cells::Cells;
use super::tally::used::{Used, Value};
use super::tally::{self, Done};
use super::{Engine, Error, completeness, filter, merge, top};
use crate::window;

/// How many functions are listed when the request does not say.
const LIMIT_DEFAULT: u32 = 50;

/// The most functions: each has two spreads, over all groups.
const LIMIT_MAX: u32 = 10_000;

/// The most groups: more are not read by anyone, and each of them is in the answer.
const GROUPS_MAX: usize = 10_000;

/// Functions whose share is below this in all groups are not looked at when the request does not say; nor is a group that differs by less
/// an outlier.
const MIN_SHARE_DEFAULT: f64 = 0.005;

/// Why a question is refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    /// A share that is none.
    #[error("min_share {value} is not between 0 and 1")]
    Share {
        /// What it is.
        value: f64,
    },
    /// Too many functions.
    #[error("limit {limit} exceeds the {LIMIT_MAX} functions of an answer")]
    Limit {
        /// What was asked for.
        limit: u32,
    },
    /// Too many groups.
    #[error(
        "there are {groups} groups, more than the {GROUPS_MAX} of an answer; group by fewer labels, or by a longer step"
    )]
    TooManyGroups {
        /// How many there are.
        groups: usize,
    },
}

/// The groups whose shares are compared: by labels, by steps, or by both.
struct Parted {
    /// The group of each profile.
    of: Vec<u32>,
    /// For each, its group by labels, and its step.
    keys: Vec<(u32, Option<i64>)>,
}

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::StatisticsRequest,
) -> Result<v1::StatisticsResponse, Error> {
    let min_share = min_share(request.min_share)?;
    let limit = limit(request.limit)?;
    let value = v1::FunctionValue::try_from(request.value).map_err(|_| Error::Value { number: request.value })?;
    let by_total = value == v1::FunctionValue::SeriesValueTotal;
    let by = By::read(request.by)?;
    let pattern = top::pattern(&request.function)?;
    let filter = filter::read(request.filter)?;
    let selection = Selection::read(request.selection, engine.now_nanos())?;
    let view = engine.view(tenant, selection.freshness.clone()).await?;
    let asked = engine.enter(tenant, &[(&view, &selection)], SMALL_READ).await?;
    let selected = merge::select_any(&asked, &view, &selection).await?;
    let engine = asked.clone();
    let answer = async move {
        let (matches, mut problems) = (&selected.matches, selected.problems);
        let groups = by.groups(matches, &selection)?;
        let shown = Shown::new(matches, &request.sample_type)?;
        let step = if by.is_empty() || request.step.is_some_and(|step| step != Default::default()) {
            Some(Step::choose(request.step.as_ref(), selection.window, times(matches))?)
        } else {
            None
        };
        let parted = Parted::new(matches, &groups, step);
        if parted.keys.len() > GROUPS_MAX {
            return Err(Refused::TooManyGroups { groups: parted.keys.len() }.into());
        }
        let of = (&matches[..], &parted.of[..]);
        let used = Used::new(parted.keys.len());
        let done = tally::read(&engine, Question::Statistics, of, &shown, &selection, filter, used).await?;
        let Done { tally: used, is_read, problems: unread, warnings, mut admitted } = done;
        problems.extend(unread);
        let _timed = engine.1.step(Explained::Encode);
        // Once more by function, and once for the answer.
        admitted.cover(3 * tally::Tally::memory(&used) as u64)?;

        let mut profiles = vec![0u64; parted.keys.len()];
        for (&group, _) in parted.of.iter().zip(&is_read).filter(|(_, is_read)| **is_read) {
            profiles[group as usize] += 1;
        }
        // A group without a value has no shares.
        let mut order: Vec<usize> = (0..parted.keys.len()).filter(|&group| used.cells[group].total > 0.0).collect();
        order.sort_by_cached_key(|&group| (groups.labels(parted.keys[group].0 as usize), parted.keys[group].1));
        let group = |&group: &usize| {
            let (labels, index) = parted.keys[group];
            v1::StatisticsGroup {
                labels: groups.labels(labels as usize),
                time: step.zip(index).map(|(step, index)| window::timestamp(step.start_nanos(index))),
                total: clamp(used.cells[group].total as i128),
                profiles: profiles[group],
            }
        };
        let mut answer = v1::StatisticsResponse {
            sample_type: Some(shown.sample_type.clone()),
            groups: order.iter().map(group).collect(),
            step: step.map(|step| window::duration(step.nanos())),
            profiles: profiles.iter().sum(),
            completeness: Some(completeness(&problems)),
            warnings: shown.warnings.iter().cloned().chain(groups.warnings()).chain(warnings).collect(),
            ..Default::default()
        };
        if order.len() < GROUPS_MIN {
            let text =
                format!("with {} groups of the {GROUPS_MIN} that it takes, no group is told to be odd", order.len());
            answer.warnings.push(text);
        }
        let is_shown = |name: &str, file: &str| {
            pattern.as_ref().is_none_or(|pattern| pattern.is_match(name) || pattern.is_match(file))
        };
        let mut functions = by_function(&used, &order, min_share);
        functions.retain(|function, _| is_shown(&used.names[*function as usize].0, &used.names[*function as usize].1));
        let sum = |shares: &[(usize, Value)]| {
            shares.iter().map(|(_, share)| if by_total { share.total } else { share.own }).sum::<f64>()
        };
        let mut ranked: Vec<_> =
            functions.into_iter().map(|(function, shares)| (sum(&shares), function, shares)).collect();
        ranked
            .sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| used.names[a.1 as usize].cmp(&used.names[b.1 as usize])));
        answer.functions_truncated = ranked.len().saturating_sub(limit) as u64;
        ranked.truncate(limit);
        answer.functions = ranked
            .into_iter()
            .map(|(_, function, shares)| {
                let (name, file) = used.names[function as usize].clone();
                let spread = |of: fn(&Value) -> f64| {
                    let mut dense = vec![0.0; order.len()];
                    shares.iter().for_each(|(place, share)| dense[*place] = of(share));
                    Some(message(Spread::of(&dense, min_share)))
                };
                v1::FunctionStatistics {
                    name,
                    file,
                    self_: spread(|share| share.own),
                    total: spread(|share| share.total),
                }
            })
            .collect();
        drop(admitted);
        Ok(answer)
    };
    asked.drive(answer).await?
}

fn min_share(value: f64) -> Result<f64, Refused> {
    match value {
        0.0 => Ok(MIN_SHARE_DEFAULT),
        value if value > 0.0 && value <= 1.0 => Ok(value),
        value => Err(Refused::Share { value }),
    }
}

fn limit(limit: u32) -> Result<usize, Refused> {
    match limit {
        0 => Ok(LIMIT_DEFAULT as usize),
        1..=LIMIT_MAX => Ok(limit as usize),
        limit => Err(Refused::Limit { limit }),
    }
}

/// Returns the shares of each function in the groups that have it, by their places in `order`. Those that are below `min_share` in
/// all of them are left out.
fn by_function(used: &Used, order: &[usize], min_share: f64) -> HashMap<u32, Vec<(usize, Value)>> {
    let mut functions: HashMap<u32, Vec<(usize, Value)>> = HashMap::new();
    for (place, &group) in order.iter().enumerate() {
        let cell = &used.cells[group];
        for (&function, value) in &cell.values {
            let share = Value { own: value.own / cell.total, total: value.total / cell.total };
            functions.entry(function).or_default().push((place, share));
        }
    }
    functions.retain(|_, shares| shares.iter().any(|(_, share)| share.total >= min_share));
    functions
}

fn message(spread: Spread) -> v1::Spread {
    let Spread { mean, deviation, min, p5, p50, p95, max, outliers } = spread;
    let outliers = outliers.into_iter().map(|of| v1::Outlier {
        group: u32::try_from(of.group).expect("there are few groups"),
        share: of.share,
        score: of.score,
    });
    v1::Spread { mean, deviation, min, p5, p50, p95, max, outliers: outliers.collect() }
}

impl Parted {
    /// Parts `matches` by their groups, and by steps where there are any.
    fn new(matches: &[Match], groups: &Groups<'_>, step: Option<Step>) -> Self {
        match step {
            Some(step) => {
                let cells = Cells::new(matches, groups, step);
                let keys = cells.keys.iter().map(|&(group, index)| (group, Some(index))).collect();
                Self { of: cells.of, keys }
            }
            None => {
                let groups_of =
                    u32::try_from(groups.len()).expect("a group a profile, and a view holds fewer than 2^32");
                Self { of: groups.of.clone(), keys: (0..groups_of).map(|group| (group, None)).collect() }
            }
        }
    }
}
