//! Profiles the process it runs in: CPU by sampling with SIGPROF, heap by jemalloc.
//!
//! [`ProfilerBuilder`] starts a [`Profiler`] that records window after window and hands each to a [`Client`]; [`cpu_profile`] and
//! [`heap_profile`] take one on demand, for an endpoint such as `/debug/pprof/`. A process can sample its CPU only once at a time: a
//! request on demand cuts the current window short, takes its turn, and the continuous profiler goes on. No window is lost by that.
//!
//! Profiles carry real addresses, mappings and build ids beside names, files and lines, so they can be symbolized again elsewhere.
//!
//! Costs: a sample takes some 20 to 60 µs of the interrupted thread, so 100 Hz stay under 1 % of the CPU time spent. pprof-rs holds
//! about 70 MB while it is in use and twice that for a moment at the end of a window. Both samplers need a writable folder for
//! temporary files (`TMPDIR`).

mod assemble;
mod continuous;
mod cpu;
mod heap;
mod mappings;
mod symbols;

use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

pub use self::continuous::{Profiler, ProfilerBuilder};
use self::cpu::{Lease, Recording};
use self::symbols::Symbolizer;
use crate::connect;

/// The default number of samples per second of CPU time: as Go's profiler.
pub const FREQUENCY_HZ: u32 = 100;

/// The largest number of samples per second of CPU time.
pub const FREQUENCY_HZ_MAX: u32 = 1000;

/// How long a profile on demand waits for another one on demand to end.
const LEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// Shared by all profiles, so that each address is looked up once.
static SYMBOLIZER: LazyLock<Mutex<Symbolizer>> = LazyLock::new(Mutex::default);

/// Asks the continuous profiler to end its window and pass the CPU profiler on.
static WANTED: Notify = Notify::const_new();

/// Why a profile cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another CPU profile is being taken.
    #[error("another CPU profile is being taken; waited {} s for it to end", waited.as_secs())]
    Busy {
        /// How long this one waited.
        waited: Duration,
    },
    /// The sampling frequency is 0 or over the limit.
    #[error("frequency of {frequency} Hz is not within 1..={FREQUENCY_HZ_MAX} Hz")]
    Frequency {
        /// What was asked for.
        frequency: u32,
    },
    /// The CPU profiler could not start or end.
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

/// Records the CPU use of this process for `duration` and returns the gzip'd pprof.
///
/// Cuts the window of a running [`Profiler`] short and waits up to 10 s for another call to end. Dropping the future ends the recording.
///
/// # Errors
/// [`Error::Busy`], [`Error::Frequency`], [`Error::Cpu`].
pub async fn cpu_profile(duration: Duration, frequency: u32) -> Result<Vec<u8>, Error> {
    check_frequency(frequency)?;
    WANTED.notify_one();
    let lease = Lease::acquire(LEASE_TIMEOUT).await?;
    let recording = blocking(move || Recording::start(lease, frequency)).await?;
    tokio::time::sleep(duration).await;
    blocking(move || recording.finish()).await
}

/// Returns what is allocated now, as a gzip'd pprof. The first call starts the sampling if nothing did before: what was allocated
/// earlier is not in it.
///
/// # Errors
/// [`Error::HeapUnavailable`], [`Error::Heap`].
pub async fn heap_profile() -> Result<Vec<u8>, Error> {
    heap::activate().await?;
    blocking(heap::snapshot).await
}

/// Returns whether this process can take heap profiles: whether jemalloc is its allocator and was started with profiling.
pub fn heap_available() -> bool {
    heap::is_available()
}

fn check_frequency(frequency: u32) -> Result<(), Error> {
    if (1..=FREQUENCY_HZ_MAX).contains(&frequency) { Ok(()) } else { Err(Error::Frequency { frequency }) }
}

/// Runs what takes milliseconds or reads files off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(output) => output,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and drops this future, too.
            Err(_) => std::future::pending().await,
        },
    }
}
