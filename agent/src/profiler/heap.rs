//! Heap profiles of this process, from jemalloc's own sampling.
//!
//! jemalloc remembers the stack of one allocation in every so many bytes (512 KiB unless `lg_prof_sample` says otherwise) and what of
//! it is still alive. A dump is text (jemalloc(3), "HEAP PROFILE FORMAT"): a line `@ 0x… 0x…` with return addresses, leaf first, then
//! `t*: objects: bytes [..]` with what was sampled, which is scaled here to an estimate of the whole as jeprof does it.

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jemalloc_pprof::PROF_CTL;
use tikv_jemalloc_ctl::profiling;

use super::assemble::{Header, RawSamples, assemble};
use super::symbols::{SourceLine, Symbolizer};
use super::{Error, symbolizer};

/// How the functions of an allocator begin: jemalloc's, C's names for them, and Rust's.
const ALLOCATOR_PATHS: &[&str] = &[
    "_rjem_",
    "je_",
    "prof_",
    "imalloc",
    "do_rallocx",
    "__rust_alloc",
    "__rust_realloc",
    "__rustc::__rust_",
    "__rustc::__rdl_",
    "__rustc::__rg_",
    "__rdl_",
    "__rg_",
    "alloc::alloc::",
    "<alloc::alloc::Global",
    "<tikv_jemallocator::Jemalloc",
    "tikv_jemallocator::",
];

/// Its functions that go by a plain name.
const ALLOCATOR_FUNCTIONS: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "mallocx",
    "rallocx",
    "xallocx",
    "alloc",
];

/// How deep in a stack an allocator is looked for: a program's own function of such a name further up is the program's doing.
const ALLOCATOR_DEPTH_MAX: usize = 16;

/// Returns whether jemalloc is there and was started with profiling.
pub(super) fn is_available() -> bool {
    profiling::prof::read().unwrap_or(false)
}

/// Turns sampling on where it is not yet; allocations from before are not in any profile.
pub(super) async fn activate() -> Result<(), Error> {
    // Asked first: without jemalloc's profiling the control panics instead of being `None`.
    if !is_available() {
        return Err(Error::HeapUnavailable);
    }
    let control = PROF_CTL.as_ref().ok_or(Error::HeapUnavailable)?;
    let mut control = control.lock().await;
    if !control.activated() {
        control.activate().map_err(|error| Error::Heap(error.to_string()))?;
    }
    Ok(())
}

/// Takes a snapshot and returns its gzip'd pprof. Blocks for as long as jemalloc writes its dump.
pub(super) fn snapshot() -> Result<Vec<u8>, Error> {
    if !is_available() {
        return Err(Error::HeapUnavailable);
    }
    let control = PROF_CTL.as_ref().ok_or(Error::HeapUnavailable)?;
    #[expect(clippy::disallowed_methods, reason = "a profile is of its machine, and so is its time")]
    let taken = SystemTime::now();
    let dump = control.blocking_lock().dump().map_err(|error| Error::Heap(format!("{error:#}")))?;
    convert(BufReader::new(dump), taken, &mut symbolizer())
}

fn convert(dump: impl BufRead, taken: SystemTime, symbolizer: &mut Symbolizer) -> Result<Vec<u8>, Error> {
    let malformed = |line: &str| Error::Heap(format!("unexpected line in jemalloc's dump: {line:?}"));
    let mut lines = dump.lines().map(|line| line.map_err(|error| Error::Heap(error.to_string())));
    let first = lines.next().ok_or_else(|| malformed(""))??;
    let rate: u64 =
        first.strip_prefix("heap_v2/").and_then(|rate| rate.parse().ok()).ok_or_else(|| malformed(&first))?;

    let mut stacks: Vec<(Vec<u64>, [i64; 2])> = Vec::new();
    let mut stack: Option<Vec<u64>> = None;
    for line in lines {
        let line = line?;
        let text = line.trim();
        if let Some(addresses) = text.strip_prefix('@') {
            let address = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
            stack =
                Some(addresses.split_whitespace().map(address).collect::<Option<_>>().ok_or_else(|| malformed(text))?);
        } else if text == "MAPPED_LIBRARIES:" {
            break;
        // The sums over all threads; without a stack they are the totals of the process.
        } else if let (Some(sums), Some(addresses)) =
            (text.strip_prefix("t*:"), stack.take_if(|_| text.starts_with("t*:")))
        {
            let (objects, bytes) = parse_sums(sums).ok_or_else(|| malformed(text))?;
            if objects > 0 {
                let values = scale(objects, bytes, rate);
                // The dump has return addresses; the call lies before.
                stacks.push((addresses.iter().map(|address| address.saturating_sub(1)).collect(), values));
            }
        }
    }
    symbolizer.begin(stacks.iter().flat_map(|(stack, _)| stack).copied());
    let mut samples = RawSamples::new(2);
    for (stack, values) in stacks {
        samples.add(program_stack(stack, symbolizer), Arc::default(), &values);
    }
    let header = Header {
        sample_types: &[("inuse_objects", "count"), ("inuse_space", "bytes")],
        period_type: ("space", "bytes"),
        period: rate as i64,
        time_nanos: taken.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64,
        duration_nanos: 0,
    };
    Ok(assemble(header, &samples, symbolizer, is_allocator))
}

/// Parses ` 3: 1024 [0: 0]`.
fn parse_sums(text: &str) -> Option<(u64, u64)> {
    let mut words = text.split_whitespace();
    let objects = words.next()?.strip_suffix(':')?.parse().ok()?;
    let bytes = words.next()?.parse().ok()?;
    Some((objects, bytes))
}

/// Scales what was sampled to an estimate of all: an object of `s` bytes is sampled with the probability `1 - e^(-s / rate)`.
fn scale(objects: u64, bytes: u64, rate: u64) -> [i64; 2] {
    let mean = bytes as f64 / objects as f64;
    let factor = 1.0 / (1.0 - (-mean / rate as f64).exp());
    [(objects as f64 * factor) as i64, (bytes as f64 * factor) as i64]
}

/// Cuts the allocator's own frames off.
fn program_stack(mut stack: Vec<u64>, symbolizer: &Symbolizer) -> Vec<u64> {
    // Where functions are inlined into each other, the outermost says whose code it is.
    let last = stack
        .iter()
        .take(ALLOCATOR_DEPTH_MAX)
        .rposition(|address| symbolizer.lines(*address).last().is_some_and(is_allocator));
    stack.drain(..last.map_or(0, |last| last + 1).min(stack.len().saturating_sub(1)));
    stack
}

/// Returns whether a function belongs to the allocator.
fn is_allocator(line: &SourceLine) -> bool {
    ALLOCATOR_FUNCTIONS.contains(&&*line.name) || ALLOCATOR_PATHS.iter().any(|path| line.name.starts_with(path))
}

#[cfg(test)]
mod tests {
    use afterglow_profile::{Limits, compress, decode};

    use super::*;

    const DUMP: &str = "\
heap_v2/524288
  t*: 5: 3148800 [0: 0]
  t0: 5: 3148800 [0: 0]
@ 0x11 0x21 0x31
  t*: 2: 1048576 [0: 0]
  t0: 2: 1048576 [0: 0]
@ 0x11 0x41
  t*: 3: 1572864 [0: 0]
@ 0x51
  t*: 0: 0 [0: 0]

MAPPED_LIBRARIES:
@ not a stack
";

    #[test]
    fn a_dump_becomes_a_profile_scaled_to_the_whole() {
        let taken = UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        let mut symbolizer = Symbolizer::default();
        let pprof = convert(DUMP.as_bytes(), taken, &mut symbolizer).unwrap();
        let limits = Limits::default();
        let bytes = compress::inflate(&pprof, &limits).unwrap();
        let profile = decode::decode(&bytes, &limits).unwrap();
        assert_eq!(profile.samples.len(), 2);
        assert_eq!(profile.time_nanos, 1_700_000_000_000_000_000);
        assert_eq!(profile.period, 524_288);
        // Objects of exactly the sampling rate are found with the probability 1 - 1/e.
        let factor = 1.0 / (1.0 - (-1.0f64).exp());
        assert_eq!(profile.values(0), [(2.0 * factor) as i64, (1_048_576.0 * factor) as i64]);
        assert_eq!(profile.values(1), [(3.0 * factor) as i64, (1_572_864.0 * factor) as i64]);
        let addresses: Vec<_> =
            profile.samples.stack(0).iter().map(|l| profile.locations[*l as usize].address).collect();
        assert_eq!(addresses, [0x10, 0x20, 0x30]);
    }

    #[test]
    fn an_allocator_s_functions_are_known_by_their_names() {
        let line = |name: &str| SourceLine { name: name.into(), system_name: name.into(), file: "".into(), line: 1 };
        for name in [
            "prof_alloc_prep",
            "je_prof_backtrace",
            "_rjem_malloc",
            "calloc",
            "alloc",
            "__rustc::__rust_alloc",
            "alloc::alloc::exchange_malloc",
            "<tikv_jemallocator::Jemalloc as core::alloc::global::GlobalAlloc>::alloc",
        ] {
            assert!(is_allocator(&line(name)), "{name}");
        }
        for name in ["alloc::raw_vec::RawVecInner::try_allocate_in", "allocate", "profile::malloc_all", "main"] {
            assert!(!is_allocator(&line(name)), "{name}");
        }
    }

    #[test]
    fn a_damaged_dump_is_an_error() {
        for dump in ["", "heap profile: 1", "heap_v2/524288\n@ 0xzz\n", "heap_v2/524288\n@ 0x1\n t*: x: 1\n"] {
            let result = convert(dump.as_bytes(), UNIX_EPOCH, &mut Symbolizer::default());
            assert!(matches!(result, Err(Error::Heap(_))), "{dump:?}");
        }
    }
}
