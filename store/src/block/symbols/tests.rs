use std::path::Path;

use afterglow_profile::{Limits, compress, decode};
use proptest::prelude::*;

use super::{Interner, NONE, Places, Symbols, frames};
use crate::block::frame::{Frame, Packer};

/// Returns the protobuf bytes of some fixtures, all of one program.
fn raws() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/producers/go");
    let names = ["a-cpu", "a-heap", "a-mutex", "b-cpu", "b-heap", "b-mutex"];
    let body = |name| std::fs::read(folder.join(format!("{name}.pb.gz"))).expect("the fixture is there");
    let inflated = |body: Vec<u8>| compress::inflate(&body, &Limits::default()).expect("it inflates").into_owned();
    names.into_iter().map(body).map(inflated).collect()
}

/// Adds everything of a profile to tables and returns where its entities and stacks went.
fn intern(interner: &mut Interner, raw: &[u8]) -> (Places, Vec<u32>) {
    let profile = decode::decode(raw, &Limits::default()).expect("it decodes");
    let (mut places, mut stacks) = (Places::default(), Vec::new());
    interner.entities(&profile, &mut places);
    interner.stacks(&profile.samples, &places.locations, |stack| stacks.push(stack)).expect("they are few");
    (0..profile.samples.len()).for_each(|i| _ = interner.sample_labels(profile.samples.labels(i), &places));
    interner.header(&profile, &places);
    interner.pattern(b"some order");
    (places, stacks)
}

fn unpacked(symbols: &Symbols) -> [Vec<u8>; frames::FRAMES] {
    let mut packer = Packer::new(1);
    frames::encode(symbols).map(|columns| {
        let mut bytes = Vec::new();
        let frame: Frame = packer.pack_columns(&mut bytes, &columns);
        frame.unpack(&bytes).expect("what was just packed unpacks")
    })
}

#[test]
fn equal_profiles_have_equal_places_and_add_nothing() {
    let mut interner = Interner::new();
    for raw in raws() {
        let first = intern(&mut interner, &raw);
        let before = interner.symbols.clone();
        let (again, stacks) = intern(&mut interner, &raw);
        assert_eq!((&again.strings, &again.locations, &stacks), (&first.0.strings, &first.0.locations, &first.1));
        assert!(interner.symbols == before);
    }
}

#[test]
fn a_stack_is_found_again_by_its_nodes() {
    let mut interner = Interner::new();
    for raw in raws() {
        let (places, stacks) = intern(&mut interner, &raw);
        let profile = decode::decode(&raw, &Limits::default()).expect("it decodes");
        for (i, stack) in stacks.into_iter().enumerate() {
            let locations = profile.samples.stack(i).iter().map(|&local| places.locations[local as usize]);
            assert!(interner.symbols.nodes_of(stack).map(|(_, location)| location).eq(locations));
        }
    }
}

#[test]
fn what_is_undone_leaves_no_trace() {
    let raws = raws();
    let mut interner = Interner::new();
    intern(&mut interner, &raws[0]);
    for raw in &raws {
        let (before, mark) = (interner.symbols.clone(), interner.mark());
        intern(&mut interner, raw);
        interner.undo(mark);
        assert!(interner.symbols == before);
    }
    // The indexes forgot what was undone too: later profiles are found or added as if it had never been there.
    let mut other = Interner::new();
    for raw in &raws {
        let mark = interner.mark();
        intern(&mut interner, &raws[5]);
        interner.undo(mark);
        intern(&mut interner, raw);
        intern(&mut other, raw);
        assert!(interner.symbols == other.symbols);
    }
}

#[test]
fn tables_come_back_from_their_frames() {
    let mut interner = Interner::new();
    assert!(frames::decode(&unpacked(&interner.symbols), 2) == Ok(interner.symbols.clone()));
    for raw in raws() {
        intern(&mut interner, &raw);
        assert!(frames::decode(&unpacked(&interner.symbols), 2) == Ok(interner.symbols.clone()));
    }
}

#[test]
fn strings_may_hold_any_byte() {
    let mut interner = Interner::new();
    let mut push = |string: &[u8]| {
        interner.symbols.strings.push(string);
        assert!(frames::decode(&unpacked(&interner.symbols), 2) == Ok(interner.symbols.clone()));
    };
    push(b"\0");
    push(b"");
    // Without a byte to end a string with, lengths are written.
    push(&(0..=255).collect::<Vec<u8>>());
    push(b"after");
}

/// Checks what others rely on.
fn check(symbols: &Symbols) {
    let below = |index: u32, len: usize| assert!((index as usize) < len);
    let option = |index: u32, len: usize| assert!(index == NONE || (index as usize) < len);
    let strings = symbols.strings.len();
    for f in &symbols.functions {
        [f.name, f.system_name, f.file].into_iter().for_each(|string| below(string, strings));
    }
    symbols.mappings.iter().for_each(|m| [m.file, m.build_id].into_iter().for_each(|string| below(string, strings)));
    let mut end = 0;
    for l in &symbols.locations {
        option(l.mapping, symbols.mappings.len());
        assert!(end <= l.lines_end);
        end = l.lines_end;
    }
    assert_eq!(end as usize, symbols.lines.len());
    symbols.lines.iter().for_each(|line| option(line.function, symbols.functions.len()));
    for (node, n) in symbols.nodes.iter().zip(1..) {
        assert!(node.parent < n);
        below(node.location, symbols.locations.len());
    }
    symbols.leaves.iter().for_each(|&leaf| below(leaf, symbols.nodes.len() + 1));
    (0..symbols.headers.len() as u32).for_each(|header| drop(symbols.header(header).expect("headers are checked")));
}

proptest! {
    /// Checksums keep damage out; this is about frames that a faulty writer made.
    #[test]
    fn frames_of_a_faulty_writer_are_refused_or_harmless(
        frame in 0..frames::FRAMES,
        at in any::<proptest::sample::Index>(),
        changes in proptest::collection::vec(any::<u8>(), 1..4),
    ) {
        let mut interner = Interner::new();
        for raw in raws().iter().take(2) {
            intern(&mut interner, raw);
        }
        let mut frames = unpacked(&interner.symbols);
        let at = at.index(frames[frame].len());
        for (byte, change) in frames[frame][at..].iter_mut().zip(changes) {
            *byte = byte.wrapping_add(change);
        }
        if let Ok(symbols) = frames::decode(&frames, 2) {
            check(&symbols);
        }
    }
}
