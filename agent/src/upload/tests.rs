//! The client against a fake ingester that fails in every way. The property throughout: each profile is acknowledged, once, and none
//! is lost.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use afterglow_proto::v1::Profile;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tonic::Code;

use super::*;
use crate::testing::{Act, Fake, any_port, bind};

fn options() -> Options {
    Options {
        backoff: Backoff { base: Duration::from_millis(5), max: Duration::from_millis(50) },
        deadline: Duration::from_secs(30),
        // The last profile may be one that is answered after the next.
        answer_timeout: Duration::from_secs(1),
        ..Options::default()
    }
}

fn client(address: SocketAddr, options: Options) -> Client {
    Client::new(Target::new(format!("http://{address}")), options).unwrap()
}

fn profile(n: usize, bytes: usize) -> Profile {
    Profile {
        r#type: "cpu".into(),
        labels: [("service".to_owned(), format!("s{n}"))].into(),
        pprof: (0..bytes).map(|i| (i * 31 + n) as u8).collect::<Vec<_>>().into(),
        ..Default::default()
    }
}

/// Pushes `n` profiles at once and returns the outcomes.
async fn push_many(client: &Client, n: usize) -> Vec<Result<Ack, PushError>> {
    let pushes: FuturesUnordered<_> = (0..n).map(|i| client.push(profile(i, 100 + i))).collect();
    pushes.collect().await
}

#[tokio::test]
async fn each_profile_is_acked_once_though_streams_break_end_and_answer_out_of_order() {
    let fake = Fake::new(|n, _| match n % 13 {
        2 => Act::AckAfterNext,
        3 => Act::StoreAndBreak,
        5 => Act::Answer(Code::Unavailable, Some(1)),
        7 => Act::Break(Code::Unavailable),
        9 => Act::Answer(Code::ResourceExhausted, Some(2)),
        11 => Act::EndStream,
        _ => Act::Ack,
    });
    let (address, _server) = fake.serve(any_port()).await;
    let client = client(address, options());
    let outcomes = push_many(&client, 200).await;
    let mut ids: Vec<_> = outcomes.into_iter().map(|o| o.unwrap().id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    assert_eq!(fake.stored(), 200);
    let stats = client.stats();
    assert_eq!((stats.accepted, stats.acked, stats.refused, stats.dropped, stats.queued), (200, 200, 0, 0, 0));
    assert!(stats.streams > 10, "{stats:?}");
    assert!(stats.duplicates > 0, "a profile stored before the stream broke must come again: {stats:?}");
}

#[tokio::test]
async fn nothing_is_lost_over_20_restarts() {
    const RESTARTS: usize = 20;
    const RECEIVED_PER_LIFE: usize = 30;
    let lives = Arc::new(AtomicUsize::new(1));
    let life = Arc::clone(&lives);
    let fake = Fake::new(move |n, _| {
        let life = life.load(Ordering::Relaxed);
        match n {
            // It lives no longer than this, so that each life is cut short in mid-stream.
            _ if life <= RESTARTS && n > life * RECEIVED_PER_LIFE => Act::Ignore,
            _ if n % 7 == 0 => Act::AckAfterNext,
            _ => Act::Ack,
        }
    });
    let (address, mut server) = fake.serve(any_port()).await;
    let client = client(address, Options { in_flight_max: 4, ..options() });
    let pusher = {
        let client = client.clone();
        tokio::spawn(async move { push_many(&client, 700).await })
    };
    for life in 1..=RESTARTS {
        fake.wait_until(|seen| seen.received > life * RECEIVED_PER_LIFE).await;
        drop(server);
        lives.fetch_add(1, Ordering::Relaxed);
        server = fake.serve(address).await.1;
    }
    let outcomes = pusher.await.unwrap();
    let ids: std::collections::BTreeSet<_> = outcomes.into_iter().map(|o| o.unwrap().id).collect();
    assert_eq!(ids.len(), 700);
    let seen = fake.seen.lock().unwrap();
    assert!(ids.iter().eq(seen.stored.keys()), "acknowledged and stored are the same");
    assert!(client.stats().streams > RESTARTS as u64);
}

#[tokio::test]
async fn close_does_not_sit_out_a_long_backoff() {
    let fake = Fake::new(|_, _| Act::Ack);
    let (address, server) = fake.serve(any_port()).await;
    drop(server);
    let long = Backoff { base: Duration::from_secs(3600), max: Duration::from_secs(3600) };
    let client = client(address, Options { backoff: long, ..options() });
    client.try_push(profile(1, 10)).unwrap();
    // The first try fails while the server is starting.
    let (left, _server) = tokio::join!(client.close(Duration::from_secs(10)), fake.serve(address));
    assert_eq!(left, 0);
    assert_eq!(fake.stored(), 1);
}

#[tokio::test]
async fn a_refused_profile_is_not_sent_again_and_the_stream_goes_on() {
    let fake = Fake::new(|_, p| match p.labels["service"].as_str() {
        "s3" => Act::Answer(Code::InvalidArgument, None),
        "s5" => Act::Answer(Code::ResourceExhausted, None),
        _ => Act::Ack,
    });
    let (address, _server) = fake.serve(any_port()).await;
    let client = client(address, options());
    let outcomes = push_many(&client, 10).await;
    let mut codes: Vec<_> = outcomes
        .iter()
        .filter_map(|o| match o {
            Err(PushError::Refused { code, .. }) => Some(*code as i32),
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        })
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [Code::InvalidArgument as i32, Code::ResourceExhausted as i32]);
    let seen = fake.seen.lock().unwrap();
    assert_eq!((seen.received, seen.streams), (10, 1));
}

#[tokio::test]
async fn retry_info_is_a_lower_bound_and_holds_all_back_when_the_server_is_exhausted() {
    let fake = Fake::new(|n, _| if n == 1 { Act::Answer(Code::ResourceExhausted, Some(300)) } else { Act::Ack });
    let (address, _server) = fake.serve(any_port()).await;
    let client = client(address, Options { in_flight_max: 1, ..options() });
    let outcomes = push_many(&client, 3).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let seen = fake.seen.lock().unwrap();
    let first = seen.arrivals[0].1;
    assert_eq!(seen.arrivals.len(), 4);
    assert!(seen.arrivals[1..].iter().all(|(_, at)| *at - first >= Duration::from_millis(300)));
    assert_eq!(client.stats().retries, 1);
}

#[tokio::test]
async fn a_large_profile_goes_in_chunks_and_arrives_whole() {
    let fake = Fake::new(|n, _| if n == 1 { Act::Break(Code::Internal) } else { Act::Ack });
    let (address, _server) = fake.serve(any_port()).await;
    let client = client(address, options());
    let large = profile(1, 9 * (1 << 20) + 17);
    let outcomes = tokio::join!(client.push(large.clone()), client.push(profile(2, 100)));
    let ack = outcomes.0.unwrap();
    outcomes.1.unwrap();
    let seen = fake.seen.lock().unwrap();
    assert!(seen.stored[&ack.id].0.pprof == large.pprof);
    assert_eq!(seen.stored[&ack.id].0.labels, large.labels);
}

#[tokio::test]
async fn a_profile_that_breaks_the_stream_is_found_and_refused_alone() {
    let fake = Fake::new(|_, p| if p.labels["service"] == "s4" { Act::Break(Code::OutOfRange) } else { Act::Ack });
    let (address, _server) = fake.serve(any_port()).await;
    let client = client(address, options());
    let outcomes = push_many(&client, 10).await;
    let refused: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
    assert_eq!(refused, [&PushError::Refused { code: Code::OutOfRange, message: "broken on purpose".into() }]);
    assert_eq!(fake.stored(), 9);
}

#[tokio::test]
async fn without_permission_a_push_fails_at_once_and_an_agent_keeps_its_profiles() {
    let fake = Fake::new(|_, _| Act::Ack);
    fake.denies.store(true, Ordering::Relaxed);
    let (address, _server) = fake.serve(any_port()).await;
    let client = client(address, options());
    let id = client.try_push(profile(1, 10)).unwrap();
    let error = client.push(profile(2, 10)).await.unwrap_err();
    assert_eq!(error, PushError::Refused { code: Code::Unauthenticated, message: "not for you".into() });
    fake.denies.store(false, Ordering::Relaxed);
    assert_eq!(client.close(Duration::from_secs(10)).await, 0);
    assert!(fake.seen.lock().unwrap().stored.keys().eq([&id]));
}

#[tokio::test]
async fn a_silent_server_counts_as_dead() {
    let fake = Fake::new(|n, _| if n <= 3 { Act::Ignore } else { Act::Ack });
    let (address, _server) = fake.serve(any_port()).await;
    let client = client(address, Options { answer_timeout: Duration::from_millis(200), ..options() });
    let outcomes = push_many(&client, 3).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(fake.seen.lock().unwrap().streams, 2);
}

#[tokio::test]
async fn at_the_deadline_a_push_says_what_stood_in_the_way() {
    let fake = Fake::new(|_, _| Act::Answer(Code::Unavailable, None));
    let (address, server) = fake.serve(any_port()).await;
    let short = Options { deadline: Duration::from_millis(400), ..options() };
    let error = client(address, short.clone()).push(profile(1, 10)).await.unwrap_err();
    assert_eq!(error.to_string(), "not acknowledged within 0.4 s: said on purpose");
    drop(server);
    let client = client(address, short);
    let error = client.push(profile(1, 10)).await.unwrap_err();
    assert!(matches!(&error, PushError::Deadline { .. }), "{error}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert_eq!((client.stats().expired, client.stats().queued), (1, 0));
}

#[tokio::test]
async fn try_push_never_waits_and_drops_the_oldest() {
    // Bound but never accepted: the server is there and says nothing.
    let listener = bind(any_port()).await;
    let queue_bytes_max = 10 * 2000;
    let client = client(listener.local_addr().unwrap(), Options { queue_bytes_max, ..options() });
    let began = Instant::now();
    for n in 0..1000 {
        client.try_push(profile(n, 1000)).unwrap();
        assert!(client.stats().queued_bytes <= queue_bytes_max);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    let stats = client.stats();
    assert_eq!(stats.accepted, 1000);
    assert_eq!(stats.dropped + stats.queued as u64, 1000);
    assert!(stats.queued >= 10, "{stats:?}");
    assert!(matches!(client.try_push(profile(1, 50_000)), Err(PushError::TooLarge { .. })));
}

#[tokio::test]
async fn a_push_waits_for_room_instead_of_dropping() {
    let fake = Fake::new(|_, _| Act::Ack);
    let (address, _server) = fake.serve(any_port()).await;
    let client = client(address, Options { queue_bytes_max: 4000, ..options() });
    let outcomes = push_many(&client, 100).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(client.stats().dropped, 0);
}

#[tokio::test]
async fn close_delivers_what_is_queued_and_then_takes_nothing() {
    let fake = Fake::new(|n, _| match n % 5 {
        0 => Act::Break(Code::Unavailable),
        1 => Act::AckAfterNext,
        _ => Act::Ack,
    });
    let (address, _server) = fake.serve(any_port()).await;
    let client = client(address, Options { answer_timeout: Duration::from_millis(200), ..options() });
    for n in 0..30 {
        client.try_push(profile(n, 10)).unwrap();
    }
    assert_eq!(client.close(Duration::from_secs(20)).await, 0);
    assert_eq!(fake.stored(), 30);
    assert_eq!(client.try_push(profile(1, 1)), Err(PushError::Closed));
    assert_eq!(client.push(profile(1, 1)).await, Err(PushError::Closed));
}

#[tokio::test]
async fn an_old_stream_is_replaced_without_a_failure() {
    let fake = Fake::new(|_, _| Act::Ack);
    let (address, _server) = fake.serve(any_port()).await;
    let client = client(address, Options { stream_age_max: Duration::from_millis(1), ..options() });
    for n in 0..5 {
        client.push(profile(n, 10)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(fake.seen.lock().unwrap().streams >= 4);
    assert_eq!(fake.seen.lock().unwrap().received, 5);
}

#[tokio::test]
async fn tenant_token_and_user_agent_go_with_the_stream_and_ids_are_kept() {
    let fake = Fake::new(|_, _| Act::Ack);
    let (address, _server) = fake.serve(any_port()).await;
    let target = Target {
        tenant: Some("team-a".into()),
        token: Some("s3cret".into()),
        user_agent: "test/1".into(),
        ..Target::new(address.to_string())
    };
    let client = Client::new(target, options()).unwrap();
    let id = "01HZZZZZZZZZZZZZZZZZZZZZZZ";
    let ack = client.push(Profile { id: id.into(), ..profile(1, 10) }).await.unwrap();
    assert_eq!(ack.id, id);
    let seen = fake.seen.lock().unwrap();
    assert_eq!(seen.metadata["x-scope-orgid"], "team-a");
    assert_eq!(seen.metadata["authorization"], "Bearer s3cret");
    assert!(seen.metadata["user-agent"].starts_with("test/1"));
}
