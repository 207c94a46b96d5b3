//! The flame graph: all stacks of a profile folded into one tree of names, root first.
//!
//! Stacks flow in leaf first as pprof has them, and out comes the tree in depth-first order: parents before children, children by
//! descending total, then by name, so that equal profiles give equal trees. Nothing here recurses: a stack may be thousands of frames
//! deep. A limit cuts whole subtrees away, smallest first; what is cut stays in the totals above it.
//!
//! How many nodes a tree has is not known before it is there: at most one a frame of each distinct stack, which for deep stacks that share
//! nothing is tens of times what a profile takes. So it asks for room as it grows, and says each time what all of it takes from then on.
//!
//! A [`View`] looks at one function, wherever it is called: at all that it called, or at all that called it. The graph of a diff has
//! the sums of both sides in every node; it is made of the two columns of [`crate::diff::pair`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::convert::Infallible;
use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::{
    frames::{Frames, Origin, Origins},
    memory::written,
    model::{NONE, Profile},
};

/// The name of the root.
const ROOT: &str = "total";

/// For how many nodes there is room at first; later for half as many again.
const CAPACITY_MIN: usize = 256;

/// A flame graph of one sample type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlameGraph {
    /// The distinct names of the nodes.
    pub names: Vec<String>,
    /// Where each of the names comes from, by the samples that have a value.
    pub origins: Vec<Origin>,
    /// The nodes in depth-first order; the first is the root, whose name is `total`.
    pub nodes: Vec<Node>,
    /// How many nodes the limit cut away.
    pub truncated: usize,
}

/// A node of a flame graph: one name under the names above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// An index into [`FlameGraph::names`].
    pub name: u32,
    /// How deep it lies; the root is 0.
    pub depth: u32,
    /// The sum of the samples through this node, in the unit of the sample type.
    pub total: i64,
    /// The sum of the samples that end in this node.
    pub self_value: i64,
    /// The same as `total` of the base of a diff; otherwise 0.
    pub base_total: i64,
    /// The same as `self_value` of the base of a diff; otherwise 0.
    pub base_self: i64,
}

/// Which part of the stacks a flame graph shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View<'a> {
    /// Whole stacks.
    #[default]
    All,
    /// What called the function of this name: it first, then its callers, outwards. Of several occurrences in a stack, the outermost one
    /// counts, so that a recursion counts once.
    Callers(&'a str),
    /// What the function of this name called: stacks from its outermost occurrence inwards.
    Callees(&'a str),
}

// === impl View ===

impl View<'_> {
    /// Returns the function that is looked at.
    fn function(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Callers(name) | Self::Callees(name) => Some(name),
        }
    }

    /// Cuts a stack (leaf first) down to what is shown, and returns whether that is anything.
    fn cut(&self, stack: &mut Vec<u32>, function: u32) -> bool {
        if *self == Self::All {
            return true;
        }
        let Some(outermost) = stack.iter().rposition(|&name| name == function) else { return false };
        if matches!(self, Self::Callees(_)) {
            stack.truncate(outermost + 1);
        } else {
            stack.drain(..outermost);
            stack.reverse();
        }
        true
    }
}

// === impl FlameGraph ===

impl FlameGraph {
    /// Folds the samples of `profile` by their value of sample type `sample_type`, an index into [`Profile::sample_types`].
    ///
    /// At most `limit` nodes are kept, the root among them: those with the largest totals. Sums beyond 64 bits stand at the largest.
    pub fn new(profile: &Profile<'_>, sample_type: usize, limit: Option<usize>) -> Self {
        Self::view(profile, sample_type, View::All, limit)
    }

    /// Folds what `view` shows of the samples. It is empty but for its root where no stack has the function.
    pub fn view(profile: &Profile<'_>, sample_type: usize, view: View<'_>, limit: Option<usize>) -> Self {
        let Ok(graph) = Self::view_within(profile, sample_type, view, limit, any_room);
        graph
    }

    /// The same, where there is room: `room` is told, before more is taken, how many bytes the tree and what is made of it take from then on.
    ///
    /// # Errors
    /// What `room` says where there is none.
    pub fn view_within<E>(
        profile: &Profile<'_>,
        sample_type: usize,
        view: View<'_>,
        limit: Option<usize>,
        room: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<Self, E> {
        Self::build(profile, [sample_type], view, limit, room)
    }

    /// Folds the two columns of a [`crate::diff::pair`]. Children come by descending sum of both sides, and so does what a limit keeps.
    pub fn diff(pair: &Profile<'_>, limit: Option<usize>) -> Self {
        let Ok(graph) = Self::diff_within(pair, limit, any_room);
        graph
    }

    /// The same, where there is room, as [`FlameGraph::view_within`].
    ///
    /// # Errors
    /// What `room` says where there is none.
    pub fn diff_within<E>(
        pair: &Profile<'_>,
        limit: Option<usize>,
        room: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<Self, E> {
        Self::build(pair, [0, 1], View::All, limit, room)
    }

    fn build<const N: usize, E>(
        profile: &Profile<'_>,
        columns: [usize; N],
        view: View<'_>,
        limit: Option<usize>,
        mut room: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<Self, E> {
        let frames = Frames::new(profile);
        let position = |name: &str| frames.names().iter().position(|known| known == name);
        let function = view.function().and_then(position).map_or(NONE, |function| function as u32);
        let mut tree = Tree::new();
        let mut stack = Vec::new();
        let mut used = vec![false; profile.locations.len()];
        for i in 0..profile.samples.len() {
            let row = profile.values(i);
            let values = columns.map(|column| row[column]);
            if values.iter().any(|&value| value != 0) {
                frames.stack(profile.samples.stack(i), &mut stack);
                if view.cut(&mut stack, function) {
                    profile.samples.stack(i).iter().for_each(|&location| used[location as usize] = true);
                    tree.add(&stack, values, &mut room)?;
                }
            }
        }
        tree.sum();
        let children = tree.children(frames.names(), &mut room)?;
        let kept = match limit.map(|limit| limit.max(1)) {
            Some(limit) if limit < tree.nodes.len() => Some(tree.largest(&children, limit, &mut room)?),
            _ => None,
        };
        tree.flatten(&children, frames.names(), &frames.origins(profile, &used), kept.as_deref(), &mut room)
    }
}

/// Says that there is room for anything.
fn any_room(_bytes: u64) -> Result<(), Infallible> {
    Ok(())
}

/// The tree while it grows: parents have smaller indices than their children. It sums `N` columns at once.
struct Tree<const N: usize> {
    nodes: Vec<Growing>,
    /// What the samples that end in each node add up to; once the tree is summed, the samples through it. The sums are wide enough for any
    /// number of 64-bit values.
    sums: Vec<[i128; N]>,
    /// The nodes by their parents and names, until the tree is summed.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

/// A node while the tree grows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Growing {
    parent: u32,
    name: u32,
}

/// The children of all nodes, those of one parent together and in their final order.
struct Children {
    nodes: Vec<u32>,
    /// Where each parent's children end in `nodes`.
    ends: Vec<u32>,
}

// === impl Tree ===

impl<const N: usize> Tree<N> {
    fn new() -> Self {
        Self {
            nodes: vec![Growing { parent: NONE, name: NONE }],
            sums: vec![[0; N]],
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Adds a stack, leaf first.
    fn add<E>(
        &mut self,
        stack: &[u32],
        values: [i64; N],
        room: &mut impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        for &name in stack.iter().rev() {
            let node = Growing { parent: at, name };
            let hash = self.hasher.hash_one(node);
            at = match self.index.find(hash, |&known| self.nodes[known as usize] == node) {
                Some(&known) => known,
                None => self.push(node, hash, room)?,
            };
        }
        for (sum, value) in self.sums[at as usize].iter_mut().zip(values) {
            *sum += i128::from(value);
        }
        Ok(())
    }

    /// Adds a node that is not there, and returns its number.
    fn push<E>(&mut self, node: Growing, hash: u64, room: &mut impl FnMut(u64) -> Result<(), E>) -> Result<u32, E> {
        if self.nodes.len() == self.nodes.capacity() {
            self.grow(room)?;
        }
        let number = u32::try_from(self.nodes.len()).expect("a node a frame of a stack, which are counted in u32");
        self.nodes.push(node);
        self.sums.push([0; N]);
        let Self { nodes, index, hasher, .. } = self;
        index.insert_unique(hash, number, |&node| hasher.hash_one(nodes[node as usize]));
        Ok(number)
    }

    /// Makes place for more nodes.
    fn grow<E>(&mut self, room: &mut impl FnMut(u64) -> Result<(), E>) -> Result<(), E> {
        let before = self.nodes.len();
        let more = (before / 2).max(CAPACITY_MIN);
        // As hashbrown does: a byte and a number a slot, an eighth of which stays empty.
        let slots = ((before + more) * 8 / 7).next_power_of_two();
        let index = (slots * (size_of::<u32>() + 1)).max(self.index.allocation_size());
        // What is copied is there twice meanwhile.
        let copied = (before * size_of::<[i128; N]>()).max(self.index.allocation_size());
        room(((before + more) * Self::NODE_BYTES + index + copied) as u64)?;
        self.nodes.reserve_exact(more);
        self.sums.reserve_exact(more);
        let Self { nodes, index, hasher, .. } = self;
        index.reserve(more, |&node| hasher.hash_one(nodes[node as usize]));
        Ok(())
    }

    /// What a node takes in the tree, beside the index.
    const NODE_BYTES: usize = size_of::<Growing>() + size_of::<[i128; N]>();

    /// Returns how many bytes the tree takes, beside the index.
    fn bytes(&self) -> usize {
        self.nodes.capacity() * Self::NODE_BYTES
    }

    /// Computes the totals. Nothing can be added then.
    fn sum(&mut self) {
        self.index = HashTable::new();
        for i in (1..self.nodes.len()).rev() {
            let (parent, total) = (self.nodes[i].parent as usize, self.sums[i]);
            (0..N).for_each(|column| self.sums[parent][column] += total[column]);
        }
    }

    /// Returns by what a node is ordered among others.
    fn order(&self, node: u32) -> i128 {
        self.sums[node as usize].iter().sum()
    }

    /// Orders the children of every node by descending total, then by name.
    fn children<E>(&self, names: &[String], room: &mut impl FnMut(u64) -> Result<(), E>) -> Result<Children, E> {
        room((self.bytes() + self.nodes.len() * Children::NODE_BYTES) as u64)?;
        let mut nodes: Vec<u32> = (1..self.nodes.len() as u32).collect();
        nodes.sort_unstable_by(|&a, &b| {
            let of = |node: u32| self.nodes[node as usize];
            let by_name = || names[of(a).name as usize].cmp(&names[of(b).name as usize]);
            of(a).parent.cmp(&of(b).parent).then_with(|| self.order(b).cmp(&self.order(a))).then_with(by_name)
        });
        let mut ends: Vec<u32> = written(self.nodes.len());
        for node in &self.nodes[1..] {
            ends[node.parent as usize] += 1;
        }
        let mut end = 0;
        for slot in &mut ends {
            end += *slot;
            *slot = end;
        }
        Ok(Children { nodes, ends })
    }

    /// Chooses the `limit` nodes with the largest totals, none without its parent.
    fn largest<E>(
        &self,
        children: &Children,
        limit: usize,
        room: &mut impl FnMut(u64) -> Result<(), E>,
    ) -> Result<Vec<bool>, E> {
        let taken = self.bytes() + self.nodes.len() * (Children::NODE_BYTES + size_of::<bool>());
        room(taken as u64)?;
        let mut kept: Vec<bool> = written(self.nodes.len());
        let mut candidates = BinaryHeap::from([Candidate { weight: u128::MAX, sequence: Reverse(0), node: 0 }]);
        let mut sequence = 0;
        for _ in 0..limit {
            let Some(Candidate { node, .. }) = candidates.pop() else { break };
            kept[node as usize] = true;
            let (needed, before) = (candidates.len() + children.of(node).len(), candidates.capacity());
            if needed > before {
                let capacity = needed.max(2 * before);
                room((taken + (before + capacity) * size_of::<Candidate>()) as u64)?;
                candidates.reserve_exact(capacity - candidates.len());
            }
            for &child in children.of(node) {
                sequence += 1;
                let weight = self.sums[child as usize].iter().map(|total| total.unsigned_abs()).sum();
                candidates.push(Candidate { weight, sequence: Reverse(sequence), node: child });
            }
        }
        Ok(kept)
    }

    /// Writes the nodes out depth-first: all, or those that are kept.
    fn flatten<E>(
        &self,
        children: &Children,
        names: &[String],
        origins: &Origins<'_>,
        kept: Option<&[bool]>,
        room: &mut impl FnMut(u64) -> Result<(), E>,
    ) -> Result<FlameGraph, E> {
        let is_kept = |node: u32| kept.is_none_or(|kept| kept[node as usize]);
        let written = kept.map_or(self.nodes.len(), |kept| kept.iter().filter(|is_kept| **is_kept).count());
        // Those that are open may be nearly all, where all are the children of one.
        let (flags, open) = (kept.map_or(0, <[bool]>::len), size_of::<(u32, u32)>());
        let taken = self.bytes() + self.nodes.len() * Children::NODE_BYTES + flags;
        room((taken + written * (size_of::<Node>() + 2 * open)) as u64)?;
        let mut graph = FlameGraph {
            names: vec![ROOT.to_owned()],
            origins: vec![Origin::default()],
            nodes: Vec::with_capacity(written),
            truncated: self.nodes.len() - written,
        };
        let mut renamed = vec![NONE; names.len()];
        let mut open = vec![(0, 0)];
        while let Some((node, depth)) = open.pop() {
            let (Growing { name, .. }, totals) = (self.nodes[node as usize], self.sums[node as usize]);
            let mut selves = totals;
            for &child in children.of(node) {
                (0..N).for_each(|column| selves[column] -= self.sums[child as usize][column]);
            }
            let name = if node == 0 {
                0
            } else {
                let slot = &mut renamed[name as usize];
                if *slot == NONE {
                    *slot = graph.names.len() as u32;
                    graph.names.push(names[name as usize].clone());
                    graph.origins.push(origins.get(name));
                }
                *slot
            };
            let column = |sums: [i128; N], column: usize| sums.get(column).copied().map_or(0, clamp);
            graph.nodes.push(Node {
                name,
                depth,
                total: column(totals, 0),
                self_value: column(selves, 0),
                base_total: column(totals, 1),
                base_self: column(selves, 1),
            });
            open.extend(
                children.of(node).iter().rev().filter(|&&child| is_kept(child)).map(|&child| (child, depth + 1)),
            );
        }
        Ok(graph)
    }
}

// === impl Children ===

impl Children {
    /// What a node takes.
    const NODE_BYTES: usize = 2 * size_of::<u32>();

    fn of(&self, node: u32) -> &[u32] {
        let start = if node == 0 { 0 } else { self.ends[node as usize - 1] };
        &self.nodes[start as usize..self.ends[node as usize] as usize]
    }
}

/// A node that may be kept next: the heaviest first, of equals the one met first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    weight: u128,
    sequence: Reverse<usize>,
    node: u32,
}

/// Returns `sum`, or the nearest value that 64 bits can hold.
pub(crate) fn clamp(sum: i128) -> i64 {
    sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
