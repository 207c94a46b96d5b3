//! The block that a merge is writing.

use std::time::Duration;

use afterglow_profile::ProfileType;
use sha2::{Digest, Sha256};

use super::plan::{Named, Pick, Plan};
use super::source::Source;
use super::{MergeOptions, Merged, Summary};
use crate::block::chunk::{Limits, Stored};
use crate::block::columns::Samples;
use crate::block::error::Error;
use crate::block::frame::Packer;
use crate::block::gather::Gathering;
use crate::block::layout::Layout;
use crate::block::order::Orders;
use crate::block::rebuild::{self, Parts};
use crate::block::rollups::{self, Rolled, Roller};
use crate::block::rows::Row;
use crate::block::symbols::Interner;
use crate::block::values::{self, Sets};
use crate::block::varint::Damage;
use crate::block::writer::ROWS_COMPRESSED_MIN;
use crate::paths::Day;

/// One of so many profiles is rebuilt from the output and compared with its SHA-256.
const CHECK_EVERY: usize = 16;

/// About how many bytes of a block a row takes outside SYM and SMP, and an entry of the tables in SYM.
const ROW_BYTES: u64 = 80;
const ENTRY_BYTES: u64 = 2;

/// About how much smaller chunks and strings become.
const PACKED_RATIO: u64 = 4;

/// Why columns can be gathered.
const SOUND: &str = "every number of a chunk is passed over when it is opened";

/// A block while it is written.
#[derive(Debug)]
pub(super) struct Output {
    day: Day,
    limits: Limits,
    /// How long the steps of roll-ups are, if there are to be any.
    rollup_step: Option<Duration>,
    layout: Layout,
    service: Option<Service>,
    rows: usize,
    /// Those of the present profile.
    samples: Samples,
    check: Check,
}

/// The service that is being written.
#[derive(Debug)]
struct Service {
    name: Box<str>,
    tables: Interner,
    /// The numbers of the label sets.
    numbers: Vec<i64>,
    /// The datasets so far.
    datasets: Vec<Dataset>,
}

/// A dataset while it is written.
#[derive(Debug)]
struct Dataset {
    /// Its place in the plan.
    place: u32,
    profile_type: ProfileType,
    gathering: Gathering,
    /// What its profiles add up to, while they come.
    roller: Option<Roller>,
    rolled: Rolled,
}

/// What checking a profile takes, used again for the next of the same service.
#[derive(Debug, Default)]
struct Check {
    orders: Orders,
    samples: Samples,
    raw: Vec<u8>,
}

impl Output {
    /// Begins a block of one day, which will have so many rows at most.
    pub(super) fn new(day: Day, limits: Limits, options: &MergeOptions, rows_max: usize) -> Result<Self, Error> {
        let level = (rows_max >= ROWS_COMPRESSED_MIN).then_some(options.zstd_level);
        let layout = Layout::new(level, options.function_filters)?;
        let rollup_step = options.rollup_step;
        Ok(Self {
            day,
            limits,
            rollup_step,
            layout,
            service: None,
            rows: 0,
            samples: Samples::default(),
            check: Check::default(),
        })
    }

    /// Returns whether a profile must go to another block.
    pub(super) fn is_full_for(&self, pick: &Pick, plan: &Plan, options: &MergeOptions) -> bool {
        if pick.day != self.day || self.rows >= options.rows_max || self.bytes() >= options.block_bytes_max {
            return true;
        }
        let Some(service) = &self.service else { return false };
        let is_of_service = *service.name == *plan.datasets[pick.dataset as usize].name;
        let of_dataset = service.datasets.last().filter(|dataset| dataset.place == pick.dataset);
        is_of_service && service.tables.entries() > options.symbols_max
            || of_dataset.is_some_and(|dataset| dataset.gathering.rows.len() >= options.rows_max_of_dataset)
    }

    /// Returns about how many bytes the block would have if it ended here.
    fn bytes(&self) -> u64 {
        let mut bytes = self.layout.len() + self.rows as u64 * ROW_BYTES;
        if let Some(service) = &self.service {
            for Dataset { gathering, rolled, .. } in &service.datasets {
                let (packed, waiting) = gathering.len();
                bytes += packed as u64 + waiting as u64 / PACKED_RATIO + rolled.bytes.len() as u64;
            }
            bytes += service.tables.symbols.strings.bytes.len() as u64 / PACKED_RATIO;
            bytes += service.tables.entries() as u64 * ENTRY_BYTES;
        }
        bytes
    }

    /// Adds a profile, whose chunk is open; returns how many bytes it has and whether it was checked.
    ///
    /// # Errors
    /// The profile is damaged.
    pub(super) fn carry(
        &mut self,
        pick: &Pick,
        of: &Named,
        source: &mut Source,
        packer: &mut Packer,
    ) -> Result<(usize, bool), Error> {
        let service = self.service.get_or_insert_with(|| Service {
            name: of.name.clone(),
            tables: Interner::new(),
            numbers: Vec::new(),
            datasets: Vec::new(),
        });
        let stored = source.carry(pick, &mut service.tables)?;
        let symbols = &service.tables.symbols;
        for set in service.numbers.len()..symbols.label_ends.len() {
            service.numbers.push(values::number(symbols, set as u32));
        }
        let (row, labels, sample_types) = source.row(pick);
        let checked = self.rows.is_multiple_of(CHECK_EVERY) && matches!(stored, Stored::Columns { .. });
        if checked {
            self.check.check(service, row, &stored).map_err(|damage| source.block.corrupt_row(row, damage))?;
        }
        self.rows += 1;
        let bytes = stored.len();
        if service.datasets.last().is_none_or(|dataset| dataset.place != pick.dataset) {
            service.close(packer);
            service.datasets.push(Dataset {
                place: pick.dataset,
                profile_type: of.profile_type.clone(),
                gathering: Gathering::new(self.limits),
                roller: self.rollup_step.map(|step| Roller::new(step, rollups::MEMORY_MAX)),
                rolled: Rolled::default(),
            });
        }
        let sets = Sets { symbols: &service.tables.symbols, numbers: &service.numbers };
        let dataset = service.datasets.last_mut().expect("one was just added where there was none");
        if let (Some(roller), Stored::Columns { .. }) = (&mut dataset.roller, &stored) {
            let added = stored.samples(sets.numbers, &mut self.samples);
            let added = added.and_then(|head| roller.add(row, &head, &self.samples, sets.symbols));
            added.map_err(|damage| source.block.corrupt_row(row, damage))?;
        }
        dataset.gathering.push(row.clone(), labels, sample_types, stored, (sets, packer)).expect(SOUND);
        Ok((bytes, checked))
    }

    /// Writes the service that is being written, if there is one.
    ///
    /// # Errors
    /// Parquet does not take the bytes.
    pub(super) fn finish_service(&mut self, packer: &mut Packer) -> Result<(), Error> {
        let Some(mut service) = self.service.take() else { return Ok(()) };
        service.close(packer);
        let symbols = self.layout.symbols(&service.tables.symbols, packer)?;
        // Behind the tables, so that a question that needs nothing else of the service reads one range.
        let mut rollups = Vec::with_capacity(service.datasets.len());
        for dataset in &mut service.datasets {
            rollups.push(self.layout.rollups(std::mem::take(&mut dataset.rolled))?);
        }
        for (Dataset { profile_type, gathering, .. }, rollups) in service.datasets.into_iter().zip(rollups) {
            self.layout.dataset((&service.name, &profile_type), gathering, symbols, rollups)?;
        }
        // The next service has other tables.
        self.check = Check::default();
        Ok(())
    }

    /// Returns the block.
    ///
    /// # Errors
    /// The rows cannot be written.
    pub(super) fn finish(mut self, packer: &mut Packer) -> Result<Merged, Error> {
        self.finish_service(packer)?;
        let summary = Summary::of(self.layout.rows()).expect("a block is begun for a profile");
        Ok(Merged { bytes: self.layout.finish(packer)?, summary })
    }
}

impl Service {
    /// Makes a chunk of what waits in the last dataset, and roll-ups of all of it.
    fn close(&mut self, packer: &mut Packer) {
        if let Some(Dataset { gathering, roller, rolled, .. }) = self.datasets.last_mut() {
            let sets = Sets { symbols: &self.tables.symbols, numbers: &self.numbers };
            gathering.close(sets, packer).expect(SOUND);
            if let Some(roller) = roller.take() {
                *rolled = roller.finish(sets, packer).expect(SOUND);
            }
        }
    }
}

impl Check {
    /// Checks that a profile comes back from its columns and the tables of the output.
    fn check(&mut self, service: &Service, row: &Row, stored: &Stored) -> Result<(), Damage> {
        let head = stored.samples(&service.numbers, &mut self.samples)?;
        let meta = stored.meta()?;
        let row_times = (row.time_nanos, row.duration_nanos);
        let symbols = &service.tables.symbols;
        let parts = Parts { symbols, head: &head, samples: &self.samples, meta: &meta, row_times };
        self.raw.clear();
        rebuild::rebuild(parts, &mut self.orders, &mut self.raw)?;
        if self.raw.len() as u64 != row.raw_bytes || <[u8; 32]>::from(Sha256::digest(&self.raw)) != row.sha256 {
            return Err(Damage("has another sha-256 than what was sent"));
        }
        Ok(())
    }
}

impl Summary {
    /// Returns what `rows` are, or nothing where there are none.
    pub fn of(rows: &[Row]) -> Option<Self> {
        let first = rows.first()?;
        let times = || rows.iter().map(|row| row.time_nanos);
        let ids = || rows.iter().map(|row| row.id);
        let first_nanos = times().min().unwrap_or(first.time_nanos);
        Some(Self {
            rows: rows.len() as u64,
            columns: rows.iter().filter(|row| row.columns).count() as u64,
            raw_bytes: rows.iter().map(|row| row.raw_bytes).sum(),
            first_nanos,
            last_nanos: times().max().unwrap_or(first.time_nanos),
            first_id: ids().min().unwrap_or(first.id),
            last_id: ids().max().unwrap_or(first.id),
            day: Day::of_nanos(first_nanos),
        })
    }
}
