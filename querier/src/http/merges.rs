//! Merges and diffs, by GET: parameters become the request that gRPC takes; a pprof is a file, other answers are text or JSON.

use afterglow_proto::v1;
use afterglow_proto::v1::diff_response::Result as Diff;
use afterglow_proto::v1::merge_response::Result as Merge;
use afterglow_service::{Failure, http as answers};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, HeaderValue};

use super::api::Asked;
use crate::query::Engine;
use crate::window::{self, Window};

/// How many profiles were merged into a file or text, which has no other place to say so.
const PROFILES: HeaderName = HeaderName::from_static("x-afterglow-profiles");
const BASE_PROFILES: HeaderName = HeaderName::from_static("x-afterglow-base-profiles");

/// `true` beside a file that could not be made of all stored data.
const PARTIAL: HeaderName = HeaderName::from_static("x-afterglow-partial");

/// One damaged or unreadable object, or one thing to know; as often as there are.
const PROBLEM: HeaderName = HeaderName::from_static("x-afterglow-problem");
const WARNING: HeaderName = HeaderName::from_static("x-afterglow-warning");

/// What the answer cost, as JSON, beside a file or text: the file stays what readers of it expect.
const EXPLAIN: HeaderName = HeaderName::from_static("x-afterglow-explain");

/// The most problems or warnings in headers: clients refuse long ones. JSON and gRPC have them all.
const NOTES_MAX: usize = 8;

pub(super) async fn merge(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let request = v1::MergeRequest {
        selection: Some(asked.selection(engine.now_nanos())?),
        format: asked.format()?.into(),
        sample_type: asked.params.text("sample_type").unwrap_or_default(),
        limit: asked.params.number("limit")?.unwrap_or_default(),
        filter: Some(asked.filter()),
        ids: asked.params.some("ids")?,
        view: asked.view()?.into(),
        function: asked.params.text("function").unwrap_or_default(),
        explain: asked.params.flag("explain")?,
    };
    asked.params.finish()?;
    let mut merged = engine.merge(&asked.tenant, request).await?;
    let response = match merged.result.take() {
        Some(Merge::Pprof(pprof)) => answers::file("merged.pb.gz", pprof),
        Some(Merge::Folded(text) | Merge::Dot(text)) => text.into_response(),
        result => return Ok(answers::json(&v1::MergeResponse { result, ..merged })),
    };
    let response = with_notes(response, &[(PROFILES, merged.profiles)], merged.completeness, &merged.warnings);
    Ok(explained(response, merged.explain.as_ref()))
}

pub(super) async fn diff(State(engine): State<Engine>, mut asked: Asked) -> Result<Response, Failure> {
    let now_nanos = engine.now_nanos();
    let selection = asked.selection(now_nanos)?;
    let base = asked.base(&selection, now_nanos)?;
    let request = v1::DiffRequest {
        selection: Some(selection),
        base,
        format: asked.format()?.into(),
        sample_type: asked.params.text("sample_type").unwrap_or_default(),
        limit: asked.params.number("limit")?.unwrap_or_default(),
        filter: Some(asked.filter()),
        normalize: asked.params.flag("normalize")?,
        mark_base: asked.params.flag("mark_base")?,
        explain: asked.params.flag("explain")?,
    };
    asked.params.finish()?;
    let mut diff = engine.diff(&asked.tenant, request).await?;
    let response = match diff.result.take() {
        Some(Diff::Pprof(pprof)) => answers::file("diff.pb.gz", pprof),
        Some(Diff::Folded(text) | Diff::Dot(text)) => text.into_response(),
        result => return Ok(answers::json(&v1::DiffResponse { result, ..diff })),
    };
    let counts = [(PROFILES, diff.profiles), (BASE_PROFILES, diff.base_profiles)];
    let response = with_notes(response, &counts, diff.completeness, &diff.warnings);
    Ok(explained(response, diff.explain.as_ref()))
}

impl Asked {
    /// Takes the form of an answer.
    fn format(&mut self) -> Result<v1::MergeFormat, Failure> {
        match self.params.text("format").as_deref() {
            None | Some("pprof") => Ok(v1::MergeFormat::Pprof),
            Some("flamegraph") => Ok(v1::MergeFormat::Flamegraph),
            Some("top") => Ok(v1::MergeFormat::Top),
            Some("folded") => Ok(v1::MergeFormat::Folded),
            Some("dot") => Ok(v1::MergeFormat::Dot),
            Some(other) => {
                let expected = "pprof, flamegraph, top, folded or dot";
                Err(Failure::invalid(format!("parameter \"format\": {other:?} is not {expected}")))
            }
        }
    }

    /// Takes the view.
    fn view(&mut self) -> Result<v1::StackView, Failure> {
        match self.params.text("view").as_deref() {
            None => Ok(v1::StackView::Unspecified),
            Some("callers") => Ok(v1::StackView::Callers),
            Some("callees") => Ok(v1::StackView::Callees),
            Some(other) => Err(Failure::invalid(format!("parameter \"view\": {other:?} is not callers or callees"))),
        }
    }

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

    /// Takes the base of a comparison: what differs from `selection`; none where nothing does. A window of which one end is given is as long
    /// as that of the selection.
    pub(super) fn base(&mut self, selection: &v1::Selection, now_nanos: i64) -> Result<Option<v1::Selection>, Failure> {
        let query = self.params.text("base_query");
        let start = self.moment(["base_start", "base_from"], now_nanos)?;
        let end = self.moment(["base_end", "base_to"], now_nanos)?;
        if query.is_none() && start.is_none() && end.is_none() {
            return Ok(None);
        }
        let (start, end) = match (start, end) {
            (None, None) => (selection.start, selection.end),
            (start, end) => {
                let own = Window::resolve(selection.start.as_ref(), selection.end.as_ref(), now_nanos);
                let own = own.map_err(|error| Failure::invalid(error.to_string()))?;
                let window = Window::as_long(start.as_ref(), end.as_ref(), own);
                let window = window.map_err(|error| Failure::invalid(format!("base: {error}")))?;
                (Some(window::timestamp(window.start_nanos)), Some(window::timestamp(window.end_nanos)))
            }
        };
        let query = query.unwrap_or_else(|| selection.query.clone());
        Ok(Some(v1::Selection { query, start, end, ..selection.clone() }))
    }
}

/// Says in headers what JSON says in fields.
pub(super) fn with_notes(
    mut response: Response,
    counts: &[(HeaderName, u64)],
    completeness: Option<v1::Completeness>,
    warnings: &[String],
) -> Response {
    let headers = response.headers_mut();
    for (name, count) in counts {
        headers.insert(name, (*count).into());
    }
    let completeness = completeness.unwrap_or_default();
    if completeness.partial {
        headers.insert(PARTIAL, HeaderValue::from_static("true"));
    }
    for (name, notes) in [(PROBLEM, &completeness.problems[..]), (WARNING, warnings)] {
        for note in notes.iter().take(NOTES_MAX) {
            headers.append(name.clone(), header_text(note));
        }
    }
    response
}

/// Says in a header what JSON says in a field.
fn explained(mut response: Response, explain: Option<&v1::Explain>) -> Response {
    if let Some(explain) = explain {
        let json = serde_json::to_string(explain).expect("numbers and names have a JSON");
        response.headers_mut().insert(EXPLAIN, header_text(&json));
    }
    response
}

/// Makes a text fit for a header.
fn header_text(text: &str) -> HeaderValue {
    let plain: String = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    HeaderValue::try_from(plain).expect("visible ASCII and spaces")
}
