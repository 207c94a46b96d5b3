//! Top: functions ranked, over everything selected and for each value of some labels, across services.
//!
//! The numbers are those of a merge's table, but nothing is merged: tables of functions take little memory where stacks take much.

use std::cmp::Reverse;
use std::collections::HashMap;

use afterglow_profile::filter::PATTERN_BYTES_MAX;
use afterglow_profile::functions::{Summed, Sums, Tables};
use afterglow_profile::merge::Warning;
use afterglow_profile::{selector, top};
use afterglow_proto::v1;
use afterglow_store::paths::TenantId;
use regex::{Regex, RegexBuilder};

use super::by::By;
use super::explain::Step;
use super::lane::SMALL_READ;
use super::metrics::Question;
use super::selection::Selection;
use super::shown::Shown;
use super::tally::{self, Done, Tally};
use super::{Engine, Error, completeness, filter, merge};

/// The most groups of an answer: what anyone reads, and with 50 rows each some 10 MB of JSON.
pub(super) const GROUPS_MAX: usize = 1_000;

/// What a row of an answer takes beside what it was made of: as a message, and as it is written.
const ROW_BYTES: usize = 512;

/// Why functions cannot be matched with an expression.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadPattern {
    /// It is too long.
    #[error("the expression has {bytes} bytes, more than the {PATTERN_BYTES_MAX} that are taken")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It is none, or too large once it is compiled.
    #[error("regular expression: {}", selector::regex_problem(.0))]
    Malformed(#[from] regex::Error),
}

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::TopRequest,
) -> Result<v1::TopResponse, Error> {
    let by = By::read(request.by)?;
    let pattern = pattern(&request.function)?;
    let filter = filter::read(request.filter)?;
    let limit = (request.limit > 0).then_some(request.limit as usize);
    let value = v1::FunctionValue::try_from(request.value).map_err(|_| Error::Value { number: request.value })?;
    let by_total = value == v1::FunctionValue::SeriesValueTotal;
    let selection = Selection::read(request.selection, engine.now_nanos())?;
    let view = engine.view(tenant, selection.freshness.clone()).await?;
    let asked = engine.enter(tenant, &[(&view, &selection)], SMALL_READ).await?;
    let selected = merge::select_any(&asked, &view, &selection).await?;
    let engine = asked.clone();
    let answer = async move {
        let (matches, mut problems) = (&selected.matches, selected.problems);
        let groups = by.groups(matches, &selection)?;
        let shown = groups.shown(matches, &request.sample_type, &selection)?;
        let tables = Tables::new(groups.len());
        let of = (&matches[..], &groups.of[..]);
        let done = tally::read(&engine, Question::Top, of, &shown, &selection, filter, tables).await?;
        let Done { tally: mut tables, is_read, problems: unread, warnings, mut admitted } = done;
        problems.extend(unread);
        let _timed = engine.1.step(Step::Encode);
        let mut profiles = vec![0; groups.len()];
        for (&group, _) in groups.of.iter().zip(&is_read).filter(|(_, is_read)| **is_read) {
            profiles[group as usize] += 1;
        }
        let all = tables.add_all();
        let mut held = tables.memory();
        let is_shown = |name: &str, file: &str| {
            pattern.as_ref().is_none_or(|pattern| pattern.is_match(name) || pattern.is_match(file))
        };
        let is_shown = tables.shown(is_shown);
        let (tops, mut saturated) = (tables.tops(limit, &is_shown, by_total), 0);
        let mut write = |group: usize| -> Result<v1::Top, Error> {
            let (top, over) = tops(group);
            saturated += over;
            held += top.rows.len() * ROW_BYTES;
            admitted.cover(held as u64)?;
            Ok(message(top, &shown))
        };
        let mut answer = v1::TopResponse {
            top: Some(write(all)?),
            profiles: profiles.iter().sum(),
            completeness: Some(completeness(&problems)),
            warnings: shown.warnings.iter().cloned().chain(groups.warnings()).chain(warnings).collect(),
            ..v1::TopResponse::default()
        };
        if !by.is_empty() {
            let mut order: Vec<usize> = (0..groups.len()).filter(|&group| profiles[group] > 0).collect();
            if pattern.is_some() {
                // Whoever asks for some functions is shown the groups that have them, and first those that have most of them.
                let having = order.len();
                let mut ranks: HashMap<usize, (i128, i128)> = HashMap::with_capacity(having);
                order.retain(|&group| {
                    let Some(Sums { self_value, total }) = tables.shown_of(group, &is_shown) else { return false };
                    ranks.insert(group, if by_total { (total, self_value) } else { (self_value, total) });
                    true
                });
                answer.groups_unmatched = (having - order.len()) as u64;
                order.sort_by_cached_key(|&group| (Reverse(ranks[&group]), groups.labels(group)));
            } else {
                order.sort_by_cached_key(|&group| (Reverse(tables.total(group)), groups.labels(group)));
            }
            answer.groups_truncated = order.len().saturating_sub(GROUPS_MAX) as u64;
            order.truncate(GROUPS_MAX);
            let group = |&group: &usize| -> Result<_, Error> {
                let (labels, top) = (groups.labels(group), Some(write(group)?));
                Ok(v1::TopGroup { labels, top, profiles: profiles[group] })
            };
            answer.groups = order.iter().map(group).collect::<Result<_, _>>()?;
        }
        if saturated > 0 {
            answer.warnings.push(Warning::Saturated { sums: saturated }.to_string());
        }
        engine.keep(admitted);
        Ok(answer)
    };
    asked.drive(answer).await?
}

/// Reads the expression that functions are to match, if there is one.
pub(super) fn pattern(text: &str) -> Result<Option<Regex>, BadPattern> {
    match text.len() {
        0 => Ok(None),
        1..=PATTERN_BYTES_MAX => Ok(Some(RegexBuilder::new(text).size_limit(selector::REGEX_BYTES_MAX).build()?)),
        bytes => Err(BadPattern::TooLong { bytes }),
    }
}

/// Writes a table as protobuf has it.
fn message(top: top::Top, shown: &Shown<'_>) -> v1::Top {
    v1::Top {
        sample_type: Some(shown.sample_type.clone()),
        total: top.total,
        base_total: top.base_total,
        functions: top.rows.into_iter().map(row).collect(),
        functions_truncated: top.truncated as u64,
    }
}

/// Writes a row as protobuf has it.
pub(super) fn row(row: top::Row) -> v1::TopFunction {
    v1::TopFunction {
        name: row.name,
        file: row.file,
        self_: row.self_value,
        total: row.total,
        base_self: row.base_self,
        base_total: row.base_total,
    }
}

impl Tally for Tables {
    type Subtotal = Summed;

    fn add(&mut self, subtotal: &Summed, groups: &[u32]) {
        Tables::add(self, subtotal, groups);
    }

    fn memory(&self) -> usize {
        Tables::memory(self)
    }
}
