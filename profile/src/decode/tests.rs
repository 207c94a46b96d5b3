//! What decoding accepts, what it refuses and in which words, and that no bytes make it panic or eat memory.

use super::decode;
use crate::encode::{Inexact, encode_exact};
use crate::error::{Error, ErrorKind};
use crate::limits::Limits;
use crate::model::{NONE, Profile};

// === Bytes by hand ===

/// Writes a varint the shortest way.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field with a varint.
fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field with a message or string made of `parts`.
fn message(field: u64, parts: &[Vec<u8>]) -> Vec<u8> {
    let body = parts.concat();
    [varint(field << 3 | 2), varint(body.len() as u64), body].concat()
}

/// A field with packed varints.
fn packed(field: u64, values: &[u64]) -> Vec<u8> {
    message(field, &values.iter().map(|&value| varint(value)).collect::<Vec<_>>())
}

fn string(text: &str) -> Vec<u8> {
    message(6, &[text.as_bytes().to_vec()])
}

/// The parts of a small profile, to be exchanged one by one.
struct Parts {
    sample_type: Vec<u8>,
    sample: Vec<u8>,
    mapping: Vec<u8>,
    location: Vec<u8>,
    function: Vec<u8>,
    strings: Vec<u8>,
    more: Vec<u8>,
}

impl Parts {
    fn new() -> Self {
        Self {
            sample_type: message(1, &[number(1, 1), number(2, 2)]),
            sample: sample(&[packed(1, &[1])]),
            mapping: message(3, &[number(1, 1), number(5, 3)]),
            location: message(4, &[number(1, 1), number(2, 1), number(3, 0x401000), message(4, &[number(1, 1)])]),
            function: message(5, &[number(1, 1), number(2, 3)]),
            strings: [string(""), string("cpu"), string("nanoseconds"), string("main")].concat(),
            more: Vec::new(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { sample_type, sample, mapping, location, function, strings, more } = self;
        [sample_type, sample, mapping, location, function, strings, more].map(Vec::as_slice).concat()
    }
}

/// A sample with one value and `parts`.
fn sample(parts: &[Vec<u8>]) -> Vec<u8> {
    message(2, &[parts, &[packed(2, &[10])]].concat())
}

/// Decodes a profile of `Parts` that `change` has changed.
fn changed(change: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let mut parts = Parts::new();
    change(&mut parts);
    parts.bytes()
}

fn refusal(bytes: &[u8]) -> String {
    let error = decode(bytes, &Limits::default()).expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.to_string()
}

fn accepted(bytes: &[u8]) -> Profile<'_> {
    decode(bytes, &Limits::default()).expect("it is accepted")
}

/// Decodes what is legal, and checks that it comes back bit for bit.
fn exact(bytes: &[u8]) -> Profile<'_> {
    let profile = accepted(bytes);
    let mut out = Vec::new();
    encode_exact(&profile, &mut out).expect("the layout is exact");
    assert_eq!(out, bytes);
    profile
}

/// Decodes what is legal but cannot be told from its values.
fn inexact(bytes: &[u8]) -> Profile<'_> {
    let profile = accepted(bytes);
    assert!(!profile.layout.exact);
    assert_eq!(encode_exact(&profile, &mut Vec::new()), Err(Inexact));
    profile
}

// === What is legal ===

#[test]
fn a_small_profile_has_all_its_parts_and_comes_back() {
    let bytes = Parts::new().bytes();
    let profile = exact(&bytes);
    assert_eq!(profile.samples.stack(0), [0]);
    assert_eq!(profile.values(0), [10]);
    assert_eq!(profile.locations[0].mapping, 0);
    assert_eq!(profile.locations[0].address, 0x401000);
    assert_eq!(profile.lines_of(0)[0].function, 0);
    assert_eq!(profile.string(profile.functions[0].name), b"main");
}

#[test]
fn ids_may_be_sparse_unsorted_and_as_large_as_they_go() {
    let location = |id| message(4, &[number(1, id), number(2, u64::MAX), message(4, &[number(1, 1 << 63)])]);
    for ids in [[7, 3, 5], [u64::MAX, 1 << 63, 1], [u64::from(u32::MAX), u64::from(u32::MAX) - 1, 1 << 40]] {
        let bytes = changed(|parts| {
            parts.sample = sample(&[packed(1, &[ids[2], ids[0], ids[1], ids[0]])]);
            parts.mapping = message(3, &[number(1, u64::MAX)]);
            parts.location = ids.map(location).concat();
            parts.function = message(5, &[number(1, 1 << 63), number(2, 3)]);
        });
        let profile = exact(&bytes);
        assert_eq!(profile.samples.stack(0), [2, 0, 1, 0]);
        assert_eq!(profile.locations.iter().map(|l| l.id).collect::<Vec<_>>(), ids);
        assert!(profile.locations.iter().all(|l| l.mapping == 0));
        assert!(profile.lines.iter().all(|l| l.function == 0));
    }
}

#[test]
fn a_location_without_mapping_and_a_line_without_function_refer_to_nothing() {
    let bytes =
        changed(|parts| parts.location = message(4, &[number(1, 1), number(2, 0), message(4, &[number(2, 9)])]));
    let profile = exact(&bytes);
    assert_eq!(profile.locations[0].mapping, NONE);
    assert_eq!(profile.lines[0].function, NONE);
}

#[test]
fn zero_samples_negative_values_and_broken_utf8_are_legal() {
    let profile = changed(|parts| {
        parts.sample = message(2, &[packed(2, &[-5i64 as u64]), packed(1, &[])]);
        parts.strings = [&parts.strings[..], &message(6, &[vec![0xff, 0xfe]])].concat();
    });
    assert_eq!(exact(&profile).values(0), [-5]);
    assert_eq!(exact(&profile).strings[4], [0xff, 0xfe]);

    let idle = changed(|parts| parts.sample.clear());
    assert!(exact(&idle).samples.is_empty());
}

#[test]
fn records_in_any_order_and_explicit_zeros_come_back() {
    let mut parts = Parts::new();
    parts.more = [number(13, 3), number(9, 0), number(13, 1), number(7, 0), number(12, 5)].concat();
    parts.mapping = message(3, &[number(6, 0), number(5, 3), number(1, 1), number(10, 1), number(7, 0)]);
    parts.sample = sample(&[message(3, &[number(4, 0), number(1, 1)]), number(1, 1), number(1, 1)]);
    let Parts { sample_type, sample, mapping, location, function, strings, more } = &parts;
    let bytes = [strings, more, function, sample, location, mapping, sample, sample_type].map(Vec::as_slice).concat();
    let profile = exact(&bytes);
    assert_eq!(profile.comments, [3, 1]);
    assert_eq!(profile.mappings[0].has, [false, false, false, true]);
    assert_eq!(profile.samples.len(), 2);
    assert_eq!(profile.samples.stack(1), [0, 0]);
}

#[test]
fn what_values_cannot_say_is_legal_but_inexact() {
    let with = |more: Vec<u8>| changed(|parts| parts.more = more);
    let with_sample = |sample| changed(|parts| parts.sample = sample);

    // Fields nobody knows yet, of each wire type.
    inexact(&with(number(16, 1)));
    inexact(&with(message(31, &[])));
    inexact(&with([varint(40 << 3 | 1), vec![0; 8], varint(40 << 3 | 5), vec![0; 4]].concat()));
    assert_eq!(inexact(&with_sample(sample(&[number(9, 1), number(1, 1)]))).samples.stack(0), [0]);
    // Varints with a byte too many: as value, length, key and packed.
    assert_eq!(inexact(&with([vec![9 << 3], vec![0x85, 0]].concat())).time_nanos, 5);
    assert_eq!(
        inexact(&with([vec![9 << 3], vec![0x85, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]].concat())).time_nanos,
        5
    );
    inexact(&with(vec![6 << 3 | 2, 0x80, 0]));
    inexact(&with(vec![0xc8, 0, 1]));
    assert_eq!(inexact(&with_sample(sample(&[message(1, &[vec![0x81, 0]])]))).samples.stack(0), [0]);
    // A scalar twice: the last wins.
    assert_eq!(inexact(&with([number(9, 1), number(9, 2)].concat())).time_nanos, 2);
    // A message twice: merged.
    let twice = with([message(11, &[number(1, 1)]), message(11, &[number(2, 2)])].concat());
    let period_type = inexact(&twice).period_type.expect("there is one");
    assert_eq!((period_type.kind, period_type.unit), (1, 2));
    // Repeated fields in pieces.
    let pieces = [packed(1, &[1]), packed(1, &[1, 1])];
    assert_eq!(inexact(&with_sample(sample(&pieces))).samples.stack(0), [0, 0, 0]);
    let pieces = [number(1, 1), packed(1, &[1, 1])];
    assert_eq!(inexact(&with_sample(sample(&pieces))).samples.stack(0), [0, 0, 0]);
    let label = || message(3, &[number(1, 1)]);
    assert_eq!(inexact(&with_sample(sample(&[label(), packed(1, &[1]), label()]))).samples.labels(0).len(), 2);
    assert_eq!(inexact(&with([packed(13, &[1]), packed(13, &[2])].concat())).comments, [1, 2]);
    assert_eq!(inexact(&with([number(13, 1), packed(13, &[2])].concat())).comments, [1, 2]);
    // A bool that is neither 0 nor 1.
    let odd_bool = changed(|parts| parts.mapping = message(3, &[number(1, 1), number(7, 2)]));
    assert!(inexact(&odd_bool).mappings[0].has[0]);
}

#[test]
fn values_of_every_width_come_back() {
    let values: Vec<u64> =
        (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]).collect();
    let bytes = changed(|parts| {
        parts.sample =
            values.iter().map(|&v| message(2, &[packed(2, &[v]), packed(1, &[])])).collect::<Vec<_>>().concat();
    });
    assert_eq!(exact(&bytes).samples.values, values.iter().map(|&v| v as i64).collect::<Vec<_>>());
}

// === What is refused ===

#[test]
fn what_is_no_pprof_says_where_it_shows() {
    assert_eq!(refusal(b""), "profile is empty");
    assert_eq!(refusal(b"<!DOCTYPE html>"), "not a pprof profile: field 7 has wire type 4 at byte 0");
    assert_eq!(refusal(b"{\"a\":1}"), "not a pprof profile: field 15 has wire type 3 at byte 0");
    assert_eq!(refusal(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "not a pprof profile: field 0 has wire type 0 at byte 10");
    assert_eq!(refusal(b"main;work 12\n"), "not a pprof profile: field 13 has wire type 5 at byte 0");
    // Groups, field 0, and known fields with the wire type of another.
    assert_eq!(refusal(&[0x83, 1]), "not a pprof profile: field 16 has wire type 3 at byte 0");
    assert_eq!(refusal(&[0x02, 0]), "not a pprof profile: field 0 has wire type 2 at byte 0");
    assert_eq!(refusal(&number(2, 1)), "not a pprof profile: field 2 has wire type 0 at byte 0");
    let nested = changed(|parts| parts.sample = sample(&[message(3, &[message(1, &[])])]));
    assert_eq!(refusal(&nested), "not a pprof profile: field 2.3.1 has wire type 2 at byte 10");
}

#[test]
fn truncation_names_the_field_that_goes_on() {
    let bytes = Parts::new().bytes();
    assert_eq!(refusal(&bytes[..1]), "protobuf ends inside field 1 at byte 1");
    assert_eq!(refusal(&bytes[..bytes.len() - 1]), format!("protobuf ends inside field 6 at byte {}", bytes.len() - 1));
    assert_eq!(refusal(&[9 << 3, 0x80]), "protobuf ends inside field 9 at byte 2");
    assert_eq!(refusal(&[0x80]), "protobuf ends inside field 0 at byte 1");
    assert_eq!(
        refusal(&[6 << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        "protobuf ends inside field 6 at byte 11"
    );
    assert_eq!(refusal(&[0x81, 1, 0]), "protobuf ends inside field 16 at byte 3");
    // The record is whole, but what it holds is not.
    let cut = changed(|parts| parts.sample = message(2, &[vec![1 << 3 | 2, 5, 1]]));
    assert_eq!(refusal(&cut), "protobuf ends inside field 2.1 at byte 11");
    let cut = changed(|parts| parts.sample = message(2, &[message(1, &[vec![0x80]])]));
    assert_eq!(refusal(&cut), "protobuf ends inside field 2.1 at byte 11");
}

#[test]
fn varints_beyond_64_bits_are_refused() {
    let ten = |last| [vec![9 << 3], vec![0xff; 9], vec![last]].concat();
    assert_eq!(refusal(&ten(2)), "varint of field 9 is longer than 64 bits at byte 1");
    assert_eq!(refusal(&ten(0x80)), "varint of field 9 is longer than 64 bits at byte 1");
    let whole = changed(|parts| parts.more = ten(1));
    assert_eq!(exact(&whole).time_nanos, -1);
}

#[test]
fn every_string_index_is_checked() {
    let value_type = |field| message(1, &[number(field, 4)]);
    let label = |field| sample(&[message(3, &[]), message(3, &[number(field, 4)])]);
    let cases: [(&str, Vec<u8>); 15] = [
        ("sample_type[0].type", changed(|parts| parts.sample_type = value_type(1))),
        ("sample_type[0].unit", changed(|parts| parts.sample_type = value_type(2))),
        ("sample[0].label[1].key", changed(|parts| parts.sample = label(1))),
        ("sample[0].label[1].str", changed(|parts| parts.sample = label(2))),
        ("sample[0].label[1].num_unit", changed(|parts| parts.sample = label(4))),
        ("mapping[0].filename", changed(|parts| parts.mapping = message(3, &[number(5, 4)]))),
        ("mapping[0].build_id", changed(|parts| parts.mapping = message(3, &[number(6, 4)]))),
        ("function[0].name", changed(|parts| parts.function = message(5, &[number(2, 4)]))),
        ("function[0].system_name", changed(|parts| parts.function = message(5, &[number(3, 4)]))),
        ("function[0].filename", changed(|parts| parts.function = message(5, &[number(4, 4)]))),
        ("drop_frames", changed(|parts| parts.more = number(7, 4))),
        ("keep_frames", changed(|parts| parts.more = number(8, 4))),
        ("comment[1]", changed(|parts| parts.more = packed(13, &[3, 4]))),
        ("default_sample_type", changed(|parts| parts.more = number(14, 4))),
        ("doc_url", changed(|parts| parts.more = number(15, 4))),
    ];
    for (place, bytes) in cases {
        assert_eq!(refusal(&bytes), format!("{place}: string index 4 out of range 0..4"));
    }
    let negative = changed(|parts| parts.more = message(11, &[number(1, -1i64 as u64)]));
    assert_eq!(refusal(&negative), "period_type.type: string index -1 out of range 0..4");
}

#[test]
fn the_string_table_starts_with_the_empty_string() {
    let message = "string_table[0] must be empty";
    assert_eq!(refusal(&changed(|parts| parts.strings.clear())), message);
    assert_eq!(refusal(&changed(|parts| parts.strings.splice(..2, string("x")).for_each(drop))), message);
}

#[test]
fn ids_are_unique_and_not_zero() {
    let twice = |part: &mut Vec<u8>| *part = [&part[..], &part[..]].concat();
    assert_eq!(refusal(&changed(|p| p.mapping = message(3, &[]))), "mapping[0]: mapping id 0 is reserved");
    assert_eq!(
        refusal(&changed(|p| p.location = message(4, &[number(1, 0)]))),
        "location[0]: location id 0 is reserved"
    );
    assert_eq!(refusal(&changed(|p| p.function = message(5, &[]))), "function[0]: function id 0 is reserved");
    assert_eq!(refusal(&changed(|p| twice(&mut p.mapping))), "mapping[1]: mapping id 1 is a duplicate");
    assert_eq!(refusal(&changed(|p| twice(&mut p.location))), "location[1]: location id 1 is a duplicate");
    assert_eq!(refusal(&changed(|p| twice(&mut p.function))), "function[1]: function id 1 is a duplicate");
    let large = |p: &mut Parts| p.function = [u64::MAX, 1, u64::MAX].map(|id| message(5, &[number(1, id)])).concat();
    assert_eq!(refusal(&changed(large)), format!("function[2]: function id {} is a duplicate", u64::MAX));
}

#[test]
fn references_must_be_defined() {
    let stack = |ids: &[u64]| [sample(&[packed(1, &[1])]), sample(&[packed(1, ids)])].concat();
    assert_eq!(refusal(&changed(|p| p.sample = stack(&[1, 99]))), "sample[1]: location 99 not defined");
    assert_eq!(refusal(&changed(|p| p.sample = stack(&[0]))), "sample[1]: location 0 not defined");
    let large = changed(|p| p.sample = stack(&[1, u64::MAX]));
    assert_eq!(refusal(&large), format!("sample[1]: location {} not defined", u64::MAX));
    let location =
        |parts: &[Vec<u8>]| [message(4, &[number(1, 1)]), message(4, &[&[number(1, 2)], parts].concat())].concat();
    let mapping = changed(|p| p.location = location(&[number(2, 9)]));
    assert_eq!(refusal(&mapping), "location[1]: mapping 9 not defined");
    let function = changed(|p| p.location = location(&[message(4, &[number(1, 1)]), message(4, &[number(1, 9)])]));
    assert_eq!(refusal(&function), "location[1].line[1]: function 9 not defined");
}

#[test]
fn samples_have_a_value_for_each_sample_type() {
    let values = |values: &[u64]| changed(|p| p.sample = message(2, &[packed(2, values)]));
    let text = |n| format!("sample[0]: mismatch: sample has {n} values vs. 1 types");
    assert_eq!(refusal(&values(&[])), text(0));
    assert_eq!(refusal(&values(&[1, 2])), text(2));
    assert_eq!(refusal(&values(&[300; 30])), text(30));
    assert_eq!(refusal(&changed(|p| p.sample = message(2, &[number(2, 1), number(2, 1)]))), text(2));
    assert_eq!(refusal(&changed(|p| p.sample_type.clear())), "missing sample type information");
}

#[test]
fn limits_are_named_with_their_settings() {
    let refusal = |limits: Limits, bytes: &[u8]| {
        let error = decode(bytes, &limits).expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    let limits = Limits::default;
    let bytes = changed(|parts| {
        parts.sample = sample(&[packed(1, &[1, 1, 1]), message(3, &[]), message(3, &[])]);
        parts.more = packed(13, &[0, 0]);
        parts.location = message(4, &[number(1, 1), message(4, &[]), message(4, &[])]);
    });
    accepted(&bytes);
    let cases = [
        (
            Limits { sample_types_max: 0, ..limits() },
            "sample types 1 exceeds max_sample_types 0 (--limits.max-sample-types)",
        ),
        (Limits { samples_max: 0, ..limits() }, "samples 1 exceeds max_samples 0 (--limits.max-samples)"),
        (Limits { mappings_max: 0, ..limits() }, "mappings 1 exceeds max_mappings 0 (--limits.max-mappings)"),
        (Limits { locations_max: 0, ..limits() }, "locations 1 exceeds max_locations 0 (--limits.max-locations)"),
        (Limits { functions_max: 0, ..limits() }, "functions 1 exceeds max_functions 0 (--limits.max-functions)"),
        (Limits { strings_max: 3, ..limits() }, "strings 4 exceeds max_strings 3 (--limits.max-strings)"),
        (Limits { lines_max: 1, ..limits() }, "lines of locations 2 exceeds max_lines 1 (--limits.max-lines)"),
        (Limits { labels_max: 1, ..limits() }, "labels of samples 2 exceeds max_labels 1 (--limits.max-labels)"),
        (Limits { comments_max: 1, ..limits() }, "comments 2 exceeds max_comments 1 (--limits.max-comments)"),
        (
            Limits { stack_depth_max: 2, ..limits() },
            "sample[0] stack depth 3 exceeds max_stack_depth 2 (--limits.max-stack-depth)",
        ),
        (
            Limits { stack_locations_max: 2, ..limits() },
            "locations of stacks 3 exceeds max_stack_locations 2 (--limits.max-stack-locations)",
        ),
        (
            Limits { string_bytes_max: 10, ..limits() },
            "string_table[2] length 11 exceeds max_string 10 (--limits.max-string)",
        ),
    ];
    for (limits, text) in cases {
        assert_eq!(refusal(limits, &bytes), text);
    }

    let deep = changed(|parts| parts.sample = sample(&[packed(1, &vec![1; 100_000])]));
    assert_eq!(
        refusal(limits(), &deep),
        "sample[0] stack depth 100000 exceeds max_stack_depth 4096 (--limits.max-stack-depth)"
    );
}

#[test]
fn the_default_limits_are_those_that_are_promised() {
    let Limits { body_bytes_max, inflated_bytes_max, inflate_ratio_max, samples_max, .. } = Limits::default();
    let Limits { stack_depth_max, string_bytes_max, .. } = Limits::default();
    assert_eq!((body_bytes_max, inflated_bytes_max, inflate_ratio_max), (32 << 20, 64 << 20, 200));
    assert_eq!((samples_max, stack_depth_max, string_bytes_max), (1_000_000, 4096, 64 << 10));
}

#[test]
fn more_shapes_than_encoders_write_are_kept_as_bytes_only() {
    // Every choice of nine fields, with the id after none, one or two of them.
    let mappings: Vec<Vec<u8>> = (0..3 * 512u64)
        .map(|i| {
            let mut fields: Vec<_> = (0..9).filter(|bit| i >> bit & 1 == 1).map(|bit| number(bit + 2, 0)).collect();
            fields.insert(fields.len().min(i as usize / 512), number(1, i + 1));
            message(3, &fields)
        })
        .collect();
    let bytes = changed(|parts| parts.mapping = mappings[..1000].concat());
    assert_eq!(exact(&bytes).mappings.len(), 1000);
    let bytes = changed(|parts| parts.mapping = mappings.concat());
    assert_eq!(inexact(&bytes).mappings.len(), 3 * 512);
}

#[test]
fn errors_tell_the_place_even_where_the_field_repeats() {
    let bytes = changed(|parts| parts.more = message(5, &[number(1, 2), number(2, 77)]));
    let expected = Error::StringIndex { place: "function[1].name".to_owned(), index: 77, len: 4 };
    assert_eq!(decode(&bytes, &Limits::default()), Err(expected));
}

// === What it costs ===

#[test]
fn no_mebibyte_makes_much_memory() {
    /// The worst is a message of two bytes that becomes 24, in a table that doubles as it grows.
    const RATIO_MAX: f64 = 25.0;

    let times = |part: Vec<u8>| part.repeat((1 << 20) / part.len());
    let numbered = |field| (1..200_000).map(|id| message(field, &[number(1, id)])).collect::<Vec<_>>().concat();
    for (name, bytes) in [
        ("strings", changed(|p| p.strings = [string(""), times(string(""))].concat())),
        ("comments", changed(|p| p.more = times(number(13, 0))[..100_000].to_vec())),
        ("samples", changed(|p| p.sample = times(message(2, &[packed(2, &[1])])))),
        ("deep stacks", changed(|p| p.sample = times(sample(&[packed(1, &[1; 4096])])))),
        ("labels", changed(|p| p.sample = sample(&[times(message(3, &[]))]))),
        ("lines", changed(|p| p.location = message(4, &[number(1, 1), times(message(4, &[]))]))),
        ("locations", changed(|p| p.location = numbered(4))),
        ("functions", changed(|p| p.function = numbered(5))),
        ("mappings", changed(|p| p.mapping = numbered(3))),
        ("records", changed(|p| p.more = times([string(""), number(16, 0)].concat()))),
        (
            "values",
            changed(|p| {
                p.sample_type = message(1, &[]).repeat(64);
                p.sample = times(message(2, &[packed(2, &[0; 64])]));
            }),
        ),
    ] {
        let limits = Limits { mappings_max: 1 << 20, ..Limits::default() };
        let profile = decode(&bytes, &limits).unwrap_or_else(|error| panic!("{name}: {error}"));
        let ratio = profile.heap_bytes() as f64 / bytes.len() as f64;
        assert!(ratio <= RATIO_MAX, "{name}: {ratio:.1} times {} bytes", bytes.len());
    }
}

#[test]
fn a_real_profile_takes_a_few_times_its_bytes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/profiles/svc-heap-i1-0038.pb.gz");
    let body = std::fs::read(path).expect("the fixture is there");
    let raw = crate::compress::inflate(&body, &Limits::default()).expect("it inflates");
    let profile = accepted(&raw);
    assert!(profile.heap_bytes() <= 8 * raw.len(), "{} for {} bytes", profile.heap_bytes(), raw.len());
}
