//! Profiles written by hand: a line a stack.

use afterglow_profile::{
    Profile,
    model::{Function, Line, Location, Mapping, NONE, Samples, ValueType},
};

/// Returns a profile of stacks written as `root;child;leaf`, each function a location. Frames joined by `+` are one location, the
/// right one inlined into the left; a frame in brackets is a location in that file without a function.
pub(crate) fn profile(stacks: &[(&'static str, i64)]) -> Profile<'static> {
    let mut profile = Profile {
        sample_types: vec![ValueType::default()],
        strings: vec![b""],
        samples: Samples { shapes: vec![0; stacks.len()], label_ends: vec![0; stacks.len()], ..Samples::default() },
        ..Profile::default()
    };
    for &(stack, value) in stacks {
        for frame in stack.split(';').rev().filter(|frame| !frame.is_empty()) {
            let (lines_start, mut mapping) = (profile.lines.len() as u32, NONE);
            match frame.strip_prefix('[').and_then(|file| file.strip_suffix(']')) {
                Some(file) => {
                    profile.strings.push(file.as_bytes());
                    let file = profile.strings.len() as u32 - 1;
                    profile.mappings.push(Mapping { file, ..Mapping::default() });
                    mapping = profile.mappings.len() as u32 - 1;
                }
                None => {
                    for name in frame.split('+').rev() {
                        profile.strings.push(name.as_bytes());
                        let name = profile.strings.len() as u32 - 1;
                        profile.functions.push(Function { name, ..Function::default() });
                        let function = profile.functions.len() as u32 - 1;
                        profile.lines.push(Line { function, ..Line::default() });
                    }
                }
            }
            let lines_end = profile.lines.len() as u32;
            profile.locations.push(Location { mapping, lines_start, lines_end, ..Location::default() });
            profile.samples.locations.push(profile.locations.len() as u32 - 1);
        }
        profile.samples.location_ends.push(profile.samples.locations.len() as u32);
        profile.samples.values.push(value);
    }
    profile
}
