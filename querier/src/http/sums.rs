//! The questions whose answers are sums, by GET: parameters become the request that gRPC takes, answers become JSON.

use afterglow_proto::v1;
use afterglow_service::{Failure, http as answers};
use axum::extract::State;
use axum::response::Response;

use super::api::Asked;
use crate::query::Engine;

/// How many rows a table has where the question does not say: what a screen shows. By gRPC it is all of them.
const ROWS_DEFAULT: u32 = 50;

pub(super) async fn series(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let request = v1::SeriesRequest {
        selection: Some(asked.selection(engine.now_nanos())?),
        step: asked.params.duration("step")?,
        by: asked.params.list("by"),
        sample_type: asked.params.text("sample_type").unwrap_or_default(),
        function: asked.params.text("function").unwrap_or_default(),
        value: value(asked.params.text("value").as_deref())?.into(),
        limit: asked.params.number("limit")?.unwrap_or_default(),
        explain: asked.params.flag("explain")?,
        filter: Some(asked.filter()),
    };
    asked.params.finish()?;
    Ok(answers::json(&engine.series(&asked.tenant, request).await?))
}

/// Reads which value of a function is meant.
fn value(text: Option<&str>) -> Result<v1::FunctionValue, Failure> {
    match text {
        None => Ok(v1::FunctionValue::SeriesValueUnspecified),
        Some("total") => Ok(v1::FunctionValue::SeriesValueTotal),
        Some("self") => Ok(v1::FunctionValue::SeriesValueSelf),
        Some(other) => Err(Failure::invalid(format!("parameter \"value\": {other:?} is not total or self"))),
    }
}

pub(super) async fn top(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let request = v1::TopRequest {
        selection: Some(asked.selection(engine.now_nanos())?),
        sample_type: asked.params.text("sample_type").unwrap_or_default(),
        limit: asked.params.number("limit")?.unwrap_or(ROWS_DEFAULT),
        by: asked.params.list("by"),
        filter: Some(asked.filter()),
        function: asked.params.text("function").unwrap_or_default(),
        value: value(asked.params.text("value").as_deref())?.into(),
        explain: asked.params.flag("explain")?,
    };
    asked.params.finish()?;
    Ok(answers::json(&engine.top(&asked.tenant, request).await?))
}

pub(super) async fn function(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let request = v1::FunctionRequest {
        selection: Some(asked.selection(engine.now_nanos())?),
        name: asked.params.text("name").unwrap_or_default(),
        sample_type: asked.params.text("sample_type").unwrap_or_default(),
        by: asked.params.list("by"),
        step: asked.params.duration("step")?,
        limit: asked.params.number("limit")?.unwrap_or_default(),
        explain: asked.params.flag("explain")?,
        filter: Some(asked.filter()),
    };
    asked.params.finish()?;
    Ok(answers::json(&engine.function(&asked.tenant, request).await?))
}

pub(super) async fn regressions(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let now_nanos = engine.now_nanos();
    let selection = asked.selection(now_nanos)?;
    let base = asked.base(&selection, now_nanos)?;
    let request = v1::RegressionsRequest {
        selection: Some(selection),
        base,
        sample_type: asked.params.text("sample_type").unwrap_or_default(),
        value: value(asked.params.text("value").as_deref())?.into(),
        min_change: asked.params.decimal("min_change")?.unwrap_or_default(),
        min_share: asked.params.decimal("min_share")?.unwrap_or_default(),
        alarm_chance: asked.params.decimal("alarm_chance")?.unwrap_or_default(),
        filter: Some(asked.filter()),
        limit: asked.params.number("limit")?.unwrap_or_default(),
        all: asked.params.flag("all")?,
        explain: asked.params.flag("explain")?,
    };
    asked.params.finish()?;
    Ok(answers::json(&engine.regressions(&asked.tenant, request).await?))
}

pub(super) async fn statistics(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let request = v1::StatisticsRequest {
        selection: Some(asked.selection(engine.now_nanos())?),
        sample_type: asked.params.text("sample_type").unwrap_or_default(),
        by: asked.params.list("by"),
        step: asked.params.duration("step")?,
        limit: asked.params.number("limit")?.unwrap_or_default(),
        filter: Some(asked.filter()),
        function: asked.params.text("function").unwrap_or_default(),
        value: value(asked.params.text("value").as_deref())?.into(),
        min_share: asked.params.decimal("min_share")?.unwrap_or_default(),
        explain: asked.params.flag("explain")?,
    };
    asked.params.finish()?;
    Ok(answers::json(&engine.statistics(&asked.tenant, request).await?))
}

pub(super) async fn stats(State(engine): State<Engine>, asked: Asked) -> Result<Response, Failure> {
    asked.params.finish()?;
    Ok(answers::json(&engine.stats(&asked.tenant, v1::StatsRequest {}).await?))
}
