//! Diff: two merges held against each other.
//!
//! Both sides are found and planned, and admitted together, before anything is read: a diff that has its one side must not wait for
//! the memory of the other. Then they are gathered one after the other, and written on the blocking pool.

use afterglow_proto::v1;
use afterglow_store::paths::TenantId;
use tracing::Span;

use super::explain::Step;
use super::lane::SMALL_READ;
use super::merge::form::Form;
use super::merge::gather::{Chosen, Gathered};
use super::merge::record;
use super::metrics::Question;
use super::selection::Selection;
use super::{Engine, Error, completeness};

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::DiffRequest,
) -> Result<v1::DiffResponse, Error> {
    let form = Form::of_diff(&request)?;
    let now_nanos = engine.now_nanos();
    let of_base = |error| Error::Base(Box::new(error));
    let base = Selection::read(Some(request.base.ok_or(Error::NoBase)?), now_nanos).map_err(of_base)?;
    let selection = Selection::read(request.selection, now_nanos)?;
    let view = engine.view(tenant, selection.freshness.clone()).await?;
    let base_view = engine.view(tenant, base.freshness.clone()).await?;
    let engine = &engine.enter(tenant, &[(&view, &selection), (&base_view, &base)], SMALL_READ).await?;
    let chosen = Chosen::select(engine, tenant, &view, selection).await?;
    let base = Chosen::select(engine, tenant, &base_view, base).await.map_err(of_base)?;
    record(&[&chosen, &base]);
    let of = form.clone();
    let (types, chosen, base) = engine.aside(move || (of.sample_types(&[&chosen, &base]), chosen, base)).await?;
    let estimate = chosen.estimate().saturating_add(base.estimate());
    let admitted = engine.admit(estimate).await?;

    let (chosen, admitted) = chosen.gather(engine, Question::Diff, types, admitted, 0).await?;
    // What the selection shows by default is shown of the base as well.
    let (types, held) = (chosen.types, chosen.memory);
    let (base, mut admitted) = base.gather(engine, Question::Diff, types, admitted, held).await.map_err(of_base)?;
    let Gathered { merged, memory, profiles, mut problems, .. } = chosen;
    let memory = memory.saturating_add(base.memory);
    // One block may hold profiles of both.
    problems.extend(base.problems.into_iter().filter(|problem| !problems.contains(problem)).collect::<Vec<_>>());
    let (span, explaining) = (Span::current(), engine.1.clone());
    let write = move || {
        let _span = span.enter();
        let _timed = explaining.step(Step::Encode);
        let held = form.diff_factor() * memory;
        admitted.cover(held)?;
        let made =
            form.diff(merged, base.merged, &mut |bytes| explaining.cover(&mut admitted, held.saturating_add(bytes)));
        made.map(|made| (made, admitted))
    };
    let ((result, warnings), admitted) = engine.compute(write).await??;
    engine.keep(admitted);
    Ok(v1::DiffResponse {
        result: Some(result),
        profiles,
        base_profiles: base.profiles,
        completeness: Some(completeness(&problems)),
        warnings,
        explain: None,
    })
}
