//! Chunks: the columns of some tens of profiles of a dataset, compressed together.
//!
//! A chunk has a frame for the stacks, one for the labels, one for each value type, and one for everything that only an exact copy
//! needs. So a merge of one value type reads two frames, three where samples have labels, and a fetch reads all.
//!
//! Rows are sorted by series, so most chunks hold one series. Small series share a chunk: in a flush of a second a series has one or two
//! profiles, and a frame for each would cost more than it holds.

use smallvec::SmallVec;

use super::columns::{Head, Meta, Samples};
use super::frame::{Frame, Packer};
use super::sampling::Scales;
use super::toc::Chunk;
use super::values::{self, Form, Sets};
use super::varint::{self, Cursor, Damage, Delta};

/// From this size on a chunk ends where its series ends.
const BYTES_SHARED_MAX: usize = 32 << 10;

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
        /// How the values of each type are said.
        forms: SmallVec<[Form; 4]>,
    },
}

/// The parts of [`Stored::Columns`] before the values.
const STACKS: usize = 0;
pub(crate) const LABELS: usize = 1;
const META: usize = 2;
pub(crate) const VALUES: usize = 3;

impl Stored {
    /// Keeps `raw` as it was sent.
    pub(crate) fn blob(packer: &mut Packer, raw: &[u8]) -> Self {
        let mut packed = Vec::new();
        let frame = packer.pack(&mut packed, raw);
        Self::Blob { packed, frame }
    }

    /// Keeps the columns of a profile: the stacks, the labels, the meta, and for each value type its bytes and their form.
    pub(crate) fn columns<'a>(
        head: Head,
        [stacks, labels, meta]: [&'a [u8]; 3],
        values: impl Iterator<Item = (&'a [u8], Form)> + Clone,
    ) -> Self {
        let parts = || [stacks, labels, meta].into_iter().chain(values.clone().map(|(bytes, _)| bytes));
        let mut bytes = Vec::with_capacity(parts().map(<[u8]>::len).sum());
        let mut ends = SmallVec::new();
        for part in parts() {
            bytes.extend_from_slice(part);
            ends.push(bytes.len() as u32);
        }
        Self::Columns { head, bytes: bytes.into(), ends, forms: values.map(|(_, form)| form).collect() }
    }

    /// Returns how many bytes it takes before they are compressed with others'.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Blob { packed, .. } => packed.len(),
            Self::Columns { bytes, .. } => bytes.len(),
        }
    }

    /// Returns how many value types it has; `None` for a blob.
    fn types(&self) -> Option<usize> {
        match self {
            Self::Blob { .. } => None,
            Self::Columns { forms, .. } => Some(forms.len()),
        }
    }

    pub(crate) fn head(&self) -> Head {
        match self {
            Self::Blob { .. } => Head::default(),
            Self::Columns { head, .. } => *head,
        }
    }

    pub(crate) fn part(&self, part: usize) -> &[u8] {
        match self {
            Self::Blob { .. } => &[],
            Self::Columns { bytes, ends, .. } => {
                let start = if part == 0 { 0 } else { ends[part - 1] as usize };
                &bytes[start..ends[part] as usize]
            }
        }
    }

    pub(crate) fn form(&self, t: usize) -> Form {
        match self {
            Self::Blob { .. } => Form::Plain,
            Self::Columns { forms, .. } => forms[t],
        }
    }

    /// Reads the samples of columns; `numbers` are those of the label sets of their service.
    pub(crate) fn samples(&self, numbers: &[i64], into: &mut Samples) -> Result<Head, Damage> {
        let Self::Columns { head, forms, .. } = self else { return Err(Damage("is no columns")) };
        let (mut stacks, mut labels) = (Cursor::new(self.part(STACKS)), Cursor::new(self.part(LABELS)));
        read_samples(head.samples, &mut stacks, &mut labels, self.part(LABELS).is_empty(), into)?;
        into.values.resize_with(forms.len(), Vec::new);
        let mut scales = Scales::new(numbers);
        for (t, form) in forms.iter().enumerate() {
            let values = &mut Cursor::new(self.part(VALUES + t));
            values::read(head.samples, values, *form, t, &mut scales, into)?;
        }
        Ok(*head)
    }

    /// Reads the [`Meta`] of columns.
    pub(crate) fn meta(&self) -> Result<Meta, Damage> {
        Meta::read(&mut Cursor::new(self.part(META)), self.head().samples)
    }
}

/// How many profiles a chunk takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The most profiles.
    pub(crate) profiles: usize,
    /// The most bytes before compression, unless one profile alone has more.
    pub(crate) bytes: usize,
}

/// Those of a segment: enough for zstd to see what repeats, few enough that a fetch of one is cheap.
pub(crate) const LIMITS: Limits = Limits { profiles: 64, bytes: 4096 << 10 };

/// The profiles that will share the next chunk.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    profiles: Vec<Stored>,
    /// The series of the last.
    series: u32,
    bytes: usize,
}

impl Waiting {
    /// Returns whether a profile of this series may join.
    pub(crate) fn takes(&self, series: u32, stored: &Stored, limits: Limits) -> bool {
        let Some(last) = self.profiles.last() else { return true };
        last.types() == stored.types()
            && self.profiles.len() < limits.profiles
            && self.bytes + stored.len() <= limits.bytes
            && (self.series == series || self.bytes < BYTES_SHARED_MAX)
    }

    /// Adds a profile.
    pub(crate) fn push(&mut self, series: u32, stored: Stored) {
        self.bytes += stored.len();
        self.series = series;
        self.profiles.push(stored);
    }

    /// Returns how many bytes the profiles take before they are compressed.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes all profiles.
    pub(crate) fn take(&mut self) -> Vec<Stored> {
        std::mem::take(self).profiles
    }
}

/// Appends a chunk of `profiles` to `out`; `sets` are the label sets of their service.
///
/// # Errors
/// The values of a profile are not as many as its samples.
pub(crate) fn write(
    profiles: &[Stored],
    sets: Sets<'_>,
    packer: &mut Packer,
    out: &mut Vec<u8>,
) -> Result<Chunk, Damage> {
    if let [Stored::Blob { packed, frame }] = profiles {
        let offset = out.len() as u64;
        out.extend_from_slice(packed);
        return Ok(Chunk::Blob(Frame { offset, ..*frame }));
    }
    let mut buffer = Vec::new();
    profiles.iter().for_each(|stored| stored.head().put(&mut buffer));
    profiles.iter().for_each(|stored| buffer.extend_from_slice(stored.part(STACKS)));
    let stacks = packer.pack(out, &buffer);

    buffer.clear();
    if profiles.iter().any(|stored| !stored.part(LABELS).is_empty()) {
        for stored in profiles {
            match stored.part(LABELS) {
                // A profile without labels has the empty set at each sample.
                [] => buffer.resize(buffer.len() + stored.head().samples, 0),
                labels => buffer.extend_from_slice(labels),
            }
        }
    }
    let labels = packer.pack(out, &put_labels(&buffer)?);

    let types = profiles[0].types().unwrap_or_default();
    let mut values = Vec::with_capacity(types);
    for t in 0..types {
        values.push(values::write(profiles, t, sets, &mut buffer, packer, out)?);
    }

    buffer.clear();
    profiles.iter().for_each(|stored| varint::put_bytes(&mut buffer, stored.part(META)));
    let meta = packer.pack(out, &buffer);
    Ok(Chunk::Columns { profiles: profiles.len() as u32, stacks, labels, values, meta })
}

/// How label sets are said in a frame that has any.
const AS_INDICES: u8 = 0;
const AS_DELTAS: u8 = 1;

/// Returns the frame of labels for the indices of the label sets of all samples: as they are, or as the difference of each to the one
/// before where that is shorter. It is where nearly every sample has a set of its own, as with a time or the id of a span.
fn put_labels(indices: &[u8]) -> Result<Vec<u8>, Damage> {
    if indices.is_empty() {
        return Ok(Vec::new());
    }
    let (mut from, mut delta, mut out) = (Cursor::new(indices), Delta::default(), vec![AS_DELTAS]);
    while from.left() > 0 && out.len() <= indices.len() {
        delta.put(&mut out, from.u32()?.into());
    }
    if out.len() > indices.len() {
        out.clear();
        out.push(AS_INDICES);
        out.extend_from_slice(indices);
    }
    Ok(out)
}

/// Returns the indices of the label sets of all samples, from the frame of labels of a section of this version.
///
/// # Errors
/// No writer wrote the frame.
pub(crate) fn read_labels(frame: Vec<u8>, version: u32) -> Result<Vec<u8>, Damage> {
    // The first version had nothing but indices.
    let [form, said @ ..] = &frame[..] else { return Ok(frame) };
    if version < 2 {
        return Ok(frame);
    }
    match *form {
        AS_INDICES => Ok(said.to_vec()),
        AS_DELTAS => {
            let (mut from, mut delta, mut out) = (Cursor::new(said), Delta::default(), Vec::with_capacity(said.len()));
            while from.left() > 0 {
                varint::put(&mut out, delta.read_index(&mut from, u32::MAX as usize)?.into());
            }
            Ok(out)
        }
        _ => Err(Damage("labels are of an unknown form")),
    }
}

/// The unpacked frames of a chunk of columns.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) profiles: usize,
    pub(crate) stacks: Vec<u8>,
    pub(crate) labels: Vec<u8>,
    /// For each value type, the bytes and how to read them.
    pub(crate) values: Vec<(Vec<u8>, Form)>,
    /// The value types that were asked for and those they follow from, ascending; of the others there are no bytes.
    pub(crate) types: Vec<usize>,
    /// Empty where only the samples were asked for.
    pub(crate) meta: Vec<u8>,
}

/// Which value types of a chunk are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Needed {
    /// All of them.
    All,
    /// Those with these indices.
    Only(SmallVec<[usize; 4]>),
}

// === impl Unpacked ===

impl Unpacked {
    /// Returns the heads of the profiles, and where the stacks begin behind them.
    ///
    /// # Errors
    /// There are fewer profiles than there should be.
    pub(crate) fn heads(&self) -> Result<(Vec<Head>, Cursor<'_>), Damage> {
        let mut stacks = Cursor::new(&self.stacks);
        if self.profiles > stacks.left() {
            return Err(Damage("has fewer profiles than it should"));
        }
        let heads = (0..self.profiles).map(|_| Head::read(&mut stacks)).collect::<Result<_, _>>()?;
        Ok((heads, stacks))
    }
}

/// Reads the profiles of a chunk from the first to the last.
#[derive(Debug)]
pub(crate) struct Profiles<'a> {
    chunk: &'a Unpacked,
    scales: Scales<'a>,
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
        let (heads, stacks) = chunk.heads()?;
        Ok(Self {
            chunk,
            scales: Scales::new(numbers),
            heads,
            next: 0,
            stacks,
            labels: Cursor::new(&chunk.labels),
            values: chunk.values.iter().map(|(values, _)| Cursor::new(values)).collect(),
        })
    }

    /// Reads the profile at `position`, which must not lie before those already read. Columns of types that were not asked for are empty.
    pub(crate) fn read(&mut self, position: usize, into: &mut Samples) -> Result<Head, Damage> {
        let skipped = self.heads.get(self.next..position).ok_or(Damage("has fewer profiles than its rows say"))?;
        for before in skipped {
            self.stacks.skip(before.samples)?;
            if !self.chunk.labels.is_empty() {
                self.labels.skip(before.samples)?;
            }
            for &t in &self.chunk.types {
                if !matches!(self.chunk.values[t].1, Form::Multiple(_)) {
                    self.values[t].skip(before.samples)?;
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
        into.values.iter_mut().for_each(Vec::clear);
        for &t in &self.chunk.types {
            let (_, form) = self.chunk.values[t];
            values::read(head.samples, &mut self.values[t], form, t, &mut self.scales, into)?;
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
    into.stacks.clear();
    Delta::default().read_indices(stacks, count, &mut into.stacks)?;
    into.labels.clear();
    if !no_labels {
        varint::read_indices(labels, count, &mut into.labels)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(bytes: usize, types: usize) -> Stored {
        let values = std::iter::repeat_n((&[][..], Form::Plain), types);
        Stored::columns(Head::default(), [&vec![0; bytes], &[], &[]], values)
    }

    /// Returns which profiles share a chunk.
    fn chunks(profiles: impl IntoIterator<Item = (u32, Stored)>) -> Vec<usize> {
        let (mut chunks, mut waiting) = (Vec::new(), Waiting::default());
        for (series, stored) in profiles {
            if !waiting.takes(series, &stored, LIMITS) {
                chunks.push(waiting.take().len());
            }
            waiting.push(series, stored);
        }
        chunks.push(waiting.take().len());
        chunks
    }

    #[test]
    fn small_series_share_a_chunk() {
        assert_eq!(chunks((0..10).map(|series| (series, profile(1000, 2)))), [10]);
    }

    #[test]
    fn a_large_series_has_its_own() {
        let profiles = [(0, BYTES_SHARED_MAX), (0, 1), (1, 1), (1, 1)];
        assert_eq!(chunks(profiles.map(|(series, len)| (series, profile(len, 1)))), [2, 2]);
    }

    #[test]
    fn a_chunk_is_bounded() {
        let many = LIMITS.profiles;
        assert_eq!(chunks((0..many * 2 + 1).map(|_| (0, profile(10, 1)))), [many, many, 1]);
        assert_eq!(chunks([LIMITS.bytes * 2, 1, LIMITS.bytes].map(|len| (0, profile(len, 1)))), [1, 1, 1]);
    }

    #[test]
    fn labels_come_back_in_either_form() {
        for (indices, form) in
            [(vec![], None), (vec![5, 4, 5, 4], Some(AS_INDICES)), ((900..1200).collect(), Some(AS_DELTAS))]
        {
            let mut plain = Vec::new();
            indices.iter().for_each(|&index| varint::put(&mut plain, index));
            let frame = put_labels(&plain).expect("these are indices");
            assert_eq!(frame.first().copied(), form);
            assert_eq!(read_labels(frame, 2), Ok(plain.clone()));
            assert_eq!(read_labels(plain.clone(), 1), Ok(plain));
        }
        assert!(read_labels(vec![7, 1], 2).is_err());
    }

    #[test]
    fn profiles_with_other_types_do_not_join() {
        assert_eq!(chunks([(0, profile(1, 1)), (0, profile(1, 1)), (0, profile(1, 2))]), [2, 1]);
    }
}
