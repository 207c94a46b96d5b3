//! `POST /api/v1/profiles?service=S&type=T[&time=][&duration=][&id=][&label.k=v…]`: the body is the pprof, gzip'd or
//! not, of any content type.

use std::time::Duration;

use afterglow_profile::labels;
use afterglow_service::http::{Query, content_encoding, json};
use afterglow_service::stack::Deadline;
use afterglow_service::{Failure, tenant, time};
use afterglow_store::paths::{TenantError, TenantId};
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::body;
use crate::ingest::{Ingest, Names, Protocol, Request};

/// What is before the name of a label among the parameters.
const LABEL_PREFIX: &str = "label.";

/// What the parameters say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    names: Names,
    time_nanos: Option<i64>,
    duration_nanos: Option<i64>,
}

/// The acknowledgement: `PushProfileResponse` by protobuf's JSON mapping.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    id: String,
    duplicate: bool,
    warnings: Vec<String>,
    read_token: String,
}

/// Takes a profile.
pub(super) async fn push(
    State(ingest): State<Ingest>,
    query: Result<Query<Vec<(String, String)>>, Failure>,
    request: HttpRequest,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let early = async {
        // Form decoding would put U+FFFD where a label is not UTF-8, and nobody would know.
        if percent_decode_str(parts.uri.query().unwrap_or_default()).decode_utf8().is_err() {
            return Err(Failure::invalid("query parameters are not UTF-8"));
        }
        let Query(query) = query?;
        let parameters = Parameters::read(query, ingest.clock().unix_nanos())?;
        let tenant = tenant::from_headers(&parts.headers)?;
        let tenant: TenantId = tenant.parse().map_err(|error: TenantError| Failure::invalid(error.to_string()))?;
        // gzip is told by its magic, whatever the header says: most senders do not set it.
        content_encoding(&parts.headers)?;
        let ticket = ingest.admit().map_err(|busy| ingest.busy(busy))?;
        let (body, permit) = body::read(&ingest, &parts.headers, body).await?;
        Ok((parameters, tenant, body, permit, ticket))
    };
    let (parameters, tenant, body, permit, ticket) =
        early.await.inspect_err(|failure| ingest.count_refused(Protocol::Http, failure.kind()))?;
    let Parameters { names, time_nanos, duration_nanos } = parameters;
    let request = Request {
        protocol: Protocol::Http,
        tenant,
        names,
        time_nanos,
        duration_nanos,
        body,
        permit,
        deadline: Deadline::of(&parts.extensions).map(Deadline::instant),
        turn: None,
        ticket: Some(ticket),
        trace: None,
    };
    let accepted = ingest.push(request).await.map_err(|refused| refused.failure)?;
    Ok(json(&Answer {
        id: accepted.id.to_string(),
        duplicate: accepted.duplicate,
        warnings: accepted.warnings,
        read_token: accepted.read_token,
    }))
}

// === impl Parameters ===

impl Parameters {
    fn read(query: Vec<(String, String)>, now_nanos: i64) -> Result<Self, Failure> {
        let mut parameters = Self::default();
        let mut seen = Vec::new();
        for (name, value) in query {
            // A label twice is refused where labels are checked.
            if !name.starts_with(LABEL_PREFIX) {
                if seen.contains(&name) {
                    return Err(Failure::invalid(format!("parameter {name} is given twice")));
                }
                seen.push(name.clone());
            }
            let refuse = |reason: String| Failure::invalid(format!("parameter {name}: {reason}"));
            match name.as_str() {
                "service" => parameters.names.labels.push((labels::SERVICE.to_owned(), value)),
                "type" => parameters.names.profile_type = value,
                "id" => parameters.names.id = value,
                "time" => {
                    let nanos = time::parse(&value, now_nanos).map_err(|error| refuse(error.to_string()))?;
                    parameters.time_nanos = Some(nanos);
                }
                "duration" => parameters.duration_nanos = Some(parse_duration(&value).map_err(refuse)?),
                _ => match name.strip_prefix(LABEL_PREFIX) {
                    Some(label) => parameters.names.labels.push((label.to_owned(), value)),
                    // Passed over, a label without its prefix would be lost in silence.
                    None => {
                        return Err(Failure::invalid(format!(
                            "parameter {name} is unknown; labels are given as {LABEL_PREFIX}NAME=VALUE"
                        )));
                    }
                },
            }
        }
        Ok(parameters)
    }
}

/// Reads a duration as people write it (`10s`, `1m 30s`), or as protobuf's JSON does (`10s`, `1.5s`), in nanoseconds.
fn parse_duration(text: &str) -> Result<i64, String> {
    let fraction = text.strip_suffix('s').and_then(|seconds| seconds.parse::<f64>().ok());
    let duration = match fraction {
        Some(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        None => humantime::parse_duration(text).map_err(|error| error.to_string()),
    };
    let duration = duration.map_err(|reason| format!("`{text}` is not a duration such as 10s: {reason}"))?;
    i64::try_from(duration.as_nanos()).map_err(|_| format!("`{text}` is longer than 292 years"))
}
