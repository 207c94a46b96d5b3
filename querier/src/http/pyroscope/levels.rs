//! A flame graph as Pyroscope writes it: level by level, each node by where it lies, beside our own, which is a tree in depth-first order.
//!
//! A node begins where the one before it under the same parent ends, the first one where the parent's own samples end. Where a node begins is
//! said as its distance from the end of the node before it on the same level, whoever's child that is. What a limit cut away below
//! a node becomes one node `other` behind its children, so that they fill what it has.

use afterglow_proto::pyroscope::querier::v1::{FlameGraph, Level};
use afterglow_proto::v1;

/// What stands for all nodes that were cut away under one.
const OTHER: &str = "other";

/// The graph while it is written.
struct Writer {
    names: Vec<String>,
    /// The index of [`OTHER`] among the names, once it is needed.
    other: Option<i64>,
    levels: Vec<Level>,
    /// Where the last node of each level ends.
    ends: Vec<i64>,
    max_self: i64,
}

/// A node whose children are being written.
struct Open {
    end: i64,
    /// Where the next child begins.
    next: i64,
}

/// Writes a flame graph; none where there is nothing in it.
pub(super) fn write(graph: v1::FlameGraph) -> Option<FlameGraph> {
    let root = graph.nodes.first().filter(|root| root.total != 0)?;
    let (total, is_cut) = (root.total, graph.nodes_truncated > 0);
    let mut writer = Writer { names: graph.names, other: None, levels: Vec::new(), ends: Vec::new(), max_self: 0 };
    let mut path: Vec<Open> = Vec::new();
    for node in &graph.nodes {
        writer.close(&mut path, node.depth as usize, is_cut);
        let begin = path.last().map_or(0, |parent| parent.next);
        let end = begin.saturating_add(node.total);
        if let Some(parent) = path.last_mut() {
            parent.next = end;
        }
        writer.add(path.len(), begin, node.total, node.self_, i64::from(node.name));
        path.push(Open { end, next: begin.saturating_add(node.self_) });
    }
    writer.close(&mut path, 0, is_cut);
    let Writer { names, levels, max_self, .. } = writer;
    Some(FlameGraph { names, levels, total, max_self })
}

// === impl Writer ===

impl Writer {
    /// Ends the nodes of a path down to a depth, each with what was cut away under it.
    fn close(&mut self, path: &mut Vec<Open>, depth: usize, is_cut: bool) {
        while path.len() > depth {
            let level = path.len();
            let Some(Open { end, next }) = path.pop() else { return };
            let rest = end.saturating_sub(next);
            if is_cut && rest != 0 {
                let name = self.other();
                self.add(level, next, rest, rest, name);
            }
        }
    }

    fn add(&mut self, level: usize, begin: i64, total: i64, self_value: i64, name: i64) {
        if level == self.levels.len() {
            self.levels.push(Level::default());
            self.ends.push(0);
        }
        let before = std::mem::replace(&mut self.ends[level], begin.saturating_add(total));
        self.levels[level].values.extend([begin.saturating_sub(before), total, self_value, name]);
        self.max_self = self.max_self.max(self_value);
    }

    fn other(&mut self) -> i64 {
        let names = &mut self.names;
        *self.other.get_or_insert_with(|| {
            let at = names.iter().position(|name| name == OTHER).unwrap_or_else(|| {
                names.push(OTHER.to_owned());
                names.len() - 1
            });
            at as i64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: &[(u32, u32, i64, i64)], nodes_truncated: u64) -> v1::FlameGraph {
        let node = |&(name, depth, total, self_): &(u32, u32, i64, i64)| v1::FlameGraphNode {
            name,
            depth,
            total,
            self_,
            ..v1::FlameGraphNode::default()
        };
        let names = ["total", "a", "b", "c", "d"].map(str::to_owned).to_vec();
        v1::FlameGraph { names, nodes: nodes.iter().map(node).collect(), nodes_truncated, ..v1::FlameGraph::default() }
    }

    fn levels(graph: &FlameGraph) -> Vec<&[i64]> {
        graph.levels.iter().map(|level| &level.values[..]).collect()
    }

    #[test]
    fn nodes_lie_behind_each_other_and_within_their_parents() {
        // total(10) calls a(6, of which 1 its own) and b(4, 1); a calls c(5, 3), which calls d(2), and b calls c(3).
        let nodes = [(0, 0, 10, 0), (1, 1, 6, 1), (3, 2, 5, 3), (4, 3, 2, 2), (2, 1, 4, 1), (3, 2, 3, 3)];
        let written = write(graph(&nodes, 0)).unwrap();
        let expected: [&[i64]; 4] =
            [&[0, 10, 0, 0], &[0, 6, 1, 1, 0, 4, 1, 2], &[1, 5, 3, 3, 1, 3, 3, 3], &[4, 2, 2, 4]];
        assert_eq!(levels(&written), expected);
        assert_eq!((written.total, written.max_self, written.names.len()), (10, 3, 5));
    }

    #[test]
    fn what_was_cut_away_is_other() {
        // Of total(10) and a(6, self 1) some children are gone.
        let nodes = [(0, 0, 10, 0), (1, 1, 6, 1), (3, 2, 2, 2)];
        let written = write(graph(&nodes, 7)).unwrap();
        let expected: [&[i64]; 3] = [&[0, 10, 0, 0], &[0, 6, 1, 1, 0, 4, 4, 5], &[1, 2, 2, 3, 0, 3, 3, 5]];
        assert_eq!(levels(&written), expected);
        assert_eq!((written.names[5].as_str(), written.max_self), ("other", 4));
        let whole = write(graph(&nodes, 0)).unwrap();
        assert_eq!(whole.names.len(), 5, "nothing was cut, so nothing stands for it");
    }

    #[test]
    fn nothing_is_no_graph() {
        assert_eq!(write(v1::FlameGraph::default()), None);
        assert_eq!(write(graph(&[(0, 0, 0, 0)], 0)), None);
    }
}
