//! The keys of commits and of what is derived from them.

use object_store::path::Path;

use super::{BlockRef, Day, TenantId};

/// The digits of a commit's number: enough for any 64 bits, and equal for all, so that text sorts as numbers do.
const NUMBER_DIGITS: usize = 20;

impl TenantId {
    /// Returns the folder of this tenant's commits.
    pub fn commits(&self) -> Path {
        self.folder("commit")
    }

    /// Returns where commit `number` lies.
    pub fn commit(&self, number: u64) -> Path {
        self.commits().join(number_text(number))
    }

    /// Returns the folder of this tenant's snapshots.
    pub fn snapshots(&self) -> Path {
        self.folder("snap")
    }

    /// Returns where the snapshot of the state after commit `number` lies.
    pub fn snapshot(&self, number: u64) -> Path {
        self.snapshots().join(number_text(number))
    }

    /// Returns the folder of the parts of snapshots.
    pub fn days(&self) -> Path {
        self.folder("day")
    }

    /// Returns where the blocks of `day` that were live after commit `number` are written down.
    pub fn day(&self, day: Day, number: u64) -> Path {
        self.days().join(format!("{day}-{}", number_text(number)))
    }

    /// Returns the folder of the notes on damaged blocks.
    pub fn quarantined(&self) -> Path {
        self.folder("quarantine")
    }

    /// Returns where the note on a damaged block or segment lies.
    pub fn quarantine(&self, block: &BlockRef) -> Path {
        self.quarantined().join(block.to_string())
    }

    /// Reads the number of a commit back from where it lies; none for anything that [`TenantId::commit`] does not give.
    pub fn parse_commit(&self, path: &Path) -> Option<u64> {
        parse_number(only_part(path, &self.commits())?.as_str())
    }

    /// Reads the number of a snapshot back from where it lies; none for anything that [`TenantId::snapshot`] does not give.
    pub fn parse_snapshot(&self, path: &Path) -> Option<u64> {
        parse_number(only_part(path, &self.snapshots())?.as_str())
    }

    /// Reads day and number of a part of a snapshot back; none for anything that [`TenantId::day`] does not give.
    pub fn parse_day(&self, path: &Path) -> Option<(Day, u64)> {
        let part = only_part(path, &self.days())?;
        let (day, number) = part.split_once('-')?;
        Some((day.parse().ok()?, parse_number(number)?))
    }

    /// Reads the name of a damaged block back; none for anything that [`TenantId::quarantine`] does not give.
    pub fn parse_quarantine(&self, path: &Path) -> Option<BlockRef> {
        only_part(path, &self.quarantined())?.parse().ok()
    }
}

fn only_part(path: &Path, folder: &Path) -> Option<String> {
    let mut parts = path.prefix_match(folder)?;
    let part = parts.next()?.as_ref().to_owned();
    parts.next().is_none().then_some(part)
}

fn number_text(number: u64) -> String {
    format!("{number:0NUMBER_DIGITS$}")
}

fn parse_number(text: &str) -> Option<u64> {
    let is_number = text.len() == NUMBER_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_lie_where_the_format_says_and_sort_by_number() {
        let tenant = TenantId::anonymous();
        let day: Day = "20261124".parse().expect("valid");
        let block: BlockRef = "1700000000123-w1-00000000000000fe".parse().expect("valid");
        let texts = [
            (tenant.commit(7), "v1/t/anonymous/commit/00000000000000000007"),
            (tenant.snapshot(64), "v1/t/anonymous/snap/00000000000000000064"),
            (tenant.day(day, 64), "v1/t/anonymous/day/20261124-00000000000000000064"),
            (tenant.quarantine(&block), "v1/t/anonymous/quarantine/1700000000123-w1-00000000000000fe"),
        ];
        for (path, text) in texts {
            assert_eq!(path.as_ref(), text);
        }
        for number in [0, 1, 9, 10, u64::MAX - 1] {
            assert!(tenant.commit(number) < tenant.commit(number + 1));
            assert_eq!(tenant.parse_commit(&tenant.commit(number)), Some(number));
            assert_eq!(tenant.parse_snapshot(&tenant.snapshot(number)), Some(number));
            assert_eq!(tenant.parse_day(&tenant.day(day, number)), Some((day, number)));
        }
        assert_eq!(tenant.parse_quarantine(&tenant.quarantine(&block)), Some(block));
    }

    #[test]
    fn what_paths_did_not_make_has_no_number() {
        let tenant = TenantId::anonymous();
        for bad in [
            "v1/t/anonymous/commit",
            "v1/t/anonymous/commit/7",
            "v1/t/anonymous/commit/+0000000000000000007",
            "v1/t/anonymous/commit/00000000000000000007/x",
            "v1/t/anonymous/commit/99999999999999999999",
            "v1/t/other/commit/00000000000000000007",
            "v1/t/anonymous/snap/00000000000000000007",
        ] {
            assert_eq!(tenant.parse_commit(&Path::parse(bad).expect("valid")), None, "{bad}");
        }
        for bad in ["20261124-7", "20261131-00000000000000000007", "20261124", "x-00000000000000000007"] {
            assert_eq!(tenant.parse_day(&tenant.days().join(bad)), None, "{bad}");
        }
        assert_eq!(tenant.parse_quarantine(&tenant.quarantined().join("x")), None);
    }
}
