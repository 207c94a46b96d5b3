//! Pieces: what is read of a dataset at once, and handed to whoever takes samples.
//!
//! A piece is a chunk: a roll-up, or some rows. What its profiles add up to is kept for the next question, where that can be: then they are
//! handed over as their sum, else one by one.

use super::aggregate::{SampleTypes, Summing};
use super::chunk::{Needed, Unpacked};
use super::decoded::{Place, SharedSums, Tables, Vacant};
use super::reader::{unpack_stacks, unpack_values};
use super::rollups::{Choice, Rollup, Rollups};
use super::rows::Row;
use super::sums::Sum;
use super::toc::{Chunk, Dataset};
use super::varint::Damage;

const NO_SUM: Damage = Damage("has what no sum has: a value below zero, or one stack twice beyond 64 bits");

/// Takes the samples of rows, each with what stands beside it.
pub(crate) trait Read<T> {
    /// Takes a profile that is kept as it was sent.
    fn add_blob(&mut self, raw: Vec<u8>, with: T) -> Result<(), Damage>;

    /// Returns which value types it needs of the profiles of `rows`, all of one chunk, of which nothing but the values is unpacked.
    fn needed(&mut self, chunk: &Unpacked, rows: &[(&Row, T)]) -> Result<Needed, Damage>;

    /// Takes the profiles of `rows`, all of one chunk and in the order of their positions, with the value types that it needs.
    fn add_chunk(&mut self, chunk: &Unpacked, rows: &[(&Row, T)]) -> Result<(), Damage>;

    /// Takes the sum of profiles beside all of which the same stands, of the sample types that are needed at least.
    fn add_sum(&mut self, sum: &Sum, with: T) -> Result<(), Damage>;
}

/// What is read of a dataset at once: a roll-up, or rows of one chunk.
pub(super) struct Piece<'a, 'r, T> {
    pub(super) chunk: &'a Chunk,
    pub(super) content: Content<'a, 'r, T>,
    /// What stands beside the first of its rows.
    pub(super) with: T,
    /// Where its sums are kept; none where rows do not lie one after the other, different things stand beside them, or it is a blob.
    pub(super) place: Option<Place>,
}

#[derive(Clone, Copy)]
pub(super) enum Content<'a, 'r, T> {
    /// A roll-up of so many profiles, and what stands for its row.
    Rollup(&'a Rollup, &'a Rollups),
    /// In the order of their positions; there is one at least.
    Rows(&'a [(&'r Row, T)]),
}

/// Returns the pieces of what was chosen of a dataset, in the order in which they are read.
pub(super) fn pieces<'a, 'r, T: Copy + PartialEq>(
    dataset: usize,
    of: &'a Dataset,
    Choice { rollups, rows }: &'a Choice<'a, 'r, T>,
) -> impl Iterator<Item = Piece<'a, 'r, T>> {
    let of_rollups = rollups
        .iter()
        .map(move |&(number, rollup, with)| Piece::of_rollup(dataset, number, (rollup, &of.rollups), with));
    let by_chunk = rows.chunk_by(|(a, _), (b, _)| a.chunk == b.chunk);
    of_rollups.chain(by_chunk.map(move |rows| Piece::of_rows(dataset, of, rows)))
}

// === impl Piece ===

impl<'a, 'r, T: Copy + PartialEq> Piece<'a, 'r, T> {
    fn of_rollup(dataset: usize, number: usize, (rollup, of): (&'a Rollup, &'a Rollups), with: T) -> Self {
        let place = Some(Place::Rollup(dataset as u32, number as u32));
        Self { chunk: &rollup.chunk, content: Content::Rollup(rollup, of), with, place }
    }

    fn of_rows(dataset: usize, of: &'a Dataset, rows: &'a [(&'r Row, T)]) -> Self {
        let (first, with) = rows[0];
        let chunk = &of.chunks[first.chunk as usize];
        let is_run =
            (first.position..).zip(rows).all(|(position, &(row, beside))| row.position == position && beside == with);
        let is_kept = is_run && matches!(chunk, Chunk::Columns { .. });
        let run = || Place::Run {
            dataset: dataset as u32,
            chunk: first.chunk,
            first: first.position,
            profiles: rows.len() as u32,
        };
        Self { chunk, content: Content::Rows(rows), with, place: is_kept.then(run) }
    }

    /// Returns how many bytes of the object it takes.
    pub(super) fn length(&self) -> u64 {
        let range = self.chunk.range_to_merge();
        range.end - range.start
    }

    /// Hands its samples to a reader: the sums that were kept, or what `bytes` say, whose sums are kept then.
    pub(super) fn hand_over(
        &self,
        sums: Result<SharedSums, (Option<Vacant<'_>>, &[u8])>,
        version: u32,
        tables: &Tables,
        types: SampleTypes,
        reader: &mut impl Read<T>,
    ) -> Result<(), Damage> {
        let (vacant, bytes) = match sums {
            Ok(sums) => return sums.iter().try_for_each(|sum| reader.add_sum(sum, self.with)),
            Err(missing) => missing,
        };
        if let (Chunk::Blob(frame), _) = (self.chunk, &self.content) {
            return reader.add_blob(frame.unpack(bytes)?, self.with);
        }
        let mut unpacked = unpack_stacks(self.chunk, bytes, version)?;
        let mut alone = Summing::new(tables.clone(), types);
        match (self.content, vacant) {
            (Content::Rollup(rollup, of), vacant) => {
                let row = of.row(rollup);
                unpack_values(self.chunk, bytes, &alone.needed(&unpacked, &[(&row, ())])?, &mut unpacked)?;
                let is_plain = alone.add_all(&unpacked, [(&row, rollup.rows as usize)].into_iter())?;
                let sums = alone.into_sums().filter(|_| is_plain).ok_or(NO_SUM)?;
                sums.iter().try_for_each(|sum| reader.add_sum(sum, self.with))?;
                if let Some(vacant) = vacant {
                    vacant.keep_sums(&sums);
                }
                Ok(())
            }
            (Content::Rows(rows), None) => {
                unpack_values(self.chunk, bytes, &reader.needed(&unpacked, rows)?, &mut unpacked)?;
                reader.add_chunk(&unpacked, rows)
            }
            (Content::Rows(rows), Some(vacant)) => {
                let just_rows: Vec<(&Row, ())> = rows.iter().map(|&(row, _)| (row, ())).collect();
                unpack_values(self.chunk, bytes, &alone.needed(&unpacked, &just_rows)?, &mut unpacked)?;
                let is_plain = alone.add_all(&unpacked, rows.iter().map(|&(row, _)| (row, 1)))?;
                match alone.into_sums().filter(|_| is_plain) {
                    Some(sums) => {
                        sums.iter().try_for_each(|sum| reader.add_sum(sum, self.with))?;
                        vacant.keep_sums(&sums);
                        Ok(())
                    }
                    None => reader.add_chunk(&unpacked, rows),
                }
            }
        }
    }
}
