//! The questions by GET: parameters become the request that gRPC takes, answers become JSON by protobuf's mapping, or a file.

use afterglow_profile::compress;
use afterglow_proto::{Timestamp, v1};
use afterglow_service::access::audit;
use afterglow_service::{Failure, http as answers, tenant, time};
use afterglow_store::paths::TenantId;
use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Router, http::request::Parts};
use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};

use super::params::{self, Params};
use super::{merges, sums};
use crate::query::{Engine, Fetched};
use crate::window;

/// Makes the routes.
pub(crate) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/api/v1/profiles", get(search))
        .route("/api/v1/profiles/{id}", get(profile))
        .route("/api/v1/merge", get(merges::merge))
        .route("/api/v1/diff", get(merges::diff))
        .route("/api/v1/series", get(sums::series))
        .route("/api/v1/top", get(sums::top))
        .route("/api/v1/function", get(sums::function))
        .route("/api/v1/regressions", get(sums::regressions))
        .route("/api/v1/statistics", get(sums::statistics))
        .route("/api/v1/stats", get(sums::stats))
        .route("/api/v1/types", get(types))
        .route("/api/v1/services", get(services))
        .route("/api/v1/labels", get(label_names))
        .route("/api/v1/labels/{name}/values", get(label_values))
        .with_state(engine)
}

/// What all handlers read of a request.
pub(super) struct Asked {
    pub(super) tenant: TenantId,
    pub(super) params: Params,
    headers: HeaderMap,
    extensions: Extensions,
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let tenant = tenant::from_headers(&parts.headers)?;
        let tenant = tenant.parse().map_err(|error| Failure::invalid(format!("header {}: {error}", tenant::HEADER)))?;
        Ok(Self {
            tenant,
            params: Params::parse(parts.uri.query())?,
            headers: parts.headers.clone(),
            extensions: parts.extensions.clone(),
        })
    }
}

impl Asked {
    /// Takes the parameters that all questions about a selection have.
    pub(super) fn selection(&mut self, now_nanos: i64) -> Result<v1::Selection, Failure> {
        let start = self.moment(["start", "from"], now_nanos)?;
        let end = self.moment(["end", "to"], now_nanos)?;
        let mut text = |name| self.params.text(name).unwrap_or_default();
        Ok(v1::Selection { query: text("query"), r#type: text("type"), start, end, read_token: text("read_token") })
    }

    /// Takes a time that bounds a window, which has two names.
    pub(super) fn moment(&mut self, names: [&'static str; 2], now_nanos: i64) -> Result<Option<Timestamp>, Failure> {
        let Some((name, text)) = self.params.either(names)? else { return Ok(None) };
        let nanos = time::parse_bound(&text, now_nanos)
            .map_err(|error| Failure::invalid(format!("parameter {name:?}: {error}")))?;
        Ok(Some(window::timestamp(nanos)))
    }
}

impl From<params::Error> for Failure {
    fn from(error: params::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

async fn search(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let request = v1::SearchRequest {
        selection: Some(asked.selection(engine.now_nanos())?),
        limit: asked.params.number("limit")?.unwrap_or_default(),
        cursor: asked.params.text("cursor").unwrap_or_default(),
        explain: asked.params.flag("explain")?,
    };
    asked.params.finish()?;
    Ok(answers::json(&engine.search(&asked.tenant, request).await?))
}

async fn profile(State(engine): State<Engine>, Path(id): Path<String>, mut asked: Asked) -> Result<Response, Failure> {
    let raw = asked.params.flag("raw")?;
    let read_token = asked.params.text("read_token").unwrap_or_default();
    asked.params.finish()?;
    let request = v1::GetProfileRequest { id, read_token };
    let is_known = |sha256: &str| is_known(&asked.headers, sha256);
    let Fetched { info, pprof } = engine.get_profile(&asked.tenant, request, is_known).await?;
    if let Some(pprof) = &pprof {
        audit::downloaded(&asked.extensions, asked.tenant.as_str(), &info.id, pprof.len());
    }
    let etag = HeaderValue::try_from(format!("\"{}\"", info.sha256)).expect("hexadecimal digits");
    let name = format!("{}-{}-{}.pb", info.service, info.r#type, info.id);
    let mut response = match pprof {
        None => StatusCode::NOT_MODIFIED.into_response(),
        Some(pprof) if raw => answers::file(&name, pprof),
        Some(pprof) => answers::file(&format!("{name}.gz"), gzip(pprof).await?),
    };
    response.headers_mut().insert(header::ETAG, etag);
    Ok(response)
}

/// Returns whether the client has the profile already: If-None-Match names its digest, weakly or not, or is `*`.
fn is_known(headers: &HeaderMap, sha256: &str) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|tags| tags.split(',')).map(str::trim).any(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) == Some(sha256)
    })
}

/// Compresses on the pool that may block: 64 MiB take a while.
async fn gzip(pprof: Bytes) -> Result<Vec<u8>, Failure> {
    tokio::task::spawn_blocking(move || compress::gzip(&pprof)).await.map_err(Failure::internal)
}

async fn types(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let request = v1::ProfileTypesRequest { selection: Some(asked.selection(engine.now_nanos())?) };
    asked.params.finish()?;
    Ok(answers::json(&engine.profile_types(&asked.tenant, request).await?))
}

async fn services(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let request = v1::ServicesRequest { selection: Some(asked.selection(engine.now_nanos())?) };
    asked.params.finish()?;
    Ok(answers::json(&engine.services(&asked.tenant, request).await?))
}

async fn label_names(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let request = v1::LabelNamesRequest { selection: Some(asked.selection(engine.now_nanos())?) };
    asked.params.finish()?;
    Ok(answers::json(&engine.label_names(&asked.tenant, request).await?))
}

async fn label_values(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    mut asked: Asked,
) -> Result<Response, Failure> {
    let request = v1::LabelValuesRequest { name, selection: Some(asked.selection(engine.now_nanos())?) };
    asked.params.finish()?;
    Ok(answers::json(&engine.label_values(&asked.tenant, request).await?))
}
