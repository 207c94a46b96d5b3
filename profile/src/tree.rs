//! The flame graph: all stacks of a profile folded into one tree of names, root first.
//!
//! Stacks flow in leaf first as pprof has them, and out comes the tree in depth-first order: parents before children, children by
//! descending total, then by name, so that equal profiles give equal trees. Nothing here recurses: a stack may be thousands of frames
//! deep. A limit cuts whole subtrees away, smallest first; what is cut stays in the totals above it.

use std::{cmp::Reverse, collections::BinaryHeap};

use hashbrown::HashMap;

use crate::{
    frames::Frames,
    model::{NONE, Profile},
};

/// The name of the root.
const ROOT: &str = "total";

/// A flame graph of one sample type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlameGraph {
    /// The distinct names of the nodes.
    pub names: Vec<String>,
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
}

// === impl FlameGraph ===

impl FlameGraph {
    /// Folds the samples of `profile` by their value of sample type `sample_type`, an index into [`Profile::sample_types`].
    ///
    /// At most `limit` nodes are kept, the root among them: those with the largest totals. Sums beyond 64 bits stand at the largest.
    pub fn new(profile: &Profile<'_>, sample_type: usize, limit: Option<usize>) -> Self {
        let frames = Frames::new(profile);
        let mut tree = Tree::new();
        let mut stack = Vec::new();
        for i in 0..profile.samples.len() {
            let value = profile.values(i)[sample_type];
            if value != 0 {
                frames.stack(profile.samples.stack(i), &mut stack);
                tree.add(&stack, value);
            }
        }
        tree.sum();
        let children = tree.children(frames.names());
        let kept = limit.map(|limit| tree.largest(&children, limit.max(1)));
        tree.flatten(&children, frames.names(), kept.as_deref())
    }
}

/// The tree while it grows: parents have smaller indices than their children.
struct Tree {
    nodes: Vec<Growing>,
    /// The node of a name under a parent.
    index: HashMap<(u32, u32), u32>,
}

/// A node while the tree grows. The sums are wide enough for any number of 64-bit values.
struct Growing {
    parent: u32,
    name: u32,
    total: i128,
    self_value: i128,
}

/// The children of all nodes, those of one parent together and in their final order.
struct Children {
    nodes: Vec<u32>,
    /// Where each parent's children end in `nodes`.
    ends: Vec<u32>,
}

// === impl Tree ===

impl Tree {
    fn new() -> Self {
        Self { nodes: vec![Growing { parent: NONE, name: NONE, total: 0, self_value: 0 }], index: HashMap::new() }
    }

    /// Adds a stack, leaf first.
    fn add(&mut self, stack: &[u32], value: i64) {
        let mut at = 0;
        for &name in stack.iter().rev() {
            at = *self.index.entry((at, name)).or_insert_with(|| {
                let node =
                    u32::try_from(self.nodes.len()).expect("a node a frame of a stack, which are counted in u32");
                self.nodes.push(Growing { parent: at, name, total: 0, self_value: 0 });
                node
            });
        }
        self.nodes[at as usize].self_value += i128::from(value);
    }

    /// Computes the totals.
    fn sum(&mut self) {
        for i in (0..self.nodes.len()).rev() {
            self.nodes[i].total += self.nodes[i].self_value;
            let Growing { parent, total, .. } = self.nodes[i];
            if parent != NONE {
                self.nodes[parent as usize].total += total;
            }
        }
    }

    /// Orders the children of every node by descending total, then by name.
    fn children(&self, names: &[String]) -> Children {
        let mut nodes: Vec<u32> = (1..self.nodes.len() as u32).collect();
        nodes.sort_unstable_by(|&a, &b| {
            let (a, b) = (&self.nodes[a as usize], &self.nodes[b as usize]);
            let by_name = || names[a.name as usize].cmp(&names[b.name as usize]);
            a.parent.cmp(&b.parent).then(b.total.cmp(&a.total)).then_with(by_name)
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
                let weight = self.nodes[child as usize].total.unsigned_abs();
                candidates.push(Candidate { weight, sequence: Reverse(sequence), node: child });
            }
        }
        kept
    }

    /// Writes the nodes out depth-first: all, or those that are kept.
    fn flatten(&self, children: &Children, names: &[String], kept: Option<&[bool]>) -> FlameGraph {
        let is_kept = |node: u32| kept.is_none_or(|kept| kept[node as usize]);
        let mut graph = FlameGraph { names: vec![ROOT.to_owned()], ..FlameGraph::default() };
        let mut renamed = vec![NONE; names.len()];
        let mut open = vec![(0, 0)];
        while let Some((node, depth)) = open.pop() {
            let Growing { name, total, self_value, .. } = self.nodes[node as usize];
            let name = if node == 0 {
                0
            } else {
                let slot = &mut renamed[name as usize];
                if *slot == NONE {
                    *slot = graph.names.len() as u32;
                    graph.names.push(names[name as usize].clone());
                }
                *slot
            };
            graph.nodes.push(Node { name, depth, total: clamp(total), self_value: clamp(self_value) });
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
