//! Gathers the profiles of a dataset into chunks, in the order of its rows.

use super::chunk::{self, Limits, Stored, Waiting};
use super::frame::Packer;
use super::rows::Row;
use super::toc::{Chunk, Place, SampleType};
use super::values::Sets;
use super::varint::Damage;
use afterglow_profile::Labels;

/// A dataset while its profiles are gathered.
#[derive(Debug)]
pub(crate) struct Gathering {
    limits: Limits,
    /// The chunks that are done, which lie one after the other in `bytes`; their offsets count from its start.
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) series: Vec<Labels>,
    pub(crate) sample_types: Vec<Vec<SampleType>>,
    /// The rows, all but their dataset.
    pub(crate) rows: Vec<Row>,
    /// What will share the next chunk, and the rows of it.
    waiting: Waiting,
    waiting_rows: Vec<usize>,
}

impl Gathering {
    /// Starts a dataset without profiles.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            chunks: Vec::new(),
            bytes: Vec::new(),
            series: Vec::new(),
            sample_types: Vec::new(),
            rows: Vec::new(),
            waiting: Waiting::default(),
            waiting_rows: Vec::new(),
        }
    }

    /// Adds a profile, whose row is not before those that were added. `sets` are the label sets of the service.
    ///
    /// # Errors
    /// The columns of a profile contradict each other.
    pub(crate) fn push(
        &mut self,
        mut row: Row,
        labels: &Labels,
        sample_types: &[SampleType],
        stored: Stored,
        (sets, packer): (Sets<'_>, &mut Packer),
    ) -> Result<(), Damage> {
        if self.series.last() != Some(labels) {
            self.series.push(labels.clone());
        }
        row.series = self.series.len() as u32 - 1;
        let known = self.sample_types.iter().position(|list| list == sample_types);
        row.sample_types = known.unwrap_or_else(|| {
            self.sample_types.push(sample_types.to_vec());
            self.sample_types.len() - 1
        }) as u32;
        row.columns = matches!(stored, Stored::Columns { .. });
        if !row.columns {
            row.chunk = self.chunks.len() as u32;
            self.chunks.push(chunk::write(&[stored], sets, packer, &mut self.bytes)?);
        } else {
            if !self.waiting.takes(row.series, &stored, self.limits) {
                self.close(sets, packer)?;
            }
            self.waiting_rows.push(self.rows.len());
            self.waiting.push(row.series, stored);
        }
        self.rows.push(row);
        Ok(())
    }

    /// Returns how many bytes the chunks take, and how many those that wait take before they are compressed.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.bytes.len(), self.waiting.bytes())
    }

    /// Makes a chunk of what waits for one.
    ///
    /// # Errors
    /// The columns of a profile contradict each other.
    pub(crate) fn close(&mut self, sets: Sets<'_>, packer: &mut Packer) -> Result<(), Damage> {
        let waiting = self.waiting.take();
        if waiting.is_empty() {
            return Ok(());
        }
        for (row, position) in self.waiting_rows.drain(..).zip(0..) {
            self.rows[row].chunk = self.chunks.len() as u32;
            self.rows[row].position = position;
        }
        self.chunks.push(chunk::write(&waiting, sets, packer, &mut self.bytes)?);
        Ok(())
    }

    /// Returns how many rows in turn refer to the same.
    pub(crate) fn runs(&self) -> Vec<(Place, u32)> {
        let place = |row: &Row| Place { series: row.series, sample_types: row.sample_types, chunk: row.chunk };
        let runs = self.rows.chunk_by(|a, b| place(a) == place(b));
        runs.map(|run| (place(&run[0]), run.len() as u32)).collect()
    }
}
