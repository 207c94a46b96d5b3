//! One profile as columns: what is its own once everything shared lies in the [`Symbols`](super::symbols::Symbols).
//!
//! A profile becomes a stack id, a label set id and one value a type for each sample, in file order; a [`Head`] that a merge needs too;
//! and a [`Meta`] that only an exact copy needs: the order of its records, and those orders and ids that are not as predicted. An id is
//! predicted as one more than its index; for orders see [`super::order`]. What is predicted takes a bit, what is not is listed.

use afterglow_profile::model::Profile;

use super::chunk::{self, Stored};
use super::order::Orders;
use super::rebuild::{self, Parts};
use super::sampling::Scales;
use super::sink::Compare;
use super::symbols::{Interner, Places};
use super::values::{self, Form};
use super::varint::{self, Cursor, Damage, Delta};

/// The samples of one profile, decoded.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    /// The stack of each sample.
    pub(crate) stacks: Vec<u32>,
    /// The label set of each sample; empty where no sample has labels.
    pub(crate) labels: Vec<u32>,
    /// For each value type the value of each sample.
    pub(crate) values: Vec<Vec<i64>>,
}

impl Samples {
    /// Returns the label set of sample `i`.
    pub(crate) fn set(&self, i: usize) -> u32 {
        self.labels.get(i).copied().unwrap_or(0)
    }
}

/// The columns of one profile, encoded, before they are gathered into chunks.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    /// What a merge must know besides the samples.
    pub(crate) head: Head,
    /// The stack of each sample, as zigzag differences.
    pub(crate) stacks: Vec<u8>,
    /// The label set of each sample; empty where no sample has labels.
    pub(crate) labels: Vec<u8>,
    /// For each value type the value of each sample; empty where it is a multiple.
    pub(crate) values: Vec<Vec<u8>>,
    /// For each value type, the earlier one it is a constant multiple of, and the factor.
    pub(crate) multiples: Vec<Option<Multiple>>,
    /// The [`Meta`].
    pub(crate) meta: Vec<u8>,
}

/// Memory that is used again from one profile to the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    places: Places,
    samples: Samples,
    orders: Orders,
}

/// A value type whose values are those of an earlier one, each times the same factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Multiple {
    pub(crate) of: u32,
    pub(crate) factor: i64,
}

/// What a merge must know of a profile besides its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// How many samples there are.
    pub(crate) samples: usize,
    /// An index into the headers.
    pub(crate) header: u32,
    /// The time and the duration in the profile, less those of its row, in nanoseconds.
    pub(crate) time_delta: i64,
    pub(crate) duration_delta: i64,
}

/// What only an exact copy of a profile needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// An index into the patterns.
    pub(crate) pattern: u32,
    /// The shape of all samples, or of each where they differ.
    pub(crate) shapes: Vec<u32>,
    /// Which entries of the tables the profile has, in its order, where that is not as predicted.
    pub(crate) strings: Option<Vec<u32>>,
    pub(crate) functions: Option<Vec<u32>>,
    pub(crate) mappings: Option<Vec<u32>>,
    pub(crate) locations: Option<Vec<u32>>,
    /// The ids, where they are not as predicted.
    pub(crate) function_ids: Option<Vec<u64>>,
    pub(crate) mapping_ids: Option<Vec<u64>>,
    pub(crate) location_ids: Option<Vec<u64>>,
}

/// The bits of a meta's first number, from the lowest.
const LISTS: u32 = 7;
const SHAPES_DIFFER: u64 = 1 << LISTS;

// === impl Columns ===

impl Columns {
    /// Becomes the columns of `profile`, whose entities and stacks are found in or added to `interner`. `row_times` are the time and the
    /// duration of its row, in nanoseconds, and `raw` its bytes.
    ///
    /// # Errors
    /// The bytes rebuilt from the columns would not be `raw`, or its stacks are too many. Then the columns are good for nothing, and `interner` has what they needed.
    pub(crate) fn fill(
        &mut self,
        profile: &Profile<'_>,
        raw: &[u8],
        row_times: (i64, i64),
        interner: &mut Interner,
        scratch: &mut Scratch,
    ) -> Result<(), Damage> {
        let Scratch { places, samples, orders } = scratch;
        interner.entities(profile, places);
        self.head = Head {
            samples: profile.samples.len(),
            header: interner.header(profile, places),
            time_delta: profile.time_nanos.wrapping_sub(row_times.0),
            duration_delta: profile.duration_nanos.wrapping_sub(row_times.1),
        };
        self.fill_stacks(profile, places, interner)?;
        self.fill_labels(profile, places, interner);
        self.fill_values(profile);
        // From here on the samples are those that a reader of the block will read.
        self.read(samples)?;
        let mut meta = Meta::of(profile, places);
        let header = interner.symbols.header(self.head.header)?;
        let pattern = orders.predict(&interner.symbols, samples, &header, (profile, places), &mut meta)?;
        meta.pattern = interner.pattern(&pattern);
        self.meta.clear();
        meta.put(&mut self.meta);
        let meta = Meta::read(&mut Cursor::new(&self.meta), self.head.samples)?;
        let parts = Parts { symbols: &interner.symbols, head: &self.head, samples, meta: &meta, row_times };
        let header = rebuild::check(parts)?;
        rebuild::write(parts, &header, orders, &mut Compare::new(raw))
    }

    /// Returns the columns as they wait for others.
    pub(crate) fn stored(&self) -> Stored {
        let form = |multiple: Option<Multiple>| multiple.map_or(Form::Plain, Form::Multiple);
        let values = self.values.iter().zip(&self.multiples).map(|(values, &multiple)| (&values[..], form(multiple)));
        Stored::columns(self.head, [&self.stacks, &self.labels, &self.meta], values)
    }

    /// Reads the samples, as a reader of the block will.
    fn read(&self, samples: &mut Samples) -> Result<(), Damage> {
        let (mut stacks, mut labels) = (Cursor::new(&self.stacks), Cursor::new(&self.labels));
        chunk::read_samples(self.head.samples, &mut stacks, &mut labels, self.labels.is_empty(), samples)?;
        samples.values.resize_with(self.values.len(), Vec::new);
        let mut scales = Scales::new(&[]);
        for (t, (values, multiple)) in self.values.iter().zip(&self.multiples).enumerate() {
            let form = multiple.map_or(Form::Plain, Form::Multiple);
            values::read(self.head.samples, &mut Cursor::new(values), form, t, &mut scales, samples)?;
        }
        Ok(())
    }

    fn fill_stacks(&mut self, profile: &Profile<'_>, places: &Places, interner: &mut Interner) -> Result<(), Damage> {
        self.stacks.clear();
        let (mut delta, out) = (Delta::default(), &mut self.stacks);
        interner.stacks(&profile.samples, &places.locations, |stack| delta.put(out, stack.into()))
    }

    fn fill_labels(&mut self, profile: &Profile<'_>, places: &Places, interner: &mut Interner) {
        self.labels.clear();
        if profile.samples.labels.is_empty() {
            return;
        }
        for i in 0..self.head.samples {
            varint::put(&mut self.labels, interner.sample_labels(profile.samples.labels(i), places).into());
        }
    }

    fn fill_values(&mut self, profile: &Profile<'_>) {
        let types = profile.sample_types.len();
        self.values.resize_with(types, Vec::new);
        self.values.iter_mut().for_each(Vec::clear);
        let column = |t: usize| profile.samples.values.iter().skip(t).step_by(types).copied();
        let multiple = |t: usize| (0..t).find_map(|of| multiple(column(of), column(t), of));
        self.multiples.clear();
        self.multiples.extend((0..types).map(multiple));
        for row in profile.samples.values.chunks_exact(types.max(1)) {
            let said =
                row.iter().zip(&self.multiples).zip(&mut self.values).filter(|((_, multiple), _)| multiple.is_none());
            said.for_each(|((&value, _), out)| varint::put(out, value as u64));
        }
    }
}

/// Returns how `column` is a constant multiple of column `of`, whose values are `base`.
pub(crate) fn multiple(
    base: impl Iterator<Item = i64>,
    column: impl Iterator<Item = i64>,
    of: usize,
) -> Option<Multiple> {
    let mut factor = None;
    for (base, value) in base.zip(column) {
        match factor {
            _ if base == 0 && value == 0 => {}
            None if value.checked_rem(base) == Some(0) => factor = value.checked_div(base),
            Some(factor) if base.checked_mul(factor) == Some(value) => {}
            _ => return None,
        }
    }
    Some(Multiple { of: of as u32, factor: factor.unwrap_or(0) })
}

fn unpredicted_ids(ids: impl ExactSizeIterator<Item = u64> + Clone) -> Option<Vec<u64>> {
    let predicted = ids.clone().eq(1..=ids.len() as u64);
    if predicted { None } else { Some(ids.collect()) }
}

// === impl Head ===

impl Head {
    /// Appends its bytes.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        varint::put(out, self.samples as u64);
        varint::put(out, self.header.into());
        varint::put_signed(out, self.time_delta);
        varint::put_signed(out, self.duration_delta);
    }

    /// Reads what [`Head::put`] wrote.
    pub(crate) fn read(from: &mut Cursor<'_>) -> Result<Self, Damage> {
        Ok(Self {
            samples: from.u32()? as usize,
            header: from.u32()?,
            time_delta: from.signed()?,
            duration_delta: from.signed()?,
        })
    }
}

// === impl Meta ===

impl Meta {
    /// Returns what is left of `profile`, whose entities lie at `places`, but for its orders.
    fn of(profile: &Profile<'_>, places: &Places) -> Self {
        let shapes = &profile.samples.shapes;
        let listed = if shapes.iter().all(|shape| *shape == shapes[0]) { 1 } else { shapes.len() };
        Self {
            shapes: shapes.iter().take(listed).map(|&shape| places.shapes[usize::from(shape)]).collect(),
            function_ids: unpredicted_ids(profile.functions.iter().map(|function| function.id)),
            mapping_ids: unpredicted_ids(profile.mappings.iter().map(|mapping| mapping.id)),
            location_ids: unpredicted_ids(profile.locations.iter().map(|location| location.id)),
            ..Self::default()
        }
    }

    /// Appends its bytes.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let lists = [&self.strings, &self.functions, &self.mappings, &self.locations];
        let ids = [&self.function_ids, &self.mapping_ids, &self.location_ids];
        let present = lists.iter().map(|list| list.is_some()).chain(ids.iter().map(|list| list.is_some()));
        let mut flags: u64 = present.enumerate().map(|(bit, is)| u64::from(is) << bit).sum();
        if self.shapes.len() > 1 {
            flags |= SHAPES_DIFFER;
        }
        varint::put(out, flags);
        varint::put(out, self.pattern.into());
        self.shapes.iter().for_each(|&shape| varint::put(out, shape.into()));
        for list in lists.into_iter().flatten() {
            let mut delta = Delta::default();
            varint::put(out, list.len() as u64);
            list.iter().for_each(|&place| delta.put(out, place.into()));
        }
        for list in ids.into_iter().flatten() {
            let mut delta = Delta::default();
            varint::put(out, list.len() as u64);
            list.iter().for_each(|&id| delta.put(out, id));
        }
    }

    /// Reads what [`Meta::put`] wrote for a profile of `samples` samples. What it refers to is not checked.
    pub(crate) fn read(from: &mut Cursor<'_>, samples: usize) -> Result<Self, Damage> {
        let flags = from.varint()?;
        if flags >> (LISTS + 1) != 0 {
            return Err(Damage("a flag is unknown"));
        }
        let pattern = from.u32()?;
        let shapes = if flags & SHAPES_DIFFER == 0 { samples.min(1) } else { samples };
        if shapes > from.left() {
            return Err(Damage("ends too early"));
        }
        let shapes = (0..shapes).map(|_| from.u32()).collect::<Result<_, _>>()?;
        let mut list = |bit: u32| -> Result<Option<Vec<u64>>, Damage> {
            if flags & 1 << bit == 0 {
                return Ok(None);
            }
            let mut delta = Delta::default();
            let count = from.count(1)?;
            (0..count).map(|_| delta.read(from)).collect::<Result<_, _>>().map(Some)
        };
        let mut places = |bit: u32| -> Result<Option<Vec<u32>>, Damage> {
            let Some(list) = list(bit)? else { return Ok(None) };
            let narrow = |place| u32::try_from(place).map_err(|_| Damage("a number is out of range"));
            list.into_iter().map(narrow).collect::<Result<_, _>>().map(Some)
        };
        Ok(Self {
            pattern,
            shapes,
            strings: places(0)?,
            functions: places(1)?,
            mappings: places(2)?,
            locations: places(3)?,
            function_ids: list(4)?,
            mapping_ids: list(5)?,
            location_ids: list(6)?,
        })
    }
}
