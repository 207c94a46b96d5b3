//! Which sample type an answer shows, and where its values lie in each profile.
//!
//! Decided from what rows say of their totals, so nothing is read for it. It is what a merge of the same profiles decides:
//! [`Merger`] itself is asked, with profiles that have sample types and nothing else. So the sample types in common are the same, and the
//! finer unit wins. Only the default is another: a profile's own lies beside its samples, where an index does not look.

use std::collections::BTreeMap;

use afterglow_profile::Profile;
use afterglow_profile::merge::{self, Merger};
use afterglow_profile::model::ValueType;
use afterglow_proto::v1;
use afterglow_store::block::SampleType;
use afterglow_store::catalog::Match;

use super::Error;
use super::merge::plan::disagreement;

/// The profile type that is not about its last sample type, as its runtimes say, and what it is about.
const ALLOCS: (&str, &str) = ("allocs", "alloc_space");

/// The sample type that an answer shows.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) sample_type: v1::SampleType,
    /// What the reader should know, such as a sample type that not all profiles have.
    pub(super) warnings: Vec<String>,
    columns: BTreeMap<&'a [SampleType], Column>,
}

/// Where the values lie in a profile with certain sample types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// The index of the sample type.
    pub(super) index: usize,
    /// What a value is multiplied with to be in the unit that is shown.
    pub(super) factor: i128,
}

// === impl Shown ===

impl<'a> Shown<'a> {
    /// Finds the sample type called `asked` in `matches`, or the one to show where that is empty.
    ///
    /// # Errors
    /// As a merge: [`Error::Disagreement`] where the profiles have nothing in common, [`Error::SampleType`] where that is not in common.
    pub(super) fn new(matches: &'a [Match], asked: &str) -> Result<Self, Error> {
        // The time of the earliest profile that has the list, which says which comes first.
        let mut lists: Vec<(&[SampleType], i64)> = Vec::new();
        for found in matches {
            let (list, time_nanos) = (found.sample_types(), found.row().time_nanos);
            // Nearly always the one met last, so the search is short.
            let known = lists.iter_mut().rev().find(|(known, _)| std::ptr::eq(*known, list) || *known == list);
            match known {
                Some((_, earliest)) => *earliest = time_nanos.min(*earliest),
                None => lists.push((list, time_nanos)),
            }
        }
        let mut merger = Merger::by_time();
        for (list, time_nanos) in &lists {
            let added = merger.add(&Profile { time_nanos: *time_nanos, ..header(list) });
            added.map_err(|error| disagreement(matches).map_or(Error::Merge(error), Error::from))?;
        }
        let merged = merger.finish();
        let profile = merged.profile();
        let index = index(&profile, asked, matches)?;
        let text = |index| String::from_utf8_lossy(profile.string(index)).into_owned();
        let shown = &profile.sample_types[index];
        let sample_type = v1::SampleType { r#type: text(shown.kind), unit: text(shown.unit) };
        let columns = lists.into_iter().map(|(list, _)| (list, column(list, index, &sample_type))).collect();
        let warnings = merged.warnings().iter().map(ToString::to_string).collect();
        Ok(Self { sample_type, warnings, columns })
    }

    /// Returns where the values lie in a profile, which is one of those it was made of.
    pub(super) fn column(&self, found: &Match) -> Column {
        self.columns[found.sample_types()]
    }

    /// Returns the total of a profile, in the unit that is shown.
    pub(super) fn total(&self, found: &Match) -> i128 {
        let column = self.column(found);
        i128::from(found.row().totals[column.index]).saturating_mul(column.factor)
    }
}

/// Returns a profile that has these sample types and nothing else.
pub(super) fn header(list: &[SampleType]) -> Profile<'_> {
    let mut profile = Profile { strings: vec![b""], ..Profile::default() };
    for sample_type in list {
        let at = profile.strings.len() as u32;
        profile.strings.extend([sample_type.kind.as_bytes(), sample_type.unit.as_bytes()]);
        profile.sample_types.push(ValueType { kind: at, unit: at + 1, shape: 0 });
    }
    profile
}

/// Returns which sample type of the merge is shown, as an index.
fn index(merged: &Profile<'_>, asked: &str, matches: &[Match]) -> Result<usize, Error> {
    let named = |name| merged.sample_type_named(name);
    let found = match asked {
        "" => {
            let (profile_type, about) = ALLOCS;
            let is_allocs = |found: &Match| found.profile_type().as_str() == profile_type;
            let about = if matches.iter().all(is_allocs) { named(Some(about)) } else { None };
            about.or_else(|| named(None))
        }
        asked => named(Some(asked)),
    };
    let text = |index| String::from_utf8_lossy(merged.string(index)).into_owned();
    found.ok_or_else(|| Error::SampleType {
        asked: asked.to_owned(),
        present: merged.sample_types.iter().map(|present| text(present.kind)).collect(),
    })
}

/// Returns where in `list` the values of what is shown lie, which is at `index` of the merge.
fn column(list: &[SampleType], index: usize, shown: &v1::SampleType) -> Column {
    let is_shown = |sample_type: &&SampleType| *sample_type.kind == *shown.r#type;
    // Where a name stands twice, lists are equal, and the index is theirs.
    let index = match list.get(index).filter(is_shown) {
        Some(_) => index,
        None => list.iter().position(|sample_type| is_shown(&sample_type)).expect("what is shown is in common"),
    };
    let factor = merge::scale(list[index].unit.as_bytes(), shown.unit.as_bytes());
    Column { index, factor: factor.expect("the merge chose a unit that all convert to") }
}
