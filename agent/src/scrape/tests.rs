//! The scraper between a fake target and a fake ingester.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use afterglow_service::Program;
use axum::Router;
use axum::extract::Query;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Redirect;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::*;
use crate::connect::Target;
use crate::testing::{Act, Fake, any_port};
use crate::upload::Options;

/// What a CPU profile takes in the fake: less than the second that was asked for, so that tests are quick.
const CPU_TIME: Duration = Duration::from_millis(50);

async fn serve(routes: Router) -> (SocketAddr, AbortHandle) {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(async { axum::serve(listener, routes).await }).abort_handle())
}

fn target() -> Router {
    let calls = Arc::new(AtomicUsize::new(0));
    Router::new()
        .route(
            "/debug/pprof/profile",
            get(async |Query(query): Query<Vec<(String, String)>>| {
                tokio::time::sleep(CPU_TIME).await;
                format!("cpu {query:?}")
            }),
        )
        .route("/debug/pprof/heap", get(async || "heap"))
        .route("/debug/pprof/mutex", get(async || (StatusCode::FORBIDDEN, "go away")))
        .route("/huge", get(async || vec![0u8; BODY_BYTES_MAX + 1]))
        .route("/slow", get(async || tokio::time::sleep(Duration::from_secs(600)).await))
        .route(
            "/flaky",
            get(async move || match calls.fetch_add(1, Ordering::Relaxed) {
                0 => Err(StatusCode::INTERNAL_SERVER_ERROR),
                _ => Ok("flaky"),
            }),
        )
}

/// Scrapes as `jobs` say, each endpoint `rounds` times and without waiting; returns what each scrape gave.
async fn scrape_each(file: &str, client: &Client, metrics: &Metrics, rounds: usize) -> Vec<(String, String)> {
    let scraper = Scraper::new(&file.parse().unwrap(), client.clone(), metrics).unwrap();
    let mut results = Vec::new();
    for endpoint in &scraper.endpoints {
        for _ in 0..rounds {
            let result = scrape(endpoint, &scraper.shared).await;
            results
                .push((endpoint.profile_type.clone(), result.map_or_else(|error| error.to_string(), |()| "ok".into())));
        }
    }
    results
}

fn metrics() -> Metrics {
    Metrics::new(Program::new("afterglow-agent"))
}

fn push_to(address: SocketAddr) -> Client {
    Client::new(Target::new(address.to_string()), Options::default()).unwrap()
}

#[tokio::test]
async fn what_a_target_gives_arrives_with_its_labels_and_what_it_refuses_is_said() {
    let fake = Fake::new(|_, _| Act::Ack);
    let (ingester, _running) = fake.serve(any_port()).await;
    let (address, _target) = serve(target()).await;
    let client = push_to(ingester);
    let file = format!(
        r#"
        [[scrape_configs]]
        job_name = "api"
        scrape_timeout = "1s"
        targets = ["{address}"]
        labels = {{ version = "1" }}
        profiles = [
            {{ type = "cpu", seconds = 1 }}, "heap", "mutex", {{ type = "huge", path = "/huge" }},
            {{ type = "slow", path = "/slow" }}, {{ type = "flaky", path = "/flaky" }},
        ]
        "#
    );
    let results = scrape_each(&file, &client, &metrics(), 1).await;
    let results: Vec<_> = results.iter().map(|(t, r)| (t.as_str(), r.as_str())).collect();
    assert_eq!(
        results,
        [
            ("cpu", "ok"),
            ("heap", "ok"),
            ("mutex", "answered 403: go away"),
            ("huge", "the answer is over 33554432 bytes"),
            ("slow", "no answer within 1 s"),
            ("flaky", "answered 500: "),
        ]
    );
    assert_eq!(client.close(Duration::from_secs(10)).await, 0);
    let seen = fake.seen.lock().unwrap();
    let stored: Vec<_> = seen.stored.values().map(|(profile, _)| profile).collect();
    assert_eq!(stored.len(), 2);
    let cpu = stored.iter().find(|p| p.r#type == "cpu").unwrap();
    assert_eq!(&cpu.pprof[..], br#"cpu [("seconds", "1")]"#);
    assert!(cpu.time.as_ref().unwrap().seconds > 1_700_000_000);
    for profile in stored {
        let labels: Vec<_> = profile.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(labels, [format!("instance={address}"), "job=api".into(), "service=api".into(), "version=1".into()]);
    }
}

#[tokio::test]
async fn a_target_that_is_not_there_is_unreachable() {
    let (address, target) = serve(target()).await;
    target.abort();
    let client = push_to(address);
    let file = format!("[[scrape_configs]]\njob_name = \"a\"\ntargets = [\"{address}\"]\nprofiles = [\"heap\"]");
    // The port closes when the aborted task is gone.
    loop {
        let results = scrape_each(&file, &client, &metrics(), 1).await;
        if results[0].1 != "ok" {
            assert!(results[0].1.starts_with("no answer: "), "{results:?}");
            return;
        }
    }
}

#[tokio::test]
async fn scrapes_repeat_at_their_interval_and_are_counted() {
    let fake = Fake::new(|_, _| Act::Ack);
    let (ingester, _running) = fake.serve(any_port()).await;
    let (address, _target) = serve(target()).await;
    let client = push_to(ingester);
    let metrics = metrics();
    let file = format!(
        r#"
        scrape_interval = "1s"
        [[scrape_configs]]
        job_name = "api"
        targets = ["{address}"]
        profiles = ["heap", {{ type = "flaky", path = "/flaky" }}]
        "#
    );
    let scraper = Scraper::new(&file.parse().unwrap(), client.clone(), &metrics).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(scraper.run(stop.clone()));
    let count =
        |seen: &crate::testing::Seen, kind: &str| seen.stored.values().filter(|(p, _)| p.r#type == kind).count();
    fake.wait_until(|seen| count(seen, "heap") >= 2 && count(seen, "flaky") >= 1).await;
    stop.cancel();
    running.await.unwrap();
    assert_eq!(client.close(Duration::from_secs(10)).await, 0);
    let text = metrics.text().unwrap();
    assert!(text.contains("afterglow_agent_scrapes_total{outcome=\"refused\"} 1\n"), "{text}");
    let acked = client.stats().acked;
    assert!(text.contains(&format!("afterglow_agent_profiles_acked_total {acked}\n")), "{text}");
    assert!(text.contains("afterglow_agent_queue_profiles 0\n"), "{text}");
}

/// Goal: a target that asks for a token gets the one that is in the file now, nobody else gets it, and no error has it.
#[tokio::test]
async fn a_target_that_asks_for_a_token_is_given_the_one_in_the_file() {
    let presented = |headers: &HeaderMap| headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let (elsewhere, _elsewhere) = serve(Router::new().route(
        "/debug/pprof/heap",
        get(async move |headers: HeaderMap| (StatusCode::IM_A_TEAPOT, format!("{:?}", presented(&headers)))),
    ))
    .await;
    let guarded = Router::new()
        .route(
            "/debug/pprof/heap",
            get(async move |headers: HeaderMap| match presented(&headers).as_deref() {
                Some("Bearer agw_first") => Ok("heap"),
                // As a target would that shows what it was asked.
                other => Err((StatusCode::FORBIDDEN, format!("not for {other:?}"))),
            }),
        )
        .route("/moved", get(async move || Redirect::temporary(&format!("http://{elsewhere}/debug/pprof/heap"))));
    let (address, _target) = serve(guarded).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "agw_first\n").unwrap();
    let file = |authorization: &str| {
        format!(
            "[[scrape_configs]]\njob_name = \"api\"\ntargets = [\"{address}\"]\n{authorization}\n\
             profiles = [\"heap\", {{ type = \"goroutine\", path = \"/moved\" }}]\n"
        )
    };
    let fake = Fake::new(|_, _| Act::Ack);
    let (ingester, _running) = fake.serve(any_port()).await;
    let client = push_to(ingester);

    let results = scrape_each(&file(""), &client, &metrics(), 1).await;
    assert_eq!(results[0].1, "answered 403: not for None");

    let file = file(&format!("authorization = {{ credentials_file = {path:?} }}"));
    let scraper = Scraper::new(&file.parse().unwrap(), client.clone(), &metrics()).unwrap();
    let (heap, moved) = (&scraper.endpoints[0], &scraper.endpoints[1]);
    assert!(!format!("{scraper:?}").contains("agw_"));
    scrape(heap, &scraper.shared).await.unwrap();
    let error = scrape(moved, &scraper.shared).await.unwrap_err();
    assert_eq!(error.to_string(), "answered 418: None", "another server is not given the token");

    std::fs::write(&path, "agw_second\n").unwrap();
    let error = scrape(heap, &scraper.shared).await.unwrap_err();
    assert_eq!(error.to_string(), "answered 403: not for Some(\"Bearer ***\")");
    std::fs::remove_file(&path).unwrap();
    let error = scrape(heap, &scraper.shared).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("credentials_file {}: No such file", path.display())), "{error}");
    std::fs::write(&path, "agw_first").unwrap();
    scrape(heap, &scraper.shared).await.unwrap();
    assert_eq!(client.close(Duration::from_secs(10)).await, 0);
    assert_eq!(fake.seen.lock().unwrap().stored.len(), 2);
}
