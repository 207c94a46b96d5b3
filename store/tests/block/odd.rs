//! Profiles no sane encoder writes come back as well.

use afterglow_profile::{Limits, decode};
use afterglow_store::block::{Options, SampleTypes, SegmentWriter};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::samples::{add, meta, number, opened};

/// Appends a varint.
fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field that is a number.
fn number_field(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    put(out, value);
}

/// Appends a field that has a length.
fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Chooses among what an encoder may choose from, one number at a time.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % n.max(1)
    }

    fn is(&mut self) -> bool {
        self.below(2) == 1
    }

    fn number(&mut self) -> u64 {
        [0, 1, 5, 127, 128, 300, 1 << 40, i64::MAX as u64, u64::MAX][self.below(9)]
    }

    /// Puts the parts of a message in some order.
    fn shuffled(&mut self, mut parts: Vec<Vec<u8>>) -> Vec<u8> {
        for i in (1..parts.len()).rev() {
            let j = self.below(i + 1);
            if self.is() {
                parts.swap(i, j);
            }
        }
        parts.concat()
    }

    /// Returns the fields of a message that has these numbers; a 0 may be left out.
    fn fields(&mut self, fields: &[(u8, u64)]) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        for &(field, value) in fields {
            if value != 0 || self.is() {
                let mut part = Vec::new();
                number_field(&mut part, field, value);
                parts.push(part);
            }
        }
        parts
    }
}

const WORDS: [&[u8]; 8] = [b"", b"cpu", b"main", b"main", b"\xff\xfe", b"a\nb", b"", b"/bin/x"];

/// Returns the bytes of a profile in which an encoder chose as `choices` say: ids, orders, duplicates, what is left out or written as 0.
pub(crate) fn odd_profile(choices: &[u8]) -> Vec<u8> {
    let c = &mut Choices(choices.iter());
    let strings = 1 + c.below(WORDS.len());
    let (mappings, functions, locations) = (c.below(3), c.below(5), c.below(6));
    let ids = |c: &mut Choices<'_>, n: usize| -> Vec<u64> {
        let base = [0, 0, 0, 7, 1 << 50][c.below(5)];
        let mut ids: Vec<u64> = (1..=n as u64).map(|i| base + i).collect();
        if c.is() {
            ids.reverse();
        }
        ids
    };
    let (mapping_ids, function_ids, location_ids) = (ids(c, mappings), ids(c, functions), ids(c, locations));
    let one_of = |c: &mut Choices<'_>, ids: &[u64]| {
        let i = c.below(ids.len() + 1);
        ids.get(i).copied().unwrap_or(0)
    };
    let types = 1 + c.below(3);
    let mut records: Vec<Vec<u8>> = Vec::new();
    let record = |records: &mut Vec<Vec<u8>>, field: u8, body: &[u8]| {
        let mut out = Vec::new();
        bytes_field(&mut out, field, body);
        records.push(out);
    };
    for _ in 0..types {
        let fields = [(1, c.below(strings) as u64), (2, c.below(strings) as u64)];
        let parts = c.fields(&fields);
        record(&mut records, 1, &c.shuffled(parts));
    }
    for _ in 0..c.below(7) {
        let mut parts = Vec::new();
        let depth = if locations == 0 { 0 } else { c.below(4) };
        let stack: Vec<u64> = (0..depth).map(|_| location_ids[c.below(locations)]).collect();
        let values: Vec<u64> = (0..types).map(|_| c.number()).collect();
        for (field, numbers) in [(1, &stack), (2, &values)] {
            let mut part = Vec::new();
            if c.is() {
                numbers.iter().for_each(|&n| number_field(&mut part, field, n));
            } else if !numbers.is_empty() || c.is() {
                let mut packed = Vec::new();
                numbers.iter().for_each(|&n| put(&mut packed, n));
                bytes_field(&mut part, field, &packed);
            }
            parts.push(part);
        }
        let mut labels = Vec::new();
        for _ in 0..c.below(3) {
            let fields = [
                (1, c.below(strings) as u64),
                (2, c.below(strings) as u64),
                (3, c.number()),
                (4, c.below(strings) as u64),
            ];
            let label = c.fields(&fields);
            bytes_field(&mut labels, 3, &c.shuffled(label));
        }
        parts.push(labels);
        record(&mut records, 2, &c.shuffled(parts));
    }
    for &id in &mapping_ids {
        let fields = [
            (1, id),
            (2, c.number()),
            (3, c.number()),
            (4, c.number()),
            (5, c.below(strings) as u64),
            (6, c.below(strings) as u64),
            (7, c.below(2) as u64),
            (9, c.below(2) as u64),
        ];
        let parts = c.fields(&fields);
        record(&mut records, 3, &c.shuffled(parts));
    }
    for &id in &location_ids {
        let fields = [(1, id), (2, one_of(c, &mapping_ids)), (3, c.number()), (5, c.below(2) as u64)];
        let mut parts = c.fields(&fields);
        let mut lines = Vec::new();
        for _ in 0..c.below(3) {
            let fields = [(1, one_of(c, &function_ids)), (2, c.number()), (3, c.number())];
            let line = c.fields(&fields);
            bytes_field(&mut lines, 4, &c.shuffled(line));
        }
        parts.push(lines);
        record(&mut records, 4, &c.shuffled(parts));
    }
    for &id in &function_ids {
        let text = |c: &mut Choices<'_>| c.below(strings) as u64;
        let fields = [(1, id), (2, text(c)), (3, text(c)), (4, text(c)), (5, c.number())];
        let parts = c.fields(&fields);
        record(&mut records, 5, &c.shuffled(parts));
    }
    let text = |c: &mut Choices<'_>| c.below(strings) as u64;
    let scalars =
        [(7, text(c)), (8, text(c)), (9, c.number()), (10, c.number()), (12, c.number()), (14, text(c)), (15, text(c))];
    records.extend(c.fields(&scalars));
    if c.is() {
        let fields = [(1, text(c)), (2, text(c))];
        let parts = c.fields(&fields);
        record(&mut records, 11, &c.shuffled(parts));
    }
    let comments: Vec<u64> = (0..c.below(3)).map(|_| text(c)).collect();
    let mut out = Vec::new();
    if c.is() {
        comments.iter().for_each(|&comment| number_field(&mut out, 13, comment));
    } else {
        let mut packed = Vec::new();
        comments.iter().for_each(|&comment| put(&mut packed, comment));
        bytes_field(&mut out, 13, &packed);
    }
    records.push(out);
    // The string table keeps its order, or its indices would mean others.
    let mut table = Vec::new();
    WORDS[..strings].iter().for_each(|word| bytes_field(&mut table, 6, word));
    records.push(table);
    c.shuffled(records)
}

#[tokio::test]
async fn odd_profiles_come_back_bit_for_bit() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let choices = proptest::collection::vec(any::<u8>(), 0..400);
    let (mut columns, mut profiles) = (0, 0);
    for _ in 0..150 {
        let mut writer = SegmentWriter::new(Options::default());
        let mut raws = Vec::new();
        for _ in 0..8 {
            let choices = choices.new_tree(&mut runner).expect("choices can be made").current();
            let raw = odd_profile(&choices);
            let profile = decode::decode(&raw, &Limits::default()).unwrap_or_else(|e| panic!("{e}: {choices:?}"));
            let service = ["a", "b"][raws.len() % 2];
            let meta = meta(raws.len() as u64, service, "cpu", &profile);
            columns += usize::from(add(&mut writer, meta, &raw).columns);
            raws.push(raw);
        }
        let block = opened(writer.finish().expect("a segment can be finished").bytes).await.expect("it opens");
        let rows = block.rows().await.expect("it has rows");
        for row in rows.iter() {
            assert_eq!(block.fetch(row).await.expect("it comes back"), raws[number(row)]);
        }
        for (dataset, index) in block.toc().datasets().iter().zip(0..) {
            let rows: Vec<_> = dataset.rows().collect();
            block.aggregate(index, &rows, SampleTypes::All).await.expect("it can be summed");
        }
        profiles += raws.len();
    }
    assert!(columns * 20 > profiles * 19, "only {columns} of {profiles} odd profiles are kept as columns");
}

#[tokio::test]
async fn when_the_tables_are_full_profiles_are_kept_as_they_were_sent() {
    let files = crate::samples::files();
    let of_one: Vec<_> = files.iter().filter(|file| file.is_go()).take(6).collect();
    let mut writer = SegmentWriter::new(Options { symbols_max: 10, ..Options::default() });
    let kept: Vec<bool> = of_one
        .iter()
        .zip(0..)
        .map(|(file, n)| {
            let meta = meta(n, "a", "cpu", &crate::samples::decoded(&file.raw));
            add(&mut writer, meta, &file.raw).columns
        })
        .collect();
    assert_eq!(kept, [true, false, false, false, false, false]);
    let finished = writer.finish().expect("a segment can be finished");
    assert_eq!(finished.columns, 1);
    let block = opened(finished.bytes).await.expect("it opens");
    for row in block.rows().await.expect("it has rows").iter() {
        assert_eq!(block.fetch(row).await.expect("it comes back"), of_one[number(row)].raw);
        assert_eq!(row.columns, number(row) == 0);
    }
}
