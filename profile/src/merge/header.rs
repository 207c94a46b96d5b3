//! The header of a merge: what is said once a profile, and whether profiles go together at all.
//!
//! Profiles merge when they have the same period type and at least one sample type in common. As `pprof` does before it merges
//! files, sample types that not all profiles have are left out, and where units differ but convert, the finer one wins.

use std::collections::BTreeSet;

use super::{
    Error,
    leading::{Leading, Order},
    values::Column,
};
use crate::{
    model::{Profile, ValueType},
    tree::clamp,
    units::{self, Common},
};

/// The most characters of a word that a message shows. Words come from outside and may be as long as any string.
const WORD_SHOWN_MAX: usize = 64;

/// A sample type or period type by its words.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Measure {
    pub(super) kind: Vec<u8>,
    pub(super) unit: Vec<u8>,
}

/// What is merged of the headers so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Header {
    /// Those in common, in the order of the columns of values.
    pub(super) sample_types: Vec<Measure>,
    pub(super) period_type: Measure,
    pub(super) period: i64,
    pub(super) time_nanos: i64,
    pub(super) duration_nanos: i64,
    pub(super) leading: Leading,
    /// The sample types that were left out.
    pub(super) left_out: BTreeSet<Vec<u8>>,
}

/// How the values of the merge and of the profile to be added become the same columns; `None` where they stay as they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Columns {
    /// What the merge's columns become.
    pub(super) ours: Option<Vec<Column>>,
    /// Where the merge's columns lie in the profile.
    pub(super) theirs: Option<Vec<Column>>,
}

// === impl Measure ===

impl Measure {
    fn new(profile: &Profile<'_>, value_type: &ValueType) -> Self {
        Self { kind: profile.string(value_type.kind).to_vec(), unit: profile.string(value_type.unit).to_vec() }
    }

    fn is(&self, profile: &Profile<'_>, value_type: &ValueType) -> bool {
        self.kind == profile.string(value_type.kind) && self.unit == profile.string(value_type.unit)
    }

    fn display(&self) -> String {
        format!("{}/{}", shorten(&self.kind), shorten(&self.unit))
    }

    /// Returns how many bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.kind.len() + self.unit.len()
    }
}

// === impl Header ===

impl Header {
    /// Takes over the header of the profile that is added first.
    pub(super) fn new(profile: &Profile<'_>, order: Order) -> Self {
        let mut header = Self {
            sample_types: measures(profile),
            period_type: period_type(profile),
            period: profile.period,
            leading: Leading::new(order),
            ..Self::default()
        };
        header.add_said(profile);
        header
    }

    /// Merges the header of one more profile and returns how the values come together.
    ///
    /// # Errors
    ///
    /// Fails, and changes nothing, when the period types differ or no sample type is in common.
    pub(super) fn add(&mut self, profile: &Profile<'_>) -> Result<Columns, Error> {
        let their_period = period_type(profile);
        let period = match units::common(&self.period_type.unit, &their_period.unit) {
            Some(common) if self.period_type.kind == their_period.kind => common,
            _ => return Err(Error::PeriodTypes { ours: self.period_type.display(), theirs: their_period.display() }),
        };
        let same = self.sample_types.len() == profile.sample_types.len()
            && self.sample_types.iter().zip(&profile.sample_types).all(|(ours, theirs)| ours.is(profile, theirs));
        let columns = if same { Columns::default() } else { self.reconcile(profile)? };
        let scale = |period: i64, factor: i128| clamp(i128::from(period).saturating_mul(factor));
        self.period = scale(self.period, period.first).max(scale(profile.period, period.second));
        if period.first != 1 {
            self.period_type = their_period;
        }
        self.add_said(profile);
        Ok(columns)
    }

    fn add_said(&mut self, profile: &Profile<'_>) {
        // The earliest known time. Go's Merge means the same but forgets what it had when it meets a profile without a time.
        if profile.time_nanos != 0 && (self.time_nanos == 0 || profile.time_nanos < self.time_nanos) {
            self.time_nanos = profile.time_nanos;
        }
        self.duration_nanos = self.duration_nanos.saturating_add(profile.duration_nanos);
        self.leading.add(profile);
    }

    /// Reduces the sample types to those in common, in our order, and returns how the values of both sides become values of these.
    fn reconcile(&mut self, profile: &Profile<'_>) -> Result<Columns, Error> {
        let theirs = measures(profile);
        let incompatible = || {
            let display = |types: &[Measure]| types.iter().map(Measure::display).collect::<Vec<_>>().join(", ");
            Error::SampleTypes { ours: display(&self.sample_types), theirs: display(&theirs) }
        };
        let (mut in_common, mut our_columns, mut their_columns) = (Vec::new(), Vec::new(), Vec::new());
        for measure in &self.sample_types {
            let (Some(ours), Some(other)) = (only(&self.sample_types, &measure.kind), only(&theirs, &measure.kind))
            else {
                continue;
            };
            let Common { first, second } =
                units::common(&measure.unit, &theirs[other].unit).ok_or_else(incompatible)?;
            in_common.push(if first == 1 { measure.clone() } else { theirs[other].clone() });
            our_columns.push(Column { source: ours, factor: first });
            their_columns.push(Column { source: other, factor: second });
        }
        if in_common.is_empty() {
            return Err(incompatible());
        }
        for measure in self.sample_types.iter().chain(&theirs) {
            if only(&in_common, &measure.kind).is_none() {
                self.left_out.insert(measure.kind.clone());
            }
        }
        let unless_same = |columns: Vec<Column>, width: usize| {
            let same =
                columns.len() == width && columns.iter().enumerate().all(|(i, c)| c.source == i && c.factor == 1);
            (!same).then_some(columns)
        };
        let columns = Columns {
            ours: unless_same(our_columns, self.sample_types.len()),
            theirs: unless_same(their_columns, theirs.len()),
        };
        self.sample_types = in_common;
        Ok(columns)
    }
}

/// Returns `word` as a message shows it.
pub(super) fn shorten(word: &[u8]) -> String {
    String::from_utf8_lossy(word).chars().take(WORD_SHOWN_MAX).collect()
}

/// Returns the sample types of `profile`.
pub(super) fn measures(profile: &Profile<'_>) -> Vec<Measure> {
    profile.sample_types.iter().map(|value_type| Measure::new(profile, value_type)).collect()
}

/// Returns the period type of `profile`; one without has an empty one, which is the same in pprof.
fn period_type(profile: &Profile<'_>) -> Measure {
    profile.period_type.as_ref().map(|value_type| Measure::new(profile, value_type)).unwrap_or_default()
}

/// Returns the index of the measure of `kind`, if there is exactly one.
fn only(measures: &[Measure], kind: &[u8]) -> Option<usize> {
    let mut indices = measures.iter().enumerate().filter(|(_, measure)| measure.kind == kind).map(|(i, _)| i);
    let index = indices.next()?;
    indices.next().is_none().then_some(index)
}
