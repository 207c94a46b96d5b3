//! Filters by the labels of samples: `tag_focus` and `tag_ignore`, which pprof calls tagfocus and tagignore.
//!
//! A filter is a pattern for `key:value` of string labels, several with commas between all of which must match; or `key=pattern` for
//! the values of one key, of several any; or a range of numbers such as `64kb`, `1ms:`, `:10` or `key=1kb:2mb`, ends included. Units
//! convert. As in pprof, all numbers under a key have the key's first unit, and a unit that is no measure of bytes or time matches any.

use hashbrown::HashMap;
use regex::bytes::Regex;

use super::{Error, check_length, compile};
use crate::{
    model::{Profile, SampleLabel},
    units::{self, Family},
};

/// A filter of samples by their labels.
#[derive(Clone, Debug)]
pub(super) struct TagFilter {
    /// The key whose labels are meant; none for any.
    key: Option<String>,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    Patterns(Vec<Regex>),
    Numbers(Range),
}

/// A range of numbers, ends included, in the smallest unit of its family or as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    low: i128,
    high: i128,
    /// The family of the unit, and its size.
    unit: Option<(Family, i128)>,
}

/// The unit of the numbers under each key.
pub(super) struct Units<'a>(HashMap<&'a [u8], &'a [u8]>);

// === impl TagFilter ===

impl TagFilter {
    /// Parses a filter; none of an empty text.
    pub(super) fn parse(field: &'static str, text: &str) -> Result<Option<Self>, Error> {
        check_length(field, text)?;
        if text.is_empty() {
            return Ok(None);
        }
        let (key, value) = match text.split_once('=') {
            // An empty key is none, as in pprof.
            Some((key, value)) => (Some(key.to_owned()).filter(|key| !key.is_empty()), value),
            None => (None, text),
        };
        let values = match Range::parse(field, value)? {
            Some(range) => Values::Numbers(range),
            None => {
                Values::Patterns(value.split(',').map(|pattern| compile(field, pattern)).collect::<Result<_, _>>()?)
            }
        };
        Ok(Some(Self { key, values }))
    }

    /// Returns whether a sample with these labels is meant.
    pub(super) fn matches(&self, profile: &Profile<'_>, labels: &[SampleLabel], units: &Units<'_>) -> bool {
        let is_asked =
            |label: &&SampleLabel| self.key.as_ref().is_none_or(|key| profile.string(label.key) == key.as_bytes());
        match &self.values {
            Values::Numbers(range) => labels
                .iter()
                .filter(|label| is_number(label))
                .filter(is_asked)
                .any(|label| range.contains(label.num, units.of(profile.string(label.key)))),
            Values::Patterns(patterns) => {
                let texts = || labels.iter().filter(|label| label.str != 0).filter(is_asked);
                if self.key.is_some() {
                    let values: Vec<_> = texts().map(|label| profile.string(label.str)).collect();
                    return patterns.iter().any(|pattern| values.iter().any(|value| pattern.is_match(value)));
                }
                let pairs: Vec<_> =
                    texts().map(|label| [profile.string(label.key), profile.string(label.str)].join(&b':')).collect();
                patterns.iter().all(|pattern| pairs.iter().any(|pair| pattern.is_match(pair)))
            }
        }
    }
}

// === impl Range ===

impl Range {
    /// Parses a range; none of what is not written as one.
    fn parse(field: &'static str, text: &str) -> Result<Option<Self>, Error> {
        let (low, high) = match text.split_once(':') {
            Some(ends) => ends,
            None => (text, text),
        };
        let (Some(low), Some(high)) = (End::split(low), End::split(high)) else { return Ok(None) };
        // The first end that is not open says the unit.
        let ((End::At { unit, .. }, _) | (End::Open, End::At { unit, .. })) = (low, high) else { return Ok(None) };
        let unit = units::find(unit.as_bytes());
        // The other may be in another unit of the family, or in none that is a measure; otherwise this is no range.
        let resolve = |end, open| {
            let End::At { number, unit: own } = end else { return Ok(Some(open)) };
            let size = match (units::find(own.as_bytes()), unit) {
                (Some((family, size)), Some((ours, _))) if family == ours => size,
                (Some(_), _) => return Ok(None),
                (None, unit) => unit.map_or(1, |(_, size)| size),
            };
            let parsed: i64 = number.parse().map_err(|_| Error::Number { field, number: number.to_owned() })?;
            Ok(Some(i128::from(parsed) * size))
        };
        let (Some(low), Some(high)) = (resolve(low, i128::MIN)?, resolve(high, i128::MAX)?) else { return Ok(None) };
        Ok(Some(Self { low, high, unit }))
    }

    fn contains(&self, number: i64, unit: &[u8]) -> bool {
        let factor = match (units::find(unit), self.unit) {
            (Some((family, size)), Some((ours, _))) if family == ours => size,
            (Some(_), _) => return false,
            (None, unit) => unit.map_or(1, |(_, size)| size),
        };
        (self.low..=self.high).contains(&(i128::from(number) * factor))
    }
}

/// An end of a range as it is written.
#[derive(Clone, Copy)]
enum End<'t> {
    Open,
    At { number: &'t str, unit: &'t str },
}

impl<'t> End<'t> {
    /// Splits `-12kb` in two; none of what is not written like that.
    fn split(text: &'t str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Open);
        }
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let unit = digits.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_end = unit.len() < digits.len() && unit.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_end.then(|| Self::At { number: &text[..text.len() - unit.len()], unit })
    }
}

// === impl Units ===

impl<'a> Units<'a> {
    /// Finds the unit of the numbers under each key: the first that a sample says.
    pub(super) fn new(profile: &Profile<'a>) -> Self {
        let mut units = HashMap::new();
        for label in profile.samples.labels.iter().filter(|label| is_number(label) && label.num_unit != 0) {
            units.entry(profile.string(label.key)).or_insert(profile.string(label.num_unit));
        }
        Self(units)
    }

    /// Returns the unit of the numbers under `key`. Where no sample says one, the key is taken for it, as pprof does.
    fn of<'s>(&'s self, key: &'s [u8]) -> &'s [u8] {
        match (self.0.get(key), key) {
            (Some(unit), _) => unit,
            (None, b"alignment" | b"request") => b"bytes",
            (None, key) => key,
        }
    }
}

/// Returns whether a label is a number. One with neither string, number nor unit is no label.
fn is_number(label: &SampleLabel) -> bool {
    label.str == 0 && (label.num != 0 || label.num_unit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Option<Range> {
        Range::parse("tag_focus", text).expect("the numbers fit")
    }

    #[test]
    fn ranges_are_what_pprof_takes_for_ranges() {
        let (bytes, plain) = (Some((Family::Bytes, 1 << 10)), None);
        assert_eq!(range("32kb"), Some(Range { low: 32 << 10, high: 32 << 10, unit: bytes }));
        assert_eq!(range(":64kb"), Some(Range { low: i128::MIN, high: 64 << 10, unit: bytes }));
        assert_eq!(range("2kb:1mb"), Some(Range { low: 2 << 10, high: 1 << 20, unit: bytes }));
        assert_eq!(range("-4:"), Some(Range { low: -4, high: i128::MAX, unit: plain }));
        assert_eq!(range("12kb:64"), Some(Range { low: 12 << 10, high: 64 << 10, unit: bytes }));
        for text in ["", ":", "a", "1:2:3", "12kb-64kb", "1s:2kb", "12:64mb", "4 kb", "1.5"] {
            assert_eq!(range(text), None, "{text}");
        }
        let error = Range::parse("tag_focus", "99999999999999999999:").unwrap_err();
        assert_eq!(error.to_string(), "tag_focus: 99999999999999999999 does not fit in 64 bits");
    }

    #[test]
    fn numbers_are_compared_in_one_unit() {
        let contains = |text, number, unit: &str| range(text).expect("a range").contains(number, unit.as_bytes());
        assert!(contains("1kb:2kb", 1024, "bytes") && contains("1kb:2kb", 2, "kilobytes"));
        assert!(!contains("1kb:2kb", 1023, "bytes") && !contains("1kb:2kb", 1, "seconds"));
        // A number without a measure is as good as any, but a measure does not match a plain number.
        assert!(contains("1kb:2kb", 2, "widgets") && contains("2", 2, "widgets"));
        assert!(!contains("2", 2, "bytes"));
    }
}
