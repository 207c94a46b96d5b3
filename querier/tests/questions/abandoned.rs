//! Questions that nobody waits for any more: their reads end, here and at siblings, and the memory that they held is given back. And what
//! is given up of a question while its client waits: siblings that are too slow.

#![allow(clippy::print_stdout, reason = "the figures are for who asks with --nocapture")]

use std::time::Duration;

use afterglow_proto::v1;
use afterglow_proto::v1::query_service_client::QueryServiceClient;
use afterglow_store::testing::faults::{Operation, Trouble};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::trouble::{gauge, wait_until};
use crate::world::{World, cpu};

/// How long after its client has gone a question may begin a read, as is promised.
const ENDS_WITHIN: Duration = Duration::from_millis(100);

/// How long each read takes: a question begins some together, and the next when those have come. So one that does not end begins more reads long
/// after the promised time, and one that ends has all of this time to do so, however busy the machine is.
const READ: Duration = Duration::from_millis(400);

/// How many segments there are, each of which takes a read; several times what a question reads at once.
const SEGMENTS: u128 = 48;

const FLAGS: [&str; 3] = ["--query.range-cache=0", "--query.decoded-cache=0", "--query.hedged-reads=0"];

/// What is asked: the name in metrics, and how it is asked by HTTP.
const QUESTIONS: [(&str, &str); 6] = [
    ("merge", "merge?query={side=\"a\"}&"),
    ("top", "top?query={side=\"a\"}&by=service&"),
    ("series", "series?query={side=\"a\"}&function=work&"),
    ("diff", "diff?query={side=\"a\"}&base_query={side=\"b\"}&"),
    ("statistics", "statistics?query={side=\"a\"}&by=instance&"),
    ("regressions", "regressions?query={side=\"a\"}&base_query={side=\"b\"}&"),
];

/// Puts so many profiles into each segment, and opens all.
async fn fill(world: &World, profiles: u128) {
    for segment in 0..SEGMENTS {
        let side = if segment % 2 == 0 { "a" } else { "b" };
        let profile = |number| {
            let instance = format!("i{}", segment % 5);
            let labels = [("service", "api"), ("side", side), ("instance", &*instance)];
            cpu(1 + segment * profiles + number, &labels, 20 + segment as i64)
        };
        world.put(&(0..profiles).map(profile).collect::<Vec<_>>()).await;
    }
    world.json("/api/v1/profiles", &[("limit", "10000")]).await;
}

/// Asks by gRPC.
async fn call(mut client: QueryServiceClient<Channel>, question: &'static str) {
    let side = |name: &str| Some(v1::Selection { query: format!("{{side=\"{name}\"}}"), ..v1::Selection::default() });
    let (selection, base, by) = (side("a"), side("b"), vec!["instance".to_owned()]);
    let failed = match question {
        "merge" => client.merge(v1::MergeRequest { selection, ..Default::default() }).await.err(),
        "top" => client.top(v1::TopRequest { selection, by, ..Default::default() }).await.err(),
        "series" => {
            let function = "work".to_owned();
            client.series(v1::SeriesRequest { selection, function, ..Default::default() }).await.err()
        }
        "diff" => client.diff(v1::DiffRequest { selection, base, ..Default::default() }).await.err(),
        "statistics" => client.statistics(v1::StatisticsRequest { selection, by, ..Default::default() }).await.err(),
        "regressions" => {
            client.regressions(v1::RegressionsRequest { selection, base, ..Default::default() }).await.err()
        }
        other => panic!("{other} is no question"),
    };
    panic!("{question} was answered before its client went: {failed:?}");
}

/// Asks on a connection of its own.
fn ask(world: &World, question: (&'static str, &str), is_grpc: bool) -> JoinHandle<()> {
    let ((name, path), url) = (question, world.url().to_owned());
    if is_grpc {
        return tokio::spawn(call(world.grpc.clone(), name));
    }
    let url = format!("{url}/api/v1/{path}type=cpu&start=-1h");
    tokio::spawn(async move {
        let answer = reqwest::get(url).await;
        panic!("{name} was answered before its client went: {answer:?}");
    })
}

/// Returns how often a question was given up.
fn cancelled(metrics: &str, question: &str) -> u64 {
    let line = format!("afterglow_query_requests_total{{question=\"{question}\",outcome=\"cancelled\"}} ");
    metrics.lines().find_map(|of| of.strip_prefix(&line)?.parse().ok()).unwrap_or_default()
}

/// Waits until more than so many reads have begun.
async fn wait_for_reads(world: &World, before: usize) {
    let waiting = async {
        while world.faults.count(Operation::Get) <= before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it reads");
}

/// Asks, goes away while it reads, and returns how long after that the last read began.
async fn abandon(world: &World, question: (&'static str, &str), is_grpc: bool, read: Duration) -> Duration {
    let before = world.faults.count(Operation::Get);
    let were_cancelled = cancelled(&world.get("/metrics", &[]).await.to_string(), question.0);
    let asking = ask(world, question, is_grpc);
    wait_for_reads(world, before).await;
    asking.abort();
    let gone = Instant::now();
    let outcome = asking.await.expect_err("its client has gone");
    assert!(outcome.is_cancelled(), "{outcome}");
    wait_until(world, |metrics| {
        cancelled(metrics, question.0) > were_cancelled
            && gauge(metrics, "afterglow_query_memory_bytes") == 0
            && gauge(metrics, "afterglow_query_large") == 0
    })
    .await;
    // Reads that were not ended would go on after the time of one.
    tokio::time::sleep_until(gone + read + ENDS_WITHIN).await;
    let begun = world.faults.begun();
    assert!(begun.len() - before < SEGMENTS as usize / 2, "{question:?} had read everything before its client went");
    begun.last().map(|last| last.saturating_duration_since(gone)).unwrap_or_default()
}

async fn all_end(profiles: u128) {
    let world = World::with(&FLAGS).await;
    fill(&world, profiles).await;
    for (name, read) in [("slow", READ), ("fast", Duration::from_millis(30))] {
        world.faults.always(Operation::Get, Trouble::Slow(read));
        let mut lates = Vec::with_capacity(2 * QUESTIONS.len());
        for question in QUESTIONS {
            for is_grpc in [false, true] {
                let late = abandon(&world, question, is_grpc, read).await;
                assert!(
                    read != READ || late <= ENDS_WITHIN,
                    "{question:?}, grpc {is_grpc}: a read began {late:?} later"
                );
                lates.push(late);
            }
        }
        lates.sort_unstable();
        // Where reads are fast, how busy the machine is counts as well, so some may be late; half of them are not.
        let [median, longest] = [(lates.len() - 1) / 2, lates.len() - 1].map(|at| lates[at]);
        println!(
            "{profiles} profiles a segment, {name} reads: the last began {longest:?} after its client went, at most, and {median:?} in the median"
        );
        assert!(median <= ENDS_WITHIN, "{name} reads: {lates:?}");
    }
}

/// Goal: whatever is asked by whatever protocol, a client that hangs up in the midst ends the reads and gives back the memory. These are
/// small questions.
#[tokio::test(flavor = "multi_thread")]
async fn reads_of_small_questions_end_with_their_clients() {
    all_end(1).await;
}

/// Goal: the same of large ones, which compute on threads of their own.
#[tokio::test(flavor = "multi_thread")]
async fn reads_of_large_questions_end_with_their_clients() {
    all_end(11).await;
}

/// Starts a querier with a sibling over the same bucket that reads as `trouble` says; both have opened all blocks.
async fn with_sibling(flags: &[&str], trouble: Trouble) -> (World, World) {
    let sibling = World::with(&FLAGS).await;
    fill(&sibling, 1).await;
    let address = sibling.url().strip_prefix("http://").expect("it is in the clear").to_owned();
    let siblings = format!("--query.siblings={address}");
    let asked =
        World::over(sibling.faults.inner(), &[&FLAGS[..], &[&siblings, "--query.share-above=1B"], flags].concat())
            .await;
    asked.json("/api/v1/profiles", &[("limit", "10000")]).await;
    sibling.faults.always(Operation::Get, trouble);
    (asked, sibling)
}

/// Goal: a merge that is shared ends at the sibling, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_share_ends_with_the_client_of_the_merge() {
    let (asked, sibling) = with_sibling(&[], Trouble::Slow(READ)).await;
    asked.faults.always(Operation::Get, Trouble::Slow(READ));
    for is_grpc in [false, true] {
        let before = [&asked, &sibling].map(|world| world.faults.count(Operation::Get));
        let asking = ask(&asked, QUESTIONS[0], is_grpc);
        for (world, before) in [&asked, &sibling].into_iter().zip(before) {
            wait_for_reads(world, before).await;
        }
        asking.abort();
        let gone = Instant::now();
        for world in [&asked, &sibling] {
            wait_until(world, |metrics| {
                gauge(metrics, "afterglow_query_memory_bytes") == 0 && gauge(metrics, "afterglow_query_active") == 0
            })
            .await;
        }
        tokio::time::sleep_until(gone + READ + ENDS_WITHIN).await;
        for (name, world) in [("asked", &asked), ("sibling", &sibling)] {
            let late = world.faults.begun().last().map(|last| last.saturating_duration_since(gone)).unwrap_or_default();
            println!("{name}: the last read began {late:?} after the client went");
            assert!(late <= ENDS_WITHIN, "{name}, grpc {is_grpc}: a read began {late:?} later");
        }
    }
}

/// Goal: a sibling that is slow, as the one who asks is, is waited for: its share takes longer than a sibling of a fast one would have.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sibling_of_a_slow_querier_does_its_share() {
    let timeout = Duration::from_secs(12);
    let (asked, sibling) = with_sibling(&["--query.timeout=12s"], Trouble::Slow(Duration::from_millis(2_500))).await;
    let question = [("query", "{service=\"api\"}"), ("type", "cpu"), ("format", "folded"), ("start", "-1h")];
    let alone = World::over(sibling.faults.inner(), &FLAGS).await;
    let expected = alone.get("/api/v1/merge", &question).await;
    assert_eq!(expected.status, 200, "{expected}");
    asked.faults.always(Operation::Get, Trouble::Slow(Duration::from_millis(2_000)));
    let (before, began) = (sibling.faults.count(Operation::Get), Instant::now());
    let answer = asked.get("/api/v1/merge", &question).await;
    assert_eq!((answer.status, &answer.body), (200, &expected.body), "{answer}");
    assert!(began.elapsed() > timeout / 3, "{:?}: the sibling is slower than need be", began.elapsed());
    assert!(sibling.faults.count(Operation::Get) > before, "the sibling took its share");
    let done = "afterglow_query_shares_done_total 1\n";
    assert!(asked.get("/metrics", &[]).await.to_string().contains(done));
}

/// Goal: a sibling that takes a share and never answers delays a merge by a third of its time, once, and changes nothing of its answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_that_never_answers_is_given_up() {
    let (asked, sibling) = with_sibling(&["--query.timeout=6s"], Trouble::Stall).await;
    let question = [("query", "{service=\"api\"}"), ("type", "cpu"), ("format", "folded"), ("start", "-1h")];
    let alone = World::over(sibling.faults.inner(), &FLAGS).await;
    let expected = alone.get("/api/v1/merge", &question).await;
    assert_eq!(expected.status, 200, "{expected}");
    let (before, began) = (sibling.faults.count(Operation::Get), Instant::now());
    let answer = asked.get("/api/v1/merge", &question).await;
    assert_eq!((answer.status, &answer.body), (200, &expected.body), "{answer}");
    assert!(sibling.faults.count(Operation::Get) > before, "the sibling took its share");
    assert!(began.elapsed() >= Duration::from_secs(2), "it had a third of the time");
    let returned = "afterglow_query_shares_returned_total 1\n";
    assert!(asked.get("/metrics", &[]).await.to_string().contains(returned));
    // And the share is given up there.
    wait_until(&sibling, |metrics| gauge(metrics, "afterglow_query_memory_bytes") == 0).await;
    // It is left alone for a while.
    let reads = sibling.faults.count(Operation::Get);
    assert_eq!(asked.get("/api/v1/merge", &question).await.body, expected.body);
    assert_eq!(sibling.faults.count(Operation::Get), reads);
}
