//! Merges on the blocking pool, and writes the answer there.
//!
//! It takes sums one by one through a channel of one, so that whoever reads cannot run ahead of it. The word that ends the work is
//! said, not implied: a channel that just closes means that nobody waits for the answer any more.

use afterglow_profile::filter::Filter;
use afterglow_profile::folded;
use afterglow_profile::merge::{Merged, Merger};
use afterglow_profile::top::Top;
use afterglow_profile::tree::FlameGraph;
use afterglow_profile::{Profile, compress, encode};
use afterglow_proto::v1;
use afterglow_proto::v1::merge_response::Result as Merge;
use afterglow_store::block::Aggregate;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Span;

use super::super::budget::Admitted;
use super::super::{Error, filter};

/// What a merger holds is needed twice while it is finished: once more for the profile that comes of it, and its encoding.
const FINISH_FACTOR: u64 = 2;

/// What a merger holds is needed twice more where a filter is applied: for the samples that it keeps, and to merge these.
const FILTER_FACTOR: u64 = 2;

/// The form of an answer.
#[derive(Clone, Debug)]
pub(super) struct Form {
    format: v1::MergeFormat,
    /// What flame graph, table and text show; none for the profile's own default.
    sample_type: Option<String>,
    /// The most nodes or rows.
    limit: Option<usize>,
    /// Which samples, and which of their frames.
    filter: Filter,
}

/// An answer in its form.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) result: Merge,
    pub(super) warnings: Vec<String>,
}

/// A merge under way on the blocking pool.
#[derive(Debug)]
pub(super) struct Worker {
    steps: mpsc::Sender<Step>,
    task: JoinHandle<Result<Answer, Error>>,
}

#[derive(Debug)]
enum Step {
    Add(Vec<Aggregate>),
    Finish,
}

// === impl Form ===

impl Form {
    /// Reads the form that a request asks for.
    ///
    /// # Errors
    /// There is no such format, or a pattern of the filter is malformed.
    pub(super) fn read(request: &v1::MergeRequest) -> Result<Self, Error> {
        let number = request.format;
        let format = v1::MergeFormat::try_from(number).map_err(|_| Error::Format { number })?;
        let sample_type = Some(request.sample_type.clone()).filter(|name| !name.is_empty());
        let limit = (request.limit > 0).then_some(request.limit as usize);
        let filter = filter::read(request.filter.clone())?;
        Ok(Self { format, sample_type, limit, filter })
    }

    /// Returns how many times what a merger holds is needed while it is finished.
    fn finish_factor(&self) -> u64 {
        FINISH_FACTOR + if self.filter.is_empty() { 0 } else { FILTER_FACTOR }
    }

    /// Writes the answer.
    fn answer(&self, merged: &Merged) -> Result<Answer, Error> {
        let mut warnings: Vec<String> = merged.warnings().iter().map(ToString::to_string).collect();
        let mut profile = merged.profile();
        if self.filter.is_empty() {
            return Ok(Answer { result: self.write(&profile)?, warnings });
        }
        warnings.extend(self.filter.apply(&mut profile).into_iter().map(filter::warning));
        // Hidden frames make samples equal, and leave tables of which nothing is used.
        let mut tidy = Merger::new();
        tidy.add(&profile)?;
        drop(profile);
        Ok(Answer { result: self.write(&tidy.finish().profile())?, warnings })
    }

    fn write(&self, profile: &Profile<'_>) -> Result<Merge, Error> {
        let answer = match self.format {
            v1::MergeFormat::Unspecified | v1::MergeFormat::Pprof => {
                Merge::Pprof(compress::gzip(&encode::encode(profile)).into())
            }
            v1::MergeFormat::Flamegraph => {
                let shown = self.shown(profile)?;
                Merge::Flamegraph(flamegraph(profile, shown, FlameGraph::new(profile, shown, self.limit)))
            }
            v1::MergeFormat::Top => {
                let shown = self.shown(profile)?;
                Merge::Top(top(profile, shown, Top::new(profile, shown, self.limit)))
            }
            v1::MergeFormat::Folded => Merge::Folded(folded::write(profile, self.shown(profile)?)),
        };
        Ok(answer)
    }

    /// Returns which sample type is shown, as an index.
    fn shown(&self, profile: &Profile<'_>) -> Result<usize, Error> {
        profile.sample_type_named(self.sample_type.as_deref()).ok_or_else(|| Error::SampleType {
            asked: self.sample_type.clone().unwrap_or_default(),
            present: profile.sample_types.iter().map(|t| text(profile.string(t.kind))).collect(),
        })
    }
}

// === impl Worker ===

impl Worker {
    /// Starts a merge, which holds `admitted` until it ends.
    pub(super) fn start(form: Form, admitted: Admitted) -> Self {
        let (steps, received) = mpsc::channel(1);
        let span = Span::current();
        let task = tokio::task::spawn_blocking(move || span.in_scope(|| work(received, &form, admitted)));
        Self { steps, task }
    }

    /// Hands it the sums of a dataset.
    ///
    /// # Errors
    /// Those of the merge, which then is over.
    pub(super) async fn add(&mut self, sums: Vec<Aggregate>) -> Result<(), Error> {
        if self.steps.send(Step::Add(sums)).await.is_ok() {
            return Ok(());
        }
        // It only ever ends by itself to fail.
        self.answer().await.map(drop)
    }

    /// Ends the merge.
    ///
    /// # Errors
    /// Those of the merge, and a sample type that there is not.
    pub(super) async fn finish(mut self) -> Result<Answer, Error> {
        // If it does not listen, its answer says why.
        let _ = self.steps.send(Step::Finish).await;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer, Error> {
        (&mut self.task).await?
    }
}

fn work(mut steps: mpsc::Receiver<Step>, form: &Form, mut admitted: Admitted) -> Result<Answer, Error> {
    let mut merger = Merger::new();
    loop {
        match steps.blocking_recv() {
            Some(Step::Add(sums)) => {
                for sum in &sums {
                    merger.add(&sum.profile())?;
                    admitted.cover(merger.memory() as u64)?;
                }
            }
            Some(Step::Finish) => break,
            None => return Err(Error::Cancelled),
        }
    }
    admitted.cover(form.finish_factor() * merger.memory() as u64)?;
    form.answer(&merger.finish())
}

fn flamegraph(profile: &Profile<'_>, shown: usize, graph: FlameGraph) -> v1::FlameGraph {
    let nodes = graph.nodes.iter().map(|node| v1::FlameGraphNode {
        name: node.name,
        depth: node.depth,
        total: node.total,
        self_: node.self_value,
    });
    v1::FlameGraph {
        sample_type: Some(sample_type(profile, shown)),
        nodes: nodes.collect(),
        names: graph.names,
        nodes_truncated: graph.truncated as u64,
    }
}

fn top(profile: &Profile<'_>, shown: usize, top: Top) -> v1::Top {
    let functions = top.rows.into_iter().map(|row| v1::TopFunction {
        name: row.name,
        file: row.file,
        self_: row.self_value,
        total: row.total,
    });
    v1::Top {
        sample_type: Some(sample_type(profile, shown)),
        total: top.total,
        functions: functions.collect(),
        functions_truncated: top.truncated as u64,
    }
}

fn sample_type(profile: &Profile<'_>, index: usize) -> v1::SampleType {
    let shown = &profile.sample_types[index];
    v1::SampleType { r#type: text(profile.string(shown.kind)), unit: text(profile.string(shown.unit)) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
