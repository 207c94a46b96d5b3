//! What the header of a merge says, what does not merge, and the edges of 64 bits. That merges are those of google/pprof is shown by
//! tests/golden_pprof, that they are sums by tests/merge_properties.rs.

use super::*;
use crate::model::{Location, Mapping};

const WORDS: [&[u8]; 12] = [
    b"",
    b"cpu",
    b"nanoseconds",
    b"ms",
    b"samples",
    b"count",
    b"note",
    b"more",
    b"http://docs",
    b"a.*",
    b"b.*",
    b"bytes",
];
const CPU: (u32, u32) = (1, 2);
const CPU_MS: (u32, u32) = (1, 3);
const SAMPLES: (u32, u32) = (4, 5);

/// Returns a profile that counts `sample_types` and has a location a sample.
fn profile(sample_types: &[(u32, u32)], values: &[i64]) -> Profile<'static> {
    let value_type = |&(kind, unit): &(u32, u32)| ValueType { kind, unit, shape: 0 };
    let len = values.len() as u32 / sample_types.len() as u32;
    let location = |i| Location { id: u64::from(i) + 1, mapping: NONE, address: u64::from(i), ..Location::default() };
    Profile {
        sample_types: sample_types.iter().map(value_type).collect(),
        period_type: Some(value_type(&CPU)),
        samples: Samples {
            location_ends: (1..=len).collect(),
            locations: (0..len).collect(),
            values: values.to_vec(),
            label_ends: vec![0; len as usize],
            labels: Vec::new(),
            shapes: vec![0; len as usize],
        },
        locations: (0..len).map(location).collect(),
        strings: WORDS.to_vec(),
        ..Profile::default()
    }
}

fn merge(profiles: &[Profile<'_>]) -> Merged {
    let mut merger = Merger::new();
    for profile in profiles {
        merger.add(profile).expect("they merge");
    }
    merger.finish()
}

fn values(profiles: &[Profile<'_>]) -> Vec<i64> {
    merge(profiles).profile().samples.values
}

#[test]
fn merging_nothing_gives_a_profile_without_anything() {
    let merged = Merger::new().finish();
    assert_eq!(merged.profile(), Profile { strings: vec![b""], ..Profile::default() });
    assert!(merged.warnings().is_empty());
}

#[test]
fn a_sum_beyond_64_bits_saturates_with_a_warning_in_any_order() {
    let [max, one, minus] = [[i64::MAX, 1], [1, 1], [-1, 1]].map(|row| profile(&[CPU, SAMPLES], &row));
    let merged = merge(&[max.clone(), one.clone()]);
    assert_eq!(merged.profile().samples.values, [i64::MAX, 2]);
    assert_eq!(merged.warnings(), [Warning::Saturated { sums: 1 }]);
    assert_eq!(
        merged.warnings()[0].to_string(),
        "1 sums do not fit in 64 bits and stand at the nearest value that does"
    );
    // What comes back into range is exact, also where it had been out of it in between.
    for order in [[&max, &one, &minus], [&max, &minus, &one], [&minus, &one, &max]] {
        let merged = merge(&order.map(Clone::clone));
        assert_eq!(merged.profile().samples.values, [i64::MAX, 3]);
        assert!(merged.warnings().is_empty());
    }
    let lowest = profile(&[CPU, SAMPLES], &[i64::MIN, 1]);
    assert_eq!(values(&[lowest.clone(), lowest]), [i64::MIN, 2]);
}

#[test]
fn a_sum_that_wraps_to_zero_is_not_a_sample_without_values() {
    let half = profile(&[CPU], &[i64::MIN]);
    assert_eq!(values(&[half.clone(), half]), [i64::MIN]);
}

#[test]
fn samples_without_values_are_left_out_with_all_that_only_they_use() {
    let merged = merge(&[profile(&[CPU], &[0, 5, 7]), profile(&[CPU], &[3, -5, 0])]);
    let merged = merged.profile();
    assert_eq!(merged.samples.values, [7, 3]);
    let addresses: Vec<_> = merged.locations.iter().map(|location| location.address).collect();
    assert_eq!(addresses, [2, 0]);
}

#[test]
fn times_durations_and_periods_come_together() {
    let with =
        |time_nanos, duration_nanos, period| Profile { time_nanos, duration_nanos, period, ..profile(&[CPU], &[1]) };
    let merged = merge(&[with(0, 5, 1), with(30, 6, 3), with(20, 7, 2), with(0, i64::MAX, 0)]);
    let merged = merged.profile();
    assert_eq!((merged.time_nanos, merged.duration_nanos, merged.period), (20, i64::MAX, 3));
}

#[test]
fn texts_come_from_the_first_that_has_them_and_comments_from_all() {
    let first = Profile { comments: vec![6, 7, 6], drop_frames: 9, ..profile(&[CPU], &[1]) };
    let second = Profile {
        comments: vec![7, 8],
        drop_frames: 10,
        keep_frames: 10,
        doc_url: 8,
        default_sample_type: 1,
        ..profile(&[CPU], &[1])
    };
    let third = Profile { doc_url: 6, default_sample_type: 6, ..profile(&[CPU], &[1]) };
    let merged = merge(&[first, second, third]);
    let merged = merged.profile();
    let text = |index| std::str::from_utf8(merged.string(index)).expect("it is text");
    let comments: Vec<_> = merged.comments.iter().map(|&comment| text(comment)).collect();
    assert_eq!(comments, ["note", "more", "http://docs"]);
    assert_eq!([text(merged.drop_frames), text(merged.keep_frames)], ["a.*", ""]);
    assert_eq!([text(merged.doc_url), text(merged.default_sample_type)], ["http://docs", "cpu"]);
}

#[test]
fn the_first_mapping_of_the_first_profile_that_has_any_is_the_main_binary() {
    let mapping = |id, file| Mapping { id, file, limit: 0x1000, ..Mapping::default() };
    let none = profile(&[CPU], &[1]);
    let unused = Profile { mappings: vec![mapping(1, 6), mapping(2, 7)], ..profile(&[CPU], &[1]) };
    let merged = merge(&[none, unused.clone(), unused]);
    let merged = merged.profile();
    let files: Vec<_> = merged.mappings.iter().map(|mapping| merged.string(mapping.file)).collect();
    assert_eq!(files, [b"note"], "the second is used by no sample");
}

#[test]
fn sample_types_in_common_merge_in_the_finer_unit() {
    let (fine, coarse) = (profile(&[SAMPLES, CPU], &[1, 2_000_000]), profile(&[CPU_MS], &[3]));
    let merged = merge(&[coarse.clone(), fine.clone()]);
    assert_eq!(merged.profile().samples.values, [5_000_000]);
    assert_eq!(merged.warnings(), [Warning::SampleTypeLeftOut { kind: "samples".to_owned() }]);
    assert_eq!(merged.warnings()[0].to_string(), "sample type samples is left out: not all profiles have it");
    assert_eq!(values(&[fine, coarse]), [5_000_000]);
    // What a larger unit would have to hold does not wrap.
    let merged = merge(&[profile(&[CPU_MS], &[i64::MAX / 1000]), profile(&[CPU], &[1])]);
    assert_eq!(merged.profile().samples.values, [i64::MAX]);
    assert_eq!(merged.warnings(), [Warning::Saturated { sums: 1 }]);
}

#[test]
fn profiles_that_count_nothing_in_common_do_not_merge() {
    let refuse = |first: &Profile<'_>, second: &Profile<'_>| {
        let mut merger = Merger::new();
        merger.add(first).expect("the first always does");
        let error = merger.add(second).expect_err("they should not merge");
        // The merger goes on as if nothing had been.
        merger.add(first).expect("it did before");
        assert_eq!(merger.finish().profile().totals().0, [2]);
        error.to_string()
    };
    let (cpu, samples, bytes) = (profile(&[CPU], &[1]), profile(&[SAMPLES], &[1]), profile(&[(1, 11)], &[1]));
    assert_eq!(refuse(&cpu, &samples), "incompatible sample types [cpu/nanoseconds] and [samples/count]");
    assert_eq!(refuse(&cpu, &bytes), "incompatible sample types [cpu/nanoseconds] and [cpu/bytes]");
    let twice = profile(&[CPU, CPU], &[1, 1]);
    assert_eq!(
        refuse(&cpu, &twice),
        "incompatible sample types [cpu/nanoseconds] and [cpu/nanoseconds, cpu/nanoseconds]"
    );
    let of = |(kind, unit): (u32, u32)| {
        let period_type = Some(ValueType { kind, unit, shape: 0 });
        Profile { period_type, ..profile(&[CPU], &[1]) }
    };
    assert_eq!(refuse(&cpu, &of(SAMPLES)), "incompatible period types cpu/nanoseconds and samples/count");
    assert_eq!(refuse(&cpu, &of((1, 11))), "incompatible period types cpu/nanoseconds and cpu/bytes");
    let none = Profile { period_type: None, ..profile(&[CPU], &[1]) };
    assert_eq!(refuse(&cpu, &none), "incompatible period types cpu/nanoseconds and /");
}

#[test]
fn a_message_does_not_repeat_words_of_any_length() {
    let long = vec![b'x'; 60_000];
    let mut endless = profile(&[SAMPLES], &[1]);
    endless.strings[SAMPLES.0 as usize] = &long;
    let mut merger = Merger::new();
    merger.add(&profile(&[CPU], &[1])).expect("the first always does");
    let error = merger.add(&endless).expect_err("nothing is in common");
    assert!(error.to_string().len() < 200, "{error}");
}

#[test]
fn no_period_type_is_the_same_as_an_empty_one() {
    let none = Profile { period_type: None, ..profile(&[CPU], &[1]) };
    let empty = Profile { period_type: Some(ValueType::default()), ..profile(&[CPU], &[1]) };
    assert_eq!(merge(&[none, empty]).profile().period_type, None);
}

#[test]
fn periods_merge_in_the_finer_unit() {
    let with = |unit, period| {
        let period_type = Some(ValueType { kind: 1, unit, shape: 0 });
        Profile { period_type, period, ..profile(&[CPU], &[1]) }
    };
    let merged = merge(&[with(3, 10), with(2, 7), with(3, 1)]);
    let merged = merged.profile();
    let period_type = merged.period_type.expect("it has one");
    assert_eq!((merged.period, merged.string(period_type.unit)), (10_000_000, &b"nanoseconds"[..]));
}

#[test]
fn memory_grows_with_what_is_new_only() {
    let profile = profile(&[CPU], &(1..=1000).collect::<Vec<_>>());
    let mut merger = Merger::new();
    merger.add(&profile).expect("it merges");
    let (memory, samples) = (merger.memory(), merger.samples());
    for _ in 0..10 {
        merger.add(&profile).expect("it merges");
    }
    assert_eq!((merger.memory(), merger.samples()), (memory, samples));
    assert!(memory > 1000 * (size_of::<i64>() + size_of::<Location>()), "{memory}");
}
