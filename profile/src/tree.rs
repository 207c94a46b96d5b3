//! The flame graph: all stacks of a profile folded into one tree of names, root first.
//!
//! Stacks flow in leaf first as pprof has them, and out comes the tree in depth-first order: parents before children, children by
//! descending total, then by name, so that equal profiles give equal trees. Nothing here recurses: a stack may be thousands of frames
//! deep. A limit cuts whole subtrees away, smallest first; what is cut stays in the totals above it.
//!
//! A [`View`] looks at one function, wherever it is called: at all that it called, or at all that called it. The graph of a diff has
//! the sums of both sides in every node; it is made of the two columns of [`crate::diff::pair`].

use std::{cmp::Reverse, collections::BinaryHeap};

use hashbrown::HashMap;

use crate::{
    frames::{Frames, Origin, Origins},
    model::{NONE, Profile},
};

/// The name of the root.
const ROOT: &str = "total";

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
        Self::build(profile, [sample_type], View::All, limit)
    }

    /// Folds what `view` shows of the samples. It is empty but for its root where no stack has the function.
    pub fn view(profile: &Profile<'_>, sample_type: usize, view: View<'_>, limit: Option<usize>) -> Self {
        Self::build(profile, [sample_type], view, limit)
    }

    /// Folds the two columns of a [`crate::diff::pair`]. Children come by descending sum of both sides, and so does what a limit keeps.
    pub fn diff(pair: &Profile<'_>, limit: Option<usize>) -> Self {
        Self::build(pair, [0, 1], View::All, limit)
    }

    fn build<const N: usize>(profile: &Profile<'_>, columns: [usize; N], view: View<'_>, limit: Option<usize>) -> Self {
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
                    tree.add(&stack, values);
                }
            }
        }
        tree.sum();
        let children = tree.children(frames.names());
        let kept = limit.map(|limit| tree.largest(&children, limit.max(1)));
        tree.flatten(&children, frames.names(), &frames.origins(profile, &used), kept.as_deref())
    }
}

/// The tree while it grows: parents have smaller indices than their children. It sums `N` columns at once.
struct Tree<const N: usize> {
    nodes: Vec<Growing<N>>,
    /// The node of a name under a parent.
    index: HashMap<(u32, u32), u32>,
}

/// A node while the tree grows. The sums are wide enough for any number of 64-bit values.
struct Growing<const N: usize> {
    parent: u32,
    name: u32,
    totals: [i128; N],
    selves: [i128; N],
}

impl<const N: usize> Growing<N> {
    fn new(parent: u32, name: u32) -> Self {
        Self { parent, name, totals: [0; N], selves: [0; N] }
    }

    /// Returns by what it is ordered among others.
    fn sum(&self) -> i128 {
        self.totals.iter().sum()
    }
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
        Self { nodes: vec![Growing::new(NONE, NONE)], index: HashMap::new() }
    }

    /// Adds a stack, leaf first.
    fn add(&mut self, stack: &[u32], values: [i64; N]) {
        let mut at = 0;
        for &name in stack.iter().rev() {
            at = *self.index.entry((at, name)).or_insert_with(|| {
                let node =
                    u32::try_from(self.nodes.len()).expect("a node a frame of a stack, which are counted in u32");
                self.nodes.push(Growing::new(at, name));
                node
            });
        }
        for (sum, value) in self.nodes[at as usize].selves.iter_mut().zip(values) {
            *sum += i128::from(value);
        }
    }

    /// Computes the totals.
    fn sum(&mut self) {
        for i in (0..self.nodes.len()).rev() {
            let Growing { parent, mut totals, selves, .. } = self.nodes[i];
            (0..N).for_each(|column| totals[column] += selves[column]);
            self.nodes[i].totals = totals;
            if parent != NONE {
                (0..N).for_each(|column| self.nodes[parent as usize].totals[column] += totals[column]);
            }
        }
    }

    /// Orders the children of every node by descending total, then by name.
    fn children(&self, names: &[String]) -> Children {
        let mut nodes: Vec<u32> = (1..self.nodes.len() as u32).collect();
        nodes.sort_unstable_by(|&a, &b| {
            let (a, b) = (&self.nodes[a as usize], &self.nodes[b as usize]);
            let by_name = || names[a.name as usize].cmp(&names[b.name as usize]);
            a.parent.cmp(&b.parent).then(b.sum().cmp(&a.sum())).then_with(by_name)
        });
        let mut ends = vec![0; self.nodes.len()];
        for node in &self.nodes[1..] {
            ends[node.parent as usize] += 1;
        }
        let mut end = 0;
        for slot in &mut ends {
            end += *slot;
            *slot = end;
        }
        Children { nodes, ends }
    }

    /// Chooses the `limit` nodes with the largest totals, none without its parent.
    fn largest(&self, children: &Children, limit: usize) -> Vec<bool> {
        let mut kept = vec![false; self.nodes.len()];
        let mut candidates = BinaryHeap::from([Candidate { weight: u128::MAX, sequence: Reverse(0), node: 0 }]);
        let mut sequence = 0;
        for _ in 0..limit {
            let Some(Candidate { node, .. }) = candidates.pop() else { break };
            kept[node as usize] = true;
            for &child in children.of(node) {
                sequence += 1;
                let weight = self.nodes[child as usize].totals.iter().map(|total| total.unsigned_abs()).sum();
                candidates.push(Candidate { weight, sequence: Reverse(sequence), node: child });
            }
        }
        kept
    }

    /// Writes the nodes out depth-first: all, or those that are kept.
    fn flatten(
        &self,
        children: &Children,
        names: &[String],
        origins: &Origins<'_>,
        kept: Option<&[bool]>,
    ) -> FlameGraph {
        let is_kept = |node: u32| kept.is_none_or(|kept| kept[node as usize]);
        let mut graph =
            FlameGraph { names: vec![ROOT.to_owned()], origins: vec![Origin::default()], ..FlameGraph::default() };
        let mut renamed = vec![NONE; names.len()];
        let mut open = vec![(0, 0)];
        while let Some((node, depth)) = open.pop() {
            let Growing { name, totals, selves, .. } = self.nodes[node as usize];
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
        graph.truncated = self.nodes.len() - graph.nodes.len();
        graph
    }
}

// === impl Children ===

impl Children {
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
