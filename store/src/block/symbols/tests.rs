use std::path::Path;

use afterglow_profile::{Limits, compress, decode};
use proptest::prelude::*;

use super::{Interner, Label, NONE, Places, Symbols, frames};
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

/// Returns the unpacked frames, with numbers of labels apart or not; the ninth is empty where they are not.
fn unpacked_as(symbols: &Symbols, apart: Option<(Vec<Vec<u8>>, Vec<u8>)>) -> [Vec<u8>; frames::FRAMES] {
    let mut packer = Packer::new(1);
    let (labels, numbers) = apart.unzip();
    let frames = frames::encode(symbols, labels).map(|columns| {
        let mut bytes = Vec::new();
        let frame: Frame = packer.pack_columns(&mut bytes, &columns);
        frame.unpack(&bytes).expect("what was just packed unpacks")
    });
    let mut all = frames.into_iter().chain(numbers);
    std::array::from_fn(|_| all.next().unwrap_or_default())
}

fn unpacked(symbols: &Symbols) -> [Vec<u8>; frames::FRAMES] {
    unpacked_as(symbols, None)
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
    assert!(frames::decode(&unpacked(&interner.symbols), 2, true) == Ok(interner.symbols.clone()));
    for raw in raws() {
        intern(&mut interner, &raw);
        assert!(frames::decode(&unpacked(&interner.symbols), 2, true) == Ok(interner.symbols.clone()));
    }
}

#[test]
fn strings_may_hold_any_byte() {
    let mut interner = Interner::new();
    let mut push = |string: &[u8]| {
        interner.symbols.strings.push(string);
        assert!(frames::decode(&unpacked(&interner.symbols), 2, true) == Ok(interner.symbols.clone()));
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

/// Returns tables with these label sets, each a list of key and number; a text is that of its key.
fn tables_of(sets: &[Vec<(u32, i64)>]) -> Symbols {
    let mut interner = Interner::new();
    interner.shape(b"");
    for key in 1..6u8 {
        interner.symbols.strings.push(&[key]);
    }
    for set in sets {
        let label = |&(key, num)| Label { key, str: key % 2, num, num_unit: 0, shape: 0 };
        interner.label_set(set.iter().map(label));
    }
    interner.symbols
}

#[test]
fn what_a_sampler_of_threads_says_is_apart_as_steps() {
    let mut time = 1_795_502_155_294_922_381;
    let mut set = |i: i64| {
        // Four threads one after the other, then a pause.
        time += if i % 4 == 0 { 10_000_000 } else { 10_000 + i % 4 * 3000 } + i * i % 13;
        vec![(1, i % 4), (2, 9), (3, time)]
    };
    let sets: Vec<_> = (0..2000).map(&mut set).collect();
    let symbols = tables_of(&sets);
    let apart = frames::apart(&symbols).expect("times differ");
    assert!(apart.1.len() < 3 * 2000, "{} bytes of steps", apart.1.len());
    assert!(frames::decode(&unpacked_as(&symbols, Some(apart)), frames::NUMBERS_VERSION, true) == Ok(symbols.clone()));
    assert!(frames::decode(&unpacked(&symbols), frames::PLAIN_VERSION, true) == Ok(symbols));
}

#[test]
fn numbers_that_are_few_or_repeat_are_not_apart() {
    let apart = |sets: &[Vec<(u32, i64)>]| frames::apart(&tables_of(sets)).is_some();
    assert!(!apart(&(0..511).map(|i| vec![(1, i)]).collect::<Vec<_>>()));
    assert!(apart(&(0..512).map(|i| vec![(1, i)]).collect::<Vec<_>>()));
    // The second label tells the sets apart; the first has half as many numbers.
    assert!(!apart(&(0..511).flat_map(|i| [vec![(1, i / 2)], vec![(1, i / 2), (2, i)]]).collect::<Vec<_>>()));
}

proptest! {
    #[test]
    fn numbers_come_back_from_wherever_they_lie(
        sets in proptest::collection::vec(
            proptest::collection::vec((1u32..6, prop_oneof![0i64..5, any::<i64>()]), 1..5),
            500..1500,
        ),
        flip in any::<proptest::sample::Index>(),
        change in 1u8..,
    ) {
        let symbols = tables_of(&sets);
        if let Some(apart) = frames::apart(&symbols) {
            let mut frames = unpacked_as(&symbols, Some(apart));
            prop_assert!(frames::decode(&frames, frames::NUMBERS_VERSION, true) == Ok(symbols));
            prop_assert!(frames::decode(&frames, frames::PLAIN_VERSION, true).is_err(), "there is a column too many");
            for frame in [frames::LABELS, frames::FRAMES - 1] {
                let whole = frames[frame].clone();
                let at = flip.index(whole.len());
                frames[frame][at] = frames[frame][at].wrapping_add(change);
                if let Ok(symbols) = frames::decode(&frames, frames::NUMBERS_VERSION, true) {
                    check(&symbols);
                }
                frames[frame] = whole[..at].to_vec();
                prop_assert!(frames::decode(&frames, frames::NUMBERS_VERSION, true).is_err());
                frames[frame] = whole;
            }
        }
    }

    /// Checksums keep damage out; this is about frames that a faulty writer made.
    #[test]
    fn frames_of_a_faulty_writer_are_refused_or_harmless(
        frame in 0..frames::FRAMES_MIN,
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
        if let Ok(symbols) = frames::decode(&frames, 2, true) {
            check(&symbols);
        }
    }
}
