//! Which functions and calls are drawn: pprof's choice, by its defaults (google/pprof: internal/graph/graph.go, internal/report/report.go).
//!
//! First everything is counted, to find what is too small to see. What is left is counted anew, so that callers and callees of what was
//! left out are joined by residual edges, and ordered by entropy: a node where much comes together or parts says more than one that
//! calls are just passed through. The first of these are drawn, without the edges that are too small, and without
//! residual ones that say nothing new.

use std::cmp::Reverse;

use hashbrown::{HashMap, HashSet};

use crate::measure::Scale;
use crate::{diff, frames::Frames, model::Profile, tree::clamp};

/// What part of the sum a node has to have, self or below, to be drawn.
pub(super) const NODE_FRACTION: f64 = 0.005;

/// What part of the sum an edge has to have.
pub(super) const EDGE_FRACTION: f64 = 0.001;

/// How many labels of a node count when nodes are.
const TAGS_MAX: usize = 4;

/// What is drawn.
pub(super) struct Graph {
    frames: Frames,
    /// By descending weight.
    pub(super) nodes: Vec<Node>,
    /// By descending weight.
    pub(super) edges: Vec<Edge>,
    /// How many nodes and edges are too small.
    pub(super) dropped_nodes: usize,
    pub(super) dropped_edges: usize,
    /// How many nodes are not.
    pub(super) candidates: usize,
}

/// A function.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Its name, a number.
    pub(super) name: u32,
    pub(super) self_value: i128,
    pub(super) total: i128,
    /// The self value and the total of each of its sample labels.
    tags: HashMap<u32, [i128; 2]>,
}

/// Calls from one function to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) weight: i128,
    /// Some calls went through functions that are not drawn.
    pub(super) is_residual: bool,
    /// All calls were inlined.
    pub(super) is_inline: bool,
}

// === impl Graph ===

impl Graph {
    /// Chooses what is drawn of the samples by their value of sample type `sample_type`, at most about `nodes_max` nodes.
    pub(super) fn new(profile: &Profile<'_>, sample_type: usize, nodes_max: usize) -> Self {
        let source = Source { profile, sample_type, frames: Frames::new(profile), tags: tags(profile) };
        let mut counted = Counted::new(&source, None);
        let sum: i128 = counted.nodes.iter().map(|node| node.self_value).sum();
        let [node_cutoff, edge_cutoff] =
            [NODE_FRACTION, EDGE_FRACTION].map(|fraction| (sum as f64 * fraction).abs() as u128);

        let all = counted.nodes.len();
        let large = counted.names(|node| node.total.unsigned_abs() >= node_cutoff);
        if large.len() < all {
            counted = Counted::new(&source, Some(&large));
        }
        let dropped_nodes = all - large.len();
        let candidates = counted.nodes.len();

        counted.order(&source.frames);
        counted.trim(node_cutoff, edge_cutoff);
        let kept = counted.first(nodes_max);
        if kept < candidates {
            let chosen = counted.nodes[..kept].iter().map(|node| node.name).collect();
            counted = Counted::new(&source, Some(&chosen));
            counted.order(&source.frames);
        }
        let dropped_edges = counted.trim(node_cutoff, edge_cutoff);
        counted.remove_redundant(&source.frames);
        let edges = counted.sorted_edges(&source.frames);
        Self { frames: source.frames, nodes: counted.nodes, edges, dropped_nodes, dropped_edges, candidates }
    }

    /// Returns the name of a node.
    pub(super) fn name(&self, name: u32) -> &str {
        &self.frames.names()[name as usize]
    }
}

impl Node {
    /// Returns the self value, or else the total, without its sign.
    pub(super) fn weight(&self) -> u128 {
        if self.self_value == 0 { self.total.unsigned_abs() } else { self.self_value.unsigned_abs() }
    }
}

/// What is counted.
struct Source<'p, 'a> {
    profile: &'p Profile<'a>,
    sample_type: usize,
    frames: Frames,
    /// The labels of each sample, numbered: none, its texts together, or also its `bytes`.
    tags: Vec<Vec<u32>>,
}

/// Nodes and edges, counted.
struct Counted {
    nodes: Vec<Node>,
    edges: HashMap<(u32, u32), Edge>,
}

// === impl Counted ===

impl Counted {
    /// Counts the samples of `source`; where `kept` names functions, the others are passed over.
    fn new(source: &Source<'_, '_>, kept: Option<&HashSet<u32>>) -> Self {
        let names = source.frames.names().len() as u32;
        let mut nodes: Vec<Node> =
            (0..names).map(|name| Node { name, self_value: 0, total: 0, tags: HashMap::new() }).collect();
        let mut edges: HashMap<(u32, u32), Edge> = HashMap::new();
        // The sample in which a node or edge was met last, so that recursion does not count twice.
        let mut met = vec![usize::MAX; nodes.len()];
        let mut met_edges: HashMap<(u32, u32), usize> = HashMap::new();
        for sample in 0..source.profile.samples.len() {
            let value = i128::from(source.profile.values(sample)[source.sample_type]);
            if value == 0 {
                continue;
            }
            let mut parent = None;
            let mut is_residual = false;
            for &location in source.frames.shown(source.profile.samples.stack(sample)).iter().rev() {
                for (i, &name) in source.frames.of(location).iter().rev().enumerate() {
                    if kept.is_some_and(|kept| !kept.contains(&name)) {
                        is_residual = true;
                        continue;
                    }
                    if std::mem::replace(&mut met[name as usize], sample) != sample {
                        let node = &mut nodes[name as usize];
                        node.total += value;
                        source.tags[sample].iter().for_each(|&tag| node.tags.entry(tag).or_default()[1] += value);
                    }
                    if let Some(from) = parent
                        && from != name
                        && met_edges.insert((from, name), sample) != Some(sample)
                    {
                        let new = Edge { from, to: name, weight: 0, is_residual: false, is_inline: true };
                        let edge = edges.entry((from, name)).or_insert(new);
                        edge.weight += value;
                        edge.is_residual |= is_residual;
                        edge.is_inline &= i > 0;
                    }
                    parent = Some(name);
                    is_residual = false;
                }
            }
            if let Some(leaf) = parent
                && !is_residual
            {
                let node = &mut nodes[leaf as usize];
                node.self_value += value;
                source.tags[sample].iter().for_each(|&tag| node.tags.entry(tag).or_default()[0] += value);
            }
        }
        nodes.retain(|node| node.self_value != 0 || node.total != 0);
        Self { nodes, edges }
    }

    /// Returns the names of the nodes that are `wanted`.
    fn names(&self, wanted: impl Fn(&Node) -> bool) -> HashSet<u32> {
        self.nodes.iter().filter(|node| wanted(node)).map(|node| node.name).collect()
    }

    /// Orders the nodes: those that say most first.
    fn order(&mut self, frames: &Frames) {
        let mut around: HashMap<u32, [Vec<i128>; 2]> = HashMap::new();
        for edge in self.edges.values() {
            around.entry(edge.to).or_default()[0].push(edge.weight);
            around.entry(edge.from).or_default()[1].push(edge.weight);
        }
        let none = [Vec::new(), Vec::new()];
        self.nodes.sort_by_cached_key(|node| {
            let [into, out] = around.get(&node.name).unwrap_or(&none);
            let score = score(entropy(into, 0) + entropy(out, node.self_value), node);
            let name = &frames.names()[node.name as usize];
            (Reverse(score), name.clone(), Reverse(node.self_value.unsigned_abs()))
        });
    }

    /// Takes out labels and edges that are too small, and returns how many edges.
    fn trim(&mut self, node_cutoff: u128, edge_cutoff: u128) -> usize {
        for node in &mut self.nodes {
            node.tags.retain(|_, sums| sums.iter().any(|sum| sum.unsigned_abs() >= node_cutoff));
        }
        let edges = self.edges.len();
        self.edges.retain(|_, edge| edge.weight.unsigned_abs() >= edge_cutoff);
        edges - self.edges.len()
    }

    /// Returns how many of the nodes are drawn where there is room for `max`, in which labels take some.
    fn first(&self, max: usize) -> usize {
        let mut count = 0;
        for (i, node) in self.nodes.iter().enumerate() {
            let tags = node.tags.values().filter(|[self_value, _]| *self_value != 0).count();
            count += 1 + tags.min(TAGS_MAX);
            if count >= max {
                return i + 1;
            }
        }
        self.nodes.len()
    }

    /// Takes out residual edges where another way leads from the one end to the other, the lightest first.
    fn remove_redundant(&mut self, frames: &Frames) {
        let mut into: HashMap<u32, Vec<u32>> = HashMap::new();
        for edge in self.sorted_edges(frames) {
            into.entry(edge.to).or_default().push(edge.from);
        }
        for node in self.nodes.iter().rev() {
            for from in into.get(&node.name).cloned().unwrap_or_default().into_iter().rev() {
                // A heavier one than the first that is not residual stays, for it would be missed.
                if !self.edges[&(from, node.name)].is_residual {
                    break;
                }
                if leads_elsewhere(&into, from, node.name) {
                    self.edges.remove(&(from, node.name));
                    into.entry(node.name).or_default().retain(|&other| other != from);
                }
            }
        }
    }

    /// Returns the edges by descending weight, then by names.
    fn sorted_edges(&self, frames: &Frames) -> Vec<Edge> {
        let mut edges: Vec<Edge> = self.edges.values().copied().collect();
        edges.sort_by_cached_key(|edge| {
            let [from, to] = [edge.from, edge.to].map(|name| frames.names()[name as usize].clone());
            (Reverse(edge.weight.unsigned_abs()), from, to)
        });
        edges
    }
}

/// Returns whether another way than the direct one leads from `from` to `to`.
fn leads_elsewhere(into: &HashMap<u32, Vec<u32>>, from: u32, to: u32) -> bool {
    let mut seen: HashSet<u32> = std::iter::once(to).collect();
    let mut open = vec![to];
    while let Some(at) = open.pop() {
        for &source in into.get(&at).into_iter().flatten() {
            if (source, at) == (from, to) || !seen.insert(source) {
                continue;
            }
            if source == from {
                return true;
            }
            open.push(source);
        }
    }
    false
}

/// Returns how much the edges on one side of a node say: their entropy, and that of what the node keeps to itself; 1 where there are none.
///
/// An edge of a diff whose calls cancel out makes it no number, as it does in pprof.
fn entropy(weights: &[i128], self_value: i128) -> f64 {
    if weights.is_empty() {
        return 1.0;
    }
    let total = self_value + weights.iter().filter(|&&weight| weight > 0).sum::<i128>();
    if total == 0 {
        return 0.0;
    }
    let part = |weight: i128| {
        let fraction = weight.unsigned_abs() as f64 / total as f64;
        -fraction * fraction.log2()
    };
    weights.iter().map(|&weight| part(weight)).sum::<f64>() + if self_value > 0 { part(self_value) } else { 0.0 }
}

/// Returns what nodes are ordered by, the largest first: the share of its total that `entropy` tells, and its self value.
///
/// In pprof this is an `int64`, and what is no number becomes the least of them there (on amd64), to which the self value is added:
/// such a node comes first, or last where it keeps nothing to itself. The same here, so that the same nodes are drawn.
fn score(entropy: f64, node: &Node) -> i64 {
    let told = entropy * node.total as f64;
    let told = if told.is_nan() { i64::MIN } else { told as i64 };
    told.wrapping_add(clamp(node.self_value)).wrapping_abs()
}

/// Numbers the labels of each sample: what pprof would draw beside a node.
fn tags(profile: &Profile<'_>) -> Vec<Vec<u32>> {
    let mut numbers: HashMap<(Vec<u8>, Option<String>), u32> = HashMap::new();
    let mut number = |tag| {
        let next = numbers.len() as u32;
        *numbers.entry(tag).or_insert(next)
    };
    let of = |i: usize| {
        let labels = profile.samples.labels(i);
        let is_marked = diff::is_base(profile, i);
        let texts = labels.iter().filter(|label| label.str != 0);
        let mut texts: Vec<Vec<u8>> =
            texts.map(|label| [profile.string(label.key), profile.string(label.str)].join(&b':')).collect();
        texts.retain(|text| !is_marked || text != b"pprof::base:true");
        texts.sort();
        let text = texts.join(&b'\n');
        let mut tags = Vec::new();
        if !text.is_empty() {
            tags.push(number((text.clone(), None)));
        }
        let sizes = labels.iter().filter(|label| label.str == 0 && profile.string(label.key) == b"bytes");
        // Sizes that read the same are one.
        let shown = |size: i64| Scale::new("bytes", std::iter::once(size.unsigned_abs().into()), size).text(size);
        tags.extend(sizes.map(|label| number((text.clone(), Some(shown(label.num))))));
        tags
    };
    (0..profile.samples.len()).map(of).collect()
}
