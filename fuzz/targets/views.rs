//! What people look at, of any profile and with any patterns: no view panics, and whole ones add up to the totals.

#![no_main]

use afterglow_fuzz::{limits, parts, protobuf};
use afterglow_profile::decode::decode;
use afterglow_profile::filter::{Filter, Patterns};
use afterglow_profile::top::Top;
use afterglow_profile::tree::{FlameGraph, View};
use afterglow_profile::{diff, dot, folded};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let parts = parts(input, 10);
    let text = |i: usize| parts.get(i).map_or_else(String::new, |part| String::from_utf8_lossy(part).into_owned());
    let patterns = Patterns {
        focus: text(2),
        ignore: text(3),
        show: text(4),
        hide: text(5),
        show_from: text(6),
        tag_focus: text(7),
        tag_ignore: text(8),
        call_site: text(9).split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
    };
    let (raw, base) = (protobuf(parts[0]), protobuf(parts.get(1).copied().unwrap_or_default()));
    let Ok(mut profile) = decode(&raw, &limits()) else { return };
    if let Ok(filter) = Filter::new(&patterns) {
        filter.apply(&mut profile);
    }
    for t in 0..profile.sample_types.len() {
        let graph = FlameGraph::new(&profile, t, None);
        _ = (folded::of(&graph), folded::write(&profile, t), Top::new(&profile, t, Some(3)));
        _ = FlameGraph::view(&profile, t, View::Callers("main"), Some(4));
        _ = FlameGraph::view(&profile, t, View::Callees("main"), Some(4));
        _ = dot::write(&profile, t, dot::total(&profile, t), Some(5));
    }
    let Ok(base) = decode(&base, &limits()) else { return };
    let Ok(aligned) = diff::align(&profile, &base) else { return };
    let (mut left, right) = match &aligned {
        Some((left, right)) => (left.profile(), right.profile()),
        None => (profile, base),
    };
    diff::normalize(&mut left, &right);
    _ = diff::subtract(&left, right.clone());
    if !left.sample_types.is_empty() {
        // Their period types may still differ.
        if let Ok(pair) = diff::pair(left, right, 0) {
            _ = (FlameGraph::diff(&pair.profile(), Some(5)), Top::diff(&pair.profile(), None));
        }
    }
});
