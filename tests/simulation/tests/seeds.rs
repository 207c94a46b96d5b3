//! Goal: whatever the store does to requests and whatever happens to processes, no acknowledged profile is lost, none counts twice, none is
//! altered, and a seed says all that happens.
//!
//! `SIM_SEED=n` runs one seed and prints it, with `SIM_TRACE=1` event by event. `SIM_SEEDS=a..b` runs many, on all cores. Each seed runs
//! twice and must leave the same trace; `SIM_ONCE=1` spares that. Where `CI` is set, a thousand are run, nearly all of them once.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use afterglow_simulation::process::Chaos;
use afterglow_simulation::run::{Plan, Report, run};
use afterglow_simulation::store::faults::{FAULTS, Faults};

/// The seeds of a usual test run: a few seconds.
const SEEDS: Range<u64> = 0..40;
/// The seeds that run besides, each once, where nobody waits for the test.
const SEEDS_OF_CI: Range<u64> = SEEDS.end..1000;
/// The seeds with which each fault is tried alone.
const SEEDS_OF_FAULT: Range<u64> = 0..2;
/// How often the progress of many seeds is told.
const PROGRESS: Duration = Duration::from_secs(10);
/// After so many seeds that fail, the rest is spared.
const FAILURES_MAX: usize = 5;

#[test]
fn nothing_is_lost_doubled_or_altered() {
    if let Some(seed) = variable("SIM_SEED") {
        let seed = seed.parse().expect("SIM_SEED is a number");
        let report = run(seed, true, |_| {});
        if variable("SIM_TRACE").is_some() {
            report.traced.lines.iter().for_each(|line| say(line));
        }
        say(&report.to_string());
        assert!(report.wrongs.is_empty(), "seed {seed} fails");
        assert_replays(&report);
        return;
    }
    let is_once = variable("SIM_ONCE").is_some();
    if let Some(seeds) = variable("SIM_SEEDS") {
        let (first, end) = seeds.split_once("..").expect("SIM_SEEDS is a range as 0..1000");
        run_all(first.parse().expect("a number")..end.parse().expect("a number"), is_once);
        return;
    }
    run_all(SEEDS, is_once);
    if variable("CI").is_some() {
        run_all(SEEDS_OF_CI, true);
    }
}

/// Runs seeds on all cores, each twice unless once is enough.
fn run_all(seeds: Range<u64>, is_once: bool) {
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let [profiles, acks, requests] = [const { AtomicUsize::new(0) }; 3];
    let failures = Mutex::new(Vec::new());
    let told = Mutex::new(began);
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end || failures.lock().expect("no panic").len() >= FAILURES_MAX {
            return;
        }
        let report = run(seed, false, |_| {});
        profiles.fetch_add(report.acked, Ordering::Relaxed);
        acks.fetch_add(report.acks, Ordering::Relaxed);
        requests.fetch_add(report.requests as usize, Ordering::Relaxed);
        let replays = is_once || run(seed, false, |_| {}).traced == report.traced;
        if !report.wrongs.is_empty() || !replays {
            let replay = if replays { "" } else { "\n  its second run went otherwise" };
            say(&format!("FAILED {report}{replay}\n  SIM_SEED={seed} cargo test -p afterglow-simulation --test seeds"));
            failures.lock().expect("no panic").push(seed);
        }
        let mut told = told.lock().expect("no panic");
        if told.elapsed() > PROGRESS {
            *told = Instant::now();
            say(&format!("{} of {} seeds after {:?}", seed - seeds.start, seeds.end - seeds.start, began.elapsed()));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    say(&format!(
        "seeds {seeds:?} in {:?}: {profiles:?} profiles acknowledged by {acks:?} acks, {requests:?} requests to the store",
        began.elapsed()
    ));
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "seeds {failures:?} fail");
}

/// Each fault alone, so that one which is drawn seldom or hidden by others is met all the same.
#[test]
fn each_fault_alone_does_no_harm() {
    for (name, set) in FAULTS {
        for seed in SEEDS_OF_FAULT {
            let report = run(seed, false, |plan| {
                plan.faults = Faults::none();
                set(&mut plan.faults);
                plan.chaos.every = None;
            });
            assert!(report.wrongs.is_empty(), "{name}: {report}");
            assert!(report.acked > 0, "{name}: {report}");
        }
    }
}

/// Processes that die and sleep as often as can be, over a store in good order.
#[test]
fn chaos_alone_does_no_harm() {
    for seed in SEEDS_OF_FAULT {
        let report = run(seed, false, |plan| {
            plan.faults = Faults { orphan_lives: 0.5, ..Faults::none() };
            plan.chaos = Chaos { every: Some(Duration::from_secs(5)), kills: 0.6, is_days_off: false };
        });
        assert!(report.wrongs.is_empty(), "{report}");
    }
}

/// A simulation that cannot fail proves nothing: stores that no rule of ours survives.
#[test]
fn a_store_that_lies_is_found_out() {
    let found = |set: fn(&mut Faults)| {
        let calm = |plan: &mut Plan| {
            plan.faults = Faults::none();
            set(&mut plan.faults);
        };
        (0..5).flat_map(|seed| run(seed, false, calm).wrongs).collect::<Vec<_>>().join("\n")
    };
    let lies = found(|faults| faults.lie = 0.1);
    assert!(lies.contains("is acknowledged before"), "{lies}");
    let forgets = found(|faults| faults.forget = 0.1);
    assert!(forgets.contains("does not find"), "{forgets}");
}

#[test]
fn a_seed_says_all_that_happens() {
    assert_replays(&run(7, true, |_| {}));
    assert_ne!(run(7, false, |_| {}).traced, run(8, false, |_| {}).traced);
}

/// Runs a seed again, of which the lines were kept, and tells where it goes another way.
fn assert_replays(report: &Report) {
    let again = run(report.seed, true, |_| {});
    let lines = report.traced.lines.iter().zip(&again.traced.lines);
    for (number, (first, second)) in lines.enumerate() {
        assert_eq!(first, second, "event {number} of seed {}", report.seed);
    }
    assert_eq!(report.traced.hash, again.traced.hash, "one of the runs went on longer");
}

#[expect(clippy::disallowed_methods, reason = "what a test shall run is not a setting of the programs")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[expect(clippy::print_stdout, reason = "whoever runs many seeds wants to see how far they are")]
fn say(text: &str) {
    println!("{text}");
}
