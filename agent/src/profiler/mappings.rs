//! Which files this process has mapped to execute, from `/proc/self/maps`, and what identifies their builds.
//!
//! Addresses of a profile mean something to `pprof` on another machine only with the mapping they lie in: start, offset in the file
//! and GNU's build id. Where there is no `/proc` there are no mappings, and profiles rely on names alone.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::little_endian::{u16_at, u32_at, u64_at};

/// A note's type that holds the build id (glibc: elf.h).
const NT_GNU_BUILD_ID: u32 = 3;

/// The type of a program header that locates notes.
const PT_NOTE: u32 = 4;

/// The most of a note segment that is read: real ones have some hundred bytes.
const NOTES_BYTES_MAX: u64 = 64 << 10;

/// A file mapped to execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// The first address.
    pub(super) start: u64,
    /// The address after the last.
    pub(super) limit: u64,
    /// What `start` is in the file.
    pub(super) offset: u64,
    /// The path, or a name in brackets such as `[vdso]`.
    pub(super) file: String,
}

/// Returns the executable mappings that have a name, the program itself first, then by address.
pub(super) fn of_this_process() -> Vec<Mapping> {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return Vec::new() };
    let program = std::fs::read_link("/proc/self/exe").ok().and_then(|path| path.to_str().map(in_place));
    let mut mappings = parse(&maps);
    mappings.sort_by_key(|m| (program.as_ref() != Some(&m.file), m.start));
    mappings
}

/// Parses lines such as `55d0-55e0 r-xp 00001000 fd:00 1234   /usr/bin/program` (man 5 proc_pid_maps).
fn parse(maps: &str) -> Vec<Mapping> {
    let line = |line: &str| {
        let mut fields = line.splitn(6, ' ');
        let (start, limit) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?;
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let file = fields.nth(2)?.trim();
        let executable = permissions.as_bytes().get(2) == Some(&b'x');
        (executable && !file.is_empty()).then_some(Mapping {
            start: u64::from_str_radix(start, 16).ok()?,
            limit: u64::from_str_radix(limit, 16).ok()?,
            offset,
            file: in_place(file),
        })
    };
    maps.lines().filter_map(line).collect()
}

/// Returns the path that a file had before it was replaced or removed: the kernel says so behind it.
fn in_place(path: &str) -> String {
    path.strip_suffix(" (deleted)").unwrap_or(path).to_owned()
}

/// Returns the mapping that `address` lies in.
pub(super) fn find(mappings: &[Mapping], address: u64) -> Option<usize> {
    mappings.iter().position(|m| m.start <= address && address < m.limit)
}

/// Reads build ids, each file once.
#[derive(Debug, Default)]
pub(super) struct BuildIds(HashMap<String, String>);

impl BuildIds {
    /// Returns the build id of a file as hexadecimal digits, empty where it has none.
    pub(super) fn get(&mut self, file: &str) -> &str {
        // Entered by `contains_key`, not `entry`: the path is owned only the first time.
        if !self.0.contains_key(file) {
            let id = read_build_id(file).ok().flatten().unwrap_or_default();
            self.0.insert(file.to_owned(), id);
        }
        &self.0[file]
    }
}

/// Reads the build id out of a 64-bit little-endian ELF file; others have none for us.
fn read_build_id(path: &str) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    let mut header = [0u8; 64];
    file.read_exact_at(&mut header, 0)?;
    if header[..6] != *b"\x7fELF\x02\x01" {
        return Ok(None);
    }
    let (table, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    for i in 0..u64::from(count) {
        let mut program = [0u8; 56];
        file.read_exact_at(&mut program, table.saturating_add(i * u64::from(size)))?;
        if u32_at(&program, 0) != PT_NOTE {
            continue;
        }
        let mut notes = vec![0u8; u64_at(&program, 32).min(NOTES_BYTES_MAX) as usize];
        file.read_exact_at(&mut notes, u64_at(&program, 8))?;
        if let Some(id) = find_build_id(&notes) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Walks notes: lengths of name and description, type, then both, each padded to four bytes.
fn find_build_id(mut notes: &[u8]) -> Option<String> {
    loop {
        let (head, rest) = notes.split_at_checked(12)?;
        let (name_len, len, kind) = (u32_at(head, 0) as usize, u32_at(head, 4) as usize, u32_at(head, 8));
        let (name, rest) = rest.split_at_checked(name_len.next_multiple_of(4))?;
        let (description, rest) = rest.split_at_checked(len.next_multiple_of(4))?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return Some(description[..len].iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_executable_mappings_are_kept() {
        let maps = "\
55d0c000-55d0e000 r--p 00000000 fd:00 131 /usr/bin/my program
55d0e000-55d10000 r-xp 00002000 fd:00 131 /usr/bin/my program
7f000000-7f001000 rwxp 00000000 00:00 0 
7f100000-7f200000 r-xp 00028000 fd:00 9                      /usr/lib/libc.so.6 (deleted)
7ffd0000-7ffd2000 r-xp 00000000 00:00 0                      [vdso]
";
        let mappings = parse(maps);
        let files: Vec<_> = mappings.iter().map(|m| m.file.as_str()).collect();
        assert_eq!(files, ["/usr/bin/my program", "/usr/lib/libc.so.6", "[vdso]"]);
        assert_eq!((mappings[0].start, mappings[0].limit, mappings[0].offset), (0x55d0_e000, 0x55d1_0000, 0x2000));
        assert_eq!(find(&mappings, 0x55d0_ffff), Some(0));
        assert_eq!(find(&mappings, 0x55d1_0000), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_function_of_this_program_lies_in_its_first_mapping() {
        let mappings = of_this_process();
        let address = of_this_process as fn() -> Vec<Mapping> as usize as u64;
        assert_eq!(find(&mappings, address), Some(0), "{mappings:x?}");
    }

    #[test]
    fn a_build_id_is_found_behind_another_note() {
        let mut notes = Vec::new();
        for (name, kind, description) in [(&b"GNU\0"[..], 1u32, &b"1234"[..]), (b"GNU\0", 3, b"\xab\xcd\x01")] {
            notes.extend((name.len() as u32).to_le_bytes());
            notes.extend((description.len() as u32).to_le_bytes());
            notes.extend(kind.to_le_bytes());
            notes.extend(name);
            notes.extend(description);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(find_build_id(&notes).as_deref(), Some("abcd01"));
        assert_eq!(find_build_id(&notes[..notes.len() - 4]), None);
        assert_eq!(find_build_id(&[]), None);
    }
}
