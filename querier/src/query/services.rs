//! Services: which services there are, and the profile types of each.

use std::collections::{BTreeMap, BTreeSet};

use afterglow_proto::v1;
use afterglow_store::paths::TenantId;

use super::selection::Selection;
use super::{Engine, Error, completeness};

/// What is gathered of one service.
#[derive(Default)]
struct Gathered<'a> {
    types: BTreeSet<&'a str>,
    profiles: u64,
}

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    request: v1::ServicesRequest,
) -> Result<v1::ServicesResponse, Error> {
    let selection = Selection::read(request.selection, engine.now_nanos())?;
    let summary = engine.summary(tenant, &selection).await?;
    let mut services: BTreeMap<&str, Gathered<'_>> = BTreeMap::new();
    for counted in &summary.series {
        let gathered = services.entry(counted.series.labels.service()).or_default();
        gathered.types.insert(counted.series.profile_type.as_str());
        gathered.profiles += counted.profiles;
    }
    let services = services.into_iter().map(|(name, gathered)| v1::Service {
        name: name.to_owned(),
        types: gathered.types.into_iter().map(str::to_owned).collect(),
        profiles: gathered.profiles,
    });
    Ok(v1::ServicesResponse { services: services.collect(), completeness: Some(completeness(&summary.problems)) })
}
