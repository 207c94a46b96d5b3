//! The rows of docs/refusals.md that are the querier's: each is asked over gRPC and HTTP, and both answer alike. `(R)` marks what may be retried.

use std::fmt::Write as _;
use std::time::Duration;

use afterglow_proto::v1;
use afterglow_service::access::{Entry, Role};
use afterglow_store::maintenance::{Maintainer, Options};
use afterglow_store::retention::Policy;
use afterglow_store::testing::faults::Trouble;
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
    world.put(&[cpu(2, &[("service", "api")], 7_200)]).await;
    for n in [1, 2] {
        let (http, grpc) = fetch(&world, &id(n), &[]).await;
        assert_eq!((http.status, grpc.is_ok()), (200, true), "{http}");
    }
    // Whoever is older than an hour is deleted.
    let retention = Policy { age_max: Some(Duration::from_secs(3_600)), ..Policy::default() };
    let options = Options { retention, ..Options::default() };
    let report = Maintainer::new(world.store.clone(), options).run_to_rest().await.unwrap();
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
    assert_eq!((http.status, grpc.is_ok()), (200, true), "what is younger is there: {http}");
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

    let world = std::sync::Arc::new(World::with(&["--tenant.max-queries=1"]).await);
    let stalled = world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    world.json("/api/v1/services", &[]).await;
    world.faults.on_key(&stalled.path(), Trouble::Stall);
    let held = tokio::spawn({
        let world = std::sync::Arc::clone(&world);
        async move { world.get("/api/v1/merge", &[("query", "{service=\"api\"}"), ("format", "top")]).await.status }
    });
    wait_until(&world, |metrics| gauge(metrics, "afterglow_query_active") == 1).await;
    let http = world.get("/api/v1/profiles", &[]).await;
    let grpc = world.grpc.clone().search(v1::SearchRequest::default()).await;
    table.add("a tenant asks as many questions at once as it may", &http, &grpc.map(drop).unwrap_err());
    let other = world.get_with("/api/v1/profiles", &[], &[("x-scope-orgid", "idle")]).await;
    assert_eq!(other.status, 200, "another is not held up: {other}");
    held.abort();
    table.check("askers");
}
