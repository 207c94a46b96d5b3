//! The pprof profile in memory: a struct of arrays that borrows its strings from the bytes it was decoded from.
//!
//! It follows `perftools.profiles.Profile` (google/pprof: proto/profile.proto) field for field, with two differences. References
//! are indices into the tables here, not ids, so nothing needs a lookup after decoding; the ids stay on the entities. And beside
//! the meaning it keeps the [`Layout`]: what the sender's encoder chose freely (order of records, order and presence of fields), so
//! that the very same bytes can be written again.
//!
//! Invariants, kept by `decode` and `merge` and relied upon everywhere: every index is in range or [`NONE`] where that is allowed;
//! `strings[0]` is empty; every sample has one value for each sample type; ids are unique and not zero.

/// The index that refers to nothing: a location without a mapping, a line without a function.
pub const NONE: u32 = u32::MAX;

/// An index into [`Profile::strings`].
pub type StringIndex = u32;

/// An index into [`Layout::shapes`]: which fields a message carried, and in which order.
pub type ShapeIndex = u16;

/// What a value of a sample counts, and in which unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ValueType {
    /// The name, such as `cpu`.
    pub kind: StringIndex,
    /// The unit, such as `nanoseconds`.
    pub unit: StringIndex,
    /// The fields it carried.
    pub shape: ShapeIndex,
}

/// A key with a string or a number that qualifies one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SampleLabel {
    /// The key.
    pub key: StringIndex,
    /// The string value; 0 where the label is a number.
    pub str: StringIndex,
    /// The numeric value.
    pub num: i64,
    /// The unit of the number; 0 for the default.
    pub num_unit: StringIndex,
    /// The fields it carried.
    pub shape: ShapeIndex,
}

/// A file that was mapped into the process: the binary or a shared library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// Unique and not zero.
    pub id: u64,
    /// The first address.
    pub start: u64,
    /// The address after the last.
    pub limit: u64,
    /// The offset in the file that `start` corresponds to.
    pub offset: u64,
    /// The path of the file.
    pub file: StringIndex,
    /// What identifies the build, such as GNU's build id.
    pub build_id: StringIndex,
    /// The symbols have function names, file names, line numbers, inlined frames.
    pub has: [bool; 4],
    /// The fields it carried.
    pub shape: ShapeIndex,
}

/// An instruction address and the source lines it stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// Unique and not zero.
    pub id: u64,
    /// An index into [`Profile::mappings`], or [`NONE`].
    pub mapping: u32,
    /// The address, not relative to the mapping.
    pub address: u64,
    /// The first of its lines in [`Profile::lines`]: the innermost inlined frame comes first.
    pub lines_start: u32,
    /// One past its last line.
    pub lines_end: u32,
    /// Several symbols share this address after identical code folding.
    pub is_folded: bool,
    /// The fields it carried.
    pub shape: ShapeIndex,
}

/// A line of source at a location.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Line {
    /// An index into [`Profile::functions`], or [`NONE`].
    pub function: u32,
    /// The line number.
    pub line: i64,
    /// The column number.
    pub column: i64,
    /// The fields it carried.
    pub shape: ShapeIndex,
}

/// A function of the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Function {
    /// Unique and not zero.
    pub id: u64,
    /// The name as a person reads it.
    pub name: StringIndex,
    /// The name as the system has it, such as a mangled one.
    pub system_name: StringIndex,
    /// The source file.
    pub file: StringIndex,
    /// The line where it starts.
    pub start_line: i64,
    /// The fields it carried.
    pub shape: ShapeIndex,
}

/// All samples, column by column.
///
/// Sample `i` has the stack `locations[location_ends[i - 1]..location_ends[i]]` (leaf first), the values
/// `values[i * n..(i + 1) * n]` for `n` sample types, and the labels `labels[label_ends[i - 1]..label_ends[i]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// Where each sample's stack ends in `locations`.
    pub location_ends: Vec<u32>,
    /// Indices into [`Profile::locations`].
    pub locations: Vec<u32>,
    /// The values, row by row.
    pub values: Vec<i64>,
    /// Where each sample's labels end in `labels`.
    pub label_ends: Vec<u32>,
    /// The labels.
    pub labels: Vec<SampleLabel>,
    /// The fields each sample carried. Runs of a repeated field stand once; packed and unpacked runs are different fields.
    pub shapes: Vec<ShapeIndex>,
}

/// A pprof profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile<'a> {
    /// What the values count.
    pub sample_types: Vec<ValueType>,
    /// The samples.
    pub samples: Samples,
    /// The mappings; the first is the main binary.
    pub mappings: Vec<Mapping>,
    /// The locations.
    pub locations: Vec<Location>,
    /// The lines of all locations.
    pub lines: Vec<Line>,
    /// The functions.
    pub functions: Vec<Function>,
    /// The string table; not always UTF-8. The first is empty.
    pub strings: Vec<&'a [u8]>,
    /// A regular expression: frames whose name matches are dropped with all they called.
    pub drop_frames: StringIndex,
    /// A regular expression: frames that match it are kept though `drop_frames` matches.
    pub keep_frames: StringIndex,
    /// When it was taken, in nanoseconds since 1970; 0 where unknown.
    pub time_nanos: i64,
    /// How long it was recorded, in nanoseconds.
    pub duration_nanos: i64,
    /// What happens between two samples, if said.
    pub period_type: Option<ValueType>,
    /// How many of `period_type` lie between two samples.
    pub period: i64,
    /// Free texts.
    pub comments: Vec<StringIndex>,
    /// The name of the sample type to show first; 0 where not said.
    pub default_sample_type: StringIndex,
    /// A link to documentation.
    pub doc_url: StringIndex,
    /// How the sender's encoder wrote it.
    pub layout: Layout,
}

/// What an encoder chooses freely: enough to write the same bytes again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// False when the bytes hold something that shapes cannot say (an unknown field, a varint longer than need be, a repeated run in
    /// pieces, a scalar twice): then only the bytes themselves are exact.
    pub exact: bool,
    /// The distinct shapes of all messages: the field keys (`number << 3 | wire type`), in order.
    pub shapes: Vec<Box<[u8]>>,
    /// The top-level field keys in file order, run by run: key and how many of them follow each other.
    pub records: Vec<(u8, u32)>,
}

// === impl Samples ===

impl Samples {
    /// Returns how many samples there are.
    pub fn len(&self) -> usize {
        self.location_ends.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.location_ends.is_empty()
    }

    /// Returns the stack of sample `i`, leaf first, as indices into [`Profile::locations`].
    pub fn stack(&self, i: usize) -> &[u32] {
        &self.locations[run(&self.location_ends, i)]
    }

    /// Returns the labels of sample `i`.
    pub fn labels(&self, i: usize) -> &[SampleLabel] {
        &self.labels[run(&self.label_ends, i)]
    }
}

/// Returns the range of run `i` where `ends` holds the end of each.
fn run(ends: &[u32], i: usize) -> std::ops::Range<usize> {
    let start = if i == 0 { 0 } else { ends[i - 1] as usize };
    start..ends[i] as usize
}

// === impl Location ===

impl Location {
    /// Returns where its lines lie in [`Profile::lines`].
    pub fn lines(&self) -> std::ops::Range<usize> {
        self.lines_start as usize..self.lines_end as usize
    }
}

// === impl Profile ===

impl<'a> Profile<'a> {
    /// Returns how many bytes of memory its tables take; the strings are the lender's.
    pub fn heap_bytes(&self) -> usize {
        fn bytes<T>(table: &Vec<T>) -> usize {
            table.capacity() * size_of::<T>()
        }
        let Samples { location_ends, locations, values, label_ends, labels, shapes } = &self.samples;
        let Layout { exact: _, shapes: layout_shapes, records } = &self.layout;
        bytes(&self.sample_types)
            + [location_ends, locations, label_ends].into_iter().map(bytes).sum::<usize>()
            + bytes(values)
            + bytes(labels)
            + bytes(shapes)
            + bytes(&self.mappings)
            + bytes(&self.locations)
            + bytes(&self.lines)
            + bytes(&self.functions)
            + bytes(&self.strings)
            + bytes(&self.comments)
            + bytes(layout_shapes)
            + layout_shapes.iter().map(|shape| shape.len()).sum::<usize>()
            + bytes(records)
    }

    /// Returns the string at `index`.
    pub fn string(&self, index: StringIndex) -> &'a [u8] {
        self.strings[index as usize]
    }

    /// Returns the index of the sample type called `name`, as `go tool pprof -sample_index` finds it.
    ///
    /// Without a name it is the profile's default, else its last. `inuse_space` also finds `space`, as old heap profiles call it.
    pub fn sample_type_named(&self, name: Option<&str>) -> Option<usize> {
        let find = |name: &[u8]| self.sample_types.iter().position(|value_type| self.string(value_type.kind) == name);
        match name {
            None if self.default_sample_type == 0 => self.sample_types.len().checked_sub(1),
            None => find(self.string(self.default_sample_type)).or(self.sample_types.len().checked_sub(1)),
            Some(name) => {
                let short = name.strip_prefix("inuse_").unwrap_or(name);
                let is_named =
                    |value_type: &ValueType| [name, short].iter().any(|n| self.string(value_type.kind) == n.as_bytes());
                self.sample_types.iter().position(is_named)
            }
        }
    }

    /// Returns the values of sample `i`, one for each sample type.
    pub fn values(&self, i: usize) -> &[i64] {
        let n = self.sample_types.len();
        &self.samples.values[i * n..(i + 1) * n]
    }

    /// Returns the lines of `location`, innermost first.
    pub fn lines_of(&self, location: u32) -> &[Line] {
        &self.lines[self.locations[location as usize].lines()]
    }

    /// Returns the sum of each sample type's values, saturating, and whether any did not fit.
    pub fn totals(&self) -> (Vec<i64>, bool) {
        let n = self.sample_types.len();
        let mut sums = vec![0i128; n];
        for row in self.samples.values.chunks_exact(n.max(1)) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i128::from(*value);
            }
        }
        let clamp = |s: i128| s.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        let saturated = sums.iter().any(|&s| i128::from(clamp(s)) != s);
        (sums.into_iter().map(clamp).collect(), saturated)
    }
}
