//! What must hold of whatever was accepted.

use afterglow_profile::model::{Layout, Profile};
use afterglow_profile::{Limits, decode, encode};

/// Returns the profile without what only its encoder chose.
pub(crate) fn meaning<'a>(profile: &Profile<'a>) -> Profile<'a> {
    let mut profile = profile.clone();
    profile.layout = Layout::default();
    profile.sample_types.iter_mut().chain(&mut profile.period_type).for_each(|t| t.shape = 0);
    profile.samples.shapes.iter_mut().for_each(|shape| *shape = 0);
    profile.samples.labels.iter_mut().for_each(|label| label.shape = 0);
    profile.mappings.iter_mut().for_each(|mapping| mapping.shape = 0);
    profile.locations.iter_mut().for_each(|location| location.shape = 0);
    profile.lines.iter_mut().for_each(|line| line.shape = 0);
    profile.functions.iter_mut().for_each(|function| function.shape = 0);
    profile
}

/// Checks what must hold of any accepted bytes: exact ones are written back as they were, and the meaning survives our own encoding.
pub(crate) fn check_accepted(bytes: &[u8], profile: &Profile<'_>) {
    if profile.layout.exact {
        let mut out = b"before".to_vec();
        encode::encode_exact(profile, &mut out).expect("an exact layout can be replayed");
        assert!(out.strip_prefix(b"before") == Some(bytes), "not written back as it was");
    }
    let canonical = encode::encode(profile);
    let again = decode::decode(&canonical, &Limits::default()).expect("what we write we read");
    assert!(again.layout.exact, "what we write is exact");
    assert!(meaning(&again) == meaning(profile), "the meaning has changed");
}
