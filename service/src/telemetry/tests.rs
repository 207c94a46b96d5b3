//! Goal: the usual variables do what they do elsewhere, lines can be read by whom they are for, and a trace crosses
//! programs whole.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use afterglow_proto::v1::ingest_service_client::IngestServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tracing::Instrument as _;

use super::*;
use crate::listen;
use crate::testing::{Lines, PROGRAM, Running, push, subscribe};
use crate::tls::testing::{Authority, Folder};

fn wanted(variables: &[(&str, &str)]) -> Result<Wanted, Error> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    Wanted::from_env(&|name| variables.get(name).map(ToString::to_string))
}

#[test]
fn variables_of_opentelemetry() {
    let collector = |variables: &[(&str, &str)]| wanted(variables).expect("readable").collector;
    let endpoint = |variables: &[(&str, &str)]| collector(variables).map(|collector| collector.endpoint);
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
    let files = [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "all.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "traces.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "client.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "client-key.pem"),
    ];
    let found = collector(&[&[all], &files[..]].concat()).expect("an endpoint");
    let name = |named: Option<(&str, PathBuf)>| named.map(|(variable, path)| format!("{variable}={}", path.display()));
    assert_eq!(
        [name(found.ca), name(found.cert), name(found.key)].map(Option::unwrap_or_default),
        [
            "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE=traces.pem",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=client.pem",
            "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY=client-key.pem",
        ]
    );
}

/// Goal: a sampler that nobody knows is warned of, with those that are, and does not keep the server down.
#[test]
fn samplers_that_are_not_heeded_are_warned_of() {
    let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317");
    let warnings = |sampler: &'static str, argument: &'static str| {
        let variables = [collector, ("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        wanted(&variables).expect("readable").warnings
    };
    assert_eq!(warnings("", ""), [""; 0]);
    for sampler in SAMPLERS {
        assert_eq!(warnings(sampler, "0.25"), [""; 0], "{sampler}");
    }
    assert_eq!(
        warnings("garbage", "0.25"),
        [
            "OTEL_TRACES_SAMPLER=garbage is not known and not heeded, all traces are kept: it may be one of always_on, always_off, \
          traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio"
        ]
    );
    for (argument, said) in [("", "is missing"), ("1.5", "is \"1.5\""), ("half", "is \"half\""), ("NaN", "is \"NaN\"")]
    {
        let warnings = warnings("parentbased_traceidratio", argument);
        assert!(matches!(warnings.as_slice(), [one] if one.contains(said)), "{argument}: {warnings:?}");
    }
    let without = wanted(&[("OTEL_TRACES_SAMPLER", "garbage")]).expect("readable");
    assert_eq!(without.warnings, [""; 0], "nothing is sampled without a collector");
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

/// Symptom: `--log-level warning` switched all logging off, for it is a target to the filter.
#[test]
fn a_word_that_is_no_level_is_refused() {
    for good in ["off,afterglow=debug", "warn,", "INFO,h2=debug", "[put]=debug,info", "audit=off,info"] {
        assert!(filter(&options(LogFormat::Text, good), None).is_ok(), "{good}");
    }
    for (bad, word) in [("warning", "warning"), ("info,inof", "inof"), ("verbose,h2=debug", "verbose"), ("", "x")] {
        let variables = if bad.is_empty() { &[("RUST_LOG", "info,x")][..] } else { &[] };
        let problems = options(LogFormat::Text, bad).problems_with(wanted(variables));
        let setting = if bad.is_empty() { "RUST_LOG" } else { "--log-level" };
        let said = format!("log level `{word}` ({setting}) is not known: it may be off, error, warn, ");
        assert!(matches!(&problems[..], [one] if one.starts_with(&said)), "{bad}: {problems:?}");
    }
}

/// Goal: whoever checks the settings hears all that a start would fail with.
#[test]
fn a_check_finds_what_a_start_would() {
    let problems =
        |level: &str, variables: &[(&str, &str)]| options(LogFormat::Text, level).problems_with(wanted(variables));
    let endpoint = |endpoint: &'static str| ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    assert_eq!(problems("info,afterglow_store=debug", &[endpoint("http://collector:4317")]), [""; 0]);
    let found =
        problems("lots=of=noise", &[endpoint("https://collector:4317"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no")]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("log level `lots=of=noise` (--log-level) cannot be read: "), "{found:?}");
    assert!(found[1].contains("OTEL_EXPORTER_OTLP_CERTIFICATE /no: cannot be read: "), "{found:?}");
    assert_eq!(problems("info", &[("RUST_LOG", "x=y")]).len(), 1);
    assert_eq!(problems("info", &[endpoint("http://a"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]).len(), 1);
    for bad in ["http://", "nonsense://a:1", "not an address", "://a"] {
        let found = problems("info", &[endpoint(bad)]);
        assert!(
            matches!(&found[..], [one] if one.contains("is not valid: expected http://HOST:PORT")),
            "{bad}: {found:?}"
        );
    }
    for (bad, shown) in [
        ("grpc://user:hunter2@collector:4317", "grpc://<secret>@collector:4317"),
        ("user:hunter2@a collector:4317/v1", "<secret>@a collector:4317/v1"),
        ("https:/user:hunter2@a collector:4317", "<secret>@a collector:4317"),
        ("grpc://user:hun/ter2@collector:4317", "grpc://<secret>@collector:4317"),
    ] {
        let found = problems("info", &[endpoint(bad)]).join("");
        assert!(found.contains(&format!("{shown:?} is not valid")), "{bad}: {found}");
    }
}

/// Goal: what is for collectors alone is not in the log, unless somebody names it.
#[test]
fn spans_for_collectors_are_in_the_log_of_who_names_them() {
    subscribe();
    let logged = |log_level: &str| {
        let captured = Lines::default();
        let writer = captured.clone();
        let filter = filter(&options(LogFormat::Text, log_level), None).expect("readable");
        let lines = lines(LogFormat::Text, false, move || writer.clone()).with_filter(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::info_span!(target: "afterglow_spans", "store").in_scope(|| tracing::info!("asked"));
        });
        captured.text()
    };
    let all = logged("trace");
    assert!(all.contains("asked") && !all.contains("store"), "{all}");
    let named = logged("info,afterglow_spans=info");
    assert!(named.contains("store"), "{named}");
}

/// Goal: a place is the same after it was text, and what is no place is none.
#[test]
fn a_place_in_a_trace_goes_as_text() {
    let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let place = Place::parse(text).expect("a place");
    assert_eq!((place.to_text().as_str(), place.is_sampled()), (text, true));
    let unsampled = Place::parse(&text.replace("-01", "-00")).expect("a place");
    assert!(!unsampled.is_sampled());
    let long = format!("{text}-{}", "0".repeat(200));
    for bad in ["", "00-x", "00-00000000000000000000000000000000-b7ad6b7169203331-01", &long] {
        assert!(Place::parse(bad).is_none(), "{bad}");
    }
    assert!(Place::current().is_none(), "nobody records");
}

/// A collector that keeps what it gets: the attributes of the resource as text, and the spans.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Received {
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
    let received = Received::default();
    let listener = listen::bind(([127, 0, 0, 1], 0).into()).await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let routes = tonic::service::Routes::new(TraceServiceServer::new(received.clone())).into_axum_router();
    tokio::spawn(async move { axum::serve(listener, routes).await });

    let collector = Collector { endpoint, ..Collector::default() };
    let provider = provider(PROGRAM, None, &collector).expect("an exporter");
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

    let spans = received.0.lock().expect("not poisoned").clone();
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

/// Makes a span, flushes it, and returns the names of what has arrived.
async fn send(collector: &Collector, received: &Received) -> Vec<String> {
    subscribe();
    let provider = provider(PROGRAM, None, collector).expect("an exporter");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(spans(&provider)), || {
        tracing::info_span!("commit").in_scope(|| {});
    });
    Telemetry { provider: Some(provider) }.shutdown().await;
    std::mem::take(&mut *received.0.lock().expect("not poisoned")).into_iter().map(|(_, span)| span.name).collect()
}

/// Goal: spans reach a collector that speaks TLS and asks for a certificate, verified by the authority that is named; they go to nobody
/// who is not verified, and to a collector that asks for a certificate not without one.
#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_a_collector_over_tls() {
    let authority = Authority::new();
    let folder = Folder::new(&authority.issue("collector"), Some(&authority.pem));
    let read = |name: &str| std::fs::read_to_string(folder.path(name)).expect("a file");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(read("cert.pem"), read("key.pem")))
        .client_ca_root(Certificate::from_pem(&authority.pem));
    let received = Received::default();
    let listener = listen::bind(([127, 0, 0, 1], 0).into()).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut server = tonic::transport::Server::builder().tls_config(tls).expect("TLS");
    let service = TraceServiceServer::new(received.clone());
    tokio::spawn(server.add_service(service).serve_with_incoming(TcpIncoming::from(listener)));

    let own = Folder::new(&authority.issue("agent"), None);
    let named = |path: &Path| Some(("OTEL_EXPORTER_OTLP_X", path.to_owned()));
    let good = Collector {
        endpoint: format!("https://localhost:{port}"),
        ca: named(&folder.path("ca.pem")),
        cert: named(&own.path("cert.pem")),
        key: named(&own.path("key.pem")),
        is_insecure: false,
    };
    assert_eq!(send(&good, &received).await, ["commit"]);
    let without_scheme = Collector { endpoint: format!("localhost:{port}"), ..good.clone() };
    assert_eq!(send(&without_scheme, &received).await, ["commit"], "as OpenTelemetry has it");

    let other = Folder::new(&authority.issue("other"), Some(&Authority::new().pem));
    let unverified = Collector { ca: named(&other.path("ca.pem")), ..good.clone() };
    assert_eq!(send(&unverified, &received).await, [""; 0]);
    let without_own = Collector { cert: None, key: None, ..good.clone() };
    assert_eq!(send(&without_own, &received).await, [""; 0]);

    let said = |collector: &Collector| {
        let error = collector.tls().expect_err("no such file");
        Causes(&error).to_string()
    };
    let missing = said(&Collector { ca: named(Path::new("/nowhere/ca.pem")), ..good.clone() });
    let want = "cannot speak TLS with the collector of spans: OTEL_EXPORTER_OTLP_X /nowhere/ca.pem: cannot be read: ";
    assert!(missing.starts_with(want), "{missing}");
    let key = said(&Collector { cert: named(&own.path("key.pem")), ..good.clone() });
    assert!(key.ends_with("key.pem: holds no certificate in PEM"), "{key}");
    let half = said(&Collector { key: None, ..good.clone() });
    assert_eq!(half, "OTEL_EXPORTER_OTLP_X is given without OTEL_EXPORTER_OTLP_CLIENT_KEY");
    let in_clear = Collector { endpoint: "http://localhost:4317".to_owned(), ca: named(Path::new("/nowhere")), ..good };
    assert!(in_clear.tls().expect("nothing is read").is_none());
}

#[test]
fn what_is_not_recorded_is_not_propagated() {
    let mut headers = http::HeaderMap::new();
    inject(&mut headers);
    assert!(headers.is_empty(), "{headers:?}");
}
