//! Functions, files and lines at addresses, from a file's DWARF.
//!
//! All addresses of a batch are answered in one walk: `.debug_aranges` says which units they lie in, and each of these is read once, its
//! tree of functions and its line table, with nothing kept between. A unit is parsed as it is read, so the memory is that of the
//! [`SectionReader`]s and of one unit's table of files.
//!
//! The outermost function of an address is a subprogram, the functions inlined into it lie beneath; where a function is inlined, its
//! entry says from which line it was called.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use gimli::{
    AttributeValue, DebugInfoOffset, DebuggingInformationEntry, Dwarf, Reader as _, Unit, UnitHeader, UnitOffset,
    constants as dw,
};

use super::elf::{Elf, SectionReader};

/// How many steps from an inlined function to where it is named are followed: two are usual.
const ORIGINS_MAX: usize = 8;

/// How many units are held that were asked for a name: whatever is inlined was often written in another.
const UNITS_MAX: usize = 16;

type Entry = DebuggingInformationEntry<SectionReader>;

/// A function at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// Its name; with `is_linkage` as the linker has it, else without its path.
    pub(super) name: Option<String>,
    /// Whether the name is the linker's.
    pub(super) is_linkage: bool,
    /// The file of the line, empty where unknown.
    pub(super) file: String,
    /// The line that runs in it, 0 where unknown.
    pub(super) line: u32,
}

/// A function's entry that an address lies in, and from where it was called.
#[derive(Clone, Copy, Debug)]
struct Call {
    entry: UnitOffset<u64>,
    file: u64,
    line: u32,
}

/// What is known of one address so far.
#[derive(Clone, Debug, Default)]
struct Found {
    /// The outermost first.
    calls: Vec<Call>,
    /// File and line of the instruction itself.
    at: Option<(u64, u32)>,
}

/// Reads one file's DWARF for one batch.
struct Walk {
    dwarf: Dwarf<SectionReader>,
    /// Where each unit begins; read when an entry of another unit is first asked for.
    units: Option<Vec<u64>>,
    held: BTreeMap<u64, Unit<SectionReader>>,
    names: HashMap<u64, (Option<String>, bool)>,
}

/// Returns the functions at each of `addresses`, which are the file's own and sorted; the innermost first, none where DWARF says nothing.
pub(super) fn look_up(elf: &Elf, addresses: &[u64]) -> Vec<Vec<Frame>> {
    let mut frames = vec![Vec::new(); addresses.len()];
    let Ok(dwarf) = Dwarf::load(|id| Ok::<_, gimli::Error>(elf.section(id.name()))) else { return frames };
    let mut walk = Walk { dwarf, units: None, held: BTreeMap::new(), names: HashMap::new() };
    for (unit, which) in walk.units_of(addresses) {
        let asked: Vec<u64> = which.iter().map(|index| addresses[*index]).collect();
        // What is damaged is said nothing of; the symbol table still has the name.
        match walk.unit(unit, &asked) {
            Ok(found) => which.iter().zip(found).for_each(|(index, found)| frames[*index] = found),
            Err(error) => tracing::debug!(%error, unit, "cannot read debug information"),
        }
    }
    frames
}

/// Returns which of the sorted `addresses` lie in a range.
pub(super) fn within(addresses: &[u64], range: Range<u64>) -> Range<usize> {
    let start = addresses.partition_point(|address| *address < range.start);
    let count = addresses[start..].partition_point(|address| *address < range.end);
    start..start + count
}

// === impl Walk ===

impl Walk {
    /// Returns the units that the addresses lie in, with the addresses' indexes in ascending order.
    fn units_of(&self, addresses: &[u64]) -> BTreeMap<u64, Vec<usize>> {
        let mut unit_of = vec![None; addresses.len()];
        let mut headers = self.dwarf.debug_aranges.headers();
        while let Ok(Some(header)) = headers.next() {
            let mut entries = header.entries();
            while let Ok(Some(entry)) = entries.next() {
                let range = entry.range();
                unit_of[within(addresses, range.begin..range.end)].fill(Some(header.debug_info_offset().0));
            }
        }
        let mut units: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (index, unit) in unit_of.into_iter().enumerate() {
            if let Some(unit) = unit {
                units.entry(unit).or_default().push(index);
            }
        }
        units
    }

    /// Answers addresses that lie in one unit.
    fn unit(&mut self, offset: u64, addresses: &[u64]) -> gimli::Result<Vec<Vec<Frame>>> {
        let unit = self.dwarf.unit(self.dwarf.unit_header(DebugInfoOffset(offset))?)?;
        let mut found = vec![Found::default(); addresses.len()];
        self.functions(&unit, addresses, &mut found)?;
        self.lines(&unit, addresses, &mut found)?;
        let mut files = HashMap::new();
        let mut frames = Vec::new();
        for found in found {
            let mut at = found.at;
            let mut inner_first = Vec::new();
            for call in found.calls.iter().rev() {
                let (name, is_linkage) = self.name(&unit, call.entry)?;
                let (file, line) = at.unwrap_or_default();
                let file = files.entry(file).or_insert_with(|| self.file(&unit, file)).clone();
                inner_first.push(Frame { name, is_linkage, file, line });
                at = Some((call.file, call.line));
            }
            // No function, but a line: hand-written assembly.
            if let (true, Some((file, line))) = (inner_first.is_empty(), found.at) {
                let file = files.entry(file).or_insert_with(|| self.file(&unit, file)).clone();
                inner_first.push(Frame { file, line, ..Frame::default() });
            }
            frames.push(inner_first);
        }
        Ok(frames)
    }

    /// Walks the tree of functions.
    fn functions(&self, unit: &Unit<SectionReader>, addresses: &[u64], found: &mut [Found]) -> gimli::Result<()> {
        let mut entries = unit.entries();
        // Beneath a function that has none of the addresses there is nothing to be found.
        let mut pass_over: Option<isize> = None;
        while let Some(entry) = entries.next_dfs()? {
            if pass_over.is_some_and(|depth| entry.depth() > depth) {
                continue;
            }
            pass_over = None;
            let is_outermost = entry.tag() == dw::DW_TAG_subprogram;
            if !is_outermost && entry.tag() != dw::DW_TAG_inlined_subroutine {
                continue;
            }
            let call = Call {
                entry: entry.offset(),
                file: number(entry, dw::DW_AT_call_file),
                line: u32::try_from(number(entry, dw::DW_AT_call_line)).unwrap_or(0),
            };
            pass_over = Some(entry.depth());
            let mut ranges = self.dwarf.die_ranges(unit, entry)?;
            while let Some(range) = ranges.next()? {
                for found in &mut found[within(addresses, range.begin..range.end)] {
                    if is_outermost {
                        found.calls.clear();
                    }
                    found.calls.push(call);
                    pass_over = None;
                }
            }
        }
        Ok(())
    }

    /// Runs the line table.
    fn lines(&self, unit: &Unit<SectionReader>, addresses: &[u64], found: &mut [Found]) -> gimli::Result<()> {
        let Some(program) = unit.line_program.clone() else { return Ok(()) };
        let mut rows = program.rows();
        let mut before: Option<(u64, u64, u32)> = None;
        while let Some((_, row)) = rows.next_row()? {
            if let Some((address, file, line)) = before.filter(|(address, ..)| *address < row.address()) {
                for found in &mut found[within(addresses, address..row.address())] {
                    found.at = Some((file, line));
                }
            }
            let line = row.line().and_then(|line| u32::try_from(line.get()).ok()).unwrap_or(0);
            before = (!row.end_sequence()).then_some((row.address(), row.file_index(), line));
        }
        Ok(())
    }

    /// Returns the name of a function's entry, and whether it is the linker's.
    fn name(&mut self, unit: &Unit<SectionReader>, entry: UnitOffset<u64>) -> gimli::Result<(Option<String>, bool)> {
        let unit_at = unit.header.debug_info_offset().map_or(0, |offset| offset.0);
        let key = unit_at + entry.0;
        if let Some(known) = self.names.get(&key) {
            return Ok(known.clone());
        }
        let mut short = None;
        let mut step = self.step(unit, &unit.entry(entry)?)?;
        for _ in 0..ORIGINS_MAX {
            if let Some(name) = step.linkage {
                return Ok(self.names.entry(key).insert_entry((Some(name), true)).get().clone());
            }
            short = short.or(step.short);
            step = match step.origin {
                Some(AttributeValue::UnitRef(offset)) if step.unit == unit_at => {
                    self.step(unit, &unit.entry(offset)?)?
                }
                Some(AttributeValue::UnitRef(offset)) => self.step_in(step.unit, offset)?,
                Some(AttributeValue::DebugInfoRef(offset)) => {
                    let Some(other) = self.unit_at(offset.0)? else { break };
                    self.step_in(other, UnitOffset(offset.0 - other))?
                }
                _ => break,
            };
        }
        Ok(self.names.entry(key).insert_entry((short, false)).get().clone())
    }

    /// Reads an entry of another unit.
    fn step_in(&mut self, unit: u64, entry: UnitOffset<u64>) -> gimli::Result<Step> {
        if !self.held.contains_key(&unit) {
            if self.held.len() >= UNITS_MAX {
                self.held.clear();
            }
            let header: UnitHeader<_> = self.dwarf.unit_header(DebugInfoOffset(unit))?;
            self.held.insert(unit, self.dwarf.unit(header)?);
        }
        let unit = &self.held[&unit];
        self.step(unit, &unit.entry(entry)?)
    }

    /// Reads what an entry says of its name.
    fn step(&self, unit: &Unit<SectionReader>, entry: &Entry) -> gimli::Result<Step> {
        let text = |name| -> gimli::Result<Option<String>> {
            let Some(value) = entry.attr_value(name) else { return Ok(None) };
            Ok(Some(self.dwarf.attr_string(unit, value)?.to_string_lossy()?.into_owned()))
        };
        let origin = entry.attr_value(dw::DW_AT_abstract_origin).or_else(|| entry.attr_value(dw::DW_AT_specification));
        let linkage = match text(dw::DW_AT_linkage_name)? {
            None => text(dw::DW_AT_MIPS_linkage_name)?,
            linkage => linkage,
        };
        let unit = unit.header.debug_info_offset().map_or(0, |offset| offset.0);
        Ok(Step { unit, linkage, short: text(dw::DW_AT_name)?, origin })
    }

    /// Returns where the unit begins that an offset lies in.
    fn unit_at(&mut self, offset: u64) -> gimli::Result<Option<u64>> {
        if self.units.is_none() {
            let mut starts = Vec::new();
            let mut units = self.dwarf.units();
            while let Some(unit) = units.next()? {
                starts.extend(unit.debug_info_offset().map(|offset| offset.0));
            }
            self.units = Some(starts);
        }
        let starts = self.units.as_deref().unwrap_or_default();
        let after = starts.partition_point(|start| *start <= offset);
        Ok(after.checked_sub(1).map(|index| starts[index]))
    }

    /// Returns the path of a file of a unit, empty where it has none.
    fn file(&self, unit: &Unit<SectionReader>, file: u64) -> String {
        let path = || {
            let header = unit.line_program.as_ref()?.header();
            let entry = header.file(file)?;
            let text = |value| Some(self.dwarf.attr_string(unit, value).ok()?.to_string_lossy().ok()?.into_owned());
            let mut path = std::path::PathBuf::new();
            // What is absolute replaces what came before.
            path.extend(unit.comp_dir.as_ref().and_then(|folder| Some(folder.to_string_lossy().ok()?.into_owned())));
            path.extend(entry.directory(header).and_then(text));
            path.extend(text(entry.path_name()));
            Some(path.to_string_lossy().into_owned())
        };
        path().unwrap_or_default()
    }
}

/// What one entry says of a function's name.
struct Step {
    /// Where its unit begins.
    unit: u64,
    linkage: Option<String>,
    short: Option<String>,
    /// The entry that says more.
    origin: Option<AttributeValue<SectionReader>>,
}

fn number(entry: &Entry, name: dw::DwAt) -> u64 {
    match entry.attr_value(name) {
        Some(AttributeValue::FileIndex(index)) => index,
        Some(value) => value.udata_value().unwrap_or(0),
        None => 0,
    }
}
