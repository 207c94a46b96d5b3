//! Merging: many profiles into the one that would have been taken had all their processes been one.
//!
//! The result is what `pprof -proto` makes of the same files (google/pprof: profile/merge.go, and what internal/driver/fetch.go does
//! before it): stacks that differ only by where a binary was loaded are one, values are added, samples without any value are left
//! out, the period is the longest, the duration the sum, the time the earliest. [`header`] says which profiles go together;
//! [`tables`] what is equal; [`values`] how sums are kept exact.
//!
//! It differs from pprof where pprof's answer depends on the order of files or loses something; docs/merging.md lists each case.
//! Frames that `drop_frames` names stay in the result: it carries the expression, and whoever shows it obeys.
//!
//! Merging is commutative and associative but for what has to come from the first profile: the order of sample types, `drop_frames`,
//! `keep_frames`, the first comment, documentation link and default sample type, and the main binary (the first mapping). A merger that is
//! [by time](Merger::by_time) takes them from the earliest instead, so that the order in which profiles are added decides nothing of it.

mod header;
mod leading;
mod tables;
#[cfg(test)]
mod tests;
mod values;

use std::fmt;

use hashbrown::HashSet;

use self::{
    header::{Columns, Header, Measure},
    leading::{Order, Settled},
    tables::{Main, Tables, Translation},
    values::{Column, Values},
};
use crate::model::{NONE, Profile, Samples, StringIndex, ValueType};
use crate::units;

/// The most that any table of the result can hold: indices are 32 bits wide, and the last means none.
const TABLE_LEN_MAX: usize = NONE as usize - 1;

/// Merges profiles one by one.
///
/// It holds each distinct string, location and stack once, however many profiles are added: memory grows with what is new.
#[derive(Debug)]
pub struct Merger {
    order: Order,
    /// The main binary, where the order of profiles does not say which.
    main: Option<Main>,
    /// None before the first profile.
    header: Option<Header>,
    tables: Tables,
    translation: Translation,
    values: Values,
    /// The distinct comments, in the order they were first met.
    comments: Vec<StringIndex>,
    known_comments: HashSet<StringIndex>,
    /// How many labels the samples have together.
    labels_len: usize,
}

/// The result of a merge.
#[derive(Clone, Debug)]
pub struct Merged {
    /// All but the strings.
    profile: Profile<'static>,
    string_bytes: Vec<u8>,
    string_ends: Vec<usize>,
    warnings: Vec<Warning>,
}

/// Why a profile cannot be merged with those before it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The period types differ.
    #[error("incompatible period types {ours} and {theirs}")]
    PeriodTypes {
        /// The period type of the profiles before.
        ours: String,
        /// The period type of the profile.
        theirs: String,
    },
    /// The profiles count nothing in common, or count it in units that do not convert.
    #[error("incompatible sample types [{ours}] and [{theirs}]")]
    SampleTypes {
        /// The sample types of the profiles before.
        ours: String,
        /// The sample types of the profile.
        theirs: String,
    },
    /// The result would be larger than pprof indices of 32 bits can name.
    #[error("merged profile would have more than {TABLE_LEN_MAX} {table}")]
    TooLarge {
        /// The table that is full.
        table: &'static str,
    },
}

/// What the reader of a merge should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Some sums do not fit in 64 bits; they stand at the nearest value that does.
    Saturated {
        /// How many sums.
        sums: usize,
    },
    /// Not all profiles have this sample type, so the result does not have it.
    SampleTypeLeftOut {
        /// The name of the sample type.
        kind: String,
    },
}

/// Returns what values in unit `from` are multiplied with to be in unit `to`; `None` where the units do not convert, or `to` is the
/// coarser one. The units of merged sample types are never the coarser ones.
pub fn scale(from: &[u8], to: &[u8]) -> Option<i128> {
    units::common(from, to).filter(|common| common.second == 1).map(|common| common.first)
}

// === impl Merger ===

impl Merger {
    /// Makes a merger that holds nothing. The profile that is added first decides what only one can, as in pprof.
    pub fn new() -> Self {
        Self::with(Order::Added)
    }

    /// Makes a merger that holds nothing, of which the earliest profile decides what only one can: those without a time come last; of those of
    /// one time it is the one whose words come first. The main binary is the one whose build id or file comes first.
    pub fn by_time() -> Self {
        Self::with(Order::Time)
    }

    fn with(order: Order) -> Self {
        Self {
            order,
            main: None,
            header: None,
            tables: Tables::new(),
            translation: Translation::default(),
            values: Values::default(),
            comments: Vec::new(),
            known_comments: HashSet::new(),
            labels_len: 0,
        }
    }

    /// Adds a profile.
    ///
    /// Of its tables only what its samples use comes into the result, and its first mapping where it is the main binary of the result.
    ///
    /// # Errors
    ///
    /// Fails when the profile does not go together with those before it, or the result would be too large. The merger then is as it
    /// was before, and other profiles can be added.
    pub fn add(&mut self, profile: &Profile<'_>) -> Result<(), Error> {
        self.check_room(profile)?;
        let columns = match &mut self.header {
            None => {
                self.header = Some(Header::new(profile, self.order));
                self.values = Values::new(profile.sample_types.len());
                Columns::default()
            }
            Some(header) => header.add(profile)?,
        };
        if let Some(ours) = &columns.ours {
            self.values.reshape(ours);
        }
        for &comment in &profile.comments {
            let comment = self.tables.intern(profile.string(comment));
            if self.known_comments.insert(comment) {
                self.comments.push(comment);
            }
        }
        let known = &mut self.translation;
        known.reset(profile);
        // The first mapping is the main binary, also where no sample lies in it.
        match self.order {
            Order::Added if self.tables.mappings.is_empty() && !profile.mappings.is_empty() => {
                self.tables.mapping(known, profile, 0);
            }
            Order::Added => {}
            Order::Time => Main::note(&mut self.main, profile),
        }
        for i in 0..profile.samples.len() {
            let values = profile.values(i);
            let is_zero = match &columns.theirs {
                None => values.iter().all(|&value| value == 0),
                Some(columns) => columns.iter().all(|column| values[column.source] == 0),
            };
            if is_zero {
                continue;
            }
            let samples_len = self.tables.stacks.len();
            let sample = self.tables.sample(known, profile, i) as usize;
            if sample == samples_len {
                self.labels_len += self.tables.label_sets.get(self.tables.sample_label_sets[sample]).len();
            }
            match &columns.theirs {
                None => self.values.add(sample, values),
                Some(columns) => self.values.add_columns(sample, values, columns),
            }
        }
        Ok(())
    }

    /// Returns how many distinct samples it holds.
    pub fn samples(&self) -> usize {
        self.tables.stacks.len()
    }

    /// Returns how many bytes of memory it holds.
    pub fn memory(&self) -> usize {
        let comments = self.comments.capacity() * size_of::<StringIndex>() + self.known_comments.allocation_size();
        let header = self.header.as_ref().map_or(0, |header| header.leading.memory());
        self.tables.memory() + self.translation.memory() + self.values.memory() + comments + header
    }

    /// Finishes the merge. The result of merging nothing is a profile without anything.
    pub fn finish(self) -> Merged {
        let merged = self.assemble();
        let profile = &merged.profile;
        let width = profile.sample_types.len();
        let is_zero = |row: &[i64]| row.iter().all(|&value| value == 0);
        if width == 0 || !profile.samples.values.chunks_exact(width).any(is_zero) {
            return merged;
        }
        // Values cancelled each other out. Merging once more leaves such samples out, with all that only they used.
        let mut again = Self::new();
        again.add(&merged.profile()).expect("a merged profile goes together with nothing before it, and is not larger");
        let Merged { warnings, .. } = merged;
        Merged { warnings, ..again.assemble() }
    }

    /// Fails if a table might overflow were `profile` added and nothing of it known.
    fn check_room(&self, profile: &Profile<'_>) -> Result<(), Error> {
        let tables = &self.tables;
        let rooms = [
            ("strings", tables.strings.len(), profile.strings.len()),
            ("mappings", tables.mappings.len(), profile.mappings.len()),
            ("functions", tables.functions.len(), profile.functions.len()),
            ("locations", tables.locations.len(), profile.locations.len()),
            ("lines", tables.lines.len(), profile.lines.len()),
            ("samples", tables.stacks.len(), profile.samples.len()),
            ("stack frames", tables.stacks.items_len(), profile.samples.locations.len()),
            ("sample labels", self.labels_len, profile.samples.labels.len()),
        ];
        match rooms.iter().find(|(_, ours, theirs)| ours.saturating_add(*theirs) > TABLE_LEN_MAX) {
            None => Ok(()),
            Some(&(table, ..)) => Err(Error::TooLarge { table }),
        }
    }

    fn assemble(self) -> Merged {
        let Self { order, main, header, mut tables, mut values, mut comments, .. } = self;
        let mut header = header.unwrap_or_default();
        let Settled { columns, default_sample_type } = header.leading.settle(&header.sample_types);
        if let Some(columns) = columns {
            values.reshape(&columns.iter().map(|&source| Column { source, factor: 1 }).collect::<Vec<_>>());
            header.sample_types = columns.into_iter().map(|column| header.sample_types[column].clone()).collect();
        }
        if let Some(main) = main {
            tables.begin_with(&main);
        }
        if order == Order::Time {
            comments.sort_unstable_by(|&a, &b| tables.strings.get(a).cmp(tables.strings.get(b)));
        }
        let mut value_type = |measure: &Measure| ValueType {
            kind: tables.intern(&measure.kind),
            unit: tables.intern(&measure.unit),
            shape: 0,
        };
        let sample_types = header.sample_types.iter().map(&mut value_type).collect();
        let period_type = (header.period_type != Measure::default()).then(|| value_type(&header.period_type));
        let [drop_frames, keep_frames] = header.leading.frames().map(|text| tables.intern(text));
        let default_sample_type = tables.intern(&default_sample_type);
        let doc_url = tables.intern(header.leading.doc_url());

        let (values, saturated) = values.finish();
        let mut warnings: Vec<_> =
            (saturated > 0).then_some(Warning::Saturated { sums: saturated }).into_iter().collect();
        warnings.extend(header.left_out.iter().map(|kind| {
            let kind = header::shorten(kind);
            Warning::SampleTypeLeftOut { kind }
        }));

        let mut samples = Samples { values, shapes: vec![0; tables.stacks.len()], ..Samples::default() };
        samples.label_ends.reserve(tables.stacks.len());
        for &set in &tables.sample_label_sets {
            samples.labels.extend_from_slice(tables.label_sets.get(set));
            samples.label_ends.push(samples.labels.len() as u32);
        }
        let (locations, location_ends) = tables.stacks.into_parts();
        samples.locations = locations;
        samples.location_ends = location_ends.into_iter().map(|end| end as u32).collect();
        let (string_bytes, string_ends) = tables.strings.into_parts();
        Merged {
            profile: Profile {
                sample_types,
                samples,
                mappings: tables.mappings,
                locations: tables.locations,
                lines: tables.lines,
                functions: tables.functions,
                drop_frames,
                keep_frames,
                time_nanos: header.time_nanos,
                duration_nanos: header.duration_nanos,
                period_type,
                period: header.period,
                comments,
                default_sample_type,
                doc_url,
                ..Profile::default()
            },
            string_bytes,
            string_ends,
            warnings,
        }
    }
}

impl Default for Merger {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Merged ===

impl Merged {
    /// Returns the merged profile: a copy of its tables, the strings borrowed.
    ///
    /// Ids count from 1 in table order; labels of a sample stand in order of their keys, strings before numbers; the layout is empty.
    pub fn profile(&self) -> Profile<'_> {
        let starts = std::iter::once(0).chain(self.string_ends.iter().copied());
        let strings = starts.zip(&self.string_ends).map(|(start, &end)| &self.string_bytes[start..end]).collect();
        Profile { strings, ..self.profile.clone() }
    }

    /// Returns what the reader should know of the result.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

// === impl Warning ===

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saturated { sums } => {
                write!(f, "{sums} sums do not fit in 64 bits and stand at the nearest value that does")
            }
            Self::SampleTypeLeftOut { kind } => write!(f, "sample type {kind} is left out: not all profiles have it"),
        }
    }
}
