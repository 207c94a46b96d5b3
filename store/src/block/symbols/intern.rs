//! Finds or adds entries of the tables: each distinct entity of all profiles of a service stands once.
//!
//! An entity is looked for in two steps. Profiles of one program look alike, so the entry after the one found last is compared first;
//! that alone finds nearly everything in the second profile of a process, without hashing. Else a hash table finds it. Either way the
//! contents are compared, never hashes alone.
//!
//! What one profile defines twice (two functions that differ in nothing but their id) must stay two entries. [`Index`] remembers which
//! entries the present profile has taken, and an entry is taken once a profile. Equal entries are copies of the first of them; of the
//! copies that are free, the earliest is taken, so that equal profiles make equal tables. [`Cursors`] keep a profile that defines one thing a
//! million times from costing the square of that.

use std::hash::BuildHasher;

use afterglow_profile::model::{self, Profile, SampleLabel, Samples};
use hashbrown::{DefaultHashBuilder, HashTable};
use rustc_hash::FxHashMap;

use super::stacks::Stacks;
use super::{Function, Header, Label, Line, Location, Mapping, NONE, Symbols, ValueType};
use crate::block::varint::Damage;

/// The tables of a service while profiles are added to them.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    pub(crate) symbols: Symbols,
    /// Seeded by chance, so that no sender can choose contents whose hashes are equal.
    pub(super) hasher: DefaultHashBuilder,
    pub(super) strings: Index,
    pub(super) functions: Index,
    pub(super) mappings: Index,
    pub(super) locations: Index,
    pub(super) stacks: Stacks,
    pub(super) label_sets: Index,
    pub(super) headers: Index,
    pub(super) shapes: Index,
    pub(super) patterns: Index,
    /// A label set while it is looked for.
    labels: Vec<Label>,
}

/// Where each entity of one profile lies in the tables.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) strings: Vec<u32>,
    pub(crate) functions: Vec<u32>,
    pub(crate) mappings: Vec<u32>,
    pub(crate) locations: Vec<u32>,
    pub(crate) shapes: Vec<u32>,
}

/// How long the tables were at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    strings: usize,
    functions: usize,
    mappings: usize,
    locations: usize,
    nodes: usize,
    leaves: usize,
    label_sets: usize,
    headers: usize,
    shapes: usize,
    patterns: usize,
}

/// The hash side of one table: from the hash of an entry to its index.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The first of equal entries.
    table: HashTable<u32>,
    hashes: Vec<u64>,
    /// The next copy of an entry that has more.
    copies: FxHashMap<u32, u32>,
    /// The number of the last profile that took each entry.
    taken: Vec<u32>,
    /// The number of the present profile.
    profile: u32,
    /// Where the next entry of the present profile is expected.
    expected: u32,
    /// How far its copies are taken.
    cursors: Cursors,
}

/// How far the copies of entries are taken: by the first of them, one before which none is free.
pub(super) type Cursors = FxHashMap<u32, u32>;

/// What is known of an entry that is not there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    hash: u64,
    /// The last of the equal entries, none of which is free.
    last_copy: Option<u32>,
}

// === impl Index ===

impl Index {
    /// Begins another profile: no entry is taken, and the first is expected where the tables begin.
    fn begin(&mut self) {
        self.profile += 1;
        self.expected = 0;
        self.cursors.clear();
    }

    /// Returns the entry that `equal` accepts and that the present profile has not taken, if any, and takes it.
    #[inline]
    fn take(&mut self, hash: impl FnOnce() -> u64, equal: impl Fn(u32) -> bool) -> Result<u32, Missing> {
        let free = |i: u32| self.taken[i as usize] != self.profile;
        let mut cursors = std::mem::take(&mut self.cursors);
        let found = self.find_free(self.expected, &mut cursors, free, hash, equal);
        self.cursors = cursors;
        let found = found?;
        self.taken[found as usize] = self.profile;
        self.expected = found + 1;
        Ok(found)
    }

    /// Returns the entry that `equal` and `free` accept, if any: that at `expected`, else the earliest copy. What is not `free` must not
    /// become so before the `cursors` are cleared.
    #[inline]
    pub(super) fn find_free(
        &self,
        expected: u32,
        cursors: &mut Cursors,
        free: impl Fn(u32) -> bool,
        hash: impl FnOnce() -> u64,
        equal: impl Fn(u32) -> bool,
    ) -> Result<u32, Missing> {
        if (expected as usize) < self.hashes.len() && free(expected) && equal(expected) {
            return Ok(expected);
        }
        let hash = hash();
        let Some(&first) = self.table.find(hash, |&i| equal(i)) else {
            return Err(Missing { hash, last_copy: None });
        };
        if free(first) {
            return Ok(first);
        }
        let mut last = cursors.get(&first).copied().unwrap_or(first);
        let found = loop {
            match self.copies.get(&last) {
                Some(&copy) => last = copy,
                None => break Err(Missing { hash, last_copy: Some(last) }),
            }
            if free(last) {
                break Ok(last);
            }
        };
        if last != first {
            cursors.insert(first, last);
        }
        found
    }

    /// Returns the entry that `equal` accepts, if any; the present profile may have it several times.
    #[inline]
    fn find(&mut self, hash: impl FnOnce() -> u64, equal: impl Fn(u32) -> bool) -> Result<u32, Missing> {
        // All are free, so nobody needs to know how far.
        let found = self.find_free(self.expected, &mut Cursors::default(), |_| true, hash, equal)?;
        self.expected = found + 1;
        Ok(found)
    }

    /// Adds the entry after the last, taken by the present profile.
    #[inline]
    pub(super) fn add(&mut self, Missing { hash, last_copy }: Missing) -> u32 {
        let index = self.hashes.len() as u32;
        self.hashes.push(hash);
        self.taken.push(self.profile);
        match last_copy {
            Some(last) => _ = self.copies.insert(last, index),
            None => {
                let hashes = &self.hashes;
                self.table.insert_unique(hash, index, |&i| hashes[i as usize]);
            }
        }
        self.expected = index + 1;
        index
    }

    /// Forgets all entries from `len` on.
    fn truncate(&mut self, len: usize) {
        for index in len..self.hashes.len() {
            // Copies are not in the table.
            if let Ok(entry) = self.table.find_entry(self.hashes[index], |&i| i as usize == index) {
                entry.remove();
            }
        }
        self.copies.retain(|_, next| (*next as usize) < len);
        self.cursors.clear();
        self.hashes.truncate(len);
        self.taken.truncate(len);
    }
}

// === impl Interner ===

impl Interner {
    /// Makes empty tables.
    pub(crate) fn new() -> Self {
        let mut interner = Self::default();
        interner.string(b"");
        interner.label_set(std::iter::empty());
        interner
    }

    /// Returns how many entries all tables have.
    pub(crate) fn entries(&self) -> usize {
        let s = &self.symbols;
        s.strings.len() + s.functions.len() + s.mappings.len() + s.lines.len() + s.nodes.len() + s.labels.len()
    }

    /// Returns how long the tables are now.
    pub(crate) fn mark(&self) -> Mark {
        let s = &self.symbols;
        Mark {
            strings: s.strings.len(),
            functions: s.functions.len(),
            mappings: s.mappings.len(),
            locations: s.locations.len(),
            nodes: s.nodes.len(),
            leaves: s.leaves.len(),
            label_sets: s.label_ends.len(),
            headers: s.headers.len(),
            shapes: s.shapes.len(),
            patterns: s.patterns.len(),
        }
    }

    /// Makes the tables what they were at `mark`.
    pub(crate) fn undo(&mut self, mark: Mark) {
        let s = &mut self.symbols;
        self.stacks.undo(s, mark.nodes, mark.leaves);
        s.label_ends.truncate(mark.label_sets);
        s.labels.truncate(s.label_ends.last().map_or(0, |&end| end as usize));
        s.locations.truncate(mark.locations);
        s.lines.truncate(s.locations.last().map_or(0, |location| location.lines_end as usize));
        s.functions.truncate(mark.functions);
        s.mappings.truncate(mark.mappings);
        for (table, index, len) in [
            (&mut s.strings, &mut self.strings, mark.strings),
            (&mut s.headers, &mut self.headers, mark.headers),
            (&mut s.shapes, &mut self.shapes, mark.shapes),
            (&mut s.patterns, &mut self.patterns, mark.patterns),
        ] {
            table.truncate(len);
            index.truncate(len);
        }
        self.functions.truncate(mark.functions);
        self.mappings.truncate(mark.mappings);
        self.locations.truncate(mark.locations);
        self.label_sets.truncate(mark.label_sets);
    }

    /// Finds or adds all entities of `profile` but its stacks, and writes where they lie into `places`.
    pub(crate) fn entities(&mut self, profile: &Profile<'_>, places: &mut Places) {
        for index in [&mut self.strings, &mut self.functions, &mut self.mappings, &mut self.locations] {
            index.begin();
        }
        self.label_sets.expected = 0;
        let Places { strings, functions, mappings, locations, shapes } = places;
        strings.clear();
        strings.extend(profile.strings.iter().map(|string| self.string(string)));
        shapes.clear();
        shapes.extend(profile.layout.shapes.iter().map(|shape| self.shape(shape)));
        mappings.clear();
        for m in &profile.mappings {
            mappings.push(self.mapping(Mapping {
                start: m.start,
                limit: m.limit,
                offset: m.offset,
                file: strings[m.file as usize],
                build_id: strings[m.build_id as usize],
                has: (0..4).map(|bit| u8::from(m.has[bit]) << bit).sum(),
                shape: shapes[usize::from(m.shape)],
            }));
        }
        functions.clear();
        for f in &profile.functions {
            functions.push(self.function(Function {
                name: strings[f.name as usize],
                system_name: strings[f.system_name as usize],
                file: strings[f.file as usize],
                start_line: f.start_line,
                shape: shapes[usize::from(f.shape)],
            }));
        }
        let place = |places: &[u32], local: u32| if local == NONE { NONE } else { places[local as usize] };
        let mut lines = Vec::new();
        locations.clear();
        for l in &profile.locations {
            lines.clear();
            lines.extend(profile.lines[l.lines()].iter().map(|line| Line {
                function: place(functions, line.function),
                line: line.line,
                column: line.column,
                shape: shapes[usize::from(line.shape)],
            }));
            let location = Location {
                mapping: place(mappings, l.mapping),
                address: l.address,
                lines_end: 0,
                is_folded: l.is_folded,
                shape: shapes[usize::from(l.shape)],
            };
            locations.push(self.location(location, &lines));
        }
    }

    pub(super) fn byte_string(
        &mut self,
        of: impl FnOnce(&mut Self) -> (&mut super::ByteTable, &mut Index),
        bytes: &[u8],
    ) -> u32 {
        let hasher = self.hasher.clone();
        let (table, index) = of(self);
        index.find(|| hasher.hash_one(bytes), |i| table.get(i) == bytes).unwrap_or_else(|missing| {
            table.push(bytes);
            index.add(missing)
        })
    }

    fn string(&mut self, bytes: &[u8]) -> u32 {
        let (table, hasher) = (&mut self.symbols.strings, &self.hasher);
        self.strings.take(|| hasher.hash_one(bytes), |i| table.get(i) == bytes).unwrap_or_else(|missing| {
            table.push(bytes);
            self.strings.add(missing)
        })
    }

    pub(super) fn shape(&mut self, keys: &[u8]) -> u32 {
        self.byte_string(|s| (&mut s.symbols.shapes, &mut s.shapes), keys)
    }

    /// Finds or adds an order of records.
    pub(crate) fn pattern(&mut self, pattern: &[u8]) -> u32 {
        self.byte_string(|s| (&mut s.symbols.patterns, &mut s.patterns), pattern)
    }

    fn mapping(&mut self, mapping: Mapping) -> u32 {
        let (table, hasher) = (&mut self.symbols.mappings, &self.hasher);
        let hash = || mapping.hash_with(hasher);
        self.mappings.take(hash, |i| table[i as usize] == mapping).unwrap_or_else(|missing| {
            table.push(mapping);
            self.mappings.add(missing)
        })
    }

    fn function(&mut self, function: Function) -> u32 {
        let (table, hasher) = (&mut self.symbols.functions, &self.hasher);
        let hash = || function.hash_with(hasher);
        self.functions.take(hash, |i| table[i as usize] == function).unwrap_or_else(|missing| {
            table.push(function);
            self.functions.add(missing)
        })
    }

    fn location(&mut self, location: Location, lines: &[Line]) -> u32 {
        let (symbols, hasher) = (&mut self.symbols, &self.hasher);
        let hash = || location.hash_with(lines, hasher);
        self.locations.take(hash, |i| symbols.is_location(i, &location, lines)).unwrap_or_else(|missing| {
            symbols.push_location(location, lines);
            self.locations.add(missing)
        })
    }

    /// Finds or adds the stacks of all samples of a profile whose locations lie at `places`, and gives each to `found`.
    ///
    /// # Errors
    /// They need too many nodes.
    pub(crate) fn stacks(&mut self, samples: &Samples, places: &[u32], found: impl FnMut(u32)) -> Result<(), Damage> {
        self.stacks.find_all(&mut self.symbols, samples, places, found)
    }

    /// Finds or adds a set of labels.
    pub(super) fn label_set(&mut self, of: impl Iterator<Item = Label>) -> u32 {
        let set = &mut self.labels;
        set.clear();
        set.extend(of);
        let (symbols, hasher) = (&mut self.symbols, &self.hasher);
        let hash = || hasher.hash_one(&set[..]);
        self.label_sets.find(hash, |i| symbols.labels_of(i) == &set[..]).unwrap_or_else(|missing| {
            symbols.labels.extend_from_slice(set);
            symbols.label_ends.push(symbols.labels.len() as u32);
            self.label_sets.add(missing)
        })
    }

    /// Finds or adds the labels of a sample of a profile whose entities lie at `places`.
    pub(crate) fn sample_labels(&mut self, labels: &[SampleLabel], places: &Places) -> u32 {
        self.label_set(labels.iter().map(|label| Label {
            key: places.strings[label.key as usize],
            str: places.strings[label.str as usize],
            num: label.num,
            num_unit: places.strings[label.num_unit as usize],
            shape: places.shapes[usize::from(label.shape)],
        }))
    }

    /// Finds or adds what `profile`, whose entities lie at `places`, has in common with others.
    pub(crate) fn header(&mut self, profile: &Profile<'_>, places: &Places) -> u32 {
        let string = |local: u32| places.strings[local as usize];
        let value_type = |t: &model::ValueType| ValueType {
            kind: string(t.kind),
            unit: string(t.unit),
            shape: places.shapes[usize::from(t.shape)],
        };
        let header = Header {
            sample_types: profile.sample_types.iter().map(value_type).collect(),
            period_type: profile.period_type.as_ref().map(value_type),
            period: profile.period,
            drop_frames: string(profile.drop_frames),
            keep_frames: string(profile.keep_frames),
            comments: profile.comments.iter().map(|&comment| string(comment)).collect(),
            default_sample_type: string(profile.default_sample_type),
            doc_url: string(profile.doc_url),
            main_mapping: places.mappings.first().copied().unwrap_or(NONE),
        };
        let mut bytes = Vec::new();
        header.put(&mut bytes);
        self.byte_string(|s| (&mut s.symbols.headers, &mut s.headers), &bytes)
    }
}

// What entries are looked for by; what they are compared by is all of them.

impl Mapping {
    pub(super) fn hash_with(&self, hasher: &DefaultHashBuilder) -> u64 {
        hasher.hash_one((self.start, self.limit, self.offset, self.build_id))
    }
}

impl Function {
    pub(super) fn hash_with(&self, hasher: &DefaultHashBuilder) -> u64 {
        hasher.hash_one((self.name, self.file, self.start_line))
    }
}

impl Location {
    pub(super) fn hash_with(&self, lines: &[Line], hasher: &DefaultHashBuilder) -> u64 {
        let first = lines.first().copied().unwrap_or_default();
        hasher.hash_one((self.address, first.function, first.line, lines.len()))
    }
}

impl Symbols {
    /// Returns whether location `index` is this one, whatever its `lines_end`.
    #[inline]
    pub(super) fn is_location(&self, index: u32, location: &Location, lines: &[Line]) -> bool {
        let entry = self.locations[index as usize];
        entry.address == location.address
            && Location { lines_end: 0, ..entry } == Location { lines_end: 0, ..*location }
            && self.lines_of(index) == lines
    }

    pub(super) fn push_location(&mut self, location: Location, lines: &[Line]) {
        self.lines.extend_from_slice(lines);
        self.locations.push(Location { lines_end: self.lines.len() as u32, ..location });
    }
}
