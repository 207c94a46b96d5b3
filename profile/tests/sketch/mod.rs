//! Random profiles that have much in common, as those of one service have: the same code and labels, but loaded elsewhere, under
//! other ids, in another order, and with different values.

use afterglow_profile::model::{
    Function, Line, Location, Mapping, NONE, Profile, SampleLabel, Samples, StringIndex, ValueType,
};
use proptest::{collection::vec, prelude::*, sample::select};

/// All words of all profiles; each profile has them in an order of its own, the empty one first.
const WORDS: [&str; 26] = [
    "",
    "samples",
    "count",
    "cpu",
    "nanoseconds",
    "ms",
    "seconds",
    "heap",
    "bytes",
    "/bin/server",
    "/lib/libc.so.6",
    "[vdso]",
    "build-1",
    "build-2",
    "main",
    "main.main",
    "main.work",
    "work.go",
    "malloc",
    "malloc.c",
    "thread",
    "a",
    "b",
    "note one",
    "note two",
    "https://docs.example",
];

/// The binaries: file, build id, size, offset. The last two are made up by a profiler, one is the same as the other.
const BINARIES: [(&str, &str, u64, u64); 5] = [
    ("/bin/server", "build-1", 0x5000, 0),
    ("/bin/server", "build-2", 0x5000, 0),
    ("/lib/libc.so.6", "", 0x3000, 0x1000),
    ("[vdso]", "", 0x1000, 0),
    ("", "", 0x2000, 0),
];

/// The functions: name, system name, file, start line.
const FUNCTIONS: [(&str, &str, &str, i64); 5] = [
    ("main", "main", "work.go", 1),
    ("main.main", "main.main", "work.go", 10),
    ("main.work", "main.work", "work.go", 20),
    ("main.work", "main.work", "work.go", 21),
    ("malloc", "", "malloc.c", 0),
];

/// The places in code: an index into the binaries, an address in there, lines (function, line, column), whether it is folded.
type Place = (Option<usize>, u64, &'static [(usize, i64, i64)], bool);
const PLACES: [Place; 10] = [
    (Some(0), 0x10, &[(0, 3, 0)], false),
    (Some(0), 0x20, &[(1, 12, 0), (0, 4, 7)], false),
    (Some(0), 0x20, &[(1, 12, 1), (0, 4, 7)], false),
    (Some(0), 0x20, &[(2, 22, 0)], true),
    (Some(0), 0x20, &[(2, 22, 0)], false),
    (Some(1), 0x10, &[(3, 25, 0)], false),
    (Some(2), 0xff0, &[(4, 0, 0)], false),
    (Some(3), 0, &[], false),
    (Some(4), 0x40, &[(2, 23, 0)], false),
    (None, 0x7700, &[], false),
];

/// The labels: key, string, number, unit. Those that say nothing are for leaving out.
const LABELS: [(&str, &str, i64, &str); 9] = [
    ("thread", "a", 0, ""),
    ("thread", "b", 0, ""),
    ("thread", "b", 7, "bytes"),
    ("bytes", "", 64, "bytes"),
    ("bytes", "", 64, ""),
    ("bytes", "", 0, "bytes"),
    ("bytes", "a", 0, ""),
    ("bytes", "", 0, ""),
    ("thread", "", -3, "count"),
];

/// How the profiles of a list may differ in what they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SampleTypes {
    /// All count the same.
    Same,
    /// Other orders, units that convert, and sample types that not all have; one all have.
    Different,
}

/// A profile before it has indices.
#[derive(Clone, Debug)]
struct Sketch {
    words: Vec<&'static str>,
    /// For each binary where it is loaded, in pages, and by how many bytes less than a page it is larger than it should be.
    loaded: Vec<(u64, u64)>,
    /// The order of the mappings, functions and locations.
    binaries: Vec<usize>,
    functions: Vec<usize>,
    places: Vec<usize>,
    sample_types: Vec<(&'static str, &'static str)>,
    samples: Vec<(Vec<usize>, Vec<usize>, Vec<i64>)>,
    header: (i64, i64, i64),
    comments: Vec<&'static str>,
    default_sample_type: &'static str,
    doc_url: &'static str,
}

/// Lists of profiles that merge.
pub(crate) fn profiles(sample_types: SampleTypes) -> impl Strategy<Value = Vec<Profile<'static>>> {
    vec(sketch(sample_types).prop_map(|sketch| sketch.profile()), 2..6)
}

fn sketch(sample_types: SampleTypes) -> impl Strategy<Value = Sketch> {
    let order = |len: usize| Just((0..len).collect::<Vec<_>>()).prop_shuffle();
    let words = Just(WORDS[1..].to_vec()).prop_shuffle();
    let tables = (
        words,
        vec((1..9u64, 0..3u64), BINARIES.len()),
        order(BINARIES.len()),
        order(FUNCTIONS.len()),
        order(PLACES.len()),
    );
    let times = (1..1000i64, 0..1000i64, 0..3i64);
    let texts = (
        vec(select(vec!["note one", "note two"]), 0..3),
        select(vec!["", "cpu", "samples"]),
        select(vec!["", WORDS[25]]),
    );
    (tables, sample_types_of(sample_types), times, texts).prop_flat_map(|(tables, sample_types, header, texts)| {
        // Small values, so that sums of several samples are often zero, but no single value is where units get scaled.
        let value = select(vec![-2, -1, 1, 2, 3]);
        let sample =
            (vec(0..PLACES.len(), 0..6), vec(0..LABELS.len(), 0..4), vec(value, sample_types.len()), any::<bool>());
        // All zero now and then.
        let sample = sample.prop_map(|(stack, labels, values, zero)| {
            let values = if zero && stack.len() == 5 { vec![0; values.len()] } else { values };
            (stack, labels, values)
        });
        vec(sample, 0..12).prop_map(move |samples| {
            let (words, loaded, binaries, functions, places) = tables.clone();
            let (comments, default_sample_type, doc_url) = texts.clone();
            let words = std::iter::once("").chain(words).collect();
            let sample_types = sample_types.clone();
            Sketch {
                words,
                loaded,
                binaries,
                functions,
                places,
                sample_types,
                samples,
                header,
                comments,
                default_sample_type,
                doc_url,
            }
        })
    })
}

fn sample_types_of(sample_types: SampleTypes) -> BoxedStrategy<Vec<(&'static str, &'static str)>> {
    let plain = vec![("samples", "count"), ("cpu", "nanoseconds")];
    match sample_types {
        SampleTypes::Same => Just(plain).boxed(),
        SampleTypes::Different => {
            let of_unit = |unit| vec![("samples", "count"), ("cpu", unit)];
            select(vec![
                plain,
                of_unit("ms"),
                of_unit("seconds"),
                vec![("cpu", "nanoseconds"), ("samples", "count")],
                vec![("heap", "bytes"), ("cpu", "ms"), ("samples", "count")],
                vec![("cpu", "seconds")],
            ])
            .boxed()
        }
    }
}

// === impl Sketch ===

impl Sketch {
    fn profile(&self) -> Profile<'static> {
        let word = |word: &str| self.words.iter().position(|w| *w == word).expect("all words are there") as StringIndex;
        let value_type = |&(kind, unit): &(&str, &str)| ValueType { kind: word(kind), unit: word(unit), shape: 0 };
        let place_of =
            |order: &[usize], index: usize| order.iter().position(|&i| i == index).expect("a permutation") as u32;
        let mappings = self.binaries.iter().enumerate().map(|(i, &binary)| {
            let (file, build_id, size, offset) = BINARIES[binary];
            let (page, excess) = self.loaded[binary];
            let start = (binary as u64 + 1) << 32 | page << 12;
            Mapping {
                id: 100 - i as u64,
                start,
                limit: start + size - excess,
                offset,
                file: word(file),
                build_id: word(build_id),
                has: [true; 4],
                shape: 0,
            }
        });
        let mappings: Vec<_> = mappings.collect();
        let functions = self.functions.iter().enumerate().map(|(i, &function)| {
            let (name, system_name, file, start_line) = FUNCTIONS[function];
            let [name, system_name, file] = [name, system_name, file].map(word);
            Function { id: i as u64 * 3 + 1, name, system_name, file, start_line, shape: 0 }
        });
        let functions = functions.collect();
        let mut lines = Vec::new();
        let mut locations = Vec::new();
        for (i, &place) in self.places.iter().enumerate() {
            let (binary, address, own, is_folded) = PLACES[place];
            let mapping = binary.map_or(NONE, |binary| place_of(&self.binaries, binary));
            let start = mappings.get(mapping as usize).map_or(0, |mapping| mapping.start);
            let lines_start = lines.len() as u32;
            lines.extend(own.iter().map(|&(function, line, column)| {
                let function = place_of(&self.functions, function);
                Line { function, line, column, shape: 0 }
            }));
            let lines_end = lines.len() as u32;
            let id = 7 + i as u64;
            locations.push(Location {
                id,
                mapping,
                address: start + address,
                lines_start,
                lines_end,
                is_folded,
                shape: 0,
            });
        }
        let mut samples = Samples::default();
        for (stack, labels, values) in &self.samples {
            samples.locations.extend(stack.iter().map(|&place| place_of(&self.places, place)));
            samples.location_ends.push(samples.locations.len() as u32);
            samples.labels.extend(labels.iter().map(|&label| {
                let (key, str, num, unit) = LABELS[label];
                SampleLabel { key: word(key), str: word(str), num, num_unit: word(unit), shape: 0 }
            }));
            samples.label_ends.push(samples.labels.len() as u32);
            samples.values.extend(values);
            samples.shapes.push(0);
        }
        let (time_nanos, duration_nanos, period) = self.header;
        Profile {
            sample_types: self.sample_types.iter().map(value_type).collect(),
            samples,
            mappings,
            locations,
            lines,
            functions,
            strings: self.words.iter().map(|word| word.as_bytes()).collect(),
            time_nanos,
            duration_nanos,
            period_type: Some(value_type(&("cpu", "nanoseconds"))),
            period,
            comments: self.comments.iter().map(|comment| word(comment)).collect(),
            default_sample_type: word(self.default_sample_type),
            doc_url: word(self.doc_url),
            ..Profile::default()
        }
    }
}
