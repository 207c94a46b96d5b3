//! Merge: all selected profiles as one, as `pprof -proto` over the same files gives it.
//!
//! [`gather`] finds the profiles ([`plan`] decides what to read and refuses what does not go together or is too much) and merges them
//! (on the blocking pool, by a [`worker`]), so that reading and merging overlap and at most a handful of sums are in memory; [`reduce`]
//! says which sample types that takes.
//! [`form`] writes the answer, on the blocking pool as well. Dropping the question's future ends the reads and the worker.

pub(crate) mod disagreement;
pub(super) mod form;
pub(super) mod gather;
pub(super) mod plan;
mod reduce;
pub(crate) mod share;
mod worker;

use afterglow_proto::v1;
use afterglow_store::paths::TenantId;
use tracing::Span;

use super::explain::Step;
use super::lane::SMALL_READ;
use super::metrics::Question;
use super::selection::Selection;
use super::{Engine, Error, completeness};

pub(super) use gather::select_any;

use form::Form;
use gather::{Chosen, Gathered};

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::MergeRequest,
) -> Result<v1::MergeResponse, Error> {
    let form = Form::of_merge(&request)?;
    let selection = Selection::read(request.selection, engine.now_nanos())?;
    let (chosen, engine) = match &request.ids[..] {
        [] => {
            let view = engine.view(tenant, selection.freshness.clone()).await?;
            let engine = engine.enter(tenant, &[(&view, &selection)], SMALL_READ).await?;
            (Chosen::select(&engine, tenant, &view, selection).await?, engine)
        }
        ids => Chosen::pick(engine, tenant, selection, ids).await?,
    };
    record(&[&chosen]);
    let of = form.clone();
    let (types, chosen) = engine.aside(move || (of.sample_types(&[&chosen]), chosen)).await?;
    let admitted = engine.admit(chosen.estimate()).await?;
    let (gathered, mut admitted) = chosen.gather(&engine, Question::Merge, types, admitted, 0).await?;
    let Gathered { merged, memory, profiles, problems, .. } = gathered;
    let (span, explaining) = (Span::current(), engine.1.clone());
    let write = move || {
        let _span = span.enter();
        let _timed = explaining.step(Step::Encode);
        let held = form.factor() * memory;
        admitted.cover(held)?;
        let made = form.merge(merged, &mut |bytes| explaining.cover(&mut admitted, held.saturating_add(bytes)));
        made.map(|made| (made, admitted))
    };
    let ((result, warnings), admitted) = engine.compute(write).await??;
    engine.keep(admitted);
    let completeness = Some(completeness(&problems));
    Ok(v1::MergeResponse { result: Some(result), profiles, completeness, warnings, explain: None })
}

/// Notes in the span what is read.
pub(super) fn record(chosen: &[&Chosen]) {
    let sum = |of: fn(&plan::Plan) -> u64| chosen.iter().map(|chosen| of(chosen.plan())).sum::<u64>();
    Span::current()
        .record("profiles", sum(|plan| plan.profiles))
        .record("bytes", sum(|plan| plan.raw_bytes))
        .record("blocks", sum(|plan| plan.blocks))
        .record("estimate", sum(|plan| plan.estimate));
}
