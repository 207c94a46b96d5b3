//! Sums by function over many profiles that are never merged: tables like [`Top`], and who calls a function and whom it calls.
//!
//! A [`Stacks`] has the frames of some stacks, one a sample of a profile; values for these stacks come apart, as often as there are
//! groups of profiles to be told apart. Sums are commutative and exact until they are shown, so profiles may come in any order. The numbers
//! are those of [`Top`] over the merge, for the frames are named by the same code; only that each profile's own `drop_frames` counts,
//! where a merge has those of its first.

use std::borrow::Cow;
use std::cmp::Reverse;

use hashbrown::HashMap;

use crate::{
    frames::{Frames, Namer, Naming},
    model::{NONE, Profile},
    top::{Row, Top},
    tree::clamp,
};

/// What an entry of rows takes beside its name, in bytes, about.
const ENTRY_BYTES: usize = 3 * size_of::<Growing>();

/// What a name takes beside its texts, in bytes, about.
const NAME_BYTES: usize = 128;

/// Tables that stacks are looked up in.
pub trait Locations: Naming {
    /// Returns how many locations there are.
    fn locations(&self) -> usize;

    /// Returns the mapping of a location, or [`NONE`].
    fn mapping(&self, location: u32) -> u32;

    /// Returns the functions of the lines of a location, innermost first, each may be [`NONE`].
    fn lines(&self, location: u32) -> impl ExactSizeIterator<Item = u32>;
}

/// The frames of stacks, each known by a number.
pub struct Stacks<'t> {
    /// The distinct names, and the source file of each.
    functions: Vec<Cow<'t, str>>,
    files: Vec<Cow<'t, str>>,
    /// The place of the stack with each number, or [`NONE`] where it is left out.
    places: Vec<u32>,
    /// Indices of names, stack by stack, leaf first.
    names: Vec<u32>,
    /// Where the stack at each place ends in `names`.
    ends: Vec<usize>,
}

/// Tables of functions that grow, one a group. Each function is named once, however many have it.
#[derive(Debug, Default)]
pub struct Tables {
    numbers: HashMap<String, u32>,
    /// The file of each function, by its number.
    files: Vec<String>,
    /// What names and files take in memory.
    bytes: usize,
    groups: Vec<Table>,
}

/// A table of functions by their numbers in [`Tables`].
#[derive(Debug, Default)]
struct Table {
    total: i128,
    rows: HashMap<u32, Sums>,
}

/// A function with its direct callers and callees, and their sums, which grow.
#[derive(Debug)]
pub struct Calls {
    name: String,
    file: String,
    is_found: bool,
    callers: Rows,
    callees: Rows,
}

/// The sums of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// The sum of the samples whose leaf it is.
    pub self_value: i128,
    /// The sum of the samples in whose stack it occurs.
    pub total: i128,
}

/// Functions by name.
#[derive(Debug, Default)]
struct Rows {
    by_name: HashMap<String, Growing>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Growing {
    file: String,
    sums: Sums,
}

// === impl Stacks ===

impl<'t> Stacks<'t> {
    /// Names the frames of stacks that are given by their locations, leaf first; the first is number 0.
    ///
    /// It is what [`Stacks::new`] makes of a profile of these, if its `drop_frames` drops nothing, and takes less.
    pub fn of<S: Iterator<Item = u32>>(tables: &'t impl Locations, stacks: impl ExactSizeIterator<Item = S>) -> Self {
        let mut namer = Namer::new(tables);
        // Of each location where its names are, which are looked up when it is first met.
        let (mut frames, mut known) = (Vec::new(), vec![(0u32, 0u32); tables.locations()]);
        let mut places = Vec::with_capacity(stacks.len());
        let (mut names, mut ends) = (Vec::new(), Vec::with_capacity(stacks.len()));
        for stack in stacks {
            for location in stack {
                let (start, end) = &mut known[location as usize];
                if *end == 0 {
                    *start = frames.len() as u32;
                    let (mapping, lines) = (tables.mapping(location), tables.lines(location));
                    if lines.len() == 0 {
                        frames.push(namer.name(NONE, mapping));
                    } else {
                        frames.extend(lines.map(|function| namer.name(function, mapping)));
                    }
                    *end = u32::try_from(frames.len()).expect("a frame a line or location, both counted in u32");
                }
                names.extend_from_slice(&frames[*start as usize..*end as usize]);
            }
            places.push(ends.len() as u32);
            ends.push(names.len());
        }
        let (functions, files) = namer.finish();
        Self { functions, files, places, names, ends }
    }

    /// Names the frames of the stacks of all samples of `profile`, whose numbers are their first values.
    ///
    /// So a profile can be filtered first: what its samples are called does not change when others go.
    pub fn new(profile: &Profile<'_>) -> Self {
        let frames = Frames::new(profile);
        let (mut places, mut names, mut ends) = (Vec::new(), Vec::new(), Vec::with_capacity(profile.samples.len()));
        let mut stack = Vec::new();
        for sample in 0..profile.samples.len() {
            frames.stack(profile.samples.stack(sample), &mut stack);
            names.extend_from_slice(&stack);
            ends.push(names.len());
            let Some(number) = profile.values(sample).first().and_then(|&number| usize::try_from(number).ok()) else {
                continue;
            };
            if places.len() <= number {
                places.resize(number + 1, NONE);
            }
            places[number] = sample as u32;
        }
        let (functions, files) = frames.into_names();
        let owned = |texts: Vec<String>| texts.into_iter().map(Cow::Owned).collect();
        Self { functions: owned(functions), files: owned(files), places, names, ends }
    }

    /// Returns the names of a stack, leaf first; none where it is left out.
    fn get(&self, number: usize) -> Option<&[u32]> {
        let place = self.places.get(number).filter(|&&place| place != NONE).copied()? as usize;
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        Some(&self.names[start..self.ends[place]])
    }

    /// Returns the name and the source file of a function by its number here.
    pub fn name(&self, number: u32) -> (&str, &str) {
        (&self.functions[number as usize], &self.files[number as usize])
    }

    /// Returns how many functions there are.
    fn functions(&self) -> usize {
        self.functions.len()
    }

    /// Sums values of stacks: pairs of the number of a stack and its value. A stack may stand several times; one that is left out does not
    /// count. Returns the sum of all, and those of each function that is in any, by its number here.
    pub fn sums(&self, values: impl Iterator<Item = (usize, i128)>) -> (i128, Vec<(u32, Sums)>) {
        let mut total = 0i128;
        let mut sums = vec![Sums::default(); self.functions()];
        // The place of the stack that a name was last met in, so that it counts once a stack.
        let mut met = vec![usize::MAX; sums.len()];
        let mut touched = Vec::new();
        for (place, (stack, value)) in values.enumerate() {
            let Some(stack) = self.get(stack) else { continue };
            total = total.saturating_add(value);
            for &name in stack {
                let last = std::mem::replace(&mut met[name as usize], place);
                if last == usize::MAX {
                    touched.push(name);
                }
                if last != place {
                    let total = &mut sums[name as usize].total;
                    *total = total.saturating_add(value);
                }
            }
            if let Some(&leaf) = stack.first() {
                let self_value = &mut sums[leaf as usize].self_value;
                *self_value = self_value.saturating_add(value);
            }
        }
        (total, touched.into_iter().map(|name| (name, std::mem::take(&mut sums[name as usize]))).collect())
    }
}

// === impl Tables ===

impl Tables {
    /// Makes empty ones for so many groups.
    pub fn new(groups: usize) -> Self {
        Self { groups: (0..groups).map(|_| Table::default()).collect(), ..Self::default() }
    }

    /// Adds values of stacks in several parts, each of a group: the numbers of stacks, and their values. A stack may stand several times;
    /// one that is left out does not count.
    pub fn add<'a>(&mut self, stacks: &Stacks<'_>, parts: impl Iterator<Item = (u32, &'a [u32], &'a [i128])>) {
        let mut numbers = vec![NONE; stacks.functions()];
        for (group, samples, values) in parts {
            let values = samples.iter().zip(values).map(|(&sample, &value)| (sample as usize, value));
            let (total, sums) = stacks.sums(values);
            for (name, _) in &sums {
                let number = &mut numbers[*name as usize];
                if *number == NONE {
                    let (name, file) = stacks.name(*name);
                    *number = self.number(name, file);
                }
            }
            let table = &mut self.groups[group as usize];
            table.total = table.total.saturating_add(total);
            if table.rows.is_empty() {
                table.rows.reserve(sums.len());
            }
            for (name, sums) in &sums {
                table.rows.entry(numbers[*name as usize]).or_default().add(sums);
            }
        }
    }

    fn number(&mut self, name: &str, file: &str) -> u32 {
        let number = match self.numbers.get(name) {
            Some(&number) => number,
            None => {
                let number = u32::try_from(self.files.len()).expect("memory has no room for so many names");
                self.numbers.insert(name.to_owned(), number);
                self.files.push(String::new());
                self.bytes += name.len() + file.len() + NAME_BYTES;
                number
            }
        };
        note_file(&mut self.files[number as usize], file);
        number
    }

    /// Adds a group that has what all others have together, and returns its number.
    pub fn add_all(&mut self) -> usize {
        let mut all = Table::default();
        for table in &self.groups {
            all.total = all.total.saturating_add(table.total);
            for (&number, sums) in &table.rows {
                all.rows.entry(number).or_default().add(sums);
            }
        }
        self.groups.push(all);
        self.groups.len() - 1
    }

    /// Returns the sum of all samples of a group.
    pub fn total(&self, group: usize) -> i128 {
        self.groups[group].total
    }

    /// Returns how many bytes of memory they hold, about.
    pub fn memory(&self) -> usize {
        // A table that grows has up to twice the room that it needs, and a byte a place.
        let of = |table: &Table| size_of::<Table>() + table.rows.capacity() * 8 / 7 * (size_of::<(u32, Sums)>() + 1);
        self.bytes + self.groups.iter().map(of).sum::<usize>()
    }

    /// Says of each function whether `is_shown` takes its name and file, by its number.
    pub fn shown(&self, is_shown: impl Fn(&str, &str) -> bool) -> Vec<bool> {
        let mut shown = vec![false; self.files.len()];
        for (name, &number) in &self.numbers {
            shown[number as usize] = is_shown(name, &self.files[number as usize]);
        }
        shown
    }

    /// Returns the tables of groups, each of the first `limit` of those functions that `shown` says, in the order of [`Top`] or by total before
    /// self value, and how many of its sums do not fit in 64 bits.
    pub fn tops<'a>(
        &'a self,
        limit: Option<usize>,
        shown: &'a [bool],
        by_total: bool,
    ) -> impl Fn(usize) -> (Top, usize) + 'a {
        let mut names = vec![""; self.files.len()];
        for (name, &number) in &self.numbers {
            names[number as usize] = name;
        }
        move |group| {
            let table = &self.groups[group];
            let rows = table.rows.iter().filter(|(number, _)| shown[**number as usize]);
            let rows = rows.map(|(&number, sums)| (names[number as usize], &*self.files[number as usize], sums));
            let key = |sums: &Sums| match by_total {
                true => (sums.total, sums.self_value),
                false => (sums.self_value, sums.total),
            };
            let (rows, truncated, saturated) = sorted(rows.collect(), limit, key);
            let total = clamp(table.total);
            (Top { total, base_total: 0, rows, truncated }, saturated + usize::from(i128::from(total) != table.total))
        }
    }
}

// === impl Calls ===

impl Calls {
    /// Starts with nothing known of the function called `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            file: String::new(),
            is_found: false,
            callers: Rows::default(),
            callees: Rows::default(),
        }
    }

    /// Adds values of stacks in several parts, each the numbers of stacks and their values, and returns the function's sums in each.
    /// A call counts once a stack, and one of a function to itself does not count, as in pprof's graphs.
    pub fn add<'a>(
        &mut self,
        stacks: &Stacks<'_>,
        parts: impl ExactSizeIterator<Item = (&'a [u32], &'a [i128])>,
    ) -> Vec<Sums> {
        let Some(name) = stacks.functions.iter().position(|name| *name == self.name) else {
            return vec![Sums::default(); parts.len()];
        };
        let name = name as u32;
        note_file(&mut self.file, stacks.name(name).1);
        let has = |stack| stacks.get(stack).is_some_and(|stack| stack.contains(&name));
        let has: Vec<bool> = (0..stacks.places.len()).map(has).collect();
        let mut values = vec![0i128; has.len()];
        let part = |(numbers, of_part): (&[u32], &[i128])| {
            let mut sums = Sums::default();
            for (&stack, &value) in numbers.iter().zip(of_part) {
                let stack = stack as usize;
                if has.get(stack) == Some(&true) {
                    values[stack] = values[stack].saturating_add(value);
                    sums.total = sums.total.saturating_add(value);
                    if stacks.get(stack).is_some_and(|stack| stack[0] == name) {
                        sums.self_value = sums.self_value.saturating_add(value);
                    }
                }
            }
            sums
        };
        let sums = parts.map(part).collect();
        for (stack, value) in values.into_iter().enumerate().filter(|(_, value)| *value != 0) {
            self.is_found = true;
            self.add_calls(stacks, stacks.get(stack).unwrap_or_default(), name, value);
        }
        sums
    }

    fn add_calls(&mut self, stacks: &Stacks<'_>, stack: &[u32], name: u32, value: i128) {
        // For each call of the stack, once: who is at its other end, and whether what was called is the leaf.
        let (mut callers, mut callees) = (Vec::<(u32, bool)>::new(), Vec::<(u32, bool)>::new());
        for (at, pair) in stack.windows(2).enumerate() {
            let (called, caller, is_leaf) = (pair[0], pair[1], at == 0);
            if called == caller {
                continue;
            }
            let (calls, other) = match (called == name, caller == name) {
                (true, _) => (&mut callers, caller),
                (_, true) => (&mut callees, called),
                _ => continue,
            };
            // The leaf is met first, so whether it is one is known when its call is.
            if !calls.iter().any(|(known, _)| *known == other) {
                calls.push((other, is_leaf));
            }
        }
        for (rows, calls) in [(&mut self.callers, callers), (&mut self.callees, callees)] {
            for (other, is_leaf) in calls {
                rows.add(stacks, other, &Sums { self_value: if is_leaf { value } else { 0 }, total: value });
            }
        }
    }

    /// Returns what it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its source file, empty where none is known; the first in the alphabet where there are several.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Returns whether any sample has it.
    pub fn is_found(&self) -> bool {
        self.is_found
    }

    /// Returns how many bytes of memory it holds, about.
    pub fn memory(&self) -> usize {
        self.callers.bytes + self.callees.bytes
    }

    /// Returns the first `limit` direct callers by descending total: what flows from each into the function, and what of that the
    /// function used itself.
    pub fn callers(&self, limit: usize) -> Vec<Row> {
        self.callers.sorted(limit, |sums| (sums.total, sums.self_value))
    }

    /// Returns the first `limit` direct callees by descending total: what flows into each from the function, and what of that it used
    /// itself.
    pub fn callees(&self, limit: usize) -> Vec<Row> {
        self.callees.sorted(limit, |sums| (sums.total, sums.self_value))
    }
}

// === impl Rows ===

impl Rows {
    fn add(&mut self, stacks: &Stacks<'_>, name: u32, sums: &Sums) {
        let (name, file) = stacks.name(name);
        let row = match self.by_name.get_mut(name) {
            Some(row) => row,
            None => {
                self.bytes += name.len() + file.len() + ENTRY_BYTES;
                self.by_name.entry(name.to_owned()).or_default()
            }
        };
        note_file(&mut row.file, file);
        row.sums.add(sums);
    }

    /// Returns the first `limit` rows by descending `key`, then by name.
    fn sorted(&self, limit: usize, key: impl Fn(&Sums) -> (i128, i128)) -> Vec<Row> {
        let rows = self.by_name.iter().map(|(name, Growing { file, sums })| (&**name, &**file, sums));
        sorted(rows.collect(), Some(limit), key).0
    }
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.self_value = self.self_value.saturating_add(other.self_value);
        self.total = self.total.saturating_add(other.total);
    }
}

/// Returns the first `limit` of functions - name, file and sums - by descending `key`, then by name; how many more there are; and how many
/// sums do not fit in 64 bits. What cancelled itself out is no row.
fn sorted(
    mut rows: Vec<(&str, &str, &Sums)>,
    limit: Option<usize>,
    key: impl Fn(&Sums) -> (i128, i128),
) -> (Vec<Row>, usize, usize) {
    rows.retain(|(_, _, sums)| **sums != Sums::default());
    rows.sort_unstable_by(|(a, _, x), (b, _, y)| (Reverse(key(x)), a).cmp(&(Reverse(key(y)), b)));
    let kept = limit.unwrap_or(usize::MAX).min(rows.len());
    let truncated = rows.len() - kept;
    let mut saturated = 0;
    let mut fit = |sum| {
        let fitting = clamp(sum);
        saturated += usize::from(i128::from(fitting) != sum);
        fitting
    };
    let row = |&(name, file, sums): &(&str, &str, &Sums)| Row {
        name: name.to_owned(),
        file: file.to_owned(),
        self_value: fit(sums.self_value),
        base_self: 0,
        base_total: 0,
        total: fit(sums.total),
    };
    let rows = rows[..kept].iter().map(row).collect();
    (rows, truncated, saturated)
}

/// Keeps the file that comes first in the alphabet.
fn note_file(noted: &mut String, file: &str) {
    if !file.is_empty() && (noted.is_empty() || *file < **noted) {
        file.clone_into(noted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Function, Line, Location, ValueType};

    /// A profile of these stacks, leaf first, a letter a function.
    fn profile(stacks: &[&str]) -> Profile<'static> {
        const LETTERS: &[u8] = b"abcdefgh";
        let mut profile = Profile { strings: vec![b""], ..Profile::default() };
        profile.sample_types.push(ValueType::default());
        for (i, letter) in LETTERS.chunks(1).enumerate() {
            let at = i as u32;
            profile.strings.push(letter);
            profile.functions.push(Function { id: u64::from(at) + 1, name: at + 1, ..Function::default() });
            profile.lines.push(Line { function: at, ..Line::default() });
            let (lines_start, lines_end) = (at, at + 1);
            let id = u64::from(at) + 1;
            profile.locations.push(Location { id, mapping: NONE, lines_start, lines_end, ..Location::default() });
        }
        for stack in stacks {
            profile.samples.locations.extend(stack.bytes().map(|letter| u32::from(letter - b'a')));
            profile.samples.location_ends.push(profile.samples.locations.len() as u32);
            profile.samples.label_ends.push(0);
            profile.samples.values.push(profile.samples.values.len() as i64);
        }
        profile
    }

    fn shown(rows: &[Row]) -> Vec<(&str, i64, i64)> {
        rows.iter().map(|row| (row.name.as_str(), row.self_value, row.total)).collect()
    }

    /// Goal: the table in parts is the table at once, recursion and values that cancel out included.
    #[test]
    fn a_table_in_parts_is_that_of_all() {
        let mut profile = profile(&["cba", "ca", "bcba", "", "d"]);
        let stacks = Stacks::new(&profile);
        let (one, two) = ([5, 0, 7, 1, 3], [1, 2, i64::MAX, 4, -3]);
        let mut tables = Tables::new(2);
        let numbers = [0, 1, 2, 3, 4];
        let values = [one, two].map(|values| values.map(i128::from));
        tables.add(&stacks, values.iter().zip(0..).map(|(values, group)| (group, &numbers[..], &values[..])));
        let all = tables.add_all();
        profile.samples.values = one.into_iter().chain(two).collect();
        let again = profile.samples.clone();
        // The same stacks once more for the second half of the values.
        let length = profile.samples.locations.len() as u32;
        profile.samples.locations.extend(&again.locations);
        profile.samples.location_ends.extend(again.location_ends.iter().map(|end| end + length));
        profile.samples.label_ends.extend(&again.label_ends);
        let expected = Top::new(&profile, 0, None);
        let everything = tables.shown(|_, _| true);
        let (top, saturated) = tables.tops(None, &everything, false)(all);
        assert_eq!(top, expected);
        assert_eq!(saturated, 5, "b itself, and all of b, of c, of a and of everything");
        assert!(top.rows.iter().all(|row| row.name != "d"));
        let but_b = tables.shown(|name, _| name != "b");
        let (cut, _) = tables.tops(Some(1), &but_b, false)(all);
        assert_eq!((cut.rows.len(), cut.truncated), (1, 1));
    }

    /// Goal: a call counts once a stack, recursion is no call, and what is used at the end of a call is told.
    #[test]
    fn callers_and_callees_are_those_of_the_calls() {
        let stacks = Stacks::new(&profile(&["cba", "bba", "bcba", "bd", "e"]));
        let mut calls = Calls::new("b");
        let numbers = [0u32, 1, 2, 3, 4];
        let values = [1i128, 10, 100, 1_000, 10_000];
        let parts = [(&numbers[..2], &values[..2]), (&numbers[2..], &values[2..])];
        let sums = calls.add(&stacks, parts.into_iter());
        assert_eq!(sums[0], Sums { self_value: 10, total: 11 });
        assert_eq!(sums[1], Sums { self_value: 1_100, total: 1_100 });
        assert_eq!(shown(&calls.callers(9)), [("d", 1_000, 1_000), ("a", 0, 111), ("c", 100, 100)]);
        assert_eq!(shown(&calls.callees(9)), [("c", 1, 101)]);
        assert_eq!(calls.callers(1).len(), 1);
        assert!(calls.is_found());

        let mut unknown = Calls::new("x");
        assert_eq!(unknown.add(&stacks, parts.into_iter()), [Sums::default(), Sums::default()]);
        assert!(!unknown.is_found());
    }
}
