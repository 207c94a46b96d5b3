//! Goal: the state that the store computes from commits says the same as the model, in every state of the model; and it takes every
//! commit that the model takes for valid.

use std::collections::HashSet;

use afterglow_store::commit::{BlockEntry, Commit, Reason, State as RealState};
use afterglow_store::paths::{BlockName, Day, SegmentName};
use ulid::Ulid;

use super::rules::{Part, Scenario};
use super::search::each;
use super::state::{Job, Phase, State, has, members};

/// The first day begins here, in milliseconds since 1970.
const BEGINNING: u64 = 1_700_000_000_000;
/// What the model calls a day is more than 24 hours.
const DAY_MILLIS: u64 = 25 * 3_600_000;

fn millis(day: u8) -> u64 {
    BEGINNING + u64::from(day) * DAY_MILLIS
}

fn segment(state: &State, at: usize) -> SegmentName {
    SegmentName::new(millis(state.segments[at].day) + 1, &"w".parse().expect("valid"), at as u64)
}

fn block(part: usize) -> BlockName {
    BlockName::new(1, Day::of_nanos(0), Ulid::from(part as u128))
}

fn commit(scenario: &Scenario, state: &State, part: usize) -> Commit {
    let Job { segments, blocks, ids, boundary, .. } = state.jobs[part];
    let entry = BlockEntry {
        name: block(part),
        bytes: 1_000,
        rows: u64::from(ids.count_ones()),
        raw_bytes: 1_000,
        first_nanos: 0,
        last_nanos: 0,
        first_id: Ulid::from(1),
        last_id: Ulid::from(1),
    };
    Commit {
        reason: match scenario.parts[part] {
            Part::Compact => Reason::Compaction,
            Part::Retain => Reason::Retention,
            Part::Boundary | Part::Garbage => Reason::Garbage,
        },
        adds: (ids != 0).then_some(entry).into_iter().collect(),
        removes: members(segments)
            .map(|at| segment(state, at).into())
            .chain(members(blocks).map(|part| block(part).into()))
            .collect(),
        boundary: (boundary > 0).then(|| millis(boundary)),
    }
}

fn compare(scenario: &Scenario, state: &State) {
    let mut real = RealState::default();
    for number in 0..state.commits as usize {
        let commit = commit(scenario, state, state.log[number] as usize);
        real.apply(&commit, millis(state.days[number])).unwrap_or_else(|conflict| panic!("{conflict}: {state:?}"));
    }
    let live = state.live(scenario, state.commits);
    for part in 0..scenario.parts.len() {
        assert_eq!(real.block(&block(part)).is_some(), has(live.blocks, part), "block {part}: {state:?}");
        let is_late = matches!(state.jobs[part].phase, Phase::Sent(number) if number <= state.commits);
        if is_late && state.is_valid(scenario, part, &live) {
            assert_eq!(real.check(&commit(scenario, state, part)), Ok(()), "part {part}: {state:?}");
        }
    }
    for at in 0..scenario.segments.len() {
        let is_removed = has(live.removed_segments, at) || state.segments[at].day < live.boundary;
        assert_eq!(real.is_removed(&segment(state, at)), is_removed, "segment {at}: {state:?}");
    }
}

#[test]
fn the_store_agrees_with_the_model() {
    use Part::{Boundary, Compact, Garbage, Retain};
    for parts in [&[Compact, Compact, Retain, Boundary][..], &[Compact, Retain, Boundary, Garbage]] {
        let scenario = Scenario { segments: vec![1, 2], puts: 1, graces: 0, ..Scenario::retry(parts) };
        let mut known = HashSet::new();
        each(&scenario, &mut |state| {
            // What is compared depends on nothing else.
            let days = state.segments.map(|segment| segment.day);
            if known.insert((state.jobs, state.log, state.days, state.commits, days, state.day)) {
                compare(&scenario, state);
            }
        });
        assert!(known.len() > 500, "{} are fewer than there were", known.len());
    }
}
