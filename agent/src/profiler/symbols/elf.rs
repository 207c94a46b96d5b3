//! An ELF file on disk, of which only what is asked for is read.
//!
//! A [`Section`] is read through a [`SectionReader`], page by page, and holds a few pages at a time: so a look into some hundred megabytes
//! of debug information costs a bounded amount of memory, whatever the program, and all of it is given back with the [`Elf`].
//!
//! What is not a 64-bit little-endian file, and sections that are compressed, are as good as not there.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gimli::{LittleEndian, Reader, ReaderOffsetId};

use crate::profiler::little_endian::{u16_at, u32_at, u64_at};

/// What is read at once: large enough that most of a small unit comes with it, small enough for strings here and there.
const PAGE_BYTES: usize = 16 << 10;

/// How many pages of a section are held.
const PAGES_MAX: usize = 16;

/// The most section and program headers that are believed.
const HEADERS_MAX: u16 = 4096;

/// `PT_LOAD`: what is mapped.
const PT_LOAD: u32 = 1;

/// `SHT_NOBITS`: a section without content, as those of a program whose debug information was split off.
const SHT_NOBITS: u32 = 8;

/// `SHF_COMPRESSED`.
const SHF_COMPRESSED: u64 = 1 << 11;

/// An entry of a symbol table.
const SYMBOL_BYTES: u64 = 24;

/// `STT_FUNC` and `STT_GNU_IFUNC`.
const FUNCTION_TYPES: [u8; 2] = [2, 10];

/// An open file.
#[derive(Debug)]
pub(super) struct Elf {
    file: Arc<File>,
    loads: Vec<Load>,
    sections: Vec<(String, Extent)>,
}

/// A part of the file that is mapped.
#[derive(Clone, Copy, Debug)]
struct Load {
    offset: u64,
    address: u64,
    bytes: u64,
}

/// A part of the file.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    offset: u64,
    bytes: u64,
}

/// A function of a symbol table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// Where it begins.
    pub(super) address: u64,
    /// Its length in bytes; 0 where the compiler did not say.
    pub(super) bytes: u64,
    name: u32,
}

/// The functions of a file, in the order of its table, and their names.
#[derive(Debug)]
pub(super) struct Symbols {
    entries: SectionReader,
    names: SectionReader,
}

/// A part of a section; clones read on their own.
#[derive(Clone)]
pub(super) struct SectionReader {
    section: Arc<Section>,
    /// The page that was read last, and where it begins in the section.
    page: Arc<[u8]>,
    page_at: u64,
    at: u64,
    end: u64,
}

struct Section {
    file: Arc<File>,
    extent: Extent,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    held: Vec<(u64, Arc<[u8]>)>,
    /// Which is given up next.
    next: usize,
}

// === impl Elf ===

impl Elf {
    /// Opens a file and reads its headers.
    ///
    /// # Errors
    /// It cannot be read, or is no ELF file of this kind.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = Arc::new(File::open(path)?);
        let mut header = [0u8; 64];
        file.read_exact_at(&mut header, 0)?;
        if header[..6] != *b"\x7fELF\x02\x01" {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let [programs, sections] = [(32, 54, 56), (40, 58, 60)].map(|(offset, size, count)| {
            let count = u16_at(&header, count).min(HEADERS_MAX);
            (u64_at(&header, offset), u64::from(u16_at(&header, size)), u64::from(count))
        });
        let loads = headers::<56>(&file, programs)?
            .iter()
            .filter(|program| u32_at(&program[..], 0) == PT_LOAD)
            .map(|program| Load {
                offset: u64_at(program, 8),
                address: u64_at(program, 16),
                bytes: u64_at(program, 32),
            })
            .collect();
        let headers = headers::<64>(&file, sections)?;
        let extent = |header: &[u8; 64]| Extent { offset: u64_at(header, 24), bytes: u64_at(header, 32) };
        let names = headers.get(usize::from(u16_at(&header, 62))).map(extent).unwrap_or_default();
        let names = SectionReader::new(&file, names);
        let mut sections = Vec::new();
        for header in &headers {
            let is_plain = u32_at(header, 4) != SHT_NOBITS && u64_at(header, 8) & SHF_COMPRESSED == 0;
            if let Some(name) = names.text_at(u32_at(header, 0)).filter(|_| is_plain) {
                sections.push((name, extent(header)));
            }
        }
        Ok(Self { file, loads, sections })
    }

    /// Returns the address that the file itself has for what lies at this offset in it.
    pub(super) fn address_of(&self, offset: u64) -> Option<u64> {
        let load = self.loads.iter().find(|load| (load.offset..load.offset + load.bytes).contains(&offset))?;
        Some(load.address + (offset - load.offset))
    }

    /// Returns a section; an empty one where there is none of this name.
    pub(super) fn section(&self, name: &str) -> SectionReader {
        let extent = self.sections.iter().find(|(known, _)| known == name).map(|(_, extent)| *extent);
        SectionReader::new(&self.file, extent.unwrap_or_default())
    }

    /// Returns the functions of the fullest symbol table there is.
    pub(super) fn symbols(&self) -> Symbols {
        let has = |name: &str| self.sections.iter().any(|(known, extent)| known == name && extent.bytes > 0);
        let (entries, names) = if has(".symtab") { (".symtab", ".strtab") } else { (".dynsym", ".dynstr") };
        Symbols { entries: self.section(entries), names: self.section(names) }
    }
}

/// Reads a table of headers, of each the part that is looked at.
fn headers<const N: usize>(file: &File, (offset, size, count): (u64, u64, u64)) -> io::Result<Vec<[u8; N]>> {
    let mut headers = Vec::new();
    for index in 0..count {
        let mut header = [0u8; N];
        file.read_exact_at(&mut header, offset.saturating_add(index * size))?;
        headers.push(header);
    }
    Ok(headers)
}

// === impl Symbols ===

impl Symbols {
    /// Returns the name of a function.
    pub(super) fn name(&self, symbol: &Symbol) -> Option<String> {
        self.names.text_at(symbol.name)
    }
}

impl Iterator for Symbols {
    type Item = Symbol;

    fn next(&mut self) -> Option<Symbol> {
        while self.entries.len() >= SYMBOL_BYTES {
            let mut entry = [0u8; SYMBOL_BYTES as usize];
            self.entries.read_slice(&mut entry).ok()?;
            // A symbol of section 0 is another file's.
            if FUNCTION_TYPES.contains(&(entry[4] & 0xf)) && u16_at(&entry, 6) != 0 {
                return Some(Symbol { name: u32_at(&entry, 0), address: u64_at(&entry, 8), bytes: u64_at(&entry, 16) });
            }
        }
        None
    }
}

// === impl SectionReader ===

impl SectionReader {
    fn new(file: &Arc<File>, extent: Extent) -> Self {
        let section = Section { file: Arc::clone(file), extent, pages: Mutex::default() };
        Self { section: Arc::new(section), page: Arc::default(), page_at: 0, at: 0, end: extent.bytes }
    }

    /// Returns the text that begins at an offset and ends with a zero.
    fn text_at(&self, offset: u32) -> Option<String> {
        let mut text = self.clone();
        text.skip(offset.into()).ok()?;
        let bytes = text.read_null_terminated_slice().ok()?;
        Some(bytes.to_string_lossy().ok()?.into_owned())
    }

    /// Returns what follows in the page that the next byte lies in; empty at the end.
    fn here(&mut self) -> gimli::Result<&[u8]> {
        let page_end = self.page_at + self.page.len() as u64;
        if !(self.page_at..page_end).contains(&self.at) && self.at < self.end {
            let index = self.at / PAGE_BYTES as u64;
            self.page = self.section.page(index)?;
            self.page_at = index * PAGE_BYTES as u64;
        }
        let start = (self.at - self.page_at) as usize;
        let most = (self.end - self.at).min(PAGE_BYTES as u64) as usize;
        let rest = self.page.get(start..).unwrap_or_default();
        Ok(&rest[..rest.len().min(most)])
    }

    fn end_of_file<T>(&self) -> gimli::Result<T> {
        Err(gimli::Error::UnexpectedEof(self.offset_id()))
    }
}

impl Reader for SectionReader {
    type Endian = LittleEndian;
    type Offset = u64;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    fn len(&self) -> u64 {
        self.end - self.at
    }

    fn empty(&mut self) {
        self.end = self.at;
    }

    fn truncate(&mut self, len: u64) -> gimli::Result<()> {
        if len > self.len() {
            return self.end_of_file();
        }
        self.end = self.at + len;
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> u64 {
        self.at - base.at
    }

    fn offset_id(&self) -> ReaderOffsetId {
        ReaderOffsetId(self.section.extent.offset + self.at)
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<u64> {
        let at = id.0.checked_sub(self.section.extent.offset)?;
        (self.at..=self.end).contains(&at).then(|| at - self.at)
    }

    fn find(&self, byte: u8) -> gimli::Result<u64> {
        let mut from = self.clone();
        loop {
            let here = from.here()?;
            if here.is_empty() {
                return self.end_of_file();
            }
            if let Some(found) = here.iter().position(|b| *b == byte) {
                return Ok(from.at - self.at + found as u64);
            }
            from.at += here.len() as u64;
        }
    }

    fn skip(&mut self, len: u64) -> gimli::Result<()> {
        if len > self.len() {
            return self.end_of_file();
        }
        self.at += len;
        Ok(())
    }

    fn split(&mut self, len: u64) -> gimli::Result<Self> {
        let mut first = self.clone();
        first.truncate(len)?;
        self.skip(len)?;
        Ok(first)
    }

    fn to_slice(&self) -> gimli::Result<Cow<'_, [u8]>> {
        let mut bytes = vec![0; usize::try_from(self.len()).map_err(|_| gimli::Error::UnsupportedOffset)?];
        self.clone().read_slice(&mut bytes)?;
        Ok(bytes.into())
    }

    fn to_string(&self) -> gimli::Result<Cow<'_, str>> {
        let text = String::from_utf8(self.to_slice()?.into_owned()).map_err(|_| gimli::Error::BadUtf8)?;
        Ok(text.into())
    }

    fn to_string_lossy(&self) -> gimli::Result<Cow<'_, str>> {
        Ok(String::from_utf8_lossy(&self.to_slice()?).into_owned().into())
    }

    fn read_slice(&mut self, mut buf: &mut [u8]) -> gimli::Result<()> {
        if buf.len() as u64 > self.len() {
            return self.end_of_file();
        }
        while !buf.is_empty() {
            let here = self.here()?;
            let count = here.len().min(buf.len());
            if count == 0 {
                return self.end_of_file();
            }
            let (now, later) = buf.split_at_mut(count);
            now.copy_from_slice(&here[..count]);
            self.at += count as u64;
            buf = later;
        }
        Ok(())
    }
}

impl std::fmt::Debug for SectionReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SectionReader").field("at", &self.at).field("end", &self.end).finish_non_exhaustive()
    }
}

// === impl Section ===

impl Section {
    /// Returns a page, which is short at the end of the section.
    fn page(&self, index: u64) -> gimli::Result<Arc<[u8]>> {
        let mut pages = self.pages();
        if let Some((_, page)) = pages.held.iter().find(|(held, _)| *held == index) {
            return Ok(Arc::clone(page));
        }
        let at = index * PAGE_BYTES as u64;
        let mut bytes = vec![0; self.extent.bytes.saturating_sub(at).min(PAGE_BYTES as u64) as usize];
        self.file.read_exact_at(&mut bytes, self.extent.offset.saturating_add(at)).map_err(|_| gimli::Error::Io)?;
        let page: Arc<[u8]> = bytes.into();
        let entry = (index, Arc::clone(&page));
        if pages.held.len() < PAGES_MAX {
            pages.held.push(entry);
        } else {
            let next = pages.next;
            pages.held[next] = entry;
            pages.next = (next + 1) % PAGES_MAX;
        }
        Ok(page)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A section of three pages and a bit, somewhere in a file.
    fn section() -> SectionReader {
        let mut file = tempfile::tempfile().expect("a temporary file");
        let bytes: Vec<u8> =
            (0..PAGE_BYTES * 3 + 10).map(|i| if i == PAGE_BYTES + 5 { 0 } else { (i % 251) as u8 | 1 }).collect();
        file.write_all(b"head").expect("room");
        file.write_all(&bytes).expect("room");
        file.write_all(b"\0tail").expect("room");
        SectionReader::new(&Arc::new(file), Extent { offset: 4, bytes: bytes.len() as u64 })
    }

    #[test]
    fn bytes_are_read_over_the_edges_of_pages_and_not_beyond_the_section() {
        let mut reader = section();
        assert_eq!(reader.find(0), Ok(PAGE_BYTES as u64 + 5));
        reader.skip(PAGE_BYTES as u64 - 1).expect("within");
        let mut two = reader.split(2).expect("within");
        let expected = [PAGE_BYTES - 1, PAGE_BYTES].map(|i| (i % 251) as u8 | 1);
        assert_eq!(two.read_u16(), Ok(u16::from_le_bytes(expected)));
        assert!(two.is_empty() && two.read_u8().is_err());
        assert_eq!(reader.lookup_offset_id(two.offset_id()), Some(0));
        reader.skip(4).expect("within");
        assert_eq!(reader.read_u8(), Ok(0));
        assert!(reader.find(0).is_err(), "the zero behind the section is not its own");
        assert_eq!(reader.to_slice().expect("it is there").len(), PAGE_BYTES * 2 + 4);
        assert!(reader.skip(PAGE_BYTES as u64 * 2 + 5).is_err());
    }

    #[test]
    fn no_more_pages_are_held_than_may_be() {
        let bytes = (PAGES_MAX + 5) * PAGE_BYTES;
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(bytes as u64).expect("room");
        let mut reader = SectionReader::new(&Arc::new(file), Extent { offset: 0, bytes: bytes as u64 });
        assert_eq!(reader.to_slice().expect("it is there").len(), bytes);
        assert_eq!(reader.section.pages().held.len(), PAGES_MAX);
        assert_eq!(reader.read_u8(), Ok(0), "what was given up is read again");
    }

    #[test]
    fn what_is_no_elf_file_is_refused() {
        assert!(Elf::open(Path::new("Cargo.toml")).is_err());
        assert!(Elf::open(Path::new("/nowhere")).is_err());
    }
}
