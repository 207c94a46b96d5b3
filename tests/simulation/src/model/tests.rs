//! Goal: no state is wrong while all rules hold, and each rule is needed: without it something goes wrong.

use super::Part::{Boundary, Compact, Garbage, Retain};
use super::*;

/// Set to `large`, it adds scenarios of tens of millions of states: minutes, and up to 8 GB.
const SIZE: &str = "AFTERGLOW_MODEL";

/// One writer, for what does not depend on retries.
fn single(parts: &[Part], days: u8) -> Scenario {
    Scenario { segments: vec![1], days, ..Scenario::retry(parts) }
}

fn visit(name: &str, scenario: &Scenario) -> usize {
    let found = search(scenario);
    say(name, &found);
    assert!(found.wrong.is_none(), "{name}: {found}");
    found.states
}

#[expect(clippy::print_stdout, reason = "how many states were visited is what the test is run for")]
fn say(name: &str, found: &Found) {
    println!("{name}: {found}");
}

#[test]
fn nothing_is_wrong_in_any_state() {
    let mut states = visit("a retry, two compactors", &Scenario::retry(&[Compact, Compact]));
    states += visit("two profiles, two compactors", &Scenario::distinct(&[Compact, Compact]));
    states += visit("a retry, compaction, retention, boundary", &Scenario::retry(&[Compact, Retain, Boundary]));
    let days = |parts: &[Part]| Scenario { days: 2, ..Scenario::retry(parts) };
    states += visit("a retry, compaction, garbage, two days", &days(&[Compact, Garbage]));
    states += visit("two compactors, retention, boundary, two days", &single(&[Compact, Compact, Retain, Boundary], 2));
    states += visit("two compactors, two collectors, two days", &single(&[Compact, Compact, Boundary, Boundary], 2));
    states += visit("all parts", &single(&[Compact, Compact, Retain, Boundary, Garbage], 1));
    assert!(states > 2_000_000, "{states} states are fewer than there were: does the model still do all it did?");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the size of a test is not a setting of the programs")]
fn nothing_is_wrong_in_large_scenarios() {
    if std::env::var(SIZE).as_deref() != Ok("large") {
        return;
    }
    visit("a retry, two compactors, boundary", &Scenario::retry(&[Compact, Compact, Boundary]));
    visit("a retry, two compactors, retention", &Scenario::retry(&[Compact, Compact, Retain]));
    visit("a retry, two compactors, garbage", &Scenario::retry(&[Compact, Compact, Garbage]));
    visit("a retry, three compactions", &Scenario::retry(&[Compact, Compact, Compact]));
    visit("a retry, two compactors, retention, boundary", &Scenario::retry(&[Compact, Compact, Retain, Boundary]));
    visit(
        "two profiles, two compactors, retention, boundary",
        &Scenario::distinct(&[Compact, Compact, Retain, Boundary]),
    );
    let three = Scenario { segments: vec![1, 3, 2], puts: 1, ..Scenario::retry(&[Compact, Compact]) };
    visit("three segments, two compactors", &three);
}

/// A model that cannot fail proves nothing.
#[test]
fn every_rule_is_needed() {
    let all = Rules::default();
    let two = Scenario::retry(&[Compact, Compact]);
    let boundary = single(&[Compact, Boundary], 1);
    let sleepers = single(&[Compact, Compact, Retain, Boundary], 1);
    let garbage = single(&[Compact, Garbage], 2);
    for (name, rules, scenario, wrong) in [
        ("grace", Rules { grace: false, ..all }, &two, Wrong::Deleted),
        ("LIST before commits", Rules { list_first: false, ..all }, &two, Wrong::Deleted),
        ("nonce", Rules { nonce: false, ..all }, &two, Wrong::Deleted),
        ("revalidation", Rules { revalidation: false, ..all }, &two, Wrong::Doubled),
        ("dedupe", Rules { dedupe: false, ..all }, &two, Wrong::Doubled),
        ("unknown keeps", Rules { unknown_keeps: false, ..all }, &two, Wrong::Deleted),
        ("commits kept", Rules { commits_kept: false, ..all }, &two, Wrong::Deleted),
        ("boundary", Rules { boundary: false, ..all }, &boundary, Wrong::Returned),
        ("boundary of inputs", Rules { boundary_of_inputs: false, ..all }, &sleepers, Wrong::Conflict),
        ("boundary spares", Rules { boundary_spares_listed: false, ..all }, &boundary, Wrong::Lost),
        ("slow ack, checked", Rules { slow_ack: SlowAck::AfterBoundary, ..all }, &boundary, Wrong::Lost),
        ("slow ack", Rules { slow_ack: SlowAck::Always, ..all }, &boundary, Wrong::Lost),
        ("garbage by commit", Rules { garbage_by_commit: false, ..all }, &garbage, Wrong::Deleted),
        ("age of output", Rules { age_of_output: false, ..all }, &garbage, Wrong::Conflict),
    ] {
        let found = search(&Scenario { rules, ..scenario.clone() });
        say(&format!("without {name}"), &found);
        assert_eq!(found.wrong.as_ref().map(|(wrong, _)| *wrong), Some(wrong), "without {name}: {found}");
    }
    for (name, scenario) in [("boundary", &boundary), ("sleepers", &sleepers), ("garbage", &garbage)] {
        visit(&format!("with all rules, {name}"), scenario);
    }
}

/// One compactor sleeps before its commit, another compacts the same, and collection runs.
const ZOMBIE: [Step; 10] = [
    Step::Send(0),
    Step::Land(0),
    Step::Ack(0),
    Step::Plan(0),
    Step::Put(0),
    Step::Plan(1),
    Step::Put(1),
    Step::Commit(1),
    Step::Grace,
    Step::DeleteSegment(0),
];

/// The scenario of <https://github.com/slatedb/slatedb/issues/352> and <https://github.com/slatedb/slatedb/issues/1622>: there, collection had
/// deleted the very object whose presence would have stopped the sleeper.
#[test]
fn a_zombie_compactor_that_commits_after_collection_ran_is_stopped_slatedb_352_1622() {
    let scenario = single(&[Compact, Compact], 0);
    let then = |step| walk(&scenario, &[&ZOMBIE[..], &[step]].concat());
    assert_eq!(then(Step::Commit(0)), 0, "its number is taken, for ever");
    assert_eq!(then(Step::LostRace(0)), 1, "it hears of it, and finds its input gone");
    assert_eq!(
        walk(&scenario, &[&ZOMBIE[..], &[Step::LostRace(0), Step::Commit(0)]].concat()),
        0,
        "it does not try again"
    );

    let rules = Rules { commits_kept: false, ..Rules::default() };
    let careless = Scenario { rules, ..scenario };
    let sleeper = [&ZOMBIE[..], &[Step::DeleteCommits, Step::Commit(0)]].concat();
    assert_eq!(walk(&careless, &sleeper), 1, "were commits deleted, its commit would succeed");
}

/// A compactor sleeps for a day before its commit, while nobody else commits and its block is taken for garbage.
#[test]
fn a_sleeping_compactor_whose_block_was_taken_for_garbage_is_stopped() {
    let scenario = single(&[Compact, Garbage], 2);
    let asleep = [Step::Send(0), Step::Land(0), Step::Ack(0), Step::Plan(0), Step::Put(0), Step::Day, Step::Plan(1)];
    assert_eq!(
        walk(&scenario, &[&asleep[..], &[Step::DeleteBlock(0)]].concat()),
        0,
        "nothing is deleted that no commit removed"
    );
    let collected = [&asleep[..], &[Step::Commit(1), Step::Grace, Step::DeleteBlock(0)]].concat();
    assert_eq!(walk(&scenario, &collected), 1);
    assert_eq!(walk(&scenario, &[&collected[..], &[Step::Commit(0)]].concat()), 0, "its number is taken");
    // A day later it is forgotten that the block was removed.
    let late = [&collected[..], &[Step::Day, Step::LostRace(0)]].concat();
    assert_eq!(walk(&scenario, &late), 1);
    assert_eq!(walk(&scenario, &[&late[..], &[Step::Commit(0)]].concat()), 0, "its block is too old to be trusted");
}
