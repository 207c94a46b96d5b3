//! pprof by hand: good profiles, and the means to spoil them.

use std::io::Write as _;

use afterglow_proto::v1::push_request::Part;
use afterglow_proto::v1::{Profile, ProfileChunk, ProfileHeader, PushRequest};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::NOW_NANOS;

/// A field with a number.
pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field with bytes: a string, a message, packed numbers.
pub(crate) fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

pub(crate) const SAMPLE_TYPE: u64 = 1;
pub(crate) const SAMPLE: u64 = 2;
pub(crate) const MAPPING: u64 = 3;
pub(crate) const LOCATION: u64 = 4;
pub(crate) const FUNCTION: u64 = 5;
pub(crate) const STRING: u64 = 6;
pub(crate) const TIME: u64 = 9;
pub(crate) const DURATION: u64 = 10;

/// The beginning of a profile: one sample type `cpu` in `nanoseconds`, the string table with a few names.
pub(crate) fn head() -> Vec<u8> {
    let strings = ["", "cpu", "nanoseconds", "main"].map(|text| bytes(STRING, text)).concat();
    [bytes(SAMPLE_TYPE, [number(1, 1), number(2, 2)].concat()), strings].concat()
}

/// The time of arrival and a duration of 10 s.
pub(crate) fn when() -> Vec<u8> {
    [number(TIME, NOW_NANOS as u64), number(DURATION, 10_000_000_000)].concat()
}

/// A function, a location in it and a sample there with this value.
pub(crate) fn body(value: u64) -> Vec<u8> {
    let line = bytes(4, number(1, 1));
    let function = bytes(FUNCTION, [number(1, 1), number(2, 3)].concat());
    let location = bytes(LOCATION, [number(1, 1), line].concat());
    [function, location, sample(value)].concat()
}

/// A sample at location 1.
pub(crate) fn sample(value: u64) -> Vec<u8> {
    bytes(SAMPLE, [bytes(1, [1]), bytes(2, varint(value))].concat())
}

/// A good profile, one for each `value`.
pub(crate) fn good(value: u64) -> Vec<u8> {
    [head(), when(), body(value)].concat()
}

/// A good beginning with something spoilt after it.
pub(crate) fn spoilt(rest: &[Vec<u8>]) -> Vec<u8> {
    [head(), when(), rest.concat()].concat()
}

pub(crate) fn gzip(data: impl AsRef<[u8]>) -> Vec<u8> {
    gzip_by(data.as_ref(), Compression::fast())
}

pub(crate) fn gzip_best(data: impl AsRef<[u8]>) -> Vec<u8> {
    gzip_by(data.as_ref(), Compression::best())
}

fn gzip_by(data: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

/// Bytes that gzip does not make smaller.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// The messages that send a profile in chunks of `each` bytes.
pub(crate) fn chunks(seq: u64, mut profile: Profile, each: usize) -> Vec<PushRequest> {
    let body = std::mem::take(&mut profile.pprof);
    let sha256 = Sha256::digest(&body).to_vec().into();
    let header = ProfileHeader { profile: Some(profile), size: body.len() as u64, sha256 };
    let mut messages = vec![PushRequest { seq, part: Some(Part::Header(header)), ..PushRequest::default() }];
    let mut rest = body;
    while !rest.is_empty() {
        let data = rest.split_to(each.min(rest.len()));
        messages.push(PushRequest { seq, part: Some(Part::Chunk(ProfileChunk { data })), ..PushRequest::default() });
    }
    messages
}
