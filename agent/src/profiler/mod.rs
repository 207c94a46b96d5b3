//! Profiles the process it runs in: CPU by sampling with SIGPROF, heap by jemalloc.
//!
//! [`ProfilerBuilder`] starts a [`Profiler`] that records window after window and hands each to a [`Client`](crate::Client);
//! [`cpu_profile`] and [`heap_profile`] take one on demand, for an endpoint such as `/debug/pprof/`, at the same time or without it.
//!
//! Profiles carry real addresses, mappings and build ids beside names, files and lines, so they can be symbolized again elsewhere. Inlined
//! functions have full names where the program was built with `debug = "limited"` or more; `line-tables-only` leaves their paths out.
//!
//! Costs: a sample takes some 70 µs of the interrupted thread, so 100 Hz stay under 1 % of the CPU time spent. pprof-rs holds 18 MB while
//! it samples; looking up new addresses takes a few megabytes for a moment. Both samplers need a writable folder for temporary files
//! (`TMPDIR`).

mod assemble;
mod continuous;
mod cpu;
mod heap;
mod little_endian;
mod mappings;
mod symbols;
mod worker;

use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::Duration;

pub use self::continuous::{Profiler, ProfilerBuilder};
use self::cpu::Lease;
use self::symbols::Symbolizer;
use crate::connect;

/// The default number of samples per second of CPU time: as Go's profiler.
pub const FREQUENCY_HZ: u32 = 100;

/// The largest number of samples per second of CPU time.
pub const FREQUENCY_HZ_MAX: u32 = 1000;

/// Shared by all profiles, so that each address is looked up once.
static SYMBOLIZER: LazyLock<Mutex<Symbolizer>> = LazyLock::new(Mutex::default);

/// Why a profile cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sampling frequency is 0 or over the limit.
    #[error("frequency of {frequency} Hz is not within 1..={FREQUENCY_HZ_MAX} Hz")]
    Frequency {
        /// What was asked for.
        frequency: u32,
    },
    /// The CPU profiler could not start (another part of the program uses pprof-rs itself, or there is no folder for temporary files),
    /// or could not be read.
    #[error("the CPU profiler failed")]
    Cpu(#[source] pprof::Error),
    /// jemalloc is not the allocator or was started without profiling.
    #[error(
        "heap profiles need jemalloc with profiling: make tikv-jemallocator with the feature `profiling` the global allocator, and \
         start the program with MALLOC_CONF=prof:true (_RJEM_MALLOC_CONF where its functions have a prefix)"
    )]
    HeapUnavailable,
    /// jemalloc could not write its profile, or what it wrote is not one.
    #[error("the heap profiler failed: {0}")]
    Heap(String),
    /// The address to push to is not valid.
    #[error(transparent)]
    Target(#[from] connect::Error),
}

/// Records the CPU use of this process for `duration` and returns the gzip'd pprof, sampled at 100 Hz unless a running [`Profiler`] has
/// another frequency. Dropping the future ends the recording.
///
/// # Errors
/// [`Error::Cpu`].
pub async fn cpu_profile(duration: Duration) -> Result<Vec<u8>, Error> {
    let (lease, start) = worker::run(|| {
        let lease = Lease::acquire(FREQUENCY_HZ)?;
        let start = lease.snapshot()?;
        Ok::<_, Error>((lease, start))
    })
    .await?;
    tokio::time::sleep(duration).await;
    worker::run(move || {
        let end = lease.snapshot()?;
        drop(lease);
        Ok(cpu::profile_between(&start, &end))
    })
    .await
}

/// Returns what is allocated now, as a gzip'd pprof. The first call starts the sampling if nothing did before: what was allocated
/// earlier is not in it.
///
/// # Errors
/// [`Error::HeapUnavailable`], [`Error::Heap`].
pub async fn heap_profile() -> Result<Vec<u8>, Error> {
    heap::activate().await?;
    worker::run(heap::snapshot).await
}

/// Returns whether this process can take heap profiles: whether jemalloc is its allocator and was started with profiling.
pub fn heap_available() -> bool {
    heap::is_available()
}

fn symbolizer() -> MutexGuard<'static, Symbolizer> {
    SYMBOLIZER.lock().expect("no one panics while symbolizing")
}

fn check_frequency(frequency: u32) -> Result<(), Error> {
    if (1..=FREQUENCY_HZ_MAX).contains(&frequency) { Ok(()) } else { Err(Error::Frequency { frequency }) }
}
