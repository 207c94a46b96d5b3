//! The numbers of sample labels that nearly all differ, such as the time of each sample.
//!
//! They tell label sets apart that have all else in common, so such a table is little but these numbers. What of them is chance takes its
//! bytes whatever is done; the rest is packed best alone, by the bytes of its numbers ([`planes`](crate::block::planes)). So they lie in
//! a frame of their own, key by key, each in the form that has the fewest bits:
//!
//! - *deltas*: how a number differs from the one of the same key before it;
//! - *steps*: how that difference differs from the last in a label set with the same first label. A sampler of threads goes through them
//!   in turn, and takes about as long from one to the next each time. What sets with one first label say stands together.

use std::collections::HashSet;

use hashbrown::{DefaultHashBuilder, HashMap};

use super::{Label, Symbols};
use crate::block::varint::{self, Cursor, Damage, Delta};

/// How many labels of a key there are at least where their numbers lie apart. With fewer there is nothing to spare.
const LABELS_MIN: usize = 512;

/// How the numbers of a key are said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Beside texts and units, as deltas.
    WithTexts,
    /// Apart, as deltas.
    Deltas,
    /// Apart, as steps.
    Steps,
}

/// The labels of a key, as indices, and how their numbers are said.
pub(super) type OfKey = (Vec<u32>, Form);

// === impl Form ===

impl Form {
    /// Returns the number that stands for it.
    pub(super) fn code(self) -> u64 {
        self as u64
    }

    /// Reads what [`Form::code`] returned.
    ///
    /// # Errors
    /// No form has that number.
    pub(super) fn read(from: &mut Cursor<'_>) -> Result<Self, Damage> {
        match from.varint()? {
            0 => Ok(Self::WithTexts),
            1 => Ok(Self::Deltas),
            2 => Ok(Self::Steps),
            _ => Err(Damage("numbers of labels are of an unknown form")),
        }
    }
}

/// Returns whether the numbers of a key's labels lie apart, if any do: there are many, and more than half of them are others.
pub(super) fn is_apart(labels: &[Label], of_key: &[u32]) -> bool {
    if of_key.len() < LABELS_MIN {
        return false;
    }
    // Seeded by chance, as a sender chooses the numbers.
    let (mut others, many) = (HashSet::with_hasher(DefaultHashBuilder::default()), of_key.len() / 2);
    of_key.iter().any(|&i| others.insert(labels[i as usize].num) && others.len() > many)
}

/// Returns the frame of the numbers that lie apart, and sets how those of each key are said there.
pub(super) fn put(symbols: &Symbols, keys: &mut [OfKey]) -> Vec<u8> {
    let apart = apart(symbols, keys);
    let mut out = Vec::new();
    for (of_key, form) in keys.iter_mut().filter(|(_, form)| *form != Form::WithTexts) {
        let numbers = of_key.iter().map(|&i| symbols.labels[i as usize].num);
        let groups = Groups::of(symbols, of_key, &apart);
        let (mut last, mut last_delta) = (0i64, vec![0i64; groups.starts.len()]);
        let (mut deltas, mut steps) = (Vec::with_capacity(of_key.len()), vec![0; of_key.len()]);
        let mut next = groups.starts.clone();
        for (number, &group) in numbers.zip(&groups.of_label) {
            let (group, delta) = (group as usize, number.wrapping_sub(last));
            steps[next[group] as usize] = delta.wrapping_sub(last_delta[group]);
            deltas.push(delta);
            next[group] += 1;
            (last, last_delta[group]) = (number, delta);
        }
        let said = if bits(&steps) < bits(&deltas) {
            *form = Form::Steps;
            steps
        } else {
            *form = Form::Deltas;
            deltas
        };
        said.into_iter().for_each(|number| varint::put_signed(&mut out, number));
    }
    out
}

/// Reads the numbers that lie apart into the labels of `symbols`, of which all else was read.
///
/// # Errors
/// There are fewer numbers than labels.
pub(super) fn read(from: &mut Cursor<'_>, keys: &[OfKey], symbols: &mut Symbols) -> Result<(), Damage> {
    let apart = apart(symbols, keys);
    for (of_key, form) in keys {
        match form {
            Form::WithTexts => {}
            Form::Deltas => {
                let mut number = Delta::default();
                for &i in of_key {
                    symbols.labels[i as usize].num = number.read(from)? as i64;
                }
            }
            Form::Steps => {
                let steps = of_key.iter().map(|_| from.signed()).collect::<Result<Vec<_>, _>>()?;
                let groups = Groups::of(symbols, of_key, &apart);
                let (mut number, mut deltas, mut next) = (0i64, vec![0i64; groups.starts.len()], groups.starts);
                for (&i, &group) in of_key.iter().zip(&groups.of_label) {
                    let delta = &mut deltas[group as usize];
                    *delta = delta.wrapping_add(steps[next[group as usize] as usize]);
                    next[group as usize] += 1;
                    number = number.wrapping_add(*delta);
                    symbols.labels[i as usize].num = number;
                }
            }
        }
    }
    from.finish()
}

/// Returns the keys whose numbers lie apart, as indices of their texts, sorted.
fn apart(symbols: &Symbols, keys: &[OfKey]) -> Vec<u32> {
    let apart = keys.iter().filter(|(_, form)| *form != Form::WithTexts);
    let mut apart: Vec<u32> = apart.map(|(of_key, _)| symbols.labels[of_key[0] as usize].key).collect();
    apart.sort_unstable();
    apart
}

/// Returns how many bits the zigzags of these numbers have without leading zeros.
fn bits(numbers: &[i64]) -> u64 {
    numbers.iter().map(|&n| u64::from(64 - ((n << 1) ^ (n >> 63)).leading_zeros())).sum()
}

/// The labels of a key by the first label of their set.
struct Groups {
    /// The group of each label.
    of_label: Vec<u32>,
    /// How many labels are in the groups before each.
    starts: Vec<u32>,
}

impl Groups {
    /// Groups labels, which ascend. First labels are equal where key, text and number are; numbers that lie apart do not count.
    fn of(symbols: &Symbols, of_key: &[u32], apart: &[u32]) -> Self {
        // Seeded by chance, as a sender chooses the numbers.
        let mut groups: HashMap<(u32, u32, i64), u32> = HashMap::new();
        let (mut of_label, mut starts) = (Vec::with_capacity(of_key.len()), Vec::new());
        let (mut set, mut first) = (0, 0);
        for &i in of_key {
            while symbols.label_ends[set] <= i {
                first = symbols.label_ends[set];
                set += 1;
            }
            let Label { key, str, num, .. } = symbols.labels[first as usize];
            let num = if apart.binary_search(&key).is_ok() { 0 } else { num };
            let group = *groups.entry((key, str, num)).or_insert_with(|| {
                starts.push(0);
                starts.len() as u32 - 1
            });
            starts[group as usize] += 1;
            of_label.push(group);
        }
        let mut before = 0;
        for start in &mut starts {
            before += std::mem::replace(start, before);
        }
        Self { of_label, starts }
    }
}
