//! One trace runs through all processes that have to do with a profile, or with a question, down to the requests of the store.

#![allow(clippy::disallowed_methods, reason = "a test waits for programs that cannot wake it")]

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use afterglow_e2e::{Program, built, output, real_profiles};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::transport::server::TcpIncoming;

/// How long a trace may take from the programs to the collector.
const ARRIVED_MAX: Duration = Duration::from_secs(60);

/// The services that a profile is pushed as: a dataset each, so that there is something to share.
const SERVICES: usize = 6;

/// A collector that keeps what it gets: spans, and whose they are.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        for group in request.into_inner().resource_spans {
            let attributes = group.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = attributes.iter().find(|attribute| attribute.key == "service.name");
            let service = match service.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
                Some(Value::StringValue(name)) => name.clone(),
                other => panic!("a program has a name: {other:?}"),
            };
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().expect("not poisoned").extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Received {
    /// Starts it; returns where it listens.
    fn listen(&self, runtime: &tokio::runtime::Runtime) -> String {
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(self.clone()));
        runtime.spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        endpoint
    }

    /// Returns the ways from each span of this name in a service up to the root of its trace, as `service: name`.
    fn ways(&self, service: &str, name: &str) -> Vec<Vec<String>> {
        let spans = self.0.lock().expect("not poisoned");
        let way = |begin: &(String, Span)| {
            let mut way = Vec::new();
            let mut next = Some(begin);
            while let Some((service, span)) = next {
                way.push(format!("{service}: {}", span.name));
                next = spans
                    .iter()
                    .find(|(_, other)| other.trace_id == begin.1.trace_id && other.span_id == span.parent_span_id);
            }
            way
        };
        spans.iter().filter(|(of, span)| of == service && span.name == name).map(way).collect()
    }

    /// Waits until there is a way that has these spans in this order, with others between them. `again` makes one more.
    ///
    /// # Panics
    /// Shows the ways that there are.
    fn wait_for(&self, expected: &[(&str, &str)], mut again: impl FnMut()) {
        let start = Instant::now();
        let (service, name) = expected[0];
        let expected: Vec<String> = expected.iter().map(|(service, name)| format!("{service}: {name}")).collect();
        loop {
            let ways = self.ways(service, name);
            let has_all = |way: &Vec<String>| {
                let mut spans = way.iter();
                expected.iter().all(|expected| spans.any(|span| span == expected))
            };
            if ways.iter().any(has_all) {
                return;
            }
            assert!(start.elapsed() < ARRIVED_MAX, "none has {expected:#?}: {ways:#?}");
            again();
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn start(name: &str, flags: &[&str], env: &[(&str, &str)], more: (&'static str, &str)) -> Program {
    Program::start(name, flags, &[env, &[more]].concat())
}

fn agent(folder: &Path, ingester: &Program, env: &[(&str, &str)]) -> Program {
    let config = folder.join("agent.toml");
    let text = format!(
        "server = \"{}\"\n[[scrape_configs]]\njob_name = \"traced\"\nscrape_interval = \"1s\"\nprofiles = [\"heap\"]\n\
         targets = [\"{}\"]\n",
        ingester.url(),
        ingester.address()
    );
    std::fs::write(&config, text).expect("a file");
    let config = config.display().to_string();
    start("afterglow-agent", &["--config", &config], env, ("OTEL_SERVICE_NAME", "agent"))
}

/// Goal: what a slow upload or a slow question waited for is in one trace, whichever process it was in.
#[test]
fn one_trace_runs_through_all_tiers() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let received = Received::default();
    let collector = received.listen(&runtime);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().join("data").display());
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str()),
        // What is sent in batches is sent soon.
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("AFTERGLOW_STORAGE", storage.as_str()),
        ("AFTERGLOW_LIMITS_MAX_AGE", "0s"),
        ("AFTERGLOW_RETENTION_MAX_AGE", "0s"),
    ];

    let ingester = start("afterglow-ingester", &[], &env, ("OTEL_SERVICE_NAME", "ingester"));
    let _agent = agent(folder.path(), &ingester, &env[..2]);
    let way = [
        ("ingester", "store put"),
        ("ingester", "commit"),
        ("ingester", "ingest"),
        ("agent", "push"),
        ("agent", "scrape"),
    ];
    received.wait_for(&way, || {});

    let profiles = real_profiles();
    let profile = profiles.iter().min_by_key(|profile| profile.body.len()).expect("a profile");
    for number in 0..SERVICES {
        let mut push = Command::new(built("afterglow"));
        push.args(["push", "--server", &ingester.url(), "--type", "x", "--service", &format!("s{number}")]);
        push.arg(&profile.path);
        assert!(output(push).status.success(), "pushed");
    }
    let sibling = start("afterglow-querier", &[], &env, ("OTEL_SERVICE_NAME", "sibling"));
    let no_cache = ["--query.share-above", "0", "--query.range-cache", "0", "--query.decoded-cache", "0"];
    let siblings = sibling.address();
    let flags = [&["--query.siblings", &siblings], &no_cache[..]].concat();
    let querier = start("afterglow-querier", &flags, &env, ("OTEL_SERVICE_NAME", "querier"));
    let way = [
        ("sibling", "store get"),
        ("sibling", "share"),
        ("sibling", "POST /afterglow.v1.SiblingService/MergeShare"),
        ("querier", "ask"),
        ("querier", "merge"),
        ("querier", "GET /api/v1/merge"),
    ];
    received.wait_for(&way, || {
        let (status, answer) = querier.get("/api/v1/merge?type=x&format=folded&start=0");
        assert_eq!(status, 200, "{answer}");
    });
}
