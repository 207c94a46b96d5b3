//! The rows of docs/refusals.md that are the querier's: each is asked over gRPC and HTTP, and both answer alike. `(R)` marks what may be retried.

use std::fmt::Write as _;
use std::sync::Arc;

use afterglow_proto::v1;
use afterglow_service::access::{Entry, Role};
use afterglow_store::maintenance::{Maintainer, Options};
use afterglow_store::retention::Policy;
use afterglow_store::testing::faults::Trouble;
use afterglow_store::{Store, StoreOptions};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::trouble::{gauge, wait_until};
use crate::world::{Answer, World, cpu};

/// The table as it grows.
#[derive(Default)]
struct Table(String);

impl Table {
    /// Adds the row on which HTTP and gRPC agree.
    fn add(&mut self, name: &str, http: &Answer, grpc: &Status) {
        let error = &http.json()["error"];
        let (code, message) = (error["code"].as_str().unwrap(), error["message"].as_str().unwrap());
        let retriable = !http.header("retry-after").is_empty();
        let of_grpc = (afterglow_service::status::code_name(grpc.code()), grpc.message());
        assert_eq!((code, message), of_grpc, "{name}: HTTP and gRPC disagree");
        let delay = grpc.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(retriable, delay.is_some(), "{name}: Retry-After and RetryInfo say the same");
        let retriable = if retriable { " (R)" } else { "" };
        writeln!(self.0, "{name}\n    {code} {}{retriable} {message}", http.status).unwrap();
    }

    /// Adds a row of a call by Connect, which has codes of its own.
    fn add_connect(&mut self, name: &str, answer: &Answer) {
        assert_eq!(answer.header("content-type"), "application/json", "{name}: {answer}");
        let error = answer.json();
        let (code, message) = (error["code"].as_str().unwrap(), error["message"].as_str().unwrap());
        let retriable = if answer.header("retry-after").is_empty() { "" } else { " (R)" };
        writeln!(self.0, "{name}\n    {code} {}{retriable} {message}", answer.status).unwrap();
    }

    fn check(self, name: &str) {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => true }, {
            insta::assert_snapshot!(name, self.0.trim_end());
        });
    }
}

/// Asks for a profile by its id in both ways, as somebody.
async fn fetch(world: &World, id: &str, headers: &[(&'static str, &str)]) -> (Answer, Result<(), Status>) {
    let http = world.get_with(&format!("/api/v1/profiles/{id}"), &[], headers).await;
    let mut request =
        tonic::Request::new(v1::GetProfileRequest { id: id.to_owned(), ..v1::GetProfileRequest::default() });
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    (http, world.grpc.clone().get_profile(request).await.map(drop))
}

/// Ids of nothing, by why there is nothing.
#[tokio::test]
async fn ids() {
    let world = World::new().await;
    let mut table = Table::default();
    let id = |n: u128| ulid::Ulid::from(n).to_string();
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    world.put(&[cpu(2, &[("service", "batch")], 7_200)]).await;
    for n in [1, 2] {
        let (http, grpc) = fetch(&world, &id(n), &[]).await;
        assert_eq!((http.status, grpc.is_ok()), (200, true), "{http}");
    }
    // One of the two is kept for an hour, by the clock of the store, which is the machine's here.
    let rules = vec!["{service=\"batch\"}=1h".parse().unwrap()];
    let retention = Policy { age_max: None, rules, bytes_max: None };
    let options = Options { retention, ..Options::default() };
    let store = Store::new(Arc::new(world.faults.clone()), "memory://".to_owned(), StoreOptions::default());
    let report = Maintainer::new(store, options).run_to_rest().await.unwrap();
    assert_eq!(report.failed, []);
    for (name, id, headers) in [
        ("an id that is none", "not-a-ulid".to_owned(), &[][..]),
        ("an id that nobody gave", id(99), &[]),
        ("the id of a profile that was deleted", id(2), &[]),
        ("the id of another tenant's profile", id(1), &[("x-scope-orgid", "other")]),
        ("a tenant that is none", id(1), &[("x-scope-orgid", "..")]),
    ] {
        let (http, grpc) = fetch(&world, &id, headers).await;
        table.add(name, &http, &grpc.unwrap_err());
    }
    let (http, grpc) = fetch(&world, &id(1), &[]).await;
    assert_eq!((http.status, grpc.is_ok()), (200, true), "what is kept is there: {http}");
    table.check("ids");
}

/// Who may not ask, and who asks too much at once.
#[tokio::test(flavor = "multi_thread")]
async fn askers() {
    let mut table = Table::default();
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::new();
    let [reader, writer] = [("reader", Role::Read), ("writer", Role::Write)].map(|(name, role)| {
        let (secret, entry) = Entry::generate(name.to_owned(), vec![role], vec!["a".to_owned()]).unwrap();
        text.push_str(&entry.to_toml());
        format!("Bearer {}", secret.reveal())
    });
    let file = folder.path().join("tokens.toml");
    std::fs::write(&file, text).unwrap();
    let guarded = World::with(&["--auth.tokens-file", file.to_str().unwrap()]).await;
    let id = ulid::Ulid::from(1_u128).to_string();
    for (name, headers) in [
        ("no token", &[][..]),
        ("a token that the server does not know", &[("authorization", "Bearer agw_0123456789")]),
        ("a token of the role write", &[("authorization", writer.as_str())]),
        ("a token of another tenant", &[("authorization", reader.as_str()), ("x-scope-orgid", "b")]),
        ("a token of the role and the tenant, and an id that nobody gave", &[("authorization", reader.as_str())]),
    ] {
        let (http, grpc) = fetch(&guarded, &id, headers).await;
        table.add(name, &http, &grpc.unwrap_err());
    }

    let world = Arc::new(World::with(&["--tenant.max-queries=1"]).await);
    let stalled = world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    world.json("/api/v1/services", &[]).await;
    world.faults.on_key(&stalled.path(), Trouble::Stall);
    let held = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.get("/api/v1/merge", &[("query", "{service=\"api\"}"), ("format", "top")]).await.status }
    });
    wait_until(&world, |metrics| gauge(metrics, "afterglow_query_active") == 1).await;
    let http = world.get("/api/v1/profiles", &[]).await;
    let grpc = world.grpc.clone().search(v1::SearchRequest::default()).await;
    table.add("a tenant asks as many questions at once as it may", &http, &grpc.map(drop).unwrap_err());
    let metrics = world.get("/metrics", &[]).await.to_string();
    let counted = r#"afterglow_query_requests_total{question="search",outcome="limited"} 2"#;
    assert!(metrics.lines().any(|line| line == counted), "no line {counted} in\n{metrics}");
    let other = world.get_with("/api/v1/profiles", &[], &[("x-scope-orgid", "idle")]).await;
    assert_eq!(other.status, 200, "another is not held up: {other}");
    held.abort();
    table.check("askers");
}

/// What Grafana may ask in vain.
#[tokio::test]
async fn grafana() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    let mut table = Table::default();
    let method = |name: &str| format!("/querier.v1.QuerierService/{name}");
    let (merge, series) = (method("SelectMergeStacktraces"), method("SelectSeries"));
    let json = [("content-type", "application/json")];
    let cpu_id = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";
    let question = |fields: &str| format!("{{\"profileTypeID\":\"{cpu_id}\",{fields}}}");
    for (name, path, headers, body) in [
        ("a content type that is neither", &merge, &[("content-type", "text/plain")][..], "{}".to_owned()),
        ("a stream", &merge, &[("content-type", "application/connect+proto")], String::new()),
        ("no content type", &merge, &[], String::new()),
        (
            "a content encoding that is not known",
            &merge,
            &[("content-type", "application/json"), ("content-encoding", "br")],
            "{}".to_owned(),
        ),
        (
            "a body that is not gzip, though said to be",
            &merge,
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
            "{}".to_owned(),
        ),
        (
            "another version of the protocol",
            &merge,
            &[("content-type", "application/json"), ("connect-protocol-version", "2")],
            "{}".to_owned(),
        ),
        ("a body that is no JSON", &merge, &json, "{".to_owned()),
        ("a body that is no protobuf", &merge, &[("content-type", "application/proto")], "{".to_owned()),
        ("a question of more than 1 MiB", &merge, &json, " ".repeat((1 << 20) + 1)),
        ("no profile type", &merge, &json, "{}".to_owned()),
        ("a profile type that is none", &merge, &json, "{\"profileTypeID\":\"process_cpu\"}".to_owned()),
        (
            "a sample type that is not there",
            &merge,
            &json,
            "{\"profileTypeID\":\"process_cpu:wall:nanoseconds:cpu:nanoseconds\"}".to_owned(),
        ),
        (
            "another unit than that of the sample type",
            &merge,
            &json,
            "{\"profileTypeID\":\"process_cpu:cpu:seconds:cpu:nanoseconds\"}".to_owned(),
        ),
        ("a selector that is none", &merge, &json, question("\"labelSelector\":\"{service_name\"")),
        ("a window that is empty", &merge, &json, question("\"start\":\"1795481000000\",\"end\":\"1795480000000\"")),
        ("a tree", &merge, &json, question("\"format\":\"PROFILE_FORMAT_TREE\"")),
        ("a pprof as JSON", &merge, &json, question("\"format\":4")),
        ("a format that is none", &merge, &json, question("\"format\":9")),
        ("a profile for the compiler", &merge, &json, question("\"stackTraceSelector\":{\"goPgo\":{}}")),
        ("a span that is none", &merge, &json, question("\"spanSelector\":[\"1\"]")),
        ("an id that is none", &merge, &json, question("\"profileIdSelector\":[\"7c9e6679\"]")),
        ("a step that is none", &series, &json, question("\"step\":-1")),
        ("steps that are too short", &series, &json, question("\"step\":0.001")),
        ("an aggregation that is none", &series, &json, question("\"aggregation\":7")),
        (
            "sums of some stacks alone",
            &series,
            &json,
            question("\"stackTraceSelector\":{\"callSite\":[{\"name\":\"a\"}]}"),
        ),
        ("values of no label", &method("LabelValues"), &json, "{}".to_owned()),
        (
            "more selectors than a question may have",
            &method("LabelNames"),
            &json,
            format!("{{\"matchers\":[{}]}}", ["\"{}\""; 9].join(",")),
        ),
        ("a question that is not answered here", &method("Diff"), &json, "{}".to_owned()),
    ] {
        let answer = world.post(path, headers, body).await;
        table.add_connect(name, &answer);
    }
    table.add_connect("GET", &world.get(&merge, &[]).await);
    let grpc = world.post(&merge, &[("content-type", "application/grpc")], "").await;
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, "12"), "{grpc}");
    table.check("grafana");
}
