//! The SYM section: the tables as columns, in eight or nine frames that are read and checked by themselves.
//!
//! | frame | holds |
//! |---|---|
//! | strings | lengths, then all bytes |
//! | functions | name, system name, file, start line |
//! | mappings | start, limit, offset, file, build id, flags |
//! | locations | mapping, address, lines each; function, line, column of each line; which are folded |
//! | stacks | for each stack the node it grows from and how many nodes it adds; then the location of each node |
//! | labels | sets of sample labels |
//! | headers | shapes, headers |
//! | exact | patterns, and the shape of each function, mapping, location, line and label |
//! | numbers | those of sample labels that lie apart, see [`numbers`]; there is none where none do |
//!
//! Only an exact copy needs the eighth. Columns hold varints; an index into another table is written as how far it lies from where it is
//! expected, since entries are used first in the order in which they stand.

use rustc_hash::FxHashMap;

use super::numbers::{self, OfKey};
use super::predict::{Newest, Recent};
use super::{ByteTable, Function, Header, Label, Line, Location, Mapping, Node, Symbols};
use crate::block::frame;
use crate::block::varint::{self, Cursor, Damage, Delta};

/// How many frames a SYM section has at most.
pub(crate) const FRAMES: usize = 9;

/// How many of them every section has.
pub(crate) const FRAMES_MIN: usize = 8;

/// The frame of stacks, that of label sets, and that of the numbers that lie apart from these.
pub(crate) const STACKS: usize = 4;
pub(crate) const LABELS: usize = 5;
const NUMBERS: usize = 8;

/// The frame that only an exact copy needs.
pub(crate) const EXACT: usize = 7;

/// The version of a section without a ninth frame, and of one that has it.
pub(crate) const PLAIN_VERSION: u32 = 2;
pub(crate) const NUMBERS_VERSION: u32 = 3;

/// What each frame is called.
pub(crate) const NAMES: [&str; FRAMES] = [
    "symbols: strings",
    "symbols: functions",
    "symbols: mappings",
    "symbols: locations",
    "symbols: stacks",
    "symbols: labels",
    "symbols: headers",
    "symbols: shapes",
    "symbols: label numbers",
];

/// Returns how many frames a section of this version has.
pub(crate) fn count(version: u32) -> usize {
    if version < NUMBERS_VERSION { FRAMES_MIN } else { FRAMES }
}

/// Returns the columns of each frame; those of label sets are `apart`, where numbers lie apart.
pub(crate) fn encode(symbols: &Symbols, apart: Option<Vec<Vec<u8>>>) -> [Vec<Vec<u8>>; FRAMES_MIN] {
    [
        byte_table(&symbols.strings).to_vec(),
        functions(symbols).to_vec(),
        mappings(symbols).to_vec(),
        locations(symbols).to_vec(),
        stacks(symbols).to_vec(),
        apart.unwrap_or_else(|| labels(symbols, &by_key(&symbols.labels), false)),
        [byte_table(&symbols.shapes), byte_table(&symbols.headers)].concat(),
        exact(symbols),
    ]
}

/// Returns the columns of the frame of label sets, and the frame of the numbers that lie apart, if there are enough that differ.
pub(crate) fn apart(symbols: &Symbols) -> Option<(Vec<Vec<u8>>, Vec<u8>)> {
    let mut keys = by_key(&symbols.labels);
    for (of_key, form) in &mut keys {
        if numbers::is_apart(&symbols.labels, of_key) {
            *form = numbers::Form::Deltas;
        }
    }
    if keys.iter().all(|(_, form)| *form == numbers::Form::WithTexts) {
        return None;
    }
    let apart = numbers::put(symbols, &mut keys);
    Some((labels(symbols, &keys, true), apart))
}

/// Returns the columns of a table of byte strings: how many there are and what ends each, then all bytes. A byte that occurs in none of
/// them ends each; only where all 256 occur, lengths stand before the bytes.
fn byte_table(table: &ByteTable) -> [Vec<u8>; 2] {
    let mut occurs = [false; 256];
    table.bytes.iter().for_each(|&byte| occurs[usize::from(byte)] = true);
    let terminator = occurs.iter().position(|&occurs| !occurs);
    let (mut head, mut bytes) = (Vec::new(), Vec::with_capacity(table.bytes.len() + table.len()));
    varint::put(&mut head, table.len() as u64);
    varint::put(&mut head, terminator.map_or(NO_TERMINATOR, |byte| byte as u64));
    for entry in table.iter() {
        bytes.extend_from_slice(entry);
        match terminator {
            Some(byte) => bytes.push(byte as u8),
            None => varint::put(&mut head, entry.len() as u64),
        }
    }
    [head, bytes]
}

/// Stands for the terminator where there is none.
const NO_TERMINATOR: u64 = 256;

fn read_byte_table(head: &[u8], bytes: &[u8]) -> Result<ByteTable, Damage> {
    let head = &mut Cursor::new(head);
    let (count, terminator) = (head.u32()? as usize, head.varint()?);
    let mut table = ByteTable::default();
    match u8::try_from(terminator) {
        Ok(terminator) => {
            let mut entries = bytes.split(|&byte| byte == terminator);
            table.reserve(count.min(bytes.len()), bytes.len());
            // Behind the last terminator lies nothing.
            if entries.next_back().is_none_or(|rest| !rest.is_empty()) {
                return Err(Damage("its last entry has no end"));
            }
            entries.for_each(|entry| table.push(entry));
        }
        Err(_) if terminator == NO_TERMINATOR => {
            let mut bytes = Cursor::new(bytes);
            if count > head.left() {
                return Err(Damage("a count is larger than what follows"));
            }
            for _ in 0..count {
                let len = head.u32()? as usize;
                table.push(bytes.take(len)?);
            }
            bytes.finish()?;
        }
        Err(_) => return Err(Damage("its terminator is no byte")),
    }
    if table.len() != count {
        return Err(Damage("it has another number of entries than it says"));
    }
    head.finish().map(|()| table)
}

/// Returns what is written for an index that may be [`NONE`](super::NONE).
fn option(index: u32) -> u64 {
    u64::from(index.wrapping_add(1))
}

fn functions(symbols: &Symbols) -> [Vec<u8>; 5] {
    let [mut names, mut system_names, mut recent_files, mut files, mut start_lines] = <[Vec<u8>; 5]>::default();
    varint::put(&mut names, symbols.functions.len() as u64);
    let mut newest = Newest::new(1, symbols.strings.len());
    let mut recent = Recent::default();
    for f in &symbols.functions {
        newest.put(&mut names, f.name.into());
        varint::put_signed(&mut system_names, i64::from(f.system_name) - i64::from(f.name));
        newest.see(f.system_name.into());
        if !recent.put(&mut recent_files, f.file) {
            newest.put(&mut files, f.file.into());
        }
        varint::put(&mut start_lines, f.start_line as u64);
    }
    [names, system_names, recent_files, files, start_lines]
}

fn read_functions(
    [names, system_names, recent_files, files, start_lines]: &mut [Cursor<'_>; 5],
    symbols: &mut Symbols,
) -> Result<(), Damage> {
    let count = names.count(1)?;
    let strings = symbols.strings.len() as u64;
    let mut newest = Newest::new(1, symbols.strings.len());
    let mut recent = Recent::default();
    symbols.functions.reserve_exact(count);
    for _ in 0..count {
        let name = newest.read(names)?;
        let system_name = name.wrapping_add(system_names.signed()? as u64);
        if system_name >= strings {
            return Err(Damage("an index points past its table"));
        }
        newest.see(system_name);
        let file = recent.read(recent_files, || newest.read(files).map(|file| file as u32))?;
        symbols.functions.push(Function {
            name: name as u32,
            system_name: system_name as u32,
            file,
            start_line: start_lines.varint()? as i64,
            shape: 0,
        });
    }
    Ok(())
}

fn mappings(symbols: &Symbols) -> [Vec<u8>; 1] {
    let mut out = Vec::new();
    varint::put(&mut out, symbols.mappings.len() as u64);
    for m in &symbols.mappings {
        for number in [m.start, m.limit.wrapping_sub(m.start), m.offset, m.file.into(), m.build_id.into(), m.has.into()]
        {
            varint::put(&mut out, number);
        }
    }
    [out]
}

fn read_mappings([from]: &mut [Cursor<'_>; 1], symbols: &mut Symbols) -> Result<(), Damage> {
    let strings = symbols.strings.len();
    let count = from.count(6)?;
    for _ in 0..count {
        let start = from.varint()?;
        symbols.mappings.push(Mapping {
            start,
            limit: start.wrapping_add(from.varint()?),
            offset: from.varint()?,
            file: from.index(strings)?,
            build_id: from.index(strings)?,
            has: from.index(1 << 4)? as u8,
            shape: 0,
        });
    }
    Ok(())
}

/// What is expected of the locations of one function: those of one function lie close to each other.
#[derive(Clone, Copy, Debug)]
struct Near {
    /// The address of the last location whose outermost line is in the function, if there was one.
    address: Option<u64>,
    /// The last line of the function that a location had.
    line: i64,
}

/// Says addresses and lines as differences from the last ones in the same function.
struct Nearby {
    /// For each function, and for none in the first place.
    of_function: Vec<Near>,
    /// The last address that was the first of its function.
    first_address: u64,
}

impl Nearby {
    fn new(functions: &[Function]) -> Self {
        let near = |line| Near { address: None, line };
        let of_functions = functions.iter().map(|function| near(function.start_line));
        Self { of_function: std::iter::once(near(0)).chain(of_functions).collect(), first_address: 0 }
    }

    /// Returns the address expected of a location whose outermost line is in `function`.
    fn expect_address(&self, function: u64) -> u64 {
        self.of_function[function as usize].address.unwrap_or(self.first_address)
    }

    fn see_address(&mut self, function: u64, address: u64) {
        if self.of_function[function as usize].address.replace(address).is_none() {
            self.first_address = address;
        }
    }

    /// Returns the line expected of `function`, to be replaced by the line it has.
    fn line(&mut self, function: u64) -> &mut i64 {
        &mut self.of_function[function as usize].line
    }
}

fn locations(symbols: &Symbols) -> [Vec<u8>; 7] {
    let Symbols { locations, lines, functions, .. } = symbols;
    let [mut mappings, mut counts, mut addresses, mut of_lines, mut numbers, mut columns, mut folded] =
        <[Vec<u8>; 7]>::default();
    varint::put(&mut mappings, locations.len() as u64);
    let mut mapping = Delta::default();
    let mut newest = Newest::new(1, functions.len() + 1);
    let mut nearby = Nearby::new(functions);
    for (i, l) in (0..).zip(locations) {
        mapping.put(&mut mappings, option(l.mapping));
        let lines = symbols.lines_of(i);
        varint::put(&mut counts, lines.len() as u64);
        for line in lines {
            let function = option(line.function);
            newest.put(&mut of_lines, function);
            let expected = std::mem::replace(nearby.line(function), line.line);
            varint::put_signed(&mut numbers, line.line.wrapping_sub(expected));
        }
        let outermost = lines.last().map_or(0, |line| option(line.function));
        varint::put_signed(&mut addresses, l.address.wrapping_sub(nearby.expect_address(outermost)) as i64);
        nearby.see_address(outermost, l.address);
    }
    if lines.iter().any(|line| line.column != 0) {
        lines.iter().for_each(|line| varint::put(&mut columns, line.column as u64));
    }
    let mut delta = Delta::default();
    let is_folded = (0..).zip(locations).filter(|(_, l)| l.is_folded);
    is_folded.for_each(|(i, _)| delta.put(&mut folded, i));
    [mappings, counts, addresses, of_lines, numbers, columns, folded]
}

fn read_locations(
    [mappings, counts, addresses, of_lines, numbers, columns, folded]: &mut [Cursor<'_>; 7],
    symbols: &mut Symbols,
) -> Result<(), Damage> {
    let Symbols { locations, lines, functions, .. } = symbols;
    let count = mappings.count(1)?;
    let mut mapping = Delta::default();
    let mut newest = Newest::new(1, functions.len() + 1);
    let mut nearby = Nearby::new(functions);
    locations.reserve_exact(count);
    // Each takes a byte in both.
    lines.reserve(of_lines.left().min(numbers.left()));
    for _ in 0..count {
        let mapping = mapping.read_index(mappings, symbols.mappings.len() + 1)?.wrapping_sub(1);
        let mut outermost = 0;
        // Each line takes a byte at least, so that no count makes this long.
        for _ in 0..counts.u32()? {
            outermost = newest.read(of_lines)?;
            let line = nearby.line(outermost);
            *line = line.wrapping_add(numbers.signed()?);
            lines.push(Line { function: (outermost as u32).wrapping_sub(1), line: *line, ..Line::default() });
        }
        let address = nearby.expect_address(outermost).wrapping_add(addresses.signed()? as u64);
        nearby.see_address(outermost, address);
        let lines_end = u32::try_from(lines.len()).map_err(|_| Damage("a table is too large"))?;
        locations.push(Location { mapping, address, lines_end, ..Location::default() });
    }
    if columns.left() > 0 {
        for line in lines {
            line.column = columns.varint()? as i64;
        }
    }
    let mut delta = Delta::default();
    while folded.left() > 0 {
        let i = delta.read_index(folded, count)?;
        locations[i as usize].is_folded = true;
    }
    Ok(())
}

/// Nodes stand in the order in which stacks added them, so a stack is the node it grows from and how many nodes it adds below; and a
/// node is a location, which is mostly one that was called from the location of its parent before.
fn stacks(symbols: &Symbols) -> [Vec<u8>; 4] {
    let Symbols { nodes, leaves, locations, .. } = symbols;
    let [mut grow_from, mut grow_by, mut callees, mut others] = <[Vec<u8>; 4]>::default();
    varint::put(&mut grow_from, leaves.len() as u64);
    let mut at = 0;
    for &leaf in leaves {
        let adds = leaf.saturating_sub(at);
        varint::put(&mut grow_from, if adds == 0 { leaf } else { nodes[at as usize].parent }.into());
        varint::put(&mut grow_by, adds.into());
        at += adds;
    }
    let mut recent = vec![Recent::default(); locations.len() + 1];
    let mut newest = Newest::new(0, locations.len());
    for node in nodes {
        if !recent[caller(nodes, node.parent)].put(&mut callees, node.location) {
            newest.put(&mut others, node.location.into());
        }
    }
    [grow_from, grow_by, callees, others]
}

/// Returns 0 for the root, else one more than the location of a node.
fn caller(nodes: &[Node], node: u32) -> usize {
    if node == 0 { 0 } else { nodes[node as usize - 1].location as usize + 1 }
}

fn read_stacks(
    [grow_from, grow_by, callees, others]: &mut [Cursor<'_>; 4],
    symbols: &mut Symbols,
) -> Result<(), Damage> {
    let Symbols { nodes, leaves, locations, .. } = symbols;
    let count = grow_from.count(1)?;
    // To make them all is quicker than to clone one.
    let mut recent: Vec<Recent> = (0..=locations.len()).map(|_| Recent::default()).collect();
    let mut newest = Newest::new(0, locations.len());
    leaves.reserve_exact(count);
    nodes.reserve_exact(callees.left());
    for _ in 0..count {
        let mut parent = grow_from.index(nodes.len() + 1)?;
        // Each node takes a byte at least, so that no count makes this long.
        for _ in 0..grow_by.u32()? {
            let recent = &mut recent[caller(nodes, parent)];
            let location = recent.read(callees, || newest.read(others).map(|location| location as u32))?;
            nodes.push(Node { parent, location });
            parent = u32::try_from(nodes.len()).map_err(|_| Damage("a table is too large"))?;
        }
        leaves.push(parent);
    }
    Ok(())
}

fn labels(symbols: &Symbols, by_key: &[OfKey], with_forms: bool) -> Vec<Vec<u8>> {
    let [mut counts, mut keys, mut texts, mut numbers, mut units, mut forms] = <[Vec<u8>; 6]>::default();
    varint::put(&mut counts, symbols.label_ends.len() as u64);
    for set in 0..symbols.label_ends.len() as u32 {
        varint::put(&mut counts, symbols.labels_of(set).len() as u64);
    }
    let mut key = Delta::default();
    symbols.labels.iter().for_each(|label| key.put(&mut keys, label.key.into()));
    for (of_key, form) in by_key {
        let [mut text, mut number, mut unit] = <[Delta; 3]>::default();
        for label in of_key.iter().map(|&i| &symbols.labels[i as usize]) {
            text.put(&mut texts, label.str.into());
            if *form == numbers::Form::WithTexts {
                number.put(&mut numbers, label.num as u64);
            }
            unit.put(&mut units, label.num_unit.into());
        }
        varint::put(&mut forms, form.code());
    }
    let mut columns = vec![counts, keys, texts, numbers, units];
    columns.extend(with_forms.then_some(forms));
    columns
}

/// Returns the labels of each key, the keys in the order of their first label: what one key says is much alike.
fn by_key(labels: &[Label]) -> Vec<OfKey> {
    let (mut places, mut groups): (FxHashMap<u32, usize>, Vec<OfKey>) = Default::default();
    for (label, i) in labels.iter().zip(0..) {
        let place = *places.entry(label.key).or_insert(groups.len());
        if place == groups.len() {
            groups.push((Vec::new(), numbers::Form::WithTexts));
        }
        groups[place].0.push(i);
    }
    groups
}

/// Reads the label sets, and returns the labels of each key; their numbers are those that do not lie apart. The last column is empty
/// before [`NUMBERS_VERSION`].
fn read_labels(
    [counts, keys, texts, numbers, units, forms]: &mut [Cursor<'_>; 6],
    symbols: &mut Symbols,
    version: u32,
) -> Result<Vec<OfKey>, Damage> {
    let strings = symbols.strings.len();
    let count = counts.count(1)?;
    let mut key = Delta::default();
    symbols.label_ends.reserve_exact(count);
    // Each takes a byte at least.
    symbols.labels.reserve(keys.left());
    for _ in 0..count {
        // Each label takes a byte at least, so that no count makes this long.
        for _ in 0..counts.u32()? {
            let key = key.read_index(keys, strings)?;
            symbols.labels.push(Label { key, str: 0, num: 0, num_unit: 0, shape: 0 });
        }
        symbols.label_ends.push(symbols.labels.len() as u32);
    }
    // The first version had the labels one after the other, and numbers as they are.
    let mut groups = match version {
        1 => vec![((0..symbols.labels.len() as u32).collect(), numbers::Form::WithTexts)],
        _ => by_key(&symbols.labels),
    };
    for (of_key, form) in &mut groups {
        if version >= NUMBERS_VERSION {
            *form = numbers::Form::read(forms)?;
        }
        let [mut text, mut number, mut unit] = <[Delta; 3]>::default();
        for &i in of_key.iter() {
            let label = &mut symbols.labels[i as usize];
            label.str = text.read_index(texts, strings)?;
            if *form == numbers::Form::WithTexts {
                label.num = if version == 1 { numbers.signed()? } else { number.read(numbers)? as i64 };
            }
            label.num_unit = unit.read_index(units, strings)?;
        }
    }
    check_first_is_empty(symbols.label_ends.first().copied())?;
    Ok(groups)
}

fn exact(symbols: &Symbols) -> Vec<Vec<u8>> {
    let mut columns = byte_table(&symbols.patterns).to_vec();
    columns.push(shapes(symbols.functions.iter().map(|function| function.shape)));
    columns.push(shapes(symbols.mappings.iter().map(|mapping| mapping.shape)));
    columns.push(shapes(symbols.locations.iter().map(|location| location.shape)));
    columns.push(shapes(symbols.lines.iter().map(|line| line.shape)));
    columns.push(shapes(symbols.labels.iter().map(|label| label.shape)));
    columns
}

fn shapes(shapes: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut out = Vec::new();
    shapes.for_each(|shape| varint::put(&mut out, shape.into()));
    out
}

fn read_exact(
    [head, bytes, functions, mappings, locations, lines, labels]: &mut [Cursor<'_>; 7],
    symbols: &mut Symbols,
) -> Result<(), Damage> {
    symbols.patterns = read_byte_table(head.rest(), bytes.rest())?;
    let len = symbols.shapes.len();
    for function in &mut symbols.functions {
        function.shape = functions.index(len)?;
    }
    for mapping in &mut symbols.mappings {
        mapping.shape = mappings.index(len)?;
    }
    for location in &mut symbols.locations {
        location.shape = locations.index(len)?;
    }
    for line in &mut symbols.lines {
        line.shape = lines.index(len)?;
    }
    for label in &mut symbols.labels {
        label.shape = labels.index(len)?;
    }
    Ok(())
}

/// Reads the tables from the unpacked bytes of the frames of a section of this version; if not `is_exact`, without what only an exact copy
/// needs: then there are no patterns, and nothing has a shape.
///
/// # Errors
/// The name of the frame that no writer wrote, and what is wrong with it.
pub(crate) fn decode(
    frames: &[Vec<u8>; FRAMES],
    version: u32,
    is_exact: bool,
) -> Result<Symbols, (&'static str, Damage)> {
    let (mut symbols, mut keys) = (Symbols::default(), Vec::new());
    for ((frame, name), bytes) in NAMES.iter().enumerate().zip(frames).take(count(version)) {
        if frame == EXACT && !is_exact {
            continue;
        }
        let read = match frame {
            LABELS => decode_labels(bytes, &mut symbols, version).map(|of| keys = of),
            NUMBERS => numbers::read(&mut Cursor::new(bytes), &keys, &mut symbols),
            _ => decode_frame(frame, bytes, &mut symbols),
        };
        read.map_err(|damage| (*name, damage))?;
    }
    Ok(symbols)
}

/// Splits a frame into its columns, and has all of each read.
fn columns<const N: usize>(
    bytes: &[u8],
    read: impl FnOnce(&mut [Cursor<'_>; N]) -> Result<(), Damage>,
) -> Result<(), Damage> {
    let mut columns = frame::split_columns(bytes)?;
    read(&mut columns)?;
    columns.iter().try_for_each(Cursor::finish)
}

/// Reads the frame of label sets, and returns the labels of each key.
fn decode_labels(bytes: &[u8], symbols: &mut Symbols, version: u32) -> Result<Vec<OfKey>, Damage> {
    let mut columns: [Cursor<'_>; 6] = if version < NUMBERS_VERSION {
        let [counts, keys, texts, numbers, units] = frame::split_columns(bytes)?;
        [counts, keys, texts, numbers, units, Cursor::empty()]
    } else {
        frame::split_columns(bytes)?
    };
    let keys = read_labels(&mut columns, symbols, version)?;
    columns.iter().try_for_each(Cursor::finish)?;
    Ok(keys)
}

fn decode_frame(frame: usize, bytes: &[u8], symbols: &mut Symbols) -> Result<(), Damage> {
    match frame {
        0 => {
            columns(bytes, |[head, bytes]| {
                symbols.strings = read_byte_table(head.rest(), bytes.rest())?;
                Ok(())
            })?;
            check_first_is_empty(symbols.strings.ends.first().copied())
        }
        1 => columns(bytes, |columns| read_functions(columns, symbols)),
        2 => columns(bytes, |columns| read_mappings(columns, symbols)),
        3 => columns(bytes, |columns| read_locations(columns, symbols)),
        4 => columns(bytes, |columns| read_stacks(columns, symbols)),
        6 => {
            columns(bytes, |[shape_head, shapes, head, headers]| {
                symbols.shapes = read_byte_table(shape_head.rest(), shapes.rest())?;
                symbols.headers = read_byte_table(head.rest(), headers.rest())?;
                Ok(())
            })?;
            symbols.headers.iter().try_for_each(|header| Header::read(header, symbols).map(drop))
        }
        _ => columns(bytes, |columns| read_exact(columns, symbols)),
    }
}

fn check_first_is_empty(first: Option<u32>) -> Result<(), Damage> {
    if first == Some(0) { Ok(()) } else { Err(Damage("its first entry is not empty")) }
}
