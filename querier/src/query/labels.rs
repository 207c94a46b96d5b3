//! LabelNames and LabelValues: what a selector can select by.

use std::collections::BTreeSet;

use afterglow_profile::labels::TYPE;
use afterglow_proto::v1;
use afterglow_store::catalog::{Series, SeriesCount, Summary};
use afterglow_store::paths::TenantId;

use super::selection::Selection;
use super::{Engine, Error, completeness};

pub(super) async fn names(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::LabelNamesRequest,
) -> Result<v1::LabelNamesResponse, Error> {
    let selection = Selection::read(request.selection, engine.now_nanos())?;
    let summary = engine.summary(tenant, &selection).await?;
    let mut names: BTreeSet<&str> =
        series(&summary).flat_map(|series| series.labels.iter()).map(|(name, _)| name).collect();
    if !names.is_empty() {
        names.insert(TYPE);
    }
    Ok(v1::LabelNamesResponse {
        names: names.into_iter().map(str::to_owned).collect(),
        completeness: Some(completeness(&summary.problems)),
    })
}

pub(super) async fn values(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::LabelValuesRequest,
) -> Result<v1::LabelValuesResponse, Error> {
    if request.name.is_empty() {
        return Err(Error::LabelName);
    }
    let selection = Selection::read(request.selection, engine.now_nanos())?;
    let summary = engine.summary(tenant, &selection).await?;
    let values: BTreeSet<&str> = series(&summary).filter_map(|series| value(series, &request.name)).collect();
    Ok(v1::LabelValuesResponse {
        values: values.into_iter().map(str::to_owned).collect(),
        completeness: Some(completeness(&summary.problems)),
    })
}

fn series(summary: &Summary) -> impl Iterator<Item = &Series> {
    summary.series.iter().map(|SeriesCount { series, .. }| &**series)
}

/// Returns a label's value; the profile type counts as one.
fn value<'a>(series: &'a Series, name: &str) -> Option<&'a str> {
    match name {
        TYPE => Some(series.profile_type.as_str()),
        name => series.labels.get(name),
    }
}
