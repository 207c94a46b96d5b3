//! Diffs: what a profile has that another, its base, has not.
//!
//! [`align`] brings both to the sample types that they have in common; [`normalize`] scales the one to the sum of the other, as `pprof
//! -normalize` does. Then [`subtract`] gives the pprof that `pprof -base` gives (google/pprof: internal/driver/fetch.go): the values of the
//! base count as negative, and what is equal is gone. Marked by [`mark_base`] before, the base's samples stay apart, as by `-diff_base`.
//! [`pair`] keeps both values side by side, for [`crate::tree::FlameGraph::diff`] and [`crate::top::Top::diff`].

use crate::{
    merge::{Error, Merged, Merger},
    model::{Profile, SampleLabel, Samples},
};

/// The label that `pprof -diff_base` marks the samples of the base with, and its value.
const BASE_LABEL: (&[u8], &[u8]) = (b"pprof::base", b"true");

/// Brings two profiles to the sample types and units that both have; `None` where they have the same.
///
/// # Errors
///
/// They have none in common, or their period types differ.
pub fn align(selection: &Profile<'_>, base: &Profile<'_>) -> Result<Option<(Merged, Merged)>, Error> {
    let names = |profile: &Profile<'_>| -> Vec<[Vec<u8>; 2]> {
        profile.sample_types.iter().map(|t| [t.kind, t.unit].map(|text| profile.string(text).to_vec())).collect()
    };
    if names(selection) == names(base) {
        return Ok(None);
    }
    // A merge takes the sample types in common from both in the first's order; without samples a profile adds nothing else.
    let beside = |first: &Profile<'_>, second: &Profile<'_>| {
        let mut merger = Merger::new();
        merger.add(first)?;
        merger.add(second)?;
        Ok(merger.finish())
    };
    let selected = beside(selection, &without_samples(base))?;
    let based = beside(&without_samples(selection), base)?;
    Ok(Some((selected, based)))
}

/// Scales the values of `selection`, so that its sum of each sample type is that of `base`. Values are rounded one by one.
///
/// A sample type of which `selection` has no sum becomes 0, as in pprof.
pub fn normalize(selection: &mut Profile<'_>, base: &Profile<'_>) {
    let ratios: Vec<f64> = selection.totals().0.into_iter().zip(base.totals().0).map(ratio).collect();
    if ratios.is_empty() {
        return;
    }
    for row in selection.samples.values.chunks_exact_mut(ratios.len()) {
        for (value, ratio) in row.iter_mut().zip(&ratios).filter(|(_, ratio)| **ratio != 1.0) {
            *value = (*value as f64 * ratio).round() as i64;
        }
    }
}

fn ratio((selection, base): (i64, i64)) -> f64 {
    if selection == 0 { 0.0 } else { base as f64 / selection as f64 }
}

/// Marks all samples of the base, so that a reader can tell them from the others: `pprof::base=true`.
pub fn mark_base(base: &mut Profile<'_>) {
    let [key, str] = [base.strings.len(), base.strings.len() + 1].map(|index| index as u32);
    base.strings.extend([BASE_LABEL.0, BASE_LABEL.1]);
    let mut labels = Vec::with_capacity(base.samples.labels.len() + base.samples.len());
    let mut ends = Vec::with_capacity(base.samples.len());
    for i in 0..base.samples.len() {
        let is_other = |label: &&SampleLabel| base.string(label.key) != BASE_LABEL.0 || label.str == 0;
        labels.extend(base.samples.labels(i).iter().filter(is_other));
        labels.push(SampleLabel { key, str, ..SampleLabel::default() });
        ends.push(labels.len() as u32);
    }
    base.samples.labels = labels;
    base.samples.label_ends = ends;
    base.layout.exact = false;
}

/// Returns whether [`mark_base`] marked sample `i`.
pub(crate) fn is_base(profile: &Profile<'_>, i: usize) -> bool {
    let is_mark = |label: &SampleLabel| (profile.string(label.key), profile.string(label.str)) == BASE_LABEL;
    profile.samples.labels(i).iter().any(is_mark)
}

/// Merges `selection` with the negative values of `base`. Stacks whose values are equal are gone.
///
/// # Errors
///
/// As [`Merger::add`].
pub fn subtract(selection: &Profile<'_>, mut base: Profile<'_>) -> Result<Merged, Error> {
    base.samples.values.iter_mut().for_each(|value| *value = value.saturating_neg());
    let mut merger = Merger::new();
    merger.add(selection)?;
    merger.add(&base)?;
    Ok(merger.finish())
}

/// Puts the values of sample type `sample_type`, an index into both, side by side: the result has two columns, first the selection's,
/// then the base's.
///
/// # Errors
///
/// As [`Merger::add`].
pub fn pair(selection: Profile<'_>, base: Profile<'_>, sample_type: usize) -> Result<Merged, Error> {
    let mut merger = Merger::new();
    merger.add(&column(selection, sample_type, 0))?;
    merger.add(&column(base, sample_type, 1))?;
    Ok(merger.finish())
}

/// Leaves the values of one sample type, as column `at` of two.
fn column(mut profile: Profile<'_>, sample_type: usize, at: usize) -> Profile<'_> {
    let mut values = Vec::with_capacity(2 * profile.samples.len());
    for i in 0..profile.samples.len() {
        let mut row = [0; 2];
        row[at] = profile.values(i)[sample_type];
        values.extend(row);
    }
    profile.sample_types = vec![profile.sample_types[sample_type]; 2];
    profile.samples.values = values;
    profile
}

fn without_samples<'a>(profile: &Profile<'a>) -> Profile<'a> {
    Profile {
        sample_types: profile.sample_types.clone(),
        samples: Samples::default(),
        strings: profile.strings.clone(),
        period_type: profile.period_type,
        default_sample_type: profile.default_sample_type,
        drop_frames: profile.drop_frames,
        keep_frames: profile.keep_frames,
        ..Profile::default()
    }
}
