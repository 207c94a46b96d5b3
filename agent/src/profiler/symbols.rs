//! From addresses to names, files and lines, with what was looked up before kept.
//!
//! Looking up an address the first time parses debug information and costs up to a millisecond; a profile of the next window mostly
//! has the same addresses. Parsed debug information takes far more memory than its answers, so it is let go once nothing new has come
//! for a while, or at once after a profile on demand.

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::mappings::{self, BuildIds, Mapping};

/// The most addresses kept. A profile has some thousand; a program that goes over starts anew, which costs time, not truth.
const ADDRESSES_MAX: usize = 1 << 16;

/// How long debug information is kept after the last address that was looked up in it: a few windows.
const DEBUG_INFO_RETENTION: Duration = Duration::from_secs(120);

/// Whether another batch is to be expected soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// In the next window.
    Soon,
    /// When somebody asks.
    Unknown,
}

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
    /// When an address was last looked up in debug information that is still held.
    looked_up: Option<Instant>,
}

impl Symbolizer {
    /// Looks at the mappings again; to be called before a batch. Names of libraries that were unloaded are forgotten.
    pub(super) fn begin(&mut self) {
        let mappings = mappings::of_this_process();
        if mappings != self.mappings || self.lines.len() > ADDRESSES_MAX {
            self.lines.clear();
            self.strings.clear();
            self.mappings = mappings;
        }
    }

    /// Lets go of debug information that is not likely to be needed; to be called after a batch.
    pub(super) fn finish(&mut self, next: Next) {
        let let_go = |at: &mut Instant| next == Next::Unknown || at.elapsed() >= DEBUG_INFO_RETENTION;
        if self.looked_up.take_if(let_go).is_some() {
            backtrace::clear_symbol_cache();
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

    /// Returns the lines at `address`, the innermost inlined function first; none where nothing is known.
    pub(super) fn lines(&mut self, address: u64) -> Arc<[SourceLine]> {
        if let Some(lines) = self.lines.get(&address) {
            return Arc::clone(lines);
        }
        self.looked_up = Some(Instant::now());
        let mut lines = Vec::new();
        // `resolve` takes a return address and looks one byte before it; ours is already the instruction itself.
        let looked_up = ptr::without_provenance_mut::<c_void>(address as usize + 1);
        backtrace::resolve(looked_up, |symbol| {
            let Some(name) = symbol.name() else { return };
            // The alternate form leaves the hash of the crate out, so that builds compare.
            let line = SourceLine {
                name: self.intern(format!("{name:#}")),
                system_name: self.intern(name.as_str().map(str::to_owned).unwrap_or_else(|| format!("{name:#}"))),
                file: self.intern(symbol.filename().map(|f| f.display().to_string()).unwrap_or_default()),
                line: symbol.lineno().unwrap_or(0),
            };
            lines.push(line);
        });
        let lines: Arc<[SourceLine]> = lines.into();
        self.lines.insert(address, Arc::clone(&lines));
        lines
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

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_function_with_a_name() -> u64 {
        std::hint::black_box(42)
    }

    #[test]
    fn the_first_instruction_of_a_function_has_its_name_file_and_line() {
        let mut symbolizer = Symbolizer::default();
        symbolizer.begin();
        let address = a_function_with_a_name as fn() -> u64 as usize as u64;
        for _ in 0..2 {
            let lines = symbolizer.lines(address);
            let line = lines.last().expect("the function is known");
            assert!(line.name.ends_with("::a_function_with_a_name"), "{line:?}");
            assert!(line.file.ends_with("symbols.rs"), "{line:?}");
            assert!(line.line > 0);
            symbolizer.finish(Next::Unknown);
        }
        assert_eq!(a_function_with_a_name(), 42);
    }

    #[test]
    fn an_address_of_nothing_has_no_lines() {
        let mut symbolizer = Symbolizer::default();
        symbolizer.begin();
        assert!(symbolizer.lines(8).is_empty());
    }
}
