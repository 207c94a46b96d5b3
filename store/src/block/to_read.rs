//! What a question will read of a dataset: how much, by which it is admitted, and where that lies.

use std::ops::Range;

use super::aggregate::SampleTypes;
use super::decoded::Place;
use super::frame::Frame;
use super::grouped::Wanted;
use super::piece::pieces;
use super::reader::Block;
use super::rollups::{Choice, Rollup};
use super::rows::Row;
use super::symbols::frames;
use super::toc::{Chunk, Dataset};

/// What an answer reads of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToRead {
    /// How many samples.
    pub samples: u64,
    /// How many bytes of the object, tables apart.
    pub stored: u64,
    /// How many bytes of the object are held at once, tables included.
    pub held: u64,
    /// How many bytes its tables unpack to.
    pub tables: u64,
    /// How many bytes the largest part unpacks to that is unpacked at once.
    pub piece: u64,
    /// How many bytes there are of profiles that are kept as they were sent, and so until they are merged.
    pub whole: u64,
    /// How many stacks with different labels these samples have, at most or about: each of them is one sum.
    pub distinct: u64,
}

/// How many samples there are, in so many profiles or sums of some, of which the largest has the most.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    of: u64,
    samples: u64,
    most: u64,
}

// === impl Counted ===

impl Counted {
    fn add(&mut self, samples: u64) {
        self.of += 1;
        self.samples += samples;
        self.most = self.most.max(samples);
    }

    /// Returns how many stacks with different labels these samples have, at most or about, by the frames of their tables.
    ///
    /// Profiles of one service have most of their stacks in common. What else there is comes the more slowly the more there was, as its
    /// logarithm here: 24 CPU profiles of a busy server, among which hardly any are alike, have three times the stacks of one.
    fn distinct(self, tables: &[Frame]) -> u64 {
        let of_frame = |frame: usize| tables.get(frame).map_or(0, |frame| frame.unpacked);
        // A stack takes a byte as a leaf, and two as a node; a label set takes one at least, and most samples of most programs have none.
        let stacks = of_frame(frames::STACKS) / 3 + 1;
        let known = stacks.saturating_mul(of_frame(frames::LABELS).max(1));
        let about = self.most.saturating_mul(u64::from(1 + self.of.max(1).ilog2()));
        known.min(about).min(self.samples)
    }
}

// === impl Block ===

impl Block {
    /// Returns what is read, at most, to answer for `rows` of dataset `dataset`, each with what stands beside it: roll-ups where these
    /// answer. Rows have to be decoded before; makes no request.
    pub fn to_read<T: Copy + PartialEq>(&self, dataset: usize, rows: &[(usize, T)]) -> ToRead {
        let Some((of, Choice { rollups, rows })) = self.chosen(dataset, rows) else { return ToRead::default() };
        let of_rollup = |rollup: &Rollup| match &rollup.chunk {
            // The stack of a sample takes a byte at least.
            Chunk::Columns { stacks, .. } => stacks.unpacked,
            Chunk::Blob(_) => 0,
        };
        let (mut to_read, mut counted) = (ToRead::default(), Counted::default());
        let mut add = |chunk: &Chunk| {
            let (range, unpacked) = (chunk.range_to_merge(), chunk.unpacked_to_merge());
            to_read.stored += range.end - range.start;
            to_read.piece = to_read.piece.max(unpacked);
            if matches!(chunk, Chunk::Blob(_)) {
                to_read.whole += unpacked;
            }
        };
        for (_, rollup, _) in &rollups {
            add(&rollup.chunk);
            counted.add(of_rollup(rollup));
        }
        for rows in rows.chunk_by(|(a, _), (b, _)| a.chunk == b.chunk) {
            add(&of.chunks[rows[0].0.chunk as usize]);
            rows.iter().for_each(|(row, _)| counted.add(row.samples));
        }
        let frames = &self.toc().symbols[of.symbols as usize].frames;
        to_read.held = to_read.stored.min(self.read_ahead) + frames.iter().map(|frame| frame.stored).sum::<u64>();
        to_read.tables = frames.iter().map(|frame| frame.unpacked).sum();
        to_read.samples = counted.samples;
        to_read.distinct = counted.distinct(frames);
        to_read
    }

    /// Returns the ranges of the object that [`Block::by_group`] would ask for, in the order in which they lie; none of what is decoded already.
    /// Rows have to be decoded before; makes no request.
    pub fn ranges_by_group(&self, dataset: usize, rows: &[(usize, Wanted)]) -> Vec<Range<u64>> {
        let Some((of, choice)) = self.chosen(dataset, rows) else { return Vec::new() };
        let is_decoded = |place, types| self.decoded.as_ref().is_some_and(|decoded| decoded.has(place, types));
        let mut ranges = Vec::new();
        if !is_decoded(Place::Tables(of.symbols), SampleTypes::All) {
            ranges.push(self.toc().symbols[of.symbols as usize].range());
        }
        for piece in pieces(dataset, of, &choice) {
            if !piece.place.is_some_and(|place| is_decoded(place, piece.with.types())) {
                ranges.push(piece.chunk.range_to_merge());
            }
        }
        ranges.sort_unstable_by_key(|range| range.start);
        ranges
    }

    /// Returns a dataset and what is read of it for some of its rows; none where there is no such dataset, or no row was decoded yet.
    fn chosen<T: Copy + PartialEq>(
        &self,
        dataset: usize,
        rows: &[(usize, T)],
    ) -> Option<(&Dataset, Choice<'_, '_, T>)> {
        let (all, of) = (self.rows.get()?, self.toc().datasets.get(dataset)?);
        let mut asked: Vec<(&Row, T)> = rows.iter().filter_map(|&(row, with)| Some((all.get(row)?, with))).collect();
        asked.sort_by_key(|(row, _)| (row.chunk, row.position));
        Some((of, of.rollups.choose(&all[of.rows()], asked)))
    }
}
