//! Any bytes as a body: gzip or not, they inflate within the limits or are refused.

#![no_main]

use afterglow_fuzz::limits;
use afterglow_profile::compress::{gzip, inflate};
use afterglow_profile::decode::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = limits();
    let Ok(raw) = inflate(input, &limits) else { return };
    assert!(raw.len() as u64 <= limits.inflated_bytes_max.max(input.len() as u64));
    _ = decode(&raw, &limits);
    // A body that is gzip itself is refused in gzip, whatever is in it.
    if !raw.starts_with(&[0x1f, 0x8b]) {
        let again = gzip(&raw);
        assert_eq!(inflate(&again, &limits).expect("what was compressed inflates"), raw);
    }
});
