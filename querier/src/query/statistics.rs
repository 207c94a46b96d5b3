//! Statistics: how the share of each function, and its amount, spreads over instances, versions or steps of time, and which of them are odd.
//!
//! Profiles are parted into groups by labels, by time, or by both; each group's functions are summed without a merge, and what a share's
//! mean, deviation, quantiles and outliers are is for [`spread`] to say. Every group counts as much as any other, whatever its load: the
//! question is what an instance is like, not what the fleet costs. A group that lacks a function has a share of 0 of it. An amount is what a
//! profile of the group has on average, so that an instance that ran for an hour of the day is like the others.
//!
//! Values below 0 have no shares: a group in which there are some is left out, and said to be.

use std::collections::HashMap;

use afterglow_profile::spread::{GROUPS_MIN, Outlier, Spread};
use afterglow_proto::v1;
use afterglow_service::time;
use afterglow_store::catalog::Match;
use afterglow_store::paths::TenantId;

use super::by::{By, Groups};
use super::explain::Step as Explained;
use super::lane::SMALL_READ;
use super::metrics::Question;
use super::selection::Selection;
use super::series::{clamp, times};
use super::step::Step;
use super::tally::cells::Cells;
use super::tally::used::{Used, Value, Whole};
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

/// The most groups that a warning names.
const NAMED_MAX: usize = 3;

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
        let shown = groups.shown(matches, &request.sample_type, &selection)?;
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
        // Once more by function, and for the answer, of which less than half of the groups are odd in each of four spreads.
        admitted.cover(6 * tally::Tally::memory(&used) as u64)?;

        let mut profiles = vec![0u64; parted.keys.len()];
        for (&group, _) in parted.of.iter().zip(&is_read).filter(|(_, is_read)| **is_read) {
            profiles[group as usize] += 1;
        }
        let mut order: Vec<usize> = (0..parted.keys.len()).filter(|&group| profiles[group] > 0).collect();
        order.sort_by_cached_key(|&group| (groups.labels(parted.keys[group].0 as usize), parted.keys[group].1));
        let name = |&group: &usize| {
            let (labels, index) = parted.keys[group];
            let time = step.zip(index).map(|(step, index)| time::format(step.start_nanos(index)));
            let labels = groups.labels(labels as usize);
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            let labels = (!labels.is_empty()).then(|| format!("{{{}}}", labels.join(", ")));
            labels.into_iter().chain(time).collect::<Vec<_>>().join(" ")
        };
        let mut left_out = Vec::new();
        for (whole, why) in [(Whole::Nothing, "have no samples"), (Whole::Negative, "have negative values")] {
            let of: Vec<usize> = order.extract_if(.., |group| used.cells[*group].whole() == whole).collect();
            if !of.is_empty() {
                let profiles: u64 = of.iter().map(|&group| profiles[group]).sum();
                let (groups, names) = (of.len(), shortened(of.iter().map(name)));
                left_out.push(format!("{groups} groups of {profiles} profiles {why}, and so no shares: {names}"));
            }
        }
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
            warnings: shown.warnings.iter().cloned().chain(groups.warnings()).chain(warnings).chain(left_out).collect(),
            ..Default::default()
        };
        // What a profile has on average, and the parts of that.
        let amounts: Vec<f64> = order.iter().map(|&group| used.cells[group].total / profiles[group] as f64).collect();
        let amount = Spread::of_amounts(&amounts, 0.0);
        let amount_min = min_share * amount.p50;
        answer.amount = Some(amounts_message(amount));
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
        let totals: Vec<f64> = order.iter().map(|&group| used.cells[group].total).collect();
        let sum = |values: &[(usize, Value)]| {
            let share =
                |(place, value): &(usize, Value)| if by_total { value.total } else { value.own } / totals[*place];
            values.iter().map(share).sum::<f64>()
        };
        let mut ranked: Vec<_> =
            functions.into_iter().map(|(function, values)| (sum(&values), function, values)).collect();
        ranked
            .sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| used.names[a.1 as usize].cmp(&used.names[b.1 as usize])));
        answer.functions_truncated = ranked.len().saturating_sub(limit) as u64;
        ranked.truncate(limit);
        answer.functions = ranked
            .into_iter()
            .map(|(_, function, values)| {
                let (name, file) = used.names[function as usize].clone();
                let spreads = |of: fn(&Value) -> f64| {
                    let mut dense = vec![0.0; order.len()];
                    values.iter().for_each(|(place, value)| dense[*place] = of(value) / totals[*place]);
                    let shares = shares_message(Spread::of(&dense, min_share));
                    values.iter().for_each(|(place, value)| dense[*place] = of(value) / profiles[order[*place]] as f64);
                    (Some(shares), Some(amounts_message(Spread::of_amounts(&dense, amount_min))))
                };
                let ((self_, self_amount), (total, total_amount)) =
                    (spreads(|value| value.own), spreads(|value| value.total));
                v1::FunctionStatistics { name, file, self_, total, self_amount, total_amount }
            })
            .collect();
        engine.keep(admitted);
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

/// Returns the values of each function in the groups that have it, by their places in `order`. Those whose share is below `min_share` in
/// all of them are left out.
fn by_function(used: &Used, order: &[usize], min_share: f64) -> HashMap<u32, Vec<(usize, Value)>> {
    let mut functions: HashMap<u32, Vec<(usize, Value)>> = HashMap::new();
    for (place, &group) in order.iter().enumerate() {
        let cell = &used.cells[group];
        for (&function, value) in &cell.values {
            functions.entry(function).or_default().push((place, *value));
        }
    }
    let share = |(place, value): &(usize, Value)| value.total / used.cells[order[*place]].total;
    functions.retain(|_, values| values.iter().any(|value| share(value) >= min_share));
    functions
}

/// Names the first few, and says how many more there are.
fn shortened(mut names: impl ExactSizeIterator<Item = String>) -> String {
    let mut named: Vec<String> = names.by_ref().take(NAMED_MAX).collect();
    if names.len() > 0 {
        named.push(format!("and {} more", names.len()));
    }
    named.join(", ")
}

/// Writes how shares spread as protobuf has it.
fn shares_message(spread: Spread) -> v1::Spread {
    message(spread, |of| v1::Outlier { share: of.value, ..outlier(of) })
}

/// Writes how amounts spread.
fn amounts_message(spread: Spread) -> v1::Spread {
    message(spread, |of| v1::Outlier { amount: of.value, ..outlier(of) })
}

fn outlier(of: &Outlier) -> v1::Outlier {
    let group = u32::try_from(of.group).expect("there are few groups");
    v1::Outlier { group, score: of.score, ..v1::Outlier::default() }
}

fn message(spread: Spread, outlier: impl Fn(&Outlier) -> v1::Outlier) -> v1::Spread {
    let Spread { mean, deviation, min, p5, p50, p95, max, outliers } = spread;
    v1::Spread { mean, deviation, min, p5, p50, p95, max, outliers: outliers.iter().map(outlier).collect() }
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
