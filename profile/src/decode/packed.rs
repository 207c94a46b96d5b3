//! Packed runs of small numbers, eight bytes at a time: the stacks of samples, most of what there is to read in a profile.
//!
//! Location ids take one or two bytes each, in no order that a branch predictor could learn. So the lengths are not branched upon:
//! the continuation bits of eight bytes are an index into a table that says where in them each number of one or two bytes starts.
//! Longer numbers are read one by one. The idea is that of "Masked VByte" (Plaisance, Kurz, Lemire, 2015), with words for vectors.

use super::ids::References;
use super::wire::{CONTINUATION, Reader, Result};

/// How eight bytes split into numbers of one and two bytes, up to the first longer or incomplete one.
#[derive(Clone, Copy)]
struct Split {
    /// The offset of the lane of each number in [`number_at_each_byte`]; zero beyond the last.
    lanes: [u8; 8],
    /// How many numbers.
    count: u8,
    /// How many bytes they take together.
    bytes: u8,
}

/// The split for each combination of continuation bits, that of the first byte lowest.
static SPLITS: [Split; 256] = splits();

const fn splits() -> [Split; 256] {
    let mut splits = [Split { lanes: [0; 8], count: 0, bytes: 0 }; 256];
    let mut mask = 0;
    while mask < 256 {
        let split = &mut splits[mask];
        let mut at = 0;
        while at < 8 {
            let len = if mask >> at & 1 == 0 { 1 } else { 2 };
            if at + len > 8 || (len == 2 && mask >> (at + 1) & 1 == 1) {
                break;
            }
            // Even bytes come first; a lane is two bytes wide.
            split.lanes[split.count as usize] = (at / 2 * 2 + at % 2 * 8) as u8;
            split.count += 1;
            at += len;
        }
        split.bytes = at as u8;
        mask += 1;
    }
    splits
}

/// Reads all ids of a packed run and appends their slots.
///
/// # Errors
/// The run ends inside an id, or an id does not fit into 64 bits.
#[inline(always)]
pub(super) fn read_ids(run: &mut Reader<'_>, slots: &mut Vec<u32>, references: &mut References) -> Result<()> {
    let start = slots.len();
    // An id takes a byte at least, and each step writes eight slots, whether or not there are as many ids.
    slots.resize(start + run.remaining() + 8, 0);
    let out = &mut slots[start..];
    let mut len = 0;
    let mut overlong = 0;
    while !run.is_at_end() {
        let word = run.word();
        let continued = word & CONTINUATION;
        let split = &SPLITS[gather(continued)];
        if split.count == 0 {
            out[len] = references.slot(run.varint()?);
            len += 1;
            continue;
        }
        let numbers = number_at_each_byte(word);
        let window = out[len..].first_chunk_mut::<8>().expect("there is room for eight more than there are bytes");
        for (slot, lane) in window.iter_mut().zip(split.lanes) {
            *slot = lane_of(&numbers, lane).into();
        }
        len += usize::from(split.count);
        run.advance(split.bytes);
        // A zero byte that ends a varint of several adds nothing to it.
        let zeros = !(((word & !CONTINUATION) + !CONTINUATION) | word) & CONTINUATION;
        overlong |= zeros & continued << 8;
    }
    run.minimal &= overlong == 0;
    slots.truncate(start + len);
    Ok(())
}

/// Returns for each byte of a word the number of one or two bytes that would start there: eight lanes of 16 bits, those of the even
/// bytes first.
#[inline(always)]
fn number_at_each_byte(word: u64) -> [u8; 16] {
    const LANES: u64 = 0x0001_0001_0001_0001;
    let lanes = |word: u64| {
        let more = (word >> 7 & LANES) * 0x7f;
        word & (LANES * 0x7f) | (word >> 8 & more) << 7
    };
    (u128::from(lanes(word)) | u128::from(lanes(word >> 8)) << 64).to_le_bytes()
}

/// Returns the lane at an offset in bytes.
#[inline(always)]
fn lane_of(numbers: &[u8; 16], lane: u8) -> u16 {
    let lane = usize::from(lane & 14);
    u16::from_le_bytes([numbers[lane], numbers[lane + 1]])
}

/// Returns the highest bit of each byte, that of the lowest byte lowest, of a word that has no others.
#[inline(always)]
fn gather(bits: u64) -> usize {
    ((bits >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuation_bits_are_gathered_in_order() {
        for mask in 0..256usize {
            let bits = (0..8).filter(|bit| mask >> bit & 1 == 1).map(|bit| 0x80u64 << (8 * bit)).sum();
            assert_eq!(gather(bits), mask);
        }
    }

    #[test]
    fn splits_end_before_what_is_long_or_incomplete() {
        let split = |mask: usize| {
            let Split { lanes, count, bytes } = SPLITS[mask];
            (lanes[..usize::from(count)].to_vec(), bytes)
        };
        assert_eq!(split(0b0000_0000), (vec![0, 8, 2, 10, 4, 12, 6, 14], 8));
        assert_eq!(split(0b0101_0101), (vec![0, 2, 4, 6], 8));
        assert_eq!(split(0b1000_0100), (vec![0, 8, 2, 4, 12, 6], 7));
        assert_eq!(split(0b0000_0011), (vec![], 0));
        assert_eq!(split(0b0011_0001), (vec![0, 2, 10], 4));
    }
}
