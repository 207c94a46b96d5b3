//! Numbers as pprof writes them (google/pprof: internal/measurement): in one unit for a whole drawing or table, with two decimals.

use crate::units::{self, UNITS};

/// The unit that all values of a drawing or a table are written in.
pub struct Scale {
    /// The size of the values' own unit and of the one written; none where the unit is no measure.
    sizes: Option<(i128, i128)>,
    /// What is written behind a number.
    suffix: String,
}

// === impl Scale ===

impl Scale {
    /// Chooses the unit for values in `unit`, of which `weights` are shown beside `total`: that of the smallest, or of a hundred times
    /// the smallest where the total would need another.
    pub fn new(unit: &str, weights: impl Iterator<Item = u128>, total: i64) -> Self {
        let Some((family, size)) = units::find(unit.as_bytes()) else {
            let is_count = matches!(unit, "count" | "sample" | "unit" | "minimum" | "auto");
            // It comes from outside, and what is written goes to terminals.
            let suffix = || unit.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            return Self { sizes: None, suffix: if is_count { String::new() } else { suffix() } };
        };
        let total = u128::from(total.unsigned_abs());
        let least = weights.filter(|&weight| weight > 0).min().unwrap_or(total);
        let fitting = |value: u128| {
            let value = value.saturating_mul(size.unsigned_abs());
            let mut units = UNITS.iter().filter(|(other, ..)| *other == family);
            let largest = units.rfind(|(.., size)| size.unsigned_abs() <= value);
            largest.map_or_else(|| family.default_size(), |&(.., size)| size)
        };
        let mut chosen = fitting(least);
        if chosen != fitting(total) && least.saturating_mul(100) < total {
            chosen = fitting(least.saturating_mul(100));
        }
        let shown = UNITS.iter().find(|(other, _, _, size)| *other == family && *size == chosen);
        let suffix = shown.map(|(_, shown, ..)| (*shown).to_owned()).unwrap_or_default();
        Self { sizes: Some((size, chosen)), suffix }
    }

    /// Returns whether a value is one of the unit or more, or nothing at all: of less the two decimals say little, or 0.
    pub fn reaches(&self, value: i64) -> bool {
        value == 0 || self.scaled(value).abs() >= 1.0
    }

    fn scaled(&self, value: i64) -> f64 {
        match self.sizes {
            None => value as f64,
            Some((own, shown)) => value as f64 * own as f64 / shown as f64,
        }
    }

    /// Writes a value.
    pub fn text(&self, value: i64) -> String {
        let scaled = self.scaled(value);
        let text = format!("{scaled:.2}");
        match text.strip_suffix(".00").unwrap_or(&text) {
            "0" | "-0" => "0".to_owned(),
            number => format!("{number}{}", self.suffix),
        }
    }
}

/// Writes a value in `unit` by itself, in the unit that fits it.
pub fn text(value: i64, unit: &str) -> String {
    Scale::new(unit, std::iter::empty(), value).text(value)
}

/// Writes which share of `total` a value is, without its sign.
pub(crate) fn percentage(value: i64, total: i64) -> String {
    let share = if total == 0 { 0.0 } else { (value as f64 / total as f64).abs() * 100.0 };
    if (99.95..=100.05).contains(&share) {
        "100%".to_owned()
    } else if share >= 1.0 {
        format!("{share:.2}%")
    } else {
        format!("{}%", two_digits(share))
    }
}

/// Writes a number below one with two digits that say something, as C's `%.2g` does.
fn two_digits(number: f64) -> String {
    let scientific = format!("{number:.1e}");
    let (digits, exponent) = scientific.split_once('e').expect("it was asked for");
    let exponent: i32 = exponent.parse().expect("Rust writes whole exponents");
    let trimmed = |text: &str| text.trim_end_matches('0').trim_end_matches('.').to_owned();
    match exponent {
        _ if number == 0.0 => "0".to_owned(),
        ..-4 => format!("{}e-{:02}", trimmed(digits), -exponent),
        _ => trimmed(&format!("{number:.*}", (1 - exponent).max(1) as usize)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_two_digits() {
        let shares: Vec<_> =
            [(0, 5), (1, 0), (1, 3), (-1, 3), (1, 300), (1, 12_345), (1, 9_876_543_210), (9999, 10000), (999, 10000)]
                .map(|(value, total)| percentage(value, total))
                .into();
        assert_eq!(shares, ["0%", "0%", "33.33%", "33.33%", "0.33%", "0.0081%", "1e-08%", "100%", "9.99%"]);
        assert_eq!(percentage(9996, 1_000_000), "1%");
    }

    #[test]
    fn one_unit_fits_all_values() {
        let text =
            |unit: &str, weights: &[u128], total, value| Scale::new(unit, weights.iter().copied(), total).text(value);
        assert_eq!(text("nanoseconds", &[20_000_000], 5_000_000_000, 30_000_000), "0.03s");
        assert_eq!(text("nanoseconds", &[20_000_000], 1_000_000_000, 30_000_000), "30ms");
        assert_eq!(text("nanoseconds", &[], 0, 0), "0");
        assert_eq!(text("bytes", &[1536], 4096, -1536), "-1.50kB");
        assert_eq!(text("count", &[3], 9, 3), "3");
        assert_eq!(text("widgets", &[3], 9, 3), "3widgets");
        assert_eq!(text("\u{1b}[31m\n", &[3], 9, 3), "3\u{fffd}[31m\u{fffd}");
        let seconds = Scale::new("nanoseconds", std::iter::empty(), 5_000_000_000);
        assert_eq!(
            [0, 999_000_000, -999_000_000, 1_000_000_000].map(|value| seconds.reaches(value)),
            [true, false, false, true]
        );
        assert!(Scale::new("count", std::iter::empty(), 5_000).reaches(1));
        assert_eq!(super::text(4_718_592, "bytes"), "4.50MB");
        assert_eq!(super::text(-1_230_000_000, "nanoseconds"), "-1.23s");
    }
}
