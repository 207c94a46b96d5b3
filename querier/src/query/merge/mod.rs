//! Merge: all selected profiles as one, as `pprof -proto` over the same files gives it.
//!
//! [`plan`] decides what to read and refuses what does not go together or is too much. Then the datasets are read concurrently,
//! a few at once, in a fixed order; each gives sums of its profiles, which go through a channel of one to a
//! [`worker`] on the blocking pool, that merges them and writes the answer. So reading and merging overlap, and at most a handful of
//! sums are in memory. Dropping the question's future ends the reads, closes the channel, and with it the worker.
//!
//! A dataset that is damaged is left out and named in the answer. A store that does not answer fails the question: a retry helps.

pub(crate) mod disagreement;
pub(super) mod plan;
mod worker;

use afterglow_proto::v1;
use afterglow_store::block::{self, Aggregate};
use afterglow_store::catalog::{Problem, View};
use afterglow_store::paths::TenantId;
use futures::{StreamExt as _, stream};
use tracing::Span;

use super::budget::Admitted;
use super::error::{Nearest, Unread};
use super::metrics::Question;
use super::selection::Selection;
use super::{Engine, Error, completeness, on_pool};
use crate::window::Window;

use plan::{Part, Plan};
use worker::{Answer, Form, Worker};

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::MergeRequest,
) -> Result<v1::MergeResponse, Error> {
    let form = Form::read(&request)?;
    let selection = Selection::read(request.selection, engine.now_nanos())?;
    let view = engine.view(tenant, selection.freshness.clone()).await?;
    let selected = view.select(&selection.query()).await;
    if selected.matches.is_empty() {
        return Err(no_match(&view, &selection, &selected.problems).await);
    }
    let limits = &engine.0.limits;
    let plan = Plan::new(&selected.matches, &selection, limits)?;
    record(engine, &plan);
    let admitted = engine.0.budget.admit(plan.estimate).await?;

    let mut problems = selected.problems;
    let merged = match merge(engine, plan.parts, form, admitted, &mut problems).await {
        Err(Error::Merge(error)) => {
            return Err(plan::disagreement(&selected.matches).map_or(Error::Merge(error), Error::from));
        }
        merged => merged?,
    };
    let Some((answer, profiles)) = merged else {
        return Err(Error::Damaged { selection: selection.to_string(), problems: Unread::of(&problems) });
    };
    Ok(v1::MergeResponse {
        result: Some(answer.result),
        profiles,
        completeness: Some(completeness(&problems)),
        warnings: answer.warnings,
    })
}

/// Reads and merges the parts, and returns the answer with how many profiles are in it; none where all parts are damaged.
async fn merge(
    engine: &Engine,
    parts: Vec<Part>,
    form: Form,
    admitted: Admitted,
    problems: &mut Vec<Problem>,
) -> Result<Option<(Answer, u64)>, Error> {
    let mut worker = Worker::start(form, admitted);
    let mut profiles = 0;
    let mut reads = stream::iter(parts.into_iter().map(read)).buffered(engine.0.limits.merge_reads);
    while let Some((part, sums)) = reads.next().await {
        match sums? {
            Ok(sums) => {
                profiles += part.rows.len() as u64;
                worker.add(sums).await?;
            }
            Err(error) if error.is_corrupt() => {
                engine.0.metrics.damaged.inc();
                tracing::error!(%error, "a dataset is left out of a merge");
                problems.push(Problem { key: part.block.path().clone(), text: error.to_string() });
            }
            Err(error) => return Err(error.into()),
        }
    }
    if profiles == 0 { Ok(None) } else { Ok(Some((worker.finish().await?, profiles))) }
}

/// Reads the sums of a part.
async fn read(part: Part) -> (Part, Result<Result<Vec<Aggregate>, block::Error>, Error>) {
    let Part { block, dataset, rows, .. } = part.clone();
    (part, on_pool(async move { block.aggregate(dataset, &rows).await }).await)
}

/// Counts what is read, and notes it in the span.
fn record(engine: &Engine, plan: &Plan) {
    let Plan { profiles, raw_bytes, blocks, estimate, .. } = *plan;
    engine.0.metrics.read(Question::Merge, profiles, raw_bytes, blocks);
    Span::current()
        .record("profiles", profiles)
        .record("bytes", raw_bytes)
        .record("blocks", blocks)
        .record("estimate", estimate);
}

/// Says that nothing matches, and where the nearest profile lies that would in another window.
pub(super) async fn no_match(view: &View, selection: &Selection, problems: &[Problem]) -> Error {
    let anywhen = view.select(&selection.within(Window::ALL).query()).await;
    let times = anywhen.matches.iter().map(|found| found.row().time_nanos);
    let nearest = Nearest(times.min_by_key(|&nanos| selection.window.distance(nanos)));
    Error::NoMatch { selection: selection.to_string(), nearest, unread: Unread::of(problems) }
}
