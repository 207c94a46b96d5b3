//! Chunks: the columns of up to [`PROFILES_MAX`] profiles of a dataset, compressed together.
//!
//! A chunk has a frame for the stacks, one for the labels, one for each value type, and one for everything that only an exact copy
//! needs. So a merge of one value type reads two frames, three where samples have labels, and a fetch reads all.
//!
//! Rows are sorted by series, so most chunks hold one series. Small series share a chunk: in a flush of a second a series has one or two
//! profiles, and a frame for each would cost more than it holds.

use smallvec::SmallVec;

use super::columns::{Columns, Head, Meta, Multiple, Samples};
use super::frame::{Frame, Packer};
use super::symbols::Symbols;
use super::toc::{Chunk, Values};
use super::varint::{self, Cursor, Damage, Delta};

/// The most profiles in a chunk: enough for zstd to see what repeats, few enough that a fetch of one is cheap.
pub(crate) const PROFILES_MAX: usize = 64;

/// The most bytes a chunk holds before compression, unless one profile alone has more.
pub(crate) const BYTES_MAX: usize = 4096 << 10;

/// From this size on a chunk ends where its series ends.
pub(crate) const BYTES_SHARED_MAX: usize = 32 << 10;

/// A profile as it waits to be gathered.
#[derive(Debug)]
pub(crate) enum Stored {
    /// As it was sent, compressed.
    Blob { packed: Vec<u8>, frame: Frame },
    /// As columns.
    Columns {
        head: Head,
        /// The stacks, labels, meta, and the values of each type, one after the other.
        bytes: Box<[u8]>,
        ends: SmallVec<[u32; 8]>,
        multiples: SmallVec<[Option<Multiple>; 4]>,
    },
}

/// The parts of [`Stored::Columns`] before the values.
const STACKS: usize = 0;
const LABELS: usize = 1;
const META: usize = 2;
const VALUES: usize = 3;

impl Stored {
    /// Keeps `raw` as it was sent.
    pub(crate) fn blob(packer: &mut Packer, raw: &[u8]) -> Self {
        let mut packed = Vec::new();
        let frame = packer.pack(&mut packed, raw);
        Self::Blob { packed, frame }
    }

    /// Keeps columns.
    pub(crate) fn columns(columns: &Columns) -> Self {
        let parts = || [&columns.stacks, &columns.labels, &columns.meta].into_iter().chain(&columns.values);
        let mut bytes = Vec::with_capacity(parts().map(Vec::len).sum());
        let mut ends = SmallVec::new();
        for part in parts() {
            bytes.extend_from_slice(part);
            ends.push(bytes.len() as u32);
        }
        Self::Columns {
            head: columns.head,
            bytes: bytes.into(),
            ends,
            multiples: columns.multiples.iter().copied().collect(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Blob { packed, .. } => packed.len(),
            Self::Columns { bytes, .. } => bytes.len(),
        }
    }

    /// Returns how many value types it has; `None` for a blob.
    fn types(&self) -> Option<usize> {
        match self {
            Self::Blob { .. } => None,
            Self::Columns { multiples, .. } => Some(multiples.len()),
        }
    }

    fn part(&self, part: usize) -> &[u8] {
        match self {
            Self::Blob { .. } => &[],
            Self::Columns { bytes, ends, .. } => {
                let start = if part == 0 { 0 } else { ends[part - 1] as usize };
                &bytes[start..ends[part] as usize]
            }
        }
    }
}

/// Decides which profiles share a chunk. `profiles` are those of a dataset in the order of its rows, each with its series; the result
/// holds for each chunk the indices of its profiles.
pub(crate) fn plan<'a>(profiles: impl Iterator<Item = (u32, &'a Stored)>) -> Vec<Vec<usize>> {
    let mut chunks: Vec<Vec<usize>> = Vec::new();
    // The chunk that takes more, its last series, its size and its number of value types.
    let mut open: Option<(usize, u32, usize, usize)> = None;
    for (i, (series, stored)) in profiles.enumerate() {
        let Some(types) = stored.types() else {
            chunks.push(vec![i]);
            continue;
        };
        let fits = |&(chunk, last, bytes, of): &(usize, u32, usize, usize)| {
            of == types
                && chunks[chunk].len() < PROFILES_MAX
                && bytes + stored.len() <= BYTES_MAX
                && (last == series || bytes < BYTES_SHARED_MAX)
        };
        let (chunk, bytes) = match open.filter(fits) {
            Some((chunk, _, bytes, _)) => (chunk, bytes),
            None => {
                chunks.push(Vec::new());
                (chunks.len() - 1, 0)
            }
        };
        chunks[chunk].push(i);
        open = Some((chunk, series, bytes + stored.len(), types));
    }
    chunks
}

/// Appends a chunk of `profiles` to `out`; `numbers` are those of the label sets of their service.
pub(crate) fn write(profiles: &[&Stored], numbers: &[i64], packer: &mut Packer, out: &mut Vec<u8>) -> Chunk {
    if let [Stored::Blob { packed, frame }] = profiles {
        let offset = out.len() as u64;
        out.extend_from_slice(packed);
        return Chunk::Blob(Frame { offset, ..*frame });
    }
    let head = |stored: &Stored| match stored {
        Stored::Blob { .. } => Head::default(),
        Stored::Columns { head, .. } => *head,
    };
    let mut buffer = Vec::new();
    profiles.iter().for_each(|stored| head(stored).put(&mut buffer));
    profiles.iter().for_each(|stored| buffer.extend_from_slice(stored.part(STACKS)));
    let stacks = packer.pack(out, &buffer);

    buffer.clear();
    if profiles.iter().any(|stored| !stored.part(LABELS).is_empty()) {
        for stored in profiles {
            match stored.part(LABELS) {
                // A profile without labels has the empty set at each sample.
                [] => buffer.resize(buffer.len() + head(stored).samples, 0),
                labels => buffer.extend_from_slice(labels),
            }
        }
    }
    let labels = packer.pack(out, &buffer);

    let types = profiles[0].types().unwrap_or_default();
    let values = (0..types)
        .map(|t| {
            if let Some(multiple) = shared_multiple(profiles, t) {
                return Values::Multiple(multiple);
            }
            if let Some(rest) = rest_of_product(profiles, t, numbers) {
                return Values::Product { of: t as u32 - 1, rest: packer.pack(out, &rest) };
            }
            buffer.clear();
            profiles.iter().for_each(|stored| buffer.extend_from_slice(stored.part(VALUES + t)));
            Values::Frame(packer.pack(out, &buffer))
        })
        .collect();

    buffer.clear();
    profiles.iter().for_each(|stored| varint::put_bytes(&mut buffer, stored.part(META)));
    let meta = packer.pack(out, &buffer);
    Chunk::Columns { profiles: profiles.len() as u32, stacks, labels, values, meta }
}

/// Returns how value type `t` is a multiple of another in the same way in all profiles.
fn shared_multiple(profiles: &[&Stored], t: usize) -> Option<Multiple> {
    let of = |stored: &Stored| match stored {
        Stored::Columns { multiples, .. } => multiples[t],
        Stored::Blob { .. } => None,
    };
    let first = of(profiles[0])?;
    profiles.iter().all(|stored| of(stored) == Some(first)).then_some(first)
}

/// Returns what is left of the values of type `t` when each is said as the product of the value before it and the number of the sample's
/// label; nothing where that is not shorter.
///
/// A heap profile of Go counts objects and bytes of one size, and has the size as a label. As it scales what it sampled, the bytes
/// are not quite objects times size, but nearly.
fn rest_of_product(profiles: &[&Stored], t: usize, numbers: &[i64]) -> Option<Vec<u8>> {
    if t == 0 || numbers.iter().all(|&number| number == 0) {
        return None;
    }
    let (mut out, mut plain) = (Vec::new(), 0);
    for stored in profiles {
        let Stored::Columns { head, .. } = stored else { return None };
        let mut labels = Cursor::new(stored.part(LABELS));
        let [mut before, mut values] = [t - 1, t].map(|t| Cursor::new(stored.part(VALUES + t)));
        for _ in 0..head.samples {
            let set = if labels.left() == 0 { 0 } else { labels.index(numbers.len()).ok()? };
            let product = (before.varint().ok()? as i64).wrapping_mul(numbers[set as usize]);
            varint::put_signed(&mut out, (values.varint().ok()? as i64).wrapping_sub(product));
        }
        plain += stored.part(VALUES + t).len();
        // One profile tells of the others; it would be a waste to go through all of them in vain.
        if out.len() > plain - plain / 16 {
            return None;
        }
    }
    Some(out)
}

/// Returns the number of each label set: that of its first label, or 0.
pub(crate) fn numbers(symbols: &Symbols) -> Vec<i64> {
    let number = |set| symbols.labels_of(set).first().map_or(0, |label| label.num);
    (0..symbols.label_ends.len() as u32).map(number).collect()
}

/// How the values of a type are said in an unpacked chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// As they are.
    Plain,
    /// Not at all: they follow from an earlier type.
    Multiple(Multiple),
    /// As what is added to the product of an earlier type's value and the number of the sample's label set.
    Product { of: u32 },
}

/// The unpacked frames of a chunk of columns.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) profiles: usize,
    pub(crate) stacks: Vec<u8>,
    pub(crate) labels: Vec<u8>,
    /// For each value type, the bytes and how to read them.
    pub(crate) values: Vec<(Vec<u8>, Form)>,
    /// Empty where only the samples were asked for.
    pub(crate) meta: Vec<u8>,
}

/// Reads the profiles of a chunk from the first to the last.
#[derive(Debug)]
pub(crate) struct Profiles<'a> {
    chunk: &'a Unpacked,
    numbers: &'a [i64],
    heads: Vec<Head>,
    /// The position of the profile that comes next.
    next: usize,
    stacks: Cursor<'a>,
    labels: Cursor<'a>,
    values: Vec<Cursor<'a>>,
}

impl<'a> Profiles<'a> {
    /// Starts at the first profile of a chunk; `numbers` are those of the label sets of the service.
    pub(crate) fn new(chunk: &'a Unpacked, numbers: &'a [i64]) -> Result<Self, Damage> {
        let mut stacks = Cursor::new(&chunk.stacks);
        if chunk.profiles > stacks.left() {
            return Err(Damage("has fewer profiles than it should"));
        }
        Ok(Self {
            chunk,
            numbers,
            heads: (0..chunk.profiles).map(|_| Head::read(&mut stacks)).collect::<Result<_, _>>()?,
            next: 0,
            stacks,
            labels: Cursor::new(&chunk.labels),
            values: chunk.values.iter().map(|(values, _)| Cursor::new(values)).collect(),
        })
    }

    /// Reads the profile at `position`, which must not lie before those already read.
    pub(crate) fn read(&mut self, position: usize, into: &mut Samples) -> Result<Head, Damage> {
        let skipped = self.heads.get(self.next..position).ok_or(Damage("has fewer profiles than its rows say"))?;
        for before in skipped {
            self.stacks.skip(before.samples)?;
            if !self.chunk.labels.is_empty() {
                self.labels.skip(before.samples)?;
            }
            for (cursor, (_, form)) in self.values.iter_mut().zip(&self.chunk.values) {
                if !matches!(form, Form::Multiple(_)) {
                    cursor.skip(before.samples)?;
                }
            }
        }
        let head = *self.heads.get(position).ok_or(Damage("has fewer profiles than its rows say"))?;
        self.next = position + 1;
        // Each sample takes a byte at least, so that no count makes room for what is not there.
        if head.samples > self.stacks.left() {
            return Err(Damage("ends too early"));
        }
        read_samples(head.samples, &mut self.stacks, &mut self.labels, self.chunk.labels.is_empty(), into)?;
        into.values.resize_with(self.values.len(), Vec::new);
        for (t, (_, form)) in self.chunk.values.iter().enumerate() {
            read_values(head.samples, &mut self.values[t], *form, t, self.numbers, into)?;
        }
        Ok(head)
    }

    /// Reads the [`Meta`] of the profile at `position`, of which `head` was read.
    pub(crate) fn meta(&self, position: usize, head: &Head) -> Result<Meta, Damage> {
        let mut metas = Cursor::new(&self.chunk.meta);
        for _ in 0..position {
            metas.bytes()?;
        }
        let mut from = Cursor::new(metas.bytes()?);
        let meta = Meta::read(&mut from, head.samples)?;
        from.finish().map(|()| meta)
    }
}

/// Reads the stacks and labels of `count` samples.
pub(crate) fn read_samples(
    count: usize,
    stacks: &mut Cursor<'_>,
    labels: &mut Cursor<'_>,
    no_labels: bool,
    into: &mut Samples,
) -> Result<(), Damage> {
    let mut delta = Delta::default();
    into.stacks.clear();
    for _ in 0..count {
        into.stacks.push(delta.read_index(stacks, u32::MAX as usize)?);
    }
    into.labels.clear();
    if !no_labels {
        for _ in 0..count {
            into.labels.push(labels.u32()?);
        }
    }
    Ok(())
}

/// Reads the values of `count` samples of type `t` into their column; the labels and the columns before are read already.
pub(crate) fn read_values(
    count: usize,
    from: &mut Cursor<'_>,
    form: Form,
    t: usize,
    numbers: &[i64],
    into: &mut Samples,
) -> Result<(), Damage> {
    let (before, rest) = into.values.split_at_mut(t);
    let column = &mut rest[0];
    column.clear();
    match form {
        Form::Plain => {
            for _ in 0..count {
                column.push(from.varint()? as i64);
            }
        }
        Form::Multiple(Multiple { of, factor }) => {
            column.extend(before[of as usize].iter().map(|value| value.wrapping_mul(factor)));
        }
        Form::Product { of } => {
            let sets = into.labels.iter().copied().chain(std::iter::repeat(0));
            for (value, set) in before[of as usize].iter().zip(sets) {
                let number = numbers.get(set as usize).ok_or(Damage("an index points past its table"))?;
                column.push(from.signed()?.wrapping_add(value.wrapping_mul(*number)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(bytes: usize, types: usize) -> Stored {
        Stored::Columns {
            head: Head::default(),
            bytes: vec![0; bytes].into(),
            ends: SmallVec::new(),
            multiples: SmallVec::from_elem(None, types),
        }
    }

    fn planned(profiles: &[(u32, Stored)]) -> Vec<Vec<usize>> {
        plan(profiles.iter().map(|(series, stored)| (*series, stored)))
    }

    #[test]
    fn small_series_share_a_chunk() {
        let profiles: Vec<_> = (0..10).map(|series| (series, profile(1000, 2))).collect();
        assert_eq!(planned(&profiles), [(0..10).collect::<Vec<_>>()]);
    }

    #[test]
    fn a_large_series_has_its_own() {
        let profiles = [(0, BYTES_SHARED_MAX), (0, 1), (1, 1), (1, 1)].map(|(series, len)| (series, profile(len, 1)));
        assert_eq!(planned(&profiles), [vec![0, 1], vec![2, 3]]);
    }

    #[test]
    fn a_chunk_is_bounded() {
        let profiles: Vec<_> = (0..PROFILES_MAX * 2 + 1).map(|_| (0, profile(10, 1))).collect();
        assert_eq!(planned(&profiles).iter().map(Vec::len).collect::<Vec<_>>(), [PROFILES_MAX, PROFILES_MAX, 1]);
        let profiles = [BYTES_MAX * 2, 1, BYTES_MAX].map(|len| (0, profile(len, 1)));
        assert_eq!(planned(&profiles), [[0], [1], [2]]);
    }

    #[test]
    fn profiles_of_other_types_and_blobs_do_not_join() {
        let blob = Stored::blob(&mut Packer::new(1), b"raw");
        let profiles = [(0, profile(1, 1)), (0, blob), (0, profile(1, 1)), (0, profile(1, 2))];
        assert_eq!(planned(&profiles), [vec![0, 2], vec![1], vec![3]]);
    }
}
