//! Sums by function over many profiles that are never merged: tables like [`Top`], and who calls a function and whom it calls.
//!
//! A [`Stacks`] has the frames of some stacks, one a sample of a profile; values for these stacks come apart, as often as there are
//! groups of profiles to be told apart. Sums are commutative and exact until they are shown, so profiles may come in any order. The numbers
//! are those of [`Top`] over the merge, for the frames are named by the same code; only that each profile's own `drop_frames` counts,
//! where a merge has those of its first.

use std::cmp::Reverse;

use hashbrown::HashMap;

use crate::{
    frames::Frames,
    model::{NONE, Profile},
    top::{Row, Top},
    tree::clamp,
};

/// What an entry of a table takes beside its name, in bytes, about.
const ENTRY_BYTES: usize = 3 * size_of::<Growing>();

/// The frames of stacks, each known by a number.
pub struct Stacks {
    frames: Frames,
    /// The place of the stack with each number, or [`NONE`] where it is left out.
    places: Vec<u32>,
    /// Indices of names, stack by stack, leaf first.
    names: Vec<u32>,
    /// Where the stack at each place ends in `names`.
    ends: Vec<usize>,
}

/// A table of functions that grows.
#[derive(Debug, Default)]
pub struct Table {
    total: i128,
    rows: Rows,
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

impl Stacks {
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
        Self { frames, places, names, ends }
    }

    /// Returns the names of a stack, leaf first; none where it is left out.
    fn get(&self, number: usize) -> Option<&[u32]> {
        let place = self.places.get(number).filter(|&&place| place != NONE).copied()? as usize;
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        Some(&self.names[start..self.ends[place]])
    }

    /// Returns the name and the source file of a function by its number here.
    pub fn name(&self, number: u32) -> (&str, &str) {
        (&self.frames.names()[number as usize], self.frames.file(number))
    }

    /// Sums values of stacks, given as in [`Table::add`]: the sum of all, and those of each function that is in any, by its number here.
    pub fn sums(&self, values: impl Iterator<Item = (usize, i128)>) -> (i128, Vec<(u32, Sums)>) {
        let mut total = 0i128;
        let mut sums = vec![Sums::default(); self.frames.names().len()];
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

// === impl Table ===

impl Table {
    /// Adds values of stacks: pairs of the number of a stack and its value. A stack may stand several times; one that is left out does
    /// not count.
    pub fn add(&mut self, stacks: &Stacks, values: impl Iterator<Item = (usize, i128)>) {
        let (total, sums) = stacks.sums(values);
        self.total = self.total.saturating_add(total);
        sums.iter().for_each(|(name, sums)| self.rows.add(stacks, *name, sums));
    }

    /// Adds what another table holds.
    pub fn merge(&mut self, other: &Self) {
        self.total = self.total.saturating_add(other.total);
        for (name, row) in &other.rows.by_name {
            self.rows.add_row(name, &row.file, &row.sums);
        }
    }

    /// Returns the sum of all samples.
    pub fn total(&self) -> i128 {
        self.total
    }

    /// Returns how many bytes of memory it holds, about.
    pub fn memory(&self) -> usize {
        self.rows.bytes
    }

    /// Returns the first `limit` of those functions whose name and file `is_shown` takes, in the order of [`Top`], and how many of the
    /// sums do not fit in 64 bits.
    pub fn top(&self, limit: Option<usize>, is_shown: impl Fn(&str, &str) -> bool) -> (Top, usize) {
        let (rows, truncated, saturated) = self.rows.sorted(limit, is_shown, |sums| (sums.self_value, sums.total));
        let total = clamp(self.total);
        (Top { total, base_total: 0, rows, truncated }, saturated + usize::from(i128::from(total) != self.total))
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
        stacks: &Stacks,
        parts: impl ExactSizeIterator<Item = (&'a [u32], &'a [i128])>,
    ) -> Vec<Sums> {
        let Some(name) = stacks.frames.names().iter().position(|name| *name == self.name) else {
            return vec![Sums::default(); parts.len()];
        };
        let name = name as u32;
        note_file(&mut self.file, stacks.frames.file(name));
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

    fn add_calls(&mut self, stacks: &Stacks, stack: &[u32], name: u32, value: i128) {
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
        self.callers.sorted(Some(limit), |_, _| true, |sums| (sums.total, sums.self_value)).0
    }

    /// Returns the first `limit` direct callees by descending total: what flows into each from the function, and what of that it used
    /// itself.
    pub fn callees(&self, limit: usize) -> Vec<Row> {
        self.callees.sorted(Some(limit), |_, _| true, |sums| (sums.total, sums.self_value)).0
    }
}

// === impl Rows ===

impl Rows {
    fn add(&mut self, stacks: &Stacks, name: u32, sums: &Sums) {
        self.add_row(&stacks.frames.names()[name as usize], stacks.frames.file(name), sums);
    }

    fn add_row(&mut self, name: &str, file: &str, sums: &Sums) {
        let row = match self.by_name.get_mut(name) {
            Some(row) => row,
            None => {
                self.bytes += name.len() + file.len() + ENTRY_BYTES;
                self.by_name.entry(name.to_owned()).or_default()
            }
        };
        note_file(&mut row.file, file);
        row.sums.self_value = row.sums.self_value.saturating_add(sums.self_value);
        row.sums.total = row.sums.total.saturating_add(sums.total);
    }

    /// Returns the first `limit` of the rows that are shown by descending `key`, then by name; how many more there are; and how many sums
    /// do not fit in 64 bits. What cancelled itself out is no row.
    fn sorted(
        &self,
        limit: Option<usize>,
        is_shown: impl Fn(&str, &str) -> bool,
        key: impl Fn(&Sums) -> (i128, i128),
    ) -> (Vec<Row>, usize, usize) {
        let mut rows: Vec<(&String, &Growing)> = (self.by_name.iter())
            .filter(|(_, row)| row.sums != Sums::default())
            .filter(|(name, row)| is_shown(name, &row.file))
            .collect();
        rows.sort_unstable_by(|(a, x), (b, y)| (Reverse(key(&x.sums)), a).cmp(&(Reverse(key(&y.sums)), b)));
        let kept = limit.unwrap_or(usize::MAX).min(rows.len());
        let truncated = rows.len() - kept;
        let mut saturated = 0;
        let mut fit = |sum| {
            let fitting = clamp(sum);
            saturated += usize::from(i128::from(fitting) != sum);
            fitting
        };
        let row = |(name, Growing { file, sums }): &(&String, &Growing)| Row {
            name: (*name).clone(),
            file: file.clone(),
            self_value: fit(sums.self_value),
            base_self: 0,
            base_total: 0,
            total: fit(sums.total),
        };
        let rows = rows[..kept].iter().map(row).collect();
        (rows, truncated, saturated)
    }
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
        let (mut table, mut other) = (Table::default(), Table::default());
        let part = |values: [i64; 5]| values.into_iter().map(i128::from).enumerate();
        table.add(&stacks, part(one));
        other.add(&stacks, part(two));
        table.merge(&other);
        profile.samples.values = one.into_iter().chain(two).collect();
        let again = profile.samples.clone();
        // The same stacks once more for the second half of the values.
        let length = profile.samples.locations.len() as u32;
        profile.samples.locations.extend(&again.locations);
        profile.samples.location_ends.extend(again.location_ends.iter().map(|end| end + length));
        profile.samples.label_ends.extend(&again.label_ends);
        let expected = Top::new(&profile, 0, None);
        let (top, saturated) = table.top(None, |_, _| true);
        assert_eq!(top, expected);
        assert_eq!(saturated, 5, "b itself, and all of b, of c, of a and of everything");
        assert!(top.rows.iter().all(|row| row.name != "d"));
        let (cut, _) = table.top(Some(1), |name, _| name != "b");
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
