//! Values of samples over many profiles of a dataset, group by group.
//!
//! A question that compares instances or hours would read a chunk once for each of them. Here it is read once: what is equal in all
//! groups, the stacks, is kept once, and each group has the numbers of its stacks and their values. A group takes as much memory as
//! it has distinct stacks, so rows that lie together, sorted by series and time, are best of one group.

use std::sync::Arc;

use afterglow_profile::Limits;
use afterglow_profile::decode::decode;
use afterglow_profile::functions::Stacks;
use afterglow_profile::model::{NONE, Profile};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::aggregate::{LACKS_A_TYPE, SampleTypes};
use super::chunk::{Needed, Profiles, Unpacked};
use super::columns::Samples;
use super::decoded::Tables;
use super::piece::Read;
use super::rows::Row;
use super::sums::{Headers, Sum, Summed, Sums, check};
use super::varint::Damage;

/// What is wanted of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The group it belongs to, any number.
    pub group: u32,
    /// Which of its sample types, as an index.
    pub column: usize,
    /// What its values are multiplied with.
    pub factor: i128,
}

/// The samples of several profiles with one header: the distinct ones, and their values by group.
#[derive(Debug)]
pub struct Grouped {
    content: Content,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Content {
    /// The samples of profiles that are kept as columns, without values.
    Samples(Sums),
    /// The bytes of one profile that is kept as it was sent.
    Whole(Vec<u8>),
}

/// The values of a group. Groups may stand in several parts.
#[derive(Debug, Default)]
pub struct Part {
    /// The group.
    pub group: u32,
    /// The numbers of the samples that have a value.
    pub samples: Vec<u32>,
    /// Their values, wide enough for any number of 64-bit ones.
    pub values: Vec<i128>,
}

// === impl Wanted ===

impl Wanted {
    /// Returns which sample types are summed for it.
    pub(super) fn types(self) -> SampleTypes {
        SampleTypes::One(self.column)
    }
}

// === impl Grouped ===

impl Grouped {
    /// Returns the distinct samples as a profile, with no more tables than they need. Each value of a sample is the number that parts
    /// know it by, so whoever leaves some out still knows which are left.
    pub fn profile(&self) -> Profile<'_> {
        match &self.content {
            Content::Samples(samples) => numbered(samples.profile()),
            Content::Whole(raw) => numbered(decode(raw, &Limits::UNLIMITED).expect("it was decoded when it was read")),
        }
    }

    /// Returns the frames of the distinct samples, by their numbers: what [`Stacks::new`] makes of the profile, for less. None where that takes
    /// the profile, because there are frames that are to be dropped, or it is kept as it was sent.
    pub fn stacks(&self) -> Option<Stacks<'_>> {
        match &self.content {
            Content::Samples(samples) => samples.stacks(),
            Content::Whole(_) => None,
        }
    }

    /// Returns the values.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

/// Makes the number of each sample its values.
fn numbered(mut profile: Profile<'_>) -> Profile<'_> {
    let (samples, types) = (profile.samples.len() as i64, profile.sample_types.len());
    profile.samples.values = (0..samples).flat_map(|number| std::iter::repeat_n(number, types)).collect();
    profile
}

/// Takes the samples of a dataset.
pub(crate) struct Grouping {
    tables: Tables,
    headers: Headers,
    sets: Vec<Set>,
    apart: Vec<Grouped>,
    samples: Samples,
}

/// The samples of the profiles with one header.
struct Set {
    /// For each stack, the number of its sample without labels, or [`NONE`].
    slots: Vec<u32>,
    /// The same for samples with labels.
    labelled: FxHashMap<(u32, u32), u32>,
    keys: Vec<(u32, u32)>,
    /// For each sample, its place in the last part, or [`NONE`].
    places: Vec<u32>,
    parts: Vec<Part>,
}

// === impl Grouping ===

impl Grouping {
    /// Starts with nothing taken.
    pub(crate) fn new(tables: Tables) -> Self {
        let headers = Headers::default();
        Self { tables, headers, sets: Vec::new(), apart: Vec::new(), samples: Samples::default() }
    }

    /// Returns the samples of the profiles with a header of the symbols.
    fn set(&mut self, header: u32) -> Result<&mut Set, Damage> {
        let symbols = &*self.tables.symbols;
        let at = self.headers.place(header, symbols)?;
        if at == self.sets.len() {
            self.sets.push(Set::new(symbols.leaves.len()));
        }
        Ok(&mut self.sets[at])
    }

    /// Returns what was taken.
    pub(crate) fn finish(self) -> Vec<Grouped> {
        let Self { tables: Tables { symbols, .. }, headers, sets, mut apart, .. } = self;
        let grouped = |(place, Set { keys, parts, .. }): (usize, Set)| {
            let header = headers.get(place).clone();
            let symbols = Arc::clone(&symbols);
            let samples = Sums { symbols, header, summed: Summed { keys, ..Summed::default() } };
            Grouped { content: Content::Samples(samples), parts }
        };
        let mut all: Vec<_> = sets.into_iter().enumerate().map(grouped).collect();
        all.append(&mut apart);
        all
    }
}

impl Read<Wanted> for Grouping {
    fn add_blob(&mut self, raw: Vec<u8>, wanted: Wanted) -> Result<(), Damage> {
        let profile = decode(&raw, &Limits::UNLIMITED).map_err(|_| Damage("is no profile"))?;
        let mut part = Part { group: wanted.group, ..Part::default() };
        for sample in 0..profile.samples.len() {
            let value = profile.values(sample).get(wanted.column).ok_or(LACKS_A_TYPE)?;
            part.samples.push(sample as u32);
            part.values.push(i128::from(*value).saturating_mul(wanted.factor));
        }
        drop(profile);
        self.apart.push(Grouped { content: Content::Whole(raw), parts: vec![part] });
        Ok(())
    }

    fn needed(&mut self, _chunk: &Unpacked, rows: &[(&Row, Wanted)]) -> Result<Needed, Damage> {
        let mut types: SmallVec<[usize; 4]> = rows.iter().map(|(_, wanted)| wanted.column).collect();
        types.sort_unstable();
        types.dedup();
        Ok(Needed::Only(types))
    }

    fn add_chunk(&mut self, chunk: &Unpacked, rows: &[(&Row, Wanted)]) -> Result<(), Damage> {
        let numbers = Arc::clone(&self.tables.numbers);
        let mut profiles = Profiles::new(chunk, &numbers)?;
        let mut samples = std::mem::take(&mut self.samples);
        for (row, wanted) in rows {
            let head = profiles.read(row.position as usize, &mut samples)?;
            check(&samples, &self.tables.symbols)?;
            self.set(head.header)?.add(&samples, wanted)?;
        }
        self.samples = samples;
        Ok(())
    }

    fn add_sum(&mut self, sum: &Sum, wanted: Wanted) -> Result<(), Damage> {
        self.set(sum.header)?.add(&sum.samples, &wanted)
    }
}

// === impl Set ===

impl Set {
    fn new(stacks: usize) -> Self {
        Self {
            slots: vec![NONE; stacks],
            labelled: FxHashMap::default(),
            keys: Vec::new(),
            places: Vec::new(),
            parts: Vec::new(),
        }
    }

    fn add(&mut self, samples: &Samples, wanted: &Wanted) -> Result<(), Damage> {
        let column = samples.values.get(wanted.column).ok_or(LACKS_A_TYPE)?;
        if self.parts.last().is_none_or(|part| part.group != wanted.group) {
            for &sample in self.parts.last().iter().flat_map(|part| &part.samples) {
                self.places[sample as usize] = NONE;
            }
            // Mostly the profiles of a group have the samples of its first, and those of all groups too.
            let likely = samples.stacks.len();
            if self.parts.is_empty() {
                self.keys.reserve(likely);
                self.places.reserve(likely);
            }
            let (samples, values) = (Vec::with_capacity(likely), Vec::with_capacity(likely));
            self.parts.push(Part { group: wanted.group, samples, values });
        }
        let part = self.parts.last_mut().expect("there is one, from before or from just now");
        for (i, (&stack, &value)) in samples.stacks.iter().zip(column).enumerate() {
            if value == 0 {
                continue;
            }
            let set = samples.set(i);
            let slot = match set {
                0 => &mut self.slots[stack as usize],
                _ => self.labelled.entry((stack, set)).or_insert(NONE),
            };
            if *slot == NONE {
                *slot = self.keys.len() as u32;
                self.keys.push((stack, set));
                self.places.push(NONE);
            }
            let place = &mut self.places[*slot as usize];
            if *place == NONE {
                *place = part.samples.len() as u32;
                part.samples.push(*slot);
                part.values.push(0);
            }
            let sum = &mut part.values[*place as usize];
            *sum = sum.saturating_add(i128::from(value).saturating_mul(wanted.factor));
        }
        Ok(())
    }
}
