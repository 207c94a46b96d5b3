//! `google.protobuf.Timestamp`, with the JSON that protobuf's mapping asks for: RFC 3339 in UTC, ending in `Z`, with 0, 3, 6 or 9 digits
//! of a second's fraction.
//!
//! The type of the crate that generates the rest writes `+00:00`, which is right as well, but not what `jq`'s `fromdate` reads.

use std::fmt;

use jiff::Timestamp as Moment;
use serde::de::Visitor;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment: seconds since 1970, and nanoseconds of the next second, which are never negative.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z, from the year 1 to 9999.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds, from 0 to 999,999,999, that count forward also before 1970.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let moment = Moment::from_second(self.seconds).map_err(S::Error::custom)?;
        let digits = match self.nanos {
            0 => 0,
            nanos if nanos % 1_000_000 == 0 => 3,
            nanos if nanos % 1_000 == 0 => 6,
            _ => 9,
        };
        let moment =
            moment.checked_add(jiff::SignedDuration::from_nanos(self.nanos.into())).map_err(S::Error::custom)?;
        serializer.collect_str(&format_args!("{moment:.digits$}"))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time as RFC 3339 writes it")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
        let moment: Moment = text.parse().map_err(E::custom)?;
        let nanos = moment.as_nanosecond();
        let per_second = 1_000_000_000;
        let seconds = i64::try_from(nanos.div_euclid(per_second)).map_err(E::custom)?;
        Ok(Timestamp { seconds, nanos: nanos.rem_euclid(per_second) as i32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_what_the_mapping_asks_for_and_reads_back() {
        for (seconds, nanos, text) in [
            (1_795_559_000, 0, "2026-11-24T22:23:20Z"),
            (1_795_559_000, 500_000_000, "2026-11-24T22:23:20.500Z"),
            (1_795_559_000, 1_000, "2026-11-24T22:23:20.000001Z"),
            (1_795_559_000, 123_456_789, "2026-11-24T22:23:20.123456789Z"),
            (0, 0, "1970-01-01T00:00:00Z"),
            (-1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
            (-1, 500_000_000, "1969-12-31T23:59:59.500Z"),
        ] {
            let time = Timestamp { seconds, nanos };
            assert_eq!(serde_json::to_value(time).expect("in range"), text);
            assert_eq!(serde_json::from_value::<Timestamp>(text.into()).expect("a time"), time);
        }
    }

    #[test]
    fn any_offset_is_read_and_nonsense_refused() {
        let read = |text: &str| serde_json::from_value::<Timestamp>(text.into());
        let noon = Timestamp { seconds: 1_795_559_000, nanos: 0 };
        assert_eq!(read("2026-11-24T23:23:20+01:00").expect("a time"), noon);
        assert_eq!(read("2026-11-24T22:23:20+00:00").expect("a time"), noon);
        for text in ["", "yesterday", "2026-11-24", "1795559000"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(serde_json::to_value(Timestamp { seconds: i64::MAX, nanos: 0 }).is_err());
    }
}
