//! ProfileTypes: which profile types there are, and what their samples count.

use std::collections::BTreeMap;

use afterglow_proto::v1;
use afterglow_store::block::SampleType;
use afterglow_store::paths::TenantId;

use super::selection::Selection;
use super::{Engine, Error, completeness};

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::ProfileTypesRequest,
) -> Result<v1::ProfileTypesResponse, Error> {
    let selection = Selection::read(request.selection, engine.now_nanos())?;
    let summary = engine.series(tenant, &selection).await?;
    let mut types: BTreeMap<&str, v1::ProfileType> = BTreeMap::new();
    for counted in &summary.series {
        let name = counted.series.profile_type.as_str();
        let entry =
            types.entry(name).or_insert_with(|| v1::ProfileType { r#type: name.to_owned(), ..Default::default() });
        entry.profiles += counted.profiles;
        // Few and mostly the same: versions of a runtime differ at most by one or two.
        for SampleType { kind, unit } in &*counted.sample_types {
            if !entry.sample_types.iter().any(|known| *known.r#type == **kind && *known.unit == **unit) {
                entry.sample_types.push(v1::SampleType { r#type: kind.to_string(), unit: unit.to_string() });
            }
        }
    }
    Ok(v1::ProfileTypesResponse {
        types: types.into_values().collect(),
        completeness: Some(completeness(&summary.problems)),
    })
}
