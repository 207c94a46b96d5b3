//! Goal: whatever the store does to requests and whatever happens to processes, no acknowledged profile is lost, none counts twice, none is
//! altered, and a seed says all that happens.
//!
//! `SIM_SEED=n` runs one seed and prints it, with `SIM_TRACE=1` event by event. `SIM_SEEDS=a..b` runs many, on all cores. Each seed runs
//! twice and must leave the same trace; `SIM_ONCE=1` spares that. Where `CI` is set, a thousand are run, nearly all of them once. Where there are
//! hundreds, each fault and each way in which retention removes profiles must have befallen one of them.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use afterglow_simulation::met::Counts;
use afterglow_simulation::process::Chaos;
use afterglow_simulation::retention::Keeps;
use afterglow_simulation::run::{Plan, Report, run};
use afterglow_simulation::store::faults::{FAULTS, Faults};

/// The seeds of a usual test run: a few seconds.
const SEEDS: Range<u64> = 0..40;
/// The seeds that run besides, each once, where nobody waits for the test.
const SEEDS_OF_CI: Range<u64> = SEEDS.end..1000;
/// So many seeds meet everything that may befall a run, some of them dozens of times.
const SEEDS_TO_MEET_ALL: u64 = 200;
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

/// Runs seeds on all cores, each twice unless once is enough. Where they are many, each fault must have befallen one of them.
fn run_all(seeds: Range<u64>, is_once: bool) {
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let [profiles, acks, requests] = [const { AtomicUsize::new(0) }; 3];
    let met = Mutex::new(Counts::default());
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
        met.lock().expect("no panic").add_all(&report.met);
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
    let met = met.into_inner().expect("no panic");
    say(&format!("they met: {met}"));
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "seeds {failures:?} fail");
    let seeds = seeds.end.saturating_sub(seeds.start);
    if seeds >= SEEDS_TO_MEET_ALL {
        assert_eq!(met.missing(), [""; 0], "no seed of {seeds} met these");
    }
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

/// Likewise: maintainers that keep less, or more, than the oracle was told.
#[test]
fn retention_that_goes_wrong_is_found_out() {
    let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
    let by_age = |age_max| Keeps { age_max, ..Keeps::default() };
    let by_rule = |age_max| Keeps { rule: Some(("batch", age_max)), ..Keeps::default() };
    let by_bytes = |bytes_max| Keeps { bytes_max: Some(bytes_max), ..Keeps::default() };
    for (told, done, expected) in [
        (by_age(minutes(60)), by_age(minutes(12)), "is neither too old nor too much"),
        (by_age(minutes(12)), Keeps::default(), "which is too old"),
        (by_rule(None), by_rule(minutes(1)), "is neither too old nor too much"),
        (by_rule(minutes(1)), by_rule(None), "which is too old"),
        (by_bytes(20_000), by_bytes(5_000), "is neither too old nor too much"),
        (by_bytes(5_000), Keeps::default(), "bytes more than they may"),
    ] {
        let wrongs = (0..4).flat_map(|seed| {
            let calm = |plan: &mut Plan| {
                plan.faults = Faults::none();
                plan.chaos.every = None;
                plan.maintenance.options.retention = done.policy();
                plan.maintenance.keeps = told.clone();
            };
            run(seed, false, calm).wrongs
        });
        let wrongs = wrongs.collect::<Vec<_>>().join("\n");
        assert!(wrongs.contains(expected), "{told:?} {done:?}: {wrongs}");
    }
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
