//! What must hold.

use std::fmt;

use super::rules::{Part, Scenario};
use super::state::{Live, Reading, Set, State, members};

/// What does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// An acknowledged profile is in no live block and in no segment that is seen.
    Lost,
    /// A profile is in two blocks of a view, and counts twice.
    Doubled,
    /// A live block, or an object of a view within the grace, is not there.
    Deleted,
    /// A segment that a commit removed is seen again.
    Returned,
    /// A commit removes or adds what an earlier one removed: it should have lost the race.
    Conflict,
    /// A view lacks a profile that was acknowledged before it was asked for.
    Overlooked,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "an acknowledged profile is in no live block and in no segment that is seen",
            Self::Doubled => "a profile counts twice in a view",
            Self::Deleted => "an object that is live, or that a view holds within the grace, is not there",
            Self::Returned => "a segment that a commit removed is seen again",
            Self::Conflict => "a commit removes or adds what an earlier one removed",
            Self::Overlooked => "a view lacks a profile that was acknowledged before",
        })
    }
}

impl State {
    /// Returns what does not hold in this state.
    pub(super) fn wrong(&self, scenario: &Scenario) -> Option<Wrong> {
        let live = self.live(scenario, self.commits);
        if let Reading::Wrong(wrong) = self.reading {
            return Some(wrong);
        }
        if live.blocks & !self.blocks != 0 {
            return Some(Wrong::Deleted);
        }
        if self.is_doubled(live.blocks) {
            return Some(Wrong::Doubled);
        }
        if self.is_in_conflict(scenario) {
            return Some(Wrong::Conflict);
        }
        let seen = self.seen(scenario, self.listed(), &live);
        if seen & self.ever_removed(self.commits) != 0 {
            return Some(Wrong::Returned);
        }
        let held = self.ids_of_segments(scenario, seen) | self.ids_of_blocks(live.blocks);
        if self.acked(scenario) & !held & !live.expired != 0 {
            return Some(Wrong::Lost);
        }
        if let Reading::Holding { segments, blocks } = self.reading
            && (segments & !self.listed() != 0 || blocks & !self.blocks != 0)
        {
            return Some(Wrong::Deleted);
        }
        None
    }

    /// Makes the view of a reader who listed these segments, or says what is wrong with it.
    pub(super) fn view(&self, scenario: &Scenario, listed: Set, live: &Live, due: Set) -> Reading {
        let segments = self.seen(scenario, listed, live);
        let held = self.ids_of_segments(scenario, segments) | self.ids_of_blocks(live.blocks);
        if self.is_doubled(live.blocks) {
            Reading::Wrong(Wrong::Doubled)
        } else if due & !held & !live.expired != 0 {
            Reading::Wrong(Wrong::Overlooked)
        } else {
            Reading::Holding { segments, blocks: live.blocks }
        }
    }

    /// Whether a commit removes or adds what an earlier one removed. Garbage may be removed again: only to be deleted.
    fn is_in_conflict(&self, scenario: &Scenario) -> bool {
        let (mut segments, mut blocks) = (0, 0);
        self.log[..self.commits as usize].iter().map(|part| *part as usize).any(|part| {
            let job = &self.jobs[part];
            let added = if job.ids == 0 { 0 } else { 1 << part };
            let removed = if scenario.parts[part] == Part::Garbage { 0 } else { job.blocks };
            let is_late = segments & job.segments != 0 || blocks & (removed | added) != 0;
            segments |= job.segments;
            blocks |= job.blocks;
            is_late
        })
    }

    /// Whether two of these blocks hold one profile. Segments do not matter: a reader counts each of their ids once.
    fn is_doubled(&self, blocks: Set) -> bool {
        let mut held = 0;
        members(blocks).any(|block| {
            let twice = held & self.jobs[block].ids != 0;
            held |= self.jobs[block].ids;
            twice
        })
    }
}
