//! LabelSets: the labels and types of series, and what their samples count.
//!
//! Those who ask as of Pyroscope see one of it for each sample type, with names of their own; so this has no message: it is what the catalog
//! knows.

use afterglow_proto::v1;
use afterglow_store::catalog::SeriesCount;
use afterglow_store::paths::TenantId;

use super::answer::Answer;
use super::selection::Selection;
use super::{Engine, Error, completeness};

/// What a series takes in an answer, about: its labels, as they are written.
const SERIES_BYTES: usize = 256;

/// The series of a selection.
#[derive(Debug)]
pub(crate) struct LabelSets {
    /// Each series, once for each list of sample types that it has, in no order.
    pub(crate) series: Vec<SeriesCount>,
    /// Whether all stored data could be read.
    pub(crate) completeness: v1::Completeness,
}

pub(super) async fn answer(engine: &Engine, tenant: &TenantId, selection: v1::Selection) -> Result<LabelSets, Error> {
    let selection = Selection::read(Some(selection), engine.now_nanos())?;
    let summary = engine.summary(tenant, &selection).await?;
    Ok(LabelSets { completeness: completeness(&summary.problems), series: summary.series })
}

impl Answer for LabelSets {
    fn is_partial(&self) -> bool {
        self.completeness.partial
    }

    fn bytes(&self) -> u64 {
        (self.series.len() * SERIES_BYTES) as u64
    }

    fn explain(&mut self, _explain: v1::Explain) {}
}
