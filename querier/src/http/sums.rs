//! The questions whose answers are sums, by GET: parameters become the request that gRPC takes, answers become JSON.

use afterglow_proto::v1;
use afterglow_service::{Failure, http as answers};
use axum::extract::State;
use axum::response::Response;

use super::api::Asked;
use crate::query::Engine;

pub(super) async fn series(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let request = v1::SeriesRequest {
        selection: Some(asked.selection(engine.now_nanos())?),
        step: asked.params.duration("step")?,
        by: asked.params.list("by"),
        sample_type: asked.params.text("sample_type").unwrap_or_default(),
        limit: asked.params.number("limit")?.unwrap_or_default(),
    };
    asked.params.finish()?;
    Ok(answers::json(&engine.series(&asked.tenant, request).await?))
}
