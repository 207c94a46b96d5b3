//! Call graphs in Graphviz's language, as `pprof -dot` draws them: a box a function, an arrow from caller to callee.
//!
//! [`graph`] chooses what is drawn, by pprof's defaults; [`measure`](crate::measure) writes numbers as pprof writes them. What a box and an arrow say is
//! the same as in pprof (google/pprof: internal/graph/dotgraph.go): values, shares, names. The look is similar; labels of samples
//! are weighed when boxes are chosen, but not drawn, and the legend leaves out times.
//!
//! Everything from a profile is escaped on its way into the text.

mod graph;

use std::fmt::Write as _;

use self::graph::{Edge, Graph, Node};
use crate::measure::{Scale, percentage};
use crate::{diff, model::Profile, tree::clamp};

/// How many nodes are drawn at most, those with labels counting more, where nobody says.
pub const NODES_DEFAULT: usize = 80;

/// The sizes of letters: of the smallest self value, and how many points more the largest has.
const FONT_SIZE: (f64, f64) = (8.0, 16.0);

/// Returns the sum that a drawing's shares are of, as pprof takes it: of absolute values, and in a marked diff of the base alone.
pub fn total(profile: &Profile<'_>, sample_type: usize) -> i64 {
    let (mut all, mut base) = (0i128, 0i128);
    for i in 0..profile.samples.len() {
        let value = i128::from(profile.values(i)[sample_type].unsigned_abs());
        all += value;
        if diff::is_base(profile, i) {
            base += value;
        }
    }
    clamp(if base > 0 { base } else { all })
}

/// Draws the samples of `profile` by their value of sample type `sample_type`, an index into [`Profile::sample_types`].
///
/// `total` is what shares are of: [`total`] of the profile before it was filtered. At most about `nodes_max` nodes are drawn, and
/// neither nodes of less than 0.5 % of the sum nor arrows of less than 0.1 %.
pub fn write(profile: &Profile<'_>, sample_type: usize, total: i64, nodes_max: Option<usize>) -> String {
    let nodes_max = nodes_max.unwrap_or(NODES_DEFAULT).max(1);
    let unit = String::from_utf8_lossy(profile.string(profile.sample_types[sample_type].unit)).to_lowercase();
    let graph = Graph::new(profile, sample_type, nodes_max);
    let drawing = Drawing { scale: Scale::new(&unit, graph.nodes.iter().map(Node::weight), total), graph, total };
    drawing.write(profile, sample_type)
}

/// A graph and how its numbers are written.
struct Drawing {
    graph: Graph,
    scale: Scale,
    total: i64,
}

// === impl Drawing ===

impl Drawing {
    fn write(&self, profile: &Profile<'_>, sample_type: usize) -> String {
        let file = profile.mappings.first().map(|mapping| String::from_utf8_lossy(profile.string(mapping.file)));
        let file = file.as_deref().map(|file| file.rsplit('/').next().unwrap_or_default()).unwrap_or_default();
        let kind = String::from_utf8_lossy(profile.string(profile.sample_types[sample_type].kind));
        let mut legend = Vec::new();
        if !file.is_empty() {
            legend.push(format!("File: {file}"));
        }
        legend.push(format!("Type: {kind}"));
        legend.extend(self.summary());

        let title = if file.is_empty() { "unnamed" } else { file };
        let mut text = format!("digraph \"{}\" {{\nnode [style=filled fillcolor=\"#f8f8f8\"]\n", escape(title));
        let lines: String = legend.iter().map(|line| escape(line) + r"\l").collect();
        let first = escape(&legend[0]);
        let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a string takes all");
        line(format_args!("subgraph cluster_L {{ \"{first}\" [shape=box fontsize=16 label=\"{lines}\"] }}"));
        let largest = self.graph.nodes.iter().map(|node| node.self_value.unsigned_abs()).max().unwrap_or_default();
        for (i, node) in self.graph.nodes.iter().enumerate() {
            line(format_args!("N{} [{}]", i + 1, self.node(node, i + 1, largest)));
        }
        let number = |name: u32| self.graph.nodes.iter().position(|node| node.name == name).map(|i| i + 1);
        for edge in &self.graph.edges {
            if let (Some(from), Some(to)) = (number(edge.from), number(edge.to)) {
                line(format_args!("N{from} -> N{to} [{}]", self.edge(edge)));
            }
        }
        text.push_str("}\n");
        text
    }

    /// Says what is drawn, and what is not.
    fn summary(&self) -> Vec<String> {
        let Graph { nodes, dropped_nodes, dropped_edges, candidates, .. } = &self.graph;
        let shown = clamp(nodes.iter().map(|node| node.self_value).sum());
        let (of, share) = (self.scale.text(self.total), percentage(shown, self.total));
        let shown = self.scale.text(shown);
        let mut lines = vec![format!("Showing nodes accounting for {shown}, {share} of {of} total")];
        if self.total == 0 {
            return lines;
        }
        let mut dropped = |count: usize, what: &str, by: &str, fraction: f64| {
            if count > 0 {
                let (plural, limit) = (if count > 1 { "s" } else { "" }, (self.total as f64 * fraction) as i64);
                lines.push(format!("Dropped {count} {what}{plural} ({by} <= {})", self.scale.text(limit)));
            }
        };
        dropped(*dropped_nodes, "node", "cum", graph::NODE_FRACTION);
        dropped(*dropped_edges, "edge", "freq", graph::EDGE_FRACTION);
        if nodes.len() < *candidates {
            lines.push(format!("Showing top {} nodes out of {candidates}", nodes.len()));
        }
        lines
    }

    fn node(&self, node: &Node, number: usize, largest: u128) -> String {
        let name = self.graph.name(node.name);
        let (own, all) = (clamp(node.self_value), clamp(node.total));
        let (own_text, all_text) = (self.scale.text(own), self.scale.text(all));
        let mut label = broken_name(name);
        match own {
            0 => label.push('0'),
            own => write!(label, "{own_text} ({})", percentage(own, self.total)).expect("a string takes all"),
        }
        if all != own {
            label.push_str(if own == 0 { " " } else { r"\n" });
            write!(label, "of {all_text} ({})", percentage(all, self.total)).expect("a string takes all");
        }
        let (least, growth) = FONT_SIZE;
        let size = match largest {
            0 => least,
            largest => least + (growth * (own.unsigned_abs() as f64 / largest as f64).sqrt()).ceil(),
        };
        let share = self.share(all);
        format!(
            "label=\"{label}\" id=\"node{number}\" fontsize={size} shape=box tooltip=\"{} ({all_text})\" color=\"{}\" fillcolor=\"{}\"",
            escape(name),
            color(share, LINE),
            color(share, FILL),
        )
    }

    fn edge(&self, edge: &Edge) -> String {
        let weight = clamp(edge.weight);
        let (text, share) = (self.scale.text(weight), self.share(weight));
        let inline = if edge.is_inline { r"\n (inline)" } else { "" };
        let mut attributes = format!("label=\" {text}{inline}\"");
        // The heavier, the shorter and the thicker: at most 101 and 6.
        let (pull, width) = (1 + (share.abs() * 100.0) as u32, 1 + (share.abs() * 5.0) as u32);
        write!(attributes, " weight={pull} penwidth={width} color=\"{}\"", color(share, LINE))
            .expect("a string takes all");
        let arrow = if edge.is_residual { "..." } else { "->" };
        let [from, to] = [edge.from, edge.to].map(|name| escape(self.graph.name(name)));
        let tooltip = format!("\"{from} {arrow} {to} ({text})\"");
        write!(attributes, " tooltip={tooltip} labeltooltip={tooltip}").expect("a string takes all");
        if edge.is_residual {
            attributes.push_str(" style=\"dotted\"");
        }
        attributes
    }

    /// Returns how much of the total a value is, from -1 to 1.
    fn share(&self, value: i64) -> f64 {
        if self.total == 0 { 0.0 } else { (value as f64 / self.total.unsigned_abs() as f64).clamp(-1.0, 1.0) }
    }
}

/// The brightness of a colour without any share, and how much of it the largest share takes from what is not its own.
const LINE: (f64, f64) = (178.0, 1.0);
const FILL: (f64, f64) = (237.0, 0.1);

/// Returns a colour for a share: grey for none, red for more, green for less.
fn color(share: f64, (brightness, depth): (f64, f64)) -> String {
    // Small shares differ visibly, too.
    let faded = (brightness * (1.0 - depth * share.abs().powf(0.3))) as u8;
    let bright = brightness as u8;
    if share < 0.0 {
        format!("#{faded:02x}{bright:02x}{faded:02x}")
    } else {
        format!("#{bright:02x}{faded:02x}{faded:02x}")
    }
}

/// Escapes a name and breaks it into lines at its packages, without the path before the last of them.
fn broken_name(name: &str) -> String {
    let is_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '~');
    let end_of_path = name.find(|c: char| !is_path(c)).unwrap_or(name.len());
    let short = name[..end_of_path].rfind('/').map_or(name, |slash| &name[slash + 1..]);
    // The dots of type parameters, which Go's profiles leave out, are no packages.
    escape(short).replace("[...]", "[…]").replace("::", r"\n").replace('.', r"\n") + r"\n"
}

/// Escapes a text for a string in quotes.
fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace(['\n', '\r'], r"\l")
}
