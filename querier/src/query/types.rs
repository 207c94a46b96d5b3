//! ProfileTypes: which profile types there are, and what their samples count.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use afterglow_proto::v1;
use afterglow_store::block::SampleType;
use afterglow_store::paths::TenantId;

use super::selection::Selection;
use super::{Engine, Error, completeness};

/// What is gathered of one type: how many profiles count what.
type Gathered<'a> = BTreeMap<&'a [SampleType], u64>;

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::ProfileTypesRequest,
) -> Result<v1::ProfileTypesResponse, Error> {
    let selection = Selection::read(request.selection, engine.now_nanos())?;
    let summary = engine.summary(tenant, &selection).await?;
    let mut types: BTreeMap<&str, Gathered<'_>> = BTreeMap::new();
    for counted in &summary.series {
        let gathered = types.entry(counted.series.profile_type.as_str()).or_default();
        *gathered.entry(&counted.sample_types).or_default() += counted.profiles;
    }
    let types = types.into_iter().map(|(name, gathered)| v1::ProfileType {
        r#type: name.to_owned(),
        profiles: gathered.values().sum(),
        sample_types: union(gathered),
    });
    Ok(v1::ProfileTypesResponse { types: types.collect(), completeness: Some(completeness(&summary.problems)) })
}

/// Returns each sample type once: where versions of a runtime differ, first what most profiles count, in their order.
fn union(gathered: Gathered<'_>) -> Vec<v1::SampleType> {
    let mut lists: Vec<_> = gathered.into_iter().collect();
    lists.sort_by_key(|&(_, profiles)| Reverse(profiles));
    let mut union: Vec<&SampleType> = Vec::new();
    for sample_type in lists.into_iter().flat_map(|(list, _)| list) {
        if !union.contains(&sample_type) {
            union.push(sample_type);
        }
    }
    union.into_iter().map(|t| v1::SampleType { r#type: t.kind.to_string(), unit: t.unit.to_string() }).collect()
}
