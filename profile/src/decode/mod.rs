//! From the bytes of a pprof protobuf to a [`Profile`], checked.
//!
//! One look at the top-level fields counts what there is, so that limits refuse before memory is taken and tables have their final
//! size; then one pass reads everything, strings borrowed; then references, which mostly point forwards, are turned from ids into
//! indices. There is no tree of messages in between, and memory stays within a small multiple of the input.
//!
//! Accepted is what the protobuf rules allow (unknown fields, overlong varints, scalars twice of which the last wins, packed or not)
//! and google/pprof's `CheckValid` plus the limits do; references must be defined. What cannot be written again from values clears
//! `Layout::exact`. Nothing is repaired, cut or dropped in silence.
//!
//! Sources: google/pprof `proto/profile.proto`, `profile/profile.go` (`CheckValid`).

mod ids;
mod messages;
mod packed;
mod shapes;
mod wire;

#[cfg(test)]
mod tests;

use crate::error::Error;
use crate::limits::Limits;
use crate::model::Profile;
use messages::Decoder;
use wire::{Reader, Result};

/// The highest field number of a profile; all below are in use, too.
const PROFILE_FIELD_MAX: u32 = 15;

/// Decodes and checks the protobuf of a profile, which must not be compressed. Strings are borrowed from `bytes`.
///
/// # Errors
/// An [`Error`] that names the first thing found wrong, or the limit that is exceeded. Unknown fields, invalid UTF-8, negative values
/// and profiles without samples are no errors.
pub fn decode<'a>(bytes: &'a [u8], limits: &Limits) -> std::result::Result<Profile<'a>, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    // Positions in the tables are 32 bits wide, and no table has more entries than the input has bytes.
    if bytes.len() as u64 > u64::from(u32::MAX) {
        return Err(Error::Inflated { limit: u32::MAX.into() });
    }
    Counts::survey(bytes, limits)
        .and_then(|counts| {
            let mut decoder = Decoder::new(counts, limits);
            decoder.profile(Reader::new(bytes))?;
            decoder.finish()
        })
        .map_err(|error| *error)
}

// === Counts ===

/// How many messages of each kind there are.
struct Counts {
    sample_types: usize,
    samples: usize,
    mappings: usize,
    locations: usize,
    functions: usize,
    strings: usize,
    /// Runs of top-level fields with the same key.
    runs: usize,
    /// Bytes of all samples together.
    sample_bytes: usize,
}

impl Counts {
    /// Counts the top-level fields, without a look into them.
    fn survey(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let mut by_field = [0usize; 16];
        let (mut runs, mut last, mut sample_bytes) = (0, 0, 0);
        while let Some(key) = reader.key() {
            runs += usize::from(key != last);
            last = key;
            match key {
                0x12 => sample_bytes += reader.slice()?.len(),
                0x0a | 0x1a | 0x22 | 0x2a | 0x32 | 0x5a | 0x6a => drop(reader.slice()?),
                0x38 | 0x40 | 0x48 | 0x50 | 0x60 | 0x68 | 0x70 | 0x78 => drop(reader.varint()?),
                _ => reader.skip(|number| number <= PROFILE_FIELD_MAX)?,
            }
            by_field[usize::from(key >> 3) & 15] += 1;
        }
        let [_, sample_types, samples, mappings, locations, functions, strings, ..] = by_field;
        let counts = Self { sample_types, samples, mappings, locations, functions, strings, runs, sample_bytes };
        for (what, value, limit, setting) in [
            ("sample types", sample_types, limits.sample_types_max, "max_sample_types"),
            ("samples", samples, limits.samples_max, "max_samples"),
            ("mappings", mappings, limits.mappings_max, "max_mappings"),
            ("locations", locations, limits.locations_max, "max_locations"),
            ("functions", functions, limits.functions_max, "max_functions"),
            ("strings", strings, limits.strings_max, "max_strings"),
        ] {
            // Indices are 32 bits wide, whatever the limits are set to.
            let limit = limit.min(u64::from(u32::MAX - 1));
            if value as u64 > limit {
                return Err(exceeded(what.to_owned(), value as u64, limit, setting));
            }
        }
        // A location takes a byte at least, so nearly all profiles are known to be within the limit.
        if sample_bytes as u64 > limits.stack_locations_max {
            survey_stacks(bytes, limits)?;
        }
        if strings == 0 {
            return Err(Box::new(Error::StringZero));
        }
        if sample_types == 0 {
            return Err(Box::new(Error::NoSampleType));
        }
        Ok(counts)
    }
}

/// Counts the locations in the stacks of all samples, before anything is taken for them. What else is wrong is for the pass to say that reads
/// everything, and so is a stack that alone is too deep: no more than it may have is kept of it.
fn survey_stacks(bytes: &[u8], limits: &Limits) -> Result<()> {
    let mut reader = Reader::new(bytes);
    let mut locations = 0;
    while let Some(key) = reader.key() {
        if key != 0x12 {
            reader.skip(|_| false)?;
            continue;
        }
        let Ok(depth) = stack_depth(Reader::new(reader.slice()?)) else { return Ok(()) };
        if depth > limits.stack_depth_max {
            return Ok(());
        }
        locations += depth;
        if locations > limits.stack_locations_max {
            return Err(exceeded(
                "locations of stacks".to_owned(),
                locations,
                limits.stack_locations_max,
                STACK_LOCATIONS,
            ));
        }
    }
    Ok(())
}

/// Returns how many locations a sample has.
fn stack_depth(mut sample: Reader<'_>) -> Result<u64> {
    let mut depth = 0;
    while let Some(key) = sample.key() {
        match key {
            0x08 => {
                sample.varint()?;
                depth += 1;
            }
            // Each number ends with the only byte of it that has no bit of continuation.
            0x0a => depth += sample.slice()?.iter().filter(|&&byte| byte < 0x80).count() as u64,
            _ => sample.skip(|_| false)?,
        }
    }
    Ok(depth)
}

/// The setting of the locations in all stacks together.
const STACK_LOCATIONS: &str = "max_stack_locations";

#[cold]
fn exceeded(what: String, value: u64, limit: u64, setting: &'static str) -> Box<Error> {
    Box::new(Error::Limit { what, value, limit, setting })
}
