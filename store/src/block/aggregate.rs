//! Sums of samples over many profiles of a dataset.
//!
//! Samples are added by stack and label set, which are small numbers in a block: a merge is additions into an array, without a string
//! compared or a stack hashed. Only the result names anything.

use std::sync::Arc;

use afterglow_profile::Limits;
use afterglow_profile::decode::decode;
use afterglow_profile::model::Profile;
use smallvec::{SmallVec, smallvec};

use super::chunk::{Needed, Profiles, Unpacked};
use super::columns::{Head, Samples};
use super::decoded::{SharedSums, Tables};
use super::piece::Read;
use super::rows::Row;
use super::sums::{Group, Headers, Sum, Summed, Sums, check};
use super::symbols::{Header, Symbols};
use super::varint::Damage;

/// Which sample types of profiles are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SampleTypes {
    /// All of them.
    All,
    /// The one with this index.
    One(usize),
    /// Of each profile the one that it shows by default, as [`Profile::sample_type_named`] says.
    Default,
}

/// The samples of several profiles with one header, summed by stack and labels.
#[derive(Debug)]
pub struct Aggregate {
    content: Content,
    /// The sample type that it is reduced to, as an index into those of the profiles.
    sample_type: Option<usize>,
}

#[derive(Debug)]
enum Content {
    /// Sums of profiles that are kept as columns.
    Sums(Sums),
    /// The bytes of one profile that is kept as it was sent.
    Whole(Vec<u8>),
}

impl Aggregate {
    /// Returns how many profiles were summed.
    pub fn profiles(&self) -> usize {
        match &self.content {
            Content::Sums(sums) => sums.summed.profiles,
            Content::Whole(_) => 1,
        }
    }

    /// Returns which sample type of the profiles was summed, as an index; none where all were.
    pub fn sample_type(&self) -> Option<usize> {
        self.sample_type
    }

    /// Returns the sums as a profile, with no more tables than its samples need. Its time is the smallest of those summed that is not 0, its
    /// duration the sum of theirs.
    pub fn profile(&self) -> Profile<'_> {
        match &self.content {
            Content::Sums(sums) => sums.profile(),
            Content::Whole(raw) => {
                let mut profile = decode(raw, &Limits::UNLIMITED).expect("it was decoded when it was read");
                if let Some(t) = self.sample_type {
                    let types = profile.sample_types.len();
                    profile.samples.values = profile.samples.values.iter().skip(t).step_by(types).copied().collect();
                    profile.sample_types = vec![profile.sample_types[t]];
                }
                profile
            }
        }
    }
}

// === impl SampleTypes ===

impl SampleTypes {
    /// Returns which one of so many sample types is summed, none for all; `default` is what is shown by default.
    fn of(self, types: usize, default: impl FnOnce() -> Option<usize>) -> Result<Option<usize>, Damage> {
        match self {
            Self::All => Ok(None),
            Self::One(t) if t < types => Ok(Some(t)),
            Self::One(_) => Err(LACKS_A_TYPE),
            Self::Default => Ok(default()),
        }
    }
}

pub(super) const LACKS_A_TYPE: Damage = Damage("lacks a sample type that its row has");

/// Returns which sample type profiles with this header show by default, by the rule of [`Profile::sample_type_named`].
fn default_sample_type(header: &Header, symbols: &Symbols) -> Option<usize> {
    let name = |place| symbols.strings.get(place);
    let default = name(header.default_sample_type);
    let named = header.sample_types.iter().position(|t| !default.is_empty() && name(t.kind) == default);
    named.or(header.sample_types.len().checked_sub(1))
}

/// Adds up the samples of a dataset.
pub(crate) struct Summing {
    types: SampleTypes,
    tables: Tables,
    headers: Headers,
    groups: Vec<Group>,
    apart: Vec<Aggregate>,
    samples: Samples,
}

impl Summing {
    /// Starts with nothing added.
    pub(crate) fn new(tables: Tables, types: SampleTypes) -> Self {
        let headers = Headers::default();
        Self { types, tables, headers, groups: Vec::new(), apart: Vec::new(), samples: Samples::default() }
    }

    /// Returns the place of the group of profiles with a header of the symbols.
    fn group(&mut self, header: u32) -> Result<usize, Damage> {
        let symbols = &*self.tables.symbols;
        let at = self.headers.place(header, symbols)?;
        if at == self.groups.len() {
            let header = self.headers.get(at);
            let types = header.sample_types.len();
            let sample_type = self.types.of(types, || default_sample_type(header, symbols))?;
            self.groups.push(Group::new(types, sample_type, symbols.leaves.len()));
        }
        Ok(at)
    }

    /// Adds the samples of so many profiles; times are relative to `row`.
    fn add(&mut self, head: &Head, samples: &Samples, row: &Row, profiles: usize) -> Result<(), Damage> {
        check(samples, &self.tables.symbols)?;
        let time_nanos = head.time_delta.wrapping_add(row.time_nanos);
        let duration_nanos = head.duration_delta.wrapping_add(row.duration_nanos);
        self.add_checked(head.header, samples, (time_nanos, duration_nanos), profiles)
    }

    /// Adds the samples of so many profiles, which refer to entries of the tables.
    fn add_checked(
        &mut self,
        header: u32,
        samples: &Samples,
        (time_nanos, duration_nanos): (i64, i64),
        profiles: usize,
    ) -> Result<(), Damage> {
        let at = self.group(header)?;
        let group = &mut self.groups[at];
        if samples.values.len() != group.types {
            return Err(Damage("has another number of values than sample types"));
        }
        if !group.add(samples, (time_nanos, duration_nanos), profiles) {
            // A sum does not fit. Whoever merges has a rule for that, so these samples stay apart.
            let sample_type = group.sample_type;
            let values = match sample_type {
                Some(t) => samples.values[t].clone(),
                None => {
                    (0..samples.stacks.len()).flat_map(|i| samples.values.iter().map(move |column| column[i])).collect()
                }
            };
            let keys = (0..).zip(&samples.stacks).map(|(i, &stack)| (stack, samples.set(i))).collect();
            let summed = Summed { profiles, time_nanos, duration_nanos, keys, values };
            self.apart.push(sums(&self.tables.symbols, self.headers.get(at), sample_type, summed));
        }
        Ok(())
    }

    /// Adds profiles of a chunk, or a roll-up of so many, and returns whether their sum stands for them in any answer: where a value is
    /// negative it does not, for whether sums fit would depend on the order.
    pub(crate) fn add_all<'a>(
        &mut self,
        chunk: &Unpacked,
        rows: impl Iterator<Item = (&'a Row, usize)>,
    ) -> Result<bool, Damage> {
        let numbers = Arc::clone(&self.tables.numbers);
        let mut profiles = Profiles::new(chunk, &numbers)?;
        let mut samples = std::mem::take(&mut self.samples);
        let mut is_plain = true;
        for (row, count) in rows {
            let head = profiles.read(row.position as usize, &mut samples)?;
            is_plain &= samples.values.iter().flatten().all(|&value| value >= 0);
            self.add(&head, &samples, row, count)?;
        }
        self.samples = samples;
        Ok(is_plain)
    }

    /// Returns what was added header by header; none where not all of it is in one sum.
    pub(crate) fn into_sums(self) -> Option<SharedSums> {
        let Self { headers, groups, apart, .. } = self;
        let sum = |(at, group): (usize, Group)| {
            let (types, sample_type) = (group.types, group.sample_type);
            Sum::new(headers.first(at), types, sample_type, group.finish())
        };
        apart.is_empty().then(|| groups.into_iter().enumerate().map(sum).collect())
    }

    /// Returns the sums, in the order of the headers.
    pub(crate) fn finish(self) -> Vec<Aggregate> {
        let Self { tables: Tables { symbols, .. }, headers, groups, mut apart, .. } = self;
        let mut groups: Vec<(usize, Group)> = groups.into_iter().enumerate().collect();
        groups.sort_unstable_by_key(|&(at, _)| headers.first(at));
        let sum = |(at, group): (usize, Group)| {
            let sample_type = group.sample_type;
            sums(&symbols, headers.get(at), sample_type, group.finish())
        };
        let mut all: Vec<_> = groups.into_iter().map(sum).collect();
        all.append(&mut apart);
        all
    }
}

/// Makes an aggregate of sums of all sample types of a header, or of one.
fn sums(symbols: &Arc<Symbols>, header: &Header, sample_type: Option<usize>, summed: Summed) -> Aggregate {
    let mut header = header.clone();
    if let Some(t) = sample_type {
        header.sample_types = vec![header.sample_types[t]];
    }
    let symbols = Arc::clone(symbols);
    Aggregate { content: Content::Sums(Sums { symbols, header, summed }), sample_type }
}

impl Read<()> for Summing {
    fn add_blob(&mut self, raw: Vec<u8>, (): ()) -> Result<(), Damage> {
        let profile = decode(&raw, &Limits::UNLIMITED).map_err(|_| Damage("is no profile"))?;
        let sample_type = self.types.of(profile.sample_types.len(), || profile.sample_type_named(None))?;
        drop(profile);
        self.apart.push(Aggregate { content: Content::Whole(raw), sample_type });
        Ok(())
    }

    fn needed(&mut self, chunk: &Unpacked, rows: &[(&Row, ())]) -> Result<Needed, Damage> {
        let mut types: SmallVec<[usize; 4]> = match self.types {
            SampleTypes::All => return Ok(Needed::All),
            SampleTypes::One(t) => smallvec![t],
            SampleTypes::Default => {
                let (heads, _) = chunk.heads()?;
                // A head that is missing is refused when the profile is read.
                let headers = rows.iter().filter_map(|(row, ())| heads.get(row.position as usize));
                let types = headers.map(|head| -> Result<_, Damage> {
                    let at = self.group(head.header)?;
                    Ok(self.groups[at].sample_type)
                });
                types.filter_map(Result::transpose).collect::<Result<_, _>>()?
            }
        };
        types.sort_unstable();
        types.dedup();
        Ok(Needed::Only(types))
    }

    fn add_chunk(&mut self, chunk: &Unpacked, rows: &[(&Row, ())]) -> Result<(), Damage> {
        self.add_all(chunk, rows.iter().map(|&(row, ())| (row, 1))).map(drop)
    }

    fn add_sum(&mut self, sum: &Sum, (): ()) -> Result<(), Damage> {
        self.add_checked(sum.header, &sum.samples, sum.times, sum.profiles)
    }
}
