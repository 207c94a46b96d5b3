//! Profiles no sane encoder writes come back as well.

use afterglow_profile::{Limits, decode};
use afterglow_store::block::{Options, SampleTypes, SegmentWriter};
use afterglow_store::testing::odd;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::samples::{add, meta, number, opened};

/// Writes profiles made by `encode` from random choices in small segments, asks for each of them and for sums of all, and returns the
/// share that is kept as columns.
async fn round_trip(encode: fn(&[u8]) -> Vec<u8>) -> f64 {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let choices = proptest::collection::vec(any::<u8>(), 0..400);
    let (mut columns, mut profiles) = (0, 0);
    for _ in 0..150 {
        let mut writer = SegmentWriter::new(Options::default());
        let mut raws = Vec::new();
        for _ in 0..8 {
            let choices = choices.new_tree(&mut runner).expect("choices can be made").current();
            let raw = encode(&choices);
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
    columns as f64 / profiles as f64
}

#[tokio::test]
async fn odd_profiles_come_back_bit_for_bit() {
    let columns = round_trip(odd::profile).await;
    assert!(columns > 0.95, "only {columns} of odd profiles are kept as columns");
}

/// Goal: what columns cannot say is found out, and the bytes are kept.
#[tokio::test]
async fn wild_profiles_come_back_bit_for_bit() {
    let columns = round_trip(odd::wild_profile).await;
    assert!((0.01..0.3).contains(&columns), "{columns} of wild profiles are kept as columns");
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
