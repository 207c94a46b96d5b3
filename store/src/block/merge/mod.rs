//! Makes larger blocks of several: the work of compaction.
//!
//! No protobuf is read or made. Blocks refer to their tables by indices, so a merge takes the entries that are in use over into new
//! tables ([`symbols`](super::symbols)), replaces the indices in stacks, labels, heads and metas, and leaves values as they are. As
//! different entries stay different, every prediction of the reader comes out as before, and so do the bytes of every profile.
//!
//! - `plan` decides from the rows alone which profiles come along, and in which order;
//! - `source` is one input: it says what must be read next, unpacks it and gives a profile with its indices replaced;
//! - `output` is the block being written: it gathers, checks, and says when it is full;
//! - [`Merge`] walks the plan. All waiting is in [`Merge::next`], all work between two waits is a plain function.
//!
//! Memory: the tables of one service of all inputs and of the output, a chunk and what is read ahead of each input, one output object; and
//! what the opened inputs and the rows of the output take, which [`Footprint`] counts for whoever chooses the inputs.

mod footprint;
mod output;
mod plan;
mod source;
mod split;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use ulid::Ulid;

pub use self::footprint::Footprint;
use self::output::Output;
use self::plan::{Pick, Plan};
use self::source::Source;
use super::chunk::{self, Limits};
use super::error::Error;
use super::frame::Packer;
use super::reader::Block;
use crate::paths::Day;

/// How blocks are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeOptions {
    /// The compression level of zstd.
    pub zstd_level: i32,
    /// The most profiles that are compressed together.
    pub chunk_profiles_max: usize,
    /// The most rows of one block; what is more goes to the next block. Who reads a block holds all of its rows.
    pub rows_max: usize,
    /// The most rows of one dataset in one block; what is more goes to the next block.
    pub rows_max_of_dataset: usize,
    /// About how many bytes a block may have; what is more goes to the next block.
    pub block_bytes_max: u64,
    /// The most entries that the tables of one service in one block may have before the next block is begun.
    pub symbols_max: usize,
    /// The most memory in bytes that the merge may take besides the rows and the output.
    pub memory_max: u64,
    /// How long the steps of time are whose profiles are summed, in whole seconds; none for no roll-ups.
    pub rollup_step: Option<Duration>,
    /// Whether blocks say in short which functions their services have.
    pub function_filters: bool,
}

/// A block to be merged.
#[derive(Clone, Debug)]
pub struct Input {
    /// The block.
    pub block: Arc<Block>,
    /// Which of its rows stay behind, as sorted indices into [`Block::rows`].
    pub skip: Arc<[u32]>,
}

/// A block that came out of a merge.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The bytes of the object.
    pub bytes: Bytes,
    /// What it holds.
    pub summary: Summary,
}

/// What a block holds, in a few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many profiles.
    pub rows: u64,
    /// How many of them are kept as columns.
    pub columns: u64,
    /// The length of all their protobuf bytes.
    pub raw_bytes: u64,
    /// The smallest time of a profile, in nanoseconds since 1970.
    pub first_nanos: i64,
    /// The largest time of a profile, in nanoseconds since 1970.
    pub last_nanos: i64,
    /// The smallest id.
    pub first_id: Ulid,
    /// The largest id.
    pub last_id: Ulid,
    /// The day of all its profiles; that of the first where there are several.
    pub day: Day,
}

/// What a merge has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// How many profiles came along.
    pub rows: u64,
    /// How many stayed behind because an earlier input has their id.
    pub duplicates: u64,
    /// How many profiles were rebuilt and compared with their SHA-256.
    pub checked: u64,
    /// How many ranges were read.
    pub reads: u64,
    /// How many bytes those had.
    pub bytes_read: u64,
    /// How many bytes the blocks have that came out.
    pub bytes_written: u64,
}

/// A merge under way.
#[derive(Debug)]
pub struct Merge {
    options: MergeOptions,
    sources: Vec<Source>,
    plan: Plan,
    /// The pick that comes next.
    next: usize,
    /// Where the picks end of the day and service that are under way.
    service_end: usize,
    /// Where those of the others end that come after.
    service_ends: std::vec::IntoIter<usize>,
    output: Option<Output>,
    packer: Packer,
    stats: Stats,
}

/// What must happen before the work can go on.
enum Step {
    /// Sources must read.
    Read,
    /// Others may have a turn.
    Pause,
    /// A block is complete.
    Output(Merged),
    /// Nothing is left.
    Done,
}

/// How many ranges are read at once.
const READS_AT_ONCE: usize = 16;

/// How many bytes of columns are worked through before others have a turn: some milliseconds of work.
const TURN_BYTES: usize = 512 << 10;

/// The most rows of a block: some 170 bytes each in memory, of a merge twice that, of a question once.
pub(crate) const ROWS_MAX: usize = 250_000;

/// From which level on blocks have roll-ups: those below hold minutes, and live as long.
const ROLLUP_LEVEL_MIN: u8 = 2;

/// From which level on blocks have filters of functions, for the same reason: all that is new is asked for anyway.
const FILTERS_LEVEL_MIN: u8 = 2;

/// How long the steps of roll-ups are: what a block of level 2 holds.
const ROLLUP_STEP: Duration = Duration::from_secs(3600);

// === impl MergeOptions ===

impl MergeOptions {
    /// Returns the options for blocks of a level, from 1 on: larger and denser from one to the next.
    pub fn of_level(level: u8) -> Self {
        let (zstd_level, chunk_profiles_max, block_bytes_max) = match level {
            0 | 1 => (3, chunk::LIMITS.profiles, 32 << 20),
            2 => (6, chunk::LIMITS.profiles, 64 << 20),
            _ => (6, chunk::LIMITS.profiles, 128 << 20),
        };
        Self {
            zstd_level,
            chunk_profiles_max,
            rows_max: ROWS_MAX,
            rows_max_of_dataset: 10_000,
            block_bytes_max,
            symbols_max: 1 << 21,
            memory_max: 128 << 20,
            rollup_step: (level >= ROLLUP_LEVEL_MIN).then_some(ROLLUP_STEP),
            function_filters: level >= FILTERS_LEVEL_MIN,
        }
    }
}

// === impl Merge ===

impl Merge {
    /// Begins to merge `inputs`: reads their rows where they were not read yet, and plans. Where several rows have one id, that of the
    /// first input counts, and in it the first.
    ///
    /// # Errors
    /// The rows of an input cannot be read or are damaged, or its tables need more memory than [`MergeOptions::memory_max`].
    pub async fn begin(inputs: Vec<Input>, options: MergeOptions) -> Result<Self, Error> {
        let needed = Footprint::of(inputs.iter().map(|input| &*input.block)).tables();
        if needed > options.memory_max {
            return Err(Error::Memory { needed, max: options.memory_max });
        }
        let rows = stream::iter(inputs.iter().map(|input| input.block.rows())).buffered(READS_AT_ONCE);
        let rows: Vec<_> = rows.try_collect().await?;
        let plan = Plan::new(&inputs, &rows);
        let stats = Stats { duplicates: plan.duplicates, ..Stats::default() };
        let mut sources: Vec<_> =
            inputs.into_iter().zip(rows).map(|(input, rows)| Source::new(input.block, rows)).collect();
        let mut service_ends = Vec::new();
        for (service, picks) in plan.services() {
            picks.iter().for_each(|pick| sources[pick.input as usize].will_need(pick, service));
            service_ends.push(service_ends.last().copied().unwrap_or(0) + picks.len());
        }
        let service_ends = service_ends.into_iter();
        let packer = Packer::new(options.zstd_level);
        Ok(Self { options, sources, plan, next: 0, service_end: 0, service_ends, output: None, packer, stats })
    }

    /// Returns the next block, or nothing at the end. Between its waits it works for some milliseconds at a time: where that is too long for
    /// the others of a runtime, give it a thread of its own. After an error there is nothing more.
    ///
    /// # Errors
    /// An input cannot be read or is damaged; the error names it. Or the rows of the output cannot be written.
    pub async fn next(&mut self) -> Result<Option<Merged>, Error> {
        loop {
            match self.work()? {
                Step::Read => self.read().await?,
                Step::Pause => tokio::task::yield_now().await,
                Step::Output(merged) => return Ok(Some(merged)),
                Step::Done => return Ok(None),
            }
        }
    }

    /// Returns what was done so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Reads what sources need that have used up what they had.
    async fn read(&mut self) -> Result<(), Error> {
        // A share of the memory is for what is read ahead.
        let ahead = self.options.memory_max / 4 / self.sources.len().max(1) as u64;
        let wanted = (0..).zip(&self.sources).filter_map(|(i, source)| Some((i, source.wants(ahead)?)));
        let reads = wanted.map(|(i, range): (usize, Range<u64>)| {
            let block = self.sources[i].block.clone();
            async move { block.read(range.clone()).await.map(|bytes| (i, range, bytes)) }
        });
        let reads: Vec<_> = reads.collect();
        let done: Vec<_> = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        for (i, range, bytes) in done {
            self.stats.reads += 1;
            self.stats.bytes_read += bytes.len() as u64;
            self.sources[i].take(range.start, &bytes);
        }
        Ok(())
    }

    /// Works until something must happen first.
    fn work(&mut self) -> Result<Step, Error> {
        let mut worked = 0;
        loop {
            let Some(&pick) = self.plan.picks.get(self.next) else {
                return Ok(self.finish_output()?.map_or(Step::Done, Step::Output));
            };
            if self.output.as_ref().is_some_and(|output| output.is_full_for(&pick, &self.plan, &self.options)) {
                let merged = self.finish_output()?;
                // Entries that came along so far lie in the tables of that block.
                self.sources.iter_mut().for_each(Source::forget_places);
                return Ok(merged.map_or(Step::Pause, Step::Output));
            }
            if self.next == self.service_end {
                self.begin_service()?;
            }
            let source = &mut self.sources[pick.input as usize];
            if !source.is_ready(&pick)? {
                return Ok(Step::Read);
            }
            worked += self.carry(&pick)?;
            self.next += 1;
            if worked >= TURN_BYTES {
                return Ok(Step::Pause);
            }
        }
    }

    /// Begins the service of the next pick.
    fn begin_service(&mut self) -> Result<(), Error> {
        self.service_end = self.service_ends.next().expect("a pick that is left is of a service");
        self.sources.iter_mut().for_each(Source::begin_service);
        if let Some(output) = &mut self.output {
            output.finish_service(&mut self.packer)?;
        }
        Ok(())
    }

    /// Carries a profile over into the output, and returns how many bytes it has.
    fn carry(&mut self, pick: &Pick) -> Result<usize, Error> {
        let limits = Limits { profiles: self.options.chunk_profiles_max, ..chunk::LIMITS };
        let output = match &mut self.output {
            Some(output) => output,
            none => {
                let rows_max = self.plan.picks.len() - self.next;
                none.insert(Output::new(pick.day, limits, &self.options, rows_max)?)
            }
        };
        let source = &mut self.sources[pick.input as usize];
        let of = &self.plan.datasets[pick.dataset as usize];
        let (bytes, checked) = output.carry(pick, of, source, &mut self.packer)?;
        self.stats.rows += 1;
        self.stats.checked += u64::from(checked);
        Ok(bytes)
    }

    fn finish_output(&mut self) -> Result<Option<Merged>, Error> {
        let Some(output) = self.output.take() else { return Ok(None) };
        let merged = output.finish(&mut self.packer)?;
        self.stats.bytes_written += merged.bytes.len() as u64;
        Ok(Some(merged))
    }
}
