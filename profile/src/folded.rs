//! Folded stacks, the text that `flamegraph.pl`, inferno and speedscope read: a line a stack, root first, then its value.

use std::convert::Infallible;
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
    let Ok(text) = of_within(graph, any_room);
    text
}

/// The same, where there is room: `room` is told how many bytes the text has, before it is written. Deep stacks are long.
///
/// # Errors
/// What `room` says where there is none.
pub fn of_within<E>(graph: &FlameGraph, room: impl FnOnce(u64) -> Result<(), E>) -> Result<String, E> {
    lines(graph, |node| (node.self_value != 0).then(|| node.self_value.to_string()), room)
}

/// Writes the stacks of the flame graph of a diff with two values, as `difffolded.pl` gives them to `flamegraph.pl`: first the base's, then
/// the selection's.
pub fn of_diff(graph: &FlameGraph) -> String {
    let Ok(text) = of_diff_within(graph, any_room);
    text
}

/// The same, where there is room, as [`of_within`].
///
/// # Errors
/// What `room` says where there is none.
pub fn of_diff_within<E>(graph: &FlameGraph, room: impl FnOnce(u64) -> Result<(), E>) -> Result<String, E> {
    let values = |node: &Node| {
        (node.self_value != 0 || node.base_self != 0).then(|| format!("{} {}", node.base_self, node.self_value))
    };
    lines(graph, values, room)
}

/// Says that there is room for anything.
fn any_room(_bytes: u64) -> Result<(), Infallible> {
    Ok(())
}

/// Writes a line for each node of which `values` says something, where there is room.
fn lines<E>(
    graph: &FlameGraph,
    values: impl Fn(&Node) -> Option<String>,
    room: impl FnOnce(u64) -> Result<(), E>,
) -> Result<String, E> {
    let names: Vec<String> = graph.names.iter().map(|name| escape(name)).collect();
    let bytes = length(graph, &names, &values);
    room(bytes)?;
    let mut text = String::with_capacity(usize::try_from(bytes).unwrap_or(0));
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
    Ok(text)
}

/// Returns how many bytes these lines have.
fn length(graph: &FlameGraph, names: &[String], values: impl Fn(&Node) -> Option<String>) -> u64 {
    let (mut length, mut path, mut starts) = (0_u64, 0_u64, Vec::new());
    for node in &graph.nodes[1..] {
        let above = node.depth as usize - 1;
        if let Some(&start) = starts.get(above) {
            path = start;
            starts.truncate(above);
        }
        starts.push(path);
        path += names[node.name as usize].len() as u64;
        if let Some(values) = values(node) {
            length = length.saturating_add(path + values.len() as u64 + 2);
        }
        path += 1;
    }
    length
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
