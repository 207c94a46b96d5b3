//! Small segments of small profiles, for tests that care where profiles lie and not what is in them.

use afterglow_profile::decode::decode;
use afterglow_profile::encode::encode;
use afterglow_profile::limits::Limits;
use afterglow_profile::model::{Function, Line, Location, NONE, Profile, Samples, ValueType};
use afterglow_profile::{Labels, ProfileType};
use bytes::Bytes;
use ulid::Ulid;

use crate::block::{Options, ProfileMeta, SegmentWriter};

/// A profile as a test speaks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The id, as a number.
    pub id: u128,
    /// The type.
    pub profile_type: ProfileType,
    /// The labels, `service` among them.
    pub labels: Labels,
    /// When it was taken, in nanoseconds since 1970.
    pub time_nanos: i64,
    /// The one value of its one sample, which makes its bytes others'.
    pub value: i64,
}

impl Sent {
    /// Makes a CPU profile of a service, with these further labels.
    pub fn new(id: u128, service: &str, more: &[(&str, &str)], time_nanos: i64) -> Self {
        let labels = more.iter().copied().chain([("service", service)]);
        Self {
            id,
            profile_type: ProfileType::parse("cpu").expect("a known type"),
            labels: Labels::new(labels).expect("a test's labels are valid"),
            time_nanos,
            value: 1,
        }
    }

    /// Returns it with another type.
    pub fn of_type(self, profile_type: &str) -> Self {
        Self { profile_type: ProfileType::parse(profile_type).expect("a test's types are valid"), ..self }
    }

    /// Returns it with another value.
    pub fn with_value(self, value: i64) -> Self {
        Self { value, ..self }
    }

    /// Returns its protobuf.
    pub fn pprof(&self) -> Vec<u8> {
        let strings: Vec<&[u8]> = vec![b"", b"cpu", b"nanoseconds", b"main"];
        encode(&Profile {
            sample_types: vec![ValueType { kind: 1, unit: 2, shape: 0 }],
            samples: Samples {
                location_ends: vec![1],
                locations: vec![0],
                values: vec![self.value],
                label_ends: vec![0],
                labels: Vec::new(),
                shapes: vec![0],
            },
            locations: vec![Location { id: 1, mapping: NONE, lines_end: 1, ..Location::default() }],
            lines: vec![Line { function: 0, line: 7, ..Line::default() }],
            functions: vec![Function { id: 1, name: 3, ..Function::default() }],
            strings,
            time_nanos: self.time_nanos,
            ..Profile::default()
        })
    }
}

/// Makes a segment of these profiles.
///
/// # Panics
/// Where the writer refuses one.
pub fn segment(profiles: &[Sent]) -> Bytes {
    let mut writer = SegmentWriter::new(Options::default());
    for sent in profiles {
        let raw = sent.pprof();
        let profile = decode(&raw, &Limits::default()).expect("what was encoded decodes");
        let meta = ProfileMeta {
            id: Ulid::from(sent.id),
            profile_type: sent.profile_type.clone(),
            labels: sent.labels.clone(),
            time_nanos: sent.time_nanos,
            duration_nanos: 0,
        };
        writer.add(meta, &raw, &profile).expect("the writer takes a small profile");
    }
    writer.finish().expect("the writer takes a few profiles").bytes
}
