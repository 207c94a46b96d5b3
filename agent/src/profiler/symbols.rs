//! From addresses to names, files and lines, with what was looked up before kept.
//!
//! A profile's addresses are looked up together: the new ones are sorted, each file they lie in is opened, its symbol table and its debug
//! information are read past them once ([`elf`], [`dwarf`]), and closed. Only the answers stay, some hundred bytes an address, and a
//! profile of the next window mostly has the same addresses. Parsed debug information would take more than all the rest of a server.
//!
//! A function's name is the linker's wherever that is known: from the symbol table for the function that was compiled, from debug
//! information for those that were inlined into it.

mod dwarf;
mod elf;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use self::dwarf::{Frame, within};
use self::elf::Elf;
use super::mappings::{self, BuildIds, Mapping, find};

/// The most addresses kept. A profile has some thousand; a program that goes over starts anew, which costs time, not truth.
const ADDRESSES_MAX: usize = 1 << 16;

/// Where the program lies even after its file was replaced.
const PROGRAM: &str = "/proc/self/exe";

/// A source line at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceLine {
    /// The function's name as a person reads it.
    pub(super) name: Arc<str>,
    /// The name as the linker has it.
    pub(super) system_name: Arc<str>,
    /// The source file, empty where unknown.
    pub(super) file: Arc<str>,
    /// The line, 0 where unknown.
    pub(super) line: u32,
}

/// Answers what lies at an address of this process.
#[derive(Debug, Default)]
pub(super) struct Symbolizer {
    mappings: Vec<Mapping>,
    build_ids: BuildIds,
    lines: HashMap<u64, Arc<[SourceLine]>>,
    /// Equal strings are kept once.
    strings: HashSet<Arc<str>>,
}

impl Symbolizer {
    /// Looks at the mappings again, then looks up those of `addresses` that are new; to be called before a batch. Names of libraries that
    /// were unloaded are forgotten.
    pub(super) fn begin(&mut self, addresses: impl IntoIterator<Item = u64>) {
        let mappings = mappings::of_this_process();
        if mappings != self.mappings || self.lines.len() > ADDRESSES_MAX {
            self.lines.clear();
            self.strings.clear();
            self.mappings = mappings;
        }
        let mut new: Vec<u64> = addresses.into_iter().filter(|address| !self.lines.contains_key(address)).collect();
        new.sort_unstable();
        new.dedup();
        let mut by_file: HashMap<String, Vec<(u64, u64)>> = HashMap::new();
        for address in new {
            match find(&self.mappings, address).map(|mapping| &self.mappings[mapping]) {
                Some(mapping) => {
                    let offset = address - mapping.start + mapping.offset;
                    by_file.entry(mapping.file.clone()).or_default().push((offset, address));
                }
                None => {
                    let lines = self.elsewhere(address);
                    self.lines.insert(address, lines);
                }
            }
        }
        for (file, addresses) in by_file {
            self.look_up(&file, &addresses);
        }
    }

    /// Returns the mappings, the program first.
    pub(super) fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// Returns the build id of a mapped file, empty where it has none.
    pub(super) fn build_id(&mut self, mapping: usize) -> String {
        self.build_ids.get(&self.mappings[mapping].file).to_owned()
    }

    /// Returns the lines at an address of the batch, the innermost inlined function first; none where nothing is known.
    pub(super) fn lines(&self, address: u64) -> Arc<[SourceLine]> {
        self.lines.get(&address).cloned().unwrap_or_default()
    }

    /// Looks addresses of one file up; each comes with its offset in the file.
    fn look_up(&mut self, file: &str, addresses: &[(u64, u64)]) {
        let is_program = self.mappings.first().is_some_and(|program| program.file == file);
        let path = if is_program { PROGRAM } else { file };
        // `[vdso]` is no file, and a library may be gone.
        let Ok(elf) = Elf::open(Path::new(path)) else {
            self.lines.extend(addresses.iter().map(|(_, address)| (*address, Arc::default())));
            return;
        };
        let mut known: Vec<(u64, u64)> =
            addresses.iter().filter_map(|(offset, address)| Some((elf.address_of(*offset)?, *address))).collect();
        known.sort_unstable();
        let in_file: Vec<u64> = known.iter().map(|(in_file, _)| *in_file).collect();
        let compiled = compiled(&elf, &in_file);
        let frames = dwarf::look_up(&elf, &in_file);
        for (((_, address), compiled), frames) in known.iter().zip(compiled).zip(frames) {
            let lines = self.source_lines(compiled, frames);
            self.lines.insert(*address, lines);
        }
    }

    /// Puts together what the symbol table and debug information say.
    fn source_lines(&mut self, compiled: Option<String>, mut frames: Vec<Frame>) -> Arc<[SourceLine]> {
        if frames.is_empty() {
            frames.push(Frame::default());
        }
        let outermost = frames.last_mut().expect("one was pushed");
        if let Some(compiled) = compiled.filter(|_| !outermost.is_linkage) {
            outermost.name = Some(compiled);
        }
        let lines = frames.into_iter().filter_map(|frame| {
            let system_name = frame.name?;
            // The alternate form leaves the hash of the crate out, so that builds compare.
            let name = self.intern(format!("{:#}", rustc_demangle::demangle(&system_name)));
            let (system_name, file) = (self.intern(system_name), self.intern(frame.file));
            Some(SourceLine { name, system_name, file, line: frame.line })
        });
        lines.collect()
    }

    /// Looks up what lies in no mapping.
    #[cfg(target_os = "linux")]
    fn elsewhere(&mut self, _: u64) -> Arc<[SourceLine]> {
        Arc::default()
    }

    /// Looks up what lies in no mapping: everything, where there is no `/proc`. This way holds parsed debug information for good.
    #[cfg(not(target_os = "linux"))]
    fn elsewhere(&mut self, address: u64) -> Arc<[SourceLine]> {
        let mut lines = Vec::new();
        // `resolve` takes a return address and looks one byte before it; ours is already the instruction itself.
        let looked_up = std::ptr::without_provenance_mut::<std::ffi::c_void>(address as usize + 1);
        backtrace::resolve(looked_up, |symbol| {
            let Some(name) = symbol.name() else { return };
            lines.push(SourceLine {
                name: self.intern(format!("{name:#}")),
                system_name: self.intern(name.as_str().map(str::to_owned).unwrap_or_else(|| format!("{name:#}"))),
                file: self.intern(symbol.filename().map(|f| f.display().to_string()).unwrap_or_default()),
                line: symbol.lineno().unwrap_or(0),
            });
        });
        lines.into()
    }

    fn intern(&mut self, text: String) -> Arc<str> {
        if let Some(known) = self.strings.get(text.as_str()) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.strings.insert(Arc::clone(&text));
        text
    }
}

/// Returns the name of the compiled function that each of the sorted addresses lies in.
fn compiled(elf: &Elf, addresses: &[u64]) -> Vec<Option<String>> {
    let mut symbols = elf.symbols();
    let mut found = vec![None; addresses.len()];
    for symbol in symbols.by_ref() {
        // Hand-written functions may have no length: they are known by their first instruction at least.
        let end = symbol.address.saturating_add(symbol.bytes.max(1));
        found[within(addresses, symbol.address..end)].fill(Some(symbol));
    }
    found.into_iter().map(|symbol| symbols.name(&symbol?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_function_with_a_name() -> u64 {
        std::hint::black_box(42)
    }

    #[test]
    fn the_first_instruction_of_a_function_has_its_whole_name_file_and_line() {
        let mut symbolizer = Symbolizer::default();
        let address = a_function_with_a_name as fn() -> u64 as usize as u64;
        for _ in 0..2 {
            symbolizer.begin([address]);
            let lines = symbolizer.lines(address);
            let line = lines.last().expect("the function is known");
            assert_eq!(&*line.name, concat!(module_path!(), "::a_function_with_a_name"));
            assert!(line.system_name.starts_with("_ZN") || line.system_name.starts_with("_R"), "{line:?}");
            assert!(line.file.starts_with('/') && line.file.ends_with("profiler/symbols.rs"), "{line:?}");
            // The line of `fn`, some lines above.
            assert!((1..line!()).contains(&line.line), "{line:?}");
        }
        assert_eq!(a_function_with_a_name(), 42);
    }

    /// A library without debug information still has the names that it exports.
    #[test]
    fn a_function_of_the_c_library_has_its_name() {
        let mut symbolizer = Symbolizer::default();
        let address = nix::libc::getpid as unsafe extern "C" fn() -> i32 as usize as u64;
        symbolizer.begin([address]);
        let names: Vec<_> = symbolizer.lines(address).iter().map(|line| line.name.to_string()).collect();
        assert!(names.iter().any(|name| name.ends_with("getpid")), "{names:?}");
    }

    #[test]
    fn an_address_of_nothing_has_no_lines() {
        let mut symbolizer = Symbolizer::default();
        symbolizer.begin([8]);
        assert!(symbolizer.lines(8).is_empty());
    }
}
