//! The units that convert into one another: what `pprof` knows of bytes, time and Google's compute units.
//!
//! Factors are whole numbers of the smallest unit of the family, so that conversion to a finer unit is exact.

/// What a unit measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Bytes,
    Time,
    Compute,
}

impl Family {
    /// Returns the size of the unit that values are shown in which are less than the smallest.
    pub(crate) fn default_size(self) -> i128 {
        match self {
            Self::Bytes => 1,
            Self::Time | Self::Compute => 1_000_000_000,
        }
    }
}

/// The units by family, with how pprof shows them, their names (in lower case and without a plural s) and sizes, in ascending order.
pub(crate) const UNITS: [(Family, &str, &[&str], i128); 20] = [
    (Family::Bytes, "B", &["b", "byte"], 1),
    (Family::Bytes, "kB", &["kb", "kbyte", "kilobyte"], 1 << 10),
    (Family::Bytes, "MB", &["mb", "mbyte", "megabyte"], 1 << 20),
    (Family::Bytes, "GB", &["gb", "gbyte", "gigabyte"], 1 << 30),
    (Family::Bytes, "TB", &["tb", "tbyte", "terabyte"], 1 << 40),
    (Family::Bytes, "PB", &["pb", "pbyte", "petabyte"], 1 << 50),
    (Family::Time, "ns", &["ns", "nanosecond"], 1),
    (Family::Time, "us", &["μs", "us", "microsecond"], 1_000),
    (Family::Time, "ms", &["ms", "millisecond"], 1_000_000),
    (Family::Time, "s", &["s", "sec", "second"], 1_000_000_000),
    (Family::Time, "hrs", &["hour", "hr"], 3_600_000_000_000),
    (Family::Compute, "n*GCU", &["nanogcu"], 1),
    (Family::Compute, "u*GCU", &["microgcu"], 1_000),
    (Family::Compute, "m*GCU", &["milligcu"], 1_000_000),
    (Family::Compute, "GCU", &["gcu"], 1_000_000_000),
    (Family::Compute, "k*GCU", &["kilogcu"], 1_000_000_000_000),
    (Family::Compute, "M*GCU", &["megagcu"], 1_000_000_000_000_000),
    (Family::Compute, "G*GCU", &["gigagcu"], 1_000_000_000_000_000_000),
    (Family::Compute, "T*GCU", &["teragcu"], 1_000_000_000_000_000_000_000),
    (Family::Compute, "P*GCU", &["petagcu"], 1_000_000_000_000_000_000_000_000),
];

/// What brings values of two units to the finer one: the factor of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Common {
    /// What values of the first unit are multiplied with.
    pub(crate) first: i128,
    /// What values of the second unit are multiplied with.
    pub(crate) second: i128,
}

/// Returns how values of two units are brought to the finer one, or `None` where the units do not convert.
pub(crate) fn common(first: &[u8], second: &[u8]) -> Option<Common> {
    if first == second {
        return Some(Common { first: 1, second: 1 });
    }
    let ((family, first), (other, second)) = (find(first)?, find(second)?);
    // Every size divides the larger ones of its family, so one of the two quotients is 1.
    let finer = first.min(second);
    (family == other).then_some(Common { first: first / finer, second: second / finer })
}

/// Returns what `unit` measures, and how many of the smallest unit of that family it is; `None` where pprof does not know it.
pub(crate) fn find(unit: &[u8]) -> Option<(Family, i128)> {
    let unit = std::str::from_utf8(unit).ok()?.to_lowercase();
    // Two-letter units end in s without being plural.
    let singular = if unit.chars().count() > 2 { unit.strip_suffix('s').unwrap_or(&unit) } else { &unit };
    UNITS.iter().find(|(_, _, names, _)| names.contains(&singular)).map(|&(family, _, _, size)| (family, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_a_family_convert_to_the_finer_one() {
        assert_eq!(common(b"seconds", b"ms"), Some(Common { first: 1_000, second: 1 }));
        assert_eq!(common(b"bytes", b"KiloBytes"), Some(Common { first: 1, second: 1_024 }));
        assert_eq!(common(b"hours", "μs".as_bytes()), Some(Common { first: 3_600_000_000, second: 1 }));
        assert_eq!(common(b"ns", b"nanoseconds"), Some(Common { first: 1, second: 1 }));
    }

    #[test]
    fn equal_units_need_no_table_and_others_do_not_convert() {
        assert_eq!(common(b"widgets", b"widgets"), Some(Common { first: 1, second: 1 }));
        assert_eq!(common(b"count", b"bytes"), None);
        assert_eq!(common(b"seconds", b"bytes"), None);
        assert_eq!(common(b"\xff", b"bytes"), None);
    }

    #[test]
    fn every_size_divides_the_larger_ones_of_its_family() {
        for (family, _, _, size) in UNITS {
            for (_, _, _, larger) in UNITS.iter().filter(|unit| unit.0 == family && unit.3 >= size) {
                assert_eq!(larger % size, 0);
            }
        }
    }
}
