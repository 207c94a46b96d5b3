//! What Grafana asks as it asks Pyroscope: `querier.v1.QuerierService` over Connect, so that its data source of that type shows what is stored here.
//!
//! A question comes as a [`call`], is told in our words ([`names`] has the vocabulary) and asked of the engine as any other; the answer is
//! told back, a flame graph as [`levels`]. So limits, admission, metrics and traces are those of our own questions, and nothing is
//! computed here. Where nothing is selected, the answer is empty, not an error: for Grafana that is "no data". What answers of
//! others have no place for (that they are partial, warnings) is said in headers, as beside files.
//!
//! What belongs here is what that data source and `profilecli` need to read. What a question asks beyond it is refused as `unimplemented`, never
//! passed over; but fields that only add to an answer (exemplars, annotations) are.

mod call;
mod levels;
mod names;

use std::collections::BTreeSet;

use afterglow_profile::{Limits, compress};
use afterglow_proto::pyroscope::querier::v1 as querier;
use afterglow_proto::pyroscope::types::v1 as types;
use afterglow_proto::v1::merge_response::Result as Merge;
use afterglow_proto::{Duration, v1};
use afterglow_service::{Failure, Kind};
use afterglow_store::paths::TenantId;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use querier::ProfileFormat;
use types::TimeSeriesAggregationType as Aggregation;

use self::call::{Call, Codec, Notes};
use self::names::{PROFILE_TYPE, Selected, TypeId};
use crate::query::Engine;
use crate::window::NANOS;

/// The most nodes of a flame graph where the question does not say: as many as Pyroscope gives, and more than a screen shows.
const NODES_DEFAULT: u32 = 8_192;

/// The most series where the question does not say: as many as there may be, for Grafana has a limit of its own.
const SERIES_DEFAULT: u32 = 10_000;

/// The most sets of labels of an answer: some 20 MB of protobuf.
const LABEL_SETS_MAX: usize = 100_000;

/// The most spans or traces of a question: each is a part of one pattern.
const SPANS_MAX: usize = 100;

/// Makes the routes.
pub(crate) fn router(engine: Engine) -> Router {
    let routes = Router::new()
        .route("/ProfileTypes", post(profile_types))
        .route("/LabelNames", post(label_names))
        .route("/LabelValues", post(label_values))
        .route("/Series", post(series))
        .route("/SelectSeries", post(select_series))
        .route("/SelectMergeStacktraces", post(select_merge_stacktraces))
        .route("/SelectMergeSpanProfile", post(select_merge_span_profile))
        .route("/SelectMergeProfile", post(select_merge_profile));
    Router::new().nest("/querier.v1.QuerierService", routes).with_state(engine)
}

// === lists ===

async fn profile_types(
    State(engine): State<Engine>,
    call: Call<querier::ProfileTypesRequest>,
) -> Result<Response, Failure> {
    let Call { tenant, message, codec } = call;
    let selected = names::select("matchers", "", None, (message.start, message.end))?;
    let mut notes = Notes::default();
    let mut profile_types = known_types(&engine, &tenant, selected, &mut notes).await?;
    profile_types.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(codec.answer(&querier::ProfileTypesResponse { profile_types }, &notes))
}

/// Asks for profile types, and tells them as they are known there.
async fn known_types(
    engine: &Engine,
    tenant: &TenantId,
    Selected { selection, type_id }: Selected,
    notes: &mut Notes,
) -> Result<Vec<types::ProfileType>, Failure> {
    let request = v1::ProfileTypesRequest { selection: Some(selection) };
    let answer = engine.profile_types(tenant, request).await?;
    notes.complete(answer.completeness);
    let mut known = Vec::new();
    for of in &answer.types {
        let sample_types = of.sample_types.iter().map(|counts| (&*counts.r#type, &*counts.unit));
        known.extend(names::known_of(&of.r#type, sample_types, type_id.as_ref()));
    }
    Ok(known)
}

async fn label_names(State(engine): State<Engine>, call: Call<types::LabelNamesRequest>) -> Result<Response, Failure> {
    let Call { tenant, message, codec } = call;
    let (mut all, mut notes) = (BTreeSet::new(), Notes::default());
    for Selected { selection, .. } in names::select_any(&message.matchers, (message.start, message.end))? {
        let answer = engine.label_names(&tenant, v1::LabelNamesRequest { selection: Some(selection) }).await?;
        notes.complete(answer.completeness);
        all.extend(answer.names.iter().map(|name| names::shown(name).to_owned()));
    }
    if !all.is_empty() {
        all.insert(PROFILE_TYPE.to_owned());
    }
    Ok(codec.answer(&types::LabelNamesResponse { names: all.into_iter().collect() }, &notes))
}

async fn label_values(
    State(engine): State<Engine>,
    call: Call<types::LabelValuesRequest>,
) -> Result<Response, Failure> {
    let Call { tenant, message, codec } = call;
    let (mut all, mut notes) = (BTreeSet::new(), Notes::default());
    for selected in names::select_any(&message.matchers, (message.start, message.end))? {
        if message.name == PROFILE_TYPE {
            let known = known_types(&engine, &tenant, selected, &mut notes).await?;
            all.extend(known.into_iter().map(|known| known.id));
            continue;
        }
        let name = names::meant(&message.name).to_owned();
        let request = v1::LabelValuesRequest { name, selection: Some(selected.selection) };
        let answer = engine.label_values(&tenant, request).await?;
        notes.complete(answer.completeness);
        all.extend(answer.values);
    }
    Ok(codec.answer(&types::LabelValuesResponse { names: all.into_iter().collect() }, &notes))
}

async fn series(State(engine): State<Engine>, call: Call<querier::SeriesRequest>) -> Result<Response, Failure> {
    let Call { tenant, message, codec } = call;
    let asked: BTreeSet<&str> = message.label_names.iter().map(String::as_str).collect();
    let (mut sets, mut notes) = (BTreeSet::new(), Notes::default());
    for Selected { selection, type_id } in names::select_any(&message.matchers, (message.start, message.end))? {
        let answer = engine.label_sets(&tenant, selection).await?;
        notes.complete(Some(answer.completeness));
        for counted in &answer.series {
            let of_series = names::label_sets(counted, &asked, type_id.as_ref());
            sets.extend(
                of_series.map(|labels| labels.into_iter().map(|pair| (pair.name, pair.value)).collect::<Vec<_>>()),
            );
            if sets.len() > LABEL_SETS_MAX {
                let message = format!(
                    "there are more than the {LABEL_SETS_MAX} sets of labels that an answer may have; name fewer in label_names, or narrow \
                     the selector or the window"
                );
                return Err(Failure::too_large(message));
            }
        }
    }
    let pair = |(name, value)| types::LabelPair { name, value };
    let labels = |set: Vec<_>| types::Labels { labels: set.into_iter().map(pair).collect() };
    let labels_set = sets.into_iter().filter(|set| !set.is_empty()).map(labels).collect();
    Ok(codec.answer(&querier::SeriesResponse { labels_set }, &notes))
}

// === sums ===

async fn select_series(
    State(engine): State<Engine>,
    call: Call<querier::SelectSeriesRequest>,
) -> Result<Response, Failure> {
    let Call { tenant, message, codec } = call;
    let asked = TypeId::parse("profile_typeID", &message.profile_type_id)?;
    let window = (message.start, message.end);
    let Selected { selection, .. } =
        names::select("label_selector", &message.label_selector, Some(asked.clone()), window)?;
    if message.stack_trace_selector.is_some_and(|stacks| !stacks.call_site.is_empty() || stacks.go_pgo.is_some()) {
        return Err(Failure::unimplemented("stack_trace_selector: sums over time are of whole profiles alone here"));
    }
    let aggregation = message.aggregation.unwrap_or_default();
    let aggregation = Aggregation::try_from(aggregation)
        .map_err(|_| Failure::invalid(format!("aggregation {aggregation} is not 0 for sum or 1 for average")))?;
    let request = v1::SeriesRequest {
        selection: Some(selection),
        step: Some(step(message.step)?),
        by: message.group_by.iter().map(|name| names::meant(name).to_owned()).collect(),
        sample_type: asked.sample_type.clone(),
        limit: match message.limit {
            None | Some(0) => SERIES_DEFAULT,
            Some(limit) => u32::try_from(limit)
                .map_err(|_| Failure::invalid(format!("limit {limit} is not a number of series")))?,
        },
        ..v1::SeriesRequest::default()
    };
    let answer = engine.series(&tenant, request).await?;
    asked.check_unit(answer.sample_type.as_ref())?;
    let by: BTreeSet<&str> = message.group_by.iter().map(String::as_str).collect();
    let told = |series: v1::TimeSeries| {
        let value = |name: &&str| series.labels.get(names::meant(name)).filter(|value| !value.is_empty());
        let labels = by.iter().filter_map(|name| Some((name, value(name)?)));
        let labels = labels.map(|(name, value)| types::LabelPair { name: (*name).to_owned(), value: value.clone() });
        let points = series.points.iter().map(|point| types::Point {
            value: match aggregation {
                Aggregation::Sum => point.value as f64,
                Aggregation::Average => point.value as f64 / point.profiles.max(1) as f64,
            },
            timestamp: point.time.as_ref().map(names::millis).unwrap_or_default(),
        });
        types::Series { labels: labels.collect(), points: points.collect() }
    };
    let mut notes = Notes::default();
    notes.complete(answer.completeness);
    notes.warn(answer.warnings);
    if answer.series_truncated > 0 {
        notes.warn([format!("{} series are left out by the limit", answer.series_truncated)]);
    }
    Ok(codec.answer(&querier::SelectSeriesResponse { series: answer.series.into_iter().map(told).collect() }, &notes))
}

/// Reads the length of a step, in seconds; 0 leaves it to the engine.
fn step(seconds: f64) -> Result<Duration, Failure> {
    /// As long as 64 bits of nanoseconds can be.
    const SECONDS_MAX: f64 = 9e9;
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(Failure::invalid(format!("step {seconds} is not a number of seconds")));
    }
    let nanos = (seconds * NANOS as f64).round() as i64;
    Ok(Duration { seconds: nanos / NANOS, nanos: (nanos % NANOS) as i32 })
}

// === merges ===

/// What all questions that merge have in common.
#[derive(Debug, Default)]
struct Merging {
    profile_type_id: String,
    label_selector: String,
    window: (i64, i64),
    max_nodes: Option<i64>,
    stacks: Option<types::StackTraceSelector>,
    ids: Vec<String>,
    traces: Vec<String>,
    spans: Vec<String>,
}

async fn select_merge_stacktraces(
    State(engine): State<Engine>,
    call: Call<querier::SelectMergeStacktracesRequest>,
) -> Result<Response, Failure> {
    let Call { tenant, message, codec } = call;
    let form = form(message.format, codec)?;
    let merging = Merging {
        profile_type_id: message.profile_type_id,
        label_selector: message.label_selector,
        window: (message.start, message.end),
        max_nodes: message.max_nodes,
        stacks: message.stack_trace_selector,
        ids: message.profile_id_selector,
        traces: message.trace_id_selector,
        spans: message.span_selector,
    };
    let mut notes = Notes::default();
    let mut answer = querier::SelectMergeStacktracesResponse::default();
    match merge(&engine, &tenant, merging, form, &mut notes).await? {
        Some(Merge::Flamegraph(graph)) => answer.flamegraph = levels::write(graph),
        Some(Merge::Dot(dot)) => answer.dot = dot,
        Some(Merge::Pprof(pprof)) => answer.pprof = Some(querier::Pprof { profile: inflate(pprof).await? }),
        Some(Merge::Top(_) | Merge::Folded(_)) | None => {}
    }
    Ok(codec.answer(&answer, &notes))
}

async fn select_merge_span_profile(
    State(engine): State<Engine>,
    call: Call<querier::SelectMergeSpanProfileRequest>,
) -> Result<Response, Failure> {
    let Call { tenant, message, codec } = call;
    let v1::MergeFormat::Flamegraph = form(message.format, codec)? else {
        return Err(Failure::unimplemented("format: the samples of spans are answered as a flame graph alone"));
    };
    let merging = Merging {
        profile_type_id: message.profile_type_id,
        label_selector: message.label_selector,
        window: (message.start, message.end),
        max_nodes: message.max_nodes,
        spans: message.span_selector,
        ..Merging::default()
    };
    let mut notes = Notes::default();
    let flamegraph = match merge(&engine, &tenant, merging, v1::MergeFormat::Flamegraph, &mut notes).await? {
        Some(Merge::Flamegraph(graph)) => levels::write(graph),
        _ => None,
    };
    Ok(codec.answer(&querier::SelectMergeSpanProfileResponse { flamegraph }, &notes))
}

async fn select_merge_profile(
    State(engine): State<Engine>,
    call: Call<querier::SelectMergeProfileRequest>,
) -> Result<Response, Failure> {
    let Call { tenant, message, codec } = call;
    let form = form(ProfileFormat::Pprof.into(), codec)?;
    let merging = Merging {
        profile_type_id: message.profile_type_id,
        label_selector: message.label_selector,
        window: (message.start, message.end),
        stacks: message.stack_trace_selector,
        ids: message.profile_id_selector,
        traces: message.trace_id_selector,
        ..Merging::default()
    };
    let mut notes = Notes::default();
    let pprof = match merge(&engine, &tenant, merging, form, &mut notes).await? {
        Some(Merge::Pprof(pprof)) => inflate(pprof).await?,
        // As protobuf, an empty profile has no bytes.
        _ => Bytes::new(),
    };
    Ok(call::proto(pprof, &notes))
}

/// Reads in which form an answer is asked for.
fn form(number: i32, codec: Codec) -> Result<v1::MergeFormat, Failure> {
    match (ProfileFormat::try_from(number), codec) {
        (Ok(ProfileFormat::Unspecified | ProfileFormat::Flamegraph), _) => Ok(v1::MergeFormat::Flamegraph),
        (Ok(ProfileFormat::Dot), _) => Ok(v1::MergeFormat::Dot),
        (Ok(ProfileFormat::Pprof), Codec::Proto) => Ok(v1::MergeFormat::Pprof),
        // Ten times as long, and nobody reads it.
        (Ok(ProfileFormat::Pprof), Codec::Json) => {
            Err(Failure::unimplemented("a pprof is answered as application/proto alone, or as a file at /api/v1/merge"))
        }
        (Ok(ProfileFormat::Tree), _) => {
            Err(Failure::unimplemented("format: trees are not written here; ask for a flame graph, dot or pprof"))
        }
        (Err(_), _) => Err(Failure::invalid(format!("format {number} is not one of 0 to 4"))),
    }
}

/// Merges; none where nothing is selected.
async fn merge(
    engine: &Engine,
    tenant: &TenantId,
    merging: Merging,
    format: v1::MergeFormat,
    notes: &mut Notes,
) -> Result<Option<Merge>, Failure> {
    let asked = TypeId::parse("profile_typeID", &merging.profile_type_id)?;
    let Selected { selection, .. } =
        names::select("label_selector", &merging.label_selector, Some(asked.clone()), merging.window)?;
    let is_by_ids = !merging.ids.is_empty();
    let request = v1::MergeRequest {
        selection: Some(selection),
        format: format.into(),
        sample_type: asked.sample_type.clone(),
        limit: match (format, merging.max_nodes) {
            // A pprof is whole, and of a call graph few are drawn where nobody says.
            (v1::MergeFormat::Pprof, _) | (v1::MergeFormat::Dot, None | Some(0)) => 0,
            (_, None | Some(0)) => NODES_DEFAULT,
            (_, Some(nodes)) if nodes < 0 => 0,
            (_, Some(nodes)) => u32::try_from(nodes).unwrap_or(u32::MAX),
        },
        filter: Some(v1::StackFilter {
            tag_focus: tag_focus(&merging.traces, &merging.spans)?,
            call_site: call_site(merging.stacks)?,
            ..v1::StackFilter::default()
        }),
        ids: merging.ids,
        ..v1::MergeRequest::default()
    };
    let answer = match engine.merge(tenant, request).await {
        Ok(answer) => answer,
        Err(failure) if failure.kind() == Kind::NotFound && !is_by_ids => {
            notes.warn([failure.message().to_owned()]);
            return Ok(None);
        }
        Err(failure) => return Err(failure),
    };
    notes.complete(answer.completeness);
    notes.warn(answer.warnings);
    if let Some(Merge::Flamegraph(graph)) = &answer.result {
        asked.check_unit(graph.sample_type.as_ref())?;
    }
    Ok(answer.result)
}

/// Reads which functions stacks are to begin with.
fn call_site(stacks: Option<types::StackTraceSelector>) -> Result<Vec<String>, Failure> {
    let stacks = stacks.unwrap_or_default();
    if stacks.go_pgo.is_some() {
        return Err(Failure::unimplemented(
            "stack_trace_selector.go_pgo: give the whole pprof to the compiler, which takes it",
        ));
    }
    Ok(stacks.call_site.into_iter().map(|location| location.name).collect())
}

/// Writes the pattern for samples of these traces or spans; an empty one where neither is asked for.
fn tag_focus(traces: &[String], spans: &[String]) -> Result<String, Failure> {
    let (field, label, ids, digits) = match (traces, spans) {
        ([], []) => return Ok(String::new()),
        ([], spans) => ("span_selector", "span_id", spans, 16),
        (traces, []) => ("trace_id_selector", "trace_id", traces, 32),
        _ => return Err(Failure::invalid("trace_id_selector and span_selector are given together; give one")),
    };
    if ids.len() > SPANS_MAX {
        return Err(Failure::invalid(format!(
            "{field} has {} ids, more than the {SPANS_MAX} of a question",
            ids.len()
        )));
    }
    if let Some(id) = ids.iter().find(|id| id.len() != digits || !id.bytes().all(|b| b.is_ascii_hexdigit())) {
        /// Enough of a long one to find it.
        const SHOWN_CHARS: usize = 64;
        let shown: String = id.chars().take(SHOWN_CHARS).collect();
        return Err(Failure::invalid(format!("{field}: {shown:?} is not of {digits} hexadecimal digits")));
    }
    Ok(format!("{label}=(?i)^(?:{})$", ids.join("|")))
}

/// Inflates a pprof that we have compressed, on the pool that may block.
async fn inflate(pprof: Bytes) -> Result<Bytes, Failure> {
    /// More than a merge is admitted with.
    const BYTES_MAX: u64 = 1 << 40;
    let limits = Limits {
        body_bytes_max: BYTES_MAX,
        inflated_bytes_max: BYTES_MAX,
        inflate_ratio_max: BYTES_MAX,
        ..Limits::default()
    };
    let inflated = tokio::task::spawn_blocking(move || compress::inflate(&pprof, &limits).map(|raw| raw.into_owned()));
    Ok(inflated.await.map_err(Failure::internal)?.map_err(Failure::internal)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_seconds_with_a_fraction() {
        assert_eq!(step(15.0), Ok(Duration { seconds: 15, nanos: 0 }));
        assert_eq!(step(0.25), Ok(Duration { seconds: 0, nanos: 250_000_000 }));
        assert_eq!(step(0.0), Ok(Duration::default()));
        for wrong in [-1.0, f64::NAN, f64::INFINITY, 1e10] {
            assert!(step(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn spans_become_a_pattern_and_nothing_else_does() {
        let focus = |traces: &[&str], spans: &[&str]| {
            let owned = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
            tag_focus(&owned(traces), &owned(spans)).map_err(|failure| failure.message().to_owned())
        };
        assert_eq!(focus(&[], &[]), Ok(String::new()));
        let two = ["9a517183f26a089d", "5A4FE264A9C987FE"];
        assert_eq!(focus(&[], &two), Ok("span_id=(?i)^(?:9a517183f26a089d|5A4FE264A9C987FE)$".to_owned()));
        let wrong = focus(&[], &["9a517183f26a089d|.*"]).unwrap_err();
        assert_eq!(wrong, "span_selector: \"9a517183f26a089d|.*\" is not of 16 hexadecimal digits");
        assert!(focus(&two, &[]).unwrap_err().contains("32 hexadecimal digits"));
        assert!(focus(&two, &two).unwrap_err().contains("together"));
        let many = vec![two[0]; SPANS_MAX + 1];
        assert_eq!(focus(&[], &many).unwrap_err(), "span_selector has 101 ids, more than the 100 of a question");
    }
}
