//! Any bytes as a profile: refused, or written again exactly where they can be, and with the same content always.

#![no_main]

use afterglow_fuzz::{limits, protobuf};
use afterglow_profile::decode::decode;
use afterglow_profile::encode::{encode, encode_exact};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let raw = protobuf(input);
    let Ok(profile) = decode(&raw, &limits()) else { return };
    let mut exact = Vec::new();
    if encode_exact(&profile, &mut exact).is_ok() {
        assert_eq!(exact, raw);
    }
    let again = encode(&profile);
    let same = decode(&again, &limits()).expect("what was encoded decodes");
    assert_eq!(same.totals(), profile.totals());
    assert_eq!(encode(&same), again);
});
