//! The order of a profile's top-level records, said in a few bytes.
//!
//! Encoders write records in one of two ways: kind by kind, or, as Go's runtime does, each location just before the first sample that
//! needs it and each function just after the first location that needs it. A *pattern* says either in a form that depends on no count,
//! so that all profiles of one program share it: a list of steps, each
//!
//! - a field key and `n` (varint): the next `n` records of that kind; `n` = 0 stands for all that remain;
//! - or a single 0: all samples, with the locations and functions they need in Go's way.
//!
//! [`write`] finds the pattern of given records, [`walk`] replays it.

use super::varint::{self, Cursor, Damage};

/// Field keys of the top-level records, `number << 3 | wire type`.
pub(crate) mod key {
    pub(crate) const SAMPLE_TYPE: u8 = 0x0a;
    pub(crate) const SAMPLE: u8 = 0x12;
    pub(crate) const MAPPING: u8 = 0x1a;
    pub(crate) const LOCATION: u8 = 0x22;
    pub(crate) const FUNCTION: u8 = 0x2a;
    pub(crate) const STRING: u8 = 0x32;
    pub(crate) const DROP_FRAMES: u8 = 0x38;
    pub(crate) const KEEP_FRAMES: u8 = 0x40;
    pub(crate) const TIME: u8 = 0x48;
    pub(crate) const DURATION: u8 = 0x50;
    pub(crate) const PERIOD_TYPE: u8 = 0x5a;
    pub(crate) const PERIOD: u8 = 0x60;
    pub(crate) const COMMENT: u8 = 0x68;
    pub(crate) const COMMENTS_PACKED: u8 = 0x6a;
    pub(crate) const DEFAULT_SAMPLE_TYPE: u8 = 0x70;
    pub(crate) const DOC_URL: u8 = 0x78;
}

/// The step that stands for all samples and what they need.
const INTERLEAVED: u8 = 0;

/// How many field numbers there are, counting the unused 0.
const FIELDS: usize = 16;

/// What the length of a profile's order depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts<'a> {
    pub(crate) sample_types: usize,
    pub(crate) mappings: usize,
    /// `None` where it is not known yet, and so the steps for strings are skipped.
    pub(crate) strings: Option<usize>,
    pub(crate) comments: usize,
    /// For each sample, one more than the largest index of the locations of it and those before, or 0.
    pub(crate) sample_needs: &'a [u32],
    /// For each location, one more than the largest index of the functions of it and those before, or 0.
    pub(crate) location_needs: &'a [u32],
    pub(crate) functions: usize,
}

impl Counts<'_> {
    /// Returns how many records of each field there are.
    fn totals(&self) -> [usize; FIELDS] {
        let mut totals = [1; FIELDS];
        totals[0] = 0;
        for (key, total) in [
            (key::SAMPLE_TYPE, self.sample_types),
            (key::SAMPLE, self.sample_needs.len()),
            (key::MAPPING, self.mappings),
            (key::LOCATION, self.location_needs.len()),
            (key::FUNCTION, self.functions),
            (key::STRING, self.strings.unwrap_or(0)),
            (key::COMMENT, self.comments),
        ] {
            totals[field(key)] = total;
        }
        totals
    }
}

fn field(key: u8) -> usize {
    usize::from(key >> 3)
}

/// Appends the pattern of `records`, runs of equal field keys in file order.
pub(crate) fn write(out: &mut Vec<u8>, records: &[(u8, u32)], counts: &Counts<'_>) {
    let totals = counts.totals();
    let mut next = [0; FIELDS];
    let mut rest = records;
    while let [(key, count), tail @ ..] = rest {
        if matches!(*key, key::SAMPLE | key::LOCATION | key::FUNCTION)
            && let Some(tail) = strip_interleaved(rest, counts, &mut next)
        {
            out.push(INTERLEAVED);
            rest = tail;
            continue;
        }
        out.push(*key);
        let count = *count as usize;
        let total = if *key == key::COMMENTS_PACKED { 1 } else { totals[field(*key)] };
        let remain = total.saturating_sub(next[field(*key)]);
        varint::put(out, if count == remain { 0 } else { count as u64 });
        next[field(*key)] += count;
        rest = tail;
    }
}

/// Takes the interleaved samples off the front of `records`; fails where the records are not just these.
fn strip_interleaved<'a>(
    records: &'a [(u8, u32)],
    counts: &Counts<'_>,
    next: &mut [usize; FIELDS],
) -> Option<&'a [(u8, u32)]> {
    if [key::SAMPLE, key::LOCATION, key::FUNCTION].iter().any(|&key| next[field(key)] > 0) {
        return None;
    }
    let (mut rest, mut left) = (records, records.first()?.1);
    let reached = interleave(counts, |key, _| {
        if left == 0 {
            rest = &rest[1..];
            left = rest.first().ok_or(Damage("ends too early"))?.1;
        }
        left -= 1;
        if rest[0].0 == key { Ok(()) } else { Err(Damage("is in another order")) }
    });
    // A run that goes on would be split; then the pattern would not come back as the same runs.
    if reached.is_err() || left > 0 {
        return None;
    }
    let (locations, functions) = reached.ok()?;
    next[field(key::SAMPLE)] = counts.sample_needs.len();
    next[field(key::LOCATION)] = locations;
    next[field(key::FUNCTION)] = functions;
    rest.get(1..)
}

/// Calls `record` for each sample and what it needs in Go's order, and returns how many locations and functions that were.
fn interleave(
    counts: &Counts<'_>,
    mut record: impl FnMut(u8, usize) -> Result<(), Damage>,
) -> Result<(usize, usize), Damage> {
    let (mut locations, mut functions) = (0, 0);
    for (sample, &needs) in counts.sample_needs.iter().enumerate() {
        while locations < needs as usize {
            record(key::LOCATION, locations)?;
            while functions < counts.location_needs[locations] as usize {
                record(key::FUNCTION, functions)?;
                functions += 1;
            }
            locations += 1;
        }
        record(key::SAMPLE, sample)?;
    }
    Ok((locations, functions))
}

/// Calls `record` with the key of each record and which one of its kind it is, in the order that `pattern` says.
///
/// # Errors
/// The pattern asks for more records than there are, or `record` fails.
pub(crate) fn walk(
    pattern: &[u8],
    counts: &Counts<'_>,
    mut record: impl FnMut(u8, usize) -> Result<(), Damage>,
) -> Result<(), Damage> {
    let totals = counts.totals();
    let mut next = [0; FIELDS];
    let mut steps = Cursor::new(pattern);
    while steps.left() > 0 {
        let key = steps.take(1)?[0];
        if key == INTERLEAVED {
            let (locations, functions) = interleave(counts, &mut record)?;
            next[field(key::SAMPLE)] = counts.sample_needs.len();
            next[field(key::LOCATION)] = locations;
            next[field(key::FUNCTION)] = functions;
            continue;
        }
        let total = *totals.get(field(key)).ok_or(Damage("a record has an unknown field"))?;
        if key == key::STRING && counts.strings.is_none() {
            steps.varint()?;
            continue;
        }
        let total = if key == key::COMMENTS_PACKED { 1 } else { total };
        let first = next[field(key)];
        let end = match steps.varint()? as usize {
            0 => total,
            count => first.saturating_add(count),
        };
        if end > total {
            return Err(Damage("there are fewer records than their order says"));
        }
        (first..end).try_for_each(|i| record(key, i))?;
        next[field(key)] = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the field keys of a pattern one by one, and which one of its kind each is.
    fn walked(pattern: &[u8], counts: &Counts<'_>) -> Result<Vec<(u8, usize)>, Damage> {
        let mut records = Vec::new();
        walk(pattern, counts, |key, i| {
            records.push((key, i));
            Ok(())
        })?;
        Ok(records)
    }

    fn counts<'a>(sample_needs: &'a [u32], location_needs: &'a [u32], functions: usize) -> Counts<'a> {
        Counts { sample_types: 2, mappings: 1, strings: Some(5), comments: 2, sample_needs, location_needs, functions }
    }

    /// Returns the runs of records with these keys.
    fn runs(keys: &[u8]) -> Vec<(u8, u32)> {
        keys.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u32)).collect()
    }

    #[test]
    fn the_order_of_gos_runtime_takes_a_byte() {
        let counts = counts(&[2, 2, 3], &[1, 1, 3], 3);
        let (s, l, f) = (key::SAMPLE, key::LOCATION, key::FUNCTION);
        let mut keys = vec![key::SAMPLE_TYPE, key::SAMPLE_TYPE, key::TIME];
        keys.extend([l, f, l, s, s, l, f, f, s]);
        keys.extend([key::MAPPING, key::STRING, key::STRING, key::STRING, key::STRING, key::STRING]);
        let mut pattern = Vec::new();
        write(&mut pattern, &runs(&keys), &counts);
        assert_eq!(pattern, [key::SAMPLE_TYPE, 0, key::TIME, 0, 0, key::MAPPING, 0, key::STRING, 0]);
        let walked = walked(&pattern, &counts).expect("a pattern that was just written");
        assert!(walked.iter().map(|(key, _)| *key).eq(keys));
        assert_eq!(walked[11], (s, 2));
    }

    #[test]
    fn what_is_packed_is_one_record_whatever_it_holds() {
        let counts = counts(&[], &[], 0);
        let mut pattern = Vec::new();
        write(&mut pattern, &[(key::COMMENTS_PACKED, 1)], &counts);
        assert_eq!(walked(&pattern, &counts), Ok(vec![(key::COMMENTS_PACKED, 0)]));
    }

    proptest! {
        #[test]
        fn any_order_comes_back(
            needs in proptest::collection::vec(0u32..3, 0..6),
            order in any::<u64>(),
        ) {
            let running = |needs: &[u32]| needs.iter().scan(0, |sum, n| { *sum += n; Some(*sum) }).collect::<Vec<u32>>();
            let sample_needs = running(&needs);
            let locations = sample_needs.last().copied().unwrap_or(0);
            let location_needs = running(&vec![1; locations as usize]);
            let counts = counts(&sample_needs, &location_needs, locations as usize);
            let mut keys = Vec::new();
            for (key, count) in [(key::SAMPLE_TYPE, 2), (key::SAMPLE, needs.len()), (key::LOCATION, locations as usize),
                (key::FUNCTION, locations as usize), (key::MAPPING, 1), (key::STRING, 5), (key::COMMENT, 2), (key::PERIOD, 1)] {
                keys.extend(std::iter::repeat_n(key, count));
            }
            let mut state = order;
            for i in (1..keys.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if order % 3 > 0 {
                    keys.swap(i, (state >> 33) as usize % (i + 1));
                }
            }
            let mut pattern = Vec::new();
            write(&mut pattern, &runs(&keys), &counts);
            let walked = walked(&pattern, &counts).expect("a pattern that was just written");
            prop_assert!(walked.iter().map(|(key, _)| *key).eq(keys));
        }

        #[test]
        fn any_bytes_are_walked_or_refused(pattern in proptest::collection::vec(any::<u8>(), 0..40)) {
            let counts = counts(&[1, 1, 2], &[1, 1], 1);
            if let Ok(records) = walked(&pattern, &counts) {
                prop_assert!(records.iter().all(|&(_, i)| i < 5));
            }
        }
    }
}
