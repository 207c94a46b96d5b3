//! Every next step.

use std::fmt;

use super::rules::{Part, Scenario, SlowAck};
use super::state::{Job, Live, Phase, Reading, Segment, Set, State, Writing, has, members};

/// A step, for the way to a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A writer names its segment and sends it.
    Send(usize),
    /// A PUT of a segment lands.
    Land(usize),
    /// A writer that is late reads the boundary, after the store's answer.
    ReadBoundary(usize),
    /// A writer acknowledges.
    Ack(usize),
    /// A part reads what there is; if it has no block to write, it sends its commit.
    Plan(usize),
    /// A part writes its block and sends its commit.
    Put(usize),
    /// A commit that was sent becomes the one of its number.
    Commit(usize),
    /// A part hears that its number is taken and looks what that means.
    LostRace(usize),
    /// A part stops waiting for an answer, and deletes its block against the rule.
    GiveUp(usize),
    /// A segment is deleted.
    DeleteSegment(usize),
    /// A block is deleted.
    DeleteBlock(usize),
    /// The commits are deleted, against the rule.
    DeleteCommits,
    /// The reader lists segments.
    List,
    /// The reader reads the commits.
    Replay,
    /// The grace passes.
    Grace,
    /// A day passes.
    Day,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(at) => write!(f, "writer {at} names and sends segment {at}"),
            Self::Land(at) => write!(f, "a PUT of segment {at} lands"),
            Self::ReadBoundary(at) => write!(f, "writer {at} has its answer and reads the boundary"),
            Self::Ack(at) => write!(f, "writer {at} acknowledges"),
            Self::Plan(part) => write!(f, "part {part} plans, and sends its commit if it has no block"),
            Self::Put(part) => write!(f, "part {part} writes block {part} and sends its commit"),
            Self::Commit(part) => write!(f, "the commit of part {part} lands"),
            Self::LostRace(part) => write!(f, "part {part} hears that its number is taken"),
            Self::GiveUp(part) => write!(f, "part {part} gives up and deletes its block"),
            Self::DeleteSegment(at) => write!(f, "segment {at} is deleted"),
            Self::DeleteBlock(part) => write!(f, "block {part} is deleted"),
            Self::DeleteCommits => write!(f, "the commits are deleted"),
            Self::List => write!(f, "the reader lists"),
            Self::Replay => write!(f, "the reader reads the commits"),
            Self::Grace => write!(f, "the grace passes"),
            Self::Day => write!(f, "a day passes"),
        }
    }
}

impl State {
    /// Gives every state that may come next to `sink`, with the step that leads to it.
    pub(super) fn next(&self, scenario: &Scenario, sink: &mut impl FnMut(Step, Self)) {
        self.next_of_writers(scenario, sink);
        for part in 0..scenario.parts.len() {
            match self.jobs[part].phase {
                Phase::Before => self.plan(scenario, part, sink),
                Phase::Planned(number) => {
                    let mut next = *self;
                    next.blocks |= 1 << part;
                    next.jobs[part].day = self.day;
                    next.jobs[part].phase = Phase::Sent(number);
                    sink(Step::Put(part), next);
                }
                Phase::Sent(number) => self.next_of_commit(scenario, part, number, sink),
                Phase::Deleting => {
                    let mut next = *self;
                    let block = self.jobs[part].blocks.trailing_zeros() as usize;
                    next.blocks &= !self.jobs[part].blocks;
                    next.jobs[part].phase = Phase::Over;
                    sink(Step::DeleteBlock(block), next);
                }
                Phase::Over => {}
            }
        }
        self.next_of_collector(scenario, sink);
        self.next_of_reader(scenario, sink);
        self.next_of_time(scenario, sink);
    }

    fn next_of_writers(&self, scenario: &Scenario, sink: &mut impl FnMut(Step, Self)) {
        for at in 0..scenario.segments.len() {
            let segment = self.segments[at];
            let mut set = |step, change: &dyn Fn(&mut Segment)| {
                let mut next = *self;
                change(&mut next.segments[at]);
                sink(step, next);
            };
            if segment.writing == Writing::Before {
                set(Step::Send(at), &|s| {
                    s.writing = Writing::Sent;
                    s.day = self.day;
                    s.under_way = scenario.puts;
                });
            }
            if segment.under_way > 0 {
                set(Step::Land(at), &|s| {
                    s.under_way -= 1;
                    s.landed = true;
                    s.present = true;
                });
            }
            let slow_ack = scenario.rules.slow_ack;
            match segment.writing {
                _ if !segment.landed => {}
                Writing::Sent | Writing::LateChecked => set(Step::Ack(at), &|s| s.writing = Writing::Acked),
                Writing::Late if slow_ack == SlowAck::Always => set(Step::Ack(at), &|s| s.writing = Writing::Acked),
                Writing::Late if slow_ack == SlowAck::AfterBoundary => {
                    if segment.day >= self.live(scenario, self.commits).boundary {
                        set(Step::ReadBoundary(at), &|s| s.writing = Writing::LateChecked);
                    }
                }
                Writing::Before | Writing::Late | Writing::Acked => {}
            }
        }
    }

    /// All commits that a part may send as of now.
    fn plan(&self, scenario: &Scenario, part: usize, sink: &mut impl FnMut(Step, Self)) {
        let live = self.live(scenario, self.commits);
        let number = self.commits + 1;
        let mut send = |job: Job| {
            let mut next = *self;
            let phase = if job.ids == 0 { job.phase } else { Phase::Planned(number) };
            next.jobs[part] = Job { phase, ..job };
            sink(Step::Plan(part), next);
        };
        let sent = Job { phase: Phase::Sent(number), ..Job::default() };
        match scenario.parts[part] {
            Part::Compact => {
                let segments = self.seen(scenario, self.listed(), &live);
                for (segments, blocks) in subsets(segments, live.blocks & self.blocks) {
                    let elsewhere = self.ids_of_blocks(live.blocks & !blocks);
                    let ids = self.ids_of_segments(scenario, segments) | self.ids_of_blocks(blocks);
                    let ids = if scenario.rules.dedupe { ids & !elsewhere } else { ids };
                    send(Job { segments, blocks, ids, ..sent });
                }
            }
            Part::Retain => members(live.blocks).for_each(|block| send(Job { blocks: 1 << block, ..sent })),
            Part::Boundary => {
                let listed = self.seen(scenario, self.listed(), &live);
                let spared = members(listed).map(|at| self.segments[at].day).min();
                let spared = spared.filter(|_| scenario.rules.boundary_spares_listed).unwrap_or(self.day);
                let boundary = spared.min(self.day);
                if boundary > live.boundary {
                    send(Job { boundary, ..sent });
                }
            }
            Part::Garbage => {
                let is_old = |block: &usize| self.jobs[*block].day < self.day;
                let unnamed = self.blocks & !live.blocks & !live.removed_blocks;
                let phase = if scenario.rules.garbage_by_commit { sent.phase } else { Phase::Deleting };
                members(unnamed).filter(is_old).for_each(|block| send(Job { phase, blocks: 1 << block, ..sent }));
            }
        }
    }

    fn next_of_commit(&self, scenario: &Scenario, part: usize, number: u8, sink: &mut impl FnMut(Step, Self)) {
        let rules = &scenario.rules;
        let with = |change: &dyn Fn(&mut Self)| {
            let mut next = *self;
            change(&mut next);
            next
        };
        if self.commits + 1 == number {
            sink(
                Step::Commit(part),
                with(&|s| {
                    s.log[s.commits as usize] = part as u8;
                    s.days[s.commits as usize] = s.day;
                    s.commits += 1;
                }),
            );
        } else if number == 1 && self.commits_deleted > 0 && self.anew.is_none() && self.log[0] != part as u8 {
            sink(Step::Commit(part), with(&|s| s.anew = Some(part as u8)));
        }
        if !rules.unknown_keeps && self.jobs[part].ids != 0 && has(self.blocks, part) {
            sink(Step::GiveUp(part), with(&|s| s.blocks &= !(1 << part)));
        }
        if self.commits < number {
            return;
        }
        // Number n is taken. By its own commit: with the nonce compared, it knows; whatever it does then changes nothing.
        let is_own = self.log[number as usize - 1] == part as u8;
        if is_own && rules.nonce {
            return;
        }
        let again = self.commits + 1;
        let step = Step::LostRace(part);
        if !rules.revalidation || self.is_valid(scenario, part, &self.live(scenario, self.commits)) {
            sink(step, with(&|s| s.jobs[part].phase = Phase::Sent(again)));
        } else {
            // Nothing of it is under way: who knows that may delete its block at once.
            sink(
                step,
                with(&|s| {
                    s.blocks &= !(1 << part);
                    s.jobs[part].phase = Phase::Over;
                }),
            );
        }
    }

    /// Whether what a part planned still holds.
    pub(super) fn is_valid(&self, scenario: &Scenario, part: usize, live: &Live) -> bool {
        let (job, rules) = (&self.jobs[part], &scenario.rules);
        if job.ids != 0 {
            let is_old = rules.age_of_output && job.day < self.days[self.commits as usize - 1];
            if is_old || self.ids_of_blocks(live.blocks & !job.blocks) & job.ids != 0 {
                return false;
            }
        }
        match scenario.parts[part] {
            Part::Compact | Part::Retain => {
                let below = |at: usize| rules.boundary_of_inputs && self.segments[at].day < live.boundary;
                job.blocks & !live.blocks == 0
                    && job.segments & live.removed_segments == 0
                    && !members(job.segments).any(below)
            }
            Part::Garbage => job.blocks & (live.blocks | live.removed_blocks) == 0,
            Part::Boundary => true,
        }
    }

    fn next_of_collector(&self, scenario: &Scenario, sink: &mut impl FnMut(Step, Self)) {
        let live = self.live(scenario, self.commits);
        let due = if scenario.rules.grace { self.commits_due } else { self.commits };
        let (mut segments, mut blocks, mut boundary): (Set, Set, u8) = (0, 0, 0);
        for part in &self.log[..due as usize] {
            let job = &self.jobs[*part as usize];
            segments |= job.segments;
            blocks |= job.blocks;
            boundary = boundary.max(job.boundary);
        }
        let is_below = |at: &usize| scenario.rules.boundary && self.segments[*at].day < boundary;
        segments &= live.removed_segments;
        segments |= members(self.listed()).filter(is_below).fold(0, |set, at| set | 1 << at);
        for at in members(segments & self.listed()) {
            let mut next = *self;
            next.segments[at].present = false;
            sink(Step::DeleteSegment(at), next);
        }
        for block in members(blocks & self.blocks & live.removed_blocks) {
            let mut next = *self;
            next.blocks &= !(1 << block);
            sink(Step::DeleteBlock(block), next);
        }
        if !scenario.rules.commits_kept && self.commits_deleted < self.commits_due && self.anew.is_none() {
            sink(Step::DeleteCommits, Self { commits_deleted: self.commits_due, ..*self });
        }
    }

    fn next_of_reader(&self, scenario: &Scenario, sink: &mut impl FnMut(Step, Self)) {
        let due = self.acked(scenario);
        match self.reading {
            Reading::Before if scenario.rules.list_first => {
                let reading = Reading::Listed { segments: self.listed(), due };
                sink(Step::List, Self { reading, ..*self });
            }
            Reading::Before => {
                let reading = Reading::Replayed { commits: self.commits, due };
                sink(Step::Replay, Self { reading, ..*self });
            }
            Reading::Listed { segments, due } => {
                let reading = self.view(scenario, segments, &self.live_of_reader(scenario), due);
                sink(Step::Replay, Self { reading, ..*self });
            }
            Reading::Replayed { commits, due } => {
                let reading = self.view(scenario, self.listed(), &self.live(scenario, commits), due);
                sink(Step::List, Self { reading, ..*self });
            }
            Reading::Holding { .. } | Reading::Wrong(_) | Reading::Over => {}
        }
    }

    fn next_of_time(&self, scenario: &Scenario, sink: &mut impl FnMut(Step, Self)) {
        // Whoever asked before is older than the grace.
        let reading = if let Reading::Holding { .. } = self.reading { Reading::Over } else { self.reading };
        let after = Self { reading, commits_due: self.commits, ..*self };
        if self.graces < scenario.graces {
            sink(Step::Grace, Self { graces: self.graces + 1, ..after });
        }
        if self.day < scenario.days {
            let mut next = Self { day: self.day + 1, ..after };
            for segment in &mut next.segments {
                if segment.writing == Writing::Sent {
                    segment.writing = Writing::Late;
                }
            }
            sink(Step::Day, next);
        }
    }
}

/// All choices of inputs that make a compaction: at least a segment, or two blocks.
fn subsets(segments: Set, blocks: Set) -> impl Iterator<Item = (Set, Set)> {
    let of = |set: Set| (0..=set).filter(move |subset| subset & !set == 0);
    of(segments)
        .flat_map(move |segments| of(blocks).map(move |blocks| (segments, blocks)))
        .filter(|(segments, blocks)| *segments != 0 || blocks.count_ones() > 1)
}
