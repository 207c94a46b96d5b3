//! What a reader of stacks sees: the frames of each location, by name.
//!
//! Flame graph, table and folded stacks all begin here, so that they agree with each other and with `go tool pprof` at its default
//! granularity, functions. A location is as many frames as it has lines, innermost first. A frame is named by its function; where
//! there is none, by the file of its mapping in brackets, as pprof does. `drop_frames` and `keep_frames` are obeyed, because they say
//! what is not to be shown; they change no stored stack. Text leaves the bytes of pprof here: what is not UTF-8 becomes U+FFFD.

use std::borrow::Cow;

use hashbrown::HashMap;

use crate::drops::Drops;
use crate::model::{Function, NONE, Profile, StringIndex};

/// The name of a frame of which nothing is known.
const UNKNOWN: &str = "<unknown>";

/// The frames of all locations.
pub(crate) struct Frames {
    /// The distinct names.
    names: Vec<String>,
    /// The source file of each name; the first in the alphabet where functions of several files share the name.
    files: Vec<String>,
    /// Indices into `names`, location by location, innermost first.
    frames: Vec<u32>,
    /// Where each location's frames end.
    ends: Vec<u32>,
    drops: Drops,
}

/// Where a name comes from. Where functions of several files share it, the first file in the alphabet counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The source file; empty where unknown.
    pub file: String,
    /// The line of the file on which the function starts; where profiles do not say, its first line that was met. 0 where unknown.
    pub line: i64,
    /// The path of the program or library that the code was loaded from, the first in the alphabet; empty where unknown.
    pub mapping: String,
}

/// Where all names come from, by the locations that are used.
pub(crate) struct Origins<'p> {
    profile: &'p Profile<'p>,
    /// Files, lines and mappings by the name's number.
    places: Vec<(StringIndex, i64, StringIndex)>,
}

// === impl Frames ===

impl Frames {
    /// Names the frames of all locations of `profile`.
    pub(crate) fn new(profile: &Profile<'_>) -> Self {
        let drops = Drops::new(profile);
        let mut namer = Namer::new(profile);
        let mut frames = Vec::with_capacity(profile.lines.len());
        let mut ends = Vec::with_capacity(profile.locations.len());
        for (i, location) in profile.locations.iter().enumerate() {
            let lines = &profile.lines[location.lines()];
            frames.extend(lines[drops.lines(i)..].iter().map(|line| namer.name(line.function, location.mapping)));
            if lines.is_empty() {
                frames.push(namer.name(NONE, location.mapping));
            }
            ends.push(u32::try_from(frames.len()).expect("a frame a line or location, both counted in u32"));
        }
        let Namer { names, files, .. } = namer;
        Self { names, files, frames, ends, drops }
    }

    /// Returns the distinct names.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the source file of `name`, empty where none is known.
    pub(crate) fn file(&self, name: u32) -> &str {
        &self.files[name as usize]
    }

    /// Returns where each name comes from, by what is at the locations of `profile` that are `used` and nothing else: a merge of one
    /// sample type has no others.
    pub(crate) fn origins<'p>(&self, profile: &'p Profile<'p>, used: &[bool]) -> Origins<'p> {
        let mut origins = Origins { profile, places: vec![(0, 0, 0); self.names.len()] };
        for (i, _) in used.iter().enumerate().filter(|(_, is_used)| **is_used) {
            let location = &profile.locations[i];
            let lines = &profile.lines[location.lines()][self.drops.lines(i)..];
            let names = self.of(i as u32);
            for (line, &name) in lines.iter().zip(names) {
                let Some(function) = profile.functions.get(line.function as usize) else { continue };
                if !profile.string(function.name).is_empty() {
                    origins.note_line(
                        name,
                        function.file,
                        if function.start_line > 0 { function.start_line } else { line.line },
                    );
                }
            }
            if let Some(mapping) = profile.mappings.get(location.mapping as usize) {
                names.iter().for_each(|&name| origins.note_mapping(name, mapping.file));
            }
        }
        origins
    }

    /// Puts the names of the stack `locations` (leaf first) into `into`, leaf first.
    pub(crate) fn stack(&self, locations: &[u32], into: &mut Vec<u32>) {
        into.clear();
        for &location in self.shown(locations) {
            into.extend_from_slice(self.of(location));
        }
    }

    /// Returns the locations of the stack `locations` (leaf first) that are shown.
    pub(crate) fn shown<'s>(&self, locations: &'s [u32]) -> &'s [u32] {
        &locations[self.drops.first_kept(locations)..]
    }

    /// Returns the names of the frames of `location`, innermost first.
    pub(crate) fn of(&self, location: u32) -> &[u32] {
        let start = if location == 0 { 0 } else { self.ends[location as usize - 1] };
        &self.frames[start as usize..self.ends[location as usize] as usize]
    }
}

// === impl Origins ===

impl Origins<'_> {
    /// Returns where `name` comes from.
    pub(crate) fn get(&self, name: u32) -> Origin {
        let (file, line, mapping) = self.places[name as usize];
        let text = |index| String::from_utf8_lossy(self.profile.string(index)).into_owned();
        Origin { file: text(file), line, mapping: text(mapping) }
    }

    fn note_line(&mut self, name: u32, file: StringIndex, line: i64) {
        let (noted_file, noted_line, _) = &mut self.places[name as usize];
        let text = self.profile.string(file);
        if is_before(self.profile, file, *noted_file) {
            (*noted_file, *noted_line) = (file, line.max(0));
        } else if !text.is_empty()
            && text == self.profile.string(*noted_file)
            && line > 0
            && (*noted_line == 0 || line < *noted_line)
        {
            *noted_line = line;
        }
    }

    fn note_mapping(&mut self, name: u32, mapping: StringIndex) {
        let noted = &mut self.places[name as usize].2;
        if is_before(self.profile, mapping, *noted) {
            *noted = mapping;
        }
    }
}

/// Returns whether `text` says something and comes before `noted` in the alphabet, or before nothing.
fn is_before(profile: &Profile<'_>, text: StringIndex, noted: StringIndex) -> bool {
    if text == noted {
        return false;
    }
    let (text, noted) = (profile.string(text), profile.string(noted));
    !text.is_empty() && (noted.is_empty() || text < noted)
}

/// Gives each distinct name a number.
struct Namer<'p> {
    profile: &'p Profile<'p>,
    by_name: HashMap<String, u32>,
    by_function: Vec<u32>,
    names: Vec<String>,
    files: Vec<String>,
}

// === impl Namer ===

impl<'p> Namer<'p> {
    fn new(profile: &'p Profile<'p>) -> Self {
        let by_function = vec![NONE; profile.functions.len()];
        Self { profile, by_name: HashMap::new(), by_function, names: Vec::new(), files: Vec::new() }
    }

    /// Returns the number of the name of a line in `function` at a location in `mapping`.
    fn name(&mut self, function: u32, mapping: u32) -> u32 {
        let known = self.by_function.get(function as usize).copied().unwrap_or(NONE);
        if known != NONE {
            return known;
        }
        let function = (function != NONE).then(|| (function as usize, &self.profile.functions[function as usize]));
        match function {
            Some((index, function)) if !self.profile.string(function.name).is_empty() => {
                let name = self.number(&String::from_utf8_lossy(self.profile.string(function.name)));
                note_file(&mut self.files[name as usize], self.profile, function);
                self.by_function[index] = name;
                name
            }
            // Not remembered by function: one without a name is shown as its location's mapping, and may be in several.
            _ => self.number(&mapping_name(self.profile, mapping)),
        }
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.by_name.get(name) {
            return number;
        }
        let number = u32::try_from(self.names.len()).expect("a name a function or mapping, both counted in u32");
        self.by_name.insert(name.to_owned(), number);
        self.names.push(name.to_owned());
        self.files.push(String::new());
        number
    }
}

/// Notes the file of `function`, of `profile`, where it comes before the one that is noted.
fn note_file(noted: &mut String, profile: &Profile<'_>, function: &Function) {
    let file = String::from_utf8_lossy(profile.string(function.file));
    if !file.is_empty() && (noted.is_empty() || *file < **noted) {
        *noted = file.into_owned();
    }
}

/// Returns the name under which a line of `function` (an index into [`Profile::functions`], or [`NONE`]) is shown, at a location in
/// `mapping` (an index into [`Profile::mappings`], or [`NONE`]).
pub fn frame_name<'p>(profile: &'p Profile<'_>, function: u32, mapping: u32) -> Cow<'p, str> {
    let name = if function == NONE { b"" } else { profile.string(profile.functions[function as usize].name) };
    if name.is_empty() { mapping_name(profile, mapping).into() } else { String::from_utf8_lossy(name) }
}

/// Returns whether a frame may be shown as `name` that has no function, or one without a name: where that is so depends on mappings.
pub fn may_be_no_function(name: &str) -> bool {
    name == UNKNOWN || name.starts_with('[')
}

/// Returns the name of a frame without a function: the file name of its mapping, in brackets.
fn mapping_name(profile: &Profile<'_>, mapping: u32) -> String {
    let file = if mapping == NONE { b"" } else { profile.string(profile.mappings[mapping as usize].file) };
    if file.is_empty() {
        return UNKNOWN.to_owned();
    }
    let path = String::from_utf8_lossy(file);
    let trimmed = path.trim_end_matches('/');
    let base = trimmed.rsplit('/').next().unwrap_or_default();
    format!("[{}]", if base.is_empty() { "/" } else { base })
}
