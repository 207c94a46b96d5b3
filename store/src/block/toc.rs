//! The table of contents: everything a reader must know before it reads anything else.
//!
//! It lists the sections with a checksum each, the symbol tables and the datasets; a dataset lists its series, its sample types and its
//! chunks, and of each frame where it lies, its lengths and its checksum. So a reader knows from the table of contents alone which
//! ranges answer a question, and whether what comes back is what was written.
//!
//! The table of contents is one zstd frame behind the rows. Its place and checksum stand in the key-value metadata of the Parquet
//! footer; the checksum of the footer stands in the [`SEAL`] just before it.

mod chunks;

use std::collections::BTreeMap;
use std::ops::Range;

use afterglow_profile::{Labels, ProfileType};
use rustc_hash::FxHashMap;

use super::frame::Frame;
use super::rollups::Rollups;
use super::symbols::frames;
use super::varint::{self, Cursor, Damage, Delta};

pub(crate) use self::chunks::{Chunk, Frames, Values};

/// The version of the format that this code writes, and the newest it reads.
pub(crate) const VERSION: u32 = 5;

/// The version that brought numbers of sample labels that lie apart. A block that has any needs readers of this version.
const NUMBERS_VERSION: u32 = 5;

/// The version that brought roll-ups. A block that has any needs readers of this version.
const ROLLUPS_VERSION: u32 = 4;

/// The oldest version whose readers read what this code writes where there is neither.
const PLAIN_VERSION: u32 = 3;

/// Keys in the metadata of the Parquet footer.
pub(crate) const KEY_FORMAT: &str = "afterglow.format";
pub(crate) const KEY_READER: &str = "afterglow.reader";
pub(crate) const KEY_TOC: &str = "afterglow.toc";

/// What stands before the Parquet footer: these bytes, then the CRC-32C of the footer, the lowest byte first.
pub(crate) const SEAL: [u8; 4] = *b"AGS1";

/// How long the seal is.
pub(crate) const SEAL_BYTES: usize = 8;

/// What a section holds. Other numbers are left for later versions; a reader skips what it does not know.
pub(crate) mod kind {
    /// The symbol tables of a service.
    pub(crate) const SYMBOLS: u32 = 1;
    /// The samples of a dataset.
    pub(crate) const SAMPLES: u32 = 2;
    /// The rows, as Parquet column chunks.
    pub(crate) const ROWS: u32 = 3;
    /// The roll-ups of a dataset.
    pub(crate) const ROLLUPS: u32 = 4;
    /// The filters of the functions of all tables.
    pub(crate) const FUNCTIONS: u32 = 5;
}

/// The newest version in which sections of a kind are written and read; older ones are read too.
fn section_version(kind: u32) -> u32 {
    match kind {
        kind::SYMBOLS => frames::NUMBERS_VERSION,
        kind::SAMPLES => 2,
        _ => 1,
    }
}

/// What a block holds: its datasets and where the parts of each lie.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Toc {
    pub(crate) sections: Vec<Section>,
    pub(crate) symbols: Vec<SymbolTables>,
    pub(crate) datasets: Vec<Dataset>,
}

/// A contiguous part of a block with a checksum of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    pub(crate) kind: u32,
    pub(crate) version: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) crc: u32,
}

/// Where the symbol tables of a service lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SymbolTables {
    pub(crate) section: u32,
    /// As many as the version of the section has.
    pub(crate) frames: Vec<Frame>,
}

/// The profiles of one service and type in a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    pub(crate) service: Box<str>,
    pub(crate) profile_type: ProfileType,
    pub(crate) series: Vec<Labels>,
    pub(crate) sample_types: Vec<Vec<SampleType>>,
    pub(crate) time_nanos: Range<i64>,
    pub(crate) rows: Range<usize>,
    pub(crate) raw_bytes: u64,
    /// An index into [`Toc::symbols`].
    pub(crate) symbols: u32,
    /// An index into [`Toc::sections`].
    pub(crate) section: u32,
    pub(crate) chunks: Vec<Chunk>,
    /// How many rows in turn have the same series, sample types and chunk.
    pub(crate) runs: Vec<(Place, u32)>,
    /// What its profiles add up to.
    pub(crate) rollups: Rollups,
}

/// What a row of a dataset refers to, as indices into the dataset's lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) series: u32,
    pub(crate) sample_types: u32,
    pub(crate) chunk: u32,
}

/// The name and the unit of one value of a sample.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleType {
    /// The name, such as `cpu`; what is not UTF-8 is shown as U+FFFD.
    pub kind: Box<str>,
    /// The unit, such as `nanoseconds`.
    pub unit: Box<str>,
}

// === impl Toc ===

impl Toc {
    /// Returns the datasets, sorted by service and type.
    pub fn datasets(&self) -> &[Dataset] {
        &self.datasets
    }

    /// Returns the sections in the order in which they lie.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Returns how many profiles the block holds.
    pub fn profiles(&self) -> usize {
        self.datasets.last().map_or(0, |dataset| dataset.rows.end)
    }

    /// Returns the oldest version whose readers can read the block.
    pub(crate) fn reader_version(&self) -> u32 {
        let rolls = self.datasets.iter().any(|dataset| !dataset.rollups.is_empty());
        let numbers = self.symbols.iter().any(|symbols| symbols.frames.len() > frames::FRAMES_MIN);
        match (numbers, rolls) {
            (true, _) => NUMBERS_VERSION,
            (_, true) => ROLLUPS_VERSION,
            _ => PLAIN_VERSION,
        }
    }

    /// Returns what the block's bytes are spent on: the name of each part and how many bytes it takes, for all services and types together.
    pub fn parts(&self) -> BTreeMap<&'static str, u64> {
        let mut parts = BTreeMap::new();
        let mut spend = |part, frame: &Frame| *parts.entry(part).or_insert(0) += frame.stored;
        for symbols in &self.symbols {
            frames::NAMES.iter().zip(&symbols.frames).for_each(|(name, frame)| spend(*name, frame));
        }
        for chunk in self.datasets.iter().flat_map(|dataset| &dataset.chunks) {
            match chunk {
                Chunk::Blob(frame) => spend("samples: as sent", frame),
                Chunk::Columns { stacks, labels, values, meta, .. } => {
                    spend("samples: stacks", stacks);
                    spend("samples: labels", labels);
                    spend("samples: orders", meta);
                    values.iter().filter_map(Values::frame).for_each(|frame| spend("samples: values", frame));
                }
            }
        }
        for (part, kind) in [("rows", kind::ROWS), ("roll-ups", kind::ROLLUPS), ("filters", kind::FUNCTIONS)] {
            let sections = self.sections.iter().filter(|section| section.kind == kind);
            parts.insert(part, sections.map(|section| section.length).sum());
        }
        parts
    }

    /// Returns its bytes, not yet compressed.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (mut texts, mut body) = (Texts::default(), Vec::new());
        put_count(&mut body, self.symbols.len());
        for symbols in &self.symbols {
            varint::put(&mut body, symbols.section.into());
            symbols.frames.iter().for_each(|frame| frame.put(&mut body));
        }
        put_count(&mut body, self.datasets.len());
        let version = self.reader_version();
        self.datasets.iter().for_each(|dataset| dataset.put(&mut body, &mut texts, version));

        let mut out = Vec::new();
        put_count(&mut out, self.sections.len());
        for section in &self.sections {
            varint::put(&mut out, section.kind.into());
            varint::put(&mut out, section.version.into());
            varint::put(&mut out, section.offset);
            varint::put(&mut out, section.length);
            out.extend_from_slice(&section.crc.to_le_bytes());
        }
        put_count(&mut out, texts.list.len());
        texts.list.iter().for_each(|text| varint::put_bytes(&mut out, text.as_bytes()));
        out.append(&mut body);
        out
    }

    /// Reads what [`Toc::encode`] returned, for a block whose table of contents starts at `end` and which needs readers of this version.
    ///
    /// # Errors
    /// It contradicts itself.
    pub(crate) fn decode(bytes: &[u8], end: u64, version: u32) -> Result<Self, Damage> {
        let from = &mut Cursor::new(bytes);
        let count = from.count(8)?;
        let sections = (0..count).map(|_| Section::read(from, end)).collect::<Result<Vec<_>, _>>()?;
        let count = from.count(1)?;
        let texts = (0..count).map(|_| read_text(from)).collect::<Result<Vec<_>, _>>()?;
        let count = from.count(1 + frames::FRAMES_MIN * 6)?;
        let symbols = (0..count).map(|_| SymbolTables::read(from, &sections)).collect::<Result<Vec<_>, _>>()?;
        let count = from.count(10)?;
        let mut datasets: Vec<Dataset> = Vec::with_capacity(count);
        for _ in 0..count {
            let first_row = datasets.last().map_or(0, |before| before.rows.end);
            let dataset = Dataset::read(from, &texts, &sections, (symbols.len(), first_row))?;
            let rollups = match version {
                ROLLUPS_VERSION.. => Rollups::read(from, &sections, dataset.rows.len())?,
                _ => Rollups::default(),
            };
            datasets.push(Dataset { rollups, ..dataset });
        }
        from.finish()?;
        Ok(Self { sections, symbols, datasets })
    }
}

/// Returns how the footer's metadata says where the table of contents lies: offset, stored and unpacked length, codec and checksum.
pub(crate) fn place(frame: &Frame, offset: u64) -> String {
    let mut codec = Vec::new();
    frame.put(&mut codec);
    format!("{offset} {} {} {} {:08x}", frame.stored, frame.unpacked, codec[0], frame.crc)
}

/// Reads what [`place`] returned.
pub(crate) fn read_place(place: &str) -> Option<Frame> {
    let mut parts = place.split(' ');
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (offset, stored, unpacked, codec) = (number()?, number()?, number()?, number()?);
    let crc = u32::from_str_radix(parts.next()?, 16).ok()?;
    // The checks of a listed frame hold here too, so it is listed and read.
    let mut listed = vec![u8::try_from(codec).ok()?];
    varint::put(&mut listed, stored);
    if codec != 0 {
        varint::put(&mut listed, unpacked);
    }
    listed.extend_from_slice(&crc.to_le_bytes());
    Frame::read(&mut Cursor::new(&listed), offset).ok()
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    varint::put(out, count as u64);
}

fn read_text<'a>(from: &mut Cursor<'a>) -> Result<&'a str, Damage> {
    std::str::from_utf8(from.bytes()?).map_err(|_| Damage("a text is not utf-8"))
}

/// The texts of a table of contents, each once.
#[derive(Debug, Default)]
struct Texts<'a> {
    list: Vec<&'a str>,
    index: FxHashMap<&'a str, usize>,
}

impl<'a> Texts<'a> {
    fn put(&mut self, out: &mut Vec<u8>, text: &'a str) {
        let index = *self.index.entry(text).or_insert_with(|| {
            self.list.push(text);
            self.list.len() - 1
        });
        put_count(out, index);
    }
}

// === impl Section ===

impl Section {
    /// Makes a section of this kind and its newest version, which starts at `offset`.
    pub(crate) fn new(kind: u32, offset: u64, bytes: &[u8]) -> Self {
        Self { kind, version: section_version(kind), offset, length: bytes.len() as u64, crc: crc32c::crc32c(bytes) }
    }

    /// Returns it as one of another version.
    pub(crate) fn of_version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// Returns where it lies in the object.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.length
    }

    /// Returns what it holds, as docs/format.md numbers it.
    pub fn kind(&self) -> u32 {
        self.kind
    }

    fn read(from: &mut Cursor<'_>, end: u64) -> Result<Self, Damage> {
        let (kind, version) = (from.u32()?, from.u32()?);
        let (offset, length) = (from.varint()?, from.varint()?);
        let section = Self { kind, version, offset, length, crc: from.u32_fixed()? };
        match offset.checked_add(length) {
            Some(section_end) if section_end <= end => Ok(section),
            _ => Err(Damage("a section lies outside the block")),
        }
    }
}

/// Returns the section at the index that comes next, which must be of a kind and version this code reads.
pub(crate) fn read_section(from: &mut Cursor<'_>, sections: &[Section], kind: u32) -> Result<(u32, Section), Damage> {
    let index = from.index(sections.len())?;
    let section = sections[index as usize];
    if section.kind != kind || !(1..=section_version(kind)).contains(&section.version) {
        return Err(Damage("a section is of the wrong kind or of an unknown version"));
    }
    Ok((index, section))
}

// === impl SymbolTables ===

impl SymbolTables {
    /// Returns where its frames lie.
    pub(crate) fn range(&self) -> Range<u64> {
        self.frames[0].offset..self.frames[self.frames.len() - 1].range().end
    }

    fn read(from: &mut Cursor<'_>, sections: &[Section]) -> Result<Self, Damage> {
        let (section, place) = read_section(from, sections, kind::SYMBOLS)?;
        let mut listings = Frames::of(&place);
        let list = (0..frames::count(place.version)).map(|_| listings.read(from)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { section, frames: list })
    }
}

// === impl Dataset ===

impl Dataset {
    /// Returns the service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Returns the profile type.
    pub fn profile_type(&self) -> &ProfileType {
        &self.profile_type
    }

    /// Returns the labels of each series, sorted.
    pub fn series(&self) -> &[Labels] {
        &self.series
    }

    /// Returns the distinct lists of sample types its profiles have; a row names its own by index.
    pub fn sample_types(&self) -> &[Vec<SampleType>] {
        &self.sample_types
    }

    /// Returns the smallest time of a profile and one past the largest, in nanoseconds since 1970.
    pub fn time_nanos(&self) -> Range<i64> {
        self.time_nanos.clone()
    }

    /// Returns the version of its samples.
    pub(crate) fn samples_version(&self, toc: &Toc) -> u32 {
        toc.sections[self.section as usize].version
    }

    /// Returns which rows of the block are its profiles.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Returns the length of the protobuf bytes of all its profiles.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    fn put<'a>(&'a self, out: &mut Vec<u8>, texts: &mut Texts<'a>, version: u32) {
        texts.put(out, &self.service);
        texts.put(out, self.profile_type.as_str());
        varint::put(out, self.symbols.into());
        varint::put(out, self.section.into());
        put_count(out, self.rows.len());
        varint::put(out, self.raw_bytes);
        let mut time = Delta::default();
        time.put(out, self.time_nanos.start as u64);
        time.put(out, self.time_nanos.end as u64);
        put_count(out, self.sample_types.len());
        for list in &self.sample_types {
            put_count(out, list.len());
            list.iter().for_each(|t| [&t.kind, &t.unit].into_iter().for_each(|text| texts.put(out, text)));
        }
        put_count(out, self.series.len());
        for labels in &self.series {
            put_count(out, labels.len());
            labels.iter().for_each(|(name, value)| [name, value].into_iter().for_each(|text| texts.put(out, text)));
        }
        put_count(out, self.chunks.len());
        self.chunks.iter().for_each(|chunk| chunk.put(out));
        put_count(out, self.runs.len());
        let [mut series, mut sample_types, mut chunk] = <[Delta; 3]>::default();
        for (place, rows) in &self.runs {
            series.put(out, place.series.into());
            sample_types.put(out, place.sample_types.into());
            chunk.put(out, place.chunk.into());
            varint::put(out, (*rows).into());
        }
        if version >= ROLLUPS_VERSION {
            self.rollups.put(out);
        }
    }

    /// Reads what [`Dataset::put`] wrote up to the roll-ups.
    fn read(
        from: &mut Cursor<'_>,
        texts: &[&str],
        sections: &[Section],
        (symbols, first_row): (usize, usize),
    ) -> Result<Self, Damage> {
        let text = |from: &mut Cursor<'_>| from.index(texts.len()).map(|i| texts[i as usize]);
        let service = text(from)?.into();
        let profile_type = ProfileType::parse(text(from)?).map_err(|_| Damage("a profile type is no word"))?;
        let symbols = from.index(symbols)?;
        let (section, place) = read_section(from, sections, kind::SAMPLES)?;
        let rows = from.u32()? as usize;
        let raw_bytes = from.varint()?;
        let mut time = Delta::default();
        let time_nanos = time.read(from)? as i64..time.read(from)? as i64;
        let count = from.count(1)?;
        let mut sample_types = Vec::with_capacity(count);
        for _ in 0..count {
            let count = from.count(2)?;
            let read_type =
                |_| -> Result<_, Damage> { Ok(SampleType { kind: text(from)?.into(), unit: text(from)?.into() }) };
            sample_types.push((0..count).map(read_type).collect::<Result<Vec<_>, _>>()?);
        }
        let count = from.count(1)?;
        let mut series = Vec::with_capacity(count);
        for _ in 0..count {
            let count = from.count(2)?;
            let pairs = (0..count).map(|_| Ok((text(from)?, text(from)?))).collect::<Result<Vec<_>, _>>()?;
            series.push(Labels::new(pairs).map_err(|_| Damage("the labels of a series are not valid"))?);
        }
        let count = from.count(6)?;
        let mut frames = Frames::of(&place);
        let chunks = (0..count).map(|_| Chunk::read(from, &mut frames)).collect::<Result<Vec<_>, _>>()?;
        let runs = read_runs(from, [series.len(), sample_types.len(), chunks.len()])?;
        let mut free: Vec<usize> = chunks.iter().map(Chunk::profiles).collect();
        for (place, rows) in &runs {
            let free = &mut free[place.chunk as usize];
            *free = free.checked_sub(*rows as usize).ok_or(Damage("a chunk has fewer profiles than rows"))?;
        }
        let placed: usize = runs.iter().map(|(_, rows)| *rows as usize).sum();
        if placed != rows || free.iter().any(|&free| free > 0) {
            return Err(Damage("a dataset has another number of profiles than rows"));
        }
        let rows = first_row..first_row.checked_add(rows).ok_or(Damage("there are too many rows"))?;
        Ok(Self {
            service,
            profile_type,
            series,
            sample_types,
            time_nanos,
            rows,
            raw_bytes,
            symbols,
            section,
            chunks,
            runs,
            rollups: Rollups::default(),
        })
    }
}

/// Reads runs of rows whose places lie in lists of these lengths.
fn read_runs(from: &mut Cursor<'_>, lens: [usize; 3]) -> Result<Vec<(Place, u32)>, Damage> {
    let count = from.count(4)?;
    let [mut series, mut sample_types, mut chunk] = <[Delta; 3]>::default();
    let run = |_| {
        let place = Place {
            series: series.read_index(from, lens[0])?,
            sample_types: sample_types.read_index(from, lens[1])?,
            chunk: chunk.read_index(from, lens[2])?,
        };
        Ok((place, from.u32()?))
    };
    (0..count).map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::columns::Multiple;
    use crate::block::frame::Codec;
    use proptest::prelude::*;

    fn frame(at: &mut u64, stored: u64) -> Frame {
        let frame = Frame { offset: *at, stored, unpacked: 3 * stored, codec: Codec::Zstd, crc: 7 };
        *at += stored;
        frame
    }

    fn toc() -> Toc {
        let at = &mut 4;
        let frames = (0..frames::FRAMES_MIN).map(|_| frame(at, 5)).collect();
        let symbols = SymbolTables { section: 0, frames };
        let symbols_end = *at;
        let blob = Chunk::Blob(frame(at, 9));
        let columns = Chunk::Columns {
            profiles: 2,
            stacks: frame(at, 3),
            labels: frame(at, 4),
            values: vec![
                Values::Frame(frame(at, 5)),
                Values::Multiple(Multiple { of: 0, factor: -3 }),
                Values::Product { of: 1, rest: frame(at, 6) },
                Values::Seen { rate: 1 << 19, seen: frame(at, 7) },
                Values::Bytes { of: 3, rate: u64::MAX, rest: frame(at, 1) },
            ],
            meta: frame(at, 2),
        };
        let sum = Chunk::Columns {
            profiles: 1,
            stacks: frame(at, 2),
            labels: frame(at, 1),
            values: vec![Values::Frame(frame(at, 4))],
            meta: frame(at, 1),
        };
        let rolled = *at - 8;
        let section = |kind, offset, end| Section { kind, version: 1, offset, length: end - offset, crc: 1 };
        let place = |series, chunk| Place { series, sample_types: 0, chunk };
        let word = |word: &str| SampleType { kind: word.into(), unit: "bytes".into() };
        Toc {
            sections: vec![
                section(kind::SYMBOLS, 4, symbols_end),
                section(kind::SAMPLES, symbols_end, rolled),
                section(kind::ROWS, *at, *at + 10),
                // A later version may have sections that this one does not know.
                Section { version: 9, ..section(77, *at + 10, *at + 20) },
                section(kind::ROLLUPS, rolled, *at),
            ],
            symbols: vec![symbols],
            datasets: vec![Dataset {
                service: "api".into(),
                profile_type: ProfileType::parse("heap").expect("a word"),
                series: vec![
                    Labels::new([("service", "api"), ("dc", "1")]).expect("valid labels"),
                    Labels::new([("service", "api"), ("dc", "2")]).expect("valid labels"),
                ],
                sample_types: vec![vec![word("a"), word("b"), word("c")]],
                time_nanos: -5..i64::MAX,
                rows: 0..3,
                raw_bytes: 12,
                symbols: 0,
                section: 1,
                chunks: vec![blob, columns],
                runs: vec![(place(0, 0), 1), (place(1, 1), 2)],
                rollups: Rollups::of(4, 3600, vec![(-1, 2, sum)]),
            }],
        }
    }

    #[test]
    fn it_comes_back() {
        let toc = toc();
        assert_eq!(Toc::decode(&toc.encode(), 1000, toc.reader_version()), Ok(toc.clone()));
        assert_eq!((toc.profiles(), toc.reader_version()), (3, ROLLUPS_VERSION));
        assert!(Toc::decode(&toc.encode(), 60, toc.reader_version()).is_err(), "a section would lie behind the end");
    }

    /// Goal: readers of version 3 can read what has no roll-ups.
    #[test]
    fn without_roll_ups_it_is_that_of_the_version_before() {
        let mut toc = toc();
        toc.datasets[0].rollups = Rollups::default();
        assert_eq!(toc.reader_version(), PLAIN_VERSION);
        assert_eq!(Toc::decode(&toc.encode(), 1000, PLAIN_VERSION), Ok(toc.clone()));
        assert!(Toc::decode(&toc.encode(), 1000, ROLLUPS_VERSION).is_err(), "the dataset would lack roll-ups");
    }

    /// Goal: tables without a ninth frame are those of the version before, whatever else is in the block.
    #[test]
    fn with_numbers_apart_it_needs_readers_that_know_of_them() {
        let mut toc = toc();
        let at = &mut toc.symbols[0].range().end;
        toc.symbols[0].frames.push(frame(at, 0));
        toc.sections[0].version = frames::NUMBERS_VERSION;
        assert_eq!(toc.reader_version(), NUMBERS_VERSION);
        for rollups in [toc.datasets[0].rollups.clone(), Rollups::default()] {
            toc.datasets[0].rollups = rollups;
            assert_eq!(Toc::decode(&toc.encode(), 1000, NUMBERS_VERSION), Ok(toc.clone()));
        }
        toc.sections[0].version = frames::NUMBERS_VERSION + 1;
        assert!(Toc::decode(&toc.encode(), 1000, NUMBERS_VERSION).is_err(), "nobody knows such tables");
    }

    #[test]
    fn its_place_comes_back() {
        for codec in [Codec::Stored, Codec::Zstd] {
            let frame = Frame { offset: 9, stored: 77, unpacked: 77, codec, crc: 0xab };
            assert_eq!(read_place(&place(&frame, 123)), Some(Frame { offset: 123, ..frame }));
        }
        for wrong in ["", "1 2 3 1", "1 2 3 9 0", "1 2 3 1 xyz", "-1 2 3 1 0", "1 99999999999999 3 1 0"] {
            assert_eq!(read_place(wrong), None);
        }
    }

    proptest! {
        /// Checksums keep damage out; this is about what a faulty writer made.
        #[test]
        fn that_of_a_faulty_writer_is_refused_or_fits(
            at in any::<proptest::sample::Index>(),
            changes in proptest::collection::vec(any::<u8>(), 1..4),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = toc().encode();
            let at = at.index(bytes.len());
            for (byte, change) in bytes[at..].iter_mut().zip(changes) {
                *byte = byte.wrapping_add(change);
            }
            if let Ok(toc) = Toc::decode(&bytes, 1000, ROLLUPS_VERSION) {
                for dataset in &toc.datasets {
                    let place = toc.sections[dataset.section as usize].range();
                    for chunk in &dataset.chunks {
                        let range = chunk.range_to_merge();
                        prop_assert!(place.start <= range.start && range.end <= place.end);
                    }
                    let rows: usize = dataset.runs.iter().map(|(_, rows)| *rows as usize).sum();
                    prop_assert_eq!(rows, dataset.rows.len());
                }
            }
            let whole = toc().encode();
            prop_assert!(Toc::decode(&whole[..cut.index(whole.len())], 1000, ROLLUPS_VERSION).is_err());
        }
    }
}
