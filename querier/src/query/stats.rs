//! Stats: what is stored of a tenant, by level, and by service and type.

use afterglow_proto::v1;
use afterglow_store::catalog::{Freshness, Holding, Stored};
use afterglow_store::paths::TenantId;
use afterglow_store::retention::Policy;

use super::{Engine, Error, completeness};
use crate::window;

/// The selector of what no rule is about.
const ALL: &str = "{}";

pub(super) async fn answer(
    engine: &Engine,
    tenant: &TenantId,
    _request: v1::StatsRequest,
) -> Result<v1::StatsResponse, Error> {
    let view = engine.view(tenant, Freshness::AtMostOld).await?;
    let Stored { commit, levels, holdings, problems } = view.stored().await;
    let times = || holdings.iter().map(|holding| (holding.first_nanos, holding.last_nanos));
    let (first, last) = (times().map(|(first, _)| first).min(), times().map(|(_, last)| last).max());
    let levels: Vec<v1::LevelStats> = levels
        .into_iter()
        .map(|(level, stored)| v1::LevelStats {
            level: level.into(),
            blocks: stored.blocks,
            bytes: stored.bytes,
            profiles: stored.profiles,
        })
        .collect();
    Ok(v1::StatsResponse {
        profiles: holdings.iter().map(|holding| holding.profiles).sum(),
        raw_bytes: holdings.iter().map(|holding| holding.raw_bytes).sum(),
        stored_bytes: levels.iter().map(|level| level.bytes).sum(),
        first: first.map(window::timestamp),
        last: last.map(window::timestamp),
        levels,
        commit,
        services: holdings.into_iter().map(service).collect(),
        completeness: Some(completeness(&problems)),
        retention: policies(engine).await,
    })
}

/// Returns the rules of this process, if it deletes, then those of others who say that they do.
async fn policies(engine: &Engine) -> Vec<v1::RetentionRule> {
    let mut rules: Vec<Vec<v1::RetentionRule>> = engine.0.retention.get().map(retention).into_iter().collect();
    match engine.0.published.policies().await {
        Ok(published) => rules.extend(published.iter().map(retention)),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "how long profiles are kept cannot be read");
        }
    }
    let is_first = |n: usize| !rules[..n].contains(&rules[n]);
    (0..rules.len()).filter(|n| is_first(*n)).flat_map(|n| rules[n].clone()).collect()
}

fn service(holding: Holding) -> v1::ServiceStats {
    v1::ServiceStats {
        service: holding.service,
        r#type: holding.profile_type.to_string(),
        profiles: holding.profiles,
        raw_bytes: holding.raw_bytes,
        stored_bytes: holding.stored_bytes,
        series: holding.series,
        first: Some(window::timestamp(holding.first_nanos)),
        last: Some(window::timestamp(holding.last_nanos)),
    }
}

/// Writes the rules in the order in which they count; what no rule is about comes last.
fn retention(policy: &Policy) -> Vec<v1::RetentionRule> {
    let age = |age: std::time::Duration| window::duration(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
    let rules = policy.rules.iter().map(|rule| v1::RetentionRule {
        selector: rule.selector.to_string(),
        max_age: rule.age_max.map(age),
        max_bytes: 0,
    });
    let rest = v1::RetentionRule {
        selector: ALL.to_owned(),
        max_age: policy.age_max.map(age),
        max_bytes: policy.bytes_max.unwrap_or_default(),
    };
    rules.chain([rest]).collect()
}
