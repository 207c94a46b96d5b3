//! What to merge next: a pure function of what lies in the bucket and of the time.
//!
//! A block moves up one level at a time and at most thrice, so planning and running come to an end: segments become a block of level
//! 1, the blocks of level 1 of a day one of level 2, and once a day is over its blocks of level 2 become one of level 3. What comes later
//! gives further blocks of level 3: of small ones, eight at a time become one.
//!
//! Any number of workers may plan from the same bucket. Two that run the same job cost work, never data, so it is enough that they
//! rarely do: a segment is its writer's own at first, and what is anybody's is due for each worker after a delay of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ulid::Ulid;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::block;
use crate::commit::{BlockEntry, State};
use crate::paths::{BlockRef, Day, SegmentName, WriterId};

/// How many small blocks of level 3 a day has before they become one. Fewer would be written anew too often.
const LATE_BLOCKS: usize = 8;
/// The most rows of a small one: eight together are within what a dataset takes in one block, so that one comes out.
const LATE_ROWS_MAX: u64 = 1_250;
/// The most bytes of a small one, likewise.
const LATE_BYTES_MAX: u64 = 8 << 20;

/// When blocks are merged, and how many at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How old the oldest segment of a writer becomes before the writer's own process merges them.
    pub segment_age: Duration,
    /// How old the oldest segment becomes before anybody merges it: its writer may be dead, or merge nothing.
    pub orphan_age: Duration,
    /// How old the oldest block of level 1 becomes before those of its day are merged.
    pub hour_age: Duration,
    /// How long after the end of a day it is taken for complete.
    pub day_age: Duration,
    /// The longest delay by which workers differ about what is anybody's.
    pub spread: Duration,
    /// The most inputs of a job.
    pub inputs_max: usize,
    /// The most bytes that the inputs of a job have, but for a single one that has more.
    pub input_bytes_max: u64,
    /// The most rows that the blocks of a job have, but for a single one that has more: as many as one block takes, so that what is full is
    /// left as it is. Of segments nobody knows before they are opened.
    pub input_rows_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_age: Duration::from_secs(20),
            // Level 1 within a minute of arrival, the delay and the round included.
            orphan_age: Duration::from_secs(35),
            hour_age: Duration::from_secs(3_600),
            day_age: Duration::from_secs(3_600),
            spread: Duration::from_secs(15),
            inputs_max: 1_024,
            input_bytes_max: 256 << 20,
            input_rows_max: block::ROWS_MAX as u64,
        }
    }
}

/// Whether a plan waits until merging is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Jobs are due when their inputs are old or many enough.
    WithAge,
    /// All that can be merged is due.
    Now,
}

/// A segment that no commit removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its name.
    pub name: SegmentName,
    /// The length of the object.
    pub bytes: u64,
}

/// What lies in the bucket, as far as a plan asks.
#[derive(Clone, Copy, Debug)]
pub struct Inventory<'a> {
    /// The segments that are read, by their names.
    pub segments: &'a [Segment],
    /// The live blocks.
    pub state: &'a State,
    /// What is damaged and therefore left alone.
    pub quarantined: &'a BTreeSet<BlockRef>,
    /// The time in milliseconds since 1970.
    pub now_millis: u64,
}

/// Who plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Whose segments are its own.
    pub writer: WriterId,
    /// What its delays follow from.
    pub seed: u64,
}

/// Blocks to be merged into one, or into a few where one would be too large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The level of what comes out.
    pub level: u8,
    /// What goes in, with the length of each; the first counts where several have one id.
    pub inputs: Vec<(BlockRef, u64)>,
}

/// Returns the jobs that are due, each block in one at most, the lowest level first.
pub fn plan(inventory: &Inventory<'_>, worker: &Worker, due: Due, options: &Options) -> Vec<Job> {
    let planner = Planner { inventory, worker, due, options };
    let mut jobs = planner.segments();
    let mut days: BTreeMap<Day, [Vec<&BlockEntry>; 3]> = BTreeMap::new();
    for live in inventory.state.blocks() {
        let name = live.entry.name;
        let levels = days.entry(name.day()).or_default();
        if let Some(of_level) = levels.get_mut(usize::from(name.level()) - 1)
            && !inventory.quarantined.contains(&BlockRef::Block(name))
        {
            of_level.push(&live.entry);
        }
    }
    for (day, [first, second, third]) in days {
        jobs.extend(planner.hours(day, &first));
        // What is still to come up from level 1 had better come along.
        if first.is_empty() {
            jobs.extend(planner.day(day, &second));
        }
        jobs.extend(planner.late(&third));
    }
    jobs
}

struct Planner<'a> {
    inventory: &'a Inventory<'a>,
    worker: &'a Worker,
    due: Due,
    options: &'a Options,
}

impl Planner<'_> {
    fn segments(&self) -> Vec<Job> {
        let Inventory { segments, quarantined, .. } = self.inventory;
        let sound = segments.iter().filter(|segment| !quarantined.contains(&BlockRef::Segment(segment.name.clone())));
        let runs = |segments: Vec<&Segment>| {
            let size = |segment: &Segment| Size { bytes: segment.bytes, rows: 0 };
            self.runs(segments.into_iter().map(|segment| (BlockRef::Segment(segment.name.clone()), size(segment))))
        };
        if self.due == Due::Now {
            return runs(sound.collect()).into_iter().map(|run| run.job(1)).collect();
        }
        let (own, others): (Vec<_>, Vec<_>) =
            sound.partition(|segment| segment.name.writer() == self.worker.writer.as_str());
        let due = |run: &Run, age: Duration| run.is_full || self.age(run.oldest_millis()) >= age;
        let own = runs(own).into_iter().filter(|run| due(run, self.options.segment_age));
        let others = runs(others).into_iter().filter(|run| {
            // Full or not, what is another's is left to it for a while.
            self.age(run.oldest_millis()) >= self.options.orphan_age + self.delay(run)
        });
        own.chain(others).map(|run| run.job(1)).collect()
    }

    /// The blocks of level 1 of a day.
    fn hours(&self, day: Day, blocks: &[&BlockEntry]) -> Vec<Job> {
        let is_complete = self.is_complete(day);
        let due = |run: &Run| {
            let age = self.age(run.oldest_millis());
            let waited = if is_complete { self.options.segment_age } else { self.options.hour_age };
            self.due == Due::Now || run.is_full || age >= waited + self.delay(run)
        };
        let runs = self.runs(blocks.iter().map(|entry| (BlockRef::Block(entry.name), Size::of(entry))));
        runs.into_iter().filter(due).map(|run| run.job(2)).collect()
    }

    /// The blocks of level 2 of a day, of which there are no more to come.
    fn day(&self, day: Day, blocks: &[&BlockEntry]) -> Vec<Job> {
        if !self.is_complete(day) {
            return Vec::new();
        }
        let due = |run: &Run| {
            let age = self.age(run.newest_millis());
            run.inputs.len() > 1 && (self.due == Due::Now || age >= self.delay(run))
        };
        let runs = self.runs(blocks.iter().map(|entry| (BlockRef::Block(entry.name), Size::of(entry))));
        runs.into_iter().filter(due).map(|run| run.job(3)).collect()
    }

    /// The small blocks of level 3 of a day: what came when it was over.
    fn late(&self, blocks: &[&BlockEntry]) -> Vec<Job> {
        let is_small = |entry: &&&BlockEntry| entry.rows <= LATE_ROWS_MAX && entry.bytes <= LATE_BYTES_MAX;
        let small: Vec<_> = blocks.iter().filter(is_small).collect();
        let run = |entries: &[&&BlockEntry]| Run {
            inputs: entries.iter().map(|entry| (BlockRef::Block(entry.name), entry.bytes)).collect(),
            size: Size { bytes: 0, rows: 0 },
            is_full: true,
        };
        let due = |run: &Run| self.due == Due::Now || self.age(run.newest_millis()) >= self.delay(run);
        // What does not make a job is left for the next one.
        small.chunks_exact(LATE_BLOCKS).map(run).filter(due).map(|run| run.job(3)).collect()
    }

    /// Splits what could be merged into what one job takes.
    fn runs(&self, all: impl Iterator<Item = (BlockRef, Size)>) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (input, size) in all {
            match runs.last_mut() {
                Some(run)
                    if run.inputs.len() < self.options.inputs_max
                        && run.size.bytes + size.bytes <= self.options.input_bytes_max
                        && run.size.rows + size.rows <= self.options.input_rows_max =>
                {
                    run.inputs.push((input, size.bytes));
                    run.size.bytes += size.bytes;
                    run.size.rows += size.rows;
                }
                last => {
                    last.into_iter().for_each(|run| run.is_full = true);
                    runs.push(Run { inputs: vec![(input, size.bytes)], size, is_full: false });
                }
            }
        }
        runs
    }

    fn age(&self, millis: u64) -> Duration {
        Duration::from_millis(self.inventory.now_millis.saturating_sub(millis))
    }

    fn is_complete(&self, day: Day) -> bool {
        let end_millis = day.last_nanos().max(0).unsigned_abs() / 1_000_000;
        self.age(end_millis) >= self.options.day_age
    }

    /// How much later than at first this worker takes on a job.
    fn delay(&self, run: &Run) -> Duration {
        let share = xxh3_64_with_seed(run.inputs[0].0.to_string().as_bytes(), self.worker.seed) >> 11;
        self.options.spread.mul_f64(share as f64 / (1u64 << 53) as f64)
    }
}

/// What inputs have.
#[derive(Clone, Copy)]
struct Size {
    bytes: u64,
    /// None where nobody knows.
    rows: u64,
}

impl Size {
    fn of(entry: &BlockEntry) -> Self {
        Self { bytes: entry.bytes, rows: entry.rows }
    }
}

/// Inputs that one job can take.
struct Run {
    inputs: Vec<(BlockRef, u64)>,
    size: Size,
    /// There was more than it takes.
    is_full: bool,
}

impl Run {
    fn job(self, level: u8) -> Job {
        Job { level, inputs: self.inputs }
    }

    fn oldest_millis(&self) -> u64 {
        self.inputs.iter().map(|(input, _)| made_millis(input)).min().unwrap_or(0)
    }

    fn newest_millis(&self) -> u64 {
        self.inputs.iter().map(|(input, _)| made_millis(input)).max().unwrap_or(0)
    }
}

/// Returns when a block was named, in milliseconds by its writer's clock.
fn made_millis(block: &BlockRef) -> u64 {
    match block {
        BlockRef::Segment(name) => name.millis(),
        BlockRef::Block(name) => Ulid::timestamp_ms(&name.ulid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{Commit, Reason};
    use crate::paths::BlockName;

    const HOUR: u64 = 3_600_000;
    /// Some noon.
    const NOON: u64 = 20_000 * 24 * HOUR + 12 * HOUR;

    fn worker(writer: &str, seed: u64) -> Worker {
        Worker { writer: writer.parse().expect("valid"), seed }
    }

    fn segment(millis: u64, writer: &str) -> Segment {
        Segment { name: SegmentName::new(millis, &writer.parse().expect("valid"), millis), bytes: 1_000 }
    }

    fn block(level: u8, made_millis: u64, bytes: u64) -> BlockEntry {
        let nanos = made_millis as i64 * 1_000_000;
        let ulid = Ulid::from_parts(made_millis, u128::from(made_millis) + u128::from(level));
        BlockEntry {
            name: BlockName::new(level, Day::of_nanos(nanos), ulid),
            bytes,
            rows: 1,
            raw_bytes: 1,
            first_nanos: nanos,
            last_nanos: nanos,
            first_id: ulid,
            last_id: ulid,
        }
    }

    fn state(blocks: &[BlockEntry]) -> State {
        let mut state = State::default();
        let commit = Commit { reason: Reason::Compaction, adds: blocks.to_vec(), removes: Vec::new(), boundary: None };
        state.apply(&commit, NOON).expect("the blocks are sound");
        state
    }

    fn planned(segments: &[Segment], state: &State, now_millis: u64, worker: &Worker, due: Due) -> Vec<(u8, usize)> {
        let inventory = Inventory { segments, state, quarantined: &BTreeSet::new(), now_millis };
        let jobs = plan(&inventory, worker, due, &Options::default());
        jobs.iter().map(|job| (job.level, job.inputs.len())).collect()
    }

    #[test]
    fn a_writer_takes_its_own_segments_early_and_others_later() {
        let segments = [segment(NOON, "a"), segment(NOON + 1, "b"), segment(NOON + 2, "a")];
        let at =
            |seconds: u64| planned(&segments, &State::default(), NOON + seconds * 1_000, &worker("a", 1), Due::WithAge);
        assert_eq!(at(19), []);
        assert_eq!(at(20), [(1, 2)]);
        assert_eq!(at(51), [(1, 2), (1, 1)], "within a minute, whatever the worker's delay");
    }

    #[test]
    fn workers_do_not_take_the_same_at_once() {
        let segments = [segment(NOON, "dead")];
        let first = |seed| {
            let is_due = |ms: &u64| {
                !planned(&segments, &State::default(), NOON + ms, &worker("w", seed), Due::WithAge).is_empty()
            };
            (35_000..=50_000).step_by(100).find(is_due).expect("it is due within the spread")
        };
        let times: BTreeSet<u64> = (0..20).map(first).collect();
        assert!(times.len() > 15, "{times:?}");
    }

    #[test]
    fn jobs_are_bounded_and_a_full_one_is_due_at_once() {
        let options = Options { inputs_max: 3, input_bytes_max: 4_000, ..Options::default() };
        let segments: Vec<_> = (0..7).map(|n| segment(NOON + n, "a")).collect();
        let state = State::default();
        let inventory =
            Inventory { segments: &segments, state: &state, quarantined: &BTreeSet::new(), now_millis: NOON + 10 };
        let jobs = plan(&inventory, &worker("a", 1), Due::WithAge, &options);
        assert_eq!(jobs.iter().map(|job| job.inputs.len()).collect::<Vec<_>>(), [3, 3]);
        let large = [Segment { bytes: 9_000, ..segment(NOON, "a") }, segment(NOON + 1, "a")];
        let inventory = Inventory { segments: &large, ..inventory };
        let jobs = plan(&inventory, &worker("a", 1), Due::Now, &options);
        assert_eq!(jobs.iter().map(|job| job.inputs.len()).collect::<Vec<_>>(), [1, 1]);
    }

    /// Goal: a block that has as many rows as one may have is not written again and again.
    #[test]
    fn full_blocks_are_left_as_they_are() {
        let of_rows = |rows: &[u64]| {
            let blocks =
                rows.iter().zip(0..).map(|(&rows, n)| BlockEntry { rows, ..block(2, NOON + n * 60_000, 1_000) });
            state(&blocks.collect::<Vec<_>>())
        };
        let at = |state: &State| planned(&[], state, NOON + 13 * HOUR, &worker("a", 1), Due::Now);
        let max = Options::default().input_rows_max;
        assert_eq!(at(&of_rows(&[max, max, max])), []);
        assert_eq!(at(&of_rows(&[max, max / 2, max / 2, 1, 1])), [(3, 2), (3, 2)]);
    }

    #[test]
    fn an_hour_of_level_1_becomes_level_2() {
        let blocks: Vec<_> = (0..60).map(|n| block(1, NOON + n * 60_000, 1_000)).collect();
        let state = state(&blocks);
        let at = |millis| planned(&[], &state, NOON + millis, &worker("a", 1), Due::WithAge);
        assert_eq!(at(HOUR - 1), []);
        assert_eq!(at(HOUR + 15_000), [(2, 60)]);
        assert_eq!(planned(&[], &state, NOON + 1, &worker("a", 1), Due::Now), [(2, 60)]);
    }

    #[test]
    fn a_day_is_merged_once_it_is_over() {
        let state_of = |levels: &[u8]| {
            let blocks = levels.iter().zip(0..).map(|(level, n)| block(*level, NOON + n * 60_000, 1_000));
            state(&blocks.collect::<Vec<_>>())
        };
        let at = |state: &State, hours: u64| planned(&[], state, NOON + hours * HOUR, &worker("a", 1), Due::Now);
        assert_eq!(at(&state_of(&[2, 2, 2]), 12), [], "profiles may still come");
        assert_eq!(at(&state_of(&[2, 2, 2]), 13), [(3, 3)]);
        assert_eq!(at(&state_of(&[2, 2, 1]), 13), [(2, 1)], "level 1 comes up first");
        assert_eq!(at(&state_of(&[2, 3]), 13), [], "one alone would only be written again");
    }

    /// Goal: of small blocks that came late there are seven a day at most, and large ones are not written anew for them.
    #[test]
    fn late_blocks_of_a_day_become_one() {
        let of = |small: u64, large: u64| {
            let small = (0..small).map(|n| block(3, NOON + n * 1_000, 1_000));
            let large = (0..large)
                .map(|n| BlockEntry { rows: LATE_ROWS_MAX + 1, ..block(3, NOON + 500 + n * 1_000, LATE_BYTES_MAX) });
            state(&small.chain(large).collect::<Vec<_>>())
        };
        let at = |state: &State, due| planned(&[], state, NOON + 40 * HOUR, &worker("a", 1), due);
        assert_eq!(at(&of(7, 20), Due::Now), []);
        assert_eq!(at(&of(8, 1), Due::Now), [(3, 8)]);
        assert_eq!(at(&of(17, 0), Due::WithAge), [(3, 8), (3, 8)]);
    }

    #[test]
    fn what_is_quarantined_is_left_alone() {
        let segments = [segment(NOON, "a"), segment(NOON + 1, "a")];
        let blocks = [block(1, NOON, 1_000), block(1, NOON + 1, 1_000)];
        let state = state(&blocks);
        let quarantined =
            BTreeSet::from([BlockRef::Segment(segments[0].name.clone()), BlockRef::Block(blocks[1].name)]);
        let inventory = Inventory { segments: &segments, state: &state, quarantined: &quarantined, now_millis: NOON };
        let jobs = plan(&inventory, &worker("a", 1), Due::Now, &Options::default());
        let inputs: Vec<_> = jobs.iter().flat_map(|job| &job.inputs).map(|(input, _)| input.clone()).collect();
        assert_eq!(inputs, [BlockRef::Segment(segments[1].name.clone()), BlockRef::Block(blocks[0].name)]);
    }

    /// Goal: planning and running come to an end, whatever is there.
    #[test]
    fn everything_comes_to_rest() {
        let segments: Vec<_> = (0..5_000).map(|n| segment(NOON + n, "a")).collect();
        let mut left: Vec<Segment> = segments;
        let mut state = State::default();
        let mut rounds = 0;
        loop {
            let inventory = Inventory {
                segments: &left,
                state: &state,
                quarantined: &BTreeSet::new(),
                now_millis: NOON + 14 * HOUR,
            };
            let jobs = plan(&inventory, &worker("b", 1), Due::Now, &Options::default());
            if jobs.is_empty() {
                break;
            }
            for (job, n) in jobs.iter().zip(0..) {
                rounds += 1;
                let adds = vec![block(job.level, NOON + rounds * 1_000 + n, 1_000)];
                let removes: Vec<_> = job.inputs.iter().map(|(input, _)| input.clone()).collect();
                left.retain(|segment| !removes.contains(&BlockRef::Segment(segment.name.clone())));
                let commit = Commit { reason: Reason::Compaction, adds, removes, boundary: None };
                state.apply(&commit, NOON).expect("each block is in one job at most");
            }
        }
        let levels: Vec<u8> = state.blocks().map(|live| live.entry.name.level()).collect();
        assert_eq!((left.len(), levels), (0, vec![2]), "5 jobs of level 1, one of level 2, which is alone");
    }
}
