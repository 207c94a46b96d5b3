//! Filters: which samples of a profile are of interest, and which of their frames are shown.
//!
//! The words and their meaning are those of `pprof` (google/pprof: profile/filter.go, internal/driver/driver_focus.go): what a filter
//! leaves is what `pprof -proto -focus=… -hide=…` writes of the same profile. First goes what `drop_frames` drops, so that nobody
//! finds by a pattern what is not shown. Then `focus`, `ignore`, `hide` and `show` look at each location: at the names and files of its
//! functions and at the file of its mapping; `show_from` looks at what these left; [`tags`] at the labels of samples. `call_site` is
//! ours: it looks at the stack that is then shown.
//!
//! A profile is changed in place. Afterwards samples may be equal, and tables hold what nobody uses: merging it once more tidies up.

mod tags;

use hashbrown::HashMap;
use regex::bytes::{Regex, RegexBuilder};

use self::tags::{TagFilter, Units};
use crate::{
    drops::Drops,
    frames::Frames,
    model::{Line, NONE, Profile, Samples},
    selector::{REGEX_BYTES_MAX, regex_problem},
};

/// The most bytes of one pattern, or of one name in a call site. A name is rarely longer than a few hundred.
pub const PATTERN_BYTES_MAX: usize = 4096;

/// The most names in a call site: as many as a stack may have frames by default.
pub const CALL_SITE_MAX: usize = 4096;

/// What is of interest, as texts. An empty one says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    /// Keeps the samples in whose stack something matches.
    pub focus: String,
    /// Leaves out the samples in whose stack something matches.
    pub ignore: String,
    /// Shows only the frames that match.
    pub show: String,
    /// Shows only the frames that do not match.
    pub hide: String,
    /// Shows stacks from their outermost frame that matches, and leaves out those without one.
    pub show_from: String,
    /// Keeps the samples with a label that matches: a pattern, `key=pattern`, or a range of numbers such as `bytes=1kb:64kb`.
    pub tag_focus: String,
    /// Leaves out the samples with a label that matches.
    pub tag_ignore: String,
    /// Keeps the samples whose stack, as the other patterns leave it, begins with these names, root first.
    pub call_site: Vec<String>,
}

/// Patterns, compiled.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    focus: Option<Regex>,
    ignore: Option<Regex>,
    show: Option<Regex>,
    hide: Option<Regex>,
    show_from: Option<Regex>,
    tag_focus: Option<TagFilter>,
    tag_ignore: Option<TagFilter>,
    call_site: Vec<String>,
}

/// Why patterns are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A pattern or name is longer than allowed.
    #[error("{field}: {bytes} bytes exceed the {PATTERN_BYTES_MAX} that a pattern or name may have")]
    Length {
        /// Which one.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A regular expression is wrong or too large.
    #[error("{field}: regular expression: {problem}")]
    Regex {
        /// Which one.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A number in a range of labels is too large.
    #[error("{field}: {number} does not fit in 64 bits")]
    Number {
        /// Which pattern.
        field: &'static str,
        /// The number.
        number: String,
    },
    /// A call site has too many names.
    #[error("call_site: {names} names exceed the {CALL_SITE_MAX} that a stack may have")]
    CallSite {
        /// How many it has.
        names: usize,
    },
    /// A call site has a name that no frame can have.
    #[error("call_site: a name is empty")]
    EmptyName,
}

// === impl Filter ===

impl Filter {
    /// Compiles patterns.
    ///
    /// # Errors
    ///
    /// One of them is too long or not a regular expression, or the call site has too many names or an empty one.
    pub fn new(patterns: &Patterns) -> Result<Self, Error> {
        let Patterns { focus, ignore, show, hide, show_from, tag_focus, tag_ignore, call_site } = patterns;
        if call_site.len() > CALL_SITE_MAX {
            return Err(Error::CallSite { names: call_site.len() });
        }
        for name in call_site {
            check_length("call_site", name)?;
            if name.is_empty() {
                return Err(Error::EmptyName);
            }
        }
        Ok(Self {
            focus: compile_option("focus", focus)?,
            ignore: compile_option("ignore", ignore)?,
            show: compile_option("show", show)?,
            hide: compile_option("hide", hide)?,
            show_from: compile_option("show_from", show_from)?,
            tag_focus: TagFilter::parse("tag_focus", tag_focus)?,
            tag_ignore: TagFilter::parse("tag_ignore", tag_ignore)?,
            call_site: call_site.clone(),
        })
    }

    /// Returns whether it leaves everything as it is.
    pub fn is_empty(&self) -> bool {
        let Self { focus, ignore, show, hide, show_from, tag_focus, tag_ignore, call_site } = self;
        [focus, ignore, show, hide, show_from].iter().all(|regex| regex.is_none())
            && tag_focus.is_none()
            && tag_ignore.is_none()
            && call_site.is_empty()
    }

    /// Leaves of `profile` what is of interest, and returns the names of the patterns that nothing matched: likely a slip.
    ///
    /// Takes time in proportion to the samples' frames, and as much memory as the samples once more.
    pub fn apply(&self, profile: &mut Profile<'_>) -> Vec<&'static str> {
        if self.is_empty() {
            return Vec::new();
        }
        // What a number without a unit counts is told by the other samples, also by those that go.
        let units = Units::new(profile);
        let drops = Drops::new(profile);
        if !drops.is_empty() {
            rewrite_lines(profile, |location, lines, _| Some(lines[drops.lines(location)..].to_vec()));
        }

        let mut unmatched = Unmatched::default();
        let marks = self.mark_locations(profile, &mut unmatched);
        let ends = self.mark_ends(profile, &mut unmatched);
        let site = CallSite::new(profile, &self.call_site);
        let (mut tag_focused, mut tag_ignored, mut called) = (false, false, false);
        rewrite_samples(profile, |profile, sample, stack| {
            stack.drain(..drops.first_kept(stack));
            if let Some(marks) = &marks {
                if !marks.keep(stack) {
                    return false;
                }
                stack.retain(|&location| !marks.hidden[location as usize]);
                if stack.is_empty() {
                    return false;
                }
            }
            if let Some(ends) = &ends {
                let Some(outermost) = stack.iter().rposition(|&location| ends[location as usize]) else { return false };
                stack.truncate(outermost + 1);
            }
            let labels = profile.samples.labels(sample);
            let tagged = |filter: &Option<TagFilter>, missing| {
                filter.as_ref().map_or(missing, |filter| filter.matches(profile, labels, &units))
            };
            let (focused, ignored) = (tagged(&self.tag_focus, true), tagged(&self.tag_ignore, false));
            tag_focused |= focused;
            tag_ignored |= ignored;
            let kept = focused && !ignored && site.as_ref().is_none_or(|site| site.begins(stack));
            called |= kept;
            kept
        });
        unmatched.note("tag_focus", self.tag_focus.is_some() && !tag_focused);
        unmatched.note("tag_ignore", self.tag_ignore.is_some() && !tag_ignored);
        unmatched.note("call_site", site.is_some() && !called);
        unmatched.0
    }

    /// Applies `focus`, `ignore`, `hide` and `show` to the locations, and returns what that says of stacks; `None` without these.
    fn mark_locations(&self, profile: &mut Profile<'_>, unmatched: &mut Unmatched) -> Option<Marks> {
        let hits = |regex: &Option<Regex>| regex.as_ref().map(|regex| Hits::new(regex, profile));
        let (focus, ignore, hide, show) = (hits(&self.focus), hits(&self.ignore), hits(&self.hide), hits(&self.show));
        if [&focus, &ignore, &hide, &show].iter().all(|hits| hits.is_none()) {
            return None;
        }
        let mut marks = Marks::default();
        let (mut focused, mut ignored, mut hid, mut shown) = (false, false, false, false);
        rewrite_lines(profile, |_, lines, mapping| {
            let is_ignored = ignore.as_ref().is_some_and(|hits| hits.any(lines, mapping));
            let is_focused = !is_ignored && focus.as_ref().is_none_or(|hits| hits.any(lines, mapping));
            ignored |= is_ignored;
            focused |= is_focused;
            marks.ignored.push(is_ignored);
            marks.focused.push(is_focused);

            let mut left = lines.to_vec();
            let mut is_hidden = false;
            if let Some(hide) = &hide
                && hide.any(lines, mapping)
            {
                hid = true;
                left.retain(|line| !hide.mapping(mapping) && !hide.function(line).unwrap_or(false));
                is_hidden = left.is_empty();
            }
            if let Some(show) = &show {
                left.retain(|line| show.mapping(mapping) || show.function(line).unwrap_or(true));
                is_hidden |= left.is_empty();
                shown |= !left.is_empty();
            }
            marks.hidden.push(is_hidden);
            Some(left)
        });
        unmatched.note("focus", focus.is_some() && !focused);
        unmatched.note("ignore", ignore.is_some() && !ignored);
        unmatched.note("hide", hide.is_some() && !hid);
        unmatched.note("show", show.is_some() && !shown);
        Some(marks)
    }

    /// Cuts the lines outside of `show_from` off the locations, and returns at which of them stacks may begin; `None` without it.
    fn mark_ends(&self, profile: &mut Profile<'_>, unmatched: &mut Unmatched) -> Option<Vec<bool>> {
        let hits = Hits::new(self.show_from.as_ref()?, profile);
        let mut ends = Vec::with_capacity(profile.locations.len());
        rewrite_lines(profile, |_, lines, mapping| {
            let outermost = lines.iter().rposition(|line| hits.function(line).unwrap_or(false));
            ends.push(hits.mapping(mapping) || outermost.is_some());
            match outermost {
                Some(outermost) if !hits.mapping(mapping) => Some(lines[..=outermost].to_vec()),
                _ => None,
            }
        });
        unmatched.note("show_from", !ends.contains(&true));
        Some(ends)
    }
}

/// The names of the patterns that matched nothing.
#[derive(Default)]
struct Unmatched(Vec<&'static str>);

impl Unmatched {
    fn note(&mut self, field: &'static str, is_unmatched: bool) {
        if is_unmatched {
            self.0.push(field);
        }
    }
}

/// What a pattern matches.
struct Hits {
    functions: Vec<bool>,
    mappings: Vec<bool>,
}

// === impl Hits ===

impl Hits {
    fn new(regex: &Regex, profile: &Profile<'_>) -> Self {
        let is_match = |string| regex.is_match(profile.string(string));
        Self {
            functions: profile.functions.iter().map(|f| is_match(f.name) || is_match(f.file)).collect(),
            mappings: profile.mappings.iter().map(|mapping| is_match(mapping.file)).collect(),
        }
    }

    /// Returns whether the function of a line matches; `None` where it has none.
    fn function(&self, line: &Line) -> Option<bool> {
        self.functions.get(line.function as usize).copied()
    }

    fn mapping(&self, mapping: u32) -> bool {
        self.mappings.get(mapping as usize).is_some_and(|&hit| hit)
    }

    fn any(&self, lines: &[Line], mapping: u32) -> bool {
        self.mapping(mapping) || lines.iter().any(|line| self.function(line).unwrap_or(false))
    }
}

/// What `focus`, `ignore`, `hide` and `show` say of each location.
#[derive(Default)]
struct Marks {
    focused: Vec<bool>,
    ignored: Vec<bool>,
    hidden: Vec<bool>,
}

impl Marks {
    /// Returns whether a stack is of interest. One without frames is not, whatever the patterns: nothing in it matches.
    fn keep(&self, stack: &[u32]) -> bool {
        stack.iter().any(|&location| self.focused[location as usize])
            && !stack.iter().any(|&location| self.ignored[location as usize])
    }
}

/// The names that a stack has to begin with.
struct CallSite {
    frames: Frames,
    /// Root first; [`NONE`] for a name that no frame has.
    names: Vec<u32>,
}

// === impl CallSite ===

impl CallSite {
    fn new(profile: &Profile<'_>, names: &[String]) -> Option<Self> {
        if names.is_empty() {
            return None;
        }
        let frames = Frames::new(profile);
        let names = {
            let known: HashMap<&str, u32> = frames.names().iter().map(String::as_str).zip(0..).collect();
            names.iter().map(|name| known.get(name.as_str()).copied().unwrap_or(NONE)).collect()
        };
        Some(Self { frames, names })
    }

    fn begins(&self, stack: &[u32]) -> bool {
        let mut shown = Vec::new();
        self.frames.stack(stack, &mut shown);
        shown.len() >= self.names.len() && self.names.iter().eq(shown.iter().rev().take(self.names.len()))
    }
}

/// Gives each location the lines that `edit` returns for its index, its lines and its mapping; `None` leaves them.
fn rewrite_lines(profile: &mut Profile<'_>, mut edit: impl FnMut(usize, &[Line], u32) -> Option<Vec<Line>>) {
    let mut kept = Vec::with_capacity(profile.lines.len());
    for (i, location) in profile.locations.iter_mut().enumerate() {
        let lines = &profile.lines[location.lines()];
        let edited = edit(i, lines, location.mapping);
        location.lines_start = kept.len() as u32;
        kept.extend_from_slice(edited.as_deref().unwrap_or(lines));
        location.lines_end = kept.len() as u32;
    }
    profile.lines = kept;
    profile.layout.exact = false;
}

/// Keeps the samples for which `edit` returns true, with the stack as it left it.
fn rewrite_samples(profile: &mut Profile<'_>, mut edit: impl FnMut(&Profile<'_>, usize, &mut Vec<u32>) -> bool) {
    let mut kept = Samples::default();
    let mut stack = Vec::new();
    for i in 0..profile.samples.len() {
        stack.clear();
        stack.extend_from_slice(profile.samples.stack(i));
        if !edit(profile, i, &mut stack) {
            continue;
        }
        kept.locations.extend_from_slice(&stack);
        kept.location_ends.push(kept.locations.len() as u32);
        kept.values.extend_from_slice(profile.values(i));
        kept.labels.extend_from_slice(profile.samples.labels(i));
        kept.label_ends.push(kept.labels.len() as u32);
        kept.shapes.push(profile.samples.shapes[i]);
    }
    profile.samples = kept;
}

/// Compiles a pattern; none of an empty text.
fn compile_option(field: &'static str, pattern: &str) -> Result<Option<Regex>, Error> {
    check_length(field, pattern)?;
    if pattern.is_empty() { Ok(None) } else { compile(field, pattern).map(Some) }
}

fn compile(field: &'static str, pattern: &str) -> Result<Regex, Error> {
    let compiled = RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
    compiled.map_err(|error| Error::Regex { field, problem: regex_problem(&error) })
}

fn check_length(field: &'static str, text: &str) -> Result<(), Error> {
    if text.len() > PATTERN_BYTES_MAX { Err(Error::Length { field, bytes: text.len() }) } else { Ok(()) }
}
