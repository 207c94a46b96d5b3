//! What a process has cost so far, by `/proc`.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The kernel's clock ticks a second in `/proc/<pid>/stat`: fixed at 100 by its ABI on every platform we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Returns the CPU time, user and system, of a process and all its threads. The resolution is 10 ms.
///
/// # Errors
/// What reading `/proc` gives, such as `NotFound` when the process has ended.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses and may hold anything; utime and stime are the 12th and 13th after it.
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

/// Returns the most memory that the process has held resident, in bytes.
///
/// # Errors
/// What reading `/proc` gives; `InvalidData` when the kernel does not say.
pub fn peak_rss(pid: u32) -> io::Result<u64> {
    memory(pid, "VmHWM:")
}

/// Returns the memory that the process holds resident, in bytes.
///
/// # Errors
/// What reading `/proc` gives; `InvalidData` when the kernel does not say.
pub fn rss(pid: u32) -> io::Result<u64> {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, line: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no {line}")))
}

/// Returns how many files and sockets the process has open.
///
/// # Errors
/// What reading `/proc` gives.
pub fn open_files(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Sums the sizes of all files below a folder, where files may vanish meanwhile.
///
/// # Errors
/// What listing gives.
pub fn folder_bytes(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        sum += match entry.metadata() {
            Ok(kind) if kind.is_dir() => folder_bytes(&entry.path())?,
            Ok(kind) => kind.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_the_cpu_time_and_memory_in_the_peak() {
        let me = std::process::id();
        let before = cpu_time(me).unwrap();
        let mut x = 1u64;
        while cpu_time(me).unwrap() < before + Duration::from_millis(30) {
            for _ in 0..100_000 {
                x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
        assert!(peak_rss(me).unwrap() > 1 << 20, "{x}");
    }
}
