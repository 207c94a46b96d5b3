//! From raw samples (addresses and values) to a pprof: locations, functions and mappings appear once, in the order of first use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use afterglow_profile::model::{
    Function, Line, Location, Mapping, NONE, Profile, SampleLabel, Samples, StringIndex, ValueType,
};
use afterglow_profile::{compress, encode};

use super::mappings::find;
use super::symbols::{SourceLine, Symbolizer};

/// What a profile says of itself beside its samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// Name and unit of each value.
    pub(super) sample_types: &'static [(&'static str, &'static str)],
    /// What lies between two samples.
    pub(super) period_type: (&'static str, &'static str),
    /// How much of it.
    pub(super) period: i64,
    /// When it began, in nanoseconds since 1970.
    pub(super) time_nanos: i64,
    /// How long it took; 0 for a snapshot.
    pub(super) duration_nanos: i64,
}

/// Samples by stack (leaf first, addresses of instructions) and thread, with their values summed.
#[derive(Debug)]
pub(super) struct RawSamples {
    values_len: usize,
    samples: BTreeMap<(Vec<u64>, Arc<str>), Vec<i64>>,
}

impl RawSamples {
    /// Returns no samples of `values_len` values each.
    pub(super) fn new(values_len: usize) -> Self {
        Self { values_len, samples: BTreeMap::new() }
    }

    /// Adds `values` to those of a stack. The thread is empty where it is not known.
    pub(super) fn add(&mut self, stack: Vec<u64>, thread: Arc<str>, values: &[i64]) {
        let sums = self.samples.entry((stack, thread)).or_insert_with(|| vec![0; self.values_len]);
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = sum.saturating_add(*value);
        }
    }
}

/// Returns the gzip'd pprof of `samples`, whose addresses have been looked up. Functions that `is_hidden` are left out where they are the
/// innermost at an address, unless they are all there is.
pub(super) fn assemble(
    header: Header,
    samples: &RawSamples,
    symbolizer: &mut Symbolizer,
    is_hidden: fn(&SourceLine) -> bool,
) -> Vec<u8> {
    let mut builder = Builder::new(is_hidden);
    builder.strings.intern("");
    let mut value_type = |(kind, unit): (&str, &str)| ValueType {
        kind: builder.strings.intern(kind),
        unit: builder.strings.intern(unit),
        shape: 0,
    };
    let sample_types = header.sample_types.iter().map(|t| value_type(*t)).collect();
    let period_type = Some(value_type(header.period_type));
    let thread_key = builder.strings.intern("thread");
    // By convention the first mapping is the program, used or not.
    if !symbolizer.mappings().is_empty() {
        builder.mapping(0, symbolizer);
    }
    let mut columns = Samples::default();
    for ((stack, thread), values) in &samples.samples {
        for address in stack {
            let location = builder.location(*address, symbolizer);
            columns.locations.push(location);
        }
        columns.location_ends.push(columns.locations.len() as u32);
        columns.values.extend(values);
        if !thread.is_empty() {
            let str = builder.strings.intern(thread);
            columns.labels.push(SampleLabel { key: thread_key, str, ..SampleLabel::default() });
        }
        columns.label_ends.push(columns.labels.len() as u32);
        columns.shapes.push(0);
    }
    let profile = Profile {
        sample_types,
        samples: columns,
        mappings: builder.mappings,
        locations: builder.locations,
        lines: builder.lines,
        functions: builder.functions,
        strings: builder.strings.texts.iter().map(|text| text.as_bytes()).collect(),
        time_nanos: header.time_nanos,
        duration_nanos: header.duration_nanos,
        period_type,
        period: header.period,
        ..Profile::default()
    };
    compress::gzip(&encode::encode(&profile))
}

/// The tables of a profile as they grow.
struct Builder {
    is_hidden: fn(&SourceLine) -> bool,
    strings: Strings,
    mappings: Vec<Mapping>,
    mapping_of: HashMap<usize, u32>,
    locations: Vec<Location>,
    location_of: HashMap<u64, u32>,
    lines: Vec<Line>,
    functions: Vec<Function>,
    function_of: HashMap<(StringIndex, StringIndex), u32>,
}

#[derive(Default)]
struct Strings {
    texts: Vec<Arc<str>>,
    index_of: HashMap<Arc<str>, StringIndex>,
}

// === impl Builder ===

impl Builder {
    fn new(is_hidden: fn(&SourceLine) -> bool) -> Self {
        Self {
            is_hidden,
            strings: Strings::default(),
            mappings: Vec::new(),
            mapping_of: HashMap::new(),
            locations: Vec::new(),
            location_of: HashMap::new(),
            lines: Vec::new(),
            functions: Vec::new(),
            function_of: HashMap::new(),
        }
    }

    fn location(&mut self, address: u64, symbolizer: &mut Symbolizer) -> u32 {
        if let Some(index) = self.location_of.get(&address) {
            return *index;
        }
        let mapping = match find(symbolizer.mappings(), address) {
            Some(mapping) => self.mapping(mapping, symbolizer),
            None => NONE,
        };
        let lines = symbolizer.lines(address);
        let shown = lines.iter().position(|line| !(self.is_hidden)(line)).unwrap_or(0);
        let lines = &lines[shown..];
        let lines_start = self.lines.len() as u32;
        for line in lines.iter() {
            let function = self.function(line);
            self.lines.push(Line { function, line: line.line.into(), ..Line::default() });
        }
        if let Some(mapping) = self.mappings.get_mut(mapping as usize) {
            let known = |known: fn(&SourceLine) -> bool| lines.iter().any(known);
            let [functions, files, line_numbers, inlined] = &mut mapping.has;
            *functions |= !lines.is_empty();
            *files |= known(|line| !line.file.is_empty());
            *line_numbers |= known(|line| line.line > 0);
            *inlined |= lines.len() > 1;
        }
        let index = self.locations.len() as u32;
        self.locations.push(Location {
            id: u64::from(index) + 1,
            mapping,
            address,
            lines_start,
            lines_end: self.lines.len() as u32,
            ..Location::default()
        });
        self.location_of.insert(address, index);
        index
    }

    fn function(&mut self, line: &SourceLine) -> u32 {
        let (system_name, file) = (self.strings.intern(&line.system_name), self.strings.intern(&line.file));
        if let Some(index) = self.function_of.get(&(system_name, file)) {
            return *index;
        }
        let name = self.strings.intern(&line.name);
        let index = self.functions.len() as u32;
        self.functions.push(Function { id: u64::from(index) + 1, name, system_name, file, ..Function::default() });
        self.function_of.insert((system_name, file), index);
        index
    }

    fn mapping(&mut self, which: usize, symbolizer: &mut Symbolizer) -> u32 {
        if let Some(index) = self.mapping_of.get(&which) {
            return *index;
        }
        let build_id = symbolizer.build_id(which);
        let known = &symbolizer.mappings()[which];
        let index = self.mappings.len() as u32;
        self.mappings.push(Mapping {
            id: u64::from(index) + 1,
            start: known.start,
            limit: known.limit,
            offset: known.offset,
            file: self.strings.intern(&known.file),
            build_id: self.strings.intern(&build_id),
            ..Mapping::default()
        });
        self.mapping_of.insert(which, index);
        index
    }
}

// === impl Strings ===

impl Strings {
    fn intern(&mut self, text: &str) -> StringIndex {
        if let Some(index) = self.index_of.get(text) {
            return *index;
        }
        let text: Arc<str> = text.into();
        let index = self.texts.len() as StringIndex;
        self.texts.push(Arc::clone(&text));
        self.index_of.insert(text, index);
        index
    }
}
