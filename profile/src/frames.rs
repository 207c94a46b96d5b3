//! What a reader of stacks sees: the frames of each location, by name.
//!
//! Flame graph, table and folded stacks all begin here, so that they agree with each other and with `go tool pprof` at its default
//! granularity, functions. A location is as many frames as it has lines, innermost first. A frame is named by its function; where
//! there is none, by the file of its mapping in brackets, as pprof does. `drop_frames` and `keep_frames` are obeyed, because they say
//! what is not to be shown; they change no stored stack. Text leaves the bytes of pprof here: what is not UTF-8 becomes U+FFFD.

use std::borrow::Cow;
use std::hash::BuildHasher as _;
use std::sync::LazyLock;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::drops::Drops;
use crate::model::{NONE, Profile, StringIndex};

/// The name of a frame of which nothing is known.
const UNKNOWN: &str = "<unknown>";

/// The frames of all locations.
pub(crate) struct Frames {
    /// The distinct names, and the hash of each.
    names: Vec<String>,
    hashes: Vec<u64>,
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

/// Tables that say what frames are called: those of a profile, or others of the same entities.
pub trait Naming {
    /// Returns how many functions there are.
    fn functions(&self) -> usize;

    /// Returns the name and the source file of a function.
    fn function(&self, index: u32) -> (&[u8], &[u8]);

    /// Returns the path of a mapping, which may be [`NONE`]; empty where it has none.
    fn mapping_file(&self, index: u32) -> &[u8];
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
        let mut namer = Namer::new(profile, profile.locations.len());
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
        let (names, files) = namer.finish();
        let owned = |texts: Vec<Cow<'_, str>>| texts.into_iter().map(Cow::into_owned).collect();
        let (names, hashes) = (owned(names.texts), names.hashes);
        Self { names, hashes, files: owned(files), frames, ends, drops }
    }

    /// Returns the distinct names, the hash and the file of each, and the names of all locations, of which each has a range.
    pub(crate) fn into_parts(self) -> (Vec<String>, Vec<u64>, Vec<String>, Vec<u32>) {
        (self.names, self.hashes, self.files, self.frames)
    }

    /// Returns the distinct names.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
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
        let (start, end) = self.range(location);
        &self.frames[start as usize..end as usize]
    }

    /// Returns where these are among those of all locations.
    pub(crate) fn range(&self, location: u32) -> (u32, u32) {
        let start = if location == 0 { 0 } else { self.ends[location as usize - 1] };
        (start, self.ends[location as usize])
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

/// What names are hashed with, wherever they get numbers, so that none is hashed twice. It differs from process to process, for names are
/// what others send.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// Texts, each once, by their numbers.
#[derive(Debug)]
pub(crate) struct Numbered<S> {
    numbers: HashTable<u32>,
    pub(crate) texts: Vec<S>,
    /// The hash of each.
    pub(crate) hashes: Vec<u64>,
}

/// Gives each distinct name a number.
pub(crate) struct Namer<'t, T> {
    tables: &'t T,
    by_function: Vec<u32>,
    names: Numbered<Cow<'t, str>>,
    files: Vec<Cow<'t, str>>,
}

// === impl Numbered ===

impl<S> Default for Numbered<S> {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl<S> Numbered<S> {
    /// Has room for so many.
    fn with_capacity(texts: usize) -> Self {
        Self {
            numbers: HashTable::with_capacity(texts),
            texts: Vec::with_capacity(texts),
            hashes: Vec::with_capacity(texts),
        }
    }
}

impl<S: AsRef<str>> Numbered<S> {
    /// Returns the number of a text, which is the next one where it was not here.
    fn number(&mut self, text: S) -> u32 {
        let hash = HASHER.hash_one(text.as_ref());
        self.known(text.as_ref(), hash).unwrap_or_else(|| self.add(text, hash))
    }

    /// The same, where the hash is known from another that has the text.
    pub(crate) fn number_hashed<'a>(&mut self, text: &'a str, hash: u64) -> u32
    where
        S: From<&'a str>,
    {
        self.known(text, hash).unwrap_or_else(|| self.add(text.into(), hash))
    }

    fn known(&self, text: &str, hash: u64) -> Option<u32> {
        self.numbers.find(hash, |&number| self.texts[number as usize].as_ref() == text).copied()
    }

    fn add(&mut self, text: S, hash: u64) -> u32 {
        let number = u32::try_from(self.texts.len()).expect("memory has no room for so many names");
        let Self { numbers, texts, hashes } = self;
        numbers.insert_unique(hash, number, |&number| hashes[number as usize]);
        texts.push(text);
        hashes.push(hash);
        number
    }
}

// === impl Namer ===

impl<'t, T: Naming> Namer<'t, T> {
    /// Starts with none, and with room for those of so many nodes.
    pub(crate) fn new(tables: &'t T, nodes: usize) -> Self {
        // Mostly each function has a name of its own, and is in a node or more.
        let functions = tables.functions();
        let names = functions.min(nodes);
        let (names, files) = (Numbered::with_capacity(names), Vec::with_capacity(names));
        Self { tables, by_function: vec![NONE; functions], names, files }
    }

    /// Returns the number of the name of a line in `function` at a location in `mapping`.
    pub(crate) fn name(&mut self, function: u32, mapping: u32) -> u32 {
        let known = self.by_function.get(function as usize).copied().unwrap_or(NONE);
        if known != NONE {
            return known;
        }
        let (name, file) = if function == NONE { (&b""[..], &b""[..]) } else { self.tables.function(function) };
        // Not remembered by function: one without a name is shown as its location's mapping, and may be in several.
        if name.is_empty() {
            return self.number(mapping_name(self.tables.mapping_file(mapping)).into());
        }
        let number = self.number(text(name));
        let noted = &mut self.files[number as usize];
        let file = text(file);
        // The one that comes first in the alphabet.
        if !file.is_empty() && (noted.is_empty() || file < *noted) {
            *noted = file;
        }
        self.by_function[function as usize] = number;
        number
    }

    /// Returns the distinct names, and the file of each.
    pub(crate) fn finish(self) -> (Numbered<Cow<'t, str>>, Vec<Cow<'t, str>>) {
        (self.names, self.files)
    }

    fn number(&mut self, name: Cow<'t, str>) -> u32 {
        let number = self.names.number(name);
        if self.files.len() < self.names.texts.len() {
            self.files.push(Cow::Borrowed(""));
        }
        number
    }
}

/// Returns bytes as text. Nearly always they are, and that is found out faster than what else they may be.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

impl Naming for Profile<'_> {
    fn functions(&self) -> usize {
        self.functions.len()
    }

    fn function(&self, index: u32) -> (&[u8], &[u8]) {
        let function = &self.functions[index as usize];
        (self.string(function.name), self.string(function.file))
    }

    fn mapping_file(&self, index: u32) -> &[u8] {
        if index == NONE { b"" } else { self.string(self.mappings[index as usize].file) }
    }
}

/// Returns the name under which a line of `function` (an index into [`Profile::functions`], or [`NONE`]) is shown, at a location in
/// `mapping` (an index into [`Profile::mappings`], or [`NONE`]).
pub fn frame_name<'p>(profile: &'p Profile<'_>, function: u32, mapping: u32) -> Cow<'p, str> {
    let name = if function == NONE { b"" } else { profile.string(profile.functions[function as usize].name) };
    if name.is_empty() { mapping_name(profile.mapping_file(mapping)).into() } else { String::from_utf8_lossy(name) }
}

/// Returns whether a frame may be shown as `name` that has no function, or one without a name: where that is so depends on mappings.
pub fn may_be_no_function(name: &str) -> bool {
    name == UNKNOWN || name.starts_with('[')
}

/// Returns the name of a frame without a function: the file name of its mapping, in brackets.
fn mapping_name(file: &[u8]) -> String {
    if file.is_empty() {
        return UNKNOWN.to_owned();
    }
    let path = String::from_utf8_lossy(file);
    let trimmed = path.trim_end_matches('/');
    let base = trimmed.rsplit('/').next().unwrap_or_default();
    format!("[{}]", if base.is_empty() { "/" } else { base })
}
