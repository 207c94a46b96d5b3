//! Roll-ups: what the profiles of a dataset add up to, step by step of time, so that a question about a long window reads a few sums
//! instead of all profiles.
//!
//! A roll-up is a chunk of one profile, whose samples are the sums over all profiles of a step that have one header and are kept as columns.
//! [`Roller`] makes them while a block is written; [`Rollups`] lists them in the table of contents, and says which of them answer for
//! the rows of a question; `check` compares them with the profiles.
//!
//! Invariants: a roll-up says exactly what its profiles say together. It answers only where a question is about all of them; and a step has
//! none where a value is negative or a sum does not fit 64 bits, for there an answer would show in which order was added.
//! Must not enter: what becomes of sums.

mod check;
mod roll;

use rustc_hash::FxHashMap;
use ulid::Ulid;

pub(crate) use self::roll::{MEMORY_MAX, Rolled, Roller};
use super::rows::Row;
use super::toc::{Chunk, Frames, Section, kind, read_section};
use super::varint::{self, Cursor, Damage, Delta};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The roll-ups of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rollups {
    /// An index into [`Toc::sections`](super::Toc::sections); means nothing where there are none.
    section: u32,
    /// How long a step is, in nanoseconds: whole seconds. The first starts with 1970.
    step_nanos: i64,
    /// Sorted by step.
    list: Vec<Rollup>,
}

/// What the profiles of a step with one header add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rollup {
    /// The number of the step.
    step: i64,
    /// How many profiles there are.
    pub(crate) rows: u32,
    /// Columns of one profile, the sum.
    pub(crate) chunk: Chunk,
}

/// What a question about rows of a dataset reads; each with what stands beside the rows.
#[derive(Debug)]
pub(crate) struct Choice<'a, 'r, T> {
    /// The roll-ups that answer for all rows of their steps, with their numbers in the list.
    pub(crate) rollups: Vec<(usize, &'a Rollup, T)>,
    /// The other rows.
    pub(crate) rows: Vec<(&'r Row, T)>,
}

/// What is known of a step while roll-ups are chosen.
#[derive(Debug)]
struct Asked<T> {
    /// How many profiles its roll-ups sum.
    rolled: u32,
    /// How many it has.
    there: u32,
    /// How many of them are asked for.
    asked: u32,
    /// What stands beside all of these.
    with: Option<T>,
    /// Whether something else stands beside one.
    differ: bool,
}

// === impl Rollups ===

impl Rollups {
    /// Makes roll-ups of steps of so many seconds: the step of each, how many profiles it sums, its chunk.
    #[cfg(test)]
    pub(crate) fn of(section: u32, seconds: i64, list: Vec<(i64, u32, Chunk)>) -> Self {
        let list = list.into_iter().map(|(step, rows, chunk)| Rollup { step, rows, chunk }).collect();
        Self { section, step_nanos: seconds * NANOS_PER_SECOND, list }
    }

    /// Returns whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the number of the step that a time lies in.
    fn step_of(&self, row: &Row) -> i64 {
        row.time_nanos.div_euclid(self.step_nanos)
    }

    /// Returns what stands for the row of a roll-up: the times in its head are relative to this.
    pub(crate) fn row(&self, rollup: &Rollup) -> Row {
        Row {
            id: Ulid::nil(),
            dataset: 0,
            series: 0,
            sample_types: 0,
            time_nanos: rollup.step.wrapping_mul(self.step_nanos),
            duration_nanos: 0,
            totals: Box::default(),
            raw_bytes: 0,
            samples: 0,
            sha256: [0; 32],
            columns: true,
            chunk: 0,
            position: 0,
        }
    }

    /// Returns what to read for the `asked` rows, which are sorted by their places; `rows` are all of the dataset.
    pub(crate) fn choose<'a, 'r, T: Copy + PartialEq>(
        &'a self,
        rows: &[Row],
        asked: Vec<(&'r Row, T)>,
    ) -> Choice<'a, 'r, T> {
        let is_twice =
            |pair: &[(&Row, T)]| (pair[0].0.chunk, pair[0].0.position) == (pair[1].0.chunk, pair[1].0.position);
        if self.list.iter().all(|rollup| rollup.rows as usize > asked.len()) || asked.windows(2).any(is_twice) {
            return Choice { rollups: Vec::new(), rows: asked };
        }
        let mut steps: FxHashMap<i64, Asked<T>> = FxHashMap::default();
        for rollup in &self.list {
            let none = Asked { rolled: 0, there: 0, asked: 0, with: None, differ: false };
            steps.entry(rollup.step).or_insert(none).rolled += rollup.rows;
        }
        for row in rows.iter().filter(|row| row.columns) {
            if let Some(step) = steps.get_mut(&self.step_of(row)) {
                step.there += 1;
            }
        }
        for (row, with) in asked.iter().filter(|(row, _)| row.columns) {
            if let Some(step) = steps.get_mut(&self.step_of(row)) {
                step.asked += 1;
                step.differ |= *step.with.get_or_insert(*with) != *with;
            }
        }
        // That the roll-ups sum as many as there are, a sound block need not be asked.
        steps.retain(|_, step| step.asked == step.rolled && step.there == step.rolled && !step.differ);
        let answers = |(number, rollup): (usize, &'a Rollup)| Some((number, rollup, steps.get(&rollup.step)?.with?));
        let rollups = self.list.iter().enumerate().filter_map(answers).collect();
        let is_left = |(row, _): &(&Row, T)| !row.columns || !steps.contains_key(&self.step_of(row));
        Choice { rollups, rows: asked.into_iter().filter(is_left).collect() }
    }

    /// Appends its listing.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        varint::put(out, self.list.len() as u64);
        if self.list.is_empty() {
            return;
        }
        varint::put(out, self.section.into());
        varint::put(out, (self.step_nanos / NANOS_PER_SECOND) as u64);
        let mut step = Delta::default();
        for rollup in &self.list {
            step.put(out, rollup.step as u64);
            varint::put(out, rollup.rows.into());
            rollup.chunk.put(out);
        }
    }

    /// Reads what [`Rollups::put`] wrote, for a dataset of so many rows.
    ///
    /// # Errors
    /// It contradicts itself.
    pub(crate) fn read(from: &mut Cursor<'_>, sections: &[Section], rows: usize) -> Result<Self, Damage> {
        let count = from.count(6)?;
        if count == 0 {
            return Ok(Self::default());
        }
        let (section, place) = read_section(from, sections, kind::ROLLUPS)?;
        let seconds = i64::try_from(from.varint()?).ok().filter(|&seconds| seconds > 0);
        let step_nanos = seconds.and_then(|seconds| seconds.checked_mul(NANOS_PER_SECOND));
        let step_nanos = step_nanos.ok_or(Damage("roll-ups have steps of an impossible length"))?;
        let (mut frames, mut step, mut left) = (Frames::of(&place), Delta::default(), rows);
        let mut list: Vec<Rollup> = Vec::with_capacity(count);
        for _ in 0..count {
            let step = step.read(from)? as i64;
            let rows = from.u32()?;
            let chunk = Chunk::read(from, &mut frames)?;
            if list.last().is_some_and(|last| step < last.step) {
                return Err(Damage("roll-ups are not sorted"));
            }
            if !matches!(chunk, Chunk::Columns { profiles: 1, .. }) {
                return Err(Damage("a roll-up is not one sum"));
            }
            left = left.checked_sub(rows as usize).ok_or(Damage("roll-ups sum more profiles than there are"))?;
            list.push(Rollup { step, rows, chunk });
        }
        Ok(Self { section, step_nanos, list })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::frame::{Codec, Frame};

    const HOUR: i64 = 3_600 * NANOS_PER_SECOND;

    fn row(time_nanos: i64, position: u32, columns: bool) -> Row {
        let any = Rollups { step_nanos: HOUR, ..Rollups::default() }.row(&rollup(0, 1));
        Row { time_nanos, position, columns, ..any }
    }

    fn rollup(step: i64, rows: u32) -> Rollup {
        let frame = Frame { offset: 4, stored: 0, unpacked: 0, codec: Codec::Stored, crc: 0 };
        let chunk = Chunk::Columns { profiles: 1, stacks: frame, labels: frame, values: Vec::new(), meta: frame };
        Rollup { step, rows, chunk }
    }

    /// Returns which steps are answered by roll-ups, and the positions of the rows that are left.
    fn chosen(rollups: &[(i64, u32)], rows: &[Row], asked: &[(usize, u8)]) -> (Vec<(i64, u8)>, Vec<u32>) {
        let list = rollups.iter().map(|&(step, rows)| rollup(step, rows)).collect();
        let rollups = Rollups { section: 0, step_nanos: HOUR, list };
        let asked = asked.iter().map(|&(row, with)| (&rows[row], with)).collect();
        let Choice { rollups, rows } = rollups.choose(rows, asked);
        (
            rollups.into_iter().map(|(_, rollup, with)| (rollup.step, with)).collect(),
            rows.into_iter().map(|(row, _)| row.position).collect(),
        )
    }

    #[test]
    fn a_step_is_answered_where_all_of_it_is_asked() {
        // Two rows before 1970, three in its first hour of which one is a blob, one in the second.
        let times = [-HOUR, -1, 0, 1, 2, HOUR];
        let rows: Vec<Row> = times.iter().zip(0..).map(|(&time, i)| row(time, i, i != 3)).collect();
        let rollups = [(-1, 2), (0, 1), (0, 1)];
        let all: Vec<(usize, u8)> = (0..6).map(|row| (row, 7)).collect();
        assert_eq!(chosen(&rollups, &rows, &all), (vec![(-1, 7), (0, 7), (0, 7)], vec![3, 5]));
        assert_eq!(chosen(&rollups, &rows, &all[1..]), (vec![(0, 7), (0, 7)], vec![1, 3, 5]));
        assert_eq!(chosen(&rollups, &rows, &all[..4]), (vec![(-1, 7)], vec![2, 3]));
        assert_eq!(chosen(&rollups, &rows, &[]), (vec![], vec![]));
        // What stands beside the rows of a step differs.
        let differing = [(0, 7), (1, 8), (2, 9), (4, 9)];
        assert_eq!(chosen(&rollups, &rows, &differing), (vec![(0, 9), (0, 9)], vec![0, 1]));
    }

    #[test]
    fn a_roll_up_of_other_rows_than_there_are_answers_nothing() {
        let rows: Vec<Row> = (0..4).map(|i| row(i.into(), i, true)).collect();
        for rolled in [3, 5] {
            let asked: Vec<(usize, u8)> = (0..rolled.min(4)).map(|row| (row, 0)).collect();
            assert!(chosen(&[(0, rolled as u32)], &rows, &asked).0.is_empty());
        }
        assert!(chosen(&[(0, 4)], &rows, &[(0, 0), (1, 0), (1, 0), (2, 0)]).0.is_empty(), "one is asked for twice");
        assert_eq!(chosen(&[(0, 4)], &rows, &[(0, 0), (1, 0), (2, 0), (3, 0)]).0, [(0, 0)]);
    }

    #[test]
    fn its_listing_comes_back() {
        let section = Section::new(kind::ROLLUPS, 4, &[]);
        for steps in [&[][..], &[(-3, 2)], &[(-3, 2), (-3, 1), (471_000, 9)]] {
            let list: Vec<Rollup> = steps.iter().map(|&(step, rows)| rollup(step, rows)).collect();
            let step_nanos = if list.is_empty() { 0 } else { HOUR };
            let rollups = Rollups { section: 0, step_nanos, list };
            let mut out = Vec::new();
            rollups.put(&mut out);
            assert_eq!(Rollups::read(&mut Cursor::new(&out), &[section], 12), Ok(rollups.clone()));
            if !rollups.is_empty() {
                assert!(Rollups::read(&mut Cursor::new(&out), &[section], 1).is_err(), "there are fewer rows");
                let other = Section::new(kind::SAMPLES, 4, &[]);
                assert!(Rollups::read(&mut Cursor::new(&out), &[other], 12).is_err(), "the section is of another kind");
            }
        }
        let wrong = |list: Vec<Rollup>, step_nanos| {
            let mut out = Vec::new();
            Rollups { section: 0, step_nanos, list }.put(&mut out);
            Rollups::read(&mut Cursor::new(&out), &[section], 12).is_err()
        };
        assert!(wrong(vec![rollup(2, 1), rollup(1, 1)], HOUR), "they are not sorted");
        assert!(wrong(vec![rollup(2, 1)], 0), "a step has no length");
        let blob = Rollup {
            chunk: Chunk::Blob(Frame { offset: 4, stored: 0, unpacked: 0, codec: Codec::Stored, crc: 0 }),
            ..rollup(2, 1)
        };
        assert!(wrong(vec![blob], HOUR), "a blob is no sum");
    }
}
