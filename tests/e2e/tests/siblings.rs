//! Queriers that do shares of each other's merges: the answer is that of one alone, whoever of them dies.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use afterglow_e2e::{Program, RealProfile, Tiers, built, output, real_profiles};

/// How many merges are asked for while siblings die.
const MERGES: usize = 24;

/// The services that the profiles are pushed as, one after the other: a dataset each, so that there is something to share.
const SERVICES: usize = 6;

/// What is merged: all profiles of a type, of any time.
const QUESTIONS: [&str; 3] =
    ["type=cpu&format=folded", "type=heap&format=folded&sample_type=inuse_space", "type=cpu&format=flamegraph"];

/// What answers for DNS: getaddrinfo of the process into which it is loaded reads a file of hosts instead (libnss-wrapper; `make tools`).
const RESOLVER: &str = "libnss_wrapper.so";

/// What siblings are called where they are found by a name.
const NAME: &str = "queriers.test";

/// How long until every sibling that a name stands for has done a share: what the name stood for is believed for ten seconds, and a sibling that
/// was gone is left alone for as long. Generous, for a loaded machine.
const FOUND_WITHIN: Duration = Duration::from_secs(60);

fn ask(querier: &Program, question: &str) -> String {
    let (status, body) = querier.get(&format!("/api/v1/merge?start=0&{question}"));
    assert_eq!(status, 200, "{question}: {body}");
    body
}

/// Reads a counter, of which the name may have labels; none where nothing was counted under these.
fn found(querier: &Program, name: &str) -> Option<u64> {
    let (_, metrics) = querier.get("/metrics");
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Reads a counter that is always there.
fn counted(querier: &Program, name: &str) -> u64 {
    found(querier, name).unwrap_or_else(|| panic!("no {name}\n{}", querier.get("/metrics").1))
}

fn push(ingester: &Program, service: &str, profile: &RealProfile) {
    let mut push = Command::new(built("afterglow"));
    push.args(["push", "--server", &ingester.url(), "--service", service, "--type", &profile.profile_type]);
    push.arg(&profile.path);
    output(push);
}

/// Pushes profiles that are worth sharing, of one program, so that they merge.
fn fill(tiers: &Tiers) {
    let ingester = tiers.ingester();
    let profiles = real_profiles();
    let of = |series: &'static str| profiles.iter().filter(move |profile| profile.series == series);
    for (number, profile) in of("profefe-cpu").chain(of("profefe-heap")).cycle().take(4 * SERVICES).enumerate() {
        push(&ingester, &format!("s{}", number % SERVICES), profile);
    }
}

/// Returns how many shares a querier has done for others.
fn shares(querier: &Program) -> u64 {
    found(querier, "afterglow_query_requests_total{question=\"share\",outcome=\"ok\"}").unwrap_or_default()
}

/// Makes the name stand for these, at once.
fn name(hosts: &Path, addresses: &[&str]) {
    let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
    let new = hosts.with_extension("new");
    std::fs::write(&new, lines).expect("the file of hosts is written");
    std::fs::rename(&new, hosts).expect("the file of hosts is put in place");
}

#[test]
fn shares_make_the_answer_of_one_alone_whoever_dies() {
    let tiers = Tiers::new("siblings");
    fill(&tiers);

    let alone = tiers.querier();
    let mut siblings = [tiers.querier(), tiers.querier()];
    let names = siblings.iter().map(Program::address).collect::<Vec<_>>().join(",");
    let shares = [
        "--query.siblings",
        &names,
        "--query.share-above",
        "1KiB",
        "--query.range-cache",
        "0",
        "--query.decoded-cache",
        "0",
    ];
    let asked = tiers.querier_with(&shares);
    let expected = QUESTIONS.map(|question| ask(&alone, question));
    assert!(expected.iter().all(|answer| answer.len() > 1_000), "there is something to merge");

    for number in 0..MERGES {
        // A connection that breaks in the midst of a call, and one that cannot come to be.
        if number == MERGES / 3 {
            let done = counted(&asked, "afterglow_query_shares_done_total");
            assert!(done >= number as u64, "{done} shares of {number} merges");
            assert_eq!(counted(&siblings[0], "afterglow_query_shares_done_total"), 0, "a share is not shared again");
            let pid = siblings[0].pid();
            std::thread::scope(|scope| {
                let merges = scope.spawn(|| QUESTIONS.map(|question| ask(&asked, question)));
                // While it does a share, if that can be seen.
                while !merges.is_finished() && counted(&siblings[0], "afterglow_query_active") == 0 {}
                let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill(1) runs");
                assert!(killed.success());
                assert!(merges.join().expect("no merge panics") == expected, "killed in the midst");
            });
        }
        if number == 2 * MERGES / 3 {
            siblings[1].kill_9();
        }
        let question = number % QUESTIONS.len();
        assert!(
            ask(&asked, QUESTIONS[question]) == expected[question],
            "merge {number} is another than that of one alone"
        );
    }
    assert!(counted(&asked, "afterglow_query_shares_returned_total") > 0, "in the end nobody was there to do a share");
    assert_eq!(counted(&alone, "afterglow_query_shares_done_total"), 0);
}

/// Goal: siblings are found by one name, all that it stands for; one that is killed and left out of it is done without, one that comes is
/// found, and every answer meanwhile is that of one alone.
#[test]
fn siblings_are_found_by_the_name_that_they_share() {
    let tiers = Tiers::new("named-siblings");
    fill(&tiers);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hosts = folder.path().join("hosts");
    let mut gone = tiers.querier_at("127.0.0.2:0", &[], &[]);
    let port = gone.port();
    let stays = tiers.querier_at(&format!("127.0.0.3:{port}"), &[], &[]);
    name(&hosts, &["127.0.0.2", "127.0.0.3"]);

    let names = format!("dns+{NAME}:{port}");
    let flags = ["--query.siblings", &names, "--query.share-above", "1KiB"];
    let uncached = ["--query.range-cache", "0", "--query.decoded-cache", "0"];
    let env = [("LD_PRELOAD", RESOLVER), ("NSS_WRAPPER_HOSTS", hosts.to_str().expect("a path of text"))];
    let asked = tiers.querier_at("127.0.0.1:0", &[flags, uncached].concat(), &env);
    let alone = tiers.querier();
    let expected = QUESTIONS.map(|question| ask(&alone, question));
    assert!(expected.iter().all(|answer| answer.len() > 1_000), "there is something to merge");

    // Asks until each of these has done a share more.
    let ask_until_shared = |siblings: [&Program; 2]| {
        let (began, before) = (Instant::now(), siblings.map(shares));
        while siblings.map(shares).iter().zip(before).any(|(now, before)| *now == before) {
            assert!(began.elapsed() < FOUND_WITHIN, "{before:?} were {:?}\n{}", siblings.map(shares), asked.log());
            for (question, expected) in QUESTIONS.into_iter().zip(&expected) {
                assert!(ask(&asked, question) == *expected, "{question} is another than that of one alone");
            }
        }
    };
    ask_until_shared([&gone, &stays]);

    gone.kill_9();
    let comes = tiers.querier_at(&format!("127.0.0.4:{port}"), &[], &[]);
    assert_eq!(shares(&comes), 0, "nobody knows it yet");
    name(&hosts, &["127.0.0.3", "127.0.0.4"]);
    ask_until_shared([&stays, &comes]);

    assert!(!asked.log().contains("siblings cannot be looked up"), "{}", asked.log());
    assert_eq!([&stays, &comes].map(|sibling| counted(sibling, "afterglow_query_shares_done_total")), [0, 0]);
    assert_eq!(shares(&asked), 0, "it does not ask itself");
}
