//! Goal: a tenant that sends more than it may is told so alike on every way in, and when to come back; others are not held up.

mod support;

use support::pprof::good;
use support::{Push, TestServer, Way};
use tonic::Code;

const ALL: [Way; 4] = [Way::Stream, Way::Chunks, Way::Call, Way::Http];

fn push(tenant: &str) -> Push {
    Push { tenant: Some(tenant.to_owned()), ..Push::new(good(1)) }
}

/// Pushes by `way` until it is refused; returns how many were taken, and the words.
async fn until_refused(server: &TestServer, way: Way, tenant: &str) -> (usize, String) {
    for taken in 0..100 {
        let outcome = push(tenant).by(way, server).await;
        if outcome.code != Code::Ok {
            assert_eq!(
                (outcome.code, outcome.retriable),
                (Code::ResourceExhausted, true),
                "{way:?}: {}",
                outcome.message
            );
            assert!(outcome.http.is_none_or(|status| status == 429), "{way:?}: {:?}", outcome.http);
            return (taken, outcome.message);
        }
    }
    panic!("{way:?}: nothing was refused");
}

#[tokio::test]
async fn profiles_beyond_the_rate_are_refused_for_a_while() {
    let server = TestServer::start(&["--tenant.max-profiles-per-second=1"]).await;
    for way in ALL {
        let tenant = format!("{way:?}").to_lowercase();
        let (taken, words) = until_refused(&server, way, &tenant).await;
        assert!(taken >= 11, "ten seconds' worth and one, not {taken}");
        let rate = "1 profiles a second (--tenant.max-profiles-per-second)";
        assert_eq!(words, format!("tenant {tenant} sends more to this ingester than {rate}"));
        assert_eq!(push("another").by(way, &server).await.code, Code::Ok);
    }
    let metrics = server.metrics.text().expect("metrics");
    for (protocol, refused) in [("grpc_stream", 2), ("grpc", 1), ("http", 1)] {
        let line = format!("afterglow_ingest_profiles_total{{protocol=\"{protocol}\",outcome=\"limited\"}} {refused}");
        assert!(metrics.lines().any(|found| found == line), "no line {line} in\n{metrics}");
    }
    assert!(!metrics.contains("outcome=\"RESOURCE_EXHAUSTED\""), "the ingester has room:\n{metrics}");
}

#[tokio::test]
async fn bytes_beyond_the_rate_are_refused_for_a_while() {
    let server = TestServer::start(&["--tenant.max-bytes-per-second=8B"]).await;
    let (_, words) = until_refused(&server, Way::Http, "a").await;
    assert_eq!(words, "tenant a sends more to this ingester than 8 B a second (--tenant.max-bytes-per-second)");
}
