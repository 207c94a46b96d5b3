//! CPU profiles of this process, sampled by SIGPROF through pprof-rs.
//!
//! The timer counts CPU time of the whole process, so an idle program takes no samples. pprof-rs can sample only once at a time and
//! counts from when it began: one [`Sampler`] runs as long as anybody holds a [`Lease`], and a profile is the difference of two
//! [`Snapshot`]s. So any number of profiles may be taken at once, and a window costs neither a start nor an end of the sampling.
//!
//! On x86-64 stacks are walked by framehop: pprof-rs's other way takes four times the memory and asks the C library's unwinder, which may
//! hold a lock. What pprof-rs decides and cannot be had otherwise: stacks end after 128 frames (the roots are missing then), and stacks
//! through the same functions count as one, at the lines of the first.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pprof::{ProfilerGuard, ProfilerGuardBuilder, UnresolvedReport};

use super::assemble::{Header, RawSamples, assemble};
use super::symbols::Symbolizer;
use super::{Error, symbolizer};

/// How long the sampler runs before it begins anew, when only one profile is being taken. It keeps stacks that crowd each other out in a
/// temporary file, at worst one of 1 KiB for each sample.
const SAMPLER_AGE_MAX: Duration = Duration::from_secs(300);

static SAMPLER: Mutex<Sampler> = Mutex::new(Sampler { running: None, leases: 0 });

/// The one sampler of the process.
struct Sampler {
    running: Option<Running>,
    leases: usize,
}

struct Running {
    guard: ProfilerGuard<'static>,
    since: Instant,
    frequency: u32,
}

/// Keeps the sampler running.
#[derive(Debug)]
pub(super) struct Lease(());

/// What the sampler had counted at one moment.
pub(super) struct Snapshot {
    report: UnresolvedReport,
    time: SystemTime,
    instant: Instant,
}

fn sampler() -> MutexGuard<'static, Sampler> {
    SAMPLER.lock().expect("no one panics while holding the sampler")
}

// === impl Sampler ===

impl Sampler {
    fn start(&mut self, frequency: u32) -> Result<(), Error> {
        prime()?;
        let guard = sample(frequency)?;
        // pprof-rs looks a backtrace up when it starts, which parses the debug information of the whole program and would hold it for good:
        // a hundred megabytes and more.
        backtrace::clear_symbol_cache();
        self.running = Some(Running { guard, since: Instant::now(), frequency });
        Ok(())
    }

    fn snapshot(&self) -> Result<Snapshot, Error> {
        let running = self.running.as_ref().expect("it runs while there is a lease");
        let report = running.guard.report().build_unresolved().map_err(Error::Cpu)?;
        #[expect(clippy::disallowed_methods, reason = "a profile is of its machine, and so is its time")]
        let time = SystemTime::now();
        Ok(Snapshot { report, time, instant: Instant::now() })
    }
}

// === impl Lease ===

impl Lease {
    /// Starts the sampler, `frequency` times per second of CPU time, unless it runs: then it goes on as it is. Blocks for milliseconds,
    /// the first time for tens of them.
    pub(super) fn acquire(frequency: u32) -> Result<Self, Error> {
        let mut sampler = sampler();
        if sampler.running.is_none() {
            sampler.start(frequency)?;
        }
        sampler.leases += 1;
        Ok(Self(()))
    }

    /// Returns what has been counted so far.
    pub(super) fn snapshot(&self) -> Result<Snapshot, Error> {
        sampler().snapshot()
    }

    /// Returns the snapshot to begin the next window with: `last`, or a new one when it was time for the sampler to begin anew.
    pub(super) fn renew(&self, last: Snapshot) -> Result<Snapshot, Error> {
        let mut sampler = sampler();
        let alone = sampler.leases == 1;
        match sampler.running.take_if(|running| alone && running.since.elapsed() >= SAMPLER_AGE_MAX) {
            Some(Running { guard, frequency, .. }) => {
                drop(guard);
                sampler.start(frequency)?;
                sampler.snapshot()
            }
            None => Ok(last),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut sampler = sampler();
        sampler.leases -= 1;
        if sampler.leases == 0 {
            sampler.running = None;
        }
    }
}

fn sample(frequency: u32) -> Result<ProfilerGuard<'static>, Error> {
    let frequency = i32::try_from(frequency).unwrap_or(i32::MAX);
    let builder = ProfilerGuardBuilder::default().frequency(frequency);
    // The C library's unwinder crashes in the vdso of some systems and must not be entered again from within itself.
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    let builder = builder.blocklist(&["vdso", "libgcc"]);
    builder.build().map_err(Error::Cpu)
}

/// Lets the unwinder read its tables before the first real sample.
///
/// It does so when the signal handler first runs, and allocates: in a thread that was interrupted in the allocator, that would never
/// end. So the first signal is our own, on this thread, while the timer is far from its first.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn prime() -> Result<(), Error> {
    static PRIMED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    if !PRIMED.swap(true, std::sync::atomic::Ordering::Relaxed) {
        let guard = sample(1)?;
        // Without it all goes on as it would have: the tables are read at the first sample.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGPROF);
        drop(guard);
    }
    Ok(())
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn prime() -> Result<(), Error> {
    Ok(())
}

/// Returns the gzip'd pprof of what was sampled between two snapshots. Blocks for as long as it takes to look new addresses up.
pub(super) fn profile_between(start: &Snapshot, end: &Snapshot) -> Vec<u8> {
    let period = 1_000_000_000 / i64::from(end.report.timing.frequency);
    let mut stacks: Vec<(Vec<u64>, Arc<str>, i64)> = Vec::new();
    for (frames, count) in &end.report.data {
        let before = start.report.data.get(frames).copied().unwrap_or(0);
        let count = (*count - before) as i64;
        if count > 0 {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            let addresses: Vec<u64> = frames.frames.iter().map(|frame| frame.ip as u64).collect();
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            let addresses: Vec<u64> = frames.frames.iter().map(|frame| frame.ip() as usize as u64).collect();
            let thread = String::from_utf8_lossy(&frames.thread_name[..frames.thread_name_length]).into();
            stacks.push((addresses, thread, count));
        }
    }
    let mut symbolizer = symbolizer();
    // Which of an address and the one before it is the instruction is not known before the frames of the sampling are.
    symbolizer
        .begin(stacks.iter().flat_map(|(stack, ..)| stack).flat_map(|address| [*address, address.saturating_sub(1)]));
    let mut samples = RawSamples::new(2);
    for (addresses, thread, count) in stacks {
        samples.add(stack(addresses, &symbolizer), thread, &[count, count.saturating_mul(period)]);
    }
    let header = Header {
        sample_types: &[("samples", "count"), ("cpu", "nanoseconds")],
        period_type: ("cpu", "nanoseconds"),
        period,
        time_nanos: start.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64,
        duration_nanos: (end.instant - start.instant).as_nanos() as i64,
    };
    assemble(header, &samples, &mut symbolizer, |_| false)
}

/// Turns return addresses into addresses of the calls; the leaf is the interrupted instruction itself.
fn stack(mut addresses: Vec<u64>, symbolizer: &Symbolizer) -> Vec<u64> {
    addresses.drain(..sampling_frames(&addresses, symbolizer));
    // The unwinder may end with a frame of nothing.
    while addresses.last() == Some(&0) {
        addresses.pop();
    }
    for caller in addresses.iter_mut().skip(1) {
        *caller = caller.saturating_sub(1);
    }
    addresses
}

/// Returns how many frames from the leaf belong to the sampling. framehop begins with the interrupted instruction.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn sampling_frames(_: &[u64], _: &Symbolizer) -> usize {
    0
}

/// Returns how many frames from the leaf belong to the sampling: down to the signal handler of pprof-rs and the kernel's trampoline
/// behind it. Without symbols that cannot be known, and none are cut.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn sampling_frames(addresses: &[u64], symbolizer: &Symbolizer) -> usize {
    // Unoptimised builds do not inline what the handler calls.
    const DEPTH_MAX: usize = 16;
    let is_handler = |address: &u64| {
        let lines = symbolizer.lines(address.saturating_sub(1));
        lines.iter().any(|line| &*line.system_name == "perf_signal_handler")
    };
    let handler = addresses.iter().take(DEPTH_MAX).position(is_handler);
    handler.map_or(0, |handler| (handler + 2).min(addresses.len()))
}
