//! How much memory this process may use: the tightest limit of its control groups, else that of the machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::ByteSize;

/// Returns the bytes of memory that this process may use, or `None` where the system does not say.
pub fn available_bytes() -> Option<u64> {
    let limit = limit_of_groups(Path::new("/"));
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_meminfo(&text));
    match (limit, machine) {
        (Some(limit), Some(machine)) => Some(limit.min(machine)),
        (limit, machine) => limit.or(machine),
    }
}

/// Returns the default of a budget: one `part`th of the memory that this process may use, but at most `max`; `unknown` where the system
/// does not say.
pub fn share(part: u64, max: ByteSize, unknown: ByteSize) -> ByteSize {
    available_bytes().map_or(unknown, |bytes| ByteSize(bytes / part).min(max))
}

/// Returns the tightest limit of the control groups that this process is in, and of their parents. `root` is where
/// `/proc` and `/sys` lie.
fn limit_of_groups(root: &Path) -> Option<u64> {
    let membership = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    membership.lines().flat_map(|line| files_of(root, line)).filter_map(|file| read_limit(&file)).min()
}

/// Returns the files that may hold a limit for one line of `/proc/self/cgroup`: `hierarchy:controllers:path`. A
/// container usually sees its own group as the root, whatever the path says, so every parent is looked at as well.
fn files_of(root: &Path, line: &str) -> Vec<PathBuf> {
    let mut fields = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
        return Vec::new();
    };
    // Version 2 has one hierarchy without named controllers; version 1 has one for memory (cgroups(7)).
    let (base, file) = match controllers {
        "" => (root.join("sys/fs/cgroup"), "memory.max"),
        _ if controllers.split(',').any(|c| c == "memory") => {
            (root.join("sys/fs/cgroup/memory"), "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let path = Path::new(path.trim_start_matches('/'));
    path.ancestors().map(|group| base.join(group).join(file)).collect()
}

fn read_limit(file: &Path) -> Option<u64> {
    // Version 2 writes `max` where there is no limit, version 1 a number beyond any memory.
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        root
    }

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        limit_of_groups(system(files).path())
    }

    /// Goal: the limit is found for both versions of control groups, inside and outside of a container.
    #[test]
    fn the_tightest_group_counts() {
        let v2 = ("proc/self/cgroup", "0::/kubepods/pod7\n");
        assert_eq!(limit(&[v2]), None);
        assert_eq!(limit(&[v2, ("sys/fs/cgroup/memory.max", "536870912\n")]), Some(512 << 20));
        assert_eq!(limit(&[v2, ("sys/fs/cgroup/memory.max", "max\n")]), None);
        let nested =
            [v2, ("sys/fs/cgroup/kubepods/memory.max", "1000\n"), ("sys/fs/cgroup/kubepods/pod7/memory.max", "2000\n")];
        assert_eq!(limit(&nested), Some(1000));
        let v1 = [
            ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/docker/x\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
        ];
        assert_eq!(limit(&v1), Some(256 << 20));
        assert_eq!(limit(&[("proc/self/cgroup", "nonsense\n")]), None);
    }

    #[test]
    fn meminfo_is_in_kib() {
        assert_eq!(parse_meminfo("MemTotal:       8140312 kB\nMemFree: 1 kB\n"), Some(8_140_312 * 1024));
        assert_eq!(parse_meminfo("MemFree: 1 kB\n"), None);
    }
}
