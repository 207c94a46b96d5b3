//! The tables that all profiles of one service in a block share: strings, functions, mappings, locations, stacks and sample labels,
//! and what an exact copy needs besides: message shapes, headers, record patterns.
//!
//! [`Interner`] fills the tables when profiles are written, [`frames`] turns them into the SYM section and back. Everything refers to
//! everything else by index, so two sets of tables are merged by mapping indices; no protobuf is parsed for that.
//!
//! Invariants, kept by the interner and checked by the reader, relied upon elsewhere: an index is in range, or [`NONE`] where an
//! entity may lack what it refers to; an entity refers only to tables before it (strings, shapes; functions, mappings; locations;
//! stacks) and a node only to nodes before it; entry 0 of the strings and of the label sets is empty. Equal entries may stand twice:
//! a profile that defines a function twice needs both.

mod adopt;
pub(crate) mod frames;
mod intern;
mod numbers;
mod predict;
mod stacks;
#[cfg(test)]
mod tests;

pub(crate) use adopt::{Adopted, Adopting, Listed};
pub(crate) use afterglow_profile::model::NONE;
pub(crate) use intern::{Interner, Places};

use afterglow_profile::frames::Naming;
use afterglow_profile::functions::Locations;

use super::varint::{self, Cursor, Damage};

/// Byte strings one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ByteTable {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ends: Vec<u32>,
}

/// A function; its texts are indices into [`Symbols::strings`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: u32,
    pub(crate) system_name: u32,
    pub(crate) file: u32,
    pub(crate) start_line: i64,
    pub(crate) shape: u32,
}

/// A mapping. `has` holds the four flags of the model, the first in the lowest bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) limit: u64,
    pub(crate) offset: u64,
    pub(crate) file: u32,
    pub(crate) build_id: u32,
    pub(crate) has: u8,
    pub(crate) shape: u32,
}

/// A location without its lines, which lie in [`Symbols::lines`] up to `lines_end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) mapping: u32,
    pub(crate) address: u64,
    pub(crate) lines_end: u32,
    pub(crate) is_folded: bool,
    pub(crate) shape: u32,
}

/// A line of a location.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) function: u32,
    pub(crate) line: i64,
    pub(crate) column: i64,
    pub(crate) shape: u32,
}

/// A node of the tree of stacks: a location and the node of its caller. Node `n` is `nodes[n - 1]`; node 0 is the empty stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) parent: u32,
    pub(crate) location: u32,
}

/// All tables of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Symbols {
    pub(crate) strings: ByteTable,
    pub(crate) functions: Vec<Function>,
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) locations: Vec<Location>,
    pub(crate) lines: Vec<Line>,
    pub(crate) nodes: Vec<Node>,
    /// The node of each stack.
    pub(crate) leaves: Vec<u32>,
    /// The sample labels of all sets.
    pub(crate) labels: Vec<Label>,
    /// Where each set ends in `labels`.
    pub(crate) label_ends: Vec<u32>,
    /// What [`Header::put`] writes.
    pub(crate) headers: ByteTable,
    /// Field keys of messages, in order.
    pub(crate) shapes: ByteTable,
    /// Orders of top-level records, see [`super::order`].
    pub(crate) patterns: ByteTable,
}

/// A sample label; its texts are indices into [`Symbols::strings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Label {
    pub(crate) key: u32,
    pub(crate) str: u32,
    pub(crate) num: i64,
    pub(crate) num_unit: u32,
    pub(crate) shape: u32,
}

/// A sample type or a period type; its texts are indices into [`Symbols::strings`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ValueType {
    pub(crate) kind: u32,
    pub(crate) unit: u32,
    pub(crate) shape: u32,
}

/// What profiles of one kind of one program have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) sample_types: Vec<ValueType>,
    pub(crate) period_type: Option<ValueType>,
    pub(crate) period: i64,
    pub(crate) drop_frames: u32,
    pub(crate) keep_frames: u32,
    pub(crate) comments: Vec<u32>,
    pub(crate) default_sample_type: u32,
    pub(crate) doc_url: u32,
    /// The first mapping, by convention the main binary, or [`NONE`].
    pub(crate) main_mapping: u32,
}

// === impl ByteTable ===

impl ByteTable {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> &[u8] {
        let i = index as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.bytes[start..self.ends[i] as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len() as u32).map(|i| self.get(i))
    }

    /// Makes room for so many more entries with so many bytes.
    pub(crate) fn reserve(&mut self, entries: usize, bytes: usize) {
        self.ends.reserve_exact(entries);
        self.bytes.reserve_exact(bytes);
    }

    /// Appends an entry. The caller keeps the table below 4 GiB.
    pub(crate) fn push(&mut self, entry: &[u8]) {
        self.bytes.extend_from_slice(entry);
        self.ends.push(u32::try_from(self.bytes.len()).expect("tables are capped far below 4 GiB"));
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.bytes.truncate(self.ends.last().map_or(0, |&end| end as usize));
    }
}

// === impl Symbols ===

impl Symbols {
    /// Returns how many bytes of memory the tables take, about.
    pub(crate) fn memory(&self) -> usize {
        fn of<T>(table: &Vec<T>) -> usize {
            table.capacity() * size_of::<T>()
        }
        let bytes = |table: &ByteTable| of(&table.bytes) + of(&table.ends);
        [&self.strings, &self.headers, &self.shapes, &self.patterns].into_iter().map(bytes).sum::<usize>()
            + of(&self.functions)
            + of(&self.mappings)
            + of(&self.locations)
            + of(&self.lines)
            + of(&self.nodes)
            + of(&self.leaves)
            + of(&self.labels)
            + of(&self.label_ends)
    }

    /// Returns the lines of location `index`, innermost first.
    #[inline]
    pub(crate) fn lines_of(&self, index: u32) -> &[Line] {
        let i = index as usize;
        let start = if i == 0 { 0 } else { self.locations[i - 1].lines_end as usize };
        &self.lines[start..self.locations[i].lines_end as usize]
    }

    /// Returns the nodes of stack `index` with their locations, leaf first.
    #[inline]
    pub(crate) fn nodes_of(&self, index: u32) -> Nodes<'_> {
        Nodes { nodes: &self.nodes, at: self.leaves[index as usize] }
    }

    /// Returns the labels of set `index`.
    #[inline]
    pub(crate) fn labels_of(&self, index: u32) -> &[Label] {
        let i = index as usize;
        let start = if i == 0 { 0 } else { self.label_ends[i - 1] as usize };
        &self.labels[start..self.label_ends[i] as usize]
    }

    /// Returns the order of records at `index`, if there is one.
    pub(crate) fn pattern(&self, index: u32) -> Result<&[u8], Damage> {
        if (index as usize) < self.patterns.len() {
            Ok(self.patterns.get(index))
        } else {
            Err(Damage("an index points past its table"))
        }
    }

    /// Returns header `index`, if there is one.
    pub(crate) fn header(&self, index: u32) -> Result<Header, Damage> {
        if index as usize >= self.headers.len() {
            return Err(Damage("an index points past its table"));
        }
        Header::read(self.headers.get(index), self)
    }
}

impl Naming for Symbols {
    fn functions(&self) -> usize {
        self.functions.len()
    }

    fn function(&self, index: u32) -> (&[u8], &[u8]) {
        let function = &self.functions[index as usize];
        (self.strings.get(function.name), self.strings.get(function.file))
    }

    fn mapping_file(&self, index: u32) -> &[u8] {
        if index == NONE { b"" } else { self.strings.get(self.mappings[index as usize].file) }
    }
}

impl Locations for Symbols {
    fn locations(&self) -> usize {
        self.locations.len()
    }

    fn mapping(&self, location: u32) -> u32 {
        self.locations[location as usize].mapping
    }

    fn lines(&self, location: u32) -> impl ExactSizeIterator<Item = u32> {
        self.lines_of(location).iter().map(|line| line.function)
    }

    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    #[inline]
    fn node(&self, node: u32) -> (u32, u32) {
        let of = &self.nodes[node as usize - 1];
        (of.parent, of.location)
    }
}

/// Walks a stack from the leaf to the root.
#[derive(Clone, Debug)]
pub(crate) struct Nodes<'a> {
    nodes: &'a [Node],
    at: u32,
}

impl Iterator for Nodes<'_> {
    /// A node and its location.
    type Item = (u32, u32);

    #[inline]
    fn next(&mut self) -> Option<(u32, u32)> {
        let at = self.at;
        let node = self.nodes.get((at as usize).wrapping_sub(1))?;
        self.at = callers_node(node, at);
        Some((at, node.location))
    }
}

/// Returns the parent of `node`, which is node `at`. Mostly it is the node before; said as a choice, the processor need not wait for it.
#[inline]
fn callers_node(node: &Node, at: u32) -> u32 {
    if node.parent == at - 1 { at - 1 } else { node.parent }
}

// === impl Header ===

impl Header {
    /// Appends its canonical bytes: equal headers have equal bytes.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let put_type = |out: &mut Vec<u8>, t: ValueType| {
            for index in [t.kind, t.unit, t.shape] {
                varint::put(out, u64::from(index));
            }
        };
        varint::put(out, self.sample_types.len() as u64);
        self.sample_types.iter().for_each(|&t| put_type(out, t));
        varint::put(out, u64::from(self.period_type.is_some()));
        self.period_type.iter().for_each(|&t| put_type(out, t));
        varint::put_signed(out, self.period);
        for index in [self.drop_frames, self.keep_frames, self.default_sample_type, self.doc_url] {
            varint::put(out, u64::from(index));
        }
        varint::put(out, u64::from(self.main_mapping.wrapping_add(1)));
        varint::put(out, self.comments.len() as u64);
        self.comments.iter().for_each(|&comment| varint::put(out, u64::from(comment)));
    }

    /// Reads what [`Header::put`] wrote and checks that it refers only to entries of `symbols`.
    pub(crate) fn read(bytes: &[u8], symbols: &Symbols) -> Result<Self, Damage> {
        let from = &mut Cursor::new(bytes);
        let (strings, shapes) = (symbols.strings.len(), symbols.shapes.len());
        let read_type = |from: &mut Cursor<'_>| -> Result<ValueType, Damage> {
            Ok(ValueType { kind: from.index(strings)?, unit: from.index(strings)?, shape: from.index(shapes)? })
        };
        let count = from.count(3)?;
        let sample_types = (0..count).map(|_| read_type(from)).collect::<Result<_, _>>()?;
        let period_type = if from.index(2)? == 1 { Some(read_type(from)?) } else { None };
        let period = from.signed()?;
        let (drop_frames, keep_frames) = (from.index(strings)?, from.index(strings)?);
        let (default_sample_type, doc_url) = (from.index(strings)?, from.index(strings)?);
        let main_mapping = from.index(symbols.mappings.len() + 1)?.wrapping_sub(1);
        let count = from.count(1)?;
        let comments = (0..count).map(|_| from.index(strings)).collect::<Result<_, _>>()?;
        from.finish()?;
        Ok(Self {
            sample_types,
            period_type,
            period,
            drop_frames,
            keep_frames,
            comments,
            default_sample_type,
            doc_url,
            main_mapping,
        })
    }
}
