//! What a merge reads, decided from rows alone: nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use afterglow_profile::Labels;
use afterglow_store::block::{Block, Row, SampleType, ToRead};
use afterglow_store::catalog::Match;

use super::super::selection::Selection;
use super::super::{Error, Limits};
use super::disagreement::{Camp, Disagreement};
use crate::window::Window;

/// How many bytes it takes to hold a profile as sums, for each byte of its protobuf: columns of 4 and 8 bytes instead of varints, and
/// tables to find entries by. A heap profile of 1.3 MB took 5.3.
const BYTES_PER_RAW_BYTE: u64 = 4;

/// How many bytes of samples count as one: its stack, its labels and a value, as they are read.
const BYTES_PER_SAMPLE: u64 = 16;

/// How many bytes a sum takes: its key and up to four values in arrays that grow, twice when they are put in order, and the stack that it is
/// named by.
const BYTES_PER_SUM: u64 = 160;

/// How many times what its tables unpack to a dataset takes: as it is unpacked, and decoded.
const TABLES_FACTOR: u64 = 3;

/// The profiles of one dataset of one block.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) block: Arc<Block>,
    pub(super) dataset: usize,
    /// Indices of rows of the block, ascending.
    pub(super) rows: Arc<[usize]>,
    /// How much memory it takes to sum it, about.
    pub(super) estimate: u64,
    /// How many bytes of samples are summed, about: what it takes of a processor.
    pub(super) work: u64,
}

/// What is read.
#[derive(Debug)]
pub(super) struct Plan {
    /// In the order of their keys, which is about the order of time.
    pub(super) parts: Vec<Part>,
    /// How many profiles there are.
    pub(super) profiles: u64,
    /// The length of their protobufs.
    pub(super) raw_bytes: u64,
    /// How many blocks they lie in.
    pub(super) blocks: u64,
    /// How much memory the merge takes, about.
    pub(super) estimate: u64,
    /// How many bytes of samples are summed, about.
    pub(super) work: u64,
}

// === impl Plan ===

impl Plan {
    /// Plans to merge what is selected.
    ///
    /// # Errors
    /// [`Error::Types`] where more than one profile type is selected, [`Error::TooManyProfiles`].
    pub(super) fn new(matches: &[Match], selection: &Selection, limits: &Limits) -> Result<Self, Error> {
        // Profiles of a dataset follow each other, mostly, so little is looked up.
        let runs = || matches.chunk_by(Match::has_dataset_of);
        let types: BTreeSet<&str> = runs().map(|run| run[0].profile_type().as_str()).collect();
        if types.len() > 1 {
            let types = types.into_iter().map(str::to_owned).collect();
            return Err(Error::Types { selection: selection.to_string(), types });
        }
        let profiles = matches.len() as u64;
        if profiles > limits.merge_profiles_max {
            return Err(Error::TooManyProfiles { profiles, max: limits.merge_profiles_max });
        }
        let mut groups: BTreeMap<(&str, usize), Vec<&Match>> = BTreeMap::new();
        for run in runs() {
            groups.entry((run[0].block().path().as_ref(), run[0].dataset_index())).or_default().extend(run);
        }
        let blocks = groups.keys().map(|(path, _)| path).collect::<BTreeSet<_>>().len() as u64;
        let parts: Vec<Part> = groups.into_values().map(|found| Part::new(&found)).collect();
        let raw_bytes = matches.iter().map(|found| found.row().raw_bytes).sum();
        let estimate = estimate(matches, &parts, limits.merge_reads);
        let work = parts.iter().map(|part| part.work).sum();
        Ok(Self { parts, profiles, raw_bytes, blocks, estimate, work })
    }
}

impl Part {
    /// Makes the part of these, all of one dataset of one block.
    fn new(found: &[&Match]) -> Self {
        let mut rows: Vec<usize> = found.iter().map(|found| found.row_index()).collect();
        rows.sort_unstable();
        let (block, dataset) = (Arc::clone(found[0].block()), found[0].dataset_index());
        let largest = found.iter().map(|found| found.row().raw_bytes).max().unwrap_or_default();
        Self::reading(block, dataset, rows.into(), largest)
    }

    /// Makes the part of these rows of a dataset, out of all `of` the block.
    pub(super) fn of_rows(block: Arc<Block>, dataset: usize, rows: Arc<[usize]>, of: &[Row]) -> Self {
        let largest = rows.iter().map(|&row| of[row].raw_bytes).max().unwrap_or_default();
        Self::reading(block, dataset, rows, largest)
    }

    /// Makes the part of these rows, of which the largest has so many bytes of protobuf. What is read are sums already where roll-ups answer.
    fn reading(block: Arc<Block>, dataset: usize, rows: Arc<[usize]>, largest: u64) -> Self {
        let asked: Vec<(usize, ())> = rows.iter().map(|&row| (row, ())).collect();
        let ToRead { samples, distinct, whole, held, tables, piece, .. } = block.to_read(dataset, &asked);
        let estimate = distinct * BYTES_PER_SUM + largest + whole + held + piece + TABLES_FACTOR * tables;
        Self { block, dataset, rows, estimate, work: samples * BYTES_PER_SAMPLE }
    }
}

/// Estimates the memory of a merge: the largest part as often as parts are read at once, and the result.
///
/// Profiles of one service have most of their stacks in common, so the result grows slowly with their number; by its logarithm is
/// meant to be too much (160 heap profiles of one program took 64 MB in all, where this says 115). The merge measures what it
/// holds, and asks for more where this proves too little.
fn estimate(matches: &[Match], parts: &[Part], reads: usize) -> u64 {
    let mut services: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for run in matches.chunk_by(Match::has_dataset_of) {
        let (count, largest) = services.entry(run[0].labels().service()).or_default();
        *count += run.len() as u64;
        *largest = run.iter().map(|found| found.row().raw_bytes).max().unwrap_or_default().max(*largest);
    }
    let result: u64 =
        services.values().map(|&(count, largest)| largest * BYTES_PER_RAW_BYTE * u64::from(1 + count.ilog2())).sum();
    reading(parts.iter().map(|part| part.estimate), reads) + result
}

/// Estimates the memory of what is read: that of the largest part, of those of all, as often as parts are read at once.
pub(in super::super) fn reading(parts: impl ExactSizeIterator<Item = u64>, reads: usize) -> u64 {
    let at_once = reads.min(parts.len()) as u64;
    parts.max().unwrap_or_default() * at_once
}

/// Finds out which of the selected profiles count different things; none where that is not why they do not merge.
pub(in super::super) fn disagreement(matches: &[Match]) -> Option<Disagreement> {
    let mut camps: BTreeMap<&[SampleType], Vec<&Match>> = BTreeMap::new();
    for found in matches {
        camps.entry(found.sample_types()).or_default().push(found);
    }
    let camp = |(sample_types, found): (&[SampleType], Vec<&Match>)| {
        let series: BTreeSet<&Labels> = found.iter().map(|found| found.labels()).collect();
        let times = || found.iter().map(|found| found.row().time_nanos);
        Camp {
            counts: sample_types.iter().map(|t| format!("{}/{}", t.kind, t.unit)).collect::<Vec<_>>().join(" "),
            profiles: found.len(),
            series: series.into_iter().cloned().collect(),
            window: Window {
                start_nanos: times().min().unwrap_or_default(),
                end_nanos: times().max().unwrap_or_default().saturating_add(1),
            },
        }
    };
    Disagreement::among(camps.into_iter().map(camp).collect())
}
