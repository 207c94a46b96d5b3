//! Which function names the tables of a service have, in about eight bits a name: who looks for one function skips the services without it.
//!
//! A filter is a Golomb-coded set, as in [BIP 158](https://github.com/bitcoin/bips/blob/master/bip-0158.mediawiki): the hashes of `n` names
//! become numbers below `n` times 64, which are sorted and said as differences in Golomb-Rice code. A name that is not there is taken
//! for one that is about once in 64 times; the other way round it never happens. Of all that are known for such sets it takes the fewest bits
//! but one (binary fuse filters), fits any number of names, and needs no luck to be made. To look for a name all differences are read, which for some
//! thousand names takes some ten microseconds.
//!
//! Names are those that are shown: of functions that have one, what is not UTF-8 as U+FFFD. What is shown of frames without a function, and
//! the functions of profiles that are kept as they were sent, are in no filter.

use std::ops::Range;

use afterglow_profile::frames;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::error::Error;
use super::reader::Block;
use super::symbols::Symbols;
use super::toc::{Chunk, Section, kind};
use super::varint::{self, Cursor, Damage};

/// How many bits of a difference are said as they are. A name that is not there is found with a probability of two to the power of minus this.
const REMAINDER_BITS: u32 = 6;

/// What the filters of a block are called where they are damaged.
const PART: &str = "filters of functions";

/// The filters of a block: one for each of its tables, in their order.
#[derive(Debug)]
pub(crate) struct Filters {
    bytes: Bytes,
    of_tables: Vec<Filter>,
}

/// The set of some names, which lies in the bytes of the filters.
#[derive(Debug)]
struct Filter {
    names: u64,
    bits: Range<usize>,
}

/// Appends the filter of the names of all functions of `symbols`.
pub(crate) fn put(symbols: &Symbols, out: &mut Vec<u8>) {
    let mut names: Vec<u32> = symbols.functions.iter().map(|function| function.name).collect();
    names.sort_unstable();
    names.dedup();
    let shown = names.into_iter().map(|name| symbols.strings.get(name)).filter(|name| !name.is_empty());
    let mut hashes: Vec<u64> = shown.map(|name| hash(&String::from_utf8_lossy(name))).collect();
    // Names of different bytes may be shown alike, or stand twice.
    hashes.sort_unstable();
    hashes.dedup();
    let names = hashes.len() as u64;
    let mut bits = Bits::default();
    let mut last = 0;
    // In the order of the hashes, numbers ascend as well.
    for number in hashes.into_iter().map(|hash| place(hash, names)) {
        bits.put(number - last);
        last = number;
    }
    varint::put(out, names);
    varint::put_bytes(out, &bits.bytes);
}

fn hash(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// Returns the number of a name with this hash among so many.
fn place(hash: u64, names: u64) -> u64 {
    ((u128::from(hash) * u128::from(names << REMAINDER_BITS)) >> u64::BITS) as u64
}

/// Bits one after the other, the lowest of each byte first.
#[derive(Debug, Default)]
struct Bits {
    bytes: Vec<u8>,
    /// How many of the last byte are taken; 0 where it is full.
    taken: u32,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.taken == 0 {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << self.taken;
        }
        self.taken = (self.taken + 1) % u8::BITS;
    }

    /// Appends a number: how often two to the power of [`REMAINDER_BITS`] goes into it as so many ones and a zero, then what is left.
    fn put(&mut self, number: u64) {
        (0..number >> REMAINDER_BITS).for_each(|_| self.push(true));
        self.push(false);
        (0..REMAINDER_BITS).for_each(|bit| self.push(number >> bit & 1 == 1));
    }
}

/// Reads what [`Bits`] holds.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn bit(&mut self) -> Result<bool, Damage> {
        let byte = self.bytes.get(self.at / 8).ok_or(Damage("ends too early"))?;
        let bit = byte >> (self.at % 8) & 1 == 1;
        self.at += 1;
        Ok(bit)
    }

    fn number(&mut self) -> Result<u64, Damage> {
        let mut number = 0;
        while self.bit()? {
            number += 1 << REMAINDER_BITS;
        }
        for bit in 0..REMAINDER_BITS {
            number |= u64::from(self.bit()?) << bit;
        }
        Ok(number)
    }
}

// === impl Filters ===

impl Filters {
    /// Reads the filters of so many tables.
    ///
    /// # Errors
    /// No writer wrote them.
    pub(crate) fn read(bytes: Bytes, tables: usize) -> Result<Self, Damage> {
        let from = &mut Cursor::new(&bytes);
        let mut of_tables = Vec::with_capacity(tables.min(bytes.len()));
        for _ in 0..tables {
            let names = from.varint()?;
            let length = from.bytes()?.len();
            // Each name takes a bit more than its remainder at least.
            if names.checked_mul(u64::from(REMAINDER_BITS) + 1).is_none_or(|bits| bits > length as u64 * 8) {
                return Err(Damage("a count is larger than what follows"));
            }
            of_tables.push(Filter { names, bits: from.position() - length..from.position() });
        }
        from.finish()?;
        Ok(Self { bytes, of_tables })
    }

    /// Returns whether the tables with this index may have a function that is shown as `name`.
    ///
    /// # Errors
    /// There are no such tables, or no writer wrote their filter.
    pub(crate) fn may_have(&self, tables: u32, name: &str) -> Result<bool, Damage> {
        let filter = self.of_tables.get(tables as usize).ok_or(Damage("are fewer than the tables"))?;
        let wanted = place(hash(name), filter.names);
        let mut from = Reader { bytes: &self.bytes[filter.bits.clone()], at: 0 };
        let mut number = 0u64;
        for _ in 0..filter.names {
            number = number.checked_add(from.number()?).ok_or(Damage("a number is out of range"))?;
            if number >= wanted {
                return Ok(number == wanted);
            }
        }
        Ok(false)
    }
}

// === impl Block ===

impl Block {
    /// Returns whether profiles of dataset `dataset` may have a function that is shown as `name`. It says no where its service has none in
    /// this block, but for one in 64 of such; it says yes where the block has no filters, where they cannot be read, and where
    /// a profile of the dataset is kept as it was sent.
    ///
    /// Costs one GET of some KiB, the first time, where the block has filters.
    pub async fn may_have_function(&self, dataset: usize, name: &str) -> bool {
        let Some(of) = self.toc().datasets().get(dataset) else { return true };
        if frames::may_be_no_function(name) || of.chunks.iter().any(|chunk| matches!(chunk, Chunk::Blob(_))) {
            return true;
        }
        let may_have = match self.filters().await {
            Ok(None) => return true,
            Ok(Some(filters)) => filters.may_have(of.symbols, name).map_err(|damage| self.corrupt_filters(damage)),
            Err(error) => Err(error),
        };
        may_have.unwrap_or_else(|error| {
            tracing::warn!(%error, "profiles are read that a filter might have spared");
            true
        })
    }

    /// Compares the filters with the tables, and returns how many there are. One GET for each table.
    ///
    /// # Errors
    /// The object cannot be read, is damaged, or a filter is not that of its tables.
    pub async fn check_filters(&self) -> Result<usize, Error> {
        let Some(section) = self.filters_section() else { return Ok(0) };
        let filters = self.read_filters(section).await?;
        let mut made = Vec::new();
        for (tables, at) in self.toc().symbols.iter().zip(0..) {
            let Some(dataset) = self.toc().datasets().iter().find(|dataset| dataset.symbols == at) else { continue };
            let symbols = self.symbols(dataset, self.read(tables.range()).await?)?;
            put(&symbols, &mut made);
        }
        if *made != *filters.bytes {
            return Err(self.corrupt_filters(Damage("say other functions than the tables")));
        }
        Ok(filters.of_tables.len())
    }

    /// Returns where the filters lie, if there are any that this code reads.
    pub(super) fn filters_section(&self) -> Option<Section> {
        self.toc().sections().iter().copied().find(|section| section.kind == kind::FUNCTIONS && section.version == 1)
    }

    /// Reads and checks the filters.
    pub(super) async fn read_filters(&self, section: Section) -> Result<Filters, Error> {
        let bytes = self.read(section.range()).await?;
        if crc32c::crc32c(&bytes) != section.crc {
            return Err(self.corrupt_filters(Damage("have a wrong checksum")));
        }
        Filters::read(bytes, self.toc().symbols.len()).map_err(|damage| self.corrupt_filters(damage))
    }

    fn corrupt_filters(&self, damage: Damage) -> Error {
        Error::corrupt(self.path(), PART, damage)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::symbols::Function;

    /// Returns tables with a function of each of these names.
    fn tables<'a>(names: impl IntoIterator<Item = &'a str>) -> Symbols {
        let mut symbols = Symbols::default();
        symbols.strings.push(b"");
        for name in names {
            symbols.strings.push(name.as_bytes());
            symbols.functions.push(Function { name: symbols.strings.len() as u32 - 1, ..Function::default() });
        }
        symbols
    }

    fn filters(tables: &[Symbols]) -> Result<Filters, Damage> {
        let mut bytes = Vec::new();
        tables.iter().for_each(|symbols| put(symbols, &mut bytes));
        Filters::read(bytes.into(), tables.len())
    }

    proptest! {
        #[test]
        fn what_is_there_is_found(
            tables_of in proptest::collection::vec(proptest::collection::vec("[a-c]{0,3}|\\PC{0,8}", 0..60), 0..4),
            change in any::<(proptest::sample::Index, u8)>(),
        ) {
            let of: Vec<_> = tables_of.iter().map(|names| tables(names.iter().map(String::as_str))).collect();
            let sound = filters(&of).expect("these are sound");
            for (names, at) in tables_of.iter().zip(0..) {
                for name in names.iter().filter(|name| !name.is_empty()) {
                    prop_assert_eq!(sound.may_have(at, name), Ok(true));
                }
            }
            prop_assert!(sound.may_have(of.len() as u32, "a").is_err());
            // What nobody wrote is refused or says something, in a time that its length bounds.
            let mut bytes = sound.bytes.to_vec();
            if !bytes.is_empty() {
                let at = change.0.index(bytes.len());
                bytes[at] ^= change.1;
            }
            if let Ok(filters) = Filters::read(bytes.into(), of.len()) {
                for at in 0..of.len() as u32 {
                    _ = filters.may_have(at, "main");
                }
            }
        }
    }

    #[test]
    fn a_name_takes_eight_bits_and_few_are_found_that_are_not_there() {
        const NAMES: usize = 5_000;
        let names: Vec<String> = (0..NAMES).map(|n| format!("example.com/service/package.Function{n}")).collect();
        let filters = filters(&[tables(names.iter().map(String::as_str))]).expect("these are sound");
        let bits = filters.bytes.len() * 8;
        assert!(bits < 8 * NAMES, "{bits} bits for {NAMES} names");
        let found = (NAMES..21 * NAMES).filter(|n| {
            filters.may_have(0, &format!("example.com/service/package.Function{n}")).expect("these are sound")
        });
        // One in 64 is 1,562 of these.
        let found = found.count();
        assert!((1_300..1_850).contains(&found), "{found} of {} are found", 20 * NAMES);
    }

    #[test]
    fn names_are_those_that_are_shown() {
        let mut symbols = tables(["work"]);
        symbols.strings.push(b"a\xff");
        symbols.functions.push(Function { name: 2, ..Function::default() });
        symbols.functions.push(Function { name: 0, ..Function::default() });
        let filters = filters(&[symbols]).expect("these are sound");
        assert_eq!(filters.of_tables[0].names, 2);
        assert_eq!(filters.may_have(0, "a\u{fffd}"), Ok(true));
    }
}
