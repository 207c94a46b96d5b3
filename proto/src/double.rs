//! How a double is written in JSON.

use serde::{Serialize, Serializer};

/// A double by protobuf's JSON mapping, which has texts for what JSON has no number for.
pub(crate) struct Double(pub(crate) f64);

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            number if number.is_finite() => serializer.serialize_f64(number),
            number if number.is_nan() => serializer.serialize_str("NaN"),
            number if number < 0.0 => serializer.serialize_str("-Infinity"),
            _ => serializer.serialize_str("Infinity"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::{Regression, Spread};

    /// Goal: whoever reads an answer by protobuf's JSON mapping has the double that gRPC gives.
    #[test]
    fn what_is_no_number_in_json_is_a_text_and_comes_back() {
        for (change, text) in [
            (0.25, "0.25"),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
            (f64::NAN, "\"NaN\""),
        ] {
            let written = serde_json::to_string(&Regression { change, ..Regression::default() }).expect("JSON");
            assert!(written.contains(&format!("\"change\":{text},\"changeError\":0")), "{written}");
            let read: Regression = serde_json::from_str(&written).expect("what was written");
            assert_eq!(read.change.to_bits(), change.to_bits(), "{written}");
        }
        let spread = serde_json::to_string(&Spread { max: f64::INFINITY, ..Spread::default() }).expect("JSON");
        assert!(spread.contains("\"max\":\"Infinity\""), "{spread}");
    }
}
