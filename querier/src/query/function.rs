//! Function: all about one function in one answer: its history, its share by label, who calls it and whom it calls, across services.

use std::cmp::Reverse;

use afterglow_proto::v1;
use afterglow_store::paths::TenantId;

use super::by::By;
use super::explain::Step as Explained;
use super::lane::SMALL_READ;
use super::metrics::Question;
use super::selection::Selection;
use super::series::{self, clamp};
use super::step::Step;
use super::tally::cells::Cells;
use super::tally::{self, Done};
use super::top::{GROUPS_MAX, row};
use super::{Engine, Error, completeness, filter, merge};

/// How many callers and callees there are when the request does not say.
const CALLS_DEFAULT: u32 = 20;

/// The label that tells groups apart when the request does not say.
const BY_DEFAULT: &str = "service";

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::FunctionRequest,
) -> Result<v1::FunctionResponse, Error> {
    if request.name.is_empty() {
        return Err(Error::FunctionName);
    }
    let by = By::read(if request.by.is_empty() { vec![BY_DEFAULT.to_owned()] } else { request.by })?;
    let limit = if request.limit == 0 { CALLS_DEFAULT } else { request.limit } as usize;
    let filter = filter::read(request.filter)?;
    let is_filtered = !filter.is_empty();
    let selection = Selection::read(request.selection, engine.now_nanos())?;
    let view = engine.view(tenant, selection.freshness.clone()).await?;
    let asked = engine.enter(tenant, &[(&view, &selection)], SMALL_READ).await?;
    let selected = merge::select_any(&asked, &view, &selection).await?;
    let engine = asked.clone();
    let answer = async move {
        let (matches, mut problems) = (&selected.matches, selected.problems);
        let step = Step::choose(request.step.as_ref(), selection.window, series::times(matches))?;
        let groups = by.groups(matches, &selection)?;
        let shown = groups.shown(matches, &request.sample_type, &selection)?;
        let cells = Cells::new(matches, &groups, step);
        let of = (&matches[..], &cells.of[..]);
        let done = tally::read(&engine, Question::Function, of, &shown, &selection, filter, cells.tally(&request.name))
            .await?;
        let Done { tally, is_read, problems: unread, warnings, admitted } = done;
        problems.extend(unread);

        let _timed = engine.1.step(Explained::Encode);
        let sums = cells.by_group(groups.len(), &tally);
        let mut history: Vec<_> = cells
            .series(groups.len(), (matches, &is_read), |cell| tally.sums(cell).total)
            .into_iter()
            .map(Some)
            .collect();
        let totals = if is_filtered {
            cells.totals_by_group(groups.len(), &tally)
        } else {
            let mut totals = vec![0i128; groups.len()];
            for ((found, &group), _) in matches.iter().zip(&groups.of).zip(&is_read).filter(|(_, is_read)| **is_read) {
                let total = &mut totals[group as usize];
                *total = total.saturating_add(shown.total(found));
            }
            totals
        };
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_cached_key(|&group| (Reverse(sums[group].total), groups.labels(group)));
        let more_groups = order.len().saturating_sub(GROUPS_MAX);
        order.truncate(GROUPS_MAX);
        let ((callers, more_callers), (callees, more_callees)) =
            (tally.calls.callers(limit), tally.calls.callees(limit));

        let mut answer = v1::FunctionResponse {
            profiles: is_read.iter().filter(|is_read| **is_read).count() as u64,
            completeness: Some(completeness(&problems)),
            callers: callers.into_iter().map(row).collect(),
            callees: callees.into_iter().map(row).collect(),
            ..v1::FunctionResponse::default()
        };
        let mut saturated = 0;
        for group in order {
            let history = history[group].take().expect("each group stands once in the order");
            let (series, over) = series::write(history, groups.labels(group), step);
            saturated += over;
            if series.profiles == 0 {
                continue;
            }
            let function = v1::TopFunction {
                name: request.name.clone(),
                file: tally.calls.file().to_owned(),
                self_: clamp(sums[group].self_value),
                total: clamp(sums[group].total),
                ..v1::TopFunction::default()
            };
            let top = v1::Top {
                sample_type: Some(shown.sample_type.clone()),
                total: clamp(totals[group]),
                functions: vec![function],
                functions_truncated: 0,
                ..v1::Top::default()
            };
            answer.groups.push(v1::TopGroup {
                labels: groups.labels(group),
                top: Some(top),
                profiles: series.profiles,
            });
            answer.history.push(series);
        }
        answer.warnings = shown.warnings;
        answer.warnings.extend(groups.warnings());
        answer.warnings.extend(warnings);
        answer.warnings.extend(tally.warning(&request.name));
        let left_out =
            [(more_groups, "groups", GROUPS_MAX), (more_callers, "callers", limit), (more_callees, "callees", limit)];
        for (more, what, limit) in left_out.into_iter().filter(|(more, ..)| *more > 0) {
            answer.warnings.push(format!("{more} {what} are left out: these are the largest {limit}"));
        }
        answer.warnings.extend(series::saturated(saturated));
        answer.sample_type = Some(shown.sample_type);
        engine.keep(admitted);
        Ok(answer)
    };
    asked.drive(answer).await?
}
