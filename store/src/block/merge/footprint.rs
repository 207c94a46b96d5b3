//! What merging blocks takes of memory, known before it begins.

use std::collections::BTreeMap;

use crate::block::reader::Block;

/// How many times as much memory tables take as their unpacked frames, with the places of their entries.
const TABLES_FACTOR: u64 = 5;

/// About how much memory a merge takes, as its inputs are chosen one by one.
#[derive(Debug, Default)]
pub struct Footprint {
    /// What the tables of each service take, those of all inputs together.
    of_services: BTreeMap<Box<str>, u64>,
    tables: u64,
    opened: u64,
}

impl Footprint {
    /// Returns what merging these takes.
    pub fn of<'a>(blocks: impl Iterator<Item = &'a Block>) -> Self {
        let mut footprint = Self::default();
        blocks.for_each(|block| footprint.add(block));
        footprint
    }

    /// Takes one more input into account. Its rows count where they are decoded.
    pub fn add(&mut self, block: &Block) {
        self.opened += block.memory() as u64;
        let (toc, mut last) = (block.toc(), None);
        for dataset in toc.datasets() {
            if last.replace(dataset.symbols) != Some(dataset.symbols) {
                let frames = &toc.symbols[dataset.symbols as usize].frames;
                let unpacked: u64 = frames.iter().map(|frame| frame.unpacked).sum();
                let of_service = match self.of_services.get_mut(dataset.service()) {
                    Some(of_service) => of_service,
                    None => self.of_services.entry(dataset.service().into()).or_default(),
                };
                *of_service += unpacked * TABLES_FACTOR;
                self.tables = self.tables.max(*of_service);
            }
        }
    }

    /// Returns about how many bytes the tables take, at most: those of one service at a time. A plan keeps this below
    /// [`MergeOptions::memory_max`](super::MergeOptions::memory_max).
    pub fn tables(&self) -> u64 {
        self.tables
    }

    /// Returns about how many bytes the opened inputs take, from beginning to end: their tables of contents and rows.
    pub fn opened(&self) -> u64 {
        self.opened
    }
}
