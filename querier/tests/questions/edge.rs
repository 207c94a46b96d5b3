//! What stands around the questions: parameters that are none, tenants that are none, the page at `/`, metrics.

use crate::world::{World, cpu};

/// Goal: what cannot be meant is refused with what could.
#[tokio::test]
async fn refusals_say_what_would_do() {
    let world = World::new().await;
    let refusals = [
        world.refusal("/api/v1/profiles", &[("sevice", "api")]).await,
        world.refusal("/api/v1/profiles", &[("limit", "10001")]).await,
        world.refusal("/api/v1/profiles", &[("limit", "-1")]).await,
        world.refusal("/api/v1/profiles", &[("cursor", "abc")]).await,
        world.refusal("/api/v1/profiles", &[("query", "{service=api}")]).await,
        world.refusal("/api/v1/profiles", &[("type", "CPU")]).await,
        world.refusal("/api/v1/profiles", &[("start", "yesterday")]).await,
        world.refusal("/api/v1/profiles", &[("start", "now"), ("end", "-1h")]).await,
        world.refusal("/api/v1/profiles", &[("start", "-1h"), ("from", "-2h")]).await,
        world.refusal("/api/v1/profiles", &[("read_token", "x")]).await,
        world.refusal("/api/v1/profiles", &[("query", "{}"), ("query", "{}")]).await,
        world.refusal("/api/v1/merge", &[("formt", "top")]).await,
        world.refusal("/api/v1/merge", &[("limit", "many")]).await,
        world.refusal("/api/v1/merge", &[("limit", "4294967296")]).await,
        world.refusal("/api/v1/regressions", &[("min_change", "inf")]).await,
        world.refusal("/api/v1/regressions", &[("min_change", "-1")]).await,
        world.refusal("/api/v1/diff", &[("base_start", "now"), ("base_end", "-1h")]).await,
        world.refusal("/api/v1/labels", &[("limit", "1")]).await,
        world.refusal("/api/v1/nothing", &[]).await,
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}

#[tokio::test]
async fn a_tenant_that_is_none_is_refused() {
    let world = World::new().await;
    let answer = world.get_with("/api/v1/profiles", &[], &[("x-scope-orgid", "..")]).await;
    assert_eq!(answer.status, 400, "{answer}");
    assert_eq!(answer.json()["error"]["message"], "header x-scope-orgid: tenant may not be \"..\"");
}

/// Goal: whoever opens the address with a browser or curl learns how to go on.
#[tokio::test]
async fn the_root_says_how_to_begin() {
    let world = World::new().await;
    let answer = world.get("/", &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; charset=utf-8"));
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.contains("curl --data-binary @cpu.pb.gz"), "{text}");
    assert!(text.contains("go tool pprof 'http://127.0.0.1:"), "{text}");
}

/// Goal: questions are counted by what they were and how they ended, and by nothing a user names.
#[tokio::test]
async fn questions_are_counted() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "checkout")], 20)]).await;
    world.json("/api/v1/profiles", &[]).await;
    world.get("/api/v1/merge", &[]).await;
    world.get("/api/v1/merge", &[("type", "heap")]).await;
    world.get("/api/v1/profiles", &[("type", "CPU")]).await;
    let metrics = world.get("/metrics", &[]).await.to_string();
    for line in [
        r#"afterglow_query_requests_total{question="search",outcome="ok"} 1"#,
        r#"afterglow_query_requests_total{question="search",outcome="refused"} 1"#,
        r#"afterglow_query_requests_total{question="merge",outcome="ok"} 1"#,
        r#"afterglow_query_requests_total{question="merge",outcome="not_found"} 1"#,
        r#"afterglow_query_duration_seconds_count{question="merge"} 2"#,
        r#"afterglow_query_profiles_total{question="merge"} 1"#,
        r#"afterglow_query_blocks_total{question="merge"} 1"#,
        "afterglow_query_active 0",
        "afterglow_query_memory_bytes 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is missing in\n{metrics}");
    }
    assert!(!metrics.contains("checkout"), "{metrics}");
}

/// Goal: a bound that nothing stored can lie beyond is no bound, in whatever form it is given.
#[tokio::test]
async fn a_window_may_have_no_end() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    for (start, end) in [
        ("0", "9999-12-31T00:00:00Z"),
        ("-1h", "10000000000"),
        ("0001-01-01T00:00:00Z", "now"),
        ("-1000y", "now+1000y"),
    ] {
        let answer = world.json("/api/v1/profiles", &[("start", start), ("end", end)]).await;
        assert_eq!(answer["profiles"].as_array().unwrap().len(), 1, "{start} to {end}");
    }
}
