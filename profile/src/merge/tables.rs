//! The merged tables: every string, mapping, function, location, label set and stack once, in the order they were first met.
//!
//! What is equal is decided as google/pprof's Merge decides it: a mapping by its size, offset and build id (else file), wherever it
//! was loaded; a location by its address relative to its mapping, and its lines; a sample by its stack and labels. Each profile's
//! indices are translated once, on first use ([`Translation`]), so what no sample uses never comes in. A hash only finds a
//! candidate: what is taken for equal has been compared. Hashes are seeded by chance, but no order depends on them.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table};

use crate::model::{Function, Line, Location, Mapping, NONE, Profile, SampleLabel, StringIndex};

/// What mapping sizes are rounded up to before they are compared: loaders differ in less than a page.
const MAPPING_SIZE_ROUNDING: u64 = 0x1000;

/// Things that are each kept once.
#[derive(Debug)]
pub(super) struct Tables {
    hasher: DefaultHashBuilder,
    pub(super) strings: Runs<u8>,
    string_index: Index,
    pub(super) mappings: Vec<Mapping>,
    mapping_index: Index,
    pub(super) functions: Vec<Function>,
    function_index: Index,
    pub(super) locations: Vec<Location>,
    pub(super) lines: Vec<Line>,
    location_index: Index,
    pub(super) label_sets: Runs<SampleLabel>,
    label_set_index: Index,
    /// The stacks of the samples, leaf first.
    pub(super) stacks: Runs<u32>,
    /// The label set of each sample.
    pub(super) sample_label_sets: Vec<u32>,
    sample_index: Index,
    scratch: Scratch,
}

/// Buffers that would otherwise be allocated for each thing looked up.
#[derive(Debug, Default)]
struct Scratch {
    lines: Vec<Line>,
    labels: Vec<SampleLabel>,
    stack: Vec<u32>,
}

/// Sequences of different lengths, one behind the other.
#[derive(Debug)]
pub(super) struct Runs<T> {
    items: Vec<T>,
    ends: Vec<usize>,
}

/// Finds things: the one that is expected next at once, any other by its hash.
///
/// Profiles of one process list most things in the order in which the profile before did, so the one behind the last found is
/// nearly always right, and comparing with it costs less than hashing.
#[derive(Debug, Default)]
struct Index {
    table: HashTable<Entry>,
    expected: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    id: u32,
}

/// The first mapping of a profile, by convention its main binary.
#[derive(Clone, Debug)]
pub(super) struct Main {
    mapping: Mapping,
    file: Vec<u8>,
    build_id: Vec<u8>,
}

/// What the indices of one profile are in the merged tables; [`NONE`] until first used.
#[derive(Debug, Default)]
pub(super) struct Translation {
    strings: Vec<u32>,
    mappings: Vec<u32>,
    functions: Vec<u32>,
    locations: Vec<u32>,
}

// === impl Tables ===

impl Tables {
    /// Makes tables that hold the empty string and the empty label set, both at 0.
    pub(super) fn new() -> Self {
        let mut tables = Self {
            hasher: DefaultHashBuilder::default(),
            strings: Runs::default(),
            string_index: Index::default(),
            mappings: Vec::new(),
            mapping_index: Index::default(),
            functions: Vec::new(),
            function_index: Index::default(),
            locations: Vec::new(),
            lines: Vec::new(),
            location_index: Index::default(),
            label_sets: Runs::default(),
            label_set_index: Index::default(),
            stacks: Runs::default(),
            sample_label_sets: Vec::new(),
            sample_index: Index::default(),
            scratch: Scratch::default(),
        };
        tables.intern(b"");
        tables.intern_labels(&[]);
        tables
    }

    /// Returns the index of `string`.
    pub(super) fn intern(&mut self, string: &[u8]) -> StringIndex {
        let (hasher, strings) = (&self.hasher, &mut self.strings);
        let hash = || hasher.hash_one(string);
        let (id, is_new) = self.string_index.find_or_insert(strings.len(), hash, |id| strings.get(id) == string);
        if is_new {
            strings.push(string);
        }
        id
    }

    /// Returns the index of the sample with the stack and labels of sample `i` of `profile`.
    pub(super) fn sample(&mut self, known: &mut Translation, profile: &Profile<'_>, i: usize) -> u32 {
        let mut stack = std::mem::take(&mut self.scratch.stack);
        stack.clear();
        for &location in profile.samples.stack(i) {
            stack.push(self.location(known, profile, location));
        }
        let labels = self.labels(known, profile, profile.samples.labels(i));
        let (stacks, label_sets) = (&mut self.stacks, &mut self.sample_label_sets);
        let hash = || self.hasher.hash_one((labels, &stack[..]));
        let is_equal = |id: u32| label_sets[id as usize] == labels && stacks.get(id) == stack;
        let (id, is_new) = self.sample_index.find_or_insert(stacks.len(), hash, is_equal);
        if is_new {
            stacks.push(&stack);
            label_sets.push(labels);
        }
        self.scratch.stack = stack;
        id
    }

    /// Returns the index of mapping `i` of `profile`; of none, none.
    pub(super) fn mapping(&mut self, known: &mut Translation, profile: &Profile<'_>, i: u32) -> u32 {
        if i == NONE {
            return NONE;
        }
        if known.mappings[i as usize] != NONE {
            return known.mappings[i as usize];
        }
        let theirs = profile.mappings[i as usize];
        let mapping = Mapping {
            id: self.mappings.len() as u64 + 1,
            file: self.string(known, profile, theirs.file),
            build_id: self.string(known, profile, theirs.build_id),
            shape: 0,
            ..theirs
        };
        let key = mapping_key(&mapping);
        let mappings = &mut self.mappings;
        let hash = || self.hasher.hash_one(key);
        let is_equal = |id: u32| mapping_key(&mappings[id as usize]) == key;
        let (id, is_new) = self.mapping_index.find_or_insert(mappings.len(), hash, is_equal);
        if is_new {
            mappings.push(mapping);
        }
        known.mappings[i as usize] = id;
        id
    }

    /// Makes a mapping the first. The tables can then no longer be added to.
    pub(super) fn begin_with(&mut self, main: &Main) {
        let profile = Profile {
            strings: vec![b"", &main.file, &main.build_id],
            mappings: vec![Mapping { file: 1, build_id: 2, ..main.mapping }],
            ..Profile::default()
        };
        let mut known = Translation::default();
        known.reset(&profile);
        let at = self.mapping(&mut known, &profile, 0);
        self.mappings.swap(0, at as usize);
        for (mapping, id) in self.mappings.iter_mut().zip(1..) {
            mapping.id = id;
        }
        for location in &mut self.locations {
            location.mapping = match location.mapping {
                0 => at,
                mapping if mapping == at => 0,
                mapping => mapping,
            };
        }
    }

    fn location(&mut self, known: &mut Translation, profile: &Profile<'_>, i: u32) -> u32 {
        if known.locations[i as usize] != NONE {
            return known.locations[i as usize];
        }
        let theirs = profile.locations[i as usize];
        let mapping = self.mapping(known, profile, theirs.mapping);
        // The same code lies at another address in a process that loaded the file elsewhere: only the distance to the start counts.
        let (start, their_start) = match mapping {
            NONE => (0, 0),
            _ => (self.mappings[mapping as usize].start, profile.mappings[theirs.mapping as usize].start),
        };
        let relative = theirs.address.wrapping_sub(their_start);
        let mut lines = std::mem::take(&mut self.scratch.lines);
        lines.clear();
        for &line in &profile.lines[theirs.lines()] {
            lines.push(Line { function: self.function(known, profile, line.function), shape: 0, ..line });
        }
        let hash = || self.hasher.hash_one((mapping, relative, theirs.is_folded, &lines[..]));
        let (locations, all_lines) = (&mut self.locations, &mut self.lines);
        let is_equal = |id: u32| {
            let ours = &locations[id as usize];
            ours.mapping == mapping
                && ours.address.wrapping_sub(start) == relative
                && ours.is_folded == theirs.is_folded
                && all_lines[ours.lines()] == lines
        };
        let (id, is_new) = self.location_index.find_or_insert(locations.len(), hash, is_equal);
        if is_new {
            let lines_start = all_lines.len() as u32;
            all_lines.extend_from_slice(&lines);
            locations.push(Location {
                id: u64::from(id) + 1,
                mapping,
                address: relative.wrapping_add(start),
                lines_start,
                lines_end: all_lines.len() as u32,
                is_folded: theirs.is_folded,
                shape: 0,
            });
        }
        self.scratch.lines = lines;
        known.locations[i as usize] = id;
        id
    }

    fn function(&mut self, known: &mut Translation, profile: &Profile<'_>, i: u32) -> u32 {
        if i == NONE {
            return NONE;
        }
        if known.functions[i as usize] != NONE {
            return known.functions[i as usize];
        }
        let theirs = profile.functions[i as usize];
        let name = self.string(known, profile, theirs.name);
        let system_name = self.string(known, profile, theirs.system_name);
        let file = self.string(known, profile, theirs.file);
        let key = (name, system_name, file, theirs.start_line);
        let functions = &mut self.functions;
        let hash = || self.hasher.hash_one(key);
        let is_equal = |id: u32| {
            let ours = &functions[id as usize];
            (ours.name, ours.system_name, ours.file, ours.start_line) == key
        };
        let (id, is_new) = self.function_index.find_or_insert(functions.len(), hash, is_equal);
        if is_new {
            let start_line = theirs.start_line;
            functions.push(Function { id: u64::from(id) + 1, name, system_name, file, start_line, shape: 0 });
        }
        known.functions[i as usize] = id;
        id
    }

    /// Returns the index of the label set that `labels` of `profile` say.
    ///
    /// The order of keys says nothing, that of the values of one key does; strings and numbers of one key are apart. A label with
    /// neither string, number nor unit says nothing at all.
    fn labels(&mut self, known: &mut Translation, profile: &Profile<'_>, labels: &[SampleLabel]) -> u32 {
        if labels.is_empty() {
            return 0;
        }
        let mut set = std::mem::take(&mut self.scratch.labels);
        set.clear();
        for label in labels {
            let is_text = !profile.string(label.str).is_empty();
            let (num, num_unit) = if is_text { (0, 0) } else { (label.num, label.num_unit) };
            if is_text || num != 0 || !profile.string(num_unit).is_empty() {
                let key = self.string(known, profile, label.key);
                let str = self.string(known, profile, label.str);
                let num_unit = self.string(known, profile, num_unit);
                set.push(SampleLabel { key, str, num, num_unit, shape: 0 });
            }
        }
        let strings = &self.strings;
        set.sort_by(|a, b| (a.str == 0).cmp(&(b.str == 0)).then_with(|| strings.get(a.key).cmp(strings.get(b.key))));
        let id = self.intern_labels(&set);
        self.scratch.labels = set;
        id
    }

    fn intern_labels(&mut self, set: &[SampleLabel]) -> u32 {
        let (hasher, sets) = (&self.hasher, &mut self.label_sets);
        let hash = || hasher.hash_one(set);
        let (id, is_new) = self.label_set_index.find_or_insert(sets.len(), hash, |id| sets.get(id) == set);
        if is_new {
            sets.push(set);
        }
        id
    }

    fn string(&mut self, known: &mut Translation, profile: &Profile<'_>, i: StringIndex) -> StringIndex {
        let slot = &mut known.strings[i as usize];
        if *slot == NONE {
            *slot = self.intern(profile.string(i));
        }
        *slot
    }

    /// Returns how many bytes of memory the tables hold.
    pub(super) fn memory(&self) -> usize {
        let indices = [
            &self.string_index,
            &self.mapping_index,
            &self.function_index,
            &self.location_index,
            &self.label_set_index,
            &self.sample_index,
        ];
        self.strings.memory()
            + self.mappings.capacity() * size_of::<Mapping>()
            + self.functions.capacity() * size_of::<Function>()
            + self.locations.capacity() * size_of::<Location>()
            + self.lines.capacity() * size_of::<Line>()
            + self.label_sets.memory()
            + self.stacks.memory()
            + self.sample_label_sets.capacity() * size_of::<u32>()
            + indices.iter().map(|index| index.table.allocation_size()).sum::<usize>()
    }
}

/// Returns what makes a mapping the same wherever it was loaded: size, offset, and build id or else file. One with neither is made
/// up by a profiler that knows no files, and is the same as all such.
fn mapping_key(mapping: &Mapping) -> (u64, u64, StringIndex) {
    let size = mapping.limit.wrapping_sub(mapping.start).wrapping_add(MAPPING_SIZE_ROUNDING - 1);
    let name = if mapping.build_id != 0 { mapping.build_id } else { mapping.file };
    (size - size % MAPPING_SIZE_ROUNDING, mapping.offset, name)
}

// === impl Main ===

impl Main {
    /// Notes the main binary of a profile, where it is the one to take.
    pub(super) fn note(known: &mut Option<Self>, profile: &Profile<'_>) {
        let Some(&mapping) = profile.mappings.first() else { return };
        let (file, build_id) = (profile.string(mapping.file), profile.string(mapping.build_id));
        let size = |mapping: &Mapping| mapping.limit.wrapping_sub(mapping.start);
        let comes_first = known.as_ref().is_none_or(|known| {
            let ours = (&known.build_id[..], &known.file[..], known.mapping.offset, size(&known.mapping));
            (build_id, file, mapping.offset, size(&mapping)) < ours
        });
        if comes_first {
            *known = Some(Self { mapping, file: file.to_vec(), build_id: build_id.to_vec() });
        }
    }
}

// === impl Translation ===

impl Translation {
    /// Forgets all and makes room for the tables of `profile`.
    pub(super) fn reset(&mut self, profile: &Profile<'_>) {
        let clear = |table: &mut Vec<u32>, len: usize| {
            table.clear();
            table.resize(len, NONE);
        };
        clear(&mut self.strings, profile.strings.len());
        clear(&mut self.mappings, profile.mappings.len());
        clear(&mut self.functions, profile.functions.len());
        clear(&mut self.locations, profile.locations.len());
    }

    /// Returns how many bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        let entries =
            self.strings.capacity() + self.mappings.capacity() + self.functions.capacity() + self.locations.capacity();
        entries * size_of::<u32>()
    }
}

// === impl Runs ===

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self { items: Vec::new(), ends: Vec::new() }
    }
}

impl<T: Clone> Runs<T> {
    /// Returns how many runs there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns how many items all runs have together.
    pub(super) fn items_len(&self) -> usize {
        self.items.len()
    }

    /// Returns run `i`.
    pub(super) fn get(&self, i: u32) -> &[T] {
        let i = i as usize;
        &self.items[if i == 0 { 0 } else { self.ends[i - 1] }..self.ends[i]]
    }

    /// Takes the runs apart: all items, and where each run ends in them.
    pub(super) fn into_parts(self) -> (Vec<T>, Vec<usize>) {
        (self.items, self.ends)
    }

    fn push(&mut self, run: &[T]) {
        self.items.extend_from_slice(run);
        self.ends.push(self.items.len());
    }

    fn memory(&self) -> usize {
        self.items.capacity() * size_of::<T>() + self.ends.capacity() * size_of::<usize>()
    }
}

// === impl Index ===

impl Index {
    /// Returns the thing that `is_equal`, which has the hash that `hash` returns; where there is none, notes the one that is about to
    /// become number `next`, and says that it is new.
    fn find_or_insert(
        &mut self,
        next: usize,
        hash: impl FnOnce() -> u64,
        is_equal: impl Fn(u32) -> bool,
    ) -> (u32, bool) {
        let (id, is_new) = if (self.expected as usize) < next && is_equal(self.expected) {
            (self.expected, false)
        } else {
            let hash = hash();
            match self.table.entry(hash, |entry| entry.hash == hash && is_equal(entry.id), |entry| entry.hash) {
                hash_table::Entry::Occupied(entry) => (entry.get().id, false),
                hash_table::Entry::Vacant(entry) => {
                    let id = u32::try_from(next).expect("the merger admits no more than u32 can count");
                    entry.insert(Entry { hash, id });
                    (id, true)
                }
            }
        };
        self.expected = id + 1;
        (id, is_new)
    }
}
