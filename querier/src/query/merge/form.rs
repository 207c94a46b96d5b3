//! The form of an answer: a merged profile, or two, as pprof, flame graph, table, folded stacks or call graph.
//!
//! Of deep stacks that share nothing a tree takes tens of times what the merge does, whatever is cut away of it then. So what a flame graph
//! or folded stacks take is asked for while they are made, as [`Room`].

use afterglow_profile::filter::Filter;
use afterglow_profile::merge::{Merged, Merger};
use afterglow_profile::top::Top;
use afterglow_profile::tree::FlameGraph;
use afterglow_profile::{Profile, compress, diff, dot, encode, folded};
use afterglow_proto::v1;
use afterglow_proto::v1::diff_response::Result as Diff;
use afterglow_proto::v1::merge_response::Result as Merge;
use afterglow_store::block::SampleTypes;
use v1::MergeFormat;

use super::super::view::{self, View};
use super::super::{Error, filter, series};
use super::gather::Chosen;
use super::reduce;

/// What a merge holds is needed once more for the profile that is made of it, and for its encoding.
const WRITE_FACTOR: u64 = 2;

/// What a merge holds is needed twice more where a filter is applied: for the samples that it keeps, and to merge these.
const FILTER_FACTOR: u64 = 2;

/// What both merges of a diff hold is needed three times more: for the copies that are scaled, and for the merge of the two.
const DIFF_FACTOR: u64 = 3;

/// The most nodes of a flame graph that is sent, whatever the limit: more than any screen shows, and some 100 MB of JSON.
pub(in super::super) const NODES_MAX: usize = 1_000_000;

/// What a node of a flame graph takes until it is sent, about: itself, and its JSON of some hundred bytes in a buffer that grows by doubling.
const NODE_BYTES: u64 = 40 + 2 * 100;

/// Folded stacks are there twice when they are sent: as they were written, and in the message.
const TEXT_FACTOR: u64 = 2;

/// Takes memory for what is about to be made, beside what the merge takes: so many bytes in all.
pub(in super::super) type Room<'a> = &'a mut dyn FnMut(u64) -> Result<(), Error>;

/// The form of an answer.
#[derive(Clone, Debug)]
pub(in super::super) struct Form {
    format: MergeFormat,
    /// What all but a pprof shows; none for the profile's own default.
    sample_type: Option<String>,
    /// The most nodes or rows.
    limit: Option<usize>,
    /// Which samples, and which of their frames.
    filter: Filter,
    view: View,
    /// Whether the selection of a diff is scaled to its base.
    normalize: bool,
    /// Whether the samples of the base are marked in a pprof.
    mark_base: bool,
}

// === impl Form ===

impl Form {
    /// Reads the form that a merge is asked for in.
    ///
    /// # Errors
    /// There is no such format or view, they do not go together, the format has no limit, or a pattern of the filter is malformed.
    pub(super) fn of_merge(request: &v1::MergeRequest) -> Result<Self, Error> {
        let view = View::read(request.view, &request.function)?;
        let v1::MergeRequest { format, sample_type, limit, filter, .. } = request;
        let form = Self::new(*format, sample_type, *limit, filter.as_ref(), view)?;
        if form.view != View::All && !matches!(form.format, MergeFormat::Flamegraph | MergeFormat::Folded) {
            return Err(view::Error::Format { format: name(form.format) }.into());
        }
        Ok(form)
    }

    /// Reads the form that a diff is asked for in.
    ///
    /// # Errors
    /// There is no such format, it has no limit, a pattern of the filter is malformed, or the base is to be marked where that is no pprof.
    pub(in super::super) fn of_diff(request: &v1::DiffRequest) -> Result<Self, Error> {
        let v1::DiffRequest { format, sample_type, limit, filter, normalize, mark_base, .. } = request;
        let form = Self::new(*format, sample_type, *limit, filter.as_ref(), View::All)?;
        let form = Self { normalize: *normalize, mark_base: *mark_base, ..form };
        if form.mark_base && !matches!(form.format, MergeFormat::Unspecified | MergeFormat::Pprof) {
            return Err(Error::MarkBase { format: name(form.format) });
        }
        Ok(form)
    }

    fn new(
        number: i32,
        sample_type: &str,
        limit: u32,
        filter: Option<&v1::StackFilter>,
        view: View,
    ) -> Result<Self, Error> {
        let format = MergeFormat::try_from(number).map_err(|_| Error::Format { number })?;
        let sample_type = Some(sample_type.to_owned()).filter(|name| !name.is_empty());
        let limit = (limit > 0).then_some(limit as usize);
        if limit.is_some() && matches!(format, MergeFormat::Unspecified | MergeFormat::Pprof | MergeFormat::Folded) {
            return Err(Error::Limit { format: name(format) });
        }
        let filter = filter::read(filter.cloned())?;
        Ok(Self { format, sample_type, limit, filter, view, normalize: false, mark_base: false })
    }

    /// Returns which sample types of the profiles it has to be made of.
    pub(in super::super) fn sample_types(&self, chosen: &[&Chosen]) -> SampleTypes {
        // A filter tells which patterns matched nothing, also of samples without a value that is shown.
        if matches!(self.format, MergeFormat::Unspecified | MergeFormat::Pprof) || !self.filter.is_empty() {
            return SampleTypes::All;
        }
        reduce::sample_types(chosen.iter().flat_map(|chosen| chosen.matches()), self.sample_type.as_deref())
    }

    /// Returns how many times what a merge holds is needed until it is written.
    pub(in super::super) fn factor(&self) -> u64 {
        WRITE_FACTOR + if self.filter.is_empty() { 0 } else { FILTER_FACTOR }
    }

    /// Returns how many times what both merges of a diff hold is needed until it is written.
    pub(in super::super) fn diff_factor(&self) -> u64 {
        self.factor() + DIFF_FACTOR
    }

    /// Writes a merged profile, and returns it with what the reader should know.
    ///
    /// # Errors
    /// There is no such sample type, no stack has the function, or there is no room.
    pub(super) fn merge(&self, merged: Merged, room: Room<'_>) -> Result<(Merge, Vec<String>), Error> {
        let mut warnings = texts(&merged);
        let total = self.total(&merged)?;
        let merged = self.filtered(merged, &mut warnings)?;
        let profile = merged.profile();
        let shown = || self.shown(&profile);
        if !matches!(self.format, MergeFormat::Unspecified | MergeFormat::Pprof) {
            warnings.extend(saturated(&profile, shown()?));
        }
        let result = match self.format {
            MergeFormat::Unspecified | MergeFormat::Pprof => Merge::Pprof(pprof(&profile).into()),
            MergeFormat::Flamegraph => {
                let shown = shown()?;
                let graph = self.tree(&profile, shown, self.nodes_max(), room)?;
                Merge::Flamegraph(flamegraph(sample_type(&profile, shown), graph, room)?)
            }
            MergeFormat::Top => {
                let shown = shown()?;
                Merge::Top(top(sample_type(&profile, shown), Top::new(&profile, shown, self.limit)))
            }
            MergeFormat::Folded => {
                let graph = self.tree(&profile, shown()?, None, room)?;
                Merge::Folded(folded::of_within(&graph, |bytes| room(bytes_beside(&graph, bytes)))?)
            }
            MergeFormat::Dot => Merge::Dot(dot::write(&profile, shown()?, total, self.limit)),
        };
        Ok((result, warnings))
    }

    /// Writes what differs between two merged profiles, and returns it with what the reader should know.
    ///
    /// # Errors
    /// They do not go together, there is no such sample type, or there is no room.
    pub(in super::super) fn diff(
        &self,
        selection: Merged,
        base: Merged,
        room: Room<'_>,
    ) -> Result<(Diff, Vec<String>), Error> {
        let mut warnings = texts(&selection);
        warnings.extend(texts(&base));
        let (selection, base) = match diff::align(&selection.profile(), &base.profile())? {
            None => (selection, base),
            Some((selection, base)) => {
                warnings.extend(texts(&selection));
                (selection, base)
            }
        };
        warnings.sort();
        warnings.dedup();
        let (mut ours, mut theirs) = (selection.profile(), base.profile());
        if self.normalize {
            diff::normalize(&mut ours, &theirs);
        }
        let result = match self.format {
            MergeFormat::Unspecified | MergeFormat::Pprof => {
                if self.mark_base {
                    diff::mark_base(&mut theirs);
                }
                let merged = self.filtered(diff::subtract(&ours, theirs)?, &mut warnings)?;
                Diff::Pprof(pprof(&merged.profile()).into())
            }
            MergeFormat::Dot => {
                let shown = self.shown(&ours)?;
                let merged = diff::subtract(&ours, theirs)?;
                let total = self.total(&merged)?;
                let merged = self.filtered(merged, &mut warnings)?;
                Diff::Dot(dot::write(&merged.profile(), shown, total, self.limit))
            }
            MergeFormat::Flamegraph | MergeFormat::Top | MergeFormat::Folded => {
                let shown = self.shown(&ours)?;
                let shown_type = sample_type(&ours, shown);
                let pair = self.filtered(diff::pair(ours, theirs, shown)?, &mut warnings)?;
                let pair = pair.profile();
                match self.format {
                    MergeFormat::Flamegraph => {
                        let graph = FlameGraph::diff_within(&pair, self.nodes_max(), &mut *room)?;
                        Diff::Flamegraph(flamegraph(shown_type, graph, room)?)
                    }
                    MergeFormat::Top => Diff::Top(top(shown_type, Top::diff(&pair, self.limit))),
                    _ => {
                        let graph = FlameGraph::diff_within(&pair, None, &mut *room)?;
                        Diff::Folded(folded::of_diff_within(&graph, |bytes| room(bytes_beside(&graph, bytes)))?)
                    }
                }
            }
        };
        Ok((result, warnings))
    }

    /// Returns what the filter leaves of a profile.
    fn filtered(&self, merged: Merged, warnings: &mut Vec<String>) -> Result<Merged, Error> {
        if self.filter.is_empty() {
            return Ok(merged);
        }
        let mut profile = merged.profile();
        warnings.extend(self.filter.apply(&mut profile).into_iter().map(filter::warning));
        // Hidden frames make samples equal, and leave tables of which nothing is used.
        let mut tidy = Merger::new();
        tidy.add(&profile)?;
        Ok(tidy.finish())
    }

    /// Returns what shares in a call graph are of; no other form needs it.
    fn total(&self, merged: &Merged) -> Result<i64, Error> {
        if self.format != MergeFormat::Dot {
            return Ok(0);
        }
        let profile = merged.profile();
        Ok(dot::total(&profile, self.shown(&profile)?))
    }

    /// Returns the most nodes of a flame graph.
    fn nodes_max(&self) -> Option<usize> {
        Some(self.limit.unwrap_or(NODES_MAX).min(NODES_MAX))
    }

    /// Returns the flame graph of what the view shows.
    fn tree(
        &self,
        profile: &Profile<'_>,
        shown: usize,
        limit: Option<usize>,
        room: Room<'_>,
    ) -> Result<FlameGraph, Error> {
        let graph = FlameGraph::view_within(profile, shown, self.view.as_tree(), limit, room)?;
        match self.view.function() {
            Some(name) if graph.nodes.len() + graph.truncated == 1 => Err(Error::NoFunction { name: name.to_owned() }),
            _ => Ok(graph),
        }
    }

    /// Returns which sample type is shown, as an index.
    fn shown(&self, profile: &Profile<'_>) -> Result<usize, Error> {
        profile.sample_type_named(self.sample_type.as_deref()).ok_or_else(|| Error::SampleType {
            asked: self.sample_type.clone().unwrap_or_default(),
            present: profile.sample_types.iter().map(|t| text(profile.string(t.kind))).collect(),
        })
    }
}

/// Returns the name of a format, as URLs and flags have it.
fn name(format: MergeFormat) -> &'static str {
    match format {
        MergeFormat::Unspecified | MergeFormat::Pprof => "pprof",
        MergeFormat::Flamegraph => "flamegraph",
        MergeFormat::Top => "top",
        MergeFormat::Folded => "folded",
        MergeFormat::Dot => "dot",
    }
}

fn texts(merged: &Merged) -> Vec<String> {
    merged.warnings().iter().map(ToString::to_string).collect()
}

/// Says that the total of a sample type does not fit in 64 bits, where that is so: views, which show it, stand at the nearest value.
fn saturated(profile: &Profile<'_>, sample_type: usize) -> Option<String> {
    let column = profile.samples.values.iter().skip(sample_type).step_by(profile.sample_types.len().max(1));
    let total: i128 = column.map(|&value| i128::from(value)).sum();
    series::saturated(usize::from(i64::try_from(total).is_err()))
}

fn pprof(profile: &Profile<'_>) -> Vec<u8> {
    compress::gzip(&encode::encode(profile))
}

/// Returns what folded stacks of so many bytes take, beside the graph that they are written from.
fn bytes_beside(graph: &FlameGraph, text_bytes: u64) -> u64 {
    size_of_val(&graph.nodes[..]) as u64 + TEXT_FACTOR.saturating_mul(text_bytes)
}

/// Returns a flame graph as protobuf has it, where there is room for it and for its JSON.
fn flamegraph(sample_type: v1::SampleType, graph: FlameGraph, room: Room<'_>) -> Result<v1::FlameGraph, Error> {
    room(graph.nodes.len() as u64 * NODE_BYTES)?;
    // In the place of the other.
    let nodes = graph.nodes.into_iter().map(|node| v1::FlameGraphNode {
        name: node.name,
        depth: node.depth,
        total: node.total,
        self_: node.self_value,
        base_total: node.base_total,
        base_self: node.base_self,
    });
    let origins = graph.origins.into_iter().map(|origin| v1::Origin {
        file: origin.file,
        line: origin.line,
        mapping: origin.mapping,
    });
    Ok(v1::FlameGraph {
        sample_type: Some(sample_type),
        nodes: nodes.collect(),
        names: graph.names,
        origins: origins.collect(),
        nodes_truncated: graph.truncated as u64,
    })
}

/// Returns a table as protobuf has it.
pub(in super::super) fn top(sample_type: v1::SampleType, top: Top) -> v1::Top {
    let functions = top.rows.into_iter().map(|row| v1::TopFunction {
        name: row.name,
        file: row.file,
        self_: row.self_value,
        total: row.total,
        base_self: row.base_self,
        base_total: row.base_total,
    });
    v1::Top {
        sample_type: Some(sample_type),
        total: top.total,
        base_total: top.base_total,
        functions: functions.collect(),
        functions_truncated: top.truncated as u64,
    }
}

/// Returns a sample type, given by its index, as protobuf has it.
pub(in super::super) fn sample_type(profile: &Profile<'_>, index: usize) -> v1::SampleType {
    let shown = &profile.sample_types[index];
    v1::SampleType { r#type: text(profile.string(shown.kind)), unit: text(profile.string(shown.unit)) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
