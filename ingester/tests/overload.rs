//! Goal: calls that find no core in time are sent back before they are read, as the wire contract says it, and cost nobody a connection.

mod support;

use std::time::Duration;

use futures::future::join_all;
use support::pprof::{body, gzip_best, head, sample, when};
use support::{Push, TestServer};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use ulid::Ulid;

/// How many come at once: several times what any machine has cores for, and more than streams that HTTP/2 lets end badly.
const CALLS: usize = 1500;

/// How many of them are refused on a large machine.
const REFUSED_MIN: usize = 300;

/// A profile that keeps a core for a while and is larger than the window of a stream.
fn heavy() -> Vec<u8> {
    let samples: Vec<u8> = (0..200_000_u64).flat_map(|n| sample(n * n % 1_000_003)).collect();
    gzip_best([head(), when(), body(1), samples].concat())
}

fn push(profile: &[u8], n: usize) -> Push {
    Push::new(profile.to_vec()).id(&Ulid::from_parts(1_795_559_000_000, n as u128).to_string())
}

fn assert_is_sent_back(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(status.message(), "ingester is busy: no core would be free in time");
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay).expect("a delay");
    assert!((Duration::from_secs(2)..=Duration::from_secs(4)).contains(&delay), "{delay:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_cores_are_sent_back_and_the_connection_lives_on() {
    let server = TestServer::start(&["--limits.stream-window=4KiB"]).await;
    let profile = heavy();
    assert!(profile.len() > 8 << 10, "{} bytes", profile.len());
    let client = server.grpc().await;
    // From the first on it is known how long one takes.
    client.clone().push_profile(push(&profile, CALLS).request()).await.expect("nobody is in the way");

    let calls = (0..CALLS).map(|n| {
        let mut client = client.clone();
        let request = push(&profile, n).request();
        async move { client.push_profile(request).await }
    });
    let outcomes = join_all(calls).await;
    let refused: Vec<&Status> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    refused.iter().for_each(|status| assert_is_sent_back(status));
    let accepted = CALLS - refused.len();
    assert!(accepted > 0 && refused.len() >= REFUSED_MIN, "{accepted} accepted of {CALLS}");

    client.clone().push_profile(push(&profile, CALLS + 1).request()).await.expect("the queue is empty again");
    let metrics = server.metrics.text().expect("metrics");
    for line in [
        "afterglow_server_connections_accepted_total 1".to_owned(),
        format!("afterglow_ingest_profiles_total{{protocol=\"grpc\",outcome=\"accepted\"}} {}", accepted + 2),
        format!(
            "afterglow_ingest_profiles_total{{protocol=\"grpc\",outcome=\"RESOURCE_EXHAUSTED\"}} {}",
            refused.len()
        ),
    ] {
        assert!(metrics.lines().any(|found| found == line), "no line {line} in\n{metrics}");
    }
}
