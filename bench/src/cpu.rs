//! The CPU time of what runs here, as the kernel counts it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Adds the CPU time that `work` takes on this thread to `sum`.
pub fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = of_thread();
    let result = work();
    *sum += of_thread().saturating_sub(start);
    result
}

/// Returns the CPU time of this thread.
pub fn of_thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// Returns the CPU time of this process.
pub fn of_process() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
