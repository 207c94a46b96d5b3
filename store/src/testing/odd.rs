//! Profiles no sane encoder writes, but some encoder could: made from bytes, for property tests and fuzzing.
//!
//! An [`Encoder`] goes through a profile and asks its choices wherever an encoder is free: ids and their order, what is left out and
//! what is written as 0, packed or not, the order of records, entries that occur twice. Columns can say all of that. A wild one also does
//! what they cannot say: numbers longer than they need to be, runs of packed numbers in pieces, fields nobody knows, scalars given twice.
//! Every profile decodes, whatever the choices.
//!
//! Source of what protobuf leaves open: <https://protobuf.dev/programming-guides/encoding/>.

/// Returns the protobuf of a profile that columns can say. Where `choices` end, all further ones are 0.
pub fn profile(choices: &[u8]) -> Vec<u8> {
    Encoder { choices: choices.iter(), is_wild: false }.profile()
}

/// Returns the protobuf of a profile that columns mostly cannot say. Where `choices` end, all further ones are 0.
pub fn wild_profile(choices: &[u8]) -> Vec<u8> {
    Encoder { choices: choices.iter(), is_wild: true }.profile()
}

struct Encoder<'a> {
    choices: std::slice::Iter<'a, u8>,
    is_wild: bool,
}

/// The numbers of the entities of a profile.
struct Ids {
    mappings: Vec<u64>,
    functions: Vec<u64>,
    locations: Vec<u64>,
}

const WORDS: [&[u8]; 8] = [b"", b"cpu", b"main", b"main", b"\xff\xfe", b"a\nb", b"", b"/bin/x"];

/// The longest varint.
const VARINT_BYTES_MAX: usize = 10;

/// A field that no message of a profile has, not counting the profile itself.
const UNKNOWN_FIELD: u8 = 15;

/// The key of a field that the profile itself does not have: number 16, a varint.
const UNKNOWN_KEY: [u8; 2] = [0x80, 0x01];

// === impl Encoder ===

impl Encoder<'_> {
    /// Chooses one of `n`.
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.choices.next().copied().unwrap_or(0)) % n.max(1)
    }

    fn is(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Whether to do what columns cannot say.
    fn strays(&mut self) -> bool {
        self.is_wild && self.below(16) == 15
    }

    fn number(&mut self) -> u64 {
        [0, 1, 5, 127, 128, 300, 1 << 40, i64::MAX as u64, u64::MAX][self.below(9)]
    }

    /// Appends a varint.
    fn put(&mut self, out: &mut Vec<u8>, mut value: u64) {
        let start = out.len();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        if out.len() - start < VARINT_BYTES_MAX && self.strays() {
            *out.last_mut().expect("a byte was just put") |= 0x80;
            out.push(0);
        }
    }

    /// Appends a field that is a number.
    fn number_field(&mut self, out: &mut Vec<u8>, field: u8, value: u64) {
        out.push(field << 3);
        self.put(out, value);
    }

    /// Appends a field that has a length.
    fn bytes_field(&mut self, out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
        out.push(field << 3 | 2);
        self.put(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }

    /// Appends numbers of one field, packed or each by itself.
    fn numbers_field(&mut self, out: &mut Vec<u8>, field: u8, numbers: &[u64]) {
        if self.is() {
            numbers.iter().for_each(|&number| self.number_field(out, field, number));
        } else if self.strays() {
            let (before, after) = numbers.split_at(numbers.len() / 2);
            self.packed_field(out, field, before);
            self.packed_field(out, field, after);
        } else if !numbers.is_empty() || self.is() {
            self.packed_field(out, field, numbers);
        }
    }

    fn packed_field(&mut self, out: &mut Vec<u8>, field: u8, numbers: &[u64]) {
        let mut packed = Vec::new();
        numbers.iter().for_each(|&number| self.put(&mut packed, number));
        self.bytes_field(out, field, &packed);
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
                self.number_field(&mut part, field, value);
                if self.strays() {
                    self.number_field(&mut part, field, value);
                }
                parts.push(part);
            }
        }
        if self.strays() {
            let (mut part, value) = (Vec::new(), self.number());
            self.number_field(&mut part, UNKNOWN_FIELD, value);
            parts.push(part);
        }
        parts
    }

    /// Returns a field of the profile that is a message of these parts, in some order.
    fn record(&mut self, field: u8, parts: Vec<Vec<u8>>) -> Vec<u8> {
        let (mut out, body) = (Vec::new(), self.shuffled(parts));
        self.bytes_field(&mut out, field, &body);
        out
    }

    /// Returns ids for `n` entities.
    fn ids(&mut self, n: usize) -> Vec<u64> {
        let base = [0, 0, 0, 7, 1 << 50][self.below(5)];
        let mut ids: Vec<u64> = (1..=n as u64).map(|i| base + i).collect();
        if self.is() {
            ids.reverse();
        }
        ids
    }

    /// Returns one of `ids`, or 0 for none.
    fn one_of(&mut self, ids: &[u64]) -> u64 {
        let i = self.below(ids.len() + 1);
        ids.get(i).copied().unwrap_or(0)
    }

    fn profile(&mut self) -> Vec<u8> {
        let strings = 1 + self.below(WORDS.len());
        let (mappings, functions, locations) = (self.below(3), self.below(5), self.below(6));
        let ids = Ids { mappings: self.ids(mappings), functions: self.ids(functions), locations: self.ids(locations) };
        let types = 1 + self.below(3);
        let mut records = Vec::new();
        for _ in 0..types {
            let parts = self.value_type(strings);
            records.push(self.record(1, parts));
        }
        for _ in 0..self.below(7) {
            let parts = self.sample(strings, types, &ids.locations);
            records.push(self.record(2, parts));
        }
        self.entities(&mut records, strings, &ids);
        let mut text = || self.below(strings) as u64;
        let (drop_frames, keep_frames, default_sample_type, doc_url) = (text(), text(), text(), text());
        let scalars = [
            (7, drop_frames),
            (8, keep_frames),
            (9, self.number()),
            (10, self.number()),
            (12, self.number()),
            (14, default_sample_type),
            (15, doc_url),
        ];
        // The field that a message does not have is one that the profile has.
        let is_wild = std::mem::take(&mut self.is_wild);
        records.extend(self.fields(&scalars));
        self.is_wild = is_wild;
        if self.is() {
            let parts = self.value_type(strings);
            records.push(self.record(11, parts));
        }
        let comments: Vec<u64> = (0..self.below(3)).map(|_| self.below(strings) as u64).collect();
        let mut out = Vec::new();
        self.numbers_field(&mut out, 13, &comments);
        records.push(out);
        if self.strays() {
            let mut unknown = UNKNOWN_KEY.to_vec();
            let value = self.number();
            self.put(&mut unknown, value);
            records.push(unknown);
        }
        // The string table keeps its order, or its indices would mean others.
        let mut table = Vec::new();
        WORDS[..strings].iter().for_each(|word| self.bytes_field(&mut table, 6, word));
        records.push(table);
        self.shuffled(records)
    }

    fn value_type(&mut self, strings: usize) -> Vec<Vec<u8>> {
        let fields = [(1, self.below(strings) as u64), (2, self.below(strings) as u64)];
        self.fields(&fields)
    }

    fn sample(&mut self, strings: usize, types: usize, locations: &[u64]) -> Vec<Vec<u8>> {
        let depth = if locations.is_empty() { 0 } else { self.below(4) };
        let stack: Vec<u64> = (0..depth).map(|_| locations[self.below(locations.len())]).collect();
        let values: Vec<u64> = (0..types).map(|_| self.number()).collect();
        let mut parts = self.fields(&[]);
        for (field, numbers) in [(1, &stack), (2, &values)] {
            let mut part = Vec::new();
            self.numbers_field(&mut part, field, numbers);
            parts.push(part);
        }
        let mut labels = Vec::new();
        for _ in 0..self.below(3) {
            let fields = [
                (1, self.below(strings) as u64),
                (2, self.below(strings) as u64),
                (3, self.number()),
                (4, self.below(strings) as u64),
            ];
            let label = self.fields(&fields);
            let label = self.shuffled(label);
            self.bytes_field(&mut labels, 3, &label);
        }
        parts.push(labels);
        parts
    }

    /// Appends mappings, locations and functions.
    fn entities(&mut self, records: &mut Vec<Vec<u8>>, strings: usize, ids: &Ids) {
        for &id in &ids.mappings {
            let fields = [
                (1, id),
                (2, self.number()),
                (3, self.number()),
                (4, self.number()),
                (5, self.below(strings) as u64),
                (6, self.below(strings) as u64),
                (7, self.below(2) as u64),
                (9, self.below(2) as u64),
            ];
            let parts = self.fields(&fields);
            records.push(self.record(3, parts));
        }
        for &id in &ids.locations {
            let fields = [(1, id), (2, self.one_of(&ids.mappings)), (3, self.number()), (5, self.below(2) as u64)];
            let mut parts = self.fields(&fields);
            let mut lines = Vec::new();
            for _ in 0..self.below(3) {
                let fields = [(1, self.one_of(&ids.functions)), (2, self.number()), (3, self.number())];
                let line = self.fields(&fields);
                let line = self.shuffled(line);
                self.bytes_field(&mut lines, 4, &line);
            }
            parts.push(lines);
            records.push(self.record(4, parts));
        }
        for &id in &ids.functions {
            let mut text = || self.below(strings) as u64;
            let (name, system_name, file) = (text(), text(), text());
            let fields = [(1, id), (2, name), (3, system_name), (4, file), (5, self.number())];
            let parts = self.fields(&fields);
            records.push(self.record(5, parts));
        }
    }
}
