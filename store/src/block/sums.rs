//! Sums of samples by stack and label set: additions into an array, whoever asks for them.
//!
//! Profiles are summed by their headers ([`Headers`]); those of one header make a [`Group`], which becomes [`Summed`]: the stacks and label
//! sets that have a value, in the order of the tables, whatever was added first. With the tables beside them they are [`Sums`], which name
//! everything and become a profile.

use std::sync::Arc;

use afterglow_profile::functions::Stacks;
use afterglow_profile::memory::written;
use afterglow_profile::model::{self, NONE, Profile};
use rustc_hash::FxHashMap;

use super::columns::Samples;
use super::symbols::{Header, Symbols};
use super::varint::Damage;

/// What the samples of several profiles with one header add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summed {
    /// How many profiles there are.
    pub(super) profiles: usize,
    /// The smallest of their times that is not 0.
    pub(super) time_nanos: i64,
    /// The sum of their durations.
    pub(super) duration_nanos: i64,
    /// The stack and the label set of each sample.
    pub(super) keys: Vec<(u32, u32)>,
    /// The values, row by row.
    pub(super) values: Vec<i64>,
}

/// What profiles of one header add up to, as the samples of one profile that stands for them.
#[derive(Debug)]
pub(crate) struct Sum {
    /// The number of the header that stands for theirs.
    pub(super) header: u32,
    /// The sample type that is summed; none for all. Columns of others are empty.
    pub(super) sample_type: Option<usize>,
    pub(super) profiles: usize,
    /// The smallest of their times that is not 0, and the sum of their durations.
    pub(super) times: (i64, i64),
    pub(super) samples: Samples,
}

/// Sums with what is needed to name them.
#[derive(Debug)]
pub(super) struct Sums {
    pub(super) symbols: Arc<Symbols>,
    /// Has only the sample types that are summed.
    pub(super) header: Header,
    pub(super) summed: Summed,
}

/// The distinct headers of profiles, but for their main mappings.
#[derive(Debug, Default)]
pub(super) struct Headers {
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    /// The header, with the main mapping whose build id or file comes first.
    header: Header,
    /// The number of the header of the symbols that has it.
    first: u32,
    /// All of those.
    same: Vec<u32>,
}

/// The sums of the profiles with one header, while they grow.
#[derive(Debug)]
pub(super) struct Group {
    /// How many sample types the profiles have.
    pub(super) types: usize,
    /// The one that is summed; none for all.
    pub(super) sample_type: Option<usize>,
    profiles: usize,
    time_nanos: i64,
    duration_nanos: i64,
    /// For each stack, one more than where the sums of its samples without labels start in `values`, or 0.
    slots: Vec<u32>,
    /// The same for samples with labels.
    labelled: FxHashMap<(u32, u32), u32>,
    keys: Vec<(u32, u32)>,
    values: Vec<i64>,
}

// === impl Headers ===

impl Headers {
    /// Returns the place of a header of `symbols`, which may be the one after the last that was known.
    pub(super) fn place(&mut self, header: u32, symbols: &Symbols) -> Result<usize, Damage> {
        if let Some(at) = self.known.iter().position(|known| known.same.contains(&header)) {
            return Ok(at);
        }
        let of = symbols.header(header)?;
        let like = |known: &Known| Header { main_mapping: known.header.main_mapping, ..of.clone() } == known.header;
        let Some(at) = self.known.iter().position(like) else {
            self.known.push(Known { header: of, first: header, same: vec![header] });
            return Ok(self.known.len() - 1);
        };
        let known = &mut self.known[at];
        known.same.push(header);
        let [ours, theirs] = [known.header.main_mapping, of.main_mapping].map(|mapping| main(mapping, symbols));
        if (theirs, header) < (ours, known.first) {
            known.first = header;
            known.header.main_mapping = of.main_mapping;
        }
        Ok(at)
    }

    /// Returns the header at a place. Which main mapping it has does not depend on the order in which they came, nor on how the tables were
    /// put together: it is chosen as a merge chooses among profiles ([`Merger::by_time`](afterglow_profile::merge::Merger::by_time)).
    pub(super) fn get(&self, place: usize) -> &Header {
        &self.known[place].header
    }

    /// Returns the number of the header at a place, of those that are the same the one that stands for them.
    pub(super) fn first(&self, place: usize) -> u32 {
        self.known[place].first
    }
}

/// Returns what a main mapping is chosen by: build id, file, offset and size, none last.
fn main(mapping: u32, symbols: &Symbols) -> (bool, &[u8], &[u8], u64, u64) {
    match symbols.mappings.get(mapping as usize) {
        None => (true, b"", b"", 0, 0),
        Some(of) => {
            let [build_id, file] = [of.build_id, of.file].map(|text| symbols.strings.get(text));
            (false, build_id, file, of.offset, of.limit.wrapping_sub(of.start))
        }
    }
}

/// Checks that samples refer to entries of the tables.
pub(super) fn check(samples: &Samples, symbols: &Symbols) -> Result<(), Damage> {
    let (stacks, sets) = (symbols.leaves.len(), symbols.label_ends.len());
    if samples.stacks.iter().any(|&stack| stack as usize >= stacks)
        || samples.labels.iter().any(|&set| set as usize >= sets)
    {
        return Err(Damage("an index points past its table"));
    }
    Ok(())
}

// === impl Group ===

impl Group {
    /// Starts with nothing, for profiles with so many sample types, of which one is summed or all. It has room for so many stacks.
    pub(super) fn new(types: usize, sample_type: Option<usize>, stacks: usize) -> Self {
        Self {
            types,
            sample_type,
            profiles: 0,
            time_nanos: 0,
            duration_nanos: 0,
            slots: written(stacks),
            labelled: FxHashMap::default(),
            keys: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Makes room for so many stacks.
    pub(super) fn grow(&mut self, stacks: usize) {
        if self.slots.len() < stacks {
            self.slots.resize(stacks, 0);
        }
    }

    /// Returns how many bytes of memory it holds, about.
    pub(super) fn memory(&self) -> usize {
        /// A key with its slot, in a table that is never full.
        const LABELLED_BYTES: usize = 24;
        self.slots.capacity() * size_of::<u32>()
            + self.labelled.capacity() * LABELLED_BYTES
            + self.keys.capacity() * size_of::<(u32, u32)>()
            + self.values.capacity() * size_of::<i64>()
    }

    /// Adds the samples of so many profiles to those with the same stack and labels; returns false and adds nothing where a sum would not
    /// fit 64 bits.
    pub(super) fn add(&mut self, samples: &Samples, (time, duration): (i64, i64), profiles: usize) -> bool {
        let Some(duration) = self.duration_nanos.checked_add(duration) else { return false };
        if self.apply(samples, i64::overflowing_add) {
            // Additions that wrap are undone exactly by subtractions that wrap.
            self.apply(samples, i64::overflowing_sub);
            return false;
        }
        self.duration_nanos = duration;
        self.time_nanos = earliest(self.time_nanos, time);
        self.profiles += profiles;
        true
    }

    /// Applies `operation` to the sums and values of all samples, and returns whether any result did not fit.
    fn apply(&mut self, samples: &Samples, operation: impl Fn(i64, i64) -> (i64, bool)) -> bool {
        if let Some(t) = self.sample_type {
            return self.apply_one(samples, &samples.values[t], operation);
        }
        let types = samples.values.len();
        let mut overflowed = false;
        for (i, &stack) in samples.stacks.iter().enumerate() {
            let start = self.place(stack, samples.set(i), types) * types;
            for (sum, column) in self.values[start..start + types].iter_mut().zip(&samples.values) {
                let (result, wrapped) = operation(*sum, column[i]);
                *sum = result;
                overflowed |= wrapped;
            }
        }
        overflowed
    }

    /// Does the same with one column. What is 0 is nothing to a sum, so it needs no place.
    fn apply_one(&mut self, samples: &Samples, column: &[i64], operation: impl Fn(i64, i64) -> (i64, bool)) -> bool {
        let mut overflowed = false;
        for (i, (&stack, &value)) in samples.stacks.iter().zip(column).enumerate() {
            if value == 0 {
                continue;
            }
            let place = self.place(stack, samples.set(i), 1);
            let (result, wrapped) = operation(self.values[place], value);
            self.values[place] = result;
            overflowed |= wrapped;
        }
        overflowed
    }

    /// Returns the place of the sums of a stack with a label set, which has so many.
    #[inline]
    fn place(&mut self, stack: u32, set: u32, width: usize) -> usize {
        let slot = match set {
            0 => &mut self.slots[stack as usize],
            _ => self.labelled.entry((stack, set)).or_insert(0),
        };
        if *slot == 0 {
            self.keys.push((stack, set));
            *slot = self.keys.len() as u32;
            self.values.resize(self.keys.len() * width, 0);
        }
        *slot as usize - 1
    }

    /// Returns the sums, without the samples that have no value, which a merge leaves out.
    pub(super) fn finish(self) -> Summed {
        let Self { types, sample_type, profiles, time_nanos, duration_nanos, keys, values, .. } = self;
        let width = if sample_type.is_some() { 1 } else { types };
        let row = |i: usize| &values[i * width..(i + 1) * width];
        let mut kept: Vec<usize> = (0..keys.len()).filter(|&i| row(i).iter().any(|&value| value != 0)).collect();
        kept.sort_unstable_by_key(|&i| keys[i]);
        Summed {
            profiles,
            time_nanos,
            duration_nanos,
            values: kept.iter().flat_map(|&i| row(i)).copied().collect(),
            keys: kept.into_iter().map(|i| keys[i]).collect(),
        }
    }
}

/// Returns the earlier of two times, of which 0 is none.
fn earliest(a: i64, b: i64) -> i64 {
    match (a, b) {
        (0, time) | (time, 0) => time,
        (a, b) => a.min(b),
    }
}

// === impl Sum ===

impl Sum {
    /// Makes the sum of what a group came to, whose profiles have so many sample types.
    pub(super) fn new(header: u32, types: usize, sample_type: Option<usize>, summed: Summed) -> Self {
        let Summed { profiles, time_nanos, duration_nanos, keys, values } = summed;
        let (width, mut columns) = (sample_type.map_or(types, |_| 1), vec![Vec::new(); types]);
        for i in 0..width {
            columns[sample_type.unwrap_or(i)] = values.iter().skip(i).step_by(width).copied().collect();
        }
        let has_labels = keys.iter().any(|&(_, set)| set != 0);
        let samples = Samples {
            stacks: keys.iter().map(|&(stack, _)| stack).collect(),
            labels: if has_labels { keys.iter().map(|&(_, set)| set).collect() } else { Vec::new() },
            values: columns,
        };
        Self { header, sample_type, profiles, times: (time_nanos, duration_nanos), samples }
    }

    /// Returns how many bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        let Samples { stacks, labels, values } = &self.samples;
        let values: usize =
            values.iter().map(|column| size_of_val(column) + column.capacity() * size_of::<i64>()).sum();
        size_of::<Self>() + (stacks.capacity() + labels.capacity()) * size_of::<u32>() + values
    }
}

// === impl Sums ===

impl Sums {
    /// Returns the frames of the stacks of all samples, in their order; none where frames are to be dropped.
    pub(super) fn stacks(&self) -> Option<Stacks<'_>> {
        let symbols = &*self.symbols;
        let drops = !symbols.strings.get(self.header.drop_frames).is_empty();
        let leaf = |&(stack, _): &(u32, u32)| symbols.leaves[stack as usize];
        (!drops).then(|| Stacks::of(symbols, self.summed.keys.iter().map(leaf)))
    }

    /// Returns the sums as a profile, with no more tables than its samples need.
    pub(super) fn profile(&self) -> Profile<'_> {
        let symbols = &*self.symbols;
        let mut tables = Tables::new(symbols);
        let Self { header, summed, .. } = self;
        let mut profile = Profile {
            sample_types: header.sample_types.iter().map(|t| tables.value_type(t)).collect(),
            period_type: header.period_type.as_ref().map(|t| tables.value_type(t)),
            period: header.period,
            time_nanos: summed.time_nanos,
            duration_nanos: summed.duration_nanos,
            drop_frames: tables.string(header.drop_frames),
            keep_frames: tables.string(header.keep_frames),
            comments: header.comments.iter().map(|&comment| tables.string(comment)).collect(),
            default_sample_type: tables.string(header.default_sample_type),
            doc_url: tables.string(header.doc_url),
            ..Profile::default()
        };
        if header.main_mapping != NONE {
            tables.mapping(header.main_mapping);
        }
        let mut samples = model::Samples {
            values: summed.values.clone(),
            shapes: vec![0; summed.keys.len()],
            ..model::Samples::default()
        };
        for &(stack, set) in &summed.keys {
            for (_, location) in symbols.nodes_of(stack) {
                samples.locations.push(tables.location(location));
            }
            samples.location_ends.push(samples.locations.len() as u32);
            samples.labels.extend(symbols.labels_of(set).iter().map(|label| model::SampleLabel {
                key: tables.string(label.key),
                str: tables.string(label.str),
                num: label.num,
                num_unit: tables.string(label.num_unit),
                shape: 0,
            }));
            samples.label_ends.push(samples.labels.len() as u32);
        }
        profile.samples = samples;
        let Tables { strings, functions, mappings, locations, lines, .. } = tables;
        profile.strings = strings.entries;
        profile.functions = functions.entries;
        profile.mappings = mappings.entries;
        profile.locations = locations.entries;
        profile.lines = lines;
        profile
    }
}

/// The part of the symbol tables that one profile needs.
struct Tables<'a> {
    symbols: &'a Symbols,
    strings: Part<&'a [u8]>,
    functions: Part<model::Function>,
    mappings: Part<model::Mapping>,
    locations: Part<model::Location>,
    lines: Vec<model::Line>,
}

/// The entries of a table that are needed, and where each went.
struct Part<T> {
    entries: Vec<T>,
    /// For each entry of the whole table, its index here, or [`NONE`].
    index_of: Vec<u32>,
}

impl<T> Part<T> {
    fn new(len: usize) -> Self {
        Self { entries: Vec::new(), index_of: vec![NONE; len] }
    }

    /// Returns the index that entry `place` of the whole table has here, if it is here.
    fn index(&self, place: u32) -> Option<u32> {
        Some(self.index_of[place as usize]).filter(|&index| index != NONE)
    }

    fn push(&mut self, place: u32, entry: T) -> u32 {
        let index = self.entries.len() as u32;
        self.index_of[place as usize] = index;
        self.entries.push(entry);
        index
    }
}

impl<'a> Tables<'a> {
    fn new(symbols: &'a Symbols) -> Self {
        let mut tables = Self {
            symbols,
            strings: Part::new(symbols.strings.len()),
            functions: Part::new(symbols.functions.len()),
            mappings: Part::new(symbols.mappings.len()),
            locations: Part::new(symbols.locations.len()),
            lines: Vec::new(),
        };
        tables.string(0);
        tables
    }

    fn string(&mut self, place: u32) -> u32 {
        let symbols = self.symbols;
        self.strings.index(place).unwrap_or_else(|| self.strings.push(place, symbols.strings.get(place)))
    }

    fn value_type(&mut self, of: &super::symbols::ValueType) -> model::ValueType {
        model::ValueType { kind: self.string(of.kind), unit: self.string(of.unit), shape: 0 }
    }

    fn mapping(&mut self, place: u32) -> u32 {
        if let Some(index) = self.mappings.index(place) {
            return index;
        }
        let of = self.symbols.mappings[place as usize];
        let mapping = model::Mapping {
            id: self.mappings.entries.len() as u64 + 1,
            start: of.start,
            limit: of.limit,
            offset: of.offset,
            file: self.string(of.file),
            build_id: self.string(of.build_id),
            has: std::array::from_fn(|bit| of.has >> bit & 1 == 1),
            shape: 0,
        };
        self.mappings.push(place, mapping)
    }

    fn function(&mut self, place: u32) -> u32 {
        if let Some(index) = self.functions.index(place) {
            return index;
        }
        let of = self.symbols.functions[place as usize];
        let function = model::Function {
            id: self.functions.entries.len() as u64 + 1,
            name: self.string(of.name),
            system_name: self.string(of.system_name),
            file: self.string(of.file),
            start_line: of.start_line,
            shape: 0,
        };
        self.functions.push(place, function)
    }

    fn location(&mut self, place: u32) -> u32 {
        if let Some(index) = self.locations.index(place) {
            return index;
        }
        let symbols = self.symbols;
        let of = symbols.locations[place as usize];
        let lines_start = self.lines.len() as u32;
        for line in symbols.lines_of(place) {
            let function = if line.function == NONE { NONE } else { self.function(line.function) };
            self.lines.push(model::Line { function, line: line.line, column: line.column, shape: 0 });
        }
        let location = model::Location {
            id: self.locations.entries.len() as u64 + 1,
            mapping: if of.mapping == NONE { NONE } else { self.mapping(of.mapping) },
            address: of.address,
            lines_start,
            lines_end: self.lines.len() as u32,
            is_folded: of.is_folded,
            shape: 0,
        };
        self.locations.push(place, location)
    }
}
