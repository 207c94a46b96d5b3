//! Any text as what a request says beside its selector: times, durations, sizes, retention.

#![no_main]

use afterglow_service::config::ByteSize;
use afterglow_service::time;
use libfuzzer_sys::fuzz_target;

const NOW_NANOS: i64 = 1_795_000_000_000_000_000;

fuzz_target!(|text: &str| {
    if let Ok(nanos) = time::parse(text, NOW_NANOS) {
        assert_eq!(time::parse(&time::format(nanos), NOW_NANOS), Ok(nanos));
    }
    if let Ok(size) = text.parse::<ByteSize>() {
        _ = size.to_string();
    }
    _ = text.parse::<afterglow_store::StorageUrl>();
    _ = text.parse::<afterglow_store::retention::Rule>();
});
