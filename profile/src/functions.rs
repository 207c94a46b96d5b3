//! Sums by function over many profiles that are never merged: tables like [`Top`], and who calls a function and whom it calls.
//!
//! A [`Stacks`] has the frames of some stacks, one a sample of a profile; values for these stacks come apart, as often as there are
//! groups of profiles to be told apart. What they come to ([`Summed`], [`Calls`]) can be kept and added again. Sums are commutative and exact
//! until they are shown, so profiles may come in any order. The numbers are those of [`Top`] over the merge, for the frames are named by the
//! same code; only that each profile's own `drop_frames` counts, where a merge has those of its first.
//!
//! Stacks are a tree, and so are summed: a value is added where its stack ends and flows to its callers once with all others that pass
//! there, not frame by frame. In which frame a function occurs for the first time from the root is the same for all stacks through it, and
//! found once; there, and nowhere else, what flows by is its total.

mod calls;
mod summed;

use std::borrow::Cow;
use std::cmp::Reverse;

use hashbrown::HashMap;

pub use calls::Calls;
pub use summed::Summed;

use crate::{
    frames::{Frames, Namer, Naming, Numbered},
    memory::written,
    model::{NONE, Profile},
    top::{Row, Top},
    tree::clamp,
};

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

    /// Returns how many nodes the tree of stacks has beside its root, which is node 0.
    fn nodes(&self) -> usize;

    /// Returns the node that called a node other than the root, whose number is less than its own, and its location.
    fn node(&self, node: u32) -> (u32, u32);
}

/// The frames of stacks, each known by a number.
pub struct Stacks<'t> {
    /// The distinct names, and the hash and the source file of each.
    functions: Vec<Cow<'t, str>>,
    hashes: Vec<u64>,
    files: Vec<Cow<'t, str>>,
    /// The node at which the stack with each number ends, or [`NONE`] where it is left out.
    leaves: Vec<u32>,
    /// Callers before those they called; the first is the root, which has no frames.
    nodes: Vec<Node>,
    /// Indices of names, which nodes have ranges of.
    frames: Vec<u32>,
}

/// A location in a stack.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    caller: u32,
    /// Its frames in [`Stacks::frames`], innermost first; there is one at least.
    frames: (u32, u32),
    /// The same of those names that occur in none of its callers, each once.
    first: (u32, u32),
}

/// Sums values of stacks again and again.
struct Summing<'s> {
    stacks: &'s Stacks<'s>,
    /// What flows into each node.
    values: Vec<i128>,
    /// A bit for each node that something flows into.
    flows: Vec<u64>,
    /// By the numbers of functions.
    sums: Vec<Sums>,
    is_met: Vec<bool>,
}

/// Tables of functions that grow, one a group. Each function is named once, however many have it.
#[derive(Debug, Default)]
pub struct Tables {
    names: Numbered<String>,
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
    rows: ByNumber,
}

/// Sums by the numbers of functions.
#[derive(Debug)]
enum ByNumber {
    /// Of nearly all functions that there are, in their order.
    Dense(Vec<Sums>),
    /// Of some.
    Sparse(HashMap<u32, Sums>),
}

/// The sums of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// The sum of the samples whose leaf it is.
    pub self_value: i128,
    /// The sum of the samples in whose stack it occurs.
    pub total: i128,
}

// === impl Stacks ===

impl<'t> Stacks<'t> {
    /// Names the frames of stacks that are given by the nodes of `tables` at which they end; the first is number 0.
    ///
    /// It is what [`Stacks::new`] makes of a profile of these, if its `drop_frames` drops nothing, and takes less.
    pub fn of(tables: &'t impl Locations, ends: impl Iterator<Item = u32>) -> Self {
        let mut leaves: Vec<u32> = ends.collect();
        let (mut places, mut used) = (vec![NONE; tables.nodes() + 1], 1);
        places[0] = 0;
        for &leaf in &leaves {
            let mut at = leaf;
            while places[at as usize] == NONE {
                places[at as usize] = 0;
                at = tables.node(at).0;
                used += 1;
            }
        }
        let mut namer = Namer::new(tables, used);
        // Mostly a location has a frame or two, and some of them are in these stacks.
        let (mut nodes, mut frames) = (Vec::with_capacity(used), Vec::with_capacity(tables.locations()));
        nodes.push(Node::default());
        // Of each location where its names are, which are looked up when it is first met.
        let mut known: Vec<(u32, u32)> = written(tables.locations());
        for node in 1..places.len() {
            if places[node] == NONE {
                continue;
            }
            places[node] = nodes.len() as u32;
            let (caller, location) = tables.node(node as u32);
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
            nodes.push(Node { caller: places[caller as usize], frames: (*start, *end), first: (0, 0) });
        }
        leaves.iter_mut().for_each(|leaf| *leaf = places[*leaf as usize]);
        let (names, files) = namer.finish();
        let (functions, hashes) = (names.texts, names.hashes);
        Self { functions, hashes, files, leaves, nodes, frames }.with_firsts()
    }

    /// Names the frames of the stacks of all samples of `profile`, whose numbers are their first values.
    ///
    /// So a profile can be filtered first: what its samples are called does not change when others go.
    pub fn new(profile: &Profile<'_>) -> Self {
        let frames = Frames::new(profile);
        let (mut leaves, mut nodes) = (Vec::new(), vec![Node::default()]);
        // The locations of the stack before, the root first, and their nodes: mostly the next one has the first of them, too.
        let mut path: Vec<(u32, u32)> = Vec::new();
        for sample in 0..profile.samples.len() {
            let shown = frames.shown(profile.samples.stack(sample));
            let shared = path.iter().zip(shown.iter().rev()).take_while(|((known, _), location)| known == *location);
            path.truncate(shared.count());
            for &location in shown[..shown.len() - path.len()].iter().rev() {
                let caller = path.last().map_or(0, |&(_, node)| node);
                let node = u32::try_from(nodes.len()).expect("memory has no room for so many");
                nodes.push(Node { caller, frames: frames.range(location), first: (0, 0) });
                path.push((location, node));
            }
            let Some(number) = profile.values(sample).first().and_then(|&number| usize::try_from(number).ok()) else {
                continue;
            };
            if leaves.len() <= number {
                leaves.resize(number + 1, NONE);
            }
            leaves[number] = path.last().map_or(0, |&(_, node)| node);
        }
        let (functions, hashes, files, frames) = frames.into_parts();
        let owned = |texts: Vec<String>| texts.into_iter().map(Cow::Owned).collect();
        Self { functions: owned(functions), hashes, files: owned(files), leaves, nodes, frames }.with_firsts()
    }

    /// Finds out which names of each node occur in none of its callers.
    fn with_firsts(mut self) -> Self {
        // Depth first, a node is followed by all that are below it: how many these are says where they end.
        let mut ends: Vec<u32> = vec![1; self.nodes.len()];
        for node in (1..self.nodes.len()).rev() {
            ends[self.nodes[node].caller as usize] += ends[node];
        }
        let (mut order, mut next): (Vec<u32>, Vec<u32>) = (written(self.nodes.len()), vec![1; self.nodes.len()]);
        for node in 1..self.nodes.len() {
            let next_of_caller = &mut next[self.nodes[node].caller as usize];
            let (start, end) = (*next_of_caller, *next_of_caller + ends[node]);
            *next_of_caller = end;
            (order[start as usize], next[node], ends[node]) = (node as u32, start + 1, end);
        }
        // Of each name where those end that are below the outermost node that has it.
        let mut met_until: Vec<u32> = written(self.functions.len());
        let mut fresh = Vec::new();
        for (at, &node) in (0..).zip(&order).skip(1) {
            let Node { frames: (start, end), .. } = self.nodes[node as usize];
            fresh.clear();
            for &name in &self.frames[start as usize..end as usize] {
                let met_until = &mut met_until[name as usize];
                if *met_until <= at {
                    *met_until = ends[node as usize];
                    fresh.push(name);
                }
            }
            // Mostly that is all of them.
            self.nodes[node as usize].first = if fresh.len() == (end - start) as usize {
                (start, end)
            } else {
                let start = self.frames.len() as u32;
                self.frames.extend_from_slice(&fresh);
                (start, u32::try_from(self.frames.len()).expect("memory has no room for so many"))
            };
        }
        self
    }

    /// Returns the sum of values of these stacks, given as pairs of the number of a stack and its value. One that is left out does not count.
    pub fn total(&self, values: impl Iterator<Item = (usize, i128)>) -> i128 {
        let kept = values.filter(|(stack, _)| self.leaf(*stack).is_some());
        kept.fold(0, |total, (_, value)| total.saturating_add(value))
    }

    /// Returns the node of a stack; none where it is left out.
    fn leaf(&self, number: usize) -> Option<u32> {
        self.leaves.get(number).copied().filter(|&node| node != NONE)
    }

    /// Returns the name of the innermost frame of the stack that ends at a node; the empty one has none.
    fn innermost(&self, node: u32) -> Option<u32> {
        (node != 0).then(|| self.frames[self.nodes[node as usize].frames.0 as usize])
    }

    /// Returns the names of the frames of a node.
    fn names(&self, (start, end): (u32, u32)) -> &[u32] {
        &self.frames[start as usize..end as usize]
    }

    /// Puts the names of the stack that ends at a node into `into`, leaf first.
    fn names_to_root(&self, mut node: u32, into: &mut Vec<u32>) {
        into.clear();
        while node != 0 {
            let Node { caller, frames, .. } = self.nodes[node as usize];
            into.extend_from_slice(self.names(frames));
            node = caller;
        }
    }

    /// Returns the name and the source file of a function by its number here.
    pub fn name(&self, number: u32) -> (&str, &str) {
        (&self.functions[number as usize], &self.files[number as usize])
    }

    /// Returns how many functions there are.
    pub fn functions(&self) -> usize {
        self.functions.len()
    }

    /// Makes ready to sum values of these stacks.
    fn summing(&self) -> Summing<'_> {
        Summing {
            stacks: self,
            values: written(self.nodes.len()),
            flows: written(self.nodes.len().div_ceil(BITS)),
            sums: written(self.functions()),
            is_met: written(self.functions()),
        }
    }
}

// === impl Summing ===

/// How many nodes a word of bits is for.
const BITS: usize = u64::BITS as usize;

impl Summing<'_> {
    /// Returns the sum of all values, and those of each function that is in any, by its number in the stacks.
    fn sums(&mut self, values: impl Iterator<Item = (usize, i128)>) -> (i128, Vec<(u32, Sums)>) {
        let Self { stacks, values: flowing, flows, sums, is_met } = self;
        let (mut total, mut met) = (0i128, Vec::new());
        for (stack, value) in values {
            let Some(leaf) = stacks.leaf(stack) else { continue };
            total = total.saturating_add(value);
            let Some(name) = stacks.innermost(leaf) else { continue };
            let self_value = &mut sums[name as usize].self_value;
            *self_value = self_value.saturating_add(value);
            let flowing = &mut flowing[leaf as usize];
            *flowing = flowing.saturating_add(value);
            flows[leaf as usize / BITS] |= 1 << (leaf as usize % BITS);
        }
        // Callers have smaller numbers than those they called, so all that flows into a node has when it is reached.
        for word in (0..flows.len()).rev() {
            while flows[word] != 0 {
                let bit = flows[word].ilog2() as usize;
                flows[word] &= !(1 << bit);
                let node = word * BITS + bit;
                let value = std::mem::take(&mut flowing[node]);
                let Node { caller, first, .. } = stacks.nodes[node];
                for &name in stacks.names(first) {
                    if !std::mem::replace(&mut is_met[name as usize], true) {
                        met.push(name);
                    }
                    let total = &mut sums[name as usize].total;
                    *total = total.saturating_add(value);
                }
                if caller != 0 {
                    let flowing = &mut flowing[caller as usize];
                    *flowing = flowing.saturating_add(value);
                    flows[caller as usize / BITS] |= 1 << (caller as usize % BITS);
                }
            }
        }
        let sums = met.into_iter().map(|name| {
            is_met[name as usize] = false;
            (name, std::mem::take(&mut sums[name as usize]))
        });
        (total, sums.collect())
    }
}

// === impl Tables ===

impl Tables {
    /// Makes empty ones for so many groups.
    pub fn new(groups: usize) -> Self {
        // What is all there is has all functions.
        let table =
            || Table { rows: if groups == 1 { ByNumber::Dense(Vec::new()) } else { ByNumber::default() }, total: 0 };
        Self { groups: (0..groups).map(|_| table()).collect(), ..Self::default() }
    }

    /// Adds sums of which each part is of a group, which stands in `groups` at its number.
    pub fn add(&mut self, summed: &Summed, groups: &[u32]) {
        let numbers: Vec<u32> = summed.hashed_names().map(|(hash, name, file)| self.number(hash, name, file)).collect();
        for (group, total, sums) in summed.parts() {
            let table = &mut self.groups[groups[group as usize] as usize];
            table.total = table.total.saturating_add(total);
            table.rows.make_room(sums.len(), self.files.len());
            for (number, sums) in sums {
                table.rows.of(numbers[number as usize]).add(&sums);
            }
        }
    }

    /// Returns the number of a function.
    fn number(&mut self, hash: u64, name: &str, file: &str) -> u32 {
        let number = self.names.number_hashed(name, hash);
        if self.files.len() < self.names.texts.len() {
            self.files.push(String::new());
            self.bytes += name.len() + file.len() + NAME_BYTES;
        }
        note_file(&mut self.files[number as usize], file);
        number
    }

    /// Adds a group that has what all others have together, and returns its number.
    pub fn add_all(&mut self) -> usize {
        let mut all = Table { rows: ByNumber::Dense(vec![Sums::default(); self.files.len()]), total: 0 };
        for table in &self.groups {
            all.total = all.total.saturating_add(table.total);
            table.rows.iter().for_each(|(number, sums)| all.rows.of(number).add(sums));
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
        let of = |table: &Table| size_of::<Table>() + table.rows.memory();
        self.bytes + self.groups.iter().map(of).sum::<usize>()
    }

    /// Says of each function whether `is_shown` takes its name and file, by its number.
    pub fn shown(&self, is_shown: impl Fn(&str, &str) -> bool) -> Vec<bool> {
        self.names.texts.iter().zip(&self.files).map(|(name, file)| is_shown(name, file)).collect()
    }

    /// Returns what those functions of a group come to that `shown` says: what they used themselves together, and the largest total of any;
    /// none where the group has none of them. Their totals have samples in common, and so no sum.
    pub fn shown_of(&self, group: usize, shown: &[bool]) -> Option<Sums> {
        let rows = self.groups[group]
            .rows
            .iter()
            .filter(|(number, sums)| shown[*number as usize] && **sums != Sums::default());
        rows.fold(None, |all: Option<Sums>, (_, sums)| {
            let Some(all) = all else { return Some(sums.clone()) };
            Some(Sums { self_value: all.self_value.saturating_add(sums.self_value), total: all.total.max(sums.total) })
        })
    }

    /// Returns the tables of groups, each of the first `limit` of those functions that `shown` says, in the order of [`Top`] or by total before
    /// self value, and how many of its sums do not fit in 64 bits.
    pub fn tops<'a>(
        &'a self,
        limit: Option<usize>,
        shown: &'a [bool],
        by_total: bool,
    ) -> impl Fn(usize) -> (Top, usize) + 'a {
        move |group| {
            let table = &self.groups[group];
            let rows = table.rows.iter().filter(|(number, _)| shown[*number as usize]);
            let names = &self.names.texts;
            let rows = rows.map(|(number, sums)| (&*names[number as usize], &*self.files[number as usize], sums));
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

// === impl ByNumber ===

impl Default for ByNumber {
    fn default() -> Self {
        Self::Sparse(HashMap::new())
    }
}

impl ByNumber {
    /// Makes room for so many more, where so many functions are known.
    fn make_room(&mut self, more: usize, known: usize) {
        match self {
            Self::Dense(all) => all.resize(known, Sums::default()),
            Self::Sparse(some) if some.is_empty() => some.reserve(more),
            Self::Sparse(_) => {}
        }
    }

    /// Returns the sums of a function, for which there is room.
    fn of(&mut self, number: u32) -> &mut Sums {
        match self {
            Self::Dense(all) => &mut all[number as usize],
            Self::Sparse(some) => some.entry(number).or_default(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &Sums)> {
        let (all, some) = match self {
            Self::Dense(all) => (Some((0..).zip(all)), None),
            Self::Sparse(some) => (None, Some(some.iter().map(|(&number, sums)| (number, sums)))),
        };
        all.into_iter().flatten().chain(some.into_iter().flatten())
    }

    /// Returns how many bytes of memory they hold, about.
    fn memory(&self) -> usize {
        match self {
            Self::Dense(all) => all.capacity() * size_of::<Sums>(),
            // A table that grows has up to twice the room that it needs, and a byte a place.
            Self::Sparse(some) => some.capacity() * 8 / 7 * (size_of::<(u32, Sums)>() + 1),
        }
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

/// Keeps the file that comes first in the alphabet, whichever was met first: where functions of several files share a name, they are shown
/// with it. A function without a file says nothing of where the others are.
pub fn note_file(noted: &mut String, file: &str) {
    if !file.is_empty() && (noted.is_empty() || *file < **noted) {
        file.clone_into(noted);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Function, Line, Location, ValueType};

    /// A profile of these stacks, leaf first, a letter a function.
    pub(super) fn profile(stacks: &[&str]) -> Profile<'static> {
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

    pub(super) fn shown(rows: &[Row]) -> Vec<(&str, i64, i64)> {
        rows.iter().map(|row| (row.name.as_str(), row.self_value, row.total)).collect()
    }

    /// Goal: the table in parts is the table at once, recursion and values that cancel out included.
    #[test]
    fn a_table_in_parts_is_that_of_all() {
        let mut profile = profile(&["cba", "ca", "bcba", "", "d"]);
        let stacks = Stacks::new(&profile);
        let (one, two) = ([5, 0, 7, 1, 3], [1, 2, i64::MAX, 4, -3]);
        let mut tables = Tables::new(2);
        let numbers = [0usize, 1, 2, 3, 4];
        let values = [one, two].map(|values| values.map(i128::from));
        let parts = values.iter().zip(0..).map(|(values, group)| (group, numbers.into_iter().zip(*values)));
        tables.add(&stacks.sum(parts), &[1, 0]);
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

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Goal: what flows up a tree is what the stacks say one by one, with recursion, frames that are inlined, and stacks that are left out,
        /// asked again and again.
        #[test]
        fn sums_of_a_tree_are_those_of_its_stacks(
            stacks in prop::collection::vec("[a-h]{0,7}", 1..20),
            inlined in prop::collection::vec(0..8u32, 0..4),
            left_out in 0..20usize,
            values in prop::collection::vec((0..20usize, -9..9i128), 0..40),
        ) {
            let mut profile = profile(&stacks.iter().map(String::as_str).collect::<Vec<_>>());
            // The lines of the last location, whose own is the innermost.
            let last = profile.locations.len() - 1;
            profile.lines.extend(inlined.iter().map(|&function| Line { function, ..Line::default() }));
            profile.locations[last].lines_end += inlined.len() as u32;
            if let Some(value) = profile.samples.values.get_mut(left_out) {
                *value = -1;
            }
            let letters = |stack: &str| -> Vec<char> {
                let inlined: String = inlined.iter().map(|&function| char::from(b'a' + function as u8)).collect();
                stack.replace('h', &format!("h{inlined}")).chars().collect()
            };
            let (mut total, mut expected) = (0, BTreeMap::<char, (i128, i128)>::new());
            for (stack, value) in &values {
                let Some(frames) = stacks.get(*stack).filter(|_| *stack != left_out).map(|stack| letters(stack)) else { continue };
                total += value;
                frames.first().into_iter().for_each(|leaf| expected.entry(*leaf).or_default().0 += value);
                frames.iter().collect::<BTreeSet<_>>().into_iter().for_each(|name| expected.entry(*name).or_default().1 += value);
            }
            let stacks = Stacks::new(&profile);
            let summed = stacks.sum([(0, values.iter().copied()), (1, values.iter().copied())]);
            let names: Vec<char> = summed.names().map(|(name, _)| name.chars().next().unwrap()).collect();
            prop_assert_eq!(summed.parts().count(), 2);
            prop_assert_eq!(stacks.total(values.iter().copied()), total);
            for (_, sum, sums) in summed.parts() {
                let found: BTreeMap<char, (i128, i128)> =
                    sums.map(|(number, of)| (names[number as usize], (of.self_value, of.total))).collect();
                prop_assert_eq!((sum, &found), (total, &expected));
            }
        }
    }
}
