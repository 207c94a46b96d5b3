//! The values of a chunk: how those of each type are said, written and read.
//!
//! Values are what is left of a profile once stacks are shared, so most bytes of a block are values. Many follow from others: Go's `cpu`
//! is `samples` times the period; a heap profile of Go says objects and bytes that the profiler scaled up from what it saw
//! ([`sampling`](super::sampling)). What is said in the form of one profile can be carried over to another block as it is.

use std::borrow::Cow;

use super::chunk::{LABELS, Stored, VALUES};
use super::columns::{Multiple, Samples};
use super::frame::Packer;
use super::sampling::Scales;
use super::symbols::Symbols;
use super::toc::Values;
use super::varint::{self, Cursor, Damage, unzigzag};

/// How the values of a type are said in an unpacked chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Plain,
    /// Not at all: they follow from an earlier type.
    Multiple(Multiple),
    /// As what is added to the product of an earlier type's value and the number of the sample's label set. Only older versions write it.
    Product { of: u32 },
    /// As how many objects a sampling profiler saw.
    Seen { rate: u64 },
    /// As what is added to the bytes that a sampling profiler says for an earlier type's objects.
    Bytes { of: u32, rate: u64 },
}

// === impl Form ===

impl Form {
    /// Returns the earlier type that the values follow from, if they do.
    pub(crate) fn of(self) -> Option<usize> {
        match self {
            Self::Plain | Self::Seen { .. } => None,
            Self::Multiple(Multiple { of, .. }) | Self::Product { of } | Self::Bytes { of, .. } => Some(of as usize),
        }
    }
}

/// The label sets of a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sets<'a> {
    pub(crate) symbols: &'a Symbols,
    /// The number of each.
    pub(crate) numbers: &'a [i64],
}

/// Objects from here on are not said as what was seen, for which they are doubled.
const OBJECTS_MAX: u64 = 1 << 62;

/// Returns the number of each label set: that of its first label, or 0.
pub(crate) fn numbers(symbols: &Symbols) -> Vec<i64> {
    (0..symbols.label_ends.len() as u32).map(|set| number(symbols, set)).collect()
}

/// Returns the number of a label set.
pub(crate) fn number(symbols: &Symbols, set: u32) -> i64 {
    symbols.labels_of(set).first().map_or(0, |label| label.num)
}

/// Appends the values of type `t`, in the form that all profiles have, or else the one that takes the least.
///
/// # Errors
/// The columns of a profile contradict each other or the tables.
pub(crate) fn write(
    profiles: &[Stored],
    t: usize,
    sets: Sets<'_>,
    buffer: &mut Vec<u8>,
    packer: &mut Packer,
    out: &mut Vec<u8>,
) -> Result<Values, Damage> {
    let form = profiles[0].form(t);
    buffer.clear();
    if form != Form::Plain && profiles.iter().all(|stored| stored.form(t) == form) {
        profiles.iter().for_each(|stored| buffer.extend_from_slice(stored.part(VALUES + t)));
        return Ok(said(form, buffer, packer, out));
    }
    let plain = |t: usize| profiles.iter().map(|stored| plain(stored, t, sets.numbers)).collect::<Result<Vec<_>, _>>();
    let values = plain(t)?;
    if sets.numbers.iter().any(|&number| number != 0) {
        let period = sets.symbols.header(profiles[0].head().header)?.period;
        // Go takes a period of 1 to say that all was seen, as does a rate of 0 here.
        let rate = if period > 1 { period as u64 } else { 0 };
        let mut scales = Scales::new(sets.numbers);
        scales.set_rate(rate);
        if t > 0 && rest_of_bytes(profiles, &plain(t - 1)?, &values, &mut scales, buffer)? {
            return Ok(said(Form::Bytes { of: t as u32 - 1, rate }, buffer, packer, out));
        }
        if seen(profiles, &values, &mut scales, buffer)? {
            return Ok(said(Form::Seen { rate }, buffer, packer, out));
        }
    }
    buffer.clear();
    values.iter().for_each(|values| buffer.extend_from_slice(values));
    Ok(said(Form::Plain, buffer, packer, out))
}

/// Appends `bytes`, which say values in this form.
fn said(form: Form, bytes: &[u8], packer: &mut Packer, out: &mut Vec<u8>) -> Values {
    match form {
        Form::Plain => Values::Frame(packer.pack_numbers(out, bytes)),
        Form::Multiple(multiple) => Values::Multiple(multiple),
        Form::Product { of } => Values::Product { of, rest: packer.pack_numbers(out, bytes) },
        Form::Seen { rate } => Values::Seen { rate, seen: packer.pack_numbers(out, bytes) },
        Form::Bytes { of, rate } => Values::Bytes { of, rate, rest: packer.pack_numbers(out, bytes) },
    }
}

/// Returns the values of type `t` as they are.
fn plain<'a>(stored: &'a Stored, t: usize, numbers: &[i64]) -> Result<Cow<'a, [u8]>, Damage> {
    if stored.form(t) == Form::Plain {
        return Ok(stored.part(VALUES + t).into());
    }
    let (mut samples, mut out) = (Samples::default(), Vec::new());
    stored.samples(numbers, &mut samples)?;
    samples.values[t].iter().for_each(|&value| varint::put(&mut out, value as u64));
    Ok(out.into())
}

/// Returns whether bytes that say values are enough fewer than those of the values. One profile tells of the others; it would be a
/// waste to go through all of them in vain.
fn is_shorter(said: usize, plain: usize) -> bool {
    said <= plain - plain / 16
}

/// Puts into `out` what is left of values when each is said as the bytes of as many objects as the value `before` it; returns whether
/// that is shorter.
fn rest_of_bytes(
    profiles: &[Stored],
    before: &[Cow<'_, [u8]>],
    values: &[Cow<'_, [u8]>],
    scales: &mut Scales<'_>,
    out: &mut Vec<u8>,
) -> Result<bool, Damage> {
    out.clear();
    let mut plain = 0;
    for ((stored, before), values) in profiles.iter().zip(before).zip(values) {
        plain += values.len();
        let mut labels = Cursor::new(stored.part(LABELS));
        let [mut before, mut values] = [before, values].map(|bytes| Cursor::new(bytes));
        for _ in 0..stored.head().samples {
            let set = if labels.left() == 0 { 0 } else { labels.u32()? };
            let expected = scales.of(set)?.bytes(before.varint()? as i64);
            varint::put_signed(out, (values.varint()? as i64).wrapping_sub(expected));
        }
        if !is_shorter(out.len(), plain) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Puts into `out` how many objects were seen for each value: twice that, or one more than twice the value itself where it is none that
/// the profiler makes. Returns whether that can be said and is shorter.
fn seen(
    profiles: &[Stored],
    values: &[Cow<'_, [u8]>],
    scales: &mut Scales<'_>,
    out: &mut Vec<u8>,
) -> Result<bool, Damage> {
    out.clear();
    let mut plain = 0;
    for (stored, values) in profiles.iter().zip(values) {
        plain += values.len();
        let mut labels = Cursor::new(stored.part(LABELS));
        let mut values = Cursor::new(values);
        for _ in 0..stored.head().samples {
            let set = if labels.left() == 0 { 0 } else { labels.u32()? };
            let objects = values.varint()?;
            if objects >= OBJECTS_MAX {
                return Ok(false);
            }
            let seen = scales.of(set)?.seen(objects as i64).filter(|&seen| seen < OBJECTS_MAX);
            varint::put(out, seen.map_or(objects << 1 | 1, |seen| seen << 1));
        }
        if !is_shorter(out.len(), plain) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads the values of `count` samples of type `t` into their column; the labels and the columns before are read already.
///
/// # Errors
/// No writer wrote them, or a sample has a label set that does not exist.
pub(crate) fn read(
    count: usize,
    from: &mut Cursor<'_>,
    form: Form,
    t: usize,
    scales: &mut Scales<'_>,
    into: &mut Samples,
) -> Result<(), Damage> {
    let (before, rest) = into.values.split_at_mut(t);
    let column = &mut rest[0];
    column.clear();
    // A sample without labels has the first set.
    let sets = into.labels.iter().copied().chain(std::iter::repeat(0));
    match form {
        Form::Plain => from.each(count, |value| column.push(value as i64))?,
        Form::Multiple(multiple) => {
            let of = &before[multiple.of as usize];
            column.extend(of.iter().map(|value| value.wrapping_mul(multiple.factor)));
        }
        Form::Product { of } => {
            from.each(count, |rest| column.push(unzigzag(rest)))?;
            let numbers = scales.numbers();
            for ((value, of), set) in column.iter_mut().zip(&before[of as usize]).zip(sets) {
                let number = numbers.get(set as usize).ok_or(Damage("an index points past its table"))?;
                *value = value.wrapping_add(of.wrapping_mul(*number));
            }
        }
        Form::Seen { rate } => {
            from.each(count, |seen| column.push(seen as i64))?;
            scales.set_rate(rate);
            for (value, set) in column.iter_mut().zip(sets) {
                let seen = *value as u64;
                let is_seen = seen & 1 == 0;
                *value = if is_seen { scales.of(set)?.objects(seen >> 1) } else { (seen >> 1) as i64 };
            }
        }
        Form::Bytes { of, rate } => {
            from.each(count, |rest| column.push(unzigzag(rest)))?;
            scales.set_rate(rate);
            for ((value, of), set) in column.iter_mut().zip(&before[of as usize]).zip(sets) {
                *value = value.wrapping_add(scales.of(set)?.bytes(*of));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::*;
    use crate::block::columns::Head;
    use crate::block::symbols::{ByteTable, Header, Label, NONE};
    use crate::block::toc::Chunk;
    use crate::block::{chunk, reader};

    /// A sample of a heap profile: label set, objects, bytes.
    type Sample = (u32, i64, i64);

    /// Returns tables with a header of this period, and a label set for each size behind the empty one.
    fn tables(period: i64, sizes: &[i64]) -> Symbols {
        let mut symbols = Symbols { label_ends: vec![0], ..Symbols::default() };
        symbols.strings.push(b"");
        for &num in sizes {
            symbols.labels.push(Label { key: 0, str: 0, num, num_unit: 0, shape: 0 });
            symbols.label_ends.push(symbols.labels.len() as u32);
        }
        let (mut headers, mut bytes) = (ByteTable::default(), Vec::new());
        Header { period, main_mapping: NONE, ..Header::default() }.put(&mut bytes);
        headers.push(&bytes);
        Symbols { headers, ..symbols }
    }

    fn stored(samples: &[Sample]) -> Stored {
        let mut columns: [Vec<u8>; 4] = Default::default();
        for &(set, objects, bytes) in samples {
            let said = [0, u64::from(set), objects as u64, bytes as u64];
            columns.iter_mut().zip(said).for_each(|(column, number)| varint::put(column, number));
        }
        let [stacks, labels, objects, bytes] = &columns;
        let head = Head { samples: samples.len(), ..Head::default() };
        let values = [objects, bytes].into_iter().map(|values| (&values[..], Form::Plain));
        Stored::columns(head, [stacks, labels, &[]], values)
    }

    /// Writes profiles as a chunk, reads the values back, and returns how they were said.
    fn written(period: i64, sizes: &[i64], profiles: &[Vec<Sample>]) -> Result<Vec<Values>, Damage> {
        let symbols = tables(period, sizes);
        let numbers = numbers(&symbols);
        let sets = Sets { symbols: &symbols, numbers: &numbers };
        let waiting: Vec<_> = profiles.iter().map(|samples| stored(samples)).collect();
        let (mut packer, mut out) = (Packer::new(9), Vec::new());
        let written = chunk::write(&waiting, sets, &mut packer, &mut out)?;
        let unpacked = reader::unpack(&written, &out, 2, false)?;
        let (mut read, mut samples) = (chunk::Profiles::new(&unpacked, &numbers)?, Samples::default());
        for (position, profile) in profiles.iter().enumerate() {
            read.read(position, &mut samples)?;
            let column = |of: fn(&Sample) -> i64| profile.iter().map(of).collect::<Vec<_>>();
            assert_eq!(samples.values, [column(|sample| sample.1), column(|sample| sample.2)]);
        }
        for t in 0..2 {
            let mut unpacked = reader::unpack_stacks(&written, &out, 2)?;
            reader::unpack_values(&written, &out, &chunk::Needed::Only(smallvec![t]), &mut unpacked)?;
            let mut read = chunk::Profiles::new(&unpacked, &numbers)?;
            // The last one, so that others are passed over.
            read.read(profiles.len() - 1, &mut samples)?;
            let values: Vec<i64> = profiles[profiles.len() - 1].iter().map(|said| [said.1, said.2][t]).collect();
            assert_eq!(samples.values[t], values);
            // Nothing follows from the second.
            assert!(t == 1 || samples.values[1].is_empty());
        }
        let Chunk::Columns { values, .. } = written else { return Err(Damage("is no chunk of columns")) };
        Ok(values)
    }

    /// Returns what Go's profiler says where it saw so many objects of a label set.
    fn scaled(scales: &mut Scales<'_>, set: u32, seen: u64) -> Sample {
        let scale = scales.of(set).expect("there is such a set");
        (set, scale.objects(seen), scale.bytes(scale.objects(seen)))
    }

    #[test]
    fn a_sampled_heap_is_said_by_what_was_seen() {
        let sizes = [16, 48, 1024, 8192, 1 << 20];
        let numbers: Vec<i64> = [0].into_iter().chain(sizes).collect();
        let mut scales = Scales::new(&numbers);
        scales.set_rate(512 << 10);
        let samples: Vec<_> = (1..200).map(|i| scaled(&mut scales, i % 5 + 1, u64::from(i % 17))).collect();
        let values = written(512 << 10, &sizes, &[samples.clone(), samples]).expect("these are sound");
        let [Values::Seen { rate: 0x80000, seen }, Values::Bytes { of: 0, rate: 0x80000, rest }] = values[..] else {
            panic!("{values:?}");
        };
        assert_eq!((seen.unpacked, rest.stored), (398, 1));
    }

    #[test]
    fn one_number_of_another_kind_changes_little() {
        let numbers = [0, 4096];
        let mut scales = Scales::new(&numbers);
        scales.set_rate(512 << 10);
        let mut samples: Vec<_> = (1..100).map(|seen| scaled(&mut scales, 1, seen)).collect();
        samples[50].1 += 1;
        let values = written(512 << 10, &numbers[1..], &[samples]).expect("these are sound");
        assert!(matches!(values[0], Values::Seen { .. }), "{values:?}");
    }

    proptest! {
        /// Whatever a profile says comes back, whether a profiler of Go could have said it or not.
        #[test]
        fn values_come_back_in_any_form(
            period in prop_oneof![Just(512 << 10), Just(0), Just(1), any::<i64>()],
            sizes in proptest::collection::vec(prop_oneof![1i64..100_000, any::<i64>()], 1..6),
            said in proptest::collection::vec(
                proptest::collection::vec((0u32..6, 0u64..1 << 50, 0u32..50, any::<[i64; 2]>(), 0u32..20), 0..60),
                1..4,
            ),
        ) {
            let numbers: Vec<i64> = [0].into_iter().chain(sizes.iter().copied()).collect();
            let mut scales = Scales::new(&numbers);
            scales.set_rate(period.max(0) as u64);
            let mut sample = |(set, seen, bits, other, kind): (u32, u64, u32, [i64; 2], u32)| {
                let set = set.min(sizes.len() as u32);
                match kind {
                    0 => (set, other[0] >> bits, other[1]),
                    1 => (set, i64::MIN, i64::MAX),
                    _ => scaled(&mut scales, set, seen >> bits),
                }
            };
            let profiles: Vec<Vec<Sample>> =
                said.into_iter().map(|profile| profile.into_iter().map(&mut sample).collect()).collect();
            prop_assert!(written(period, &sizes, &profiles).is_ok());
        }
    }
}
