//! Goal: the usual variables do what they do elsewhere, lines can be read by whom they are for, and a trace crosses
//! programs whole.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use tracing::Instrument as _;

use super::*;
use crate::listen;
use crate::testing::{Lines, PROGRAM, Running, push, subscribe};

fn wanted(variables: &[(&str, &str)]) -> Result<Wanted, Error> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    Wanted::from_env(&|name| variables.get(name).map(ToString::to_string))
}

#[test]
fn variables_of_opentelemetry() {
    let endpoint = |variables: &[(&str, &str)]| wanted(variables).expect("readable").endpoint;
    let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317");
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317");
    assert_eq!(endpoint(&[]), None);
    assert_eq!(endpoint(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
    assert_eq!(endpoint(&[all]).as_deref(), Some("http://all:4317"));
    assert_eq!(endpoint(&[all, traces]).as_deref(), Some("http://traces:4317"));
    assert_eq!(endpoint(&[all, ("OTEL_SDK_DISABLED", "True")]), None);
    assert_eq!(endpoint(&[all, ("OTEL_SDK_DISABLED", "false")]).as_deref(), Some("http://all:4317"));
    assert_eq!(endpoint(&[all, ("OTEL_TRACES_EXPORTER", "none")]), None);
    assert_eq!(endpoint(&[all, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).as_deref(), Some("http://all:4317"));
    let error = wanted(&[all, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]).expect_err("not grpc");
    assert!(error.to_string().starts_with("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf is not supported"), "{error}");
    assert_eq!(
        endpoint(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]),
        None,
        "nothing is sent, so nothing is wrong"
    );
}

#[test]
fn variables_of_others() {
    let plain = wanted(&[("NO_COLOR", "1"), ("RUST_LOG", "debug"), ("OTEL_SERVICE_NAME", "mine")]).expect("readable");
    assert_eq!(
        (plain.colour, plain.rust_log.as_deref(), plain.service_name.as_deref()),
        (false, Some("debug"), Some("mine"))
    );
    let unset = wanted(&[("NO_COLOR", ""), ("RUST_LOG", "")]).expect("readable");
    assert_eq!((unset.colour, unset.rust_log), (true, None));
}

fn options(format: LogFormat, level: &str) -> Options {
    Options { log_format: format, log_level: level.to_owned() }
}

/// Returns what is written of a span with an event in it, and of an event of the plumbing.
fn written(options: &Options, rust_log: Option<&str>) -> Result<String, Error> {
    subscribe();
    let captured = Lines::default();
    let writer = captured.clone();
    let lines = lines(options.log_format, false, move || writer.clone())
        .with_filter(filter(options, rust_log.map(str::to_owned))?);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
        let span = tracing::info_span!("commit", block = "b1");
        span.in_scope(|| {
            tracing::info!(profiles = 3, "committed");
            tracing::debug!(attempt = 1, "putting");
        });
        tracing::debug!(target: "h2::codec", "a frame");
    });
    Ok(captured.text())
}

#[test]
fn text_is_for_people() {
    let text = written(&options(LogFormat::Text, "info"), None).expect("readable");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(
        lines[0].ends_with(r#"INFO commit{block="b1"}: afterglow_service::telemetry::tests: committed profiles=3"#),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "no colour: {text:?}");
}

#[test]
fn json_is_an_object_a_line() {
    let text = written(&options(LogFormat::Json, "info"), None).expect("readable");
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).expect("one object");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["message"], "committed");
    assert_eq!(line["profiles"], 3);
    assert_eq!(line["span"]["block"], "b1");
    assert!(line["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{line}");
}

/// Goal: debug is about us; frames of HTTP/2 come only to whoever names them.
#[test]
fn levels_and_directives() {
    let debug = written(&options(LogFormat::Text, "debug"), None).expect("readable");
    assert!(debug.contains("putting") && !debug.contains("a frame"), "{debug}");
    let named = written(&options(LogFormat::Text, "info"), Some("info,h2=debug")).expect("readable");
    assert!(!named.contains("putting") && named.contains("a frame"), "{named}");
    let ours = written(&options(LogFormat::Text, "warn,afterglow_service=debug"), None).expect("readable");
    assert!(ours.contains("putting"), "{ours}");

    let error = written(&options(LogFormat::Text, "lots=of=noise"), None).expect_err("no level");
    assert_eq!(error.to_string(), "log level `lots=of=noise` (--log-level) cannot be read");
    let error = written(&options(LogFormat::Text, "info"), Some("x=y")).expect_err("no level");
    assert_eq!(error.to_string(), "log level `x=y` (RUST_LOG) cannot be read");
}

/// A collector that keeps what it gets: the attributes of the resource as text, and the spans.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        for group in request.into_inner().resource_spans {
            let resource = format!("{:?}", group.resource);
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().expect("not poisoned").extend(spans.map(|span| (resource.clone(), span)));
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Goal: the spans of a client and of the server it calls arrive at a collector as one trace, and the flush brings the
/// last of them.
#[tokio::test]
async fn a_trace_crosses_grpc_and_reaches_the_collector() {
    let collector = Collector::default();
    let listener = listen::bind(([127, 0, 0, 1], 0).into()).await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let routes = tonic::service::Routes::new(TraceServiceServer::new(collector.clone())).into_axum_router();
    tokio::spawn(async move { axum::serve(listener, routes).await });

    let provider = provider(PROGRAM, None, endpoint).expect("an exporter");
    {
        // The test's runtime has one thread, so this is the subscriber of the server's tasks, too.
        let subscriber = tracing_subscriber::registry().with(spans(&provider));
        let _guard = tracing::subscriber::set_default(subscriber);
        let server = Running::start(listen::Options::default()).await;
        let channel = server.channel().await;
        let span = tracing::info_span!("push");
        let call = async { IngestServiceClient::with_interceptor(channel, Propagate).push_profile(push("a")).await };
        call.instrument(span).await.expect("pushed");
        assert_eq!(server.get("/healthz").await.status, 200);
        server.stop.cancel();
        server.end().await;
    }
    Telemetry { provider: Some(provider) }.shutdown().await;

    let spans = collector.0.lock().expect("not poisoned").clone();
    let named = |name: &str| {
        let found = spans.iter().find(|(_, span)| span.name == name);
        &found.unwrap_or_else(|| panic!("no span {name} among {spans:?}")).1
    };
    let (client, served) = (named("push"), named("POST /afterglow.v1.IngestService/PushProfile"));
    assert_eq!(served.trace_id, client.trace_id);
    assert_eq!(served.parent_span_id, client.span_id);
    assert!(client.parent_span_id.is_empty());
    let attributes = format!("{:?}", served.attributes);
    assert!(attributes.contains("request_id") && attributes.contains("\"OK\""), "{attributes}");
    assert!(
        spans.iter().all(|(resource, _)| resource.contains("afterglow-test") && resource.contains("1.2.3")),
        "{spans:?}"
    );
    assert!(
        spans.iter().all(|(_, span)| !span.name.contains("opentelemetry")),
        "the export itself is not traced: {spans:?}"
    );
}

#[test]
fn what_is_not_recorded_is_not_propagated() {
    let mut headers = http::HeaderMap::new();
    inject(&mut headers);
    assert!(headers.is_empty(), "{headers:?}");
}
