//! The store and the processes at one instant.

use super::check::Wrong;
use super::rules::{PARTS_MAX, Part, SEGMENTS_MAX, Scenario};

/// A set of segments, of parts (which name their blocks), or of profiles.
pub(super) type Set = u8;

pub(super) fn has(set: Set, at: usize) -> bool {
    set & (1 << at) != 0
}

pub(super) fn members(set: Set) -> impl Iterator<Item = usize> {
    (0..Set::BITS as usize).filter(move |at| has(set, *at))
}

/// How far a segment's writer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Writing {
    /// It has not begun.
    #[default]
    Before,
    /// Its segment is named and sent.
    Sent,
    /// A day has passed since.
    Late,
    /// A day has passed, the store has answered, and the boundary was read and had not passed.
    LateChecked,
    /// It has acknowledged.
    Acked,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Segment {
    pub(super) writing: Writing,
    /// The day in its name.
    pub(super) day: u8,
    /// PUTs that may still land.
    pub(super) under_way: u8,
    /// A PUT has landed once.
    pub(super) landed: bool,
    /// The object is there.
    pub(super) present: bool,
}

/// How far a part is that commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// It has not begun.
    #[default]
    Before,
    /// It has read what its commit, of this number, shall say, and will write its block.
    Planned(u8),
    /// Its commit is sent: it may become the one of this number at any time.
    Sent(u8),
    /// It has ended and nothing of it is under way.
    Over,
    /// It found a block to be deleted by its age alone, and will delete it.
    Deleting,
}

/// A part: what its commit says. The block it adds, if it has ids, is named by the part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Job {
    pub(super) phase: Phase,
    /// Segments that it removes.
    pub(super) segments: Set,
    /// Blocks that it removes.
    pub(super) blocks: Set,
    /// The profiles in the block that it adds; none without a block.
    pub(super) ids: Set,
    /// Where it moves the boundary to.
    pub(super) boundary: u8,
    /// When its block was written.
    pub(super) day: u8,
}

/// How far the reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Reading {
    #[default]
    Before,
    /// It has listed these segments; these profiles were acknowledged by then.
    Listed {
        segments: Set,
        due: Set,
    },
    /// It has read this many commits, against the rule; these profiles were acknowledged by then.
    Replayed {
        commits: u8,
        due: Set,
    },
    /// It reads these objects.
    Holding {
        segments: Set,
        blocks: Set,
    },
    /// What it would answer is wrong.
    Wrong(Wrong),
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) segments: [Segment; SEGMENTS_MAX],
    pub(super) jobs: [Job; PARTS_MAX],
    /// The part whose commit has the number n is `log[n - 1]`.
    pub(super) log: [u8; PARTS_MAX],
    pub(super) commits: u8,
    /// When each commit was made.
    pub(super) days: [u8; PARTS_MAX],
    /// The commits up to this number are older than the grace.
    pub(super) commits_due: u8,
    /// Commits up to this number were deleted, against the rule.
    pub(super) commits_deleted: u8,
    /// A commit under the number 1 that was created anew after that, by this part.
    pub(super) anew: Option<u8>,
    /// The blocks that are there.
    pub(super) blocks: Set,
    pub(super) reading: Reading,
    pub(super) day: u8,
    pub(super) graces: u8,
}

/// What the commits up to a number say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) blocks: Set,
    pub(super) removed_segments: Set,
    pub(super) removed_blocks: Set,
    pub(super) boundary: u8,
    /// The profiles that retention removed.
    pub(super) expired: Set,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            segments: Default::default(),
            jobs: Default::default(),
            log: [0; PARTS_MAX],
            commits: 0,
            days: [0; PARTS_MAX],
            commits_due: 0,
            commits_deleted: 0,
            anew: None,
            blocks: 0,
            reading: Reading::Before,
            day: 0,
            graces: 0,
        }
    }

    /// Replays the commits up to a number, forgetting what may be forgotten.
    pub(super) fn live(&self, scenario: &Scenario, commits: u8) -> Live {
        let numbers = 0..commits as usize;
        let newest = numbers.end.checked_sub(1).map_or(0, |last| self.days[last]);
        self.replay(scenario, newest, numbers.map(|number| (self.log[number] as usize, self.days[number])))
    }

    /// What is older than a day at the time of the newest commit may be forgotten.
    fn replay(&self, scenario: &Scenario, newest: u8, log: impl Iterator<Item = (usize, u8)>) -> Live {
        let mut live = Live::default();
        let mut old = 0;
        for (part, day) in log {
            let job = &self.jobs[part];
            if scenario.parts[part] == Part::Retain {
                live.expired |= self.ids_of_blocks(job.blocks);
            }
            live.blocks &= !job.blocks;
            if job.ids != 0 {
                live.blocks |= 1 << part;
            }
            live.boundary = live.boundary.max(job.boundary);
            if day < newest {
                old |= job.segments;
            } else {
                live.removed_segments |= job.segments;
                live.removed_blocks |= job.blocks;
            }
        }
        // Forgotten is what the boundary has passed; without that rule, whatever is old.
        let passed = |at: &usize| !scenario.rules.boundary || self.segments[*at].day < live.boundary;
        live.removed_segments |= members(old).filter(|at| !passed(at)).fold(0, |set, at| set | 1 << at);
        live
    }

    /// What a reader finds who has known the tenant since before its first commit.
    pub(super) fn live_of_reader(&self, scenario: &Scenario) -> Live {
        if self.commits_deleted == 0 {
            return self.live(scenario, self.commits);
        }
        // It asks for commit 1 and takes for the newest state what it finds before the first number that is missing.
        self.replay(scenario, self.day, self.anew.map(|part| (part as usize, self.day)).into_iter())
    }

    pub(super) fn listed(&self) -> Set {
        (0..SEGMENTS_MAX).filter(|at| self.segments[*at].present).fold(0, |set, at| set | 1 << at)
    }

    /// Of some segments, those that are seen in a state.
    pub(super) fn seen(&self, scenario: &Scenario, segments: Set, live: &Live) -> Set {
        let below = |at: &usize| scenario.rules.boundary && self.segments[*at].day < live.boundary;
        members(segments & !live.removed_segments).filter(|at| !below(at)).fold(0, |set, at| set | 1 << at)
    }

    /// The segments that some commit removed, forgotten or not.
    pub(super) fn ever_removed(&self, commits: u8) -> Set {
        (0..commits as usize).fold(0, |set, number| set | self.jobs[self.log[number] as usize].segments)
    }

    pub(super) fn ids_of_segments(&self, scenario: &Scenario, segments: Set) -> Set {
        members(segments).fold(0, |ids, at| ids | scenario.segments[at])
    }

    pub(super) fn ids_of_blocks(&self, blocks: Set) -> Set {
        members(blocks).fold(0, |ids, at| ids | self.jobs[at].ids)
    }

    pub(super) fn acked(&self, scenario: &Scenario) -> Set {
        (0..scenario.segments.len())
            .filter(|at| self.segments[*at].writing == Writing::Acked)
            .fold(0, |ids, at| ids | scenario.segments[at])
    }
}
