//! The readers of this crate's own bytes, each alone and without the checksum that stands before it, for fuzzing.
//!
//! A checksum keeps what rotted from a reader. What was written wrong, or by somebody who computes checksums, gets past it, and must be
//! refused without a panic, an endless loop or memory beyond a small multiple of what is there. Each function returns whether
//! its reader took the bytes.

use crate::block::Toc;
use crate::block::chunk::{Profiles, Unpacked};
use crate::block::columns::{Multiple, Samples};
use crate::block::filters::Filters;
use crate::block::symbols::frames;
use crate::block::values::Form;
use crate::commit::Commit;
use crate::commit::snapshot::Head;

/// How many frames the tables of a service have at most; older versions leave the last ones empty.
pub const TABLE_FRAMES: usize = frames::FRAMES;

/// Where the table of contents lies in the block that is read: behind all its sections.
const TOC_OFFSET: u64 = 1 << 40;

/// The numbers of the label sets of the service whose chunk is read.
const NUMBERS: [i64; 4] = [0, 16, 1024, i64::MAX];

/// The forms of the value types of the chunk that is read, again and again.
const FORMS: [Form; 5] = [
    Form::Plain,
    Form::Multiple(Multiple { of: 0, factor: 10_000_000 }),
    Form::Product { of: 0 },
    Form::Seen { rate: 512 << 10 },
    Form::Bytes { of: 0, rate: 512 << 10 },
];

/// Reads the table of contents of a block of `version`.
pub fn table_of_contents(bytes: &[u8], version: u32) -> bool {
    Toc::decode(bytes, TOC_OFFSET, version).is_ok()
}

/// Reads the symbol tables of a service, as a section of `version` has them.
pub fn tables(frames: &[Vec<u8>; TABLE_FRAMES], version: u32) -> bool {
    frames::decode(frames, version, true).is_ok()
}

/// Reads the columns of all `profiles` of a chunk with so many value types, and what only exact copies of them need.
pub fn columns(profiles: usize, stacks: Vec<u8>, labels: Vec<u8>, values: Vec<Vec<u8>>, meta: Vec<u8>) -> bool {
    let types = (0..values.len()).collect();
    let values = values.into_iter().zip(FORMS.into_iter().cycle()).collect();
    let chunk = Unpacked { profiles, stacks, labels, values, types, meta };
    let Ok(mut read) = Profiles::new(&chunk, &NUMBERS) else { return false };
    let mut samples = Samples::default();
    (0..profiles).all(|position| read.read(position, &mut samples).is_ok_and(|head| read.meta(position, &head).is_ok()))
}

/// Reads the filters of functions of so many tables, and looks for a name in each.
pub fn filters(bytes: Vec<u8>, tables: u32) -> bool {
    let Ok(filters) = Filters::read(bytes.into(), tables as usize) else { return false };
    (0..tables).all(|at| filters.may_have(at, "main").is_ok())
}

/// Reads a commit.
///
/// # Panics
/// It is taken, but what is written for it is taken for another one.
pub fn commit(bytes: &[u8]) -> bool {
    let Ok(commit) = Commit::decode(bytes) else { return false };
    // What is written is in one order, whichever it was read in.
    let written = commit.encode();
    assert_eq!(Commit::decode(&written).map(|commit| commit.encode()), Ok(written));
    true
}

/// Reads the head of a snapshot.
pub fn snapshot(bytes: &[u8]) -> bool {
    Head::decode(bytes).is_ok()
}
