//! The trace context of W3C (`traceparent`, `tracestate`) in headers, which are gRPC's metadata, too; and [`Place`], for where there are no
//! headers.

use std::collections::HashMap;
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::service::Interceptor;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

static PROPAGATOR: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

/// Reads the trace that a request belongs to; an empty context where it belongs to none.
pub fn extract(headers: &HeaderMap) -> Context {
    PROPAGATOR.extract_with_context(&Context::new(), &Reader(headers))
}

/// Writes the current span's trace into the headers of a request that is about to leave. Without a recorded span it
/// writes nothing.
pub fn inject(headers: &mut HeaderMap) {
    PROPAGATOR.inject_context(&Span::current().context(), &mut Writer(headers));
}

/// The name of what says the trace and the span in it.
const TRACEPARENT: &str = "traceparent";

/// The longest text that is looked at: a `traceparent` of today has 55 bytes, and may grow (W3C Trace Context, 3.2).
const TEXT_BYTES_MAX: usize = 128;

/// A place in a trace: a span that may have been begun elsewhere, and under which, or after which, something is done here. For what is
/// carried from one task to another, or beside a profile on a stream that is open for many.
#[derive(Clone, Debug)]
pub struct Place(Context);

// === impl Place ===

impl Place {
    /// Returns the place of a span; none where nobody records it.
    pub fn of(span: &Span) -> Option<Self> {
        let context = span.context();
        let known = context.span().span_context().clone();
        // The context itself would hold on to the span, which ends on its own.
        known.is_valid().then(|| Self(Context::new().with_remote_span_context(known)))
    }

    /// Returns the place of the current span; none where nobody records it.
    pub fn current() -> Option<Self> {
        Self::of(&Span::current())
    }

    /// Reads what [`Place::to_text`] or anybody else made; none where it is no place.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), text.to_owned())]);
        let context = PROPAGATOR.extract_with_context(&Context::new(), &carrier);
        context.span().span_context().is_valid().then_some(Self(context))
    }

    /// Returns it as the header `traceparent` has it.
    pub fn to_text(&self) -> String {
        let mut carrier = HashMap::new();
        PROPAGATOR.inject_context(&self.0, &mut carrier);
        carrier.remove(TRACEPARENT).unwrap_or_default()
    }

    /// Returns whether the trace is one of those that are kept.
    pub fn is_sampled(&self) -> bool {
        self.0.span().span_context().is_sampled()
    }

    /// Puts a new span under it, whatever it was under before.
    pub fn adopt(&self, span: &Span) {
        // Fails only where nobody records the span.
        let _ = span.set_parent(self.0.clone());
    }

    /// Notes with a span that it has to do with this one, too.
    pub fn link(&self, span: &Span) {
        span.add_link(self.0.span().span_context().clone());
    }
}

/// An interceptor for tonic's clients that lets calls carry the current span's trace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Propagate;

impl Interceptor for Propagate {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        inject(request.metadata_mut().as_mut());
        Ok(request)
    }
}

struct Reader<'a>(&'a HeaderMap);

impl Extractor for Reader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Writer<'a>(&'a mut HeaderMap);

impl Injector for Writer<'_> {
    fn set(&mut self, key: &str, value: String) {
        // What the propagator writes is plain ASCII; should it ever not be, the request goes without.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
