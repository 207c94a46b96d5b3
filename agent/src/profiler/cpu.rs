//! CPU profiles of this process, sampled by SIGPROF through pprof-rs.
//!
//! The timer counts CPU time of the whole process, so an idle program takes no samples. pprof-rs keeps one global profiler: a
//! [`Lease`] passes it on in the order of asking, and a continuous profiler that gives it back between windows lets others in.
//!
//! What pprof-rs decides and cannot be had otherwise: stacks end after 128 frames (the roots are missing then), and stacks through
//! the same functions count as one, at the lines of the first.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use pprof::{ProfilerGuard, ProfilerGuardBuilder, UnresolvedReport};
use tokio::sync::{Mutex, MutexGuard};

use super::assemble::{Header, RawSamples, assemble};
use super::symbols::Symbolizer;
use super::{Error, SYMBOLIZER};

/// The signal handler of pprof-rs: the frames from the leaf down to it belong to the sampling.
const HANDLER: &str = "perf_signal_handler";

/// How many frames the sampling itself may take at most; unoptimised builds do not inline them.
const HANDLER_DEPTH_MAX: usize = 16;

/// Samples taken while a thread is in one of these are left out by the handler: unwinding from there crashes or blocks, as the vdso's
/// unwind tables are wrong on some systems and the unwinder may hold its own lock.
const BLOCKED_LIBRARIES: &[&str] = &["vdso", "libgcc"];

/// The one profiler that a process can run.
static PROFILER: Mutex<()> = Mutex::const_new(());

/// The right to run the CPU profiler. Those who wait get it in the order of asking.
pub(super) struct Lease(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

/// A CPU profile being taken.
pub(super) struct Recording {
    guard: ProfilerGuard<'static>,
    _lease: Lease,
}

// === impl Lease ===

impl Lease {
    /// Waits for the right to profile, behind all who asked before.
    pub(super) async fn next() -> Self {
        Self(PROFILER.lock().await)
    }

    /// Waits for the right to profile, at most `timeout`.
    pub(super) async fn acquire(timeout: Duration) -> Result<Self, Error> {
        tokio::time::timeout(timeout, Self::next()).await.map_err(|_| Error::Busy { waited: timeout })
    }
}

// === impl Recording ===

impl Recording {
    /// Starts to sample, `frequency` times per second of CPU time.
    pub(super) fn start(lease: Lease, frequency: u32) -> Result<Self, Error> {
        let frequency = i32::try_from(frequency).unwrap_or(i32::MAX);
        let builder = ProfilerGuardBuilder::default().frequency(frequency).blocklist(BLOCKED_LIBRARIES);
        let guard = builder.build().map_err(Error::Cpu)?;
        Ok(Self { guard, _lease: lease })
    }

    /// Ends it and returns the gzip'd pprof. Blocks for some milliseconds, at the first time for as long as it takes to parse the
    /// program's debug information.
    pub(super) fn finish(self) -> Result<Vec<u8>, Error> {
        let report = self.guard.report().build_unresolved().map_err(Error::Cpu)?;
        drop(self);
        let mut symbolizer = SYMBOLIZER.lock().expect("no one panics while symbolizing");
        symbolizer.begin();
        Ok(convert(report, &mut symbolizer))
    }
}

fn convert(report: UnresolvedReport, symbolizer: &mut Symbolizer) -> Vec<u8> {
    let period = 1_000_000_000 / i64::from(report.timing.frequency);
    let mut samples = RawSamples::new(2);
    for (frames, count) in &report.data {
        let addresses: Vec<u64> = frames.frames.iter().map(|frame| frame.ip() as usize as u64).collect();
        let name = &frames.thread_name[..frames.thread_name_length];
        let thread: Arc<str> = String::from_utf8_lossy(name).into();
        let count = *count as i64;
        samples.add(stack(&addresses, symbolizer), thread, &[count, count.saturating_mul(period)]);
    }
    let began = report.timing.start_time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let header = Header {
        sample_types: &[("samples", "count"), ("cpu", "nanoseconds")],
        period_type: ("cpu", "nanoseconds"),
        period,
        time_nanos: began.as_nanos() as i64,
        duration_nanos: report.timing.duration.as_nanos() as i64,
    };
    assemble(header, &samples, symbolizer)
}

/// Cuts the sampling's own frames off, and turns return addresses into addresses of the calls.
fn stack(addresses: &[u64], symbolizer: &mut Symbolizer) -> Vec<u64> {
    let handler = addresses.iter().take(HANDLER_DEPTH_MAX).position(|address| {
        symbolizer.lines(address.saturating_sub(1)).iter().any(|line| &*line.system_name == HANDLER)
    });
    // After the handler comes the kernel's trampoline, then the instruction that was interrupted. Without symbols nothing is cut.
    let own = handler.map_or(0, |handler| handler + 2);
    let mut stack = addresses.get(own..).unwrap_or_default().to_vec();
    // The unwinder may end with a frame of nothing.
    while stack.last() == Some(&0) {
        stack.pop();
    }
    for caller in stack.iter_mut().skip(1) {
        *caller = caller.saturating_sub(1);
    }
    stack
}
