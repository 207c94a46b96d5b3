//! What the operating system knows of this process, under the names that Prometheus's clients give it.
//!
//! Read from `/proc` at each scrape. Where there is no `/proc`, the metrics are missing; a scrape never fails for their
//! sake.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Linux reports times of `/proc/<pid>/stat` in hundredths of a second on every architecture (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads the process's metrics when asked.
#[derive(Debug)]
pub(super) struct Process {
    /// Unix seconds; does not change.
    start_seconds: Option<f64>,
}

/// The fields of `/proc/self/stat` that are used.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: i64,
    start_after_boot_seconds: f64,
    virtual_bytes: i64,
}

/// The fields of `/proc/self/status` and `/proc/self/limits` are found by name.
const RESIDENT: &str = "VmRSS:";
const OPEN_FILES: &str = "Max open files";

// === impl Process ===

impl Process {
    pub(super) fn new() -> Self {
        Self { start_seconds: start_seconds() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(stat) = read("/proc/self/stat").as_deref().and_then(parse_stat) {
            let cpu = ConstCounter::new(stat.cpu_seconds);
            add(&mut encoder, "process_cpu_seconds", "CPU time of user and system, in seconds", &cpu)?;
            gauge(&mut encoder, "process_threads", "Threads", stat.threads)?;
            gauge(&mut encoder, "process_virtual_memory_bytes", "Virtual memory, in bytes", stat.virtual_bytes)?;
        }
        if let Some(bytes) = read("/proc/self/status").as_deref().and_then(parse_resident_bytes) {
            gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory, in bytes", bytes)?;
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // The folder that is being read is open itself, and not the process's doing.
            let count = i64::try_from(entries.count()).unwrap_or(i64::MAX) - 1;
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", count)?;
        }
        if let Some(limit) = read("/proc/self/limits").as_deref().and_then(parse_open_files_max) {
            gauge(&mut encoder, "process_max_fds", "Most file descriptors the process may open", limit)?;
        }
        if let Some(seconds) = self.start_seconds {
            let start = ConstGauge::new(seconds);
            add(&mut encoder, "process_start_time_seconds", "Start of the process, in unix seconds", &start)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> Result<(), std::fmt::Error> {
    add(encoder, name, help, &ConstGauge::new(value))
}

fn add(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), std::fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn start_seconds() -> Option<f64> {
    let stat = parse_stat(&read("/proc/self/stat")?)?;
    let boot = parse_boot_seconds(&read("/proc/stat")?)?;
    Some(boot + stat.start_after_boot_seconds)
}

/// Reads `/proc/<pid>/stat` (proc_pid_stat(5)).
fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The manual counts fields from 1; field 3 comes first after the name.
    let field = |number: usize| fields.get(number - 3).copied();
    let seconds = |number: usize| Some(field(number)?.parse::<u64>().ok()? as f64 / TICKS_PER_SECOND);
    Some(Stat {
        cpu_seconds: seconds(14)? + seconds(15)?,
        threads: field(20)?.parse().ok()?,
        start_after_boot_seconds: seconds(22)?,
        virtual_bytes: field(23)?.parse().ok()?,
    })
}

fn parse_resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(RESIDENT))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Reads the soft limit; nothing when it is `unlimited`.
fn parse_open_files_max(limits: &str) -> Option<i64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(OPEN_FILES))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn parse_boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a program whose name looks like fields does not shift them.
    #[test]
    fn stat_is_read_behind_the_name() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 83 0 0 0 150 50 0 0 20 0 12 0 4200 1048576 210 184467 1 1 0";
        let expected = Stat { cpu_seconds: 2.0, threads: 12, start_after_boot_seconds: 42.0, virtual_bytes: 1_048_576 };
        assert_eq!(parse_stat(text), Some(expected));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn lines_are_found_by_name() {
        assert_eq!(parse_resident_bytes("VmPeak:\t 10 kB\nVmRSS:\t   2048 kB\n"), Some(2_097_152));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(parse_open_files_max(limits), Some(1024));
        assert_eq!(parse_open_files_max("Max open files   unlimited  unlimited files\n"), None);
        assert_eq!(parse_boot_seconds("cpu 1 2\nbtime 1795550000\n"), Some(1_795_550_000.0));
    }
}
