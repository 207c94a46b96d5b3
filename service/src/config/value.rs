//! The types of values that settings have beyond those of the standard library.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes, written `32MiB`, `1.5GiB`, `64kB` or `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Units by their names; a bare `M` is not among them, for it means two things.
const UNITS: [(&str, u64); 13] = [
    ("", 1),
    ("b", 1),
    ("kib", KIB),
    ("ki", KIB),
    ("mib", MIB),
    ("mi", MIB),
    ("gib", GIB),
    ("gi", GIB),
    ("tib", TIB),
    ("ti", TIB),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
];

/// Says that a text is no number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: give bytes, or a number with kB, MB, GB, KiB, MiB, GiB or TiB, such as 32MiB")]
pub struct ByteSizeError(String);

// === impl ByteSize ===

impl ByteSize {
    /// Creates a size of `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n * KIB)
    }

    /// Creates a size of `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n * MIB)
    }

    /// Returns the number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Says a size that is beyond `limit`: to the byte where people would read it like that.
    pub(crate) fn beyond(self, limit: Self) -> String {
        let shown = self.to_string();
        if shown == limit.to_string() { format!("{} B", self.0) } else { shown }
    }

    /// Returns the number of bytes as the size of something in memory; what memory cannot hold becomes the most it can.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let error = || ByteSizeError(text.to_owned());
        let trimmed = text.trim();
        let unit_at = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(unit_at);
        let unit = unit.trim().to_ascii_lowercase();
        let (_, factor) = *UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(error);
        }
        let bytes = number.parse::<f64>().map_err(|_| error())? * factor as f64;
        // Fractions are for people; up to 2^53 they are exact enough, beyond nobody means them.
        if bytes.is_finite() && bytes < (1_u64 << 53) as f64 { Ok(Self(bytes as u64)) } else { Err(error()) }
    }
}

impl fmt::Display for ByteSize {
    /// Writes for people, with one digit after the point where it is not 0: `32 MiB`, `41.2 MiB`, `512 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, unit) in [("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)] {
            // Half a tenth less than the unit rounds up to it: 1023.96 KiB is 1 MiB.
            if self.0 >= unit - unit / 20_480 {
                let tenths = (u128::from(self.0) * 10 + u128::from(unit) / 2) / u128::from(unit);
                let (whole, tenth) = (tenths / 10, tenths % 10);
                return if tenth == 0 { write!(f, "{whole} {name}") } else { write!(f, "{whole}.{tenth} {name}") };
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// Returns what is wrong with a duration that is outside of its bounds, both allowed.
pub fn not_within(name: &str, value: Duration, least: Duration, most: Duration) -> Option<String> {
    let [given, least_text, most_text] = [value, least, most].map(humantime::format_duration);
    if value < least {
        return Some(format!("{name} {given} is below {least_text}"));
    }
    (value > most).then(|| format!("{name} {given} is above {most_text}"))
}

/// Returns what is wrong with a size that is over its bound.
pub fn too_large(name: &str, value: ByteSize, most: ByteSize) -> Option<String> {
    (value > most).then(|| format!("{name} {} is above {most}", value.beyond(most)))
}

/// A text that is neither logged nor printed, such as a token. White space around it is none of it, as in files of tokens: what an orchestrator
/// puts into the environment ends in the line break of the file that it comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

// === impl Secret ===

impl Secret {
    /// What stands where the secret would.
    pub const MASK: &'static str = "<secret>";

    /// Returns the secret; whoever calls this answers for where it goes.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::MASK)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.trim().to_owned())
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::from(text.to_owned()))
    }
}

/// Masks the password of a URL that has one; `s3://key:secret@bucket` and the like.
pub fn mask_password(text: &str) -> String {
    let masked = || {
        let (scheme, rest) = text.split_once("://")?;
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let (user, host) = authority.rsplit_once('@')?;
        let (name, _) = user.split_once(':')?;
        Some(format!("{scheme}://{name}:{}@{host}{}", Secret::MASK, &rest[authority.len()..]))
    };
    masked().unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: sizes read as operators write them, and what could mean two things is refused.
    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("12B", 12),
            ("32MiB", 32 << 20),
            ("32 MiB", 32 << 20),
            ("32Mi", 32 << 20),
            ("32mib", 32 << 20),
            ("64kB", 64_000),
            ("1.5GiB", 3 << 29),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1M", "1.2.3MiB", "many", "99999999TiB", "9e99"] {
            assert_eq!(text.parse::<ByteSize>(), Err(ByteSizeError(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (32 << 20, "32 MiB"),
            (43_200_000, "41.2 MiB"),
            ((1 << 20) - 1, "1 MiB"),
            (u64::from(u32::MAX), "4 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn bounds_are_named_with_the_value() {
        let [second, day] = [1, 24 * 3600].map(Duration::from_secs);
        let problem = |value| not_within("self-profile-period", value, second, day);
        assert_eq!(problem(Duration::ZERO).as_deref(), Some("self-profile-period 0s is below 1s"));
        assert_eq!(problem(day * 2).as_deref(), Some("self-profile-period 2days is above 1day"));
        assert_eq!([problem(second), problem(day)], [None, None]);
        let size = too_large("limits.max-body", ByteSize(1 << 40), ByteSize::mib(1024));
        assert_eq!(size.as_deref(), Some("limits.max-body 1 TiB is above 1 GiB"));
    }

    #[test]
    fn secrets_stay_secret() {
        let secret: Secret = "hunter2".parse().expect("any text");
        assert_eq!(format!("{secret:?}"), "<secret>");
        assert_eq!(secret.reveal(), "hunter2");
    }

    /// Symptom: a token from a Secret of Kubernetes, made of the file that `afterglow token` writes, was refused for its line break.
    #[test]
    fn white_space_around_a_secret_is_none_of_it() {
        for text in ["agw_1\n", "agw_1\r\n", " agw_1 "] {
            assert_eq!(Secret::from(text.to_owned()).reveal(), "agw_1");
            assert_eq!(text.parse::<Secret>().expect("any text").reveal(), "agw_1");
        }
    }

    #[test]
    fn passwords_in_urls_are_masked() {
        assert_eq!(mask_password("s3://id:hunter2@bucket/a?b"), "s3://id:<secret>@bucket/a?b");
        for text in ["s3://bucket/a:b@c", "file:///var/lib/afterglow", "https://user@host/", "a:b@c", ""] {
            assert_eq!(mask_password(text), text);
        }
    }
}
