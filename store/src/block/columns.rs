//! One profile as columns: what is its own once everything shared lies in the [`Symbols`](super::symbols::Symbols).
//!
//! A profile becomes a stack id, a label set id and one value a type for each sample, in file order, and a [`Meta`]: its header, its
//! times, and those orders and ids that are not as predicted. Orders are predicted as the order of first use, walking the file:
//! mappings and functions as the locations need them, locations as the samples need them, strings as the records name them; an id is
//! predicted as one more than its index. What is predicted takes a bit, what is not is listed.

use afterglow_profile::model::{NONE, Profile};

use super::chunk;
use super::order::{self, Counts, key};
use super::rebuild::Samples;
use super::symbols::{Interner, Places};
use super::varint::{self, Cursor, Damage, Delta};

/// The columns of one profile, encoded, before they are gathered into chunks.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    /// What a merge must know besides the samples.
    pub(crate) head: Head,
    /// The stack of each sample, as zigzag differences.
    pub(crate) stacks: Vec<u8>,
    /// The label set of each sample; empty where no sample has labels.
    pub(crate) labels: Vec<u8>,
    /// For each value type the value of each sample.
    pub(crate) values: Vec<Vec<u8>>,
    /// For each value type, the earlier one it is a constant multiple of, and the factor.
    pub(crate) multiples: Vec<Option<Multiple>>,
    /// The [`Meta`].
    pub(crate) meta: Vec<u8>,
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
    /// Becomes the columns of `profile`, whose entities lie at `places` and whose stacks and labels are found in or added to
    /// `interner`. `row_time` and `row_duration` are those of its row, in nanoseconds.
    pub(crate) fn fill(
        &mut self,
        profile: &Profile<'_>,
        places: &Places,
        interner: &mut Interner,
        row_time: i64,
        row_duration: i64,
    ) {
        self.head = Head {
            samples: profile.samples.len(),
            header: interner.header(profile, places),
            time_delta: profile.time_nanos.wrapping_sub(row_time),
            duration_delta: profile.duration_nanos.wrapping_sub(row_duration),
        };
        self.fill_stacks(profile, places, interner);
        self.fill_labels(profile, places, interner);
        self.fill_values(profile);
        let meta = Meta::of(profile, places, interner);
        self.meta.clear();
        meta.put(&mut self.meta);
    }

    /// Reads what [`Columns::fill`] wrote, as a reader of the block will.
    pub(crate) fn read(&self, samples: &mut Samples) -> Result<Meta, Damage> {
        let (mut stacks, mut labels) = (Cursor::new(&self.stacks), Cursor::new(&self.labels));
        chunk::read_samples(self.head.samples, &mut stacks, &mut labels, self.labels.is_empty(), samples)?;
        samples.values.resize_with(self.values.len(), Vec::new);
        for (t, (values, multiple)) in self.values.iter().zip(&self.multiples).enumerate() {
            chunk::read_values(self.head.samples, &mut Cursor::new(values), *multiple, t, &mut samples.values)?;
        }
        Meta::read(&mut Cursor::new(&self.meta), self.head.samples)
    }

    fn fill_stacks(&mut self, profile: &Profile<'_>, places: &Places, interner: &mut Interner) {
        self.stacks.clear();
        let mut delta = Delta::default();
        for i in 0..self.head.samples {
            let locations = profile.samples.stack(i).iter().map(|&local| places.locations[local as usize]);
            delta.put(&mut self.stacks, interner.stack(locations).into());
        }
    }

    fn fill_labels(&mut self, profile: &Profile<'_>, places: &Places, interner: &mut Interner) {
        self.labels.clear();
        if profile.samples.labels.is_empty() {
            return;
        }
        for i in 0..self.head.samples {
            varint::put(&mut self.labels, interner.label_set(profile.samples.labels(i), places).into());
        }
    }

    fn fill_values(&mut self, profile: &Profile<'_>) {
        let types = profile.sample_types.len();
        self.values.resize_with(types, Vec::new);
        self.multiples.clear();
        for t in 0..types {
            let column = |t: usize| profile.samples.values.iter().skip(t).step_by(types).copied();
            let out = &mut self.values[t];
            out.clear();
            column(t).for_each(|value| varint::put(out, value as u64));
            self.multiples.push((0..t).find_map(|of| multiple(column(of), column(t), of)));
        }
    }
}

/// Returns how `column` is a constant multiple of column `of`, whose values are `base`.
fn multiple(base: impl Iterator<Item = i64>, column: impl Iterator<Item = i64>, of: usize) -> Option<Multiple> {
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

/// Whether the orders of a profile are as predicted, and what its order of records depends on.
#[derive(Debug, Default)]
struct Order {
    locations: bool,
    functions: bool,
    mappings: bool,
    sample_needs: Vec<u32>,
    location_needs: Vec<u32>,
}

/// Checks that things numbered from 0 are first used in the order of their numbers.
#[derive(Debug, Default)]
struct FirstUse {
    next: u32,
    skipped: bool,
}

impl FirstUse {
    #[inline]
    fn see(&mut self, index: u32) {
        if index >= self.next {
            self.skipped |= index > self.next;
            self.next = index + 1;
        }
    }

    /// Returns whether all `len` things were used, each when its turn had come.
    fn is_predicted(&self, len: usize) -> bool {
        !self.skipped && self.next as usize == len
    }
}

impl Order {
    fn of(profile: &Profile<'_>) -> Self {
        let mut locations = FirstUse::default();
        let sample_needs = (0..profile.samples.len())
            .map(|i| {
                let stack = profile.samples.stack(i);
                stack.iter().for_each(|&location| locations.see(location));
                stack.iter().max().map_or(0, |max| max + 1)
            })
            .collect();
        let (mut functions, mut mappings) = (FirstUse::default(), FirstUse::default());
        let location_needs = profile
            .locations
            .iter()
            .map(|location| {
                if location.mapping != NONE {
                    mappings.see(location.mapping);
                }
                let used = profile.lines[location.lines()].iter().map(|line| line.function);
                let mut needs = 0;
                for function in used.filter(|&function| function != NONE) {
                    functions.see(function);
                    needs = needs.max(function + 1);
                }
                needs
            })
            .collect();
        Self {
            locations: locations.is_predicted(profile.locations.len()),
            functions: functions.is_predicted(profile.functions.len()),
            mappings: mappings.is_predicted(profile.mappings.len()),
            sample_needs,
            location_needs,
        }
    }

    fn counts(&self, profile: &Profile<'_>) -> Counts<'_> {
        Counts {
            sample_types: profile.sample_types.len(),
            mappings: profile.mappings.len(),
            strings: profile.strings.len(),
            comments: profile.comments.len(),
            sample_needs: &self.sample_needs,
            location_needs: &self.location_needs,
            functions: profile.functions.len(),
        }
    }
}

/// Returns whether the string table has each string where its first use, walking the records, puts it.
fn strings_are_predicted(profile: &Profile<'_>, pattern: &[u8], counts: &Counts<'_>) -> bool {
    let mut strings = FirstUse::default();
    strings.see(0);
    let walked = order::walk(pattern, counts, |key, i| {
        match key {
            key::SAMPLE_TYPE => see_type(&mut strings, &profile.sample_types[i]),
            key::PERIOD_TYPE => profile.period_type.iter().for_each(|t| see_type(&mut strings, t)),
            key::SAMPLE => {
                for label in profile.samples.labels(i) {
                    [label.key, label.str, label.num_unit].into_iter().for_each(|s| strings.see(s));
                }
            }
            key::MAPPING => {
                strings.see(profile.mappings[i].file);
                strings.see(profile.mappings[i].build_id);
            }
            key::FUNCTION => {
                let function = &profile.functions[i];
                [function.name, function.system_name, function.file].into_iter().for_each(|s| strings.see(s));
            }
            key::COMMENT => strings.see(profile.comments[i]),
            key::COMMENTS_PACKED => profile.comments.iter().for_each(|&comment| strings.see(comment)),
            key::DROP_FRAMES => strings.see(profile.drop_frames),
            key::KEEP_FRAMES => strings.see(profile.keep_frames),
            key::DEFAULT_SAMPLE_TYPE => strings.see(profile.default_sample_type),
            key::DOC_URL => strings.see(profile.doc_url),
            _ => {}
        }
        Ok(())
    });
    walked.is_ok() && strings.is_predicted(profile.strings.len())
}

fn see_type(strings: &mut FirstUse, value_type: &afterglow_profile::model::ValueType) {
    strings.see(value_type.kind);
    strings.see(value_type.unit);
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
    /// Returns what is left of `profile`, whose entities lie at `places`.
    fn of(profile: &Profile<'_>, places: &Places, interner: &mut Interner) -> Self {
        let order = Order::of(profile);
        let counts = order.counts(profile);
        let mut pattern = Vec::new();
        order::write(&mut pattern, &profile.layout.records, &counts);
        let predicted = strings_are_predicted(profile, &pattern, &counts);
        let list = |predicted: bool, list: &[u32]| if predicted { None } else { Some(list.to_vec()) };
        let shapes = &profile.samples.shapes;
        let listed = if shapes.iter().all(|shape| *shape == shapes[0]) { 1 } else { shapes.len() };
        Self {
            pattern: interner.pattern(&pattern),
            shapes: shapes.iter().take(listed).map(|&shape| places.shapes[usize::from(shape)]).collect(),
            strings: list(predicted, &places.strings),
            functions: list(order.functions, &places.functions),
            mappings: list(order.mappings, &places.mappings),
            locations: list(order.locations, &places.locations),
            function_ids: unpredicted_ids(profile.functions.iter().map(|function| function.id)),
            mapping_ids: unpredicted_ids(profile.mappings.iter().map(|mapping| mapping.id)),
            location_ids: unpredicted_ids(profile.locations.iter().map(|location| location.id)),
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
