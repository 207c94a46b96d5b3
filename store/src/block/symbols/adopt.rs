//! Takes entries over from other tables: a merge of tables is a mapping of indices.
//!
//! Two different entries of the tables they come from stay two, also where they are equal: a profile that defines a function twice must
//! find both. So an entry that is taken over for one set of tables is not taken again for another entry of the same set, and whatever
//! depends on which entries are the same, such as the predicted orders, is the same after as before. Only what no profile tells apart
//! (label sets, headers, shapes, orders of records) is found by its contents alone.
//!
//! Entries come when something needs them, and what they need comes before them; so tables hold what is in use, in the order of use.

use std::hash::BuildHasher;

use super::intern::{Cursors, Index};
use super::{Function, Header, Interner, Label, Line, Location, Mapping, NONE, Node, Symbols, ValueType, callers_node};
use crate::block::varint::Damage;

/// Where the entries of one set of tables lie in those of an [`Interner`].
#[derive(Debug)]
pub(crate) struct Adopted {
    strings: Entities,
    functions: Entities,
    mappings: Entities,
    locations: Entities,
    nodes: Vec<u32>,
    stacks: Vec<u32>,
    label_sets: Vec<u32>,
    headers: Vec<u32>,
    shapes: Vec<u32>,
    patterns: Vec<u32>,
    /// The nodes of a stack that are not there yet.
    path: Vec<u32>,
    lines: Vec<Line>,
}

/// Where the entries of a table lie that must not become one.
#[derive(Debug)]
struct Entities {
    places: Vec<u32>,
    /// A bit for each entry there: whether it is that of one here.
    taken: Vec<u64>,
    /// Where the next is expected.
    expected: u32,
    /// How far copies there are taken.
    cursors: Cursors,
}

impl Entities {
    fn new(len: usize) -> Self {
        Self { places: vec![NONE; len], taken: Vec::new(), expected: 0, cursors: Cursors::default() }
    }

    fn place(&self, entry: u32) -> Option<u32> {
        Some(self.places[entry as usize]).filter(|&place| place != NONE)
    }

    fn set(&mut self, entry: u32, place: u32) -> u32 {
        self.places[entry as usize] = place;
        let word = place as usize / 64;
        if self.taken.len() <= word {
            self.taken.resize(word + 1, 0);
        }
        self.taken[word] |= 1 << (place % 64);
        self.expected = place + 1;
        place
    }

    /// Returns the place of an entry: a free one that `equal` accepts, else where `push` adds it.
    fn find(
        &mut self,
        entry: u32,
        index: &mut Index,
        hash: impl FnOnce() -> u64,
        equal: impl Fn(u32) -> bool,
    ) -> (u32, bool) {
        let Self { taken, expected, cursors, .. } = self;
        let is_free = |place: u32| taken.get(place as usize / 64).is_none_or(|bits| bits >> (place % 64) & 1 == 0);
        match index.find_free(*expected, cursors, is_free, hash, equal) {
            Ok(place) => (self.set(entry, place), true),
            Err(missing) => (self.set(entry, index.add(missing)), false),
        }
    }
}

impl Adopted {
    /// Starts with nothing taken over of `from`.
    pub(crate) fn new(from: &Symbols) -> Self {
        let none = |len: usize| vec![NONE; len];
        let mut adopted = Self {
            strings: Entities::new(from.strings.len()),
            functions: Entities::new(from.functions.len()),
            mappings: Entities::new(from.mappings.len()),
            locations: Entities::new(from.locations.len()),
            nodes: none(from.nodes.len()),
            stacks: none(from.leaves.len()),
            label_sets: none(from.label_ends.len()),
            headers: none(from.headers.len()),
            shapes: none(from.shapes.len()),
            patterns: none(from.patterns.len()),
            path: Vec::new(),
            lines: Vec::new(),
        };
        // The empty string and the empty set are everywhere first.
        adopted.strings.set(0, 0);
        adopted.label_sets[0] = 0;
        adopted
    }
}

/// Takes entries over from one set of tables. All indices it is given must lie in their tables, but for those of the methods that check.
#[derive(Debug)]
pub(crate) struct Adopting<'a> {
    pub(crate) to: &'a mut Interner,
    pub(crate) from: &'a Symbols,
    pub(crate) places: &'a mut Adopted,
}

const OUTSIDE: Damage = Damage("an index points past its table");

impl Adopting<'_> {
    /// Returns the place of a stack.
    ///
    /// # Errors
    /// There is no such stack.
    #[inline]
    pub(crate) fn stack(&mut self, stack: u32) -> Result<u32, Damage> {
        match self.places.stacks.get(stack as usize) {
            None => Err(OUTSIDE),
            Some(&NONE) => Ok(self.new_stack(stack)),
            Some(&place) => Ok(place),
        }
    }

    fn new_stack(&mut self, stack: u32) -> u32 {
        let from = self.from;
        let mut path = std::mem::take(&mut self.places.path);
        path.clear();
        let mut at = from.leaves[stack as usize];
        while at != 0 && self.places.nodes[at as usize - 1] == NONE {
            path.push(at);
            at = callers_node(&from.nodes[at as usize - 1], at);
        }
        let mut place = if at == 0 { 0 } else { self.places.nodes[at as usize - 1] };
        for &node in path.iter().rev() {
            let location = self.location(from.nodes[node as usize - 1].location);
            let to = &mut *self.to;
            place = to.stacks.callee(&mut to.symbols.nodes, Node { parent: place, location });
            self.places.nodes[node as usize - 1] = place;
        }
        self.places.path = path;
        let found = self.to.stacks.stack_at(&mut self.to.symbols.leaves, place);
        self.places.stacks[stack as usize] = found;
        found
    }

    /// Returns the place of a set of sample labels.
    ///
    /// # Errors
    /// There is no such set.
    #[inline]
    pub(crate) fn label_set(&mut self, set: u32) -> Result<u32, Damage> {
        match self.places.label_sets.get(set as usize) {
            None => Err(OUTSIDE),
            Some(&NONE) => Ok(self.new_label_set(set)),
            Some(&place) => Ok(place),
        }
    }

    fn new_label_set(&mut self, set: u32) -> u32 {
        let from = self.from;
        let labels: Vec<Label> = from
            .labels_of(set)
            .iter()
            .map(|label| Label {
                key: self.string(label.key),
                str: self.string(label.str),
                num: label.num,
                num_unit: self.string(label.num_unit),
                shape: self.shape(label.shape),
            })
            .collect();
        let place = self.to.label_set(labels.into_iter());
        self.places.label_sets[set as usize] = place;
        place
    }

    /// Returns the place of a header.
    ///
    /// # Errors
    /// There is no such header.
    pub(crate) fn header(&mut self, header: u32) -> Result<u32, Damage> {
        match self.places.headers.get(header as usize) {
            None => return Err(OUTSIDE),
            Some(&NONE) => {}
            Some(&place) => return Ok(place),
        }
        let of = self.from.header(header)?;
        let mut value_type = |t: &ValueType| ValueType {
            kind: self.string(t.kind),
            unit: self.string(t.unit),
            shape: self.shape(t.shape),
        };
        let there = Header {
            sample_types: of.sample_types.iter().map(&mut value_type).collect(),
            period_type: of.period_type.as_ref().map(&mut value_type),
            period: of.period,
            drop_frames: self.string(of.drop_frames),
            keep_frames: self.string(of.keep_frames),
            comments: of.comments.iter().map(|&comment| self.string(comment)).collect(),
            default_sample_type: self.string(of.default_sample_type),
            doc_url: self.string(of.doc_url),
            main_mapping: if of.main_mapping == NONE { NONE } else { self.mapping(of.main_mapping) },
        };
        let mut bytes = Vec::new();
        there.put(&mut bytes);
        let place = self.to.byte_string(|s| (&mut s.symbols.headers, &mut s.headers), &bytes);
        self.places.headers[header as usize] = place;
        Ok(place)
    }

    /// Returns the place of an order of records.
    ///
    /// # Errors
    /// There is no such order.
    pub(crate) fn pattern(&mut self, pattern: u32) -> Result<u32, Damage> {
        let bytes = self.from.pattern(pattern)?;
        let place = &mut self.places.patterns[pattern as usize];
        if *place == NONE {
            *place = self.to.pattern(bytes);
        }
        Ok(*place)
    }

    /// Returns the place of a message's shape.
    ///
    /// # Errors
    /// There is no such shape.
    pub(crate) fn checked_shape(&mut self, shape: u32) -> Result<u32, Damage> {
        if shape as usize >= self.places.shapes.len() { Err(OUTSIDE) } else { Ok(self.shape(shape)) }
    }

    /// Replaces entries of a table, as a profile lists them, by their places.
    ///
    /// # Errors
    /// One of them does not exist.
    pub(crate) fn listed(&mut self, table: Listed, entries: &mut [u32]) -> Result<(), Damage> {
        let len = match table {
            Listed::Strings => self.places.strings.places.len(),
            Listed::Functions => self.places.functions.places.len(),
            Listed::Mappings => self.places.mappings.places.len(),
            Listed::Locations => self.places.locations.places.len(),
        };
        for entry in entries {
            if *entry as usize >= len {
                return Err(OUTSIDE);
            }
            *entry = match table {
                Listed::Strings => self.string(*entry),
                Listed::Functions => self.function(*entry),
                Listed::Mappings => self.mapping(*entry),
                Listed::Locations => self.location(*entry),
            };
        }
        Ok(())
    }

    fn shape(&mut self, shape: u32) -> u32 {
        let place = &mut self.places.shapes[shape as usize];
        if *place == NONE {
            *place = self.to.shape(self.from.shapes.get(shape));
        }
        *place
    }

    fn string(&mut self, string: u32) -> u32 {
        if let Some(place) = self.places.strings.place(string) {
            return place;
        }
        let bytes = self.from.strings.get(string);
        let Interner { symbols, strings, hasher, .. } = &mut *self.to;
        let table = &symbols.strings;
        let (place, found) =
            self.places.strings.find(string, strings, || hasher.hash_one(bytes), |i| table.get(i) == bytes);
        if !found {
            symbols.strings.push(bytes);
        }
        place
    }

    fn function(&mut self, function: u32) -> u32 {
        if let Some(place) = self.places.functions.place(function) {
            return place;
        }
        let of = self.from.functions[function as usize];
        let there = Function {
            name: self.string(of.name),
            system_name: self.string(of.system_name),
            file: self.string(of.file),
            start_line: of.start_line,
            shape: self.shape(of.shape),
        };
        let Interner { symbols, functions, hasher, .. } = &mut *self.to;
        let table = &mut symbols.functions;
        let (place, found) =
            self.places.functions.find(function, functions, || there.hash_with(hasher), |i| table[i as usize] == there);
        if !found {
            table.push(there);
        }
        place
    }

    fn mapping(&mut self, mapping: u32) -> u32 {
        if let Some(place) = self.places.mappings.place(mapping) {
            return place;
        }
        let of = self.from.mappings[mapping as usize];
        let there = Mapping {
            file: self.string(of.file),
            build_id: self.string(of.build_id),
            shape: self.shape(of.shape),
            ..of
        };
        let Interner { symbols, mappings, hasher, .. } = &mut *self.to;
        let table = &mut symbols.mappings;
        let (place, found) =
            self.places.mappings.find(mapping, mappings, || there.hash_with(hasher), |i| table[i as usize] == there);
        if !found {
            table.push(there);
        }
        place
    }

    fn location(&mut self, location: u32) -> u32 {
        if let Some(place) = self.places.locations.place(location) {
            return place;
        }
        let from = self.from;
        let of = from.locations[location as usize];
        let mut lines = std::mem::take(&mut self.places.lines);
        lines.clear();
        for line in from.lines_of(location) {
            let function = if line.function == NONE { NONE } else { self.function(line.function) };
            lines.push(Line { function, shape: self.shape(line.shape), ..*line });
        }
        let mapping = if of.mapping == NONE { NONE } else { self.mapping(of.mapping) };
        let there = Location { mapping, shape: self.shape(of.shape), ..of };
        let Interner { symbols, locations, hasher, .. } = &mut *self.to;
        let (place, found) = self.places.locations.find(
            location,
            locations,
            || there.hash_with(&lines, hasher),
            |i| symbols.is_location(i, &there, &lines),
        );
        if !found {
            symbols.push_location(there, &lines);
        }
        self.places.lines = lines;
        place
    }
}

/// The tables whose entries a profile may list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Listed {
    Strings,
    Functions,
    Mappings,
    Locations,
}
