//! The span of a profile's way from the queue to its outcome, and what the server is told of it, so that the server's spans go on from there.
//!
//! Only the program has it: what a program is told of its own work by the SDK should not be spans of ours.

use afterglow_proto::v1::Profile;

use super::outcome::PushError;

/// A span, or none.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    #[cfg(feature = "scraper")]
    span: Option<tracing::Span>,
}

#[cfg(feature = "scraper")]
impl Trace {
    /// Begins the way of a profile, under the span it was taken in.
    pub(crate) fn begin(profile: &Profile) -> Self {
        let span = tracing::info_span!(
            target: "afterglow_spans",
            "push",
            otel.kind = "producer",
            otel.status_code = tracing::field::Empty,
            id = profile.id,
            service = profile.labels.get("service"),
            profile_type = profile.r#type,
            bytes = profile.pprof.len(),
            attempts = tracing::field::Empty,
            error = tracing::field::Empty,
        );
        Self { span: (!span.is_disabled()).then_some(span) }
    }

    /// Notes that it is sent once more, and returns what to send along; nothing where nobody records it.
    pub(crate) fn sent(&self, attempts: u32) -> String {
        let Some(span) = &self.span else { return String::new() };
        span.record("attempts", attempts);
        afterglow_service::telemetry::Place::of(span).map(|place| place.to_text()).unwrap_or_default()
    }

    /// Notes how it ended.
    pub(crate) fn ended(&self, outcome: Result<(), &PushError>) {
        if let (Some(span), Err(error)) = (&self.span, outcome) {
            span.record("otel.status_code", "ERROR");
            span.record("error", tracing::field::display(error));
        }
    }
}

#[cfg(not(feature = "scraper"))]
impl Trace {
    pub(crate) fn begin(_: &Profile) -> Self {
        Self::default()
    }

    pub(crate) fn sent(&self, _attempts: u32) -> String {
        String::new()
    }

    pub(crate) fn ended(&self, _: Result<(), &PushError>) {}
}
