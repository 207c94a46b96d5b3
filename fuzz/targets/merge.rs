//! Several profiles merged: sums are kept, the result is a sound profile, and merging it again changes nothing.

#![no_main]

use afterglow_fuzz::limits;
use afterglow_fuzz::sent;
use afterglow_profile::decode::decode;
use afterglow_profile::encode::encode;
use afterglow_profile::merge::Merger;
use libfuzzer_sys::fuzz_target;

const PROFILES_MAX: usize = 6;

fuzz_target!(|input: &[u8]| {
    let (mut merger, mut added) = (Merger::new(), Vec::new());
    for sent in sent(input, PROFILES_MAX) {
        let profile = decode(&sent.raw, &limits()).expect("it was decoded before");
        if merger.add(&profile).is_ok() {
            added.push(profile.totals().0);
        }
    }
    let merged = merger.finish();
    let profile = merged.profile();
    // A sum of equal stacks that passes 64 bits stops there, and says so.
    if let ([only], []) = (&added[..], merged.warnings()) {
        assert_eq!(profile.totals().0, *only);
    }
    if added.is_empty() {
        return;
    }
    let bytes = encode(&profile);
    let read = decode(&bytes, &limits()).expect("a merge is a sound profile");
    assert_eq!(read.totals(), profile.totals());
    let mut again = Merger::new();
    again.add(&read).expect("a merge can be merged");
    assert_eq!(again.finish().profile().totals(), profile.totals());
});
