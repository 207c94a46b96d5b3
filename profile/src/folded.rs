//! Folded stacks, the text that `flamegraph.pl`, inferno and speedscope read: a line a stack, root first, then its value.

use std::fmt::Write as _;

use crate::{
    model::Profile,
    tree::{FlameGraph, Node},
};

/// Writes the stacks of `profile` with their value of sample type `sample_type`, an index into [`Profile::sample_types`]: each
/// distinct stack of names once, as `root;child;leaf value` and a line feed.
///
/// The form knows no escape: a semicolon in a name becomes a colon, a line break a space. A stack without frames is not written.
pub fn write(profile: &Profile<'_>, sample_type: usize) -> String {
    of(&FlameGraph::new(profile, sample_type, None))
}

/// Writes the stacks of a flame graph, as [`write`] does.
pub fn of(graph: &FlameGraph) -> String {
    lines(graph, |node| (node.self_value != 0).then(|| node.self_value.to_string()))
}

/// Writes the stacks of the flame graph of a diff with two values, as `difffolded.pl` gives them to `flamegraph.pl`: first the base's, then
/// the selection's.
pub fn of_diff(graph: &FlameGraph) -> String {
    lines(graph, |node| {
        (node.self_value != 0 || node.base_self != 0).then(|| format!("{} {}", node.base_self, node.self_value))
    })
}

/// Writes a line for each node of which `values` says something.
fn lines(graph: &FlameGraph, values: impl Fn(&Node) -> Option<String>) -> String {
    let names: Vec<String> = graph.names.iter().map(|name| escape(name)).collect();
    let mut text = String::new();
    // The names down to the node at hand, each with a semicolon behind it, and where each name begins.
    let mut path = String::new();
    let mut starts: Vec<usize> = Vec::new();
    for node in &graph.nodes[1..] {
        let above = node.depth as usize - 1;
        if let Some(&end) = starts.get(above) {
            path.truncate(end);
            starts.truncate(above);
        }
        starts.push(path.len());
        path.push_str(&names[node.name as usize]);
        if let Some(values) = values(node) {
            writeln!(text, "{path} {values}").expect("writing to a string does not fail");
        }
        path.push(';');
    }
    text
}

fn escape(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            ';' => ':',
            '\n' | '\r' => ' ',
            c => c,
        })
        .collect()
}
