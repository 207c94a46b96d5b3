//! Roll-ups change no answer: what they say of a step is what its profiles say, whichever are asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use afterglow_profile::encode::encode;
use afterglow_profile::model::{Function, Line, Location, Mapping, Profile, SampleLabel, Samples, ValueType};
use afterglow_store::Metrics;
use afterglow_store::block::{
    Ahead, Block, Decoded, Keep, MergeOptions, Options, Row, SampleTypes, SegmentWriter, Wanted,
};
use afterglow_store::testing::faults::Faulty;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::aggregate::merged;
use crate::merge::{all_opened, merge};
use crate::samples::{File, add, decoded, files, meta};

const MINUTE_NANOS: i64 = 60 * 1_000_000_000;

/// The kind of sections that holds roll-ups, as docs/format.md numbers it.
const ROLLUPS: u32 = 4;

/// A profile as it is drawn.
#[derive(Clone, Debug)]
struct Drawn {
    /// When it was taken, in minutes; a few hours.
    minute: i64,
    /// Whether it says so itself.
    has_time: bool,
    /// The stack, the label set and the values of each sample.
    samples: Vec<(u8, u8, [i64; 2])>,
    /// Whether its header has a comment, and which binary is the main one.
    comment: bool,
    binary: u8,
    /// Whether it is kept as it was sent.
    blob: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    // What is rare here occurs in one block of two, and keeps a step from being summed.
    let value = prop_oneof![6000 => 0i64..50, 2000 => Just(0), 1 => Just(i64::MAX / 2), 1 => Just(-3)];
    let sample = (0u8..3, 0u8..2, [value.clone(), value]);
    let samples = proptest::collection::vec(sample, 2..9);
    let header = (prop::bool::weighted(0.3), 0u8..2, prop::bool::weighted(0.01));
    (0i64..150, any::<bool>(), samples, header).prop_map(|(minute, has_time, samples, (comment, binary, blob))| Drawn {
        minute,
        has_time,
        samples,
        comment,
        binary,
        blob,
    })
}

impl Drawn {
    fn pprof(&self, start_nanos: i64) -> Vec<u8> {
        let types = [(1, 2), (3, 4)].map(|(kind, unit)| ValueType { kind, unit, shape: 0 });
        let mut samples = Samples::default();
        for &(stack, label, values) in &self.samples {
            samples.locations.extend((0..=u32::from(stack)).rev());
            samples.location_ends.push(samples.locations.len() as u32);
            samples.values.extend(values);
            if label > 0 {
                samples.labels.push(SampleLabel { key: 5, str: 6, num: 0, num_unit: 0, shape: 0 });
            }
            samples.label_ends.push(samples.labels.len() as u32);
            samples.shapes.push(0);
        }
        let function = |n: u32| Function { id: n.into(), name: 6 + n, ..Function::default() };
        let location =
            |n: u32| Location { id: n.into(), mapping: 0, lines_end: n, lines_start: n - 1, ..Location::default() };
        let mut raw = encode(&Profile {
            strings: vec![
                b"",
                b"samples",
                b"count",
                b"cpu",
                b"nanoseconds",
                b"thread",
                b"main",
                b"one",
                b"two",
                b"/bin/a",
                b"/bin/b",
            ],
            sample_types: types.to_vec(),
            samples,
            mappings: vec![Mapping {
                id: 1,
                start: 0x1000,
                limit: 0x2000,
                file: 9 + u32::from(self.binary),
                ..Mapping::default()
            }],
            functions: (1..=3).map(function).collect(),
            locations: (1..=3).map(location).collect(),
            lines: (0..3).map(|function| Line { function, line: 7, ..Line::default() }).collect(),
            comments: if self.comment { vec![6] } else { Vec::new() },
            time_nanos: if self.has_time { start_nanos + self.minute * MINUTE_NANOS } else { 0 },
            duration_nanos: 1_000,
            ..Profile::default()
        });
        if self.blob {
            // A field that pprof does not have: number 15, the number 1.
            raw.extend([15 << 3, 1]);
        }
        raw
    }

    /// Whether additions of it show their order.
    fn is_odd(&self) -> bool {
        self.samples.iter().flat_map(|(.., values)| values).any(|value| !(0..1_000).contains(value))
    }
}

/// Makes blocks of level 2 of these profiles, with roll-ups and without.
async fn blocks(profiles: &[Drawn], start_nanos: i64) -> [Bytes; 2] {
    let mut segments = Vec::new();
    for (profiles, first) in profiles.chunks(40).zip((0..).step_by(40)) {
        let mut writer = SegmentWriter::new(Options::default());
        for (profile, n) in profiles.iter().zip(first..) {
            let raw = profile.pprof(start_nanos);
            let mut meta = meta(n, "api", "cpu", &decoded(&raw));
            meta.time_nanos = start_nanos + profile.minute * MINUTE_NANOS;
            add(&mut writer, meta, &raw);
        }
        segments.push(writer.finish().expect("a segment").bytes);
    }
    let segments = all_opened(segments).await;
    let with = MergeOptions { chunk_profiles_max: 8, ..MergeOptions::of_level(2) };
    let without = MergeOptions { rollup_step: None, ..with.clone() };
    let one = async |options| {
        let (merged, _) = merge(&segments, options).await.expect("sound blocks merge");
        assert_eq!(merged.len(), 1);
        merged[0].bytes.clone()
    };
    [one(&with).await, one(&without).await]
}

/// Opens a block in a store that counts.
async fn counted(bytes: Bytes) -> (Block, Faulty) {
    let store = Faulty::new(Arc::new(InMemory::new()));
    let key = Key::from("block");
    store.put(&key, bytes.into()).await.expect("memory takes any object");
    let block = Block::open(Arc::new(store.clone()), key).await.expect("a fresh block opens");
    block.rows().await.expect("a fresh block has rows");
    (block, store)
}

/// What a sum says, to the byte.
type Said = (Option<usize>, usize, Vec<u8>);

/// Sums rows of the only dataset.
async fn sums(block: &Block, rows: &[usize], types: SampleTypes) -> (Vec<Said>, crate::aggregate::Meaning) {
    let sums = block.aggregate(0, rows, types).await.expect("the block is whole");
    let said = sums.iter().map(|sum| (sum.sample_type(), sum.profiles(), encode(&sum.profile()))).collect();
    (said, merged(sums.iter().map(|sum| sum.profile())))
}

/// Sums rows by groups: for each group and sample the value.
async fn by_group(block: &Block, rows: &[(usize, Wanted)]) -> BTreeMap<(u32, String), i128> {
    let mut sums = BTreeMap::new();
    for grouped in block.by_group(0, rows, Keep::Decoded, &Ahead::default()).await.expect("the block is whole") {
        let profile = grouped.profile();
        let name = |sample: u32| {
            let i = (0..profile.samples.len()).find(|&i| profile.values(i)[0] == i64::from(sample));
            let i = i.expect("a part knows samples that there are");
            format!("{:?} {:?}", profile.samples.stack(i).len(), profile.samples.labels(i).len())
        };
        for part in grouped.parts() {
            for (&sample, value) in part.samples.iter().zip(&part.values) {
                *sums.entry((part.group, name(sample))).or_default() += value;
            }
        }
    }
    sums
}

#[tokio::test]
async fn answers_are_the_same_with_and_without() {
    let mut runner = TestRunner::deterministic();
    let (mut asked, mut less, mut exact) = (0, 0, 0);
    for round in 0..24 {
        let mut draw =
            |strategy: BoxedStrategy<Vec<Drawn>>| strategy.new_tree(&mut runner).expect("it can be drawn").current();
        let profiles = draw(proptest::collection::vec(drawn(), 300..400).boxed());
        // A day starts where a step does; before 1970 as well.
        let start_nanos = ([20_000, -1][round % 2] * 24 + 20) * 60 * MINUTE_NANOS;
        let [with, without] = blocks(&profiles, start_nanos).await;
        // Some of it fits, some is pushed out; or all of it fits.
        let decoded = Arc::new(Decoded::new([40 << 10, 4 << 20][round % 2], Metrics::default()));
        let kept = [counted(with.clone()).await.0.keeping(&decoded), counted(without.clone()).await.0];
        let kept = {
            let [one, other] = kept;
            [one, other.keeping(&Arc::new(Decoded::new(1 << 20, Metrics::default())))]
        };
        let [(with, read), (without, read_without)] = [counted(with).await, counted(without).await];
        let rows = with.rows().await.expect("a fresh block has rows");
        assert_eq!(rows, without.rows().await.expect("a fresh block has rows"));
        with.check_rollups().await.expect("a fresh block is whole");
        assert_eq!(without.check_rollups().await.expect("a fresh block is whole"), 0);
        let minute = |row: &Row| (row.time_nanos - start_nanos) / MINUTE_NANOS;
        let is_odd = profiles.iter().any(Drawn::is_odd);

        let windows = (0i64..150, 0i64..150).prop_map(|(a, b)| a.min(b)..a.max(b) + 1);
        for kind in 0..8 {
            let window = windows.new_tree(&mut runner).expect("it can be drawn").current();
            let is_chosen = |i: usize, row: &Row| match kind {
                0 => true,
                1 => row.series == 1,
                2 => i % 7 != 3,
                // Half of one hour, all of the others.
                3 => minute(row) >= 60 || i.is_multiple_of(2),
                _ => window.contains(&minute(row)),
            };
            let chosen: Vec<usize> = (0..rows.len()).filter(|&i| is_chosen(i, &rows[i])).collect();
            if chosen.is_empty() {
                continue;
            }
            for types in [SampleTypes::All, SampleTypes::Default, SampleTypes::One(0)] {
                let before = (read.bytes_in_ranges(), read_without.bytes_in_ranges());
                let (ours, theirs) = (sums(&with, &chosen, types).await, sums(&without, &chosen, types).await);
                assert!(ours.1 == theirs.1, "round {round}, selection {kind}, {types:?}");
                if !is_odd {
                    assert!(ours.0 == theirs.0, "round {round}, selection {kind}, {types:?}: other bytes");
                    exact += 1;
                }
                for kept in &kept {
                    for _ in 0..2 {
                        let (said, meaning) = sums(kept, &chosen, types).await;
                        assert!(meaning == theirs.1, "round {round}, selection {kind}, {types:?}: kept");
                        assert!(is_odd || said == theirs.0, "round {round}, selection {kind}, {types:?}: kept");
                    }
                }
                asked += 1;
                less += usize::from(read.bytes_in_ranges() - before.0 < read_without.bytes_in_ranges() - before.1);
            }
            type Group<'a> = &'a dyn Fn(usize) -> u32;
            let groups: [Group<'_>; 3] = [&|_| 0, &|i| (minute(&rows[i]) / 60) as u32, &|i| i as u32 % 2];
            for group in groups {
                let wanted = |&i: &usize| (i, Wanted { group: group(i), column: kind % 2, factor: 1 + kind as i128 });
                let wanted: Vec<_> = chosen.iter().map(wanted).collect();
                let theirs = by_group(&without, &wanted).await;
                assert_eq!(by_group(&with, &wanted).await, theirs);
                for kept in &kept {
                    assert_eq!(by_group(kept, &wanted).await, theirs);
                }
            }
        }
    }
    assert!(
        less * 4 > asked && less < asked && exact > 20,
        "{less} of {asked} read less, {exact} were compared to the byte"
    );
}

/// Returns profiles of two and a half hours of three programs that barely change.
fn steady() -> Vec<Drawn> {
    let samples = |n: i64| (0..3).map(|stack| (stack, 0, [n % 5 + 1, n])).collect();
    let one =
        |n: i64| Drawn { minute: n / 2, has_time: true, samples: samples(n), comment: false, binary: 0, blob: false };
    (0..300).map(one).collect()
}

/// Goal: a question about whole hours reads nothing of their profiles.
#[tokio::test]
async fn whole_steps_are_read_from_roll_ups() {
    let [with, _] = blocks(&steady(), 0).await;
    let (block, read) = counted(with.clone()).await;
    let rolled: Vec<_> = block.toc().sections().iter().filter(|section| section.kind() == ROLLUPS).collect();
    assert_eq!(rolled.len(), 1);
    let rows = block.rows().await.expect("a fresh block has rows");
    let of_hours = |hours: std::ops::Range<i64>| -> Vec<usize> {
        (0..rows.len()).filter(|&i| hours.contains(&(rows[i].time_nanos / 60 / MINUTE_NANOS))).collect()
    };
    let bytes = async |rows: &[usize]| {
        let before = read.bytes_in_ranges();
        let (said, _) = sums(&block, rows, SampleTypes::All).await;
        assert_eq!(said.iter().map(|(_, profiles, _)| profiles).sum::<usize>(), rows.len());
        read.bytes_in_ranges() - before
    };
    // Tables and roll-ups lie before everything else.
    let two = bytes(&of_hours(0..2)).await;
    let to_read = |rows: &[usize]| block.to_read(0, &rows.iter().map(|&row| (row, ())).collect::<Vec<_>>()).samples;
    let samples: u64 = of_hours(0..2).iter().map(|&row| rows[row].samples).sum();
    assert!(to_read(&of_hours(0..2)) * 16 < samples && to_read(&of_hours(0..2)) > 0, "of {samples}");
    assert!(to_read(&of_hours(0..2)[1..]) * 4 > samples, "an hour is read profile by profile");
    assert!(two < rolled[0].range().end, "{two} bytes are more than tables and roll-ups");
    let all_but_one = bytes(&of_hours(0..2)[1..]).await;
    assert!(all_but_one > 2 * two, "{all_but_one} bytes beside {two}");
}

#[tokio::test]
async fn a_damaged_roll_up_is_reported_and_alters_nothing() {
    let [with, _] = blocks(&steady(), 0).await;
    let (block, _) = counted(with.clone()).await;
    let all: Vec<usize> = (0..block.toc().profiles()).collect();
    let (whole, _) = sums(&block, &all, SampleTypes::All).await;
    let wanted: Vec<_> = all.iter().map(|&i| (i, Wanted { group: 0, column: 0, factor: 1 })).collect();
    let groups = by_group(&block, &wanted).await;
    let section = block.toc().sections().iter().find(|section| section.kind() == ROLLUPS).expect("there are roll-ups");
    let (bits, mut noticed) = (section.range().start * 8..section.range().end * 8, 0);
    for bit in bits.clone() {
        let mut bytes = with.to_vec();
        bytes[bit as usize / 8] ^= 1 << (bit % 8);
        let (damaged, _) = counted(bytes.into()).await;
        assert!(sums(&damaged, &all, SampleTypes::All).await.0 == whole, "bit {bit} changed a sum");
        noticed += u64::from(damaged.take_rollup_damage());
        assert!(!damaged.take_rollup_damage(), "it is told once");
        assert_eq!(by_group(&damaged, &wanted).await, groups);
        let looked = damaged.check_rollups().await;
        assert!(looked.is_err_and(|error| error.is_corrupt()), "nobody noticed bit {bit}");
    }
    // What only exact copies need is not read for sums.
    assert!(noticed * 2 > bits.end - bits.start, "{noticed} were told");
    assert!(!block.take_rollup_damage());
}

#[tokio::test]
async fn real_profiles_roll_up() {
    let files: Vec<_> = files().into_iter().filter(|file| File::is_go(file) && file.names().1 == "heap").collect();
    let program = files[0].names().0;
    let files: Vec<_> = files.into_iter().filter(|file| file.names().0 == program).collect();
    let mut writer = SegmentWriter::new(Options::default());
    for n in 0..60u64 {
        let raw = &files[n as usize % files.len()].raw;
        let mut meta = meta(n, &program, "heap", &decoded(raw));
        meta.time_nanos = n as i64 * 2 * MINUTE_NANOS;
        add(&mut writer, meta, raw);
    }
    let segment = all_opened([writer.finish().expect("a segment").bytes]).await;
    let options = MergeOptions::of_level(3);
    let (with, _) = merge(&segment, &options).await.expect("it merges");
    let (without, _) = merge(&segment, &MergeOptions { rollup_step: None, ..options }).await.expect("it merges");
    let [(with, _), (without, _)] = [counted(with[0].bytes.clone()).await, counted(without[0].bytes.clone()).await];
    assert_eq!(with.check_rollups().await.expect("a fresh block is whole"), 2);
    let all: Vec<usize> = (0..60).collect();
    for types in [SampleTypes::All, SampleTypes::Default] {
        assert!(sums(&with, &all, types).await == sums(&without, &all, types).await);
    }
}
