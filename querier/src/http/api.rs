//! The questions by GET: parameters become the request that gRPC takes, answers become JSON by protobuf's mapping, or a file.

use afterglow_profile::compress;
use afterglow_proto::v1;
use afterglow_service::{Failure, http as answers, tenant, time};
use afterglow_store::paths::TenantId;
use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Router, http::request::Parts};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::params::{self, Params};
use super::{sums, web};
use crate::query::{Engine, Fetched};
use crate::window;

/// How many profiles were merged into a file, which has no other place to say so.
const PROFILES: HeaderName = HeaderName::from_static("x-afterglow-profiles");

/// `true` beside a file that could not be made of all stored data.
const PARTIAL: HeaderName = HeaderName::from_static("x-afterglow-partial");

/// One damaged or unreadable object, or one thing to know; as often as there are.
const PROBLEM: HeaderName = HeaderName::from_static("x-afterglow-problem");
const WARNING: HeaderName = HeaderName::from_static("x-afterglow-warning");

/// The most problems or warnings in headers: clients refuse long ones. JSON and gRPC have them all.
const NOTES_MAX: usize = 8;

/// Makes the routes.
pub(crate) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/api/v1/profiles", get(search))
        .route("/api/v1/profiles/{id}", get(profile))
        .route("/api/v1/merge", get(merge))
        .route("/api/v1/series", get(sums::series))
        .route("/api/v1/top", get(sums::top))
        .route("/api/v1/function", get(sums::function))
        .route("/api/v1/stats", get(sums::stats))
        .route("/api/v1/types", get(types))
        .route("/api/v1/services", get(services))
        .route("/api/v1/labels", get(label_names))
        .route("/api/v1/labels/{name}/values", get(label_values))
        .with_state(engine)
        .merge(web::router())
}

/// What all handlers read of a request.
pub(super) struct Asked {
    pub(super) tenant: TenantId,
    pub(super) params: Params,
    headers: HeaderMap,
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let tenant = tenant::from_headers(&parts.headers)?;
        let tenant = tenant.parse().map_err(|error| Failure::invalid(format!("header {}: {error}", tenant::HEADER)))?;
        Ok(Self { tenant, params: Params::parse(parts.uri.query())?, headers: parts.headers.clone() })
    }
}

impl Asked {
    /// Takes the parameters that all questions about a selection have.
    pub(super) fn selection(&mut self, now_nanos: i64) -> Result<v1::Selection, Failure> {
        let mut moment = |names| -> Result<_, Failure> {
            let Some((name, text)) = self.params.either(names)? else { return Ok(None) };
            let nanos = time::parse(&text, now_nanos)
                .map_err(|error| Failure::invalid(format!("parameter {name:?}: {error}")))?;
            Ok(Some(window::timestamp(nanos)))
        };
        let (start, end) = (moment(["start", "from"])?, moment(["end", "to"])?);
        let mut text = |name| self.params.text(name).unwrap_or_default();
        Ok(v1::Selection { query: text("query"), r#type: text("type"), start, end, read_token: text("read_token") })
    }
}

impl Asked {
    /// Takes the parameters that filter stacks.
    pub(super) fn filter(&mut self) -> v1::StackFilter {
        let mut text = |name| self.params.text(name).unwrap_or_default();
        v1::StackFilter {
            focus: text("focus"),
            ignore: text("ignore"),
            show: text("show"),
            hide: text("hide"),
            show_from: text("show_from"),
            tag_focus: text("tag_focus"),
            tag_ignore: text("tag_ignore"),
            call_site: self.params.repeated("call_site", ';'),
        }
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

async fn merge(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let selection = asked.selection(engine.now_nanos())?;
    let format = format(asked.params.text("format").as_deref())?;
    let request = v1::MergeRequest {
        selection: Some(selection),
        format: format.into(),
        sample_type: asked.params.text("sample_type").unwrap_or_default(),
        limit: asked.params.number("limit")?.unwrap_or_default(),
        filter: Some(asked.filter()),
    };
    asked.params.finish()?;
    let mut merged = engine.merge(&asked.tenant, request).await?;
    Ok(match merged.result.take() {
        Some(v1::merge_response::Result::Pprof(pprof)) => with_notes(answers::file("merged.pb.gz", pprof), &merged),
        Some(v1::merge_response::Result::Folded(folded)) => with_notes(folded.into_response(), &merged),
        result => answers::json(&v1::MergeResponse { result, ..merged }),
    })
}

/// Reads the form of a merged answer.
fn format(text: Option<&str>) -> Result<v1::MergeFormat, Failure> {
    match text {
        None | Some("pprof") => Ok(v1::MergeFormat::Pprof),
        Some("flamegraph") => Ok(v1::MergeFormat::Flamegraph),
        Some("top") => Ok(v1::MergeFormat::Top),
        Some("folded") => Ok(v1::MergeFormat::Folded),
        Some(other) => {
            Err(Failure::invalid(format!("parameter \"format\": {other:?} is not pprof, flamegraph, top or folded")))
        }
    }
}

/// Says in headers what JSON says in fields.
fn with_notes(mut response: Response, merged: &v1::MergeResponse) -> Response {
    let headers = response.headers_mut();
    headers.insert(PROFILES, merged.profiles.into());
    let completeness = merged.completeness.clone().unwrap_or_default();
    if completeness.partial {
        headers.insert(PARTIAL, HeaderValue::from_static("true"));
    }
    for (name, notes) in [(PROBLEM, &completeness.problems), (WARNING, &merged.warnings)] {
        for note in notes.iter().take(NOTES_MAX) {
            headers.append(name.clone(), header_text(note));
        }
    }
    response
}

/// Makes a text fit for a header.
fn header_text(text: &str) -> HeaderValue {
    let plain: String = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    HeaderValue::try_from(plain).expect("visible ASCII and spaces")
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
