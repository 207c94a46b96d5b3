//! Queriers that do shares of each other's merges: the answer is that of one alone, whoever of them dies.

use std::process::Command;

use afterglow_e2e::{Program, RealProfile, Tiers, built, output, real_profiles};

/// How many merges are asked for while siblings die.
const MERGES: usize = 24;

/// The services that the profiles are pushed as, one after the other: a dataset each, so that there is something to share.
const SERVICES: usize = 6;

/// What is merged: all profiles of a type, of any time.
const QUESTIONS: [&str; 3] =
    ["type=cpu&format=folded", "type=heap&format=folded&sample_type=inuse_space", "type=cpu&format=flamegraph"];

fn ask(querier: &Program, question: &str) -> String {
    let (status, body) = querier.get(&format!("/api/v1/merge?start=0&{question}"));
    assert_eq!(status, 200, "{question}: {body}");
    body
}

/// Reads a counter.
fn counted(querier: &Program, name: &str) -> u64 {
    let (_, metrics) = querier.get("/metrics");
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
}

fn push(ingester: &Program, service: &str, profile: &RealProfile) {
    let mut push = Command::new(built("afterglow"));
    push.args(["push", "--server", &ingester.url(), "--service", service, "--type", &profile.profile_type]);
    push.arg(&profile.path);
    output(push);
}

#[test]
fn shares_make_the_answer_of_one_alone_whoever_dies() {
    let tiers = Tiers::new("siblings");
    let ingester = tiers.ingester();
    // Of one program, so that they merge.
    let profiles = real_profiles();
    let of = |series: &'static str| profiles.iter().filter(move |profile| profile.series == series);
    for (number, profile) in of("profefe-cpu").chain(of("profefe-heap")).cycle().take(4 * SERVICES).enumerate() {
        push(&ingester, &format!("s{}", number % SERVICES), profile);
    }

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
