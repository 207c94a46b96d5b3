//! Sums of samples over many profiles of a dataset.
//!
//! Samples are added by stack and label set, which are small numbers in a block: a merge is additions into an array, without a string
//! compared or a stack hashed. Only the result names anything.

use std::sync::Arc;

use afterglow_profile::Limits;
use afterglow_profile::decode::decode;
use afterglow_profile::model::{self, NONE, Profile};
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

use super::chunk::{Needed, Profiles, Unpacked};
use super::columns::{Head, Samples};
use super::reader::Read;
use super::rows::Row;
use super::symbols::{Header, Symbols};
use super::values;
use super::varint::Damage;

/// Which sample types of profiles are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleTypes {
    /// All of them.
    All,
    /// The one with this index.
    One(usize),
    /// Of each profile the one that it shows by default, as [`Profile::sample_type_named`] says.
    Default,
}

/// The samples of several profiles with one header, summed by stack and labels.
#[derive(Debug)]
pub struct Aggregate {
    content: Content,
    /// The sample type that it is reduced to, as an index into those of the profiles.
    sample_type: Option<usize>,
}

#[derive(Debug)]
enum Content {
    /// Sums of profiles that are kept as columns.
    Sums(Sums),
    /// The bytes of one profile that is kept as it was sent.
    Whole(Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Sums {
    pub(super) symbols: Arc<Symbols>,
    pub(super) header: Header,
    pub(super) profiles: usize,
    pub(super) time_nanos: i64,
    pub(super) duration_nanos: i64,
    /// The stack and the label set of each sample.
    pub(super) keys: Vec<(u32, u32)>,
    /// The values, row by row.
    pub(super) values: Vec<i64>,
}

/// The distinct headers of profiles, but for their main mappings.
#[derive(Debug, Default)]
pub(super) struct Headers {
    /// Each with the headers of the symbols that are the same.
    known: Vec<(Header, Vec<u32>)>,
}

/// Limits that refuse nothing: what is decoded here was accepted once, perhaps under other limits than today's.
pub(super) fn no_limits() -> Limits {
    Limits {
        body_bytes_max: u64::MAX,
        inflated_bytes_max: u64::MAX,
        inflate_ratio_max: u64::MAX,
        samples_max: u64::MAX,
        stack_depth_max: u64::MAX,
        string_bytes_max: u64::MAX,
        sample_types_max: u64::MAX,
        mappings_max: u64::MAX,
        locations_max: u64::MAX,
        lines_max: u64::MAX,
        functions_max: u64::MAX,
        strings_max: u64::MAX,
        labels_max: u64::MAX,
        comments_max: u64::MAX,
    }
}

impl Aggregate {
    /// Returns how many profiles were summed.
    pub fn profiles(&self) -> usize {
        match &self.content {
            Content::Sums(sums) => sums.profiles,
            Content::Whole(_) => 1,
        }
    }

    /// Returns which sample type of the profiles was summed, as an index; none where all were.
    pub fn sample_type(&self) -> Option<usize> {
        self.sample_type
    }

    /// Returns the sums as a profile, with no more tables than its samples need. Its time is the smallest of those summed that is not 0, its
    /// duration the sum of theirs.
    pub fn profile(&self) -> Profile<'_> {
        match &self.content {
            Content::Sums(sums) => sums.profile(),
            Content::Whole(raw) => {
                let mut profile = decode(raw, &no_limits()).expect("it was decoded when it was read");
                if let Some(t) = self.sample_type {
                    let types = profile.sample_types.len();
                    profile.samples.values = profile.samples.values.iter().skip(t).step_by(types).copied().collect();
                    profile.sample_types = vec![profile.sample_types[t]];
                }
                profile
            }
        }
    }
}

// === impl SampleTypes ===

impl SampleTypes {
    /// Returns which one of so many sample types is summed, none for all; `default` is what is shown by default.
    fn of(self, types: usize, default: impl FnOnce() -> Option<usize>) -> Result<Option<usize>, Damage> {
        match self {
            Self::All => Ok(None),
            Self::One(t) if t < types => Ok(Some(t)),
            Self::One(_) => Err(LACKS_A_TYPE),
            Self::Default => Ok(default()),
        }
    }
}

pub(super) const LACKS_A_TYPE: Damage = Damage("lacks a sample type that its row has");

/// Returns which sample type profiles with this header show by default, by the rule of [`Profile::sample_type_named`].
fn default_sample_type(header: &Header, symbols: &Symbols) -> Option<usize> {
    let name = |place| symbols.strings.get(place);
    let default = name(header.default_sample_type);
    let named = header.sample_types.iter().position(|t| !default.is_empty() && name(t.kind) == default);
    named.or(header.sample_types.len().checked_sub(1))
}

// === impl Headers ===

impl Headers {
    /// Returns the place of a header of `symbols`, which may be the one after the last that was known.
    pub(super) fn place(&mut self, header: u32, symbols: &Symbols) -> Result<usize, Damage> {
        if let Some(at) = self.known.iter().position(|(_, same)| same.contains(&header)) {
            return Ok(at);
        }
        let of = symbols.header(header)?;
        let like =
            |(known, _): &(Header, Vec<u32>)| Header { main_mapping: known.main_mapping, ..of.clone() } == *known;
        let at = match self.known.iter().position(like) {
            Some(at) => at,
            None => {
                self.known.push((of, Vec::new()));
                self.known.len() - 1
            }
        };
        self.known[at].1.push(header);
        Ok(at)
    }

    /// Returns the header at a place.
    pub(super) fn get(&self, place: usize) -> &Header {
        &self.known[place].0
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

/// Adds up the samples of a dataset.
pub(crate) struct Summing {
    types: SampleTypes,
    symbols: Arc<Symbols>,
    /// The number of each label set.
    numbers: Arc<[i64]>,
    headers: Headers,
    groups: Vec<Group>,
    apart: Vec<Aggregate>,
    samples: Samples,
}

/// The sums of the profiles with one header.
struct Group {
    /// Has only the sample types that are summed.
    header: Header,
    /// How many sample types the profiles have.
    types: usize,
    /// The one that is summed; none for all.
    sample_type: Option<usize>,
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

impl Summing {
    /// Starts with nothing added.
    pub(crate) fn new(symbols: Arc<Symbols>, types: SampleTypes) -> Self {
        let numbers = values::numbers(&symbols).into();
        let headers = Headers::default();
        Self { types, symbols, numbers, headers, groups: Vec::new(), apart: Vec::new(), samples: Samples::default() }
    }

    /// Returns the group of profiles with a header of the symbols.
    fn group(&mut self, header: u32) -> Result<&mut Group, Damage> {
        let at = self.headers.place(header, &self.symbols)?;
        if at == self.groups.len() {
            let mut header = self.headers.get(at).clone();
            let types = header.sample_types.len();
            let sample_type = self.types.of(types, || default_sample_type(&header, &self.symbols))?;
            if let Some(t) = sample_type {
                header.sample_types = vec![header.sample_types[t]];
            }
            self.groups.push(Group::new(header, types, sample_type, self.symbols.leaves.len()));
        }
        Ok(&mut self.groups[at])
    }

    fn add(&mut self, head: &Head, samples: &Samples, row: &Row) -> Result<(), Damage> {
        check(samples, &self.symbols)?;
        let group = self.group(head.header)?;
        if samples.values.len() != group.types {
            return Err(Damage("has another number of values than sample types"));
        }
        let time = head.time_delta.wrapping_add(row.time_nanos);
        let duration = head.duration_delta.wrapping_add(row.duration_nanos);
        if !group.add(samples, time, duration) {
            // A sum does not fit. Whoever merges has a rule for that, so the samples of this profile stay apart.
            let (header, sample_type) = (group.header.clone(), group.sample_type);
            let values = match sample_type {
                Some(t) => samples.values[t].clone(),
                None => {
                    (0..samples.stacks.len()).flat_map(|i| samples.values.iter().map(move |column| column[i])).collect()
                }
            };
            let content = Content::Sums(Sums {
                symbols: self.symbols.clone(),
                header,
                profiles: 1,
                time_nanos: time,
                duration_nanos: duration,
                keys: (0..).zip(&samples.stacks).map(|(i, &stack)| (stack, samples.set(i))).collect(),
                values,
            });
            self.apart.push(Aggregate { content, sample_type });
        }
        Ok(())
    }

    /// Returns the sums.
    pub(crate) fn finish(self) -> Vec<Aggregate> {
        let Self { symbols, groups, mut apart, .. } = self;
        let mut sums: Vec<_> = groups.into_iter().map(|group| group.finish(&symbols)).collect();
        sums.append(&mut apart);
        sums
    }
}

impl Read<()> for Summing {
    fn add_blob(&mut self, raw: Vec<u8>, (): ()) -> Result<(), Damage> {
        let profile = decode(&raw, &no_limits()).map_err(|_| Damage("is no profile"))?;
        let sample_type = self.types.of(profile.sample_types.len(), || profile.sample_type_named(None))?;
        drop(profile);
        self.apart.push(Aggregate { content: Content::Whole(raw), sample_type });
        Ok(())
    }

    fn needed(&mut self, chunk: &Unpacked, rows: &[(&Row, ())]) -> Result<Needed, Damage> {
        let mut types: SmallVec<[usize; 4]> = match self.types {
            SampleTypes::All => return Ok(Needed::All),
            SampleTypes::One(t) => smallvec![t],
            SampleTypes::Default => {
                let (heads, _) = chunk.heads()?;
                // A head that is missing is refused when the profile is read.
                let headers = rows.iter().filter_map(|(row, ())| heads.get(row.position as usize));
                let types = headers.map(|head| -> Result<_, Damage> { Ok(self.group(head.header)?.sample_type) });
                types.filter_map(Result::transpose).collect::<Result<_, _>>()?
            }
        };
        types.sort_unstable();
        types.dedup();
        Ok(Needed::Only(types))
    }

    fn add_chunk(&mut self, chunk: &Unpacked, rows: &[(&Row, ())]) -> Result<(), Damage> {
        let numbers = self.numbers.clone();
        let mut profiles = Profiles::new(chunk, &numbers)?;
        let mut samples = std::mem::take(&mut self.samples);
        for (row, ()) in rows {
            let head = profiles.read(row.position as usize, &mut samples)?;
            self.add(&head, &samples, row)?;
        }
        self.samples = samples;
        Ok(())
    }
}

impl Group {
    fn new(header: Header, types: usize, sample_type: Option<usize>, stacks: usize) -> Self {
        Self {
            header,
            types,
            sample_type,
            profiles: 0,
            time_nanos: 0,
            duration_nanos: 0,
            slots: vec![0; stacks],
            labelled: FxHashMap::default(),
            keys: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Adds samples to those with the same stack and labels; returns false and adds nothing where a sum would not fit 64 bits.
    fn add(&mut self, samples: &Samples, time: i64, duration: i64) -> bool {
        let Some(duration) = self.duration_nanos.checked_add(duration) else { return false };
        if self.apply(samples, i64::overflowing_add) {
            // Additions that wrap are undone exactly by subtractions that wrap.
            self.apply(samples, i64::overflowing_sub);
            return false;
        }
        self.duration_nanos = duration;
        self.time_nanos = earliest(self.time_nanos, time);
        self.profiles += 1;
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

    fn finish(self, symbols: &Arc<Symbols>) -> Aggregate {
        let Self { header, sample_type, profiles, time_nanos, duration_nanos, mut keys, mut values, .. } = self;
        let types = header.sample_types.len().max(1);
        let mut kept = 0;
        for i in 0..keys.len() {
            // A merge leaves out samples without any value.
            if values[i * types..(i + 1) * types].iter().any(|&value| value != 0) {
                keys[kept] = keys[i];
                values.copy_within(i * types..(i + 1) * types, kept * types);
                kept += 1;
            }
        }
        keys.truncate(kept);
        values.truncate(kept * types);
        let symbols = symbols.clone();
        let content = Content::Sums(Sums { symbols, header, profiles, time_nanos, duration_nanos, keys, values });
        Aggregate { content, sample_type }
    }
}

/// Returns the earlier of two times, of which 0 is none.
fn earliest(a: i64, b: i64) -> i64 {
    match (a, b) {
        (0, time) | (time, 0) => time,
        (a, b) => a.min(b),
    }
}

// === impl Sums ===

impl Sums {
    pub(super) fn profile(&self) -> Profile<'_> {
        let symbols = &*self.symbols;
        let mut tables = Tables::new(symbols);
        let header = &self.header;
        let mut profile = Profile {
            sample_types: header.sample_types.iter().map(|t| tables.value_type(t)).collect(),
            period_type: header.period_type.as_ref().map(|t| tables.value_type(t)),
            period: header.period,
            time_nanos: self.time_nanos,
            duration_nanos: self.duration_nanos,
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
            values: self.values.clone(),
            shapes: vec![0; self.keys.len()],
            ..model::Samples::default()
        };
        for &(stack, set) in &self.keys {
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
