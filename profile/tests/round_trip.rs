//! What goes out comes in again: random profiles, and real ones with pieces moved about (`damaged.rs` has those that are cut off, or of which a
//! byte has changed).

mod consistent;

use afterglow_profile::model::{
    Function, Line, Location, Mapping, NONE, Profile, SampleLabel, Samples, StringIndex, ValueType,
};
use afterglow_profile::{Limits, compress, decode, encode};
use proptest::collection::vec;
use proptest::prelude::*;
use std::path::Path;

use consistent::{check_accepted, meaning};

// === Random profiles ===

/// The strings of random profiles.
const STRINGS: [&[u8]; 6] = [b"", b"cpu", b"nanoseconds", b"main.work", b"/src/main.go", b"\xff\xfe"];

fn string() -> impl Strategy<Value = StringIndex> {
    0..STRINGS.len() as StringIndex
}

/// Numbers of every width.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32).prop_map(|(bits, shift)| bits >> shift)
}

/// Distinct ids: dense, shuffled or anywhere.
fn ids(count: usize) -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![
        Just((1..=count as u64).collect::<Vec<_>>()),
        Just((1..=count as u64).collect::<Vec<_>>()).prop_shuffle(),
        proptest::collection::btree_set(1..=u64::MAX, count).prop_map(|ids| ids.into_iter().collect()).prop_shuffle(),
    ]
}

/// An index into a table of `count`, or [`NONE`].
fn reference(count: usize) -> impl Strategy<Value = u32> {
    (0..=count as u32).prop_map(move |i| if i == count as u32 { NONE } else { i })
}

fn value_type() -> impl Strategy<Value = ValueType> {
    (string(), string()).prop_map(|(kind, unit)| ValueType { kind, unit, shape: 0 })
}

fn mappings() -> impl Strategy<Value = Vec<Mapping>> {
    (0..4usize).prop_flat_map(|count| {
        let fields = (number(), number(), number(), string(), string(), any::<[bool; 4]>());
        (ids(count), vec(fields, count)).prop_map(|(ids, all)| {
            ids.into_iter()
                .zip(all)
                .map(|(id, (start, limit, offset, file, build_id, has))| Mapping {
                    id,
                    start,
                    limit,
                    offset,
                    file,
                    build_id,
                    has,
                    shape: 0,
                })
                .collect()
        })
    })
}

fn functions() -> impl Strategy<Value = Vec<Function>> {
    (0..6usize).prop_flat_map(|count| {
        let fields = (string(), string(), string(), number());
        (ids(count), vec(fields, count)).prop_map(|(ids, all)| {
            ids.into_iter()
                .zip(all)
                .map(|(id, (name, system_name, file, start_line))| Function {
                    id,
                    name,
                    system_name,
                    file,
                    start_line: start_line as i64,
                    shape: 0,
                })
                .collect()
        })
    })
}

/// Locations with their lines.
fn locations(mappings: usize, functions: usize) -> impl Strategy<Value = (Vec<Location>, Vec<Line>)> {
    (0..8usize).prop_flat_map(move |count| {
        let line = (reference(functions), number(), number()).prop_map(|(function, line, column)| Line {
            function,
            line: line as i64,
            column: column as i64,
            shape: 0,
        });
        let fields = (reference(mappings), number(), any::<bool>(), vec(line, 0..3));
        (ids(count), vec(fields, count)).prop_map(|(ids, all)| {
            let mut lines = Vec::new();
            let mut locations = Vec::new();
            for (id, (mapping, address, is_folded, own)) in ids.into_iter().zip(all) {
                let lines_start = lines.len() as u32;
                lines.extend(own);
                let lines_end = lines.len() as u32;
                locations.push(Location { id, mapping, address, lines_start, lines_end, is_folded, shape: 0 });
            }
            (locations, lines)
        })
    })
}

fn samples(locations: usize, sample_types: usize) -> impl Strategy<Value = Samples> {
    let label = (string(), string(), number(), string()).prop_map(|(key, str, num, num_unit)| SampleLabel {
        key,
        str,
        num: num as i64,
        num_unit,
        shape: 0,
    });
    let depth_max = if locations == 0 { 0 } else { 40 };
    let sample = (vec(0..locations.max(1) as u32, 0..=depth_max), vec(number(), sample_types), vec(label, 0..3));
    vec(sample, 0..20).prop_map(|all| {
        let mut samples = Samples::default();
        for (stack, values, labels) in all {
            samples.locations.extend(stack);
            samples.location_ends.push(samples.locations.len() as u32);
            samples.values.extend(values.into_iter().map(|value| value as i64));
            samples.labels.extend(labels);
            samples.label_ends.push(samples.labels.len() as u32);
            samples.shapes.push(0);
        }
        samples
    })
}

fn profile() -> impl Strategy<Value = Profile<'static>> {
    let scalars = (any::<[i64; 3]>(), [string(), string(), string(), string()], vec(string(), 0..3));
    (mappings(), functions(), vec(value_type(), 1..4), proptest::option::of(value_type()), scalars).prop_flat_map(
        |(mappings, functions, sample_types, period_type, scalars)| {
            locations(mappings.len(), functions.len()).prop_flat_map(move |(locations, lines)| {
                let ([time_nanos, duration_nanos, period], strings, comments) = scalars.clone();
                let [drop_frames, keep_frames, default_sample_type, doc_url] = strings;
                let profile = Profile {
                    sample_types: sample_types.clone(),
                    mappings: mappings.clone(),
                    functions: functions.clone(),
                    strings: STRINGS.to_vec(),
                    drop_frames,
                    keep_frames,
                    time_nanos,
                    duration_nanos,
                    period_type,
                    period,
                    comments,
                    default_sample_type,
                    doc_url,
                    lines,
                    ..Profile::default()
                };
                samples(locations.len(), sample_types.len()).prop_map(move |samples| Profile {
                    samples,
                    locations: locations.clone(),
                    ..profile.clone()
                })
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn encoding_and_decoding_is_the_identity(profile in profile()) {
        let bytes = encode::encode(&profile);
        let again = decode::decode(&bytes, &Limits::default()).expect("what we write we read");
        prop_assert_eq!(&meaning(&again), &profile);
        check_accepted(&bytes, &again);
    }
}

// === Real profiles, damaged ===

/// Returns small real profiles, as protobuf.
fn small_profiles() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/profiles");
    ["svc-cpu-i1-0036", "svc-mutex-i1-0036", "svc-goroutine-i1-0036", "profefe-goroutine-1795481626"]
        .iter()
        .map(|name| {
            let body = std::fs::read(folder.join(format!("{name}.pb.gz"))).expect("the fixture is there");
            compress::inflate(&body, &Limits::default()).expect("the fixture inflates").into_owned()
        })
        .collect()
}

/// Decodes damaged bytes: refused, or accepted and consistent.
fn check_damaged(bytes: &[u8]) {
    if let Ok(profile) = decode::decode(bytes, &Limits::default()) {
        check_accepted(bytes, &profile);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_moved_about_make_a_refusal_or_a_consistent_profile(
        which in 0..4usize,
        edits in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..64usize, 0..3), 1..4),
    ) {
        let mut bytes = small_profiles().swap_remove(which);
        for (from, to, len, kind) in edits {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let piece = bytes[from..(from + len).min(bytes.len())].to_vec();
            match kind {
                0 => drop(bytes.splice(to..to, piece)),
                1 => drop(bytes.splice(to..(to + len).min(bytes.len()), [])),
                _ => {
                    let end = (to + piece.len()).min(bytes.len());
                    bytes[to..end].copy_from_slice(&piece[..end - to]);
                }
            }
            prop_assume!(!bytes.is_empty());
        }
        check_damaged(&bytes);
    }

    #[test]
    fn random_bytes_make_no_panic(bytes in vec(any::<u8>(), 0..200)) {
        check_damaged(&bytes);
        let _ = compress::inflate(&bytes, &Limits::default());
    }
}
