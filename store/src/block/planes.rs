//! Numbers by their bytes: the first bytes of all numbers together, then the second, and so on.
//!
//! A varint mixes bytes that say much with bytes that are chance: of a time in nanoseconds the upper bytes hardly differ from the one
//! before, the lower ones always do. A compressor that sees them one after the other finds neither. So a column of varints is taken
//! apart: how many bytes each number has, and of the numbers of each length the lowest bytes, the next, up to the highest. Each such
//! *plane* is compressed by itself. What all numbers have as a common factor is said once.
//!
//! [`split`] and [`join`] are each other's inverse, and [`join`] believes nothing: that the planes are as long as the lengths say is
//! checked before anything is read.

use super::varint::{self, Cursor, Damage};

/// The most bytes a number has.
const NUMBER_BYTES_MAX: usize = 8;

/// How many planes there are: numbers of one byte have one, numbers of two bytes have two, and so on.
const PLANES: usize = NUMBER_BYTES_MAX * (NUMBER_BYTES_MAX + 1) / 2;

/// Why what was unpacked is no planes.
const DAMAGED: Damage = Damage("does not hold the planes of as many numbers as it should");

/// Returns the place of the first plane of numbers of `len` bytes, from 1 on.
fn first_plane(len: usize) -> usize {
    len * (len - 1) / 2
}

/// Returns how many bytes `number` has without leading zeros.
fn bytes_of(number: u64) -> usize {
    NUMBER_BYTES_MAX - number.leading_zeros() as usize / 8
}

/// Returns the most bytes that the planes of varints of `bytes` bytes take: a varint has at least as many bytes as its number and
/// as lengths, and before those stand two numbers.
pub(crate) fn bytes_max(bytes: u64) -> u64 {
    2 * bytes + 20
}

/// Takes `varints` apart. Returns the head (how many there are and their common factor), the lengths, and the planes; or nothing
/// where they are no varints, or longer ones than need be, which would not come back.
pub(crate) fn split(varints: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut from = Cursor::new(varints);
    let (mut numbers, mut factor, mut minimal) = (Vec::with_capacity(varints.len()), 0, 0);
    while from.left() > 0 {
        let number = from.varint().ok()?;
        factor = common_factor(factor, number);
        minimal += varint::len(number);
        numbers.push(number);
    }
    if minimal != varints.len() {
        return None;
    }
    let factor = factor.max(1);
    let (mut head, mut lengths) = (Vec::new(), Vec::with_capacity(numbers.len()));
    varint::put(&mut head, numbers.len() as u64);
    varint::put(&mut head, factor);
    let mut planes = vec![Vec::new(); PLANES];
    for number in numbers {
        let number = if factor == 1 { number } else { number / factor };
        let len = bytes_of(number);
        lengths.push(len as u8);
        if len > 0 {
            let planes = &mut planes[first_plane(len)..];
            number.to_le_bytes()[..len].iter().zip(planes).for_each(|(&byte, plane)| plane.push(byte));
        }
    }
    let mut columns = vec![head, lengths];
    columns.append(&mut planes);
    Some(columns)
}

/// Returns the varints that [`split`] took apart, which must be `len` bytes; `columns` are its columns one after the other.
///
/// # Errors
/// No writer wrote them.
pub(crate) fn join(columns: &[u8], len: usize) -> Result<Vec<u8>, Damage> {
    let from = &mut Cursor::new(columns);
    let (count, factor) = (from.count(1)?, from.varint()?);
    let lengths = from.take(count)?;
    let mut counts = [0; NUMBER_BYTES_MAX + 1];
    for &length in lengths {
        *counts.get_mut(usize::from(length)).ok_or(DAMAGED)? += 1;
    }
    // What comes next in each plane.
    let mut planes: [&[u8]; PLANES] = [&[]; PLANES];
    for (len, &count) in counts.iter().enumerate().skip(1) {
        for plane in &mut planes[first_plane(len)..first_plane(len + 1)] {
            *plane = from.take(count)?;
        }
    }
    from.finish()?;
    let mut next = [0; NUMBER_BYTES_MAX + 1];
    // A varint is put down as a word, of which what it does not need is taken back.
    let mut out = Vec::with_capacity(len + NUMBER_BYTES_MAX);
    for &length in lengths {
        let length = usize::from(length);
        let at = next[length];
        next[length] += 1;
        let byte = |n: usize| u64::from(planes[first_plane(length) + n][at]);
        let number = match length {
            0 => 0,
            1 => byte(0),
            2 => byte(0) | byte(1) << 8,
            _ => (0..length).fold(0, |number, n| number | byte(n) << (8 * n)),
        };
        let number = number.checked_mul(factor).ok_or(DAMAGED)?;
        varint::put(&mut out, number);
        if out.len() > len {
            return Err(DAMAGED);
        }
    }
    if out.len() == len { Ok(out) } else { Err(DAMAGED) }
}

/// Returns the greatest common factor; that of 0 and a number is the number.
fn common_factor(mut a: u64, mut b: u64) -> u64 {
    // Mostly there is none, which is known after a few numbers.
    if a == 1 {
        return 1;
    }
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(varints: &[u8]) -> Result<Vec<u8>, Damage> {
        let columns = split(varints).expect("these are varints").concat();
        assert!(columns.len() as u64 <= bytes_max(varints.len() as u64));
        join(&columns, varints.len())
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), Just(u64::MAX), (0u32..64, any::<u64>()).prop_map(|(bits, n)| n >> bits)]
    }

    proptest! {
        #[test]
        fn numbers_come_back(
            numbers in proptest::collection::vec(number(), 0..200),
            factor in prop_oneof![Just(1u64), Just(1000), any::<u64>()],
        ) {
            let mut varints = Vec::new();
            numbers.iter().for_each(|n| varint::put(&mut varints, n.checked_mul(factor).unwrap_or(*n)));
            prop_assert_eq!(joined(&varints), Ok(varints));
        }

        #[test]
        fn that_of_a_faulty_writer_is_refused_or_as_long_as_it_says(
            numbers in proptest::collection::vec(number(), 1..20),
            at in any::<proptest::sample::Index>(),
            change in 1u8..,
            longer in 0usize..2,
        ) {
            let mut varints = Vec::new();
            numbers.iter().for_each(|n| varint::put(&mut varints, *n));
            let mut columns = split(&varints).expect("these are varints").concat();
            let at = at.index(columns.len());
            columns[at] = columns[at].wrapping_add(change);
            if let Ok(joined) = join(&columns, varints.len() + longer) {
                prop_assert_eq!(joined.len(), varints.len() + longer);
            }
            columns.truncate(at);
            prop_assert!(join(&columns, varints.len()).is_err());
        }
    }

    #[test]
    fn what_would_not_come_back_is_not_split() {
        assert!(split(&[0x80, 0x00]).is_none(), "longer than need be");
        assert!(split(&[0x80]).is_none(), "ends inside a number");
        assert_eq!(joined(&[]), Ok(vec![]));
    }

    #[test]
    fn a_common_factor_is_said_once() {
        let mut varints = Vec::new();
        [0, 3000, 70_000, 1000].iter().for_each(|&n| varint::put(&mut varints, n));
        let columns = split(&varints).expect("these are varints");
        assert_eq!(columns[..3], [vec![4, 0xe8, 0x07], vec![0, 1, 1, 1], vec![3, 70, 1]]);
    }
}
