//! What `drop_frames` and `keep_frames` make of stacks, as `pprof` prunes them (google/pprof: profile/prune.go).
//!
//! A profile may name frames that say nothing to its reader, such as an allocator's: they go, with all that they called. Merges keep
//! such frames and carry the expression; whoever shows or filters stacks asks here what is left of them.

use regex::bytes::Regex;

use crate::model::{Function, NONE, Profile};

/// What dropping makes of each location.
pub(crate) struct Drops {
    /// Empty where nothing is dropped.
    cuts: Vec<Cut>,
}

/// What dropping makes of a location.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// It stays.
    None,
    /// Its outer lines stay, so many inner ones go with all that it called.
    Inner(u32),
    /// It goes with all that it called.
    Whole,
}

// === impl Drops ===

impl Drops {
    /// Finds out what is dropped from `profile`.
    pub(crate) fn new(profile: &Profile<'_>) -> Self {
        let Some(dropped) = dropped_functions(profile) else { return Self { cuts: Vec::new() } };
        let cut = |location: &crate::model::Location| {
            let lines = &profile.lines[location.lines()];
            // The outermost line that is dropped takes all inside it along.
            match lines.iter().rposition(|line| line.function != NONE && dropped[line.function as usize]) {
                None => Cut::None,
                Some(at) if at + 1 == lines.len() => Cut::Whole,
                Some(at) => Cut::Inner(at as u32 + 1),
            }
        };
        Self { cuts: profile.locations.iter().map(cut).collect() }
    }

    /// Returns whether nothing is dropped.
    pub(crate) fn is_empty(&self) -> bool {
        self.cuts.is_empty()
    }

    /// Returns how many of the innermost lines of `location` are dropped. A location that goes as a whole keeps them, for it still
    /// stands where no frame outside it is the user's.
    pub(crate) fn lines(&self, location: usize) -> usize {
        match self.cuts.get(location) {
            Some(&Cut::Inner(lines)) => lines as usize,
            _ => 0,
        }
    }

    /// Returns the index of the innermost location that dropping leaves in the stack `locations` (leaf first).
    ///
    /// As pprof does, it looks from the root for the first location to cut, but not before one that stays: a stack that is dropped
    /// from its root on is shown whole.
    pub(crate) fn first_kept(&self, locations: &[u32]) -> usize {
        if self.cuts.is_empty() {
            return 0;
        }
        let mut found_user = false;
        for (i, &location) in locations.iter().enumerate().rev() {
            match self.cuts[location as usize] {
                Cut::None => found_user = true,
                Cut::Whole if found_user => return i + 1,
                Cut::Inner(_) if found_user => return i,
                Cut::Whole | Cut::Inner(_) => {}
            }
        }
        0
    }
}

/// Returns which functions `drop_frames` drops and `keep_frames` does not keep; `None` where nothing is to be dropped.
///
/// An expression that does not compile drops nothing, as in pprof.
fn dropped_functions(profile: &Profile<'_>) -> Option<Vec<bool>> {
    let compile = |pattern: &[u8]| Regex::new(&format!("^(?:{})$", std::str::from_utf8(pattern).ok()?)).ok();
    let drop = match profile.string(profile.drop_frames) {
        b"" => return None,
        pattern => compile(pattern)?,
    };
    let keep = match profile.string(profile.keep_frames) {
        b"" => None,
        pattern => Some(compile(pattern)?),
    };
    let dropped = |function: &Function| {
        let name = without_arguments(profile.string(function.name));
        !name.is_empty() && drop.is_match(name) && !keep.as_ref().is_some_and(|keep| keep.is_match(name))
    };
    Some(profile.functions.iter().map(dropped).collect())
}

/// Cuts the argument list off a C++ name, and the dot that some ABIs put before a name: what `drop_frames` is matched with.
fn without_arguments(name: &[u8]) -> &[u8] {
    /// Parentheses that are no argument list.
    const RESERVED: [&[u8]; 2] = [b"(anonymous namespace)", b"operator()"];
    let name = name.strip_prefix(b".").unwrap_or(name);
    let mut at = 0;
    while at < name.len() {
        let rest = &name[at..];
        if let Some(reserved) = RESERVED.iter().find(|reserved| rest.starts_with(reserved)) {
            at += reserved.len();
        } else if rest[0] == b'(' {
            return &name[..at];
        } else {
            at += 1;
        }
    }
    name
}
