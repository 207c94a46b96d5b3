//! Any bytes as a commit or a snapshot: refused, or the same when written again.

#![no_main]

use afterglow_store::testing::readers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0, rest)) => _ = readers::commit(rest),
        Some((_, rest)) => _ = readers::snapshot(rest),
        None => {}
    }
});
