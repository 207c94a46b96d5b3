//! Finds or adds stacks: most of the work of taking a profile, so it is spared where it can be.
//!
//! Samples of one profile share their callers with the sample before, and profiles of one process have the same stacks in the same order.
//! So only the part of a stack that the sample before did not have is looked at, and it is first compared with the stack that came next
//! when the stack before was last seen. Only where both fail is the tree walked from the root. There, most nodes have one callee, which
//! is kept beside the node; a hash table has only the second callee of a node and further ones.

use std::hash::BuildHasher;

use afterglow_profile::model::Samples;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::{NONE, Node, Symbols, callers_node};
use crate::block::varint::Damage;

/// The index of the stacks in the tables of a service.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    /// For each node and the root: the node of its first callee, or 0.
    first_callee: Vec<u32>,
    /// Whether it has more, which then are in `callees`.
    has_more: Vec<bool>,
    hasher: DefaultHashBuilder,
    /// Nodes that are not the first callee of their caller.
    callees: HashTable<u32>,
    /// The stack that ends at each node and the root, or [`NONE`].
    stack_at: Vec<u32>,
    /// The nodes of the stack found last, the root first.
    path: Vec<u32>,
    /// The stacks of all samples so far, in the order in which they came.
    history: Vec<u32>,
    /// Where each stack came last.
    last_at: Vec<u32>,
}

/// How far ahead in the history a stack is looked for that was not the next: so many stacks may be missing between two profiles.
const SKIPPED_MAX: usize = 4;

/// How many nodes one profile may add. Each takes about 40 bytes here, four in the profile and as few as one in what was sent; real ones
/// add at most some hundred thousand.
const NODES_MAX: usize = 1 << 21;

impl Stacks {
    /// Finds or adds the stacks of all samples of a profile whose locations lie at `places`, and gives each to `found`.
    ///
    /// # Errors
    /// They need more than [`NODES_MAX`] nodes that were not there.
    pub(super) fn find_all(
        &mut self,
        symbols: &mut Symbols,
        samples: &Samples,
        places: &[u32],
        mut found: impl FnMut(u32),
    ) -> Result<(), Damage> {
        let nodes_max = symbols.nodes.len() + NODES_MAX;
        let mut before: &[u32] = &[];
        let mut next = 0;
        // What this profile adds to the history must not be taken for what came before it.
        let end = self.history.len();
        self.path.clear();
        for i in 0..samples.len() {
            let locations = samples.stack(i);
            let shared = locations.iter().rev().zip(before.iter().rev()).take_while(|(a, b)| a == b).count();
            let own = &locations[..locations.len() - shared];
            let expected = self.history[..end].get(next).copied();
            let stack = match expected {
                Some(stack) if self.is(symbols, stack, own, shared, places) => {
                    next += 1;
                    stack
                }
                _ => {
                    let stack = self.find(symbols, own, shared, places);
                    next = self.resume(stack, next, end);
                    stack
                }
            };
            if symbols.nodes.len() > nodes_max {
                return Err(Damage("stacks share too little"));
            }
            self.history.push(stack);
            found(stack);
            before = locations;
        }
        self.last_at.resize(symbols.leaves.len(), NONE);
        for (&stack, at) in self.history[end..].iter().zip(end as u32..) {
            self.last_at[stack as usize] = at;
        }
        Ok(())
    }

    /// Returns where in the history to go on behind `stack`.
    fn resume(&self, stack: u32, next: usize, end: usize) -> usize {
        let ahead = &self.history[next.min(end)..end.min(next + SKIPPED_MAX)];
        match (ahead.iter().position(|&ahead| ahead == stack), self.last_at.get(stack as usize)) {
            (Some(skipped), _) => next + skipped + 1,
            (None, Some(&at)) if at != NONE => at as usize + 1,
            // The stack is new; what follows it may be what was expected in its place.
            (None, _) => next,
        }
    }

    /// Returns whether `stack` has the locations `own` on top of the first `shared` nodes of the path; if so, the path becomes that of
    /// `stack`, else what of it lies above those nodes is lost.
    fn is(&mut self, symbols: &Symbols, stack: u32, own: &[u32], shared: usize, places: &[u32]) -> bool {
        let nodes = &symbols.nodes[..];
        let mut at = symbols.leaves[stack as usize];
        self.path.resize(shared + own.len(), 0);
        let (below, above) = self.path.split_at_mut(shared);
        for (&local, slot) in own.iter().zip(above.iter_mut().rev()) {
            match nodes.get((at as usize).wrapping_sub(1)) {
                Some(node) if node.location == places[local as usize] => {
                    *slot = at;
                    at = callers_node(node, at);
                }
                _ => return false,
            }
        }
        at == below.last().copied().unwrap_or(0)
    }

    /// Finds or adds the stack that has the locations `own` on top of the first `shared` nodes of the path, which becomes its path.
    fn find(&mut self, symbols: &mut Symbols, own: &[u32], shared: usize, places: &[u32]) -> u32 {
        let nodes = &mut symbols.nodes;
        self.path.truncate(shared);
        let mut at = self.path.last().copied().unwrap_or(0);
        for &local in own.iter().rev() {
            at = self.callee(nodes, Node { parent: at, location: places[local as usize] });
            self.path.push(at);
        }
        self.stack_at(&mut symbols.leaves, at)
    }

    /// Finds or adds the stack that ends at a node or the root.
    pub(super) fn stack_at(&mut self, leaves: &mut Vec<u32>, at: u32) -> u32 {
        self.grow(at as usize + 1);
        let stack = &mut self.stack_at[at as usize];
        if *stack == NONE {
            *stack = leaves.len() as u32;
            leaves.push(at);
        }
        *stack
    }

    /// Makes room for what is known of `len` nodes and the root.
    fn grow(&mut self, len: usize) {
        if self.first_callee.len() < len {
            self.first_callee.resize(len, 0);
            self.has_more.resize(len, false);
            self.stack_at.resize(len, NONE);
        }
    }

    /// Finds or adds a node.
    #[inline]
    pub(super) fn callee(&mut self, nodes: &mut Vec<Node>, node: Node) -> u32 {
        let caller = node.parent as usize;
        self.grow(caller + 1);
        let first = self.first_callee[caller];
        if first != 0 && nodes[first as usize - 1].location == node.location {
            return first;
        }
        let new = nodes.len() as u32 + 1;
        if first == 0 {
            self.first_callee[caller] = new;
        } else {
            let hash = self.hasher.hash_one(node);
            if self.has_more[caller]
                && let Some(&found) = self.callees.find(hash, |&i| nodes[i as usize - 1] == node)
            {
                return found;
            }
            self.has_more[caller] = true;
            self.callees.insert_unique(hash, new, |&i| self.hasher.hash_one(nodes[i as usize - 1]));
        }
        nodes.push(node);
        self.grow(nodes.len() + 1);
        new
    }

    /// Makes the tables and the index what they were when there were so many nodes and stacks.
    pub(super) fn undo(&mut self, symbols: &mut Symbols, nodes: usize, stacks: usize) {
        for &leaf in &symbols.leaves[stacks..] {
            self.stack_at[leaf as usize] = NONE;
        }
        symbols.leaves.truncate(stacks);
        for (node, new) in symbols.nodes[nodes..].iter().zip(nodes as u32 + 1..) {
            let first = &mut self.first_callee[node.parent as usize];
            if *first == new {
                *first = 0;
            } else {
                let entry = self.callees.find_entry(self.hasher.hash_one(node), |&i| i == new);
                entry.expect("a node is the first callee or in the table").remove();
            }
        }
        symbols.nodes.truncate(nodes);
        self.first_callee.truncate(nodes + 1);
        self.has_more.truncate(nodes + 1);
        self.stack_at.truncate(nodes + 1);
        // The history names stacks that are gone.
        self.history.clear();
        self.last_at.clear();
    }
}
